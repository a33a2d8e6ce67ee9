"""Work on several drives, or parts of one, at once: each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from datasets.text import DataError

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def in_processes(
    work: Callable[[_Job], _Result], jobs: Sequence[_Job], workers: int
) -> Iterator[_Result]:
    """Yield the result of each job in order, worked on by so many processes."""
    if workers < 1:
        raise DataError(f"workers: expected at least 1, got {workers}")
    workers = min(workers, len(jobs))
    if workers == 1:
        yield from map(work, jobs)
        return
    # Started afresh, not forked: a fork of a process with threads (torch's, tqdm's) may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as executor:
        try:
            yield from executor.map(work, jobs)
        except BrokenProcessPool:
            raise DataError(
                "a worker process was killed, perhaps for lack of memory: try fewer --workers"
            ) from None


def _end_with_parent() -> None:
    """Let this process end when the one that started it is gone, killed without a word."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
