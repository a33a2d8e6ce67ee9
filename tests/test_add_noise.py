"""Noisy variants of the matched IMU: what changes, by how much, and whose files are touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets import add_noise
from datasets.add_noise import Noise, Outcome, draw, remove_noise
from datasets.drives import Drive, MatchOptions, match_drive
from datasets.matched import MatchedImu, Reason, offsets_of, read_matched, write_matched
from datasets.oxts import FIELDS, Packets
from datasets.text import DataError
from tests.kitti_tree import DATE, DRIVE, START_NS, make_tree, packet_line, packets

ROOT = Path(__file__).parent.parent
OTHER = f"{DATE}_drive_0002"
GYRO, ACCEL, VELOCITY = ("wx", "wy", "wz"), ("ax", "ay", "az"), ("vf", "vl", "vu")
OUTPUT = "noisy.txt"
BOTH = Noise("both", {"gyro": 0.01, "accel": 0.1}, misalignment=0.02, seed=0, output=OUTPUT)
NONE = Noise("both", {"gyro": 0, "accel": 0}, misalignment=0, seed=0, output=OUTPUT)


def write_drive(root, lengths=(11, 0, 12), drive=DRIVE):
    """Write intervals of so many packets, each beginning with the last one of that before."""
    starts = np.cumsum([0, *(max(n - 1, 0) for n in lengths)])
    rows = np.concatenate([np.arange(i, i + n) for i, n in zip(starts, lengths, strict=False)])
    values = packets(0.01 * rows)
    measured = [FIELDS.index(name) for name in GYRO + ACCEL + VELOCITY]
    values[:, measured] += np.random.default_rng(1).uniform(-2, 2, (rows.max() + 1, 9))[rows]
    texts = tuple(packet_line(packet) for packet in values)
    stamps_ns = START_NS + 10_000_000 * rows
    reasons = tuple(None if n else Reason.GAP for n in lengths)
    imu = MatchedImu(Packets(values, stamps_ns, texts), offsets_of(lengths), reasons)
    folder = Drive.parse(drive).sync(root)
    write_matched(folder, imu, {"dropped": {"GAP": {"intervals": [1]}}})
    return folder / "matched_oxts"


@pytest.fixture
def folder(tmp_path):
    return write_drive(tmp_path)


def noisy(root, noise=BOTH, drive=DRIVE):
    """Write a variant and return its folder's new text."""
    report = add_noise.add_noise(Drive.parse(drive), root, noise)
    assert report.outcome is Outcome.WRITTEN, report
    return Drive.parse(drive).sync(root) / "matched_oxts" / noise.output


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def before_and_after(path, *names):
    drive = path.parent.parent
    return (read_matched(drive, file).packets.fields(*names) for file in ("matched_oxts.txt", path))


# What changes


@pytest.mark.parametrize(
    "sensors, changed",
    [
        (("gyro",), GYRO),
        (("accel",), ACCEL),
        (("gyro", "accel"), GYRO + ACCEL),
        (("velocity",), VELOCITY),
    ],
)
def test_only_the_fields_of_the_sensor_change(tmp_path, folder, sensors, changed):
    others = contents(folder)
    path = noisy(tmp_path, replace(BOTH, strengths=dict.fromkeys(sensors, 0.1)))
    old, new = ((folder / name).read_text() for name in ("matched_oxts.txt", OUTPUT))
    old, new = (text.replace("\n", " \n ").split(" ") for text in (old, new))
    different = [i for i, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1]]
    assert len(different) == 23 * len(changed)
    numbers = [i for i, word in enumerate(old) if word not in ("|", "\n", "nan", "")]
    assert {FIELDS[numbers.index(i) % 30] for i in different} == set(changed)
    assert all(repr(float(new[i])) == new[i] for i in different)  # no digit too many or too few
    now = contents(folder)
    assert set(now) - set(others) == {OUTPUT, "noisy.json"} and others.items() <= now.items()
    before, after = read_matched(path.parents[1]), read_matched(path.parents[1], OUTPUT)
    np.testing.assert_array_equal(after.packets.stamps_ns, before.packets.stamps_ns)
    np.testing.assert_array_equal(after.offsets, before.offsets)
    assert after.reasons == before.reasons == (None, Reason.GAP, None)
    if "velocity" in sensors:
        assert (after.packets.speed != before.packets.speed).all()


UNUSUAL = {
    "as written": lambda text: text,
    "CRLF and blank lines": lambda text: (text + "\n\n").replace("\n", "\r\n"),
    "a BOM and blanks": lambda text: "\ufeff  " + text.replace(" ", "\t ").replace("nan", "NaN "),
    "no blanks, no end": lambda text: text.replace(" | ", "|").rstrip("\n"),
    "customary digits": lambda text: text.replace("4 5 6 7 8", "4 5.0 -0.0 7e0 +008"),
}


@pytest.mark.parametrize("unusual", UNUSUAL)
def test_the_text_of_all_else_stays_to_the_byte(tmp_path, folder, unusual):
    source = folder / "matched_oxts.txt"
    source.write_bytes(UNUSUAL[unusual](source.read_text()).encode())
    assert noisy(tmp_path, NONE).read_bytes() == source.read_bytes()
    path = noisy(tmp_path, replace(BOTH, overwrite=True))
    before, after = before_and_after(path, *FIELDS)
    rows = [FIELDS.index(name) for name in GYRO + ACCEL]
    assert (before != after).sum(0).tolist() == [23 * (i in rows) for i in range(30)]
    restored = path.read_bytes().decode()
    for row in range(23):
        for column in rows:
            new, old = repr(after[row, column].item()), repr(before[row, column].item())
            restored = restored.replace(new, old)
    assert restored.encode() == source.read_bytes()


def test_without_noise_numbers_keep_their_bits_and_digits(tmp_path, folder):
    source = folder / "matched_oxts.txt"
    words = source.read_text().split(" ")
    words[FIELDS.index("wx")], words[FIELDS.index("wy")] = "-0.0", "0.10"
    source.write_text(" ".join(words))
    path = noisy(tmp_path, NONE)
    assert path.read_bytes() == source.read_bytes()
    before, after = before_and_after(path, *FIELDS)
    assert before.tobytes() == after.tobytes()


def test_an_interval_whose_stamps_are_nan_stays(tmp_path, folder):
    stamps = folder / "matched_timestamps.txt"
    stamps.write_text("nan\n" + stamps.read_text().split("\n", 1)[1])
    path = noisy(tmp_path)
    old, new = ((folder / name).read_text().split("\n") for name in ("matched_oxts.txt", OUTPUT))
    assert [a == b for a, b in zip(old, new, strict=True)] == [True, True, False, True]
    assert read_matched(path.parents[1], OUTPUT).valid.tolist() == [False, False, True]


# By how much


def test_noise_is_the_misalignment_of_the_record_and_white(tmp_path):
    write_drive(tmp_path, [401] * 10)
    path = noisy(tmp_path)
    E = json.loads((path.parent / "noisy.json").read_text())["E"]
    for sensor, names, sigma in (("gyro", GYRO, 0.01), ("accel", ACCEL, 0.1)):
        m, m_noisy = before_and_after(path, *names)
        m, m_noisy = (np.delete(x, np.s_[401::401], 0) for x in (m, m_noisy))  # each packet once
        fit, _, _, _ = np.linalg.lstsq(m, m_noisy - m, rcond=None)
        deviation = sigma * np.sqrt(np.linalg.inv(m.T @ m).diagonal()).max()
        np.testing.assert_allclose(fit.T, E[sensor], rtol=0, atol=5 * deviation)
        assert np.abs(E[sensor]).min() > 1e-4 and 5 * deviation < 0.01
        n = m_noisy - m - m @ np.transpose(E[sensor])
        np.testing.assert_allclose(n.std(0), sigma, rtol=0.06)
        assert np.abs(np.corrcoef(n.T) - np.eye(3)).max() < 0.08
        assert np.abs([np.corrcoef(x[1:], x[:-1])[0, 1] for x in n.T]).max() < 0.08


def test_misalignments_of_many_drives_are_independent_entries_of_one_size():
    drives = [Drive(DATE, f"{i:04d}") for i in range(400)]
    E = np.array([draw(BOTH, d, "gyro", np.zeros(1))[0].ravel() for d in drives])
    np.testing.assert_allclose(E.std(0), 0.02, rtol=0.15)
    np.testing.assert_allclose(E.mean(0), 0, atol=5 * 0.02 / np.sqrt(400))
    assert np.abs(np.corrcoef(E.T) - np.eye(9)).max() < 0.25


def test_without_white_noise_it_is_the_misalignment_alone(tmp_path, folder):
    path = noisy(tmp_path, replace(BOTH, strengths={"velocity": 0.0}, misalignment=0.3))
    E = json.loads((folder / "noisy.json").read_text())["E"]["velocity"]
    m, m_noisy = before_and_after(path, *VELOCITY)
    np.testing.assert_allclose(m_noisy, m @ (np.eye(3) + E).T, rtol=0, atol=1e-14)


def test_a_packet_of_two_intervals_has_the_same_noise_in_both(tmp_path):
    make_tree(tmp_path, frames=40)
    assert match_drive(Drive.parse(DRIVE), MatchOptions(tmp_path, tmp_path)).details["valid"] == 39
    imu = read_matched(noisy(tmp_path).parents[1], OUTPUT)
    first, last = imu.offsets[1:-1], imu.offsets[1:-1] - 1
    np.testing.assert_array_equal(imu.packets.stamps_ns[first], imu.packets.stamps_ns[last])
    np.testing.assert_array_equal(imu.packets.values[first], imu.packets.values[last])
    assert len(np.unique(imu.packets["wx"])) == len(np.unique(imu.packets.stamps_ns))


def test_equal_stamps_have_equal_noise_wherever_they_stand():
    stamps_ns = np.array([5, 9, 7, 9, 5])
    _, n = draw(BOTH, Drive.parse(DRIVE), "accel", stamps_ns)
    np.testing.assert_array_equal(n[[0, 1]], n[[4, 3]])
    assert len(np.unique(n)) == 9


# The same again


def test_noise_depends_on_seed_drive_and_sensor_alone(tmp_path):
    drive, stamps_ns = Drive.parse(DRIVE), np.arange(4)
    E, n = draw(BOTH, drive, "gyro", stamps_ns)
    same = replace(BOTH, strengths={"gyro": 0.01}, type="gyro", output="x.txt", overwrite=True)
    for a, b in zip(draw(same, drive, "gyro", stamps_ns), (E, n), strict=True):
        np.testing.assert_array_equal(a, b)
    unlike = [
        draw(replace(BOTH, seed=1), drive, "gyro", stamps_ns),
        draw(BOTH, Drive.parse(OTHER), "gyro", stamps_ns),
        draw(replace(BOTH, strengths={"accel": 0.01}), drive, "accel", stamps_ns),
    ]
    every = np.concatenate([np.ravel(x) for pair in (*unlike, (E, n)) for x in pair])
    assert len(np.unique(every)) == len(every) == 4 * (9 + 12)


def test_both_is_gyro_and_accel(tmp_path, folder):
    paths = [
        noisy(tmp_path, replace(BOTH, strengths=strengths, output=f"{name}.txt"))
        for name, strengths in (("b", BOTH.strengths), ("g", {"gyro": 0.01}), ("a", {"accel": 0.1}))
    ]
    both, gyro, accel = (read_matched(folder.parent, path.name).packets for path in paths)
    np.testing.assert_array_equal(both.gyro, gyro.gyro)
    np.testing.assert_array_equal(both.accel, accel.accel)


def test_the_same_bytes_come_out_in_another_order_company_and_process(tmp_path, capsys):
    alone, first, last = (write_drive(tmp_path / name) for name in ("alone", "first", "last"))
    write_drive(tmp_path / "first", drive=OTHER)
    write_drive(tmp_path / "last", drive=f"{DATE}_drive_0000")
    broken = write_drive(tmp_path / "last", drive=OTHER) / "matched_oxts.txt"
    broken.write_text("x")
    command = ["--type", "both", "--data_path"]
    for root in ("alone", "first"):
        assert call(capsys, *command, tmp_path / root)[0] == 0
    program = [sys.executable, "-m", "datasets.add_noise", *command, tmp_path / "last"]
    done = subprocess.run([*program, "--workers", "2"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-1] == "3 drives: 2 written, 1 failed"
    for name in ("matched_oxts_both.txt", "matched_oxts_both.json"):
        written = {folder.joinpath(name).read_bytes() for folder in (alone, first, last)}
        assert len(written) == 1


# Whose files are touched


def test_a_variant_that_is_there_is_skipped_or_replaced(tmp_path, folder):
    noisy(tmp_path)
    before = contents(folder)
    report = add_noise.add_noise(Drive.parse(DRIVE), tmp_path, BOTH)
    assert report.outcome is Outcome.SKIPPED and "has noisy.txt already" in str(report)
    other = replace(BOTH, seed=1)
    report = add_noise.add_noise(Drive.parse(DRIVE), tmp_path, other)
    assert report.outcome is Outcome.SKIPPED and "has noisy.txt of other options" in str(report)
    assert contents(folder) == before
    noisy(tmp_path, replace(other, overwrite=True))
    assert contents(folder)[OUTPUT] != before[OUTPUT]
    assert json.loads(contents(folder)["noisy.json"])["seed"] == 1


FOREIGN = {
    "a text alone": {OUTPUT: "x"},
    "details alone": {"noisy.json": "{}"},
    "no details": {OUTPUT: "x", "noisy.json": "not json"},
    "a list": {OUTPUT: "x", "noisy.json": "[]"},
    "other details": {OUTPUT: "x", "noisy.json": '{"made_by": "me"}'},
    "our details beside another text": {OUTPUT: "x"},
}


@pytest.mark.parametrize("foreign", FOREIGN)
def test_what_others_made_is_neither_replaced_nor_removed(tmp_path, folder, foreign):
    if foreign.startswith("our"):
        noisy(tmp_path)
    for name, text in FOREIGN[foreign].items():
        (folder / name).write_text(text)
    before = contents(folder)
    drive = Drive.parse(DRIVE)
    for report in (
        add_noise.add_noise(drive, tmp_path, BOTH),
        add_noise.add_noise(drive, tmp_path, replace(BOTH, overwrite=True)),
        remove_noise(drive, tmp_path, OUTPUT),
    ):
        assert report.outcome is Outcome.FAILED and "not made by add_noise, or chang" in report.note
    assert contents(folder) == before


def test_removing_leaves_all_that_was_there_before(tmp_path, folder):
    before = contents(folder)
    noisy(tmp_path, replace(BOTH, output="other.txt"))
    with_other = contents(folder)
    noisy(tmp_path)
    assert remove_noise(Drive.parse(DRIVE), tmp_path, OUTPUT).outcome is Outcome.REMOVED
    assert contents(folder) == with_other
    assert remove_noise(Drive.parse(DRIVE), tmp_path, OUTPUT).outcome is Outcome.ABSENT
    assert remove_noise(Drive.parse(DRIVE), tmp_path, "other.txt").outcome is Outcome.REMOVED
    assert contents(folder) == before


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("at", [0, 1])
def test_a_killed_run_leaves_no_text_beside_details_of_another(tmp_path, folder, monkeypatch, at):
    noisy(tmp_path)
    calls, real = [], os.replace

    def dying(source, target):
        calls.append(target)
        if len(calls) > at:
            raise Killed
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(Killed):
            noisy(tmp_path, replace(BOTH, seed=1, overwrite=True))
    assert OUTPUT not in contents(folder) and not list(folder.glob(".*"))
    noisy(tmp_path, replace(BOTH, seed=2))
    assert json.loads(contents(folder)["noisy.json"])["seed"] == 2
    if at:
        (folder / OUTPUT).unlink()  # details alone, but our own
        assert remove_noise(Drive.parse(DRIVE), tmp_path, OUTPUT).outcome is Outcome.REMOVED
        assert not {OUTPUT, "noisy.json"} & set(contents(folder))


def test_a_full_disk_leaves_the_old_variant(tmp_path, folder, monkeypatch):
    noisy(tmp_path)
    before, write = contents(folder), Path.write_bytes

    def full(path, content):
        if "json" in path.name:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    noise = replace(BOTH, seed=1, overwrite=True)
    report = add_noise.add_noise(Drive.parse(DRIVE), tmp_path, noise)
    assert report.outcome is Outcome.FAILED and "No space left" in report.note
    assert "noisy.json" in report.note and contents(folder) == before


# Mistakes


@pytest.mark.parametrize(
    "output, message",
    [
        ("matched_oxts.txt", "would replace a file of match_kitti_imu.py"),
        ("matched_timestamps.txt", "would replace a file of"),
        ("Matched_Oxts.txt", "would replace a file of"),
        ("report.txt", "would replace a file of"),
        ("report.json", "expected the name of a .txt file, got 'report.json'"),
        ("noisy", "expected the name of a .txt file"),
        (".txt", "expected the name of a .txt file"),
        ("", "expected the name of a .txt file"),
        ("../noisy.txt", "expected the name of a .txt file"),
        ("data/0000000000.txt", "expected the name of a .txt file"),
        ("..\\noisy.txt", "expected the name of a .txt file"),
        ("two\nlines.txt", "expected the name of a .txt file"),
    ],
)
def test_an_output_that_is_not_its_own_is_refused(tmp_path, folder, capsys, output, message):
    before = contents(folder)
    for task in ([], ["--remove"]):
        paths = ["--data_path", tmp_path, "--type", "gyro", "--output", output]
        code, out, err = call(capsys, *paths, *task)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("add_noise: output: ") and message in err
    assert contents(folder) == before


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), 1e10])
@pytest.mark.parametrize("name", ["misalignment", "gyro_noise", "accel_noise"])
def test_a_strength_that_is_none_is_refused_by_its_name(name, value):
    given = {"misalignment": 0.1, "gyro_noise": 0.1, "accel_noise": 0.1, name: value}
    with pytest.raises(DataError, match=rf"^{name}: expected a number from 0 to 1e\+09, got"):
        Noise(
            "both",
            {"gyro": given["gyro_noise"], "accel": given["accel_noise"]},
            misalignment=given["misalignment"],
            seed=0,
            output=OUTPUT,
        )


def test_noise_that_no_reader_would_take_is_not_written(tmp_path, folder):
    before = contents(folder)
    noise = replace(BOTH, strengths={"accel": 1e9}, misalignment=1e9)
    report = add_noise.add_noise(Drive.parse(DRIVE), tmp_path, noise)
    assert report.outcome is Outcome.FAILED and "noise takes ax out of any range" in report.note
    assert contents(folder) == before


# The command line


def call(capsys, *arguments):
    code = add_noise.main([*map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_all_matched_drives_become_noisy_and_are_cleared_again(tmp_path, capsys):
    folders = [write_drive(tmp_path, drive=drive) for drive in (DRIVE, OTHER)]
    make_tree(tmp_path, drive=f"{DATE}_drive_0003")  # not matched
    before = [contents(folder) for folder in folders]
    task = ("--data_path", tmp_path, "--type", "velocity")
    code, out, err = call(capsys, *task)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{DRIVE}  written: 2 of 3 intervals",
        f"{OTHER}  written: 2 of 3 intervals",
        "2 drives: 2 written",
        f"without matched_oxts, left out: 1, first {DATE}_drive_0003",
    ]
    assert (folders[0] / "matched_oxts_velocity.txt").exists()
    code, out, _ = call(capsys, *task)
    assert code == 0 and "2 drives: 2 skipped" in out
    code, out, _ = call(capsys, *task, "--remove", "--drives", DRIVE)
    assert code == 0 and out.splitlines()[-1] == "1 drive: 1 removed"
    code, out, _ = call(capsys, *task, "--remove")
    assert code == 0 and "2 drives: 1 removed, 1 absent" in out
    assert [contents(folder) for folder in folders] == before


def test_options_reach_the_noise(tmp_path, folder, capsys):
    task = ["--data_path", tmp_path, "--type", "both", "--output", OUTPUT]
    strengths = ["--misalignment", 0.5, "--gyro_noise", 0.25, "--accel_noise", 2, "--seed", 7]
    assert call(capsys, *task)[0] == 0
    assert call(capsys, *task, *strengths, "--overwrite")[0] == 0
    details = json.loads((folder / "noisy.json").read_text())
    assert (details["type"], details["seed"], details["misalignment"]) == ("both", 7, 0.5)
    assert details["noise"] == {"gyro": 0.25, "accel": 2}
    assert (details["drive"], details["made_by"]) == (DRIVE, "datasets.add_noise")


def test_a_split_chooses_drives(tmp_path, folder, capsys):
    other = write_drive(tmp_path, drive=OTHER)
    split = tmp_path / "splits" / "mine"
    task = ("--data_path", tmp_path, "--type", "gyro", "--split", split)
    code, out, err = call(capsys, *task)
    assert (code, out, err.count("\n")) == (2, "", 1)
    split.mkdir(parents=True)
    (split / "val_files.txt").write_text(f"{DATE}/{OTHER}_sync 1 l\n{DATE}/{DATE}_drive_0004 1 l\n")
    code, out, _ = call(capsys, *task)
    assert code == 0 and "1 drive: 1 written" in out and f"first {DATE}_drive_0004" in out
    assert (other / "matched_oxts_gyro.txt").exists() and "noisy.txt" not in contents(folder)
    code, out, _ = call(capsys, *task[:-1], "eigen_zhou")
    assert code == 0 and f"{DRIVE}  written" in out and OTHER in out


def test_a_failed_drive_does_not_stop_the_others(tmp_path, folder, capsys):
    write_drive(tmp_path, drive=OTHER)
    source = folder / "matched_oxts.txt"
    source.write_text(source.read_text().replace(" | ", " | x ", 1))
    code, out, err = call(capsys, "--data_path", tmp_path, "--type", "gyro")
    assert (code, err) == (1, "")
    assert f"{DRIVE}  failed: {source}, line 1: entry 2: expected 30 numbers, got 31" in out
    assert out.splitlines()[-1] == "2 drives: 1 written, 1 failed"


@pytest.mark.parametrize(
    "options, message",
    [
        (["--drives", "0001"], "expected a drive like 2011_09_26_drive_0001, got '0001'"),
        (["--drives", OTHER], "0002: no _sync folder of this drive in "),
        (["--drives", DRIVE, f"{DATE}_drive_0003"], "0003: no matched_oxts of this drive in "),
        (["--split", "2011"], "2011"),
        (["--misalignment", "-1"], "misalignment: expected a number from 0 to 1e+09, got -1.0"),
        (["--gyro_noise", "nan"], "gyro_noise: expected a number from 0 to 1e+09, got nan"),
        (["--workers", "0"], "workers: expected at least 1, got 0"),
        (["--data_path", "absent"], "absent: no such folder"),
    ],
)
def test_a_mistake_ends_in_one_line(tmp_path, folder, capsys, options, message):
    make_tree(tmp_path, drive=f"{DATE}_drive_0003")
    before = contents(folder)
    code, out, err = call(capsys, "--data_path", tmp_path, "--type", "gyro", *options)
    assert (code, out) == (2, "")
    assert err.startswith("add_noise: ") and message in err and err.count("\n") == 1
    assert contents(folder) == before


def test_without_a_matched_drive_it_says_what_to_do_first(tmp_path, capsys):
    make_tree(tmp_path)
    code, _, err = call(capsys, "--data_path", tmp_path, "--type", "gyro")
    assert code == 2
    assert "no drive here has matched_oxts: match with match_kitti_imu.py first" in err
