"""Which surface each ray of a sensor meets first, and how far away.

The rays of a camera and of a spinning LiDAR are alike: row r holds the rays base[r] + t[c] axis.
Along a row a plane's inverse depth is linear in t, and so is every edge of a polygon; a row of a
convex polygon is then a span of columns. Depth is measured along the unit of the rays: the camera's
z, or the LiDAR's distance from its vertical axis.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

NOTHING = -1
NEAREST_M = 0.05
_ROUNDING = 1e-9  # of rows' directions: a row along an edge is lost by neither of its facets
# Facets that cover fewer samples than this are drawn together: a loop over them would cost more.
_SMALL_SAMPLES = 150
_MANY_SAMPLES = 1 << 16  # drawn at once, so that what is touched stays in the cache


@dataclass(frozen=True, eq=False)
class Rays:
    """R rows of C rays, base[r] + t[c] axis, in the frame of their sensor.

    Attributes:
        base: (R, 3)
        axis: which unit vector is added
        t: (C,) increasing
        turns: row R would be row 0 again; base is then a unit vector in the plane of x and y
    """

    base: np.ndarray
    axis: int
    t: np.ndarray
    turns: bool

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.base), len(self.t)

    @functools.cached_property
    def squared_length(self) -> np.ndarray:
        """Squared length (R, C) of each ray."""
        total = (self.base**2).sum(1)[:, None] + self.t**2
        return total.astype(np.float32)  # the axis is at right angles to the bases

    def across(self, vectors: np.ndarray) -> np.ndarray:
        """Return the two (..., 2) coordinates that rows go by: y and z, or x and y."""
        return vectors[..., 1:] if self.axis == 0 else vectors[..., :2]


def camera_rays(K: np.ndarray, size: tuple[int, int], per_pixel: int) -> Rays:
    """Return the rays of a camera: (0, y, 1) + x (1, 0, 0), some per pixel in each direction.

    Every `per_pixel`-th ray, from the first, goes through the centre of a pixel.
    """
    width, height = size
    x = (np.arange(width * per_pixel) / per_pixel - K[0, 2]) / K[0, 0]
    y = (np.arange(height * per_pixel) / per_pixel - K[1, 2]) / K[1, 1]
    return Rays(np.stack([0 * y, y, 1 + 0 * y], 1), 0, x, turns=False)


def scan_rays(elevation_rad: np.ndarray, azimuth_rad: np.ndarray) -> Rays:
    """Return the rays of a LiDAR: (cos a, sin a, 0) + tan(e) (0, 0, 1).

    Args:
        elevation_rad: (E,) increasing
        azimuth_rad: (A,) increasing in equal steps once around
    """
    base = np.stack([np.cos(azimuth_rad), np.sin(azimuth_rad), 0 * azimuth_rad], 1)
    return Rays(base, 2, np.tan(elevation_rad), turns=True)


@dataclass(frozen=True, eq=False)
class Hits:
    """What the rays meet first.

    Attributes:
        inverse_depth: (R, C) float32 [1/m], 0 for nothing
        surface: (R, C) int32: a facet, or the number of facets plus a ball, or NOTHING
    """

    inverse_depth: np.ndarray
    surface: np.ndarray


@dataclass(frozen=True, eq=False)
class _Spans:
    """The rows of facets that are in view, F of them with N rows in all.

    Attributes:
        facet: (F,) which ones
        row: (F + 1,) where the rows of each begin among the N
        first_row: (F,) of the sensor
        begin, end: (N,) columns
        left, right: (F,) columns around all rows of a facet
        inverse_depth: (N,) at t = 0
        slope: (F,) of the inverse depth along t
    """

    facet: np.ndarray
    row: np.ndarray
    first_row: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    left: np.ndarray
    right: np.ndarray
    inverse_depth: np.ndarray
    slope: np.ndarray


def cast(rays: Rays, corners: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> Hits:
    """Return what each ray meets first.

    Args:
        rays: of the sensor
        corners: (F, 4, 3) of facets in the sensor's frame [m], see Facets
        centres: (B, 3) of balls in the sensor's frame [m]
        radii: (B,) [m]
    """
    rows, columns = rays.shape
    # Surfaces may lie across the last and the first row of a turn: the second half takes what is
    # beyond the last.
    halves = 1 + rays.turns
    hits = Hits(
        np.zeros((rows * halves, columns), np.float32),
        np.full((rows * halves, columns), NOTHING, np.int32),
    )
    _draw_facets(hits, _facet_spans(rays, corners), rays.t)
    _draw_balls(hits, rays, centres, radii, len(corners))
    if rays.turns:
        over = hits.inverse_depth[rows:] > hits.inverse_depth[:rows]
        for values in (hits.inverse_depth, hits.surface):
            np.copyto(values[:rows], values[rows:], where=over)
    return Hits(hits.inverse_depth[:rows], hits.surface[:rows])


def _facet_spans(rays: Rays, corners: np.ndarray) -> _Spans:
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    offset = (normal * corners[:, 0]).sum(1)
    first, last = _facet_rows(rays, corners)
    facet = np.flatnonzero((offset < 0) & (last > first))
    first, count = first[facet], (last - first)[facet]
    row = np.concatenate([[0], np.cumsum(count)])
    owner = np.repeat(np.arange(len(facet)), count)  # (N,)
    sensor_row = np.arange(row[-1]) - np.repeat(row[:-1] - first, count)
    base = rays.base[sensor_row % len(rays.base)]  # (N, 3)
    begin, end = _columns(rays, corners[facet], owner, base)
    plane = normal[facet] / offset[facet, None]  # inverse depth along a ray: plane . ray
    return _Spans(
        facet, row, first, begin, end, *_around(begin, end, row, len(rays.t)),
        (plane[owner] * base).sum(1).astype(np.float32), plane[:, rays.axis].astype(np.float32),
    )  # fmt: skip


def _around(
    begin: np.ndarray, end: np.ndarray, row: np.ndarray, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns around all rows of each facet, left = right for none."""
    if len(begin) == 0:
        return np.zeros(0, int), np.zeros(0, int)
    empty = end <= begin
    left = np.minimum.reduceat(np.where(empty, columns, begin), row[:-1])
    right = np.maximum.reduceat(np.where(empty, 0, end), row[:-1])
    return left, np.maximum(left, right)


def _columns(
    rays: Rays, corners: np.ndarray, owner: np.ndarray, base: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where a span begins and ends (N,) in each row of each facet.

    Seen from the origin, a side of the facet is the plane through it and the origin. Two facets
    that share a side get the same column from it, so that one ends where the other begins.
    """
    inward = np.cross(np.roll(corners, -1, 1), corners)  # (F, 4, 3)
    begin = np.zeros(len(owner), np.int64)
    end = np.full(len(owner), len(rays.t), np.int64)
    for side in range(4):
        slope = inward[owner, side, rays.axis]
        start = (inward[owner, side] * base).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            column = np.searchsorted(rays.t, -start / slope)
        np.maximum(begin, column, out=begin, where=slope > 0)
        np.minimum(end, column, out=end, where=slope < 0)
        end[(slope == 0) & (start < 0)] = 0
    return begin, end


def _facet_rows(rays: Rays, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first row and the one after the last (F,) that a facet may be in."""
    if rays.turns:
        return _turned_rows(rays, corners)
    z, z_next = corners[..., 2], np.roll(corners[..., 2], -1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Where a side passes the nearest plane, the facet is cut there.
        part = (NEAREST_M - z) / (z_next - z)
        cut = corners[..., 1] + part * (np.roll(corners[..., 1], -1, 1) - corners[..., 1])
        y = np.concatenate([corners[..., 1] / z, cut / NEAREST_M], 1)
    seen = np.concatenate([z >= NEAREST_M, (z >= NEAREST_M) != (z_next >= NEAREST_M)], 1)
    lowest = np.where(seen, y, np.inf).min(1) - _ROUNDING
    highest = np.where(seen, y, -np.inf).max(1) + _ROUNDING
    rows = rays.base[:, 1]
    return np.searchsorted(rows, lowest), np.searchsorted(rows, highest, side="right")


def _turned_rows(rays: Rays, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    azimuth = np.arctan2(corners[..., 1], corners[..., 0])
    step = 2 * np.pi / len(rays.base)
    start = np.arctan2(rays.base[0, 1], rays.base[0, 0])
    sides = np.diff(azimuth, axis=1, append=azimuth[:, :1])
    around = azimuth[:, :1] + np.cumsum((sides + np.pi) % (2 * np.pi) - np.pi, 1)
    around = np.concatenate([azimuth[:, :1], around], 1)  # ends where it began, or a turn later
    whole = np.abs(around[:, -1] - around[:, 0]) > np.pi  # the sensor's axis goes through it
    lowest, highest = around.min(1) - _ROUNDING, around.max(1) + _ROUNDING
    first = np.ceil((lowest - start) / step).astype(int) % len(rays.base)
    last = first + np.floor((highest - lowest) / step).astype(int) + 1
    return np.where(whole, 0, first), np.where(whole, len(rays.base), last)


def _draw_facets(hits: Hits, spans: _Spans, t: np.ndarray) -> None:
    area = np.diff(spans.row) * (spans.right - spans.left)
    _draw_small(hits, spans, t, np.flatnonzero((area > 0) & (area <= _SMALL_SAMPLES)))
    t, columns = t.astype(np.float32), np.arange(len(t), dtype=np.int16)
    begin, end = spans.begin.astype(np.int16)[:, None], spans.end.astype(np.int16)[:, None]
    start = spans.inverse_depth[:, None]
    room = np.empty(max(_MANY_SAMPLES, len(t)), np.float32)
    for f in np.flatnonzero(area > _SMALL_SAMPLES).tolist():
        left, right = int(spans.left[f]), int(spans.right[f])
        slanted = spans.slope[f] * t[left:right]
        facet, top = int(spans.facet[f]), int(spans.first_row[f]) - int(spans.row[f])
        many = max(1, _MANY_SAMPLES // (right - left))
        for row in range(int(spans.row[f]), int(spans.row[f + 1]), many):
            rows = slice(row, min(row + many, int(spans.row[f + 1])))
            height = rows.stop - rows.start
            place = np.s_[top + rows.start : top + rows.stop, left:right]
            candidate = room[: height * (right - left)].reshape(height, right - left)
            np.add(start[rows], slanted, out=candidate)
            nearer = candidate > hits.inverse_depth[place]
            nearer &= columns[left:right] >= begin[rows]
            nearer &= columns[left:right] < end[rows]
            np.copyto(hits.inverse_depth[place], candidate, where=nearer)
            np.copyto(hits.surface[place], facet, where=nearer)


def _draw_small(hits: Hits, spans: _Spans, t: np.ndarray, chosen: np.ndarray) -> None:
    """Draw many facets of few samples at once."""
    if len(chosen) == 0:
        return
    rows = np.diff(spans.row)[chosen]
    owner = np.repeat(chosen, rows)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(rows) - rows, rows)  # row in its facet
    span = spans.row[owner] + place
    width = np.maximum(spans.end[span] - spans.begin[span], 0)
    sample = np.repeat(np.arange(len(span)), width)
    column = np.arange(len(sample)) - np.repeat(np.cumsum(width) - width, width)
    column += spans.begin[span][sample]
    owner, row = owner[sample], (spans.first_row[owner] + place)[sample]
    depth = spans.inverse_depth[span][sample] + spans.slope[owner] * t[column].astype(np.float32)
    _keep_nearest(hits, row, column, depth, spans.facet[owner])


def _keep_nearest(
    hits: Hits, row: np.ndarray, column: np.ndarray, inverse_depth: np.ndarray, surface: np.ndarray
) -> None:
    """Write samples (n,), of which several may be of one ray."""
    cell = row * hits.surface.shape[1] + column
    order = np.lexsort((inverse_depth, cell))
    nearest = order[np.diff(cell[order], append=-1) != 0]
    before = hits.inverse_depth.ravel()[cell[nearest]]
    nearest = nearest[inverse_depth[nearest] > before]
    hits.inverse_depth.ravel()[cell[nearest]] = inverse_depth[nearest]
    hits.surface.ravel()[cell[nearest]] = surface[nearest]


def _draw_balls(
    hits: Hits, rays: Rays, centres: np.ndarray, radii: np.ndarray, facets: int
) -> None:
    """Draw balls, whose surfaces are numbered on from the facets."""
    rows, left, right = _ball_windows(rays, centres, radii)
    beyond = (centres**2).sum(1) - radii**2
    height, width = (np.maximum(size, 0) for size in (rows[:, 1] - rows[:, 0], right - left))
    area = np.where(beyond > 0, height * width, 0)  # none for one that the sensor is in

    small = np.flatnonzero((area > 0) & (area <= _SMALL_SAMPLES))
    ball = np.repeat(small, area[small])
    place = np.arange(len(ball)) - np.repeat(np.cumsum(area[small]) - area[small], area[small])
    row, column = rows[ball, 0] + place // width[ball], left[ball] + place % width[ball]
    found, met = _ball_depth(rays, row % len(rays.base), column, centres[ball], beyond[ball])
    _keep_nearest(hits, row[met], column[met], found[met], facets + ball[met])

    for ball in np.flatnonzero(area > _SMALL_SAMPLES).tolist():
        row, column = np.arange(*rows[ball])[:, None], np.arange(left[ball], right[ball])
        found, met = _ball_depth(
            rays, row % len(rays.base), column, centres[ball], beyond[ball : ball + 1]
        )
        place = np.s_[rows[ball, 0] : rows[ball, 1], left[ball] : right[ball]]
        met &= found > hits.inverse_depth[place]
        np.copyto(hits.inverse_depth[place], found, where=met)
        np.copyto(hits.surface[place], facets + ball, where=met)


def _ball_depth(
    rays: Rays, row: np.ndarray, column: np.ndarray, centre: np.ndarray, beyond: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where rays meet balls: inverse depth float32, and whether they do.

    Args:
        rays: of the sensor
        row, column: of the rays, to be broadcast
        centre: (..., 3) of the ball of each ray
        beyond: (...) squared distance of its middle, less its squared radius
    """
    start = (rays.base[row] * centre).sum(-1).astype(np.float32)
    t = rays.t[column].astype(np.float32)
    along = start + centre[..., rays.axis].astype(np.float32) * t
    c = beyond.astype(np.float32)
    inside = along * along - c * rays.squared_length[row, column]
    # The nearer root of |t ray - centre| = radius, inverted.
    return (along + np.sqrt(np.maximum(inside, 0))) / c, (inside > 0) & (along > 0)


def _ball_windows(
    rays: Rays, centres: np.ndarray, radii: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows (B, 2) and columns, left (B,) and right (B,), around each ball."""
    x, y, z = centres.T
    if rays.turns:
        width = np.minimum(_half_angle(radii, np.hypot(x, y)), np.pi)
        azimuth = np.arctan2(y, x) - np.arctan2(rays.base[0, 1], rays.base[0, 0])
        step = 2 * np.pi / len(rays.base)
        first = np.ceil((azimuth - width) / step).astype(int) % len(rays.base)
        count = np.minimum(np.floor(2 * width / step).astype(int) + 1, len(rays.base))
        rows = np.stack([first, first + count], 1)
        low, high = _tangents(z, np.hypot(x, y), radii)
    else:
        low, high = _tangents(y, z, radii)
        rows = np.stack(
            [np.searchsorted(rays.base[:, 1], low), np.searchsorted(rays.base[:, 1], high)], 1
        )
        low, high = _tangents(x, z, radii)
    return rows, np.searchsorted(rays.t, low), np.searchsorted(rays.t, high)


def _tangents(
    across: np.ndarray, ahead: np.ndarray, radii: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest across / ahead on balls, infinite where it has no bound."""
    angle = np.arctan2(across, ahead)
    half = _half_angle(radii, np.hypot(across, ahead))
    low, high = angle - half, angle + half
    hidden = ahead + radii < NEAREST_M
    low = np.where(low > -np.pi / 2, np.tan(low), -np.inf)
    high = np.where(high < np.pi / 2, np.tan(high), np.inf)
    return np.where(hidden, 0, low), np.where(hidden, 0, high)


def _half_angle(radii: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Return half of the angle (B,) that discs fill, more than half a turn from inside."""
    with np.errstate(divide="ignore"):
        part = radii / distance
    return np.where(part < 1, np.arcsin(np.minimum(part, 1)), 2 * np.pi)
