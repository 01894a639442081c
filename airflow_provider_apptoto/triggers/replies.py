"""The trigger that watches replies, for ``AssetWatcher``. Triggers never send.

Its arguments, its events and what it stores hold ids, names of answers and times: no name, number, text or secret.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto._airflow_triggers import EventTrigger, TriggerEvent, asset_states, has_shared_streams
from airflow_provider_apptoto.answers.predicate import Rules
from airflow_provider_apptoto.answers.reading import ReadFailure
from airflow_provider_apptoto.answers.replies import Outage, Position, ReplyReader
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.outbox.policy import check_count

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from airflow.sdk.execution_time.context import AssetStateStoreAccessor

    from airflow_provider_apptoto.answers.replies import FoundReply

_PAUSE_AFTER_REFUSAL = 600.0
"""Seconds until the next read after a failure that lasts, such as a refused login: more could lock the account."""


class ApptotoReplyTrigger(EventTrigger):
    r"""Watch the replies to appointments, for an ``AssetWatcher``: each poll with new replies makes one asset event.

    Needs Airflow 3.3 or newer. It begins with the replies that come after it was started for the first time, and stores
    in the state of the asset which ones it knows, so a restart of the triggerer loses none. A reply may be in more than
    one event (at least once): recognize it by its ``reply_id``.

    .. seealso:: :ref:`howto/trigger:ApptotoReplyTrigger`

    The event's payload (``event.extra["payload"]``) has ``replies``, oldest first, each with ``reply_id``,
    ``event_id``, ``participant_id``, ``reference`` (the event's ``external_id``), ``answer`` (the name of the pattern
    that matched) and ``at`` (ISO 8601, UTC). After ``max_errors`` failures in a row it also has ``error``, ``code`` and
    ``is_final``, once, and reading goes on. Texts of replies are never stored.

    :param replies: regular expressions by the name of the answer; case does not matter: ``{"yes": r"^\s*(y|yes)\b"}``.
        A reply that matches none is left out. ``None``: all replies, with ``answer=None``.
    :param days_back: read the events that started up to this many days ago, at least 0.
    :param days_ahead: read the events that start in up to this many days, at least 1.
    :param poke_interval: seconds between two reads, at least 1; 30 or more in production.
    :param max_errors: failures in a row after which an event reports them, at least 1.
    :param apptoto_conn_id: id of the connection.
    :raises ApptotoConfigurationError: Airflow is too old, or a parameter is invalid.
    """

    def __init__(
        self,
        *,
        replies: Mapping[str, str] | None = None,
        days_back: int = 1,
        days_ahead: int = 7,
        poke_interval: float = 60.0,
        max_errors: int = 10,
        apptoto_conn_id: str = "apptoto_default",
    ) -> None:
        if not has_shared_streams():
            msg = "needs Airflow 3.3 or newer, where assets have a state. Use ApptotoAnswerSensor instead"
            raise ApptotoConfigurationError("ApptotoReplyTrigger", msg)
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.replies = replies
        self.days_back = days_back
        self.days_ahead = days_ahead
        self.poke_interval = poke_interval
        self.max_errors = max_errors
        self.apptoto_conn_id = apptoto_conn_id
        if replies is not None and not replies:
            raise ApptotoConfigurationError("replies", "must not be empty; None stands for all replies")
        self._rules = None if replies is None else Rules((), replies)
        check_count("days_back", days_back, 0)
        check_count("days_ahead", days_ahead, 1)
        check_count("max_errors", max_errors, 1)
        if not 1 <= poke_interval < float("inf"):
            raise ApptotoConfigurationError("poke_interval", f"must be at least 1 second, not {poke_interval!r}")

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class, and the arguments."""
        names = ("days_back", "days_ahead", "poke_interval", "max_errors", "apptoto_conn_id")
        arguments = {name: getattr(self, name) for name in names}
        replies = None if self.replies is None else dict(self.replies)
        return f"airflow_provider_apptoto.triggers.apptoto.{type(self).__name__}", {"replies": replies, **arguments}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each poll that finds replies, and one for each outage."""
        # unlike asyncio.to_thread, it lets the thread read connections and Variables through Airflow's event loop
        from asgiref.sync import sync_to_async

        states = asset_states(self)
        if not states:
            raise ApptotoConfigurationError(
                "ApptotoReplyTrigger", "needs an AssetWatcher; it is not for tasks that wait"
            )
        memory = _Memory(states, f"apptoto_replies_{self.apptoto_conn_id}")
        reader = ReplyReader(self.apptoto_conn_id, self.days_back, self.days_ahead)
        read = sync_to_async(reader.read, thread_sensitive=False)
        outage = Outage(self.max_errors)
        position: Position | None = None
        try:
            while True:
                began = time.time()
                new: list[FoundReply] = []
                # Airflow stores the events of a poll after this has yielded them. So a position is stored one poll
                # later: if the triggerer is killed in between, the events are repeated instead of lost.
                position, failure = await memory.begin(began) if position is None else await memory.keep(position)
                if position is not None:
                    found = await read(position, began)
                    if isinstance(found, ReadFailure):
                        failure = found
                    else:
                        new = position.new(found)
                        position = position.after(found, began)
                payload: dict[str, Any] = {"replies": self._named(new)}
                if (told := outage.to_tell(failure)) is not None:
                    payload |= {"error": told.text, "code": told.code, "is_final": told.is_final}
                if failure is not None:
                    self.log.warning("%s (%d errors in a row)", failure.text, outage.errors)
                if payload["replies"] or told is not None:
                    yield TriggerEvent(payload)
                is_refused = failure is not None and failure.is_final
                await asyncio.sleep(max(self.poke_interval, _PAUSE_AFTER_REFUSAL if is_refused else 0))
        finally:
            reader.close()

    def _named(self, new: list[FoundReply]) -> list[dict[str, Any]]:
        """Return the replies that are wanted as plain values, and log how many they are."""
        if self._rules is None:
            wanted = [each.pack(None) for each in new]
        else:
            named = [(each, self._rules.name_of(each.text)) for each in new]
            wanted = [each.pack(answer) for each, answer in named if answer is not None]
        if new:
            counts = Counter(str(each["answer"]) for each in wanted) if self._rules is not None else {}
            listed = "".join(f", {count} {answer}" for answer, count in sorted(counts.items()))
            self.log.info("%d new replies, %d of them for the event%s", len(new), len(wanted), listed)
        return wanted


class _Memory:
    """The position in the states of the watched assets.

    :param states: of all assets that share the trigger; they differ if one joined later.
    :param key: its key in each.
    """

    def __init__(self, states: list[AssetStateStoreAccessor], key: str) -> None:
        self._states = states
        self._key = key
        self._kept: Position | None = None

    async def begin(self, now: float) -> tuple[Position | None, ReadFailure | None]:
        """Return the stored position, the earliest if they differ; the present one, stored, if there is none."""
        try:
            packed = [await state.aget(self._key) for state in self._states]
            known = [Position.unpack(each) for each in packed if each is not None]
        except ValueError:
            text = f"The stored position can't be read. Delete {self._key} from the state of the asset"
            return None, ReadFailure(f"{text}: the replies from then on are read", "error", is_final=True)
        except Exception as error:  # noqa: BLE001  whatever Airflow raises; to begin anew would lose replies
            return None, ReadFailure(f"The stored position could not be read: {type(error).__name__}", "error")
        if known:
            return min(known, key=lambda each: each.since), None
        position = Position(now)
        _, failure = await self.keep(position)
        return (position if failure is None else None), failure

    async def keep(self, position: Position) -> tuple[Position, ReadFailure | None]:
        """Store a position, and return it."""
        if position is not self._kept:
            try:
                for state in self._states:
                    await state.aset(self._key, position.pack())
            except Exception as error:  # noqa: BLE001  whatever Airflow raises
                return position, ReadFailure(f"The position could not be stored: {type(error).__name__}", "error")
            self._kept = position
        return position, None


__all__ = ["ApptotoReplyTrigger"]
