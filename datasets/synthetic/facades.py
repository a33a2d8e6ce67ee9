"""The fronts of houses: painted walls with windows that lie deeper than the wall."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from datasets.synthetic import textures
from datasets.synthetic.atlas import GRANULE
from datasets.synthetic.scene import Niches

TEXELS_PER_M = 32
GROUND_FLOOR_M, FLOOR_M = 3.2, 2.9
_WALLS = np.array(
    [
        (0.83, 0.77, 0.64), (0.86, 0.82, 0.74), (0.78, 0.63, 0.45), (0.76, 0.55, 0.47),
        (0.66, 0.70, 0.60), (0.71, 0.73, 0.76), (0.82, 0.71, 0.55), (0.61, 0.57, 0.54),
    ]
)  # fmt: skip
_BRICKS = np.array([(0.56, 0.30, 0.23), (0.62, 0.40, 0.30), (0.50, 0.36, 0.31)])
_FRAMES = np.array([(0.92, 0.92, 0.90), (0.45, 0.32, 0.22), (0.85, 0.86, 0.88)])
_SHUTTERS = np.array([(0.26, 0.38, 0.29), (0.45, 0.27, 0.20), (0.30, 0.36, 0.46)])
_AWNINGS = np.array([(0.62, 0.20, 0.18), (0.20, 0.36, 0.30), (0.75, 0.62, 0.30)])


@dataclass(frozen=True, eq=False)
class Facade:
    """A painted front.

    Attributes:
        image: (H, W, 3), the wall's upper left in its upper left corner, padded
        width_m, height_m: of the wall
        upper, lower: windows of the upper floors, and of the ground floor
        wall: (3,) its colour
    """

    image: np.ndarray
    width_m: float
    height_m: float
    upper: Niches
    lower: Niches
    wall: np.ndarray


def height_m(floors: int) -> float:
    """Return how high the eaves of a house with so many floors are."""
    return GROUND_FLOOR_M + FLOOR_M * (floors - 1) + 0.5


def paint(rng: np.random.Generator, width_m: float, floors: int) -> Facade:
    """Paint the front of a house of some floors, the ground floor included."""
    wall_m = height_m(floors)
    shape = tuple(_padded(length_m) for length_m in (wall_m, width_m))
    if rng.random() < 0.25:
        wall = _BRICKS[rng.integers(len(_BRICKS))]
        image = textures.bricks(rng, shape, wall)
    else:
        wall = np.clip(_WALLS[rng.integers(len(_WALLS))] + rng.uniform(-0.06, 0.06, 3), 0, 0.9)
        image = textures.plaster(rng, shape, wall)
    bays = max(2, round(width_m / rng.uniform(2.3, 3.1)))
    pitch = width_m * TEXELS_PER_M / bays
    ground = round((wall_m - GROUND_FLOOR_M) * TEXELS_PER_M)  # row where the ground floor begins
    upper = _window_box(rng, pitch, FLOOR_M, sill_m=0.9, height_m=rng.uniform(1.3, 1.65))
    depth_m = rng.uniform(0.12, 0.28)
    floor = FLOOR_M * TEXELS_PER_M
    above = ground - floor * (floors - 1)
    _paint_upper_floors(rng, image, upper, pitch, above, (bays, floors - 1))
    shop = rng.random() < 0.35
    sill_m, glass_m = (0.45, 2.1) if shop else (1.0, 1.5)
    lower = _window_box(rng, pitch, GROUND_FLOOR_M, sill_m, glass_m, wide=shop)
    _paint_ground_floor(rng, image, lower, pitch, ground, bays, shop)
    _paint_edges(image, ground, round(wall_m * TEXELS_PER_M), wall)
    return Facade(
        np.clip(image, 0, 1), width_m, wall_m,
        Niches((0.0, above), (pitch, floor), (bays, floors - 1), upper, depth_m),
        Niches((0.0, ground), (pitch, GROUND_FLOOR_M * TEXELS_PER_M), (bays, 1), lower, depth_m),
        wall,
    )  # fmt: skip


def _padded(length_m: float) -> int:
    return int(-(-length_m * TEXELS_PER_M // GRANULE)) * GRANULE


def _window_box(
    rng: np.random.Generator,
    pitch: float,
    floor_m: float,
    sill_m: float,
    height_m: float,
    wide: bool = False,
) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom of a window in its cell [texels]."""
    width = pitch - 0.5 * TEXELS_PER_M if wide else min(rng.uniform(0.42, 0.52) * pitch, 48)
    bottom = (floor_m - sill_m) * TEXELS_PER_M
    left = (pitch - width) / 2
    return left, bottom - height_m * TEXELS_PER_M, left + width, bottom


def _paint_upper_floors(
    rng: np.random.Generator,
    image: np.ndarray,
    box: tuple[float, ...],
    pitch: float,
    above: float,
    count: tuple[int, int],
) -> None:
    frame = _FRAMES[rng.integers(len(_FRAMES))]
    shutters = _SHUTTERS[rng.integers(len(_SHUTTERS))] if rng.random() < 0.4 else None
    surround = rng.uniform(0.75, 1.2)
    left, top, right, bottom = box
    for row in range(count[1]):
        for bay in range(count[0]):
            x, y = bay * pitch, above + row * FLOOR_M * TEXELS_PER_M
            place = tuple(round(v) for v in (x + left, y + top, x + right, y + bottom))
            _shade(image, (place[0] - 4, place[1] - 5, place[2] + 4, place[3] + 4), surround)
            if shutters is not None:
                for side in (place[0] - 15, place[2] + 2):
                    _fill(image, (side, place[1], side + 13, place[3]), shutters, lines=4)
            _paint_window(rng, image, place, frame)
            _fill(image, (place[0] - 5, place[3], place[2] + 5, place[3] + 3), (0.72, 0.71, 0.69))


def _paint_window(
    rng: np.random.Generator, image: np.ndarray, place: tuple[int, ...], frame: np.ndarray
) -> None:
    left, top, right, bottom = place
    _fill(image, place, frame)
    glass = (left + 3, top + 3, right - 3, bottom - 3)
    height, width = glass[3] - glass[1], glass[2] - glass[0]
    # The sky is mirrored above, the street below; what is inside is dark.
    mirrored = np.linspace(rng.uniform(0.35, 0.6), rng.uniform(0.08, 0.2), height)[:, None, None]
    pane = np.broadcast_to(mirrored * np.array([0.85, 0.95, 1.05]), (height, width, 3)).copy()
    pane *= 1 + 0.25 * textures.noise(rng, (128, 128), (16, 32))[:height, :width, None]
    if rng.random() < 0.5:  # curtains
        part = rng.uniform(0.15, 0.45)
        folds = 0.80 + 0.10 * np.sin(np.arange(width) * rng.uniform(0.6, 1.1))[None, :, None]
        hang = np.abs(np.linspace(-1, 1, width)) > 1 - part
        pane = np.where(hang[None, :, None], folds * np.array([0.86, 0.84, 0.78]), pane)
    elif rng.random() < 0.3:  # a blind, half way down
        blind = np.arange(height) < height * rng.uniform(0.2, 0.9)
        slats = 0.66 + 0.10 * (np.arange(height) % 4 < 2)
        pane = np.where(blind[:, None, None], slats[:, None, None], pane)
    _put(image, glass, pane)
    middle = (left + right) // 2
    _fill(image, (middle - 1, top, middle + 2, bottom), frame)
    if bottom - top > 44:
        _fill(image, (left, top + 14, right, top + 16), frame)


def _paint_ground_floor(
    rng: np.random.Generator,
    image: np.ndarray,
    box: tuple[float, ...],
    pitch: float,
    ground: int,
    bays: int,
    shop: bool,
) -> None:
    left, top, right, bottom = box
    frame = np.array((0.25, 0.26, 0.28)) if shop else _FRAMES[rng.integers(len(_FRAMES))]
    floor = round(GROUND_FLOOR_M * TEXELS_PER_M)
    if shop:
        colour = _AWNINGS[rng.integers(len(_AWNINGS))]
        whole = (6, ground + 4, round(bays * pitch) - 6, ground + 18)
        _fill(image, whole, colour)
        _write(rng, image, whole)
    door = int(rng.integers(bays))
    for bay in range(bays):
        x = bay * pitch
        place = tuple(round(v) for v in (x + left, ground + top, x + right, ground + bottom))
        if bay == door:
            colour = rng.uniform(0.12, 0.5, 3)
            centre = (place[0] + place[2]) // 2
            entry = (centre - 18, ground + floor - 72, centre + 18, ground + floor)
            _fill(image, place, frame if shop else image[place[1] - 8, place[0]])
            _fill(image, (entry[0] - 4, entry[1] - 5, entry[2] + 4, entry[3]), (0.7, 0.69, 0.66))
            _fill(image, entry, colour, lines=9)
            _fill(image, (centre - 10, entry[1] + 6, centre + 10, entry[1] + 24), (0.2, 0.24, 0.27))
        else:
            _paint_window(rng, image, place, frame)
            if shop:
                goods = rng.uniform(0.2, 0.9, (3, 6, 3))
                _put(image, (place[0] + 5, place[3] - 26, place[2] - 5, place[3] - 6), goods)


def _paint_edges(image: np.ndarray, ground: int, bottom: int, wall: np.ndarray) -> None:
    base = wall * 0.62
    _fill(image, (0, bottom - 14, image.shape[1], image.shape[0]), base)
    _fill(image, (0, ground - 3, image.shape[1], ground + 2), np.minimum(wall * 1.12, 0.95))
    _fill(image, (0, 0, image.shape[1], 6), np.minimum(wall * 0.8, 0.95))
    rows = np.arange(len(image))
    near = np.exp(-np.maximum(bottom - rows, 0) / 16)  # darker where it meets the ground
    image *= (1 - 0.28 * near)[:, None, None]
    under_roof = np.exp(-rows / 9)
    image *= (1 - 0.35 * under_roof)[:, None, None]


def _fill(
    image: np.ndarray,
    place: tuple[int, ...],
    colour: np.ndarray | tuple[float, ...],
    lines: int = 0,
) -> None:
    """Fill left, top, right, bottom; with darker lines across if a distance is given."""
    left, top, right, bottom = (max(int(v), 0) for v in place)
    part = image[top:bottom, left:right]
    part[:] = np.asarray(colour)
    if lines:
        part[::lines] *= 0.7


def _shade(image: np.ndarray, place: tuple[int, ...], factor: float) -> None:
    left, top, right, bottom = (max(int(v), 0) for v in place)
    image[top:bottom, left:right] *= factor


def _put(image: np.ndarray, place: tuple[int, ...], picture: np.ndarray) -> None:
    left, top, right, bottom = place
    part = image[top:bottom, left:right]
    if part.size:
        size = part.shape[1], part.shape[0]
        fitted = cv2.resize(picture.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        part[:] = fitted


def _write(rng: np.random.Generator, image: np.ndarray, place: tuple[int, ...]) -> None:
    """Write a shop's sign."""
    words = ("BAECKEREI", "APOTHEKE", "CAFE", "BUECHER", "BLUMEN", "FAHRRAD", "OPTIK", "KIOSK")
    word = words[rng.integers(len(words))]
    part = image[place[1] : place[3], place[0] : place[2]]
    textures.write(part, word, (10, 12), 0.42, (0.95, 0.94, 0.90), 1)
