"""Parsers: what was given and what is a default, options in files, and types with limits."""

from __future__ import annotations

import math
import shlex
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.layouts import LAYOUTS
from option_groups import shared


@pytest.fixture
def parser() -> ArgumentParser:
    parser = shared.command("train.py", description="Train\nit.", epilog="the end", usage="u")
    parser.add_argument("--rate", type=float, default=0.5)
    parser.add_argument("--name", default="a")
    parser.add_argument("--ids", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--flag", action="store_true")
    return parser


def error_of(capsys, call, *arguments) -> str:
    with pytest.raises(SystemExit) as stopped:
        call(*arguments)
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("usage: ")
    return lines[1]


def test_a_parser_keeps_lines_and_guesses_no_option(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    printed = capsys.readouterr().out
    assert "usage: u\n" in printed and "Train\nit." in printed and printed.endswith("the end\n")
    assert "unrecognized arguments: --rat" in error_of(capsys, parser.parse_args, ["--rat", "1"])


def test_without_words_all_is_a_default(parser):
    args, given = shared.parse(parser, [])
    assert vars(args) == {"rate": 0.5, "name": "a", "ids": [0, 1], "flag": False}
    assert not given


def test_what_equals_its_default_was_given_all_the_same(parser):
    words = "--rate 0.5 --name a --ids 0 1 --flag".split()
    args, given = shared.parse(parser, words)
    assert vars(args) == vars(shared.parse(parser, [])[0]) | {"flag": True}
    assert given == {"rate", "name", "ids", "flag"}


def test_what_is_wrong_remains_argparse_s_to_say(parser, capsys):
    message = "train.py: error: argument --rate: invalid float value: 'x'"
    assert error_of(capsys, shared.parse, parser, ["--rate", "x"]) == message


def test_a_file_stands_for_the_words_in_it(parser, tmp_path):
    file = tmp_path / "options.txt"
    file.write_text(
        "# What this is: don't mind the apostrophe\n"
        "\n"
        "--rate 0.25   --flag # it's how it was\n"
        "   --name 'two words' \n"
        '--ids\n1 2\n"3"\n',
        encoding="utf-8",
    )
    words = shared.expand_files(parser, ["--rate", "1", f"@{file}", "--name", "b"])
    assert words == (
        "--rate 1 --rate 0.25 --flag --name".split() + ["two words", "--ids", "1", "2", "3"]
    ) + ["--name", "b"]
    args, given = shared.parse(parser, words)
    assert (args.rate, args.name, args.ids, args.flag) == (0.25, "b", [1, 2, 3], True)
    assert given == {"rate", "name", "ids", "flag"}


@given(st.lists(st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")))))
def test_any_words_survive_the_quotes_of_a_shell(tmp_path_factory, words):
    file = tmp_path_factory.getbasetemp() / "quoted.txt"
    plain = [word for word in words if not word.startswith("@")]
    file.write_text(f"{shlex.join(plain)} # all\n", encoding="utf-8")
    assert shared.expand_files(ArgumentParser(), [f"@{file}"]) == plain


@pytest.mark.parametrize(
    "line, words",
    [
        ("--name run#2", ["--name", "run#2"]),
        ("--name 'a # b' # c", ["--name", "a # b"]),
        ("#--flag", []),
        ("--flag #", ["--flag"]),
        ("--name \"it's\" # don't", ["--name", "it's"]),
        (r"--name a\ b", ["--name", "a b"]),
        ("", []),
    ],
)
def test_a_comment_begins_where_a_word_would(tmp_path, line, words):
    (tmp_path / "a.txt").write_text(line, encoding="utf-8-sig")
    assert shared.expand_files(ArgumentParser(), [f"@{tmp_path / 'a.txt'}"]) == words


def test_a_file_in_a_file_is_beside_it(parser, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("--rate 1\n@b.txt\n@../c.txt --flag")
    (tmp_path / "sub" / "b.txt").write_text("--name b")
    (tmp_path / "c.txt").write_text("--ids 7")
    words = shared.expand_files(parser, [f"@{tmp_path}/sub/a.txt", f"@{tmp_path}/c.txt"])
    assert words == "--rate 1 --name b --ids 7 --flag --ids 7".split()


def test_a_file_is_found_at_home(parser, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("--flag")
    assert shared.expand_files(parser, ["@~/a.txt"]) == ["--flag"]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("none.txt", None, "No such file or directory"),
        ("", None, "Is a directory"),
        ("a.txt", b"--flag\n--name 'a", ", line 2: No closing quotation"),
        ("a.txt", b"\xff\xfe\x00", ": not text in UTF-8, expected options"),
        ("a.txt", b"--flag @a.txt", ": the file reads itself, directly or through another"),
        ("a.txt", b"@../folder/a.txt", ": the file reads itself, directly or through another"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(parser, tmp_path, capsys, name, content, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    if content is not None:
        (folder / name).write_bytes(content)
    error = error_of(capsys, shared.expand_files, parser, [f"@{folder}/{name}"])
    assert error.startswith(f"train.py: error: @{folder}") and error.endswith(message)


def test_the_home_of_nobody_is_one_line(parser, capsys):
    error = error_of(capsys, shared.expand_files, parser, ["@~nobody_of_this_name/a.txt"])
    assert "no such home folder; write the path out" in error


def test_a_path_without_a_home_stays():
    assert shared.expand_user(Path("a/~b")) == Path("a/~b")


@pytest.mark.parametrize(
    "kind, good",
    [
        (shared.folder, {"raw": Path("raw"), "a b/c": Path("a b/c")}),
        (shared.file, {"a.pth": Path("a.pth")}),
        (shared.something("a split"), {"odom": "odom", " ": " "}),
        (shared.plain_name, {"r18": "r18", "a b": "a b", "..a": "..a", "a#1": "a#1"}),
        (shared.whole(0), {"0": 0, "12": 12}),
        (shared.whole(3), {"3": 3}),
        (shared.whole(32, multiple_of=32), {"32": 32, "640": 640}),
        (shared.number(), {"0": 0.0, "1e-4": 1e-4, "1e300": 1e300}),
        (shared.number(above=True), {"1e-300": 1e-300, "7": 7.0}),
        (shared.number(most=0.5), {"0": 0.0, "0.5": 0.5}),
        (shared.number(above=True, may_be_infinite=True), {"inf": math.inf, "5": 5.0}),
    ],
)
def test_a_type_reads_what_is_within_its_limits(kind, good):
    for text, value in good.items():
        assert kind(text) == value and type(kind(text)) is type(value)


@pytest.mark.parametrize(
    "kind, bad, message",
    [
        (shared.folder, [""], "expected a folder, got"),
        (shared.file, [""], "expected a file, got"),
        (shared.something("a split"), [""], "expected a split, got"),
        (
            shared.plain_name,
            ["", " ", ".", "..", "a/b", "/", "a/", "a\\b", "a\0"],
            "expected the plain name of a folder, got",
        ),
        (shared.whole(0), ["-1", "x", "1.5", "", "inf"], "expected a whole number, 0 or more, got"),
        (shared.whole(1), ["0", "nan"], "expected a whole number, 1 or more, got"),
        (
            shared.whole(32, multiple_of=32),
            ["0", "-32", "33", "190"],
            "expected a multiple of 32, 32 or more, got",
        ),
        (shared.number(), ["-1e-9", "nan", "inf", "x", ""], "expected a number, 0 or more, got"),
        (
            shared.number(above=True),
            ["0", "-0.0", "-1", "inf"],
            "expected a number, more than 0, got",
        ),
        (shared.number(most=0.5), ["0.51", "-1"], "expected a number, 0 or more, 0.5 or less, got"),
        (
            shared.number(above=True, may_be_infinite=True),
            ["-inf", "nan", "0"],
            "expected a number, more than 0, got",
        ),
    ],
)
def test_a_type_refuses_what_is_beyond_its_limits(kind, bad, message):
    for text in bad:
        with pytest.raises(ArgumentTypeError) as refused:
            kind(text)
        assert str(refused.value) == f"{message} {text!r}"


def test_the_datasets_are_those_that_can_be_read():
    assert set(shared.DATASETS) == set(LAYOUTS)


def test_groups_can_be_added_to_a_parser_and_to_a_group():
    parser = ArgumentParser()
    for options in (parser, ArgumentParser().add_argument_group("data")):
        shared.add_data_path(options)
        shared.add_kind_of_data(options)
        shared.add_resolution(options, shared.whole(32, multiple_of=32))
        shared.add_frames(options)
        shared.add_imu_filename(options)
        shared.add_choice_of_drives(options, "all")
    assert parser.parse_args(["--frame_ids", "-1", "0"]).frame_ids == [-1, 0]
    with pytest.raises(SystemExit):
        parser.parse_args(["--height", "100"])
