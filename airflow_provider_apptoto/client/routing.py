"""Where a message really goes: to its recipient, to somebody who stands in, or nowhere."""

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
    """What becomes of messages; later members are stricter."""

    LIVE = "live"
    REDIRECT = "redirect"
    DRY_RUN = "dry_run"

    @classmethod
    def strictest(cls, *modes: str | None) -> DeliveryMode:
        """Return the strictest of some modes; ``None`` means that nothing was set.

        :raises ApptotoConfigurationError: not a mode. What can't be understood must never mean ``live``.
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
    """Send to the recipient (``live``), to a stand-in (``redirect``), or not at all (``dry_run``).

    :param mode: the delivery mode.
    :param redirect_phone_to: phone number, with ``+`` and country code, that gets every ``sms`` and ``call`` in
        ``redirect``.
    :param redirect_email_to: address that gets every ``email`` in ``redirect``.
    :raises ApptotoConfigurationError: not a mode.
    """

    mode: DeliveryMode = DeliveryMode.LIVE
    redirect_phone_to: str | None = None
    redirect_email_to: str | None = None

    def __post_init__(self) -> None:
        """Take a mode's name for the mode."""
        object.__setattr__(self, "mode", DeliveryMode.strictest(self.mode))

    def route(self, message: Message) -> Message | None:
        """Return what is to be sent in the place of ``message``; ``None``: nothing.

        :raises ApptotoValidationError: ``redirect`` can't be kept: the channel has no stand-in, or the target is an
            event or a participant, whose recipients only Apptoto knows.
        """
        if self.mode is DeliveryMode.LIVE:
            return message
        if self.mode is DeliveryMode.DRY_RUN:
            return None
        if message.to is None:
            msg = f"is redirect, and who gets {message.target} only Apptoto knows; use to, or delivery_mode dry_run"
            raise ApptotoValidationError("delivery_mode", msg, code="redirect_impossible")
        setting = "redirect_email_to" if message.type == "email" else "redirect_phone_to"
        stand_in = getattr(self, setting)
        if stand_in is None:
            msg = f"is redirect, and {setting} is not set for messages of type {message.type}"
            raise ApptotoValidationError("delivery_mode", msg, code="redirect_impossible")
        text = (
            None
            if message.message is None
            else f"[Redirected, was for {mask_recipient(message.to)}]\n{message.message}"
        )
        # the heading makes the text longer, and its bullets take it out of GSM-7
        return dataclasses.replace(message, to=stand_in, message=text, max_segments=None)
