"""How far a wait is, and its result."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.answers.predicate import NO_ANSWER, NOT_FOUND, UNDELIVERED, Answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_apptoto.answers.appointment import Appointment
    from airflow_provider_apptoto.answers.predicate import Rules
    from airflow_provider_apptoto.answers.reading import Snapshot
    from airflow_provider_apptoto.client.appointments import Id

Packed = list[list[Any]]
"""``[event_id, participant_id, name, at]`` of each appointment with an answer, as plain values."""
_NOT_ANSWERED = (UNDELIVERED, NO_ANSWER)


@dataclass(frozen=True, slots=True)
class Wait:
    """Appointments, and the answers that are awaited from them.

    :param rules: what counts as an answer.
    """

    appointments: Sequence[Appointment]
    rules: Rules

    def progress(self, snapshot: Snapshot) -> Progress:
        """Return the answers that a snapshot shows."""
        found = {}
        for each in self.appointments:
            if (answer := self._answer(each, snapshot.get(each.event_id))) is not None:
                found[each.event_id, each.participant_id] = answer
        return Progress(self, found)

    def unpack(self, packed: Iterable[Sequence[Any]]) -> Progress:
        """Return the answers that a trigger packed."""
        return Progress(self, {(event, person): Answer(name, at) for event, person, name, at in packed})

    def _answer(self, awaited: Appointment, people: Mapping[Id, Any] | None) -> Answer | None:
        if people is None or (awaited.participant_id is not None and awaited.participant_id not in people):
            return Answer(NOT_FOUND, None)
        asked = people.values() if awaited.participant_id is None else [people[awaited.participant_id]]
        answers = [self.rules.answer(seen, awaited.since) for seen in asked]
        given = [each for each in answers if each is not None and each.name != UNDELIVERED]
        if given:
            return given[0]
        # of a whole event, only if nobody got the message
        return answers[0] if answers and all(each is not None for each in answers) else None


@dataclass(frozen=True, slots=True)
class Progress:
    """The answers so far, by event and participant."""

    wait: Wait
    found: Mapping[tuple[Id, Id | None], Answer]

    @property
    def is_complete(self) -> bool:
        """Whether no answer is awaited any more. An event that is not found may be listed in the next cycle."""
        return self._count(lambda answer: answer is None or answer.name == NOT_FOUND) == 0

    @property
    def missing(self) -> int:
        """Number of appointments that nobody answered."""
        return self._count(lambda answer: answer is None or answer.name in {UNDELIVERED, NOT_FOUND})

    def pack(self) -> Packed:
        """Return the answers as plain values, without personal data."""
        return [[event, person, answer.name, answer.at] for (event, person), answer in self.found.items()]

    def result(self) -> dict[str, Any]:
        """Return the value of the XCom."""
        counts = Counter(dict.fromkeys([*self.wait.rules.names, UNDELIVERED, NO_ANSWER, NOT_FOUND], 0))
        appointments, unanswered = [], []
        for each in self.wait.appointments:
            answer = self.found.get((each.event_id, each.participant_id)) or Answer(NO_ANSWER, None)
            counts[answer.name] += 1
            appointments.append(
                {
                    "event_id": each.event_id,
                    "participant_id": each.participant_id,
                    "reference": each.reference,
                    "answer": answer.name,
                    "at": answer.at,
                }
            )
            if answer.name in _NOT_ANSWERED:
                unanswered.append(dict(each.row))
        total = {"total": len(appointments)}
        return {"counts": total | dict(counts), "appointments": appointments, "unanswered": unanswered}

    def __str__(self) -> str:
        """Return the progress as text."""
        names = Counter(answer.name for answer in self.found.values())
        total = len(self.wait.appointments)
        listed = ", ".join(f"{count} {name}" for name, count in sorted(names.items())) or "none yet"
        return f"{total - self.missing} of {total} answered ({listed})"

    def _count(self, is_counted: Any) -> int:
        return sum(is_counted(self.found.get((each.event_id, each.participant_id))) for each in self.wait.appointments)
