"""A message and what the sender says about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from airflow_provider_apptoto.client import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message that is about to be sent.

    :param item: identifies the message within the occasion.
    :param reference: the user's own id.
    :param labels: for grouping in reports.
    :param timezone: time zone of the recipient, if the sender gave one.
    :param not_after: latest time to send it.
    """

    message: Message
    item: str | None
    reference: str | None
    labels: Mapping[str, str] | None
    timezone: ZoneInfo | None = None
    not_after: datetime | None = None
