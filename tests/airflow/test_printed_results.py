"""The results of tasks that the documentation prints have the fields that tasks return."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.operators.apptoto import (
    ApptotoListEventsOperator,
    ApptotoSendMessageBatchOperator,
    ApptotoSendMessageOperator,
)
from airflow_provider_apptoto.sensors.apptoto import ApptotoAnswerSensor
from tests.support.dag_runs import run_dag
from tests.support.printed_runs import run_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_apptoto.sandbox.testing import ApptotoSandbox

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("airflow_database")]

ROWS = [
    {"to": "+16505550101", "message": "Hi Ann", "clinic": "north", "id": "4711"},
    {"to": "+16505550102", "message": "Hola José", "clinic": "south", "id": "4712"},
    {"to": "+16505550103", "message": "Hi Cid", "clinic": "south", "id": "4715"},
    {"to": "+14165550104", "message": "Hi Dan ✓", "clinic": "south", "id": "4716"},
]
BATCH: dict[str, Any] = {"task_id": "send", "messages": ROWS, "reference_column": "id", "label_columns": ("clinic",)}


def a_message(_: ApptotoSandbox) -> Any:
    fields: dict[str, Any] = {"to": "+16505550199", "message": "Hi Mary", "reference": "appointment-4711"}
    return run_dag(lambda: ApptotoSendMessageOperator(task_id="send", type="sms", **fields))["send"].xcom


def a_report(sandbox: ApptotoSandbox) -> Any:
    sandbox.fault(kind="reset", accepted=True)

    def build() -> None:
        stopped = ["+16505550103"]
        ApptotoSendMessageBatchOperator(**BATCH, defaults={"type": "sms"}, suppression=stopped, concurrency=1)

    run = run_dag(build)
    return run["send"].xcom


def a_rehearsal(sandbox: ApptotoSandbox) -> Any:
    sandbox.connect(allowed_regions="US, CA", at_most="1/day")
    run_dag(lambda: ApptotoSendMessageOperator(task_id="send", type="sms", to="+16505550103", message="Hi"))

    def build() -> None:
        ApptotoSendMessageBatchOperator(**BATCH, defaults={"type": "sms"}, delivery_mode="dry_run")

    return {"rehearsal": run_dag(build)["send"].xcom["rehearsal"]}


def answers(sandbox: ApptotoSandbox) -> Any:
    start = "2026-12-01T09:00:00-08:00"
    people = {"confirms": "+16505550141", "replies": "+16505550142", "is silent": "+16505550143"}
    added = {
        name: sandbox.appointments.add(name, phone, start_time=start, external_id=name)
        for name, phone in people.items()
    }

    def build() -> None:
        events = ApptotoListEventsOperator(task_id="events", begin="2026-12-01T08:00:00Z", end="2026-12-02T08:00:00Z")
        text = ApptotoSendMessageBatchOperator(
            task_id="text", messages=events.output, defaults={"type": "sms", "message": "Coming?"}
        )
        wait = ApptotoAnswerSensor(
            task_id="wait",
            appointments=events.output,
            replies={"yes": "(?i)yes", "no": "(?i)no"},
            timeout=2,
            poke_interval=1,
        )
        text >> wait

    sandbox.appointments.confirm(added["confirms"])
    return run_dag(build)["wait"].xcom


RESULTS: dict[str, Callable[[ApptotoSandbox], Any]] = {
    "answers.rst": answers,
    '"rehearsal"': a_rehearsal,
    '"failures_left_out"': a_report,
    '"try_number"': a_message,
}
BY_DATA = {"by_country", "by_label", "clinic", "characters"}
"""Mappings whose keys are data."""


def value_of(text: str) -> Any:
    """Return the value that a block prints; an ellipsis in a mapping stands for further keys."""
    source = text if text.startswith("{") else f"{{{text}}}"
    return ast.literal_eval(source.replace("...}", "'...': ...}"))


def differences(printed: Any, real: Any, path: str = "") -> list[str]:
    """Return where a printed value has other keys or types than a real one."""
    match printed, real:
        case dict(), dict():
            if path.rpartition(".")[2] in BY_DATA:
                pairs = zip(printed.items(), real.values(), strict=False)
                return [each for (name, shown), value in pairs for each in differences(shown, value, f"{path}.{name}")]
            shown = [name for name in printed if name != "..."]
            is_wrong = not set(shown) <= set(real) if "..." in printed else shown != list(real)
            found = [f"{path}: {shown} and {list(real)}"] if is_wrong else []
            for name in filter(real.__contains__, shown):
                found += differences(printed[name], real[name], f"{path}.{name}")
            return found
        case [first, *_], [other, *_]:
            return differences(first, other, f"{path}[]")
        case _:
            is_alike = printed in (..., None) or real is None or type(printed) is type(real)
            return [] if is_alike else [f"{path}: {printed!r} and {real!r}"]


def test_each_printed_result_is_compared() -> None:
    assert len(run_by(__name__, "python")) == len(RESULTS)


@pytest.mark.parametrize("part", RESULTS)
def test_a_printed_result_has_the_fields_of_a_real_one(part: str, apptoto_sandbox: ApptotoSandbox) -> None:
    [printed] = [each for each in run_by(__name__, "python") if part == each.page or part in each.text]
    assert differences(value_of(printed.text), RESULTS[part](apptoto_sandbox)) == []


def test_a_missing_key_and_another_type_are_differences() -> None:
    real = {"a": 1, "b": [{"c": "d"}]}
    assert differences({"a": 1, "...": ...}, real) == []
    assert differences({"a": 1}, real) == [": ['a'] and ['a', 'b']"]
    assert differences({"a": "1", "b": [{"e": ""}]}, real) == [".a: '1' and 1", ".b[]: ['e'] and ['c']"]
