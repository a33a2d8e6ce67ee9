"""The command: what it prints, what it writes, and how a user's mistake ends."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import match_kitti_imu
from tests.kitti_tree import DATE, DRIVE, make_tree

ROOT = Path(__file__).parent.parent
OTHER = f"{DATE}_drive_0002"


def call(capsys, *arguments):
    code = match_kitti_imu.main([*map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def tree(tmp_path):
    make_tree(tmp_path, drive=OTHER)
    return make_tree(tmp_path)


@pytest.fixture
def paths(tree):
    return "--raw_path", tree.root, "--sync_path", tree.root


def test_all_drives_are_matched_and_summed_up(tree, paths, capsys):
    code, out, err = call(capsys, *paths)
    assert (code, err) == (0, "")
    assert f"{DRIVE}  written" in out and f"{OTHER}  written" in out
    assert out.splitlines()[-1] == "2 drives: 2 written; 10 of 10 intervals valid"
    assert len(list(tree.root.rglob("matched_oxts/matched_oxts.txt"))) == 2
    code, out, _ = call(capsys, *paths)
    assert code == 0 and out.splitlines()[-1] == "2 drives: 2 skipped"


def test_options_reach_the_matching(tree, paths, capsys):
    options = ("--drives", DRIVE, "--align", "camera", "--max_drift_ms", "3.5")
    assert call(capsys, *paths, *options)[0] == 0
    report = (tree.sync / "matched_oxts" / "report.json").read_text()
    assert '"align": "camera"' in report and '"max_drift_ms": 3.5' in report
    assert len(list(tree.root.rglob("matched_oxts"))) == 1
    assert call(capsys, *paths, "--drives", DRIVE, "--overwrite")[0] == 0
    assert '"align": "packet"' in (tree.sync / "matched_oxts" / "report.json").read_text()


def test_a_check_writes_nothing(tree, paths, capsys):
    code, out, _ = call(capsys, *paths, "--check")
    assert code == 0 and "2 checked; 10 of 10" in out
    assert not list(tree.root.rglob("matched_oxts"))


def test_a_split_chooses_drives(tree, paths, capsys):
    mine = tree.root / "splits" / "mine"
    code, out, err = call(capsys, *paths, "--split", mine)
    assert (code, out) == (2, "")
    assert err.startswith("match_kitti_imu: ") and "eigen_zhou" in err and err.count("\n") == 1
    mine.mkdir(parents=True)
    (mine / "val_files.txt").write_text(f"{DATE}/{OTHER}_sync 1 l\n")
    code, out, _ = call(capsys, *paths, "--split", mine)
    assert code == 0 and OTHER in out and DRIVE not in out
    code, out, _ = call(capsys, *paths, "--split", "test")  # of the project's own
    assert code == 0 and DRIVE in out and OTHER not in out


def test_a_failed_drive_does_not_stop_the_others(tree, paths, capsys):
    tree.raw_stamps.unlink()
    code, out, err = call(capsys, *paths)
    assert (code, err) == (1, "")
    assert f"{DRIVE}  failed: {tree.raw_stamps}: no such file" in out
    assert "2 drives: 1 written, 1 failed; 5 of 5 intervals valid" in out


def test_more_workers_write_and_say_the_same(tree, paths, capsys):
    tree.raw_file(17).write_text("x")
    runs = []
    for workers in (1, 2):
        code, out, _ = call(capsys, *paths, "--workers", workers, "--overwrite")
        written = sorted(tree.root.rglob("matched_oxts/**/*.*"))
        runs.append((code, out, [(path, path.read_bytes()) for path in written if path.is_file()]))
    assert runs[0] == runs[1]


def test_the_time_offset_is_printed(tmp_path, capsys):
    make_tree(tmp_path, frames=60, image_delay_ns=12_600_000, raw_lead=5)
    paths = ("--raw_path", tmp_path, "--sync_path", tmp_path)
    options = ("--estimate_time_offset", "--max_offset_ms", 100)
    code, out, _ = call(capsys, *paths, *options)
    assert code == 0 and f"{DRIVE}  time offset: -12.6" in out
    assert out.splitlines()[-1] == "1 drive: 1 estimated"


@pytest.mark.parametrize(
    "options, message",
    [
        (["--drives", "0001"], "expected a drive like 2011_09_26_drive_0001, got '0001'"),
        (["--drives", f"{DATE}_drive_0009"], "no _sync and no _extract folder of this drive"),
        (["--max_drift_ms", "-1"], "max_drift_ms: expected a number from 0 to 1e+06, got -1.0"),
        (["--max_drift_ms", "nan"], "max_drift_ms: expected a number from 0 to 1e+06, got nan"),
        (["--estimate_time_offset", "--max_offset_ms", "0"], "range of time offsets: expected at"),
        (["--estimate_time_offset", "--rotations", "x"], "--rotations is of one drive: name it"),
        (["--workers", "0"], "workers: expected at least 1, got 0"),
        (["--raw_path", "absent"], "absent: no such folder"),
    ],
)
def test_a_mistake_ends_in_one_line(paths, capsys, options, message):
    code, out, err = call(capsys, *paths, *options)
    assert (code, out) == (2, "")
    assert err.startswith("match_kitti_imu: ") and message in err and err.count("\n") == 1


def test_it_runs_from_its_folder_without_a_traceback(tree):
    command = [sys.executable, "match_kitti_imu.py", "--raw_path", tree.root, "--sync_path"]
    done = subprocess.run([*command, tree.root], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    shutil.rmtree(tree.root / DATE)
    failed = subprocess.run([*command, tree.root], cwd=ROOT, capture_output=True, text=True)
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1
