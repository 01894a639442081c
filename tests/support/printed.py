"""What the documentation prints to be copied: blocks, and commands in blocks and in sentences."""

from __future__ import annotations

import contextlib
import functools
import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted((ROOT / "docs").glob("*.rst")),
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
]
_RST = re.compile(
    r"^(?P<indent> *)\.\. code-block:: (?P<language>\S+)\n(?P<text>(?:(?P=indent) +\S.*\n|\s*\n)+)", re.MULTILINE
)
_CAPTION = re.compile(r"\A\s*:caption: (.*)\n")
_MARKDOWN = re.compile(r"^```(?P<language>\S*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_SENTENCES = {".rst": re.compile(r"``([^`]+)``"), ".md": re.compile(r"`([^`]+)`")}
_PROGRAMS = re.compile(r"(airflow|curl|dbt|make|openssl|pip|pre-commit|psql|pytest|python)( |$)|\.(ci|venv)/\S")


@dataclass(frozen=True)
class Printed:
    """A block, or a command.

    :param page: name of the file.
    :param language: of the block; ``sentence``: a command in a sentence.
    :param line: where it begins in the file, from 1.
    :param caption: of the block: the file to write it to.
    """

    page: str
    language: str
    text: str
    line: int
    caption: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@functools.cache
def blocks() -> list[Printed]:
    """Return all blocks of all pages, without those that include another file."""
    found = []
    for page in PAGES:
        source = page.read_text()
        for match in (_RST if page.suffix == ".rst" else _MARKDOWN).finditer(source):
            caption = _CAPTION.match(match["text"])
            text = textwrap.dedent(_CAPTION.sub("", match["text"])).strip()
            line = source.count("\n", 0, match.start("language")) + 1
            found.append(Printed(page.name, match["language"], text, line, caption[1] if caption else ""))
    return found


@functools.cache
def commands() -> list[Printed]:
    """Return all commands of shell blocks, without comments."""
    return [
        Printed(block.page, block.language, text, block.line)
        for block in blocks()
        if block.language == "sh"
        for text in split(block.text)
    ]


@functools.cache
def sentence_commands() -> list[Printed]:
    """Return all commands that sentences name, complete or not."""
    found = []
    for page in PAGES:
        without_blocks = (_RST if page.suffix == ".rst" else _MARKDOWN).sub("", page.read_text())
        for literal in _SENTENCES[page.suffix].findall(without_blocks):
            text = " ".join(literal.split())
            if _PROGRAMS.match(text):
                found.append(Printed(page.name, "sentence", text, 0))
    return found


def split(script: str) -> list[str]:
    """Split a script into its commands, some of which have several lines."""
    found, command = [], ""
    for line in script.splitlines():
        command += f"{line}\n"
        try:
            words = shlex.split(command, comments=True)
        except ValueError:  # within quotes
            continue
        if line.endswith("\\"):
            continue
        if words:
            found.append(_without_comment(command, words))
        command = ""
    return found


def _without_comment(command: str, words: list[str]) -> str:
    for comment in re.finditer(r"\s# ", command):
        with contextlib.suppress(ValueError):  # within quotes
            if shlex.split(command[: comment.start()]) == words:
                return command[: comment.start()].strip()
    return command.strip()
