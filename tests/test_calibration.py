"""The calibration files, against pykitti; and what is wrong with a file, by its line."""

from __future__ import annotations

import numpy as np
import pykitti
import pytest
from pykitti.utils import read_calib_file

from datasets.calibration import read_calibration
from datasets.synthetic import rig
from datasets.text import DataError
from tests.kitti_tree import DATE, REAL, edit_line, make_tree, write_calibration

CAMERAS = range(4)


def by_pykitti(folder, tmp_path):
    """Let pykitti read calibration files, for which it wants a drive beside them."""
    make_tree(tmp_path, frames=2)
    for path in folder.glob("calib_*.txt"):
        if folder != tmp_path / DATE:
            (tmp_path / DATE / path.name).write_bytes(path.read_bytes())
    return pykitti.raw(str(tmp_path), DATE, "0001").calib


@pytest.fixture
def folder(tmp_path):
    write_calibration(tmp_path / DATE)
    return tmp_path / DATE


@pytest.fixture(params=["made", "real"])
def any_folder(request, folder):
    if request.param == "real" and not REAL.exists():
        pytest.skip("the real calibration files are not here")
    return REAL if request.param == "real" else folder


def test_every_camera_agrees_with_pykitti(any_folder, tmp_path):
    expected, read = by_pykitti(any_folder, tmp_path), read_calibration(any_folder)
    for camera in CAMERAS:
        np.testing.assert_array_equal(read[camera].K, getattr(expected, f"K_cam{camera}"))
        T_c_v = getattr(expected, f"T_cam{camera}_velo")
        np.testing.assert_allclose(read[camera].T_c_v, T_c_v, atol=1e-15)
        T_c_b = getattr(expected, f"T_cam{camera}_imu")
        np.testing.assert_allclose(read[camera].T_c_b, T_c_b, atol=1e-6)
        assert read[camera].image_size == (1242, 375)


def test_velodyne_points_are_projected_by_the_product_of_the_usual_exports(any_folder):
    cameras = read_calib_file(any_folder / "calib_cam_to_cam.txt")
    velodyne = read_calib_file(any_folder / "calib_velo_to_cam.txt")
    T_rect_cam0, T_cam0_v = np.eye(4), np.eye(4)
    T_rect_cam0[:3, :3] = cameras["R_rect_00"].reshape(3, 3)
    T_cam0_v[:3] = np.column_stack([velodyne["R"].reshape(3, 3), velodyne["T"]])
    for camera in CAMERAS:
        read, P = read_calibration(any_folder)[camera], cameras[f"P_rect_0{camera}"].reshape(3, 4)
        expected = np.dot(np.dot(P, T_rect_cam0), T_cam0_v)
        np.testing.assert_array_equal(read.P_px_v, expected)  # to the last bit
        left_out = np.zeros((3, 4))
        left_out[1:, 3] = P[1:, 3]
        np.testing.assert_allclose(read.P_px_v - read.K @ read.T_c_v[:3], left_out, atol=1e-9)


def test_without_millimetres_along_y_and_z_they_are_where_pykitti_has_them(tmp_path):
    (tmp_path / "made").mkdir()
    read = rig.write_calibration(tmp_path / "made", rig.REAL_SIZE)
    expected = by_pykitti(tmp_path / "made", tmp_path)
    for camera in CAMERAS:
        K, T_c_v = getattr(expected, f"K_cam{camera}"), getattr(expected, f"T_cam{camera}_velo")
        np.testing.assert_allclose(read[camera].P_px_v, K @ T_c_v[:3], atol=1e-9)


def test_the_body_to_camera_motion_is_exact_where_the_files_have_seven_digits(any_folder):
    for camera in read_calibration(any_folder).cameras:
        R = camera.T_c_b[:3, :3]
        np.testing.assert_allclose(R.T @ R, np.eye(3), atol=1e-15)
        written = camera.T_c_v[:3, :3]
        assert 1e-9 < np.abs(written.T @ written - np.eye(3)).max() < 1e-6


def test_stereo_cameras_differ_along_x_alone(folder):
    left, right = read_calibration(folder)[2].T_c_b, read_calibration(folder)[3].T_c_b
    difference = right @ np.linalg.inv(left)
    expected = np.eye(4)
    expected[0, 3] = (-339.5242 - 44.85728) / 721.5377
    np.testing.assert_allclose(difference, expected, atol=1e-12)


def test_normalised_intrinsics_belong_to_an_image_of_one_by_one(folder):
    camera = read_calibration(folder)[2]
    pixel = camera.K @ [1, 2, 10]
    normalised = camera.K_normalised @ [1, 2, 10]
    np.testing.assert_allclose(normalised[:2] * camera.image_size, pixel[:2])


def test_line_ends_of_windows_are_the_same(folder):
    before = read_calibration(folder)[2]
    for path in folder.glob("calib_*.txt"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    np.testing.assert_array_equal(read_calibration(folder)[2].T_c_b, before.T_c_b)


@pytest.mark.parametrize("name", ["cam_to_cam", "velo_to_cam", "imu_to_velo"])
def test_a_missing_file_is_named(folder, name):
    (folder / f"calib_{name}.txt").unlink()
    with pytest.raises(FileNotFoundError, match=f"calib_{name}.txt: no such file"):
        read_calibration(folder)


ONES = " ".join(["1"] * 9)
REFLECTION = "-1 0 0 0 1 0 0 0 1"


@pytest.mark.parametrize(
    "name, line, text, message",
    [
        ("imu_to_velo", 2, "Q: 1", r"imu_to_velo\.txt: no line `R: \.\.\.`$"),
        ("imu_to_velo", 2, "R: 1 2", r"imu_to_velo\.txt, line 2: R: expected 9 numbers, got 2$"),
        ("imu_to_velo", 3, "T: 1 x 2", r"line 3: T: number 2 is 'x', expected a finite number$"),
        ("imu_to_velo", 3, "T: 1 nan 2", r"line 3: T: number 2 is 'nan'"),
        ("velo_to_cam", 2, f"R: {ONES}", r"velo_to_cam\.txt, line 2: R: expected a rotation"),
        ("velo_to_cam", 2, f"R: {REFLECTION}", r"line 2: R: expected a rotation matrix$"),
        ("velo_to_cam", 3, "no colon", r"line 3: expected `key: numbers`$"),
        ("cam_to_cam", 3, "S_rect_00: 0 5", r"line 3: S_rect_00: expected whole numbers above"),
        ("cam_to_cam", 3, "S_rect_00: 1.5 5", r"line 3: S_rect_00: expected whole numbers above"),
        (
            "cam_to_cam",
            5,
            "P_rect_00: 7" + " 0" * 11,
            r"line 5: P_rect_00: expected a focal length",
        ),
        ("cam_to_cam", 5, "P_rect_00:" + " 0" * 12, r"line 5: P_rect_00: expected a focal length"),
    ],
)
def test_a_wrong_line_is_named(folder, name, line, text, message):
    edit_line(folder / f"calib_{name}.txt", line, text)
    with pytest.raises(DataError, match=message):
        read_calibration(folder)
