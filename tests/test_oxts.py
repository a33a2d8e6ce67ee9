"""OXTS packets and stamps: exact, by name, and each kind of damage left out and listed."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pykitti
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import oxts
from datasets.oxts import FIELDS, Fault
from datasets.text import DataError
from tests.kitti_tree import DATE, edit_line, make_tree, packets, write_calibration

FIRST = oxts.parse_stamp("1678-01-01 00:00:00.000000000")
LAST = oxts.parse_stamp("2261-12-31 23:59:59.999999999")


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path, frames=3)


@given(st.integers(FIRST, LAST))
def test_a_stamp_reads_back_to_the_nanosecond(ns):
    assert oxts.parse_stamp(oxts.format_stamp(ns)) == ns
    assert oxts.parse_stamp(str(np.datetime64(ns, "ns"))) == ns  # NumPy as an oracle


@given(st.datetimes(datetime(1678, 1, 1), datetime(2261, 12, 31)))
def test_a_stamp_is_utc(moment):
    seconds = int(moment.replace(microsecond=0, tzinfo=timezone.utc).timestamp())
    expected = seconds * 10**9 + moment.microsecond * 1000
    assert oxts.parse_stamp(moment.strftime("%Y-%m-%d %H:%M:%S.%f000")) == expected


def test_blanks_around_a_stamp_do_not_matter():
    assert oxts.parse_stamp(" 1970-01-01 00:00:01.000000001\n") == 10**9 + 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "expected a stamp like"),
        ("nan", "expected a stamp like"),
        ("2011-09-26", "expected a stamp like"),
        ("2011-09-26 24:00:00.000000000", "expected a stamp like"),
        ("2011-09-26 13:60:00.000000000", "expected a stamp like"),
        ("2011-09-26 13:02:25.1234567890", "expected a stamp like"),
        ("2011-09-26 13:02:25", "expected a stamp like"),
        ("2011-09-26 13:02:25.12345678", "expected a stamp like"),  # cut off: a wrong time
        ("2011-09-26 13:02:25.", "expected a stamp like"),
        ("2011-02-30 13:02:25.000000000", "2011-02-30 is not a day of the calendar"),
        ("2262-04-12 00:00:00.000000000", "out of the years 1678 to 2261"),
    ],
)
def test_what_is_not_a_stamp_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        oxts.parse_stamp(text)


def test_fields_are_where_their_names_say(tree):
    recording = oxts.read_oxts(tree.extract / "oxts", strict=True)
    read = recording.packets
    assert len(read) == len(tree.raw_ns) == 25
    np.testing.assert_array_equal(read.stamps_ns, tree.raw_ns)
    np.testing.assert_array_equal(recording.frames, np.arange(25))
    assert read.texts == tuple(tree.raw_lines)
    # pykitti names the fields too.
    files = [str(tree.raw_file(i)) for i in range(25)]
    named = [data.packet for data in pykitti.utils.load_oxts_packets_and_poses(files)]
    for name in FIELDS:
        np.testing.assert_array_equal(read[name], [getattr(packet, name) for packet in named])
    last = named[-1]
    assert read.gyro[-1].tolist() == [last.wx, last.wy, last.wz]
    assert read.accel[-1].tolist() == [last.ax, last.ay, last.az]
    assert read.rpy[-1].tolist() == [last.roll, last.pitch, last.yaw]
    assert read.speed[-1] == pytest.approx((last.vf**2 + last.vl**2 + last.vu**2) ** 0.5)


def test_poses_agree_with_pykitti(tree):
    write_calibration(tree.root / DATE)
    raw = pykitti.raw(str(tree.root), DATE, "0001", dataset="extract")
    read = oxts.read_oxts(tree.extract / "oxts").packets
    expected = np.stack([data.T_w_imu for data in raw.oxts])
    np.testing.assert_allclose(oxts.poses_w_b(read), expected, atol=1e-8)
    # pykitti cuts its stamps to microseconds.
    moments = np.array(raw.timestamps, "datetime64[us]").astype(np.int64)
    np.testing.assert_array_equal(read.stamps_ns // 1000, moments)


def test_poses_of_parts_agree_at_one_origin(tree):
    read = oxts.read_oxts(tree.extract / "oxts").packets
    origin = [read[name][0] for name in ("lat", "lon", "alt")]
    tail = read.select(np.arange(7, len(read)))
    np.testing.assert_array_equal(oxts.poses_w_b(tail, origin), oxts.poses_w_b(read)[7:])
    assert oxts.poses_w_b(tail)[0, :3, 3].tolist() == [0, 0, 0]
    assert oxts.poses_w_b(read.select(np.arange(0))).shape == (0, 4, 4)


@pytest.mark.parametrize("x", [0.1, -1e-300, -1e9, np.pi])
def test_a_packet_reads_back_as_written(x):
    numbers = [*np.full(25, x), 4, 11, 6, 6, 6.5]
    line = oxts.format_packet(numbers)
    assert oxts.parse_packet(line) == numbers
    assert line.split()[-5:] == ["4", "11", "6", "6", "6.5"]


@pytest.mark.parametrize("x", [1.1e9, -1.7e308])
def test_a_number_out_of_any_range_is_no_packet(x):
    with pytest.raises(DataError, match="vn is out of any range"):
        oxts.parse_packet(oxts.format_packet([*np.ones(6), x, *np.ones(23)]))


def test_a_file_that_cannot_be_read_is_one_broken_packet(tree):
    tree.raw_file(3).unlink()
    tree.raw_file(3).mkdir()  # root may read anything, but no folder
    recording = oxts.read_oxts(tree.extract / "oxts")
    (problem,) = recording.problems
    assert (problem.fault, problem.frame) == (Fault.BROKEN_PACKET, 3)
    assert "directory" in str(problem.error()) and str(tree.raw_file(3)) in str(problem.error())


def test_packets_without_their_text_are_formatted(tree):
    read = oxts.read_oxts(tree.extract / "oxts").packets
    bare = oxts.Packets(read.values, read.stamps_ns)
    assert bare.lines == tuple(map(oxts.format_packet, read.values.tolist()))
    assert read.lines == read.texts
    assert bare.select(slice(2, 4)).texts is None
    assert read.select(slice(2, 4)).texts == read.texts[2:4]


def test_line_ends_of_windows_are_the_same(tmp_path):
    unix, windows = make_tree(tmp_path / "a"), make_tree(tmp_path / "b", newline="\r\n")
    a, b = (oxts.read_oxts(tree.extract / "oxts", strict=True).packets for tree in (unix, windows))
    assert a.texts == b.texts
    np.testing.assert_array_equal(a.stamps_ns, b.stamps_ns)


LINE = oxts.format_packet(packets(np.zeros(1))[0])
BROKEN = {
    "too few": (LINE.rsplit(" ", 1)[0], "expected 30 numbers, got 29"),
    "too many": (LINE + " 1", "expected 30 numbers, got 31"),
    "empty": ("", "expected 30 numbers, got 0"),
    "word": ("x " + LINE.split(" ", 1)[1], "number 1 (lat) is 'x', expected a finite number"),
    "nan": ("nan " + LINE.split(" ", 1)[1], "number 1 (lat) is 'nan', expected a finite number"),
    "two lines": (LINE.replace(" ", "\n", 1), "expected one packet, got more than one line"),
    "bytes": (LINE + "\x00é", "not text in ASCII"),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_broken_packet_is_left_out_and_named(tree, damage):
    text, message = BROKEN[damage]
    tree.raw_file(4).write_text(text, encoding="utf-8")
    recording = oxts.read_oxts(tree.extract / "oxts")
    assert recording.frames.tolist() == [i for i in range(25) if i != 4]
    assert recording.packets.stamps_ns.tolist() == np.delete(tree.raw_ns, 4).tolist()
    (problem,) = recording.problems
    assert (problem.fault, problem.frame) == (Fault.BROKEN_PACKET, 4)
    with pytest.raises(DataError) as caught:
        oxts.read_oxts(tree.extract / "oxts", strict=True)
    assert str(caught.value) == f"{tree.raw_file(4)}, line 1: {message}"


def test_a_missing_file_moves_no_other(tree):
    tree.raw_file(4).unlink()
    recording = oxts.read_oxts(tree.extract / "oxts")
    assert recording.packets.stamps_ns.tolist() == np.delete(tree.raw_ns, 4).tolist()
    assert recording.packets.texts[4] == tree.raw_lines[5]
    (problem,) = recording.problems
    assert (problem.fault, problem.frame) == (Fault.MISSING_FILE, 4)
    with pytest.raises(DataError, match=r"0000000004\.txt: no such file$"):
        oxts.read_oxts(tree.extract / "oxts", strict=True)


@pytest.mark.parametrize("line, message", [("", "empty stamp"), ("soon", "expected a stamp like")])
def test_a_missing_stamp_leaves_its_packet_out(tree, line, message):
    edit_line(tree.raw_stamps, 5, line)
    recording = oxts.read_oxts(tree.extract / "oxts")
    assert recording.frames.tolist() == [i for i in range(25) if i != 4]
    (problem,) = recording.problems
    assert (problem.fault, problem.frame, problem.line) == (Fault.NO_STAMP, 4, 5)
    with pytest.raises(DataError, match=rf"timestamps\.txt, line 5: {message}"):
        oxts.read_oxts(tree.extract / "oxts", strict=True)


def test_a_file_beyond_the_stamps_is_a_problem_and_other_files_are_not(tree):
    for frame in (25, 9_999_999_999):
        tree.raw_file(frame).write_text(LINE)
    (tree.raw_file(0).parent / "notes.txt").write_text("x")
    problems = oxts.read_oxts(tree.extract / "oxts").problems
    assert [problem.frame for problem in problems] == [25, 9_999_999_999]
    for problem in problems:
        assert problem.fault is Fault.NO_STAMP
        assert str(problem.error()).endswith("packet without a stamp: timestamps.txt has 25 lines")


@pytest.mark.parametrize(
    "text, message", [("\n \n", "no stamps in it"), ("x\n", "line 1: expected")]
)
def test_a_folder_without_any_stamp_is_refused(tree, text, message):
    tree.raw_stamps.write_text(text)
    with pytest.raises(DataError, match=rf"timestamps\.txt.*{message}"):
        oxts.read_oxts(tree.extract / "oxts")


@pytest.mark.parametrize("name", ["timestamps.txt", "data"])
def test_what_the_folder_lacks_is_named(tree, name):
    (tree.extract / "oxts" / name).rename(tree.root / "elsewhere")
    with pytest.raises(FileNotFoundError, match=rf"oxts.{name}: no such"):
        oxts.read_oxts(tree.extract / "oxts")


def test_stamps_at_another_count():
    stamps = oxts.Stamps(np.arange(3) + 5, np.array([True, False, True]))
    assert stamps.resized(2).ns.tolist() == [5, 6]
    longer = stamps.resized(5)
    assert longer.present.tolist() == [True, False, True, False, False]
    assert len(longer) == 5
