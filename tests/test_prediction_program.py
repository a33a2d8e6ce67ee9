"""The options of `predict.py`: defaults, each option, and what contradicts each other."""

from __future__ import annotations

from pathlib import Path

import pytest

import options
from evaluation.depth_outputs import SUFFIX_OF, Wanted
from evaluation.media import Reading
from option_groups.prediction_program import KINDS

WEIGHTS = ["--load_weights_folder", "weights"]
CAMERA = ["--intrinsics", "700", "710", "600", "180"]


def test_the_defaults():
    assert vars(options.predict([*WEIGHTS, "a.png"])) == {
        "inputs": ["a.png"],
        "load_weights_folder": Path("weights"),
        "num_layers": None,
        "trans_scale_factor": None,
        "height": None,
        "width": None,
        "every": 1,
        "max_frames": None,
        "skip_broken": False,
        "post_process": False,
        "pred_depth_scale_factor": 1.0,
        "out": Path("predictions"),
        "save": ("png16", "colour"),
        "nearest": None,
        "overwrite": False,
        "onnx": None,
        "intrinsics": None,
        "calibration": None,
        "max_distance": 80.0,
        "batch_size": 8,
        "num_workers": 2,
        "amp": "off",
        "no_cuda": False,
        "compile": False,
    }


def test_the_functions_have_the_same_defaults():
    args, wanted, reading = options.predict([*WEIGHTS, "0"]), Wanted(Path()), Reading((64, 64))
    assert (args.save, args.max_distance) == (wanted.kinds, wanted.max_distance_m)
    assert (args.nearest, args.overwrite) == (wanted.nearest_m, wanted.overwrite)
    assert (args.every, args.max_frames) == (reading.every, reading.max_frames)
    assert args.skip_broken == reading.skip_broken
    assert tuple(SUFFIX_OF) == KINDS


def test_each_option_is_read():
    words = "0 b.mp4 --save ply npy ply colour --every 3 --max_frames 9 --skip_broken --nearest 4"
    words += " --out o --overwrite --onnx m.onnx --max_distance inf --post_process --compile"
    words += " --pred_depth_scale_factor 2 --num_layer 50 --trans_scale_factor 3 --amp bf16"
    words += " --height 64 --width 96 --batch_size 2 --num_workers 0 --no_cuda"
    args = options.predict([*WEIGHTS, *words.split(), *CAMERA])
    assert args.inputs == ["0", "b.mp4"] and args.save == ("ply", "npy", "colour")
    assert args.intrinsics == [700, 710, 600, 180]
    assert (args.every, args.max_frames, args.nearest, args.num_layers) == (3, 9, 4, 50)
    assert (args.max_distance, args.onnx, args.out) == (float("inf"), Path("m.onnx"), Path("o"))
    assert (args.height, args.width, args.trans_scale_factor) == (64, 96, 3)
    assert args.skip_broken and args.overwrite and args.post_process and args.compile
    words = ["a.png", "--save", "ply", "--calibration", "calib.txt"]
    assert options.predict([*WEIGHTS, *words]).calibration == Path("calib.txt")


def test_the_networks_alone_need_no_input():
    args = options.predict([*WEIGHTS, "--onnx", "m.onnx"])
    assert args.inputs == [] and args.onnx == Path("m.onnx")


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    args = options.predict(["--load_weights_folder", "~/w", "a.png", "--out", "~/o"])
    assert (args.load_weights_folder, args.out) == (Path("/home/me/w"), Path("/home/me/o"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a.png", "--load_weights_folder FOLDER is needed"),
        ("W", "no INPUT: name images"),
        ("W --onnx m.onnx --out o", "--out has no use without INPUT"),
        ("W --onnx m.onnx --amp bf16 --every 2", "--every, --amp has no use without INPUT"),
        ("W a.png --save ply", "--save ply needs the camera"),
        ("W a.png --intrinsics 1 1 0 0", "--intrinsics has no use without --save ply"),
        ("W a.png --calibration c", "--calibration has no use without --save ply"),
        ("W a.png --max_distance 9", "--max_distance has no use without --save ply"),
        ("W a.png --save ply --calibration c --intrinsics 1 1 0 0", "not allowed with"),
        ("W a.png --save ply --intrinsics 0 1 0 0", "focal lengths above zero"),
        ("W a.png --save ply --intrinsics 1 nan 0 0", "focal lengths above zero"),
        ("W a.png --save ply --intrinsics 1 1 inf 0", "expected finite numbers"),
        ("W a.png --save ply --intrinsics 1 1 0", "expected 4 arguments"),
        ("W a.png --save png16 --nearest 4", "--nearest has no use without --save colour"),
        ("W a.png --nearest 0", "expected a number, 0.001 or more, 1e+06 or less"),
        ("W a.png --nearest 1e308", "expected a number, 0.001 or more, 1e+06 or less"),
        ("W a.png --save tiff", "invalid choice"),
        ("W a.png --every 0", "expected a whole number, 1 or more"),
        ("W a.png --max_frames -1", "expected a whole number, 1 or more"),
        ("W a.png --height 100", "expected a multiple of 32"),
        ("W a.png --pred_depth_scale_factor 0", "expected a number, more than 0"),
    ],
)
def test_what_cannot_be_is_refused(words, message, capsys):
    given = [word for text in words.split() for word in (WEIGHTS if text == "W" else [text])]
    with pytest.raises(SystemExit) as error:
        options.predict(given)
    assert error.value.code == 2 and message in capsys.readouterr().err
