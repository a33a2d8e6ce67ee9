"""Images with their truth: those of the list, at the right sizes, from every kind of source."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
import torch

import metrics
from datasets.calibration import read_calibration
from datasets.data_options import DataOptions
from datasets.lidar import depth_map, read_depth_png, read_scan
from datasets.splits import SPLITS
from datasets.text import DataError
from evaluation import examples
from evaluation.examples import (
    EVAL_SPLITS,
    Example,
    Make3dExamples,
    Reading,
    ValidationExamples,
    open_eval_split,
)
from evaluation.truth_file import write_truth
from option_groups import evaluation_programs
from tests.evaluation_tree import FRAMES, SIDE, examples_of, full_lines, make_evaluation_tree
from tests.image_tree import SINGLE, SIZE, options_of, write_list, write_single_images
from tests.test_make3d import NAMES, make_pair
from utils import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Drives with all kinds of truth; nothing is changed in them."""
    return make_evaluation_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture
def own(tmp_path):
    """The same, for a test to damage."""
    return make_evaluation_tree(tmp_path)


def asked(root):
    return DataOptions(root, width=SIDE, height=SIDE)


def test_names_and_drives_are_those_of_the_list(root):
    found = examples_of(root)
    assert list(found.names) == full_lines()
    assert [drive.split("/")[1] for drive in found.drives] == [
        line.split("/")[1].split()[0] for line in full_lines()
    ]


def test_an_image_has_the_networks_size_and_the_one_recorded_its_own(root):
    found = examples_of(root)
    for i, line in enumerate(full_lines()):
        folder, frame, side = line.split()
        path = root / folder / f"image_0{2 if side == 'l' else 3}" / "data"
        recorded = cv2.imread(str(path / f"{int(frame):010d}.png"))[..., ::-1]
        assert np.array_equal(found.recorded(i), recorded)
        image = found.image(i)
        assert image.shape == (3, SIDE, SIDE) and image.dtype == torch.uint8
        shrunk = cv2.resize(recorded, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        assert np.abs(image.permute(1, 2, 0).numpy() - shrunk.astype(int)).mean() < 6


@pytest.mark.parametrize("axis", ["x", "z"])
def test_a_scan_is_projected_along_the_axis_that_was_asked_for(axis, root):
    found = examples_of(root, dataset="kitti")
    found._axis = axis
    for i, line in enumerate(full_lines()):
        folder, frame, side = line.split()
        camera = read_calibration(root / folder.split("/")[0])[2 if side == "l" else 3]
        points = read_scan(root / folder / f"velodyne_points/data/{int(frame):010d}.bin")
        expected = depth_map(points, camera.P_px_v, camera.image_size, axis)
        assert np.array_equal(found.truth(i), expected)


def test_improved_depth_is_that_of_the_file(root):
    found = examples_of(root)
    for i, line in enumerate(full_lines()):
        folder, frame, side = line.split()
        inside = f"proj_depth/groundtruth/image_0{2 if side == 'l' else 3}/{int(frame):010d}.png"
        assert np.array_equal(found.truth(i), read_depth_png(root / folder / inside))


def test_an_image_without_improved_depth_has_no_truth(own):
    shutil.rmtree(own / full_lines()[0].split()[0] / "proj_depth" / "groundtruth" / "image_03")
    found = examples_of(own)
    for i, line in enumerate(full_lines()):
        has = line.endswith("l") or "0002" in line
        assert found.has_truth(i) == has
        assert (found.truth(i) is not None) == has


def test_the_truth_may_come_from_a_file_and_then_needs_neither_scans_nor_calibration(own, tmp_path):
    before = examples_of(own, dataset="kitti")
    depths = [before.truth(i) for i in range(len(before.names))]
    path = tmp_path / "gt_depths.npz"
    write_truth(path, before.names[1:], depths[1:], before.kind)
    for gone in [*own.glob("*/*/velodyne_points"), *own.glob("*/calib_*.txt")]:
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    found = examples.KittiExamples(options_of(own, width=SIDE, height=SIDE), truth_file=path)
    assert not found.has_truth(0) and found.truth(0) is None
    for i in range(1, len(found.names)):
        assert np.array_equal(found.truth(i), depths[i])
        assert torch.equal(found.image(i), before.image(i))


@pytest.mark.parametrize("images, truths", [(True, True), (True, False), (False, True)])
def test_what_is_not_asked_for_is_not_read(images, truths, root):
    found = examples_of(root)
    item = Reading(found, images, truths)[2]
    assert isinstance(item, Example) and item.place == 2
    assert (item.image is not None, item.truth_m is not None) == (images, truths)
    assert len(Reading(found)) == len(full_lines())


# Splits


def test_every_split_of_the_options_can_be_opened_and_has_a_protocol():
    assert {*EVAL_SPLITS, examples.VALIDATION} == set(evaluation_programs.EVAL_SPLITS)
    assert set(evaluation_programs.EXPORT_SPLITS) == set(EVAL_SPLITS) - {"benchmark"}
    for chosen in EVAL_SPLITS.values():
        assert chosen.protocol in metrics.PROTOCOLS


def test_the_customary_lists_with_their_sizes_and_order():
    sizes = {"eigen": 697, "eigen_benchmark": 652, "odom_9": 1590, "odom_10": 1200}
    for name, size in sizes.items():
        split = EVAL_SPLITS[name].split
        path = SPLITS / split / "test_files.txt" if isinstance(split, str) else split
        assert len(path.read_text().split("\n")) - 1 == size
    assert EVAL_SPLITS["eigen"].axis == "x"  # as in the customary export
    assert EVAL_SPLITS["eigen_benchmark"].dataset == "kitti_depth"


def test_the_synthetic_split_is_that_of_the_data_and_its_truth_the_dense_one(root):
    found = open_eval_split("synthetic", asked(root))
    assert list(found.names) == full_lines()
    assert np.array_equal(found.truth(0), examples_of(root).truth(0))


def test_data_without_a_list_of_tests_are_told_what_the_split_is_for(own):
    path = own / "splits" / "test_files.txt"
    path.write_text("")
    with pytest.raises(DataError, match=r"test_files\.txt: empty"):
        open_eval_split("synthetic", asked(own))
    path.unlink()
    with pytest.raises(DataError, match="no test_files.txt there.*make_synthetic_kitti.py"):
        open_eval_split("synthetic", asked(own))


def test_the_images_of_the_benchmark_need_no_truth(tmp_path, monkeypatch):
    write_single_images(tmp_path / SINGLE, 2)
    write_list(tmp_path / "splits" / "test_files.txt", [f"{SINGLE} 0 l", f"{SINGLE} 1 l"])
    benchmark = examples.replace(EVAL_SPLITS["benchmark"], split=tmp_path / "splits")
    monkeypatch.setitem(EVAL_SPLITS, "benchmark", benchmark)
    found = open_eval_split("benchmark", asked(tmp_path))
    assert [found.image(i).shape for i in range(2)] == [(3, SIDE, SIDE)] * 2


def test_data_that_are_not_there_are_named(tmp_path):
    for name in ("eigen", "eigen_benchmark", "odom_9", "benchmark"):
        with pytest.raises((DataError, OSError)) as error:
            open_eval_split(name, asked(tmp_path / "nothing"))
        assert "nothing" in str(error.value) and "--data_path" in str(error.value)


@pytest.mark.parametrize("axis", ["x", "z"])
def test_a_split_has_the_axis_that_it_says_in_the_tree_and_in_a_file(axis, root, monkeypatch):
    scans = examples.EvalSplit("kitti", root / "splits", "eigen", "scans", axis)
    monkeypatch.setitem(EVAL_SPLITS, "eigen", scans)
    found = open_eval_split("eigen", asked(root))
    for i, line in enumerate(full_lines()):
        folder, frame, side = line.split()
        camera = read_calibration(root / folder.split("/")[0])[2 if side == "l" else 3]
        points = read_scan(root / folder / f"velodyne_points/data/{int(frame):010d}.bin")
        expected = depth_map(points, camera.P_px_v, camera.image_size, axis)
        assert np.array_equal(found.truth(i), expected)
    assert axis in found.kind and "LiDAR" in found.kind


def test_a_file_of_scans_is_not_taken_for_improved_depth(root, tmp_path):
    scans = examples_of(root, dataset="kitti")
    write_truth(tmp_path / "gt.npz", scans.names, map(scans.truth, range(5)), scans.kind)
    with pytest.raises(UserError, match="its truth is 'LiDAR scans.*but 'depth maps of 16 bits'"):
        open_eval_split("synthetic", asked(root), tmp_path / "gt.npz")


# Validation


def test_validation_has_the_samples_and_the_truth_of_the_training(root):
    write = options_of(root, width=SIDE, height=SIDE, use_depth=True)
    found = ValidationExamples(options_of(root, width=SIDE, height=SIDE))
    data = examples.KittiDataset(write, "val")
    assert len(found.names) == len(data) == 2 * 2 * (FRAMES - 2)
    for i in range(0, len(data), 3):
        assert found.has_truth(i)
        assert torch.equal(found.image(i), data[i].image[0])
        assert np.array_equal(found.truth(i), data[i].depth[0][0].numpy())
        assert found.recorded(i).shape == (SIZE[1], SIZE[0], 3)


# Make3D


def test_make3d_has_the_band_of_each_image_and_its_grid(tmp_path):
    for name in NAMES:
        make_pair(tmp_path, name)
    found = Make3dExamples(tmp_path, (SIDE, 2 * SIDE))
    assert list(found.names) == sorted(NAMES) and list(found.drives) == sorted(NAMES)
    for i in range(len(NAMES)):
        assert found.has_truth(i) and found.truth(i).shape == (21, 305)
        assert found.image(i).shape == (3, 2 * SIDE, SIDE)
        height, width = found.recorded(i).shape[:2]
        assert height == width // 2
