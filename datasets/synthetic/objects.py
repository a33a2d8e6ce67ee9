"""What stands along a street: houses, trees, hedges, lamps, signs. Each in a frame of its own.

The frame of an object: z up, origin on the ground; x along the street and y away from it where
that matters. Everything is made of facets and balls that share the textures of `Materials`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from datasets.synthetic import facades, textures
from datasets.synthetic.atlas import Chart, Page
from datasets.synthetic.scene import (
    Balls,
    Facets,
    box_corners,
    crown,
    facets,
    join,
    octagon,
    quads,
    rectangle,
    side_corners,
)

TEXELS_PER_M = 32
_LEAF_COLOURS = np.array([(1.0, 1.0, 1.0), (0.85, 0.95, 0.8), (1.15, 1.05, 0.75), (0.8, 0.9, 0.95)])


@dataclass(frozen=True)
class Materials:
    """Textures that all objects of a world share."""

    roof: Chart
    plaster: Chart
    planks: Chart
    leaves: Chart
    bark: Chart
    grass: Chart
    metal: Chart
    clouds: Chart
    signs: tuple[Chart, ...]


def make_materials(rng: np.random.Generator, page: Page) -> Materials:
    """Paint the shared textures onto a page of the atlas."""
    side = (256, 256)
    return Materials(
        roof=page.add(textures.roof_tiles(rng, side), tiles=True),
        plaster=page.add(textures.plaster(rng, side, (0.8, 0.8, 0.8)), tiles=True),
        planks=page.add(textures.planks(rng, side), tiles=True),
        leaves=page.add(textures.leaves(rng, side), tiles=True),
        bark=page.add(textures.bark(rng, side), tiles=True),
        grass=page.add(textures.grass(rng, side), tiles=True),
        metal=page.add(np.full((64, 64, 3), 0.5), tiles=True),
        clouds=page.add(textures.cloud_cover(rng, side), tiles=True),
        signs=tuple(page.add(face) for face in (_parking_sign(), _priority_sign(), _limit_sign())),
    )


def house(
    rng: np.random.Generator,
    facade: facades.Facade,
    front: Chart,
    materials: Materials,
    depth_m: float,
) -> Facets:
    """Return a house whose front stands on y = 0, its middle in the origin, and faces -y."""
    half, eaves = facade.width_m / 2, facade.height_m
    parts = _front(facade, front)
    wall = facade.wall / 0.8
    footprint = rectangle(facade.width_m, depth_m, (0.0, depth_m / 2))
    sides = box_corners(footprint, 0.0, eaves)[1:4]
    parts.append(quads(_deep(sides), materials.plaster, TEXELS_PER_M, wall))
    parts += _roof(rng, materials, half, depth_m, eaves, wall)
    parts += _front_details(rng, materials, facade, wall)
    return join(parts)


def _deep(corners: np.ndarray) -> np.ndarray:
    """Let walls begin below the ground, which may fall along a house."""
    deep = corners.copy()
    deep[:, :2, 2] -= 1.5
    return deep


def _front(facade: facades.Facade, front: Chart) -> list[Facets]:
    half, middle, top = facade.width_m / 2, facades.GROUND_FLOOR_M, facade.height_m
    scale = facades.TEXELS_PER_M
    bands = ((-1.5, middle, facade.lower), (middle, top, facade.upper))
    parts = []
    for low, high, niches in bands:
        corners = [[(-half, 0, low), (half, 0, low), (half, 0, high), (-half, 0, high)]]
        rows = (top - low) * scale, (top - high) * scale
        width = facade.width_m * scale
        texels = [[(0, rows[0]), (width, rows[0]), (width, rows[1])]]
        parts.append(facets(np.array(corners), np.array(texels), front, niches=niches))
    return parts


def _roof(
    rng: np.random.Generator,
    materials: Materials,
    half: float,
    depth_m: float,
    eaves: float,
    wall: np.ndarray,
) -> list[Facets]:
    rise, over = depth_m / 2 * rng.uniform(0.6, 1.0), 0.45
    ridge = eaves + rise
    low = eaves - over * rise / (depth_m / 2)
    x, y = half + 0.2, depth_m / 2
    slopes = np.array(
        [
            [(-x, -over, low), (x, -over, low), (x, y, ridge), (-x, y, ridge)],
            [(x, depth_m + over, low), (-x, depth_m + over, low), (-x, y, ridge), (x, y, ridge)],
        ]
    )
    gables = np.array(
        [
            [(half, 0, eaves), (half, depth_m, eaves), (half, y, ridge), (half, y, ridge)],
            [(-half, depth_m, eaves), (-half, 0, eaves), (-half, y, ridge), (-half, y, ridge)],
        ]
    )
    under = slopes[:, [1, 0, 3, 2]] - (0, 0, 0.12)  # seen from the street below the eaves
    edge = np.array([[(-x, -over, low - 0.12), (x, -over, low - 0.12), (x, -over, low),
                      (-x, -over, low)]])  # fmt: skip
    tint = rng.uniform(0.7, 1.1) * (np.array([1, 1, 1]) + rng.uniform(-0.1, 0.1, 3))
    parts = [quads(slopes, materials.roof, TEXELS_PER_M, tint)]
    parts.append(quads(gables, materials.plaster, TEXELS_PER_M, wall))
    parts += [
        quads(part, materials.planks, TEXELS_PER_M, (0.8, 0.8, 0.8)) for part in (under, edge)
    ]
    for at in rng.uniform(-half + 1, half - 1, rng.integers(1, 3)):
        chimney = box_corners(rectangle(0.5, 0.5, (at, y - 0.6)), ridge - 1.5, ridge + 0.7)
        parts.append(quads(chimney, materials.roof, TEXELS_PER_M, (0.8, 0.75, 0.75)))
    if rng.random() < 0.5:
        for at in np.linspace(-half, half, rng.integers(3, 5))[1:-1]:
            parts += _dormer(materials, at, eaves, rise / y, wall)
    return parts


def _dormer(
    materials: Materials, at: float, eaves: float, slope: float, wall: np.ndarray
) -> list[Facets]:
    back = min(1.1 + 1.3 / slope, 4.0)
    walls = box_corners(rectangle(1.5, back - 0.9, (at, (0.9 + back) / 2)), eaves, eaves + 2.2)
    pane = np.array([[(at - 0.5, 0.89, eaves + 1.05), (at + 0.5, 0.89, eaves + 1.05),
                      (at + 0.5, 0.89, eaves + 2.0), (at - 0.5, 0.89, eaves + 2.0)]])  # fmt: skip
    return [
        quads(walls[:4], materials.plaster, TEXELS_PER_M, wall),
        quads(walls[4:], materials.roof, TEXELS_PER_M, (0.75, 0.75, 0.8)),
        quads(pane, materials.metal, TEXELS_PER_M, (0.35, 0.4, 0.45)),
    ]


def _front_details(
    rng: np.random.Generator, materials: Materials, facade: facades.Facade, wall: np.ndarray
) -> list[Facets]:
    """Return what stands out from the wall: a cornice, a downpipe, balconies."""
    half, boxes = facade.width_m / 2, []
    cornice = facades.GROUND_FLOOR_M - 0.05
    boxes.append((rectangle(2 * half, 0.14, (0, -0.07)), cornice, cornice + 0.14, wall))
    boxes.append((rectangle(0.1, 0.12, (half - 0.15, -0.06)), 0.1, facade.height_m, (0.7,) * 3))
    if rng.random() < 0.45:
        width = facade.upper.pitch[0] / facades.TEXELS_PER_M
        bay = int(rng.integers(facade.upper.count[0]))
        at = -half + (bay + 0.5) * width
        colour = rng.uniform(0.5, 1.1, 3)
        for floor in range(facade.upper.count[1]):
            base = facades.GROUND_FLOOR_M + floor * facades.FLOOR_M + 0.1
            boxes.append((rectangle(width * 0.9, 1.0, (at, -0.5)), base, base + 0.16, (0.85,) * 3))
            boxes.append((rectangle(width * 0.9, 0.06, (at, -0.97)), base, base + 1.0, colour))
    parts = [
        quads(box_corners(footprint, low, high), materials.plaster, TEXELS_PER_M, colour)
        for footprint, low, high, colour in boxes
    ]
    undersides = [
        box_corners(f, low, high)[4][::-1] - (0, 0, high - low) for f, low, high, _ in boxes
    ]
    parts.append(quads(np.array(undersides), materials.plaster, TEXELS_PER_M, (0.6, 0.6, 0.6)))
    return parts


def tree(
    rng: np.random.Generator, materials: Materials, height_m: float, crown_m: float
) -> tuple[Facets, Balls]:
    """Return a tree: a trunk, and a crown of that radius made of clumps of leaves."""
    clear = height_m - 1.9 * crown_m
    trunk = prism(materials.bark, rng.uniform(0.10, 0.17), -0.3, clear + crown_m)
    parts = []
    for count, reach, radius in (
        (22, (0.45, 0.72), (0.30, 0.46)),
        (40, (0.75, 1.02), (0.12, 0.22)),
    ):
        # Evenly around a ball by the golden angle, then disturbed.
        up = 1 - 2 * (np.arange(count) + 0.5) / count
        turn = np.arange(count) * 2.39996 + rng.uniform(0, 0.9, count)
        ring = np.sqrt(1 - up**2)
        shell = np.stack([ring * np.cos(turn), ring * np.sin(turn), 1.1 * up], 1)
        parts.append(
            np.column_stack([shell * rng.uniform(*reach, (count, 1)), rng.uniform(*radius, count)])
        )
    clumps = crown_m * np.concatenate([*parts, [[0, 0, 0, 0.6]]])
    centres = clumps[:, :3] + (0, 0, clear + 0.95 * crown_m)
    colour = _LEAF_COLOURS[rng.integers(len(_LEAF_COLOURS))]
    shade = rng.uniform(0.85, 1.1, (len(clumps), 1))
    return trunk, crown(centres, clumps[:, 3], materials.leaves, colour * shade)


def prism(
    chart: Chart,
    radius_m: float,
    bottom_m: float,
    top_m: float,
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0),
    sides: int = 6,
) -> Facets:
    """Return an upright prism around the z axis."""
    angle = 2 * np.pi * np.arange(sides) / sides
    footprint = radius_m * np.stack([np.cos(angle), np.sin(angle)], 1)
    return quads(side_corners(footprint, bottom_m, top_m), chart, TEXELS_PER_M, colour)


def wall(
    chart: Chart,
    length_m: float,
    height_m: float,
    thickness_m: float,
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Facets:
    """Return a wall, fence or hedge along x with its middle in the origin."""
    corners = box_corners(rectangle(length_m, thickness_m), 0.0, height_m)
    sides = _deep(corners[:4])
    return join([quads(part, chart, TEXELS_PER_M, colour) for part in (sides, corners[4:])])


def lamp(materials: Materials) -> Facets:
    """Return a street lamp that reaches 1.4 m towards -y."""
    grey = (0.62, 0.64, 0.62)
    arm = box_corners(rectangle(0.07, 1.4, (0, -0.7)), 6.05, 6.13)
    head = box_corners(rectangle(0.26, 0.6, (0, -1.5)), 6.0, 6.14)
    parts = [prism(materials.metal, 0.07, -0.2, 6.1, grey)]
    parts += [quads(box, materials.metal, TEXELS_PER_M, grey) for box in (arm, head)]
    for box, thickness_m in ((arm, 0.08), (head, 0.14)):
        under = box[4:, ::-1] - (0, 0, thickness_m)
        parts.append(quads(under, materials.metal, TEXELS_PER_M, grey))
    return join(parts)


def sign(rng: np.random.Generator, materials: Materials) -> Facets:
    """Return a traffic sign that faces -x."""
    kind = int(rng.integers(len(materials.signs)))
    half, centre = 0.32, rng.uniform(2.2, 2.6)
    square = rectangle(2 * half, 2 * half)
    plate = (
        square[None],  # parking
        square[None] @ np.array([[1, 1], [-1, 1]]) / np.sqrt(2),  # priority: it stands on a corner
        octagon(half),  # a limit: nearly round
    )[kind]
    face = np.stack([np.full(plate.shape[:2], -0.05), -plate[..., 0], plate[..., 1] + centre], -1)
    # The priority sign's picture is turned with it.
    flat = square[None] if kind == 1 else plate
    texels = 32 + flat[:, :3] * np.array([30, -30]) / half
    back = face[:, ::-1] + (0.01, 0, 0)
    return join(
        [
            facets(face, texels, materials.signs[kind], (1.05, 1.05, 1.05)),
            quads(back, materials.metal, TEXELS_PER_M, (0.9, 0.9, 0.9)),
            prism(materials.metal, 0.035, -0.2, centre + half, (0.9, 0.9, 0.9), sides=4),
        ]
    )


def dustbin(
    rng: np.random.Generator, materials: Materials, size: tuple[float, float, float]
) -> Facets:
    """Return a wheeled bin, or the cabinet of some utility, of this length, depth, height [m]."""
    colours = ((0.48, 0.53, 0.57), (0.40, 0.79, 1.36), (1.87, 1.58, 0.44), (1.50, 1.54, 1.45))
    corners = box_corners(rectangle(*size[:2]), 0.0, size[2])
    return quads(corners, materials.planks, TEXELS_PER_M, colours[rng.integers(len(colours))])


def _parking_sign() -> np.ndarray:
    image = np.full((64, 64, 3), 0.92)
    image[4:60, 4:60] = (0.12, 0.30, 0.66)
    textures.write(image, "P", (16, 50), 1.7, (0.95, 0.95, 0.95), 5)
    return image


def _priority_sign() -> np.ndarray:
    image = np.full((64, 64, 3), 0.93)
    image[10:54, 10:54] = (0.92, 0.72, 0.13)
    return image


def _limit_sign() -> np.ndarray:
    image = np.full((64, 64, 3), (0.80, 0.12, 0.12))
    cv2.circle(image, (32, 32), 30, (0.80, 0.12, 0.12), -1)
    cv2.circle(image, (32, 32), 22, (0.94,) * 3, -1)
    textures.write(image, "30", (17, 40), 0.8, (0.08, 0.08, 0.08), 2)
    return image
