"""Each tree that KITTI comes in gives the same samples of the same drive."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pykitti
import pytest
import torch

from datasets.kitti import KittiDataset
from datasets.layouts import LEFT, RIGHT, MissingError, list_files, locate
from datasets.selection import BEYOND, NO_DEPTH, NO_PUBLIC_IMU
from datasets.splits import ODOMETRY, RawRun
from datasets.text import DataError
from tests.image_tree import (
    DRIVES,
    SINGLE,
    SIZE,
    make_image_tree,
    options_of,
    picture,
    write_improved_depth,
    write_list,
    write_sequence,
    write_single_images,
)
from tests.kitti_tree import DATE, edit_line

RAW = ODOMETRY["04"].drive
SHIFT, FRAMES = 2, 7  # sequence 04 is cut out of a raw drive of 11 frames here


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A raw drive that sequence 04 is cut out of, and the list of a split of that sequence."""
    monkeypatch.setitem(ODOMETRY, "04", RawRun(RAW, SHIFT, SHIFT + FRAMES - 1))
    (tree,) = make_image_tree(tmp_path, drives=[RAW], frames=11)
    lines = [f"04 {i} {side}" for i in range(FRAMES) for side in "lr"]
    write_list(tmp_path / "splits" / "train_files.txt", lines)
    return tree


def odometry(tree, **changes):
    return KittiDataset(options_of(tree.root, dataset="kitti_odom", **changes), "train")


def frames_of(dataset):
    """Return the samples by frame and camera of the lines that they are from."""
    lines = dataset.selection.file.read_text().splitlines()
    keys = [(int(line.split()[1]), line.split()[2]) for line in lines]
    kept = np.flatnonzero(dataset.selection.kept).tolist()
    return {keys[place]: dataset[i] for i, place in enumerate(kept)}


def test_a_sequence_reads_alike_from_its_own_files_and_from_its_raw_drive(tree):
    asked = {"use_stereo": True, "use_depth": True}
    from_raw = odometry(tree, **asked)
    write_sequence(tree, "04", range(SHIFT, SHIFT + FRAMES))
    from_files = odometry(tree, **asked)
    # The raw drive has the neighbours of the first and the last frame too.
    assert len(from_raw) == 2 * FRAMES and from_raw.selection.left_out == {}
    assert len(from_files) == 2 * (FRAMES - 2) and from_files.selection.left_out == {BEYOND: 4}
    raw = frames_of(from_raw)
    for key, sample in frames_of(from_files).items():
        other = raw[key]
        for frame, image in sample.image.items():
            assert torch.equal(image, other.image[frame])
        for k, interval in sample.imu.items():
            for own, expected in zip(interval, other.imu[k], strict=True):
                assert torch.equal(own, expected)
        torch.testing.assert_close(sample.K, other.K)
        torch.testing.assert_close(sample.T_source_c0, other.T_source_c0)
        assert (sample.depth[0] > 0).sum() > 100
        torch.testing.assert_close(sample.depth, other.depth)


@pytest.mark.parametrize("own_files", [False, True])
def test_a_sequence_has_the_images_and_the_imu_of_its_run_of_the_raw_drive(tree, own_files):
    if own_files:
        write_sequence(tree, "04", range(SHIFT, SHIFT + FRAMES))
    lines = (tree.sync / "matched_oxts" / "matched_oxts.txt").read_text().splitlines()
    for (frame, side), sample in frames_of(odometry(tree)).items():
        raw_frame, camera = frame + SHIFT, LEFT if side == "l" else RIGHT
        for k in (-1, 0):
            packets = [text.split() for text in lines[raw_frame + k].split(" | ")]
            gyro = np.array([packet[17:20] for packet in packets], np.float32)
            np.testing.assert_array_equal(sample.imu[k].gyro[: len(packets)], gyro)
        image = picture(10 * raw_frame + camera)[..., ::-1].astype(np.float32)
        expected = cv2.resize(image, (8, 4), interpolation=cv2.INTER_AREA)
        seen = sample.image[0].permute(1, 2, 0).numpy().astype(np.float32)
        assert np.abs(cv2.resize(seen, (8, 4), interpolation=cv2.INTER_AREA) - expected).max() < 10


def test_an_interval_without_imu_is_one_of_the_raw_drive(tree):
    edit_line(tree.sync / "matched_oxts" / "matched_oxts.txt", SHIFT + 4, "nan")  # from 3 to 4
    assert {frame for frame, _ in frames_of(odometry(tree))} == {*range(FRAMES)} - {3, 4}


def test_a_sequence_has_the_calibration_that_pykitti_reads(tree):
    write_sequence(tree, "04", range(SHIFT, SHIFT + FRAMES))
    (tree.root / "sequences" / "04" / "times.txt").write_text("0.0\n")
    kitti = pykitti.odometry(str(tree.root), "04").calib
    raw = pykitti.raw(str(tree.root), tree.date, RAW[-4:]).calib
    cameras = odometry(tree)._cameras
    for (_, camera), opened in cameras.items():
        mounting = opened.mounting
        np.testing.assert_allclose(mounting.K, getattr(kitti, f"K_cam{camera}"))
        T_c_v = getattr(kitti, f"T_cam{camera}_velo")
        np.testing.assert_allclose(mounting.T_c_v, T_c_v, atol=1e-12)
        np.testing.assert_allclose(mounting.P_px_v, mounting.K @ T_c_v[:3], atol=1e-9)
        np.testing.assert_allclose(mounting.T_c_b, getattr(raw, f"T_cam{camera}_imu"), atol=1e-6)


def test_sequences_need_no_raw_drive_without_imu(tree):
    sequence = write_sequence(tree, "04", range(SHIFT, SHIFT + FRAMES))
    write_list(tree.root / "splits" / "train_files.txt", ["11 2 l", "11 3 r"])
    sequence.rename(sequence.with_name("11"))
    dataset = odometry(tree, use_imu=False, use_depth=True, use_stereo=True)
    assert len(dataset) == 2 and dataset[0].imu == {}


@pytest.mark.parametrize("own_files", [False, True])
def test_what_has_no_public_imu_is_counted(tree, own_files):
    lines = ["04 2 l", "03 2 l", "03 3 r", "04 3 r"]
    write_list(tree.root / "splits" / "train_files.txt", lines)
    if own_files:
        for number in ("03", "04"):
            write_sequence(tree, number, range(SHIFT, SHIFT + FRAMES))
    dataset = odometry(tree)
    assert dataset.selection.left_out == {NO_PUBLIC_IMU: 2}
    assert [*frames_of(dataset)] == [(2, "l"), (3, "r")]


def test_a_sequence_without_its_imu_on_disk_is_an_error(tree):
    write_sequence(tree, "04", range(SHIFT, SHIFT + FRAMES))
    (tree.sync / "matched_oxts").rename(tree.sync / "gone")
    with pytest.raises(DataError, match=r"0016_sync/matched_oxts: no such folder") as error:
        odometry(tree)
    assert "match_kitti_imu.py" in str(error.value) and "\n" not in str(error.value)
    assert len(odometry(tree, use_imu=False))


@pytest.mark.parametrize("folder", ["11", "99", "x", "2011_09_26/2011_09_26_drive_0001_sync"])
def test_only_known_sequences_are_cut_from_raw_drives(tmp_path, folder):
    with pytest.raises(DataError, match=r"expected a sequence from 00 to 10, got") as error:
        locate("kitti_odom", tmp_path, folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dataset", ["kitti", "kitti_depth"])
@pytest.mark.parametrize("folder", ["09", "2011_09_26_drive_1", "../x"])
def test_only_drives_are_raw_data(tmp_path, dataset, folder):
    with pytest.raises(DataError, match="expected a drive like"):
        locate(dataset, tmp_path, folder)


@pytest.mark.parametrize("part", [None, "train", "val"])
def test_improved_depth_is_read_in_the_drive_and_where_its_archive_unpacks(tmp_path, part):
    trees = make_image_tree(tmp_path)
    for tree in trees:
        drive = tree.sync if part is None else tmp_path / part / tree.sync.name
        write_improved_depth(drive, range(2, 6))  # KITTI has none of the first frames
    dataset = KittiDataset(options_of(tmp_path, dataset="kitti_depth", use_depth=True), "train")
    assert dataset.selection.left_out == {NO_DEPTH: 4}
    samples = frames_of(dataset)
    assert {frame for frame, _ in samples} == {2, 3, 4}
    for (frame, side), sample in samples.items():
        expected = np.zeros((1, *SIZE[::-1]), np.float32)
        expected[:, 1::2] = 10 * frame + (2 if side == "l" else 3) + 0.5
        np.testing.assert_array_equal(sample.depth[0], expected)


def test_single_images_are_read_with_their_own_intrinsics(tmp_path):
    K = write_single_images(tmp_path / SINGLE, 4)
    write_list(tmp_path / "splits" / "test_files.txt", [f"{SINGLE} {i} l" for i in (2, 0, 3)])
    options = options_of(tmp_path, dataset="kitti_test", frame_ids=(0,), use_imu=False)
    dataset = KittiDataset(options, "test")
    assert len(dataset) == 3
    for i, number in enumerate((2, 0, 3)):
        sample = dataset[i]
        assert [*sample.image] == [0] and (sample.imu, sample.depth) == ({}, {})
        f, half_pixel = K[number][0, 0] * 64 / 124, 0.5 * 64 / 124 - 0.5
        assert sample.K[0, 0].item() == pytest.approx(f)
        assert sample.K[0, 2].item() == pytest.approx(K[number][0, 2] * 64 / 124 + half_pixel)
        red = picture(10 * number)[..., 2].mean()
        assert sample.image[0][0].float().mean().item() == pytest.approx(red, abs=1)


def test_single_images_have_no_ground_truth(tmp_path):
    write_single_images(tmp_path / SINGLE, 2)
    write_list(tmp_path / "splits" / "test_files.txt", [f"{SINGLE} 0 l"])
    asked = {"dataset": "kitti_test", "frame_ids": (0,), "use_imu": False, "use_depth": True}
    with pytest.raises(DataError, match="have no ground-truth depth") as error:
        KittiDataset(options_of(tmp_path, **asked), "test")
    assert "\n" not in str(error.value) and SINGLE in str(error.value)


def test_files_are_listed_by_their_numbers_and_others_passed_over(tmp_path):
    names = ["0000000010.png", "0000000002.png", "0000000003.PNG", "000004.png", "x.png"]
    names += ["0000000005.png.tmp", "0000000007.jpg", "._0000000008.png", "٠٠٠٠٠٠٠٠٠٩.png"]
    for name in names:
        (tmp_path / name).touch()
    png = list_files(tmp_path, 10, (".png", ".jpg"))
    assert (png.extension, png.numbers.tolist()) == (".png", [2, 10])
    jpg = list_files(tmp_path, 10, (".jpg", ".png"))
    assert (jpg.extension, jpg.numbers.tolist()) == (".jpg", [7])
    assert png.path(2) == tmp_path / "0000000002.png"
    assert png.has(np.array([[2, 3], [10, 7]])).tolist() == [[True, False], [True, False]]
    nothing = list_files(tmp_path, 10, (".bin",))
    assert (nothing.extension, nothing.numbers.tolist()) == (".bin", [])
    assert list_files(tmp_path, 6, (".png",)).numbers.tolist() == [4]


def test_files_of_a_raw_drive_lie_where_kitti_puts_them(tmp_path):
    files = locate("kitti", tmp_path, f"{DATE}/{DRIVES[0]}_sync")
    sync = tmp_path / DATE / f"{DRIVES[0]}_sync"
    assert files.images[LEFT] == sync / "image_02" / "data"
    assert files.images[RIGHT] == sync / "image_03" / "data"
    assert (files.scans, files.imu) == (sync / "velodyne_points" / "data", sync)
    assert (files.calibration, files.archive) == (tmp_path / DATE, f"{DRIVES[0]}_sync.zip")


BROUGHT = {
    "images": ("kitti", "image_02/data", f"{RAW}_sync.zip"),
    "day": ("kitti", "calib_imu_to_velo.txt", "2011_09_30_calib.zip"),
    "scans": ("kitti", "velodyne_points", f"{RAW}_sync.zip"),
    "improved depth": ("kitti_depth", "proj_depth", "data_depth_annotated.zip"),
    "matched": ("kitti", "matched_oxts", f"{RAW}_extract.zip"),
    "sequence": ("kitti_odom", "sequences/04/image_2", "data_odometry_color.zip"),
    "its calibration": ("kitti_odom", "sequences/04/calib.txt", "data_odometry_calib.zip"),
    "its scans": ("kitti_odom", "sequences/04/velodyne", "data_odometry_velodyne.zip"),
    "its day": ("kitti_odom", "calib_imu_to_velo.txt", "2011_09_30_calib.zip"),
    "its IMU": ("kitti_odom", "matched_oxts", f"{RAW}_extract.zip"),
}


@pytest.mark.parametrize("dataset, gone, archive", BROUGHT.values(), ids=BROUGHT)
def test_what_is_missing_is_in_the_archive_that_is_named(tmp_path, dataset, gone, archive):
    (tree,) = make_image_tree(tmp_path, drives=[RAW])
    write_improved_depth(tree.sync, range(6))
    folder = f"{tree.date}/{RAW}_sync"
    if dataset == "kitti_odom":
        write_sequence(tree, "04", range(6))
        folder = "04"
    write_list(tmp_path / "splits" / "train_files.txt", [f"{folder} 2 l"])
    asked = options_of(tmp_path, dataset=dataset, use_depth=True)
    assert len(KittiDataset(asked, "train")) == 1
    shutil.rmtree(tree.extract)
    (path,) = [path for path in tmp_path.rglob("*") if str(path).endswith(f"/{gone}")]
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(MissingError) as error:
        KittiDataset(asked, "train")
    assert error.value.archive == archive and f"; {archive} brings it" in str(error.value)


def test_archives_that_do_not_exist_are_not_named(tmp_path):
    alone = locate("kitti_odom", tmp_path, "03")  # whose raw drive is not public
    assert alone.archive == "data_odometry_color.zip"
    assert not (alone.imu_archive or alone.scans_archive or alone.imu)
    single = locate("kitti_test", tmp_path, SINGLE)
    assert single.archive == single.calibration_archive == "data_depth_selection.zip"
    own = locate("kitti", tmp_path, "2011_01_01/2011_01_01_drive_0001_sync")
    archives = own.archive, own.calibration_archive, own.scans_archive, own.depth_archive
    assert archives == ("",) * 4 and own.imu_archive == ""
