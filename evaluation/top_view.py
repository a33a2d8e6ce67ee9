"""Trajectories seen from above, as a picture: x to the right, z ahead, both axes in one scale."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLOURS = {
    "truth": (70, 74, 84),
    "camera": (232, 119, 22),
    "imu": (37, 99, 218),
    "filter": (10, 150, 92),
}
_OTHER = (150, 60, 170)
_PAPER, _INK, _FAINT, _GRID, _FRAME = (
    *((252, 252, 250), (34, 38, 46), (116, 122, 132)),
    *((229, 231, 234), (172, 177, 184)),
)
_AREA_PX = 760_000  # of the plot, whatever its shape
_SHAPES = (0.62, 1.35)  # height over width
_SUPER = 3  # lines are drawn so much larger, then shrunk: Pillow's own have steps
_MARGIN_PX, _LEFT_PX, _BOTTOM_PX, _ROW_PX, _FONT_PX = 22, 66, 54, 26, 15
# Of lines [px]. They are drawn one over the other, and are all to be seen where they coincide.
_WIDTHS = {"truth": 9, "imu": 6, "filter": 2}
_WIDTH = 3
_GRID_LINES = 10
_LEAST_PX = 2.0  # between two points of a line: nearer ones make its sides rough
_LEAST_M = 10.0  # that a view is wide and high
_AROUND = 0.5  # of the first trajectory's size: so far others are followed away from it


@dataclass(frozen=True)
class _View:
    """Which part of the ground is seen, and how large."""

    x_m: float  # at the left
    z_m: float  # at the top
    px_per_m: float
    size: tuple[int, int]  # width, height [px]

    def place(self, ground_m: np.ndarray) -> np.ndarray:
        """Return where points (N, 2) x, z of the ground are [px]."""
        return (ground_m - [self.x_m, self.z_m]) * [self.px_per_m, -self.px_per_m]


def draw_top_view(
    positions: Mapping[str, np.ndarray], title: str, labels: Mapping[str, str] | None = None
) -> bytes:
    """Return a PNG of trajectories from above.

    Args:
        positions: by name, (N, 3) in the axes of the camera at the start (x right, y down, z ahead)
            [m]; the first decides what is seen, and where others leave the picture they say so
        title: above all
        labels: what the legend says of some of them beside the name
    """
    if not positions:
        raise ValueError("positions: expected at least one trajectory")
    ground = {name: np.asarray(xyz, np.float64)[:, [0, 2]] for name, xyz in positions.items()}
    view = _view(ground)
    plot = _draw_plot(ground, view)
    entries = list(_entries(ground, view, labels or {}))
    font = ImageFont.load_default(_FONT_PX)
    rows = _flow(entries, font, view.size[0])
    top = _MARGIN_PX + _ROW_PX * (1 + len(rows)) + 8
    width = _LEFT_PX + view.size[0] + _MARGIN_PX
    canvas = Image.new("RGB", (width, top + view.size[1] + _BOTTOM_PX), _PAPER)
    canvas.paste(plot, (_LEFT_PX, top))
    draw = ImageDraw.Draw(canvas)
    draw.text((_LEFT_PX, _MARGIN_PX + 6), title, _INK, ImageFont.load_default(19), anchor="lm")
    _draw_legend(draw, rows, font)
    _draw_axes(draw, view, top, font)
    file = io.BytesIO()
    canvas.save(file, "PNG", optimize=True)
    return file.getvalue()


def _view(ground: Mapping[str, np.ndarray]) -> _View:
    low, high = _box(next(iter(ground.values())))
    reach = _AROUND * max(high - low) + _LEAST_M / 2
    boxes = [_box(points) for points in ground.values()]
    low = np.maximum(np.min([box[0] for box in boxes], axis=0), low - reach)
    high = np.minimum(np.max([box[1] for box in boxes], axis=0), high + reach)
    extent, middle = np.maximum(1.12 * (high - low), _LEAST_M), (low + high) / 2
    shape = float(np.clip(extent[1] / extent[0], *_SHAPES))
    width = round(math.sqrt(_AREA_PX / shape))
    size = width, round(width * shape)
    px_per_m = float(np.min(size / extent))
    half = np.array(size) / px_per_m / 2
    return _View(float(middle[0] - half[0]), float(middle[1] + half[1]), px_per_m, size)


def _box(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of the box around those points (N, 2) that are finite."""
    known = points[np.isfinite(points).all(1)]
    known = np.zeros((1, 2)) if len(known) == 0 else known
    return known.min(0), known.max(0)


def _draw_plot(ground: Mapping[str, np.ndarray], view: _View) -> Image.Image:
    width, height = (_SUPER * side for side in view.size)
    plot = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(plot)
    for axis, lines in enumerate(_ticks(view)):
        for _, px in lines:
            at = _SUPER * px
            ends = (at, 0, at, height) if axis == 0 else (0, at, width, at)
            draw.line(ends, _GRID, _SUPER)
    for name, points in ground.items():
        _draw_line(draw, _SUPER * view.place(points), name)
    start = _SUPER * view.place(next(iter(ground.values()))[:1])[0]
    if np.isfinite(start).all():
        _draw_disc(draw, start, 8, _INK)
        _draw_disc(draw, start, 5, (255, 255, 255))
    draw.rectangle((0, 0, width - 1, height - 1), outline=_FRAME, width=_SUPER)
    plot = plot.resize(view.size, Image.Resampling.BOX)
    if np.isfinite(start).all():
        x, y = start / _SUPER
        font = ImageFont.load_default(_FONT_PX)
        right = x < view.size[0] - 60
        place, anchor = ((x + 13, y), "lm") if right else ((x - 13, y), "rm")
        halo = {"stroke_width": 3, "stroke_fill": "white"}
        ImageDraw.Draw(plot).text(place, "start", _INK, font, anchor=anchor, **halo)
    return plot


def _draw_line(draw: ImageDraw.ImageDraw, points_px: np.ndarray, name: str) -> None:
    """Draw a line through points (N, 2) as far as they are finite, and a disc at its end."""
    colour, width = COLOURS.get(name, _OTHER), _WIDTHS.get(name, _WIDTH)
    known = np.isfinite(points_px).all(1)
    points_px = np.clip(points_px, -1e6, 1e6)  # Pillow's coordinates are of 32 bits
    for run in np.split(np.arange(len(known)), np.flatnonzero(np.diff(known)) + 1):
        if len(run) > 1 and known[run[0]]:
            line = list(map(tuple, _thinned(points_px[run]).tolist()))
            draw.line(line, colour, _SUPER * width, joint="curve")
    if known.any():
        _draw_disc(draw, points_px[known][-1], 1 + width, colour)


def _thinned(points_px: np.ndarray) -> np.ndarray:
    """Return the first of points (N, 2), the last, and some that are not too near to each other."""
    steps_px = np.linalg.norm(np.diff(points_px, axis=0), axis=1)
    passed = np.floor(np.cumsum(steps_px) / (_SUPER * _LEAST_PX))
    kept = np.concatenate([[True], np.diff(passed, prepend=0) > 0])
    kept[-1] = True
    return points_px[kept]


def _draw_disc(
    draw: ImageDraw.ImageDraw, centre_px: np.ndarray, radius_px: float, colour: tuple[int, int, int]
) -> None:
    x, y = centre_px.tolist()
    r = _SUPER * radius_px
    draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def _ticks(view: _View) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Return where the lines of the grid are: of x and of z, each in metres and in pixels."""
    width_m, height_m = (side / view.px_per_m for side in view.size)
    step = _round_step(max(width_m, height_m) / _GRID_LINES)
    low_z = view.z_m - height_m
    of_x = [(x, (x - view.x_m) * view.px_per_m) for x in _multiples(view.x_m, width_m, step)]
    of_z = [(z, (view.z_m - z) * view.px_per_m) for z in _multiples(low_z, height_m, step)]
    return of_x, of_z


def _multiples(low: float, extent: float, step: float) -> list[float]:
    first, last = math.ceil(low / step), math.floor((low + extent) / step)
    return [i * step for i in range(first, last + 1)]


def _round_step(least: float) -> float:
    """Return the first of 1, 2, 5, 10, 20, ... that is not less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= least * (1 - 1e-9))


def _entries(
    ground: Mapping[str, np.ndarray], view: _View, labels: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield the names of the legend, with what it says of them."""
    for name, points in ground.items():
        px = view.place(points)
        outside = bool(((px < 0) | (px > view.size) | ~np.isfinite(px)).any())
        said = [labels[name]] if name in labels else []
        yield name, ", ".join(said + ["leaves the picture"] * outside)


def _flow(
    entries: list[tuple[str, str]], font: ImageFont.FreeTypeFont, width: int
) -> list[list[tuple[float, str, str]]]:
    """Return rows of entries, each with the place where it begins [px]."""
    rows, x = [[]], 0.0
    for name, said in entries:
        needed = 34 + font.getlength(f"{name}  {said}") + 26
        if x and x + needed > width:
            rows.append([])
            x = 0.0
        rows[-1].append((x, name, said))
        x += needed
    return rows


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    rows: list[list[tuple[float, str, str]]],
    font: ImageFont.FreeTypeFont,
) -> None:
    for i, row in enumerate(rows):
        y = _MARGIN_PX + _ROW_PX * (i + 1) + 8
        for place, name, said in row:
            x = _LEFT_PX + place
            draw.rectangle((x, y - 2, x + 24, y + 2), fill=COLOURS.get(name, _OTHER))
            draw.text((x + 33, y), name, _INK, font, anchor="lm")
            draw.text((x + 33 + font.getlength(f"{name}  "), y), said, _FAINT, font, anchor="lm")


def _draw_axes(
    draw: ImageDraw.ImageDraw, view: _View, top: int, font: ImageFont.FreeTypeFont
) -> None:
    of_x, of_z = _ticks(view)
    bottom = top + view.size[1]
    for x, px in of_x:
        draw.text((_LEFT_PX + px, bottom + 7), f"{x:g}", _FAINT, font, anchor="mt")
    for z, px in of_z:
        draw.text((_LEFT_PX - 8, top + px), f"{z:g}", _FAINT, font, anchor="rm")
    middle = _LEFT_PX + view.size[0] / 2
    draw.text((middle, bottom + 28), "x, to the right [m]", _INK, font, anchor="mt")
    text = Image.new("L", (math.ceil(font.getlength("z, ahead [m]")) + 2, 22), 0)
    ImageDraw.Draw(text).text((1, 11), "z, ahead [m]", 255, font, anchor="lm")
    turned = text.rotate(90, expand=True)
    place = 4, round(top + view.size[1] / 2 - turned.height / 2)
    draw.bitmap(place, turned, _INK)
