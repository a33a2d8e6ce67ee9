"""Whether networks have seen a drive in training: then its errors say little."""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from datasets.drives import Drive
from datasets.splits import DEPTH_SELECTION, ODOMETRY, read_split, split_folder
from datasets.text import DataError, at_line


def drives_of(options: Namespace, part: str = "train") -> frozenset[Drive] | str:
    """Return the raw drives of a list of the training, or a line that says why they are unknown.

    Odometry sequences are cut from raw drives: a network that was trained on one has seen both.

    Args:
        options: of `evaluation.weights.Weights`
        part: of `datasets.splits.PARTS`
    """
    if options.split is None:
        return "no opt.json says what the weights were trained on"
    try:
        split = read_split(split_folder(options.split) / f"{part}_files.txt")
        _, first = np.unique(split.drive, return_index=True)
        drives = set()
        for name, line in zip(split.folders, split.line[first].tolist(), strict=True):
            if name.startswith(DEPTH_SELECTION):  # single images, of drives that nobody knows
                continue
            try:
                drives.add(Drive.parse(ODOMETRY[name].drive if name in ODOMETRY else name))
            except DataError as error:
                raise at_line(split.path, line, str(error)) from None
    except (DataError, OSError) as error:
        return f"the {part} list of the training cannot be read: {error}"
    return frozenset(drives)


def leakage(drive: Drive | None, options: Namespace) -> tuple[bool | None, str]:
    """Return whether a raw drive was trained on, None where that is unknown, and say it in words.

    The words also say where a training that keeps its best weights chose them by this drive.

    Args:
        drive: the raw drive, also that of a sequence; None where it is unknown
        options: of `evaluation.weights.Weights`
    """
    seen = drives_of(options)
    if isinstance(seen, str):
        return None, f"unknown: {seen}"
    if drive is None:
        return None, "unknown: nobody knows which raw drive this sequence is cut from"
    if drive in seen:
        return True, f"SEEN IN TRAINING: {drive} is in the training list of {options.split}"
    words = f"not trained on: {drive} is not in the training list of {options.split}"
    validated = drives_of(options, "val")
    if not isinstance(validated, str) and drive in validated:
        words += ", but in its validation list, by which `best` weights are chosen"
    return False, words
