"""The view of appointments follows the sandbox, and lets its clients answer, in Chromium."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.sandbox import Sandbox
from tests.support.sandbox_caller import Caller, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")

ATTACK = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
NINE = "2026-12-01T09:00:00-08:00"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def open_page(browser: Any, sandbox: Sandbox) -> Iterator[Any]:
    """Provide a function that opens the view, which must not log an error that is not expected."""
    contexts, errors = [], []

    def opened(width: int = 1280, path: str = "/#appointments") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 800}, locale="en-US")
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(sandbox.url + path)
        shows(page, "#live", "Live")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [error for error in errors if "status of 400" not in error] == []


def shows(page: Any, selector: str, text: str) -> None:
    """Wait until an element has this text."""
    playwright.expect(page.locator(selector)).to_have_text(text, timeout=20_000)


def contains(page: Any, selector: str, text: str) -> None:
    """Wait until an element contains this text."""
    playwright.expect(page.locator(selector)).to_contain_text(text, timeout=20_000)


def test_an_empty_view_offers_a_clinics_day(open_page: Any, sandbox: Sandbox) -> None:
    page = open_page()
    shows(page, "#appointment-count", "0 appointments")
    page.click("#add-clinic-day")

    shows(page, "#appointment-count", "40 appointments")
    shows(page, "#appointments-total", "40")
    assert page.locator(".people button").count() == 40
    contains(page, ".people button >> nth=0", "Ana Lopez")
    contains(page, ".people button >> nth=0", "08:00")
    page.click("#delete-appointments")
    page.click("#delete-appointments")
    shows(page, "#appointment-count", "0 appointments")
    assert sandbox.appointments.database.number("SELECT count(*) FROM events") == 0


def test_a_click_answers_for_the_client_and_the_conversation_follows(open_page: Any, sandbox: Sandbox) -> None:
    visit = sandbox.appointments.add("Ana", "650-555-0141", start_time=NINE)
    page = open_page()
    page.click(".people button")
    contains(page, "#person", "Nothing was sent yet.")
    with Caller(sandbox) as caller:
        caller.send({"type": "sms", "event_id": visit.event_id, "message": "Hi {{ name }}"})
    shows(page, ".talk .sent .bubble", "Hi Ana")

    for button, state in (
        ("Confirm", "confirmed"),
        ("Cancel", "not_coming"),
        ("Reschedule", "not_coming_needs_reschedule"),
    ):
        page.click(f".answers >> text={button}")
        shows(page, ".people .state", state.replace("_", " "))
        assert sandbox.appointments.participant(visit)["state"] == state
    page.fill(".said-form input", "Is there parking?")
    page.click(".said-form button")
    shows(page, ".talk .replied:last-child .bubble", "Is there parking?")
    assert page.input_value(".said-form input") == ""
    page.click(".answers >> text=STOP")
    contains(page, "#person header", "opted out: SMS")
    page.click(".answers >> text=Report as failed")
    contains(page, ".talk .failed .when", "failed: The carrier could not deliver the message.")
    contents = [message["content"] for message in sandbox.appointments.conversation(visit)]
    assert contents == ["Hi Ana", "YES", "NO", "RESCHEDULE", "Is there parking?", "STOP"]


def test_what_is_not_possible_is_said(open_page: Any, sandbox: Sandbox) -> None:
    sandbox.appointments.add("Ana", "650-555-0141")
    page = open_page()
    page.click(".people button")
    page.click(".answers >> text=Report as failed")

    shows(page, "#person .note", "No message to this participant can fail: none was sent.")
    page.click(".answers >> text=Confirm")
    playwright.expect(page.locator("#person .note")).to_be_hidden()


def test_what_happens_elsewhere_appears_and_a_reply_that_is_being_written_stays(
    open_page: Any, sandbox: Sandbox
) -> None:
    visit = sandbox.appointments.add("Ana", "650-555-0141", start_time=NINE)
    page = open_page()
    page.click(".people button")
    page.fill(".said-form input", "half a sen")
    sandbox.appointments.confirm(visit)
    sandbox.appointments.add("Ben", "650-555-0142", start_time="2026-12-02T09:00:00-08:00")

    shows(page, "#appointment-count", "2 appointments")
    shows(page, "#person header .tag", "confirmed")
    assert page.input_value(".said-form input") == "half a sen"
    assert page.evaluate("document.activeElement.name") == "reply"
    assert page.locator(".people .day").all_inner_texts() == [
        "Tuesday, December 1, 2026",
        "Wednesday, December 2, 2026",
    ]
    sandbox.appointments.delete(visit)
    shows(page, "#appointment-count", "1 appointment")


def test_search_and_state_filter_the_list(open_page: Any, sandbox: Sandbox) -> None:
    sandbox.appointments.confirm(sandbox.appointments.add("Ana", "650-555-0141"))
    sandbox.appointments.add("Ben", "650-555-0142")
    page = open_page()
    page.keyboard.press("/")
    page.keyboard.type("ben")
    shows(page, "#appointment-count", "1 appointment")
    shows(page, ".people .who", "Ben")
    page.fill("#appointment-filters input", "")
    shows(page, "#appointment-count", "2 appointments")
    page.select_option("#appointment-filters select", "confirmed")
    shows(page, "#appointment-count", "1 appointment")
    shows(page, ".people .who", "Ana")
    page.fill("#appointment-filters input", "nobody")
    shows(page, "#no-appointments-title", "No appointment matches")
    playwright.expect(page.locator("#add-clinic-day")).to_be_hidden()


def test_nothing_that_was_sent_becomes_a_part_of_the_page(open_page: Any, sandbox: Sandbox) -> None:
    visit = sandbox.appointments.add(
        ATTACK, "650-555-0141", ATTACK, title=ATTACK, calendar=ATTACK, location=ATTACK, external_id=ATTACK
    )
    sandbox.appointments.reply(visit, ATTACK)
    page = open_page()
    page.click(".people button")

    shows(page, ".talk .bubble", ATTACK)
    assert page.locator("img").count() == 0
    assert page.title() == "Appointments · Apptoto sandbox"


def test_the_views_are_links_and_keys_act_on_the_view_that_shows(open_page: Any, sandbox: Sandbox) -> None:
    visit = sandbox.appointments.add("Ana", "650-555-0141")
    with Caller(sandbox) as caller:
        caller.send({"type": "sms", "event_id": visit.event_id, "message": "Hi {{ name }}{{ nmae }}"})
    page = open_page(path="/")
    page.click(".row")
    contains(page, "#detail h2", "Ana, +16505550141")
    contains(page, "#detail", "Hi {{ name }}{{ nmae }}")
    shows(page, ".row .tag.fault", "Has gaps")
    contains(page, "#detail .note", "these fields do not exist: nmae")
    page.click(".views >> text=Appointments")
    playwright.expect(page.locator("#messages-view")).to_be_hidden()
    page.keyboard.press("Delete")
    page.keyboard.press("Escape")
    page.wait_for_timeout(300)
    assert len(sandbox.messages()) == 1
    page.go_back()
    playwright.expect(page.locator("#appointments-view")).to_be_hidden()
    page.keyboard.press("Delete")
    wait_until(lambda: sandbox.messages() == [])


def test_a_phone_shows_one_thing_at_a_time(open_page: Any, sandbox: Sandbox) -> None:
    sandbox.appointments.add_clinic_day()
    page = open_page(width=375)
    shows(page, "#appointment-count", "40 appointments")
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    page.click(".people button >> nth=2")
    contains(page, "#person h2", "Chloe Dubois")
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    page.click("#person .back")
    playwright.expect(page.locator("#person")).to_be_hidden()
    assert page.evaluate("document.activeElement.innerText").startswith("08:30")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.innerText").startswith("08:45")
