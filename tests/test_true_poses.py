"""Where the camera truly was: which file says it, and in which axes."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from datasets.calibration import read_calibration
from datasets.layouts import locate
from datasets.oxts import poses_w_b, read_oxts
from datasets.text import DataError
from evaluation.trajectory_files import read_kitti, write_kitti
from evaluation.true_poses import poses_file, read_truth
from tests.image_tree import make_image_tree, write_sequence
from tests.odometry_drives import DATE, DRIVE, record

FRAMES = 30


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic")
    record(root, FRAMES)
    return root


def truth_of(root, choice="auto", frames=range(FRAMES), count=FRAMES, folder=DRIVE, poses=None):
    files = locate("kitti", root, folder)
    T_c_b = read_calibration(root / DATE)[2].T_c_b
    poses = poses or poses_file(files, root, None)
    return read_truth(choice, files, poses, count, frames, T_c_b)


def relative(T):
    return np.linalg.inv(T[0]) @ T


def test_poses_are_of_camera_0_and_become_those_of_the_left_colour_camera(tree):
    truth = truth_of(tree)
    assert truth.source.endswith("truth/poses.txt") and truth.known.all()
    calibration = read_calibration(tree / DATE)
    T_c2_c0 = calibration[2].T_c_b @ np.linalg.inv(calibration[0].T_c_b)
    T_w_c0 = truth.T_w_c @ T_c2_c0
    path = tree / DATE / f"{DRIVE}_sync" / "truth" / "poses.txt"
    assert_allclose(T_w_c0, read_kitti(path), atol=1e-9)
    assert 0.05 < abs(T_c2_c0[0, 3]) < 0.07  # camera 2 sits six centimetres beside camera 0


def test_gps_and_ins_say_the_same(tree):
    poses, oxts = truth_of(tree), truth_of(tree, "oxts")
    assert "GPS and INS" in oxts.source and oxts.known.all()
    assert np.linalg.norm(relative(oxts.T_w_c)[-1, :3, 3]) > 2
    apart_m = np.linalg.norm((relative(poses.T_w_c) - relative(oxts.T_w_c))[:, :3, 3], axis=1)
    assert apart_m.max() < 0.1  # a packet is within 5 ms of its image


def test_a_part_of_a_drive_is_that_part(tree):
    for choice in ("poses", "oxts"):
        whole, part = truth_of(tree, choice), truth_of(tree, choice, range(3, 9))
        assert len(part.T_w_c) == 6
        assert_allclose(relative(part.T_w_c), relative(whole.T_w_c[3:9]), atol=1e-6)


def test_packets_of_a_sequence_are_those_where_it_begins_in_its_drive(tree):
    files = replace(locate("kitti", tree, DRIVE), imu_shift=7)
    T_c_b = read_calibration(tree / DATE)[2].T_c_b
    truth = read_truth("oxts", files, None, FRAMES - 7, range(2, 9), T_c_b)
    assert truth.known.all()
    whole = truth_of(tree, "oxts").T_w_c
    assert_allclose(relative(truth.T_w_c), relative(whole[9:16]), atol=1e-6)
    assert np.abs(relative(truth.T_w_c) - relative(whole[2:9])).max() > 1e-3
    beyond = read_truth("oxts", files, None, FRAMES, range(20, FRAMES), T_c_b)
    assert beyond.known.tolist() == [True] * 3 + [False] * 7


def test_a_packet_that_is_missing_is_not_known(tree, tmp_path):
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    oxts = root / DATE / f"{DRIVE}_sync" / "oxts"
    (oxts / "data" / "0000000004.txt").unlink()
    truth = truth_of(root, "oxts")
    assert np.flatnonzero(~truth.known).tolist() == [4]
    packets = read_oxts(oxts).packets
    T_w_c = poses_w_b(packets) @ np.linalg.inv(read_calibration(root / DATE)[2].T_c_b)
    assert_allclose(truth.T_w_c[truth.known], T_w_c)
    with pytest.raises(DataError, match="no packet of the images"):
        truth_of(root, "oxts", range(4, 5))


def test_poses_of_another_drive_are_refused(tree):
    with pytest.raises(DataError, match="30 poses, but 2011_01_01_drive_0003 has 15 images"):
        truth_of(tree, count=15)


def test_what_is_asked_for_and_is_not_there_is_said(tree, tmp_path):
    files = locate("kitti", tmp_path, DRIVE)
    poses = poses_file(files, tmp_path, None)
    assert poses is None
    found = read_truth("auto", files, poses, FRAMES, range(FRAMES), None)
    assert isinstance(found, str) and found.startswith("no ")
    with pytest.raises(DataError, match="KITTI has none of raw drives; --truth oxts"):
        read_truth("poses", files, poses, FRAMES, range(FRAMES), None)
    with pytest.raises(DataError, match="09.txt: no such file; --truth oxts"):
        read_truth("poses", files, tmp_path / "09.txt", FRAMES, range(FRAMES), None)
    with pytest.raises(DataError, match="--truth oxts needs the synced raw drive"):
        read_truth("oxts", files, poses, FRAMES, range(FRAMES), None)


def test_a_sequence_has_poses_of_its_own_and_its_own_calibration(tmp_path):
    (tree,) = make_image_tree(tmp_path, drives=["2011_09_30_drive_0016"], frames=6)
    write_sequence(tree, "04", range(6))
    files = locate("kitti_odom", tmp_path, "04")
    poses = poses_file(files, tmp_path, "04")
    T_w_c0 = read_oxts_poses(tree)
    poses.parent.mkdir()
    write_kitti(poses, T_w_c0)
    truth = read_truth("auto", files, poses, 6, range(1, 5), None)
    assert truth.source == str(tmp_path / "poses" / "04.txt") and truth.note == ""
    camera = read_calibration(tmp_path / tree.date)
    T_c2_c0 = camera[2].T_c_v @ np.linalg.inv(camera[0].T_c_v)
    assert_allclose(truth.T_w_c @ T_c2_c0, T_w_c0[1:5], atol=1e-6)
    oxts = read_truth("oxts", files, poses, 6, range(1, 5), camera[2].T_c_b)
    assert len(oxts.T_w_c) == 4 and oxts.note == ""
    (tmp_path / "dataset").mkdir()
    poses.parent.rename(tmp_path / "dataset" / "poses")  # as the archive unpacks
    assert poses_file(files, tmp_path, "04") == tmp_path / "dataset" / "poses" / "04.txt"
    assert_allclose(truth_at(files, tmp_path, camera).T_w_c, truth.T_w_c)
    shutil.rmtree(tmp_path / "dataset")
    instead = truth_at(files, tmp_path, camera)
    assert_allclose(instead.T_w_c, oxts.T_w_c)
    assert instead.note == f"there is no {poses}, so the truth is GPS and INS"


def truth_at(files, root, camera):
    poses = poses_file(files, root, "04")
    return read_truth("auto", files, poses, 6, range(1, 5), camera[2].T_c_b)


def read_oxts_poses(tree):
    packets = read_oxts(tree.sync / "oxts").packets
    return relative(poses_w_b(packets))
