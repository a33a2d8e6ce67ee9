"""Which drives there are, and what becomes of one."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from datasets import drives
from datasets.calibration import read_calibration
from datasets.drives import Drive, MatchOptions, OffsetOptions, Outcome
from datasets.matched import Reason, read_matched
from datasets.oxts import parse_stamp, read_oxts
from datasets.splits import ODOMETRY, split_folder
from datasets.text import DataError
from tests.kitti_tree import DATE, DRIVE, edit_line, make_tree, rpy, write_calibration

ONE = Drive.parse(DRIVE)


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path)


def match(tree, **options):
    return drives.match_drive(ONE, MatchOptions(tree.root, tree.root, **options))


@pytest.mark.parametrize(
    "text",
    [DRIVE, f"{DRIVE}_sync", f"{DRIVE}_extract", f"{DATE}/{DRIVE}_sync", f" {DATE}/{DRIVE}_sync/ "],
)
def test_a_drive_has_several_names(text):
    assert Drive.parse(text) == ONE and str(ONE) == DRIVE


@pytest.mark.parametrize("text", ["", "0001", "2011_09_26_drive_01", f"{DRIVE}_raw", f"x/{DRIVE}"])
def test_other_names_are_refused(text):
    with pytest.raises(DataError, match="expected a drive like 2011_09_26_drive_0001, got"):
        Drive.parse(text)


@pytest.fixture
def three(tmp_path):
    """Two folders: drive 1 in both, 2 as an extract only, 3 synced only; and what is no drive."""
    for place in ("raw/{}_drive_0001_extract", "raw/{}_drive_0002_extract"):
        (tmp_path / place.replace("/{}", f"/{DATE}/{DATE}")).mkdir(parents=True)
    for place in ("sync/{}_drive_0001_sync", "sync/{}_drive_0003_sync", "sync/{}_drive_x_sync"):
        (tmp_path / place.replace("/{}", f"/{DATE}/{DATE}")).mkdir(parents=True)
    (tmp_path / "sync" / DATE / f"{DATE}_drive_0002_sync").write_text("a file is no drive")
    (tmp_path / "sync" / "backup").mkdir()
    (tmp_path / "sync" / "backup" / f"{DATE}_drive_0002_sync").mkdir()
    return tmp_path / "raw", tmp_path / "sync"


def numbers(found):
    sides = (found.both, found.only_raw, found.only_sync)
    return [[int(drive.number) for drive in side] for side in sides]


def test_drives_are_in_both_or_on_one_side(three):
    assert numbers(drives.find_drives(*three)) == [[1], [2], [3]]
    assert numbers(drives.choose_drives(*three, None, None)) == [[1], [2], [3]]
    assert numbers(drives.choose_drives(*three, [DRIVE], None)) == [[1], [], []]


@pytest.mark.parametrize(
    "number, lacking", [("0002", "_sync"), ("0003", "_extract"), ("0009", "_sync and no _extract")]
)
def test_a_drive_named_must_be_in_both(three, number, lacking):
    with pytest.raises(DataError, match=f"^{DATE}_drive_{number}: no {lacking} folder of this"):
        drives.choose_drives(*three, [f"{DATE}_drive_{number}"], None)


def test_a_split_names_drives_in_its_first_column(three, tmp_path):
    folder = tmp_path / "split"
    with pytest.raises(FileNotFoundError, match="split: no split here"):
        drives.choose_drives(*three, None, folder)
    folder.mkdir()
    (folder / "train_files.txt").write_text(f"{DATE}/{DRIVE}_sync 5 l\n\n")
    (folder / "test_files.txt").write_text(f"{DATE}/{DATE}_drive_0003_sync 0 r\r\n")
    assert numbers(drives.choose_drives(*three, None, folder)) == [[1], [], [3]]
    (folder / "val_files.txt").write_text(f"{DATE}/{DATE}_drive_0077_sync 0 r\n")
    found = drives.choose_drives(*three, None, folder)
    assert found.neither == (Drive(DATE, "0077"),)
    assert f"in neither folder: 1, first {DATE}_drive_0077" in drives.summary([], found)
    (folder / "val_files.txt").write_text("\nhello 0 r\n")
    with pytest.raises(
        DataError, match=r"val_files\.txt, line 2: expected a drive like .* 'hello'"
    ):
        drives.choose_drives(*three, None, folder)
    (folder / "val_files.txt").unlink()
    (folder / "train_files.txt").unlink()
    with pytest.raises(DataError, match=r"no drive of .*split has both an _extract folder in"):
        drives.choose_drives(*three, None, folder)


def test_sequences_of_odometry_are_from_their_raw_drives(tmp_path):
    (tmp_path / "train_files.txt").write_text("00 2 l\n8 2 r\n03 2 l\n08 3 l\n")
    test = tmp_path / "test_files.txt"
    test.write_text("09 5 l\n")
    named = ["2011_09_30_drive_0028", "2011_09_30_drive_0033", "2011_10_03_drive_0027"]
    assert sorted(map(str, drives.split_drives(tmp_path))) == named
    test.write_text("\n09 5 l\n11 5 l\n")
    with pytest.raises(DataError, match=r"test_files\.txt, line 3: expected a drive .* got '11'"):
        drives.split_drives(tmp_path)


def test_all_of_odometry_is_from_ten_drives_that_are_public():
    found = drives.split_drives(split_folder("odom"))
    public = {Drive.parse(run.drive) for run in ODOMETRY.values() if run.public}
    assert found == public and len(found) == 10


def test_single_images_and_lists_without_lines_name_no_drive(tmp_path):
    (tmp_path / "train_files.txt").write_text(f"{DATE}/{DRIVE}_sync 5 l\n")
    (tmp_path / "val_files.txt").write_text("\n")
    test = tmp_path / "test_files.txt"
    test.write_text("depth_selection/test_depth_prediction_anonymous 0 l\n")
    assert drives.split_drives(tmp_path) == {ONE}
    test.write_text(f"{DATE}/{DRIVE}_sync 5\n")
    with pytest.raises(DataError, match=r"test_files\.txt, line 1: expected `folder frame side`"):
        drives.split_drives(tmp_path)


def test_a_missing_folder_and_one_without_drives_are_named(three, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent: no such folder"):
        drives.choose_drives(tmp_path / "absent", three[1], None, None)
    with pytest.raises(DataError, match="no drive has both an _extract folder in"):
        drives.choose_drives(three[1], three[0], None, None)


def test_a_drive_is_written_with_its_report(tree):
    report = match(tree)
    assert report.outcome is Outcome.WRITTEN
    assert json.loads((tree.sync / "matched_oxts" / "report.json").read_text()) == report.details
    read = read_matched(tree.sync)
    assert len(read) == 5 and read.valid.all()
    np.testing.assert_array_equal(read.packets.stamps_ns[:11], tree.raw_ns[2:13])
    lines = (tree.sync / "matched_oxts" / "matched_oxts.txt").read_text().splitlines()
    assert lines[0].split(" | ") == tree.raw_lines[2:13]


def test_intervals_end_at_exposures_on_demand(tree):
    report = match(tree, align="camera", max_drift_ms=4.0)
    assert (report.details["align"], report.details["max_drift_ms"]) == ("camera", 4.0)
    read = read_matched(tree.sync)
    stamps_ns = read.packets.stamps_ns
    # The first image is 3 ms before its packet, and after the first raw one.
    np.testing.assert_array_equal(stamps_ns[read.offsets[:-1]], tree.image_ns[:-1])
    np.testing.assert_array_equal(stamps_ns[read.offsets[1:] - 1], tree.image_ns[1:])


def test_image_stamps_come_from_another_camera_if_they_must(tree):
    (tree.sync / "image_02" / "timestamps.txt").unlink()
    assert match(tree, align="camera", check=True).details["valid"] == 5
    (tree.sync / "image_03" / "timestamps.txt").unlink()
    report = match(tree, align="camera", check=True)
    assert report.outcome is Outcome.FAILED
    assert report.note.endswith("timestamps.txt: no such file, nor one of another camera")


def test_every_synced_packet_is_a_frame_however_many_images_have_stamps(tree):
    path = tree.sync / "image_02" / "timestamps.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:4]))
    details = match(tree, align="camera", check=True).details
    assert (details["intervals"], details["valid"]) == (5, 3)
    assert details["dropped"]["NO_STAMP"]["count"] == 2
    assert "4 stamps, but there are 6 synced packets" in details["problems"]["first"][0]


def test_a_list_of_stamps_that_was_cut_off_costs_intervals_and_no_lines(tree):
    path = tree.sync / "oxts" / "timestamps.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:3]))
    details = match(tree).details
    assert (details["intervals"], details["valid"]) == (5, 2)
    assert "3 stamps, but there are 6 synced packets" in details["problems"]["first"][0]
    assert read_matched(tree.sync, frames=6).reasons[2:] == (Reason.NO_STAMP,) * 3


def test_a_drive_without_a_valid_interval_is_a_failure_and_nothing_is_replaced(tree):
    match(tree)
    before = (tree.sync / "matched_oxts" / "matched_oxts.txt").read_bytes()
    for i in range(len(tree.raw_ns)):
        tree.raw_file(i).write_text("x")
    report = match(tree, overwrite=True)
    assert report.outcome is Outcome.FAILED
    assert "no interval is valid, nothing was written" in report.table()
    assert "broken_packet" in report.table()
    assert (tree.sync / "matched_oxts" / "matched_oxts.txt").read_bytes() == before


def test_what_a_killed_run_moved_away_comes_back_before_anything_else(tree):
    match(tree)
    folder = tree.sync / "matched_oxts"
    folder.rename(tree.sync / ".matched_oxts.old.tmp")
    assert match(tree).outcome is Outcome.SKIPPED
    assert folder.is_dir()


def test_a_folder_that_may_not_be_read_is_named(three, monkeypatch):
    def forbidden(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(PermissionError, match="Permission denied: "):
        drives.find_drives(*three)


def test_a_drive_is_not_of_another_day():
    assert Drive.parse(f"{DATE}/{DRIVE}_sync") == ONE
    with pytest.raises(DataError, match="expected a drive like"):
        Drive.parse(f"2011_09_28/{DRIVE}_sync")


def test_a_stray_stamp_does_not_spoil_the_time_offset(long_tree):
    edit_line(long_tree.raw_stamps, 300, "2261-09-26 13:02:28.000000000")
    image_stamps = long_tree.sync / "image_02" / "timestamps.txt"
    edit_line(image_stamps, 30, "2011-09-26 12:02:28.000000000")
    assert estimate(long_tree).offset_s == pytest.approx(0.0373, abs=5e-4)


def test_a_check_writes_nothing(tree):
    before = sorted(tree.root.rglob("*"))
    assert match(tree, check=True).outcome is Outcome.CHECKED
    assert sorted(tree.root.rglob("*")) == before


def test_what_is_there_is_skipped_or_replaced_whole(tree):
    match(tree)
    extra = tree.sync / "matched_oxts" / "extra.txt"
    extra.write_text("x")
    assert match(tree, align="camera").outcome is Outcome.SKIPPED
    assert extra.exists() and match(tree, check=True).outcome is Outcome.CHECKED
    assert match(tree, align="camera", overwrite=True).outcome is Outcome.WRITTEN
    assert not extra.exists()
    assert match(tree, check=True).details["align"] == "packet"


def test_a_day_may_end_in_the_middle(tmp_path):
    tree = make_tree(tmp_path, start_ns=parse_stamp("2011-09-26 23:59:59.770000000"))
    assert match(tree).details["valid"] == 5
    text = (tree.sync / "matched_oxts" / "matched_timestamps.txt").read_text()
    assert "2011-09-26 23:59:59.990000000 | 2011-09-27 00:00:00.000000000" in text


def test_line_ends_of_windows_change_nothing(tmp_path):
    texts = []
    for newline in ("\n", "\r\n"):
        tree = make_tree(tmp_path / str(len(newline)), newline=newline)
        assert match(tree, align="camera").details["valid"] == 5
        texts.append((tree.sync / "matched_oxts" / "matched_oxts.txt").read_bytes())
    assert texts[0] == texts[1]


def test_the_table_says_what_was_dropped_where_and_why(tree):
    tree.raw_file(16).unlink()
    edit_line(tree.raw_stamps, 36, "")
    report = match(tree)
    assert report.table().splitlines() == [
        f"{DRIVE}  written",
        "  intervals                         5",
        "  valid                             3",
        "  missing_packet                    1  the file of a raw packet is missing, "
        "first at 2011-09-26 13:02:26.124389445 in interval 1",
        "  unstamped_packet                  1  a raw packet without a stamp, "
        "first at 2011-09-26 13:02:26.324389445 in interval 3",
        f"  left out                          2  first: {tree.raw_file(16)}: no such file",
    ]
    found = drives.Found((ONE,), (), (Drive(DATE, "0003"),))
    assert drives.summary([report], found).splitlines() == [
        "1 drive: 1 written; 3 of 5 intervals valid",
        f"without _extract, left out: 1, first {DATE}_drive_0003",
    ]


def test_a_repair_is_counted(tree):
    # The recorder wrote packet 20 twice: all files after it move on by one.
    lines = tree.raw_stamps.read_text().splitlines()
    tree.raw_stamps.write_text("\n".join([*lines[:21], *lines[20:]]))
    for i, line in enumerate([*tree.raw_lines[:21], *tree.raw_lines[20:]]):
        tree.raw_file(i).write_text(line)
    report = match(tree)
    assert report.details["valid"] == 5
    assert report.details["repairs"] == {"packets repeated exactly": 1}
    assert "repaired: packets repeated exactly" in report.table()


@pytest.mark.parametrize("folder", ["sync", "extract"])
def test_a_drive_that_cannot_be_read_fails_in_one_line(tree, folder):
    path = getattr(tree, folder) / "oxts" / "timestamps.txt"
    path.unlink()
    report = match(tree)
    assert report.table() == f"{DRIVE}  failed: {path}: no such file"
    assert not (tree.sync / "matched_oxts").exists()


def test_many_problems_are_counted_but_not_all_shown(tree):
    for i in range(30):
        tree.raw_file(i).unlink()
    problems = match(tree, check=True).details["problems"]
    assert problems["count"] == 30 and len(problems["first"]) == 10


def change_file(path, how):
    content = path.read_bytes() if path.exists() else b""
    lines = content.split(b"\n")
    changed = {
        "remove": None,
        "empty": b"",
        "cut": content[: len(content) // 2],
        "bytes": content[:9] + b"\xff\x00" + content[9:],
        "twice": b"\n".join(lines[:3] + lines[1:]),
        "swap": b"\n".join(lines[:2] + lines[3:1:-1] + lines[4:]),
        "nan": content.replace(b"1", b"nan", 1),
        "digit": content.replace(b"4", b"7", 3),
    }[how]
    path.unlink(missing_ok=True)
    if changed is not None:
        path.write_bytes(changed)


HOW = ["remove", "empty", "cut", "bytes", "twice", "swap", "nan", "digit"]
PLACES = ["extract/oxts/timestamps.txt", "sync/oxts/timestamps.txt", "sync/image_02/timestamps.txt"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from([*PLACES, *range(34)]), st.sampled_from(HOW)),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(["packet", "camera"]),
)
def test_any_damage_ends_in_a_report_and_never_in_a_wrong_interval(
    tmp_path_factory, damages, align
):
    tree = make_tree(tmp_path_factory.mktemp("damaged"), frames=4)
    for place, how in damages:
        path = tree.raw_file(place) if isinstance(place, int) else None
        if path is None:
            kind, rest = place.split("/", 1)
            path = getattr(tree, kind) / rest
        change_file(path, how)
    report = match(tree, align=align)
    if report.outcome is Outcome.FAILED:
        assert "\n" not in report.note
        assert str(tree.root) in report.note or report.details["valid"] == 0
        return
    read = read_matched(tree.sync)
    assert report.details["valid"] == read.valid.sum()
    for i in np.flatnonzero(read.valid):
        steps_ns = np.diff(read.packets.stamps_ns[slice(*read.offsets[i : i + 2])])
        inner_ns = steps_ns if align == "packet" else steps_ns[1:-1]
        assert (steps_ns <= 15_000_000).all() and (inner_ns >= 5_000_000).all()
    assert np.isfinite(read.packets.values).all()
    if align == "packet":
        text = (tree.sync / "matched_oxts" / "matched_oxts.txt").read_text()
        written = {packet for line in text.splitlines() for packet in line.split(" | ")} - {"nan"}
        assert written <= set(read_oxts(tree.extract / "oxts").packets.texts)


# Time offset


@pytest.fixture
def long_tree(tmp_path):
    tree = make_tree(tmp_path, frames=120, image_delay_ns=-37_300_000, raw_lead=5)
    write_calibration(tree.root / DATE)
    return tree


def estimate(tree, **options):
    return drives.drive_time_offset(ONE, OffsetOptions(tree.root, tree.root, **options))


def test_the_orientations_of_synced_packets_give_the_offset_of_the_images(long_tree):
    assert estimate(long_tree).offset_s == pytest.approx(0.0373, abs=5e-4)


def test_what_is_missing_on_the_way_is_left_out(long_tree):
    (long_tree.sync / "oxts" / "data" / "0000000050.txt").unlink()
    image_stamps = long_tree.sync / "image_02" / "timestamps.txt"
    edit_line(image_stamps, 60, "")
    edit_line(image_stamps, 80, image_stamps.read_text().splitlines()[78])
    long_tree.raw_file(700).write_text("x")
    found = estimate(long_tree)
    assert found.offset_s == pytest.approx(0.0373, abs=5e-4)


def test_a_visual_trajectory_gives_the_offset_of_its_images(long_tree):
    R_c_b = read_calibration(long_tree.root / DATE)[2].T_c_b[:3, :3]
    seconds = (long_tree.raw_ns[long_tree.frames] - long_tree.raw_ns[0]) / 1e9
    R_w_b = Rotation.from_euler("ZYX", rpy(seconds)[:, ::-1]).as_matrix()
    R_w_c = R_w_b @ R_c_b.T
    R_c0_c = R_w_c[0].T @ R_w_c
    poses = np.concatenate([R_c0_c, np.zeros((len(seconds), 3, 1))], 2).reshape(-1, 12)
    path = long_tree.root / "poses.txt"
    np.savetxt(path, poses)
    found = estimate(long_tree, rotations=path)
    assert found.offset_s == pytest.approx(0.0373, abs=5e-4) and found.correlation > 0.999
    np.savetxt(path, poses[:-1])
    with pytest.raises(DataError, match=r"poses\.txt: 119 poses, but .* has 120 images"):
        estimate(long_tree, rotations=path)


def test_an_offset_is_reported_in_one_line(long_tree):
    options = OffsetOptions(long_tree.root, long_tree.root, max_offset_ms=100)
    line = drives.report_time_offset(ONE, options).table()
    assert line.startswith(f"{DRIVE}  time offset: +37.3") and "\n" not in line
    assert "correlation 0.99" in line or "correlation 1.00" in line


def test_an_offset_that_cannot_be_found_is_a_failure_of_the_drive(tree):
    options = OffsetOptions(tree.root, tree.root)
    report = drives.report_time_offset(ONE, options)
    assert report.outcome is Outcome.FAILED and "intervals in common" in report.note
