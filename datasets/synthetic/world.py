"""The world around a vehicle: pieces of the street that are built as they come into view.

Only what is near is kept, so that memory does not grow with the length of a drive, and a piece is
built from its own seed, so that it does not matter where one begins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from datasets.synthetic import cars, facades, ground, objects
from datasets.synthetic.atlas import Atlas, Page
from datasets.synthetic.plan import (
    PIECE_M,
    PIECE_OFFSET,
    Item,
    Planner,
    on_street,
    street_coordinates,
)
from datasets.synthetic.scene import NO_BALLS, NO_FACETS, Balls, Facets, Light, Scene, Sky, join
from datasets.synthetic.street import Street
from datasets.synthetic.trajectory import Trajectory

# Along the street: in a curve that is half as far, where houses must not come out of nothing.
BEHIND_M, AHEAD_M = 48.0, 240.0
_PAGES = int((BEHIND_M + AHEAD_M) / PIECE_M) + 1  # pieces in view at once
# Of the textures of one piece: its ground, and four houses of the largest. The shared ones fill it.
_PAGE_SIZE = 2176, 2688
_LEAST_DISTANCE_M = cars.LENGTH_M + 4.0  # between the middles of cars in a row
_SHADOWS_FROM = (-1, 0, 1)  # a piece lies in the shadow of its neighbours
# Streams of random numbers; those of street and trajectory are below, the plan's is 10.
_MATERIALS, _TRAFFIC, _WEATHER, _GROUND = 11, 12, 13, 14


@dataclass(frozen=True, eq=False)
class MovingCar:
    """A car that drives along the street.

    Attributes:
        body: in its own frame
        left_m: of the centreline
        direction: 1 along the street, -1 against it
        time_s, s: (N,) where it is when
    """

    body: Facets
    left_m: float
    direction: int
    time_s: np.ndarray
    s: np.ndarray

    def place(self, time_s: float) -> float:
        """Return its place s [m] along the street."""
        return float(np.interp(time_s, self.time_s, self.s))

    def at(self, street: Street, time_s: float) -> Facets | None:
        """Return it in the world, None where the street has no road yet, or no more."""
        s = self.place(time_s)
        edge_m = PIECE_M + cars.LENGTH_M
        if not street.start_m + edge_m < s < street.end_m - edge_m:
            return None
        return self.body.moved(on_street(street, s, self.left_m, self.direction))


class World:
    """A street with all that stands and drives on it."""

    def __init__(self, trajectory: Trajectory, seed: int, moving_cars: int) -> None:
        self._trajectory, self._street, self._seed = trajectory, trajectory.street, seed
        self._light = _draw_light(np.random.default_rng([seed, _WEATHER]), self._street)
        self._planner = Planner(self._street, seed, self._light.sun_w)
        self._atlas = Atlas(_PAGES + 1, *_PAGE_SIZE)
        page = self._atlas.page(_PAGES)
        rng = np.random.default_rng([seed, _MATERIALS])
        self._materials = objects.make_materials(rng, page)
        self._cars = cars.make_cars(page)
        self._sky = _draw_sky(np.random.default_rng([seed, _WEATHER, 1]), self._materials)
        self._traffic = self._draw_traffic(trajectory, moving_cars)
        self._pieces: dict[int, tuple[Facets, Balls]] = {}
        self._still: tuple[range, Facets, Balls] | None = None

    def scene(self, time_s: float) -> Scene:
        """Return what can be seen from the vehicle at a time, by all its sensors."""
        s = float(self._trajectory.arc_length(np.array([time_s]))[0])
        first, last = (int(np.floor(end / PIECE_M)) for end in (s - BEHIND_M, s + AHEAD_M))
        wanted = range(first, last + 1)
        if self._still is None or self._still[0] != wanted:
            self._still = (wanted, *self._build(wanted))
        _, standing, crowns = self._still
        near = (car for car in self._traffic if car.place(time_s) // PIECE_M in wanted)
        driving = (car.at(self._street, time_s) for car in near)
        facets = join([standing, *(car for car in driving if car is not None)])
        return Scene(facets, crowns, self._atlas, self._light, self._sky)

    def _build(self, wanted: range) -> tuple[Facets, Balls]:
        """Return the standing surfaces of these pieces; builds those that are not there yet."""
        self._pieces = {i: piece for i, piece in self._pieces.items() if i in wanted}
        for i in wanted:
            if i not in self._pieces:
                self._pieces[i] = self._build_piece(i)
        pieces = [self._pieces[i] for i in wanted]
        return join([facets for facets, _ in pieces]), join([balls for _, balls in pieces])

    def _build_piece(self, piece: int) -> tuple[Facets, Balls]:
        page = self._atlas.page(piece % _PAGES)
        start_m = piece * PIECE_M
        items = self._planner.plan(piece)
        facets, crowns = [], [NO_BALLS]
        if items:
            painted = page.add(self._paint_ground(piece, start_m))
            facets.append(ground.road(self._street, start_m, PIECE_M, painted))
        land = ground.land(self._street, start_m, PIECE_M, self._materials.grass)
        facets += [land] if land else []
        for item in items:
            self._add(item, page, facets, crowns)
        return join([NO_FACETS, *facets]), join(crowns)

    def _paint_ground(self, piece: int, start_m: float) -> np.ndarray:
        near_s = np.arange(start_m - PIECE_M, start_m + 2 * PIECE_M, 1.0)
        near_s = near_s[(near_s > self._street.start_m) & (near_s < self._street.end_m)]
        shadows = [
            street_coordinates(self._street, _subdivided(polygon), near_s)
            for offset in _SHADOWS_FROM
            for item in self._planner.plan(piece + offset)
            for polygon in item.shadow
        ]
        rng = np.random.default_rng([self._seed, _GROUND, piece + PIECE_OFFSET])
        return ground.paint(rng, start_m, PIECE_M, shadows)

    def _add(self, item: Item, page: Page, facets: list[Facets], crowns: list[Balls]) -> None:
        """Build one item: append its facets and balls."""
        rng = np.random.default_rng(item.seed)
        of = self._materials
        match item.kind, item.size:
            case "house", (width_m, depth_m, floors):
                facade = facades.paint(rng, width_m, int(floors))
                made = objects.house(rng, facade, page.add(facade.image), of, depth_m)
            case "tree", (crown_m, _, height_m):
                made, crown = objects.tree(rng, of, height_m, crown_m)
                crowns.append(crown.shifted(item.T_w_o[:3, 3]))
            case "car", (kind, _, _):
                made = self._cars[int(kind)]
            case ("hedge" | "fence" | "wall") as kind, (length_m, depth_m, height_m):
                chart = {"hedge": of.leaves, "fence": of.planks, "wall": of.plaster}[kind]
                made = objects.wall(chart, length_m, height_m, depth_m)
            case "lamp", _:
                made = objects.lamp(of)
            case "sign", _:
                made = objects.sign(rng, of)
            case "bin", size:
                made = objects.dustbin(rng, of, size)
        facets.append(made.moved(item.T_w_o))

    def _draw_traffic(self, trajectory: Trajectory, count: int) -> list[MovingCar]:
        """Draw one car that drives ahead, and others that come the other way."""
        rng = np.random.default_rng([self._seed, _TRAFFIC])
        time_s = np.arange(-0.5, trajectory.duration_s + 0.5, 0.05)
        ego_s = trajectory.arc_length(time_s)
        bodies = [self._cars[rng.integers(len(self._cars))] for _ in range(count)]
        bodies = [replace(body, moving=np.ones(len(body), bool)) for body in bodies]
        traffic = []
        if count:
            # The gap is a wave of what was driven, not of time: who waits, waits.
            gap_m = rng.uniform(13, 18) + 2.0 * np.sin(0.04 * ego_s + rng.uniform(0, 6))
            traffic.append(MovingCar(bodies[0], -ground.LANE_M / 2, 1, time_s, ego_s + gap_m))
        # All that come have one speed and keep their distance: none drives through another.
        speed = rng.uniform(7, 12)
        meeting_s = np.sort(rng.uniform(0.1, 0.95, count)[1:]) * trajectory.duration_s
        first_m = np.interp(meeting_s, time_s, ego_s) + 10 + speed * meeting_s
        order = _LEAST_DISTANCE_M * np.arange(len(first_m))
        first_m = np.maximum.accumulate(first_m - order) + order
        for body, start_m in zip(bodies[1:], first_m.tolist(), strict=True):
            s = start_m - speed * time_s
            traffic.append(MovingCar(body, ground.LANE_M / 2, -1, time_s, s))
        return traffic


def _draw_light(rng: np.random.Generator, street: Street) -> Light:
    elevation = rng.uniform(np.deg2rad(36), np.deg2rad(52))
    # From the side, so that one row of houses is in the sun.
    azimuth = float(street.heading(0.0)) + rng.choice([-1, 1]) * rng.uniform(0.6, 2.2)
    level = np.cos(elevation)
    sun_w = np.array([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)])
    return Light(sun_w)


def _draw_sky(rng: np.random.Generator, materials: objects.Materials) -> Sky:
    haze = np.array([0.80, 0.85, 0.90]) + rng.uniform(-0.04, 0.04)
    zenith = np.array([0.33, 0.52, 0.80]) + rng.uniform(-0.05, 0.05, 3)
    waves = rng.integers(2, 19, 5).astype(float)
    hills = np.stack([0.05 / (waves + 2), waves, rng.uniform(0, 2 * np.pi, 5)], 1)
    return Sky(materials.clouds, haze.astype(np.float32), zenith.astype(np.float32), hills)


def _subdivided(polygon: np.ndarray) -> np.ndarray:
    """Return a polygon (N, 2) with points every metre: what is straight in the world is bent in
    the street's coordinates."""
    sides = np.roll(polygon, -1, 0) - polygon
    parts = [
        start + np.linspace(0, 1, max(1, int(np.hypot(*side))), endpoint=False)[:, None] * side
        for start, side in zip(polygon, sides, strict=True)
    ]
    return np.concatenate(parts)
