"""Check the links of the built documentation and of the files at the root: ``python -m tests.support.links SITE``.

No network is used. Links into this project are checked even if they are absolute: pages of the documentation against
the built site, files in the repository against the checkout.
"""

from __future__ import annotations

import re
import sys
import tomllib
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PLAIN = ("CITATION.cff", ".airflow-registry.yaml", ".github/**/*.yml", "docs/*.rst", "airflow_provider_apptoto/**/*.py")
"""Files whose addresses are checked wherever they stand."""
MARKDOWN = ("*.md", ".github/*.md", "docs/llms.txt")
_ADDRESS = re.compile(r"https://[^\s<>\"'`)\]}]+")
_MARKDOWN_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FILE_VIEWS = re.compile(r"/(?:blob|raw|tree)/[^/]+/(.*)")


class Page(HTMLParser):
    """The links and the anchors of an HTML page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what a tag links to, and its anchors."""
        if ("rel", "canonical") in attrs:  # where this build will be: the released version, or another one
            return
        for name, value in attrs:
            if value and name in {"href", "src"}:
                self.links.append(value)
            elif value and (name == "id" or (tag == "a" and name == "name")):
                self.anchors.add(value)


@cache
def anchors_of(path: Path) -> set[str]:
    """Return the anchors of a page or of a Markdown file."""
    text = path.read_text()
    if path.suffix == ".md":
        return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in _HEADING.findall(text)}
    return page_of(path).anchors


@cache
def page_of(path: Path) -> Page:
    """Parse an HTML page."""
    return Page(path.read_text())


class Checker:
    """Checks links.

    :param root: the checkout.
    :param site: the built documentation.
    """

    def __init__(self, root: Path, site: Path) -> None:
        self.root = root.resolve()
        self.site = site.resolve()
        urls = tomllib.loads((root / "pyproject.toml").read_text())["project"]["urls"]
        self.documentation: str = urls["Documentation"]
        self.source: str = urls["Source"]

    def problems(self) -> Iterator[str]:
        """Yield a line for each broken link."""
        for path in sorted(self.site.rglob("*.html")):
            yield from self._of(path, page_of(path).links, top=self.site)
        for pattern in MARKDOWN:
            for path in sorted(self.root.glob(pattern)):
                text = path.read_text()
                links = _MARKDOWN_LINK.findall(_CODE.sub("", text))
                yield from self._of(path, {*links, *_ADDRESS.findall(text)}, top=self.root)
        for pattern in PLAIN:
            for path in sorted(self.root.glob(pattern)):
                yield from self._of(path, _ADDRESS.findall(path.read_text()), top=self.root)

    def _of(self, path: Path, links: set[str] | list[str], *, top: Path) -> Iterator[str]:
        for link in sorted(set(links)):
            if problem := self._problem(path, link.rstrip(".,;:")):
                yield f"{path.relative_to(top)}: {link}: {problem}"

    def _problem(self, path: Path, link: str) -> str | None:
        parts = urlsplit(link)
        if link.startswith(self.documentation):
            page = urlsplit(link.removeprefix(self.documentation)).path
            return self._missing(self.site / unquote(page), parts.fragment)
        if link == self.source or link.startswith(self.source + "/"):
            viewed = _FILE_VIEWS.fullmatch(urlsplit(link.removeprefix(self.source)).path)
            return self._missing(self.root / unquote(viewed[1]), parts.fragment) if viewed else None
        if parts.netloc:
            name = self.source.rpartition("/")[2]
            is_own = parts.path.split("/")[2:3] == [name] if parts.netloc == "github.com" else name in parts.netloc
            return "pyproject.toml has another address of this project" if is_own else None
        if parts.scheme:
            return None
        return self._missing(path.parent / unquote(parts.path) if parts.path else path, parts.fragment)

    def _missing(self, target: Path, anchor: str) -> str | None:
        target = target.resolve()
        if target.is_dir() and target.is_relative_to(self.site):
            target /= "index.html"
        if not target.exists():
            return "no such file"
        if anchor and target.suffix in {".html", ".md"} and unquote(anchor) not in anchors_of(target):
            return "no such anchor"
        return None


def main() -> None:
    """Exit with a line for each broken link, if there is any."""
    sys.exit("\n".join(Checker(ROOT, Path(sys.argv[1])).problems()) or None)


if __name__ == "__main__":
    main()
