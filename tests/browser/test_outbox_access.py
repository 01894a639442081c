"""The outbox page is usable by keyboard, on a phone and in the dark, and safe against other sites and in failures."""

from __future__ import annotations

import http.server
import re
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import expect
from tests.support.outbox_page import Visit, message
from tests.support.sandbox_caller import wait_until
from tests.support.standalone import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

    from tests.support.outbox_page import OutboxPage
    from tests.support.outbox_server import OutboxServer

pytest.importorskip("airflow.api_fastapi.core_api.security", reason="the page needs Airflow 3.1 or newer")

ATTACK = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
NAME = """each => each.getAttribute("aria-label") || each.labels?.[0]?.innerText || each.textContent"""
# Playwright waits for a script's result, which a page that is left does not have.
ATTACKS = {
    "form": """url => { const form = document.createElement("form"); form.method = "POST"; form.action = url;
        form.enctype = "text/plain"; const field = document.createElement("input"); field.name = '{"text": "1", "x": "';
        field.value = '"}'; form.append(field); document.body.append(form); setTimeout(() => form.submit()); }""",
    "fetch": """url => void fetch(url, {method: "POST", mode: "no-cors", credentials: "include",
        headers: {"Content-Type": "text/plain"}, body: BODY}).catch(() => null)""",
    "JSON": """url => void fetch(url, {method: "POST", credentials: "include",
        headers: {"Content-Type": "application/json"}, body: BODY}).catch(() => null)""",
}


def test_who_is_not_logged_in_sees_nothing_and_gets_to_the_login(browser: Browser, server: OutboxServer) -> None:
    server.fill([message(1, "unknown")])
    with Visit(browser, server, None) as visit, visit.page() as page:
        page.page.goto(f"{server.url}/apptoto/outbox")
        expect(page.page.get_by_text("You are not logged in to Airflow")).to_be_visible()
        expect(page.page.get_by_role("link", name="Log in")).to_have_attribute("href", f"{server.base}/")
        expect(page.page.get_by_role("table")).to_have_count(0)

        page.page.goto(f"{server.url}/apptoto/go?dag=clinic_reminders")
        page.page.get_by_label("Username").fill("ann")
        page.page.get_by_label("Password").fill("ann")
        page.page.get_by_role("button", name="Sign in").click()
        page.is_in_airflow()
        page.shows(1)
        expect(page.field("DAG")).to_have_value("clinic_reminders")


def test_a_session_that_is_over_is_said_and_nothing_is_lost(browser: Browser, server: OutboxServer) -> None:
    server.fill([message(1, "unknown")])
    with Visit(browser, server, "ann") as visit, visit.page() as page:
        page.open()
        page.select(1, table="Open cases")
        page.button("It was sent").click()
        dialog = page.frame.get_by_role("dialog")
        dialog.get_by_label("Note").fill("in the conversation")
        visit.log_in(server.token("ann", "/cli"))
        time.sleep(1.5)
        page.button("Record as sent").click()
        expect(dialog.get_by_role("alert")).to_contain_text("your session is over")
        assert server.states() == {"ref-1": "unknown"}

        visit.log_in(server.token("ann"))  # as in another tab
        page.button("Record as sent").click()
        expect(page.frame.get_by_text("There are no open cases.")).to_be_visible()
        assert server.states() == {"ref-1": "sent"}


def test_a_viewer_reads_and_can_select_nothing(browser: Browser, server: OutboxServer) -> None:
    server.fill([message(1, "unknown")])
    with Visit(browser, server, "vic") as visit, visit.page() as page:
        page.open()
        page.shows(1)
        for box in page.frame.get_by_role("checkbox").all():
            expect(box).to_be_disabled()


def test_a_database_that_is_down_is_said_without_its_address(page: OutboxPage, server: OutboxServer) -> None:
    [port] = free_ports(1)
    server.set_state_connection(conn_type="postgres", host="127.0.0.1", port=port)
    try:
        page.open_in_airflow()
        problem = "The state database of connection 'apptoto_default' can't be used now."
        expect(page.frame.get_by_text(problem)).to_have_count(2)
        expect(page.frame.get_by_text(re.compile("no open cases|No message"))).to_have_count(0)
        assert str(port) not in page.frame.locator("body").inner_text()
    finally:
        server.restore_state_connection()
    server.fill([message(1)])
    page.button("Refresh").click()
    page.shows(1)
    expect(page.frame.get_by_text(problem)).to_have_count(0)


@pytest.fixture(scope="module")
def other_port() -> Iterator[int]:
    """Serve an empty page of an attacker."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>Other</title><body>")

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["other port", "other site"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_page_of_another_site_changes_nothing(
    browser: Browser, server: OutboxServer, other_port: int, host: str, attack: str
) -> None:
    server.fill([message(1, "unknown")])
    body = f'{{"keys": ["{1:032x}"], "note": "n", "outcome": "sent"}}'
    with Visit(browser, server, "ann") as visit, visit.page() as page:
        page.page.goto(f"http://{host}:{other_port}/")
        path = f"path={server.base}/apptoto/api/dags/clinic_reminders/resolve "
        before = server.log.count(path)
        page.page.evaluate(
            ATTACKS[attack].replace("BODY", repr(body)), f"{server.url}/apptoto/api/dags/clinic_reminders/resolve"
        )
        wait_until(lambda: server.log.count(path) > before)
        if attack == "form":  # to close a tab that is on its way to another page can hang
            page.page.wait_for_url(f"{server.url}/apptoto/api/**")
        [asked] = [line for line in server.log.splitlines() if path in line][before:]
        # the browser asks whether it may send JSON, and then does not
        method, status = ("OPTIONS", 405) if attack == "JSON" else ("POST", 403)
        assert f"method={method} " in asked
        assert f"status_code={status}" in asked
        assert server.states() == {"ref-1": "unknown"}


def test_no_other_site_can_frame_the_page(browser: Browser, server: OutboxServer, other_port: int) -> None:
    with Visit(browser, server, "ann") as visit:
        page = visit.context.new_page()
        page.goto(f"http://127.0.0.1:{other_port}/")
        refused: list[str] = []
        page.on("console", lambda line: refused.append(line.text))
        page.evaluate(
            "url => { const frame = document.createElement('iframe'); frame.src = url; document.body.append(frame); }",
            f"{server.url}/apptoto/outbox",
        )
        page.wait_for_timeout(1000)
        assert any("frame-ancestors" in line for line in refused)


def test_nothing_that_was_stored_becomes_a_part_of_the_page(page: OutboxPage, server: OutboxServer) -> None:
    texts = {"reference": ATTACK, "reason": ATTACK, "target": ATTACK, "run_id": ATTACK, "task_id": ATTACK}
    server.fill([message(1, "unknown", labels={ATTACK: ATTACK}, **texts)])
    page.open()
    page.rows("Open cases").get_by_role("checkbox").check()
    page.confirm("It was sent", "Record as sent", ATTACK)
    expect(page.frame.get_by_text("Recorded as sent: 1 message.")).to_be_visible()
    page.rows().get_by_role("button").click()
    expect(page.frame.get_by_role("dialog", name="Message")).to_contain_text(ATTACK)

    assert page.page.title() == "Apptoto outbox"
    assert page.page.locator("img").count() == 0
    assert page.page.locator("script").count() == 1
    assert page.rows().inner_text().count(ATTACK) >= 4


def test_a_case_is_resolved_by_keyboard_alone(page: OutboxPage, server: OutboxServer) -> None:
    server.fill([message(1, "unknown")])
    page.open_in_airflow()
    press = page.page.keyboard.press
    page.button("Refresh").focus()
    press("Tab")
    expect(page.frame.get_by_role("checkbox", name="Select all: Open cases")).to_be_focused()
    press("Tab")
    box = page.frame.get_by_role("checkbox", name="Select sms to +1•••0001, reference ref-1").first
    expect(box).to_be_focused()
    press("Space")
    expect(box).to_be_checked()
    expect(box).to_be_focused()
    for _ in range(60):
        if page.button("It was sent").evaluate("each => each === document.activeElement"):
            break
        press("Tab")
    press("Enter")
    expect(page.frame.get_by_role("dialog").get_by_label("Note")).to_be_focused()
    page.page.keyboard.type("it is in the conversation")
    press("Enter")
    expect(page.frame.get_by_text("There are no open cases.")).to_be_visible()
    assert server.states() == {"ref-1": "sent"}
    expect(page.frame.locator(":focus")).to_contain_text("Recorded as sent: 1 message.")  # a screen reader says so
    press("Tab")
    expect(page.frame.get_by_role("link", name="clinic_reminders.remind").first).to_be_focused()


def test_all_that_can_be_operated_has_a_name(page: OutboxPage, server: OutboxServer) -> None:
    server.fill([message(1, "unknown", recipient=server.hash_of("+16505550101"))])
    page.open()
    page.select(1)
    page.button("Opt out").click()
    for each in page.page.locator("button, a, input, select, table, dialog, [role=region]").all():
        name = each.evaluate(NAME)
        assert name.strip(), each.evaluate("each => each.outerHTML")
    dialog = page.page.get_by_role("dialog", name="Opt out", exact=True)
    expect(dialog.get_by_role("textbox", name="List", exact=True)).to_be_visible()
    expect(dialog.get_by_role("button", name="Cancel", exact=True)).to_be_visible()


def test_the_theme_is_that_of_airflow_whatever_the_system_has(browser: Browser, server: OutboxServer) -> None:
    with Visit(browser, server, "ann", color_scheme="dark") as visit, visit.page() as page:
        page.open_in_airflow()
        html = page.frame.locator("html")
        expect(html).to_have_attribute("data-theme", "dark")
        expect(page.frame.locator("body")).to_have_css("background-color", "rgb(17, 20, 24)")
        page.page.get_by_role("button", name="User").click()
        page.page.get_by_role("menuitem", name="Appearance").click()
        page.page.get_by_role("menuitemradio", name="Light Mode").click()
        expect(html).to_have_attribute("data-theme", "light")
        expect(page.frame.locator("body")).to_have_css("background-color", "rgb(255, 255, 255)")


def test_on_a_phone_nothing_is_cut_off(browser: Browser, server: OutboxServer) -> None:
    server.fill(
        [message(1, "unknown", reference="ref-1" + "x" * 300), message(2, task_id="t" * 200, reason="no" * 200)]
    )
    phone = {"width": 375, "height": 700}
    with Visit(browser, server, "ann", viewport=phone) as visit, visit.page() as page:
        page.open()
        expect(page.rows()).to_have_count(2)
        page.rows("Open cases").get_by_role("checkbox").check()
        assert page.page.evaluate("document.documentElement.scrollWidth") <= phone["width"]
        page.button("It was sent").click()
        assert page.page.evaluate("document.documentElement.scrollWidth") <= phone["width"]
        dialog = page.frame.get_by_role("dialog").bounding_box()
        assert dialog is not None
        assert dialog["x"] >= 0
        assert dialog["x"] + dialog["width"] <= phone["width"]
        for name in ("Cancel", "Record as sent"):
            expect(page.button(name)).to_be_in_viewport()
