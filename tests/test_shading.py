"""Shading: niches against boxes cut in float64, footprints against differences, plain colours."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

from datasets.synthetic import shading
from datasets.synthetic.atlas import LEVELS, Atlas
from datasets.synthetic.raster import Hits, Rays, camera_rays, cast, scan_rays
from datasets.synthetic.scene import (
    NO_BALLS,
    NO_FACETS,
    Balls,
    Facets,
    Light,
    Niches,
    Scene,
    Sky,
    crown,
    facets,
    join,
    quads,
)
from datasets.synthetic.shading import _IN_NICHE, _LASER_RAD, HAZE_M, Surfaces, _in_atlas

K = np.array([[120.0, 0, 60], [0, 120, 40], [0, 0, 1]])
HAZE = np.float32([0.8, 0.85, 0.9])
LIGHT = Light(np.array([0.48, -0.6, 0.64]))
WALL = np.array([[[-8, -6, 0], [8, -6, 0], [8, 6, 0], [-8, 6, 0]]], float)  # seen from above


class Stage:
    """A scene with one texture, before a sky with hills and clouds."""

    def __init__(self, texture: np.ndarray, *, tiles: bool = False) -> None:
        self.atlas = Atlas(1, 1024, 1024)
        page = self.atlas.page(0)
        clouds = np.random.default_rng(0).random((64, 64, 3))
        self.clouds = page.add(clouds, tiles=True)
        self.chart = page.add(texture, tiles=tiles)

    def scene(self, shapes: Facets = NO_FACETS, balls: Balls = NO_BALLS) -> Scene:
        hills = np.array([[0.03, 3.0, 0.2], [0.02, 8.0, 1.0]])
        sky = Sky(self.clouds, HAZE, np.float32([0.3, 0.5, 0.8]), hills)
        return Scene(shapes, balls, self.atlas, LIGHT, sky)


def plain(red: float = 0.6) -> np.ndarray:
    return np.full((64, 64, 3), (red, 0.4, 0.2))


def pose(position_w, rotation: Rotation | None = None) -> np.ndarray:
    T_w_s = np.eye(4)
    T_w_s[:3, :3] = np.eye(3) if rotation is None else rotation.as_matrix()
    T_w_s[:3, 3] = position_w
    return T_w_s


def above(height_m: float, tilt_rad: float = 0.0, aside_m: float = 0.0) -> np.ndarray:
    """Return the pose of a camera that looks down on z = 0."""
    return pose([aside_m, 0, height_m], Rotation.from_rotvec([np.pi - tilt_rad, 0, 0]))


def camera() -> Rays:
    return camera_rays(K, (121, 81), 1)


def lidar() -> Rays:
    return scan_rays(np.deg2rad(np.linspace(-40, 60, 40)), -np.pi + np.arange(90) * np.pi / 45)


def directions(rays: Rays) -> np.ndarray:
    return rays.base[:, None] + rays.t[:, None] * np.eye(3)[rays.axis]


def look(scene: Scene, T_w_s: np.ndarray, rays: Rays) -> tuple[np.ndarray, np.ndarray, Hits]:
    surfaces = Surfaces(scene, T_w_s, rays)
    hits = cast(rays, surfaces.corners, surfaces.centres, scene.balls.radius)
    return *surfaces.shade(hits), hits


# Where in the atlas


@pytest.mark.parametrize(("first", "size"), [(0, 64), (384, 192)])
def test_a_place_lies_in_its_reduction_and_reads_no_neighbour(first, size):
    rng = np.random.default_rng(0)
    texel = np.concatenate([rng.uniform(-500, 500, 5000), [0, size, -1e-4, size - 1e-4, 1e6]])
    for level in range(LEVELS):
        start, side = first + 2 * size - (2 * size >> level), size >> level
        for tiles in (0, 1):
            place = _in_atlas(
                texel.astype(np.float32), np.float32(tiles), size, first,
                np.full(len(texel), 1 << level, np.float32),
            )  # fmt: skip
            assert (place >= start).all() and (place <= start + side - 1).all()


def test_a_place_within_the_texture_is_the_texel_that_lies_there():
    # Texel k reaches from k to k + 1: its centre, k + 1/2, is the whole place k.
    texel = np.linspace(0.5, 63.5, 127, dtype=np.float32)
    for level in range(LEVELS):
        footprint = np.full(127, 1 << level, np.float32)
        expected = np.clip(texel / (1 << level) - 0.5, 0, (64 >> level) - 1)
        place = _in_atlas(texel, 0.0, 64, 100, footprint)
        assert_allclose(place, 100 + 128 - (128 >> level) + expected, atol=1e-4)


def test_tiles_repeat_and_have_no_seam():
    texel = np.random.default_rng(1).uniform(0, 64, 500).astype(np.float32)
    for level in range(LEVELS):
        footprint = np.full(500, 1 << level, np.float32)
        once = _in_atlas(texel, 1.0, 64, 0, footprint)
        for turns in (-3, 1, 7):
            again = _in_atlas(texel + np.float32(64 * turns), 1.0, 64, 0, footprint)
            assert_allclose(again, once, atol=1e-3)
    # From the last texel to the first it is a step of one texel, not more.
    image = np.cos(np.arange(64) * 2 * np.pi / 64)[None, :, None] * 0.4 + np.full((64, 64, 3), 0.5)
    stage = Stage(image, tiles=True)
    steps = np.linspace(-70, 140, 4001, dtype=np.float32)
    columns = _in_atlas(steps, 1.0, 64, stage.chart.column, np.ones(4001, np.float32))
    rows = np.full(4001, stage.chart.row + 3, np.float32)
    found = shading._look_up(stage.atlas, columns, rows)[:, 0]
    largest = np.abs(np.diff(image[0, :, 0])).max()
    assert np.abs(np.diff(found)).max() <= largest + 0.01
    assert_allclose(found, 0.5 + 0.4 * np.cos((steps - 0.5) * 2 * np.pi / 64), atol=0.03)


def test_without_tiles_the_edge_of_a_texture_goes_on():
    texel = np.float32([-100, -1, 0, 0.4, 63.6, 64, 65, 400])
    place = _in_atlas(texel, 0.0, 64, 10, np.ones(8, np.float32))
    assert_array_equal(place, [10, 10, 10, 10, 73, 73, 73, 73])


def test_the_nearest_power_of_two_is_read():
    footprint = np.exp(np.random.default_rng(2).uniform(-4, 6, 3000)).astype(np.float32)
    level = np.clip(np.rint(np.log2(footprint)), 0, LEVELS - 1).astype(int)
    place = _in_atlas(np.zeros(3000, np.float32), 0.0, 128, 0, footprint)
    near = np.abs(np.log2(footprint) % 1 - 0.5) < 1e-3  # as near to one as to the next
    assert_array_equal(place[~near], (256 - (256 >> level))[~near])


def test_look_up_takes_any_number_of_samples():
    stage = Stage(np.random.default_rng(3).random((64, 64, 3)))
    for count in (1, 4095, 4096, 4097, 40_000):
        columns = np.random.default_rng(4).integers(0, 900, count)
        rows = np.random.default_rng(5).integers(0, 900, count)
        found = shading._look_up(stage.atlas, columns.astype(np.float32), rows.astype(np.float32))
        assert_allclose(found, stage.atlas.texels[rows, columns] / 255, atol=1e-6)


# Plain colours


@pytest.mark.parametrize("rays", [camera(), lidar()], ids=["camera", "lidar"])
def test_a_plain_facet_is_its_texture_times_colour_light_and_haze(rays):
    stage = Stage(plain())
    rng = np.random.default_rng(0)
    R = Rotation.from_rotvec(rng.standard_normal(3))
    T_w_o = pose([3, -2, 50], R)
    shapes = quads(WALL, stage.chart, 2.0, (0.9, 1.1, 0.5)).moved(T_w_o)
    sensor = rays.turns  # a LiDAR looks around itself, a camera ahead
    T_o_s = pose([1, 0.5, 7], Rotation.from_rotvec([0.2, 0.1, 0])) if sensor else above(7, 0.3)
    colour, depth, hits = look(stage.scene(shapes), T_w_o @ T_o_s, rays)
    met = hits.surface == 0
    assert met.sum() > 100
    light = LIGHT.on(R.apply([[0, 0, 1]]))[0, 0]
    surface = np.rint(plain()[0, 0] * 255) / 255 * (0.9, 1.1, 0.5) * light
    clear = np.exp(-depth[met] / HAZE_M)[:, None]
    assert_allclose(colour[met], surface * clear + HAZE * (1 - clear), atol=1e-5)
    assert_allclose(depth[met] * hits.inverse_depth[met], 1, atol=1e-5)
    ray = directions(rays)[met] @ T_o_s[:3, :3].T
    assert_allclose(depth[met], -T_o_s[2, 3] / ray[:, 2], rtol=1e-5)
    assert (depth[~met] == 0).all()


def test_haze_takes_its_share_of_what_is_far():
    stage = Stage(plain(0.0))
    far = quads(WALL * 100, stage.chart, 1.0)
    colour, depth, _ = look(stage.scene(far), above(HAZE_M), camera())
    red = colour[40, 60, 0]
    assert depth[40, 60] == pytest.approx(HAZE_M, rel=1e-5)
    assert red == pytest.approx((1 - np.exp(-1)) * HAZE[0], abs=1e-5)


def test_texels_are_where_the_facet_has_them():
    ramp = np.zeros((64, 128, 3))
    ramp[..., 0] = (np.arange(128) + 0.5) / 128
    ramp[..., 1] = ((np.arange(64) + 0.5) / 64)[:, None]
    stage = Stage(ramp)
    shapes = quads(WALL, stage.chart, 4.0)
    for T_w_s in (above(9), above(8, 0.2, 1.0)):
        colour, depth, hits = look(stage.scene(shapes), T_w_s, camera())
        points = directions(camera()) * depth[..., None] @ T_w_s[:3, :3].T + T_w_s[:3, 3]
        met = hits.surface == 0
        u, v = np.einsum("kx,nx->kn", shapes.texels[0, :, :3], points[met])
        u, v = u + shapes.texels[0, 0, 3], v + shapes.texels[0, 1, 3]
        inside = (u > 1) & (u < 63) & (v > 17) & (v < 63)
        clear = np.exp(-depth[met] / HAZE_M)
        light = LIGHT.on(np.array([[0.0, 0, 1]]))[0, 0]
        for found, value, haze in ((0, u / 128, HAZE[0]), (1, v / 64, HAZE[1])):
            expected = value * light * clear + haze * (1 - clear)
            assert_allclose(colour[met][inside, found], expected[inside], atol=0.008)


def test_a_ball_is_lit_by_its_place_in_the_crown():
    stage = Stage(plain(), tiles=True)
    centres = np.array([[0, 0, 0], [4, 0, 0.0]])
    balls = crown(
        centres, np.array([1.0, 1.5]), stage.chart, np.array([[1, 1, 1], [0.5, 0.6, 0.7]])
    )
    colour, depth, hits = look(stage.scene(balls=balls), above(12, 0.0, 2.0), camera())
    points = directions(camera()) * depth[..., None] @ above(12)[:3, :3].T + [2, 0, 12]
    for ball in (0, 1):
        met = hits.surface == ball
        assert met.sum() > 100
        normal = (points[met] - centres[ball]) / balls.radius[ball]
        assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-4)
        outward = points[met] - [2, 0, 0]
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
        light = LIGHT.on(0.65 * outward + 0.35 * normal, soft=True)
        clear = np.exp(-depth[met] / HAZE_M)[:, None]
        surface = np.rint(plain()[0, 0] * 255) / 255 * balls.colour[ball] * light
        assert_allclose(colour[met], surface * clear + HAZE * (1 - clear), atol=1e-4)


def test_a_ball_looks_the_same_whichever_others_there_are():
    stage = Stage(np.random.default_rng(6).random((64, 64, 3)), tiles=True)
    made = [
        crown(np.array([[x, 0.3, 0.1]]), np.ones(1), stage.chart, np.ones((1, 3)))
        for x in (-6.0, 0.0, 3.0)
    ]
    alone, both = made[1], join([made[0], made[1]])
    images = [look(stage.scene(balls=balls), above(9), camera())[0] for balls in (alone, both)]
    ball = look(stage.scene(balls=alone), above(9), camera())[2].surface == 0
    assert ball.sum() > 300
    assert_array_equal(images[0][ball], images[1][ball])
    other = look(stage.scene(balls=made[2]), above(9, 0.0, 3.0), camera())[0]
    assert np.abs(images[0][ball] - other[ball]).mean() > 0.02  # no two are alike


# The sky


def test_the_sky_is_the_same_from_everywhere():
    stage = Stage(plain())
    rotation = Rotation.from_euler("zyx", [0.3, 0.2, -1.4])
    one, other = (
        look(stage.scene(), pose(place, rotation), camera())[0]
        for place in ([0, 0, 0], [900, -70, 5])
    )
    assert_array_equal(one, other)
    assert np.ptp(one, (0, 1)).min() > 0.2  # there is something in it


def test_the_sky_turns_with_the_world_not_with_the_sensor():
    stage, rays = Stage(plain()), lidar()
    one = look(stage.scene(), pose([0, 0, 0]), rays)[0]
    turned = look(
        stage.scene(), pose([0, 0, 0], Rotation.from_rotvec([0, 0, 20 * np.pi / 45])), rays
    )
    close = np.abs(np.roll(turned[0], 20, 0) - one).max(-1) < 0.03
    assert close.mean() > 0.99  # but for roundings at the edges of clouds


def test_the_length_of_a_ray_does_not_change_the_sky():
    surfaces = Surfaces(Stage(plain()).scene(), pose([0, 0, 0]), camera())
    ray = np.random.default_rng(0).standard_normal((3, 500)).astype(np.float32)
    colour = surfaces._sky([*ray])
    for length in (0.25, 4.0):
        close = np.abs(surfaces._sky([*(length * ray)]) - colour).max(1) < 0.02
        assert close.mean() > 0.99


def test_nothing_has_no_depth():
    stage = Stage(plain())
    colour, depth, _ = look(stage.scene(), above(5), camera())
    assert not depth.any() and np.isfinite(colour).all()


# Footprints


def texel_oracle(shapes: Facets, T_w_s: np.ndarray, ray: np.ndarray) -> np.ndarray:
    """Return column and row (M, 2) where rays (M, 3) of a sensor meet the plane of facet 0."""
    ray_w, corner = ray @ T_w_s[:3, :3].T, shapes.corners_w[0, 0]
    n = np.cross(shapes.corners_w[0, 1] - corner, shapes.corners_w[0, 2] - corner)
    depth = ((corner - T_w_s[:3, 3]) @ n) / (ray_w @ n)
    point = T_w_s[:3, 3] + depth[:, None] * ray_w
    return point @ shapes.texels[0, :, :3].T + shapes.texels[0, :, 3]


@pytest.mark.parametrize("tilt", [0.0, 0.5, 1.2])
def test_footprints_are_how_far_texels_are_apart(tilt, monkeypatch):
    rays, found = camera(), {}
    footprint = Surfaces._footprint
    monkeypatch.setattr(shading, "_BLOCK", 1 << 30)
    monkeypatch.setattr(
        Surfaces,
        "_footprint",
        lambda self, it, along, *rest: found.setdefault(along, footprint(self, it, along, *rest)),
    )
    stage = Stage(plain())
    turn = pose([0, 0, 0], Rotation.from_rotvec([0, 0, 0.4]))
    shapes = quads(WALL * 20, stage.chart, 7.0).moved(turn)
    T_w_s = above(6, tilt) @ pose([0, 0, 0], Rotation.from_rotvec([0, 0.3, 0.2]))
    hits = look(stage.scene(shapes), T_w_s, rays)[2]
    ray = directions(rays)[hits.surface == 0]
    h, step = 1e-4, 1 / 120
    rates = [
        np.abs(
            texel_oracle(shapes, T_w_s, ray + h * axis)
            - texel_oracle(shapes, T_w_s, ray - h * axis)
        )
        / (2 * h)
        for axis in np.eye(3)[:2]
    ]
    expected = np.maximum(*rates) * step
    assert_allclose(found["u"], expected[:, 0], rtol=2e-3)
    assert_allclose(found["v"], expected[:, 1], rtol=2e-3)


def test_a_beam_of_the_lidar_widens_with_distance(monkeypatch):
    found, footprint = {}, Surfaces._footprint
    monkeypatch.setattr(shading, "_BLOCK", 1 << 30)
    monkeypatch.setattr(
        Surfaces,
        "_footprint",
        lambda self, it, along, *rest: found.setdefault(along, footprint(self, it, along, *rest)),
    )
    stage = Stage(plain())
    shapes = quads(WALL, stage.chart, 10.0)
    _, depth, hits = look(stage.scene(shapes), pose([0, 0, 3]), lidar())
    expected = 10.0 * _LASER_RAD * depth[hits.surface == 0]
    assert_allclose(found["u"], expected, rtol=1e-4)
    assert_allclose(found["v"], expected, rtol=1e-4)


def test_what_is_far_takes_the_mean_of_its_texture():
    checks = np.indices((64, 64)).sum(0)[..., None] % 2 * np.ones(3)
    stage = Stage(checks, tiles=True)
    colour, _, hits = look(stage.scene(quads(WALL * 50, stage.chart, 32.0)), above(60), camera())
    assert (hits.surface == 0).all()
    assert np.ptp(colour[..., 0]) < 0.02


# Niches

NICHES = Niches((20.0, 12.0), (40.0, 48.0), (3, 2), (6.0, 10.0, 30.0, 44.0), 0.4)
TEXELS_PER_M = 16.0
WALL_TEXELS = np.array([[[0, 192], [256, 192], [256, 0]]])


def niche_oracle(point: np.ndarray, ray: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follow rays (M, 3) that meet the wall z = 0 at points (M, 3), in float64.

    The wall's texture has its columns along x from -8 m and its rows against y from 6 m on.

    Returns:
        (M,) how much further they go, in lengths of the ray; (M,) whether they end at a side; (M,)
        whether so near to an edge that rounding decides
    """
    further, side = np.zeros(len(point)), np.zeros(len(point), bool)
    doubt = np.zeros(len(point), bool)
    left, top, right, bottom = NICHES.box
    for i in range(NICHES.count[0]):
        for j in range(NICHES.count[1]):
            u, v = NICHES.first[0] + i * NICHES.pitch[0], NICHES.first[1] + j * NICHES.pitch[1]
            x = -8 + (u + np.array([left, right])) / TEXELS_PER_M
            y = 6 - (v + np.array([bottom, top])) / TEXELS_PER_M
            edges = np.stack(
                [point[:, 0] - x[0], x[1] - point[:, 0], point[:, 1] - y[0], y[1] - point[:, 1]]
            )
            doubt |= np.abs(edges.min(0)) < 1e-4
            inside = edges.min(0) > 0
            with np.errstate(divide="ignore"):
                to_x = np.abs(np.where(ray[:, 0] > 0, *(x[::-1, None] - point[:, 0])) / ray[:, 0])
                to_y = np.abs(np.where(ray[:, 1] > 0, *(y[::-1, None] - point[:, 1])) / ray[:, 1])
            to_side, to_back = np.minimum(to_x, to_y), -NICHES.depth_m / ray[:, 2]
            doubt |= inside & (np.abs(to_side / to_back - 1) < 1e-3)
            further = np.where(inside, np.minimum(to_side, to_back), further)
            side |= inside & (to_side < to_back)
    return further, side, doubt


@pytest.mark.parametrize("T_w_s", [above(5, 0, -4), above(3, -0.3, -6), above(4, -0.7, -1)])
def test_niches_are_boxes_cut_into_the_wall(T_w_s):
    stage, rays = Stage(plain()), camera()
    shapes = facets(WALL, WALL_TEXELS, stage.chart, niches=NICHES)
    colour, depth, hits = look(stage.scene(shapes), T_w_s, rays)
    met = hits.surface == 0
    ray = directions(rays)[met] @ T_w_s[:3, :3].T
    at_wall = -T_w_s[2, 3] / ray[:, 2]
    further, side, doubt = niche_oracle(T_w_s[:3, 3] + at_wall[:, None] * ray, ray)
    sure = ~doubt
    assert (further[sure] > 0).sum() > 300 and side[sure].sum() > 50
    assert_allclose(depth[met][sure], (at_wall + further)[sure], rtol=2e-5)
    clear = np.exp(-depth[met] / HAZE_M)
    light = LIGHT.on(np.array([[0.0, 0, 1]]))[0, 0] * np.where(side, _IN_NICHE, 1)
    expected = np.rint(0.6 * 255) / 255 * light * clear + HAZE[0] * (1 - clear)
    assert_allclose(colour[met][sure, 0], expected[sure], atol=1e-4)


def test_the_back_of_a_niche_shows_the_texture_that_lies_straight_before_it():
    ramp = np.zeros((192, 256, 3))
    ramp[..., 0] = (np.arange(256) + 0.5) / 256
    ramp[..., 1] = (np.arange(192)[:, None] + 0.5) / 192
    stage, T_w_s = Stage(ramp), above(3, 0.0, -5.0)
    shapes = facets(WALL, WALL_TEXELS, stage.chart, niches=NICHES)
    colour, depth, hits = look(stage.scene(shapes), T_w_s, camera())
    points = directions(camera()) * depth[..., None] @ T_w_s[:3, :3].T + T_w_s[:3, 3]
    back = (hits.surface == 0) & (points[..., 2] < -0.4 + 1e-3)
    assert back.sum() > 300
    light = LIGHT.on(np.array([[0.0, 0, 1]]))[0, 0]
    clear = np.exp(-depth[back] / HAZE_M)
    across = (points[back][:, 0] + 8) / 16, (6 - points[back][:, 1]) / 12
    for channel, part in enumerate(across):
        expected = part * light * clear + HAZE[channel] * (1 - clear)
        assert_allclose(colour[back][:, channel], expected, atol=0.01)


def test_niches_too_small_to_be_seen_are_painted_on_the_wall():
    stage = Stage(plain())
    shapes = facets(WALL, WALL_TEXELS, stage.chart, niches=NICHES)
    for height, deep in ((7.0, 0.4), (60.0, 0.0)):
        _, depth, hits = look(stage.scene(shapes), above(height), camera())
        assert depth[hits.surface == 0].max() - height == pytest.approx(deep, abs=1e-4)
    heights, deepest = np.linspace(10, 60, 60), []
    for height in heights:
        depth = look(stage.scene(shapes), above(height), camera())[1]
        deepest.append(depth.max() - height)
    assert (np.diff(deepest) <= 1e-4).all()  # they fade, and nothing jumps
    assert np.abs(np.diff(deepest)).max() < 0.06


def test_looking_along_a_wall_gives_numbers():
    stage = Stage(np.random.default_rng(8).random((64, 64, 3)), tiles=True)
    shapes = facets(WALL, WALL_TEXELS, stage.chart, niches=NICHES)
    for height in (0.5, 1e-2, 1e-4, 1e-7, 0.0, -1.0):
        for rays in (camera(), lidar()):
            for tilt in (np.pi / 2, np.pi / 2 - 1e-3):
                T_w_s = above(height, tilt) if not rays.turns else pose([0, 0, height])
                colour, depth, _ = look(stage.scene(shapes), T_w_s, rays)
                assert np.isfinite(colour).all() and np.isfinite(depth).all()
                assert (depth >= 0).all() and (colour >= 0).all()


def test_blocks_do_not_matter(monkeypatch):
    stage = Stage(np.random.default_rng(9).random((64, 64, 3)), tiles=True)
    balls = crown(np.array([[1.0, 0, 1]]), np.ones(1), stage.chart, np.ones((1, 3)))
    shapes = quads(WALL / 4, stage.chart, 20.0)
    usual = look(stage.scene(shapes, balls), above(5), camera())
    monkeypatch.setattr(shading, "_BLOCK", 1 << 30)
    other = look(stage.scene(shapes, balls), above(5), camera())
    assert_array_equal(usual[0], other[0])
    assert_array_equal(usual[1], other[1])
