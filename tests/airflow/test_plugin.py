"""Airflow finds the outbox page by its entry point; loading it costs a process next to nothing."""

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
import json, sys, time
from airflow.plugins_manager import AirflowPlugin
import airflow_provider_apptoto.get_provider_info
before, took = set(sys.modules), []
sys.pycache_prefix, sys.dont_write_bytecode = sys.argv[1], False  # as installed: compiled once
for _ in range(20):
    for name in [name for name in sys.modules if name.startswith("airflow_provider_apptoto.plugins")]:
        del sys.modules[name]
    began = time.thread_time()
    import airflow_provider_apptoto.plugins.apptoto
    took.append(time.thread_time() - began)
print("answer:", json.dumps([min(took), sorted(set(sys.modules) - before)]))
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
def test_every_process_loads_the_plugin_so_it_imports_nothing_else(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, tmp_path], capture_output=True, text=True, check=True, cwd=CHECKOUT
    )
    [line] = [line for line in done.stdout.splitlines() if line.startswith("answer: ")]
    seconds, imported = json.loads(line.removeprefix("answer: "))
    assert imported == ["airflow_provider_apptoto.plugins", "airflow_provider_apptoto.plugins.apptoto"]
    assert seconds < 0.001  # of the processor


@pytest.mark.contract
def test_a_task_has_a_link_to_its_messages_where_airflow_can_show_them() -> None:
    task = SimpleNamespace(dag_id="clinic", task_id="remind", run_id="manual__2026-11-29T08:00:00+00:00")
    operator = ApptotoSendMessageOperator(task_id="remind", type="sms", to="+16505550199", message="Hi")
    url = "apptoto/go?dag=clinic&run=manual__2026-11-29T08%3A00%3A00%2B00%3A00&task=remind"
    assert ApptotoOutboxLink().get_link(operator, ti_key=task) == (url if HAS_PAGES else "")
