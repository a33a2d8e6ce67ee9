"""Files that only one process at a time works on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None


@contextmanager
def locked(path: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[bool]:
    """Hold the lock of this file, which is made if it is missing, and wait for it if need be.

    A killed process holds no lock any more. A file system without locks lets everybody in, so that
    what is written here has to be renamed into place nevertheless.

    Args:
        path: of the lock; it stays, since who takes it away could take it from another
        waiting: is called once if another process holds it

    Yields: whether it is held, so that nobody else is here
    """
    held = fcntl is not None
    with path.open("ab") as file:
        if held:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:  # a file system that has no locks
                held = False
        try:
            yield held
        finally:
            if held:
                # Closing is not enough: a process that was forked meanwhile has the file open too.
                fcntl.flock(file, fcntl.LOCK_UN)
