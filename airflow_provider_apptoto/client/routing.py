"""Delivery modes: send to the recipient, to a redirect recipient, or not at all."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_provider_apptoto.client.errors import ApptotoConfigurationError, ApptotoValidationError
from airflow_provider_apptoto.privacy import mask_recipient

if TYPE_CHECKING:
    from airflow_provider_apptoto.client.messages import Message


class DeliveryMode(StrEnum):
    """Where messages go; later members are stricter."""

    LIVE = "live"
    REDIRECT = "redirect"
    DRY_RUN = "dry_run"

    @classmethod
    def strictest(cls, *modes: str | None) -> DeliveryMode:
        """Return the strictest of several modes; ``None`` means not set.

        :raises ApptotoConfigurationError: unknown mode; it must never count as ``live``.
        """
        order = list(cls)
        return max(
            (cls._parse(mode) for mode in modes if mode is not None),
            key=order.index,
            default=cls.LIVE,
        )

    @classmethod
    def _parse(cls, mode: str) -> DeliveryMode:
        try:
            return cls(str(mode).strip())
        except ValueError:
            problem = f"{mode!r} is not one of {', '.join(cls)}"
            raise ApptotoConfigurationError("delivery_mode", problem) from None


@dataclass(frozen=True, slots=True, repr=False)
class Routing:
    """Send to the recipient (``live``), to a redirect recipient (``redirect``), or not at all (``dry_run``).

    :param mode: the delivery mode.
    :param redirect_phone_to: phone number, with ``+`` and country code, that receives every ``sms`` and ``call`` in
        ``redirect``.
    :param redirect_email_to: address that receives every ``email`` in ``redirect``.
    :raises ApptotoConfigurationError: unknown mode.
    """

    mode: DeliveryMode = DeliveryMode.LIVE
    redirect_phone_to: str | None = None
    redirect_email_to: str | None = None

    def __post_init__(self) -> None:
        """Convert the name of a mode."""
        object.__setattr__(self, "mode", DeliveryMode.strictest(self.mode))

    def route(self, message: Message) -> Message | None:
        """Return the message to send instead of ``message``; ``None``: nothing.

        :raises ApptotoValidationError: the message can't be redirected: the channel has no redirect recipient, or the
            target is an event or a participant, whose recipients only Apptoto knows.
        """
        if self.mode is DeliveryMode.LIVE:
            return message
        if self.mode is DeliveryMode.DRY_RUN:
            return None
        if message.to is None:
            msg = f"redirect can't replace the recipients of {message.target}; use to, or delivery_mode dry_run"
            raise ApptotoValidationError("delivery_mode", msg, code="redirect_impossible")
        setting = "redirect_email_to" if message.type == "email" else "redirect_phone_to"
        redirect_to = getattr(self, setting)
        if redirect_to is None:
            msg = f"redirect needs {setting} for messages of type {message.type}, but it is not set"
            raise ApptotoValidationError("delivery_mode", msg, code="redirect_impossible")
        text = (
            None
            if message.message is None
            else f"[Redirected, was for {mask_recipient(message.to)}]\n{message.message}"
        )
        # no limit on segments: the heading makes the text longer, and its bullets are not in GSM-7
        return dataclasses.replace(message, to=redirect_to, message=text, max_segments=None)
