"""What is said in the conversations of appointments: messages, replies, and what happens after some seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.sandbox.appointments.database import insert, update
from airflow_provider_apptoto.sandbox.appointments.magic import OPTED_OUT, Behavior, behavior_of
from airflow_provider_apptoto.sandbox.appointments.values import not_found, now, refusal

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from airflow_provider_apptoto.sandbox.appointments.database import Database

CHANNELS = ("sms", "call", "email")
#: DOCUMENTED: who answers so is opted out. On the phone it is the key 9.
STOP_WORDS = {
    "sms": ("STOP", "END", "QUIT", "UNSUBSCRIBE"),
    "call": ("9",),
    "email": ("STOP", "UNSUBSCRIBE"),
}
FAILED = "The carrier could not deliver the message."


@dataclass(frozen=True)
class Action:
    """One way in which a participant reacts.

    :param state: the participant's new state; None if it stays.
    :param replies: what the participant writes or presses, by channel (ASSUMED). No text: a click, which is no reply.
    """

    state: str | None = None
    replies: Mapping[str, str] = field(default_factory=dict)


ACTIONS = {
    "confirm": Action("confirmed", {"sms": "YES", "call": "1"}),
    "cancel": Action("not_coming", {"sms": "NO", "call": "2"}),
    "reschedule": Action("not_coming_needs_reschedule", {"sms": "RESCHEDULE", "call": "3"}),
    "accept": Action("accepted"),
    "decline": Action("declined"),
    "reply": Action(),
    "stop": Action(None, {channel: words[0] for channel, words in STOP_WORDS.items()}),
    "fail": Action(),
}


class Conversations:
    """The conversations of all participants. Safe to use from several threads.

    :param database: where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._next_due = 0.0

    def settle(self) -> None:
        """Do what was planned for a time that has come. Each read begins with this."""
        if now() < self._next_due:
            return
        database = self._database
        # Only a change if something is due, because each change wakes the readers of the page.
        due = database.rows("SELECT * FROM plans WHERE due <= ? ORDER BY due, id", [now()])
        if due:
            with database.writing() as connection:
                for plan in due:
                    cursor = connection.execute("DELETE FROM plans WHERE id = ?", [plan["id"]])
                    if cursor.rowcount:  # else another thread did it meanwhile
                        self._act(connection, plan, plan["due"])
        with database.lock:  # else a plan that another thread makes meanwhile would be missed
            [row] = database.rows("SELECT min(due) FROM plans")
            self._next_due = math.inf if row[0] is None else row[0]

    def record_sent(self, participant: Any, channel: str, text: str, error: str | None) -> None:
        """Store a message to a participant, and plan what its owner does about it.

        :param participant: the participant's row.
        :param channel: ``sms``, ``call`` or ``email``.
        :param error: why the message does not reach the participant.
        """
        at = now()
        with self._database.writing() as connection:
            message_id = insert(
                connection,
                "messages",
                participant_id=participant["id"],
                channel=channel,
                at=at,
                event_type="sent",
                content=text,
                delivery_state="delivered" if error is None else "failed",
                delivery_error=error,
                delivery_failed=0,
                send_failed=int(error is not None),
            )
            planned = behavior_of(participant["normalized_phone"], channel)
            if error is None and planned.action and (planned.action == "fail" or not self._has_answered(participant)):
                self._plan(
                    connection,
                    participant_id=participant["id"],
                    message_id=message_id,
                    action=planned.action,
                    channel=channel,
                    text=planned.text or ACTIONS[planned.action].replies.get(channel),
                    is_magic=1,
                    due=at + planned.seconds,
                )

    def answer(
        self,
        participant_id: int,
        action: str,
        *,
        text: str | None = None,
        channel: str | None = None,
        after: float = 0.0,
    ) -> None:
        """Let a participant react.

        :param action: one of :data:`ACTIONS`.
        :param text: the reply; None takes the usual one, and a blank one is none: a click.
        :param channel: of the reply; None takes that of the last message, else ``sms`` or ``email``.
        :param after: seconds until then.
        :raises HTTPException: it is not possible.
        """
        if action not in ACTIONS:
            raise refusal(f"The answer must be one of {', '.join(ACTIONS)}.")
        if channel not in (None, *CHANNELS):
            raise refusal(f"channel must be one of {', '.join(CHANNELS)}.")
        if action == "reply" and not (text or "").strip():
            raise refusal("A reply needs a text.")
        self.settle()
        rows = self._database.rows("SELECT * FROM participants WHERE id = ?", [participant_id])
        if not rows:
            raise not_found(f"participant {participant_id}")
        last = self._last_message(participant_id, channel)
        if action == "fail" and last is None:
            raise refusal("No message to this participant can fail: none was sent.")
        channel = channel or (last["channel"] if last else "sms" if rows[0]["phone"] else "email")
        if text is None:
            text = ACTIONS[action].replies.get(channel)
        with self._database.writing() as connection:
            if action != "fail":
                # Whoever is made to answer does not also answer as the owner of a magic number.
                statement = "DELETE FROM plans WHERE participant_id = ? AND is_magic AND action <> 'fail'"
                connection.execute(statement, [participant_id]).close()
            self._plan(
                connection,
                participant_id=participant_id,
                message_id=last["id"] if last else None,
                action=action,
                channel=channel,
                text=text or None,
                due=now() + after,
            )
        self.settle()

    def is_opted_out(self, channel: str, address: str) -> bool:
        """Return whether the owner of a number or an address has opted out of a channel."""
        row = [channel, address.strip().casefold()]
        return bool(self._database.rows("SELECT 1 FROM opt_outs WHERE channel = ? AND address = ?", row))

    def obstacle(self, channel: str, address: str, phone: str | None) -> Behavior:
        """Return why a message does not reach somebody, as ``error`` and ``is_refused``.

        :param address: number in E.164, or e-mail address.
        :param phone: the number of the same person, if known.
        """
        planned = behavior_of(phone, channel)
        if planned.error is None and self.is_opted_out(channel, address):
            return Behavior(error=OPTED_OUT)
        return planned

    def _has_answered(self, participant: Any) -> bool:
        """Return whether a participant has answered, or is about to: the owner of a magic number answers once."""
        planned = "SELECT 1 FROM plans WHERE participant_id = ?"
        return bool(participant["has_answered"] or self._database.rows(planned, [participant["id"]]))

    def _plan(self, connection: sqlite3.Connection, *, due: float, **plan: object) -> None:
        insert(connection, "plans", due=due, **plan)
        self._next_due = min(self._next_due, due)

    def _last_message(self, participant_id: int, channel: str | None) -> Any:
        rows = self._database.rows(
            "SELECT * FROM messages WHERE participant_id = ? AND event_type = 'sent' "
            "AND channel = coalesce(?, channel) ORDER BY at DESC, id DESC LIMIT 1",
            [participant_id, channel],
        )
        return rows[0] if rows else None

    def _act(self, connection: sqlite3.Connection, plan: Any, at: float) -> None:
        if plan["action"] == "fail":
            failure = {"delivery_state": "failed", "delivery_error": FAILED, "delivery_failed": 1}
            update(connection, "messages", plan["message_id"], **failure)
            return
        participant_id, channel, text = plan["participant_id"], plan["channel"], plan["text"]
        rows = self._database.rows("SELECT * FROM participants WHERE id = ?", [participant_id])
        if not rows:
            return
        state = ACTIONS[plan["action"]].state or rows[0]["state"]
        update(connection, "participants", participant_id, state=state, has_answered=1)
        if text:
            insert(
                connection,
                "messages",
                participant_id=participant_id,
                channel=channel,
                at=at,
                event_type="replied",
                content=text,
            )
        if text and text.strip().upper() in STOP_WORDS[channel]:
            address = rows[0]["email"] if channel == "email" else rows[0]["normalized_phone"] or rows[0]["phone"]
            row = (channel, address.strip().casefold())
            connection.execute("INSERT OR IGNORE INTO opt_outs VALUES (?, ?)", row).close()
