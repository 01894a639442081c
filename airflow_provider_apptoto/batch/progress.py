"""Shows how far a batch is: in the log, and in the task's state where Airflow has that."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_apptoto.batch.results import BatchResults

log = logging.getLogger(__name__)

_NAME = "apptoto-batch"
"""Name of the counts in the task's state."""


def show_progress(results: BatchResults, context: Mapping[str, Any]) -> None:
    """Log a line, and update the counts in the task's state. A failure of that is not worth a message."""
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
        log.debug("The counts could not be shown in the task's state", exc_info=True)
