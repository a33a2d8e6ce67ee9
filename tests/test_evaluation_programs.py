"""Options of evaluation: the published ones are there and work, what has no effect is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import options
from option_groups.evaluation_programs import EVAL_SPLITS, EXPORT_SPLITS

# What was published, each in a line that is right; names of files are the user's own.
PUBLISHED = [
    "--load_weights_folder w --eval_mono",
    "--load_weights_folder w --disable_median_scaling",
    "--load_weights_folder w --pred_depth_scale_factor 2",
    "--ext_disp_to_eval d.npy",
    "--load_weights_folder w --eval_split eigen_benchmark",
    "--load_weights_folder w --eval_split odom_9",
    "--load_weights_folder w --eval_split odom_10",
    "--load_weights_folder w --save_pred_disps",
    "--load_weights_folder w --save_pred_disps --no_eval",
    "--ext_disp_to_eval d.npy --eval_eigen_to_benchmark",
    "--load_weights_folder w --eval_split benchmark --eval_out_dir out",
    "--load_weights_folder w --post_process",
    "--load_weights_folder w --show_scale_hist",
    "--load_weights_folder w --num_layer 50",
    "--load_weights_folder w --num_layers 50 --png --no_cuda --num_workers 3",
]


def refused(program, line, capsys):
    with pytest.raises(SystemExit) as stopped:
        program(line.split())
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("line", PUBLISHED)
def test_what_was_published_is_read(line):
    args = vars(options.evaluate_depth(line.split()))
    for name, value in re.findall(r"--(\w+)(?: ([^-]\S*))?", line):
        read = args["num_layers" if name == "num_layer" else name]
        assert (read is True) if not value else str(read) in (value, f"{value}.0"), name


def test_the_defaults(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where no data is that has splits of its own
    args = options.evaluate_depth(["--load_weights_folder", "w"])
    assert args.eval_split == "eigen" and args.pred_depth_scale_factor == 1
    assert args.data_path == Path("data/kitti/kitti_raw")
    assert args.num_layers is None and args.trans_scale_factor is None  # those of the weights
    assert args.amp == "off" and args.keeps_errors
    assert not any((args.eval_mono, args.post_process, args.no_eval, args.save_pred_disps))


@pytest.mark.parametrize(
    "line, message",
    [
        ("", "--load_weights_folder FOLDER is needed, or --ext_disp_to_eval FILE"),
        ("--load_weights_folder w --ext_disp_to_eval d.npy", "contradicts --ext_disp_to_eval"),
        ("--ext_disp_to_eval d.npy --post_process", "--post_process has no use with --ext"),
        (
            "--ext_disp_to_eval d.npy --num_layers 18 --amp bf16",
            "--num_layers, --amp has no use with --ext_disp_to_eval",
        ),
        ("--ext_disp_to_eval d.npy --save_pred_disps", "they are in a file already"),
        ("--load_weights_folder w --eval_eigen_to_benchmark", "is for --ext_disp_to_eval"),
        (
            "--ext_disp_to_eval d.npy --eval_eigen_to_benchmark --eval_split odom_9",
            "is for --ext_disp_to_eval and --eval_split eigen_benchmark",
        ),
        ("--ext_disp_to_eval d.npy --eval_split val", "give its --load_weights_folder"),
        ("--ext_disp_to_eval d.npy --eval_split benchmark", "needs --eval_out_dir"),
        ("--load_weights_folder w --no_eval", "leaves nothing to do: add --save_pred_disps"),
        (
            "--load_weights_folder w --no_eval --save_pred_disps --json a --report r",
            "--json, --report has no use with --no_eval",
        ),
        (
            "--load_weights_folder w --eval_split benchmark --eval_mono",
            "--eval_mono has no use with --eval_split benchmark, whose truth is not public",
        ),
        ("--load_weights_folder w --eval_out_dir o", "--eval_out_dir has no use without"),
        ("--load_weights_folder w --eval_split val --gt_depths g", "whose truth is the training"),
        ("--load_weights_folder w --eval_split val --png", "reads what the training read"),
        ("--load_weights_folder w --num_layers 19", "invalid choice"),
        ("--load_weights_folder w --eval_split eigen_zhou", "invalid choice"),
        ("--load_weights_folder w --height 100", "multiple of 32"),
        ("--load_weights_folder w --pred_depth_scale_factor 0", "more than 0"),
        ("--load_weights_folder w --batch_size 0", "1 or more"),
        ("--load_weights_folder w --eval_stereo", "unrecognized arguments: --eval_stereo"),
        ("--load_weights_folder w extra", "unrecognized arguments: extra"),
    ],
)
def test_what_contradicts_or_has_no_effect_is_refused(line, message, capsys):
    assert message in refused(options.evaluate_depth, line, capsys)


def test_data_with_a_list_of_tests_of_their_own_are_evaluated_on_it(tmp_path):
    line = f"--load_weights_folder w --data_path {tmp_path}"
    assert options.evaluate_depth(line.split()).eval_split == "eigen"
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "test_files.txt").write_text("")
    assert options.evaluate_depth(line.split()).eval_split == "synthetic"
    assert options.evaluate_depth(f"{line} --eval_split eigen".split()).eval_split == "eigen"


def test_an_array_of_eigen_is_compared_under_the_benchmarks_rules():
    args = options.evaluate_depth("--ext_disp_to_eval d.npy --eval_eigen_to_benchmark".split())
    assert args.eval_split == "eigen_benchmark"


def test_home_is_found_in_every_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    line = "--load_weights_folder ~/w --data_path ~/d --json ~/a --report ~/r --gt_depths ~/g"
    args = options.evaluate_depth(line.split())
    for name in ("load_weights_folder", "data_path", "json", "report", "gt_depths"):
        assert getattr(args, name).is_relative_to("/home/someone"), name


# Make3D


def test_make3d_has_its_own_size_and_names_its_data(capsys):
    args = options.evaluate_make3d("--data_path m --load_weights_folder w".split())
    assert (args.height, args.width) == (256, 512) and args.data_path == Path("m")
    own = "--data_path m --load_weights_folder w --height 192 --width 640 --num_layer 50"
    args = options.evaluate_make3d(f"{own} --save_make3d --eval_out_dir o --eval_mono".split())
    assert (args.height, args.width, args.num_layers) == (192, 640, 50)
    assert args.save_make3d and args.eval_mono
    for line in ("--load_weights_folder w", "--data_path m"):
        assert "required" in refused(options.evaluate_make3d, line, capsys)
    for more, message in (
        ("--height 192", "belong together"),
        ("--eval_out_dir o", "has no use without --save_make3d"),
    ):
        line = f"--data_path m --load_weights_folder w {more}"
        assert message in refused(options.evaluate_make3d, line, capsys)
    with pytest.raises(SystemExit):
        options.evaluate_make3d(["--help"])
    assert " ".join(capsys.readouterr().out.split()).count("(default: 512x256, as published)") == 2


# Export


@pytest.mark.parametrize("split", EXPORT_SPLITS)
def test_exported_truth_has_a_place_by_default(split):
    args = options.export_gt_depth(["--split", split, "--data_path", "d"])
    assert args.output.name.startswith("gt_depths") and args.output.suffix == ".npz"
    if split == "synthetic":
        assert args.output.parent == Path("d/splits")
    assert options.export_gt_depth(["--split", split, "--output", "x"]).output == Path("x")


def test_no_two_exports_have_one_place():
    places = {options.export_gt_depth(["--split", split]).output for split in EXPORT_SPLITS}
    assert len(places) == len(EXPORT_SPLITS)


def test_only_what_has_a_truth_is_exported():
    assert set(EXPORT_SPLITS) < set(EVAL_SPLITS)
    assert options.export_gt_depth([]).split == "eigen"
