"""What all readers of text files share: lines, numbers, and errors that name file and line."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from datasets.files import read_bytes
from utils import UserError

# float() knows more than numbers in a data file may be: 1_000, nan, infinity, digits of any script.
_NUMERIC = re.compile(r"[-+.0-9eE\s]*", re.ASCII)
_SHOWN = 40  # characters of a wrong text that an error repeats


class DataError(UserError):
    """Something that the user gave is wrong; the message is one line that says what and where."""


def at_line(path: Path, line: int, message: str) -> DataError:
    """Return the error for a line of a file, counted from 1."""
    return DataError(f"{path}, line {line}: {message}")


def read_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 file, LF or CRLF, without a BOM and blank lines at its end."""
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise at_line(path, line, "not text in UTF-8") from None
    lines = [line.rstrip("\r") for line in text.split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def parse_numbers(text: str, count: int, names: Sequence[str] = ()) -> list[float]:
    """Read finite numbers that blanks part from each other.

    Args:
        text: one line
        count: how many numbers there must be
        names: what an error calls each of them

    Raises:
        DataError: says which number is wrong; the caller knows the file
    """
    fields = text.split()
    if len(fields) != count:
        raise DataError(f"expected {count} numbers, got {len(fields)}")
    if _NUMERIC.fullmatch(text):
        try:
            numbers = list(map(float, fields))
        except ValueError:
            numbers = [math.nan]
        if math.isfinite(sum(numbers)):
            return numbers
    return [_parse_number(field, i, names) for i, field in enumerate(fields)]


def shown(text: str) -> str:
    """Quote a text of the user's for an error, the beginning of it if it is long."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def _parse_number(field: str, i: int, names: Sequence[str]) -> float:
    try:
        number = float(field) if _NUMERIC.fullmatch(field) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        name = f" ({names[i]})" if names else ""
        raise DataError(f"number {i + 1}{name} is {shown(field)}, expected a finite number")
    return number
