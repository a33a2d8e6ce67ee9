"""The picture that a demo ends with: an image, its depths and errors, and a drive from above."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import options
from evaluation.depth_run import depth_task, pictures_of, run_depth
from evaluation.odometry_run import evaluate_odometry
from evaluation.panels import Picture, coloured_depth, coloured_error, depth_range
from utils import written_whole

SCALE = 2
"""Screen pixels for a pixel of the images."""

ERROR_TOP = 0.5
_PAPER, _INK, _GREY = (255, 255, 255), (25, 25, 25), (110, 110, 110)
_GAP_PX, _TEXT_PX = 12, 22


def draw(path: Path, drives: Path, weights: dict[str, Path]) -> None:
    """Draw the picture of two trainings; the last one's median image is shown.

    Args:
        path: of the PNG
        drives: with the list of tests
        weights: by the name of a training
    """
    found = _pictures(drives, weights)
    *_, shown = found.values()
    low_m, high_m = depth_range(shown)
    rows = [
        [("the image", shown.image), ("true depth", _depth(shown.truth_m, low_m, high_m))],
    ]
    for name, picture in found.items():
        title = f"{name.replace('_', ' ')}: abs_rel {picture.errors['abs_rel']:.3f} in metres"
        error = coloured_error(picture.relative_error(), ERROR_TOP)
        error[~picture.valid] = 255
        rows.append(
            [
                (title, coloured_depth(picture.predicted_m, low_m, high_m)),
                ("its error, red is too far, blue too near", error),
            ]
        )
    top_view = _top_view(drives, [*weights.values()][-1], path.parent / "odometry")
    canvas = _composed(rows, top_view, low_m, high_m)
    file = io.BytesIO()
    canvas.save(file, "PNG", optimize=True)
    with written_whole(path) as out:
        out.write(file.getvalue())


def _pictures(drives: Path, weights: dict[str, Path]) -> dict[str, Picture]:
    """Return the same image of each training: that with the last one's median error."""
    tasks, results = {}, {}
    for name, folder in weights.items():
        words = ["--load_weights_folder", str(folder), "--data_path", str(drives)]
        args = options.evaluate_depth([*words, "--num_workers", "0", "--disable_median_scaling"])
        tasks[name] = depth_task(args)
        results[name] = run_depth(args, tasks[name]).result
        last = results[name]
    median = int(last.by_error()[len(last) // 2])
    return {name: pictures_of(tasks[name], results[name], [(name, median)])[0] for name in weights}


def _top_view(drives: Path, weights: Path, folder: Path) -> Image.Image:
    """Return the first test drive from above."""
    words = ["--load_weights_folder", str(weights), "--data_path", str(drives)]
    args = options.evaluate_odometry([*words, "--num_workers", "0", "--out", str(folder)])
    list(evaluate_odometry(args))
    return Image.open(sorted(folder.glob("*/top_view.png"))[0]).convert("RGB")


def _depth(depth_m: np.ndarray, low_m: float, high_m: float) -> np.ndarray:
    """Return depths in colours, and white where there is none."""
    colours = coloured_depth(depth_m, low_m, high_m)
    colours[depth_m <= 0] = 255
    return colours


def _composed(
    rows: list[list[tuple[str, np.ndarray]]], top_view: Image.Image, low_m: float, high_m: float
) -> Image.Image:
    """Return rows of two titled views, and the view from above beside them."""
    font = ImageFont.load_default(15)
    height, width = rows[0][0][1].shape[:2]
    size = width * SCALE, height * SCALE
    row_px, column_px = _TEXT_PX + size[1] + _GAP_PX, size[0] + _GAP_PX
    left_px, high_px = 2 * column_px + _GAP_PX, len(rows) * row_px + _GAP_PX + _TEXT_PX
    ratio = (high_px - 2 * _GAP_PX) / top_view.height
    top_view = top_view.resize((round(top_view.width * ratio), high_px - 2 * _GAP_PX))
    canvas = Image.new("RGB", (left_px + top_view.width + _GAP_PX, high_px), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for j, row in enumerate(rows):
        for i, (title, view) in enumerate(row):
            x, y = _GAP_PX + i * column_px, _GAP_PX + j * row_px
            draw.text((x, y), title, _INK, font)
            shown = Image.fromarray(view).resize(size, Image.Resampling.BILINEAR)
            canvas.paste(shown, (x, y + _TEXT_PX))
    legend = f"depth from {low_m:.0f} m (red) to {high_m:.0f} m (blue), errors to {ERROR_TOP:.0%}"
    draw.text((_GAP_PX, high_px - _TEXT_PX - 2), legend, _GREY, font)
    canvas.paste(top_view, (left_px, _GAP_PX))
    return canvas
