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


def yawing(yaw, yaw_rate, image_step_s=0.1031):
    """Return the same of a motion with this yaw [rad] and yaw rate [rad/s] at times [s]."""
    gyro_ns, _, image_ns, _ = sequences(0.0, image_step_s)
    t = seconds_of(gyro_ns)
    R = Rotation.from_euler("z", yaw(seconds_of(image_ns))[:, None]).as_matrix()
    return gyro_ns, np.stack([0 * t, 0 * t, yaw_rate(t)], 1), image_ns, R


def trials(data, count, gyro_noise=0.0, rotation_noise=0.0, max_offset_s=0.1):
    """Return the offsets found under so much noise [rad/s, rad], None where it was refused."""
    gyro_ns, gyro, image_ns, R = data
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        noisy_gyro = gyro + gyro_noise * rng.standard_normal(gyro.shape)
        turn = Rotation.from_rotvec(rotation_noise * rng.standard_normal((len(R), 3)))
        noisy = (gyro_ns, noisy_gyro, image_ns, R @ turn.as_matrix())
        try:
            found.append(estimate_time_offset(*noisy, max_offset_s))
        except DataError:
            found.append(None)
    return found


@pytest.mark.parametrize("offset_ms", OFFSETS_MS)
def test_a_planted_offset_is_found(offset_ms):
    found = estimate_time_offset(*sequences(offset_ms))
    assert found.offset_s == pytest.approx(offset_ms / 1e3, abs=2e-5)
    assert found.correlation > 0.9999
    assert found.std_s < 1e-3


@pytest.mark.parametrize("offset_ms", [32.0, 35.0, 39.0])
def test_clocks_in_step_do_not_draw_the_offset_to_a_sample(offset_ms):
    found = estimate_time_offset(*sequences(offset_ms, image_step_s=0.1, jitter_s=0.0))
    assert found.offset_s == pytest.approx(offset_ms / 1e3, abs=2e-5)


@pytest.mark.parametrize("offset_ms", OFFSETS_MS)
def test_noise_and_bias_of_the_gyro_do_little(offset_ms):
    gyro_ns, gyro, image_ns, R = sequences(offset_ms)
    noise = 0.01 * np.random.default_rng(0).standard_normal(gyro.shape) + [0.02, -0.01, 0.03]
    found = estimate_time_offset(gyro_ns, gyro + noise, image_ns, R)
    assert found.offset_s == pytest.approx(offset_ms / 1e3, abs=2e-3)
    assert found.correlation < 1


@pytest.mark.parametrize("image_step_s, limit_ms", [(0.1, 0.1), (0.05, 0.25)])
def test_noise_of_the_gyro_does_not_draw_clocks_in_step_to_a_phase(image_step_s, limit_ms):
    # At 12 and 18 ms a pull to the middle between two samples has opposite signs, while the same
    # noise does much the same: half the difference shows the pull, and little else.
    errors_ms = []
    for offset_ms in (12.0, 18.0):
        data = sequences(offset_ms, image_step_s, jitter_s=0.0)
        found = trials(data, 60, gyro_noise=0.05)
        errors_ms.append([1e3 * each.offset_s - offset_ms for each in found])
    pull_ms, mean_ms = np.mean(errors_ms[0]) - np.mean(errors_ms[1]), np.mean(errors_ms)
    assert abs(pull_ms / 2) < limit_ms
    assert abs(mean_ms) < 0.5


@pytest.mark.parametrize("image_step_s", [0.2, 0.1, 0.05])
@pytest.mark.parametrize("gyro_noise, rotation_noise", [(0.05, 0.0), (0.0, 1e-3), (0.02, 1e-3)])
def test_the_standard_deviation_is_that_of_many_trials(image_step_s, gyro_noise, rotation_noise):
    found = trials(sequences(12.3, image_step_s), 30, gyro_noise, rotation_noise)
    spread = np.std([each.offset_s for each in found])
    stated = np.mean([each.std_s for each in found])
    assert 0.75 < spread / stated < 1.33


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("image_step_s", [0.2, 0.1])
def test_a_drive_of_constant_rate_is_refused_for_all_its_noise(rate, image_step_s):
    data = yawing(lambda t: rate * t, lambda t: rate + 0 * t, image_step_s)
    assert trials(data, 20, gyro_noise=0.02, rotation_noise=1e-3, max_offset_s=0.3) == [None] * 20


def test_a_turning_drive_is_accepted_for_all_its_noise():
    found = trials(sequences(37.3), 20, gyro_noise=0.02, rotation_noise=3e-3, max_offset_s=0.3)
    assert [each.offset_s for each in found] == pytest.approx([0.0373] * 20, abs=6e-3)


def test_a_rate_that_grows_steadily_is_refused_for_all_its_noise():
    # At any shift it differs by a constant only, which a bias could be too.
    data = yawing(lambda t: 0.01 * (t - 15) ** 2, lambda t: 0.02 * (t - 15))
    assert trials(data, 20, gyro_noise=0.01, rotation_noise=1e-3) == [None] * 20
    noise = 0.01 * np.random.default_rng(1).standard_normal(data[1].shape)
    with pytest.raises(DataError, match=r"the correlation of 1\.000 at .* stands out too little"):
        estimate_time_offset(data[0], data[1] + noise, *data[2:])


@pytest.mark.parametrize("offset_s, rival", [(0.2, "-13[05]"), (-0.2, "13[05]")])
def test_a_motion_that_repeats_itself_is_refused(offset_s, rival):
    w = 2 * np.pi * 3
    data = yawing(lambda t: np.sin(w * t) / w, lambda t: np.cos(w * (t - offset_s)))
    with pytest.raises(DataError, match=rf"1\.00 at ({rival}|-?200) ms, .* repeats itself"):
        estimate_time_offset(*data, max_offset_s=0.3)
    found = estimate_time_offset(*data, max_offset_s=0.15)  # of many, the one within the range
    assert found.offset_s == pytest.approx(-math.copysign(2 / 15, offset_s), abs=1e-3)


def test_the_highest_of_narrow_peaks_is_found():
    # 8 Hz and 9.5 Hz together: peaks every 114 ms, the first beside the highest has 0.86 of it.
    def yaw_rate(t):
        return np.cos(2 * np.pi * 8 * t) + np.cos(2 * np.pi * 9.5 * t)

    def yaw(t):
        return np.sin(2 * np.pi * 8 * t) / (16 * np.pi) + np.sin(2 * np.pi * 9.5 * t) / (19 * np.pi)

    gyro_ns, _, image_ns, R = yawing(yaw, yaw_rate, 0.0491)
    for offset_s in (0.010, 0.0125, 0.020):
        t = seconds_of(gyro_ns) - offset_s
        gyro = np.stack([0 * t, 0 * t, yaw_rate(t)], 1)
        found = estimate_time_offset(gyro_ns, gyro, image_ns, R, max_offset_s=0.2)
        assert found.offset_s == pytest.approx(offset_s, abs=1e-3)


def test_the_world_of_the_rotations_is_free():
    gyro_ns, gyro, image_ns, R = sequences(20.0)
    R_a_w = Rotation.from_rotvec([1.0, -2.0, 0.5]).as_matrix()
    found = [estimate_time_offset(gyro_ns, gyro, image_ns, each) for each in (R, R_a_w @ R)]
    assert found[0].offset_s == pytest.approx(found[1].offset_s, abs=1e-6)


@pytest.mark.parametrize("last, first, gap_s", [(1000, 1192, 1.92), (1000, 1005, 0.06)])
def test_a_gap_in_the_gyro_costs_its_neighbourhood_only(last, first, gap_s):
    gyro_ns, gyro, image_ns, R = sequences(20.0)
    whole = estimate_time_offset(gyro_ns, gyro, image_ns, R)
    keep = np.r_[:last, first : len(gyro_ns)]
    found = estimate_time_offset(gyro_ns[keep], gyro[keep], image_ns, R)
    assert found.offset_s == pytest.approx(0.020, abs=1e-4)
    lost = (gap_s + 2 * 0.555 + 0.1031) / 0.1031  # what touches the gap when shifted and smoothed
    assert whole.intervals - found.intervals == pytest.approx(lost, abs=1)


def test_samples_left_out_one_by_one_cost_nothing():
    gyro_ns, gyro, image_ns, R = sequences(20.0)
    keep = np.r_[:1000, 1003 : len(gyro_ns)]
    found = estimate_time_offset(gyro_ns[keep], gyro[keep], image_ns, R)
    assert found.intervals == estimate_time_offset(gyro_ns, gyro, image_ns, R).intervals


def test_a_motionless_sequence_is_refused():
    gyro_ns, gyro, image_ns, R = sequences(0.0)
    with pytest.raises(DataError, match="too little rotation to compare"):
        estimate_time_offset(gyro_ns, gyro, image_ns, np.repeat(R[:1], len(R), 0))


def test_a_short_overlap_is_refused():
    gyro_ns, gyro, image_ns, R = sequences(0.0)
    with pytest.raises(DataError, match="have 11 intervals in common .*, at least 20 are needed"):
        estimate_time_offset(gyro_ns[:200], gyro[:200], image_ns, R, max_offset_s=0.3)
    with pytest.raises(DataError, match="have 0 intervals in common"):
        estimate_time_offset(gyro_ns + 10**12, gyro, image_ns, R)


@pytest.mark.parametrize("offset_ms", [130.0, -130.0])
def test_a_maximum_outside_of_the_range_is_refused(offset_ms):
    with pytest.raises(DataError, match="the correlation has no maximum within 100 ms"):
        estimate_time_offset(*sequences(offset_ms), max_offset_s=0.1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("gyro_factor, best", [(0, "0.00"), (-1, "-0.96")])
def test_a_gyro_that_does_not_know_the_motion_is_refused(gyro_factor, best):
    gyro_ns, gyro, image_ns, R = sequences(0.0)
    with pytest.raises(DataError, match=f"is {best} at best within 100 ms, at least 0.5 is needed"):
        estimate_time_offset(gyro_ns, gyro_factor * gyro, image_ns, R, max_offset_s=0.1)


@pytest.mark.parametrize("argument, name", [(0, "gyro"), (2, "rotation")])
def test_stamps_that_do_not_increase_are_refused(argument, name):
    arguments = list(sequences(0.0))
    arguments[argument] = arguments[argument].copy()
    arguments[argument][5] = arguments[argument][4]
    with pytest.raises(DataError, match=f"^{name} stamps: expected at least two, each after"):
        estimate_time_offset(*arguments)


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf, 1e297, 3601])
def test_a_range_that_cannot_be_searched_is_refused(limit):
    with pytest.raises(DataError, match="expected at least 0.005 s and at most 3600 s, got"):
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
