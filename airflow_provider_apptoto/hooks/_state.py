"""The persistent state of a connection: its state database, ledger, and rate limit."""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_apptoto._airflow import Variables, mask_secret, runs_tasks_on_one_host
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.configuration import keep_days, option
from airflow_provider_apptoto.privacy import remove_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from airflow_provider_apptoto.client import ApptotoClient, RateLimiter
    from airflow_provider_apptoto.connection import ConnectionSettings, DatabaseConnection
    from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
    from airflow_provider_apptoto.outbox.database import StateDatabase
    from airflow_provider_apptoto.outbox.guards import Guards
    from airflow_provider_apptoto.outbox.optouts import OptOuts
    from airflow_provider_apptoto.outbox.origin import Origin
    from airflow_provider_apptoto.outbox.pin import Memory, Pin
    from airflow_provider_apptoto.outbox.policy import SendPolicy
    from airflow_provider_apptoto.outbox.secret import LedgerSecret
    from airflow_provider_apptoto.outbox.stores.base import LedgerStore, StoreKind
    from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore
    from airflow_provider_apptoto.outbox.stores.task_state import TaskStateLedgerStore

T = TypeVar("T")

log = logging.getLogger(__name__)

_told: set[str] = set()


def tell_once(level: int, text: str) -> None:
    """Log a line once per process, not once per message."""
    if text not in _told:
        _told.add(text)
        log.log(level, text)


def ledger_secret() -> LedgerSecret:
    """Return the secret that keys the hashes in the ledgers of this deployment.

    :raises ApptotoConfigurationError: ``[apptoto] ledger_secret`` is invalid.
    """
    from airflow_provider_apptoto.outbox.secret import LedgerSecret

    found = option("ledger_secret")
    if found is None:
        return LedgerSecret()
    secret = LedgerSecret.parse(*found)
    for value in secret.values:
        mask_secret(value)
    return secret


def ledger_outside_tasks(hook: ApptotoHook, database: StateDatabase) -> SqlLedgerStore:
    """Return the ledger, for commands and the API server, which read Airflow's database.

    :param database: the state database of the hook.
    """
    from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore

    pin = hook.ledger_pin(Variables("airflow.models.variable"))
    return SqlLedgerStore(database, pin, ledger_secret())


def optouts_outside_tasks(hook: ApptotoHook, database: StateDatabase) -> OptOuts:
    """Return the lists of people who opted out, for commands and the API server, which read Airflow's database.

    :param database: the state database of the hook.
    """
    from airflow_provider_apptoto.outbox.optouts import OptOuts

    return OptOuts(database, ledger_outside_tasks(hook, database).hash_keys, hook.default_region)


class AccountState:
    """The state database, the ledger and the rate limit of one Apptoto connection.

    :param conn_id: id of the Apptoto connection.
    :param settings: settings of the Apptoto connection.
    :param get_connection: returns an Airflow connection by its id.
    """

    def __init__(
        self, conn_id: str, settings: ConnectionSettings, get_connection: Callable[[str], DatabaseConnection]
    ) -> None:
        self._conn_id = conn_id
        self._settings = settings
        self._get_connection = get_connection
        self._task_state_store: TaskStateLedgerStore | None = None

    @cached_property
    def database(self) -> StateDatabase | None:
        """The database that ``state_conn_id`` of the connection names, or ``None``."""
        from airflow_provider_apptoto.outbox.database import state_database
        from airflow_provider_apptoto.outbox.engine import database_url

        conn_id = self._settings.state_conn_id
        try:
            return None if conn_id is None else state_database(database_url(self._get_connection(conn_id)))
        except BaseException as error:
            # the frames below hold the database's password
            remove_frames(error)
            raise

    def ledger_store(self, context: Mapping[str, Any], origin: Origin) -> LedgerStore | None:
        """Return the ledger store: the connection's state database, else Airflow's task state, else ``None``.

        :raises ApptotoConfigurationError: ``state_conn_id`` is invalid, or a callback needs it.
        """
        if self._sql_store is not None:
            tell_once(logging.INFO, f"Ledger: state database {self._settings.state_conn_id!r}")
            self._tell_where_to_look("sql", origin)
            return self._sql_store
        if not origin.is_task:
            msg = (
                "is not from a running task, so the ledger can't use Airflow's task state; set state_conn_id on the "
                "Apptoto connection"
            )
            raise ApptotoConfigurationError("context", msg, code="state_database_needed")
        task_state = context.get("task_state_store")
        if task_state is None:
            tell_once(
                logging.WARNING,
                "No ledger: if this worker is killed, a retry may resend messages. Set state_conn_id on the Apptoto "
                "connection (required before Airflow 3.3)",
            )
            return None
        from airflow_provider_apptoto.outbox.stores.task_state import TaskStateLedgerStore

        tell_once(logging.INFO, "Ledger: Airflow's task state")
        self._tell_where_to_look("task_state", origin)
        if self._task_state_store is None or self._task_state_store.task_state is not task_state:
            self._task_state_store = TaskStateLedgerStore(task_state, ledger_secret())
        return self._task_state_store

    def _tell_where_to_look(self, kind: StoreKind, origin: Origin) -> None:
        """Log where the messages of a task are shown: the line is there even if the worker is killed."""
        from airflow_provider_apptoto.outbox.instructions import where_to_look

        where = where_to_look(kind, self._conn_id, origin)
        if where is not None:
            tell_once(logging.INFO, where)

    def guards(self, policy: SendPolicy, context: Mapping[str, Any], client: ApptotoClient) -> Guards:
        """Return the guards of an outbox: the task's settings, and the connection's where the task has none.

        :param client: reads the states of appointments.
        :raises ApptotoConfigurationError: a guard needs the state database, and there is none.
        """
        from airflow_provider_apptoto.outbox.caps import Caps
        from airflow_provider_apptoto.outbox.guards import Guards
        from airflow_provider_apptoto.outbox.policy import allowed_states, limits_of, time_of, window_of
        from airflow_provider_apptoto.outbox.states import EventStates

        settings, store = self._settings, self._sql_store
        window = settings.send_window if policy.send_window is None else window_of(policy.send_window)
        limits = (*limits_of(policy.at_most), *settings.at_most)
        states = allowed_states(policy.only_if_state)
        for name, is_set in {"at_most": limits, "optout_lists": policy.optout_lists}.items():
            if is_set and store is None:
                msg = "needs a state database: set state_conn_id on the Apptoto connection"
                raise ApptotoConfigurationError(name, msg, code="state_database_needed")
        return Guards(
            why_too_old="" if window is not None else policy.why_too_old(context),
            run_time=time_of(context),
            max_age=policy.max_age,
            window=window,
            may_hold=policy.when_closed == "hold",
            timezone=settings.timezone,
            optouts=self.optouts,
            optout_lists=tuple(policy.optout_lists),
            states=EventStates(client=client, allowed=states) if states else None,
            caps=Caps(store, limits, settings.login) if limits and store is not None else None,
            conn_id=self._conn_id,
        )

    @cached_property
    def _sql_store(self) -> SqlLedgerStore | None:
        if self.database is None:
            return None
        from airflow_provider_apptoto.outbox.stores.sql import SqlLedgerStore

        return SqlLedgerStore(self.database, self.pin(Variables()), ledger_secret())

    @cached_property
    def optouts(self) -> OptOuts | None:
        """The lists of people who opted out, or ``None`` without a state database."""
        if self.database is None or self._sql_store is None:
            return None
        from airflow_provider_apptoto.outbox.optouts import OptOuts

        return OptOuts(self.database, self._sql_store.hash_keys, self._settings.default_region)

    def purge(self, older_than: timedelta | None, export: Path | None) -> int:
        """Remove finished entries from the ledger: see :meth:`.ApptotoHook.purge`."""
        from airflow_provider_apptoto.outbox.admin import LedgerAdmin

        age = timedelta(days=keep_days()) if older_than is None else older_than
        if age < timedelta(0):
            raise ApptotoConfigurationError("older_than", "must not be negative")
        return LedgerAdmin(self.required(self.database, "a purge")).purge(age.total_seconds(), export)

    def required(self, found: T | None, purpose: str) -> T:
        """Return what the state database provides.

        :raises ApptotoConfigurationError: the connection has no state database.
        """
        if found is None:
            msg = f"is required for {purpose}; set it on the Apptoto connection {self._conn_id!r}"
            raise ApptotoConfigurationError("state_conn_id", msg, code="state_database_needed")
        return found

    def pin(self, memory: Memory) -> Pin:
        """Return the pin of the state database, which detects a lost or replaced one.

        :param memory: stores the pin.
        :raises ApptotoConfigurationError: the connection has no state database.
        """
        from airflow_provider_apptoto.outbox.instructions import ledger_command
        from airflow_provider_apptoto.outbox.pin import Pin

        database = self.required(self.database, "a ledger")
        conn_id = self.required(self._settings.state_conn_id, "a ledger")
        return Pin(conn_id, database, memory, f"{ledger_command('init', self._conn_id)} --accept")

    def rate_limiter(self) -> RateLimiter:
        from sqlalchemy.engine import URL

        from airflow_provider_apptoto.metrics import MeteredRateLimiter
        from airflow_provider_apptoto.outbox.database import host_file, state_database
        from airflow_provider_apptoto.outbox.rate_limit import shared_rate_limiter

        database = self.database
        if database is None:
            if not runs_tasks_on_one_host():
                tell_once(
                    logging.WARNING,
                    "The rate limit is not shared between hosts: set state_conn_id on the Apptoto connection",
                )
            database = state_database(URL.create("sqlite", database=str(host_file())))
        account = self._settings.base_url, self._settings.login
        limiter = shared_rate_limiter(database, account, self._settings.requests_per_minute)
        return MeteredRateLimiter(limiter, self._conn_id)
