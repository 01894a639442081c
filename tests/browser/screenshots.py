"""Make the pictures of the documentation: ``python -m tests.browser.screenshots``.

People, messages and times are invented and fixed, so that a picture changes only if a page does.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import airflow_home

airflow_home.set_up()

from airflow_provider_apptoto.sandbox import Sandbox  # noqa: E402  the home comes first
from tests.support.browser import chromium, expect  # noqa: E402
from tests.support.outbox_page import OutboxPage, Visit, message  # noqa: E402
from tests.support.outbox_server import serving  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page, ViewportSize

    from airflow_provider_apptoto.outbox.entry import Entry

FOLDER = Path(__file__).parents[2] / "docs" / "_static"
MAX_SIZE = 150_000
"""Bytes per picture."""
DESKTOP: ViewportSize = {"width": 1100, "height": 670}
PHONE: ViewportSize = {"width": 375, "height": 760}
LOOKS: tuple[tuple[str, str], ...] = (("light", ""), ("dark", ""), ("light", "-phone"), ("dark", "-phone"))
NOON = "2026-11-29T12:00:00Z"
AT_NOON = "UPDATE inbox SET received_at = strftime('%Y-%m-%dT%H:%M:%S.000+00:00', ?, (id * 17 - 1800) || ' seconds')"
CLOSED = "connection closed before the answer"
RUN = "scheduled__2026-11-29T08:00:00+00:00"


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


def save(page: Page, name: str) -> None:
    """Save what a page shows."""
    page.evaluate("document.fonts.ready")
    page.wait_for_timeout(400)  # the last transition
    path = FOLDER / f"{name}.png"
    page.screenshot(path=path, animations="disabled", caret="hide")
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
        sender = {"dag_id": "first_message", "run_id": RUN.replace("scheduled", "manual"), "task_id": "text_mary"}
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


def main() -> None:
    """Take all pictures."""
    takers: dict[str, Callable[[Browser], None]] = {
        "first": take_first,
        "inbox": take_inbox,
        "outbox": take_outbox,
    }
    FOLDER.mkdir(exist_ok=True)
    with chromium() as browser:
        for name in sys.argv[1:] or takers:
            takers[name](browser)


if __name__ == "__main__":
    main()
