"""Airflow finds the outbox page by its entry point, and every process loads it cheaply."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.plugins_manager import AirflowPlugin

from airflow_provider_apptoto.links.apptoto import ApptotoOutboxLink
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageOperator
from airflow_provider_apptoto.plugins import apptoto
from airflow_provider_apptoto.plugins.apptoto import ApptotoPlugin

CHECKOUT = Path(__file__).parents[2]
HAS_PAGES = hasattr(AirflowPlugin, "external_views")
LOAD = """
import json, sys
from airflow.plugins_manager import AirflowPlugin
import airflow_provider_apptoto.get_provider_info
before = set(sys.modules)
import airflow_provider_apptoto.plugins.apptoto
print("answer:", json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.mark.contract
def test_the_entry_point_names_the_plugin() -> None:
    points = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["entry-points"]["airflow.plugins"]
    assert points == {"apptoto": f"{apptoto.__name__}:{ApptotoPlugin.__name__}"}


@pytest.mark.contract
def test_the_page_is_there_where_airflow_can_show_it() -> None:
    ApptotoPlugin.validate()  # type: ignore[no-untyped-call]
    assert len(ApptotoPlugin.fastapi_apps if HAS_PAGES else []) == HAS_PAGES
    assert len(getattr(ApptotoPlugin, "external_views", [])) == HAS_PAGES


@pytest.mark.skipif(not HAS_PAGES, reason="the page needs Airflow 3.1 or newer")
def test_the_urls_of_the_page_are_relative_because_airflow_may_have_a_base_path() -> None:
    [view], [app] = ApptotoPlugin.external_views, ApptotoPlugin.fastapi_apps
    for name in ("href", "icon", "icon_dark_mode"):
        assert f"/{view[name]}".startswith(f"{app['url_prefix']}/")


@pytest.mark.contract
@pytest.mark.processes
def test_every_process_loads_the_plugin_so_it_imports_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("answer: ")]
    assert json.loads(line.removeprefix("answer: ")) == [
        "airflow_provider_apptoto.plugins",
        "airflow_provider_apptoto.plugins.apptoto",
    ]


@pytest.mark.contract
def test_a_task_has_a_link_to_its_messages_where_airflow_can_show_them() -> None:
    task = SimpleNamespace(dag_id="clinic", task_id="remind", run_id="manual__2026-11-29T08:00:00+00:00")
    operator = ApptotoSendMessageOperator(task_id="remind", type="sms", to="+16505550199", message="Hi")
    url = "apptoto/go?dag=clinic&run=manual__2026-11-29T08%3A00%3A00%2B00%3A00&task=remind"
    assert ApptotoOutboxLink().get_link(operator, ti_key=task) == (url if HAS_PAGES else "")
