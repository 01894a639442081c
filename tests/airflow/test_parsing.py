"""What the parsing of a DAG file costs and touches: as little as can be."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator, ApptotoSendMessageOperator

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
)
"""From the lightest on: each is blamed for what those before it have not loaded."""


@pytest.mark.contract
def test_what_a_dag_file_imports_loads_nothing_heavy() -> None:
    program = [sys.executable, "-m", "tests.support.imports_in_turn", *MODULES]
    done = subprocess.run(program, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert loaded.keys() == set(MODULES)
    for names in loaded.values():
        assert "airflow_provider_apptoto" in names
        assert not set(names) & set(HEAVY)


@pytest.mark.contract
@pytest.mark.parametrize("operator", OPERATORS)
def test_making_a_task_only_assigns(operator: type[BaseOperator]) -> None:
    """Fields are rendered after ``__init__``, and mapped ones arrive later still: no look into them is right there."""
    function = ast.parse(textwrap.dedent(inspect.getsource(operator.__init__))).body[0]
    assert isinstance(function, ast.FunctionDef)
    assigned = {}
    for statement in function.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Attribute):
            assert isinstance(statement.value, ast.Name)
            assigned[statement.targets[0].attr] = statement.value.id
    assert set(operator.template_fields) <= set(assigned)
    assert all(attribute == argument for attribute, argument in assigned.items())


@pytest.mark.contract
def test_a_task_may_be_made_of_anything_and_without_a_connection() -> None:
    task = ApptotoSendMessageOperator(
        task_id="send",
        type="{{ nonsense",
        to=5,  # type: ignore[arg-type]
        event_id="",
        message=None,
        apptoto_conn_id="none_of_ours",
    )
    assert task.type == "{{ nonsense"
    many = ApptotoSendMessageBatchOperator(task_id="batch", messages=5, max_messages="many")  # type: ignore[arg-type]
    assert many.max_messages == "many"  # type: ignore[comparison-overlap]


@pytest.mark.contract
@pytest.mark.parametrize("operator", OPERATORS)
def test_connection_ids_are_templated(operator: type[BaseOperator]) -> None:
    names = {name for name in inspect.signature(operator.__init__).parameters if name.endswith("_conn_id")}
    assert names
    assert names <= set(operator.template_fields)


@pytest.mark.contract
@pytest.mark.parametrize("operator", OPERATORS)
def test_what_the_docstring_calls_templated_is(operator: type[BaseOperator]) -> None:
    text = inspect.cleandoc(operator.__doc__ or "") + "\n:end"
    parameters = re.findall(r":param (\w+):(.*?)(?=\n:)", text, re.DOTALL)
    said = {name for name, meaning in parameters if "(templated" in meaning or "is templated" in meaning}
    assert said == set(operator.template_fields)
    assert {name for name, _ in parameters} == set(inspect.signature(operator.__init__).parameters) - {"self", "kwargs"}
