"""One picture of what was made: images of each drive, over their depth in colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.drives import Drive
from datasets.synthetic.recording import DEPTH, DEPTH_PER_M
from datasets.text import DataError, at_line, parse_numbers, read_lines

NEAR_M, FAR_M = 4.0, 120.0
"""Depths that have the first and the last colour; on a logarithmic scale in between."""

MOST_DRIVES = 6
"""More would not fit on a screen; the first and the last are among those shown."""

_BACKGROUND, _TEXT, _FAINT, _SKY = (18, 20, 24), (236, 238, 240), (150, 156, 164), (30, 34, 42)
_GAP_PX, _MARGIN_PX, _CAPTION_PX, _LEGEND_PX, _FONT_PX = 4, 14, 30, 52, 15
_TICKS_M = 4, 6, 10, 20, 40, 80, 120


def contact_sheet(
    root: Path, drives: Sequence[Drive], *, columns: int = 4, width: int = 1600
) -> bytes:
    """Return a PNG: for some drives some images evenly spaced on their way, each above its depth.

    Args:
        root: of the data
        drives: that have depth and poses
        columns: images of each drive
        width: of the picture [px]
    """
    chosen = np.linspace(0, len(drives) - 1, min(len(drives), MOST_DRIVES)).round().astype(int)
    shown = [drives[i] for i in chosen.tolist()]
    rows = [_drive_row(drive.sync(root), drive, columns, width) for drive in shown]
    sheet = np.concatenate([*rows, _legend(width)])
    done, data = cv2.imencode(".png", sheet[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert done
    return data.tobytes()


def colour_depth(depth_m: np.ndarray) -> np.ndarray:
    """Return depths (...) [m] as colours (..., 3) uint8 RGB: near is bright, nothing is dark."""
    place = np.log(FAR_M / np.clip(depth_m, NEAR_M, FAR_M)) / np.log(FAR_M / NEAR_M)
    levels = np.rint(255 * place).astype(np.uint8)
    colours = cv2.applyColorMap(levels.reshape(-1, 1), cv2.COLORMAP_TURBO)[:, 0, ::-1]
    colours = colours.reshape(*np.shape(depth_m), 3)
    return np.where((depth_m > 0)[..., None], colours, np.uint8(_SKY))


def _drive_row(sync: Path, drive: Drive, columns: int, width: int) -> np.ndarray:
    frames = _along_the_way(_positions(sync / "truth" / "poses.txt"), columns)
    tile_width = (width - 2 * _MARGIN_PX - (columns - 1) * _GAP_PX) // columns
    pairs = [_pair(sync, frame, tile_width) for frame in frames]
    height = pairs[0].shape[0] + _CAPTION_PX
    row = np.full((height, width, 3), _BACKGROUND, np.uint8)
    canvas = Image.fromarray(row)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_FONT_PX)
    baseline = _CAPTION_PX - 8
    for i, (pair, frame) in enumerate(zip(pairs, frames, strict=True)):
        left = _MARGIN_PX + i * (tile_width + _GAP_PX)
        canvas.paste(Image.fromarray(pair), (left, _CAPTION_PX))
        right = left + tile_width
        draw.text((right, baseline), f"frame {frame}", _FAINT, font, anchor="rs")
    draw.text((_MARGIN_PX, baseline), str(drive), _TEXT, font, anchor="ls")
    return np.asarray(canvas)


def _positions(path: Path) -> np.ndarray:
    """Read the positions (N, 3) [m] of a file of poses."""
    rows = []
    for line, text in enumerate(read_lines(path), start=1):
        try:
            rows.append(parse_numbers(text, 12)[3::4])
        except DataError as error:
            raise at_line(path, line, str(error)) from None
    return np.array(rows).reshape(-1, 3)


def _along_the_way(positions: np.ndarray, count: int) -> list[int]:
    """Return frames in the middle of equal parts of the way through positions (N, 3)."""
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    # As if it moved a little where it stands, so that a drive that does nothing else has frames.
    metres = np.concatenate([[0], np.cumsum(steps + 1e-3)])
    middles = (np.arange(count) + 0.5) / count * metres[-1]
    return np.searchsorted(metres, middles).tolist()


def _pair(sync: Path, frame: int, width: int) -> np.ndarray:
    """Return an image above its depth."""
    folder = sync / "image_02" / "data"
    found = sorted(folder.glob(f"{frame:010d}.*"))
    if not found:
        raise DataError(f"{folder}: no image {frame:010d}")
    image = _read(found[0], cv2.IMREAD_COLOR)[..., ::-1]
    depth = _read(sync / DEPTH / f"{frame:010d}.png", cv2.IMREAD_UNCHANGED) / DEPTH_PER_M
    size = width, max(1, round(width * image.shape[0] / image.shape[1]))
    shrinks = width < image.shape[1]
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    colours = colour_depth(cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST))
    gap = np.full((_GAP_PX, width, 3), _BACKGROUND, np.uint8)
    return np.concatenate([image, gap, colours])


def _read(path: Path, mode: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), mode)
    if image is None:
        raise DataError(f"{path}: not an image")
    return image


def _legend(width: int) -> np.ndarray:
    canvas = Image.new("RGB", (width, _LEGEND_PX), _BACKGROUND)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(_FONT_PX)
    length, top, height = min(width - 2 * _MARGIN_PX - 160, 480), 16, 10
    left = width - _MARGIN_PX - length - 60
    bar = colour_depth(np.geomspace(NEAR_M, FAR_M, length))
    canvas.paste(Image.fromarray(np.repeat(bar[None], height, 0)), (left, top))
    draw.text((left - 12, top + height), "depth [m]", _TEXT, font, anchor="rs")
    for tick in _TICKS_M:
        x = left + (length - 1) * np.log(tick / NEAR_M) / np.log(FAR_M / NEAR_M)
        draw.text((x, top + height + 5), str(tick), _FAINT, font, anchor="mt")
    right = width - _MARGIN_PX
    draw.rectangle((right - 18, top, right, top + height - 1), fill=_SKY, outline=_FAINT)
    draw.text((right, top + height + 5), "none", _FAINT, font, anchor="rt")
    return np.asarray(canvas)
