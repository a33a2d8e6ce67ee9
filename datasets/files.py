"""Files read and written whole, with errors that name them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


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
        raise _named(error, path) from None


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, which need not be at its place yet.

    Raises:
        OSError: it names the file
    """
    try:
        path.write_bytes(content)
    except OSError as error:
        raise _named(error, path) from None


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that is at its place when all has been written, and not before."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            yield file
        unfinished.replace(path)
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise _named(error, path) from None
    finally:
        unfinished.unlink(missing_ok=True)


def describe(error: BaseException) -> str:
    """Return one line about an error: those of the system as `file: what is wrong`."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error)


def _named(error: OSError, path: Path) -> OSError:
    """Return the error with its file, which a full or a broken disk does not say."""
    return OSError(error.errno, error.strerror, str(path))
