"""What stands where along a piece of the street, and the shadows that it throws.

A plan is cheap: it has places, sizes and seeds, and nothing is painted yet. The ground of a piece
needs the plans of its neighbours too, whose shadows fall on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from datasets.synthetic import cars, facades, ground
from datasets.synthetic.scene import rectangle
from datasets.synthetic.street import Street

PIECE_M = 24.0
_LOT_M = (9.5, 14.0)
_FRONT_M = 9.3  # left of the centreline, where gardens end and houses begin
_CLEAR_M = ground.EDGE_LEFT_M + 0.1  # of the centreline, anywhere
_LARGEST_FRONT_M = 14.0
_PARKED_LEFT_M = 4.65
_BINS = (0.58, 0.62, 1.05), (1.0, 0.4, 1.15)
_PLAN = 10  # stream of random numbers
PIECE_OFFSET = 1000
"""Added to the number of a piece in seeds, which cannot be negative."""


@dataclass(frozen=True, eq=False)
class Item:
    """An object in its place.

    Attributes:
        kind: what it is
        T_w_o: (4, 4) its frame
        seed: of all that chance decides about it
        size: length, depth, height [m]; of a house width, depth [m] and floors; of a tree the
            crown's radius, nothing, height [m]; of a car which of them it is
        shadow: (N, 2) polygons on the ground, in the world
    """

    kind: str
    T_w_o: np.ndarray
    seed: int
    size: tuple[float, float, float]
    shadow: tuple[np.ndarray, ...]


class Planner:
    """Decides what stands along a street."""

    def __init__(self, street: Street, seed: int, sun_w: np.ndarray) -> None:
        self._street, self._seed = street, seed
        self._shadow_per_m = -sun_w[:2] / sun_w[2]
        s = np.arange(street.start_m, street.end_m, 2.0)
        self._line_w = street.position_w(s)

    def plan(self, piece: int) -> list[Item]:
        """Return the items of one piece; nothing where the street has ended."""
        start_m = piece * PIECE_M
        street = self._street
        if start_m < street.start_m + 1 or start_m + PIECE_M > street.end_m - 1:
            return []
        rng = np.random.default_rng([self._seed, _PLAN, piece + PIECE_OFFSET])
        items: list[Item] = []
        for side in (1, -1):
            items += self._lots(rng, start_m, side)
            items += self._parked(rng, start_m, side)
            items += self._furniture(rng, start_m, side)
        return items

    def _lots(self, rng: np.random.Generator, start_m: float, side: int) -> Iterator[Item]:
        first_m = rng.uniform(*_LOT_M)
        for lot_m, length_m in ((start_m, first_m), (start_m + first_m, PIECE_M - first_m)):
            garden = rng.random() < 0.22
            house = None if garden else self._house(rng, lot_m + length_m / 2, length_m, side)
            if house is None:
                yield from self._garden(rng, lot_m, length_m, side)
            else:
                yield house
                if rng.random() < 0.4:
                    at = lot_m + rng.uniform(1, length_m - 1)
                    size = _BINS[int(rng.random() < 0.4)]
                    yield self._item(rng, "bin", at, side * 8.65, side, size)

    def _house(self, rng: np.random.Generator, s: float, length_m: float, side: int) -> Item | None:
        front_m = _FRONT_M + max(0.0, rng.uniform(-1.0, 0.7))
        # Along the front of the houses a curve is shorter or longer than in the middle.
        stretch = 1 - side * front_m * float(self._street.curvature(s))
        width_m = min(length_m * stretch - rng.uniform(0.0, 0.5), _LARGEST_FRONT_M)
        depth_m = rng.uniform(8.0, 10.5) if stretch > 0.8 else 5.0
        floors = int(rng.choice([2, 3, 3, 4]))
        seed = int(rng.integers(1 << 31))
        if width_m < 5.5:
            return None
        T_w_o = self._upright(s, side * front_m, side)
        footprint = _placed(rectangle(width_m, depth_m, (0.0, depth_m / 2)), T_w_o)
        # The front itself is a chord: step back until it is clear of the pavement.
        gap = self._gap(np.linspace(footprint[0], footprint[1], 9)).min()
        if gap < _CLEAR_M:
            T_w_o[:2, 3] += T_w_o[:2, 1] * (_CLEAR_M - gap + 0.1)
            footprint += T_w_o[:2, 1] * (_CLEAR_M - gap + 0.1)
        if self._gap(footprint).min() < _CLEAR_M:
            return None
        ridge = (footprint + footprint[[3, 2, 1, 0]])[:2] / 2
        # Of a roof that rises as much as most do.
        shadow = self._shadow(footprint, facades.height_m(floors), ridge, 0.4 * depth_m)
        return Item("house", T_w_o, seed, (width_m, depth_m, float(floors)), (shadow,))

    def _garden(
        self, rng: np.random.Generator, start_m: float, length_m: float, side: int
    ) -> Iterator[Item]:
        kind = str(rng.choice(["hedge", "fence", "wall"]))
        height_m = {"hedge": 1.3, "fence": 1.5, "wall": 1.0}[kind] * rng.uniform(0.8, 1.2)
        seed = int(rng.integers(1 << 31))  # all parts alike
        step = length_m / 4
        for s in start_m + step * (np.arange(4) + 0.5):
            stretch = 1 - side * _FRONT_M * float(self._street.curvature(s))
            size = (step * stretch + 0.15, 0.7 if kind == "hedge" else 0.15, height_m)
            item = self._item(rng, kind, s, side * (_FRONT_M + 0.1), side, size)
            yield Item(kind, item.T_w_o, seed, size, item.shadow)
        for _ in range(rng.integers(1, 4)):
            crown_m = rng.uniform(1.8, 2.8)
            # Within the garden, on a straight street: in a curve a crown may touch a wall.
            at = start_m + rng.uniform(crown_m, length_m - crown_m)
            left_m = rng.uniform(12.0, 20.0)
            yield self._tree(rng, at, side * left_m, crown_m + rng.uniform(4, 6.5), crown_m)

    def _parked(self, rng: np.random.Generator, start_m: float, side: int) -> Iterator[Item]:
        for bay in range(round(PIECE_M / ground.BAY_M)):
            s = start_m + (bay + 0.5) * ground.BAY_M
            stretch = 1 - side * _PARKED_LEFT_M * float(self._street.curvature(s))
            if rng.random() < 0.52 and stretch > 0.85:  # inside a tight curve bays are too short
                s, left_m = (
                    s + rng.uniform(-0.3, 0.3),
                    side * (_PARKED_LEFT_M + rng.normal(0, 0.06)),
                )
                T_w_o = on_street(self._street, s, left_m, -side if rng.random() < 0.9 else side)
                kind = int(rng.integers(len(cars.COLOURS)))
                shadow = self._shadow(*_car_body(cars.shape_of(kind), T_w_o))
                yield Item("car", T_w_o, int(rng.integers(1 << 31)), (kind, 0, 0), (shadow,))

    def _furniture(self, rng: np.random.Generator, start_m: float, side: int) -> Iterator[Item]:
        for at in (0.0, 12.0):
            if rng.random() < 0.45:
                crown_m = rng.uniform(1.3, 1.9)
                s = start_m + at + rng.uniform(-1, 1)
                yield self._tree(rng, s, side * 6.5, crown_m * 2 + rng.uniform(1.8, 2.8), crown_m)
        if (round(start_m / PIECE_M) + (side > 0)) % 2:
            yield self._item(rng, "lamp", start_m + 6, side * 6.05, side, (0.1, 0.1, 6.1))
        if rng.random() < 0.45:
            s = start_m + rng.uniform(14, 22)
            yield self._item(rng, "sign", s, side * 6.15, -side, (0.1, 0.1, 2.6))

    def _tree(
        self, rng: np.random.Generator, s: float, left_m: float, height_m: float, crown_m: float
    ) -> Item:
        T_w_o = self._upright(s, left_m, 1)
        at = T_w_o[:2, 3]
        angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        wobble = rng.uniform(0.85, 1.1, (14, 1))
        disc = crown_m * wobble * np.stack([np.cos(angle), np.sin(angle)], 1)
        crown = at + self._shadow_per_m * (height_m - crown_m) + disc
        trunk = self._shadow(at + rectangle(0.25, 0.25), height_m - crown_m)
        return Item(
            "tree", T_w_o, int(rng.integers(1 << 31)), (crown_m, 0, height_m), (crown, trunk)
        )

    def _item(
        self,
        rng: np.random.Generator,
        kind: str,
        s: float,
        left_m: float,
        side: int,
        size: tuple[float, float, float],
    ) -> Item:
        T_w_o = self._upright(s, left_m, side)
        footprint = _placed(rectangle(*size[:2]), T_w_o)
        shadow = self._shadow(footprint, size[2])
        return Item(kind, T_w_o, int(rng.integers(1 << 31)), size, (shadow,))

    def _upright(self, s: float, left_m: float, side: int) -> np.ndarray:
        """Return the frame of what stands upright, with y away from the street for its side."""
        T_w_o = np.eye(4)
        heading = float(self._street.heading(s)) + (0 if side > 0 else np.pi)
        T_w_o[:2, :2] = [[np.cos(heading), -np.sin(heading)], [np.sin(heading), np.cos(heading)]]
        xy = self._street.place_w(s, left_m)
        T_w_o[:3, 3] = *xy, self._street.height(xy) + ground.height_above_relief(left_m)
        return T_w_o

    def _shadow(
        self,
        footprint: np.ndarray,
        height_m: float,
        ridge: np.ndarray | None = None,
        ridge_above_m: float = 0.0,
    ) -> np.ndarray:
        """Return what lies in the shadow of a convex body over a footprint (N, 2)."""
        points = [footprint, footprint + self._shadow_per_m * height_m]
        if ridge is not None:
            points.append(ridge + self._shadow_per_m * (height_m + ridge_above_m))
        at = footprint[0]  # float32 of OpenCV: stay near zero
        hull = cv2.convexHull((np.concatenate(points) - at).astype(np.float32))
        return hull[:, 0].astype(np.float64) + at

    def _gap(self, points_w: np.ndarray) -> np.ndarray:
        """Return how far (N,) points (N, 2) are from the centreline, wherever it comes near."""
        return np.linalg.norm(points_w[:, None] - self._line_w, axis=-1).min(1)


def on_street(street: Street, s: float, left_m: float, direction: int) -> np.ndarray:
    """Return the frame (4, 4) of a car on the road, tilted as the relief is.

    `direction` is 1 if it looks along the street, -1 if against it.
    """
    heading = float(street.heading(s)) + (0 if direction > 0 else np.pi)
    xy = street.place_w(s, left_m)
    slope = street.slope(xy)
    ahead = np.array([np.cos(heading), np.sin(heading), 0.0])
    ahead[2] = slope @ ahead[:2]
    ahead /= np.linalg.norm(ahead)
    up = np.array([-slope[0], -slope[1], 1.0]) / np.sqrt(1 + slope @ slope)
    T_w_o = np.eye(4)
    T_w_o[:3, :3] = np.stack([ahead, np.cross(up, ahead), up], 1)
    T_w_o[:3, 3] = *xy, street.height(xy) + ground.height_above_relief(left_m)
    return T_w_o


def _car_body(shape: cars.Shape, T_w_o: np.ndarray) -> tuple[np.ndarray, float, np.ndarray, float]:
    """Return what `Planner._shadow` wants: the body below the windows, and the roof above it."""
    front, back, roof_m = shape.outline[6][0], shape.outline[3][0], shape.outline[4][1]
    roof = rectangle(front - back - 0.8, 1.3, ((front + back) / 2, 0.0))
    body = rectangle(cars.LENGTH_M, cars.WIDTH_M)
    above_m = roof_m - cars.BELT_M
    return _placed(body, T_w_o), cars.BELT_M, _placed(roof, T_w_o), above_m


def _placed(footprint: np.ndarray, T_w_o: np.ndarray) -> np.ndarray:
    """Return a footprint (N, 2) of an object in the world."""
    return footprint @ T_w_o[:2, :2].T + T_w_o[:2, 3]


def street_coordinates(street: Street, points_w: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Return s and left [m] (N, 2) of points (N, 2) near the street.

    Args:
        street: whose coordinates
        points_w: in the plane
        s: (M,) where to look for the nearest place on the centreline
    """
    line_w = street.position_w(s)
    nearest = s[np.linalg.norm(points_w[:, None] - line_w, axis=-1).argmin(1)]
    heading = street.heading(nearest)
    gap = points_w - street.position_w(nearest)
    ahead = (gap * np.stack([np.cos(heading), np.sin(heading)], 1)).sum(1)
    left_m = (gap * np.stack([-np.sin(heading), np.cos(heading)], 1)).sum(1)
    # Ahead on the tangent is more along the line on the inner side of a curve.
    stretch = np.maximum(1 - street.curvature(nearest) * left_m, 0.2)
    return np.stack([nearest + ahead / stretch, left_m], 1)
