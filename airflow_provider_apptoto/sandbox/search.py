"""Which messages of the inbox a caller asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_apptoto.sandbox.inbox import Value

#: How the sandbox answered a request.
OUTCOMES = ("accepted", "refused", "fault")
#: Requests of every outcome, whether or not a person got the message.
ANY = "any"

MAX_ID = 2**63 - 1
_SEARCHED = (
    '"to"',
    "recipient_name",
    "event_id",
    "participant_id",
    "subject",
    "message",
    "template_id",
    "dag_id",
    "run_id",
    "task_id",
    "error",
)


@dataclass(frozen=True, kw_only=True)
class Search:
    """Conditions that a message must all meet. None means no condition.

    :param type: ``sms``, ``call`` or ``email``.
    :param dag_id: the DAG that sent it.
    :param outcome: ``accepted``, ``refused`` or ``fault``; ``any`` for all requests. None finds the messages that
        people got: the accepted ones, and those that were stored despite a fault.
    :param to: the recipient, exactly as it was sent.
    :param text: a part of the recipient's number, address or name, of the text, the ids or the error, in upper or lower
        case.
    :param since_id: only messages after this id.
    :param before_id: only messages before this id.
    """

    type: str | None = None
    dag_id: str | None = None
    outcome: str | None = None
    to: str | None = None
    text: str | None = None
    since_id: int | None = None
    before_id: int | None = None

    @classmethod
    def parse(cls, fields: Mapping[str, object]) -> Search:
        """Create a search from the parameters of a URL.

        :param fields: the parameters of this class by name; the ids may be strings of digits.
        :raises ValueError: a parameter is unknown or invalid.
        """
        unknown = [repr(name) for name in fields if name not in cls.__dataclass_fields__]
        if unknown:
            msg = f"Unknown parameters: {', '.join(unknown)}. Allowed: {', '.join(cls.__dataclass_fields__)}."
            raise ValueError(msg)
        given: dict[str, object] = dict(fields)
        for name in ("since_id", "before_id"):
            if given.get(name) is not None:
                given[name] = number(given[name], name, 0, MAX_ID)
        texts = [name for name, value in given.items() if not name.endswith("_id") or name == "dag_id"]
        for name in texts:
            value = given[name]
            # A blank one may be an unset variable of a script, which must not delete everything.
            if value is not None and not (isinstance(value, str) and value.strip()):
                msg = f"{name} must be a string that is not blank."
                raise ValueError(msg)
        if given.get("outcome") not in (None, ANY, *OUTCOMES):
            msg = f"outcome must be one of {', '.join((*OUTCOMES, ANY))}."
            raise ValueError(msg)
        to = given.get("to")
        if isinstance(to, str) and to.startswith(" "):
            # An unescaped + in a URL is a space, and phone numbers begin with +.
            given["to"] = "+" + to[1:]
        return cls(**given)  # type: ignore[arg-type]

    def where(self) -> tuple[str, list[Value]]:
        """Return the condition in SQL, and its parameters."""
        conditions = {
            "type = ?": self.type,
            "dag_id = ?": self.dag_id,
            "outcome = ?": None if self.outcome == ANY else self.outcome,
            '"to" = ?': self.to,
            f"instr(folded({', '.join(_SEARCHED)}), ?)": None if self.text is None else self.text.casefold(),
            "id > ?": self.since_id,
            "id < ?": self.before_id,
        }
        given = {condition: value for condition, value in conditions.items() if value is not None}
        always = ["delivered"] if self.outcome is None else []
        return " AND ".join([*always, *given]) or "true", list(given.values())


def folded(*values: Value) -> str:
    """Return the values that :attr:`Search.text` is searched in, without upper case."""
    return "\n".join(str(value) for value in values if value is not None).casefold()


def number(value: object, name: str, least: int, most: int) -> int:
    """Return a whole number out of a URL or a Python call.

    :param name: the parameter, for the error.
    :raises ValueError: it is not a number from ``least`` to ``most``.
    """
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdecimal() or not least <= int(text[:20]) <= most:
        msg = f"{name} must be a whole number from {least} to {most}."
        raise ValueError(msg)
    return int(text)
