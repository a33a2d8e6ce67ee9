"""The tasks behind the command lines: the right images, rules and words, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.testing import assert_close

import metrics
import options
from datasets.splits import list_of
from evaluation.depth_run import (
    depth_task,
    export_truth,
    make3d_task,
    pictures_of,
    run_depth,
    run_make3d,
    scaled_row,
)
from evaluation.examples import EVAL_SPLITS
from evaluation.truth_file import TruthFile
from tests.evaluation_tree import (
    SIDE,
    examples_of,
    full_lines,
    make_evaluation_tree,
    true_inverse,
    write_weights,
)
from tests.image_tree import SINGLE, write_list, write_single_images
from tests.test_make3d import NAMES, make_pair
from tests.training_runs import CAMERA_ONLY, lines_of, make_data, make_trainer
from utils import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_evaluation_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("run") / "models" / "weights_0")


def asked(root, *words):
    usual = f"--data_path {root} --num_workers 0 --no_cuda --batch_size 2"
    if "--ext_disp_to_eval" in words:
        usual = f"--data_path {root} --num_workers 0"
    return options.evaluate_depth([*usual.split(), *map(str, words)])


def run(args):
    return run_depth(args, depth_task(args))


def synthetic(root, weights, *words):
    return asked(root, "--load_weights_folder", weights, "--eval_split", "synthetic", *words)


def test_what_is_evaluated_is_said_in_words(root, weights):
    task = depth_task(synthetic(root, weights, "--post_process", "--pred_depth_scale_factor", 2))
    assert task.protocol == "synthetic" and list(task.examples.names) == full_lines()
    assert task.facts == {
        "weights": str(weights),
        "network": f"ResNet-18, {SIDE}x{SIDE}",
        "metres": "network's unit times 5.4 times 2",
        "computed in": "float32 on cpu",
        "post-processing": "blended with the mirrored image's",
        "truth": EVAL_SPLITS["synthetic"].truth,
    }
    other = depth_task(synthetic(root, weights, "--amp", "bf16", "--height", 96, "--width", 128))
    assert other.facts["network"] == "ResNet-18, 128x96"
    assert other.facts["computed in"] == "bf16 on cpu"
    assert other.examples.image(0).shape == (3, 96, 128)


def test_the_factors_of_the_options_multiply_the_depths(root, weights):
    usual = run(synthetic(root, weights)).result
    for words in (["--pred_depth_scale_factor", 2], ["--trans_scale_factor", 10.8]):
        twice = run(synthetic(root, weights, *words)).result
        assert_close(twice.ratio, usual.ratio / 2, atol=0, rtol=1e-5)
        assert_close(twice.scaled[:, 0], usual.scaled[:, 0], atol=1e-4, rtol=0)


def test_kept_predictions_evaluate_to_the_same_without_a_network(root, weights, tmp_path):
    args = synthetic(root, weights, "--save_pred_disps", "--eval_out_dir", tmp_path / "out")
    first = run(args)
    path = tmp_path / "out" / "disps_synthetic_split.npy"
    assert first.written == (path,) and first.images == len(full_lines())
    again = run(asked(root, "--ext_disp_to_eval", path, "--eval_split", "synthetic"))
    assert np.array_equal(first.result.unscaled, again.result.unscaled)
    assert np.array_equal(first.result.ratio, again.result.ratio)
    assert again.result.facts["predictions"] == str(path)
    doubled = run(
        asked(
            *(root, "--ext_disp_to_eval", path, "--eval_split", "synthetic"),
            *("--pred_depth_scale_factor", 2),
        )
    )
    assert_close(doubled.result.ratio, first.result.ratio / 2, atol=0, rtol=1e-6)
    assert doubled.result.facts["depths multiplied by"] == "2"


def test_without_evaluation_nothing_of_the_truth_is_read(root, weights, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.examples.KittiExamples.truth", lambda *_: pytest.fail("read"))
    out = run(
        synthetic(root, weights, "--save_pred_disps", "--no_eval", "--eval_out_dir", tmp_path)
    )
    assert out.result is None
    assert np.load(out.written[0]).shape == (len(full_lines()), SIDE, SIDE)


def test_predictions_go_beside_the_weights_unless_told_otherwise(root, tmp_path):
    folder = write_weights(tmp_path / "weights_0")
    out = run(synthetic(root, folder, "--save_pred_disps", "--no_eval"))
    assert out.written == (folder / "disps_synthetic_split.npy",) and out.written[0].is_file()


def test_an_image_without_truth_costs_no_time_unless_predictions_are_kept(
    root, weights, tmp_path, monkeypatch
):
    lacking = full_lines()[1]

    def has_truth(examples, i):
        return examples.names[i] != lacking

    monkeypatch.setattr("evaluation.examples.KittiExamples.has_truth", has_truth)
    out = run(synthetic(root, weights))
    assert out.images == len(full_lines()) - 1 and out.result.left_out == (lacking,)
    kept = run(synthetic(root, weights, "--save_pred_disps", "--eval_out_dir", tmp_path))
    assert kept.images == len(full_lines()) and kept.result.left_out == (lacking,)


def test_maps_for_kittis_server_are_written_and_nothing_is_compared(weights, tmp_path, monkeypatch):
    write_single_images(tmp_path / "data" / SINGLE, 2)
    (tmp_path / "data" / "splits").mkdir()
    write_list(tmp_path / "data" / "splits" / "test_files.txt", [f"{SINGLE} {i} l" for i in (0, 1)])
    split = EVAL_SPLITS["benchmark"]
    monkeypatch.setitem(
        EVAL_SPLITS,
        "benchmark",
        type(split)(split.dataset, tmp_path / "data" / "splits", split.protocol, split.truth),
    )
    words = ("--load_weights_folder", weights, "--eval_split", "benchmark")
    out = run(asked(tmp_path / "data", *words, "--eval_out_dir", tmp_path / "out"))
    assert out.result is None and out.written == (tmp_path / "out" / "benchmark_predictions",)
    assert len(list(out.written[0].iterdir())) == 2


def test_the_652_are_taken_from_an_array_of_the_697(root, tmp_path, monkeypatch):
    """The list of the benchmark's images here is a part of that of eigen, in another order."""
    names = full_lines()
    lists = {"eigen": names, "eigen_benchmark": [names[3], names[0]]}
    for name, lines in lists.items():
        write_list(tmp_path / name / "test_files.txt", lines)
    monkeypatch.setattr("datasets.splits.SPLITS", tmp_path)
    found = examples_of(root)
    np.save(tmp_path / "a.npy", np.stack([true_inverse(found, i) for i in range(len(names))]))
    words = ("--ext_disp_to_eval", tmp_path / "a.npy", "--eval_eigen_to_benchmark")
    out = run(asked(root, *words))
    assert out.result.protocol == "eigen_benchmark" and out.result.names == (names[3], names[0])
    assert_close(out.result.unscaled[:, 0], np.zeros(2), atol=1e-5, rtol=0)


def test_the_customary_lists_contain_each_other():
    chosen = (EVAL_SPLITS[name].split for name in ("eigen", "eigen_benchmark"))
    eigen, benchmark = (list_of(name, "test").read_text().split("\n")[:-1] for name in chosen)
    assert set(benchmark) < set(eigen) and len(eigen) - len(benchmark) == 45


@pytest.mark.parametrize(
    "words, scaled",
    [
        ("", False),
        ("--eval_mono", True),
        ("--disable_median_scaling", False),
        ("--eval_mono --disable_median_scaling", False),
    ],
)
def test_which_errors_are_those_asked_for(words, scaled, root, weights):
    args = synthetic(root, weights, *words.split())
    assert scaled_row(args) == scaled
    result = run(args).result
    assert result.median_scaled == scaled
    assert np.array_equal(result.errors, result.scaled if scaled else result.unscaled)


def test_pictures_show_what_was_evaluated(root, weights):
    for words in ((), ("--eval_mono",)):
        args = synthetic(root, weights, *words)
        task = depth_task(args)
        result = run_depth(args, task).result
        chosen = [("worst", 3), ("best", 0)]
        pictures = pictures_of(task, result, chosen)
        for (title, i), picture in zip(chosen, pictures, strict=True):
            assert (picture.title, picture.name) == (title, full_lines()[i])
            assert np.array_equal(picture.image, task.examples.recorded(i))
            assert np.array_equal(picture.truth_m, task.examples.truth(i))
            truth, predicted = (x[picture.valid] for x in (picture.truth_m, picture.predicted_m))
            shown = np.mean(np.abs(truth - predicted) / truth)
            assert_close(picture.errors["abs_rel"], float(shown), atol=1e-5, rtol=0)
            assert picture.errors["ratio"] == result.ratio[i]


# Make3D


def test_make3d_is_evaluated_at_its_own_size_with_its_own_base(weights, tmp_path):
    for name in NAMES:
        make_pair(tmp_path, name)
    words = f"--data_path {tmp_path} --load_weights_folder {weights} --num_workers 0 --no_cuda"
    args = options.evaluate_make3d(words.split())
    task = make3d_task(args)
    assert task.protocol == "make3d" and task.facts["network"] == "ResNet-18, 512x256"
    assert task.examples.image(0).shape == (3, 256, 512)
    # The grid of these tests has depths above 3000 m, which count as nothing.
    with pytest.raises(UserError, match="none of 3 images has a true depth that counts"):
        run_make3d(args, task)
    task.examples.truth = lambda i: np.full((21, 305), 10.0, np.float32)
    result = run_make3d(args, task).result
    assert result.names == tuple(sorted(NAMES)) and result.drives == result.names
    for i, (_, inverse) in enumerate(task.predictions.read(task.examples, truths=False)):
        depth_m = cv2.resize(1 / inverse[0].numpy(), (305, 21), interpolation=cv2.INTER_NEAREST)
        off = np.log10(10) - np.log10(depth_m)
        rmse_log = result.unscaled[i, metrics.DEPTH_METRICS.index("rmse_log")]
        assert_close(rmse_log, np.sqrt(np.mean(off**2)).item(), atol=0, rtol=1e-4)


# Export


def test_exported_truth_is_that_of_the_tree(root, weights, tmp_path):
    words = f"--data_path {root} --split synthetic --output {tmp_path}/new/gt.npz"
    args = options.export_gt_depth(words.split())
    assert export_truth(args) == (len(full_lines()), [])
    found = examples_of(root)
    file = TruthFile(tmp_path / "new" / "gt.npz", full_lines(), found.kind)
    for i in range(len(full_lines())):
        assert np.array_equal(file.depth(i), found.truth(i))
    usual = run(synthetic(root, weights)).result
    exported = run(synthetic(root, weights, "--gt_depths", args.output)).result
    assert np.array_equal(usual.unscaled, exported.unscaled)
    assert exported.facts["truth"].startswith(f"{args.output}: ")


def test_what_has_no_truth_is_told_by_the_export(root, tmp_path, monkeypatch):
    lacking = full_lines()[2]
    monkeypatch.setattr(
        "evaluation.examples.KittiDataset.has_depth", lambda data, i: data.line(i) != lacking
    )
    words = f"--data_path {root} --split synthetic --output {tmp_path}/gt.npz"
    args = options.export_gt_depth(words.split())
    assert export_truth(args) == (len(full_lines()) - 1, [lacking])


@pytest.mark.parametrize("split", ["eigen", "eigen_benchmark", "odom_9", "odom_10", "synthetic"])
def test_the_split_that_is_named_is_the_one_that_is_opened(split, root, weights, monkeypatch):
    opened = []

    def spy(name, asked, truth_file=None):
        opened.append((name, asked.png, asked.size, truth_file))
        raise UserError("seen")

    monkeypatch.setattr("evaluation.depth_run.open_eval_split", spy)
    words = ("--load_weights_folder", weights, "--eval_split", split, "--png", "--gt_depths", "g")
    with pytest.raises(UserError, match="seen"):
        depth_task(asked(root, *words))
    with pytest.raises(UserError, match="seen"):
        export_truth(options.export_gt_depth(["--split", split, "--data_path", str(root)]))
    assert opened[0] == (split, True, (SIDE, SIDE), Path("g")) and opened[1][0] == split


# The validation of a training


def test_a_checkpoint_evaluated_right_after_repeats_the_validation_of_the_log(tmp_path):
    root = make_data(tmp_path / "data")
    words = "--num_epochs 1 --first_save_epoch 0 --pose_model_type posecnn"
    trainer = make_trainer(root, tmp_path / "runs", CAMERA_ONLY, words)
    trainer.train()
    (logged,) = lines_of(tmp_path / "runs" / "dynadepth", "val")
    folder = tmp_path / "runs" / "dynadepth" / "models" / "weights_0"
    out = run(asked(root, "--load_weights_folder", folder, "--eval_split", "val"))
    result = out.result
    assert len(result) == len(trainer.validation.dataset) and result.protocol == "eigen"
    for i, name in enumerate(metrics.DEPTH_METRICS):
        assert_close(result.unscaled[:, i].mean(), logged[name], atol=1e-6, rtol=1e-6)
        assert_close(result.scaled[:, i].mean(), logged[f"scaled/{name}"], atol=1e-6, rtol=1e-6)
    assert_close(float(np.median(result.ratio)), logged["scale_ratio"], atol=1e-6, rtol=1e-6)
    opt = json.loads((folder.parent / "opt.json").read_text())
    assert opt["split"] == str(root / "splits")


def test_the_validation_list_is_opened_as_the_training_opened_it(root, tmp_path, monkeypatch):
    told = {
        "split": str(root / "splits"),
        "dataset": "kitti_depth",
        "png": True,
        "use_stereo": True,
        "use_imu": False,
        "intrinsics": "fixed",
        "avoid_quat_check": True,
        "frame_ids": [0, 1],
    }
    folder = write_weights(tmp_path / "weights_0", "--use_stereo", told=told)
    opened = []
    monkeypatch.setattr("evaluation.depth_run.ValidationExamples", opened.append)
    task = depth_task(asked(root, "--load_weights_folder", folder, "--eval_split", "val"))
    (found,) = opened
    assert task.protocol == "eigen_benchmark" and found.data_path == root
    for name in ("dataset", "png", "use_stereo", "use_imu", "intrinsics"):
        assert getattr(found, name) == told[name], name
    assert str(found.split) == told["split"] and found.frame_ids == (0, 1)
    assert not found.check_attitude and found.size == (SIDE, SIDE)


def test_without_opt_json_there_is_no_validation_to_repeat(root, weights):
    with pytest.raises(UserError, match="no opt.json there or beside it says what"):
        depth_task(asked(root, "--load_weights_folder", weights, "--eval_split", "val"))


def test_a_dataset_that_nobody_knows_is_told(root, tmp_path):
    told = {"dataset": "euroc", "split": "test"}
    folder = write_weights(tmp_path / "weights_0", told=told)
    with pytest.raises(UserError, match="a dataset 'euroc' is not known"):
        depth_task(asked(root, "--load_weights_folder", folder, "--eval_split", "val"))


def test_half_precision_changes_little(root, weights):
    full, half = (run(synthetic(root, weights, *words)).result for words in ((), ("--amp", "bf16")))
    assert not np.array_equal(full.unscaled, half.unscaled)
    assert_close(full.unscaled[:, 0], half.unscaled[:, 0], atol=0.01, rtol=0)


def test_the_errors_are_the_same_on_any_device(root, weights, device):
    args = synthetic(root, weights)
    args.no_cuda = device.type == "cpu"
    got = run(args).result
    args.no_cuda = True
    assert_close(got.unscaled, run(args).result.unscaled, atol=1e-2, rtol=1e-2)
