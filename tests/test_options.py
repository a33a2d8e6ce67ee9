"""The command lines: defaults, and options that contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

import options
from datasets import drives

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
