"""What can be asked of a dataset, and what is refused by the name of the option."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import options
from datasets.data_options import DataOptions
from datasets.layouts import LAYOUTS
from datasets.text import DataError

ROOT = Path("data")


def test_what_is_not_said_is_the_published_setting():
    asked = DataOptions(ROOT)
    assert (asked.size, asked.frame_ids, asked.window) == ((640, 192), (0, -1, 1), (-1, 1))
    assert asked.use_imu and not asked.use_stereo and asked.intrinsics == "calibrated"
    assert asked.check_attitude and asked.imu_clip == 5
    assert DataOptions(ROOT, imu_clip=float("inf")).imu_clip > 1e300  # clips nothing


@pytest.mark.parametrize(
    "frame_ids, window",
    [((0, 1), (0, 1)), ((0, -1), (-1, 0)), ((1, 0, -2, -1), (-2, 1)), ((0, -1, 1, 2), (-1, 2))],
)
def test_with_imu_the_window_is_one_run_in_any_order(frame_ids, window):
    assert DataOptions(ROOT, frame_ids=frame_ids).window == window


@pytest.mark.parametrize("frame_ids", [(0,), (0, -2, 2), (0, 5)])
def test_without_imu_any_neighbours_will_do(frame_ids):
    asked = DataOptions(ROOT, frame_ids=frame_ids, use_imu=False)
    assert asked.window == (min(frame_ids), max(frame_ids))
    with pytest.raises(DataError, match=r"^frame_ids: with IMU"):
        DataOptions(ROOT, frame_ids=frame_ids)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("dataset", "kitty", r"expected one of kitti, kitti_odom, .*, got kitty$"),
        ("intrinsics", "guessed", r"expected calibrated or fixed"),
        ("height", 190, r"expected a multiple of 32, got 190$"),
        ("width", 656, r"expected a multiple of 32, got 656$"),
        ("height", 0, r"expected a multiple of 32, got 0$"),
        ("width", -32, r"expected a multiple of 32, got -32$"),
        ("imu_clip", 0.0, r"expected more than 0, got 0\.0$"),
        ("imu_clip", -5.0, r"expected more than 0, got -5\.0$"),
        ("imu_clip", float("nan"), r"expected more than 0, got nan$"),
        ("frame_ids", (-1, 1), r"expected 0 and other offsets once each, got \[-1, 1\]$"),
        ("frame_ids", (), r"expected 0 and"),
        ("frame_ids", (0, 1, 1), r"expected .* once each, got \[0, 1, 1\]$"),
    ],
)
@pytest.mark.parametrize("use_imu", [False, True])
def test_what_cannot_be_is_refused_by_its_name(name, value, message, use_imu):
    with pytest.raises(DataError, match=f"^{name}: {message}") as error:
        DataOptions(ROOT, use_imu=use_imu, **{name: value})
    assert "\n" not in str(error.value)


def test_the_command_lines_offer_what_there_is():
    assert tuple(LAYOUTS) == options.DATASETS


def test_tests_look_at_single_images_without_imu():
    asked = DataOptions("data", frame_ids=(0, -1, 1), use_depth=True)
    assert asked.of_tests() == replace(asked, use_imu=False, frame_ids=(0,))
    assert asked.data_path == Path("data")
