"""Work in processes: in order, refused in one line, and ended with who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datasets.command import exit_code
from datasets.processes import in_processes
from datasets.text import DataError

ROOT = Path(__file__).parent.parent


def test_results_come_in_the_order_of_the_jobs():
    assert list(in_processes(abs, [-3, 2, -1], 1)) == [3, 2, 1]
    assert list(in_processes(abs, [-3, 2, -1], 2)) == [3, 2, 1]


def test_at_least_one_process_is_needed():
    with pytest.raises(DataError, match="workers: expected at least 1, got 0"):
        list(in_processes(abs, [1], 0))


def test_a_killed_worker_ends_in_one_line():
    with pytest.raises(DataError, match="a worker process was killed"):
        list(in_processes(_die, [1, 1], 2))


def _die(job):
    os._exit(9)


def test_workers_end_with_the_process_that_started_them():
    command = [sys.executable, "-c", "import tests.test_processes as t; t._start_workers()"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        assert all(map(_runs, workers))
        parent.kill()
        parent.wait()
        end = time.monotonic() + 20
        while any(map(_runs, workers)) and time.monotonic() < end:
            time.sleep(0.05)
        assert not any(map(_runs, workers))


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_workers_end_when_the_caller_stops_whatever_they_are_at(error):
    began = time.monotonic()
    with pytest.raises(error):
        for _ in in_processes(time.sleep, [0, 30, 30, 30, 30], 2):
            raise error
    assert time.monotonic() - began < 10


def test_workers_pass_over_interrupts_and_this_process_does_not():
    before = signal.getsignal(signal.SIGINT)
    assert list(in_processes(_hears_interrupts, [0, 0], 2)) == [False, False]
    assert signal.getsignal(signal.SIGINT) == before != signal.SIG_IGN


def _hears_interrupts(job):
    return signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def test_an_interrupt_while_workers_start_is_one_line():
    code = "import tests.test_processes as t; t._interruptible()"
    command = [sys.executable, "-c", code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes) as parent:
        assert parent.stdout.readline() == "starting\n"
        time.sleep(0.3)  # the workers are importing what they need
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
        assert parent.stderr.read() == "command: interrupted, nothing was done\n"


def _interruptible():
    print("starting", flush=True)
    exit_code("command", lambda: list(in_processes(_say_and_sleep, [1, 1], 2)), "nothing was done")


def _start_workers():
    list(in_processes(_say_and_sleep, [1, 1], 2))


def _say_and_sleep(job):
    os.write(1, f"{os.getpid()}\n".encode())  # in one piece, whatever the other says
    time.sleep(60)


def _runs(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
