"""Events are read page by page, in constant memory, paced and retried, whatever the pages look like."""

from __future__ import annotations

import datetime as dt
import gc
import traceback
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_apptoto.client import (
    ApptotoAuthError,
    ApptotoClient,
    ApptotoError,
    ApptotoNotSentError,
    ApptotoValidationError,
    InProcessRateLimiter,
)
from tests.support.clock import Clock
from tests.support.faults import Exchange, FaultServer, answering, resetting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.faults import Script

pytestmark = pytest.mark.usefixtures("_plain_environment")


@pytest.fixture(name="_plain_environment")
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def client_of(url: str, **settings: Any) -> ApptotoClient:
    """Return a client whose waits take no time."""
    clock = settings.setdefault("clock", Clock())
    defaults: dict[str, Any] = {"rate_limiter": InProcessRateLimiter(60_000, clock)}
    return ApptotoClient(login="clinic@clinic.example", api_key="sekret-key", base_url=url, **(defaults | settings))


def event(number: int, *people: int, **fields: Any) -> dict[str, Any]:
    return {"id": number, "participants": [{"id": each, "state": "initial"} for each in people], **fields}


def paging(pages: Sequence[Sequence[Any]], *, last: Sequence[Any] = ()) -> Script:
    """Answer with these pages, and then always with the last one."""

    def script(exchange: Exchange) -> None:
        number = int(asked(exchange.request.path)["page"])
        exchange.answer(200, {"events": list(pages[number - 1] if number <= len(pages) else last)})

    return script


def asked(path: str) -> dict[str, str]:
    """Return the parameters of a request."""
    return {name: value for name, [value] in parse_qs(urlsplit(path).query, keep_blank_values=True).items()}


def ids_of(script: Script | list[Script], **parameters: Any) -> tuple[list[Any], int]:
    """Return the ids of the events that are read, and the number of requests."""
    scripts = script if isinstance(script, list) else [script]
    with FaultServer(scripts) as server, client_of(server.url) as client:
        return [each.id for each in client.iter_events(**parameters)], len(server.requests)


def test_pages_are_read_until_an_empty_one() -> None:
    assert ids_of(paging([[event(1), event(2)], [event(3)]])) == ([1, 2, 3], 3)
    assert ids_of(paging([])) == ([], 1)


def test_a_short_page_is_not_taken_for_the_last() -> None:
    """The service may cap the size of a page without saying so."""
    assert ids_of(paging([[event(1)], [event(2)], [event(3)]]), page_size=200) == ([1, 2, 3], 4)


@pytest.mark.parametrize(
    ("pages", "last", "ids", "requests"),
    [
        ([[event(1), event(2)]], [event(1), event(2)], [1, 2], 2),
        ([[event(1)], [event(2)]], [event(2)], [1, 2], 3),
        ([[event(1)], [event(2)], [event(1)], [event(2)]], [event(1)], [1, 2], 3),
        ([["odd"]], ["odd"], [], 2),
    ],
    ids=["page is ignored", "last page again", "in turns", "unreadable"],
)
def test_a_page_that_repeats_ends_the_reading(
    pages: list[list[Any]], last: list[Any], ids: list[int], requests: int, provider_log: list[str]
) -> None:
    assert ids_of(paging(pages, last=last)) == (ids, requests)
    assert any("returned the same events again" in line for line in provider_log)


def test_a_full_page_that_repeats_is_an_error_because_events_may_be_missing() -> None:
    page = [event(1), event(2)]
    with pytest.raises(ApptotoError, match="the same 2 events again as page 2; others may be missing") as raised:
        ids_of(paging([page], last=page), page_size=2)
    assert raised.value.code == "page_repeated"


@pytest.mark.parametrize(
    ("asked", "conversations", "warns"), [(True, None, True), (True, [], False), (False, None, False)]
)
def test_missing_conversations_are_told(
    provider_log: list[str], *, asked: bool, conversations: list[Any] | None, warns: bool
) -> None:
    """A wait would never see the replies."""
    people = [{"id": 10, **({} if conversations is None else {"conversations": conversations})}]
    ids_of(paging([[{"id": 1, "participants": people}]]), include_conversations=asked)
    assert any("returned no conversations" in line for line in provider_log) == warns


def test_an_event_that_slips_to_the_next_page_comes_once() -> None:
    """An event before it was created while the pages were read."""
    assert ids_of(paging([[event(1), event(2)], [event(2), event(3)]])) == ([1, 2, 3], 3)


def test_an_event_listed_twice_under_a_filter_comes_with_each_of_its_participants() -> None:
    with FaultServer([paging([[event(1, 10), event(1, 11), event(1, 10)]])]) as server, client_of(server.url) as client:
        found = [
            (each.id, [person.id for person in each.participants])
            for each in client.iter_events(phone_number="+16505550199")
        ]
    assert found == [(1, [10]), (1, [11])]


def test_entries_without_an_id_are_left_out_and_counted(provider_log: list[str]) -> None:
    page: list[Any] = [None, "text", {"title": "Visit"}, event(1), []]
    assert ids_of(paging([page])) == ([1], 2)
    assert [line for line in provider_log if "Left out 4 entries" in line]


def test_ids_may_be_texts_in_one_answer_and_numbers_in_another() -> None:
    assert ids_of(paging([[{"id": "1"}, {"id": 2}], [{"id": 3.0}, {"id": "x-4"}]]))[0] == [1, 2, 3, "x-4"]


# --- parameters

BEGIN = dt.datetime(2026, 11, 30, tzinfo=dt.timezone(dt.timedelta(hours=-8)))


def test_all_parameters_are_passed_on_and_keep_their_offset() -> None:
    with FaultServer([answering(200, {"events": []})]) as server, client_of(server.url) as client:
        list(client.iter_events())
        list(
            client.iter_events(
                BEGIN,
                "2026-12-01T00:00:00-08:00",
                phone_number="+16505550199",
                email_address="mary@clinic.example",
                include_conversations=True,
                page_size=50,
            )
        )
    plain, full = (asked(request.path) for request in server.requests)
    assert plain == {"page_size": "200", "page": "1"}
    assert full == {
        "begin": "2026-11-30T00:00:00-08:00",
        "end": "2026-12-01T00:00:00-08:00",
        "phone_number": "+16505550199",
        "email_address": "mary@clinic.example",
        "include_conversations": "true",
        "page_size": "50",
        "page": "1",
    }


def test_events_outside_the_window_are_left_out_though_the_server_returned_them() -> None:
    """The service ignores parameters that it does not know."""
    times = {
        1: "2026-11-30T07:59:59Z",
        2: "2026-11-30T08:00:00Z",
        3: "2026-12-01T08:00:00Z",
        4: "2026-12-01T00:00:01-08:00",
        5: "soon",
    }
    page = [event(number, start_time=time) for number, time in times.items()]
    assert ids_of(paging([page]), begin=BEGIN, end=BEGIN + dt.timedelta(days=1))[0] == [2, 3, 5]


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"begin": "2026-11-30T00:00"}, "begin"),
        ({"begin": dt.datetime(2026, 11, 30)}, "begin"),  # noqa: DTZ001  the point
        ({"end": "tomorrow"}, "end"),
        ({"end": ""}, "end"),
        ({"begin": BEGIN, "end": BEGIN - dt.timedelta(seconds=1)}, "end"),
        ({"page_size": 0}, "page_size"),
        ({"page_size": 1001}, "page_size"),
        ({"page_size": True}, "page_size"),
    ],
)
def test_a_wrong_parameter_is_refused_before_a_request_is_made(parameters: dict[str, Any], field: str) -> None:
    with FaultServer() as server, client_of(server.url) as client, pytest.raises(ApptotoValidationError) as raised:
        client.iter_events(**parameters)
    assert (raised.value.field, server.requests) == (field, [])


# --- faults


@pytest.mark.parametrize("fault", [answering(502, b"<h1>Bad Gateway</h1>"), answering(429), resetting(accepted=False)])
def test_a_fault_in_the_middle_is_read_over(fault: Script) -> None:
    pages = paging([[event(1)], [event(2)]])
    assert ids_of([pages, fault, fault, pages]) == ([1, 2], 5)


def test_a_lasting_fault_ends_the_reading_with_an_error() -> None:
    with (
        FaultServer([paging([[event(1)]]), answering(502)]) as server,
        client_of(server.url) as client,
        pytest.raises(ApptotoNotSentError, match="The request to Apptoto failed: HTTP 502"),
    ):
        list(client.iter_events())
    assert len(server.requests) == 4


def test_no_error_shows_the_number_or_the_address_that_was_asked_for() -> None:
    refusal = {"error": "nothing for +16505550199 and mary@clinic.example and sekret-key"}
    with (
        FaultServer([answering(422, refusal)]) as server,
        client_of(server.url) as client,
        pytest.raises(ApptotoError, match="nothing for") as raised,
    ):
        list(client.iter_events(phone_number="+16505550199", email_address="mary@clinic.example"))
    for private in ("6505550199", "mary", "sekret"):
        assert private not in str(raised.value)
        assert private not in raised.value.reason


@pytest.mark.parametrize(
    "body",
    [
        b'{"events":[{"id":1,"title":"Root canal","participants":[{"id":2,"name":"Gwendolyn"}]}',
        b'[{"id":1,"title":"Root canal","participants":[{"id":2,"name":"Gwendolyn"}]}]',
        b'{"id":1,"id":1,"title":"Root canal","participants":[{"id":2,"name":"Gwendolyn"}]}',
        b'"Gwendolyn, root canal"',
    ],
)
def test_no_error_shows_people_out_of_an_answer_that_is_cut_or_in_another_shape(body: bytes) -> None:
    with FaultServer([answering(200, body)]) as server, client_of(server.url) as client:
        for read in (client.list_events, lambda: list(client.iter_events()), lambda: client.get_event(id=1)):
            with pytest.raises(ApptotoError, match="not from Apptoto's API: HTTP 200") as raised:
                read()
            assert not any(each in f"{raised.value}{raised.value.reason}" for each in ("Gwendolyn", "canal"))


@pytest.mark.parametrize("last", [answering(502), answering(200, {"events": {"name": "Gwendolyn"}}), answering(401)])
def test_no_frame_of_an_error_holds_what_was_read(last: Script) -> None:
    """Some log handlers print the local variables of each frame."""
    page = [{"id": 1, "title": "Gwendolyn", "participants": [{"id": 2, "name": "Gwendolyn"}]}]
    with FaultServer([paging([page]), last]) as server, client_of(server.url) as client:
        with pytest.raises(ApptotoError) as raised:
            list(client.iter_events())
        with pytest.raises(ApptotoError) as second:
            client.list_events()
    for error in (raised.value, second.value):
        frames = list(traceback.walk_tb(error.__traceback__))
        held = [repr(frame.f_locals) for frame, _ in frames if "/tests/" not in frame.f_code.co_filename]
        assert not any("Gwendolyn" in each for each in held)


def test_reads_take_slots_of_the_account_like_sends() -> None:
    clock = Clock()
    limiter = InProcessRateLimiter(60, clock)
    pages = paging([[event(1)], [event(2)]])
    with FaultServer([pages]) as server, client_of(server.url, clock=clock, rate_limiter=limiter) as client:
        start = clock.now
        list(client.iter_events())
        client.list_events()
    assert clock.now - start == pytest.approx(3 * 1.02, abs=0.2)


def test_each_request_is_reported() -> None:
    statuses: list[int | None] = []
    with (
        FaultServer([answering(502), resetting(accepted=False), answering(200, {"events": []})]) as server,
        client_of(server.url, on_read=statuses.append) as client,
    ):
        list(client.iter_events())
    assert statuses == [502, None, 200]


# --- memory


def test_a_hundred_thousand_events_take_the_memory_of_some_pages() -> None:
    size = 1000

    def script(exchange: Exchange) -> None:
        first = (int(asked(exchange.request.path)["page"]) - 1) * size
        numbers = range(first, min(first + size, 100_000))
        events = ",".join(f'{{"id":{number}}}' for number in numbers)
        exchange.answer(200, f'{{"events":[{events}]}}'.encode())

    counts = []
    with FaultServer([script]) as server, client_of(server.url) as client:
        for count, _ in enumerate(client.iter_events(page_size=size), 1):
            if count % 20_000 == 0:
                gc.collect()
                counts.append(len(gc.get_objects()))
    assert (count, len(server.requests)) == (100_000, 101)
    assert len(counts) == 5
    assert max(counts) - counts[0] < 3 * size  # an event and what it was read from are three objects


# --- one event


def one(script: Script, **parameters: Any) -> tuple[Any, str]:
    with FaultServer([script]) as server, client_of(server.url) as client:
        found = client.get_event(**parameters)
    return found, server.requests[0].path


def test_one_event_is_read_by_its_id() -> None:
    found, path = one(answering(200, event(7, 70)), id=7, include_conversations=True)
    assert (found.id, path) == (7, "/v1/event?id=7&include_conversations=true")
    assert one(answering(200, {"id": "7"}), id="7")[0].id == 7
    found, path = one(answering(200, {"id": 7, "external_id": "visit 7"}), external_id="visit 7")
    assert (found.id, path) == (7, "/v1/event?external_id=visit+7")


@pytest.mark.parametrize(
    "script",
    [answering(404, b"no"), answering(410), answering(204), answering(200, b"null"), answering(200, {})],
    ids=["404", "410", "204", "null", "empty"],
)
def test_an_event_that_is_not_there_is_none(script: Script) -> None:
    assert one(script, id=7)[0] is None


@pytest.mark.parametrize(
    ("script", "kind", "says"),
    [
        (answering(401), ApptotoAuthError, "login or API key"),
        (answering(403, {"error": "insufficient_scope"}), ApptotoAuthError, "insufficient_scope"),
        (answering(200, b"<html>Welcome</html>"), ApptotoError, "not from Apptoto's API"),
        (answering(200, b"[]"), ApptotoError, "not from Apptoto's API"),
        (answering(200, {"title": "Visit"}), ApptotoError, "not from Apptoto's API"),
        (answering(200, event(8)), ApptotoError, "another event"),
        (answering(500), ApptotoNotSentError, "HTTP 500"),
    ],
    ids=["401", "403", "HTML", "list", "no id", "another", "500"],
)
def test_an_answer_that_is_not_this_event_is_an_error(script: Script, kind: type[ApptotoError], says: str) -> None:
    with pytest.raises(kind, match=says):
        one(script, id=7)


@pytest.mark.parametrize("parameters", [{}, {"id": 7, "external_id": "x"}, {"external_id": " "}, {"id": ""}], ids=repr)
def test_exactly_one_id_is_needed(parameters: dict[str, Any]) -> None:
    with (
        FaultServer() as server,
        client_of(server.url) as client,
        pytest.raises(ApptotoValidationError, match="one of"),
    ):
        client.get_event(**parameters)
    assert server.requests == []
