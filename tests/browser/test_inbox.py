"""The inbox page follows the sandbox, finds and deletes messages, and shows no text as HTML, in Chromium."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_apptoto.client.settings import SENDER_HEADER
from airflow_provider_apptoto.sandbox import Sandbox
from tests.support.browser import expect
from tests.support.sandbox_caller import SMS, Caller, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ATTACK = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def caller(sandbox: Sandbox) -> Iterator[Caller]:
    with Caller(sandbox) as caller:
        yield caller


@pytest.fixture
def page(browser: Any, sandbox: Sandbox) -> Iterator[Any]:
    """Provide the inbox page, which must not log an error."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(sandbox.url)
    shows(page, "#live", "Live")
    yield page
    context.close()
    assert errors == []


def shows(page: Any, selector: str, text: str) -> None:
    """Wait until an element has this text."""
    expect(page.locator(selector)).to_have_text(text)


def send(caller: Caller, *, dag_id: str = "remind", **fields: object) -> int:
    headers = {SENDER_HEADER: json.dumps({"dag_id": dag_id, "run_id": "run 1", "task_id": "text", "try_number": 2})}
    return caller.send({**SMS, **fields}, headers=headers).status_code


def listed(page: Any) -> list[str]:
    """Return the texts of the visible rows, in their order on the screen."""
    rows = page.locator(".row:visible").all()
    return [row.locator(".what bdi").inner_text() for row in sorted(rows, key=lambda row: row.bounding_box()["y"])]


def test_messages_appear_as_they_arrive_newest_first(page: Any, caller: Caller) -> None:
    shows(page, "#count", "0 messages")
    assert page.is_visible("text=airflow connections add")
    for number in range(3):
        send(caller, message=f"number {number}")

    shows(page, "#count", "3 messages")
    assert listed(page) == ["number 2", "number 1", "number 0"]
    assert not page.is_visible("text=airflow connections add")


def test_nothing_that_was_sent_becomes_a_part_of_the_page(page: Any, caller: Caller) -> None:
    sent = {"type": "email", "to": ATTACK, "subject": ATTACK, "message": ATTACK, "template_id": ATTACK}
    send(caller, dag_id=ATTACK, **sent)
    caller.send({**sent, "type": ATTACK})
    caller.call("POST", "/sandbox/faults", json={"status": 429, "retry_after": ATTACK[:20]})
    shows(page, "#count", "2 messages")
    for number in range(2):
        page.locator(".row:visible").nth(number).click()
        expect(page.locator("#detail h2")).to_have_text(ATTACK)

    assert page.title() == "Inbox (2) · Apptoto sandbox"
    assert page.locator("img, iframe, object").count() == 0
    assert page.locator("script").count() == 2  # the files of the page


def test_a_text_message_is_shown_with_its_segments_and_sender(page: Any, caller: Caller) -> None:
    send(caller, message="x" * 66 + "\u2019 and more")
    page.locator(".row").click()

    shows(page, ".phone .bubble", "x" * 66 + "\u2019Segment 2 and more")
    shows(page, ".phone + p", "2 segments, UCS-2 because of \u2019, 76 units (estimate)")
    facts = page.locator("#detail dl").inner_text()
    assert all(text in facts for text in ("remind", "run 1", "text", "2", "Accepted, status 200"))


def test_a_message_that_was_refused_or_got_a_fault_says_why(page: Any, sandbox: Sandbox, caller: Caller) -> None:
    send(caller, type="fax")
    sandbox.fault(kind="html", accepted=True)
    send(caller)
    shows(page, "#count", "2 messages")
    page.get_by_role("option").filter(has_text="Refused 400").click()
    shows(page, ".note", 'type must be "sms", "call" or "email". The recipient did not get the message.')
    page.get_by_role("option").filter(has_text="Fault 200, stored").click()
    shows(
        page,
        ".note",
        "Simulated fault: status 200 with an HTML page. The recipient got the message, but the sender can't know.",
    )


def test_filters_and_search_choose_and_clear_deletes_what_they_show(
    page: Any, sandbox: Sandbox, caller: Caller
) -> None:
    send(caller, message="first")
    send(caller, message="second", dag_id="results")
    send(caller, message="third", type="call")
    send(caller, message="fourth", type="fax")
    shows(page, "#count", "4 messages")
    page.select_option("[name=type]", "sms")
    shows(page, "#count", "2 messages")
    page.select_option("[name=dag_id]", "results")
    shows(page, "#count", "1 message")
    assert listed(page) == ["second"]
    page.select_option("[name=type]", "")
    page.select_option("[name=dag_id]", "")
    page.select_option("[name=outcome]", "refused")
    shows(page, "#count", "1 message")
    page.select_option("[name=outcome]", "any")
    shows(page, "#count", "4 messages")
    page.keyboard.press("Escape")
    page.locator("#list").focus()
    page.keyboard.press("/")
    page.keyboard.type("THI")
    shows(page, "#count", "1 message")
    assert listed(page) == ["third"]

    page.click("#clear")
    shows(page, "#clear", "Delete 1 message?")
    assert len(sandbox.messages(outcome="any")) == 4
    page.click("#clear")
    shows(page, "#empty-title", "No message matches")
    assert [entry["message"] for entry in sandbox.messages(outcome="any")] == ["first", "second", "fourth"]


def test_keys_choose_open_and_delete(page: Any, sandbox: Sandbox, caller: Caller) -> None:
    for number in range(4):
        send(caller, message=f"number {number}")
    shows(page, "#count", "4 messages")
    page.locator("#list").focus()
    for keys, text in (("ArrowDown", "number 3"), ("ArrowDown", "number 2"), ("End", "number 0"), ("Home", "number 3")):
        page.keyboard.press(keys)
        shows(page, ".phone .bubble", text)
    assert page.locator("[aria-selected=true]").get_attribute("id") == page.locator("#list").get_attribute(
        "aria-activedescendant"
    )
    page.keyboard.press("Enter")
    expect(page.locator("#detail h2")).to_be_focused()
    page.keyboard.press("Delete")
    shows(page, "#count", "3 messages")
    shows(page, ".phone .bubble", "number 2")
    page.keyboard.press("Escape")
    shows(page, "#detail", "Choose a message to read it.")
    assert [entry["message"] for entry in sandbox.messages()] == ["number 0", "number 1", "number 2"]


def test_a_fault_is_one_click(page: Any, sandbox: Sandbox, caller: Caller) -> None:
    page.click("#faults-button")
    page.get_by_role("button", name="503", exact=True).click()
    shows(page, "#active-faults", "For the next request: status 503. The message is not stored.")
    assert send(caller) == 503
    shows(page, "#no-faults", "No fault is active.")
    expect(page.locator("#no-faults")).to_be_visible()
    sandbox.fault(status=500, times=3)
    page.click("#clear-faults")
    wait_until(lambda: caller.faults() == [])


def test_the_connection_is_copied(page: Any, sandbox: Sandbox) -> None:
    page.click("#copy")
    shows(page, "#copy", "Copied")
    assert page.evaluate("navigator.clipboard.readText()") == sandbox.connection_command()


def test_ten_thousand_messages_are_a_few_elements_and_stay_in_order(browser: Any) -> None:
    with Sandbox(keep=10_000) as sandbox, Caller(sandbox) as caller:
        for number in range(10_000):
            sandbox._running.inbox.add({**SMS, "message": f"number {number}"})
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(sandbox.url)
        shows(page, "#count", "10000 messages")
        page.locator("#list").focus()
        page.keyboard.press("End")
        shows(page, ".phone .bubble", "number 0")
        assert page.evaluate("document.querySelectorAll('*').length") < 500
        assert page.evaluate("items.every((entry, index) => index === 0 || entry.id === items[index - 1].id - 1)")

        # What somebody reads stays where it is when messages arrive.
        page.evaluate("list.scrollTop = 5000 * ROW")
        middle = page.locator("#message-5000")
        expect(middle).to_be_visible()
        before = middle.bounding_box()
        send(caller)
        wait_until(lambda: bool(page.evaluate("items[0].id") == 10_001))
        assert middle.bounding_box() == before
        shows(page, "#count", "10000 messages")
        page.close()


def test_a_restart_is_noticed(browser: Any) -> None:
    first = Sandbox()
    first.start()
    port = int(first.url.rpartition(":")[2])
    page = browser.new_page()
    page.goto(first.url)
    with Caller(first) as caller:
        send(caller)
    page.locator(".row").click()
    shows(page, ".phone .bubble", SMS["message"])
    first.stop()
    shows(page, "#live", "The sandbox is not running")
    with Sandbox(port=port) as second, Caller(second) as caller:
        shows(page, "#live", "Live")
        shows(page, "#count", "0 messages")
        send(caller, message="again")
        shows(page, "#count", "1 message")
        assert listed(page) == ["again"]
        shows(page, "#detail", "Choose a message to read it.")
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_a_message_covers_the_list_until_back(browser: Any, scheme: str) -> None:
    with Sandbox() as sandbox, Caller(sandbox) as caller:
        context = browser.new_context(viewport={"width": 375, "height": 700}, color_scheme=scheme)
        page = context.new_page()
        page.goto(sandbox.url)
        send(caller, message="word " * 200, to="a" * 300)
        shows(page, "#count", "1 message")
        page.locator(".row").click()
        expect(page.locator("#detail h2")).to_be_focused()
        assert page.locator("#detail").bounding_box() == {"x": 0, "y": 0, "width": 375, "height": 700}
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        page.get_by_role("button", name="Back").click()
        expect(page.locator("#detail")).to_be_hidden()
        expect(page.locator("#list")).to_be_focused()
        context.close()
