"""The colours of what rays meet: textures, light, haze, the sky; and the depth of niches.

Surfaces are matt, lit by one sun and the sky: their colour is the same from wherever they are seen,
but for a thin haze.
"""

from __future__ import annotations

import numpy as np

from datasets.synthetic.atlas import LEVELS, Atlas
from datasets.synthetic.raster import NOTHING, Hits, Rays
from datasets.synthetic.scene import Scene

HAZE_M = 900.0  # over which the haze takes 1 - 1/e of a colour
_LASER_RAD = 0.003  # divergence of a LiDAR's beams: what one of them averages over
_IN_NICHE = 0.62  # of the light on a wall falls on the sides of its niches
_BLOCK = 1 << 16  # samples shaded at once, so that the arrays in between stay in the cache
_CLOUD_TEXELS = 260.0  # of the sky's texture per unit of cot(elevation)
_COLUMNS = (
    *("ux", "uy", "uz", "u0", "vx", "vy", "vz", "v0"),  # texel column u = (ux, uy, uz) . p + u0
    *("nx", "ny", "nz"),  # inverse depth along a ray = n . ray
    *("chart_u", "chart_v", "width", "height", "tiles"),
    *("red", "green", "blue"),
    *("first_u", "first_v", "pitch_u", "pitch_v", "count_u", "count_v"),
    *("left", "top", "right", "bottom", "niche"),  # niche: its depth over the sensor's distance
)
_OF_NICHES = _COLUMNS[_COLUMNS.index("first_u") :]
_OF_ALL = _COLUMNS[: -len(_OF_NICHES)]


class Surfaces:
    """The surfaces of a scene as one sensor sees them.

    Attributes:
        corners: (F, 4, 3) of the facets in the sensor's frame [m]
        centres: (B, 3) of the balls in the sensor's frame [m]
    """

    def __init__(self, scene: Scene, T_w_s: np.ndarray, rays: Rays) -> None:
        self._scene, self._rays = scene, rays
        self._R_w_s = T_w_s[:3, :3]
        self.corners = (scene.facets.corners_w - T_w_s[:3, 3]) @ self._R_w_s
        self.centres = (scene.balls.centre_w - T_w_s[:3, 3]) @ self._R_w_s
        self._table = dict(zip(_COLUMNS, self._facet_table(T_w_s), strict=True))

    def _facet_table(self, T_w_s: np.ndarray) -> np.ndarray:
        """Return (len(_COLUMNS), F) float32."""
        facets, corners = self._scene.facets, self.corners
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        offset = (normal * corners[:, 0]).sum(1, keepdims=True)  # below zero if the front is seen
        offset = np.where(np.abs(offset) < 1e-9, -1e-9, offset)
        texels = facets.texels @ T_w_s  # (F, 2, 4) for points in the sensor's frame
        light = self._scene.light.on(normal @ self._R_w_s.T)
        niches = facets.niches.copy()
        niches[:, -1:] /= -offset
        parts = (
            texels.reshape(-1, 8),
            normal / offset,
            facets.chart,
            facets.colour * light,
            niches,
        )
        return np.ascontiguousarray(np.concatenate(parts, 1).T, np.float32)

    def shade(self, hits: Hits) -> tuple[np.ndarray, np.ndarray]:
        """Return colours (R, C, 3) and depths (R, C) [m], 0 where a ray meets nothing; float32."""
        colour = np.empty((*hits.surface.shape, 3), np.float32)
        depth = np.zeros(hits.surface.shape, np.float32)
        facets = len(self.corners)
        height = max(1, _BLOCK // colour.shape[1])
        for top in range(0, len(colour), height):
            rows = slice(top, top + height)
            surface = hits.surface[rows].ravel()
            for which, shade in (
                ((surface > NOTHING) & (surface < facets), self._facets),
                (surface >= facets, self._balls),
            ):
                chosen = np.flatnonzero(which)
                if len(chosen):
                    inverse = hits.inverse_depth[rows].ravel()[chosen]
                    found = shade(surface[chosen], self._ray(top, chosen), inverse)
                    colour[rows].reshape(-1, 3)[chosen] = found[0]
                    depth[rows].reshape(-1)[chosen] = found[1]
            chosen = np.flatnonzero(surface == NOTHING)
            if len(chosen):
                colour[rows].reshape(-1, 3)[chosen] = self._sky(self._ray(top, chosen))
        return colour, depth

    def _ray(self, top: int, chosen: np.ndarray) -> list[np.ndarray]:
        """Return x, y, z, each (n,), of some rays of the block of rows that begins at `top`."""
        row, column = np.divmod(chosen, len(self._rays.t))
        row += top
        ray = [self._rays.base[:, k].astype(np.float32)[row] for k in range(3)]
        ray[self._rays.axis] = self._rays.t.astype(np.float32)[column]
        return ray

    def _facets(
        self, facet: np.ndarray, ray: list[np.ndarray], inverse: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        facet = facet.astype(np.intp)
        it = {name: self._table[name][facet] for name in _OF_ALL}
        depth = 1 / inverse
        # Texels from the foot of the sensor, which stays when one goes further along a ray.
        u = (it["ux"] * ray[0] + it["uy"] * ray[1] + it["uz"] * ray[2]) * depth
        v = (it["vx"] * ray[0] + it["vy"] * ray[1] + it["vz"] * ray[2]) * depth
        texels_u = self._footprint(it, "u", u, depth)
        texels_v = self._footprint(it, "v", v, depth)
        niched = np.flatnonzero(self._table["niche"][facet])
        dark = None
        if len(niched):
            niche = {name: self._table[name][facet[niched]] for name in _OF_NICHES}
            niche["u0"], niche["v0"] = it["u0"][niched], it["v0"][niched]
            deeper, at_side = _enter(
                niche, u[niched], v[niched], texels_u[niched], texels_v[niched]
            )
            u[niched] *= deeper
            v[niched] *= deeper
            depth[niched] *= deeper
            dark = niched[at_side]
        u += it["u0"]
        v += it["v0"]
        place_u = _in_atlas(u, it["tiles"], it["width"], it["chart_u"], texels_u)
        place_v = _in_atlas(v, it["tiles"], it["height"], it["chart_v"], texels_v)
        colour = _look_up(self._scene.atlas, place_u, place_v)
        for channel, name in enumerate(("red", "green", "blue")):
            colour[:, channel] *= it[name]
        if dark is not None:
            colour[dark] *= _IN_NICHE
        return self._hazy(colour, depth), depth

    def _footprint(
        self, it: dict[str, np.ndarray], along: str, moved: np.ndarray, depth: np.ndarray
    ) -> np.ndarray:
        """Return how many texels (n,) of this direction a sample stands for."""
        a = [it[along + axis] for axis in "xyz"]
        if self._rays.turns:
            size = np.abs(a[0]) + np.abs(a[1]) + np.abs(a[2])
            return size * depth * np.float32(_LASER_RAD)
        across = np.abs(a[0] - moved * it["nx"])
        down = np.abs(a[1] - moved * it["ny"])
        return np.maximum(across, down) * depth * np.float32(self._rays.t[1] - self._rays.t[0])

    def _balls(
        self, surface: np.ndarray, ray: list[np.ndarray], inverse: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        balls, light = self._scene.balls, self._scene.light
        ball = surface - len(self.corners)
        depth = 1 / inverse
        radius = balls.radius.astype(np.float32)[ball]
        met = np.stack(ray, 1) * depth[:, None] - self.centres.astype(np.float32)[ball]
        R_s_w = self._R_w_s.T.astype(np.float32)
        normal = (met / radius[:, None]) @ R_s_w  # in the world
        outward = met @ R_s_w + (balls.centre_w - balls.heart_w).astype(np.float32)[ball]
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
        lit = light.on(0.65 * outward + 0.35 * normal, soft=True)
        chart = balls.chart.astype(np.float32)[ball]
        texels_per_m = np.float32(balls.texels_per_m)
        # There and back around a ball, so that there is no seam.
        u = np.abs(np.arctan2(normal[:, 1], normal[:, 0])) * radius * texels_per_m
        # No two balls alike, whichever others are in view.
        apart = (1618.034 * balls.centre_w.sum(1) % 1000).astype(np.float32)[ball]
        v = normal[:, 2] * radius * texels_per_m + apart
        step = _LASER_RAD if self._rays.turns else self._rays.t[1] - self._rays.t[0]
        texels = depth * np.float32(step) * texels_per_m
        colour = _look_up(
            self._scene.atlas,
            _in_atlas(u, chart[:, 4], chart[:, 2], chart[:, 0], texels),
            _in_atlas(v, chart[:, 4], chart[:, 3], chart[:, 1], texels),
        )
        colour *= balls.colour.astype(np.float32)[ball] * lit
        return self._hazy(colour, depth), depth

    def _sky(self, ray: list[np.ndarray]) -> np.ndarray:
        """Return colours (n, 3) of the sky, which is the same from everywhere."""
        towards = np.stack(ray, 1) @ self._R_w_s.T.astype(np.float32)
        level = np.hypot(towards[:, 0], towards[:, 1])
        rise = towards[:, 2] / level
        sky, chart = self._scene.sky, self._scene.sky.clouds
        over = np.float32(_CLOUD_TEXELS) / (np.maximum(rise, 0) + np.float32(0.12))
        texels = over * np.float32(0.01)  # soft, and by direction alone: not by the ray's length
        over /= level
        clouds = _look_up(
            self._scene.atlas,
            _in_atlas(towards[:, 0] * over, 1, chart.width, chart.column, texels),
            _in_atlas(towards[:, 1] * over, 1, chart.height, chart.row, texels),
        ).mean(1)
        return sky.colour(rise, np.arctan2(towards[:, 1], towards[:, 0]), clouds)

    def _hazy(self, colour: np.ndarray, depth: np.ndarray) -> np.ndarray:
        clear = np.exp(depth * np.float32(-1 / HAZE_M))[:, None]
        return colour * clear + (1 - clear) * self._scene.sky.haze


def _enter(
    niche: dict[str, np.ndarray],
    u: np.ndarray,
    v: np.ndarray,
    texels_u: np.ndarray,
    texels_v: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Follow rays that meet a wall into its niches.

    Returns:
        (n,) how many times further from the sensor they end, and (n,) bool, whether at a side
    """
    width, height = niche["right"] - niche["left"], niche["bottom"] - niche["top"]
    cell_u, at_u = np.divmod(u + niche["u0"] - niche["first_u"], niche["pitch_u"])
    cell_v, at_v = np.divmod(v + niche["v0"] - niche["first_v"], niche["pitch_v"])
    inside = (cell_u >= 0) & (cell_u < niche["count_u"])
    inside &= (cell_v >= 0) & (cell_v < niche["count_v"])
    inside &= (at_u > niche["left"]) & (at_u < niche["right"])
    inside &= (at_v > niche["top"]) & (at_v < niche["bottom"])
    # From afar the niche is painted on the wall: what is smaller than a sample would flicker.
    coarse = np.maximum(texels_u / width, texels_v / height)
    depth = niche["niche"] * np.clip(2 - 8 * coarse, 0, 1)
    part = np.ones_like(u)
    for at, moved, low, high in (
        (at_u, u * depth, niche["left"], niche["right"]),
        (at_v, v * depth, niche["top"], niche["bottom"]),
    ):
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.fmin(part, np.abs(np.where(moved > 0, high - at, low - at) / moved))
    part = np.where(inside, part, 0)
    return 1 + part * depth, inside & (part < 1)


def _in_atlas(
    texel: np.ndarray,
    tiles: np.ndarray | float,
    size: np.ndarray | int,
    first: np.ndarray | int,
    texels_per_sample: np.ndarray,
) -> np.ndarray:
    """Return where in the atlas (n,) to look up, along one direction.

    Args:
        texel: (n,) in the texture, 0 at the edge of its first texel
        tiles: whether the texture repeats
        size: of the texture [texels]
        first: where it begins in the atlas
        texels_per_sample: (n,) decides which of its reductions is used
    """
    # Rounded log2, read off the exponent of a float.
    exponent = (texels_per_sample * np.float32(1.41421356)).view(np.int32) >> 23
    exponent = np.clip(exponent - 127, 0, LEVELS - 1)
    scale = ((127 - exponent) << 23).view(np.float32)  # 2^-level
    size = np.float32(size)
    texel = texel - np.floor(texel / size) * (size * np.float32(tiles))
    reduced = np.clip(texel * scale, np.float32(0.5), size * scale - np.float32(0.5))
    return first + 2 * size * (1 - scale) + reduced - np.float32(0.5)


def _look_up(atlas: Atlas, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return colours (n, 3) float32 in 0..1."""
    count = len(columns)
    width = min(count, 4096)
    shape = -(-count // width), width  # the look-up wants an image
    padded = np.zeros((2, shape[0] * shape[1]), np.float32)
    padded[0, :count], padded[1, :count] = columns, rows
    found = atlas.look_up(*padded.reshape(2, *shape)).reshape(-1, 3)[:count]
    return found * np.float32(1 / 255)
