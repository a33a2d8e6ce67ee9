"""The matched format: what is written reads back, and files made by others read as they are."""

from __future__ import annotations

import errno
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datasets import matched
from datasets.matched import MatchedImu, Reason, offsets_of, read_matched, write_matched
from datasets.oxts import Packets, format_stamp
from datasets.text import DataError
from ekf.preintegration import preintegrate
from tests.kitti_tree import START_NS, packet_line, packets


def imu(lengths, step_ns=10_000_000):
    """Return intervals of so many packets in memory; of none is not valid."""
    count = sum(lengths)
    stamps_ns = START_NS + step_ns * np.arange(count)
    values = packets((stamps_ns - START_NS) / 1e9)
    texts = tuple(packet_line(packet) for packet in values)
    reasons = tuple(None if length else Reason.GAP for length in lengths)
    return MatchedImu(Packets(values, stamps_ns, texts), offsets_of(lengths), reasons)


def files(drive):
    folder = drive / "matched_oxts"
    return folder / "matched_oxts.txt", folder / "matched_timestamps.txt"


@given(st.lists(st.sampled_from([0, 2, 11, 12]), max_size=5))
def test_what_is_written_reads_back(tmp_path_factory, lengths):
    drive, before = tmp_path_factory.mktemp("drive"), imu(lengths)
    write_matched(drive, before, {})
    after = read_matched(drive)
    np.testing.assert_array_equal(after.packets.values, before.packets.values)
    np.testing.assert_array_equal(after.packets.stamps_ns, before.packets.stamps_ns)
    np.testing.assert_array_equal(after.offsets, before.offsets)
    assert after.packets.texts is None  # 400 bytes a packet, which nobody needs any more
    assert after.reasons == tuple(None if n else Reason.NAN_IN_FILE for n in lengths)
    write_matched(drive, after, {})
    again = read_matched(drive)
    np.testing.assert_array_equal(again.packets.values, before.packets.values)
    np.testing.assert_array_equal(again.offsets, before.offsets)


def test_the_files_have_the_published_form(tmp_path):
    written = imu([2, 0, 3])
    write_matched(tmp_path, written, {"valid": 2})
    texts, stamps = written.packets.texts, [*map(format_stamp, written.packets.stamps_ns)]
    packet_path, stamp_path = files(tmp_path)
    lines = [" | ".join(texts[:2]), "nan", " | ".join(texts[2:])]
    assert packet_path.read_text().splitlines() == lines
    assert stamp_path.read_text().splitlines() == [
        " | ".join(stamps[:2]),
        "nan",
        " | ".join(stamps[2:]),
    ]
    data = sorted((tmp_path / "matched_oxts" / "data").iterdir())
    assert [path.name for path in data] == [f"{i:010d}.txt" for i in range(3)]
    assert [path.read_text() for path in data] == [line + "\n" for line in lines]
    assert json.loads((tmp_path / "matched_oxts" / "report.json").read_text()) == {"valid": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["matched_oxts"]


def test_files_of_others_read_as_they_are(tmp_path):
    written = imu([11, 12, 0, 11])
    write_matched(tmp_path, written, {})
    packet_path, stamp_path = files(tmp_path)
    packet_lines = packet_path.read_text().replace(" | ", "|").split("\n")
    stamp_lines = stamp_path.read_text().replace(" | ", "  |\t").split("\n")
    stamp_lines[1] = "nan"  # of packets that are there
    packet_path.with_name("noisy.txt").write_text("\r\n".join([*packet_lines, "", ""]))
    stamp_path.write_text("\r\n".join(stamp_lines).rstrip())
    read = read_matched(tmp_path, "noisy.txt")
    assert read.valid.tolist() == [True, False, False, True]
    kept = written.packets.select(np.r_[:11, 23:34])
    np.testing.assert_array_equal(read.packets.values, kept.values)
    np.testing.assert_array_equal(read.packets.stamps_ns, kept.stamps_ns)


def test_reasons_come_back_from_the_report(tmp_path):
    report = {"dropped": {"GAP": {"intervals": [0, 3]}, "NO_TWIN": {"intervals": [2]}}}
    write_matched(tmp_path, imu([0, 11, 0, 0, 0]), report)
    expected = (Reason.GAP, None, Reason.NO_TWIN, Reason.GAP, Reason.NAN_IN_FILE)
    assert read_matched(tmp_path).reasons == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"dropped": null}',
        '{"dropped": {"GAP": 3}}',
        '{"dropped": {"X": {"intervals": [1]}}}',
    ],
)
def test_a_report_that_is_none_of_ours_is_passed_over_and_said_so(tmp_path, caplog, text):
    write_matched(tmp_path, imu([3, 0]), {})
    (tmp_path / "matched_oxts" / "report.json").write_text(text)
    assert read_matched(tmp_path).reasons == (None, Reason.NAN_IN_FILE)
    assert "report.json: not a report of match_kitti_imu.py" in caplog.text


def test_an_error_between_the_two_renames_brings_the_old_folder_back(tmp_path, monkeypatch):
    write_matched(tmp_path, imu([2]), {})
    rename = Path.rename

    def failing(path, target):
        if path.name.startswith(".matched_oxts.new"):
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no"):
        write_matched(tmp_path, imu([3, 3]), {})
    assert len(read_matched(tmp_path)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["matched_oxts"]


def test_the_number_of_images_is_checked_on_demand(tmp_path):
    write_matched(tmp_path, imu([3, 3]), {})
    assert len(read_matched(tmp_path, frames=3)) == 2
    with pytest.raises(DataError, match="2 lines, but 4 images have 3 intervals between them"):
        read_matched(tmp_path, frames=4)


def test_one_interval_can_be_looked_at():
    source = imu([2, 0, 3])
    np.testing.assert_array_equal(source.interval(2).stamps_ns, source.packets.stamps_ns[2:])
    assert len(source.interval(1)) == 0


def damage(line, position, text):
    def change(content):
        lines = content.splitlines()
        entries = lines[line - 1].split(" | ")
        entries[position : position + 1] = text
        lines[line - 1] = " | ".join(entries)
        return "\n".join(lines)

    return change


@pytest.mark.parametrize(
    "file, change, message",
    [
        (0, damage(2, 1, []), r"matched_oxts\.txt, line 2: 2 packets, but 3 stamps in matched_tim"),
        (0, damage(2, 1, ["1 2"]), r"matched_oxts\.txt, line 2: entry 2: expected 30 numbers, got"),
        (0, damage(2, 1, ["nan"]), r"matched_oxts\.txt, line 2: entry 2: expected 30 numbers"),
        (0, damage(2, 1, ["", ""]), r"matched_oxts\.txt, line 2: entry 2: expected 30 numbers"),
        (0, damage(2, 0, ["nan " * 30]), r"line 2: entry 1: number 1 \(lat\) is 'nan'"),
        (1, damage(2, 2, ["soon"]), r"stamps\.txt, line 2: entry 3: expected a stamp like"),
        (1, damage(2, 1, [format_stamp(START_NS)]), r"stamps\.txt, line 2: stamp .* is not after"),
        (0, lambda content: "nan\n" + content, r"matched_oxts\.txt: 5 lines, but .* has 4"),
        (1, lambda content: content.replace("nan", ""), r"line 3: entry 1: expected a stamp like"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, file, change, message):
    write_matched(tmp_path, imu([3, 3, 0, 3]), {})
    path = files(tmp_path)[file]
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=message):
        read_matched(tmp_path)


def test_one_packet_is_no_interval(tmp_path):
    write_matched(tmp_path, imu([1]), {})
    with pytest.raises(DataError, match=r"oxts\.txt, line 1: expected at least 2 entries or nan"):
        read_matched(tmp_path)


@pytest.mark.parametrize("file", [0, 1])
def test_a_missing_file_is_named(tmp_path, file):
    write_matched(tmp_path, imu([3]), {})
    path = files(tmp_path)[file]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path.name}: no such file"):
        read_matched(tmp_path)


# Padding


@pytest.mark.parametrize("step_ns", [10_000_001, 10_000_000, 1])
def test_steps_are_the_nearest_floats_to_whole_nanoseconds(step_ns):
    dt = imu([3], step_ns).padded().dt
    assert (dt == float(Fraction(step_ns, 10**9))).all()


def test_padding_adds_steps_of_no_length_with_the_last_sample():
    source = imu([11, 0, 13, 2], step_ns=9_999_999)
    samples = source.padded()
    assert samples.dt.shape == (4, 12) and samples.gyro.shape == samples.accel.shape == (4, 13, 3)
    assert samples.valid.tolist() == [True, False, True, True]
    for i, (begin, end) in enumerate(zip(source.offsets, source.offsets[1:], strict=False)):
        if begin == end:
            assert not samples.dt[i].any() and not samples.gyro[i].any()
            assert not samples.accel[i].any()
            continue
        length = end - begin
        assert (samples.dt[i, : length - 1] == 0.009999999).all()
        assert not samples.dt[i, length - 1 :].any()
        for padded, raw in (
            (samples.gyro[i], source.packets.gyro[begin:end]),
            (samples.accel[i], source.packets.accel[begin:end]),
        ):
            np.testing.assert_array_equal(padded[:length], raw)
            np.testing.assert_array_equal(padded[length:], np.tile(raw[-1], (13 - length, 1)))


@pytest.mark.parametrize("lengths", [[], [0, 0]])
def test_without_packets_there_is_one_step_of_no_length(lengths):
    samples = imu(lengths).padded()
    assert samples.dt.shape == (len(lengths), 1)
    assert samples.gyro.shape == (len(lengths), 2, 3)
    assert not samples.valid.any() and not samples.dt.any() and not samples.speed.any()


def test_drives_are_padded_to_one_length():
    source = imu([11, 0, 13])
    samples, longer = source.padded(), source.padded(15)
    assert longer.dt.shape == (3, 15)
    np.testing.assert_array_equal(longer.dt[:, :12], samples.dt)
    np.testing.assert_array_equal(longer.gyro[:, :13], samples.gyro)
    assert not longer.dt[:, 12:].any()
    with pytest.raises(
        ValueError, match="steps: expected at least 12, the longest interval, got 11"
    ):
        source.padded(11)


def test_speed_is_that_of_the_first_packet():
    source = imu([3, 0, 2, 0])
    speed = source.packets.speed
    np.testing.assert_array_equal(source.padded().speed, [speed[0], 0, speed[3], 0])


def test_padded_intervals_are_what_the_preintegration_takes():
    samples = imu([11, 0, 13]).padded()
    dt, gyro, accel = (torch.from_numpy(x) for x in samples[:3])
    motion = preintegrate(dt, gyro, accel)
    assert motion.position.isfinite().all()
    alone = preintegrate(dt[0, :10], gyro[0, :11], accel[0, :11])
    torch.testing.assert_close(motion.position[0], alone.position)


# Whole or not at all


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("at", [1, 3, 6])
def test_a_killed_run_leaves_the_old_folder_and_the_next_one_tidies(
    tmp_path, monkeypatch, existing, at
):
    if existing:
        write_matched(tmp_path, imu([2]), {"run": 1})
    calls, write = [], matched.write_bytes

    def dying(path, content):
        calls.append(path)
        if len(calls) == at:
            raise Killed
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(matched, "write_bytes", dying)
        patch.setattr(matched.shutil, "rmtree", lambda *_, **__: None)  # it is dead
        with pytest.raises(Killed):
            write_matched(tmp_path, imu([3, 3, 3]), {"run": 2})
    assert (tmp_path / "matched_oxts").exists() == existing
    if existing:
        assert len(read_matched(tmp_path)) == 1
    write_matched(tmp_path, imu([3, 3]), {"run": 3})
    assert len(read_matched(tmp_path)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["matched_oxts"]


def test_a_run_killed_between_its_own_two_renames_loses_nothing(tmp_path, monkeypatch):
    write_matched(tmp_path, imu([2]), {"run": 1})
    rename, calls = Path.rename, []

    def dying(path, target):
        calls.append(path)
        if len(calls) == 2:
            raise Killed
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying)
        patch.setattr(matched, "tidy", lambda _: None)  # it is dead
        with pytest.raises(Killed):
            write_matched(tmp_path, imu([3, 3]), {"run": 2})
    matched.tidy(tmp_path)
    assert len(read_matched(tmp_path)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["matched_oxts"]


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_folder_is_not_replaced(tmp_path, kind):
    final, target = tmp_path / "matched_oxts", tmp_path / "elsewhere"
    target.mkdir()
    if kind == "link":
        final.symlink_to(target)
    else:
        final.write_text("x")
    with pytest.raises(DataError, match="matched_oxts: not a folder but a link or a file"):
        write_matched(tmp_path, imu([3]), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "matched_oxts"]


def test_a_full_disk_is_said_with_the_file_and_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*matched_oxts\.txt'"):
        write_matched(tmp_path, imu([3]), {})
    assert not list(tmp_path.iterdir())
