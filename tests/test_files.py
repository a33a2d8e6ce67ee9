"""Files read and written whole, and errors that name them."""

from __future__ import annotations

import errno
import os

import pytest

from datasets.files import describe, read_bytes, write_bytes
from utils import written_whole


def test_what_is_written_reads_back(tmp_path):
    write_bytes(tmp_path / "a", b"1\r\n\0")
    assert read_bytes(tmp_path / "a") == b"1\r\n\0"


def test_every_error_names_the_file(tmp_path):
    path = tmp_path / "missing" / "a"
    with pytest.raises(FileNotFoundError) as missing:
        read_bytes(path)
    assert str(missing.value) == f"{path}: no such file"
    for failing in (lambda: write_bytes(path, b""), lambda: read_bytes(tmp_path)):
        with pytest.raises(OSError) as error:
            failing()
        assert describe(error.value).startswith(f"{tmp_path}")


def test_a_disk_that_is_full_is_named_and_leaves_nothing(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(OSError) as error, written_whole(path) as file:
        file.write(b"new")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert describe(error.value) == f"{path}: no space left on device"
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_a_file_is_at_its_place_when_all_is_written(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with written_whole(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("as it is"), "as it is"),
        (FileNotFoundError("a: no such file"), "a: no such file"),
        (PermissionError(errno.EACCES, "Permission denied", "a b"), "a b: permission denied"),
    ],
)
def test_an_error_is_one_line(error, line):
    assert describe(error) == line


def test_a_file_that_cannot_be_begun_is_called_by_its_own_name(tmp_path):
    for path in (tmp_path / "none" / "a.pth", tmp_path):
        with pytest.raises(OSError) as error, written_whole(path):
            pass
        assert error.value.filename == str(path)
