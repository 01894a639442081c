"""The check of ``make distributed`` reports each kind of broken promise, and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.distributed.checker import Observed, Result, broken

END = Observed(copies=Counter(range(4)), named=frozenset())
KEPT = Result(
    messages=4,
    first=Observed(copies=Counter([0, 1, 2]), named=frozenset({2, 3})),
    cleared=END,
    cleared_again=END,
    tries_killed=1,
    requests_killed=2,
    away=10.0,
    restarts=Counter(),
    resolved=Counter(sent=1, not_sent=1),
    most={1.0: 2, 60.0: 90},
    agreed={1.0: 2, 60.0: 90},
    refused=0,
    by_worker=Counter(w1=2, w2=1),
    seconds=200.0,
)


def test_a_run_that_keeps_all_promises_is_reported_as_such() -> None:
    assert broken(KEPT) == []


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (
            replace(KEPT, cleared_again=replace(END, copies=END.copies + Counter([1]))),
            "cleared again: person 1 (batch) got 2 copies",
        ),
        (
            replace(KEPT, first=replace(KEPT.first, named=frozenset({2}))),
            "first: person 3 (mapped) got nothing, but is reported as sent",
        ),
        (
            replace(KEPT, cleared=replace(END, copies=END.copies - Counter([0]))),
            "cleared: person 0 (batch) got nothing",
        ),
        (replace(KEPT, cleared=replace(END, named=frozenset({2}))), "cleared: person 2 (mapped) is reported as failed"),
        (replace(KEPT, most={1.0: 3, 60.0: 90}), "3 requests came within 1 s, and 2 were agreed"),
        (replace(KEPT, by_worker=Counter(w1=3)), "only w1 sent"),
    ],
    ids=["two copies", "lost", "nothing after a clear", "failed after a clear", "too fast", "one worker"],
)
def test_a_broken_promise_is_named(result: Result, line: str) -> None:
    assert broken(result) == [line]
