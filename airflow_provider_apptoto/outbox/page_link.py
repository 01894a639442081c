"""Links to the outbox page in Airflow, for texts and for the link of a task. The worker's configuration decides."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from airflow_provider_apptoto._airflow import has_plugin_pages
from airflow_provider_apptoto._defaults import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from airflow_provider_apptoto.outbox.origin import Origin
    from airflow_provider_apptoto.outbox.stores.base import StoreKind

IN_MENU = "Browse, Apptoto outbox"
"""Where Airflow's UI shows the page."""


def page_path(dag_id: str, run_id: str, task_id: str, conn_id: str) -> str:
    """Return the path of the page with the messages of a task, relative to Airflow's base path.

    :param task_id: empty for a DAG callback.
    :param conn_id: the Apptoto connection whose messages the page shows.
    """
    query = {"dag": dag_id, "run": run_id, "task": task_id, "source": "" if conn_id == DEFAULT_CONN_ID else conn_id}
    return f"apptoto/go?{urlencode({name: value for name, value in query.items() if value})}"


def is_on_page(kind: StoreKind, conn_id: str) -> bool:
    """Return whether the outbox page shows the messages of a connection (Airflow 3.1 and newer)."""
    from airflow_provider_apptoto.configuration import outbox_conn_ids

    return has_plugin_pages() and (kind == "task_state" or conn_id in outbox_conn_ids())


def page_url(origin: Origin, conn_id: str) -> str | None:
    """Return the address of the page with the messages of a task; ``None`` if ``[api] base_url`` is not set."""
    from airflow.providers.common.compat.sdk import conf

    base = conf.get("api", "base_url", fallback=None)
    if not base:
        return None
    return f"{base.rstrip('/')}/{page_path(origin.dag_id, origin.run_id, origin.task_id, conn_id)}"
