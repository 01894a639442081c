"""A state or a reply since the message is an answer; a message that failed is no reason to wait."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_apptoto.answers.predicate import ANSWERED, MAX_REPLY, Answer, Reply, Rules, Seen, Sent
from airflow_provider_apptoto.client import ApptotoConfigurationError, Participant
from airflow_provider_apptoto.client.appointments import STATES

SINCE = 1_000_000.0
REPLIES = {"yes": r"^\s*(1|y|yes|s[ií])\b", "no": r"^\s*(2|n|no)\b"}
RULES = Rules(ANSWERED, REPLIES)


def seen(*replies: str | tuple[str, float | None], state: str = "reminded", sent: tuple[Sent, ...] = ()) -> Seen:
    """Return a participant with replies, by default one second after another since the message."""
    made = [
        Reply(SINCE + number, each) if isinstance(each, str) else Reply(each[1], each[0])
        for number, each in enumerate(replies)
    ]
    return Seen(state, tuple(made), sent)


def name(found: Answer | None) -> str | None:
    return None if found is None else found.name


@pytest.mark.parametrize("state", STATES)
def test_the_states_that_a_client_reaches_are_answers(state: str) -> None:
    open_states = {"initial", "accepted", "reminded"}
    assert name(Rules().answer(seen(state=state), SINCE)) == (None if state in open_states else state)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", "yes"),
        ("Yes", "yes"),
        (" yes please", "yes"),
        ("SÍ", "yes"),
        ("y.", "yes"),
        ("NO", "no"),
        ("2", "no"),
        ("no thanks, yes I know", "no"),
        ("yesterday", None),
        ("12", None),
        ("who is this?", None),
        ("", None),
    ],
)
def test_the_first_pattern_that_matches_a_reply_names_the_answer(text: str, expected: str | None) -> None:
    assert name(RULES.answer(seen(text), SINCE)) == expected


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([("yes", SINCE - 1)], None),
        ([("yes", SINCE)], "yes"),
        ([("yes", None)], "yes"),  # when it came can't be read
        ([("yes", SINCE + 1), ("no", SINCE + 2)], "no"),
        ([("no", SINCE + 2), ("yes", SINCE + 1)], "no"),  # whatever the order
        ([("yes", SINCE + 1), ("thanks", SINCE + 2)], "yes"),
        ([("no", SINCE - 1), ("yes", SINCE + 1)], "yes"),
    ],
)
def test_the_latest_matching_reply_since_the_message_counts(replies: Any, expected: str | None) -> None:
    assert name(RULES.answer(seen(*replies), SINCE)) == expected


def test_a_reply_counts_more_than_the_state_which_may_be_older() -> None:
    assert RULES.answer(seen("no", state="confirmed"), SINCE) == ("no", "1970-01-12T13:46:40.000Z")
    assert RULES.answer(seen("hello?", state="confirmed"), SINCE) == ("confirmed", None)
    assert RULES.answer(seen(("no", SINCE - 1), state="confirmed"), SINCE) == ("confirmed", None)


OK, FAILED = Sent(SINCE, has_failed=False), Sent(SINCE, has_failed=True)
OLD_OK, OLD_FAILED = OK._replace(at=SINCE - 1), FAILED._replace(at=SINCE - 1)
TIMELESS = FAILED._replace(at=None)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ((), None),
        ((OK,), None),
        ((FAILED,), "undelivered"),
        ((FAILED, FAILED), "undelivered"),
        ((FAILED, OK), None),
        ((OLD_FAILED,), None),
        ((OLD_FAILED, OK), None),
        ((OLD_OK, FAILED), "undelivered"),
        ((TIMELESS,), "undelivered"),
        ((TIMELESS, OK), None),
    ],
)
def test_nobody_waits_for_a_message_that_was_not_delivered(sent: tuple[Sent, ...], expected: str | None) -> None:
    assert name(RULES.answer(seen(sent=sent), SINCE)) == expected


def test_an_answer_counts_more_than_a_failed_delivery() -> None:
    assert name(RULES.answer(seen("yes", sent=(FAILED,)), SINCE)) == "yes"
    assert name(RULES.answer(seen(state="confirmed", sent=(FAILED,)), SINCE)) == "confirmed"


def test_what_is_matched_is_read_from_a_participants_conversations() -> None:
    messages = [
        {"at": "2026-11-29T10:00:00Z", "event_type": "sent", "content": "Coming?", "delivery_failed": True},
        {"at": "2026-11-29T10:01:00Z", "event_type": "replied", "content": "yes" + "!" * 1000},
        {"event_type": "replied", "content": "no"},
        {"event_type": "noted", "content": "yes"},
    ]
    person = Participant.read({"id": 7, "state": "initial", "conversations": [{"messages": messages}]})
    assert person is not None
    found = Seen.of(person)
    assert (found.state, found.sent) == ("initial", (Sent(1795946400.0, has_failed=True),))
    assert [(reply.at, reply.text[:5], len(reply.text)) for reply in found.replies] == [
        (1795946460.0, "yes!!", MAX_REPLY),
        (None, "no", 2),
    ]
    assert "yes" not in repr(found)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"answered": None}, "answered: must be a list of states"),
        ({"answered": "confirmed"}, "answered: must be a list of states"),
        ({"answered": ["cancelled"]}, "'cancelled' is not one of"),
        ({"answered": ()}, "nothing would count"),
        ({"replies": ["yes"]}, "replies: must be a mapping"),
        ({"replies": {"yes": "("}}, "yes: '\\(' is not a pattern"),
        ({"replies": {"yes": None}}, "yes: None is not a pattern"),
        ({"replies": {"no way": "n"}}, "can't be the name of an answer"),
        ({"replies": {"no_answer": "n"}}, "can't be the name of an answer"),
        ({"replies": {"total": "n"}}, "can't be the name of an answer"),
        ({"replies": {"confirmed": "n"}}, "can't be the name of an answer"),
        ({"replies": {1: "n"}}, "can't be the name of an answer"),
    ],
    ids=repr,
)
def test_wrong_rules_are_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ApptotoConfigurationError, match=problem):
        Rules(**fields)


def test_replies_alone_are_rules() -> None:
    rules = Rules((), {"yes": "y"})
    assert rules.names == ["yes"]
    assert name(rules.answer(seen(state="confirmed"), SINCE)) is None
