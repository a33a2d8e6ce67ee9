"""Depth as a picture: inverse depth in colours beside its image, with a legend in metres."""

from __future__ import annotations

import math

import cv2
import numpy as np

_PERCENTILE = 95  # of inverse depth: a few pixels that are very near would leave the rest dark
_STEPS = 1, 1.5, 2, 3, 4, 5, 6, 7, 8  # of each power of ten, for the legend
_FONT, _WHITE = cv2.FONT_HERSHEY_SIMPLEX, (255, 255, 255)
_LEAST_SIDE = 96  # [px] smaller pictures have no room for a legend


def nearest_of(inverse_depth: np.ndarray) -> float:
    """Return the depth [m] that the brightest colour is for, if only this image is to be seen.

    Args:
        inverse_depth: (H, W) [1/m]; all but 5 % of its pixels are further than the result
    """
    return 1 / float(np.percentile(inverse_depth, _PERCENTILE))


def coloured(inverse_depth: np.ndarray, nearest_m: float) -> np.ndarray:
    """Return inverse depth in colours: black is infinitely far, bright is near.

    Args:
        inverse_depth: (H, W) [1/m]
        nearest_m: has the brightest colour, with all that is nearer

    Returns:
        (H, W, 3) uint8 RGB
    """
    levels = np.rint((inverse_depth * (255 * nearest_m)).clip(0, 255)).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_MAGMA), cv2.COLOR_BGR2RGB)


def side_by_side(image: np.ndarray, inverse_depth: np.ndarray, nearest_m: float) -> np.ndarray:
    """Return an image with its depth on the right of it, (H, 2 W, 3) uint8 RGB.

    Args:
        image: (H, W, 3) uint8 RGB
        inverse_depth: (H, W) [1/m]
        nearest_m: as in `coloured`
    """
    depths = coloured(inverse_depth, nearest_m)
    if min(inverse_depth.shape) >= _LEAST_SIDE:
        _draw_legend_(depths, nearest_m)
    return np.hstack([image, depths])


def ticks(nearest_m: float, gap: float) -> list[tuple[float, float]]:
    """Return round depths for a legend that is linear in inverse depth.

    Args:
        nearest_m: is at 1, infinitely far at 0
        gap: how far apart two of them must be

    Returns:
        depth [m] and place of each, the nearest first, all between 0 and 1
    """
    power = math.floor(math.log10(nearest_m))
    chosen: list[tuple[float, float]] = []
    for depth in (step * 10.0**k for k in range(power, power + 4) for step in _STEPS):
        place = nearest_m / depth
        if gap / 2 <= place <= 1 - gap / 2 and (not chosen or chosen[-1][1] - place >= gap):
            chosen.append((depth, place))
    return chosen


def _draw_legend_(picture: np.ndarray, nearest_m: float) -> None:
    """Draw a bar of all colours at the right border; the nearest is at the bottom, as on a road."""
    height, width = picture.shape[:2]
    scale = min(max(min(height / 500, width / 1000), 0.3), 2)  # of letters; 1 is 22 px high
    margin, thick = round(12 * scale), max(1, round(1.5 * scale))
    top, bottom = margin, height - margin
    left, right = width - margin - max(4, round(16 * scale)), width - margin
    letter = cv2.getTextSize("0", _FONT, scale, thick)[0][1]
    labels = [
        (f"{depth:g} m", top + round(place * (bottom - top - 1)))
        for depth, place in ticks(nearest_m, gap=1.8 * letter / (bottom - top))
    ]
    widths = [cv2.getTextSize(text, _FONT, scale, thick)[0][0] for text, _ in labels]
    # White is read on any colour if that is darkened.
    strip = picture[:, max(0, left - 2 * margin - max(widths, default=0)) :]
    strip[:] = strip // 3
    depths = np.linspace(0, 1 / nearest_m, bottom - top)[:, None].repeat(right - left, 1)
    picture[top:bottom, left:right] = coloured(depths, nearest_m)
    cv2.rectangle(picture, (left - 1, top - 1), (right, bottom), _WHITE, 1)
    for (text, y), text_width in zip(labels, widths, strict=True):
        at = (left - margin - text_width, y + letter // 2)
        cv2.putText(picture, text, at, _FONT, scale, _WHITE, thick, cv2.LINE_AA)
        cv2.line(picture, (left - margin // 2, y), (left - 1, y), _WHITE, 1)
