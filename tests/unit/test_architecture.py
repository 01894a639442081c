"""The package has one way to send, no import cycles, a client without Airflow, and the documented public names."""

from __future__ import annotations

import ast
import graphlib
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import airflow_provider_apptoto

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(airflow_provider_apptoto.__file__).parent
NAME = airflow_provider_apptoto.__name__
TESTS = sorted((PACKAGE.parent / "tests").rglob("test_*.py"))
PROGRAMS = {"tests.chaos", "tests.distributed"}
"""Programs that tests run in a shorter form."""
MAX_LINES = 360
"""Of a file: about 300, and none much longer."""
SOURCES = sorted(PACKAGE.rglob("*.py"))
BESIDES = {NAME, "airflow", "fastapi", "flask_appbuilder", "opentelemetry", "pytest", "typing_extensions", "wtforms"}
"""This package, Airflow and what comes with it, and pytest, which has loaded the plugin that imports it."""
PUBLIC = {
    "client": {
        "ApptotoAuthError",
        "ApptotoClient",
        "ApptotoConfigurationError",
        "ApptotoError",
        "ApptotoNotSentError",
        "ApptotoRejectedError",
        "ApptotoStoppedError",
        "ApptotoThrottledError",
        "ApptotoUnknownOutcomeError",
        "ApptotoValidationError",
        "Clock",
        "ConversationMessage",
        "DeliveryMode",
        "Event",
        "InProcessRateLimiter",
        "Message",
        "Outcome",
        "Participant",
        "RateLimiter",
        "RetryPolicy",
        "Routing",
        "SendResult",
    },
    "outbox": {"Delivery", "Outbox", "SendPolicy"},
    "operators.apptoto": {
        "ApptotoListEventsOperator",
        "ApptotoRetryPolicy",
        "ApptotoSendMessageBatchOperator",
        "ApptotoSendMessageOperator",
    },
}


def module_of(path: Path) -> str:
    parts = (NAME, *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield the imports of a module, except those for type checkers."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            todo.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module
        todo.extend(ast.iter_child_nodes(node))


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = {module_of(path): path for path in SOURCES}
    graph = {
        name: {found for found in imports(ast.parse(path.read_text())) if found in modules} - {name}
        for name, path in modules.items()
    }
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert len(order) == len(modules)


def test_only_the_outbox_sends() -> None:
    """The outbox keeps all promises, so another caller of the client's ``send`` would bypass them."""
    callers = {
        str(path.relative_to(PACKAGE)): found
        for path in SOURCES
        if (found := re.findall(r"(?:client|get_conn\(\)|_client)\.send\(", path.read_text()))
    }
    assert {path: len(found) for path, found in callers.items()} == {"outbox/exchange.py": 1}


@pytest.mark.parametrize("path", sorted((PACKAGE / "client").glob("*.py")), ids=lambda path: path.name)
def test_the_client_imports_nothing_of_airflow(path: Path) -> None:
    assert [name for name in imports(ast.parse(path.read_text())) if name.partition(".")[0] == "airflow"] == []


def test_what_the_package_imports_is_installed_with_it() -> None:
    """What only the sandbox imports is in its extra; the rest is a dependency, or comes with Airflow."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    of = {
        "": project["dependencies"],
        "sandbox": project["optional-dependencies"]["sandbox"],
        "ui": ["pydantic", "starlette"],
    }
    declared = {part: {re.split(r"[^\w-]", each)[0] for each in given} for part, given in of.items()}
    known = {
        name: {each.lower() for each in found} for name, found in importlib.metadata.packages_distributions().items()
    }
    for path in SOURCES:
        names = {name.partition(".")[0] for name in imports(ast.parse(path.read_text()))} - BESIDES
        allowed = declared[""] | declared.get(path.relative_to(PACKAGE).parts[0], set())
        missing = {name for name in names - sys.stdlib_module_names if allowed.isdisjoint(known.get(name, ()))}
        assert missing == set(), path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_can_be_read_at_a_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("name", ["client", "outbox"])
def test_a_public_package_exports_what_it_promises(name: str) -> None:
    module = importlib.import_module(f"{NAME}.{name}")
    assert set(module.__all__) == PUBLIC[name] == set(dir(module))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018  that it can't be read is the point


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_what_tests_share_stands_in_support(path: Path) -> None:
    """A test module imports no other test module; tests of a program may import the program."""
    program = ".".join(path.relative_to(PACKAGE.parent).parts[:2])
    allowed = {"tests.support", *({program} & PROGRAMS)}
    found = {
        ".".join(name.split(".")[:2]) for name in imports(ast.parse(path.read_text())) if name.startswith("tests.")
    }
    assert found <= allowed


def test_every_name_of_the_client_can_be_imported() -> None:
    module = importlib.import_module(f"{NAME}.client")
    assert {getattr(module, name).__name__ for name in module.__all__} == PUBLIC["client"]
