"""What the sensors look at: textured polygons and balls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np

from datasets.synthetic.atlas import Atlas, Chart


@dataclass(frozen=True)
class Niches:
    """A regular grid of niches in a wall, like its windows; [texels] but for the depth.

    Attributes:
        first: column and row of the upper left cell
        pitch: width and height of a cell
        count: cells along columns and rows
        box: left, top, right, bottom of the niche in its cell
        depth_m: how far its back lies behind the wall
    """

    first: tuple[float, float]
    pitch: tuple[float, float]
    count: tuple[int, int]
    box: tuple[float, float, float, float]
    depth_m: float

    def row(self) -> tuple[float, ...]:
        return (*self.first, *self.pitch, *self.count, *self.box, self.depth_m)


NO_NICHES = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Facets:
    """F convex, planar polygons of four corners, of which some may coincide.

    Attributes:
        corners_w: (F, 4, 3) [m], counter-clockwise for whoever sees the front; the back is not seen
        texels: (F, 2, 4) column and row of the texture at (p, 1) are texels @ (p, 1)
        chart: (F, 5) column, row, width, height of the texture in the atlas, and whether it tiles
        colour: (F, 3) what the texture is multiplied by
        niches: (F, 11) see Niches; NO_NICHES for none
        moving: (F,) bool
    """

    corners_w: np.ndarray
    texels: np.ndarray
    chart: np.ndarray
    colour: np.ndarray
    niches: np.ndarray
    moving: np.ndarray

    def __len__(self) -> int:
        return len(self.corners_w)

    def moved(self, T_w_o: np.ndarray) -> Facets:
        """Return them in the world, given those of an object in its own frame o."""
        corners_w = self.corners_w @ T_w_o[:3, :3].T + T_w_o[:3, 3]
        return replace(self, corners_w=corners_w, texels=self.texels @ np.linalg.inv(T_w_o))


@dataclass(frozen=True, eq=False)
class Balls:
    """B balls with a texture of their own wrapped around: clumps of leaves.

    Attributes:
        centre_w: (B, 3) [m]
        radius: (B,) [m]
        heart_w: (B, 3) middle of the crown that a ball is a part of: light falls on the whole
        chart: (B, 5) as for facets
        colour: (B, 3)
    """

    texels_per_m: ClassVar[float] = 60.0

    centre_w: np.ndarray
    radius: np.ndarray
    heart_w: np.ndarray
    chart: np.ndarray
    colour: np.ndarray

    def __len__(self) -> int:
        return len(self.centre_w)

    def shifted(self, by_w: np.ndarray) -> Balls:
        """Return them moved by (3,) [m]."""
        return replace(self, centre_w=self.centre_w + by_w, heart_w=self.heart_w + by_w)


NO_FACETS = Facets(
    np.zeros((0, 4, 3)), np.zeros((0, 2, 4)), np.zeros((0, 5)), np.zeros((0, 3)),
    np.zeros((0, 11)), np.zeros(0, bool),
)  # fmt: skip
NO_BALLS = Balls(
    np.zeros((0, 3)), np.zeros(0), np.zeros((0, 3)), np.zeros((0, 5)), np.zeros((0, 3))
)


def facets(
    corners_w: np.ndarray,
    texels: np.ndarray,
    chart: Chart,
    colour: np.ndarray | Sequence[float] = (1.0, 1.0, 1.0),
    niches: Niches | None = None,
) -> Facets:
    """Return facets that share one texture.

    Args:
        corners_w: (F, 4, 3) [m], counter-clockwise seen from the front
        texels: (F, 3, 2) column and row in the texture at the first three corners, which must not
            lie on one line: triangles repeat their last corner
        chart: the texture
        colour: (3,) or (F, 3)
        niches: in every one of them
    """
    count = len(corners_w)
    return Facets(
        np.asarray(corners_w, np.float64),
        _texel_gradients(np.asarray(corners_w, np.float64), np.asarray(texels, np.float64)),
        np.tile(_chart_row(chart), (count, 1)),
        np.broadcast_to(np.asarray(colour, np.float64), (count, 3)).copy(),
        np.tile(NO_NICHES if niches is None else niches.row(), (count, 1)),
        np.zeros(count, bool),
    )


def quads(
    corners: np.ndarray,
    chart: Chart,
    texels_per_m: float,
    colour: np.ndarray | Sequence[float] = (1.0, 1.0, 1.0),
) -> Facets:
    """Return facets (F, 4, 3) with the texture's lower left in the first corner.

    The second corner lies to the right of the first along the texture's columns.
    """
    corners = np.asarray(corners, np.float64)
    width = np.linalg.norm(corners[:, 1] - corners[:, 0], axis=1) * texels_per_m
    height = np.linalg.norm(corners[:, 2] - corners[:, 1], axis=1) * texels_per_m
    zero = np.zeros_like(width)
    bottom = np.full_like(width, chart.height)
    texels = np.stack([zero, bottom, width, bottom, width, bottom - height], 1).reshape(-1, 3, 2)
    return facets(corners, texels, chart, colour)


def side_corners(footprint: np.ndarray, bottom_m: float, top_m: float) -> np.ndarray:
    """Return the sides (N, 4, 3) of a prism over a footprint (N, 2), counter-clockwise."""
    low = np.column_stack([footprint, np.full(len(footprint), bottom_m)])
    high = np.column_stack([footprint, np.full(len(footprint), top_m)])
    return np.stack([low, np.roll(low, -1, 0), np.roll(high, -1, 0), high], 1)


def box_corners(footprint: np.ndarray, bottom_m: float, top_m: float) -> np.ndarray:
    """Return the four sides and the top (5, 4, 3) of a box over (4, 2), counter-clockwise."""
    sides = side_corners(footprint, bottom_m, top_m)
    return np.concatenate([sides, sides[None, :, 3]])


def octagon(radius: float) -> np.ndarray:
    """Return the three quadrilaterals (3, 4, 2) of an octagon around the origin."""
    angle = 2 * np.pi * (np.arange(8) + 0.5) / 8
    rim = radius * np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.stack([rim[[0, k, k + 1, k + 2]] for k in (1, 3, 5)])


def rectangle(
    length_m: float, width_m: float, centre: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Return the corners (4, 2) of a rectangle along the axes, counter-clockwise."""
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return signs * np.array([length_m, width_m]) / 2 + np.array(centre)


def crown(centre_w: np.ndarray, radius: np.ndarray, chart: Chart, colour: np.ndarray) -> Balls:
    """Return balls (B, 3) with radii (B,) and colours (B, 3) that are one crown of leaves."""
    heart_w = np.tile(centre_w.mean(0), (len(radius), 1))
    return Balls(centre_w, radius, heart_w, np.tile(_chart_row(chart), (len(radius), 1)), colour)


def join(parts: Sequence[Facets] | Sequence[Balls]) -> Facets | Balls:
    """Return all facets, or all balls, as one."""
    columns = ([getattr(part, field.name) for part in parts] for field in fields(parts[0]))
    return type(parts[0])(*map(np.concatenate, columns))


def _texel_gradients(corners_w: np.ndarray, texels: np.ndarray) -> np.ndarray:
    # The gradient lies in the facet's plane.
    sides = corners_w[:, 1:3] - corners_w[:, :1]  # (F, 2, 3)
    normal = np.cross(sides[:, 0], sides[:, 1])[:, None]
    rates = np.concatenate([texels[:, 1:] - texels[:, :1], np.zeros_like(texels[:, :1])], 1)
    gradients = np.linalg.solve(np.concatenate([sides, normal], 1), rates)  # (F, 3, 2)
    start = texels[:, 0] - np.einsum("fi,fik->fk", corners_w[:, 0], gradients)
    return np.concatenate([gradients, start[:, None]], 1).swapaxes(1, 2)


def _chart_row(chart: Chart) -> tuple[float, ...]:
    return (chart.column, chart.row, chart.width, chart.height, float(chart.tiles))


@dataclass(frozen=True, eq=False)
class Light:
    """The sun and the light from everywhere else.

    Attributes:
        sun_w: (3,) unit vector towards the sun
        sun, sky: how bright a surface gets that faces one of them
    """

    sun_w: np.ndarray
    sun: float = 0.90
    sky: float = 0.70

    def on(self, normal_w: np.ndarray, *, soft: bool = False) -> np.ndarray:
        """Return the brightness (N, 1) of surfaces with normals (N, 3).

        `soft` lets light into what is turned away, as leaves do.
        """
        dtype = normal_w.dtype
        facing = normal_w @ self.sun_w.astype(dtype)
        direct = np.maximum(0.3 + 0.7 * facing if soft else facing, 0)
        open_sky = 0.72 + 0.28 * normal_w[:, 2]
        return (self.sun * direct + self.sky * open_sky)[:, None].astype(dtype)


@dataclass(frozen=True, eq=False)
class Sky:
    """A cloudy sky above far hills, both at infinity.

    Attributes:
        clouds: a texture that tiles, how much cloud there is, 0..1
        haze: (3,) the colour at the horizon
        zenith: (3,)
        hills: (K, 3) amplitude [rad], waves in a turn, phase of the hills' height
    """

    clouds: Chart
    haze: np.ndarray
    zenith: np.ndarray
    hills: np.ndarray

    def colour(self, rise: np.ndarray, azimuth: np.ndarray, clouds: np.ndarray) -> np.ndarray:
        """Return colours (N, 3) in directions of this slope and azimuth [rad] (N,)."""
        height = np.clip(rise, 0, 1)[:, None] ** np.float32(0.6)
        blue = self.haze + (self.zenith - self.haze) * height
        cover = np.clip(2.4 * clouds - 0.85, 0, 1)[:, None] * np.minimum(6 * height, 1)
        sky = blue + (np.float32(0.97) - blue) * cover
        edge = np.full_like(rise, self.hills[:, 0].sum())
        for amplitude, waves, phase in self.hills.tolist():
            edge += np.float32(amplitude) * np.sin(np.float32(waves) * azimuth + np.float32(phase))
        hill = np.clip((edge - rise) * 400, 0, 1)[:, None]
        shade = self.haze * np.float32([0.66, 0.74, 0.80])
        shade = shade * (1 - np.clip(edge - rise, 0, 0.1)[:, None] * np.float32(3))
        return sky + (shade - sky) * hill


@dataclass(frozen=True, eq=False)
class Scene:
    """All there is to see from one place."""

    facets: Facets
    balls: Balls
    atlas: Atlas
    light: Light
    sky: Sky
