"""Charts as SVG that needs nothing else: no script, no file, and colours for light and dark pages.

A page may set the colours `--metric`, `--scaled`, `--mark` and `--grid`; text takes the page's own.
"""

from __future__ import annotations

import math

import numpy as np

from evaluation.markup import Markup, element, joined
from evaluation.summary import Summary, histogram, round_step
from evaluation.tables import NOTHING, ROWS, number
from metrics import DISTANCES_M

WIDTH, HEIGHT = 640, 320  # [px] where a chart has its own size; it grows with the page
COLOURS = {"unscaled": "var(--metric, #2563eb)", "scaled": "var(--scaled, #d97706)"}
"""Of the kinds of errors."""

_MARK, _GRID = "var(--mark, #dc2626)", "var(--grid, #94a3b855)"
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 18, 58, 54  # [px] around the plot
_TICKS = 5  # of an axis, about
_ROOM = 90  # [px] for the label of a mark
_SHARES = np.linspace(0, 1, 201)


def scale_histogram(ratio: np.ndarray) -> Markup:
    """Draw how often which scale is found.

    Args:
        ratio: (N,) of medians, truth over prediction
    """
    found, median = histogram(ratio), float(np.median(ratio))
    low, high = float(found.edges[0]), float(found.edges[-1])
    most = max(int(found.counts.max()), 1)
    x = _Axis(low, high, _LEFT, WIDTH - _RIGHT)
    y = _Axis(0, _round_top(most), HEIGHT - _BOTTOM, _TOP)
    bars = []
    for i, count in enumerate(found.counts.tolist()):
        left, right = x.at(found.edges[i]) + 0.5, x.at(found.edges[i + 1]) - 0.5
        span = f"{found.edges[i]:.4g} to {found.edges[i + 1]:.4g}"
        bars.append(_bar(left, right, y, count, COLOURS["unscaled"], f"{span}: {count}"))
    lower = math.isfinite(median) and median < 1
    marks = _mark(x, 1.0, "right: 1", _MARK, to_left=not lower)
    if math.isfinite(median):
        own = _mark(x, median, f"median {median:.3f}", "currentColor", to_left=lower)
        marks = joined((marks, own))
    label = "scale ratio, truth over prediction"
    axes = joined((_x_axis(x, label, found.remark), _y_axis(y, "images", whole=True)))
    summary = f"{len(ratio)} images between {low:.4g} and {high:.4g}, median {median:.3f}"
    return _chart("Scale ratio", summary, axes, *bars, marks)


def error_by_distance(summary: Summary) -> Markup:
    """Draw abs_rel in ranges of true depth, metric beside median-scaled."""
    rows = {kind: getattr(summary, kind).by_distance for kind in ROWS}
    finite = [value for row in rows.values() for value in row if math.isfinite(value)]
    y = _Axis(0, _round_top(max(finite, default=0.0)), HEIGHT - _BOTTOM, _TOP)
    x = _Axis(0, len(DISTANCES_M) - 1, _LEFT, WIDTH - _RIGHT)
    parts, told = [], []
    for i, (near, far) in enumerate(zip(DISTANCES_M[:-1], DISTANCES_M[1:], strict=True)):
        images = summary.images_by_distance[i]
        name = f"{near}\u2013{far} m"
        parts.append(_text(x.at(i + 0.5), HEIGHT - _BOTTOM + 18, name, anchor="middle"))
        count = f"{images} image{'s' * (images != 1)}"
        parts.append(
            _text(x.at(i + 0.5), HEIGHT - _BOTTOM + 33, count, anchor="middle", faint=True)
        )
        for kind, (start, end) in {"unscaled": (0.16, 0.49), "scaled": (0.51, 0.84)}.items():
            value = rows[kind][i]
            shown = number(value) if images else NOTHING
            left, right = x.at(i + start), x.at(i + end)
            if math.isfinite(value):
                parts.append(_bar(left, right, y, value, COLOURS[kind], f"{ROWS[kind]}: {shown}"))
            height = y.at(value if math.isfinite(value) else 0)
            parts.append(_text((left + right) / 2, height - 5, shown, anchor="middle"))
            told.append(f"{name} {ROWS[kind]} {shown}")
    axis = joined((_y_axis(y, "abs_rel"), _base_line(), _text_below("true depth")))
    return _chart("Error by distance", "; ".join(told), axis, *parts, _legend())


def sorted_errors(unscaled: np.ndarray, scaled: np.ndarray) -> Markup:
    """Draw which share of the images has no more than which error.

    Args:
        unscaled: (N,) abs_rel of each image, as predicted in metres
        scaled: (N,) the same after median scaling
    """
    numbers = {
        kind: values[np.isfinite(values)]
        for kind, values in (("unscaled", unscaled), ("scaled", scaled))
    }
    # A few images that are far worse would leave the rest flat: their curve runs along the top.
    tops = [float(np.quantile(values, 0.99)) for values in numbers.values() if len(values)]
    top = _round_top(1.05 * max(tops, default=0.0))
    x = _Axis(0, 100, _LEFT, WIDTH - _RIGHT)
    y = _Axis(0, top, HEIGHT - _BOTTOM, _TOP)
    curves, told = [], []
    for kind, values in numbers.items():
        if not len(values):
            continue
        heights = np.quantile(values, _SHARES, method="inverted_cdf")  # errors that images have
        points = zip(100 * _SHARES, np.minimum(heights, top), strict=True)
        path = " ".join(f"{x.at(share):.1f},{y.at(height):.1f}" for share, height in points)
        line = {"stroke": COLOURS[kind], "stroke_width": 2, "stroke_linejoin": "round"}
        curves.append(element("polyline", points=path, fill="none", **line))
        told.append(f"{ROWS[kind]}: half of the images below {np.median(values):.3f}")
    missing = len(unscaled) - len(numbers["unscaled"])
    remark = f"{missing} left out, since they are not numbers" if missing else ""
    label = "share of the images [%], from the best to the worst"
    axes = joined((_x_axis(x, label, remark), _y_axis(y, "abs_rel")))
    return _chart("Errors of single images", "; ".join(told), axes, *curves, _legend())


class _Axis:
    """Where numbers are between two places [px]."""

    def __init__(self, low: float, high: float, start_px: float, end_px: float) -> None:
        self.low, self.high = low, high
        self._start_px, self._px_per_one = start_px, (end_px - start_px) / (high - low)

    def at(self, value: float) -> float:
        """Return the place of a number [px], to a hundredth."""
        return round(self._start_px + (float(value) - self.low) * self._px_per_one, 2)

    def ticks(self, whole: bool = False) -> list[float]:
        """Return round numbers on the axis."""
        step = round_step((self.high - self.low) / _TICKS)
        step = max(step, 1.0) if whole else step
        first = math.ceil(self.low / step - 1e-6)
        last = math.floor(self.high / step + 1e-6)
        return [i * step for i in range(first, last + 1)]


def _round_top(most: float) -> float:
    """Return a round number above a number, where an axis may end."""
    if not most > 0:
        return 1.0
    step = round_step(1.08 * most / _TICKS)  # room for what is written on top
    return step * math.ceil(1.08 * most / step)


def _chart(title: str, description: str, *content: Markup) -> Markup:
    """Return the whole picture, with its title to be seen and its content to be read out."""
    heading = _text(_LEFT, 20, title, font_weight=600, font_size=15)
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        heading,
        *content,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        width="100%",
        role="img",
        font_family="system-ui, sans-serif",
        font_size=12,
    )


def _x_axis(x: _Axis, label: str, remark: str) -> Markup:
    base = HEIGHT - _BOTTOM
    parts = [_base_line(), _text_below(label, 16 if remark else 6)]
    if remark:
        parts.append(_text_below(remark, 2))
    for tick in x.ticks():
        parts.append(_line(x.at(tick), base, x.at(tick), base + 4, "currentColor"))
        parts.append(_text(x.at(tick), base + 18, f"{tick:.4g}", anchor="middle"))
    return joined(parts)


def _y_axis(y: _Axis, label: str, whole: bool = False) -> Markup:
    parts = []
    for tick in y.ticks(whole):
        parts.append(_line(_LEFT, y.at(tick), WIDTH - _RIGHT, y.at(tick), _GRID))
        parts.append(_text(_LEFT - 8, y.at(tick) + 4, f"{tick:.4g}", anchor="end"))
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    turned = f"rotate(-90 16 {middle})"
    parts.append(_text(16, middle, label, anchor="middle", faint=True, transform=turned))
    return joined(parts)


def _base_line() -> Markup:
    return _line(_LEFT, HEIGHT - _BOTTOM, WIDTH - _RIGHT, HEIGHT - _BOTTOM, "currentColor")


def _text_below(label: str, height: float = 6) -> Markup:
    centre = (_LEFT + WIDTH - _RIGHT) / 2
    return _text(centre, HEIGHT - height, label, anchor="middle", faint=True)


def _mark(x: _Axis, value: float, label: str, colour: str, to_left: bool) -> Markup:
    """Mark a number, or where it would be found if it is off the axis.

    The label stands to its left or its right, so that two marks can be next to each other; but
    within the plot.
    """
    where = x.at(min(max(value, x.low), x.high))
    if value < x.low:
        label = f"\u2190 {label}"
    elif value > x.high:
        label = f"{label} \u2192"
    if where < _LEFT + _ROOM or where > WIDTH - _RIGHT - _ROOM:
        to_left = where > WIDTH / 2
    height = _TOP - 20
    dash = "5 3" if x.low <= value <= x.high else "1 4"
    return joined(
        (
            _line(where, height, where, HEIGHT - _BOTTOM, colour, stroke_dasharray=dash, width=1.5),
            _text(
                where + (-5 if to_left else 5),
                height + 8,
                label,
                anchor="end" if to_left else "start",
                fill=colour,
            ),
        )
    )


def _legend() -> Markup:
    parts = []
    for i, (kind, label) in enumerate(ROWS.items()):
        left = _LEFT + 96 * i
        parts.append(element("rect", x=left, y=33, width=11, height=11, fill=COLOURS[kind], rx=2))
        parts.append(_text(left + 17, 43, label))
    return joined(parts)


def _bar(left: float, right: float, y: _Axis, value: float, fill: str, told: str) -> Markup:
    """Return a bar from zero that says its number where the mouse rests."""
    top = y.at(value)
    return element(
        "rect",
        element("title", told),
        x=round(left, 2),
        y=top,
        width=round(right - left, 2),
        height=round(y.at(0) - top, 2),
        fill=fill,
    )


def _line(
    x1: float, y1: float, x2: float, y2: float, stroke: str, width: float = 1, **more: object
) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke, stroke_width=width, **more)


def _text(
    x: float,
    y: float,
    text: str,
    anchor: str = "start",
    faint: bool = False,
    fill: str = "currentColor",
    **more: object,
) -> Markup:
    opacity = 0.7 if faint else None
    return element(
        "text", text, x=x, y=y, text_anchor=anchor, fill=fill, fill_opacity=opacity, **more
    )
