"""Lines and numbers from text files: what is read, and how an error names its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import text


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_lines_lose_their_ends_and_blank_lines_at_the_end_only(tmp_path, newline):
    path = tmp_path / "file.txt"
    path.write_bytes(newline.join(["one", "", " two", "", "  "]).encode())
    assert text.read_lines(path) == ["one", "", " two"]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    path = tmp_path / "file.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n")
    assert text.read_lines(path) == ["one"]


def test_a_file_that_is_not_text_is_refused_with_its_line(tmp_path):
    path = tmp_path / "file.txt"
    path.write_bytes(b"fine\nfine\n\xff\xfe")
    with pytest.raises(text.DataError, match=r"file\.txt, line 3: not text in UTF-8$"):
        text.read_lines(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^\S*absent\.txt: no such file$"):
        text.read_lines(tmp_path / "absent.txt")


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_come_back_as_written(numbers):
    assert text.parse_numbers(" ".join(map(repr, numbers)), len(numbers)) == numbers


@pytest.mark.parametrize("wrong", ["1_0", "nan", "inf", "-Infinity", "1e999", "x", "٣", "1-2", "+"])
def test_what_is_not_a_finite_number_is_named(wrong):
    with pytest.raises(text.DataError) as caught:
        text.parse_numbers(f"1 {wrong} 3", 3, ("a", "b", "c"))
    assert str(caught.value) == f"number 2 (b) is {wrong!r}, expected a finite number"


@pytest.mark.parametrize("line", ["", "1 2", "1 2 3 4"])
def test_another_count_of_numbers_is_refused(line):
    with pytest.raises(text.DataError, match=f"^expected 3 numbers, got {len(line.split())}$"):
        text.parse_numbers(line, 3)


def test_a_long_text_is_cut_in_an_error():
    assert len(text.shown("x" * 1000)) < 60
    assert text.shown("a'b") == repr("a'b")
