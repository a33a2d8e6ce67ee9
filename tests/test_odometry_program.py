"""The options of `evaluate_odometry.py`: their defaults, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

import options
from ekf.noise import PRESETS
from evaluation.odometry import STARTS
from evaluation.odometry_run import SEQUENCE_OF_SPLIT, SYNTHETIC
from evaluation.true_poses import CHOICES
from option_groups.odometry_program import SPLITS


def read(*words):
    return options.evaluate_odometry(["--load_weights_folder", "w", *words])


def test_what_is_not_said_is_left_to_weights_and_data():
    args = read()
    for name in ("drives", "sequences", "eval_split", "frames", "start", "noise_preset", "height"):
        assert getattr(args, name) is None, name
    assert args.truth == "auto" and args.out is None and args.json is None
    assert args.imu_filename == "matched_oxts.txt" and args.amp == "off"


def test_what_is_said_is_read():
    args = read("--sequences", "09", "10", "--frames", "5", "90", "--out", "~/x", "--truth", "oxts")
    assert args.sequences == [9, 10] and args.frames == (5, 90)
    assert args.out == Path.home() / "x"
    assert read("--drives", "a", "b").drives == ["a", "b"]
    assert (read("--height", "64", "--width", "96").width) == 96


def test_choices_are_those_of_the_program():
    assert (*SEQUENCE_OF_SPLIT, SYNTHETIC) == SPLITS
    for option, choices in (("truth", CHOICES), ("start", STARTS), ("noise_preset", PRESETS)):
        for choice in choices:
            assert getattr(read(f"--{option}", choice), option) == choice


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--drives a --sequences 9", "not allowed with"),
        ("--sequences 9 --eval_split odom_9", "not allowed with"),
        ("--frames 9 9", "a motion is between two images"),
        ("--frames 9 3", "a motion is between two images"),
        ("--frames -1 3", "whole number"),
        ("--sequences nine", "whole number"),
        ("--height 64", "--height and --width belong together"),
        ("--eval_split eigen", "invalid choice"),
        ("--start gps", "invalid choice"),
        ("--drives", "expected at least one argument"),
        ("--json", "expected one argument"),
    ],
)
def test_contradictions_are_refused(words, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        read(*words.split())
    assert exit_.value.code == 2 and message in capsys.readouterr().err


def test_weights_are_needed(capsys):
    with pytest.raises(SystemExit):
        options.evaluate_odometry([])
    assert "--load_weights_folder" in capsys.readouterr().err
