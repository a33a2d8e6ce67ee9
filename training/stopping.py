"""Stop between two steps when somebody, or the machine's scheduler, asks for it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

_log = logging.getLogger(__name__)

_SIGNALS = signal.SIGINT, signal.SIGTERM

ECHO_S = 0.5
"""What comes again within this time is the same request: one Ctrl-C reaches a process from the
terminal and from torchrun. Nobody presses twice as fast and means it."""


class StopRequest:
    """Note SIGINT and SIGTERM instead of dying of them; the training asks at the end of a step.

    A second SIGINT quits at once, with a KeyboardInterrupt. A second SIGTERM does not: schedulers
    repeat it, and end with a signal that nobody can pass over.

    Attributes:
        signal: the number of the first signal, None before it
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        # Python allows no other thread to do this; there is somebody else to stop the process.
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            # None is a handler that was not set from Python; it cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a worker that was forked from here: its reading is still needed
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
            name = signal.Signals(number).name
            _log.warning("%s: finishing this step, then saving; Ctrl-C now quits at once", name)
        elif number == signal.SIGINT and time.monotonic() - self._since >= ECHO_S:
            signal.signal(number, signal.default_int_handler)
            signal.default_int_handler(number, frame)


def ignore_signals(worker_id: int) -> None:
    """Let a worker of a `DataLoader` outlive a request to stop, which reaches all processes.

    The step that is finished may need its batch. Only the process that started it ends it.

    Args:
        worker_id: as a `worker_init_fn` gets it; all do the same
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # as on macOS
        return
    # Ignoring SIGTERM would leave the trainer no way to end this process: at its own end it waits
    # for it. A handler in Python does not learn who sent a signal; who waits for one does.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_by_parent, args=(os.getppid(),), daemon=True).start()


def _end_by_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
