"""The ground: the road with its markings, parking lanes, kerbs, pavements, and the land beyond.

The road is painted for each piece of the street anew, in the street's coordinates: s along the
centreline, to the left of it. Shadows are painted with it, for the sun does not move.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from datasets.synthetic import textures
from datasets.synthetic.atlas import Chart
from datasets.synthetic.scene import Facets, facets, join
from datasets.synthetic.street import Street
from datasets.synthetic.trajectory import LANE_OFFSET_M

TEXELS_PER_M = 32
LANE_M, PARKING_M, PAVEMENT_M = 2 * LANE_OFFSET_M, 2.2, 3.2
BAY_M = 6.0  # along the street, for each parked car
DASH_M = 6.0  # from one dash of the middle line to the next
KERB_LEFT_M = LANE_M + PARKING_M
EDGE_LEFT_M = KERB_LEFT_M + PAVEMENT_M
HALF_WIDTH_M = 10.0  # of what is painted
KERB_M = 0.12
_STEP_M = 2.0
_LAND_CELL_M, _LAND_REACH_M, _LAND_DEPTH_M = 16.0, 90.0, 0.9
_LAND_WINDOW_M = 400.0  # of the street may be nearer than a piece to the land around it
# Left of the centreline, and above the relief: the lowest belong to the road's foot.
_PROFILE = (
    (-HALF_WIDTH_M, KERB_M), (-KERB_LEFT_M, KERB_M), (-KERB_LEFT_M + 0.02, 0.0), (-LANE_M, 0.0),
    (0.0, 0.05), (LANE_M, 0.0), (KERB_LEFT_M - 0.02, 0.0), (KERB_LEFT_M, KERB_M),
    (HALF_WIDTH_M, KERB_M),
)  # fmt: skip
_PAINT = (0.86, 0.86, 0.84)


def height_above_relief(left_m: np.ndarray) -> np.ndarray:
    """Return by how much the road's surface lies above the relief [m]."""
    return np.interp(left_m, *np.array(_PROFILE).T)


def paint(
    rng: np.random.Generator, start_m: float, length_m: float, shadows: Sequence[np.ndarray]
) -> np.ndarray:
    """Paint a piece of the street: columns go along it, rows from its left to its right.

    Args:
        rng: where chance comes from
        start_m: s at the first column, so that dashed lines go on
        length_m: of the piece
        shadows: polygons (N, 2) of s and left [m]

    Returns:
        (2 HALF_WIDTH_M, length_m, 3) times TEXELS_PER_M
    """
    shape = round(2 * HALF_WIDTH_M * TEXELS_PER_M), round(length_m * TEXELS_PER_M)
    left_m = HALF_WIDTH_M - (np.arange(shape[0]) + 0.5) / TEXELS_PER_M
    along_m = start_m + (np.arange(shape[1]) + 0.5) / TEXELS_PER_M
    image = textures.asphalt(rng, shape)
    _patch(rng, image, left_m)
    for lane in (-1, 1):  # worn where wheels roll
        for wheel in (-0.75, 0.75):
            worn = np.exp(-(((left_m - lane * LANE_M / 2 - wheel) / 0.28) ** 2))
            image *= 1 - 0.10 * worn[:, None, None]
    _mark(rng, image, left_m, along_m)
    pavement = np.abs(left_m) > KERB_LEFT_M + 0.15
    image[pavement] = textures.slabs(rng, shape, 16)[pavement]
    image[(np.abs(left_m) > KERB_LEFT_M) & ~pavement] = textures.tinted(
        (0.62, 0.61, 0.59), 0.05 * textures.noise(rng, (64, shape[1]), (8, 32))[:1]
    )
    gutter = (np.abs(left_m) < KERB_LEFT_M) & (np.abs(left_m) > KERB_LEFT_M - 0.3)
    image[gutter] *= 0.8
    beyond = np.abs(left_m) > EDGE_LEFT_M
    image[beyond] = textures.grass(rng, shape)[beyond]
    image *= brightness(shape, start_m, shadows)[..., None]
    return np.clip(image, 0, 1)


def _patch(rng: np.random.Generator, image: np.ndarray, left_m: np.ndarray) -> None:
    """Mend the road here and there, and put in manholes."""
    road = np.flatnonzero(np.abs(left_m) < LANE_M + 1)
    for _ in range(rng.integers(1, 4)):
        height, width = rng.integers(20, 70), rng.integers(30, 200)
        row = rng.integers(road[0], road[-1] - height)
        column = rng.integers(0, image.shape[1] - width)
        part = image[row : row + height, column : column + width]
        part *= rng.uniform(0.72, 0.9)
        cv2.rectangle(image, (column, row), (column + width, row + height), (0.16,) * 3, 1)
    for _ in range(rng.integers(0, 3)):
        at = (int(rng.integers(20, image.shape[1] - 20)), int(rng.integers(road[0], road[-1])))
        cv2.circle(image, at, 11, (0.20, 0.19, 0.19), -1)
        cv2.circle(image, at, 11, (0.33, 0.32, 0.32), 2)
        cv2.line(image, (at[0] - 6, at[1]), (at[0] + 6, at[1]), (0.30,) * 3, 2)


def _mark(
    rng: np.random.Generator, image: np.ndarray, left_m: np.ndarray, along_m: np.ndarray
) -> None:
    """Paint the lines: dashes in the middle, the borders of the parking lanes."""
    worn = np.clip(0.85 + 0.12 * textures.noise(rng, image.shape[:2], (4, 16)), 0, 1)
    dashes = (np.abs(left_m) < 0.07)[:, None] & (along_m % DASH_M < DASH_M / 2)
    border = (np.abs(np.abs(left_m) - LANE_M) < 0.06)[:, None] & (along_m % 1.0 < 0.5)
    bays = (np.abs(left_m) > LANE_M) & (np.abs(left_m) < KERB_LEFT_M)
    between = bays[:, None] & (along_m % BAY_M < 0.1)
    textures.blend(image, _PAINT, worn * (dashes | border | between))


def brightness(shape: tuple[int, int], start_m: float, shadows: Sequence[np.ndarray]) -> np.ndarray:
    """Return how bright (H, W) the ground is, 1 in the sun; parts of a texel count."""
    bits = 4  # of a part of a texel
    dark = np.zeros(shape, np.uint8)
    for polygon in shadows:
        texels = (polygon - (start_m, HALF_WIDTH_M)) * (TEXELS_PER_M, -TEXELS_PER_M) - 0.5
        points = np.rint(texels * 2**bits).astype(np.int32)
        cv2.fillPoly(dark, [points], 255, lineType=cv2.LINE_AA, shift=bits)
    soft = cv2.GaussianBlur(dark, (0, 0), 1.6).astype(np.float32) / 255
    return 1 - 0.52 * soft


def road(street: Street, start_m: float, length_m: float, chart: Chart) -> Facets:
    """Return the painted piece of the street as facets, two for each patch."""
    s = start_m + np.linspace(0, length_m, round(length_m / _STEP_M) + 1)
    left_m, above_m = np.array(_PROFILE).T
    grid_s, grid_left = np.meshgrid(s, left_m, indexing="ij")
    xy = street.place_w(grid_s, grid_left)
    points = np.concatenate([xy, (street.height(xy) + above_m)[..., None]], -1)
    texels = np.stack([grid_s - start_m, HALF_WIDTH_M - grid_left], -1) * TEXELS_PER_M
    return _mesh(points, texels, chart)


def _mesh(points: np.ndarray, texels: np.ndarray, chart: Chart) -> Facets:
    """Return two triangles for each cell of a grid (M, N, 3), whose front is on the left of ij."""
    corner = [(0, 0), (1, 0), (1, 1), (0, 1)]
    m, n = points.shape[0] - 1, points.shape[1] - 1
    p = np.stack([points[i : i + m, j : j + n] for i, j in corner], 2).reshape(-1, 4, 3)
    t = np.stack([texels[i : i + m, j : j + n] for i, j in corner], 2).reshape(-1, 4, 2)
    return _triangles(p, t, chart)


def _triangles(corners: np.ndarray, texels: np.ndarray, chart: Chart) -> Facets:
    """Return two triangles for each of N cells with corners (N, 4, 3) and texels (N, 4, 2)."""
    halves = ([0, 1, 2], [0, 2, 3])
    return join([facets(corners[:, k + k[-1:]], texels[:, k], chart) for k in halves])


def land(street: Street, start_m: float, length_m: float, chart: Chart) -> Facets | None:
    """Return the meadows around a piece of the street: the cells of a fixed grid nearest to it.

    They lie lower than the road, which covers them.
    """
    # All pieces look at the same points of the same line: each cell is nearest to one of them.
    s = np.arange(street.start_m, street.end_m, 4.0)
    s = s[np.abs(s - start_m) < length_m + _LAND_WINDOW_M]
    line = street.position_w(s)
    own = line[(s >= start_m) & (s < start_m + length_m)]
    if len(own) == 0:
        return None
    low = np.floor((own.min(0) - _LAND_REACH_M) / _LAND_CELL_M).astype(int)
    high = np.ceil((own.max(0) + _LAND_REACH_M) / _LAND_CELL_M).astype(int)
    i, j = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]), indexing="ij")
    centre = np.stack([i, j], -1).reshape(-1, 2) * _LAND_CELL_M + _LAND_CELL_M / 2
    gaps = np.linalg.norm(centre[:, None] - line, axis=-1)
    nearest = s[gaps.argmin(1)]
    mine = (nearest >= start_m) & (nearest < start_m + length_m) & (gaps.min(1) < _LAND_REACH_M)
    if not mine.any():
        return None
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * _LAND_CELL_M / 2
    xy = centre[mine][:, None] + signs  # (n, 4, 2)
    points = np.concatenate([xy, (street.height(xy) - _LAND_DEPTH_M)[..., None]], -1)
    texels = xy * TEXELS_PER_M * (1, -1) / 2
    return _triangles(points, texels, chart)
