"""What a user gets of an evaluation: the text on the screen, and the files that were asked for."""

from __future__ import annotations

from argparse import Namespace

from evaluation.depth_run import Task, pictures_of
from evaluation.report import choose_pictures, write_report
from evaluation.results import DepthResult
from evaluation.summary import summarise
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
        OSError: it names the folder that cannot be made
    """
    for path in (args.json, args.csv, args.per_image):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    for folder in (args.report, args.eval_out_dir):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)


def publish(args: Namespace, task: Task, result: DepthResult) -> str:
    """Write the files that the options name, and return the text to be printed.

    Raises:
        OSError: a file cannot be written; it is named
    """
    summary = summarise(result)
    parts = [text_table(summary)]
    if args.show_scale_hist:
        parts.append(text_histogram(result.ratio))
    parts.append(f"LaTeX: {latex_row(summary)}")
    written = []
    if args.json is not None:
        write_json(args.json, summary)
        written.append(args.json)
    if args.csv is not None:
        write_csv(args.csv, summary)
        written.append(args.csv)
    if args.per_image is not None:
        write_per_image(args.per_image, result)
        written.append(args.per_image)
    if args.report is not None:
        chosen = choose_pictures(result, PICTURES_EACH)
        write_report(args.report, result, summary, pictures_of(task, result, chosen))
        written.append(args.report / "index.html")
    if written:
        parts.append("\n".join(f"written: {path}" for path in written))
    return "\n\n".join(parts)
