"""One image of an evaluation in colours: what is seen, predicted, true, and wrong."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

_TURBO = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)[:, 0, ::-1]
_DEPTH = _TURBO[20:244]  # (224, 3) without its dark ends, which dots on a dark ground are lost in
_NO_NUMBER = np.uint8([255, 0, 255])
_GROUND = np.uint8([24, 27, 33])
# From too near over right to too far; red and blue are told apart by nearly everybody.
_ERROR_STOPS = [(33, 102, 172), (103, 169, 207), (240, 240, 240), (239, 138, 98), (178, 24, 43)]
_PERCENTILES = 1, 99  # of the depths that are between the first and the last colour
_TICKS_M = 1, 2, 5, 10, 20, 40, 80, 160
_TOPS = 0.1, 0.2, 0.3, 0.5, 1.0
_MOST_RADIUS_PX = 3.0
_PALETTE, _ERROR_COLOURS, _GREYS = 256, 199, 16  # how many; errors have a middle one
_WIDEST_PX = 1104  # twice what the page shows
_QUALITY = 82


@dataclass(frozen=True, eq=False)
class Picture:
    """One image of an evaluation, with what was predicted as it was compared.

    Attributes:
        title: why it is shown
        name: of the image
        image: (H, W, 3) uint8 RGB
        predicted_m: (h, w) depth, scaled and cut if that is how it was compared [m]
        truth_m: (h, w) depth, zero where unknown [m]
        valid: (h, w) bool, where the truth counts
        errors: what is to be told of it, by name: those of `metrics.DEPTH_METRICS` that were asked
            for, and `ratio`, of medians, truth over prediction before it was scaled
    """

    title: str
    name: str
    image: np.ndarray
    predicted_m: np.ndarray
    truth_m: np.ndarray
    valid: np.ndarray
    errors: Mapping[str, float]

    def __post_init__(self) -> None:
        shape = self.truth_m.shape
        if len(shape) != 2 or self.predicted_m.shape != shape or self.valid.shape != shape:
            found = self.predicted_m.shape, shape, self.valid.shape
            raise ValueError(f"{self.name}: expected depths of one shape (h, w), got {found}")
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            found = f"{self.image.shape} {self.image.dtype}"
            raise ValueError(f"{self.name}: expected an image (H, W, 3) uint8, got {found}")

    def relative_error(self) -> np.ndarray:
        """Return (predicted - truth) / truth (h, w) where the truth counts, zero elsewhere."""
        truth_m = np.where(self.valid, self.truth_m, 1)
        return np.where(self.valid, (self.predicted_m - truth_m) / truth_m, 0)


@dataclass(frozen=True)
class Scale:
    """What the colours of a panel stand for.

    Attributes:
        gradient: of colours from left to right, as CSS has it
        ticks: where along it, from 0 to 1, stands which label
    """

    gradient: str
    ticks: tuple[tuple[float, str], ...]


def depth_range(picture: Picture) -> tuple[float, float]:
    """Return the depths of the first and the last colour, of truth and prediction together [m]."""
    depths = np.concatenate([x[picture.valid] for x in (picture.truth_m, picture.predicted_m)])
    depths = depths[np.isfinite(depths) & (depths > 0)]
    if not len(depths):
        return 1.0, 80.0
    low, high = np.percentile(depths, _PERCENTILES).tolist()
    return low, max(high, 1.5 * low)


def error_top(pictures: Sequence[Picture]) -> float:
    """Return the relative error of the last colour, one for all pictures so that they compare."""
    errors = [np.abs(picture.relative_error()[picture.valid]) for picture in pictures]
    joined = np.concatenate(errors) if errors else np.empty(0)
    joined = joined[np.isfinite(joined)]
    most = float(np.percentile(joined, 90)) if len(joined) else 0.0
    return next((top for top in _TOPS if top >= most), _TOPS[-1])


def coloured_depth(depth_m: np.ndarray, low_m: float, high_m: float) -> np.ndarray:
    """Return depths (...) as colours (..., 3) uint8 RGB on a logarithmic scale, near is red."""
    with np.errstate(invalid="ignore"):
        place = np.log(high_m / np.clip(depth_m, low_m, high_m)) / math.log(high_m / low_m)
    return _looked_up(place, _DEPTH)


def coloured_error(relative: np.ndarray, top: float) -> np.ndarray:
    """Return signed relative errors (...) as colours (..., 3) uint8 RGB: blue is too near.

    Args:
        relative: (predicted - truth) / truth
        top: the error of the last colour, red; minus that is the first
    """
    stops = np.array(_ERROR_STOPS, float)
    steps = np.linspace(0, len(stops) - 1, _ERROR_COLOURS)
    columns = [np.interp(steps, np.arange(len(stops)), column) for column in stops.T]
    table = np.rint(np.stack(columns, -1)).astype(np.uint8)  # (n, 3)
    return _looked_up((np.clip(relative / top, -1, 1) + 1) / 2, table)


def depth_scale(low_m: float, high_m: float) -> Scale:
    """Return the legend of `coloured_depth`."""
    colours = coloured_depth(np.geomspace(low_m, high_m, 17), low_m, high_m)
    ticks = [metres for metres in _TICKS_M if low_m <= metres <= high_m]
    if len(ticks) < 3:
        ticks = [low_m, math.sqrt(low_m * high_m), high_m]
    span = math.log(high_m / low_m)
    placed = ((math.log(metres / low_m) / span, f"{metres:.3g} m") for metres in ticks)
    return Scale(_gradient(colours), tuple(placed))


def error_scale(top: float) -> Scale:
    """Return the legend of `coloured_error`."""
    colours = coloured_error(np.linspace(-top, top, 17), top)
    labels = f"\u2212{top:.0%} too near", "right", f"+{top:.0%} too far"
    return Scale(_gradient(colours), tuple(zip((0.0, 0.5, 1.0), labels, strict=True)))


def panels(picture: Picture, top: float) -> dict[str, str]:
    """Return data URIs of these views."""
    shown = {name: _fitted(view, picture.image) for name, view in views(picture, top).items()}
    smooth = {name: as_jpeg(shown[name]) for name in ("image", "predicted")}
    return smooth | {name: as_png(shown[name]) for name in ("truth", "error")}


def sheet(picture: Picture, top: float) -> np.ndarray:
    """Return all views in one image (2 H, 2 W, 3) uint8 RGB, where (H, W) is the image's size."""
    size = picture.image.shape[1::-1]
    shown = [
        cv2.resize(view, size, interpolation=cv2.INTER_NEAREST)
        for view in views(picture, top).values()
    ]
    return np.vstack([np.hstack(shown[:2]), np.hstack(shown[2:])])


def views(picture: Picture, top: float) -> dict[str, np.ndarray]:
    """Return the image, predicted and true depth, and the error, in colours (h, w, 3) uint8 RGB.

    Args:
        picture: what is shown
        top: of `error_top`
    """
    low_m, high_m = depth_range(picture)
    predicted = coloured_depth(picture.predicted_m, low_m, high_m)
    truth, error = _drawings(picture, low_m, high_m, top)
    return {"image": picture.image, "predicted": predicted, "truth": truth, "error": error}


def _fitted(view: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return a view (h, w, 3) as high and as wide as its image (H, W, 3), if it has other sides.

    Those of Make3D's grids are 14 times as wide as high, of images that are 2 times.
    """
    (h, w), (height, width) = view.shape[:2], image.shape[:2]
    if abs(w * height - h * width) * 10 <= h * width:
        return view
    return cv2.resize(view, (width, height), interpolation=cv2.INTER_NEAREST)


def _drawings(
    picture: Picture, low_m: float, high_m: float, top: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return true depth and the error as dots (h, w, 3), each of at most 256 colours."""
    truth = coloured_depth(picture.truth_m, low_m, high_m)
    ground = np.broadcast_to(_GROUND, truth.shape)
    error = coloured_error(picture.relative_error(), top)
    dimmed = _dimmed(picture.image, picture.valid.shape)
    return _dots(truth, picture.truth_m > 0, ground), _dots(error, picture.valid, dimmed)


def as_jpeg(image: np.ndarray) -> str:
    """Return what is smooth, (H, W, 3) uint8 RGB, as a data URI, no wider than it can be seen."""
    height, width = image.shape[:2]
    if width > _WIDEST_PX:
        size = _WIDEST_PX, max(1, round(height * _WIDEST_PX / width))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    # By OpenCV: Pillow's optimised encoder gives up on noise.
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    done, data = cv2.imencode(".jpg", image[..., ::-1], options)
    assert done
    return _address("jpeg", data.tobytes())


def as_png(image: np.ndarray) -> str:
    """Return dots of at most 256 colours, (H, W, 3) uint8 RGB, as a data URI of all their pixels.

    With a palette that is half of what a JPEG takes, in which dots would be blurred besides.
    """
    data = io.BytesIO()
    Image.fromarray(image).quantize(_PALETTE).save(data, "PNG", optimize=True)
    return _address("png", data.getvalue())


def _address(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _dots(colours: np.ndarray, known: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Put the colours (h, w, 3) that are known onto a ground, as dots that can be seen.

    Each pixel gets the colour of the nearest known one, so that no two are mixed. Dots are so large
    that they nearly touch: where almost all is known, one pixel.
    """
    if not known.any():
        return ground.copy()
    radius_px = min(0.4 / math.sqrt(known.mean()), _MOST_RADIUS_PX)
    distance_px, (rows, columns) = distance_transform_edt(~known, return_indices=True)
    return np.where((distance_px <= radius_px)[..., None], colours[rows, columns], ground)


def _dimmed(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return an image as a dark ground (h, w, 3) of few greys: errors share the palette."""
    grey = cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA).mean(-1, keepdims=True)
    return np.repeat(np.uint8(grey / 255 * _GREYS) * np.uint8(6), 3, -1)


def _looked_up(place: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return the colours of a table (n, 3) at places from 0 to 1, magenta for what is no number."""
    known = np.isfinite(place)
    index = np.rint(np.where(known, place, 0) * (len(table) - 1)).astype(np.intp)
    return np.where(known[..., None], table[index], _NO_NUMBER)


def _gradient(colours: np.ndarray) -> str:
    stops = ",".join(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colours.tolist())
    return f"linear-gradient(90deg,{stops})"
