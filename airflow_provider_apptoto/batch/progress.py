"""Report the progress of a batch: in the log, and in the task state store where Airflow has one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_apptoto.batch.results import BatchResults

log = logging.getLogger(__name__)

_NAME = "apptoto-batch"
"""Name under which the task state store keeps the counts."""


def show_progress(results: BatchResults, context: Mapping[str, Any]) -> None:
    """Log the progress, and update the counts in the task state store. If that fails, the batch continues."""
    log.info("%s", results.progress())
    task_state = context.get("task_state_store")
    if task_state is None:
        return
    from airflow_provider_apptoto._airflow import never_expire
    from airflow_provider_apptoto.outbox.stores.task_state import supervisor_lock

    try:
        with supervisor_lock:
            counts = {name: count for name, count in results.counts().items() if count}
            task_state.set(_NAME, counts, retention=never_expire())
    except Exception:
        log.debug("The progress could not be written to the task state store", exc_info=True)
