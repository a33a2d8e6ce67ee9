"""What the check of a tree prints, what it says to fetch, and how it ends."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from pykitti.utils import read_calib_file

from datasets import check
from datasets.oxts import FIELDS
from datasets.splits import PARTS, SPLITS, read_split
from tests.image_tree import (
    SINGLE,
    make_image_tree,
    write_list,
    write_sequence,
    write_single_images,
)
from tests.kitti_tree import edit_line, packet_line, packets

DRIVES = "2011_09_26_drive_0001", "2011_09_30_drive_0016"  # KITTI offers both, with the packets
OFFERED = (SPLITS / "kitti_archives_to_download.txt").read_text().split()
FRAMES = 6
SAMPLES = 2 * 2 * (FRAMES - 2)  # of each list: both sides of both drives
WHOLE = "nothing is missing or broken"


@pytest.fixture
def trees(tmp_path):
    return make_image_tree(tmp_path, drives=DRIVES, frames=FRAMES)


@pytest.fixture
def look(capsys, tmp_path):
    """Check `tmp_path` and return the exit code and what was printed."""

    def run(*given):
        code = check.main(["--data_path", str(tmp_path), "--workers", "1", *given])
        printed = capsys.readouterr()
        assert (printed.out == "") == (code == 2) and (printed.err == "") == (code != 2)
        return code, printed.out + printed.err

    return run


def write_lists(root, lines, parts=PARTS):
    for part in parts:
        write_list(root / "splits" / f"{part}_files.txt", lines)


def rows(printed):
    """Return the words behind each drive's name in the table."""
    table = printed.split("\n\n")[0].splitlines()
    assert table[0].split() == ["drive", "left", "right", "truth", *"intervals with IMU".split()]
    return {line.split()[0]: line.split(maxsplit=1)[1].split() for line in table[1:]}


def faults(printed):
    """Return what is missing or broken; the count before is that of what follows."""
    count, lines = re.search(r"^missing or broken: (\d+)\n((?:  .*\n)+)", printed, re.M).groups()
    hidden = re.search(r"^  and (\d+) more$", lines, re.M)
    lines = lines.splitlines()
    assert int(count) == (len(lines) - 1 + int(hidden[1]) if hidden else len(lines))
    return [line.strip() for line in lines]


def fetched(printed):
    """Return the addresses of what is to be fetched; the count before is theirs."""
    addresses = re.findall(r"^  (https://.*)$", printed, re.M)
    count = re.search(r"^to fetch: (\d+)$", printed, re.M)
    assert len(addresses) == (int(count[1]) if count else 0)
    return addresses


def offered(*ends):
    """Return the addresses of these archives in the list that `wget` reads."""
    found = [url for url in OFFERED if url.endswith(ends)]
    assert len(found) == len(ends)
    return found


def usable(printed, root, part="train"):
    """Return how many samples of a list can be used, and the reasons why not, with their counts."""
    file = re.escape(str(root / "splits" / f"{part}_files.txt"))
    found = re.search(
        rf"^{file}: (\d+) of (\d+) samples can be used\n((?: +\d+ .*\n)*)", printed, re.M
    )
    reasons = (line.split(maxsplit=1) for line in found[3].splitlines())
    counts = {reason: int(count) for count, reason in reasons}
    assert int(found[1]) + sum(counts.values()) == int(found[2])
    return int(found[1]), counts


def test_a_whole_tree_is_counted(trees, look):
    code, printed = look()
    assert code == 0 and printed.endswith(f"\n{WHOLE}\n")
    assert rows(printed) == {drive: ["6", "6", "6", "5", "of", "5"] for drive in DRIVES}
    for part in ("train", "val", "test"):
        assert usable(printed, trees[0].root, part) == (SAMPLES, {})
    assert fetched(printed) == []


def test_workers_change_nothing(trees, look):
    shutil.rmtree(trees[1].sync / "matched_oxts")
    (trees[0].sync / "velodyne_points" / "data" / "0000000002.bin").write_bytes(b"")
    assert look("--deep", "--workers", "2") == look("--deep")


def test_intrinsics_are_those_of_the_days_that_have_them(trees, look):
    root = trees[0].root
    path = root / trees[1].date / "calib_cam_to_cam.txt"
    lines = path.read_text().splitlines()
    (right,) = (i for i, line in enumerate(lines) if line.startswith("P_rect_03"))
    edit_line(path, right + 1, "P_rect_03: 80 0 61.5 -3 0 81.25 18 0 0 0 1 0")
    printed = look()[1]
    P = read_calib_file(root / trees[0].date / "calib_cam_to_cam.txt")["P_rect_02"].reshape(3, 4)
    own = f"fx {P[0, 0]:.1f} fy {P[1, 1]:.1f} cx {P[0, 2]:.1f} cy {P[1, 2]:.1f}"
    assert [line for line in printed.splitlines() if " fx " in line] == [
        f"left  124x38 {own}: 2011_09_26, 2011_09_30",
        f"right 124x38 {own}: 2011_09_26",
        "right 124x38 fx 80.0 fy 81.2 cx 61.5 cy 18.0: 2011_09_30",
    ]


def set_speeds(tree, speeds):
    """Let the car drive ahead at these speeds [m/s] at the images, which are 0.1 s apart."""
    values = packets(0.1 * np.arange(len(speeds)))
    values[:, [FIELDS.index(name) for name in ("vl", "vu")]] = 0
    values[:, FIELDS.index("vf")] = speeds
    for i, packet in enumerate(values):
        path = tree.sync / "oxts" / "data" / f"{i:010d}.txt"
        path.write_text(packet_line(packet))


def test_motion_is_that_of_the_packets(trees, look):
    set_speeds(trees[0], [8.0] * 6)
    set_speeds(trees[1], [0, 0.1, 0.1, 0, 0, 10])
    printed = look()[1]
    # In metres: five steps of 0.8, one of 0.5, and four of 0.01 or less, which are none.
    assert "\nstanding (less than 0.02 m between images): 40.0%\n" in printed
    assert "next: 0.80 m, from 0.65 to 0.80 m for 80 % of them\n" in printed
    assert f"\ndrives that mostly stand: {DRIVES[1]}\n" in printed


@pytest.mark.parametrize("given", [[], ["--no_imu"]])
@pytest.mark.parametrize("with_day", [True, False])
@pytest.mark.parametrize("with_extract", [True, False])
def test_a_missing_drive_is_named_with_the_archives_that_bring_it(
    trees, look, given, with_day, with_extract
):
    tree = trees[1]
    shutil.rmtree(tree.sync)
    if not with_day:
        for path in (tree.root / tree.date).glob("calib_*.txt"):
            path.unlink()
    if not with_extract:
        shutil.rmtree(tree.extract)
    code, printed = look(*given)
    assert code == 1
    assert faults(printed) == [f"{tree.sync}: no such folder; {DRIVES[1]}_sync.zip brings it"]
    needed = [f"{DRIVES[1]}_sync.zip"]
    needed += [] if with_day else [f"{tree.date}_calib.zip"]
    needed += [] if with_extract or given else [f"{DRIVES[1]}_extract.zip"]
    assert sorted(fetched(printed)) == sorted(offered(*needed))
    assert rows(printed)[DRIVES[1]] == ["-"] * 4 and rows(printed)[DRIVES[0]][0] == "6"
    left_out = {"broken: a drive that cannot be read": SAMPLES // 2}
    assert usable(printed, tree.root) == (SAMPLES // 2, left_out)


def test_a_drive_that_is_only_tested_on_needs_no_imu(trees, look):
    write_lists(trees[0].root, [f"{DRIVES[0]} 2 l"], PARTS[:2])
    shutil.rmtree(trees[1].sync / "matched_oxts")
    code, printed = look()
    assert code == 0 and rows(printed)[DRIVES[1]] == ["6", "6", "6", "-"]
    shutil.rmtree(trees[1].sync)
    shutil.rmtree(trees[1].extract)
    assert fetched(look()[1]) == offered(f"{DRIVES[1]}_sync.zip")


def test_an_unmatched_drive_is_matched_if_its_packets_are_there(trees, look):
    for tree in trees:
        shutil.rmtree(tree.sync / "matched_oxts")
    shutil.rmtree(trees[1].extract)
    code, printed = look()
    assert code == 1
    first, second = faults(printed)
    make = "matched_oxts: no such folder; make it with match_kitti_imu.py"
    assert first == f"{trees[0].sync}/{make}"
    assert second == f"{trees[1].sync}/{make}; {DRIVES[1]}_extract.zip brings it"
    assert fetched(printed) == offered(f"{DRIVES[1]}_extract.zip")
    code, printed = look("--no_imu")
    assert code == 0 and WHOLE in printed and rows(printed)[DRIVES[0]] == ["6", "6", "6", "-"]


def test_the_calibration_of_a_day_is_missing_once(tmp_path, look):
    trees = make_image_tree(tmp_path, drives=[DRIVES[0], "2011_09_26_drive_0005"])
    path = tmp_path / trees[0].date / "calib_cam_to_cam.txt"
    path.unlink()
    code, printed = look()
    expected = [f"{path}: no such file; 2011_09_26_calib.zip brings it"]
    assert code == 1 and faults(printed) == expected
    assert fetched(printed) == offered("2011_09_26_calib.zip")


def test_intervals_without_imu_are_counted_and_nothing_is_broken(trees, look):
    edit_line(trees[0].sync / "matched_oxts" / "matched_oxts.txt", 3, "nan")
    code, printed = look()
    assert code == 0 and WHOLE in printed
    assert rows(printed)[DRIVES[0]][-3:] == ["4", "of", "5"]
    # The windows around frames 2 and 3, which the interval between them is part of.
    for part, lost in (("train", 4), ("val", 4), ("test", 0)):
        kept, counts = usable(printed, trees[0].root, part)
        assert kept == SAMPLES - lost and all(reason.startswith("IMU: ") for reason in counts)


# With stereo, neighbours are of the left camera, and of the right one the targets alone.
HOLES = ([], ["1 r", "4 r"], "-", 2), (["--use_stereo"], ["1 l", "2 l", "4 l"], "6", 1)


@pytest.mark.parametrize("given, targets, left, lost", HOLES)
def test_a_hole_in_the_images_is_named(trees, look, given, targets, left, lost):
    folder = trees[0].sync / "image_03" / "data"
    for i in (2, 3):
        (folder / f"000000000{i}.png").unlink()
    write_lists(trees[0].root, [f"{DRIVES[0]} {target}" for target in targets])
    code, printed = look(*given)
    assert code == 1 and WHOLE not in printed
    more = "" if given else ", with 1 more of this folder"
    absent = f"{folder / '0000000002.png'}: no such image{more}; {DRIVES[0]}_sync.zip"
    assert faults(printed)[0] == f"{absent} brings it"
    assert rows(printed)[DRIVES[0]][:2] == [left, "4"]
    assert fetched(printed) == offered(f"{DRIVES[0]}_sync.zip")
    kept, counts = usable(printed, trees[0].root)
    assert (kept, counts) == (len(targets) - lost, {"broken: an image that is missing": lost})


def test_a_hole_that_no_sample_needs_does_not_matter(trees, look):
    (trees[0].sync / "image_02" / "data" / "0000000003.png").unlink()
    write_lists(trees[0].root, [f"{DRIVES[0]} 1 l", f"{DRIVES[0]} 3 r"])
    code, printed = look()
    assert code == 0 and WHOLE in printed and rows(printed) == {DRIVES[0]: "5 6 6 5 of 5".split()}


def test_an_imu_that_is_too_short_is_a_fault(trees, look):
    for name in ("matched_oxts.txt", "matched_timestamps.txt"):
        path = trees[0].sync / "matched_oxts" / name
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    (fault,) = faults(look()[1])
    assert DRIVES[0] in fault and "4 intervals" in fault and "match the drive again" in fault


def test_a_deep_look_alone_reads_the_files(trees, look):
    image = trees[0].sync / "image_02" / "data" / "0000000001.png"
    image.write_bytes(image.read_bytes()[:-100])
    code, printed = look()
    assert code == 0 and WHOLE in printed
    code, printed = look("--deep")
    assert code == 1 and WHOLE not in printed
    (fault,) = faults(printed)
    assert fault.startswith(f"{image}: a PNG image that was cut off")


@pytest.mark.parametrize(
    "frame_ids, whole", [("0 -1 1", 4), ("-2 -1 0 1 2", 2), ("0 1", 4), ("0 1 2 3", 2)]
)
def test_windows_reach_as_far_as_asked(trees, look, frame_ids, whole):
    code, printed = look("--frame_ids", *frame_ids.split())
    assert code == 0 and WHOLE in printed
    # Of targets 1 to 4 in frames 0 to 5, for each camera of each drive.
    kept, left_out = usable(printed, trees[0].root)
    assert kept == 4 * whole and set(left_out) <= {"the window reaches beyond the drive"}
    assert usable(printed, trees[0].root, "test") == (SAMPLES, {})  # of single images


@pytest.mark.parametrize("given", [[], ["--no_imu"]])
def test_without_splits_of_the_data_it_is_eigen_zhou_and_all_of_it_is_offered(look, given):
    code, printed = look(*given)
    parts = {part: read_split(SPLITS / "eigen_zhou" / f"{part}_files.txt") for part in PARTS}

    def drives_of(some):
        folders = (folder for part in some for folder in parts[part].folders)
        return {folder.split("/")[1].removesuffix("_sync") for folder in folders}

    assert code == 1
    assert f"\n{parts['train'].path}: 0 of {len(parts['train'])} samples can be used\n" in printed
    drives, moving = drives_of(PARTS), drives_of(PARTS[:2])
    missing = [fault.partition(": no such folder; ")[2] for fault in faults(printed)]
    assert missing == [*(f"{drive}_sync.zip brings it" for drive in sorted(drives)[:12]), ""]
    assert faults(printed)[-1] == f"and {len(drives) - 12} more"
    names = [f"{drive}_sync.zip" for drive in drives]
    names += [f"{day}_calib.zip" for day in {drive[:10] for drive in drives}]
    names += [] if given else [f"{drive}_extract.zip" for drive in moving]
    assert sorted(fetched(printed)) == sorted(offered(*names))


def test_splits_are_looked_at_together(trees, look):
    root = trees[0].root
    for name, drive in zip("ab", DRIVES, strict=True):
        write_list(root / name / "train_files.txt", [f"{drive} {i} l" for i in (1, 2, 3)])
    shutil.rmtree(root / "splits")
    code, printed = look("--split", str(root / "a"), str(root / "b"), str(root / "a"))
    assert code == 0 and [*rows(printed)] == [*DRIVES]
    for name in "ab":
        assert printed.count(f"{root / name}/train_files.txt: 3 of 3 samples can be used") == 1
    assert [*rows(look("--split", str(root / "b"))[1])] == [DRIVES[1]]


def test_single_images_need_nothing_else(tmp_path, look):
    write_single_images(tmp_path / SINGLE, 4)
    write_lists(tmp_path, [f"{SINGLE} {i} l" for i in range(4)], ["test"])
    write_lists(tmp_path, [f"{DRIVES[0]} 1 l"], ["train"])  # other data
    code, printed = look("--dataset", "kitti_test", "--deep")
    assert code == 0 and WHOLE in printed and "train_files" not in printed
    assert rows(printed) == {SINGLE: ["4", "-", "-", "-"]} and " fx " not in printed
    shutil.rmtree(tmp_path / "splits")  # of 500 images, by default
    code, printed = look("--dataset", "kitti_test")
    absent = f"{tmp_path / SINGLE}/image/0000000004.png: no such image, with 495 more of "
    assert code == 1 and faults(printed)[0].startswith(absent)
    assert fetched(printed) == offered("data_depth_selection.zip")


def test_sequences_need_no_raw_drive_but_for_their_imu(trees, look):
    root, tree = trees[1].root, trees[1]
    shutil.rmtree(root / "splits")
    write_lists(root, [f"04 {i} l" for i in (1, 2)], ["val"])
    write_sequence(tree, "04", range(FRAMES))
    code, printed = look("--dataset", "kitti_odom")
    assert code == 0 and WHOLE in printed and ", from 0.23 to " in printed
    assert "\nsequence 04      6      -      -  5 of 5\n" in printed
    shutil.rmtree(tree.sync)
    shutil.rmtree(tree.extract)
    code, printed = look("--dataset", "kitti_odom", "--no_imu")
    assert code == 0 and WHOLE in printed and "standing" not in printed
    code, printed = look("--dataset", "kitti_odom")
    assert code == 1 and f"{tree.drive}_extract.zip" in "".join(fetched(printed))


@pytest.mark.parametrize(
    "given, message",
    [
        (["--split", "eigen_zou"], "eigen_zou: no such split, expected a folder or one of bench"),
        (["--data_path", "nowhere"], "nowhere: no such folder, name the root of the data"),
        (["--frame_ids", "0", "2"], "frame_ids: with IMU, expected one run like -1 0 1"),
        (["--frame_ids", "-1", "1", "--no_imu"], "frame_ids: expected 0 and other offsets"),
        (["--dataset", "kitti_test"], "--dataset kitti_test: no list of .* is of this data"),
        (["--workers", "0"], "workers: expected at least 1, got 0"),
    ],
)
def test_mistakes_are_one_line(trees, look, given, message):
    code, printed = look(*given)
    assert code == 2 and re.fullmatch(rf"python -m datasets\.check: .*{message}.*\n", printed)


def test_images_to_be_tested_on_without_ground_truth_are_a_fault(trees, look):
    for i in (2, 3):
        (trees[0].sync / "velodyne_points" / "data" / f"000000000{i}.bin").unlink()
    code, printed = look()
    path = trees[0].root / "splits" / "test_files.txt"
    assert code == 1 and usable(printed, trees[0].root)[0] == SAMPLES  # to train on
    assert faults(printed) == [f"{path}: 4 of the images have no ground-truth depth"]


def test_only_drives_that_are_tested_on_need_ground_truth(trees, look):
    shutil.rmtree(trees[0].sync / "velodyne_points")
    write_lists(trees[0].root, [f"{DRIVES[0]} 2 l"], ["train", "val"])
    write_lists(trees[0].root, [f"{DRIVES[1]} 2 l"], ["test"])
    code, printed = look()
    assert code == 0 and WHOLE in printed
    write_lists(trees[0].root, [f"{DRIVES[0]} 2 l"], ["test"])
    code, printed = look()
    assert code == 1 and "velodyne_points/data: no such folder" in faults(printed)[0]
