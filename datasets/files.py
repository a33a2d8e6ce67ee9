"""Files read and written, with errors that name them."""

from __future__ import annotations

from pathlib import Path

from utils import named


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        OSError: it names the file, whatever the system says
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except OSError as error:
        raise named(error, path) from None


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, which need not be at its place yet.

    Raises:
        OSError: it names the file
    """
    try:
        path.write_bytes(content)
    except OSError as error:
        raise named(error, path) from None


def describe(error: BaseException) -> str:
    """Return one line about an error: those of the system as `file: what is wrong`."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error)
