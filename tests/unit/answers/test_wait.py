"""A wait knows its window, how far it is, and its result, for one appointment and for thousands."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from airflow_provider_apptoto.answers.appointment import (
    Appointment,
    Window,
    appointments_of,
    events_without_start,
    window_of,
    without_personal,
)
from airflow_provider_apptoto.answers.predicate import Reply, Rules, Seen, Sent
from airflow_provider_apptoto.answers.wait import Wait
from airflow_provider_apptoto.client import ApptotoError

SINCE = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)
AFTER = SINCE.timestamp() + 60
RULES = Rules(replies={"yes": "^y"})
OPEN, CONFIRMED = Seen("initial"), Seen("confirmed")
YES = Seen("initial", (Reply(AFTER, "yes"),))
LOST = Seen("initial", (), (Sent(AFTER, has_failed=True),))


def rows(*numbers: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"event_id": number, "participant_id": number + 1000, **fields} for number in numbers]


def wait_of(*given: dict[str, Any]) -> Wait:
    return Wait(appointments_of(given, SINCE), RULES)


# --- rows


def test_rows_become_appointments_once_each() -> None:
    given = [*rows(1), {"event_id": "1", "participant_id": "1001"}, {"event_id": "visit-x"}]
    since = SINCE.timestamp()
    assert appointments_of(given, SINCE) == [Appointment(1, 1001, since), Appointment("visit-x", None, since)]


def test_the_time_of_a_rows_own_send_replaces_that_of_the_run() -> None:
    [found] = appointments_of(rows(1, sent_at="2026-11-30T15:00:00+02:00"), SINCE)
    assert found.since == SINCE.timestamp() + 3600
    [found] = appointments_of(rows(1, sent_at=SINCE), SINCE)
    assert found.since == SINCE.timestamp()


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_rows_of_a_participant_the_earlier_send_counts(order: int) -> None:
    times = ["2026-11-30T13:00Z", "2026-11-30T15:00Z"][::order]
    [found] = appointments_of([rows(1, sent_at=time)[0] for time in times], SINCE)
    assert found.since == SINCE.timestamp() + 3600


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("[{'name': 'Gwendolyn'}]", "***"),
        (b"Gwendolyn", "***"),
        ({"event_id": 1, "name": "Gwendolyn"}, {"event_id": 1}),
        (["Gwendolyn", {"name": "Gwendolyn"}], ["***", {}]),
        (rows(1, sent_at="noon", start_time="x", to="+1650"), rows(1, sent_at="noon", start_time="x")),
        (None, None),
    ],
    ids=str,
)
def test_rendered_rows_show_nothing_that_could_be_personal(given: Any, expected: Any) -> None:
    assert without_personal(given) == expected


def test_only_what_is_not_personal_is_kept_of_a_row() -> None:
    [found] = appointments_of(rows(1, name="Gwendolyn", phone="+16505550199", reference=7, external_id="x"), SINCE)
    assert found.row == {"event_id": 1, "participant_id": 1001, "reference": 7, "external_id": "x"}
    assert found.reference == "7"
    assert appointments_of(rows(1, external_id="x"), SINCE)[0].reference == "x"
    assert appointments_of(rows(1), SINCE)[0].reference is None
    [found] = appointments_of(rows(1, reference=None, external_id="x"), SINCE)
    assert (found.reference, found.row["reference"]) == ("x", None)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (None, "must be a list of rows with event_id, not nothing"),
        ("rows", "must be a list of rows with event_id, not str"),
        ({"event_id": 1}, "must be a list of rows with event_id, not dict"),
        ([5], "row 0 is a int, not a mapping"),
        ([{"participant_id": 5}], "row 0 has no event_id"),
        ([{"event_id": None}], "row 0 has no event_id"),
        (rows(1, sent_at="noon"), "row 0 has a sent_at that is not a time with a zone"),
        (rows(1, sent_at=dt.datetime(2026, 1, 1)), "row 0 has a sent_at"),  # noqa: DTZ001  the point
        (rows(*range(1, 22)), "has 21 events without start_time"),
    ],
    ids=str,
)
def test_wrong_rows_are_refused(given: Any, problem: str) -> None:
    with pytest.raises(ApptotoError, match=problem):
        appointments_of(given, SINCE)


def test_the_window_holds_all_start_times() -> None:
    times = ["2026-12-01T23:30:00-08:00", "2026-12-01T08:00:00-08:00", "2026-12-01T20:00:00+00:00", None]
    given = [*(rows(number, start_time=time)[0] for number, time in enumerate(times, 1)), *rows(9)]
    appointments = appointments_of(given, SINCE)
    exact = Window("2026-12-01T08:00:00-08:00", "2026-12-01T23:30:00-08:00")
    assert window_of(appointments, whole_days=False) == exact
    days = Window("2026-12-01T00:00:00+00:00", "2026-12-03T00:00:00+00:00")
    assert window_of(appointments, whole_days=True) == days
    assert events_without_start(appointments) == [4, 9]
    assert window_of(appointments_of(rows(1), SINCE), whole_days=True) is None


# --- progress


def test_a_wait_is_complete_when_nobody_is_awaited_any_more() -> None:
    wait = wait_of(*rows(1, 2, 3))
    one = wait.progress({1: {1001: YES}, 2: {1002: OPEN}, 3: {1003: OPEN}})
    assert (one.is_complete, one.missing) == (False, 2)
    all_but_undelivered = wait.progress({1: {1001: YES}, 2: {1002: CONFIRMED}, 3: {1003: LOST}})
    assert (all_but_undelivered.is_complete, all_but_undelivered.missing) == (True, 1)


@pytest.mark.parametrize("snapshot", [{}, {1: {}}, {1: {5: CONFIRMED}}, {2: {1001: CONFIRMED}}], ids=repr)
def test_an_appointment_that_is_not_there_is_waited_for_and_told(snapshot: Any) -> None:
    progress = wait_of(*rows(1)).progress(snapshot)
    assert (progress.is_complete, progress.missing) == (False, 1)
    result = progress.result()
    assert result["counts"]["not_found"] == 1
    assert result["unanswered"] == []


@pytest.mark.parametrize(
    ("people", "expected"),
    [
        ({5: OPEN, 6: CONFIRMED}, "confirmed"),
        ({5: LOST, 6: YES}, "yes"),
        ({5: LOST, 6: OPEN}, "no_answer"),
        ({5: LOST, 6: LOST}, "undelivered"),
        ({}, "no_answer"),
    ],
)
def test_without_a_participant_the_first_who_answers_counts(people: Any, expected: str) -> None:
    progress = wait_of({"event_id": 1}).progress({1: people})
    assert progress.result()["appointments"][0]["answer"] == expected


def test_the_result_counts_every_answer_and_holds_the_rows_for_the_next_batch() -> None:
    given = [rows(number, reference=f"visit-{number}", name="Gwendolyn")[0] for number in range(1, 6)]
    people: Any = {1: {1001: YES}, 2: {1002: CONFIRMED}, 3: {1003: LOST}, 4: {1004: OPEN}}
    result = wait_of(*given).progress(people).result()
    counts = {name: count for name, count in result["counts"].items() if count}
    assert counts == {"total": 5, "yes": 1, "confirmed": 1, "undelivered": 1, "no_answer": 1, "not_found": 1}
    assert result["counts"]["declined"] == 0
    assert [(each["reference"], each["answer"], each["at"]) for each in result["appointments"]] == [
        ("visit-1", "yes", "2026-11-30T12:01:00.000Z"),
        ("visit-2", "confirmed", None),
        ("visit-3", "undelivered", "2026-11-30T12:01:00.000Z"),
        ("visit-4", "no_answer", None),
        ("visit-5", "not_found", None),
    ]
    assert [each["event_id"] for each in result["unanswered"]] == [3, 4]
    assert "Gwendolyn" not in json.dumps(result)


def test_progress_survives_the_way_through_a_triggers_event() -> None:
    wait = wait_of(*rows(1, 2), {"event_id": "x"})
    progress = wait.progress({1: {1001: YES}, 2: {1002: OPEN}, "x": {5: CONFIRMED}})
    assert wait.unpack(json.loads(json.dumps(progress.pack()))).result() == progress.result()


def test_progress_is_told_in_a_line_without_personal_data() -> None:
    progress = wait_of(*rows(1, 2, 3, 4)).progress({1: {1001: YES}, 2: {1002: OPEN}, 3: {1003: LOST}})
    assert str(progress) == "1 of 4 answered (1 not_found, 1 undelivered, 1 yes)"
    assert str(wait_of(*rows(1)).progress({1: {1001: OPEN}})) == "0 of 1 answered (none yet)"
