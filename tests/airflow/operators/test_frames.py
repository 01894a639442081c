"""Error trackers, which store frame variables and chained errors, get no personal data and no credentials."""

from __future__ import annotations

import base64
import functools
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import phonenumbers
import pytest
from airflow.providers.common.compat.sdk import AirflowException, ObjectStoragePath, task

from airflow_provider_apptoto.client import Message
from airflow_provider_apptoto.decorators.apptoto import (
    ApptotoMessageBatchDecoratedOperator,
    ApptotoMessageDecoratedOperator,
)
from airflow_provider_apptoto.hooks.apptoto import ApptotoHook
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator, ApptotoSendMessageOperator
from tests.support.dag_runs import run_dag
from tests.support.faults import FaultServer, answering, never_accepting, not_listening
from tests.support.marked_people import (
    ADDRESS,
    KEY,
    MACROS,
    MARKS,
    NUMBERS,
    PEOPLE,
    TEXT,
    WHY_OTHERS_FAIL,
    by_recipient,
    database,
    every_kind_of_end,
    log_files,
    of,
    rendered,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow.providers.common.compat.sdk import BaseOperator

sentry_sdk: Any = pytest.importorskip("sentry_sdk", reason="older Airflows are tested without it")

pytestmark = pytest.mark.usefixtures("airflow_database", "quick_retries", "_people")

LOGIN = "clinic@clinic.example"
DATABASE_PASSWORD = "Sekret-Ledger-Password-5c1"
IN_TRANSIT = base64.b64encode(f"{LOGIN}:{KEY}".encode()).decode()
OUTPUT = "+16505557788"
"""A recipient that a task returns. Airflow stores it as an XCom, so it is not marked."""
SECRETS = [*MARKS, OUTPUT[2:], IN_TRANSIT, DATABASE_PASSWORD, base64.b64encode(KEY.encode()).decode()]
SLOW = NUMBERS["busy"]
"""Checking this number raises an interrupt."""


class Tracker:
    """Collects what an error tracker would get, by task."""

    def __init__(self) -> None:
        from sentry_sdk.scrubber import EventScrubber
        from sentry_sdk.transport import Transport

        self._events: list[Any] = []
        events = self._events

        class Collector(Transport):
            def capture_envelope(self, envelope: Any) -> None:
                events.append(envelope.get_event())

        self._client = sentry_sdk.Client(
            "https://key@sentry.invalid/1",
            transport=Collector,
            default_integrations=False,
            include_local_variables=True,
            include_source_context=False,
            event_scrubber=EventScrubber(denylist=[], pii_denylist=[]),
        )
        self.seen: dict[str, str] = {}
        """What is seen of each failure, by name."""
        self.errors: dict[str, str] = {}

    def capture(self, name: str, error: BaseException) -> None:
        """Send an error to the SDK, and add what a handler that follows suppressed errors would see."""
        with sentry_sdk.new_scope() as scope:
            scope.set_client(self._client)
            sentry_sdk.capture_exception(error)
        event = self._events.pop()
        for each in event["exception"]["values"]:
            frames = each.get("stacktrace", {}).get("frames", [])
            each["stacktrace"] = [frame for frame in frames if frame["abs_path"] != __file__]
        self.errors[name] = str(error)
        self.seen[name] = "\n".join([self.seen.get(name, ""), json.dumps(event), *everything_of(error)])

    def leaks(self) -> list[tuple[str, str]]:
        """Return which failures show what."""
        return [(name, secret) for name, seen in self.seen.items() for secret in SECRETS if secret in seen]


def everything_of(error: BaseException) -> Iterator[str]:
    """Yield an error, its causes, and the variables of their frames, except frames of the tests."""
    waiting, known = [error], set()
    while waiting:
        each = waiting.pop()
        if id(each) in known:
            continue
        known.add(id(each))
        yield from (repr(each), repr(vars(each)), *getattr(each, "__notes__", []))
        waiting += [other for other in (each.__cause__, each.__context__) if other is not None]
        trace = each.__traceback__
        while trace is not None:
            if not trace.tb_frame.f_code.co_filename.startswith(str(Path(__file__).parents[2])):
                where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
                yield from (f"{where} {name} = {shown(value)}" for name, value in trace.tb_frame.f_locals.items())
            trace = trace.tb_next


def shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001  whatever it is
        return type(error).__name__


@pytest.fixture
def _people(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"to": NUMBERS["other"], "name": TEXT}))
    monkeypatch.setenv("PEOPLE", json.dumps({**PEOPLE, "file": str(rows)}))


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> Tracker:
    """Provide a tracker that gets failures where they leave the operator; the frames above are Airflow's."""
    tracker = Tracker()

    def tracked(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(self: BaseOperator, *arguments: Any, **named: Any) -> Any:
            try:
                return method(self, *arguments, **named)
            except BaseException as error:
                tracker.capture(self.task_id, error)
                raise

        return call

    for operator in (
        ApptotoSendMessageOperator,
        ApptotoSendMessageBatchOperator,
        ApptotoMessageDecoratedOperator,
        ApptotoMessageBatchDecoratedOperator,
    ):
        for name in ("_do_render_template_fields", "execute"):
            monkeypatch.setattr(operator, name, tracked(getattr(operator, name)))
    return tracker


def send(task_id: str, **fields: Any) -> None:
    ApptotoSendMessageOperator(task_id=task_id, **{"type": "sms", "to": of("failing"), "message": of("text"), **fields})


def test_no_failure_of_a_task_leaks_recipient_text_or_key(connection: Callable[..., None], tracker: Tracker) -> None:
    with FaultServer([by_recipient]) as server:
        connection(server.url, password=KEY, timeout=5)
        run_dag(every_kind_of_end, user_defined_macros=MACROS, default_args={"type": "sms"})
    assert tracker.errors.keys() == WHY_OTHERS_FAIL.keys()
    assert tracker.leaks() == []


def test_a_template_error_in_a_mapped_task_leaks_nothing(connection: Callable[..., None], tracker: Tracker) -> None:
    """Its recipient is not a template but another task's output."""

    def build() -> None:
        @task
        def people() -> list[str]:
            return [OUTPUT]

        ApptotoSendMessageOperator.partial(task_id="mapped", type="sms", message="Hi {{ nope }}").expand(to=people())

    connection("https://clinic.example", password=KEY)
    run_dag(build)
    assert "nope is undefined" in tracker.errors["mapped"]
    assert tracker.leaks() == []


# urllib3 leaves a socket to the garbage collector if a timeout interrupts the connect.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_a_timeout_while_checking_or_connecting_leaks_nothing(
    connection: Callable[..., None], tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = phonenumbers.parse

    def parsed(number: str, region: str | None) -> Any:
        if number == SLOW:
            time.sleep(30)
        return parse(number, region)

    monkeypatch.setattr(phonenumbers, "parse", parsed)
    with never_accepting() as port:
        connection(f"http://127.0.0.1:{port}", password=KEY, connect_timeout=30)

        def build() -> None:
            send("checking", to=of("busy"), execution_timeout=timedelta(seconds=1))
            send("connecting", execution_timeout=timedelta(seconds=1))

        run_dag(build, user_defined_macros=MACROS)
    assert tracker.errors.keys() == {"checking", "connecting"}
    assert all("Timeout" in error for error in tracker.errors.values())
    assert tracker.leaks() == []


def test_a_wrong_connection_leaks_neither_key_nor_password(
    connection: Callable[..., None], tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = {"login": "ledger", "password": DATABASE_PASSWORD, "host": "127.0.0.1"}
    monkeypatch.setenv("AIRFLOW_CONN_NO_LEDGER", json.dumps({"conn_type": "mssql", **ledger}))
    reasons = {
        "wrong_timeout": "timeout: 'x' is not a number",
        "wrong_host": "plain http to apptoto.example",
        "wrong_extra": "extra field 'timeuot': is unknown",
        "wrong_stand_in": "is not a valid e-mail address",
        "no_ledger": "is a connection of type 'mssql'",
        "ledger_away": "the state database can't be used",
        "not_read": "",
        "refused_key": "HTTP 401",
    }
    with FaultServer([answering(401, {"error": f"Basic {IN_TRANSIT}"})]) as server, not_listening() as port:
        address = {"conn_type": "postgres", **ledger, "port": port}
        monkeypatch.setenv("AIRFLOW_CONN_LEDGER_AWAY", json.dumps(address))
        monkeypatch.setenv("AIRFLOW_CONN_NOT_READ", f"apptoto://{LOGIN.replace('@', '%40')}:{KEY}/@host:{IN_TRANSIT}")
        connection(server.url, "wrong_timeout", password=KEY, timeout="x")
        connection("http://apptoto.example", "wrong_host", password=KEY)
        connection(server.url, "wrong_extra", password=KEY, timeuot=1)
        connection(server.url, "wrong_stand_in", password=KEY, redirect_email_to=f"{ADDRESS[1:]}@")
        connection(server.url, "no_ledger_here", password=KEY, state_conn_id="no_ledger")
        connection(server.url, "ledger_away_here", password=KEY, state_conn_id="ledger_away")
        connection(server.url, "refused_key", password=KEY)

        def build() -> None:
            for task_id in reasons:
                here = task_id in {"no_ledger", "ledger_away"}
                conn_id = f"{task_id}_here" if here else task_id
                send(task_id, apptoto_conn_id=conn_id)
                ApptotoSendMessageBatchOperator(
                    task_id=f"{task_id}_of_a_batch",
                    messages=[{"to": of("failing"), "message": of("text"), "type": "sms"}],
                    apptoto_conn_id=conn_id,
                )

        run_dag(build, user_defined_macros=MACROS)
    assert tracker.errors.keys() == {*reasons, *(f"{task_id}_of_a_batch" for task_id in reasons)}
    assert [
        task_id for task_id, error in tracker.errors.items() if reasons[task_id.split("_of_")[0]] not in error
    ] == []
    assert tracker.leaks() == []


def test_a_file_that_can_not_be_read_leaks_nothing(
    connection: Callable[..., None], tracker: Tracker, tmp_path: Path
) -> None:
    row = f"to,text\n{NUMBERS['other']},{TEXT}\n"
    contents = {
        "latin": f"{row}{NUMBERS['other']},M\u00fcller\n".encode("latin-1"),
        "unclosed": f'{row}{NUMBERS["other"]},"{TEXT}\n'.encode(),
        "nameless": f"{NUMBERS['other']},{TEXT},\n".encode(),
        "broken": f'{{"to": "{NUMBERS["other"]}", "text": "{TEXT}\n'.encode(),
    }

    def build() -> None:
        for name, content in contents.items():
            path = tmp_path / f"{name}.{'jsonl' if name == 'broken' else 'csv'}"
            path.write_bytes(content)
            ApptotoSendMessageBatchOperator(task_id=name, messages_path=str(path), defaults={"type": "sms"})

    connection("https://clinic.example", password=KEY)
    run_dag(build)
    assert tracker.errors.keys() == contents.keys()
    assert tracker.leaks() == []


def test_a_path_that_is_content_or_holds_credentials_is_shown_nowhere(
    connection: Callable[..., None], tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the error nor what Airflow stores and logs shows it."""

    def opened(path: ObjectStoragePath, *_: object) -> NoReturn:
        raise AirflowException(f"The conn_id {path} is not defined")

    monkeypatch.setattr(ObjectStoragePath, "open", opened)
    content = f"to,message\n{NUMBERS['other']},{TEXT}\n"
    credentials = f"reader:{KEY}/with/slashes"
    paths = {
        "content": (content, "*** must end in one of .csv"),
        "content_of_one_line": (TEXT, "*** must end in one of .csv"),
        "content_and_suffix": (f"{content}.csv", "*** is neither an absolute path nor a URI"),
        "credentials": (f"file://{credentials}@bucket/rows.csv", "file://•••@bucket/rows.csv can't be read"),
    }
    monkeypatch.setenv("PEOPLE", json.dumps({name: path for name, (path, _) in paths.items()}))
    connection("https://clinic.example", password=KEY)

    def build() -> None:
        for name in paths:
            ApptotoSendMessageBatchOperator(task_id=name, messages_path=of(name), defaults={"type": "sms"})

    run_dag(build, user_defined_macros=MACROS)
    assert [name for name, (_, reason) in paths.items() if reason not in tracker.errors[name]] == []
    assert tracker.leaks() == []
    stored = database() + log_files()
    assert [secret for secret in (KEY, "Wilhelmina", NUMBERS["other"][2:]) if secret in stored] == []
    assert "@bucket/rows.csv" in rendered()


def test_an_unexpected_error_leaks_nothing_and_keeps_its_lines_of_code(
    connection: Callable[..., None], tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:

    def payload(self: Message) -> NoReturn:
        assert self.to == NUMBERS["failing"]
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Message, "payload", payload)
    connection("https://clinic.example", password=KEY)

    def build() -> None:
        send("single")
        ApptotoSendMessageBatchOperator(
            task_id="batch", messages=[{"to": of("failing"), "message": of("text"), "type": "sms"}]
        )

    run_dag(build, user_defined_macros=MACROS)
    assert tracker.errors == dict.fromkeys(("single", "batch"), "out of memory")
    assert all("json_body=routed.payload()" in seen for seen in tracker.seen.values())
    assert tracker.leaks() == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"to": TEXT}, "is not a phone number", id="no number"),
        pytest.param({"type": "email", "to": f"{ADDRESS}@@"}, "is not a valid e-mail address", id="no address"),
        pytest.param({"type": TEXT}, "type: must be one of", id="no type"),
        pytest.param({"event_id": NUMBERS["failing"]}, "exactly one of", id="two recipients"),
        pytest.param({"to": None, "event_id": TEXT}, "must be a positive integer", id="no id"),
        pytest.param({"subject": TEXT}, "is allowed for email only", id="subject of a text message"),
        pytest.param({"message": f"{TEXT}\udcff"}, "a lone surrogate", id="not encodable"),
        pytest.param({"message": f"{TEXT} {{{{ name }}}}"}, "would be sent literally", id="template"),
        pytest.param({"to": NUMBERS["refused"]}, "HTTP 422", id="rejected"),
        pytest.param({"to": NUMBERS["unknown"]}, "HTTP 500", id="unknown"),
        pytest.param({"to": NUMBERS["busy"]}, "HTTP 503", id="not sent"),
    ],
)
def test_a_failed_call_of_the_hook_leaks_nothing(
    fields: dict[str, Any], reason: str, connection: Callable[..., None], tracker: Tracker
) -> None:
    message = {"type": "sms", "to": NUMBERS["failing"], "message": TEXT, **fields}
    with FaultServer([by_recipient]) as server:
        connection(server.url, password=KEY)
        hook = ApptotoHook()
        calls: dict[str, Callable[[], object]] = {
            "send_message": lambda: hook.send_message(**message),
            "build_message": lambda: hook.build_message(**message),
            "client": lambda: hook.get_conn().send(hook.build_message(**message)),
        }
        for name, call in calls.items():
            try:
                call()
            except Exception as error:  # noqa: BLE001  all kinds
                tracker.capture(name, error)
    assert reason in tracker.errors["send_message"]
    assert tracker.leaks() == []


def test_no_failure_of_a_decorated_task_leaks_what_its_function_got_or_returned(
    connection: Callable[..., None], tracker: Tracker
) -> None:
    row = {"to": NUMBERS["failing"], "message": TEXT}

    class Odd(dict[str, str]):
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("compared")

        __hash__ = None

    results: dict[str, Any] = {"mapping": {**row, "name": TEXT}, "list": [TEXT], "braces": f"{TEXT} {{{{ name }}}}"}
    batches: dict[str, Any] = {"text": TEXT, "invalid": [{**row, "to": "nowhere"}], "odd": Odd(row), "row": row}

    def build() -> None:
        def argument(kind: str, who: str) -> Any:
            assert who
            return {**results, **batches}[kind]

        def fails(who: str) -> Any:
            person = who
            raise KeyError(len(person))

        def yields(who: str) -> Iterator[dict[str, str]]:
            person = who
            yield {"to": NUMBERS["failing"], "message": person}
            raise OSError("the database went away")

        options: dict[str, Any] = {"type": "sms", "retries": 0}
        for kind in results:
            task.apptoto_message(task_id=kind, **options)(argument)(kind, who=of("text"))
        task.apptoto_message(task_id="fails", **options)(fails)(of("text"))
        batch: dict[str, Any] = {"defaults": {"type": "sms"}, "retries": 0}
        for kind in batches:
            task.apptoto_message_batch(task_id=f"batch_{kind}", **batch)(argument)(kind, who=of("text"))
        task.apptoto_message_batch(task_id="batch_yields", **batch)(yields)(of("text"))

    with FaultServer() as server:
        connection(server.url)
        run = run_dag(build, user_defined_macros=MACROS)
    assert {each.state for each in run.tasks} == {"failed"}
    assert server.accepted == []
    assert tracker.errors.keys() == {each.task_id for each in run.tasks}
    assert tracker.leaks() == []
