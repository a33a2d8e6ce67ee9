"""Points that pixels show: they project to their pixels, and files say what they were given."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.testing import assert_allclose

from datasets.calibration import read_calibration
from datasets.synthetic.rig import write_calibration
from datasets.text import DataError
from evaluation.point_cloud import Pinhole, backproject, read_pinhole, write_ply
from tests.media_files import read_ply

K = Pinhole.of(80, 90, 15.5, 11).K


def test_points_project_to_their_pixels_and_have_their_depths():
    depth = np.random.default_rng(0).uniform(1, 50, (24, 32)).astype(np.float32)
    points, kept = backproject(depth, K, np.inf)
    assert kept.all() and points.shape == (24 * 32, 3) and points.dtype == np.float32
    assert_allclose(points[:, 2], depth.ravel(), rtol=1e-6)
    projected = points.astype(np.float64) @ K.T
    u, v = (projected[:, :2] / projected[:, 2:]).T.reshape(2, 24, 32)
    assert_allclose(u, np.arange(32) * np.ones((24, 1)), atol=1e-4)
    assert_allclose(v, np.arange(24)[:, None] * np.ones(32), atol=1e-4)


def test_the_axes_are_the_cameras():
    depth = np.zeros((24, 32), np.float32)
    depth[0, 31] = depth[23, 0] = 10
    upper_right, lower_left = backproject(depth, K, 80)[0]
    assert upper_right[0] > 0 and upper_right[1] < 0  # x is right, y is down
    assert lower_left[0] < 0 and lower_left[1] > 0


def test_what_is_unknown_or_too_far_is_left_out():
    depth = np.array([[1, 0, np.nan, np.inf], [80, 80.1, -3, 5]], np.float32)
    points, kept = backproject(depth, K, 80)
    assert np.array_equal(kept, [[True, False, False, False], [True, False, False, True]])
    assert_allclose(points[:, 2], [1, 80, 5])
    points, kept = backproject(depth, K, np.inf)
    assert_allclose(points[:, 2], [1, 80, 80.1, 5], rtol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_a_file_says_what_it_was_given(count, tmp_path):
    generator = np.random.default_rng(0)
    points = generator.normal(size=(count, 3)).astype(np.float32)
    colours = generator.integers(0, 256, (count, 3), np.uint8)
    file = io.BytesIO()
    write_ply(file, points, colours)
    (tmp_path / "a.ply").write_bytes(file.getvalue())
    got_points, got_colours = read_ply(tmp_path / "a.ply")
    assert np.array_equal(got_points, points) and np.array_equal(got_colours, colours)


def test_the_camera_of_a_day_is_its_left_colour_camera(tmp_path):
    write_calibration(tmp_path, (416, 128))
    pinhole, camera = read_pinhole(tmp_path / "calib_cam_to_cam.txt"), read_calibration(tmp_path)[2]
    assert np.array_equal(pinhole.K, camera.K) and pinhole.image_size == (416, 128)


def test_the_camera_of_a_sequence_is_p2(tmp_path):
    path = tmp_path / "calib.txt"
    rows = [f"P{i}: {700 + i} 0 600 {-i} 0 {710 + i} 180 0 0 0 1 0" for i in range(4)]
    path.write_text("\n".join(rows))
    pinhole = read_pinhole(path)
    assert_allclose(pinhole.K, [[702, 0, 600], [0, 712, 180], [0, 0, 1]])
    assert pinhole.image_size is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("R: 1 0 0", "neither a line `P_rect_02: ...`"),
        ("P2: 1 2 3", "line 1: P2: expected 12 numbers, got 3"),
        ("P2: 0 0 0 0 0 0 0 0 0 0 0 0", "line 1: P2: expected a focal length above zero"),
        ("no calibration", "line 1: expected `key: numbers`"),
    ],
)
def test_what_is_no_calibration_is_refused(text, message, tmp_path):
    path = tmp_path / "calib.txt"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        read_pinhole(path)
    assert str(path) in str(error.value) and message in str(error.value)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_pinhole(tmp_path / "gone.txt")
