"""What is found of one drive, and which archive brings what is not."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from datasets.layouts import address, locate
from datasets.oxts import FIELDS, format_stamp
from datasets.splits import ODOMETRY, PARTS, SPLITS, read_split
from datasets.survey import SurveyJob, survey
from tests.image_tree import (
    SINGLE,
    SIZE,
    make_image_tree,
    options_of,
    picture,
    write_improved_depth,
    write_sequence,
    write_single_images,
)
from tests.kitti_tree import packet_line, packets

DRIVE = "2011_09_30_drive_0016"
SYNC, EXTRACT, DAY = f"{DRIVE}_sync.zip", f"{DRIVE}_extract.zip", "2011_09_30_calib.zip"
FRAMES = 8


@pytest.fixture
def tree(tmp_path):
    (tree,) = make_image_tree(tmp_path, drives=[DRIVE], frames=FRAMES)
    return tree


def found_in(root, folder=DRIVE, cameras=(2, 3), deep=False, **asked):
    asked = {"use_depth": True, "skip_broken": True} | asked
    return survey(SurveyJob(folder, cameras, options_of(root, **asked), deep))


def single(root, deep=False):
    asked = {"dataset": "kitti_test", "frame_ids": (0,), "use_imu": False, "use_depth": False}
    return found_in(root, SINGLE, (2,), deep, **asked)


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_drive_has_all_and_lacks_nothing(tree, deep):
    found = found_in(tree.root, deep=deep)
    assert (found.name, found.group) == (DRIVE, "2011_09_30")
    assert found.images == found.depth == {2: FRAMES, 3: FRAMES}
    assert found.intervals == (FRAMES - 1, FRAMES - 1)
    assert [*found.intrinsics] == [2, 3] and len(found.steps_m) == FRAMES - 1
    assert found.faults == [] and found.archives == set()


def test_what_is_not_asked_for_is_not_looked_at(tree):
    for name in ("image_03/data", "velodyne_points", "matched_oxts"):
        shutil.rmtree(tree.sync / name)
    found = found_in(tree.root, cameras=(2,), use_imu=False, use_depth=False)
    assert found.images == {2: FRAMES} and found.depth == {} and found.intervals is None
    assert found.faults == [] and found.archives == set()


@pytest.mark.parametrize(
    "gone, archives",
    [
        (["image_03/data"], {SYNC}),
        (["velodyne_points"], {SYNC}),
        (["matched_oxts"], set()),
        (["matched_oxts", f"../{DRIVE}_extract"], {EXTRACT}),
        (["matched_oxts", "velodyne_points", f"../{DRIVE}_extract"], {SYNC, EXTRACT}),
        (["../calib_imu_to_velo.txt"], {DAY}),
    ],
    ids=["images", "scans", "matched", "matched and extract", "both", "calibration"],
)
def test_each_part_that_is_missing_is_named_with_its_archive(tree, gone, archives):
    for name in gone:
        path = tree.sync / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = found_in(tree.root)
    assert found.archives == archives
    named = [name.removeprefix("../") for name in gone if "extract" not in name]
    assert len(found.faults) == len(named)  # both cameras lack the scans and the calibration
    for name in named:
        assert sum(name in fault for fault in found.faults) == 1


def test_what_is_there_is_found_beside_what_is_missing(tree):
    shutil.rmtree(tree.sync / "image_03" / "data")
    (tree.sync / "matched_oxts" / "matched_oxts.txt").write_text("nonsense\n")
    found = found_in(tree.root)
    assert found.images == found.depth == {2: FRAMES} and found.intervals is None
    assert len(found.faults) == 2 and len(found.steps_m) == FRAMES - 1


def test_a_drive_without_images_is_one_fault(tree):
    shutil.rmtree(tree.sync)
    found = found_in(tree.root)
    assert found.faults == [f"{tree.sync}: no such folder; {SYNC} brings it"]
    assert found.archives == {SYNC}  # its packets are there, to be matched


def test_only_a_whole_calibration_need_not_be_fetched(tmp_path, tree):
    shutil.rmtree(tree.sync)
    (tree.root / tree.date / "calib_imu_to_velo.txt").unlink()
    assert found_in(tree.root).archives == {SYNC, DAY}
    assert found_in(tmp_path / "empty").archives == {SYNC, DAY, EXTRACT}
    assert found_in(tmp_path / "empty", use_imu=False).archives == {SYNC, DAY}


def test_drives_of_other_days_are_in_no_archive(tmp_path):
    found = found_in(tmp_path, "2011_01_01/2011_01_01_drive_0001_sync")
    (fault,) = found.faults
    assert fault == f"{tmp_path / '2011_01_01'}: no such folder" and found.archives == set()
    (other,) = make_image_tree(tmp_path, drives=["2011_01_01_drive_0001"], frames=4)
    for folder in (other.extract, other.sync / "matched_oxts", other.sync / "velodyne_points"):
        shutil.rmtree(folder)
    found = found_in(tmp_path, other.drive)
    assert len(found.faults) == 2 and found.archives == set()


@pytest.mark.parametrize("folder", ["nonsense", "09"])
def test_a_folder_that_is_no_drive_is_a_fault(tmp_path, folder):
    found = found_in(tmp_path, folder)
    assert found.name == folder and found.images == {} and found.archives == set()
    (fault,) = found.faults
    assert "expected a drive like" in fault


def damage(tree):
    """Break an image, another's size, and a scan; return their paths with what is said of them."""
    cut = tree.sync / "image_02" / "data" / "0000000001.png"
    cut.write_bytes(cut.read_bytes()[:-100])
    wide = tree.sync / "image_03" / "data" / "0000000004.png"
    cv2.imwrite(str(wide), picture(0, (SIZE[0] + 1, SIZE[1])))
    empty = tree.sync / "velodyne_points" / "data" / "0000000003.bin"
    empty.write_bytes(b"")
    return {cut: "cut off", wide: "125x38 pixels, but", empty: "0 bytes"}


def test_files_are_read_only_by_a_deep_look(tree):
    broken = damage(tree)
    assert found_in(tree.root).faults == []
    faults = found_in(tree.root, deep=True).faults
    assert len(faults) == len(broken)
    for path, words in broken.items():
        assert sum(fault.startswith(f"{path}: ") and words in fault for fault in faults) == 1


@pytest.mark.parametrize("count, more", [(3, None), (4, 1), (7, 4)])
def test_many_broken_files_of_a_folder_are_summed_up(tree, count, more):
    folder = tree.sync / "image_02" / "data"
    for i in range(count):
        (folder / f"{i:010d}.png").write_bytes(b"no image")
    faults = found_in(tree.root, cameras=(2,), deep=True).faults
    assert [fault.split(": ")[0] for fault in faults[:3]] == [
        str(folder / f"{i:010d}.png") for i in range(3)
    ]
    assert faults[3:] == ([] if more is None else [f"{folder}: {more} more files are broken"])


def test_improved_depth_is_looked_at_for_each_camera(tree):
    write_improved_depth(tree.sync, range(2, 6))
    found = found_in(tree.root, deep=True, dataset="kitti_depth")
    assert found.depth == {2: 4, 3: 4} and found.faults == []
    path = tree.sync / "proj_depth" / "groundtruth" / "image_02" / "0000000003.png"
    path.write_bytes(path.read_bytes()[:-20])
    (fault,) = found_in(tree.root, deep=True, dataset="kitti_depth").faults
    assert fault.startswith(f"{path}: ")
    shutil.rmtree(tree.sync / "proj_depth")
    assert found_in(tree.root, dataset="kitti_depth").archives == {"data_depth_annotated.zip"}


def test_steps_are_mean_speeds_times_the_time_between_the_images(tree):
    generator = np.random.default_rng(0)
    velocity = generator.uniform(-9, 9, (FRAMES, 3))  # forward, left, up [m/s]
    stamps_ns = np.cumsum(generator.integers(90_000_000, 110_000_000, FRAMES))
    values = packets(np.arange(FRAMES))
    values[:, [FIELDS.index(name) for name in ("vf", "vl", "vu")]] = velocity
    for i, packet in enumerate(values):
        (tree.sync / "oxts" / "data" / f"{i:010d}.txt").write_text(packet_line(packet))
    stamps = "".join(f"{format_stamp(ns)}\n" for ns in stamps_ns.tolist())
    (tree.sync / "oxts" / "timestamps.txt").write_text(stamps)
    speed = [sum(x * x for x in v) ** 0.5 for v in velocity.tolist()]
    expected = [
        (speed[i] + speed[i + 1]) / 2 * (stamps_ns[i + 1] - stamps_ns[i]) * 1e-9
        for i in range(FRAMES - 1)
    ]
    np.testing.assert_allclose(found_in(tree.root).steps_m, expected, rtol=1e-12)


def test_synced_packets_are_missed_by_nobody_but_broken_ones_are_named(tree):
    stamps = tree.sync / "oxts" / "timestamps.txt"
    stamps.write_text("")
    (fault,) = found_in(tree.root).faults
    assert fault.startswith(f"{stamps}: ")
    shutil.rmtree(tree.sync / "oxts")
    found = found_in(tree.root)
    assert found.faults == [] and len(found.steps_m) == 0 and found.intervals is not None


def test_single_images_have_their_intrinsics_in_files(tmp_path):
    write_single_images(tmp_path / SINGLE, 3)
    found = single(tmp_path, deep=True)
    assert (found.name, found.group, found.images) == (SINGLE, SINGLE, {2: 3})
    assert found.intrinsics == {} and found.depth == {} and found.faults == []
    path = tmp_path / SINGLE / "intrinsics" / "0000000001.txt"
    path.write_text("1 2 3\n")
    assert single(tmp_path).faults == []
    (fault,) = single(tmp_path, deep=True).faults
    assert fault.startswith(f"{path}: expected 9 numbers")
    shutil.rmtree(path.parent)
    assert single(tmp_path).archives == {"data_depth_selection.zip"}
    shutil.rmtree(tmp_path / SINGLE)
    assert single(tmp_path).archives == {"data_depth_selection.zip"}


def test_a_sequence_of_its_own_files_has_the_imu_of_its_raw_drive(tree):
    assert ODOMETRY["04"].drive == DRIVE
    sequence = write_sequence(tree, "04", range(FRAMES))
    found = found_in(tree.root, "04", dataset="kitti_odom", deep=True)
    assert (found.name, found.group) == ("sequence 04", "sequence 04")
    assert found.images == {2: FRAMES, 3: FRAMES} and found.faults == []
    assert found.intervals == (FRAMES - 1, FRAMES - 1)
    shutil.rmtree(sequence)
    archives = {"data_odometry_color.zip", "data_odometry_calib.zip"}
    assert found_in(tree.root, "04", dataset="kitti_odom").archives == archives  # matched already
    shutil.rmtree(tree.sync)
    shutil.rmtree(tree.extract)
    assert found_in(tree.root, "04", dataset="kitti_odom").archives == archives | {EXTRACT}
    assert found_in(tree.root, "04", dataset="kitti_odom", use_imu=False).archives == archives


def test_a_sequence_whose_imu_is_not_public_is_nothing_to_fetch(tmp_path):
    found = found_in(tmp_path, "03", dataset="kitti_odom")
    assert found.name == "sequence 03" and found.faults == [] and found.archives == set()


@pytest.mark.parametrize("split", ["eigen_zhou", "eigen_full", "odom"])
def test_every_raw_archive_that_a_split_needs_is_in_the_list(tmp_path, split):
    offered = (SPLITS / "kitti_archives_to_download.txt").read_text().split()
    dataset = "kitti_odom" if split == "odom" else "kitti"
    for part in PARTS:
        for folder in read_split(SPLITS / split / f"{part}_files.txt").folders:
            files = locate(dataset, tmp_path, folder)
            if files.imu is None:
                continue  # sequence 03
            needed = {files.archive, files.calibration_archive}
            needed |= {files.imu_archive} if part != "test" else set()
            assert {address(archive) for archive in needed} <= {*offered}, folder
