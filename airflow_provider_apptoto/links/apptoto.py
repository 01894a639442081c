"""The link from a task to its messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_provider_apptoto._airflow import has_plugin_pages

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator


class ApptotoOutboxLink(BaseOperatorLink):
    """Opens the outbox page with the messages of a task (Airflow 3.1 and newer)."""

    name = "Apptoto outbox"

    def get_link(
        self,
        operator: BaseOperator,
        *,
        ti_key: object,
    ) -> str:
        """Return the link, relative to Airflow's base path; empty before Airflow 3.1.

        :param ti_key: the task instance: ``dag_id``, ``run_id``, ``task_id``.
        """
        if not has_plugin_pages():
            return ""
        from airflow_provider_apptoto.outbox.page_link import page_path

        dag_id, run_id, task_id = (getattr(ti_key, f"{name}_id") for name in ("dag", "run", "task"))
        return page_path(dag_id, run_id, task_id, getattr(operator, "apptoto_conn_id", ""))
