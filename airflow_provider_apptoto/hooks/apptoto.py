"""From an Airflow connection to a client of Apptoto."""

from __future__ import annotations

import base64
import dataclasses
import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException, BaseHook

from airflow_provider_apptoto import __version__
from airflow_provider_apptoto._airflow import (
    Variables,
    connection_form_fields,
    mask_secret,
    runs_tasks_on_one_host,
)
from airflow_provider_apptoto.configuration import option
from airflow_provider_apptoto.privacy import remove_frames

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_apptoto.client import ApptotoClient, Message, RetryPolicy, SendResult
    from airflow_provider_apptoto.client.pacing import Pacer
    from airflow_provider_apptoto.connection import ConnectionSettings
    from airflow_provider_apptoto.state.database import StateDatabase
    from airflow_provider_apptoto.state.ledger import LedgerTiming
    from airflow_provider_apptoto.state.pin import Memory, Pin
    from airflow_provider_apptoto.state.secret import LedgerSecret
    from airflow_provider_apptoto.state.store import LedgerStore

log = logging.getLogger(__name__)

_TEST_SECONDS = 10.0
"""The longest that ``test_connection`` waits for an answer: a person looks on."""
_told: set[str] = set()


def _tell_once(level: int, text: str) -> None:
    """Log what is worth knowing once a process, not once a message."""
    if text not in _told:
        _told.add(text)
        log.log(level, text)


def ledger_secret() -> LedgerSecret:
    """Return what keys the hashes of ledgers in this deployment.

    :raises ApptotoConfigurationError: ``[apptoto] ledger_secret`` is set, and is none.
    """
    from airflow_provider_apptoto.state.secret import LedgerSecret

    found = option("ledger_secret")
    if found is None:
        return LedgerSecret()
    secret = LedgerSecret.parse(*found)
    for value in secret.values:
        mask_secret(value)
    return secret


class ApptotoHook(BaseHook):
    """Sends messages through an Apptoto account.

    It classifies outcomes, keeps the account's pace and obeys the delivery mode in any task. That a message is not sent
    twice over retries is the operators' work.

    .. seealso:: :ref:`howto/connection:apptoto`

    :param apptoto_conn_id: id of a connection of type ``apptoto``.
    :param delivery_mode: ``live``, ``redirect`` or ``dry_run``; the strictest of this, the connection's and
        ``[apptoto] delivery_mode`` in Airflow's configuration counts.
    """

    conn_name_attr = "apptoto_conn_id"
    default_conn_name = "apptoto_default"
    conn_type = "apptoto"
    hook_name = "Apptoto"

    retry_policy: ClassVar[RetryPolicy | None] = None
    """When the client repeats a request that was certainly not sent; ``None``: the client's default."""
    total_timeout: ClassVar[float | None] = None
    """Seconds that an exchange may last; ``None``: the client's default."""
    ledger_timing: ClassVar[LedgerTiming | None] = None
    """How long the ledger waits; ``None``: its defaults. Shorter ones are for tests: a lease that ends before the send
    that it covers makes that send unknown."""

    def __init__(self, apptoto_conn_id: str = default_conn_name, *, delivery_mode: str | None = None) -> None:
        super().__init__()
        self.apptoto_conn_id = apptoto_conn_id
        self.delivery_mode = delivery_mode

    def get_conn(self) -> ApptotoClient:
        """Return the client; its requests share one session, and obey the delivery mode.

        :raises ApptotoConfigurationError: the connection, or a delivery mode, is wrong.
        """
        return self._client

    def send_message(
        self,
        *,
        type: str,
        to: str | None = None,
        event_id: int | str | None = None,
        participant_id: int | str | None = None,
        message: str | None = None,
        subject: str | None = None,
        template_id: int | str | None = None,
        max_segments: int | None = 3,
    ) -> SendResult:
        """Send one message; the parameters are those of :class:`~airflow_provider_apptoto.client.Message`.

        :raises ApptotoValidationError: the message is not one that Apptoto takes; nothing was sent.
        :raises ApptotoNotSentError: certainly not sent; another try is safe.
        :raises ApptotoRejectedError: refused.
        :raises ApptotoUnknownOutcomeError: it may have been sent; another try might send it twice.
        """
        try:
            checked = self.build_message(
                type=type,
                to=to,
                event_id=event_id,
                participant_id=participant_id,
                message=message,
                subject=subject,
                template_id=template_id,
                max_segments=max_segments,
            )
            return self.get_conn().send(checked)
        except BaseException as error:
            # this frame and those below hold the message
            remove_frames(error)
            raise

    def build_message(self, **fields: Any) -> Message:
        """Return a message, checked by the connection's ``default_region`` and ``allowed_regions``.

        :param fields: the other parameters of :class:`~airflow_provider_apptoto.client.Message`.
        :raises ApptotoValidationError: the message is not one that Apptoto takes.
        """
        from airflow_provider_apptoto.client import Message

        try:
            return Message(
                **fields,
                default_region=self._settings.default_region,
                allowed_regions=self._settings.allowed_regions,
            )
        except BaseException as error:
            # this frame and those below hold the message
            remove_frames(error)
            raise

    def ledger_store(self, context: Mapping[str, Any]) -> LedgerStore | None:
        """Return where sends are remembered: the connection's state database, else Airflow's task state, else nowhere.

        :param context: the task's context.
        :raises ApptotoConfigurationError: ``state_conn_id`` is wrong.
        """
        if self.state_database is not None:
            from airflow_provider_apptoto.cli import ledger_command
            from airflow_provider_apptoto.state.sql_ledger import SqlLedgerStore

            _tell_once(logging.INFO, f"Sends are remembered in the state database {self._settings.state_conn_id!r}")
            pin = self.ledger_pin(Variables())
            command = ledger_command("resolve", self.apptoto_conn_id)
            return SqlLedgerStore(self.state_database, command, pin, ledger_secret())
        task_state = context.get("task_state_store")
        if task_state is None:
            _tell_once(
                logging.WARNING,
                "Sends are not remembered: if this worker is killed, a retry may send again. Set state_conn_id on the "
                "Apptoto connection (before Airflow 3.3 there is no other way)",
            )
            return None
        from airflow_provider_apptoto.state.task_state import TaskStateLedgerStore

        _tell_once(logging.INFO, "Sends are remembered in Airflow's task state")
        return TaskStateLedgerStore(task_state, ledger_secret())

    def ledger_pin(self, memory: Memory) -> Pin | None:
        """Return what tells whether the state database is the one that earlier tasks used; ``None``: there is none.

        :param memory: keeps it.
        """
        from airflow_provider_apptoto.cli import ledger_command
        from airflow_provider_apptoto.state.pin import Pin

        database, conn_id = self.state_database, self._settings.state_conn_id
        if database is None or conn_id is None:
            return None
        return Pin(conn_id, database, memory, f"{ledger_command('init', self.apptoto_conn_id)} --accept")

    def test_connection(self) -> tuple[bool, str]:
        """Read one event with the connection's settings, and look into the state database; never sends.

        :return: whether it works, and a sentence for the user.
        """
        from airflow_provider_apptoto.client import (
            ApptotoAuthError,
            ApptotoError,
            ApptotoNotSentError,
        )
        from airflow_provider_apptoto.state.store import LedgerStoreError

        try:
            timeout = min(self._settings.timeout, _TEST_SECONDS)
            with self._build_client(dataclasses.replace(self._settings, timeout=timeout)) as client:
                client.list_events(page_size=1)
            if self.state_database is not None:
                self.state_database.init()
        except ApptotoAuthError as error:
            return False, str(error)
        except ApptotoNotSentError as error:
            if error.status is None:
                return False, f"{self._settings.base_url} can't be reached: {error.reason}"
            return False, f"{self._settings.base_url} can't be used right now: {error}"
        except (ApptotoError, LedgerStoreError) as error:
            return False, str(error)
        except Exception as error:  # noqa: BLE001  the form wants a sentence, whatever happened
            return False, f"{type(error).__name__}: {error}"
        return True, f"Apptoto at {self._settings.base_url} accepts login and API key"

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return what the forms of Airflow before 3.2 show of the standard fields."""
        from airflow_provider_apptoto.connection import CONNECTION_TYPE

        behaviour = CONNECTION_TYPE["ui-field-behaviour"]
        return {**behaviour, "hidden_fields": behaviour["hidden-fields"]}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields for the forms of Airflow before 3.2."""
        from airflow_provider_apptoto.connection import EXTRA_FIELDS

        return connection_form_fields(EXTRA_FIELDS)

    @cached_property
    def _settings(self) -> ConnectionSettings:
        from airflow_provider_apptoto.connection import SANDBOX_URL, ConnectionSettings, SandboxAccount

        try:
            sandbox = SandboxAccount.of_environment()
            if sandbox is None:
                return ConnectionSettings.read(self.get_connection(self.apptoto_conn_id))
            _tell_once(
                logging.WARNING, f"{SANDBOX_URL} is set: every connection leads to the sandbox at {sandbox.host}"
            )
            try:
                extra = self.get_connection(self.apptoto_conn_id).extra
            except AirflowException:  # a rehearsal needs no connection
                extra = None
            return ConnectionSettings.read(dataclasses.replace(sandbox, conn_id=self.apptoto_conn_id, extra=extra))
        except BaseException as error:
            # the frames below hold Airflow's Connection, whose repr shows the password
            remove_frames(error)
            raise

    @property
    def default_region(self) -> str | None:
        """The region that completes phone numbers without ``+``, or ``None``."""
        return self._settings.default_region

    @cached_property
    def state_database(self) -> StateDatabase | None:
        """The database that ``state_conn_id`` of the connection names, or ``None``."""
        from airflow_provider_apptoto.state.database import database_url, state_database

        conn_id = self._settings.state_conn_id
        try:
            return None if conn_id is None else state_database(database_url(self.get_connection(conn_id)))
        except BaseException as error:
            # the frames below hold the database's password
            remove_frames(error)
            raise

    def _pacer(self, settings: ConnectionSettings) -> Pacer:
        from sqlalchemy.engine import URL

        from airflow_provider_apptoto.metrics import MeteredPacer
        from airflow_provider_apptoto.state.database import host_file, state_database
        from airflow_provider_apptoto.state.pace import shared_pacer

        database = self.state_database
        if database is None:
            if not runs_tasks_on_one_host():
                _tell_once(
                    logging.WARNING,
                    "Tasks on other hosts don't share this account's pace: set state_conn_id on the Apptoto connection",
                )
            database = state_database(URL.create("sqlite", database=str(host_file())))
        return MeteredPacer(shared_pacer(database, (settings.base_url, settings.login), settings.requests_per_minute))

    @cached_property
    def _client(self) -> ApptotoClient:
        try:
            return self._build_client(self._settings)
        except BaseException as error:
            # the frames below hold the API key
            remove_frames(error)
            raise

    def _build_client(self, settings: ConnectionSettings) -> ApptotoClient:
        from airflow import __version__ as airflow_version

        from airflow_provider_apptoto.client import ApptotoClient, DeliveryMode, Routing

        # Airflow hides the password by itself, not the form in which it travels
        mask_secret(settings.api_key)
        mask_secret(base64.b64encode(f"{settings.login}:{settings.api_key}".encode()).decode())
        deployment, where = option("delivery_mode") or (None, "")
        modes = {
            where: deployment,
            f"connection {self.apptoto_conn_id!r}": settings.delivery_mode,
            "the task": self.delivery_mode,
        }
        mode = DeliveryMode.strictest(*modes.values())
        setters = [source for source, each in modes.items() if each is not None and DeliveryMode(each.strip()) is mode]
        _tell_once(logging.INFO, f"Delivery mode: {mode} (set by {setters[0] if setters else 'nothing, the default'})")
        return ApptotoClient(
            login=settings.login,
            api_key=settings.api_key,
            base_url=settings.base_url,
            timeout=settings.timeout,
            connect_timeout=settings.connect_timeout,
            total_timeout=self.total_timeout,
            max_retry_after=settings.max_retry_after,
            pacer=self._pacer(settings),
            routing=Routing(mode, settings.redirect_phone_to, settings.redirect_email_to),
            ca_bundle=settings.ca_bundle,
            user_agent=f"airflow-provider-apptoto/{__version__} apache-airflow/{airflow_version}",
            retry_policy=self.retry_policy,
        )
