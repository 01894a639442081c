"""Whoever has to resolve a message gets a command that can be pasted, and works on this Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto.outbox import instructions
from airflow_provider_apptoto.outbox.instructions import how_to_resolve, ledger_command

if TYPE_CHECKING:
    from pytest_mock import MockerFixture


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


def test_an_entry_in_the_state_database_is_resolved_by_one_of_two_commands(mocker: MockerFixture) -> None:
    mocker.patch.object(instructions, "has_provider_cli", return_value=True)
    lines = how_to_resolve("sql", "clinic", "k" * 32).splitlines()
    command = f"  airflow apptoto ledger resolve --conn-id clinic {'k' * 32}"
    assert [line for line in lines if line.startswith(" ")] == [
        f"{command} --to sent --note 'where you saw it'",
        f"{command} --to not_sent --note 'how you know'",
    ]


def test_an_entry_in_task_state_is_resolved_by_an_edit_of_the_value_that_is_named() -> None:
    lines = how_to_resolve("task_state", "clinic", "k" * 32).splitlines()
    assert f"  apptoto-message-{'k' * 32}" in lines
    assert "ledger resolve" not in str(lines)
    assert '"state" to "sent"' in str(lines)
