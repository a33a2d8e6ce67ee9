"""Facets and balls: the texture stays on the surface, fronts look outward, light has its laws."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

from datasets.synthetic.atlas import Chart
from datasets.synthetic.scene import (
    NO_NICHES,
    Facets,
    Light,
    Niches,
    Sky,
    box_corners,
    crown,
    facets,
    join,
    quads,
    rectangle,
)

CHART = Chart(10, 20, 128, 64, tiles=True)
NICHES = Niches((1, 2), (3, 4), (5, 6), (0.5, 0.25, 2.5, 3.5), 0.3)


def random_pose(rng: np.random.Generator) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.random(random_state=int(rng.integers(1 << 30))).as_matrix()
    T[:3, 3] = rng.uniform(-20, 20, 3)
    return T


def random_triangles(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return corners (F, 4, 3), the last two alike, and texels (F, 3, 2)."""
    corners = rng.uniform(-5, 5, (count, 3, 3))
    return corners[:, [0, 1, 2, 2]], rng.uniform(-100, 100, (count, 3, 2))


def texels_at(shapes: Facets, points: np.ndarray) -> np.ndarray:
    """Return columns and rows (F, N, 2) at points (F, N, 3) of the facets."""
    return np.einsum("fkx,fnx->fnk", shapes.texels[..., :3], points) + shapes.texels[:, None, :, 3]


def normals(corners: np.ndarray) -> np.ndarray:
    n = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return n / np.linalg.norm(n, axis=1, keepdims=True)


def test_corners_have_the_texels_that_were_asked_for():
    corners, texels = random_triangles(np.random.default_rng(0), 20)
    made = facets(corners, texels, CHART)
    assert_allclose(texels_at(made, corners[:, :3]), texels, atol=1e-8)
    n = normals(corners)
    assert_allclose(np.einsum("fkx,fx->fk", made.texels[..., :3], n), 0, atol=1e-9)


def test_facets_share_what_is_theirs():
    corners, texels = random_triangles(np.random.default_rng(1), 3)
    made = facets(corners, texels, CHART, (0.1, 0.2, 0.3), NICHES)
    assert len(made) == 3 and not made.moving.any()
    assert_array_equal(made.chart, [[10, 20, 128, 64, 1]] * 3)
    assert_array_equal(made.colour, [[0.1, 0.2, 0.3]] * 3)
    assert_array_equal(made.niches, [[1, 2, 3, 4, 5, 6, 0.5, 0.25, 2.5, 3.5, 0.3]] * 3)
    assert_array_equal(facets(corners, texels, CHART).niches, [NO_NICHES] * 3)
    once = Chart(1, 2, 64, 128)
    assert_array_equal(facets(corners, texels, once).chart, [[1, 2, 64, 128, 0]] * 3)
    own = np.arange(9.0).reshape(3, 3)
    assert_array_equal(facets(corners, texels, CHART, own).colour, own)


def test_texels_stay_on_facets_that_move():
    rng = np.random.default_rng(2)
    corners, texels = random_triangles(rng, 10)
    made, T_w_o = facets(corners, texels, CHART, niches=NICHES), random_pose(rng)
    moved = made.moved(T_w_o)
    weights = rng.dirichlet(np.ones(3), (10, 5))  # points of each triangle
    points = weights @ corners[:, :3]
    points_w = points @ T_w_o[:3, :3].T + T_w_o[:3, 3]
    assert_allclose(moved.corners_w, corners @ T_w_o[:3, :3].T + T_w_o[:3, 3], atol=1e-12)
    assert_allclose(texels_at(moved, points_w), texels_at(made, points), atol=1e-8)
    for same in ("chart", "colour", "niches", "moving"):
        assert_array_equal(getattr(moved, same), getattr(made, same))
    again = moved.moved(np.linalg.inv(T_w_o))
    assert_allclose(again.corners_w, made.corners_w, atol=1e-12)
    assert_allclose(again.texels, made.texels, atol=1e-8)
    assert_array_equal(made.corners_w, corners)  # the first are what they were


def test_quads_have_the_lower_left_of_the_texture_in_their_first_corner():
    T = random_pose(np.random.default_rng(3))
    flat = np.array([[[0, 0, 0], [3, 0, 0], [3, 2, 0], [0, 2, 0]]], float)
    corners = flat @ T[:3, :3].T + T[:3, 3]
    made = quads(corners, CHART, 10.0, (0.5, 0.6, 0.7))
    assert_allclose(texels_at(made, corners)[0], [[0, 64], [30, 64], [30, 44], [0, 44]], atol=1e-9)
    assert_array_equal(made.colour, [[0.5, 0.6, 0.7]])
    assert_array_equal(made.corners_w, corners)


@pytest.mark.parametrize("sides", [4, 4.5])
def test_the_faces_of_a_box_look_away_from_its_middle(sides):
    angle = np.arange(4) * 2 * np.pi / sides  # 4.5: no two sides are parallel
    footprint = np.stack([2 + np.cos(angle), 5 + 3 * np.sin(angle)], 1)
    corners = box_corners(footprint, -1.0, 4.0)
    away = corners.mean(1) - np.array([*footprint.mean(0), 1.5])
    assert (np.einsum("fx,fx->f", normals(corners), away) > 0.1).all()
    assert_allclose(normals(corners)[-1], [0, 0, 1], atol=1e-12)
    assert_allclose(normals(corners)[:-1, 2], 0, atol=1e-12)


def test_a_box_stands_between_its_bottom_and_its_top():
    footprint = rectangle(4.0, 2.0, (1.0, -3.0))
    corners = box_corners(footprint, -1.0, 4.0)
    assert corners.shape == (5, 4, 3)
    assert_array_equal(corners[:-1, :2, 2], -1.0)
    assert_array_equal(corners[:-1, 2:, 2], 4.0)
    assert_array_equal(corners[-1], np.column_stack([footprint, np.full(4, 4.0)]))
    assert_array_equal(corners[:-1, 0, :2], footprint)
    assert_array_equal(corners[:-1, 1], np.roll(corners[:-1, 0], -1, 0))  # no gap between them


def test_a_rectangle_goes_round_counter_clockwise():
    x, y = rectangle(4.0, 2.0, (1.0, -3.0)).T
    assert 0.5 * (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() == pytest.approx(8.0)
    assert (x.min(), x.max(), y.min(), y.max()) == (-1, 3, -4, -2)


def test_join_puts_all_behind_each_other():
    rng = np.random.default_rng(4)
    parts = [facets(*random_triangles(rng, n), CHART, rng.random((n, 3))) for n in (2, 1, 3)]
    joined = join(parts)
    assert isinstance(joined, Facets) and len(joined) == 6
    for field in ("corners_w", "texels", "chart", "colour", "niches", "moving"):
        assert_array_equal(
            getattr(joined, field), np.concatenate([getattr(part, field) for part in parts])
        )


def test_a_crown_has_one_heart_and_keeps_it_when_shifted():
    rng = np.random.default_rng(5)
    centre, radius, colour = rng.random((4, 3)), rng.random(4), rng.random((4, 3))
    made = crown(centre, radius, CHART, colour)
    assert_allclose(made.heart_w, [centre.mean(0)] * 4)
    shifted = made.shifted(np.array([1.0, 2.0, 3.0]))
    assert_allclose(shifted.centre_w - centre, [[1, 2, 3]] * 4)
    assert_allclose(shifted.centre_w - shifted.heart_w, made.centre_w - made.heart_w)
    assert_array_equal(shifted.radius, radius)
    twice = join([made, shifted])
    assert len(twice) == 8
    assert_array_equal(twice.heart_w, np.concatenate([made.heart_w, shifted.heart_w]))


def test_light_is_the_sun_by_its_cosine_and_the_sky_by_its_share():
    light = Light(np.array([0.6, 0.0, 0.8]), sun=0.5, sky=0.25)
    normal = np.array([[0.6, 0, 0.8], [0, 0, 1], [0, 1, 0], [-0.6, 0, -0.8], [0.8, 0, -0.6]])
    sun = np.array([1, 0.8, 0, 0, 0]) * 0.5  # nothing from behind
    sky = np.array([0.944, 1, 0.72, 0.496, 0.552]) * 0.25
    assert_allclose(light.on(normal)[:, 0], sun + sky, atol=1e-12)
    soft = np.array([1, 0.86, 0.3, 0, 0.3]) * 0.5
    assert_allclose(light.on(normal, soft=True)[:, 0], soft + sky, atol=1e-12)
    assert light.on(normal.astype(np.float32)).dtype == np.float32


def test_the_sky_is_haze_at_the_horizon_and_blue_above():
    haze, zenith = np.float32([0.8, 0.85, 0.9]), np.float32([0.3, 0.5, 0.8])
    sky = Sky(CHART, haze, zenith, np.zeros((0, 3)))
    rise, azimuth = np.float32([0, 1, 5]), np.float32([0, 1, 2])
    clear = sky.colour(rise, azimuth, np.zeros(3, np.float32))
    assert_allclose(clear, [haze, zenith, zenith], atol=1e-6)
    covered = sky.colour(rise, azimuth, np.ones(3, np.float32))
    assert_allclose(covered, [haze, [0.97] * 3, [0.97] * 3], atol=1e-6)


def test_hills_close_around_the_horizon():
    hills = np.array([[0.02, 3.0, 0.4], [0.01, 7.0, 2.0]])
    bright = np.full(3, 0.8, np.float32)
    sky = Sky(CHART, bright, bright, hills)
    rise = np.linspace(0, 0.1, 200, dtype=np.float32)
    for azimuth in (-np.pi, 0.3, np.pi):
        found = sky.colour(rise, np.full(200, azimuth, np.float32), np.zeros(200, np.float32))
        waves = hills[:, 0] * np.sin(hills[:, 1] * azimuth + hills[:, 2])
        assert_allclose(rise[found[:, 1] < 0.7].max(), 0.03 + waves.sum(), atol=0.004)
        assert_allclose(found[-1], bright, atol=1e-6)
    turns = [np.full(200, a, np.float32) for a in (-np.pi, np.pi)]
    ends = [sky.colour(rise, azimuth, np.zeros(200, np.float32)) for azimuth in turns]
    assert_allclose(*ends, atol=1e-3)
