"""The documentation site, built and read in a browser."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, ViewportSize

DOCS = Path(__file__).parents[2] / "docs"
WINDOW: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 800}
_LOOK = r"""() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const start = (element) => element.textContent.trim().slice(0, 80);
  const isWide = (element) => element.scrollWidth > element.clientWidth;
  const texts = function* (element) {
    const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) yield walker.currentNode;
  };
  const hasBrokenWord = (element) => {
    for (const text of texts(element))
      for (const word of text.textContent.matchAll(/\S+/g)) {
        const range = document.createRange();
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        if (new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1) return true;
      }
    return false;
  };
  const titles = all("h1, h2, h3, .sidebar-brand-text, .sidebar-tree a, .toc-tree a");
  const boxes = all("div.highlight > pre");
  const markup = /``|\*\*\S|`_|:[a-z:]+:`|\]\(|^#+ /m;  // reStructuredText, Markdown
  return {
    clipped: all("pre").filter(isWide).map(start),
    broken: titles.filter((each) => hasBrokenWord(each) || isWide(each)).map(start),
    buttons: boxes.map((box) => [!box.closest(".highlight-text"), Boolean(box.parentElement.querySelector("button"))]),
    pictures: all("article img").map((picture) => ({
      file: picture.src.split("/").pop(),
      alt: picture.alt,
      scheme: ["light", "dark"].find((scheme) => picture.classList.contains(`only-${scheme}`)) || null,
      isLoaded: picture.complete && picture.naturalWidth > 0,
      isVisible: picture.checkVisibility(),
    })),
    leftovers: [
      ...[...texts(document.querySelector("article"))]
        .filter((text) => !text.parentElement.closest("code, pre, script, .sig") && markup.test(text.textContent))
        .map((text) => text.textContent),
      ...all("article section").filter((section) => section.children.length < 2).map(start),
      ...all(".admonition + .admonition").map(start),
    ],
    isTooWide: isWide(document.documentElement) || isWide(document.querySelector(".content")),  // or scrolls by itself
  };
}"""


def build(folder: Path) -> None:
    """Build the documentation as ``make docs`` does."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"),
            *("-d", str(folder / "doctrees"), str(DOCS), str(folder)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader saw.

    :param desktop: of each page in a window of 1280 pixels, in light colours.
    :param dark: the same in dark colours, of the pages that have pictures.
    :param phone: the same on a phone.
    :param elsewhere: addresses that are not files of the site.
    :param errors: of scripts, and of files that are missing.
    """

    desktop: dict[str, dict[str, Any]] = field(default_factory=dict)
    dark: dict[str, dict[str, Any]] = field(default_factory=dict)
    phone: dict[str, dict[str, Any]] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def watch(page: Page, reading: Reading) -> None:
    """Collect the requests and the errors of a tab."""
    page.on("pageerror", lambda error: reading.errors.append(f"{page.url}: {error}"))
    page.on("requestfailed", lambda request: reading.errors.append(f"{page.url}: {request.url}"))
    page.on("request", lambda request: reading.elsewhere.append(request.url) if _is_elsewhere(request.url) else None)


def _is_elsewhere(url: str) -> bool:
    return not url.startswith(("file:", "data:", "blob:"))


def read(browser: Browser, folder: Path) -> Reading:
    """Open every page, as a file, in each window and, where it matters, in each colour."""
    reading = Reading()
    page = browser.new_page(color_scheme="light")
    watch(page, reading)
    for path in sorted(folder.glob("*.html")):
        page.set_viewport_size(WINDOW)
        page.goto(path.as_uri())
        reading.desktop[path.stem] = page.evaluate(_LOOK)
        if reading.desktop[path.stem]["pictures"]:
            page.emulate_media(color_scheme="dark")
            reading.dark[path.stem] = page.evaluate(_LOOK)
            page.emulate_media(color_scheme="light")
        page.set_viewport_size(PHONE)
        reading.phone[path.stem] = page.evaluate(_LOOK)
    page.close()
    return reading
