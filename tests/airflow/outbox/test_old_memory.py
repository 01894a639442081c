"""After the migration of a version 1 state database, its messages are still known, and nobody gets a second copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.client import ApptotoClient, ApptotoUnknownOutcomeError, Message, Outcome, Routing
from airflow_provider_apptoto.client.routing import DeliveryMode
from airflow_provider_apptoto.outbox import Outbox, SendPolicy
from airflow_provider_apptoto.outbox.database import StateDatabase
from airflow_provider_apptoto.outbox.origin import Origin
from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
from tests.support.old_databases import FACTS, load_v1
from tests.support.state_databases import url_of

if TYPE_CHECKING:
    from pathlib import Path

STAND_IN = "+16505550100"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SqlLedgerStore:
    """Provide the ledger of a filled database of version 1."""
    url = url_of(request.param, request, tmp_path)
    load_v1(url)
    return SqlLedgerStore(StateDatabase(url))


def outbox_of(fact: dict[str, Any], store: SqlLedgerStore) -> Outbox:
    """Return the outbox of that task; its server accepts no connections."""
    mode = DeliveryMode(fact.get("mode", "live"))
    client = ApptotoClient(
        base_url=FACTS["host"],
        login=FACTS["login"],
        api_key="sekret",
        routing=Routing(mode, redirect_phone_to=STAND_IN, redirect_email_to="stand.in@clinic.example"),
    )
    names = ("dag_id", "task_id", "run_id", "map_index")
    origin = Origin(**{name: fact[name] for name in names}, try_number=9)
    policy = SendPolicy(max_age=None, idempotency_key=fact.get("idempotency_key"))
    return Outbox(client=client, build=Message, policy=policy, origin=origin, store=store)


def test_every_message_that_version_1_had_sent_or_may_have_sent_is_recognised(store: SqlLedgerStore) -> None:
    known = [fact for fact in FACTS["messages"] if fact["state"] in {"sent", "unknown"}]
    assert len(known) > 10
    for fact in known:
        outbox = outbox_of(fact, store)
        message = Message(**fact["message"], default_region="US")
        assert outbox.key_of(message, fact.get("item")) == fact["key"]
        if fact["state"] == "sent":
            delivery = outbox.send(message, item=fact.get("item"))
            assert (delivery.outcome, delivery.key) == (Outcome.DEDUPLICATED, fact["key"])
        else:
            with pytest.raises(ApptotoUnknownOutcomeError):
                outbox.send(message, item=fact.get("item"))
