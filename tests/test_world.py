"""The world: built piece by piece around a vehicle, with traffic that keeps off it."""

from __future__ import annotations

from zlib import crc32

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose

from datasets.synthetic import ground, world
from datasets.synthetic.cars import LENGTH_M, WIDTH_M
from datasets.synthetic.plan import PIECE_M
from datasets.synthetic.rendering import Renderer
from datasets.synthetic.scene import Balls, Facets, Scene, join, rectangle
from datasets.synthetic.trajectory import Trajectory, make_trajectory
from datasets.synthetic.world import World

EGO = rectangle(4.5, 1.8)


@pytest.fixture(scope="module")
def drive() -> Trajectory:
    return make_trajectory(4, 20.0)


@pytest.fixture(scope="module")
def quiet(drive) -> World:
    """A world in which nothing else drives; tests may look at it at any time."""
    return World(drive, 4, 0)


def same(one: Facets | Balls, other: Facets | Balls) -> bool:
    return all(map(np.array_equal, vars(one).values(), vars(other).values()))


def pictures(scene: Scene) -> list[int]:
    """Return a check sum of what is painted on each chart of a scene's facets."""
    charts = np.unique(scene.facets.chart, axis=0)[:, :4].astype(int)
    return [
        crc32(scene.atlas.texels[row : row + 2 * height, column : column + 2 * width].tobytes())
        for column, row, width, height in charts.tolist()
    ]


def footprint(T_w_o: np.ndarray, corners: np.ndarray) -> np.ndarray:
    return corners @ T_w_o[:2, :2].T + T_w_o[:2, 3]


def touch(one: np.ndarray, other: np.ndarray) -> bool:
    if np.linalg.norm(one.mean(0) - other.mean(0)) > 8:
        return False
    at = one.mean(0)  # float32 of OpenCV: stay near zero
    both = ((polygon - at).astype(np.float32) for polygon in (one, other))
    return cv2.intersectConvexConvex(*both)[0] > 1e-3


def traffic_at(of: World, drive: Trajectory, time_s: float) -> list[np.ndarray | None]:
    """Return the footprints (4, 2) of the moving cars, in the order they were drawn."""
    found = []
    for car in of._traffic:
        body = car.at(drive.street, time_s)
        if body is None:
            found.append(None)
        else:
            hull = cv2.convexHull((body.corners_w[..., :2]).reshape(-1, 2).astype(np.float32))
            found.append(cv2.boxPoints(cv2.minAreaRect(hull)).astype(float))
    return found


@pytest.fixture(scope="module")
def traffic() -> list[tuple[Trajectory, World]]:
    """Some worlds with traffic in each."""
    drives = [make_trajectory(seed, 20.0) for seed in range(8)]
    return [(drive, World(drive, seed, 4)) for seed, drive in enumerate(drives)]


def test_a_scene_does_not_depend_on_what_was_looked_at_before(drive):
    of = World(drive, 4, 1)
    first = of.scene(0.0)
    painted = pictures(first)
    assert drive.arc_length(20.0) > world.BEHIND_M + PIECE_M
    of.scene(20.0)  # drops some pieces
    again = of.scene(0.0)
    assert again.facets is not first.facets
    assert same(again.facets, first.facets) and same(again.balls, first.balls)
    assert pictures(again) == painted and len(set(painted)) > 20


def test_worlds_follow_from_their_seeds(drive, quiet):
    other = World(drive, 5, 0)
    plans = [[item.seed for item in of._planner.plan(0)] for of in (quiet, other)]
    assert not set(plans[0]) & set(plans[1])
    assert np.abs(quiet._light.sun_w - other._light.sun_w).max() > 0.01
    assert np.abs(quiet._sky.zenith - other._sky.zenith).max() > 0.001
    painted = [of._paint_ground(0, 0.0) for of in (quiet, other)]
    assert np.abs(painted[0] - painted[1]).mean() > 0.005


def test_what_is_far_behind_is_dropped_and_the_cost_of_a_scene_stays(drive, quiet):
    counts, pieces = [], []
    for time_s in (0.0, 7.0, 14.0, 20.0):
        scene = quiet.scene(time_s)
        counts.append(len(scene.facets))
        pieces.append(len(quiet._pieces))
        s = drive.arc_length(time_s)
        assert min(quiet._pieces) * PIECE_M > s - world.BEHIND_M - PIECE_M - 2
        assert max(quiet._pieces) * PIECE_M <= s + world.AHEAD_M + 2
    assert s > world.BEHIND_M + PIECE_M  # some have been left behind
    assert max(pieces) <= world._PAGES and max(pieces) - min(pieces) <= 1
    assert max(counts) < 1.6 * min(counts) and max(counts) < 12_000


def test_pieces_in_view_never_share_a_page(drive, quiet):
    height, width = world._PAGE_SIZE
    for time_s in (0.0, 10.0):
        scene = quiet.scene(time_s)
        pages = [piece % world._PAGES for piece in quiet._pieces]
        assert len(set(pages)) == len(pages)
        below = len(scene.atlas.texels) // height  # pages in a column of the atlas
        column, row = scene.facets.chart[:, :2].T
        page = (column // width * below + row // height).astype(int)
        assert set(page) <= {*pages, world._PAGES} and len(set(page)) >= len(pages)


def test_charts_lie_on_the_atlas_and_do_not_overlap(drive, quiet):
    scene = quiet.scene(0.0)
    charts = np.unique(scene.facets.chart, axis=0)[:, :4].astype(int)
    used = np.zeros(scene.atlas.texels.shape[:2], np.int8)
    for column, row, width, height in charts.tolist():
        part = used[row : row + 2 * height, column : column + 2 * width]
        assert part.shape == (2 * height, 2 * width)
        part += 1
    assert used.max() == 1


def test_a_scene_reaches_far_enough(drive, quiet):
    for time_s in (0.0, 10.0):
        scene, s = quiet.scene(time_s), drive.arc_length(time_s)
        for ahead_m in (-world.BEHIND_M + 2, world.AHEAD_M - 2):
            place_w = drive.street.position_w(s + ahead_m)
            middle = scene.facets.corners_w.mean(1)[:, :2]
            assert np.linalg.norm(middle - place_w, axis=1).min() < 3


def test_the_vehicle_rolls_on_the_road(drive, quiet):
    for time_s in (0.0, 10.0):
        T_w_b = drive.at([time_s]).T_w_b[0]
        corners = quiet.scene(time_s).facets.corners_w[:, :3]
        near = np.linalg.norm(corners.mean(1)[:, :2] - T_w_b[:2, 3], axis=1) < 1.5
        assert near.any()
        below_m = T_w_b[2, 3] - corners[near][..., 2].max()
        assert 0.7 < below_m < 1.1  # the IMU is that high


def test_nothing_stands_where_the_vehicle_drives(drive, quiet):
    for time_s in (0.0, 4.0, 7.0, 10.0):
        T_b_w = np.linalg.inv(drive.at([time_s]).T_w_b[0])
        scene = quiet.scene(time_s)
        facets = scene.facets.corners_w @ T_b_w[:3, :3].T + T_b_w[:3, 3]
        middle = facets.mean(1)
        inside = (np.abs(middle[:, :2]) < (2.3, 1.0)).all(1) & (-0.6 < middle[:, 2])
        assert not (inside & (middle[:, 2] < 1.5)).any()
        balls = scene.balls.centre_w @ T_b_w[:3, :3].T + T_b_w[:3, 3]
        gap_m = np.linalg.norm(np.maximum(np.abs(balls) - (2.3, 1.0, 1.5), 0), axis=1)
        assert (gap_m > scene.balls.radius).all()


def test_without_traffic_nothing_moves(drive, quiet):
    for time_s in (0.0, 10.0):
        assert not quiet.scene(time_s).facets.moving.any()


def test_moving_cars_are_flagged_and_the_rest_stays(drive, quiet):
    busy, moved = World(drive, 4, 3), []
    for time_s in (6.0, 6.5):
        facets, still = (of.scene(time_s).facets for of in (busy, quiet))
        kept = Facets(*(column[~facets.moving] for column in vars(facets).values()))
        assert same(kept, still)
        moved.append(facets.corners_w[facets.moving])
    assert len(moved[0]) >= len(busy._traffic[0].body)
    assert len(moved[0]) == len(moved[1])
    assert np.abs(moved[0] - moved[1]).max() > 1


def test_cars_beyond_what_is_built_are_not_there(drive):
    busy = World(drive, 4, 40)
    busy.scene(2.0)
    built = [car for car in busy._traffic if car.place(2.0) // PIECE_M in busy._pieces]
    assert 1 < len(built) < 40
    moving = busy.scene(2.0).facets.moving
    assert moving.sum() == sum(len(car.body) for car in built)


@pytest.mark.parametrize(("seconds", "count"), [(1.2, 3), (3.1, 10), (12.4, 30), (60.0, 100)])
def test_those_that_come_never_meet_each_other(seconds, count):
    for seed in range(4):
        of = World(make_trajectory(seed, seconds), seed, count)
        for time_s in (0.0, seconds):
            places = np.sort([car.place(time_s) for car in of._traffic[1:]])
            assert np.diff(places).min(initial=np.inf) > LENGTH_M + 2


def test_nothing_large_comes_out_of_nothing():
    # The last piece in view shows as little as if it were not there.
    K = np.array([[721.5, 0, 609.6], [0, 721.5, 172.9], [0, 0, 1]]) / [[4], [4], [1]]
    T_b_c = np.eye(4)
    T_b_c[:3] = [[0, 0, 1, 1.1], [-1, 0, 0, -0.3], [0, -1, 0, 0.7]]
    for seed in range(4):
        drive = make_trajectory(seed, 12.4)
        of = World(drive, seed, 0)
        for time_s in (5.0, 10.0):
            T_w_c, renderer = drive.at([time_s]).T_w_b[0] @ T_b_c, Renderer(of)
            whole = renderer.view(K, (310, 94), T_w_c, time_s).depth_m
            wanted, standing, crowns = of._still
            cut = [of._pieces[piece] for piece in wanted[:-1]]
            of._still = (wanted, *(join([part[k] for part in cut]) for k in (0, 1)))
            without = renderer.view(K, (310, 94), T_w_c, time_s).depth_m
            of._still = (wanted, standing, crowns)
            assert (np.abs(whole - without) > 0.1).mean() < 0.002, (seed, time_s)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_there_are_as_many_moving_cars_as_asked_for(drive, count):
    of = World(drive, 4, count)
    assert len(of._traffic) == count
    assert all(car.body.moving.all() for car in of._traffic)


def test_one_car_keeps_ahead_in_the_lane_of_the_vehicle(traffic):
    for drive, of in traffic:
        leader = of._traffic[0]
        for time_s in np.arange(0, 20.1, 0.5):
            T_w_b = drive.at([time_s]).T_w_b[0]
            middle = leader.at(drive.street, time_s).corners_w.reshape(-1, 3).mean(0)
            gap_m = np.linalg.norm(middle - T_w_b[:3, 3])
            assert 8 < gap_m < 25
            assert ((middle - T_w_b[:3, 3]) @ T_w_b[:3, 0]) > 4
        assert leader.left_m == -ground.LANE_M / 2 and leader.direction == 1


def test_no_car_rolls_backwards(traffic):
    for _, of in traffic:
        for car in of._traffic:
            assert (car.direction * np.diff(car.s)).min() > -1e-9


def test_others_come_the_other_way_in_their_lane(traffic):
    for drive, of in traffic:
        for car in of._traffic[1:]:
            assert car.left_m > 0 and car.direction == -1
            speed = -np.diff(car.s) / np.diff(car.time_s)
            assert 3 < speed.min() and speed.max() < 15
            ego_s = drive.arc_length(car.time_s)
            ahead = car.s > ego_s
            assert ahead[0] and not ahead[-1]  # they meet during the drive


def test_cars_look_where_they_drive(traffic):
    drive, of = traffic[0]
    for car in of._traffic:
        times = [t for t in np.arange(2.0, 18) if car.at(drive.street, t) is not None]
        for time_s in times:
            before, after = (car.at(drive.street, time_s + h) for h in (-0.05, 0.05))
            if before is None or after is None:
                continue
            step = (after.corners_w - before.corners_w).reshape(-1, 3).mean(0)
            front = car.body.corners_w[..., 0].mean(1).argmax()
            rear = car.body.corners_w[..., 0].mean(1).argmin()
            ahead = (before.corners_w[front] - before.corners_w[rear]).mean(0)
            if np.linalg.norm(step) > 0.1:
                assert step @ ahead > 0.9 * np.linalg.norm(step) * np.linalg.norm(ahead)


def test_no_moving_car_touches_the_vehicle_or_another_car(traffic):
    for seed, (drive, of) in enumerate(traffic):
        for time_s in np.arange(0, 20, 0.25):
            ego = footprint(drive.at([time_s]).T_w_b[0], EGO)
            bodies = [ego, *(car for car in traffic_at(of, drive, time_s) if car is not None)]
            for i, one in enumerate(bodies):
                for other in bodies[:i]:
                    assert not touch(one, other), (seed, time_s)


def test_moving_cars_keep_off_parked_ones(traffic):
    for drive, of in traffic[:4]:
        parked = [
            footprint(item.T_w_o, rectangle(LENGTH_M, WIDTH_M))
            for piece in range(-1, int(drive.arc_length(20.0) / PIECE_M) + 2)
            for item in of._planner.plan(piece)
            if item.kind == "car"
        ]
        for time_s in np.arange(0, 20, 0.5):
            for car in traffic_at(of, drive, time_s):
                assert car is None or not any(touch(car, other) for other in parked)


def test_a_car_that_left_the_street_is_gone(drive):
    of = World(drive, 4, 2)
    for car in of._traffic:
        s = np.array([drive.street.start_m - 50, drive.street.end_m + 50])
        gone = world.MovingCar(car.body, car.left_m, car.direction, np.array([0.0, 1.0]), s)
        assert gone.at(drive.street, 0.0) is None and gone.at(drive.street, 1.0) is None
        assert gone.at(drive.street, 0.5) is not None


@pytest.mark.parametrize("seed", range(10))
def test_the_sun_shines_from_the_side(seed):
    drive = make_trajectory(seed, 2.0)
    light = World(drive, seed, 0)._light
    assert np.linalg.norm(light.sun_w) == pytest.approx(1)
    assert 35 < np.rad2deg(np.arcsin(light.sun_w[2])) < 53
    heading = float(drive.street.heading(0.0))
    across = -np.sin(heading) * light.sun_w[0] + np.cos(heading) * light.sun_w[1]
    assert abs(across) > 0.3


def test_a_wall_at_the_edge_of_a_piece_has_its_shadow_on_the_next(drive):
    """The ground of a piece is painted with the shadows of its neighbours."""
    of = World(drive, 4, 0)
    with_all = of._paint_ground(2, 2 * PIECE_M)
    plan = of._planner.plan
    of._planner.plan = lambda piece: plan(piece) if piece == 2 else []
    alone = of._paint_ground(2, 2 * PIECE_M)
    assert (with_all <= alone + 1e-6).all()
    darker = (alone - with_all).max(-1) > 0.02
    columns = np.flatnonzero(darker.any(0))
    assert len(columns) and (columns[0] < 64 or columns[-1] >= darker.shape[1] - 64)


def test_a_subdivided_polygon_has_its_corners_and_points_every_metre_or_two():
    corners = np.array([(0.0, 0.0), (7.5, 0.0), (7.5, 0.4), (0.0, 4.0)])
    found = world._subdivided(corners)
    for corner in corners:
        assert np.linalg.norm(found - corner, axis=1).min() < 1e-12
    sides = np.linalg.norm(np.roll(found, -1, 0) - found, axis=1)
    assert sides.max() < 2
    assert_allclose(sides.sum(), np.linalg.norm(np.roll(corners, -1, 0) - corners, axis=1).sum())
