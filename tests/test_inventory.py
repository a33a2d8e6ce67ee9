"""What a whole drive lacks is said in one line, or counted; the other drives stay."""

from __future__ import annotations

import re
import shutil

import cv2
import numpy as np
import pytest

from datasets.files import describe
from datasets.inventory import MAX_INTERVAL_S, depth_files, read_imu, take_inventory
from datasets.kitti import KittiDataset
from datasets.layouts import locate
from datasets.matched import Reason
from datasets.selection import BEYOND, NO_DEPTH, NO_IMAGE, UNREADABLE
from datasets.text import DataError
from tests.image_tree import make_image_tree, options_of, picture, write_list
from tests.kitti_tree import edit_line

DRIVES = "2011_09_26_drive_0001", "2011_09_30_drive_0016"  # days of their own
FRAMES = 8
PER_DRIVE = 2 * (FRAMES - 2)  # samples, of both sides
STAMPS = "matched_timestamps.txt"


@pytest.fixture
def trees(tmp_path):
    return make_image_tree(tmp_path, drives=DRIVES, frames=FRAMES)


def take(tree, **changes):
    return take_inventory(options_of(tree.root, **changes), "train")


def lines_of(inventory):
    """Return the lines of the list that are kept."""
    lines = inventory.split.path.read_text().splitlines()
    return [
        line.split() for line, kept in zip(lines, inventory.selection.kept, strict=True) if kept
    ]


def matched(tree, name="matched_oxts.txt"):
    return tree.sync / "matched_oxts" / name


def test_a_whole_tree_can_be_used_whole(trees):
    inventory = take(trees[0], use_stereo=True, use_depth=True)
    assert inventory.selection.kept.all() and len(inventory.split) == 2 * PER_DRIVE
    assert not inventory.selection.left_out and not inventory.selection.faults
    assert sorted(inventory.cameras) == [(0, 2), (0, 3), (1, 2), (1, 3)]
    assert [len(inventory.imu[drive]) for drive in (0, 1)] == [FRAMES - 1, FRAMES - 1]


@pytest.mark.parametrize("frame_ids", [(0, -1, 1), (0, -2, -1, 1, 2), (0, 1), (-1, 0)])
@pytest.mark.parametrize("interval", [0, 3, FRAMES - 2])
def test_an_interval_of_nan_costs_the_windows_of_its_own_drive_that_have_it(
    trees, frame_ids, interval
):
    edit_line(matched(trees[1]), interval + 1, "nan")
    inventory = take(trees[0], frame_ids=frame_ids)
    first, last = min(frame_ids), max(frame_ids)
    expected = [
        [f"{tree.date}/{tree.drive}_sync", str(frame), side]
        for tree in trees
        for frame in range(1, FRAMES - 1)
        for side in "lr"
        if frame + first >= 0
        and frame + last < FRAMES
        and (tree is trees[0] or interval not in range(frame + first, frame + last))
    ]
    assert lines_of(inventory) == expected
    assert set(inventory.selection.left_out) <= {BEYOND, f"IMU: {Reason.NAN_IN_FILE.value}"}
    assert inventory.selection.left_out.total() == len(inventory.split) - len(expected)


@pytest.mark.parametrize("milliseconds, kept", [(1000, True), (1001, False)])
def test_an_interval_longer_than_a_second_is_left_out(trees, milliseconds, kept):
    stamps = matched(trees[0], STAMPS).read_text().splitlines()[3].split(" | ")
    first = np.datetime64(stamps[0])
    last = str(first + np.timedelta64(milliseconds, "ms")).replace("T", " ")
    packets = matched(trees[0]).read_text().splitlines()[3].split(" | ")
    edit_line(matched(trees[0], STAMPS), 4, f"{stamps[0]} | {last}")
    edit_line(matched(trees[0]), 4, f"{packets[0]} | {packets[-1]}")
    left_out = take(trees[0]).selection.left_out
    assert left_out == ({} if kept else {f"IMU: {Reason.TOO_LONG.value}": 4})
    imu = read_imu(locate("kitti", trees[0].root, DRIVES[0]), options_of(trees[0].root))
    assert imu.valid.tolist() == [True] * 3 + [kept] + [True] * 3
    assert imu.durations_s.max() <= MAX_INTERVAL_S


def test_another_file_of_packets_is_read_by_its_name(trees):
    for tree in trees:
        shutil.copy(matched(tree), matched(tree, "noisy.txt"))
    edit_line(matched(trees[0], "noisy.txt"), 1, "nan")
    assert take(trees[0]).selection.kept.all()
    left_out = take(trees[0], imu_filename="noisy.txt").selection.left_out
    assert left_out == {f"IMU: {Reason.NAN_IN_FILE.value}": 2}
    with pytest.raises(FileNotFoundError, match=r"matched_oxts/other\.txt: no such file"):
        take(trees[0], imu_filename="other.txt")


def test_each_sample_is_counted_once_under_its_first_reason(trees):
    tree = trees[0]
    (tree.sync / "image_02" / "data" / "0000000005.png").unlink()
    edit_line(matched(tree), 4, "nan")  # the one from 3 to 4
    (tree.sync / "velodyne_points" / "data" / "0000000001.bin").unlink()
    lines = [f"{DRIVES[0]} {i} l" for i in range(FRAMES)]
    write_list(tree.root / "splits" / "train_files.txt", lines)
    inventory = take(tree, use_depth=True, skip_broken=True)
    # 0 and 7 are beyond, 4 to 6 have the image, 1 has no depth, 3 no IMU, and so has 4.
    nan = f"IMU: {Reason.NAN_IN_FILE.value}"
    assert inventory.selection.left_out == {BEYOND: 2, NO_IMAGE: 3, NO_DEPTH: 1, nan: 1}
    assert [line[1] for line in lines_of(inventory)] == ["2"]


def remove_image(tree):
    (tree.sync / "image_02" / "data" / "0000000003.png").unlink()


def remove_other_side(tree):
    (tree.sync / "image_03" / "data" / "0000000003.png").unlink()


@pytest.mark.parametrize(
    "damage, sides, asked, gone",
    [
        (remove_image, "l", {}, {"2 l", "3 l", "4 l"}),
        (remove_other_side, "l", {"use_stereo": True}, {"3 l"}),
        (remove_image, "lr", {"use_stereo": True, "frame_ids": (0, 1)}, {"2 l", "3 l", "3 r"}),
    ],
    ids=["neighbour", "stereo", "both"],
)
def test_a_hole_in_the_images_is_named_or_counted(trees, damage, sides, asked, gone):
    tree = trees[0]
    samples = [f"{i} {side}" for i in range(1, FRAMES - 1) for side in sides]
    lines = [f"{DRIVES[0]} {sample}" for sample in samples]
    write_list(tree.root / "splits" / "train_files.txt", lines)
    damage(tree)
    with pytest.raises(DataError, match=r"0000000003\.png: no such image; ") as error:
        take(tree, **asked)
    assert "\n" not in str(error.value)
    inventory = take(tree, skip_broken=True, **asked)
    assert {*samples} - {" ".join(line[1:]) for line in lines_of(inventory)} == gone
    assert inventory.selection.left_out == {NO_IMAGE: len(gone)}


def without_calibration_line(tree):
    path = tree.root / tree.date / "calib_cam_to_cam.txt"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("P_rect_03")))


def without_calibration(tree):
    (tree.root / tree.date / "calib_imu_to_velo.txt").unlink()


def file_for(*parts):
    def damage(tree):
        shutil.rmtree(tree.sync.joinpath(*parts))
        tree.sync.joinpath(*parts).write_text("not a folder")

    return damage


def without(*parts):
    return lambda tree: shutil.rmtree(tree.sync.joinpath(*parts))


def without_images(tree):
    for path in (tree.sync / "image_02" / "data").iterdir():
        path.unlink()


def short_imu(tree):
    for name in ("matched_oxts.txt", STAMPS):
        lines = matched(tree, name).read_text().splitlines(keepends=True)
        matched(tree, name).write_text("".join(lines[:-1]))


def uneven_imu(tree):
    matched(tree).write_text("nan\n")


def broken_imu(tree):
    edit_line(matched(tree), 2, "1 2 | 3 4")


FAULTS = {
    "calibration line": (without_calibration_line, r"calib_cam_to_cam\.txt: no line `P_rect_03"),
    "calibration file": (without_calibration, r"calib_imu_to_velo\.txt: no such file"),
    "drive": (without(), r"drive_0001_sync: no such folder; .*drive_0001_sync\.zip"),
    "image folder": (without("image_03", "data"), r"image_03/data: .*drive_0001_sync\.zip"),
    "empty folder": (without_images, r"image_02/data: .*drive_0001_sync\.zip"),
    "file for images": (file_for("image_02", "data"), r"image_02/data"),
    "scans": (without("velodyne_points"), r"velodyne_points/data: .*drive_0001_sync\.zip"),
    "file for scans": (file_for("velodyne_points"), r"velodyne_points"),
    "imu": (without("matched_oxts"), r"matched_oxts: .*match_kitti_imu\.py"),
    "file for imu": (file_for("matched_oxts"), r"matched_oxts"),
    "short imu": (short_imu, r"matched_oxts\.txt: 6 intervals.*match the drive again"),
    "uneven imu": (uneven_imu, r"matched_oxts\.txt: 1 lines"),
    "broken imu": (broken_imu, r"matched_oxts\.txt, line 2: entry 1: expected 30 numbers"),
}


@pytest.mark.parametrize("damage, message", FAULTS.values(), ids=FAULTS)
def test_what_is_wrong_with_a_drive_is_one_line_or_counted(trees, damage, message):
    damage(trees[0])
    with pytest.raises((DataError, OSError)) as error:
        take(trees[0], use_depth=True)
    said = describe(error.value)
    assert re.search(message, said) and said.startswith(str(trees[0].root)) and "\n" not in said
    inventory = take(trees[0], use_depth=True, skip_broken=True)
    # Where one camera's images are missing, those of the other stay.
    lost = PER_DRIVE // 2 if "/image_0" in said else PER_DRIVE
    assert inventory.selection.left_out == {UNREADABLE: lost}
    whole = {f"{trees[1].date}/{DRIVES[1]}_sync"}
    assert whole <= {line[0] for line in lines_of(inventory)}
    assert [*map(describe, inventory.selection.faults)] == [said]
    options = options_of(trees[0].root, use_depth=True, skip_broken=True)
    assert len(KittiDataset(options, "train")) == 2 * PER_DRIVE - lost


@pytest.mark.parametrize(
    "folder, message",
    [
        ("2011_09_26/2011_09_26_drive_0099_sync", r"drive_0099_sync: .*drive_0099_sync\.zip"),
        ("2011_09_29/2011_09_29_drive_0004_sync", r"2011_09_29: .*drive_0004_sync\.zip"),
        ("2011_09_26/nonsense", r"train_files\.txt, line 4: expected a drive like"),
        ("09", r"train_files\.txt, line 4: expected a drive like"),
    ],
)
def test_a_drive_that_is_unknown_is_named(trees, folder, message):
    path = trees[0].root / "splits" / "train_files.txt"
    path.write_text(f"{DRIVES[0]} 3 l\n\n{DRIVES[1]} 3 l\n{folder} 3 l\n{folder} 4 l\n")
    with pytest.raises(DataError, match=message) as error:
        take(trees[0])
    assert "\n" not in str(error.value)
    inventory = take(trees[0], skip_broken=True)
    assert inventory.selection.kept.tolist() == [True, True, False, False]
    assert inventory.selection.left_out == {UNREADABLE: 2}


def test_a_list_that_is_empty_wrong_or_missing_is_named_skip_or_not(trees):
    path = trees[0].root / "splits" / "train_files.txt"
    for text, message in (("\n", "empty"), ("x 1\n", "line 1: expected `folder frame side`")):
        path.write_text(text)
        for skip in (False, True):
            with pytest.raises(DataError, match=f"train_files.txt.*{message}"):
                take(trees[0], skip_broken=skip)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"train_files\.txt: no such file"):
        take(trees[0])
    with pytest.raises(DataError, match=r"train_files\.txt: no such split"):
        take(trees[0], split=path)


def test_a_list_of_tests_itself_may_be_named_and_no_other(trees):
    path = trees[0].root / "splits" / "some_frames.txt"
    path.write_text(f"{DRIVES[0]} 3 l\n{DRIVES[1]} 2 r\n")
    asked = options_of(trees[0].root, split=path)
    inventory = take_inventory(asked, "test")
    assert inventory.selection.kept.tolist() == [True, True]
    assert inventory.selection.file == path
    for part in ("train", "val"):  # trained on, it would be validated on as well
        with pytest.raises(DataError, match=r"some_frames\.txt: no such split"):
            take_inventory(asked, part)


def test_the_ground_truth_that_is_asked_for_is_listed(trees):
    files = locate("kitti", trees[0].root, DRIVES[0])
    scans = depth_files(files, 3, options_of(trees[0].root))
    assert scans.numbers.tolist() == [*range(FRAMES)] and scans.extension == ".bin"
    with pytest.raises(DataError, match=r"proj_depth/groundtruth/image_03: .*data_depth_annotated"):
        depth_files(files, 3, options_of(trees[0].root, dataset="kitti_depth"))
    folder = trees[0].sync / "proj_depth" / "groundtruth" / "image_03"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "0000000002.png"), picture(0))
    improved = depth_files(files, 3, options_of(trees[0].root, dataset="kitti_depth"))
    assert improved.path(2) == folder / "0000000002.png" and improved.numbers.tolist() == [2]


def swap_axes(tree, name="matched_oxts.txt"):
    """Write x and z of the gyro for each other."""
    lines = []
    for line in matched(tree).read_text().splitlines():
        packets = [packet.split() for packet in line.split(" | ")]
        for packet in packets:
            packet[17], packet[19] = packet[19], packet[17]
        lines.append(" | ".join(map(" ".join, packets)))
    matched(tree, name).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("name", ["matched_oxts.txt", "noisy.txt"])
def test_a_gyro_that_does_not_turn_as_the_attitude_does_is_refused_unless_allowed(trees, name):
    shutil.copy(matched(trees[1]), matched(trees[1], "noisy.txt"))
    swap_axes(trees[0], name)
    with pytest.raises(DataError, match="gyro and recorded attitude disagree") as error:
        take(trees[0], imu_filename=name)
    assert str(error.value).startswith(f"{matched(trees[0], name)}: ")
    assert "--avoid_quat_check" in str(error.value) and "\n" not in str(error.value)
    inventory = take(trees[0], imu_filename=name, skip_broken=True)
    assert inventory.selection.left_out == {UNREADABLE: PER_DRIVE}
    assert len(inventory.selection.faults) == 1
    allowed = take(trees[0], imu_filename=name, check_attitude=False)
    assert allowed.selection.kept.all()
    assert take(trees[0], use_imu=False, imu_filename=name).selection.kept.all()


def test_an_interval_that_is_left_out_is_not_compared(trees):
    stamps = matched(trees[0], STAMPS).read_text().splitlines()
    packets = matched(trees[0]).read_text().splitlines()
    for i, line in enumerate(stamps):  # each lasts a hundred seconds now, and says nonsense
        first = np.datetime64(line.split(" | ")[0])
        last = str(first + np.timedelta64(100, "s")).replace("T", " ")
        edit_line(matched(trees[0], STAMPS), i + 1, f"{line.split(' | ')[0]} | {last}")
        ends = packets[i].split(" | ")
        edit_line(matched(trees[0]), i + 1, f"{ends[0]} | {ends[-1]}")
    inventory = take(trees[0])
    assert inventory.selection.left_out == {f"IMU: {Reason.TOO_LONG.value}": PER_DRIVE}
