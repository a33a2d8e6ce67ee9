"""The calibration files: the real figures, read back the same by everyone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from pykitti.utils import read_calib_file

from datasets.calibration import CAMERAS, read_calibration
from datasets.synthetic import rig

SIZES = [rig.REAL_SIZE, (416, 128), (96, 32)]


def rigid(R, t):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = np.reshape(R, (3, 3)), t
    return T


@pytest.fixture(params=SIZES, ids=str)
def size(request):
    return request.param


@pytest.fixture
def folder(tmp_path, size):
    rig.write_calibration(tmp_path, size)
    return tmp_path


def test_what_is_returned_is_what_the_files_say(tmp_path, size):
    returned, read = rig.write_calibration(tmp_path, size), read_calibration(tmp_path)
    for camera in CAMERAS:
        for name in ("K", "T_c_b", "T_c_v"):
            np.testing.assert_array_equal(
                getattr(returned[camera], name), getattr(read[camera], name)
            )
        assert returned[camera].image_size == size


def test_the_figures_are_the_real_ones(folder):
    calibration = read_calibration(folder)
    T_c0_v = rigid(rig.R_RECT, 0) @ rigid(rig.R_CAM0_V, rig.POSITION_CAM0_V)
    T_v_b = rigid(rig.R_V_B, rig.POSITION_V_B)
    for camera, offset in enumerate(rig.OFFSETS_PX_M):
        shift = rigid(np.eye(3), [offset / rig.FOCAL_PX, 0, 0])
        assert_allclose(calibration[camera].T_c_v, shift @ T_c0_v, atol=5e-7)
        assert_allclose(calibration[camera].T_c_b, shift @ T_c0_v @ T_v_b, atol=5e-7)


def test_the_figures_are_those_of_2011_09_26(tmp_path):
    rig.write_calibration(tmp_path, rig.REAL_SIZE)
    files = ("imu_to_velo", "velo_to_cam", "cam_to_cam")
    imu, velo, cameras = (read_calib_file(tmp_path / f"calib_{name}.txt") for name in files)
    rows = {
        (-7.854027e-04, 9.998898e-01, -1.482298e-02): imu["R"][3:6],
        (9.998621e-01, 7.523790e-03, 1.480755e-02): velo["R"][6:],
        (9.999239e-01, 9.837760e-03, -7.445048e-03): cameras["R_rect_00"][:3],
    }
    for real, row in rows.items():
        assert_allclose(row, real, atol=5e-7)  # rounded to 7 digits there
    assert_allclose(imu["T"], [-8.086759e-01, 3.195559e-01, -7.997231e-01])
    assert_allclose(velo["T"], [-4.069766e-03, -7.631618e-02, -2.717806e-01])
    P = np.array([cameras[f"P_rect_0{camera}"].reshape(3, 4) for camera in CAMERAS])
    assert_allclose(P[:, 0, 3], [0, -387.5744, 44.85728, -339.5242])
    assert_allclose(P[2, :, :3], [[721.5377, 0, 609.5593], [0, 721.5377, 172.854], [0, 0, 1]])


def test_all_transforms_are_motions_that_agree_to_the_last_digit(folder):
    calibration = read_calibration(folder)
    T_v_b = np.linalg.inv(calibration[0].T_c_v) @ calibration[0].T_c_b
    for camera in CAMERAS:
        T_c_v, T_c_b = calibration[camera].T_c_v, calibration[camera].T_c_b
        assert_allclose(T_c_v[:3, :3] @ T_c_v[:3, :3].T, np.eye(3), atol=1e-14)
        assert_allclose(T_c_v @ T_v_b, T_c_b, atol=1e-14)


def test_the_field_of_view_does_not_depend_on_the_size(folder, size):
    K = rig.intrinsics(size)
    real = rig.intrinsics(rig.REAL_SIZE)
    assert real[0, 0] == real[1, 1] == rig.FOCAL_PX
    assert_allclose(K / [[size[0]], [size[1]], [1]], real / [[1242], [375], [1]], rtol=1e-14)
    np.testing.assert_array_equal(read_calibration(folder)[2].K, K)


def test_the_cameras_before_rectification_agree_with_those_after(folder):
    file = read_calib_file(folder / "calib_cam_to_cam.txt")
    point_cam0 = np.array([1.0, -2.0, 9.0])
    for camera in CAMERAS:
        P = file[f"P_rect_0{camera}"].reshape(3, 4)
        shift = [P[0, 3] / P[0, 0], 0, 0]
        assert_allclose(P[1:, 3], 0)
        point = file[f"R_0{camera}"].reshape(3, 3) @ point_cam0 + file[f"T_0{camera}"]
        rectified = file[f"R_rect_0{camera}"].reshape(3, 3) @ point
        assert_allclose(rectified, file["R_rect_00"].reshape(3, 3) @ point_cam0 + shift, atol=1e-14)
        assert not file[f"D_0{camera}"].any()


def test_the_files_have_the_keys_of_the_real_ones(folder):
    names = ("S", "K", "D", "R", "T", "S_rect", "R_rect", "P_rect")
    keys = {f"{name}_{camera:02d}" for name in names for camera in CAMERAS}
    expected = {
        "cam_to_cam": keys | {"corner_dist"},
        "velo_to_cam": {"R", "T", "delta_f", "delta_c"},
        "imu_to_velo": {"R", "T"},
    }
    for name, keys in expected.items():
        lines = (folder / f"calib_{name}.txt").read_text().splitlines()
        assert lines[0].startswith("calib_time: ")
        assert {line.split(":")[0] for line in lines[1:]} == keys
