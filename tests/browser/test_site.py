"""The documentation site as a reader sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import site

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

    from tests.support.site import Reading


@pytest.fixture(scope="module")
def folder(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001  without a browser, it is not needed
    """Build the site."""
    folder = tmp_path_factory.mktemp("site")
    site.build(folder)
    return folder


@pytest.fixture(scope="module")
def reading(browser: Browser, folder: Path) -> Reading:
    """Look at every page."""
    return site.read(browser, folder)


def test_every_page_is_read(reading: Reading) -> None:
    assert {path.stem for path in site.DOCS.glob("*.rst")} == reading.desktop.keys() - {"search"}


def test_no_line_of_code_is_clipped(reading: Reading) -> None:
    assert {name: look["clipped"] for name, look in reading.desktop.items() if look["clipped"]} == {}


@pytest.mark.parametrize("window", ["desktop", "phone"])
def test_no_title_breaks_within_a_word_or_is_cut(reading: Reading, window: str) -> None:
    looks = getattr(reading, window)
    assert {name: look["broken"] for name, look in looks.items() if look["broken"]} == {}


@pytest.mark.parametrize("window", ["desktop", "phone"])
def test_no_page_scrolls_sideways(reading: Reading, window: str) -> None:
    assert [name for name, look in getattr(reading, window).items() if look["isTooWide"]] == []


def test_every_box_has_a_copy_button_unless_it_shows_what_a_program_prints(reading: Reading) -> None:
    buttons = [(name, *button) for name, look in reading.desktop.items() for button in look["buttons"]]
    assert [name for name, is_code, has_button in buttons if is_code != has_button] == []
    assert {is_code for _, is_code, _ in buttons} == {True, False}


def test_the_button_copies_the_command_alone(browser: Browser, folder: Path) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto((folder / "index.html").as_uri())
    box = page.locator(".highlight", has_text="--conn-password sandbox-api-key")
    box.hover()
    box.get_by_role("button", name="Copy").click()
    assert page.evaluate("navigator.clipboard.readText()") == (
        "airflow connections add apptoto_default --conn-type apptoto \\\n"
        "    --conn-login sandbox@example.com --conn-password sandbox-api-key \\\n"
        "    --conn-host http://127.0.0.1 --conn-port 8025"
    )
    context.close()


def test_every_picture_is_shown_in_its_colours_and_described(reading: Reading) -> None:
    shown = 0
    for scheme, looks in (("light", reading.desktop), ("dark", reading.dark)):
        for name, look in looks.items():
            for picture in look["pictures"]:
                assert picture["isLoaded"], (name, picture)
                assert picture["alt"], (name, picture)
                assert picture["isVisible"] == (picture["scheme"] in {None, scheme}), (name, picture)
                shown += picture["isVisible"]
    assert shown


def test_every_picture_of_one_scheme_has_one_of_the_other(reading: Reading) -> None:
    for name, look in reading.desktop.items():
        described = {
            scheme: [picture["alt"] for picture in look["pictures"] if picture["scheme"] == scheme]
            for scheme in ("light", "dark")
        }
        assert described["light"] == described["dark"], name


def test_no_markup_is_left_no_section_is_empty_and_notes_do_not_follow_each_other(reading: Reading) -> None:
    assert {name: look["leftovers"] for name, look in reading.desktop.items() if look["leftovers"]} == {}


def test_nothing_is_fetched_from_elsewhere_and_no_script_fails(reading: Reading) -> None:
    assert reading.elsewhere == []
    assert reading.errors == []
