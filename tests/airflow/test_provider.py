"""Airflow finds the provider's metadata, connection type, operators and commands."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import os
import pkgutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import airflow
import jsonschema
import pytest
from airflow.providers.common.compat.sdk import BaseHook, BaseOperator

import airflow_provider_apptoto
from airflow_provider_apptoto.connection import EXTRA_FIELDS
from airflow_provider_apptoto.get_provider_info import get_provider_info
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHECKOUT = Path(__file__).parents[2]
INFO = get_provider_info()
KINDS = {"hooks": BaseHook, "operators": BaseOperator}


def schema(name: str) -> dict[str, Any]:
    [folder] = airflow.__path__
    read: dict[str, Any] = json.loads((Path(folder) / name).read_text())
    return read


def class_paths(info: object) -> Iterator[str]:
    """Give every class that the provider info names."""
    if isinstance(info, dict):
        for key, value in info.items():
            if key.endswith("class-name"):
                yield value
            else:
                yield from class_paths(value)
    elif isinstance(info, list):
        for value in info:
            yield from class_paths(value)


@pytest.mark.contract
def test_airflow_finds_the_provider_by_its_entry_point() -> None:
    [entry] = [
        entry
        for entry in importlib.metadata.entry_points(group="apache_airflow_provider")
        if entry.dist is not None and entry.dist.name == "airflow-provider-apptoto"
    ]
    assert entry.load()() == INFO
    assert INFO["package-name"] == "airflow-provider-apptoto"
    assert importlib.metadata.version("airflow-provider-apptoto") == airflow_provider_apptoto.__version__


@pytest.mark.contract
def test_the_provider_info_is_what_airflows_schemas_ask_for() -> None:
    jsonschema.validate(INFO, schema("provider_info.schema.json"))
    connection_types = schema("provider.yaml.schema.json")["properties"]["connection-types"]
    jsonschema.validate(INFO["connection-types"], connection_types)


@pytest.mark.contract
def test_every_listed_class_and_decorator_imports() -> None:
    paths = list(class_paths(INFO))
    assert paths
    for path in paths:
        module, _, name = path.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.contract
@pytest.mark.parametrize("kind", KINDS)
def test_the_listed_modules_have_every_public_hook_and_operator(kind: str) -> None:
    package = importlib.import_module(f"airflow_provider_apptoto.{kind}")

    def classes(modules: Iterable[str]) -> set[str]:
        return {
            name
            for module in modules
            for name, value in vars(importlib.import_module(module)).items()
            if inspect.isclass(value) and issubclass(value, KINDS[kind])
            if value.__module__.startswith(package.__name__) and "._" not in value.__module__
        }

    listed = [module for entry in INFO[kind] for module in entry["python-modules"]]
    names = [module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")]
    there = [f"{package.__name__}.{name}" for name in names]
    assert set(listed) <= set(there)
    assert all(classes([module]) for module in listed)
    assert classes(listed) == classes(there)


@pytest.mark.contract
def test_the_hook_and_its_connection_type_agree() -> None:
    [connection_type] = INFO["connection-types"]
    assert connection_type["connection-type"] == ApptotoHook.conn_type
    assert connection_type["hook-name"] == ApptotoHook.hook_name
    assert ApptotoHook.conn_name_attr in inspect.signature(ApptotoHook).parameters


@pytest.mark.contract
def test_the_older_form_shows_the_same_fields_as_the_newer() -> None:
    pytest.importorskip("flask_appbuilder", reason="only Airflow 2 brings the older form")
    widgets = ApptotoHook.get_connection_form_widgets()
    behaviour = ApptotoHook.get_ui_field_behaviour()
    assert set(widgets) == set(EXTRA_FIELDS)
    assert "schema" in behaviour["hidden_fields"]
    assert behaviour["relabeling"]["password"] == "API key"


@pytest.mark.contract
def test_no_field_of_the_form_is_compulsory() -> None:
    assert all("null" in field["schema"]["type"] for field in EXTRA_FIELDS.values())


@pytest.mark.contract
def test_each_field_but_login_and_key_is_an_option_of_the_configuration_with_the_same_bounds() -> None:
    options = INFO["config"]["apptoto"]["options"]
    assert set(options) == {"host", *EXTRA_FIELDS, "keep_days", "ledger_secret", "outbox_conn_ids"}
    for name, field in EXTRA_FIELDS.items():
        schema, about = field["schema"], options[name]
        assert about["type"] == ("float" if "number" in schema["type"] else "string")
        assert about["default"] == ("live" if name == "delivery_mode" else None)
        if "minimum" in schema:
            assert f"{schema['minimum']} to {schema['maximum']}" in field["description"]
            assert f"{schema['minimum']} to {schema['maximum']}" in about["description"]


SHOWN_BY = {
    "providers get airflow-provider-apptoto --output json": "airflow-provider-apptoto",
    "providers hooks --output json": "airflow_provider_apptoto.hooks.apptoto.ApptotoHook",
    "providers configs --output json": "airflow-provider-apptoto",
}


@pytest.mark.contract
@pytest.mark.usefixtures("airflow_database")
def test_airflows_command_line_shows_the_provider_without_a_warning_of_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.airflow_commands", *SHOWN_BY],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    assert [command for command, shows in SHOWN_BY.items() if shows not in printed[command]] == []
    assert "apptoto" not in "\n".join(line for line in done.stderr.splitlines() if "arning" in line)


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, CHECKOUT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    top = {name.partition("/")[0] for name in names}
    assert top == {
        "airflow_provider_apptoto",
        f"airflow_provider_apptoto-{airflow_provider_apptoto.__version__}.dist-info",
    }
    assert "airflow_provider_apptoto/py.typed" in names
    for name in ("sandbox/templates/inbox.html", "sandbox/static/inbox.js", "sandbox/static/inbox.css", "ui/page.html"):
        assert f"airflow_provider_apptoto/{name}" in names
    assert "apache_airflow_provider" in entry_points
    assert "airflow.plugins" in entry_points
