"""What a user gets of an evaluation: the text on the screen, and the files that were asked for."""

from __future__ import annotations

import errno
import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from evaluation.depth_run import Task, pictures_of
from evaluation.report import choose_pictures, write_report
from evaluation.results import DepthResult
from evaluation.summary import Summary
from evaluation.tables import (
    latex_row,
    text_histogram,
    text_table,
    write_csv,
    write_json,
    write_per_image,
)

PICTURES_EACH = 3
"""Of the best, the median and the worst images of a report."""


def make_folders(args: Namespace) -> None:
    """Make the folders of all files that the options name, before hours of work go to waste.

    Raises:
        OSError: it names the folder that cannot be made, or is where a file should be
    """
    for path in (args.json, args.csv, args.per_image):
        if path is None:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    for folder in (args.report, args.eval_out_dir):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)


def told(args: Namespace, result: DepthResult, summary: Summary) -> str:
    """Return what the screen shows: both kinds of errors, whichever were asked for."""
    parts = [text_table(summary)]
    if args.show_scale_hist:
        parts.append(text_histogram(result.ratio))
    return "\n\n".join([*parts, f"LaTeX: {latex_row(summary)}"])


def write_files(
    args: Namespace, task: Task, result: DepthResult, summary: Summary
) -> Iterator[Path]:
    """Write the files that the options name; yield each that is there.

    Raises:
        OSError: a file cannot be written; it is named
    """
    if args.json is not None:
        write_json(args.json, summary)
        yield args.json
    if args.csv is not None:
        write_csv(args.csv, summary)
        yield args.csv
    if args.per_image is not None:
        write_per_image(args.per_image, result)
        yield args.per_image
    if args.report is not None:
        chosen = choose_pictures(result, PICTURES_EACH)
        write_report(args.report, result, summary, pictures_of(task, result, chosen))
        yield args.report / "index.html"
