"""The page "Error codes" lists all public error codes, and no others."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_apptoto.client import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_apptoto"
PAGE = ROOT / "docs" / "error-codes.rst"
ERROR = re.compile(r"(Apptoto|Final)\w*Error")


@functools.cache
def modules() -> list[tuple[str, ast.Module]]:
    """Return the modules of the package except those of the sandbox, which acts as the server."""
    return [
        (str(path.relative_to(ROOT)), ast.parse(path.read_text()))
        for path in sorted(PACKAGE.rglob("*.py"))
        if "sandbox" not in path.relative_to(PACKAGE).parts
    ]


def raised() -> Iterator[tuple[str, str, ast.expr | None, ast.AST]]:
    """Yield the place, class and code of every error that is created, and its scope."""
    for path, module in modules():
        scopes = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        for call in ast.walk(module):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            if ERROR.fullmatch(call.func.id) or call.func.id == "kind":  # of one of two classes
                scope = [each for each in scopes if each.lineno <= call.lineno <= (each.end_lineno or 0)]
                code = next((keyword.value for keyword in call.keywords if keyword.arg == "code"), None)
                yield f"{path}:{call.lineno}", call.func.id, code, scope[-1] if scope else module


def codes_in(code: ast.expr, scope: ast.AST) -> set[str] | None:
    """Return the codes that an expression may stand for, none if it passes on another error's; ``None`` if unclear."""
    match code:
        case ast.Constant(value=str() as text):
            return {text}
        case ast.IfExp(body=body, orelse=orelse):
            both = [codes_in(body, scope), codes_in(orelse, scope)]
            return None if None in both else set().union(*filter(None, both))
        case ast.Attribute(value=ast.Name(id="Outcome"), attr=name):
            return {str(Outcome[name])}
        case ast.Attribute(attr="code"):
            return set()
        case ast.Name(id=name):
            values = [
                node.value
                for node in ast.walk(scope)
                if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets)
            ]
            found = [codes_in(value, scope) for value in values]
            return None if not found or None in found else set().union(*filter(None, found))
        case _:
            return None


def codes_of_classes() -> set[str]:
    return {
        node.value.value
        for _, module in modules()
        for node in ast.walk(module)
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target) == "default_code"
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def codes_of_the_package() -> set[str]:
    found = codes_of_classes()
    for place, _, code, scope in raised():
        if code is not None:
            codes = codes_in(code, scope)
            assert codes is not None, f"{place}: write the code where the error is made"
            found |= codes
    return found


def test_the_page_lists_every_code_of_the_package_once_and_no_other() -> None:
    listed = re.findall(r"^   \* - ``(\w+)``$", PAGE.read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert sorted(listed) == sorted(codes_of_the_package())


def test_a_message_is_never_refused_without_a_code_of_its_own() -> None:
    vague = [place for place, error, code, _ in raised() if error.endswith("ValidationError") and code is None]
    assert vague == []


def test_codes_are_short_and_all_of_one_form() -> None:
    codes = codes_of_the_package()
    assert len(codes) > 50  # to show that they are found
    for code in codes:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
        assert len(code) <= 64  # the ledger's column


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ('code = "a" if x else "b"', {"a", "b"}),
        ("code = Outcome.TOO_OLD", {"too_old"}),
        ("code = error.code", set()),
        ("code = f(x)", None),
        ('code = f"{x}_invalid"', None),
    ],
)
def test_a_code_that_this_test_could_not_find_is_an_error(source: str, codes: set[str] | None) -> None:
    scope = ast.parse(source)
    assert codes_in(ast.Name(id="code"), scope) == codes
