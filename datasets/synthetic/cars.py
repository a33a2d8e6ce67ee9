"""Cars: bodies of some forty facets, and their paint.

The frame of a car: x forward, y left, z up, origin on the ground below its middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from datasets.synthetic.atlas import Chart, Page
from datasets.synthetic.scene import (
    Facets,
    box_corners,
    facets,
    join,
    octagon,
    quads,
    rectangle,
)

TEXELS_PER_M = 48
LENGTH_M, WIDTH_M = 4.3, 1.76
COLOURS = (
    (0.75, 0.76, 0.78), (0.16, 0.17, 0.19), (0.55, 0.11, 0.10), (0.15, 0.24, 0.44),
    (0.87, 0.87, 0.85), (0.36, 0.39, 0.40), (0.24, 0.36, 0.30), (0.62, 0.55, 0.42),
)  # fmt: skip
BELT_M, _SILL_M, _ROOF_INSET_M = 0.95, 0.26, 0.24
_SIDE_SHAPE, _OVER_SHAPE = (128, 256), (384, 128)
_SIDE_ORIGIN = (128, 96)  # column and row of x = 0, z = 0 on the picture of a side
_GLASS = (0.10, 0.13, 0.15)
_WHEELS_M, _WHEEL_RADIUS_M = (-1.32, 1.30), 0.31
_FINE = 4  # times finer than its texels a side is painted, for smooth edges


@dataclass(frozen=True)
class Shape:
    """The outline of a car from the side: x, z [m] from the rear bumper over the roof to the front.

    Points 3 to 6 are the cabin: foot of the rear window, rear and front of the roof, foot of the
    windscreen.
    """

    outline: tuple[tuple[float, float], ...]


SHAPES = (
    Shape(((-2.10, 0.26), (-2.15, 0.60), (-2.02, 0.92), (-1.90, 0.95), (-1.45, 1.46), (0.10, 1.46),
           (0.98, 0.95), (1.95, 0.78), (2.15, 0.58), (2.10, 0.26))),  # hatchback
    Shape(((-2.15, 0.26), (-2.15, 0.60), (-2.08, 0.90), (-1.42, 0.95), (-0.85, 1.42), (0.15, 1.42),
           (0.98, 0.95), (1.98, 0.76), (2.15, 0.58), (2.10, 0.26))),  # saloon
    Shape(((-2.15, 0.26), (-2.20, 0.60), (-2.18, 0.90), (-2.15, 0.95), (-2.02, 1.85), (0.70, 1.85),
           (1.40, 0.95), (2.02, 0.86), (2.15, 0.58), (2.10, 0.26))),  # van
)  # fmt: skip


@dataclass(frozen=True)
class Paint:
    """The textures of one car."""

    side: Chart
    over: Chart
    dark: Chart
    wheel: Chart


def shape_of(kind: int) -> Shape:
    """Return the outline of one of the cars of `make_cars`."""
    return SHAPES[kind % len(SHAPES)]


def make_cars(page: Page) -> list[Facets]:
    """Paint cars of all colours onto a page of the atlas; return them in their own frames."""
    kinds = [(shape_of(kind), colour) for kind, colour in enumerate(COLOURS)]
    sides = [page.add(_side(colour, shape)) for shape, colour in kinds]
    overs = [page.add(_over(colour, shape)) for shape, colour in kinds]
    dark, wheel = page.add(np.full((64, 64, 3), 0.06), tiles=True), page.add(_wheel())
    return [
        _body(shape, Paint(side, over, dark, wheel))
        for (shape, _), side, over in zip(kinds, sides, overs, strict=True)
    ]


def _body(shape: Shape, paint: Paint) -> Facets:
    """Return a car in its own frame."""
    outline = np.array(shape.outline)
    parts = [_over_facets(outline, paint.over)]
    parts += [_side_facets(outline, paint.side, side) for side in (-1, 1)]
    under = rectangle(3.9, 1.5)
    parts.append(quads(box_corners(under, 0.10, 0.35)[:4], paint.dark, TEXELS_PER_M))
    for x in _WHEELS_M:
        parts += [_wheel_facets(x, side, paint.wheel) for side in (-1, 1)]
        tyres = rectangle(0.5, 1.62, (x, 0.0))
        parts.append(quads(box_corners(tyres, 0.02, 0.3)[:4], paint.dark, TEXELS_PER_M))
    return join(parts)


def _half_width(z: np.ndarray, roof_m: float) -> np.ndarray:
    return WIDTH_M / 2 - _ROOF_INSET_M * np.clip((z - BELT_M) / (roof_m - BELT_M), 0, 1)


def _over_facets(outline: np.ndarray, chart: Chart) -> Facets:
    """Return what is seen from above, in front and behind: strips across the car."""
    half = _half_width(outline[:, 1], outline[:, 1].max())
    left = np.stack([outline[:, 0], half, outline[:, 1]], 1)
    right = left * (1, -1, 1)
    corners = np.stack([left[:-1], right[:-1], right[1:], left[1:]], 1)
    along = _arc_length(outline) * TEXELS_PER_M
    middle = _OVER_SHAPE[1] / 2
    columns, rows = middle - half * TEXELS_PER_M, along
    texels = np.stack(
        [columns[:-1], rows[:-1], 2 * middle - columns[:-1], rows[:-1],
         2 * middle - columns[1:], rows[1:]], 1,
    )  # fmt: skip
    return facets(corners, texels.reshape(-1, 3, 2), chart)


def _arc_length(outline: np.ndarray) -> np.ndarray:
    return np.append(0, np.cumsum(np.linalg.norm(np.diff(outline, axis=0), axis=1)))


def _side_facets(outline: np.ndarray, chart: Chart, side: int) -> Facets:
    """Return a side: upright up to the belt, leaning inwards above."""
    roof_m = outline[:, 1].max()
    polygons = [outline[3:7][::-1]]  # the cabin
    low = np.vstack([outline[1:4], outline[6:9]])
    low[:, 1] = np.minimum(low[:, 1], BELT_M)
    for (x0, z0), (x1, z1) in zip(low[:-1], low[1:], strict=True):
        polygons.append(np.array([(x0, _SILL_M), (x1, _SILL_M), (x1, z1), (x0, z0)]))
    corners = []
    for polygon in polygons:
        x, z = polygon.T
        face = np.stack([x, side * _half_width(z, roof_m), z], 1)
        corners.append(_oriented(face, side))
    corners = np.array(corners)
    column = _SIDE_ORIGIN[0] + corners[:, :3, 0] * TEXELS_PER_M
    row = _SIDE_ORIGIN[1] - corners[:, :3, 2] * TEXELS_PER_M
    return facets(corners, np.stack([column, row], -1), chart)


def _oriented(face: np.ndarray, side: int) -> np.ndarray:
    """Return a face (4, 3), counter-clockwise as seen from its side of the car."""
    normal = np.cross(face[1] - face[0], face[2] - face[0])
    return face if normal[1] * side > 0 else face[::-1]


def _wheel_facets(x: float, side: int, chart: Chart) -> Facets:
    faces = octagon(_WHEEL_RADIUS_M)  # (3, 4, 2)
    across = np.full(faces.shape[:2], side * (WIDTH_M / 2 + 0.005))
    corners = np.stack([x + faces[..., 0], across, _WHEEL_RADIUS_M + faces[..., 1]], -1)
    corners = np.array([_oriented(face, side) for face in corners])
    from_centre = corners[:, :3][..., [0, 2]] - (x, _WHEEL_RADIUS_M)
    return facets(corners, 32 + from_centre / _WHEEL_RADIUS_M * (30, -30), chart)


def _wheel() -> np.ndarray:
    image = np.full((64, 64, 3), 0.07)
    cv2.circle(image, (32, 32), 19, (0.55, 0.56, 0.58), -1)
    for spoke in np.arange(5) * 2 * np.pi / 5:
        at = (int(32 + 12 * np.cos(spoke)), int(32 + 12 * np.sin(spoke)))
        cv2.circle(image, at, 4, (0.15, 0.15, 0.16), -1)
    return image


def _side(colour: tuple[float, float, float], shape: Shape) -> np.ndarray:
    """Paint windows, doors, lights and wheel arches."""
    fine = tuple(side * _FINE for side in _SIDE_SHAPE)
    image = np.tile(np.array(colour, np.float32), (*fine, 1))
    outline = np.array(shape.outline)
    rows = _SIDE_ORIGIN[1] - (np.arange(fine[0]) + 0.5) / _FINE
    z_m = rows / TEXELS_PER_M
    image *= (0.80 + 0.22 * np.clip((z_m - 0.2) / 0.7, 0, 1))[:, None, None].astype(np.float32)
    image[np.abs(z_m - 0.72) < 0.02] *= 1.15
    image[z_m < 0.36] *= 0.35
    cabin = outline[3:7]
    centre = cabin.mean(0)
    window, upper = np.zeros(fine, np.uint8), np.zeros(fine, np.uint8)
    cv2.fillPoly(window, [_fine_texels(centre + (cabin - centre) * (0.90, 0.80))], 1)
    cv2.fillPoly(upper, [_fine_texels(centre + (cabin - centre) * (0.90, 0.30) + (0, 0.12))], 1)
    image[window > 0] = _GLASS
    image[(window > 0) & (upper > 0)] += 0.16  # the sky in the glass
    for x in (-0.62, 0.42):  # pillar and edges of the doors
        column = _fine_texels(np.array([[x, 0]]))[0, 0]
        image[z_m < outline[:, 1].max(), column - 6 : column + 6] = np.array(colour) * 0.55
    for x in _WHEELS_M:
        at = _fine_texels(np.array([[x, _WHEEL_RADIUS_M]]))[0]
        cv2.circle(image, at.tolist(), 18 * _FINE, (0.03,) * 3, -1)
    for x, light in ((-2.05, (0.55, 0.06, 0.05)), (2.02, (0.85, 0.86, 0.84))):
        at = _fine_texels(np.array([[x, 0.68]]))[0]
        high, long = 4 * _FINE, 9 * _FINE
        image[at[1] - high : at[1] + high, max(at[0] - long, 0) : at[0] + long] = light
    size = _SIDE_SHAPE[::-1]
    return np.clip(cv2.resize(image, size, interpolation=cv2.INTER_AREA), 0, 1)


def _fine_texels(points: np.ndarray) -> np.ndarray:
    """Return where x, z [m] (N, 2) are on the fine picture of a side: columns, rows (N, 2)."""
    texels = points * (TEXELS_PER_M, -TEXELS_PER_M) + _SIDE_ORIGIN
    return np.rint(texels * _FINE).astype(np.int32)


def _over(colour: tuple[float, float, float], shape: Shape) -> np.ndarray:
    """Paint rear, roof, bonnet and front; rows go along the outline."""
    image = np.tile(np.array(colour), (*_OVER_SHAPE, 1))
    rows = (_arc_length(np.array(shape.outline)) * TEXELS_PER_M).round().astype(int)
    middle = _OVER_SHAPE[1] // 2
    for first, last in ((3, 4), (5, 6)):  # rear window and windscreen
        image[rows[first] + 3 : rows[last] - 3, middle - 38 : middle + 38] = _GLASS
        half = (rows[first] + rows[last]) // 2
        image[half : half + 6, middle - 30 : middle + 20] += 0.12
    for first, last, light in ((1, 2, (0.62, 0.07, 0.06)), (7, 8, (0.88, 0.89, 0.86))):
        image[rows[first] + 1 : rows[last], middle - 40 : middle - 25] = light
        image[rows[first] + 1 : rows[last], middle + 25 : middle + 40] = light
    for first, last in ((0, 1), (8, 9)):  # bumpers with a number plate
        image[rows[first] : rows[last]] *= 0.75
        plate = (rows[first] + rows[last]) // 2
        image[plate - 3 : plate + 3, middle - 12 : middle + 12] = 0.88
    grille = slice(rows[7] + 2, rows[8])
    image[grille, middle - 20 : middle + 20] = 0.12
    image[rows[6] + 4 : rows[7], middle - 1 : middle + 1] *= 0.85
    return np.clip(image, 0, 1)
