"""A message keeps its key across retries, no other message has it, and a fingerprint distinguishes contents."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from airflow_provider_apptoto.client import Message
from airflow_provider_apptoto.outbox.ledger import fingerprint, message_key, recipient_hash
from airflow_provider_apptoto.outbox.origin import Origin
from tests.support.entries import FIRST, SECOND

TEXT = "Wilhelmina, your biopsy was benign"


def key_of(text: str = TEXT, *, salt: bytes = b"salt", origin: Origin = FIRST, **changes: Any) -> str:
    """Return a message's key.

    :param changes: what differs from a text to one number in live mode.
    """
    fields: dict[str, Any] = {"account": ("https://api", "clinic@clinic.example"), "mode": "live"}
    fields |= {"idempotency_key": None, **changes}
    targets = {name: fields.pop(name) for name in ("to", "event_id", "participant_id") if name in fields}
    message = Message(type=fields.pop("type", "sms"), message=text, **(targets or {"to": "+16505550199"}))
    return message_key(salt, message, origin=origin, **fields)


def test_tries_map_indexes_and_texts_do_not_change_the_key() -> None:
    same = {key_of(), key_of("Other"), key_of(origin=SECOND), key_of(origin=dataclasses.replace(FIRST, map_index=7))}
    assert len(same) == 1


def test_with_an_idempotency_key_tasks_callbacks_dags_and_runs_do_not_change_it() -> None:
    other = Origin(dag_id="lab", task_id="text", run_id="tuesday", map_index=2, try_number=1)
    callback = dataclasses.replace(other, kind="callback:failed")
    assert len({key_of(idempotency_key="a", origin=origin) for origin in (FIRST, other, callback)}) == 1


def test_account_mode_occasion_origin_channel_recipient_and_store_change_it() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"account": ("https://other", "clinic@clinic.example")},
        {"account": ("https://api", "lab@clinic.example")},
        {"mode": "redirect"},
        {"idempotency_key": "a"},
        {"idempotency_key": "b"},
        {"type": "call"},
        {"to": "+16505550198"},
        {"type": "email", "to": "mary@clinic.example"},
        {"type": "email", "to": "jo@clinic.example"},
        {"type": "email", "to": "mary@lab.example"},
        {"event_id": 4711},
        {"event_id": 4712},
        {"participant_id": 4711},
        {"participant_id": 4712},
        {"item": "4711"},
        {"item": "4712"},
        {"salt": b"other"},
        {"origin": dataclasses.replace(FIRST, dag_id="x")},
        {"origin": dataclasses.replace(FIRST, task_id="x")},
        {"origin": dataclasses.replace(FIRST, run_id="x")},
        {"origin": dataclasses.replace(FIRST, kind="callback:failed")},
        {"origin": dataclasses.replace(FIRST, kind="callback:success")},
    ]
    assert len({key_of(**change) for change in changes}) == len(changes)


@pytest.mark.parametrize(
    ("written", "otherwise"),
    [
        ({"to": "+16505550199"}, {"to": "+1 (650) 555-0199"}),
        ({"type": "email", "to": "mary@clinic.example"}, {"type": "email", "to": "Mary@Clinic.EXAMPLE"}),
        ({"event_id": 4711}, {"event_id": " 4711 "}),
        ({"participant_id": 4711}, {"participant_id": "4711"}),
        ({"item": "4711"}, {"item": "4711", "type": "call", "to": "+16505550198"}),
    ],
    ids=["number", "address", "event", "participant", "item"],
)
def test_two_spellings_of_one_target_have_one_key(written: dict[str, Any], otherwise: dict[str, Any]) -> None:
    assert key_of(**written) == key_of(**otherwise)


def test_a_fingerprint_tells_texts_subjects_and_templates_apart() -> None:
    messages = [
        Message(type="email", to="a@clinic.example", message=TEXT),
        Message(type="email", to="a@clinic.example", message=TEXT + "."),
        Message(type="email", to="a@clinic.example", message=TEXT, subject="S"),
        Message(type="email", to="a@clinic.example", message=TEXT, template_id=7),
    ]
    assert len({fingerprint(b"salt", message) for message in messages}) == len(messages)
    assert fingerprint(b"salt", messages[0]) != fingerprint(b"other", messages[0])


def test_the_hash_of_a_recipient_depends_on_the_recipient_and_the_store_alone() -> None:
    number = recipient_hash(b"salt", "+16505550199")
    assert number == recipient_hash(b"salt", "+1 650 555 0199")
    others = [recipient_hash(b"salt", "+16505550198"), recipient_hash(b"other", "+16505550199")]
    addresses = [recipient_hash(b"salt", f"{name}@clinic.example") for name in ("mary", "jo", "Mary")]
    assert addresses[0] == addresses[2]
    assert len({number, *others, *addresses}) == 5
    assert recipient_hash(b"salt", None) is None


def test_keys_and_hashes_stay_the_same_over_versions_of_this_package() -> None:
    """Otherwise messages that were sent before an upgrade would be sent again after it."""
    assert key_of() == "61ea22b5cca9b5973a78746fe263a8d8"
    assert key_of(idempotency_key="visit-4711", item="scan") == "7f168c6f4828827cc3daf4de46a1a9c8"
    assert key_of(type="email", to="mary@clinic.example") == "ae7f3469d06f614b8d800757b3705a55"
    text = Message(type="sms", to="+16505550199", message="See you at nine")
    assert fingerprint(b"salt", text) == "d0295a73356e0bb3"
    assert recipient_hash(b"salt", "+16505550199") == "daa46044af879119d44e973376df2c23"
    assert recipient_hash(b"salt", "Mary@clinic.example") == "c03196f4b582079ca5be755ba35358a7"
