"""Text tomorrow's clients, call those who do not answer, and e-mail the front desk."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, task

from airflow_provider_apptoto.operators.apptoto import (
    ApptotoListEventsOperator,
    ApptotoSendMessageBatchOperator,
)
from airflow_provider_apptoto.sensors.apptoto import ApptotoAnswerSensor

ZONE = "America/Los_Angeles"
REPLIES = {
    "yes": r"^\s*(1|y|yes)\b",
    "no": r"^\s*(2|n|no)\b",
    "stop": r"^\s*stop\b",
    "question": ".*",
}

with DAG(
    dag_id="example_apptoto_escalation",
    schedule="0 12 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz=ZONE),
    catchup=False,
    # How long each wait for answers takes, in seconds.
    params={"wait_after_texts": 2 * 60 * 60, "wait_after_calls": 60 * 60},
    tags=["example", "apptoto"],
) as dag:

    @task
    def tomorrow(
        data_interval_end: Any = None, logical_date: Any = None, dag_run: Any = None
    ) -> dict[str, str]:
        """Return when tomorrow begins and ends.

        A run that was started through the REST API may have neither a data interval
        nor a logical date. On Airflow 2, a run that was started by hand in the morning
        has the data interval that ended yesterday.
        """
        given = (data_interval_end, logical_date)
        times = [time for time in given if time is not None] or [dag_run.run_after]
        day = pendulum.instance(max(times)).in_timezone(ZONE).add(days=1)
        return {
            "begin": day.start_of("day").isoformat(),
            "end": day.end_of("day").isoformat(),
        }

    day: Any = tomorrow()

    # If some messages could not be sent, the answers to the others still count.
    @task(trigger_rule="all_done")
    def in_seconds(seconds: str) -> str:
        """Return when the wait ends.

        It begins after the messages are sent, however late. Retries keep the same end.
        """
        return str(pendulum.now("UTC").add(seconds=int(seconds)).isoformat())

    events = ApptotoListEventsOperator(
        task_id="events",
        begin=day["begin"],
        end=day["end"],
        states=["initial", "accepted", "reminded"],
    )
    text = ApptotoSendMessageBatchOperator(
        task_id="text",
        messages=events.output,
        defaults={
            "type": "sms",
            "message": (
                "Hi {{ name }}, are you coming "
                "{{ event.start_time | date_and_time_phrase }}? Reply YES or NO."
            ),
        },
        reference_column="external_id",
        only_if_state=True,
    )
    end_of_texts: Any = in_seconds.override(task_id="end_of_texts")(
        "{{ params.wait_after_texts }}"
    )
    answers_to_texts = ApptotoAnswerSensor(
        task_id="answers_to_texts",
        appointments=events.output,
        replies=REPLIES,
        deadline=end_of_texts,
        deferrable=True,
    )
    texts: Any = answers_to_texts.output
    call = ApptotoSendMessageBatchOperator(
        task_id="call",
        messages=texts["unanswered"],
        defaults={
            "type": "call",
            "message": (
                "Please confirm your appointment "
                "{{ event.start_time | date_and_time_phrase }}."
            ),
        },
        reference_column="external_id",
        only_if_state=True,
    )
    end_of_calls: Any = in_seconds.override(task_id="end_of_calls")(
        "{{ params.wait_after_calls }}"
    )
    answers_to_calls = ApptotoAnswerSensor(
        task_id="answers_to_calls",
        appointments=texts["unanswered"],
        replies=REPLIES,
        deadline=end_of_calls,
        deferrable=True,
    )
    text >> end_of_texts
    call >> end_of_calls

    @task
    def mail(texts: Any, calls: Any) -> list[dict[str, str]]:
        """Return the e-mail to the front desk, if one is needed. It has only ids."""
        silent = [
            f"{row['start_time']}: event {row['event_id']}"
            for row in calls["unanswered"]
        ]
        answered = texts["appointments"] + calls["appointments"]
        questions = [
            f"event {each['event_id']}"
            for each in answered
            if each["answer"] == "question"
        ]
        lines = []
        if silent:
            lines += [f"No answer to a text and a call ({len(silent)}):", *silent]
        if questions:
            lines += [
                f"Wrote something other than yes or no ({len(questions)}):",
                *questions,
            ]
        return [{"message": "\n".join(lines)}] if lines else []

    front_desk = ApptotoSendMessageBatchOperator(
        task_id="front_desk",
        messages=mail(texts, answers_to_calls.output),
        defaults={
            "type": "email",
            "to": "frontdesk@clinic.example",
            "subject": "Tomorrow's appointments",
        },
    )

    @task(trigger_rule="one_failed", retries=0)
    def fail_the_run() -> None:
        """Fail the run if a task failed: only the last tasks decide its state."""
        raise AirflowFailException("A task of this run failed: see its log.")

    [text, call, front_desk] >> fail_the_run()
