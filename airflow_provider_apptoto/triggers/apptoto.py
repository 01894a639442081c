"""The triggers; this module has the one that waits for answers. Triggers never send.

Its arguments and its events hold ids, names of answers and times: no name, number, text or secret. The texts of replies
are read and matched here, and never leave the triggerer.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_apptoto._airflow_triggers import EventTrigger, TriggerEvent, has_shared_streams
from airflow_provider_apptoto.answers.appointment import Appointment, Window
from airflow_provider_apptoto.answers.predicate import Rules
from airflow_provider_apptoto.answers.reading import AnswerReader, ReadFailure
from airflow_provider_apptoto.answers.wait import Wait
from airflow_provider_apptoto.triggers.replies import ApptotoReplyTrigger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence

    from airflow_provider_apptoto.answers.reading import Snapshot
    from airflow_provider_apptoto.client.appointments import Id


class Read(NamedTuple):
    """What a read showed, and when it began (seconds since 1970)."""

    began: float
    found: Snapshot | ReadFailure


class ApptotoAnswerTrigger(EventTrigger):
    """Wait until all appointments have an answer, or until the deadline.

    On Airflow 3.3 and newer, the tasks of one triggerer that wait with the same connection, interval and window share
    one read a cycle. On older versions, each task reads for itself.

    Its event has ``status``: ``done`` with ``answers`` (``[event_id, participant_id, name, at]`` each), or ``error``
    with ``error``, ``code`` and ``is_final``.

    :param apptoto_conn_id: the Apptoto connection.
    :param appointments: ``[event_id, participant_id, since]`` each; ``since`` in seconds since 1970. Or the text that
        :meth:`serialize` made of them.
    :param answered: states that count as answers.
    :param replies: patterns of replies by the name of the answer.
    :param deadline: when the wait ends, in seconds since 1970.
    :param poke_interval: seconds between two reads.
    :param window: ``[begin, end]`` of the start times of the events to read; ``None``: none.
    :param event_ids: events to read one by one.
    :param max_errors: errors in a row that end the wait.
    """

    supports_triggerer_queue = True

    def __init__(
        self,
        *,
        apptoto_conn_id: str,
        appointments: Sequence[Sequence[Any]] | str,
        answered: Sequence[str],
        replies: Mapping[str, str] | None,
        deadline: float,
        poke_interval: float,
        window: Sequence[str] | None,
        event_ids: Sequence[Id] = (),
        max_errors: int = 10,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.apptoto_conn_id = apptoto_conn_id
        self.appointments = _unpacked(appointments) if isinstance(appointments, str) else appointments
        self.answered = answered
        self.replies = replies
        self.deadline = deadline
        self.poke_interval = poke_interval
        self.window = window
        self.event_ids = event_ids
        self.max_errors = max_errors

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class, and the arguments."""
        names = ("apptoto_conn_id", "answered", "replies", "deadline", "poke_interval", "window", "max_errors")
        arguments = {name: getattr(self, name) for name in names}
        lists = {"appointments": _packed(self.appointments), "event_ids": list(self.event_ids)}
        return f"{__name__}.{type(self).__name__}", arguments | lists

    def shared_stream_key(self) -> Hashable | None:
        """Return what tasks that share a read have in common; ``None``: this one reads for itself."""
        if self.window is None or self.event_ids or not has_shared_streams():
            return None
        return (__name__, type(self).__name__, self.apptoto_conn_id, self.poke_interval, *self.window)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Read]:
        """Yield what Apptoto shows in each cycle. It never raises: an error would end all tasks that share it.

        :param kwargs: the arguments of one of the triggers; only those of the key may be used.
        """
        interval = kwargs["poke_interval"]
        async for read in _reads(_reader(kwargs, ()), lambda _: interval):
            yield read

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Read]) -> AsyncIterator[TriggerEvent]:
        """Yield the event of this trigger, from what all of them read.

        The wait ends with a read that began after the deadline: an earlier one may lack answers that came in time.
        """
        rules = Rules(self.answered, self.replies)
        wait = Wait([Appointment(*each) for each in self.appointments], rules)
        errors = 0
        async for began, snapshot in shared_stream:
            is_over = began >= self.deadline
            if isinstance(snapshot, ReadFailure):
                # a wait for the rate limit is no error, but must not go on for an hour after the deadline
                errors += snapshot.counts or is_over
                self.log.warning("%s (%d errors in a row)", snapshot.text, errors)
                if snapshot.is_final or errors >= self.max_errors:
                    yield TriggerEvent(
                        {
                            "status": "error",
                            "error": snapshot.text,
                            "code": snapshot.code,
                            "is_final": snapshot.is_final,
                        }
                    )
                    return
                continue
            errors = 0
            progress = wait.progress(snapshot)
            self.log.info("%s", progress)
            if progress.is_complete or is_over:
                yield TriggerEvent({"status": "done", "answers": progress.pack()})
                return

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the event of this trigger, from what it reads itself."""

        def pause(began: float) -> float:
            if began >= self.deadline:
                return self.poke_interval
            return min(self.poke_interval, max(self.deadline - time.time(), 0))

        _, kwargs = self.serialize()
        async for event in self.filter_shared_stream(_reads(_reader(kwargs, self.event_ids), pause)):
            yield event


def _packed(appointments: Sequence[Sequence[Any]]) -> str:
    """Return appointments as a short text: on MySQL, Airflow's column for all arguments of a trigger holds 64 kB."""
    return base64.b64encode(zlib.compress(json.dumps([list(each) for each in appointments]).encode())).decode()


def _unpacked(packed: str) -> list[list[Any]]:
    found: list[list[Any]] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return found


def _reader(kwargs: Mapping[str, Any], event_ids: Sequence[Id]) -> AnswerReader:
    window = kwargs["window"]
    return AnswerReader(kwargs["apptoto_conn_id"], None if window is None else Window(*window), event_ids)


async def _reads(reader: AnswerReader, pause: Callable[[float], float]) -> AsyncIterator[Read]:
    # unlike asyncio.to_thread, it lets the thread read connections and Variables through Airflow's event loop
    from asgiref.sync import sync_to_async

    try:
        while True:
            began = time.time()
            yield Read(began, await sync_to_async(reader.read, thread_sensitive=False)())
            await asyncio.sleep(pause(began))
    finally:
        reader.close()


__all__ = ["ApptotoAnswerTrigger", "ApptotoReplyTrigger"]
