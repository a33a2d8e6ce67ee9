"""Rendering: depth, colour and pose agree with each other, in plain rooms and in real streets."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

from benchmarks.synthetic import depth_errors, perturbations, photometric_error, visible
from datasets.calibration import Calibration
from datasets.synthetic.atlas import Atlas, Chart
from datasets.synthetic.rendering import LIDAR_RANGE_M, Renderer, View
from datasets.synthetic.rig import REAL_SIZE, intrinsics, write_calibration
from datasets.synthetic.scene import NO_BALLS, Facets, Light, Scene, Sky, facets, join
from datasets.synthetic.sensors import AZIMUTHS_RAD, BEAMS_RAD
from datasets.synthetic.trajectory import Trajectory, make_trajectory
from datasets.synthetic.world import World

HALF_M = np.array([12.0, 9.0, 4.0])  # half the sides of the room
SMALL_K = np.array([[90.0, 0, 57.3], [0, 92.0, 39.6], [0, 0, 1]])


R_LEVEL_CAMERA = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], float)
SIZE = REAL_SIZE
K = intrinsics(SIZE)
FEW = -np.pi + np.arange(300) * 2 * np.pi / 300


def pose(position_w, rotation: np.ndarray | None = None) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = np.eye(3) if rotation is None else rotation
    T[:3, 3] = position_w
    return T


def heading(yaw_rad: float, pitch_rad: float = 0.0) -> np.ndarray:
    """Return R_w_c of a camera that looks that way, level at zero pitch."""
    return Rotation.from_euler("zy", [yaw_rad, pitch_rad]).as_matrix() @ R_LEVEL_CAMERA


class StillWorld:
    """A world that is one scene, with the interface of World that a renderer needs."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def scene(self, time_s: float) -> Scene:
        return self._scene


def smooth_texture(size: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).random((size // 16, size // 16, 3))
    return np.clip(cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)


def still(shapes: Facets, atlas: Atlas) -> Renderer:
    """Return a renderer of facets below a plain sky; it takes the last page of the atlas."""
    clouds = atlas.page(1).add(np.zeros((64, 64, 3)), tiles=True)
    grey = np.full(3, 0.8, np.float32)
    sky = Sky(clouds, grey, grey, np.zeros((0, 3)))
    light = Light(np.array([0, 0, 1.0]), sun=0.0, sky=1.0)
    return Renderer(StillWorld(Scene(shapes, NO_BALLS, atlas, light, sky)))


def room_facets(atlas: Atlas) -> Facets:
    """Return the inside of a box with a texture of its own on every side."""
    page, walls = atlas.page(0), []
    for seed in range(6):
        axis, side = divmod(seed, 2)
        signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        corners = np.insert(signs, axis, 2 * side - 1, axis=1) * HALF_M
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        corners = corners if normal @ corners[0] < 0 else corners[::-1]
        width, height = np.linalg.norm(np.diff(corners[:3], axis=0), axis=1) * 10.0
        texels = np.array([[0, height], [width, height], [width, 0]])
        walls.append(facets(corners[None], texels[None], page.add(smooth_texture(256, seed))))
    return join(walls)


@functools.lru_cache(maxsize=1)
def room() -> Renderer:
    atlas = Atlas(2, 1024, 1600)
    return still(room_facets(atlas), atlas)


def pixel_rays(K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return K^-1 (column, row, 1) for every pixel (H, W, 3)."""
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return np.stack([columns, rows, np.ones_like(rows)], -1) @ np.linalg.inv(K).T


def room_depth(ray_w: np.ndarray, position_w: np.ndarray) -> np.ndarray:
    """Return how many lengths of a ray (..., 3) it is from inside the room to its walls."""
    return 1 / np.where(
        ray_w > 0, ray_w / (HALF_M - position_w), -ray_w / (HALF_M + position_w)
    ).max(-1)


def photometric_errors(
    source: View, target: View, motions: list[np.ndarray], K: np.ndarray
) -> tuple[list[float], float]:
    """Return the mean absolute error for each T_source_target, the first of which is the truth,
    and the part of the pixels that are compared."""
    where = visible(target, source, K, motions[0])
    errors = [photometric_error(source.image, target, K, T, where) for T in motions]
    return errors, float(where.mean())


# A plain room


@pytest.mark.parametrize("size", [(114, 80), (113, 79), (115, 80)])
def test_depth_is_that_of_the_ray_through_the_centre_of_each_pixel(size):
    T_w_c = pose([2.0, -1.0, 0.5], heading(0.7, 0.1))
    view = room().view(SMALL_K, size, T_w_c, 0.0)
    assert view.image.shape == (size[1], size[0], 3) and view.image.dtype == np.float32
    assert view.depth_m.shape == view.moving.shape == (size[1], size[0])
    ray_w = pixel_rays(SMALL_K, size) @ T_w_c[:3, :3].T
    assert_allclose(view.depth_m, room_depth(ray_w, T_w_c[:3, 3]), rtol=1e-5)
    assert not view.moving.any()


@pytest.mark.parametrize("size", [(114, 80), (113, 79)])
def test_colour_is_that_of_the_ray_through_the_centre_of_each_pixel(size):
    # A lens and a reduction that are even leave a ramp where it is.
    atlas, side = Atlas(2, 1024, 1024), 8.0
    ramp = np.zeros((512, 512, 3))
    ramp[..., 0] = (np.arange(512) + 0.5) / 512
    ramp[..., 1] = (np.arange(512)[:, None] + 0.5) / 512
    corners = side * np.array([[-1, 1, 0], [1, 1, 0], [1, -1, 0], [-1, -1, 0.0]]) + [0, 0, 6]
    texels = np.array([[0, 512], [512, 512], [512, 0]])
    shapes = facets(corners[None], texels[None], atlas.page(0).add(ramp))
    view = still(shapes, atlas).view(SMALL_K, size, np.eye(4), 0.0)
    points = pixel_rays(SMALL_K, size) * view.depth_m[..., None]
    clear = np.exp(-view.depth_m / 900)
    light = 0.72 - 0.28  # the sky's, on what faces downwards in this world
    inner = np.s_[4:-4, 4:-4]
    for channel, along in ((0, points[..., 0]), (1, points[..., 1])):
        expected = (0.5 + along / (2 * side)) * light * clear + 0.8 * (1 - clear)
        off = view.image[..., channel][inner] - expected[inner]
        assert np.abs(off).max() < 0.002  # texels are whole numbers
        assert np.abs(off.mean()) < 1e-4  # a twentieth of a pixel


@pytest.mark.parametrize("turn", [0.0, 0.06])
def test_a_room_seen_from_two_poses_agrees_by_depth_and_pose(turn):
    T_w_0 = pose([1.0, -2.0, 0.3], heading(0.5))
    T_w_1 = pose([1.7, -1.5, 0.2], heading(0.5 + turn, 0.02))
    one, other = (room().view(SMALL_K, (114, 80), T, 0.0) for T in (T_w_0, T_w_1))
    T_1_0 = np.linalg.inv(T_w_1) @ T_w_0
    wrong = T_1_0 @ pose([0.1, 0, 0])
    (right, off), compared = photometric_errors(other, one, [T_1_0, wrong], SMALL_K)
    assert compared > 0.5
    assert right < 0.004 and off > 3 * right


def test_disparity_between_two_cameras_is_focal_length_times_baseline_over_depth():
    T_w_c = pose([0.0, 0.0, 0.0], heading(0.0))  # a wall straight ahead, at 12 m
    baseline_m = 4 * 12.0 / SMALL_K[0, 0]  # 4 pixels
    T_w_right = T_w_c @ pose([baseline_m, 0, 0])
    left, right = (room().view(SMALL_K, (114, 80), T, 0.0) for T in (T_w_c, T_w_right))
    inner = np.s_[16:64, 8:-8]  # the wall only
    assert_allclose(left.depth_m[inner], 12, rtol=1e-5)
    assert_allclose(left.image[16:64, 12:-8], right.image[16:64, 8:-12], atol=0.01)
    assert np.abs(left.image[inner] - right.image[inner]).mean() > 0.01


def test_an_image_does_not_alias():
    # A chessboard finer than the pixels is grey, with no waves in it.
    atlas = Atlas(2, 512, 512)
    checks = np.indices((256, 256)).sum(0)[..., None] % 2 * np.ones(3)
    chart = atlas.page(0).add(checks, tiles=True)
    corners = np.array([[[-500, -500, 0], [500, -500, 0], [500, 500, 0], [-500, 500, 0.0]]])
    shapes = facets(corners, np.array([[[0, 30_000], [30_000, 30_000], [30_000, 0]]]), chart)
    view = still(shapes, atlas).view(SMALL_K, (114, 80), pose([0, 0, 4], heading(0.3)), 0.0)
    ground = (view.depth_m > 0) & (view.depth_m < 100)
    clear = np.exp(-view.depth_m[ground] / 900)
    grey = view.image[..., 0][ground]
    assert_allclose(grey, 0.5 * clear + 0.8 * (1 - clear), atol=0.06)


def panels(atlas: Atlas, texture: np.ndarray, left_m: list[float], right_m: list[float]) -> Facets:
    """Return upright panels of one texture, 6 m ahead along x, side by side along -y."""
    high = 5.0
    corners = np.array(
        [
            [[6, -a, -high], [6, -b, -high], [6, -b, high], [6, -a, high]]
            for a, b in zip(left_m, right_m, strict=True)
        ]
    )
    texels = np.tile([[0.0, 64], [64, 64], [64, 0]], (len(corners), 1, 1))
    return facets(corners, texels, atlas.page(0).add(texture))


def test_the_lens_blurs_an_edge_by_most_of_a_pixel_and_leaves_it_where_it_is():
    atlas = Atlas(2, 512, 512)
    shapes = panels(atlas, np.ones((64, 64, 3)), [-9.0, 0.31], [0.31, 9.0])
    shapes.colour[0] = 0
    view = still(shapes, atlas).view(SMALL_K, (114, 80), pose([0, 0, 0], heading(0)), 0.0)
    rise = np.diff(view.image[40, :, 0].astype(float))
    between = np.arange(113) + 0.5
    place = (rise * between).sum() / rise.sum()
    spread = np.sqrt((rise * (between - place) ** 2).sum() / rise.sum())
    assert place == pytest.approx(SMALL_K[0, 2] + 0.31 / 6 * SMALL_K[0, 0], abs=0.26)
    assert 0.65 < spread < 1.0


def test_what_is_brighter_than_white_is_white():
    atlas = Atlas(2, 512, 512)
    shapes = panels(atlas, np.ones((64, 64, 3)), [-9.0], [9.0])
    shapes.colour[:] = 5
    renderer = still(shapes, atlas)
    view = renderer.view(SMALL_K, (114, 80), pose([0, 0, 0], heading(0)), 0.0)
    assert_array_equal(view.image, 1)
    assert_array_equal(renderer.scan(pose([0, 0, 0]), 0.0, BEAMS_RAD, FEW)[:, 3], 1)


def test_the_world_is_asked_for_the_time_of_the_sensor():
    class Asked(StillWorld):
        def scene(self, time_s: float) -> Scene:
            asked.append(time_s)
            return super().scene(time_s)

    asked: list[float] = []
    renderer = Renderer(Asked(room()._world.scene(0.0)))
    renderer.view(SMALL_K, (114, 80), pose([1, 2, 3], heading(0.3)), 4.5)
    renderer.scan(pose([3, 2, 1]), 5.5, BEAMS_RAD, FEW)
    assert asked == [4.5, 5.5]


def test_the_sky_does_not_move():
    atlas = Atlas(2, 512, 512)
    shapes = panels(atlas, np.ones((64, 64, 3)), [-1.0], [1.0])
    shapes.moving[:] = True
    view = still(shapes, atlas).view(SMALL_K, (114, 80), pose([0, 0, 0], heading(0)), 0.0)
    assert_array_equal(view.moving, view.depth_m > 0)
    assert 0 < view.moving.mean() < 0.5


def test_what_moves_is_marked_where_it_is_seen():
    atlas = Atlas(2, 1024, 1600)
    walls = room_facets(atlas)
    corners = np.array([[6, 2, -1], [6, -2, -1], [6, -2, 1.5], [6, 2, 1.5]])
    both = np.stack([corners, corners + [20, 0, 0]])  # the second is behind a wall
    signs = facets(both, np.tile([[0.0, 0], [60, 0], [60, 60]], (2, 1, 1)), Chart(0, 0, 64, 64))
    signs.moving[:] = True
    T_w_c = pose([0, 0, 0], heading(0))
    view = still(join([walls, signs]), atlas).view(SMALL_K, (114, 80), T_w_c, 0.0)
    assert_array_equal(view.moving, np.abs(view.depth_m - 6) < 1e-3)
    assert 500 < view.moving.sum() < 3000


def test_scan_points_lie_on_the_walls_in_the_directions_of_the_beams():
    T_w_v = pose([3.0, 1.0, -1.0], Rotation.from_rotvec([0.05, -0.03, 2.0]).as_matrix())
    scan = room().scan(T_w_v, 0.0, BEAMS_RAD, FEW)
    assert scan.dtype == np.float32 and scan.shape == (64 * len(FEW), 4)
    x, y, z, reflectance = scan.astype(float).T
    points_w = scan[:, :3] @ T_w_v[:3, :3].T + T_w_v[:3, 3]
    assert_allclose((np.abs(points_w) / HALF_M).max(1), 1, atol=1e-5)
    assert_allclose(np.arctan2(z, np.hypot(x, y)), np.tile(BEAMS_RAD, len(FEW)), atol=1e-6)
    turned = np.arctan2(y, x) - np.repeat(FEW, 64)
    assert_allclose(np.exp(1j * turned), 1, atol=1e-6)
    assert ((reflectance >= 0) & (reflectance <= 1)).all() and np.ptp(reflectance) > 0.2


def test_a_scan_ends_at_its_range():
    atlas = Atlas(2, 512, 512)
    corners = np.array([[[-900, -900, 0], [900, -900, 0], [900, 900, 0], [-900, 900, 0.0]]])
    shapes = facets(
        corners,
        np.array([[[0, 900], [900, 900], [900, 0]]]),
        atlas.page(0).add(np.full((64, 64, 3), 0.5)),
    )
    scan = still(shapes, atlas).scan(pose([0, 0, 2.0]), 0.0, BEAMS_RAD, FEW)
    distance = np.linalg.norm(scan[:, :3], axis=1)
    below = BEAMS_RAD < 0
    reached = -2 / np.sin(BEAMS_RAD[below])
    assert distance.max() < LIDAR_RANGE_M == 120.0
    assert len(scan) == (reached < 120).sum() * len(FEW)
    assert_allclose(
        np.unique(np.round(distance, 2)), np.sort(np.round(reached[reached < 120], 2)), atol=0.02
    )


# Real streets


@functools.lru_cache(maxsize=2)
def street(seed: int) -> tuple[Trajectory, Renderer]:
    trajectory = make_trajectory(seed, 12.4)
    return trajectory, Renderer(World(trajectory, seed, 0))


@functools.lru_cache(maxsize=1)
def calibration() -> Calibration:
    with tempfile.TemporaryDirectory() as folder:
        return write_calibration(Path(folder), SIZE)


def camera_pose(trajectory: Trajectory, time_s: float, camera: int = 2) -> np.ndarray:
    T_b_c = np.linalg.inv(calibration()[camera].T_c_b)
    return trajectory.at(np.array([time_s])).T_w_b[0] @ T_b_c


def lidar_pose(trajectory: Trajectory, time_s: float) -> np.ndarray:
    return camera_pose(trajectory, time_s) @ calibration()[2].T_c_v


def test_a_street_agrees_with_itself_by_depth_and_pose():
    ahead, behind, beside = [], [], []  # each (frames, motions)
    for seed, time_s in ((1, 7.0), (1, 8.5), (2, 5.5), (2, 7.0)):
        trajectory, renderer = street(seed)
        T_w_0, T_w_1 = (camera_pose(trajectory, t) for t in (time_s, time_s + 0.1031))
        T_w_r, T_1_0 = camera_pose(trajectory, time_s, 3), np.linalg.inv(T_w_1) @ T_w_0
        T_0_1 = np.linalg.inv(T_1_0)
        assert np.linalg.norm(T_1_0[:3, 3]) > 0.6
        one, other, right = (renderer.view(K, SIZE, T, time_s) for T in (T_w_0, T_w_1, T_w_r))
        T_r_0 = np.linalg.inv(T_w_r) @ T_w_0
        assert T_r_0[0, 3] == pytest.approx(-0.5327, abs=1e-3)
        for errors, source, target, motions in (
            (ahead, other, one, [T_1_0, *perturbations(T_1_0).values()]),
            (behind, one, other, [T_0_1, *perturbations(T_0_1).values()]),
            (beside, right, one, [T_r_0, pose(1.05 * T_r_0[:3, 3])]),
        ):
            found, compared = photometric_errors(source, target, motions, K)
            assert compared > 0.5
            assert found[0] < 0.006
            errors.append(found)
    ratios = [np.mean(errors, 0)[1:] / np.mean(errors, 0)[0] for errors in (ahead, behind, beside)]
    assert ratios[0].min() > 5
    # Seen from further behind the street is less sharp, and a length that is off tells less.
    assert ratios[1][:2].min() > 3.5 and ratios[1][2:].min() > 5
    assert ratios[2].min() > 5


def test_scans_lie_on_the_depth_that_the_camera_sees():
    errors = []
    for seed, time_s in ((1, 6.0), (1, 9.0), (2, 6.0), (2, 9.0)):
        trajectory, renderer = street(seed)
        T_w_c, T_w_v = camera_pose(trajectory, time_s), lidar_pose(trajectory, time_s)
        scan = renderer.scan(T_w_v, time_s, BEAMS_RAD, AZIMUTHS_RAD)
        assert (scan[:, :3] ** 2).sum(1).max() < LIDAR_RANGE_M**2
        assert len(scan) > 100_000 and 0 <= scan[:, 3].min() and scan[:, 3].max() <= 1
        depth = np.round(renderer.view(K, SIZE, T_w_c, time_s).depth_m * 256) / 256
        errors.append(depth_errors(scan[:, :3], np.linalg.inv(T_w_c) @ T_w_v, depth, K))
    errors = np.concatenate(errors)
    assert (errors < 0.03).mean() >= 0.95
    assert np.median(errors) < 0.002


def test_a_view_does_not_depend_on_what_was_seen_before():
    trajectory, renderer = street(1)
    moments = np.arange(0, 12.4, 0.1)
    times_s = np.interp([10.0, 60.0], trajectory.arc_length(moments), moments)
    size, small = (310, 94), K / np.array([[4], [4], [1]])

    def look(renderer: Renderer, time_s: float) -> tuple[bytes, ...]:
        view = renderer.view(small, size, camera_pose(trajectory, time_s), time_s)
        scan = renderer.scan(lidar_pose(trajectory, time_s), time_s, BEAMS_RAD, FEW)
        return *(values.tobytes() for values in view), scan.tobytes()

    first, further = (look(renderer, time_s) for time_s in times_s)
    assert look(renderer, times_s[0]) == first != further
    assert look(Renderer(World(trajectory, 1, 0)), times_s[1]) == further
