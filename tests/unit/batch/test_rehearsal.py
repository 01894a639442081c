"""A dry run adds up what a live run would send and cost, in little room, and tells nothing about a person."""

from __future__ import annotations

import datetime as dt
import json
import tracemalloc
from typing import Any

import pytest

from airflow_provider_apptoto.batch.plan import Plan, PlannedMessage
from airflow_provider_apptoto.batch.rehearsal import MAX_CHARACTERS, MAX_VALUES, Rehearsal
from airflow_provider_apptoto.batch.results import MAX_REPORT_BYTES, BatchResults
from airflow_provider_apptoto.client import ApptotoRejectedError, Message, Outcome

US, CANADA, SPAIN, JERSEY, SATELLITE = "+16505550199", "+14165550123", "+34612345678", "+447797712345", "+881612345678"
ADDRESS = "mary@clinic.com"
NOON = dt.datetime(2026, 3, 2, 12, tzinfo=dt.UTC)


def planned(text: str | None = "Hi", labels: dict[str, str] | None = None, **fields: Any) -> PlannedMessage:
    if not {"event_id", "participant_id"} & fields.keys():
        fields.setdefault("to", US)
    message = Message(**{"type": "sms", "message": text, "max_segments": None, **fields})
    return PlannedMessage(0, message, "k" * 32, None, "4711", labels=labels)


def rehearsed(*messages: PlannedMessage, outcome: Outcome = Outcome.DRY_RUN, labels: tuple[str, ...] = ()) -> Rehearsal:
    rehearsal = Rehearsal(labels)
    for message in messages:
        rehearsal.add(message, outcome)
    return rehearsal


def cells(rehearsal: Rehearsal) -> list[list[str]]:
    return [line.split() for line in rehearsal.table().splitlines()]


def characters(*texts: str) -> dict[str, int]:
    found: dict[str, int] = rehearsed(*map(planned, texts)).report()["ucs_2"]["characters"]
    return found


# --- groups


def test_messages_and_segments_are_counted_by_country_and_e_mails_by_themselves() -> None:
    rehearsal = rehearsed(
        planned("a" * 161),
        planned(),
        planned(to=CANADA),
        planned(to=SPAIN, type="call"),
        planned(to=JERSEY),
        planned(to=SATELLITE),
        planned("a" * 500, to=ADDRESS, type="email"),
        planned(event_id=7, type="email"),
        planned(event_id=7),
        planned(participant_id=8),
        planned(participant_id=8),
    )
    rehearsal.add(planned(to=SPAIN), Outcome.HELD)
    rehearsal.add(planned("a" * 161, to=SPAIN), Outcome.CAPPED)
    found = rehearsal.report()
    assert {country: tuple(group.values()) for country, group in found["by_country"].items()} == {
        "ES": (1, 1, 1, 1),
        "US": (2, 0, 0, 3),
        "email": (2, 0, 0, 0),
        "(none)": (1, 0, 0, 1),
        "CA": (1, 0, 0, 1),
        "JE": (1, 0, 0, 1),
        "event": (1, 0, 0, 1),
        "participant": (2, 0, 0, 2),
    }
    assert list(found["by_country"]["US"]) == ["dry_run", "held", "capped", "segments"]
    assert found["segments"] == 10
    assert list(found["by_country"])[:4] == ["ES", "US", "email", "participant"]


def test_each_label_column_is_a_table_of_its_own() -> None:
    labels = ({"clinic": "north", "campaign": "fall"}, {"clinic": "south"}, {"clinic": "north"}, None)
    found = rehearsed(*(planned(labels=each) for each in labels), labels=("clinic", "campaign")).report()["by_label"]
    assert {name: {value: group["dry_run"] for value, group in groups.items()} for name, groups in found.items()} == {
        "clinic": {"north": 2, "(none)": 1, "south": 1},
        "campaign": {"(none)": 3, "fall": 1},
    }


def test_the_most_frequent_values_of_a_label_are_listed_and_the_others_are_summed() -> None:
    rehearsal = Rehearsal(["clinic"])
    for number in range(MAX_VALUES + 5):
        for _ in range(1 + (number >= 5)):
            rehearsal.add(planned(labels={"clinic": f"c{number}"}), Outcome.DRY_RUN)
    groups = rehearsal.report()["by_label"]["clinic"]
    others = groups.pop("(others)")
    assert set(groups) == {f"c{number}" for number in range(5, MAX_VALUES + 5)}
    assert {group["dry_run"] for group in groups.values()} == {2}
    assert others == {"values": 5, "dry_run": 5, "held": 0, "segments": 5}
    assert cells(rehearsal)[-1] == ["(5", "others)", "5", "0", "5"]


def test_values_are_ranked_by_messages_whatever_their_outcomes() -> None:
    rehearsal = rehearsed(planned(), planned())
    for _ in range(3):
        rehearsal.add(planned(to=SPAIN), Outcome.CAPPED)
    assert list(rehearsal.report()["by_country"]) == ["ES", "US"]


def test_values_that_differ_after_40_characters_are_one_group() -> None:
    first, second = "x" * 39 + "ab", "x" * 39 + "cd"
    found = rehearsed(*(planned(labels={"a": value}) for value in (first, second, "x" * 40)), labels=("a",)).report()
    assert {value: group["dry_run"] for value, group in found["by_label"]["a"].items()} == {
        "x" * 39 + "…": 2,
        "x" * 40: 1,
    }


# --- when, and how long


def test_held_messages_say_when_the_first_and_the_last_of_them_may_be_sent() -> None:
    rehearsal = rehearsed(planned())
    assert rehearsal.report()["held_until"] is None
    assert "Held" not in rehearsal.table()
    for hours in (5, 2, 8, 3):
        rehearsal.add(planned(), Outcome.HELD, NOON + dt.timedelta(hours=hours))
    assert rehearsal.report()["held_until"] == {"first": "2026-03-02T14:00Z", "last": "2026-03-02T20:00Z"}
    assert "Held until 2026-03-02T14:00Z (first opening) to 2026-03-02T20:00Z (last opening)" in rehearsal.table()


@pytest.mark.parametrize("outcome", [each for each in Outcome if each not in {Outcome.DRY_RUN, Outcome.HELD}])
def test_what_would_not_go_takes_no_segments(outcome: Outcome) -> None:
    found = rehearsed(planned("á" * 71), outcome=outcome).report()
    assert (found["segments"], found["ucs_2"]["messages"]) == (0, 0)
    assert found["by_country"] == {"US": {"dry_run": 0, "held": 0, str(outcome): 1, "segments": 0}}


def test_a_text_that_apptoto_makes_is_of_unknown_length() -> None:
    rehearsal = rehearsed(
        planned(None, template_id=5),
        planned("Hi {{ participant.name }}", event_id=3),
        planned("{% if x %}Hi{% endif %}", event_id=3),
        planned("Hi { x }"),
        planned(None, template_id=5, type="call"),
    )
    assert (rehearsal.report()["unknown_length"], rehearsal.report()["segments"]) == (3, 3)
    assert cells(rehearsal)[1][-1] == "3"


# --- characters


def test_one_character_outside_gsm_7_costs_the_segments_that_the_text_would_not_take_without_it() -> None:
    texts = ["á" + "a" * 159, "a" * 160, "á" * 70, "é" * 160, "€" * 66 + "á" + "€" * 67]
    found = rehearsed(*map(planned, texts), planned("á" * 99, to=ADDRESS, type="email")).report()
    assert found["ucs_2"] == {
        "messages": 3,
        "segments": 3 + 1 + 2,
        "extra_segments": 2 + 0 + 0,
        "characters": {"á U+00E1 LATIN SMALL LETTER A WITH ACUTE": 3},
        "other_characters": 0,
    }
    assert found["segments"] == 6 + 2


def test_characters_are_counted_by_message_and_the_most_frequent_are_shown() -> None:
    alphabet = "áíóúçâêîôûãõ"
    rehearsal = rehearsed(*(planned(alphabet[:count] * 2) for count in range(1, len(alphabet) + 1)))
    found = rehearsal.report()["ucs_2"]
    assert [name[0] for name in found["characters"]] == list(alphabet[:MAX_CHARACTERS])
    assert list(found["characters"].values()) == [12, 11, 10, 9, 8, 7, 6, 5, 4, 3]
    assert found["other_characters"] == 2
    assert ["12", "á", "U+00E1", "LATIN", "SMALL", "LETTER", "A", "WITH", "ACUTE"] in cells(rehearsal)
    assert ["(2", "others)"] in cells(rehearsal)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("We\u2019ll call", "\u2019 U+2019 RIGHT SINGLE QUOTATION MARK"),
        ("a\u00a0b", "U+00A0 NO-BREAK SPACE"),
        ("a\tb", "U+0009"),
        ("1ª", "ª U+00AA FEMININE ORDINAL INDICATOR"),
        ("ế", "ế U+1EBF LATIN SMALL LETTER E WITH CIRCUMFLEX AND ACUTE"),
        ("e\u0301", "\u0301 U+0301 COMBINING ACUTE ACCENT"),
        ("😜", "😜 U+1F61C FACE WITH STUCK-OUT TONGUE AND WINKING EYE"),
    ],
)
def test_a_character_is_named_so_that_the_text_can_be_corrected(text: str, shown: str) -> None:
    assert characters(text) == {shown: 1}


@pytest.mark.parametrize(
    ("name", "script"), [("李明", "CJK"), ("Ольга", "CYRILLIC"), ("ดวงใจ", "THAI"), ("محمد", "ARABIC")]
)
def test_letters_of_other_scripts_are_not_shown_because_they_may_spell_a_name(name: str, script: str) -> None:
    assert characters(name, name) == {f"{script} letters": 2}


# --- room and privacy


def test_the_report_fits_into_an_xcom_whatever_the_labels_are_and_leaves_room_for_failures() -> None:
    columns = [f"{'label'}{number}" for number in range(4)]
    rehearsal = Rehearsal(columns)
    messages = [
        planned(labels=dict.fromkeys(columns, "\U0001f642" * 30 + chr(0x4E00 + number) * 170)) for number in range(60)
    ]
    plan = Plan(rows=60, messages=messages)
    results = BatchResults(plan, has_ledger=False, rehearsal=rehearsal)
    outcomes = (Outcome.DRY_RUN, Outcome.HELD, Outcome.CAPPED, Outcome.TOO_OLD, Outcome.OUTSIDE_WINDOW)
    for number, message in enumerate(messages):
        results.add(message, outcomes[number % 5])
    for message in messages:
        results.add(message, Outcome.REJECTED, ApptotoRejectedError("x", reason="r" * 200))
    report = results.report()
    assert len(report["rehearsal"]["by_label"]["label0"]) == MAX_VALUES + 1
    assert len(json.dumps(report)) <= MAX_REPORT_BYTES + 1000
    assert 10 < len(report["failures"]) < 60
    assert report["failures_left_out"] == 60 - len(report["failures"])


def test_only_the_results_of_a_dry_run_have_a_rehearsal() -> None:
    plan = Plan(rows=1, messages=[planned()])
    live, dry = BatchResults(plan, has_ledger=False), BatchResults(plan, has_ledger=False, rehearsal=Rehearsal())
    for results in (live, dry):
        results.add(plan.messages[0], Outcome.HELD, held_until=NOON)
    assert "rehearsal" not in live.report()
    assert dry.report()["rehearsal"]["held_until"] == dict.fromkeys(("first", "last"), "2026-03-02T12:00Z")
    assert json.loads(json.dumps(dry.report())) == dry.report()


def test_neither_recipient_nor_text_is_shown_and_no_message_is_kept() -> None:
    rehearsal = Rehearsal(["clinic"])
    messages = [
        planned(f"Secret {n} \u2018{n}\u2019", {"clinic": "north"}, to=f"+1650555{1000 + n}") for n in range(2000)
    ]
    rehearsal.add(messages[0], Outcome.DRY_RUN)
    tracemalloc.start()
    for message in messages[1:]:
        rehearsal.add(message, Outcome.DRY_RUN)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken < 20 * len(messages)
    for shown in (json.dumps(rehearsal.report()), rehearsal.table(), repr(rehearsal)):
        assert "Secret" not in shown
        assert "650555" not in shown


def test_the_table_has_the_numbers_of_the_report_in_columns() -> None:
    rehearsal = Rehearsal(["clinic"])
    for number in range(1200):
        rehearsal.add(planned("a\u2019", {"clinic": "north" if number % 3 else "south"}), Outcome.DRY_RUN)
    rehearsal.add(planned(to=ADDRESS, type="email"), Outcome.SUPPRESSED)
    assert rehearsal.table() == (
        "  Estimated SMS segments: 1,200\n"
        "  SMS in UCS-2 (70 characters per segment, not 160): 1,200\n"
        "  Segments more than in GSM-7: 0\n"
        "  SMS by character that is not in GSM-7:\n"
        "    1,200  \u2019 U+2019 RIGHT SINGLE QUOTATION MARK\n"
        "  By country       dry_run    held    suppressed    segments\n"
        "    US               1,200       0             0       1,200\n"
        "    email                0       0             1           0\n"
        "  By clinic       dry_run    held    suppressed    segments\n"
        "    north             800       0             0         800\n"
        "    south             400       0             0         400\n"
        "    (none)              0       0             1           0"
    )


def test_a_batch_without_messages_has_a_rehearsal_too() -> None:
    rehearsal = Rehearsal(["clinic"])
    assert rehearsal.table() == "  Estimated SMS segments: 0"
    assert (rehearsal.report()["by_country"], rehearsal.report()["by_label"]) == ({}, {"clinic": {}})
