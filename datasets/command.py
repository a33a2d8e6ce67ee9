"""How a command line ends: with the exit code of its task, and a user's mistake in one line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from datasets.files import describe
from utils import UserError


def exit_code(program: str, task: Callable[[], int], interrupted: str) -> int:
    """Do a task and return its exit code; 2 for a user's mistake, 130 after an interrupt.

    Args:
        program: begins the line that says what was wrong
        task: returns an exit code
        interrupted: how things are when it was
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return task()
    except (UserError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader of a pipe, like head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        print(f"{program}: {describe(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted, {interrupted}", file=sys.stderr)
        return 130
