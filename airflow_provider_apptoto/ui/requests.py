"""What the page asks for: filters, searches and changes, validated."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, model_validator

from airflow_provider_apptoto._defaults import DEFAULT_CONN_ID
from airflow_provider_apptoto.outbox.admin import Selection
from airflow_provider_apptoto.outbox.entry import State  # noqa: TC001  pydantic reads the annotations
from airflow_provider_apptoto.outbox.optout_lists import ALL
from airflow_provider_apptoto.outbox.pages import MAX_OPEN, Cursor
from airflow_provider_apptoto.privacy import MAX_LINE, is_one_line

MAX_ROWS = 200
"""Maximum number of rows per page."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that can't be printed")
    return text


def _line(text: str) -> str:
    if not is_one_line(text):
        raise ValueError(f"must be one line of 1 to {MAX_LINE} characters")
    return text


Text = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_printable)]
Name = Annotated[str, Field(min_length=1, max_length=250), AfterValidator(_printable)]
Start = Annotated[str, Field(pattern=r"^[0-9]{1,10}(\.[0-9]{1,10})?~[0-9a-f]{32}$")]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Note = Annotated[str, AfterValidator(_line)]


class Filters(BaseModel):
    """Which messages to show. A filter that is ``None`` or empty does not apply.

    :param source: id of the Apptoto connection.
    :param outcome: states of the ledger; ``unknown`` includes messages that a killed task left in ``sending``.
    :param since: messages whose state was set at or after this time.
    :param until: messages whose state was set before this time.
    :param after: where the page starts, as the page before says.
    """

    # an unknown filter would show more than was asked for
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    source: Name = DEFAULT_CONN_ID
    # not `dag_id`, which Airflow would check as the only DAG of the request
    dag: Name | None = None
    run: Name | None = None
    task: Name | None = None
    outcome: list[State] = []
    channel: Literal["sms", "call", "email"] | None = None
    reference: Text | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    after: Start | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_ROWS)] = 50

    @property
    def selection(self) -> Selection:
        """The filters, for the ledger."""
        return Selection(
            states=self.outcome,
            channel=self.channel,
            dag_id=self.dag,
            task_id=self.task,
            run_id=self.run,
            reference=self.reference,
            since=None if self.since is None else self.since.timestamp(),
            until=None if self.until is None else self.until.timestamp(),
        )

    @property
    def cursor(self) -> Cursor | None:
        """Where the page starts."""
        return None if self.after is None else Cursor.parse(self.after)


class Link(BaseModel):
    """The messages that a link of a task opens.

    :param source: id of the Apptoto connection; ``None``: the first one that the page shows.
    """

    source: Name | None = None
    dag: Name | None = None
    run: Name | None = None
    task: Name | None = None


class SearchBody(Filters):
    """Filters, and what a person typed in to find a message.

    :param text: a reference or a recipient. It is not shown in errors and in ``repr``.
    """

    text: Annotated[SecretStr, Field(min_length=1, max_length=1000)]


class ExportBody(Filters):
    """Filters, and optionally a search, of a CSV file."""

    text: Annotated[SecretStr, Field(min_length=1, max_length=1000)] | None = None


class Place(BaseModel):
    """A task instance of the DAG in the path, whose messages are in Airflow's task state."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    run: Name
    task: Name
    map_index: Annotated[int, Field(ge=-1)] = -1


class Change(BaseModel):
    """A change of messages of one DAG.

    :param note: reason for the change; stored.
    :param place: where the messages are, if they are in Airflow's task state.
    :param seen: with ``place``: for each key, the row's ``seen``.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    source: Name = DEFAULT_CONN_ID
    keys: Annotated[list[Key], Field(min_length=1, max_length=MAX_OPEN)]
    note: Note
    place: Place | None = None
    seen: Annotated[list[Key], Field(max_length=MAX_OPEN)] = []

    @model_validator(mode="after")
    def _has_seen_each(self) -> Self:
        if self.place is not None and not len({*self.keys}) == len(self.keys) == len(self.seen):
            raise ValueError("seen must have a value for each key, and no key may be repeated")
        return self


class Resolution(Change):
    """Whether messages were sent.

    :param force: whether to change messages that a person has resolved before.
    """

    outcome: Literal[State.SENT, State.NOT_SENT]
    force: bool = False


class OptOut(Change):
    """The list to add the recipients of messages to."""

    list: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = ALL
