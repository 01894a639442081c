"""Settings of Sphinx: sphinx-build docs docs/_build/html."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

from docutils import nodes

from airflow_provider_apptoto import __version__

project = "airflow-provider-apptoto"
author = "the contributors of airflow-provider-apptoto"
project_copyright = f"2026, {author}"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_use_index = False  # the search finds more
html_extra_path = ["llms.txt"]
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL", "")

# Airflow writes its configuration there as soon as it is imported, and would do so in somebody's home.
_airflow_home = tempfile.TemporaryDirectory()
os.environ["AIRFLOW_HOME"] = _airflow_home.name

autodoc_member_order = "bysource"
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"  # the names of methods would not fit into the right column

copybutton_selector = "div:not(.highlight-text) > div.highlight > pre"  # what a program prints is not for pasting


def underlined(heading: re.Match[str]) -> str:
    """Translate a heading of Markdown."""
    marks, title = heading.groups()
    return f"{title}\n{'-~'[len(marks) - 2] * len(title)}"


def add_changelog(_app: Any, page: str, source: list[str]) -> None:
    """Translate ``CHANGELOG.md`` into the markup of the page."""
    if page != "changelog":
        return
    _title, text = (Path(__file__).parents[1] / "CHANGELOG.md").read_text().split("\n", 1)
    text = re.sub(r"`([^`]+)`", r"``\1``", text)
    text = re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", r"`\1 <\2>`__", text)
    text = re.sub(r"^(##+) (.+)$", underlined, text, flags=re.MULTILINE)
    source[0] += text


def trim_code(_app: Any, page: nodes.document) -> None:
    """Remove the blank lines that the formatter keeps before the end mark of an excerpt."""
    for block in page.findall(nodes.literal_block):
        block.rawsource = block.astext().rstrip()
        block.children = [nodes.Text(block.rawsource)]


def setup(app: Any) -> None:
    """Change pages while Sphinx reads them."""
    app.connect("source-read", add_changelog)
    app.connect("doctree-read", trim_code)
