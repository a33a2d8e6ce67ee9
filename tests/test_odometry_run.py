"""Which drives are evaluated, and what is written of each."""

from __future__ import annotations

import inspect
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import evaluation.weights
import options
from datasets.splits import ODOMETRY, RawRun
from evaluation import odometry_run
from evaluation.odometry import Estimates, errors_of
from evaluation.odometry_run import chosen_folders, evaluate_odometry
from evaluation.trajectory_files import read_kitti, read_tum, write_kitti
from evaluation.true_poses import TruePoses
from tests.evaluation_tree import write_weights
from tests.image_tree import write_list
from tests.kitti_tree import edit_line
from tests.odometry_drives import DATE, DRIVE, record
from tests.test_trajectory_metrics import motion, winding
from tests.test_weights import without_uncertainty
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
    other = f"{DATE}_drive_0002"
    named = (f"{other}_sync", DRIVE, other, f"{DATE}/{other}_sync", f"{DRIVE}_extract", "7", "07")
    chosen = chosen_folders(read(data, "w", "--drives", *named))
    assert chosen == [f"{other}_sync", DRIVE, "7"]
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


@pytest.fixture
def own(data, tmp_path):
    """Return a copy of the data that a test may change, and its drive."""
    root = tmp_path / "tree"
    shutil.copytree(data, root)
    return root, root / DATE / f"{DRIVE}_sync"


def test_images_without_truth_are_said_and_their_truth_is_not_written(own, tmp_path):
    root, sync = own
    folder, words = weights(tmp_path), ("--truth", "oxts", "--start", "recorded")
    (whole,) = evaluated(root, folder, *words, "--out", tmp_path / "whole")
    for i in (4, 5):
        (sync / "oxts" / "data" / f"{i:010d}.txt").unlink()
    (found,) = evaluated(root, folder, *words, "--out", tmp_path / "out")
    assert "2 images have no true pose and are left out of all errors" in found.notes
    assert not any("no true pose" in note for note in whole.notes)
    kinds = {path.name for path in (tmp_path / "whole" / DRIVE).glob("*")}
    written = {path.name for path in (tmp_path / "out" / DRIVE).glob("*")}
    assert kinds - written == {"truth_kitti.txt", "truth_tum.txt"} and written < kinds
    assert found.way_m == pytest.approx(whole.way_m, rel=0.01)


def test_bridged_intervals_are_counted_and_said(own, tmp_path):
    root, sync = own
    for line in (3, 4, 9):
        edit_line(sync / "matched_oxts" / "matched_oxts.txt", line, "nan")
    folder = weights(tmp_path)
    (found,) = evaluated(root, folder, "--start", "recorded")
    said = f"3 of {FRAMES - 1} intervals have no IMU and are bridged"
    assert said in found.notes
    (found,) = evaluated(root, folder, "--start", "recorded", "--frames", 10, 20)
    assert not any("bridged" in note for note in found.notes)


def test_a_sequence_that_is_judged_by_gps_says_so(monkeypatch, own, tmp_path):
    root, sync = own
    monkeypatch.setitem(ODOMETRY, "04", RawRun(DRIVE, 5, 20))
    folder, words = weights(tmp_path), ("--sequences", "4")
    (found,) = evaluated(root, folder, *words)
    said = f"there is no {root / 'poses' / '04.txt'}, so the truth is GPS and INS"
    assert said in found.notes and "GPS and INS" in found.truth
    (found,) = evaluated(root, folder, *words, "--truth", "oxts")  # as asked
    assert said not in found.notes
    (root / "dataset" / "poses").mkdir(parents=True)
    T_w_c0 = read_kitti(sync / "truth" / "poses.txt")[5:21]
    write_kitti(root / "dataset" / "poses" / "04.txt", T_w_c0)
    (found,) = evaluated(root, folder, *words)
    assert said not in found.notes and found.truth.endswith("dataset/poses/04.txt")


def test_a_pose_network_of_monodepth2_is_called_one(data, tmp_path):
    folder = weights(tmp_path, *CAMERA_ALONE)
    said = "pose network of monodepth2's kind: motions inverted"
    (ours,) = evaluated(data, folder, "--out", tmp_path / "ours")
    assert said not in ours.notes
    without_uncertainty(folder / "pose.pth")
    (theirs,) = evaluated(data, folder, "--out", tmp_path / "theirs")
    assert said in theirs.notes
    a, b = (read_kitti(tmp_path / x / DRIVE / "camera_kitti.txt") for x in ("ours", "theirs"))
    steps = [np.linalg.inv(T[:-1]) @ T[1:] for T in (a, b)]
    assert np.allclose(steps[0] @ steps[1], np.eye(4), atol=1e-6)
    assert not np.allclose(steps[0], np.eye(4), atol=1e-4)


@pytest.mark.parametrize("name", ["velo", "gravity"])
def test_networks_that_cannot_say_how_it_begins_are_refused_first(name, data, tmp_path):
    out = tmp_path / "out"
    folder = weights(tmp_path)
    for path in folder.glob(f"{name}*.pth"):
        path.unlink()
    words = "--start", "network", "--drives", "2011_09_26_drive_0099", "--out", out
    with pytest.raises(UserError, match=f"--start network: the weights have no {name}"):
        evaluated(data, folder, *words)
    assert not out.exists()


def test_every_option_arrives_where_it_is_used(monkeypatch, data, tmp_path):
    given = {}

    def spied(name, module=odometry_run):
        original = getattr(module, name)

        def spy(*args, **kwargs):
            bound = inspect.signature(original).bind(*args, **kwargs)
            given[name] = bound.arguments
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, spy)

    spied("choose_device", evaluation.weights)
    for name in ("open_all", "Wanted", "see_motion"):
        spied(name)
    sync = data / DATE / f"{DRIVE}_sync" / "matched_oxts"
    shutil.copy(sync / "matched_oxts.txt", sync / "noisy.txt")
    words = (
        *("--png", "--imu_filename", "noisy.txt", "--truth", "oxts", "--frames", 2, 9),
        *("--height", 96, "--width", 128, "--trans_scale_factor", 2, "--num_layers", 18),
        *("--batch_size", 3, "--num_workers", 0, "--amp", "bf16"),
    )
    folder = weights(tmp_path, told={"k_imu_clip": 4})
    evaluated(data, folder, *words)
    opened, wanted, seen = (given[name] for name in ("open_all", "Wanted", "see_motion"))
    assert opened["folder"] == folder and opened["num_layers"] == 18
    assert opened["asked"] == {"height": 96, "width": 128, "trans_scale_factor": 2}
    assert given["choose_device"] == {"no_cuda": True}
    expected = (data, (128, 96), (2, 9), True, "noisy.txt", "oxts", 4)
    assert tuple(wanted.values()) == expected
    asked = {name: seen[name] for name in ("batch_size", "workers", "amp")}
    assert asked == {"batch_size": 3, "workers": 0, "amp": "bf16"}


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


def test_weights_whose_velocity_was_fitted_have_a_unit_and_no_network_of_velocity(data, tmp_path):
    folder = weights(tmp_path, "--velocity_source", "camera", "--shared_motion_encoder")
    (found,) = evaluated(data, folder)
    assert "no velocity network" in found.absent["imu"]
    assert not any("without IMU and stereo" in note for note in found.notes)


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


def labels_of(truth, **trajectories):
    """Return what the picture draws and says of trajectories."""
    estimates = Estimates(trajectories)
    errors = {name: errors_of(T, truth) for name, T in trajectories.items()}
    return odometry_run._seen_from_above(estimates, truth, errors)


def test_only_what_is_mostly_in_height_is_called_so():
    truth = TruePoses(winding(50), np.ones(51, bool), "")
    away = {name: truth.T_w_c.copy() for name in ("none", "side", "both", "down")}
    for name, (x_m, y_m) in {"side": (1, 0.9), "both": (0.5, -0.6), "down": (0, 1)}.items():
        away[name][:, :3, 3] += np.linspace(0, 1, 51)[:, None] * [x_m, y_m, 0]
    _, labels = labels_of(truth, **away)
    high = {name for name, label in labels.items() if label.endswith(", mostly in height")}
    assert high == {"both", "down"} and labels["none"] == "ATE 0.00 m"


def test_a_picture_counts_all_from_the_first_image_whose_truth_is_known():
    world = motion([0.3, 1, 2], [50, -3, 400])  # the truth's own
    T_c0_ck = winding(60)
    known = np.arange(61) >= 15
    known[30] = False
    truth = TruePoses(np.where(known[:, None, None], world @ T_c0_ck, 7.0), known, "")
    xyz, labels = labels_of(truth, filter=T_c0_ck)
    assert labels["filter"].startswith("ATE 0.00 m")
    assert list(xyz) == ["truth", "filter"]
    assert xyz["filter"].shape == (46, 3) and xyz["truth"].shape == (45, 3)
    assert np.allclose(xyz["filter"][0], 0) and np.allclose(xyz["truth"][0], 0)
    assert np.allclose(xyz["filter"][known[15:]], xyz["truth"])
    xyz, labels = odometry_run._seen_from_above(Estimates({"filter": T_c0_ck}), "none", {})
    assert list(xyz) == ["filter"] and len(xyz["filter"]) == 61 and labels == {}


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
