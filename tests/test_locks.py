"""One process at a time, whatever becomes of the others."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datasets import locks
from datasets.locks import locked

ROOT = Path(__file__).parent.parent
PROGRAM = """
import sys
from pathlib import Path
from datasets.locks import locked
with locked(Path(sys.argv[1]), lambda: print("waits", flush=True)) as held:
    print("in", held, flush=True)
    sys.stdin.readline()
"""

pytestmark = pytest.mark.skipif(locks.fcntl is None, reason="this system has no such locks")


@pytest.fixture
def start():
    """Start processes that take a lock and give it back when they are told to."""
    processes = []

    def start(path):
        command = [sys.executable, "-c", PROGRAM, str(path)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=ROOT, text=True, bufsize=1, **pipes)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def says(process, timeout_s: float = 20) -> str:
    """Return the next line of a process, nothing if none comes."""
    ready, _, _ = select.select([process.stdout], [], [], timeout_s)
    return process.stdout.readline().strip() if ready else ""


@pytest.mark.parametrize("killed", [False, True], ids=["done", "killed"])
def test_a_second_process_waits_until_the_first_is(start, tmp_path, killed):
    first = start(tmp_path / "a.lock")
    assert says(first) == "in True"
    second = start(tmp_path / "a.lock")
    assert says(second) == "waits"
    assert says(second, timeout_s=0.1) == ""
    if killed:
        first.kill()
    else:
        first.stdin.write("\n")
    assert says(second) == "in True"


def test_locks_of_other_files_are_others(start, tmp_path):
    with locked(tmp_path / "a.lock"):
        assert says(start(tmp_path / "b.lock")) == "in True"


def is_free(path) -> bool:
    with path.open() as file:
        try:
            locks.fcntl.flock(file, locks.fcntl.LOCK_EX | locks.fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_lock_is_held_inside_alone_and_nobody_waits_for_a_free_one(tmp_path):
    path, waits = tmp_path / "a.lock", []
    for _ in range(2):
        with locked(path, lambda: waits.append(1)) as held:
            assert held and not is_free(path)
        assert is_free(path)
    with pytest.raises(ZeroDivisionError), locked(path):
        _ = 1 // 0
    assert is_free(path)
    assert waits == []


def test_the_file_of_a_lock_stays_as_it_was(tmp_path):
    (tmp_path / "a.lock").write_text("a note")
    with locked(tmp_path / "a.lock"):
        pass
    assert (tmp_path / "a.lock").read_text() == "a note"


def test_without_locks_everybody_is_let_in_and_told_so(tmp_path, monkeypatch):
    def unsupported(file, flags):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", unsupported)
    with locked(tmp_path / "a.lock") as first, locked(tmp_path / "a.lock") as second:
        assert (first, second) == (False, False)
    monkeypatch.setattr(locks, "fcntl", None)
    with locked(tmp_path / "a.lock") as first, locked(tmp_path / "a.lock") as second:
        assert (first, second) == (False, False)


def test_a_process_that_was_started_meanwhile_does_not_keep_it(tmp_path):
    path = tmp_path / "a.lock"
    with locked(path) as held:
        assert held
        child = os.fork()
        if child == 0:  # has the file open as well, as the workers of a DataLoader have
            time.sleep(60)
            os._exit(0)
    try:
        refused = []
        with locked(path, lambda: refused.append(True)) as held:
            assert held and not refused
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
