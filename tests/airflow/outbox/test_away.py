"""If the state database is unavailable for some seconds, no try is used up and nobody gets a message twice."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.client import ApptotoNotSentError
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator, ApptotoSendMessageOperator
from airflow_provider_apptoto.outbox.ledger import LedgerTiming
from tests.support import postgres
from tests.support.dag_runs import run_dag
from tests.support.faults import Exchange, FaultServer, accepting
from tests.support.people import number_of
from tests.support.proxy import Proxy

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("airflow_database", "quick_retries")]

AWAY = 3
"""Number of connections that are refused while the database is unavailable."""


@pytest.fixture
def network(postgres_port: int) -> Iterator[Proxy]:
    with Proxy(postgres_port) as proxy:
        yield proxy


@pytest.fixture
def server(
    network: Proxy, postgres_port: int, connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultServer]:
    """Provide the server of a connection whose state database is behind the network."""
    database = postgres.new_database(postgres_port)
    monkeypatch.setenv("AIRFLOW_CONN_STATE", f"postgres://{postgres.USER}@127.0.0.1:{network.port}/{database}")
    monkeypatch.setattr(ApptotoHook, "ledger_timing", LedgerTiming(poll=0.1))
    with FaultServer() as server:
        connection(server.url, state_conn_id="state")
        yield server


def send(operator: type[ApptotoSendMessageOperator] = ApptotoSendMessageOperator) -> object:
    return operator(task_id="send", type="sms", to=number_of(1), message="Hi")


def send_many() -> object:
    rows = [{"to": number_of(person)} for person in range(30)]
    return ApptotoSendMessageBatchOperator(
        task_id="send",
        messages=rows,
        defaults={"type": "sms", "message": "Hi"},
        concurrency=4,
        max_consecutive_failures=2,
    )


def copies(server: FaultServer) -> Counter[str]:
    return Counter(request.json["to"] for request in server.accepted)


def test_a_message_waits_for_a_database_that_is_restarted(
    server: FaultServer, network: Proxy, provider_log: list[str]
) -> None:
    class Restarting(ApptotoSendMessageOperator):
        """A process whose database goes down when it starts."""

        def execute(self, context: Context) -> dict[str, Any]:
            network.go_down(AWAY)
            return super().execute(context)

    run = run_dag(lambda: send(Restarting))
    assert (run["send"].state, run["send"].tries, len(server.accepted)) == ("success", 1, 1)
    assert sum("Can't reach the ledger; sending is paused for up to 30 s" in line for line in provider_log) == 1


def test_a_batch_goes_on_when_its_database_was_restarted_in_its_middle(server: FaultServer, network: Proxy) -> None:
    def restarting(exchange: Exchange) -> None:
        if len(server.accepted) in {5, 15}:
            network.go_down(AWAY)
        accepting(exchange)

    server.scripts = [restarting]
    run = run_dag(send_many)
    assert (run["send"].state, run["send"].tries) == ("success", 1)
    assert copies(server) == Counter(number_of(person) for person in range(30))
    assert run["send"].xcom["sent"] == 30


@pytest.mark.parametrize("of", ["sending", "sent"])
def test_a_commit_whose_answer_is_lost_costs_no_message_and_sends_none_twice(
    server: FaultServer, network: Proxy, of: str
) -> None:
    losing: list[Any] = []

    def loses_answer_to(data: bytes) -> bool:
        """Lose the answer to the commit that writes this state, once."""
        if f"'{of}'".encode() in data and not losing:
            losing.append(None)
        if len(losing) == 1 and b"COMMIT" in data:
            losing.append(None)
            return True
        return False

    network.loses_answer_to = loses_answer_to
    run = run_dag(send)
    assert len(losing) == 2
    assert (run["send"].state, run["send"].tries, len(server.accepted)) == ("success", 1, 1)
    assert run["send"].xcom["outcome"] == "sent"


def test_a_database_that_stays_away_sends_nothing(
    server: FaultServer, network: Proxy, monkeypatch: pytest.MonkeyPatch, errors: dict[str, BaseException]
) -> None:
    monkeypatch.setattr(ApptotoHook, "ledger_timing", LedgerTiming(poll=0.1, patience=0.3))
    network.go_down()
    run = run_dag(send, default_args={"retries": 1, "retry_delay": dt.timedelta(0)})
    assert (run["send"].state, run["send"].tries, server.requests) == ("failed", 2, [])
    assert "The message was not sent: the state database can't be used" in str(errors["send"])


def test_a_message_without_a_ledger_is_not_sent_while_the_opt_outs_can_not_be_read(
    server: FaultServer, network: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ApptotoHook, "ledger_timing", LedgerTiming(poll=0.1, patience=0.3))
    network.go_down()
    with pytest.raises(ApptotoNotSentError, match=r"^The message was not sent: the state database can't be used"):
        ApptotoHook().send_message(type="sms", to=number_of(1), message="Hi")
    assert server.requests == []


def test_a_message_without_a_ledger_waits_for_the_rate_limit(
    server: FaultServer, network: Proxy, provider_log: list[str]
) -> None:
    network.go_down(AWAY)
    assert ApptotoHook().send_message(type="sms", participant_id=1, message="Hi").outcome == "sent"
    assert len(server.accepted) == 1
    assert sum("Can't reach the rate limit store" in line for line in provider_log) == 1


def test_a_message_without_a_ledger_is_not_sent_while_the_rate_limit_stays_away(
    server: FaultServer, network: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ApptotoHook, "ledger_timing", LedgerTiming(poll=0.1, patience=0.3))
    network.go_down()
    with pytest.raises(
        ApptotoNotSentError, match=r"^The message was not sent: the rate limit can't be enforced"
    ) as raised:
        ApptotoHook().send_message(type="sms", participant_id=1, message="Hi")
    assert raised.value.code == "rate_limit_unusable"
    assert server.requests == []
