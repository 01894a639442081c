"""Split a text into blocks, and compare where Jinja and Liquid (Apptoto's language) end them."""

from __future__ import annotations

import html
import re
import secrets
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jinja2
from jinja2 import nodes

from airflow_provider_apptoto.client.errors import ApptotoValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator

RAW = "{% raw %}...{% endraw %}"
OPENING = re.compile(r"\{(?=([{%#]))")
"""Start of a block in either language."""
_BLOCK = re.compile(r"\{\{(?![{%])(?:(?!\{[{%])[^}])*\}\}|\{%(?!\})(?:(?!\{[{%]|[}%]\}).)*%\}", re.DOTALL)
"""A Liquid block. A lone ``}`` ends a ``{{`` block too: lib/liquid.rb of Liquid 5.4, VariableIncompleteEnd."""
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_DELIMITER = re.compile(r"\{[{%]|[}%]\}")
_MARK = "\ufdd0"
"""A Unicode noncharacter, which no text contains."""
_MARKED = re.compile(rf"{_MARK}(\d+){_MARK}")
_MAX_SHOWN = 60
"""Maximum length of a block in an error, in characters."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a template.

    :param kind: ``data`` (plain text), ``variable`` (``{{ ... }}``), ``raw`` (with its ``inner`` text), or another
        kind of Jinja block.
    :param line: the line on which it starts, from 1.
    :param root: the name with which a variable block begins.
    """

    kind: str
    text: str
    line: int
    inner: str = ""
    root: str = ""

    @property
    def shown(self) -> str:
        """The shortened text for errors."""
        text = " ".join(self.text.split())
        return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


def split(source: str, env: jinja2.Environment, first: int = 1) -> Iterator[Part]:
    """Split a template where Jinja's lexer does. The joined parts have the same meaning.

    :param first: the line number of the first line.
    :raises jinja2.TemplateSyntaxError: it is not a valid template.
    """
    kind, text, inner, root, start = "", "", "", "", 1
    for line, lexeme, value in env.lex(source):
        if not kind:
            if lexeme == "data":
                yield Part("data", value, first + line - 1)
                continue
            kind, text, inner, root, start = lexeme.removesuffix("_begin"), value, "", "", first + line - 1
            continue
        text += value
        if lexeme == f"{kind}_end":
            # a block is meant for Apptoto only if the delimiters are those of Apptoto
            shared = env.variable_start_string == "{{" and env.variable_end_string == "}}"
            yield Part(kind, text, start, inner, root if kind == "variable" and shared else "")
            kind = ""
        elif lexeme == "data":
            inner += value
        elif not root and lexeme != "whitespace":
            root = value if lexeme == "name" else "-"
    if kind:
        msg = f"a {kind} that starts on line {start} is never closed"
        raise jinja2.TemplateSyntaxError(msg, start - first + 1)


def find_opening(text: str) -> tuple[int, str] | None:
    """Return the line of the first block in a text and its opening braces, or ``None``.

    Braces that are escaped or look alike count too. Nothing else of the text is returned.
    """
    if found := OPENING.search(text):
        return text.count("\n", 0, found.start()) + 1, f"{{{found[1]}"
    plainest = _plainest(text)
    if found := OPENING.search(plainest):
        line = plainest.count("\n", 0, found.start()) + 1
        return line, f"an escaped or look-alike {{{found[1]} (such as &#123; or a full-width brace)"
    return None


def _plainest(text: str) -> str:
    """Normalize Unicode and unescape HTML, as a template engine might do first."""
    for _ in range(2):  # unescaping may produce text that is escaped again
        text = html.unescape(unicodedata.normalize("NFKC", text))
        if "{" in text or "&" in text:
            text = "".join(each for each in text if each in "\t\n\r" or unicodedata.category(each) not in {"Cc", "Cf"})
    return text


def ends_as_in_liquid(part: Part, text: str) -> bool:
    """Return whether Liquid ends every block of a text where its author did.

    Liquid ignores quotes when it searches for the end of a block.

    :param part: the part that contains the text.
    :param text: the whole part, or its inner text.
    """
    if part.kind == "variable":
        return _BLOCK.fullmatch(text) is not None
    # A block counts as closed unless Liquid ends it in the middle of a quoted string. A brace and a space replace each,
    # since a brace right before a block would change it.
    rest = _BLOCK.sub(lambda block: block[0] if re.search("['\"]", _QUOTED.sub("", block[0])) else "{ ", text)
    return _DELIMITER.search(rest) is None


def names_set_in(tree: nodes.Template) -> set[str]:
    """Return the names that a template defines: by set, for, macro or import."""
    names = {node.name for node in tree.find_all(nodes.Name) if node.ctx in {"store", "param"}}
    names |= {node.name for node in tree.find_all(nodes.Macro)}
    names |= {node.target for node in tree.find_all(nodes.Import)}
    for imported in tree.find_all(nodes.FromImport):
        names |= {name if isinstance(name, str) else name[1] for name in imported.names}
    return names


class Placeholders:
    """Replaces Apptoto's parts of a text while Jinja renders the rest."""

    def __init__(self) -> None:
        # digits, because filters such as upper don't change them; random, so that no value can forge a placeholder
        self._prefix = 10**15 + secrets.randbelow(10**15)
        self._first = self._prefix * 10**5
        self._texts: dict[int, str] = {}

    def hide(self, text: str) -> str:
        """Store a text and return its placeholder."""
        number = self._first + len(self._texts)
        self._texts[number] = text
        return f"{_MARK}{number}{_MARK}"

    def restore(self, field: str, rendered: str) -> str:
        """Replace the placeholders in a rendered text with the stored texts.

        :raises ApptotoValidationError: a placeholder was damaged, or a brace next to it would change its meaning.
        """
        pieces = _MARKED.split(rendered)
        plain, numbers = pieces[::2], [int(number) for number in pieces[1::2]]
        remains = (_MARK, repr(_MARK)[1:-1], str(self._prefix))
        damaged = any(remain in piece for remain in remains for piece in plain)
        if damaged or not set(numbers) <= set(self._texts):
            problem = f"a filter would change one of Apptoto's dynamic fields; move the field, or its {RAW}, out of it"
            raise ApptotoValidationError(field, problem, code="dynamic_field_damaged")
        texts = [self._texts[number] for number in numbers]
        whole = "".join([plain[0], *(piece for pair in zip(texts, plain[1:], strict=True) for piece in pair)])
        # no plain piece contains an opening, so an additional one spans two pieces
        for form in (str, _plainest):
            if len(OPENING.findall(form(whole))) != sum(len(OPENING.findall(form(text))) for text in texts):
                problem = "a brace next to a dynamic field would change its meaning; put a space between them"
                raise ApptotoValidationError(field, problem, code="dynamic_field_damaged")
        return whole
