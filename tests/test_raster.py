"""Casting of rays: against each ray with each surface in float64, and meshes that leave no hole."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

from datasets.synthetic import raster
from datasets.synthetic.raster import NEAREST_M, NOTHING, Rays, camera_rays, cast, scan_rays

K = np.array([[31.7, 0, 24.3], [0, 33.1, 15.9], [0, 0, 1]])
NO_FACETS, NO_BALLS, NO_RADII = np.zeros((0, 4, 3)), np.zeros((0, 3)), np.zeros(0)
SQUARE = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)


def camera(per_pixel: int = 2) -> Rays:
    return camera_rays(K, (51, 32), per_pixel)


def lidar(start_rad: float = -np.pi) -> Rays:
    """Return rays of a LiDAR that sees more up and down than a real one, not symmetrically."""
    elevation = np.deg2rad([-88, -70, -45, -30, -22, -15, -8, -3, -1, 1, 4, 9, 20, 50, 85])
    return scan_rays(elevation, start_rad + np.arange(143) * 2 * np.pi / 143)


SENSORS = {
    "camera": camera(),
    "camera, a ray per pixel": camera(1),
    "lidar": lidar(),
    "lidar from ahead": lidar(0.0),
    "lidar from the left": lidar(1.7),
}
every_sensor = pytest.mark.parametrize("rays", SENSORS.values(), ids=SENSORS.keys())


def directions(rays: Rays) -> np.ndarray:
    """Return all rays (R, C, 3)."""
    return rays.base[:, None] + rays.t[:, None] * np.eye(3)[rays.axis]


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    return Rotation.random(random_state=int(rng.integers(1 << 30))).as_matrix()


def random_facets(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return convex polygons (F, 4, 3) all around, some of them triangles, some very near."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, (count, 4)), 1)
    round_m = rng.uniform(0.1, 4, (count, 1, 2)) * np.stack([np.cos(angle), np.sin(angle)], -1)
    corners = np.einsum(
        "fxy,fny->fnx", np.stack([random_rotation(rng)[:, :2] for _ in range(count)]), round_m
    )
    towards = rng.standard_normal((count, 3))
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    corners += (towards * np.exp(rng.uniform(np.log(0.2), np.log(25), (count, 1))))[:, None]
    triangles = rng.random(count) < 0.4
    corners[triangles, 3] = corners[triangles, 2]
    return corners


def random_balls(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return centres (B, 3) and radii (B,), some of which hold the sensor or cross its axes."""
    centres = rng.standard_normal((count, 3)) * np.exp(rng.uniform(-1, 3, (count, 1)))
    return centres, rng.uniform(0.1, 2, count)


def facet_oracle(ray: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Meet every ray (M, 3) with every facet's two triangles (Moeller and Trumbore, float64).

    Returns:
        (M, F) inverse depth, 0 for none; (M, F) what float32 may miss by; (M, F) bool, whether so
        near to the border that rounding decides
    """
    inverse, doubt = np.zeros((len(ray), len(corners))), np.zeros((len(ray), len(corners)), bool)
    for first, second in ((1, 2), (2, 3)):
        a = corners[:, first] - corners[:, 0]
        b = corners[:, second] - corners[:, 0]
        n = np.cross(a, b)
        facing = (n * corners[:, 0]).sum(1) < 0
        with np.errstate(divide="ignore", invalid="ignore"):
            determinant = -ray @ n.T  # (M, F)
            across = np.cross(corners[:, 0], ray[:, None])  # (M, F, 3)
            u = -(across * b).sum(-1) / determinant
            v = (across * a).sum(-1) / determinant
            depth = -(n * corners[:, 0]).sum(1) / determinant
            least = np.minimum(np.minimum(u, v), 1 - u - v)
            met = facing & (determinant > 0) & (least >= 0) & np.isfinite(depth)
            inverse = np.where(met, 1 / depth, inverse)
        doubt |= facing & (determinant > 0) & (np.abs(least) < 1e-7)
    n = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    plane = np.linalg.norm(n, axis=1) / np.abs((n * corners[:, 0]).sum(1))
    return inverse, 1e-6 * plane * np.linalg.norm(ray, axis=1)[:, None], doubt


def ball_oracle(
    ray: np.ndarray, centres: np.ndarray, radii: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Meet every ray (M, 3) with every ball, by its closest approach; returns as for facets."""
    length = np.linalg.norm(ray, axis=1)[:, None]
    unit = ray / length
    along = unit @ centres.T  # (M, B)
    gap2 = ((centres - along[..., None] * unit[:, None]) ** 2).sum(-1)
    half2 = radii**2 - gap2
    outside = (centres**2).sum(1) > radii**2
    distance = along - np.sqrt(np.maximum(half2, 0))
    met = outside & (half2 > 0) & (along > 0)
    inverse = np.where(met, length / np.where(met, distance, 1), 0)
    doubt = outside & (along > 0) & (np.abs(half2) < 3e-5 * (1 + along**2))
    return inverse, 1e-3 * inverse, doubt


def compare(rays: Rays, corners: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> float:
    """Compare a cast with the oracles; returns the part of the rays that could be compared."""
    hits = cast(rays, corners, centres, radii)
    ray = directions(rays).reshape(-1, 3)
    found = zip(facet_oracle(ray, corners), ball_oracle(ray, centres, radii), strict=True)
    inverse, slack, doubt = (np.concatenate(pair, 1) for pair in found)
    if not rays.turns:
        doubt |= inverse > 1 / NEAREST_M  # a camera may, or may not, see what is so near
    nearest = inverse.argmax(1)
    expected, off = inverse.max(1), np.take_along_axis(slack, nearest[:, None], 1)[:, 0]
    # Doubtful is what matters only: surfaces in front of the one that is met, or as near.
    rival = (inverse > 0) & (inverse > (expected - 2 * off)[:, None] - slack)
    sure = ~doubt.any(1)
    surface = np.where(expected > 0, nearest, NOTHING)
    assert_array_equal(hits.inverse_depth == 0, hits.surface == NOTHING)
    assert (np.abs(hits.inverse_depth.ravel() - expected) <= off + 1e-7)[sure].all()
    alone = sure & (rival.sum(1) <= 1)
    assert_array_equal(hits.surface.ravel()[alone], surface[alone])
    return float(alone.mean())


@every_sensor
@pytest.mark.parametrize("seed", range(4))
def test_facets_are_met_where_each_ray_meets_them(rays, seed):
    corners = random_facets(np.random.default_rng(seed), 60)
    assert compare(rays, corners, NO_BALLS, NO_RADII) > 0.6


@every_sensor
@pytest.mark.parametrize("seed", range(4))
def test_balls_are_met_where_each_ray_meets_them(rays, seed):
    assert compare(rays, NO_FACETS, *random_balls(np.random.default_rng(seed), 40)) > 0.6


@every_sensor
def test_of_facets_and_balls_the_nearest_is_met(rays):
    rng = np.random.default_rng(7)
    corners, balls = random_facets(rng, 40), random_balls(rng, 60)
    assert compare(rays, corners, *balls) > 0.6
    surface = cast(rays, corners, *balls).surface
    assert (surface < 40).any() and (surface >= 40).any()


@every_sensor
@pytest.mark.parametrize("elevation", [-1.5, -1.2, -0.4, 0.3, 1.3, 1.55])
def test_every_way_around_a_ball_is_right(rays, elevation):
    # One ball at a time: above and below the axis of the LiDAR, beside the camera, behind it.
    for azimuth in np.arange(0, 2 * np.pi, 0.7):
        level = np.cos(elevation)
        centre = np.array([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)])
        for distance, radius in ((1.0, 0.9), (3.0, 2.0), (8.0, 1.0), (1.0, 1.1)):
            assert compare(rays, NO_FACETS, distance * centre[None], np.array([radius])) > 0.5


@pytest.mark.parametrize("rays", [lidar(), lidar(1.7)], ids=["lidar", "lidar from the left"])
@pytest.mark.parametrize("height", [-1.7, 1.3])
def test_a_facet_around_the_axis_of_a_lidar_is_met_all_around(rays, height):
    side = 6.0 * (SQUARE if height < 0 else SQUARE[::-1])  # faces the sensor
    corners = np.column_stack([side + 0.3, np.full(4, height)])[None]
    compare(rays, corners, NO_BALLS, NO_RADII)
    met = cast(rays, corners, NO_BALLS, NO_RADII).inverse_depth > 0
    assert met[:, 0 if height < 0 else -1].all()
    assert not met[:, -1 if height < 0 else 0].any()


def test_a_facet_across_the_last_and_the_first_row_is_one():
    for start in (-np.pi, 0.0, 2.5):
        rays = lidar(start)
        wall = np.array([[5, 2, -1], [5, -2, -1], [5, -2, 1], [5, 2, 1]], float)
        R = Rotation.from_rotvec([0, 0, start + 0.02]).as_matrix()
        corners = (wall @ R.T)[None]
        compare(rays, corners, NO_BALLS, NO_RADII)
        rows = np.flatnonzero((cast(rays, corners, NO_BALLS, NO_RADII).surface == 0).any(1))
        assert rows[0] == 0 and rows[-1] == 142 and 10 < len(rows) < 25


def room(rng: np.random.Generator, cells: int, half_m: np.ndarray) -> np.ndarray:
    """Return the inside of a box (F, 4, 3) as a watertight mesh of quads and triangles."""
    parts = []
    for axis in range(3):
        lines = [np.sort(np.concatenate([[-1, 1], rng.uniform(-1, 1, cells)])) for _ in range(2)]
        for side in (-1, 1):
            first, second = np.meshgrid(*lines, indexing="ij")
            grid = np.empty((*first.shape, 3))
            grid[..., axis], grid[..., axis - 2], grid[..., axis - 1] = side, first, second
            quads = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], 2)
            parts.append(quads.reshape(-1, 4, 3)[:, :: -1 if side > 0 else 1])
    quads = np.concatenate(parts) * half_m
    split = rng.random(len(quads)) < 0.5
    triangles = [quads[split][:, k] for k in ([0, 1, 2, 2], [0, 2, 3, 3])]
    return np.concatenate([quads[~split], *triangles])


def room_inverse_depth(ray: np.ndarray, place: np.ndarray, half_m: np.ndarray) -> np.ndarray:
    """Return the inverse depth (...) at which rays (..., 3) from inside a box leave it."""
    return np.where(ray > 0, ray / (half_m - place), -ray / (half_m + place)).max(-1)


@every_sensor
@pytest.mark.parametrize("seed", range(6))
def test_a_room_has_neither_holes_nor_overlaps(rays, seed):
    rng, half_m = np.random.default_rng(seed), np.array([6.0, 4.0, 3.0])
    place, R = rng.uniform(-0.7, 0.7, 3) * half_m, random_rotation(rng)
    corners = (room(rng, 6, half_m) - place) @ R
    hits = cast(rays, corners, NO_BALLS, NO_RADII)
    assert (hits.surface != NOTHING).all()
    expected = room_inverse_depth(directions(rays) @ R.T, place, half_m)
    assert_allclose(hits.inverse_depth, expected, rtol=1e-5, atol=1e-5)
    spans = raster._facet_spans(rays, corners)
    drawn = np.maximum(spans.end - spans.begin, 0).sum()
    assert drawn == rays.shape[0] * rays.shape[1]  # each ray meets one facet, not two


@pytest.mark.parametrize("start", [-np.pi, -3.0, 0.0, 0.3])
@pytest.mark.parametrize("count", [8, 24, 144, 360])
def test_edges_that_lie_exactly_on_rays_leave_no_hole(start, count):
    # Upright walls between the directions of the rows themselves.
    azimuth = start + np.arange(count) * 2 * np.pi / count
    foot = 5 * np.stack([np.cos(azimuth), np.sin(azimuth)], 1)
    low, high = np.insert(foot, 2, -1, 1), np.insert(foot, 2, 1, 1)
    walls = np.stack([low, high, np.roll(high, -1, 0), np.roll(low, -1, 0)], 1)
    rays = scan_rays(np.array([-0.1, 0.0, 0.1]), azimuth)
    assert (cast(rays, walls, NO_BALLS, NO_RADII).surface != NOTHING).all()


@pytest.mark.parametrize("focal", [16.0, 100.0])
@pytest.mark.parametrize("shift", [(0.13, 0.0), (0.0, 0.13)], ids=["rows", "columns"])
def test_edges_that_lie_exactly_on_rays_of_a_camera_leave_no_hole(focal, shift):
    rays = camera_rays(np.array([[focal, 0, 16], [0, focal, 16], [0, 0, 1]]), (32, 32), 2)
    z = 1 + np.random.default_rng(0).random((35, 35))  # a bumpy wall: no two facets alike
    row, column = np.meshgrid(np.arange(-17, 18), np.arange(-17, 18), indexing="ij")
    grid = np.stack([(column + shift[0]) / focal * z, (row + shift[1]) / focal * z, z], -1)
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    corners = [np.stack(k, 2).reshape(-1, 4, 3) for k in ([a, c, b, b], [a, d, c, c])]
    hits = cast(rays, np.concatenate(corners), NO_BALLS, NO_RADII)
    assert (hits.surface != NOTHING).all()


@every_sensor
def test_it_does_not_matter_how_facets_are_drawn(rays, monkeypatch):
    rng = np.random.default_rng(3)
    corners = np.concatenate([random_facets(rng, 80), room(rng, 3, np.full(3, 7.0)) + 0.3])
    balls = random_balls(rng, 5)
    usual = cast(rays, corners, *balls)
    for name, value in [("_SMALL_SAMPLES", 0), ("_SMALL_SAMPLES", 1 << 30), ("_MANY_SAMPLES", 64)]:
        with monkeypatch.context() as patch:
            patch.setattr(raster, name, value)
            if name == "_MANY_SAMPLES":
                patch.setattr(raster, "_SMALL_SAMPLES", 0)
            other = cast(rays, corners, *balls)
        assert_array_equal(other.surface, usual.surface)
        assert_array_equal(other.inverse_depth, usual.inverse_depth)


@every_sensor
def test_the_order_of_surfaces_does_not_matter(rays):
    rng = np.random.default_rng(4)
    corners, (centres, radii) = random_facets(rng, 100), random_balls(rng, 12)
    facets, balls = rng.permutation(100), rng.permutation(12)
    one = cast(rays, corners, centres, radii)
    other = cast(rays, corners[facets], centres[balls], radii[balls])
    assert_array_equal(other.inverse_depth, one.inverse_depth)
    names = np.concatenate([facets, 100 + balls, [NOTHING]])  # the last for NOTHING, -1
    assert_array_equal(names[other.surface], one.surface)


@every_sensor
def test_an_empty_scene_holds_nothing(rays):
    hits = cast(rays, NO_FACETS, NO_BALLS, NO_RADII)
    assert hits.inverse_depth.shape == hits.surface.shape == rays.shape
    assert not hits.inverse_depth.any() and (hits.surface == NOTHING).all()


@every_sensor
def test_what_is_turned_away_or_holds_the_sensor_is_not_seen(rays):
    outward = room(np.random.default_rng(0), 2, np.full(3, 4.0))[:, [0, 2, 1, 1]]
    balls = np.array([[0.1, 0.2, -0.3], [0.0, 0.0, 0.0]])
    assert (cast(rays, outward, balls, np.array([0.5, 1.0])).surface == NOTHING).all()


def test_a_camera_does_not_see_behind_itself():
    wall = np.column_stack([9 * SQUARE[::-1], np.full(4, -2.0)])  # faces the camera, from behind
    assert (cast(camera(), wall[None], np.array([[0, 0, -3.0]]), np.ones(1)).surface == -1).all()


def test_camera_rays_go_through_pixels():
    rays = camera(2)
    assert rays.shape == (64, 102) and not rays.turns
    ray = directions(rays)
    assert_allclose(ray[..., 2], 1)
    pixels = ray @ K.T
    assert_allclose(pixels[::2, ::2, 0], np.tile(np.arange(51), (32, 1)), atol=1e-12)
    assert_allclose(pixels[::2, ::2, 1], np.tile(np.arange(32)[:, None], (1, 51)), atol=1e-12)
    assert_allclose(pixels[1, 1, :2], 0.5)
    assert_allclose(rays.squared_length, (ray**2).sum(-1), rtol=1e-6)


def test_scan_rays_have_their_angles():
    elevation, azimuth = np.array([-0.4, 0.0, 0.1]), -np.pi + np.arange(7) * 2 * np.pi / 7
    rays = scan_rays(elevation, azimuth)
    ray = directions(rays)
    assert rays.shape == (7, 3) and rays.turns
    assert_allclose(np.arctan2(ray[..., 2], np.hypot(ray[..., 0], ray[..., 1])), [elevation] * 7)
    turned = np.arctan2(ray[..., 1], ray[..., 0]) - azimuth[:, None]
    assert_allclose(np.exp(1j * turned), 1, atol=1e-12)
    assert_allclose(rays.squared_length, (ray**2).sum(-1), rtol=1e-6)


@pytest.mark.parametrize("turn", np.arange(-180, 180, 7.5))
def test_a_ball_around_the_axis_of_the_lidar_is_met_wherever_it_leans(turn):
    a = np.deg2rad(turn)
    centre = np.array([[0.8 * np.cos(a), 0.8 * np.sin(a), 0.8]])
    azimuth = -np.pi + np.arange(96) * 2 * np.pi / 96
    rays = scan_rays(np.deg2rad(np.linspace(-20, 60, 64)), azimuth)
    assert compare(rays, NO_FACETS, centre, np.array([1.0])) > 0.5
