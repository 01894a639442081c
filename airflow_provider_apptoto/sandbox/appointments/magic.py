"""Phone numbers whose owners behave in a known way: 202-555-01xx, which are reserved for fiction.

ASSUMED, as all of the sandbox's people are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = re.compile(r"\+120255501([0-9])([0-9])")
_ACTIONS = {"0": "confirm", "1": "cancel", "2": "reschedule", "3": "reply", "4": "stop", "6": "fail"}
QUESTION = "Can I come an hour later?"
UNREACHABLE = "The phone number can't be reached."
OPTED_OUT = "The recipient has opted out."


@dataclass(frozen=True)
class Behavior:
    """What the owner of a number does after a message.

    :param action: one of :data:`~.answers.ACTIONS`; None for nothing.
    :param seconds: how long after the message.
    :param text: the reply, if it is not the usual one of the action.
    :param error: why no message reaches this number.
    :param is_refused: whether a message to this number is refused, instead of accepted and not delivered.
    """

    action: str | None = None
    seconds: int = 0
    text: str | None = None
    error: str | None = None
    is_refused: bool = False


def behavior_of(phone: str | None, channel: str) -> Behavior:
    """Return what the owner of a number does.

    :param phone: the number in E.164.
    :param channel: of the message: ``sms``, ``call`` or ``email``.
    """
    match = _NUMBER.fullmatch(phone or "")
    if match is None:
        return Behavior()
    kind, digit = match.groups()
    if kind in _ACTIONS:
        return Behavior(_ACTIONS[kind], int(digit), text=QUESTION if kind == "3" else None)
    if kind == "5" and digit != "0" and channel == "call":
        return Behavior("confirm", int(digit))
    if channel == "email":
        return Behavior()
    return {
        "70": Behavior(error=UNREACHABLE),
        "80": Behavior(error=OPTED_OUT),
        "81": Behavior(error=OPTED_OUT, is_refused=True),
    }.get(kind + digit, Behavior())
