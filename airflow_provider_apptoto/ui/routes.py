"""The routes of the page that return or change messages. All need a user of Airflow."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response, status

from airflow_provider_apptoto import metrics
from airflow_provider_apptoto._airflow import clear_keeps_task_state
from airflow_provider_apptoto._airflow_api import (
    BaseUser,
    GetUserDep,
    changeable_dag_ids,
    may_change,
    may_read_task_instances,
    readable_dag_ids,
)
from airflow_provider_apptoto._airflow_task_state import TaskMayRunError, ValueChangedError
from airflow_provider_apptoto.client.errors import ApptotoConfigurationError
from airflow_provider_apptoto.configuration import outbox_conn_ids
from airflow_provider_apptoto.outbox.admin import Author, Record, Selection
from airflow_provider_apptoto.outbox.entry import State
from airflow_provider_apptoto.outbox.pages import MAX_OPEN, Page
from airflow_provider_apptoto.outbox.stores.base import LedgerStoreError
from airflow_provider_apptoto.privacy import MAX_LINE, printable
from airflow_provider_apptoto.ui.export import MAX_EXPORTED, as_csv
from airflow_provider_apptoto.ui.reading import Reader, task_states

# FastAPI reads the annotations when the routes are added
from airflow_provider_apptoto.ui.requests import (
    MAX_ROWS,
    Change,
    ExportBody,
    Filters,
    Link,
    OptOut,
    Resolution,
    SearchBody,
)
from airflow_provider_apptoto.ui.sources import (
    NoDatabaseError,
    Source,
    SourceError,
    all_sources,
    find_source,
    usable,
)
from airflow_provider_apptoto.ui.task_state import WHERE, StateRecord, change

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

audit = logging.getLogger("airflow_provider_apptoto.audit")
"""Who searched, exported and changed what, and when; never a recipient."""

router = APIRouter(prefix="/api", dependencies=[Depends(may_read_task_instances)])
_UNKNOWN = Selection(states=(State.UNKNOWN,))


# --- read


@router.get("/about")
def about(user: GetUserDep) -> dict[str, Any]:
    """Return the user, and the connections whose messages can be shown."""
    return {"user": _name(user), "sources": outbox_conn_ids()}


@router.get("/open")
def list_open(request: Request, user: GetUserDep, of: Annotated[Link, Query()]) -> dict[str, Any]:
    """Return the open cases of all connections, newest first: messages that may have been sent.

    With a DAG and a run, those in Airflow's task state are among them.
    """
    dag_ids = readable_dag_ids(user)
    states = task_states(of.dag, of.run, of.task, dag_ids)
    sources, errors = all_sources()
    problems = [str(error) for error in errors if states is None or not isinstance(error, NoDatabaseError)]
    rows: list[dict[str, Any]] = []
    is_cut = False
    for source in sources:
        try:
            page = source.page(_UNKNOWN, dag_ids, limit=MAX_OPEN)
        except LedgerStoreError as error:
            problems.append(str(usable(error, source.conn_id)))
        except SourceError as error:
            problems.append(str(error))
        else:
            rows += _rows(request, user, source.conn_id, page.records)
            is_cut |= page.after is not None
    if states is not None:
        page = states.page(_UNKNOWN, None, after=None, limit=MAX_OPEN)
        rows += _rows(request, user, "", page.records)
        is_cut |= page.after is not None
        problems += [] if states.problem is None else [states.problem]
    rows.sort(key=lambda row: str(row["updated_at"]), reverse=True)
    return {"rows": rows[:MAX_OPEN], "is_cut": is_cut or len(rows) > MAX_OPEN, "problems": problems}


@router.get("/messages")
def list_messages(request: Request, user: GetUserDep, filters: Annotated[Filters, Query()]) -> dict[str, Any]:
    """Return a page of messages, newest first."""
    reader = Reader(filters, readable_dag_ids(user))
    return _page(request, user, filters, reader.page(filters), reader)


@router.post("/search")
def search(request: Request, user: GetUserDep, body: SearchBody) -> dict[str, Any]:
    """Return a page of the messages with this reference or to this recipient. The text is not stored or logged."""
    reader = Reader(body, readable_dag_ids(user), body.text)
    page = reader.page(body)
    audit.info("%s searched for a reference or a recipient: %d rows", _name(user), len(page.records))
    return {**_page(request, user, body, page, reader), "hint": reader.hint}


@router.post("/export")
def export(user: GetUserDep, body: ExportBody) -> Response:
    """Return messages as a CSV file."""
    reader = Reader(body, readable_dag_ids(user), body.text)
    filters = body.model_copy(update={"limit": MAX_ROWS})
    records: list[Record] = []
    while True:
        page = reader.page(filters)
        records += page.records
        if page.after is None or len(records) >= MAX_EXPORTED:
            break
        filters = filters.model_copy(update={"after": str(page.after)})
    is_complete = page.after is None and not reader.problems
    how = "all that are selected" if is_complete else "not all that are selected"
    searched = "" if body.text is None else ", by a search"
    audit.info("%s exported %d messages (%s%s) of %r", _name(user), len(records), how, searched, body.source)
    headers = {} if is_complete else {"X-Apptoto-Complete": "no"}
    return Response(as_csv(records), media_type="text/csv; charset=utf-8", headers=headers)


# --- change


def changing_user(request: Request, user: GetUserDep, dag_id: str) -> BaseUser:
    """Return a user who may edit the task instances of the DAG in the path.

    :raises HTTPException: the user may not.
    """
    if not may_change(request, user, dag_id):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "You may not edit the task instances of this DAG.")
    return user


ChangingUser = Annotated[BaseUser, Depends(changing_user)]


@router.post("/dags/{dag_id}/resolve")
def resolve(request: Request, user: ChangingUser, dag_id: str, body: Resolution) -> dict[str, Any]:
    """Record whether messages were sent."""
    if body.place is not None:
        return _change_task_state(request, user, dag_id, body, body.outcome, force=body.force)
    source = find_source(body.source)
    author = _author(user, body)
    try:
        admin = source.admin
        chosen = admin.resolvable(_selection(dag_id, body), force=body.force)
        changed = admin.resolve(chosen, body.outcome, author)
        _count_open(source)
    except LedgerStoreError as error:
        raise usable(error, source.conn_id) from None
    _tell(author, f"resolved as {body.outcome}", dag_id, changed)
    return _changed(request, user, source.conn_id, changed, body)


@router.post("/dags/{dag_id}/forget")
def forget(request: Request, user: ChangingUser, dag_id: str, body: Change) -> dict[str, Any]:
    """Remove messages from the ledger, so that they may be sent again."""
    if body.place is not None:
        return _change_task_state(request, user, dag_id, body, None)
    source = find_source(body.source)
    author = _author(user, body)
    try:
        admin = source.admin
        changed = admin.forget(admin.forgettable(_selection(dag_id, body)), author)
        _count_open(source)
    except LedgerStoreError as error:
        raise usable(error, source.conn_id) from None
    _tell(author, "removed from the ledger", dag_id, changed)
    return _changed(request, user, source.conn_id, changed, body)


@router.post("/dags/{dag_id}/optout")
def opt_out(user: ChangingUser, dag_id: str, body: OptOut) -> dict[str, Any]:
    """Add the recipients of messages to a list of people who opted out."""
    if body.place is not None:
        raise HTTPException(status.HTTP_409_CONFLICT, "Nothing was changed: opt-outs need a state database.")
    source = find_source(body.source)
    author = _author(user, body)
    try:
        found = source.admin.select(_selection(dag_id, body))
        known = [record for record in found if record.entry.recipient is not None]
        hashes = [str(record.entry.recipient) for record in known]
        added = source.optouts.add_hashes(body.list, hashes, by=author.by, note=author.note) if hashes else 0
    except LedgerStoreError as error:
        raise usable(error, source.conn_id) from None
    except ApptotoConfigurationError as error:
        raise HTTPException(status.HTTP_409_CONFLICT, f"Nothing was changed: {error}.") from None
    _tell(author, f"opted out ({body.list}) the recipients of", dag_id, known)
    return {"added": added, "messages": len(known), "skipped": len({*body.keys}) - len(known)}


# --- shared


def _name(user: BaseUser) -> str:
    return printable(user.get_name())[:MAX_LINE] or "unnamed user"


def _author(user: BaseUser, body: Change) -> Author:
    return Author(by=_name(user), note=body.note)


def _selection(dag_id: str, body: Change) -> Selection:
    return Selection(keys={*body.keys}, dag_id=dag_id)


def _change_task_state(
    request: Request, user: BaseUser, dag_id: str, body: Change, outcome: State | None, *, force: bool = False
) -> dict[str, Any]:
    """Resolve or (``None``) forget messages in the task state of one task instance, all or none.

    :raises HTTPException: the task may run, or a message has changed.
    """
    place, author = body.place, _author(user, body)
    states = None if place is None else task_states(dag_id, place.run, place.task, {dag_id})
    if states is None or place is None:
        raise HTTPException(status.HTTP_409_CONFLICT, "Nothing was changed: this Airflow has no task state.")
    try:
        chosen = states.chosen(place.map_index, dict(zip(body.keys, body.seen, strict=True)))
        changed = change(chosen, outcome, author, force=force)
    except TaskMayRunError as error:
        state = "not scheduled yet" if error.state is None else error.state
        raise HTTPException(
            status.HTTP_409_CONFLICT,
            f"Nothing was changed: the task may still send, because its state is {state}. Wait until it has ended.",
        ) from None
    except ValueChangedError:
        raise HTTPException(
            status.HTTP_409_CONFLICT,
            "Nothing was changed: a message or its task changed after the page was loaded. Refresh the page.",
        ) from None
    _tell(author, "removed from the ledger" if outcome is None else f"resolved as {outcome}", dag_id, changed)
    return _changed(request, user, "", changed, body)


def _rows(request: Request, user: BaseUser, conn_id: str, records: Iterable[Record]) -> list[dict[str, Any]]:
    shown = [*records]
    changeable = changeable_dag_ids(request, user, [record.entry.origin.dag_id for record in shown])
    return [
        {
            **record.to_dict(),
            "may_change": record.entry.origin.dag_id in changeable,
            "is_in_flight": record.entry.is_live,
            "is_resolved": record.decision is not None,
            **_store(record, conn_id),
        }
        for record in shown
    ]


def _store(record: Record, conn_id: str) -> dict[str, Any]:
    """Return where an entry is, and what a change of it must quote."""
    if isinstance(record, StateRecord):  # its hash of the recipient is of no use elsewhere
        return {
            "source": WHERE,
            "place": record.place,
            "seen": record.seen,
            "has_recipient": False,
            "survives_clear": clear_keeps_task_state(),
        }
    return {
        "source": conn_id,
        "place": None,
        "seen": None,
        "has_recipient": record.entry.recipient is not None,
        "survives_clear": True,
    }


def _page(request: Request, user: BaseUser, filters: Filters, page: Page, reader: Reader) -> dict[str, Any]:
    after = None if page.after is None else str(page.after)
    rows = _rows(request, user, filters.source, page.records)
    return {"rows": rows, "after": after, "problems": reader.problems}


def _changed(request: Request, user: BaseUser, conn_id: str, changed: Sequence[Record], body: Change) -> dict[str, Any]:
    skipped = len({*body.keys}) - len(changed)
    return {"rows": _rows(request, user, conn_id, changed), "skipped": skipped}


def _count_open(source: Source) -> None:
    metrics.unresolved(source.admin.count(_UNKNOWN), source.conn_id)


def _tell(author: Author, what: str, dag_id: str, records: Iterable[Record]) -> None:
    """Write an audit line. The note is in the database only, because people may write down who is meant."""
    keys = ", ".join(record.entry.key for record in records) or "none"
    audit.info("%s %s messages of DAG %r: %s", author.by, what, dag_id, keys)
