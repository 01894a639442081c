"""Whoever has to resolve a message gets a page or a command that works on this Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto.outbox import instructions
from airflow_provider_apptoto.outbox.instructions import how_to_resolve, ledger_command, where_to_look
from airflow_provider_apptoto.outbox.origin import Origin

if TYPE_CHECKING:
    from pytest_mock import MockerFixture

    from airflow_provider_apptoto.outbox.stores.base import StoreKind

KEY = "k" * 32
ORIGIN = Origin(dag_id="clinic", task_id="remind", run_id="a run", map_index=-1, try_number=1)
URL = "https://airflow.example/apptoto/go?dag=clinic"


@pytest.fixture(autouse=True)
def airflow(mocker: MockerFixture) -> None:
    """Stand for an Airflow that shows no pages of plugins, and keeps task state."""
    for name, value in (("has_provider_cli", True), ("is_on_page", False), ("clear_keeps_task_state", True)):
        mocker.patch.object(instructions, name, return_value=value)


def with_page(mocker: MockerFixture, url: str | None = URL) -> None:
    mocker.patch.object(instructions, "is_on_page", return_value=True)
    mocker.patch.object(instructions, "page_url", return_value=url)


@pytest.mark.parametrize(
    ("has_provider_cli", "conn_id", "expected"),
    [
        (True, "apptoto_default", "airflow apptoto ledger list"),
        (False, "apptoto_default", "python -m airflow_provider_apptoto ledger list"),
        (True, "clinic", "airflow apptoto ledger list --conn-id clinic"),
        (False, "two words", "python -m airflow_provider_apptoto ledger list --conn-id 'two words'"),
    ],
)
def test_a_command_names_the_program_of_this_airflow_and_the_connection(
    mocker: MockerFixture, *, has_provider_cli: bool, conn_id: str, expected: str
) -> None:
    mocker.patch.object(instructions, "has_provider_cli", return_value=has_provider_cli)
    assert ledger_command("list", conn_id) == expected


def test_an_entry_in_the_state_database_is_resolved_by_one_of_two_commands() -> None:
    lines = how_to_resolve("sql", "clinic", KEY, ORIGIN).splitlines()
    command = f"  airflow apptoto ledger resolve --conn-id clinic {KEY}"
    assert [line for line in lines if line.startswith(" ")] == [
        f"{command} --to sent --note 'where you saw it'",
        f"{command} --to not_sent --note 'how you know'",
    ]


def test_an_entry_in_task_state_is_resolved_by_an_edit_of_the_value_that_is_named() -> None:
    lines = how_to_resolve("task_state", "clinic", KEY, ORIGIN).splitlines()
    assert f"  apptoto-message-{KEY}" in lines
    assert "ledger resolve" not in str(lines)
    assert '"state" to "sent"' in str(lines)


@pytest.mark.parametrize("kind", ["sql", "task_state"])
def test_without_a_page_no_text_names_it(kind: StoreKind) -> None:
    assert "page" not in how_to_resolve(kind, "clinic", KEY, ORIGIN)
    assert where_to_look(kind, "clinic", ORIGIN) is None


@pytest.mark.parametrize("kind", ["sql", "task_state"])
@pytest.mark.parametrize(("url", "shown"), [(URL, URL), (None, "in Airflow: Browse, Apptoto outbox")])
def test_the_page_comes_first_on_a_line_that_can_be_clicked(
    mocker: MockerFixture, kind: StoreKind, url: str | None, shown: str
) -> None:
    with_page(mocker, url)
    first, second, third, *others = how_to_resolve(kind, "clinic", KEY, ORIGIN).splitlines()
    assert (first, second) == ("then record it on the outbox page", f"  {shown}")
    assert third.startswith("Without the page, ")
    assert others[-1] == "Then clear the task: a message that was sent is not sent again"
    assert all(len(line) <= 100 for line in others if "ledger resolve" not in line)
    assert shown.removeprefix("in Airflow: ") in str(where_to_look(kind, "clinic", ORIGIN))


def test_if_a_clear_wipes_task_state_a_message_that_was_sent_is_never_resolved_by_a_clear(
    mocker: MockerFixture,
) -> None:
    with_page(mocker)
    mocker.patch.object(instructions, "clear_keeps_task_state", return_value=False)
    text = how_to_resolve("task_state", "clinic", KEY, ORIGIN).replace("\n", " ")
    assert text == (
        "if it was sent, mark the task as success, because a clear would send it again. Otherwise clear the task"
    )
    assert "Then clear the task" in how_to_resolve("sql", "clinic", KEY, ORIGIN)
