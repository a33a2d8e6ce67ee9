"""The errors of an evaluation as text: for the terminal, for a paper, and for other programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from evaluation.results import DepthResult
from evaluation.summary import LEVEL, Interval, Row, Summary, histogram
from metrics import DEPTH_METRICS, DISTANCES_M
from utils import written_whole

ROWS = {"unscaled": "metric", "scaled": "median-scaled"}
"""The kinds of errors, by their names in files, as a reader is told them."""

NOTHING = "-"
"""Stands where there is no number to be known."""

_LABEL, _COLUMN, _BAR = 15, 9, 50  # characters
_RANGES = tuple(zip(DISTANCES_M[:-1], DISTANCES_M[1:], strict=True))


def text_table(summary: Summary) -> str:
    """Return all that was found as lines: facts, both kinds of errors, the scale, distances."""
    lines = [*_facts(summary), "", _line("", DEPTH_METRICS)]
    for kind, label in ROWS.items():
        lines += _error_lines(label, getattr(summary, kind))
    lines += [summary.remark, "", scale_text(summary), "", *_distance_lines(summary)]
    return "\n".join(lines)


def scale_text(summary: Summary) -> str:
    """Return the scale in one line."""
    interval = summary.scale_interval
    sure = ""
    if interval is not None:
        sure = f" ({LEVEL:.0%} from {interval.low:.3f} to {interval.high:.3f})"
    return (
        f"scale ratio, truth over prediction: median {summary.scale_ratio:.3f}{sure}, "
        f"spread {summary.scale_spread:.3f}"
    )


def facts_of(summary: Summary) -> dict[str, str]:
    """Return what a result must not be read without: protocol, images, and what is told of it."""
    images = f"{_count(summary.images, 'image')} of {_count(summary.drives, summary.group)}"
    left_out = f", {len(summary.left_out)} left out: no true depth that counts"
    asked = ROWS["scaled" if summary.median_scaled else "unscaled"]
    own = {
        "protocol": summary.protocol,
        "images": images + left_out * bool(summary.left_out),
        "errors asked for": asked,
    }
    return own | {name: str(value) for name, value in summary.facts.items()}


def number(value: float, unknown: str = "nan") -> str:
    """Return a number as tables show it, or what stands for one that is not known."""
    return unknown if math.isnan(value) else f"{value:.3f}"


def by_distance(row: Row, images: Sequence[int]) -> list[str]:
    """Return the errors of the ranges; a range without an image is different from a NaN there."""
    return [
        number(value) if count else NOTHING
        for value, count in zip(row.by_distance, images, strict=True)
    ]


def latex_row(summary: Summary) -> str:
    r"""Return the errors asked for as tables of papers have them: `& abs_rel & ... & a3 \\`."""
    return " ".join(f"& {number(value)}" for value in summary.asked.errors.values()) + r" \\"


def text_histogram(ratio: np.ndarray) -> str:
    """Return how often which scale is found, as lines for the terminal.

    Args:
        ratio: (N,) of medians, truth over prediction
    """
    found = histogram(ratio)
    median = np.median(ratio)
    lines = [f"scale ratio of {_count(len(ratio), 'image')}, truth over prediction"]
    most = max(int(found.counts.max()), 1)
    digits, places = len(str(most)), _places(found.edges[1] - found.edges[0])
    last = len(found.counts) - 1
    for i, count in enumerate(found.counts.tolist()):
        low, high = found.edges[i], found.edges[i + 1]
        bar = "#" * math.ceil(_BAR * count / most)
        here = low <= median < high or (i == last and median == high)
        mark = f"  < median {median:.3f}" if here else ""
        span = f"{low:8.{places}f} to {high:<8.{places}f}"
        lines.append(f"{span}|{count:>{digits}} {bar}{mark}".rstrip())
    return "\n".join(lines + [found.remark] * bool(found.remark))


def write_json(path: Path, summary: Summary) -> None:
    """Write a summary with all digits; what is not a finite number is null.

    Raises:
        OSError: it names the file
    """
    content = {
        "protocol": summary.protocol,
        "images": summary.images,
        "drives": summary.drives,
        "left_out": list(summary.left_out),
        "median_scaled": summary.median_scaled,
        "facts": {name: str(value) for name, value in summary.facts.items()},
        "distances_m": list(DISTANCES_M),
        "images_by_distance": list(summary.images_by_distance),
        **{kind: _row_as_json(getattr(summary, kind)) for kind in ROWS},
        "scale_ratio": _finite(summary.scale_ratio),
        "scale_spread": _finite(summary.scale_spread),
        "scale_interval": _interval_as_json(summary.scale_interval),
        "intervals": {
            "level": LEVEL,
            "resamples": summary.resamples,
            "seed": summary.seed,
            "remark": summary.remark,
        },
    }
    with written_whole(path) as file:
        file.write((json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def write_csv(path: Path, summary: Summary) -> None:
    """Write a summary as two rows, metric and median-scaled; what is not known is empty.

    Raises:
        OSError: it names the file
    """
    ends = [f"{name}_{end}" for name in DEPTH_METRICS for end in Interval._fields]
    header = ["errors", "protocol", "images", "drives", *DEPTH_METRICS, *ends, *_distance_names()]
    header += ["scale_ratio", "scale_spread", "scale_ratio_low", "scale_ratio_high"]
    lines = [header]
    for kind in ROWS:
        row: Row = getattr(summary, kind)
        intervals = [value for name in DEPTH_METRICS for value in row.intervals.get(name, ("", ""))]
        lines.append(
            [
                *(ROWS[kind], summary.protocol, summary.images, summary.drives),
                *row.errors.values(),
                *intervals,
                *_known(row.by_distance),
                *(summary.scale_ratio, summary.scale_spread),
                *(summary.scale_interval or ("", "")),
            ]
        )
    _write_lines(path, lines)


def write_per_image(path: Path, result: DepthResult) -> None:
    """Write one line for each image: name, drive, ratio, both kinds of errors, and by distance.

    Raises:
        OSError: it names the file
    """
    header = ["name", "drive", "scale_ratio", *DEPTH_METRICS, *_distance_names()]
    header += [f"scaled_{name}" for name in (*DEPTH_METRICS, *_distance_names())]
    _write_lines(path, [header, *_image_lines(result)])


def _image_lines(result: DepthResult) -> Iterator[list[object]]:
    columns = (result.unscaled, result.by_distance, result.scaled, result.scaled_by_distance)
    for i, (name, drive) in enumerate(zip(result.names, result.drives, strict=True)):
        unscaled, near_to_far, scaled, scaled_near_to_far = (x[i].tolist() for x in columns)
        metric = [*unscaled, *_known(near_to_far)]
        yield [name, drive, float(result.ratio[i]), *metric, *scaled, *_known(scaled_near_to_far)]


def _write_lines(path: Path, lines: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    # Quoting all that is not a number keeps any name whole, with line ends of either kind.
    csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerows(lines)
    with written_whole(path) as file:
        file.write(text.getvalue().encode("utf-8", "backslashreplace"))


def _distance_names() -> list[str]:
    return [f"abs_rel_{near}_{far}_m" for near, far in _RANGES]


def _known(values: Sequence[float]) -> list[float | str]:
    return ["" if math.isnan(value) else value for value in values]


def _row_as_json(row: Row) -> dict[str, object]:
    return {
        "errors": {name: _finite(value) for name, value in row.errors.items()},
        "intervals": {name: _interval_as_json(x) for name, x in row.intervals.items()} or None,
        "abs_rel_by_distance": [_finite(value) for value in row.by_distance],
    }


def _interval_as_json(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else [_finite(value) for value in interval]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _facts(summary: Summary) -> list[str]:
    facts = facts_of(summary)
    width = max(map(len, facts)) + 2
    return [f"{name:<{width}}{value}" for name, value in facts.items()]


def _error_lines(label: str, row: Row) -> list[str]:
    lines = [_line(label, map(number, row.errors.values()))]
    if row.intervals:
        for end, what in (("low", f"  {LEVEL:.0%} from"), ("high", "      to")):
            ends = (number(getattr(interval, end)) for interval in row.intervals.values())
            lines.append(_line(what, ends))
    return lines


def _distance_lines(summary: Summary) -> list[str]:
    images = summary.images_by_distance
    return [
        _line("abs_rel at", (f"{near}-{far} m" for near, far in _RANGES)),
        _line("images", map(str, images)),
        *(
            _line(label, by_distance(getattr(summary, kind), images))
            for kind, label in ROWS.items()
        ),
    ]


def _line(label: str, cells: Iterator[str] | Sequence[str]) -> str:
    return f"{label:<{_LABEL}}" + "".join(f"{cell:>{_COLUMN}}" for cell in cells)


def _places(step: float) -> int:
    """Return how many decimals multiples of a step have, if it is a round one."""
    return max(0, -math.floor(math.log10(step) + 1e-6))


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
