"""How command lines end."""

from __future__ import annotations

import pytest

from datasets.command import exit_code
from datasets.text import DataError


@pytest.mark.parametrize("code", [0, 1])
def test_the_code_is_that_of_the_task(capsys, code):
    assert exit_code("program", lambda: code, "all is lost") == code
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("x.txt, line 3: no number"), 2, "program: x.txt, line 3: no number\n"),
        (FileNotFoundError("x.txt: no such folder"), 2, "program: x.txt: no such folder\n"),
        (KeyboardInterrupt(), 130, "program: interrupted, all is as before\n"),
    ],
)
def test_what_went_wrong_is_one_line(capsys, error, code, line):
    def task():
        raise error

    assert exit_code("program", task, "all is as before") == code
    assert capsys.readouterr() == ("", line)


def test_a_fault_of_our_own_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_code("program", lambda: 1 // 0, "all is as before")
