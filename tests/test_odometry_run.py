"""Which drives are evaluated, and what is written of each."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import options
from evaluation.odometry_run import chosen_folders, evaluate_odometry
from evaluation.trajectory_files import read_kitti, read_tum
from tests.evaluation_tree import write_weights
from tests.image_tree import write_list
from tests.odometry_drives import DATE, DRIVE, record
from tests.training_runs import use_small_networks
from tests.training_setup import CAMERA_ALONE
from utils import UserError

FRAMES = 25


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    use_small_networks(monkeypatch)
    monkeypatch.setattr("evaluation.weights.resnet_layers_of", lambda _: 18)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    record(root, FRAMES)
    return root


def weights(tmp_path, *words, told=None):
    return write_weights(tmp_path / "run" / "weights_0", *words, told=told)


def read(data, folder, *words):
    usual = f"--data_path {data} --load_weights_folder {folder} --num_workers 0 --no_cuda"
    return options.evaluate_odometry([*usual.split(), *map(str, words)])


def evaluated(data, folder, *words):
    return list(evaluate_odometry(read(data, folder, *words)))


def test_the_test_drives_of_the_data_are_what_is_evaluated_by_default(data, tmp_path):
    folder = f"{DATE}/{DRIVE}_sync"
    for words in ((), ("--eval_split", "synthetic")):
        assert chosen_folders(read(data, "w", *words)) == [folder]
    assert chosen_folders(read(data, "w", "--eval_split", "odom_9")) == ["09"]
    assert chosen_folders(read(data, "w", "--eval_split", "odom_10")) == ["10"]
    assert chosen_folders(read(data, "w", "--sequences", "9", "00", "9")) == ["09", "00"]
    assert chosen_folders(read(data, "w", "--drives", "b", "a", "b")) == ["b", "a"]
    with pytest.raises(UserError, match="name some by --drives or --sequences"):
        chosen_folders(read(tmp_path, "w"))


def test_all_three_trajectories_are_written_and_read_back(data, tmp_path):
    out = tmp_path / "out"
    words = ("--out", out, "--json", tmp_path / "new" / "all.json", "--batch_size", 5)
    (found,) = evaluated(data, weights(tmp_path, "--use_ekf"), *words)
    assert list(found.errors) == ["camera", "imu", "filter"] and not found.absent
    assert found.frames == (0, FRAMES - 1) and found.way_m > 1
    names = {path.name for path in (out / DRIVE).iterdir()}
    kinds = ("truth", "camera", "imu", "filter")
    expected = {f"{kind}_{form}.txt" for kind in kinds for form in ("kitti", "tum")}
    assert names == expected | {"top_view.png"}
    for kind in kinds:
        T = read_kitti(out / DRIVE / f"{kind}_kitti.txt")
        stamps_s, from_tum = read_tum(out / DRIVE / f"{kind}_tum.txt")
        assert T.shape == (FRAMES, 4, 4) and np.allclose(T[0], np.eye(4), atol=1e-9)
        assert np.allclose(T, from_tum, atol=1e-6)
        assert np.allclose(np.diff(stamps_s), 0.1031, atol=2e-3)
    assert Image.open(out / DRIVE / "top_view.png").size[0] > 400
    written = json.loads((tmp_path / "new" / "all.json").read_text())
    ate = written["drives"][0]["errors"]["imu"]["aligned"]["unaligned"]["ate_m"]
    assert ate == found.errors["imu"].aligned["unaligned"].ate_m
    assert written["weights"].endswith("weights_0")


def test_the_truth_in_the_files_is_that_of_the_errors(data, tmp_path):
    out = tmp_path / "out"
    (found,) = evaluated(data, weights(tmp_path), "--out", out, "--frames", 2, 9)
    truth, camera = (read_kitti(out / DRIVE / f"{k}_kitti.txt") for k in ("truth", "camera"))
    distance_m = np.linalg.norm((truth - camera)[:, :3, 3], axis=1)
    ate_m = np.sqrt((distance_m**2).mean())
    assert found.errors["camera"].aligned["unaligned"].ate_m == pytest.approx(ate_m, abs=1e-9)


def test_without_truth_there_are_trajectories_and_it_is_said(data, tmp_path):
    root = tmp_path / "tree"
    shutil.copytree(data, root)
    sync = root / DATE / f"{DRIVE}_sync"
    (sync / "truth" / "poses.txt").unlink()
    shutil.rmtree(sync / "oxts")
    (found,) = evaluated(root, weights(tmp_path), "--out", tmp_path / "out")
    assert found.errors == {} and found.way_m is None
    assert "there are trajectories and no errors: no " in found.truth
    names = {path.name for path in (tmp_path / "out" / DRIVE).glob("*_kitti.txt")}
    assert names == {"camera_kitti.txt", "imu_kitti.txt", "filter_kitti.txt"}


def test_weights_of_the_camera_alone(data, tmp_path):
    folder = weights(tmp_path, *CAMERA_ALONE)
    (found,) = evaluated(data, folder)
    assert list(found.errors) == ["camera"]
    assert "no velocity network" in found.absent["imu"] and "recorded" in found.absent["filter"]
    assert any("without IMU and stereo" in note for note in found.notes)
    (found,) = evaluated(data, folder, "--start", "recorded")
    assert list(found.errors) == ["camera", "imu", "filter"]
    assert found.start.startswith("recorded by the OXTS unit")
    assert any("trained without the filter" in note for note in found.notes)
    with pytest.raises(UserError, match="--start network: the weights have no velocity network"):
        evaluated(data, folder, "--start", "network")


def test_the_noise_can_be_another(data, tmp_path):
    folder = weights(tmp_path, "--use_ekf", "--noise_preset", "published")
    found = [
        evaluated(data, folder, "--start", "recorded", *words)[0]
        for words in ((), ("--noise_preset", "calibrated"))
    ]
    ate_m = [{n: e.aligned["unaligned"].ate_m for n, e in f.errors.items()} for f in found]
    assert ate_m[0]["camera"] == ate_m[1]["camera"]
    assert ate_m[0]["imu"] == pytest.approx(ate_m[1]["imu"])
    assert ate_m[0]["filter"] != pytest.approx(ate_m[1]["filter"], rel=1e-3)


def test_a_drive_of_the_training_is_called_one(data, tmp_path):
    split = tmp_path / "splits"
    write_list(split / "train_files.txt", [f"{DATE}/{DRIVE}_sync 3 l"])
    told = {"split": str(split), "height": 64, "width": 64}
    (found,) = evaluated(data, weights(tmp_path, told=told))
    assert found.seen_in_training and found.training.startswith(f"SEEN IN TRAINING: {DRIVE}")
    write_list(split / "train_files.txt", [f"{DATE}/{DATE}_drive_0001_sync 3 l"])
    (found,) = evaluated(data, weights(tmp_path, told=told))
    assert found.seen_in_training is False
    (tmp_path / "run" / "opt.json").unlink()
    (found,) = evaluated(data, weights(tmp_path))
    assert found.seen_in_training is None and found.training.startswith("unknown")


def test_a_picture_says_what_a_view_from_above_hides(data, tmp_path, monkeypatch):
    said = {}

    def draw(positions, title, labels):
        said.update(labels)
        return _png()

    monkeypatch.setattr("evaluation.odometry_run.draw_top_view", draw)
    # Random networks know nothing of gravity: their IMU flies.
    evaluated(data, weights(tmp_path, "--use_ekf"), "--out", tmp_path / "out")
    assert said["imu"].endswith("mostly in height") and said["camera"].startswith("ATE ")


def _png():
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--drives", "2011_09_26_drive_0099"), "no such folder"),
        (("--frames", 3, 25), "--frames 3 25, but there are 0 to 24"),
        (("--sequences", 42), "expected a sequence from 00 to 10"),
        (("--truth", "poses", "--frames", 1, 2), "6 poses, but"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(words, message, data, tmp_path):
    root = data
    if "poses" in words:
        root = tmp_path / "tree"
        shutil.copytree(data, root)
        poses = root / DATE / f"{DRIVE}_sync" / "truth" / "poses.txt"
        poses.write_text("".join(poses.read_text().splitlines(keepends=True)[:6]))
    out = tmp_path / "out"
    with pytest.raises((UserError, OSError), match=message):
        evaluated(
            root, weights(tmp_path), *words, "--out", out, "--json", tmp_path / "j" / "a.json"
        )
    assert not out.exists() and not (tmp_path / "j").exists()
