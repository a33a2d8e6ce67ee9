"""What the parsers of several programs share: how they are made, types, and groups of options."""

from __future__ import annotations

import math
import os
import re
import shlex
from argparse import (
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
    RawDescriptionHelpFormatter,
    _ArgumentGroup,
)
from collections.abc import Callable, Sequence
from pathlib import Path

Options = ArgumentParser | _ArgumentGroup
"""Where options are added to."""

DATASETS = ("kitti", "kitti_odom", "kitti_depth", "kitti_test")

_NOT_GIVEN = object()


def command(prog: str, description: str, epilog: str, usage: str | None = None) -> ArgumentParser:
    """Return a parser that keeps the lines of its texts, and knows options by their whole name."""
    return ArgumentParser(
        prog=prog,
        usage=usage,
        description=description,
        epilog=epilog,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def parse(parser: ArgumentParser, words: Sequence[str]) -> tuple[Namespace, frozenset[str]]:
    """Parse a command line, and tell what was given from what is a default.

    Returns:
        all options; the names of those that were given, whatever their value
    """
    defaults = vars(parser.parse_args([]))
    # argparse puts a default only where there is nothing yet.
    found = vars(parser.parse_args(words, Namespace(**dict.fromkeys(defaults, _NOT_GIVEN))))
    given = frozenset(name for name, value in found.items() if value is not _NOT_GIVEN)
    return Namespace(
        **{name: (found if name in given else defaults)[name] for name in found}
    ), given


def expand_files(parser: ArgumentParser, words: Sequence[str]) -> list[str]:
    """Replace each `@FILE` by the words in it; what cannot be read is the user's mistake.

    A line may hold several words, quoted as in a shell, blank lines and `# comments`. A file named
    in a file is looked for beside it. (argparse has `fromfile_prefix_chars`; it ends in a traceback
    where a file is no text or names itself.)
    """
    try:
        return _expand(words, Path(), ())
    except OSError as error:
        parser.error(f"@{error.filename}: {error.strerror}")
    except ValueError as error:
        parser.error(str(error))


def _expand(words: Sequence[str], beside: Path, within: tuple[str, ...]) -> list[str]:
    expanded = []
    for word in words:
        if not word.startswith("@"):
            expanded.append(word)
            continue
        file = beside / expand_user(Path(word[1:]))
        real = os.path.realpath(file)
        if real in within:
            raise ValueError(f"@{file}: the file reads itself, directly or through another")
        expanded += _expand(_words_of(file), file.parent, (*within, real))
    return expanded


def _words_of(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"@{file}: not text in UTF-8, expected options") from None
    words = []
    for number, line in enumerate(lines, start=1):
        try:
            words += _words_of_line(line)
        except ValueError as error:
            raise ValueError(f"@{file}, line {number}: {error}") from None
    return words


def _words_of_line(line: str) -> list[str]:
    # shlex's own comments would cut `run#2` in two; a shell's begin at the beginning of a word.
    for mark in re.finditer(r"(?<!\S)#", line):
        try:
            return shlex.split(line[: mark.start()])
        except ValueError:  # a quotation is open there, so the mark belongs to it
            continue
    return shlex.split(line)


def something(what: str) -> Callable[[str], str]:
    """Return the type of texts that are not empty."""

    def parse_something(text: str) -> str:
        if not text:  # a shell's variable without a value
            raise ArgumentTypeError(f"expected {what}, got ''")
        return text

    return parse_something


def folder(text: str) -> Path:
    """Read the path of a folder; Path alone would take '' for the current one."""
    return Path(something("a folder")(text))


def file(text: str) -> Path:
    """Read the path of a file."""
    return Path(something("a file")(text))


def plain_name(text: str) -> str:
    """Read the name of one folder, as opposed to a path."""
    if not text.strip() or text in (".", "..") or re.search(r"[/\\\0]", text):
        raise ArgumentTypeError(f"expected the plain name of a folder, got {text!r}")
    return text


def expand_user(path: Path) -> Path:
    """Replace a leading `~` by the home folder; a shell does not where the word is in a file.

    Raises:
        ValueError: nobody knows that home
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: no such home folder; write the path out") from None


def expand_paths(parser: ArgumentParser, args: Namespace) -> None:
    """Replace a leading `~` in all paths among the options, or end with the first it cannot be."""
    for name, value in vars(args).items():
        if isinstance(value, Path):
            try:
                setattr(args, name, expand_user(value))
            except ValueError as error:
                parser.error(str(error))


LARGEST = 2**62
"""No option is larger, and what is added to it fits into 64 bits."""


def whole(least: int, multiple_of: int = 1) -> Callable[[str], int]:
    """Return the type of whole numbers that are not below a limit, nor beyond all measure."""

    def parse_whole(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= LARGEST or value % multiple_of:
            kind = f"multiple of {multiple_of}" if multiple_of > 1 else "whole number"
            raise ArgumentTypeError(f"expected a {kind}, {least} or more, got {text!r}")
        return value

    return parse_whole


def number(
    least: float = 0.0,
    most: float = math.inf,
    *,
    above: bool = False,
    may_be_infinite: bool = False,
) -> Callable[[str], float]:
    """Return the type of numbers within limits.

    Args:
        least: the lower limit
        most: the upper limit, included
        above: whether the lower limit itself is refused
        may_be_infinite: whether `inf` is a number here
    """
    kind = f"more than {least:g}" if above else f"{least:g} or more"
    if most < math.inf:
        kind += f", {most:g} or less"

    def parse_number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        inside = least < value <= most or (value == least and not above)
        if not inside or (value == math.inf and not may_be_infinite):  # nan is nowhere inside
            raise ArgumentTypeError(f"expected a number, {kind}, got {text!r}")
        return value

    return parse_number


def add_data_path(options: Options) -> None:
    """Add where the data is."""
    options.add_argument(
        "--data_path",
        type=folder,
        default=Path("data/kitti/kitti_raw"),
        metavar="FOLDER",
        help="root of the data: holds DATE/DATE_drive_NNNN_sync, or sequences/NN for kitti_odom "
        "(default: %(default)s)",
    )


def add_kind_of_data(options: Options) -> None:
    """Add what kind of data it is."""
    options.add_argument(
        "--dataset",
        choices=DATASETS,
        default="kitti",
        help="raw data with LiDAR depth (synthetic drives too), odometry sequences, raw data with "
        "the improved depth, or the benchmark's test images (default: %(default)s)",
    )
    add_png(options)


def add_png(options: Options) -> None:
    """Add which kind of image is read."""
    options.add_argument(
        "--png",
        action="store_true",
        help="take .png where a folder has .jpg as well; a folder with one kind needs no option",
    )


def add_resolution(options: Options, side: Callable[[str], int] = int) -> None:
    """Add the size of the network's images; `side` reads a number of pixels."""
    options.add_argument(
        "--height", type=side, default=192, help="of the network's images (default: %(default)s)"
    )
    options.add_argument("--width", type=side, default=640, help="(default: %(default)s)")


def add_frames(options: Options) -> None:
    """Add which images a sample has."""
    options.add_argument(
        "--frame_ids",
        type=int,
        nargs="+",
        default=[0, -1, 1],
        metavar="OFFSET",
        help="images of a sample, counted from the target, 0 (default: 0 -1 1)",
    )
    options.add_argument(
        "--use_stereo", action="store_true", help="the other camera's image as well"
    )


def add_imu_filename(options: Options) -> None:
    """Add which packets of the IMU are read."""
    options.add_argument(
        "--imu_filename",
        type=something("the name of a file"),
        default="matched_oxts.txt",
        help="the packets in DRIVE_sync/matched_oxts, perhaps a noisy variant (default: "
        "%(default)s)",
    )


def add_choice_of_drives(options: Options, otherwise: str) -> None:
    """Add which drives are worked on; `otherwise` says which if neither option is given."""
    which = options.add_mutually_exclusive_group()
    which.add_argument(
        "--drives",
        nargs="+",
        metavar="DRIVE",
        help=f"like 2011_09_26_drive_0001; {otherwise} if not given",
    )
    which.add_argument("--split", help="the drives of a name in splits/ or of a folder")
