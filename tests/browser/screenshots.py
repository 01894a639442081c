"""Make the pictures of the documentation: ``python -m tests.browser.screenshots``.

People, messages and times are invented and fixed, so that a picture changes only if a page does.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import airflow_home

airflow_home.set_up()

from airflow_provider_apptoto.sandbox import Sandbox  # noqa: E402  the home comes first
from tests.support.browser import PATIENCE, chromium, expect  # noqa: E402
from tests.support.outbox_page import OutboxPage, Visit, message  # noqa: E402
from tests.support.outbox_server import serving  # noqa: E402
from tests.support.standalone import call, standalone, wait_for  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Locator, Page, Route, ViewportSize

    from airflow_provider_apptoto.outbox.entry import Entry

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "_static"
MAX_SIZE = 150_000
"""Bytes per picture."""
DESKTOP: ViewportSize = {"width": 1100, "height": 670}
PHONE: ViewportSize = {"width": 375, "height": 760}
LOOKS: tuple[tuple[str, str], ...] = (("light", ""), ("dark", ""), ("light", "-phone"), ("dark", "-phone"))
NOON = "2026-11-29T12:00:00Z"
AT_NOON = "UPDATE inbox SET received_at = strftime('%Y-%m-%dT%H:%M:%S.000+00:00', ?, (id * 17 - 1800) || ' seconds')"
CLOSED = "connection closed before the answer"
RUN = "scheduled__2026-11-29T08:00:00+00:00"
FIRST_RUN = RUN.replace("scheduled", "manual")
MEASURED = (
    (r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d+(Z|\+00:00)", NOON),
    (r'"duration":\s*[\d.]+', '"duration": 1.2'),
    (r"\d+ ms", "132 ms"),
)
"""What differs from run to run in the answers of Airflow, and what the pictures show instead."""


def outbox_entries() -> list[Entry]:
    """Return a morning's messages: reminders of two clinics, and results of a laboratory."""
    found = []
    for number in range(24):
        fields: dict[str, Any] = {
            "reference": f"A-{20418 - 7 * number}",
            "target": f"+1•••{(4127 + 2311 * number) % 10000:04d}",
            "run_id": RUN,
            "map_index": 23 - number,
            "http_status": 200,
            "account": "c•••@•••.example",
            "labels": {"clinic": ("north", "south")[number % 2]},
            "segments": 1 + number % 2,
        }
        state = "sent"
        if number in {2, 9}:
            state, fields["http_status"], fields["reason"] = "unknown", None, CLOSED
        elif number == 4:
            fields |= {"channel": "email", "target": "m•••@•••.example", "segments": None}
        elif number == 6:
            state, fields["http_status"], fields["reason"] = "rejected", 400, "to is not a valid phone number"
        elif number % 5 == 3:
            fields |= {"dag_id": "lab_results", "map_index": -1, "reference": f"L-{991 - number}", "channel": "call"}
        found.append(message(number, state, **fields))
    return found


def fill(sandbox: Sandbox) -> None:
    """Put a morning's requests into an inbox."""
    at = 0

    def add(type: str, to: str, text: str, *, dag_id: str = "clinic_reminders", **more: Any) -> None:
        nonlocal at
        at += 1
        sender: dict[str, Any] = {"dag_id": dag_id, "run_id": RUN, "task_id": "remind"}
        sender |= {"map_index": at, "try_number": 1}
        fields = {"type": type, "to": to, "message": text, "subject": more.pop("subject", None)}
        sandbox._running.inbox.add(fields, sender=sender, **more)

    for number, (name, time) in enumerate([("Liam", "09:30"), ("Noor", "10:00"), ("Mary", "10:15")]):
        text = f"Hi {name}, your visit at North Clinic is tomorrow at {time}. Reply YES to confirm."
        add("sms", f"+1650555{(1127 + 311 * number):04d}", text)
    add("call", "+16505550177", "Hello, this is North Clinic. Your visit is tomorrow at ten thirty.")
    add(
        *(
            "email",
            "ana@example.com",
            "Dear Ana,\n\nyour results of 22 November are in. Please call us.\n\nNorth Clinic",
        ),
        dag_id="lab_results",
        subject="Your results are in",
    )
    error = 'type must be "sms", "call" or "email"'
    add("fax", "+16505550123", "Your visit is tomorrow.", outcome="refused", delivered=False, status=400, error=error)
    fault = "status 503"
    add("sms", "+16505550124", "Time for your flu shot.", outcome="fault", delivered=False, status=503, error=fault)
    text = (
        "Hi Zoë, your visit with Dr. O\u2019Neill is tomorrow, 30 November, at 10:30. "
        "Please bring your insurance card. Reply YES to confirm."
    )
    add("sms", "+16505550199", text)


def save(page: Page, name: str, part: Locator | None = None) -> None:
    """Save what a page shows, or a part of it."""
    page.evaluate("document.fonts.ready")
    page.wait_for_timeout(400)  # the last transition
    path = FOLDER / f"{name}.png"
    (part or page).screenshot(path=path, animations="disabled", caret="hide")
    size = path.stat().st_size
    sys.stdout.write(f"{path.relative_to(Path.cwd())}: {size // 1000} kB\n")
    assert size < MAX_SIZE


def take_outbox(browser: Browser) -> None:
    """Take pictures of the outbox page."""
    with tempfile.TemporaryDirectory() as home, serving(Path(home)) as server:
        server.fill(outbox_entries())
        for theme, size in LOOKS:
            options: dict[str, Any] = {"color_scheme": theme, "timezone_id": "UTC"}
            options["viewport"] = PHONE if size else {**DESKTOP, "height": 790}
            with Visit(browser, server, "ann", **options) as visit, visit.page() as page:
                (page.open if size else page.open_in_airflow)()
                save(page.page, f"outbox-{theme}{size}")
                if (theme, size) == ("light", ""):
                    take_resolution(page)


def take_resolution(page: OutboxPage) -> None:
    """Take a picture of the confirmation."""
    page.frame.get_by_role("checkbox", name="Select all: Open cases").check()
    page.button("It was sent").click()
    page.frame.get_by_role("dialog").get_by_label("Note").fill("Both are in the conversation in Apptoto")
    page.page.set_viewport_size({"width": 1100, "height": 700})
    save(page.page, "outbox-resolve")
    page.button("Cancel").click()


@contextmanager
def message_of(browser: Browser, sandbox: Sandbox, name: str, theme: str, viewport: ViewportSize) -> Iterator[Page]:
    """Open the inbox at noon, and in it the message to a person."""
    inbox = sandbox._running.inbox
    with inbox._lock:
        inbox._connection.execute(AT_NOON, [NOON.removesuffix("Z")])
    options: dict[str, Any] = {"color_scheme": theme, "timezone_id": "UTC", "locale": "en-GB"}
    context = browser.new_context(viewport=viewport, **options)
    page = context.new_page()
    page.clock.set_fixed_time(NOON)
    page.goto(sandbox.url)
    page.locator(".row").filter(has_text=name).click()
    expect(page.locator(".phone .bubble")).to_be_visible()
    yield page
    context.close()


def take_first(browser: Browser) -> None:
    """Take pictures of the inbox after the first DAG of the quick start."""
    with Sandbox(port=8025) as sandbox:
        sender = {"dag_id": "first_message", "run_id": FIRST_RUN, "task_id": "text_mary"}
        text = "Hi Mary, your results are in. Please call us."
        fields = {"type": "sms", "to": "+16505550199", "message": text, "subject": None}
        sandbox._running.inbox.add(fields, sender={**sender, "map_index": -1, "try_number": 1})
        for theme in ("light", "dark"):
            with message_of(browser, sandbox, "Mary", theme, {"width": 1100, "height": 610}) as page:
                expect(page.locator("#count")).to_have_text("1 message")
                save(page, f"first-{theme}")


def take_inbox(browser: Browser) -> None:
    """Take pictures of the sandbox's inbox."""
    with Sandbox(port=8025) as sandbox:
        fill(sandbox)
        for theme, size in LOOKS:
            with message_of(browser, sandbox, "Zoë", theme, PHONE if size else DESKTOP) as page:
                expect(page.locator("#count")).to_have_text("8 messages")
                save(page, f"inbox-{theme}{size}")


def take_airflow(browser: Browser) -> None:
    """Take pictures of Airflow's UI: the form of a connection, and the log of the quick start's task."""
    with tempfile.TemporaryDirectory() as folder, Sandbox() as sandbox:
        home = Path(folder)
        (home / "dags").mkdir()
        shutil.copy(ROOT / "example_dags" / "first_message.py", home / "dags")
        with standalone(home, AIRFLOW_CONN_APPTOTO_DEFAULT=sandbox.connection()) as environment:
            run_first(environment, home)
            for theme in ("light", "dark"):
                options: dict[str, Any] = {"color_scheme": theme, "timezone_id": "UTC", "locale": "en-GB"}
                context = browser.new_context(viewport={"width": 1100, "height": 610}, **options)
                context.set_default_timeout(PATIENCE)
                page = context.new_page()
                page.route(re.compile("/(api/v2|ui)/"), replace_measured)
                url = f"http://127.0.0.1:{environment['AIRFLOW__API__PORT']}"
                take_log(page, url, theme)
                take_form(page, url, theme)
                context.close()


def run_first(environment: dict[str, str], home: Path) -> None:
    """Run the DAG of the quick start."""
    wait_for(lambda: call(environment, "GET", "dags")["total_entries"] > 0, home)
    runs = "dags/first_message/dagRuns"
    call(environment, "POST", runs, {"dag_run_id": FIRST_RUN, "logical_date": NOON})
    wait_for(lambda: call(environment, "GET", f"{runs}/{FIRST_RUN}")["state"] == "success", home)


def replace_measured(route: Route) -> None:
    """Answer a request of Airflow's UI with fixed times."""
    response = route.fetch()
    text = response.text()
    for pattern, fixed in MEASURED:
        text = re.sub(pattern, fixed, text)
    route.fulfill(response=response, body=text)


def take_log(page: Page, url: str, theme: str) -> None:
    """Take a picture of the log of a task."""
    page.goto(f"{url}/dags/first_message/runs/{FIRST_RUN}/tasks/text_mary")
    expect(page.get_by_text("sent, HTTP 200")).to_be_visible()
    page.add_style_tag(content=".resize-handle { visibility: hidden }")  # it would be cut
    save(page, f"airflow-log-{theme}", page.locator("#details-panel"))


def take_form(page: Page, url: str, theme: str) -> None:
    """Take a picture of the form of a connection."""
    page.set_viewport_size({"width": 1100, "height": 960})
    page.goto(f"{url}/connections")
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.locator("[name=connection_id]").fill("apptoto_default")
    form.get_by_role("combobox").first.click()
    page.keyboard.type("Apptoto")
    page.get_by_role("option", name="Apptoto").click()
    form.locator("[name=login]").fill("name@clinic.example")
    form.locator("[name=password]").fill("YOUR-API-KEY")
    form.locator("[name=port]").fill("443")
    form.get_by_role("heading", name="Add Connection").click()  # away from the last field
    save(page, f"airflow-form-{theme}", form)


def main() -> None:
    """Take all pictures."""
    takers: dict[str, Callable[[Browser], None]] = {
        "first": take_first,
        "inbox": take_inbox,
        "outbox": take_outbox,
        "airflow": take_airflow,
    }
    FOLDER.mkdir(exist_ok=True)
    with chromium() as browser:
        for name in sys.argv[1:] or takers:
            takers[name](browser)


if __name__ == "__main__":
    main()
