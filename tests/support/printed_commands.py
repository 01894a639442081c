"""The commands that the documentation prints."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.rst")), ROOT / "README.md"]
_COMMANDS = ("airflow apptoto ", "python -m airflow_provider_apptoto", "make ")


def printed_commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command of this project that a page prints."""
    text = page.read_text()
    blocks = re.findall(r"\.\. code-block:: sh\n\n((?: +.*\n|\n)+)", text)
    blocks += re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for block in blocks:
        for line in textwrap.dedent(block).replace("\\\n", " ").splitlines():
            if line.startswith(_COMMANDS):
                yield shlex.split(line.partition(" > ")[0].partition(" < ")[0], comments=True)
