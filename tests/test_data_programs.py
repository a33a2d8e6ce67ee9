"""The programs of the data: defaults, each option, and options that contradict each other."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

import options
from datasets import add_noise, drives
from datasets.data_options import DataOptions

FOLDERS = ["--raw_path", "raw", "--sync_path", "sync"]


def test_the_defaults_of_matching_are_the_published_behaviour():
    assert vars(options.match_kitti_imu(FOLDERS)) == {
        "raw_path": Path("raw"),
        "sync_path": Path("sync"),
        "drives": None,
        "split": None,
        "workers": 1,
        "align": "packet",
        "max_drift_ms": 5.0,
        "check": False,
        "overwrite": False,
        "estimate_time_offset": False,
    }


def test_the_options_of_the_task_are_all_that_comes_back():
    args = options.match_kitti_imu([*FOLDERS, "--estimate_time_offset"])
    assert (args.rotations, args.max_offset_ms) == (None, 500.0)
    assert not set(options.MATCHING_DEFAULTS) & set(vars(args))


def test_each_option_is_read():
    given = ["--drives", "a", "b", "--align", "camera", "--max_drift_ms", "2.5", "--workers", "3"]
    args = options.match_kitti_imu([*FOLDERS, *given, "--overwrite"])
    assert (args.drives, args.align, args.max_drift_ms) == (["a", "b"], "camera", 2.5)
    assert (args.workers, args.overwrite, args.check) == (3, True, False)
    offset = ["--estimate_time_offset", "--rotations", "poses.txt", "--max_offset_ms", "80"]
    args = options.match_kitti_imu([*FOLDERS, "--split", "odom", *offset])
    assert (args.split, args.rotations, args.max_offset_ms) == ("odom", Path("poses.txt"), 80)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--estimate_time_offset", "--align", "camera"], "--align has no use with"),
        (["--estimate_time_offset", "--max_drift_ms", "5"], "--max_drift_ms has no use with"),
        (["--estimate_time_offset", "--check"], "--check has no use with"),
        (["--estimate_time_offset", "--overwrite"], "--overwrite has no use with"),
        (["--rotations", "poses.txt"], "--rotations has no use without"),
        (["--max_offset_ms", "500"], "--max_offset_ms has no use without"),
        (["--check", "--overwrite"], "nothing to --overwrite"),
        (["--drives", "a", "--split", "odom"], "not allowed with"),
        (["--align", "gps"], "invalid choice"),
        (["--max_drift", "3"], "unrecognized arguments"),
    ],
)
def test_options_that_contradict_are_refused(given, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        options.match_kitti_imu([*FOLDERS, *given])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_the_help_is_grouped_and_says_the_defaults(capsys):
    with pytest.raises(SystemExit):
        options.match_kitti_imu(["--help"])
    printed = capsys.readouterr().out
    for words in (
        "data:",
        "matching:",
        "time offset:",
        "(default: packet)",
        "(default: 5)",
        "exit code",
    ):
        assert words in printed


def test_the_defaults_are_those_of_the_functions_behind():
    folders = (Path("raw"), Path("sync"))
    for kind, defaults in (
        (drives.MatchOptions, options.MATCHING_DEFAULTS),
        (drives.OffsetOptions, options.OFFSET_DEFAULTS),
    ):
        behind = vars(kind(*folders))
        assert {name: behind[name] for name in defaults} == defaults
        assert set(behind) == {"raw_path", "sync_path"} | set(defaults)


DATA = {"data_path": Path("data/kitti/kitti_raw"), "dataset": "kitti", "png": False}
CACHE = ["--cache_dir", "cache", "--split", "odom"]


def test_the_defaults_of_the_check_ask_for_all_that_training_needs():
    assert vars(options.check([])) == DATA | {
        "split": None,
        "frame_ids": [0, -1, 1],
        "use_stereo": False,
        "imu_filename": "matched_oxts.txt",
        "no_imu": False,
        "deep": False,
        "workers": 2,
    }


def test_each_option_of_the_check_is_read():
    given = "--data_path raw --dataset kitti_depth --png --split a b --frame_ids -2 -1 0 1 2"
    given += " --use_stereo --imu_filename noisy.txt --no_imu --deep --workers 5"
    assert vars(options.check(given.split())) == {
        "data_path": Path("raw"),
        "dataset": "kitti_depth",
        "png": True,
        "split": ["a", "b"],
        "frame_ids": [-2, -1, 0, 1, 2],
        "use_stereo": True,
        "imu_filename": "noisy.txt",
        "no_imu": True,
        "deep": True,
        "workers": 5,
    }


def test_the_cache_is_that_of_the_published_size_and_goes_where_it_is_told():
    defaults = {"use_stereo": False, "height": 192, "width": 640, "overwrite": False, "workers": 2}
    given = {"cache_dir": Path("cache"), "split": "odom"}
    assert vars(options.cache(CACHE)) == DATA | given | defaults


def test_each_option_of_the_cache_is_read():
    given = "--data_path raw --dataset kitti_odom --png --use_stereo --height 96 --width 320"
    given += " --overwrite --workers 7"
    assert vars(options.cache([*CACHE, *given.split()])) == {
        "data_path": Path("raw"),
        "dataset": "kitti_odom",
        "png": True,
        "cache_dir": Path("cache"),
        "split": "odom",
        "use_stereo": True,
        "height": 96,
        "width": 320,
        "overwrite": True,
        "workers": 7,
    }


def test_data_is_asked_for_as_training_asks_for_it():
    behind = {field.name: field.default for field in fields(DataOptions)}
    for args, same in (
        (options.check([]), {"dataset", "png", "frame_ids", "use_stereo", "imu_filename"}),
        (options.cache(CACHE), {"dataset", "png", "use_stereo", "height", "width"}),
    ):
        given = vars(args) | {"frame_ids": tuple(vars(args).get("frame_ids", ()))}
        assert {name: given[name] for name in same} == {name: behind[name] for name in same}
    assert options.check([]).no_imu != behind["use_imu"]


@pytest.mark.parametrize(
    "kind, strengths",
    [
        ("gyro", {"gyro_noise": 0.01}),
        ("accel", {"accel_noise": 0.1}),
        ("both", {"gyro_noise": 0.01, "accel_noise": 0.1}),
        ("velocity", {"velocity_noise": 0.1}),
    ],
)
def test_noise_has_the_published_strength_and_a_file_of_its_own(kind, strengths):
    assert vars(options.add_noise(["--type", kind])) == strengths | {
        "data_path": Path("data/kitti/kitti_raw"),
        "drives": None,
        "split": None,
        "type": kind,
        "output": f"matched_oxts_{kind}.txt",
        "remove": False,
        "workers": 1,
        "misalignment": 0.02,
        "seed": 0,
        "overwrite": False,
    }


def test_each_option_of_noise_is_read():
    given = "--data_path raw --drives a b --type both --output x.txt --misalignment 0 --seed 7"
    given += " --gyro_noise 0.5 --accel_noise 2 --overwrite --workers 3"
    assert vars(options.add_noise(given.split())) == {
        "data_path": Path("raw"),
        "drives": ["a", "b"],
        "split": None,
        "type": "both",
        "output": "x.txt",
        "remove": False,
        "workers": 3,
        "misalignment": 0.0,
        "gyro_noise": 0.5,
        "accel_noise": 2.0,
        "seed": 7,
        "overwrite": True,
    }
    args = options.add_noise(["--type", "velocity", "--velocity_noise", "3", "--split", "odom"])
    assert (args.velocity_noise, args.split, args.drives) == (3.0, "odom", None)


def test_removing_noise_needs_none():
    args = options.add_noise(["--type", "gyro", "--remove"])
    assert args.remove and args.output == "matched_oxts_gyro.txt"
    assert not set(options.NOISE_DEFAULTS) & set(vars(args))


def test_noise_has_an_option_for_each_sensor_behind_and_no_other():
    names = {f"{sensor}_noise" for sensor in add_noise.SENSORS}
    assert set(options.NOISE_DEFAULTS) == names | {"misalignment", "seed", "overwrite"}
    assert {name for used in options.NOISE_OF_TYPE.values() for name in used} == names
    behind = {field.name: field.default for field in fields(add_noise.Noise)}
    assert options.NOISE_DEFAULTS["overwrite"] == behind["overwrite"]
    for kind, used in options.NOISE_OF_TYPE.items():  # what the noise itself refuses is no default
        args = options.add_noise(["--type", kind])
        strengths = {name.removesuffix("_noise"): getattr(args, name) for name in used}
        add_noise.Noise(kind, strengths, args.misalignment, args.seed, args.output)


@pytest.mark.parametrize(
    "program, given, message",
    [
        ("check", ["--deap"], "unrecognized arguments: --deap"),
        ("check", ["--frame_id", "0"], "unrecognized arguments"),  # nothing is guessed
        ("check", ["--dataset", "kitty"], "invalid choice"),
        ("check", ["--data_path", ""], "expected a folder, got ''"),
        ("check", ["--frame_ids", "0", "x"], "invalid int value"),
        ("check", ["--split"], "expected at least one argument"),
        ("cache", [], "the following arguments are required: --cache_dir, --split"),
        ("cache", ["--cache_dir", "", "--split", "odom"], "expected a folder, got ''"),
        ("cache", [*CACHE, "--frame_ids", "0"], "unrecognized arguments"),
        ("add_noise", [], "the following arguments are required: --type"),
        ("add_noise", ["--type", "gps"], "invalid choice"),
        ("add_noise", ["--type", "gyro", "--drives", "a", "--split", "b"], "not allowed with"),
        ("add_noise", ["--type", "gyro", "--accel_noise", "1"], "--accel_noise has no use with"),
        ("add_noise", ["--type", "accel", "--gyro_noise", "1"], "no use with --type accel"),
        ("add_noise", ["--type", "both", "--velocity_noise", "1"], "no use with --type both"),
        ("add_noise", ["--type", "velocity", "--gyro_noise", "0.01"], "no use with --type veloc"),
        (
            "add_noise",
            ["--type", "gyro", "--remove", "--seed", "0"],
            "--seed has no use with --rem",
        ),
        ("add_noise", ["--type", "gyro", "--remove", "--gyro_noise", "1"], "no use with --remove"),
        ("add_noise", ["--type", "gyro", "--remove", "--misalignment", "0"], "no use with --rem"),
        ("add_noise", ["--type", "gyro", "--remove", "--overwrite"], "--overwrite has no use"),
    ],
)
def test_what_a_program_of_the_data_cannot_use_is_refused(program, given, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        getattr(options, program)(given)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("program", ["check", "cache", "add_noise"])
def test_the_help_names_the_module_and_its_exit_codes(program, capsys):
    with pytest.raises(SystemExit) as stopped:
        getattr(options, program)(["--help"])
    printed = capsys.readouterr().out
    assert stopped.value.code == 0 and f"python -m datasets.{program} " in printed
    assert "exit code: 0" in printed and "(default: " in printed
