"""Changes the package in small ways, a mutant each, and lists which of them no test notices: ``make mutation``.

A mutant that no test kills has one of three reasons. It changes the wording of a text, which ``texts.txt`` holds: it
counts as noticed. Or ``survivors.txt`` gives a reason for its function. Or a test is missing, and the program fails.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).parents[2]
REASONS = ROOT / "tests" / "data" / "survivors.txt"
"""A line for each function with mutants that no test can or need notice: its name, a colon, the reason."""
PARTS = ("outbox", "batch.sending", "batch.ending", "batch.plan")
_PACKAGE = "airflow_provider_apptoto."
_KILLED = {"killed", "timeout"}
_NAME = re.compile(r"(?P<module>.+)\.x(?:ǁ(?P<cls>\w+)ǁ|_)(?P<function>\w+)__mutmut_\d+")
_STRING = re.compile(r"""[rf]*(?P<quote>"{3}|'{3}|"|')(?:\\.|(?!(?P=quote)).)*(?P=quote)""")

_VALUE = re.compile(r"{[^}]*}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A change of one function.

    :param status: ``killed``, ``timeout``, ``survived``, ``no tests``...
    :param diff: what it changes, if no test killed it.
    """

    name: str
    status: str
    diff: str = ""

    @property
    def module(self) -> str:
        return self._parts()[0]

    @property
    def function(self) -> str:
        return ".".join(self._parts())

    @property
    def is_noticed(self) -> bool:
        return self.status in _KILLED or is_wording(self.diff)

    @property
    def path(self) -> Path:
        """Its file, relative to the checkout."""
        path = Path(*f"{_PACKAGE}{self.module}".split("."))
        return path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")

    def _parts(self) -> tuple[str, str]:
        found = _NAME.fullmatch(self.name.removeprefix(_PACKAGE))
        assert found is not None, self.name
        return found["module"], ".".join(filter(None, (found["cls"], found["function"])))


def is_wording(diff: str) -> bool:
    """Return whether a diff changes nothing but the words of texts: no name, code or value that is put in."""
    before, after = (
        "\n".join(line[1:] for line in diff.splitlines() if line.startswith(sign) and not line.startswith(sign * 3))
        for sign in "-+"
    )
    pairs = zip(_STRING.finditer(before), _STRING.finditer(after), strict=False)
    changed = [(was[0], now[0]) for was, now in pairs if was[0] != now[0]]
    return (
        bool(changed)
        and _STRING.sub("''", before) == _STRING.sub("''", after)
        and all(re.search(r"\s|\\n", was) and _VALUE.findall(was) == _VALUE.findall(now) for was, now in changed)
    )


def results() -> list[Mutant]:
    """Return all mutants of the last run."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    command = [sys.executable, "-m", "mutmut", "results", "--all", "true"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()
    mutants = [
        Mutant(name=name, status=status) for name, _, status in (line.strip().rpartition(": ") for line in lines)
    ]
    return [
        each if each.is_noticed else replace(each, diff=get_diff_for_mutant(each.name, path=each.path))
        for each in mutants
    ]


def scores(mutants: list[Mutant]) -> str:
    """Return a table of the modules, and of the parts that have a goal."""
    count: defaultdict[str, Counter[bool]] = defaultdict(Counter)
    for mutant in mutants:
        for name in {mutant.module, *(part for part in PARTS if f"{mutant.module}.".startswith(f"{part}."))}:
            count[name][mutant.is_noticed] += 1
    rows = [
        (name, each.total(), each[False], f"{each[True] / each.total():.0%}") for name, each in sorted(count.items())
    ]
    return tabulate(rows, headers=["module", "mutants", "not noticed", "score"])


def main() -> int:
    """Run all mutants, print the scores and what is unexplained, and return the exit code."""
    subprocess.run([sys.executable, "-m", "mutmut", "run"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    mutants = results()
    print(scores(mutants))
    reasons = dict(line.split(": ", 1) for line in REASONS.read_text().splitlines() if line)
    survivors = [mutant for mutant in mutants if not mutant.is_noticed]
    unexplained = [mutant for mutant in survivors if mutant.function not in reasons]
    for mutant in unexplained:
        print(f"\n{mutant.name}: {mutant.status}\n{mutant.diff}")
    print(f"\n{len(survivors)} not noticed, {len(unexplained)} of them without a reason")
    return int(bool(unexplained))


if __name__ == "__main__":
    sys.exit(main())
