"""Collect every text of the package that a user can read: errors, log lines, help and output of commands.

``python -m tests.support.texts`` writes them to ``tests/data/texts.txt``, where a change of wording shows in review.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
REVIEWED = ROOT / "tests" / "data" / "texts.txt"
_NO_TEXT = re.compile(
    r"(ALTER|BEGIN|CREATE|DELETE|DROP|extract|INSERT|LOCK|PRAGMA|psql|READ|SELECT|SET|sqlite3|UPDATE|default-src)\b|@£|\["
)
"""How strings that are not texts begin: SQL statements, commands, alphabets, patterns."""


def collected() -> str:
    """Return the texts of each module, in the order of its lines.

    A text is any string with a space in it, except docstrings and SQL. ``{}`` stands for interpolated values.
    """
    package = ROOT / "airflow_provider_apptoto"
    blocks = []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        texts = [text for _, text in sorted(_texts(ast.parse(path.read_text())))]
        if texts:
            blocks.append("\n".join([f"# {name}", *texts]))
    return "\n\n".join(blocks) + "\n"


def _texts(tree: ast.Module) -> Iterator[tuple[tuple[int, int], str]]:
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        if isinstance(node, ast.Constant | ast.JoinedStr):
            text = _text(node)
            if " " in text.strip() and not _NO_TEXT.match(text.strip()):
                yield (node.lineno, node.col_offset), text.replace("\n", "\\n")
        if isinstance(node, ast.JoinedStr):  # its parts are read; interpolated expressions may contain texts
            todo += [part for part in node.values if isinstance(part, ast.FormattedValue)]
        else:
            todo += ast.iter_child_nodes(node)


def _text(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
    return "".join(parts)


if __name__ == "__main__":
    REVIEWED.write_text(collected())
