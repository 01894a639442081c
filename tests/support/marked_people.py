"""Marked personal data, a DAG in which every kind of outcome happens, and the places to which Airflow writes."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator, ApptotoSendMessageOperator
from tests.support.airflow_home import HOME
from tests.support.faults import Exchange, accepting, answering, hanging

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "Sekret-Api-Key-81d2"
TEXT = "Dear Wilhelmina Abendroth, your biopsy was benign"
SUBJECT = "Regarding Wilhelmina's biopsy"
ADDRESS = "wilhelmina.abendroth@clinic.example"
NUMBERS = {
    kind: f"+1650555{7700 + number}"
    for number, kind in enumerate(("sent", "refused", "unknown", "busy", "hangs", "mapped", "other", "dry", "failing"))
}
PEOPLE = {**NUMBERS, "text": TEXT, "subject": SUBJECT, "address": ADDRESS, "smuggling": f"{TEXT} {{{{ name }}}}"}
MARKS = [KEY, "Wilhelmina", "wilhelmina", "Abendroth", "biopsy", *(number[2:] for number in NUMBERS.values())]


def person(key: str) -> str:
    """Return personal data. It is read when fields are rendered, so neither the DAG nor its stored form contains it.

    Airflow stores what the DAG's author writes; the provider must only hide data from elsewhere.
    """
    return str(json.loads(os.environ["PEOPLE"])[key])


def fail(value: str) -> NoReturn:
    """Fail with personal data in the error."""
    raise KeyError(value)


MACROS = {"person": person, "fail": fail}


def of(key: str) -> str:
    """Return a template that renders to personal data."""
    return f"{{{{ person('{key}') }}}}"


SUCCESSFUL = {"sent", "mail", "dry", "batch", "batch_of_a_file"}
WHY_OTHERS_FAIL = {
    "refused": "HTTP 422",
    "unknown": "HTTP 500",
    "busy": "HTTP 503",
    "hangs": "interrupted by AirflowTaskTimeout",
    "no_number": "not a phone number",
    "no_address": "not a valid e-mail address",
    "two_targets": "exactly one of to, event_id",
    "wrong_id": "event_id: must be a positive integer",
    "wrong_type": "type: must be one of",
    "subject_of_sms": "is allowed for email only",
    "two_lines": "subject: must be one line",
    "smuggling": "came from a value, and Apptoto would execute it",
    "undefined": "nope is undefined",
    "undefined_by_value": "a value is undefined",
    "failing_macro": "message: line 1: rendering failed (KeyError)",
    "failing_recipient": "to: line 1: rendering failed (KeyError)",
    "unclosed": "is never closed",
    "itself": "message: ",  # Airflow 3.0 gives templates a copy of the task whose fields are not rendered
    "mapped": "to: line 1: rendering failed (KeyError)",
    "batch_unknown": "1 were not sent, 2 may have been",
    "batch_of_bad_rows": "Nothing was sent: 8 of 8 rows are invalid",
    "batch_of_fields_given_twice": "both the row and defaults set it",
    "batch_of_ambiguous_rows": "duplicates row 0, but has different content",
    "batch_of_doubtful_keys": "is the id_column",
    "batch_of_a_failing_default": "message: line 1: rendering failed (KeyError)",
    "batch_with_bad_suppression": "suppression: has entries that can't be compared",
}


def every_kind_of_end() -> None:
    """Make one task of every way in which a message, or a batch, can end."""
    text = of("text")

    def send(task_id: str, **fields: Any) -> None:
        ApptotoSendMessageOperator(task_id=task_id, **{"message": text, **fields})

    def mail(task_id: str, **fields: Any) -> None:
        send(task_id, **{"type": "email", "to": of("address"), "subject": of("subject"), **fields})

    send("sent", to=of("sent"))
    mail("mail")
    send("refused", to=of("refused"))
    send("unknown", to=of("unknown"))
    send("busy", to=of("busy"))
    send("hangs", to=of("hangs"), execution_timeout=timedelta(seconds=1))
    send("dry", to=of("dry"), delivery_mode="dry_run")
    send("no_number", to=text)
    mail("no_address", to=of("address") + "@@")
    send("two_targets", to=of("failing"), event_id=of("failing"))
    send("wrong_id", event_id=of("failing"))
    send("wrong_type", type=text, to=of("failing"))
    send("subject_of_sms", to=of("failing"), subject=of("subject"))
    mail("two_lines", subject=of("subject") + "\nBcc: a@b.example")
    send("smuggling", event_id=1, message=of("smuggling"))
    send("undefined", to=of("failing"), message=text + " {{ nope }}")
    send("undefined_by_value", to=of("failing"), message="{{ {}[person('text')].x }}")
    send("failing_macro", to=of("failing"), message="{{ fail(person('text')) }}")
    send("failing_recipient", to="{{ fail(person('failing')) }}")
    send("unclosed", to=of("failing"), message=text + "{{")
    send("itself", to=of("failing"), message="{{ task.to }}")
    ApptotoSendMessageOperator.partial(task_id="mapped", message=text).expand(
        to=[of("mapped"), of("refused"), "{{ fail(person('other')) }}"]
    )

    def batch(task_id: str, *rows: tuple[str, dict[str, Any]], **fields: Any) -> None:
        messages = [{"to": of(key), **columns} for key, columns in rows]
        source = {} if "messages_path" in fields else {"messages": messages}
        defaults = {"type": "sms", "message": text}
        ApptotoSendMessageBatchOperator(task_id=task_id, retries=0, **{"defaults": defaults, **source, **fields})

    whole = {"type": "sms", "message": text}
    batch("batch", ("sent", {}), ("refused", {}), ("mapped", {}), max_failed=1, suppression=[of("mapped")])
    batch("batch_of_a_file", messages_path=of("file"), defaults={"type": "sms", "message": "{{ row.name }}"})
    batch("batch_unknown", ("unknown", {}), ("busy", {}), ("hangs", {}))
    batch(
        "batch_of_bad_rows",
        ("text", whole),
        ("address", whole),
        ("failing", {**whole, "subject": text}),
        ("other", {**whole, "type": text}),
        ("other", {**whole, "message": of("smuggling")}),
        ("other", {**whole, "event_id": 1}),
        ("other", {**whole, "message": "{{ {}[person('text')].x }}"}),
        ("other", {**whole, "name": "{{ fail(person('text')) }}"}),
        defaults={},
    )
    batch("batch_of_fields_given_twice", ("other", {"message": text}))
    batch("batch_of_ambiguous_rows", ("other", whole), ("other", {**whole, "message": text + "!"}), defaults={})
    batch("batch_of_doubtful_keys", ("other", {"key": text * 9}), id_column="key")
    batch(
        "batch_of_a_failing_default",
        ("other", {}),
        defaults={"type": "sms", "message": "{{ fail(person('text')) }}"},
    )
    batch("batch_with_bad_suppression", ("other", {}), suppression=[text])


def by_recipient(exchange: Exchange) -> None:
    """Answer each person differently, with their personal data in the answer."""
    echo = {"error": f"{exchange.request.body.decode()} by {KEY} {TEXT} {exchange.request.json['to'][2:]}"}
    script = {
        NUMBERS["refused"]: answering(422, echo),
        NUMBERS["unknown"]: answering(500, echo),
        NUMBERS["busy"]: answering(503, echo, Retry_After="0"),
        NUMBERS["hangs"]: hanging,
    }.get(exchange.request.json["to"], accepting)
    script(exchange)


def database() -> str:
    """Return every value of every table of the metadata database."""

    def values(connection: sqlite3.Connection) -> Iterator[str]:
        tables = connection.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (table,) in tables:
            for row in connection.execute(f'select * from "{table}"'):  # noqa: S608  the names are the database's own
                for value in row:
                    yield value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    with contextlib.closing(sqlite3.connect(HOME / "airflow.db")) as connection:
        return "\n".join(values(connection))


def log_files() -> str:
    """Return all that Airflow has logged to files."""
    return "\n".join(path.read_text(errors="replace") for path in (HOME / "logs").rglob("*") if path.is_file())


def rendered() -> str:
    """Return what the page of rendered fields shows."""
    with contextlib.closing(sqlite3.connect(HOME / "airflow.db")) as connection:
        return str(connection.execute("select rendered_fields from rendered_task_instance_fields").fetchall())
