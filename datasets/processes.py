"""Work on several drives, or parts of one, at once: each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import TypeVar

from datasets.text import DataError

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def in_processes(
    work: Callable[[_Job], _Result], jobs: Sequence[_Job], workers: int
) -> Iterator[_Result]:
    """Yield the result of each job in order, worked on by so many processes, or by this one.

    When this generator is closed, or its process is gone, the others end at once, whatever they are
    at.
    """
    if workers < 1:
        raise DataError(f"workers: expected at least 1, got {workers}")
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(work, jobs)
        return
    # Started afresh, not forked: a fork of a process with threads (torch's, tqdm's) may hang.
    context = multiprocessing.get_context("spawn")
    # Nobody writes into this pipe. It has ended for the workers when its only end to write into is
    # closed: below, or by the system when this process is gone.
    ended, alive = context.Pipe(duplex=False)
    with ended, alive, ProcessPoolExecutor(workers, context, _end_with, (ended,)) as executor:
        try:
            # Not executor.map, which cancels jobs: a pool that breaks then stumbles over them.
            with _deaf_to_interrupts():
                futures = deque(executor.submit(work, job) for job in jobs)
            while futures:
                yield futures.popleft().result()
        except BrokenProcessPool:
            raise DataError(
                "a worker process was killed, perhaps for lack of memory: try fewer --workers"
            ) from None
        except BaseException:
            alive.close()  # else all jobs that have begun, and some more, would be waited for
            raise


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Start processes that pass over Ctrl-C: this one ends them, and says so in one line."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which new processes take over
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_with(pipe: Connection) -> None:
    """Let this process end when nobody can write into the pipe any more."""

    def wait() -> None:
        with suppress(EOFError):
            pipe.recv_bytes()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
