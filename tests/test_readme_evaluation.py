"""The chapters of the README on evaluation and prediction, typed line by line on small drives."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from datasets import splits
from datasets.drives import MatchOptions, find_drives, match_drive
from datasets.lidar import read_depth_png
from datasets.splits import RawRun
from datasets.synthetic.writer import SyntheticOptions, write_synthetic_kitti
from evaluation.examples import EVAL_SPLITS
from tests.evaluation_tree import write_weights
from tests.image_tree import SINGLE, write_list, write_single_images
from tests.media_files import write_image, write_video
from tests.test_make3d import NAMES, make_pair

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
FRAMES = 6


def chapter(title: str) -> list[str]:
    """Return the commands of a chapter that start a program of ours."""
    text = README.split(f"\n## {title}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(r"\.venv/bin/python \w+\.py ", line)]


COMMANDS = [*chapter("Evaluate"), *chapter("Predict")]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with all that the commands name: drives, KITTI's as well, weights, images."""
    home = tmp_path_factory.mktemp("home")
    data = home / "data" / "synthetic"
    write_synthetic_kitti(SyntheticOptions(data, drives=4, frames=FRAMES, size=(64, 64)))
    for drive in find_drives(data, data).both:
        match_drive(drive, MatchOptions(data, data))
    write_single_images(data / SINGLE, 2)
    raw = home / "data" / "kitti" / "kitti_raw"  # the same drives, without lists of their own
    raw.mkdir(parents=True)
    for name in ("2011_01_01", SINGLE.split("/")[0]):
        (raw / name).symlink_to(data / name)
    (home / "data" / "make3d").mkdir()
    for name in NAMES:
        pair = make_pair(home / "data" / "make3d", name)
        savemat(pair.depth, {"Position3DGrid": np.full((55, 305, 4), 10.0)})
    weights = write_weights(home / "runs" / "first" / "models" / "best", "--use_ekf", told={})
    (home / "runs" / "r18_ekf" / "models").mkdir(parents=True)
    (home / "runs" / "r18_ekf" / "models" / "weights_29").symlink_to(weights)
    write_video(home / "street.mp4", frames=3)
    write_image(home / "street.jpg", (64, 48))
    return home


@pytest.fixture
def reader(home, monkeypatch):
    """Be in that folder, where the lists of KITTI's frames name the small drives."""
    monkeypatch.chdir(home)
    own = home / "data" / "synthetic" / "splits" / "test_files.txt"
    left = [line for line in own.read_text().split("\n") if line.endswith(" l")]
    lists = {name: left for name in ("eigen", "eigen_benchmark")}
    lists["benchmark"] = [f"{SINGLE} 0 l", f"{SINGLE} 1 l"]
    monkeypatch.setattr(splits, "SPLITS", home / "splits")
    for name, lines in lists.items():
        assert name in EVAL_SPLITS
        (home / "splits" / name).mkdir(parents=True, exist_ok=True)
        write_list(home / "splits" / name / "test_files.txt", lines)
    for number in ("09", "10"):
        run = RawRun(f"2011_01_01_drive_00{int(number) - 8:02d}", 0, FRAMES - 1)
        monkeypatch.setitem(splits.ODOMETRY, number, run)
    return home


def test_all_programs_are_in_the_two_chapters():
    programs = {command.split()[1] for command in COMMANDS}
    assert programs == {
        *("evaluate_depth.py", "evaluate_make3d.py", "evaluate_odometry.py"),
        *("export_gt_depth.py", "predict.py"),
    }
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_chapters_runs(command, reader, capsys):
    _, program, *words = shlex.split(command)
    if program == "predict.py" and "--onnx" not in words:
        words.append("--overwrite")  # some write what others of the chapter have written
    main = importlib.import_module(program.removesuffix(".py")).main
    assert main(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    for option in ("--report", "--json", "--eval_out_dir", "--out", "--onnx"):
        if option in words:
            assert (reader / words[words.index(option) + 1]).exists()
    if program == "evaluate_depth.py" and "benchmark" not in words:
        split = "synthetic" if "data/synthetic" in words else "eigen"
        if "--eval_split" in words:
            split = words[words.index("--eval_split") + 1]
        assert re.search(rf"^protocol +{EVAL_SPLITS[split].protocol}$", printed, re.MULTILINE)
        assert "median-scaled" in printed and "LaTeX" in printed
    if program == "evaluate_odometry.py":
        assert all(name in printed for name in ("camera", "imu", "filter", "unaligned"))


def test_what_is_predicted_for_kittis_server_is_what_it_wants(reader):
    (command,) = [x for x in COMMANDS if "--eval_split benchmark" in x]
    _, program, *words = shlex.split(command)
    assert importlib.import_module(program.removesuffix(".py")).main(words) == 0
    paths = sorted((reader / "runs" / "benchmark" / "benchmark_predictions").iterdir())
    assert len(paths) == 2 and read_depth_png(paths[0]).shape == (352, 1216)
    assert cv2.imread(str(paths[0]), cv2.IMREAD_UNCHANGED).dtype == np.uint16
