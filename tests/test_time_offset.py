"""A planted time offset is found again, and what has none to find is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from datasets.text import DataError
from datasets.time_offset import estimate_time_offset, read_rotations
from tests.kitti_tree import START_NS, body_rates, rpy

OFFSETS_MS = [37.3, -12.6, 0.0, 251.7]


def stamps(seconds, jitter_s=0.0):
    noise = np.random.default_rng(1).uniform(-jitter_s, jitter_s, len(seconds))
    return START_NS + np.round(1e9 * (seconds + noise)).astype(np.int64)


def seconds_of(stamps_ns):
    return (stamps_ns - START_NS) / 1e9


def sequences(offset_ms, image_step_s=0.1031, jitter_s=0.001):
    """Return gyro stamps, gyro, image stamps, rotations of one motion on two clocks."""
    gyro_ns = stamps(np.arange(0, 30, 0.01), jitter_s)
    image_ns = stamps(np.arange(0.4, 29.6, image_step_s), 2 * jitter_s)
    gyro = body_rates(seconds_of(gyro_ns) - offset_ms / 1e3)
    R = Rotation.from_euler("ZYX", rpy(seconds_of(image_ns))[:, ::-1]).as_matrix()
    return gyro_ns, gyro, image_ns, R


@pytest.mark.parametrize("offset_ms", OFFSETS_MS)
def test_a_planted_offset_is_found(offset_ms):
    found = estimate_time_offset(*sequences(offset_ms))
    assert found.offset_s == pytest.approx(offset_ms / 1e3, abs=2e-6)
    assert found.correlation > 0.9999
    assert found.std_s < 1e-3


@pytest.mark.parametrize("offset_ms", [32.0, 35.0, 39.0])
def test_clocks_in_step_do_not_draw_the_offset_to_a_sample(offset_ms):
    found = estimate_time_offset(*sequences(offset_ms, image_step_s=0.1, jitter_s=0.0))
    assert found.offset_s == pytest.approx(offset_ms / 1e3, abs=2e-6)


@pytest.mark.parametrize("offset_ms", OFFSETS_MS)
def test_noise_and_bias_of_the_gyro_do_little(offset_ms):
    gyro_ns, gyro, image_ns, R = sequences(offset_ms)
    noise = 0.01 * np.random.default_rng(0).standard_normal(gyro.shape) + [0.02, -0.01, 0.03]
    found = estimate_time_offset(gyro_ns, gyro + noise, image_ns, R)
    assert found.offset_s == pytest.approx(offset_ms / 1e3, abs=2e-3)
    assert found.correlation < 1


def test_the_standard_deviation_is_that_of_many_trials():
    gyro_ns, gyro, image_ns, R = sequences(12.0)
    rng = np.random.default_rng(0)
    trials = [
        estimate_time_offset(gyro_ns, gyro + 0.05 * rng.standard_normal(gyro.shape), image_ns, R)
        for _ in range(40)
    ]
    spread = np.std([trial.offset_s for trial in trials])
    stated = np.mean([trial.std_s for trial in trials])
    assert 0.8 * stated < spread < 1.2 * stated


def test_the_world_of_the_rotations_is_free():
    gyro_ns, gyro, image_ns, R = sequences(20.0)
    R_a_w = Rotation.from_rotvec([1.0, -2.0, 0.5]).as_matrix()
    found = [estimate_time_offset(gyro_ns, gyro, image_ns, each) for each in (R, R_a_w @ R)]
    assert found[0].offset_s == pytest.approx(found[1].offset_s, abs=1e-6)


def test_a_gap_in_the_gyro_costs_its_neighbourhood_only():
    gyro_ns, gyro, image_ns, R = sequences(20.0)
    whole = estimate_time_offset(gyro_ns, gyro, image_ns, R)
    keep = np.r_[:1000, 1192 : len(gyro_ns)]
    found = estimate_time_offset(gyro_ns[keep], gyro[keep], image_ns, R)
    assert found.offset_s == pytest.approx(0.020, abs=1e-4)
    lost = (1.92 + 2 * 0.5) / 0.1031
    assert whole.intervals - found.intervals == pytest.approx(lost, abs=2)


def test_a_motionless_sequence_is_refused():
    gyro_ns, gyro, image_ns, R = sequences(0.0)
    with pytest.raises(DataError, match="too little rotation to compare"):
        estimate_time_offset(gyro_ns, gyro, image_ns, np.repeat(R[:1], len(R), 0))


def test_a_short_overlap_is_refused():
    gyro_ns, gyro, image_ns, R = sequences(0.0)
    with pytest.raises(DataError, match="have 12 intervals in common .*, at least 20 are needed"):
        estimate_time_offset(gyro_ns[:200], gyro[:200], image_ns, R, max_offset_s=0.3)
    with pytest.raises(DataError, match="have 0 intervals in common"):
        estimate_time_offset(gyro_ns + 10**12, gyro, image_ns, R)


@pytest.mark.parametrize("gyro_factor, offset_ms", [(1, 130.0), (1, -130.0), (0, 0.0), (-1, 0.0)])
def test_a_maximum_outside_of_the_range_is_refused(gyro_factor, offset_ms):
    gyro_ns, gyro, image_ns, R = sequences(offset_ms)
    with pytest.raises(DataError, match="the correlation has no maximum within 100 ms"):
        estimate_time_offset(gyro_ns, gyro_factor * gyro, image_ns, R, max_offset_s=0.1)


@pytest.mark.filterwarnings("error")
def test_a_gyro_that_knows_nothing_of_the_motion_is_refused():
    gyro_ns, gyro, image_ns, R = sequences(0.0)
    with pytest.raises(DataError, match="the correlation has no maximum"):
        estimate_time_offset(gyro_ns, 0 * gyro, image_ns, R)


def test_a_maximum_that_contradicts_the_motion_is_refused():
    # The slow part of the motion comes with the wrong sign: the fast part alone makes a maximum,
    # within a range where the correlation is negative throughout.
    gyro_ns, _, image_ns, _ = sequences(0.0)
    t = seconds_of(image_ns)
    R = Rotation.from_euler("z", (np.sin(0.7 * t) + 0.01 * np.sin(20 * t))[:, None]).as_matrix()
    t = seconds_of(gyro_ns)
    yaw_rate = -0.7 * np.cos(0.7 * t) + 0.2 * np.cos(20 * t)
    gyro = np.stack([0 * t, 0 * t, yaw_rate], 1)
    with pytest.raises(DataError, match="the correlation has no maximum"):
        estimate_time_offset(gyro_ns, gyro, image_ns, R, max_offset_s=0.1)


@pytest.mark.parametrize("argument, name", [(0, "gyro"), (2, "rotation")])
def test_stamps_that_do_not_increase_are_refused(argument, name):
    arguments = list(sequences(0.0))
    arguments[argument] = arguments[argument].copy()
    arguments[argument][5] = arguments[argument][4]
    with pytest.raises(DataError, match=f"^{name} stamps: expected at least two, each after"):
        estimate_time_offset(*arguments)


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf])
def test_a_range_that_cannot_be_searched_is_refused(limit):
    with pytest.raises(DataError, match="range of time offsets: expected at least 0.005 s"):
        estimate_time_offset(*sequences(0.0), max_offset_s=limit)


def test_a_trajectory_reads_as_rotations(tmp_path):
    R = Rotation.from_rotvec(np.random.default_rng(0).standard_normal((4, 3))).as_matrix()
    rows = np.concatenate([R, np.ones((4, 3, 1))], 2).reshape(4, 12)
    np.savetxt(tmp_path / "poses.txt", rows, fmt="%.6e")
    read = read_rotations(tmp_path / "poses.txt")
    np.testing.assert_allclose(read, R, atol=1e-6)
    np.testing.assert_allclose(
        read.transpose(0, 2, 1) @ read, np.tile(np.eye(3), (4, 1, 1)), atol=1e-14
    )


GOOD = "1 0 0 0 0 1 0 0 0 0 1 0"


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r"poses\.txt: no poses in it$"),
        (GOOD + "\n1 2 3", r"poses\.txt, line 2: expected 12 numbers, got 3$"),
        (GOOD.replace("0", "x", 1), r"poses\.txt, line 1: number 2 is 'x'"),
        (GOOD.replace("1", "2", 1), r"poses\.txt, line 1: its 3x3 part is not a rotation$"),
        (GOOD.replace("1", "-1", 1), r"poses\.txt, line 1: its 3x3 part is not a rotation$"),
    ],
)
def test_a_wrong_trajectory_is_named(tmp_path, text, message):
    (tmp_path / "poses.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_rotations(tmp_path / "poses.txt")
