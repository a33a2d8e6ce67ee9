"""The world around a vehicle: pieces of the street that are built as they come into view.

Only what is near is kept, so that memory does not grow with the length of a drive, and a piece is
built from its own seed, so that it does not matter where one begins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from datasets.synthetic import cars, facades, ground, objects
from datasets.synthetic.atlas import Atlas, Page
from datasets.synthetic.plan import PIECE_M, Item, Planner, on_street, street_coordinates
from datasets.synthetic.scene import Balls, Facets, Light, Scene, Sky, join
from datasets.synthetic.street import Street
from datasets.synthetic.trajectory import Trajectory

BEHIND_M, AHEAD_M = 60.0, 150.0
_PAGES = int((BEHIND_M + AHEAD_M) / PIECE_M) + 2  # pieces in view at once
_PAGE_SIZE = 2816, 2688  # of the textures of one piece
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

    def at(self, street: Street, time_s: float) -> Facets | None:
        """Return it in the world, None while it is not on the street."""
        s = float(np.interp(time_s, self.time_s, self.s))
        if not street.start_m + 5 < s < street.end_m - 5:
            return None
        return self.body.moved(on_street(street, s, self.left_m, self.direction))


class World:
    """A street with all that stands and drives on it."""

    def __init__(self, trajectory: Trajectory, seed: int, moving_cars: int) -> None:
        self._street, self._seed = trajectory.street, seed
        self._light = _draw_light(np.random.default_rng([seed, _WEATHER]), self._street)
        self._planner = Planner(self._street, seed, self._light.sun_w)
        self._atlas = Atlas(_PAGES + 1, *_PAGE_SIZE)
        page = self._atlas.page(_PAGES)
        rng = np.random.default_rng([seed, _MATERIALS])
        self._materials = objects.make_materials(rng, page)
        self._cars = cars.make_cars(page)
        self._sky = _draw_sky(np.random.default_rng([seed, _WEATHER, 1]), self._materials)
        self._traffic = self._draw_traffic(trajectory, moving_cars)
        self._line_s = np.arange(self._street.start_m, self._street.end_m, 2.0)
        self._line_w = self._street.position_w(self._line_s)
        self._pieces: dict[int, tuple[Facets, Balls]] = {}
        self._still: tuple[tuple[int, ...], Facets, Balls] | None = None

    def scene(self, position_w: np.ndarray, time_s: float) -> Scene:
        """Return what can be seen from a place (3,) on the street at a time."""
        gaps = np.linalg.norm(self._line_w - position_w[:2], axis=1)
        s = self._line_s[gaps.argmin()]
        wanted = range(
            int(np.floor((s - BEHIND_M) / PIECE_M)), int(np.floor((s + AHEAD_M) / PIECE_M)) + 1
        )
        if self._still is None or self._still[0] != tuple(wanted):
            self._still = (tuple(wanted), *self._build(wanted))
        driving = [car.at(self._street, time_s) for car in self._traffic]
        facets = join([self._still[1], *(car for car in driving if car is not None)])
        return Scene(facets, self._still[2], self._atlas, self._light, self._sky)

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
        facets, crowns = [], [_no_balls()]
        if items:
            painted = page.add(self._paint_ground(piece, start_m))
            facets.append(ground.road(self._street, start_m, PIECE_M, painted))
        land = ground.land(self._street, start_m, PIECE_M, self._materials.grass)
        facets += [land] if land else []
        for item in items:
            self._add(item, page, facets, crowns)
        return join([_no_facets(), *facets]), join(crowns)

    def _paint_ground(self, piece: int, start_m: float) -> np.ndarray:
        near_s = np.arange(start_m - PIECE_M, start_m + 2 * PIECE_M, 1.0)
        near_s = near_s[(near_s > self._street.start_m) & (near_s < self._street.end_m)]
        shadows = [
            street_coordinates(self._street, _subdivided(polygon), near_s)
            for offset in _SHADOWS_FROM
            for item in self._planner.plan(piece + offset)
            for polygon in item.shadow
        ]
        rng = np.random.default_rng([self._seed, _GROUND, piece + 1000])
        return ground.paint(rng, start_m, PIECE_M, shadows)

    def _add(self, item: Item, page: Page, facets: list[Facets], crowns: list[Balls]) -> None:
        """Build one item: append its facets and balls."""
        rng = np.random.default_rng(item.seed)
        length_m, depth_m, height_m = item.size
        of = self._materials
        match item.kind:
            case "house":
                facade = facades.paint(rng, length_m, int(height_m))
                made = objects.house(rng, facade, page.add(facade.image), of, depth_m)
            case "tree":
                made, crown = objects.tree(rng, of, height_m, length_m)
                crowns.append(crown.shifted(item.T_w_o[:3, 3]))
            case "car":
                made = self._cars[rng.integers(len(self._cars))]
            case "hedge" | "fence" | "wall":
                chart = {"hedge": of.leaves, "fence": of.planks, "wall": of.plaster}[item.kind]
                made = objects.wall(chart, length_m, height_m, depth_m)
            case "lamp":
                made = objects.lamp(of)
            case "sign":
                made = objects.sign(rng, of)
            case "bin":
                made = objects.dustbin(rng, of)
        facets.append(made.moved(item.T_w_o))

    def _draw_traffic(self, trajectory: Trajectory, count: int) -> list[MovingCar]:
        """Draw one car that drives ahead, and others that come the other way."""
        rng = np.random.default_rng([self._seed, _TRAFFIC])
        time_s = np.arange(-0.5, trajectory.duration_s + 0.5, 0.05)
        ego_s = trajectory.arc_length(time_s)
        traffic = []
        speed = rng.uniform(7, 12)  # of all that come: none drives through another
        for i in range(count):
            body = self._cars[rng.integers(len(self._cars))]
            body = replace(body, moving=np.ones(len(body), bool))
            if i == 0:
                # A wave of what was driven, not of time: who waits, waits.
                gap_m = rng.uniform(13, 18) + 2.0 * np.sin(0.04 * ego_s + rng.uniform(0, 6))
                s, left_m, direction = ego_s + gap_m, -ground.LANE_M / 2, 1
            else:
                part = (i - 1 + rng.uniform(0.1, 0.6)) / (count - 1)
                meeting_s = (0.1 + 0.85 * part) * trajectory.duration_s
                meeting_m = np.interp(meeting_s, time_s, ego_s)
                s = meeting_m + 10 - speed * (time_s - meeting_s)
                left_m, direction = ground.LANE_M / 2, -1
            traffic.append(MovingCar(body, left_m, direction, time_s, s))
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


def _no_facets() -> Facets:
    return Facets(
        np.zeros((0, 4, 3)), np.zeros((0, 2, 4)), np.zeros((0, 5)), np.zeros((0, 3)),
        np.zeros((0, 11)), np.zeros(0, bool),
    )  # fmt: skip


def _no_balls() -> Balls:
    return Balls(
        np.zeros((0, 3)), np.zeros(0), np.zeros((0, 3)), np.zeros((0, 5)), np.zeros((0, 3))
    )
