"""Trajectories in files: what is read is what was written, by this program and by others."""

from __future__ import annotations

import numpy as np
import pykitti
import pytest
import torch
from evo.tools import file_interface
from numpy.testing import assert_allclose, assert_array_equal

from datasets.text import DataError
from evaluation.trajectory_files import read_kitti, read_tum, write_kitti, write_tum
from liegroups import se3


def poses(count=20):
    twists = torch.cat([30 * torch.randn(count, 3), 2 * torch.randn(count, 3)], 1).double()
    return se3.exp(twists).numpy()


STAMPS_S = 0.1 * np.arange(20) + 1e-3


def test_kitti_reads_what_was_written(tmp_path):
    T, path = poses(), tmp_path / "09.txt"
    write_kitti(path, T)
    assert_allclose(read_kitti(path), T, atol=1e-10, rtol=0)
    assert_allclose(file_interface.read_kitti_poses_file(path).poses_se3, T, atol=1e-10, rtol=0)


def test_pykitti_reads_what_was_written(tmp_path):
    T = poses()
    for name in ("poses", "sequences/09"):
        (tmp_path / name).mkdir(parents=True)
    write_kitti(tmp_path / "poses" / "09.txt", T)
    (tmp_path / "sequences" / "09" / "times.txt").write_text("0.0\n" * len(T))
    calibration = "".join(
        f"{key}: 1 0 0 0 0 1 0 0 0 0 1 0\n" for key in ("P0", "P1", "P2", "P3", "Tr")
    )
    (tmp_path / "sequences" / "09" / "calib.txt").write_text(calibration)
    assert_allclose(pykitti.odometry(str(tmp_path), "09").poses, T, atol=1e-10, rtol=0)


def test_tum_reads_what_was_written(tmp_path):
    T, path = poses(), tmp_path / "09.txt"
    write_tum(path, STAMPS_S, T)
    stamps_s, found = read_tum(path)
    assert_allclose(stamps_s, STAMPS_S, atol=1e-9, rtol=0)
    assert_allclose(found, T, atol=1e-12)
    theirs = file_interface.read_tum_trajectory_file(path)
    assert_allclose(theirs.timestamps, STAMPS_S, atol=1e-9, rtol=0)
    assert_allclose(theirs.poses_se3, T, atol=1e-9)


def test_files_of_others_are_read(tmp_path):
    T, path = poses(), tmp_path / "other.txt"
    trajectory = file_interface.PoseTrajectory3D(poses_se3=list(T), timestamps=STAMPS_S)
    file_interface.write_tum_trajectory_file(path, trajectory)
    assert_allclose(read_tum(path)[1], T, atol=1e-9)
    path.write_text("# time x y z qx qy qz qw\n\n" + path.read_text())
    assert_allclose(read_tum(path)[0], STAMPS_S)
    file_interface.write_kitti_poses_file(path, trajectory)
    assert_allclose(read_kitti(path), T, atol=1e-6)


def test_a_rounded_rotation_can_be_written_as_a_quaternion(tmp_path):
    T = poses().round(6)
    write_tum(tmp_path / "t.txt", STAMPS_S, T)
    assert_allclose(read_tum(tmp_path / "t.txt")[1], T, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no poses in it"),
        ("1 0 0 0 0 1 0 0 0 0 1 0\n1 2 3\n", "line 2: expected 12 numbers, got 3"),
        ("1 0 0 0 0 1 0 0 0 0 1 nan\n", "line 1: number 12 is 'nan'"),
        ("1 0 0 0 0 1 0 0 0 0 2 0\n", "line 1: its 3x3 part is not a rotation"),
        ("1 0 0 0 0 1 0 0 0 0 -1 0\n", "line 1: its 3x3 part is not a rotation"),
    ],
)
def test_a_broken_file_of_kitti_is_named(text, message, tmp_path):
    path = tmp_path / "poses.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_kitti(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", "no poses in it"),
        ("0 0 0 0 0 0 0 1\n0.1 0 0 0 0 0 1\n", "line 2: expected 8 numbers, got 7"),
        ("0 0 0 0 0 0 x 1\n", r"line 1: number 7 \(qz\) is 'x'"),
        ("0 0 0 0 0 0 0 0\n", "line 1: its quaternion is zero"),
    ],
)
def test_a_broken_file_of_tum_is_named(text, message, tmp_path):
    (tmp_path / "poses.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_tum(tmp_path / "poses.txt")


def test_a_missing_file_is_named_and_inputs_are_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.txt: no such file"):
        read_kitti(tmp_path / "none.txt")
    T = poses()
    before = T.copy()
    write_kitti(tmp_path / "a.txt", T)
    write_tum(tmp_path / "b.txt", STAMPS_S, T)
    assert_array_equal(T, before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]
