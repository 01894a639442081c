"""Add up what a live run would do, while a dry run of a batch goes through its messages. Does not import Airflow.

Only totals are kept: no recipients, no texts. Labels are in clear by contract.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow_provider_apptoto.client.outcomes import Outcome
from airflow_provider_apptoto.client.segments import estimate_in_gsm_7, estimate_segments, non_gsm_7_characters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from airflow_provider_apptoto.batch.plan import PlannedMessage
    from airflow_provider_apptoto.client import Message

MAX_VALUES = 20
"""Countries, and values of each label, that are listed; the most frequent ones."""
MAX_CHARACTERS = 10
NONE, OTHERS = "(none)", "(others)"
_MAX_VALUE = 40
"""Characters of a label value; longer ones are cut, so that the report fits into an XCom."""
_WOULD_GO = (Outcome.DRY_RUN, Outcome.HELD)
"""Outcomes of messages that a live run sends, now or after a wait."""
_SEGMENTS, _VALUES = "segments", "values"
_DYNAMIC = ("{{", "{%")
_LAST_LATIN = "\u024f"
"""Last character of the Unicode block Latin Extended-B."""
_LETTERS = frozenset({"Ll", "Lo", "Lt", "Lu", "Mc", "Mn"})
_NO_SCRIPT = frozenset({"COMBINING", "LATIN", "VARIATION"})


class Rehearsal:
    """The totals of a dry run. Not thread-safe.

    :param label_columns: the labels by which messages are grouped.
    """

    def __init__(self, label_columns: Sequence[str] = ()) -> None:
        self._segments = 0
        self._unknown_length = 0
        self._openings: tuple[datetime, datetime] | None = None
        self._countries = _Groups()
        self._labels = {column: _Groups() for column in label_columns}
        self._ucs_2 = {"messages": 0, _SEGMENTS: 0, "extra_segments": 0}
        self._characters: Counter[str] = Counter()

    def add(self, planned: PlannedMessage, outcome: Outcome, held_until: datetime | None = None) -> None:
        """Count a message.

        :param held_until: when a held message may be sent.
        """
        segments = self._measure(planned.message) if outcome in _WOULD_GO else 0
        self._segments += segments
        self._countries.add(_country(planned.message), outcome, segments)
        labels = planned.labels or {}
        for column, groups in self._labels.items():
            groups.add(_cut(labels.get(column, NONE)), outcome, segments)
        if held_until is not None:
            first, last = self._openings or (held_until, held_until)
            self._openings = min(first, held_until), max(last, held_until)

    def _measure(self, message: Message) -> int:
        """Return the estimated segments of a message; 0 if it is no SMS, or its text is not known."""
        if message.type != "sms":
            return 0
        text = message.message
        if text is None or any(opening in text for opening in _DYNAMIC):
            self._unknown_length += 1
        if text is None:
            return 0
        parts = estimate_segments(text).parts
        if found := non_gsm_7_characters(text):
            self._ucs_2["messages"] += 1
            self._ucs_2[_SEGMENTS] += parts
            self._ucs_2["extra_segments"] += parts - estimate_in_gsm_7(text).parts
            self._characters.update({_shown(character) for character in found})
        return parts

    def report(self) -> dict[str, Any]:
        """Return the totals as plain values for an XCom."""
        characters = sorted(self._characters.items(), key=lambda each: (-each[1], each[0]))
        return {
            _SEGMENTS: self._segments,
            "unknown_length": self._unknown_length,
            "held_until": self._openings and dict(zip(("first", "last"), map(_iso, self._openings), strict=True)),
            "by_country": self._countries.report(),
            "by_label": {column: groups.report() for column, groups in self._labels.items()},
            "ucs_2": {
                **self._ucs_2,
                "characters": dict(characters[:MAX_CHARACTERS]),
                "other_characters": len(characters[MAX_CHARACTERS:]),
            },
        }

    def table(self) -> str:
        """Return the totals as lines of text."""
        return "\n".join(self._lines(self.report()))

    def _lines(self, report: Mapping[str, Any]) -> Iterator[str]:
        yield f"  Estimated SMS segments: {report[_SEGMENTS]:,}"
        if unknown := report["unknown_length"]:
            yield f"  SMS of unknown length (stored template or dynamic fields): {unknown:,}"
        if held := report["held_until"]:
            yield f"  Held until {held['first']} (first opening) to {held['last']} (last opening)"
        if (ucs_2 := report["ucs_2"])["messages"]:
            yield f"  SMS in UCS-2 (70 characters per segment, not 160): {ucs_2['messages']:,}"
            yield f"  Segments more than in GSM-7: {ucs_2['extra_segments']:,}"
            yield "  SMS by character that is not in GSM-7:"
            yield from (f"{count:>9,}  {character}" for character, count in ucs_2["characters"].items())
            if others := ucs_2["other_characters"]:
                yield f"           ({others:,} others)"
        yield from _rows("country", report["by_country"])
        for column, groups in report["by_label"].items():
            yield from _rows(column, groups)


class _Groups:
    """Messages by outcome, and their SMS segments, for each value of a property."""

    def __init__(self) -> None:
        self._columns: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, value: str, outcome: Outcome, segments: int) -> None:
        """Count a message."""
        self._columns[outcome][value] += 1
        self._columns[_SEGMENTS][value] += segments

    def report(self) -> dict[str, dict[str, int]]:
        """Return the columns of the most frequent values, and the sums of the others; each with the same columns."""
        found = [outcome for outcome in Outcome if outcome in self._columns and outcome not in _WOULD_GO]
        outcomes = [*_WOULD_GO, *found]
        messages: Counter[str] = Counter()
        for outcome in outcomes:
            messages.update(self._columns[outcome])
        ranked = sorted(messages, key=lambda value: (-messages[value], value))
        columns = {str(column): self._columns[column] for column in (*outcomes, _SEGMENTS)}
        listed = [value for value in ranked if value != OTHERS][:MAX_VALUES]
        report = {value: {name: of[value] for name, of in columns.items()} for value in listed}
        if others := set(ranked).difference(listed):
            sums = {name: sum(of[value] for value in others) for name, of in columns.items()}
            report[OTHERS] = {_VALUES: len(others), **sums}
        return report


def _country(message: Message) -> str:
    """Return the region of a phone number (ISO 3166), or what else the message goes to."""
    if message.type == "email":
        return "email"
    if message.to is None:  # only Apptoto knows the numbers
        return "participant" if message.event_id is None else "event"
    import phonenumbers

    region = phonenumbers.region_code_for_number(phonenumbers.parse(message.to))
    return region if region in phonenumbers.SUPPORTED_REGIONS else NONE


@lru_cache(maxsize=1024)
def _shown(character: str) -> str:
    """Describe a character; of a script other than Latin only the script, since its letters could spell a name."""
    name = unicodedata.name(character, "")
    script = name.partition(" ")[0]
    is_foreign = character > _LAST_LATIN and unicodedata.category(character) in _LETTERS and script not in _NO_SCRIPT
    if is_foreign:
        return f"{script} letters"
    return " ".join(filter(None, (character if character.isprintable() else "", f"U+{ord(character):04X}", name)))


def _cut(value: str) -> str:
    return value if len(value) <= _MAX_VALUE else f"{value[: _MAX_VALUE - 1]}…"


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%MZ")


def _rows(title: str, groups: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Yield a heading, and a line for each group."""
    if not groups:
        return
    columns = [name for name in next(iter(groups.values())) if name != _VALUES]
    rows = {f"({row[_VALUES]:,} others)" if _VALUES in row else value: row for value, row in groups.items()}
    width = max(map(len, (*rows, title))) + 3
    yield f"  By {title:<{width}}" + "".join(f"{name:>{len(name) + 4}}" for name in columns)
    for value, row in rows.items():
        cells = (f"{row[name]:>{len(name) + 4},}" for name in columns)
        yield f"    {value:<{width + 1}}" + "".join(cells)
