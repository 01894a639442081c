"""Send a notification through the outbox, in a process that must not wait for long."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto._airflow import dag_that_renders
from airflow_provider_apptoto.client import RetryPolicy
from airflow_provider_apptoto.client.errors import ApptotoError
from airflow_provider_apptoto.client.routing import DeliveryMode
from airflow_provider_apptoto.hooks._state import ledger_secret, tell_once
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.notifications._texts import Occasion, clean, fitted, template_context
from airflow_provider_apptoto.outbox.ledger import LedgerTiming
from airflow_provider_apptoto.outbox.limit import Limit
from airflow_provider_apptoto.outbox.origin import Origin
from airflow_provider_apptoto.outbox.policy import OFF
from airflow_provider_apptoto.outbox.storm import HeldBackChangedError, Storm
from airflow_provider_apptoto.privacy import printable
from airflow_provider_apptoto.templating.fields import renderer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_apptoto.client import Message
    from airflow_provider_apptoto.notifications.apptoto import ApptotoNotifier
    from airflow_provider_apptoto.outbox.delivery import Delivery
    from airflow_provider_apptoto.outbox.outbox import Outbox

log = logging.getLogger(__name__)

_MAX_SUBJECT = 120
_MAX_ROUNDS = 5
"""How often a text is written anew because other notifications were held back in the meantime."""


class NotifierHook(ApptotoHook):
    """The hook with short timeouts: 20 s after the end of a task, Airflow kills the process that runs its callbacks."""

    retry_policy = RetryPolicy(max_attempts=2, window=3.0, backoff=1.0)
    total_timeout = 10.0
    ledger_timing = LedgerTiming(patience=3.0, record_retries=(1.0,))


def send(notifier: ApptotoNotifier, context: Mapping[str, Any]) -> Delivery:
    """Send a notification.

    :raises ApptotoError: it was not sent, or may have been sent.
    """
    occasion = Occasion.of(context)
    to, text = _rendered(notifier, context, occasion)
    hook = NotifierHook(notifier.apptoto_conn_id, delivery_mode=notifier.delivery_mode)
    fields: dict[str, Any] = {"type": notifier.type, "to": to}
    if notifier.type == "email":
        fields["subject"] = printable(clean(notifier.subject or occasion.headline))[:_MAX_SUBJECT]
    normalised = hook.build_message(**fields, message=fitted(text, notifier.type)).to or to
    key = occasion.key(notifier.type, normalised, text)
    storm = _storm(notifier, hook)
    left = _MAX_ROUNDS
    while True:
        left -= 1
        # the last round reports nothing, so the number can't be wrong
        reported = storm.held_back(normalised) if storm is not None and left else None
        outbox = _outbox(hook, occasion, key, None if storm is None else _limited(storm, reported))
        try:
            # the item, because the number may differ between the calls
            return outbox.send(**fields, message=fitted(text, notifier.type, _note(reported or 0)), item="notification")
        except HeldBackChangedError:
            log.debug("Other notifications were held back in the meantime; writing the text again")


def _rendered(notifier: ApptotoNotifier, context: Mapping[str, Any], occasion: Occasion) -> tuple[str, str]:
    """Return the recipient and the text.

    :raises ApptotoValidationError: the recipient can't be rendered.
    """
    values = template_context(context)
    renderer = renderer_of(values, notifier.get_template_env(dag=dag_that_renders(context)))
    to = renderer.render("to", notifier.to)
    default = clean(occasion.text)
    if notifier.message is None:
        return to, default
    try:
        text = clean(renderer.render("message", notifier.message))
    except ApptotoError as error:
        log.error("The text of the notification can't be rendered; sending the default text. %s", error)  # noqa: TRY400
        return to, default
    if not text:
        log.error("The text of the notification is blank; sending the default text. Check the parameter message")
    return to, text or default


def _outbox(hook: ApptotoHook, occasion: Occasion, key: str, on_departure: Callable[[Message], None] | None) -> Outbox:
    if hook.state_database is not None:
        return hook.outbox(
            occasion.context,
            max_age=None,
            send_window=OFF,
            idempotency_key=key,
            on_departure=on_departure,
        )
    tell_once(
        logging.WARNING,
        "No ledger for notifications: if Airflow calls a callback twice, the recipient gets two messages. Set "
        "state_conn_id on the Apptoto connection",
    )
    return hook.outbox_without_ledger(origin=Origin.from_context(occasion.context), send_window=OFF)


def _storm(notifier: ApptotoNotifier, hook: ApptotoHook) -> Storm | None:
    if notifier.storm_limit is None or notifier.storm_limit == OFF or hook.get_conn().mode is DeliveryMode.DRY_RUN:
        return None
    database = hook.state_database
    if database is None:
        tell_once(
            logging.WARNING,
            "storm_limit is not enforced: it needs a state database. Set state_conn_id on the Apptoto connection",
        )
        return None
    return Storm(
        database=database,
        hash_keys=ledger_secret().keys(database.salt()),
        account=hook.get_conn().account,
        limit=Limit.parse(notifier.storm_limit, "storm_limit"),
    )


def _limited(storm: Storm, reported: int | None) -> Callable[[Message], None]:
    """Return a function that takes one of the allowed notifications once, however often the client tries."""
    allowed: set[str] = set()

    def depart(message: Message) -> None:
        if message.to is not None and message.to not in allowed:
            storm.depart(message.to, reported)
            allowed.add(message.to)

    return depart


def _note(held_back: int) -> str:
    if held_back == 0:
        return ""
    return f"{held_back} more notification{' was' if held_back == 1 else 's were'} held back."
