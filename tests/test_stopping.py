"""Requests to stop: noted, said once, repeated to quit; and what worker processes make of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from training import stopping
from training.stopping import StopRequest

ROOT = Path(__file__).parent.parent
SAID = "finishing this step, then saving; Ctrl-C now quits at once"
PROGRAM = """
import logging, os, signal, time
from training.stopping import ECHO_S, StopRequest
logging.basicConfig(format="%(message)s")
def send(name): os.kill(os.getpid(), getattr(signal, name))
"""


def start(body: str) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM + body]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)


def run(body: str) -> tuple[int, str, str]:
    """Return exit code, output and errors of a program."""
    with start(body) as program:
        try:
            out, error = program.communicate(timeout=120)
        finally:
            program.kill()
    return program.returncode, out, error


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_request_is_noted_and_said_in_one_line(name):
    body = f"""
with StopRequest() as stop:
    print(stop.signal)
    send("{name}")
    print(stop.signal)
"""
    number = getattr(signal, name)
    assert run(body) == (0, f"None\n{number}\n", f"{name}: {SAID}\n")


def test_a_second_interrupt_quits_at_once():
    body = """
with StopRequest() as stop:
    try:
        send("SIGINT")
        time.sleep(1.2 * ECHO_S)
        send("SIGINT")
        print("went on")
    except KeyboardInterrupt:
        print("interrupted", stop.signal)
"""
    assert run(body) == (0, f"interrupted {signal.SIGINT}\n", f"SIGINT: {SAID}\n")


def test_an_interrupt_after_a_request_to_end_quits_too():
    body = """
with StopRequest() as stop:
    send("SIGTERM")
    time.sleep(1.2 * ECHO_S)
    try:
        send("SIGINT")
    except KeyboardInterrupt:
        print("interrupted", stop.signal)
"""
    assert run(body)[:2] == (0, f"interrupted {signal.SIGTERM}\n")


def test_an_echo_of_the_same_interrupt_does_not_quit():
    body = """
with StopRequest() as stop:
    for _ in range(3):
        send("SIGINT")
    print(stop.signal)
"""
    assert run(body) == (0, f"{signal.SIGINT}\n", f"SIGINT: {SAID}\n")


def test_a_scheduler_may_repeat_itself():
    body = """
with StopRequest() as stop:
    send("SIGINT")
    time.sleep(1.2 * ECHO_S)
    send("SIGTERM")
    send("SIGTERM")
    print(stop.signal)
"""
    assert run(body) == (0, f"{signal.SIGINT}\n", f"SIGINT: {SAID}\n")


def test_afterwards_signals_do_what_they_did():
    body = """
def theirs(number, frame): print("theirs", number)
signal.signal(signal.SIGTERM, theirs)
for _ in range(2):
    with StopRequest():
        send("SIGTERM")
    send("SIGTERM")
try:
    send("SIGINT")
except KeyboardInterrupt:
    print("interrupted")
"""
    theirs = f"theirs {signal.SIGTERM}\n"
    assert run(body) == (0, f"{theirs}{theirs}interrupted\n", f"SIGTERM: {SAID}\n" * 2)


def test_afterwards_they_do_so_too_where_the_block_failed():
    body = """
try:
    with StopRequest():
        raise ValueError
except ValueError:
    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
"""
    assert run(body) == (0, "True\nTrue\n", "")


def test_a_handler_that_python_did_not_set_becomes_the_usual_one(monkeypatch):
    # Python gives None for it, and does not take None.
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    original, seen = signal.signal, []

    def replaced(number, handler):
        seen.append((number, handler))
        original(number, handler)

    monkeypatch.setattr(stopping.signal, "signal", replaced)
    try:
        with StopRequest():
            pass
    finally:
        for number, handler in before.items():
            original(number, handler)
    assert seen[2:] == [(number, signal.SIG_DFL) for number in before]


def test_another_thread_leaves_signals_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with StopRequest() as stop:
            seen.append((signal.getsignal(signal.SIGINT), stop.signal))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, None)]


def test_a_forked_process_says_nothing_and_lives():
    body = """
with StopRequest() as stop:
    child = os.fork()
    if child == 0:
        send("SIGINT"); send("SIGTERM")
        os._exit(7 if stop.signal is None else 8)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), stop.signal)
"""
    assert run(body) == (0, "7 None\n", "")


# Workers of a DataLoader


@pytest.mark.parametrize("waits", [True, False])
def test_only_who_started_a_worker_ends_it(waits):
    body = f"""
from training.stopping import ignore_signals
if not {waits}:
    del signal.sigwaitinfo  # as on macOS: there SIGTERM ends it, whoever sends it
ready, told = os.pipe()
child = os.fork()
if child == 0:
    ignore_signals(0)
    send("SIGINT")
    if {waits}:
        send("SIGTERM")
    time.sleep(0.3)
    os.write(told, b"lives")
    time.sleep(60)
os.close(told)
print(os.read(ready, 5).decode())
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    end = 0 if waits else -signal.SIGTERM
    assert run(body) == (0, f"lives\n{end}\n", "")


WORKERS = """
import sys
from torch.utils.data import DataLoader
from training.stopping import ignore_signals
class Slow:
    def __len__(self): return 16
    def __getitem__(self, i):
        time.sleep(0.1)
        return i
how = {"num_workers": 2, "worker_init_fn": ignore_signals, "persistent_workers": True}
loader = DataLoader(Slow(), 2, **how)
with StopRequest() as stop:
    seen, step = [], iter(loader)
    seen += next(step).tolist()
    print(*(worker.pid for worker in step._workers), flush=True)
    for batch in step:
        seen += batch.tolist()
    print(stop.signal, len(seen), flush=True)
"""


@pytest.fixture
def program():
    """Start a program that reads 16 samples; yield it and the ids of its two workers."""
    with start(WORKERS) as program:
        try:
            yield program, [int(pid) for pid in program.stdout.readline().split()]
        finally:
            program.kill()


def runs(pids: Sequence[int]) -> list[int]:
    """Return which processes are still there."""
    there = []
    for pid in pids:
        try:
            os.kill(pid, 0)
            there.append(pid)
        except ProcessLookupError:
            pass
    return there


def test_workers_outlive_a_request_to_all_processes(program):
    program, workers = program
    os.killpg(program.pid, signal.SIGTERM)  # as a scheduler does
    time.sleep(0.2)  # of two at once Python takes the one of the lower number first
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does
    out, error = program.communicate(timeout=120)
    assert (program.returncode, out, error) == (
        0,
        f"{signal.SIGTERM} 16\n",
        f"SIGTERM: {SAID}\n",
    )
    # The loader was still there at the end of the program: Python then ends its workers by SIGTERM,
    # and waits for them.
    assert len(workers) == 2 and runs(workers) == []


def test_workers_end_with_a_trainer_that_was_killed(program):
    program, workers = program
    assert runs(workers) == workers
    os.killpg(program.pid, signal.SIGTERM)
    program.kill()
    program.wait()
    end = time.monotonic() + 60
    while runs(workers) and time.monotonic() < end:
        time.sleep(0.05)
    assert runs(workers) == []
