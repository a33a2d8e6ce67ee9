"""What an evaluation of odometry found, as a table and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from evaluation.odometry import ESTIMATES, Errors
from metrics import ALIGNMENTS, SEGMENTS_M, SNIPPET, TrajectoryErrors

_COLUMNS = (
    ("t_rel", "%", "t_rel_percent", ".2f"),
    ("r_rel", "deg/100m", "r_rel_deg_per_100m", ".2f"),
    ("ATE", "m", "ate_m", ".3f"),
    ("step", "m", "step_m", ".4f"),
    ("step", "deg", "step_deg", ".4f"),
    ("scale", "", "scale", ".3f"),
)
_WIDTH, _NAME_WIDTH, _ALIGNMENT_WIDTH = 10, 8, 11
_SNIPPET = f"{SNIPPET}-frame ATE"


@dataclass(frozen=True)
class DriveResult:
    """What was found of one drive.

    Attributes:
        name: of the drive
        frames: first and last
        seconds: from the first image to the last
        way_m: as far as the truth went, None where it is unknown
        truth: what it was read from, or why there is none
        seen_in_training: None where that is unknown
        training: the same in words
        start: what the IMU begins with, empty where it is absent
        absent: by name of an estimate, why it is not there
        errors: by name of an estimate; empty without truth
        nis: mean surprise of the filter
        gyro_bias, accel_bias: of the filter at the end [rad/s], [m/s^2]
        notes: what else is to be known
    """

    name: str
    frames: tuple[int, int]
    seconds: float
    way_m: float | None
    truth: str
    seen_in_training: bool | None
    training: str
    start: str = ""
    absent: dict[str, str] = field(default_factory=dict)
    errors: dict[str, Errors] = field(default_factory=dict)
    nis: float = math.nan
    gyro_bias: tuple[float, ...] = ()
    accel_bias: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


def table(result: DriveResult) -> str:
    """Return what was found of a drive as lines to be printed."""
    first, last = result.frames
    way = "" if result.way_m is None else f", {result.way_m:.1f} m"
    lines = [f"{result.name}: images {first} to {last}, {result.seconds:.1f} s{way}"]
    said = {"truth": result.truth, "training": result.training, "start": result.start}
    lines += [f"  {name:<9} {text}" for name, text in said.items() if text]
    lines += [f"  note      {note}" for note in result.notes]
    lines += _errors(result.errors)
    lines += [f"  {name:<{_NAME_WIDTH}} absent: {why}" for name, why in result.absent.items()]
    if result.gyro_bias:
        lines.append(f"  filter's mean NIS {result.nis:.2f}, of 6 where its noise is right")
        gyro, accel = (
            " ".join(f"{x:.1e}" for x in bias) for bias in (result.gyro_bias, result.accel_bias)
        )
        lines.append(f"  its biases at the end: gyro {gyro} rad/s, accelerometer {accel} m/s^2")
    return "\n".join(lines)


def mean_table(results: Sequence[DriveResult]) -> str:
    """Return the means over drives; a number that a drive does not have is in no mean."""
    names = ", ".join(result.name for result in results)
    lines = [f"mean of {len(results)} drives: {names}"]
    seen = [result.name for result in results if result.seen_in_training]
    if seen:
        lines.append(f"  SEEN IN TRAINING are {', '.join(seen)}: no mean to be compared")
    return "\n".join([*lines, *_errors(mean_errors(results))])


def mean_errors(results: Sequence[DriveResult]) -> dict[str, Errors]:
    """Return the means over the drives that have a number, by name of an estimate."""
    found = {}
    for name in ESTIMATES:
        drives = [result.errors[name] for result in results if name in result.errors]
        if not drives:
            continue
        aligned = {
            alignment: TrajectoryErrors(
                **{
                    column.name: _mean([getattr(d.aligned[alignment], column.name) for d in drives])
                    for column in fields(TrajectoryErrors)
                }
            )
            for alignment in ALIGNMENTS
        }
        snippets = (_mean([getattr(d, n) for d in drives]) for n in ("snippet_m", "snippet_std_m"))
        found[name] = Errors(aligned, *snippets)
    return found


def as_json(results: Sequence[DriveResult]) -> dict[str, Any]:
    """Return all numbers as what JSON can hold; NaN becomes null."""
    means = {name: asdict(errors) for name, errors in mean_errors(results).items()}
    return _finite({"drives": [asdict(result) for result in results], "mean": means})


def _errors(errors: dict[str, Errors]) -> Iterator[str]:
    """Yield the lines of a table of errors, with what explains a missing number."""
    if not errors:
        return
    indent = " " * (_NAME_WIDTH + _ALIGNMENT_WIDTH + 2)
    for row in (0, 1):
        yield (
            indent
            + "".join(f"{column[row]:>{_WIDTH}}" for column in _COLUMNS)
            + (f"{(_SNIPPET, 'm')[row]:>20}")
        )
    for name, of_name in errors.items():
        for alignment, numbers in of_name.aligned.items():
            begins = name if alignment == ALIGNMENTS[0] else ""
            cells = (_cell(getattr(numbers, attribute), f) for _, _, attribute, f in _COLUMNS)
            line = f"  {begins:<{_NAME_WIDTH}}{alignment:<{_ALIGNMENT_WIDTH}}"
            line += "".join(f"{cell:>{_WIDTH}}" for cell in cells)
            if begins:
                spread = (
                    f"{_cell(of_name.snippet_m, '.4f')} ± {_cell(of_name.snippet_std_m, '.4f')}"
                )
                line += f"{spread:>20}"
            yield line
    if all(numbers.segments == 0 for e in errors.values() for numbers in e.aligned.values()):
        yield f"  t_rel, r_rel: -, since no way is longer than {SEGMENTS_M[0]} m; see step"


def _cell(number: float, form: str) -> str:
    if math.isnan(number):
        return "-"
    if number and not 1e-4 <= abs(number) < 1e6:
        return f"{number:.1e}"
    return f"{number:{form}}"


def _mean(numbers: Sequence[float]) -> float:
    known = [number for number in numbers if not math.isnan(number)]
    return float(np.mean(known)) if known else math.nan


def _finite(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
