"""The command line of the evaluation of odometry, from end to end."""

from __future__ import annotations

import json

import pytest
from evo.tools import file_interface

import evaluate_odometry
from tests.evaluation_tree import write_weights
from tests.odometry_drives import DATE, DRIVE, record
from tests.training_runs import use_small_networks

FRAMES = 30


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    use_small_networks(monkeypatch)
    monkeypatch.setattr("evaluation.weights.resnet_layers_of", lambda _: 18)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    record(root, FRAMES)
    return root


@pytest.fixture
def usual(data, tmp_path):
    folder = write_weights(tmp_path / "run" / "weights_0", "--use_ekf")
    words = f"--data_path {data} --load_weights_folder {folder} --num_workers 0 --no_cuda"
    return words.split()


def test_a_drive_from_files_to_a_table(usual, tmp_path, capsys):
    out, file = tmp_path / "out", tmp_path / "all.json"
    words = ["--out", str(out), "--json", str(file), "--start", "recorded"]
    assert evaluate_odometry.main([*usual, *words]) == 0
    printed = capsys.readouterr().out
    assert f"{DRIVE}: images 0 to {FRAMES - 1}" in printed
    for said in ("camera  unaligned", "imu     unaligned", "filter  unaligned", "7dof", "unknown:"):
        assert said in printed, said
    assert f"written: {out}" in printed and f"written: {file}" in printed
    assert "mean of" not in printed
    (drive,) = json.loads(file.read_text())["drives"]
    # An IMU without errors that begins as recorded.
    assert drive["errors"]["imu"]["aligned"]["unaligned"]["ate_m"] < 0.02
    poses = file_interface.read_kitti_poses_file(out / DRIVE / "imu_kitti.txt")
    truth = file_interface.read_kitti_poses_file(out / DRIVE / "truth_kitti.txt")
    assert truth.path_length > 2
    assert abs(poses.path_length - truth.path_length) < 0.02


def test_several_drives_have_a_mean(usual, data, capsys):
    other = data / DATE / f"{DATE}_drive_0004_sync"
    if not other.exists():
        other.symlink_to(data / DATE / f"{DRIVE}_sync")
    names = [DRIVE, f"{DATE}_drive_0004"]
    assert evaluate_odometry.main([*usual, "--drives", *names, "--frames", "0", "5"]) == 0
    printed = capsys.readouterr().out
    assert f"mean of 2 drives: {', '.join(names)}" in printed
    assert printed.count("camera  unaligned") == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--drives", "nothing"], "expected a drive like"),
        (["--drives", "2011_09_26_drive_0001"], "no such folder"),
        (["--load_weights_folder", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words, message, usual, capsys):
    assert evaluate_odometry.main([*usual, *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("evaluate_odometry: ") and message in line


def test_errors_are_shown_even_if_nothing_can_be_written(usual, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "top_view.png")

    monkeypatch.setattr("evaluation.odometry_run.write_trajectories", full)
    words = ["--out", str(tmp_path / "out"), "--start", "recorded"]
    assert evaluate_odometry.main([*usual, *words]) == 2
    out, err = capsys.readouterr()
    assert "unaligned" in out and err.strip().endswith("top_view.png: no space left on device")
