"""The outbox page as a user sees it: within Airflow's UI, or alone."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Self

from tests.support.browser import PATIENCE, expect
from tests.support.entries import FIRST, entry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any

    from playwright.sync_api import Browser, BrowserContext, FrameLocator, Locator, Page

    from airflow_provider_apptoto.outbox.entry import Entry
    from tests.support.outbox_server import OutboxServer

NOON = 1_795_953_600.0
"""2026-11-29, 12:00 UTC."""
ORIGIN = {"dag_id": "clinic_reminders", "run_id": "monday"}


def message(number: int, state: str = "sent", **fields: Any) -> Entry:
    """Return the entry of a message with the reference ``ref-NUMBER``; later ones are older.

    :param fields: of the entry or of its origin.
    """
    from dataclasses import replace

    from airflow_provider_apptoto.outbox.entry import State

    names = ("dag_id", "run_id", "task_id", "map_index")
    of_origin: dict[str, Any] = {name: fields.pop(name) for name in names if name in fields}
    at = NOON - 60 * number
    given: dict[str, Any] = {
        "state": State(state),
        "lease": 0.0,
        "reference": f"ref-{number}",
        "target": f"+1•••{number:04d}",
        "created_at": at,
        "updated_at": at,
    }
    of_origin = {**ORIGIN, **of_origin}
    return entry(replace(FIRST, **of_origin), key=f"{number:032x}", **{**given, **fields})


class Visit:
    """A browser with the cookies of a user.

    :param user: name of the user; ``None``: nobody is logged in.
    """

    def __init__(self, browser: Browser, server: OutboxServer, user: str | None, **options: Any) -> None:
        self.server = server
        size = {"width": 1280, "height": 900}
        given: dict[str, Any] = {"viewport": size, "timezone_id": "Europe/Berlin", "locale": "en-GB", **options}
        self.context: BrowserContext = browser.new_context(**given)
        self.context.set_default_timeout(PATIENCE)
        if user is not None:
            self.log_in(server.token(user))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.context.close()

    def log_in(self, token: str) -> None:
        """Set the cookie that Airflow's login page sets."""
        self.context.add_cookies([{"name": "_token", "value": token, "url": self.server.url}])

    @contextlib.contextmanager
    def page(self) -> Iterator[OutboxPage]:
        """Open a tab. Afterwards, no script may have failed there, and nothing may have broken the policy."""
        page = self.context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if is_violation(line.text) else None)
        yield OutboxPage(page, self.server)
        page.close()
        assert errors == []


def is_violation(line: str) -> bool:
    """Return whether Chromium says that a page did what its policy forbids."""
    return "Content Security Policy" in line or "Content-Security-Policy" in line


class OutboxPage:
    """A tab of the browser."""

    def __init__(self, page: Page, server: OutboxServer) -> None:
        self.page = page
        self.server = server
        self.frame: FrameLocator | Page = page

    def open(self, query: str = "") -> None:
        """Open the page alone."""
        self.page.goto(f"{self.server.url}/apptoto/outbox{query}")
        self.frame = self.page
        self.is_loaded()

    def open_in_airflow(self, query: str = "") -> None:
        """Open the page in Airflow's UI."""
        self.page.goto(f"{self.server.url}/plugin/apptoto-outbox{self.server.base}/apptoto/outbox{query}")
        self.is_in_airflow()

    def is_in_airflow(self) -> None:
        """Wait until Airflow's UI shows the page."""
        self.frame = self.page.frame_locator("iframe")
        self.is_loaded()

    def is_loaded(self) -> None:
        """Wait until the open cases and the messages are shown."""
        expect(self.frame.get_by_role("heading", name="Open cases")).to_be_visible()
        expect(self.frame.get_by_text("Loading…")).to_have_count(0)

    def button(self, name: str) -> Locator:
        """Return a button."""
        return self.frame.get_by_role("button", name=name, exact=True)

    def field(self, name: str) -> Locator:
        """Return a field or a list of a form."""
        # the text of a list's label includes the options
        return self.frame.get_by_label(name, exact=True).or_(self.frame.get_by_role("combobox", name=name, exact=True))

    def rows(self, table: str = "Messages") -> Locator:
        """Return the rows of a table, without its head."""
        return self.frame.get_by_role("table", name=table).get_by_role("row").filter(has=self.frame.locator("td"))

    def shows(self, *numbers: int, table: str = "Messages") -> None:
        """Wait until a table has exactly these messages, in this order."""
        expect(self.rows(table)).to_have_text([re.compile(rf"ref-{number}(?!\d)") for number in numbers])

    def select(self, *numbers: int, table: str = "Messages") -> None:
        """Select messages."""
        for number in numbers:
            self.frame.get_by_role("table", name=table).get_by_role(
                "checkbox", name=re.compile(rf"reference ref-{number}$")
            ).check()

    def confirm(self, action: str, button: str, note: str) -> None:
        """Choose an action for what is selected, write a note, and confirm."""
        self.button(action).click()
        self.frame.get_by_role("dialog").get_by_label("Note").fill(note)
        self.frame.get_by_role("dialog").get_by_role("button", name=button, exact=True).click()
        expect(self.frame.get_by_role("dialog")).to_have_count(0)
        self.is_loaded()
