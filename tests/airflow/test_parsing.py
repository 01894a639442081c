"""Parsing a DAG file is cheap, reads no template, and finds invalid parameters."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.client.appointments import STATES
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator, ApptotoSendMessageOperator
from tests.support.dag_runs import run_dag

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

CHECKOUT = Path(__file__).parents[2]
OPERATORS = (ApptotoSendMessageOperator, ApptotoSendMessageBatchOperator)
HEAVY = (
    "requests",
    "urllib3",
    "phonenumbers",
    "email_validator",
    "sqlalchemy",
    "pendulum",
    "starlette",
    "uvicorn",
)
MODULES = (
    "airflow_provider_apptoto.client",
    "airflow_provider_apptoto.hooks.apptoto",
    "airflow_provider_apptoto.operators.apptoto",
    "airflow_provider_apptoto.sensors.apptoto",
)
"""Lightest first: each counts only what the modules before it did not load."""


@pytest.mark.contract
def test_what_a_dag_file_imports_loads_nothing_heavy() -> None:
    program = [sys.executable, "-m", "tests.support.imports_in_turn", *MODULES]
    done = subprocess.run(program, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert loaded.keys() == set(MODULES)
    for names in loaded.values():
        assert "airflow_provider_apptoto" in names
        assert not set(names) & set(HEAVY)


# --- templated parameters: assigned, and checked when the task runs


class Untouchable:
    """A value of a templated field. It is not the final value, so nothing may read it at parse time."""

    __hash__ = None  # type: ignore[assignment]

    def _touched(self, *_: object) -> NoReturn:
        raise AssertionError("a templated field was looked into")

    __bool__ = __eq__ = __iter__ = __len__ = __getitem__ = __contains__ = __str__ = __repr__ = __int__ = _touched


@pytest.mark.contract
@pytest.mark.parametrize("operator", OPERATORS)
def test_making_a_task_looks_into_no_templated_field(operator: Any) -> None:
    value = Untouchable()
    names = set(operator.template_fields) - {"messages_path"}  # exactly one of messages and messages_path is allowed
    task = operator(task_id="send", **dict.fromkeys(names, value))
    assert all(getattr(task, name) is value for name in names)
    if "messages_path" in operator.template_fields:
        assert operator(task_id="batch", messages_path=value).messages_path is value


@pytest.mark.contract
@pytest.mark.parametrize("operator", OPERATORS)
def test_making_a_task_assigns_each_templated_field_as_it_is(operator: type[BaseOperator]) -> None:
    """Airflow requires this: a field derived from others would be computed before those are rendered."""
    assigned = {}
    for function in constructors(operator):
        [tree] = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        for statement in ast.walk(tree):
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Attribute):
                assert isinstance(statement.value, ast.Name)
                assigned[statement.targets[0].attr] = statement.value.id
    assert set(operator.template_fields) <= set(assigned)
    assert all(attribute == argument for attribute, argument in assigned.items())


def constructors(operator: type[BaseOperator]) -> list[Any]:
    """Return the constructors of an operator that are the provider's own."""
    own = [each for each in operator.__mro__ if each.__module__.startswith("airflow_provider_apptoto.")]
    return [vars(each)["__init__"] for each in own if "__init__" in vars(each)]


def parameters(operator: type[BaseOperator]) -> set[str]:
    """Return the parameters that the provider gives to an operator."""
    names = {name for function in constructors(operator) for name in inspect.signature(function).parameters}
    return names - {"self", "kwargs"}


@pytest.mark.contract
def test_a_task_may_be_made_of_any_templates_and_without_a_connection() -> None:
    task = ApptotoSendMessageOperator(
        task_id="send",
        type="{{ nonsense",
        to=5,  # type: ignore[arg-type]
        event_id="",
        message=None,
        apptoto_conn_id="none_of_ours",
    )
    assert task.type == "{{ nonsense"
    many = ApptotoSendMessageBatchOperator(task_id="batch", messages=5, defaults="{{")  # type: ignore[arg-type]
    fields: tuple[Any, Any] = many.messages, many.defaults
    assert fields == (5, "{{")


# --- the others: checked when the DAG file is parsed


SHARED: list[tuple[str, Any, str]] = [
    ("on_unknown", "retry", "'retry' is not one of fail, resend, assume_sent"),
    ("on_unknown", None, "None is not one of fail, resend, assume_sent"),
    ("on_unknown", "Fail", "'Fail' is not one of fail, resend, assume_sent"),
    ("max_age", 24, "24 is not a positive timedelta; None means no limit"),
    ("max_age", timedelta(0), "datetime.timedelta(0) is not a positive timedelta; None means no limit"),
    ("max_age", "off", "'off' is not a positive timedelta; None means no limit"),
    ("max_segments", 0, "0 is not an integer of at least 1; None means no limit"),
    ("max_segments", "3", "'3' is not an integer of at least 1; None means no limit"),
    ("max_segments", True, "True is not an integer of at least 1; None means no limit"),
    ("delivery_mode", "sandbox", "'sandbox' is not one of live, redirect, dry_run"),
    ("delivery_mode", "", "'' is not one of live, redirect, dry_run"),
    ("dynamic_fields", "practice", "must be a list of names, not str"),
    ("dynamic_fields", None, "must be a list of names, not NoneType"),
    ("dynamic_fields", ["practice", ""], "must contain only non-empty strings"),
    ("dynamic_fields", [1], "must contain only non-empty strings"),
    ("redact", "yes", "must be True or False, not 'yes'"),
    ("redact", None, "must be True or False, not None"),
    ("send_window", 9, "must be a string, not int"),
    ("when_closed", "wait", "'wait' is not one of hold, skip"),
    ("at_most", "2", "'2' is not a limit such as '2/day', '1/hour', '3/7d' or '1/12h'; 'off' means no limit"),
    ("optout_lists", "campaigns", 'must be a list of names, such as ("campaigns",), not str'),
    ("only_if_state", "initial", """must be a list of states, such as ("initial",), not 'initial'"""),
    ("only_if_state", False, 'must be a list of states, such as ("initial",), not False'),
    ("only_if_state", [], "must not be empty; None means any state"),
    ("only_if_state", ["cancelled"], f"'cancelled' is not one of {', '.join(STATES)}"),
]
BATCH: list[tuple[str, Any, str]] = [
    ("id_column", " ", "' ' is not the name of a column"),
    ("reference_column", 1, "1 is not the name of a column"),
    ("timezone_column", "", "'' is not the name of a column"),
    ("not_after_column", 5, "5 is not the name of a column"),
    ("label_columns", "clinic", "'clinic' is not a list of at most 4 columns"),
    ("on_invalid", "skip", "'skip' is not one of fail, send_others"),
    ("max_messages", 0, "0 is not an integer of at least 1; None means no limit"),
    ("max_messages", "many", "'many' is not an integer of at least 1; None means no limit"),
    ("max_failed", -1, "-1 is not an integer of at least 0, nor a percentage such as '5%'"),
    ("max_failed", 0.05, "0.05 is not an integer of at least 0, nor a percentage such as '5%'"),
    ("max_failed", "5", "'5' is neither a count nor a percentage such as '5%'"),
    ("max_consecutive_failures", 0, "0 is not an integer of at least 1"),
    ("concurrency", -3, "-3 is not an integer from 1 to 32"),
    ("concurrency", 33, "33 is not an integer from 1 to 32"),
]
"""``tests/unit/batch/test_options.py`` has more values of these."""
VALID: dict[type[BaseOperator], dict[str, Any]] = {
    ApptotoSendMessageOperator: {"type": "sms", "to": "+16505550199", "message": "Hi"},
    ApptotoSendMessageBatchOperator: {"messages": []},
}
WRONG = [
    *((ApptotoSendMessageOperator, *each) for each in SHARED),
    *((ApptotoSendMessageBatchOperator, *each) for each in (*SHARED, *BATCH)),
]


@pytest.mark.contract
@pytest.mark.parametrize(("operator", "name", "value", "problem"), WRONG)
def test_a_wrong_parameter_is_found_when_the_dag_file_is_parsed(
    operator: Any, name: str, value: Any, problem: str
) -> None:
    with pytest.raises(ApptotoConfigurationError) as raised:
        operator(task_id="send", **{**VALID[operator], name: value})
    assert (raised.value.field, raised.value.problem) == (name, problem)
    assert isinstance(raised.value, AirflowFailException)  # a mapped task, created when it runs, is not retried


@pytest.mark.parametrize("operator", OPERATORS)
def test_each_parameter_that_is_not_templated_is_checked(operator: type[BaseOperator]) -> None:
    checked = {name for each, name, *_ in WRONG if each is operator}
    assert checked == parameters(operator) - set(operator.template_fields) - {"retry_policy"}


@pytest.mark.contract
@pytest.mark.parametrize("fields", [{}, {"messages": [], "messages_path": "/rows.csv"}], ids=["neither", "both"])
def test_a_batch_has_exactly_one_source_of_rows(fields: dict[str, Any]) -> None:
    with pytest.raises(ApptotoConfigurationError) as raised:
        ApptotoSendMessageBatchOperator(task_id="batch", **fields)
    assert str(raised.value) == "messages: exactly one of messages and messages_path is required"


@pytest.mark.contract
@pytest.mark.usefixtures("airflow_database")
def test_a_wrong_parameter_of_a_mapped_task_fails_it_at_once() -> None:
    """Its constructor runs when the task runs."""
    again = {"retries": 3, "retry_delay": timedelta(0)}

    def build() -> None:
        send = ApptotoSendMessageOperator.partial(task_id="send", type="sms", message="Hi", on_unknown="retry", **again)
        send.expand(to=["+16505550199"])
        batch = ApptotoSendMessageBatchOperator.partial(task_id="batch", **again)
        batch.expand_kwargs([{"messages": [], "max_failed": 0.05}, {"messages": [], "redact": "yes"}, {}])

    run = run_dag(build)
    assert [(task.task_id, task.state, task.tries) for task in run.tasks] == [
        ("batch", "failed", 1),
        ("batch", "failed", 1),
        ("batch", "failed", 1),
        ("send", "failed", 1),
    ]


# --- what the documentation says of them


@pytest.mark.contract
@pytest.mark.parametrize("operator", OPERATORS)
def test_connection_ids_are_templated(operator: type[BaseOperator]) -> None:
    names = {name for name in parameters(operator) if name.endswith("_conn_id")}
    assert names
    assert names <= set(operator.template_fields)


@pytest.mark.contract
@pytest.mark.parametrize("operator", OPERATORS)
def test_what_the_docstring_calls_templated_is(operator: type[BaseOperator]) -> None:
    text = inspect.cleandoc(operator.__doc__ or "") + "\n:end"
    documented = re.findall(r":param (\w+):(.*?)(?=\n:)", text, re.DOTALL)
    said = {name for name, meaning in documented if "(templated" in meaning or "is templated" in meaning}
    assert said == set(operator.template_fields)
    assert {name for name, _ in documented} == parameters(operator)
