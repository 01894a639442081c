"""The Airflow hook for Apptoto."""

from __future__ import annotations

import dataclasses
import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_apptoto._airflow import connection_form_fields
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.hooks._state import AccountState
from airflow_provider_apptoto.outbox.policy import MAX_AGE
from airflow_provider_apptoto.privacy import remove_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import timedelta
    from pathlib import Path

    from airflow_provider_apptoto.client import ApptotoClient, Message, Outcome, RetryPolicy
    from airflow_provider_apptoto.connection import ConnectionSettings
    from airflow_provider_apptoto.outbox.cancellation import Cancellation
    from airflow_provider_apptoto.outbox.database import StateDatabase
    from airflow_provider_apptoto.outbox.delivery import Delivery
    from airflow_provider_apptoto.outbox.ledger import LedgerTiming
    from airflow_provider_apptoto.outbox.optouts import OptOuts
    from airflow_provider_apptoto.outbox.origin import Origin
    from airflow_provider_apptoto.outbox.outbox import Outbox
    from airflow_provider_apptoto.outbox.pin import Memory, Pin
    from airflow_provider_apptoto.outbox.policy import OnUnknownName, WhenClosedName

log = logging.getLogger(__name__)

_TEST_SECONDS = 10.0
"""Maximum wait of ``test_connection`` for an answer, because a person is waiting."""


class ApptotoHook(BaseHook):
    """Sends messages through an Apptoto account.

    :meth:`outbox` sends each message at most once. :meth:`send_message` sends without a ledger.

    .. seealso:: :ref:`howto/connection:apptoto`

    :param apptoto_conn_id: id of a connection of type ``apptoto``.
    :param delivery_mode: ``live``, ``redirect`` or ``dry_run``. The strictest of this, the connection's mode and
        ``[apptoto] delivery_mode`` in Airflow's configuration applies.
    """

    conn_name_attr = "apptoto_conn_id"
    default_conn_name = "apptoto_default"
    conn_type = "apptoto"
    hook_name = "Apptoto"

    retry_policy: ClassVar[RetryPolicy | None] = None
    """When the client retries a message that was certainly not sent; ``None``: the client's default."""
    total_timeout: ClassVar[float | None] = None
    """Maximum duration of an exchange in seconds; ``None``: the client's default."""
    ledger_timing: ClassVar[LedgerTiming | None] = None
    """Timing of the ledger; ``None``: the defaults. Use shorter ones only in tests: if a lease ends before the send,
    the outcome is unknown."""

    def __init__(self, apptoto_conn_id: str = default_conn_name, *, delivery_mode: str | None = None) -> None:
        super().__init__()
        self.apptoto_conn_id = apptoto_conn_id
        self.delivery_mode = delivery_mode

    def get_conn(self) -> ApptotoClient:
        """Return the client. Its requests share one session and follow the delivery mode.

        :raises ApptotoConfigurationError: the connection or a delivery mode is invalid.
        """
        return self._client

    def outbox(
        self,
        context: Mapping[str, Any],
        *,
        on_unknown: OnUnknownName = "fail",
        max_age: timedelta | None = MAX_AGE,
        idempotency_key: str | None = None,
        send_window: str | None = None,
        when_closed: WhenClosedName = "skip",
        at_most: str | None = None,
        optout_lists: Collection[str] = (),
        only_if_state: Collection[str] | bool | None = None,
        can_wait: bool = False,
        is_resumed: bool = False,
        cancellation: Cancellation | None = None,
        log_level: int = logging.INFO,
        on_attempt: Callable[[Outcome], None] | None = None,
        on_departure: Callable[[Message], None] | None = None,
    ) -> Outbox:
        """Return the outbox, which sends each message at most once across retries, clears and killed workers.

        ``hook.outbox(context).send(type="sms", to="+16505551212", message="...")`` in a ``@task`` gives the same
        guarantees as the operators. The ledger is in the state database (``state_conn_id`` of the connection), else in
        Airflow's task state (Airflow 3.3 and newer).

        :param context: context of the task, as ``get_current_context()`` returns it, or of a callback, which needs the
            state database. A context without a task instance (``ti``) also needs ``idempotency_key``.
        :param on_unknown: what to do if a message may have been sent: ``fail``, ``resend`` (recipients may get it
            twice) or ``assume_sent`` (recipients may get nothing).
        :param max_age: withhold messages of runs older than this, more than 0; ``None``: no limit.
        :param idempotency_key: your name for the occasion. Tasks, DAGs and runs that use the same key send the message
            only once to the same recipient. Needs the state database.
        :param send_window: when messages may be sent, in the recipient's time zone: ``Mon-Fri 09:00-18:00, Sat
            10:00-14:00``. ``None``: the connection's; ``off``: at any time.
        :param when_closed: what to do outside the window: ``skip`` withholds the message. ``hold`` is for operators,
            which wait without a worker.
        :param at_most: limit on the messages to one recipient over all DAGs, such as ``2/day``, ``1/hour``, ``5/7d``
            (rolling). The connection's limit applies too. Needs the state database.
        :param optout_lists: named lists of people who opted out, such as ``campaigns``; the list ``all`` is always
            obeyed.
        :param only_if_state: send only if the participant of the appointment is in one of these states, read at
            most 60 s before; ``True``: ``initial``, ``accepted`` or ``reminded``. The message needs an
            ``event_id``, to which a ``participant_id`` may be added.
        :param can_wait: whether the caller waits for the window when a delivery is ``held``.
        :param is_resumed: whether this try continues after such a wait.
        :param cancellation: cancels sends.
        :param log_level: level of log lines about messages that were sent, now or earlier.
        :param on_attempt: called with the outcome of each attempt to send.
        :param on_departure: called with each message right before its ledger write; may raise ``WithheldError``.
        :raises ApptotoConfigurationError: a parameter or the connection is invalid, or a required ledger is missing.
            Nothing was sent.
        """
        from airflow_provider_apptoto.outbox.cancellation import Cancellation
        from airflow_provider_apptoto.outbox.identity import check_ledger, texts_of
        from airflow_provider_apptoto.outbox.ledger import LedgerTiming
        from airflow_provider_apptoto.outbox.origin import Origin, is_retry
        from airflow_provider_apptoto.outbox.outbox import Outbox
        from airflow_provider_apptoto.outbox.policy import SendPolicy, plain_text

        key = None if idempotency_key is None else plain_text(idempotency_key)
        policy = SendPolicy(
            on_unknown=on_unknown,
            max_age=max_age,
            idempotency_key=key,
            send_window=send_window,
            when_closed=when_closed,
            at_most=at_most,
            optout_lists=optout_lists,
            only_if_state=only_if_state,
        )
        if when_closed == "hold" and not can_wait:
            msg = "is 'hold', but only operators and decorators can wait for the window; set it to 'skip'"
            raise ApptotoConfigurationError("when_closed", msg)
        origin = Origin.from_context(context)
        store = self._state.ledger_store(context, origin)
        check_ledger(policy, store, origin)
        return Outbox(
            client=self.get_conn(),
            build=self.build_message,
            policy=policy,
            origin=origin,
            store=store,
            conn_id=self.apptoto_conn_id,
            guards=self._state.guards(policy, context, self.get_conn()),
            is_retry=is_retry(context),
            is_resumed=is_resumed,
            cancellation=cancellation or Cancellation(),
            timing=self.ledger_timing or LedgerTiming(),
            log_level=log_level,
            on_departure=on_departure,
            texts=texts_of(context.get("ti")),
            on_attempt=on_attempt,
        )

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
    ) -> Delivery:
        """Send one message without a ledger: a retry of the task sends it again. See :meth:`outbox`.

        The parameters are those of :class:`~airflow_provider_apptoto.client.Message`. All checks, the delivery mode and
        the rate limit apply.

        :raises ApptotoValidationError: the message is invalid; nothing was sent.
        :raises ApptotoNotSentError: the message was not sent; a retry is safe.
        :raises ApptotoRejectedError: Apptoto rejected the message.
        :raises ApptotoUnknownOutcomeError: the message may have been sent; a retry could send it twice.
        """
        try:
            return self.outbox_without_ledger().send(
                type=type,
                to=to,
                event_id=event_id,
                participant_id=participant_id,
                message=message,
                subject=subject,
                template_id=template_id,
                max_segments=max_segments,
            )
        except BaseException as error:
            # this frame holds the message
            remove_frames(error)
            raise

    def outbox_without_ledger(self, *, origin: Origin | None = None, send_window: str | None = None) -> Outbox:
        """Return an outbox that remembers nothing: whatever sends again sends twice. All guards but the age apply.

        :param origin: the task or callback that sends, for errors.
        :param send_window: ``None``: the connection's; ``off``: messages may be sent at any time.
        :raises ApptotoConfigurationError: the connection is invalid.
        """
        from airflow_provider_apptoto.outbox.ledger import LedgerTiming
        from airflow_provider_apptoto.outbox.outbox import Outbox
        from airflow_provider_apptoto.outbox.policy import SendPolicy

        policy = SendPolicy(max_age=None, send_window=send_window)
        return Outbox(
            client=self.get_conn(),
            build=self.build_message,
            policy=policy,
            origin=origin,
            conn_id=self.apptoto_conn_id,
            guards=self._state.guards(policy, {}, self.get_conn()),
            timing=self.ledger_timing or LedgerTiming(),
        )

    def build_message(self, **fields: Any) -> Message:
        """Return a validated message, using the connection's ``default_region`` and ``allowed_regions``.

        :param fields: the other parameters of :class:`~airflow_provider_apptoto.client.Message`.
        :raises ApptotoValidationError: the message is invalid.
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

    def test_connection(self) -> tuple[bool, str]:
        """Read one event with the connection's settings, and open the state database; never sends.

        :return: whether the connection works, and a sentence for the user.
        """
        from airflow_provider_apptoto.hooks._client import outcome_of_test

        def check() -> None:
            timeout = min(self._settings.timeout, _TEST_SECONDS)
            with self._build_client(dataclasses.replace(self._settings, timeout=timeout)) as client:
                client.list_events(page_size=1)
            if self.state_database is not None:
                self.state_database.init()

        return outcome_of_test(check, lambda: self._settings.base_url)

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the settings of the standard fields for the forms of Airflow before 3.2."""
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
        from airflow_provider_apptoto.hooks._settings import read_settings

        try:
            return read_settings(self.apptoto_conn_id, self.get_connection)
        except BaseException as error:
            remove_frames(error)
            raise

    @property
    def default_region(self) -> str | None:
        """The region of phone numbers without ``+``, or ``None``."""
        return self._settings.default_region

    @property
    def state_database(self) -> StateDatabase | None:
        """The database that ``state_conn_id`` of the connection names, or ``None``."""
        return self._state.database

    @property
    def optouts(self) -> OptOuts:
        """The lists of people who opted out, in the state database.

        ``hook.optouts.replace("campaigns", recipients)`` in a ``@task`` makes a list hold exactly these recipients.

        :raises ApptotoConfigurationError: the connection has no state database.
        """
        return self._state.required(self._state.optouts, "opt-outs")

    def purge(self, *, older_than: timedelta | None = None, export: Path | None = None) -> int:
        """Remove finished entries from the ledger, never those in flight or unresolved, and return their number.

        :param older_than: age of the entries; ``None``: ``[apptoto] keep_days``, by default 35 days.
        :param export: new file for the entries, ``.csv`` or ``.jsonl``; it is on disk before the first one is removed.
        :raises ApptotoConfigurationError: the connection has no state database, or ``older_than`` is negative.
        :raises ValueError: the file exists, or has another suffix.
        """
        return self._state.purge(older_than, export)

    def ledger_pin(self, memory: Memory) -> Pin:
        """Return the pin of the state database, which detects a lost or replaced one.

        :param memory: stores the pin.
        :raises ApptotoConfigurationError: the connection has no state database.
        """
        return self._state.pin(memory)

    @cached_property
    def _state(self) -> AccountState:
        return AccountState(self.apptoto_conn_id, self._settings, self.get_connection)

    @cached_property
    def _client(self) -> ApptotoClient:
        try:
            return self._build_client(self._settings)
        except BaseException as error:
            # the frames below hold the API key
            remove_frames(error)
            raise

    def _build_client(self, settings: ConnectionSettings) -> ApptotoClient:
        from airflow_provider_apptoto.hooks._client import build_client

        return build_client(
            settings,
            task_mode=self.delivery_mode,
            rate_limiter=self._state.rate_limiter(),
            total_timeout=self.total_timeout,
            retry_policy=self.retry_policy,
            conn_id=self.apptoto_conn_id,
        )
