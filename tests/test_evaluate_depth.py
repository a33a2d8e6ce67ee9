"""The command line that evaluates depth, as a user types it: what it says, right or wrong."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import evaluate_depth
from tests.evaluation_tree import full_lines, make_evaluation_tree, write_weights

ROOT = Path(evaluate_depth.__file__).parent


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_evaluation_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def own(weights, tmp_path):
    """Weights that a test may damage."""
    return Path(shutil.copytree(weights, tmp_path / "weights"))


def words(root, weights, *more):
    usual = f"--load_weights_folder {weights} --data_path {root} --eval_split synthetic"
    return [*usual.split(), "--num_workers", "0", "--no_cuda", *map(str, more)]


def fails(line, capsys):
    """Return the one line that a user's mistake ends with."""
    assert evaluate_depth.main(list(map(str, line))) == 2
    out, err = capsys.readouterr()
    lines = err.strip().split("\n")
    assert len(lines) == 1 and lines[0].startswith("evaluate_depth: ") and out == ""
    return lines[0]


def test_it_prints_the_table_and_ends_well(root, weights, capsys):
    assert evaluate_depth.main(words(root, weights)) == 0
    out = capsys.readouterr().out
    for told in ("protocol", "synthetic", "metric", "median-scaled", "scale ratio", "LaTeX: & "):
        assert told in out
    assert f"{len(full_lines())} images in " in out and "images/s)" in out


def test_it_runs_as_a_program(root, weights):
    run = subprocess.run(
        [sys.executable, ROOT / "evaluate_depth.py", *words(root, weights, "--num_layer", 18)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "median-scaled" in run.stdout


def test_it_says_what_it_has_written(root, weights, tmp_path, capsys):
    out = tmp_path / "out"
    more = ("--save_pred_disps", "--no_eval", "--eval_out_dir", out)
    assert evaluate_depth.main(words(root, weights, *more)) == 0
    printed = capsys.readouterr().out
    assert f"written: {out / 'disps_synthetic_split.npy'}" in printed
    assert "median-scaled" not in printed


# A user's mistakes


def test_missing_weights(root, own, capsys):
    (own / "depth.pth").unlink()
    assert "has no depth.pth" in fails(words(root, own), capsys)
    assert "no such folder" in fails(words(root, own / "other"), capsys)
    run = own.parent / "run"
    for number in (9, 10):  # in the order of their writing
        (run / "models" / f"weights_{number}").mkdir(parents=True)
        (run / "models" / f"weights_{number}" / "encoder.pth").touch()
        time.sleep(0.01)
    for folder in (run, run / "models"):
        line = fails(words(root, folder), capsys)
        assert line.endswith(f": give {run / 'models' / 'weights_10'}")


def test_weights_of_another_depth(root, own, capsys):
    line = fails(words(root, own, "--num_layers", 50), capsys)
    assert "holds a ResNet-18, but --num_layers is 50. Use --num_layers 18" in line


def test_weights_that_are_no_state_dict(root, own, capsys):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was run",))

    (own / "encoder.pth").write_bytes(pickle.dumps(Trap()))
    assert "encoder.pth" in fails(words(root, own), capsys)
    torch.save({"x": 3}, own / "encoder.pth")
    assert "holds no ResNet" in fails(words(root, own), capsys)


def test_a_wrong_split(root, weights, capsys):
    with pytest.raises(SystemExit) as stopped:
        evaluate_depth.main(words(root, weights, "--eval_split", "eigen_zhou"))
    assert stopped.value.code == 2 and "invalid choice" in capsys.readouterr().err
    line = fails(words(root / "2011_09_26", weights), capsys)
    assert "no test_files.txt there" in line
    line = fails(words(root, weights, "--eval_split", "eigen"), capsys)
    assert "2011_09_26_drive_0002" in line and "_sync.zip brings it" in line


def test_no_ground_truth(root, weights, tmp_path, capsys):
    bare = Path(shutil.copytree(root, tmp_path / "data"))
    for folder in bare.glob("*/*/proj_depth"):
        shutil.rmtree(folder)
    line = fails(words(bare, weights), capsys)
    assert "proj_depth" in line and "no such folder" in line and "archive" not in line
    line = fails(words(bare, weights, "--gt_depths", tmp_path / "gt.npz"), capsys)
    assert "no such file; make it with export_gt_depth.py" in line


def test_truth_that_is_zero_everywhere(root, weights, tmp_path, capsys):
    blind = Path(shutil.copytree(root, tmp_path / "data"))
    for path in blind.glob("*/*/proj_depth/**/*.png"):
        cv2.imwrite(str(path), np.zeros((38, 124), np.uint16))
    line = fails(words(blind, weights), capsys)
    assert f"none of {len(full_lines())} images has a true depth that counts" in line


def test_an_image_that_is_broken(root, weights, tmp_path, capsys):
    broken = Path(shutil.copytree(root, tmp_path / "data"))
    folder, frame, _ = full_lines()[0].split()
    path = broken / folder / "image_02" / "data" / f"{int(frame):010d}.png"
    path.write_bytes(path.read_bytes()[:100])
    for workers in ("0", "1"):
        line = fails(words(broken, weights, "--num_workers", workers), capsys)
        assert str(path) in line and "cut off" in line


def test_counts_that_differ(root, tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.ones((3, 4, 5), np.float32))
    line = f"--ext_disp_to_eval {tmp_path}/a.npy --data_path {root} --eval_split synthetic"
    told = fails(line.split(), capsys)
    assert f"3 predictions for {len(full_lines())} images" in told


def test_the_table_is_shown_even_if_a_file_cannot_be_written(root, weights, tmp_path, capsys):
    def full(path, summary):
        raise OSError(28, "No space left on device", str(path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluation.publish.write_json", full)
        path = tmp_path / "a.json"
        assert evaluate_depth.main(words(root, weights, "--json", path)) == 2
    out, err = capsys.readouterr()
    assert "median-scaled" in out and "written" not in out
    assert err.strip() == f"evaluate_depth: {path}: no space left on device"


def test_an_output_that_cannot_be(root, weights, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "file" in fails(words(root, weights, "--json", tmp_path / "file" / "a"), capsys)
