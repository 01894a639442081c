"""The state databases that the page shows."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_apptoto._airflow_task_state import has_task_state
from airflow_provider_apptoto.client.errors import ApptotoError
from airflow_provider_apptoto.configuration import outbox_conn_ids
from airflow_provider_apptoto.hooks._state import optouts_outside_tasks
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.outbox.admin import LedgerAdmin
from airflow_provider_apptoto.outbox.instructions import ledger_command
from airflow_provider_apptoto.outbox.pages import LedgerPages, Page
from airflow_provider_apptoto.outbox.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_apptoto.outbox.admin import Selection
    from airflow_provider_apptoto.outbox.database import StateDatabase
    from airflow_provider_apptoto.outbox.optouts import OptOuts
    from airflow_provider_apptoto.outbox.pages import Cursor, Search
    from airflow_provider_apptoto.outbox.stores.base import LedgerStoreError

log = logging.getLogger(__name__)


class SourceError(Exception):
    """The messages of a connection can't be shown or changed. The text is safe to show to any user."""


class NoDatabaseError(SourceError):
    """The connection has no state database."""


@dataclass(frozen=True, slots=True)
class Source:
    """The state database of an Apptoto connection.

    :param conn_id: id of the Apptoto connection.
    """

    conn_id: str
    hook: ApptotoHook
    database: StateDatabase

    def page(
        self,
        selection: Selection,
        dag_ids: Collection[str],
        *,
        search: Search | None = None,
        after: Cursor | None = None,
        limit: int,
    ) -> Page:
        """Return a page of entries (:meth:`LedgerPages.page`); without tables, an empty one.

        :raises LedgerStoreError: the database can't be used.
        :raises SourceError: its tables are of an older version.
        """
        if not self._has_tables():
            return Page()
        return LedgerPages(self.database, dag_ids).page(selection, search=search, after=after, limit=limit)

    @property
    def admin(self) -> LedgerAdmin:
        """The ledger, for changes.

        :raises LedgerStoreError: the database can't be used.
        :raises SourceError: it has no tables, or tables of an older version.
        """
        if not self._has_tables():
            raise SourceError(f"The state database of connection {self.conn_id!r} is empty.")
        return LedgerAdmin(self.database)

    @property
    def optouts(self) -> OptOuts:
        """The lists of people who opted out."""
        return optouts_outside_tasks(self.hook, self.database)

    def _has_tables(self) -> bool:
        """Return whether there are tables. To create or migrate them is left to tasks and to the command line."""
        version = self.database.version()
        if 0 < version < SCHEMA_VERSION:
            raise SourceError(
                f"The state database of connection {self.conn_id!r} was created by an older version of the provider. "
                f"Migrate it with: {ledger_command('init', self.conn_id)}"
            )
        return version > 0


def find_source(conn_id: str) -> Source:
    """Return the state database of a connection.

    :raises SourceError: it has none, or can't be read.
    """
    if conn_id not in outbox_conn_ids():
        raise SourceError(f"Connection {conn_id!r} is not one of [apptoto] outbox_conn_ids.")
    try:
        hook = ApptotoHook(conn_id)
        database = hook.state_database
    except (AirflowException, ApptotoError) as error:
        log.warning("Outbox page: connection %r can't be used: %s", conn_id, error)
        raise SourceError(
            f"Connection {conn_id!r} can't be used. It must exist for the API server, whose log has the reason."
        ) from None
    if database is None:
        what = "Filter by DAG and run to see the messages in Airflow's task state." if has_task_state() else ""
        raise NoDatabaseError(
            f"Connection {conn_id!r} has no state_conn_id, so there is no state database. {what}".rstrip()
        )
    return Source(conn_id, hook, database)


def region_of(conn_id: str) -> str | None:
    """Return the region of phone numbers without ``+``, or ``None``."""
    try:
        return ApptotoHook(conn_id).default_region
    except (AirflowException, ApptotoError):
        return None


def usable(error: LedgerStoreError, conn_id: str) -> SourceError:
    """Return the error to show in place of one that may name hosts and files, which is logged."""
    log.warning("Outbox page: connection %r: %s", conn_id, error)
    return SourceError(
        f"The state database of connection {conn_id!r} can't be used now. The log of the API server has the reason."
    )


def all_sources() -> tuple[list[Source], list[SourceError]]:
    """Return the state databases, each once, and the problems of connections that have none."""
    sources: list[Source] = []
    problems = []
    for conn_id in outbox_conn_ids():
        try:
            found = find_source(conn_id)
        except SourceError as error:
            problems.append(error)
        else:
            if all(found.database is not other.database for other in sources):
                sources.append(found)
    return sources, problems
