"""Read messages of a state database and of Airflow's task state as one list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_apptoto._airflow_task_state import has_task_state
from airflow_provider_apptoto.client.errors import ApptotoValidationError
from airflow_provider_apptoto.client.recipients import canonical
from airflow_provider_apptoto.outbox.pages import Page, Search
from airflow_provider_apptoto.outbox.stores.base import LedgerStoreError
from airflow_provider_apptoto.privacy import printable
from airflow_provider_apptoto.ui.sources import NoDatabaseError, SourceError, find_source, region_of, usable
from airflow_provider_apptoto.ui.task_state import Finder, TaskStates, merged

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic import SecretStr

    from airflow_provider_apptoto.ui.requests import Filters
    from airflow_provider_apptoto.ui.sources import Source


def task_states(
    dag_id: str | None, run_id: str | None, task_id: str | None, dag_ids: Collection[str]
) -> TaskStates | None:
    """Return the entries in Airflow's task state of a DAG run.

    :param dag_ids: the DAGs that the user may read.
    :return: ``None`` if no run is named, the DAG is none of these, or Airflow has no task state.
    """
    if dag_id is None or run_id is None or dag_id not in dag_ids or not has_task_state():
        return None
    return TaskStates(dag_id=dag_id, run_id=run_id, task_id=task_id)


class Reader:
    """Reads the messages that filters select, page by page.

    :param filters: those of the first page.
    :param dag_ids: the DAGs that the user may read.
    :param text: a reference or a recipient to search for.
    :raises SourceError: the state database can't be used, and no run of a DAG is named.
    """

    def __init__(self, filters: Filters, dag_ids: Collection[str], text: SecretStr | None = None) -> None:
        self._dag_ids = dag_ids
        self._states = task_states(filters.dag, filters.run, filters.task, dag_ids)
        self._source: Source | None = None
        self._search: Search | None = None
        self._finder: Finder | None = None
        self.hint: str | None = None
        """Why the text can't be searched for as a recipient."""
        self.problems: list[str] = []
        """What is not shown, and why."""
        try:
            self._source = find_source(filters.source)
        except SourceError as error:
            self._note(error)
        if text is not None:
            self._look_for(printable(text.get_secret_value()), filters.source)

    def page(self, filters: Filters) -> Page:
        """Return a page of the messages.

        :param filters: those of the first page, with a start of their own.
        :raises SourceError: as for the class.
        """
        pages = []
        chosen, after, limit = filters.selection, filters.cursor, filters.limit
        if self._source is not None:
            try:
                pages.append(self._source.page(chosen, self._dag_ids, search=self._search, after=after, limit=limit))
            except LedgerStoreError as error:
                self._note(usable(error, self._source.conn_id))
            except SourceError as error:
                self._note(error)
        if self._states is not None:
            pages.append(self._states.page(chosen, self._finder, after=after, limit=limit))
            if self._states.problem is not None and self._states.problem not in self.problems:
                self.problems.append(self._states.problem)
        return merged(pages, limit)

    def _note(self, error: SourceError) -> None:
        """Note what is not shown of the state database, if there are other messages to show."""
        if self._states is None:
            raise error
        self._source = None
        if not isinstance(error, NoDatabaseError):
            self.problems.append(str(error))

    def _look_for(self, text: str, conn_id: str) -> None:
        region = region_of(conn_id)
        try:
            canonical(text, region)
        except ApptotoValidationError as error:
            self.hint = error.problem if error.code == "region_needed" else None
        self._finder = Finder.of(text, region)
        self._search = Search(reference=text)
        if self._source is None or self._finder.recipient is None:
            return
        try:
            self._search = Search(reference=text, recipients=self._source.optouts.hashes_of(text))
        except LedgerStoreError as error:
            self._note(usable(error, conn_id))
