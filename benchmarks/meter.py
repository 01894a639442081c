"""Measure CPU time and memory, of this process or of a tree of processes."""

from __future__ import annotations

import contextlib
import re
import resource
import threading
from typing import Self

import psutil

_TASK = re.compile(r"airflow worker -- [0-9a-f-]{36}")
"""Title of a process that runs a task."""


def cpu_seconds() -> float:
    """Return the user and system time of this process, with all its threads and the children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


class Meter:
    """Measures the CPU time and memory of a tree of processes.

    :param root: the oldest process of the tree.
    """

    def __init__(self, root: psutil.Process) -> None:
        self._root = root
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.max_resident = 0
        """Peak resident memory of any task process, in bytes."""
        self.idle = 0.0
        """CPU seconds per second while nothing runs."""

    def __enter__(self) -> Self:
        """Start watching the memory."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching the memory."""
        self._ended.set()
        self._thread.join()

    def cpu(self) -> float:
        """Return the CPU seconds of all running processes and of the children that they waited for."""
        total = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])  # user and system time, also of children
        return total

    def _processes(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]

    def _watch(self) -> None:
        while not self._ended.wait(0.3):
            for process in self._processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if _TASK.fullmatch(" ".join(process.cmdline()).strip()):
                        self.max_resident = max(self.max_resident, process.memory_info().rss)
