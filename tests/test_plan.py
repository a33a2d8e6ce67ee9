"""Plans of a street: what stands on it keeps off the lanes, and throws its shadow."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial import cKDTree

from datasets.synthetic import ground
from datasets.synthetic.cars import LENGTH_M, WIDTH_M
from datasets.synthetic.plan import PIECE_M, Item, Planner, on_street, street_coordinates
from datasets.synthetic.scene import rectangle
from datasets.synthetic.street import Street, make_street

SUN_W = np.array([0.48, 0.6, 0.64])
SHADOW_PER_M = -SUN_W[:2] / SUN_W[2]
SEEDS = range(16)


class Placed(NamedTuple):
    """An item, its footprint in the plane, and how far that is from the centreline."""

    seed: int
    piece: int
    item: Item
    footprint_w: np.ndarray
    gap_m: np.ndarray


def pieces(street: Street) -> range:
    return range(int(np.ceil(street.start_m / PIECE_M)), int(street.end_m // PIECE_M))


def footprint(item: Item) -> np.ndarray:
    """Return the corners (4, 2) of what an item covers of the ground, in its own frame."""
    length_m, depth_m, _ = item.size
    match item.kind:
        case "house":
            return rectangle(length_m, depth_m, (0.0, depth_m / 2))
        case "car":
            return rectangle(LENGTH_M + 0.1, WIDTH_M + 0.02)
        case "tree":
            return rectangle(0.3, 0.3)
        case _:
            return rectangle(length_m, depth_m)


def in_world(item: Item, points: np.ndarray) -> np.ndarray:
    return points @ item.T_w_o[:2, :2].T + item.T_w_o[:2, 3]


def outline(corners: np.ndarray) -> np.ndarray:
    """Return points all along the sides of a polygon."""
    parts = np.linspace(corners, np.roll(corners, -1, 0), 12, endpoint=False)
    return parts.swapaxes(0, 1).reshape(-1, 2)


@pytest.fixture(scope="module")
def placed() -> list[Placed]:
    """All that stands along some streets with tight curves."""
    found = []
    for seed in SEEDS:
        street = make_street(seed, 200)
        line = cKDTree(street.position_w(np.arange(street.start_m, street.end_m, 0.1)))
        planner = Planner(street, seed, SUN_W)
        for piece in pieces(street):
            for item in planner.plan(piece):
                corners = in_world(item, footprint(item))
                found.append(Placed(seed, piece, item, corners, line.query(outline(corners))[0]))
    return found


def of_kind(placed: list[Placed], *kinds: str) -> list[Placed]:
    chosen = [one for one in placed if one.item.kind in kinds]
    assert chosen
    return chosen


def contains(polygon: np.ndarray, points: np.ndarray, slack_m: float = 1e-3) -> bool:
    at = polygon[0]
    hull = (polygon - at).astype(np.float32)
    inside = [cv2.pointPolygonTest(hull, p.tolist(), True) for p in (points - at)]
    return min(inside) > -slack_m


def test_there_is_something_of_everything(placed):
    kinds = [one.item.kind for one in placed]
    per_piece = len(SEEDS) * 20
    for kind, at_least, at_most in (
        ("house", 1.5, 4), ("tree", 0.8, 8), ("car", 2, 8), ("lamp", 0.9, 1.1), ("sign", 0.4, 2),
        ("bin", 0.3, 4), ("hedge", 0.3, 8), ("fence", 0.3, 8), ("wall", 0.3, 8),
    ):  # fmt: skip
        assert at_least < kinds.count(kind) / per_piece < at_most, kind


def test_a_piece_has_no_more_houses_than_fit_on_its_page(placed):
    houses = Counter((one.seed, one.piece) for one in of_kind(placed, "house"))
    assert max(houses.values()) == 4


def test_houses_keep_off_the_pavement(placed):
    for one in of_kind(placed, "house"):
        assert one.gap_m.min() > ground.EDGE_LEFT_M
        assert one.gap_m.min() < 16  # and along the street


def test_houses_face_the_street(placed):
    for one in of_kind(placed, "house"):
        front, back = one.gap_m[:12], one.gap_m[24:36]
        assert front.mean() + 3 < back.mean()


def test_houses_have_sizes_that_can_be_painted(placed):
    for one in of_kind(placed, "house"):
        width_m, depth_m, floors = one.item.size
        assert 5.5 <= width_m <= 14 and 4.9 < depth_m < 11 and floors in (2, 3, 4)
    assert {one.item.size[2] for one in of_kind(placed, "house")} == {2, 3, 4}


def test_gardens_end_behind_the_pavement(placed):
    for one in of_kind(placed, "hedge", "fence", "wall"):
        assert one.gap_m.min() > ground.EDGE_LEFT_M and one.gap_m.max() < 10.5
        assert 0.5 < one.item.size[2] < 2


def test_the_parts_of_a_garden_are_alike(placed):
    seeds = [one.item.seed for one in of_kind(placed, "hedge", "fence", "wall")]
    assert len(set(seeds)) == len(seeds) / 4


def test_cars_are_parked_within_their_lanes(placed):
    gaps = np.array([(one.gap_m.min(), one.gap_m.max()) for one in of_kind(placed, "car")])
    # In a tight curve a car, which is straight, sticks out a little.
    assert gaps.min() > ground.LANE_M - 0.12 and gaps.max() < ground.KERB_LEFT_M + 0.2
    assert np.median(gaps[:, 0]) > ground.LANE_M and np.median(gaps[:, 1]) < ground.KERB_LEFT_M


def test_parked_cars_do_not_touch_each_other(placed):
    body = rectangle(LENGTH_M, WIDTH_M)
    for seed in SEEDS:
        cars = [one.item for one in of_kind(placed, "car") if one.seed == seed]
        parked = np.array([in_world(item, body) for item in cars])
        middle = parked.mean(1)
        apart_m = np.linalg.norm(middle[:, None] - middle, axis=-1)
        for i, j in np.argwhere(np.triu(apart_m < 1.2 * LENGTH_M, 1)):
            one, other = ((parked[k] - middle[i]).astype(np.float32) for k in (i, j))
            assert cv2.intersectConvexConvex(one, other)[0] < 1e-3, (seed, apart_m[i, j])


def test_trees_stand_off_the_lanes(placed):
    for one in of_kind(placed, "tree"):
        crown_m, _, height_m = one.item.size
        assert one.gap_m.min() > ground.KERB_LEFT_M
        # Of the crown nothing hangs into the lanes where vehicles are.
        reach_m, clear_m = one.gap_m.min() - 1.25 * crown_m, height_m - 2.3 * crown_m
        assert reach_m > ground.LANE_M - 0.2 or clear_m > 4.5


def test_lamps_signs_and_bins_stand_on_the_pavement(placed):
    for one in of_kind(placed, "lamp", "sign", "bin"):
        assert one.gap_m.min() > ground.KERB_LEFT_M
        assert one.gap_m.max() < ground.EDGE_LEFT_M + 0.1


def test_everything_stands_upright_on_the_ground():
    for seed in range(3):
        street = make_street(seed, 200)
        for piece in pieces(street):
            s = piece * PIECE_M + np.arange(-8.0, 32)
            s = s[(s > street.start_m) & (s < street.end_m)]
            for item in Planner(street, seed, SUN_W).plan(piece):
                R, at = item.T_w_o[:3, :3], item.T_w_o[:3, 3]
                assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
                assert np.linalg.det(R) > 0 and R[2, 2] > 0.99
                left_m = street_coordinates(street, at[None, :2], s)[0, 1]
                surface = street.height(at[:2]) + ground.height_above_relief(left_m)
                # The foot of a house that stepped back reaches below the ground.
                slack_m = 0.3 if item.kind == "house" else 1e-4
                assert at[2] == pytest.approx(surface, abs=slack_m), item.kind


def test_plans_are_the_same_in_any_order():
    street = make_street(3, 200)
    once, again = (Planner(street, 5, SUN_W) for _ in range(2))
    forward = {piece: once.plan(piece) for piece in pieces(street)}
    for piece in reversed(pieces(street)):
        for one, other in zip(forward[piece], again.plan(piece), strict=True):
            assert (one.kind, one.seed, one.size) == (other.kind, other.seed, other.size)
            assert np.array_equal(one.T_w_o, other.T_w_o)
            assert all(map(np.array_equal, one.shadow, other.shadow))


def test_plans_differ_from_piece_to_piece_and_seed_to_seed():
    street = make_street(3, 200)
    seeds = [
        item.seed
        for seed in (1, 2)
        for piece in range(4)
        for item in Planner(street, seed, SUN_W).plan(piece)
        if item.kind not in ("hedge", "fence", "wall")
    ]
    assert len(set(seeds)) == len(seeds)


def test_beyond_the_street_nothing_is_planned():
    street = make_street(3, 200)
    planner = Planner(street, 0, SUN_W)
    for piece in (pieces(street).start - 1, pieces(street).stop, 1000, -900):
        assert planner.plan(piece) == []


def test_shadows_are_convex_but_for_those_of_leaves(placed):
    for one in placed:
        assert len(one.item.shadow) == (2 if one.item.kind == "tree" else 1)
        polygon = one.item.shadow[-1]
        sides = np.roll(polygon, -1, 0) - polygon
        following = np.roll(sides, -1, 0)
        turns = sides[:, 0] * following[:, 1] - sides[:, 1] * following[:, 0]
        assert (turns > -1e-4).all() or (turns < 1e-4).all()


def test_shadows_hold_the_foot_of_what_throws_them(placed):
    for one in placed:
        foot = footprint(one.item)
        if one.item.kind in ("car", "tree"):
            foot = foot * 0.5  # their shadow begins within it
        assert contains(one.item.shadow[-1], in_world(one.item, foot))


def test_shadows_are_as_long_as_the_sun_is_low(placed):
    away = SHADOW_PER_M / np.linalg.norm(SHADOW_PER_M)
    per_m = np.linalg.norm(SHADOW_PER_M)
    heights = {"house": None, "car": (0.8, 1.6), "tree": None}
    for one in placed:
        height_m = one.item.size[2]
        if one.item.kind == "house":
            eaves_m = 3.2 + 2.9 * (height_m - 1)
            low_m, high_m = eaves_m + 0.5, eaves_m + 0.5 + one.item.size[1] / 2 + 2
        elif one.item.kind == "tree":
            low_m, high_m = height_m - 3 * one.item.size[0], height_m
        else:
            low_m, high_m = heights.get(one.item.kind) or (height_m - 1e-3, height_m + 1e-3)
        reach_m = (one.item.shadow[-1] @ away).max() - (one.footprint_w @ away).max()
        assert low_m * per_m - 0.5 < reach_m < high_m * per_m + 0.1, one.item.kind
        if one.item.kind in ("lamp", "hedge", "fence", "wall", "sign", "bin"):
            assert reach_m == pytest.approx(height_m * per_m, abs=1e-3)


def test_the_eaves_of_a_house_throw_its_shadow(placed):
    for one in of_kind(placed, "house"):
        eaves_m = 3.7 + 2.9 * (one.item.size[2] - 1)
        polygon = one.item.shadow[0]
        assert contains(polygon, one.footprint_w + SHADOW_PER_M * eaves_m)


def test_the_shadow_of_a_crown_is_around_the_shadow_of_its_middle(placed):
    for one in of_kind(placed, "tree"):
        crown_m, _, height_m = one.item.size
        crown, trunk = one.item.shadow
        middle = one.item.T_w_o[:2, 3] + SHADOW_PER_M * (height_m - crown_m)
        radius = np.linalg.norm(crown - middle, axis=1)
        assert 0.8 * crown_m < radius.min() and radius.max() < 1.15 * crown_m
        assert np.linalg.norm(trunk - middle, axis=1).min() < 0.3  # its stem leads there


@pytest.mark.parametrize("seed", range(8))
def test_street_coordinates_are_those_that_a_place_was_made_of(seed):
    street = make_street(seed, 300)
    rng = np.random.default_rng(seed)
    s, left_m = rng.uniform(-40, 500, 2000), rng.uniform(-10, 10, 2000)
    near_s = np.arange(street.start_m + 0.5, street.end_m, 1.0)
    found = street_coordinates(street, street.place_w(s, left_m), near_s)
    error_m = np.abs(found - np.stack([s, left_m], 1))
    assert error_m.max() < 0.02 and error_m[np.abs(left_m) < 6].max() < 0.012


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("seed", range(4))
def test_a_car_stands_on_the_street_and_is_tilted_as_the_relief_is(seed, direction):
    street = make_street(seed, 200)
    for s, left_m in np.random.default_rng(seed).uniform((-50, -5), (400, 5), (40, 2)):
        T_w_o = on_street(street, s, left_m, direction)
        R, at = T_w_o[:3, :3], T_w_o[:3, 3]
        assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(R) == pytest.approx(1)
        assert_allclose(T_w_o[3], [0, 0, 0, 1])
        assert_allclose(at[:2], street.place_w(s, left_m))
        surface = street.height(at[:2]) + ground.height_above_relief(left_m)
        assert at[2] == pytest.approx(surface, abs=1e-12)
        heading = street.heading(s)
        along = direction * np.array([np.cos(heading), np.sin(heading)])
        assert_allclose(R[:2, 0] / np.linalg.norm(R[:2, 0]), along, atol=1e-9)
        for axis in (0, 1):  # its wheels stay on the ground
            moved = at[:2] + 0.5 * R[:2, axis]
            rise = street.height(moved) - street.height(at[:2])
            assert rise == pytest.approx(0.5 * R[2, axis], abs=1e-3)
