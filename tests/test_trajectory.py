"""The ego vehicle's motion: consistent with itself, with its street, and what it promises."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from datasets.synthetic import trajectory as module
from datasets.synthetic.trajectory import Motion, Trajectory, make_trajectory
from ekf.preintegration import move_body, preintegrate

GRAVITY = np.array([0, 0, 9.8087])  # as an accelerometer at rest reads it
STILL = 1e-4  # [m/s]
several_seeds = given(st.integers(0, 10_000))
drive = functools.lru_cache(maxsize=64)(make_trajectory)


def times(trajectory: Trajectory, step_s: float = 0.01) -> np.ndarray:
    """Return times (N,) [s] from the start of a drive to its end."""
    return np.arange(0, trajectory.duration_s + step_s / 2, step_s)


def rotations(motion: Motion) -> Rotation:
    return Rotation.from_matrix(motion.T_w_b[:, :3, :3])


def lane_accelerations(trajectory: Trajectory, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the accelerations (N,) in the plane, forward and left [m/s^2]."""
    motion = trajectory.at(t)
    yaw, acceleration_w = motion.rpy[:, 2], motion.acceleration_w
    forward = acceleration_w[:, 0] * np.cos(yaw) + acceleration_w[:, 1] * np.sin(yaw)
    left = acceleration_w[:, 1] * np.cos(yaw) - acceleration_w[:, 0] * np.sin(yaw)
    return forward, left


def land_angles(trajectory: Trajectory, motion: Motion) -> tuple[np.ndarray, np.ndarray]:
    """Return roll and pitch (N,) of a body that lies flat on the land, from its normal."""
    slope = trajectory.street.slope(motion.T_w_b[:, :2, 3])
    normal_w = np.column_stack([-slope, np.ones(len(slope))])
    normal_w /= np.linalg.norm(normal_w, axis=1, keepdims=True)
    yaw = motion.rpy[:, 2]
    x = normal_w[:, 0] * np.cos(yaw) + normal_w[:, 1] * np.sin(yaw)
    y = normal_w[:, 1] * np.cos(yaw) - normal_w[:, 0] * np.sin(yaw)
    # The third column of Ry(pitch) Rx(roll) is (sin pitch cos roll, -sin roll, ...).
    return -np.arcsin(y), np.arctan2(x, normal_w[:, 2])


def still_spans(trajectory: Trajectory) -> list[tuple[float, float]]:
    """Return when the vehicle stands: from, to [s]."""
    t = times(trajectory)
    still = np.concatenate([[False], trajectory.speed(t) <= STILL, [False]])
    borders = np.flatnonzero(np.diff(still))
    return [(t[a], t[b - 1]) for a, b in borders.reshape(-1, 2)]


@settings(max_examples=10)
@several_seeds
def test_velocity_and_acceleration_are_derivatives(seed):
    trajectory, h = drive(seed, 12.0), 1e-4
    t = times(trajectory, 0.0037)
    before, here, after = (trajectory.at(t + dt) for dt in (-h, 0, h))
    moved = (after.T_w_b[:, :3, 3] - before.T_w_b[:, :3, 3]) / (2 * h)
    sped_up = (after.velocity_w - before.velocity_w) / (2 * h)
    assert_allclose(here.velocity_w, moved, atol=2e-6)
    assert_allclose(here.acceleration_w, sped_up, atol=2e-4)
    assert_allclose(trajectory.speed(t), np.linalg.norm(here.velocity_w, axis=1), atol=1e-12)


@settings(max_examples=10)
@several_seeds
def test_the_rate_turns_the_body(seed):
    trajectory, h = drive(seed, 12.0), 1e-4
    t = times(trajectory, 0.0037)
    before, here, after = (trajectory.at(t + dt) for dt in (-h, 0, h))
    turned = (rotations(before).inv() * rotations(after)).as_rotvec() / (2 * h)
    assert_allclose(here.rate_b, turned, atol=1e-6)


def test_the_angles_are_those_of_kitti():
    motion = drive(0, 12.0).at([3.0])
    roll, pitch, yaw = motion.rpy[0]
    about = {
        axis: Rotation.from_euler(axis, angle)
        for axis, angle in zip("xyz", (roll, pitch, yaw), strict=True)
    }
    assert_allclose(motion.T_w_b[0, :3, :3], (about["z"] * about["y"] * about["x"]).as_matrix())


@settings(max_examples=5)
@several_seeds
def test_the_jerk_is_continuous(seed):
    trajectory = drive(seed, 12.0)
    t = times(trajectory)

    def largest_jumps(h: float) -> np.ndarray:
        before, here, after = (trajectory.at(t + dt) for dt in (-h, 0, h))
        linear = after.acceleration_w - 2 * here.acceleration_w + before.acceleration_w
        angular = after.rate_b - 2 * here.rate_b + before.rate_b
        return np.array([np.abs(linear).max(), np.abs(angular).max()]) / h

    coarse, fine = largest_jumps(1e-3), largest_jumps(1e-4)
    assert (fine < 0.2 * coarse).all()  # it goes down with the step
    assert (coarse < [20, 1]).all()


@settings(max_examples=20)
@several_seeds
def test_a_drive_starts_from_rest_and_halts(seed):
    trajectory = drive(seed, 12.0)
    (start, first_go), *halts = still_spans(trajectory)
    assert start == 0 and 0.6 <= first_go <= 1.2
    assert len(halts) == 1
    assert halts[0][0] > 8 and 0.7 <= halts[0][1] - halts[0][0] <= 1.2
    assert trajectory.speed(np.linspace(-0.5, 0.5, 11)).max() <= STILL
    assert trajectory.speed([12.0]) > 0.05  # it drives on
    assert np.diff(trajectory.arc_length(times(trajectory))).min() > -1e-9


@pytest.mark.parametrize("duration_s, halts", [(9.0, 0), (10.0, 1), (25.0, 1), (60.0, 2), (100, 4)])
def test_longer_drives_halt_more_often(duration_s, halts):
    for seed in range(5):
        spans = still_spans(drive(seed, duration_s))[1:]
        assert len([span for span in spans if span[1] - span[0] > 0.6]) == len(spans) == halts


@settings(max_examples=20)
@several_seeds
def test_short_drives_turn_and_longer_ones_to_both_sides(seed):
    short, longer = drive(seed, 12.0), drive(seed, 25.0)
    assert np.ptp(short.at(times(short)).rpy[:, 2]) > np.deg2rad(20)
    change = np.diff(longer.at(times(longer)).rpy[:, 2])
    assert change[change > 0].sum() > np.deg2rad(10)
    assert change[change < 0].sum() < np.deg2rad(-10)
    assert np.abs(change).max() < np.deg2rad(1)  # never wrapped


@settings(max_examples=20)
@several_seeds
def test_speeds_and_accelerations_are_those_of_a_careful_driver(seed):
    trajectory = drive(seed, 40.0)
    t = times(trajectory)
    forward, left = lane_accelerations(trajectory, t)
    assert 8 <= trajectory.speed(t).max() <= 15
    assert np.abs(left).max() <= 2.5
    assert np.abs(forward).max() <= 3.6
    assert 40 * 5 < trajectory.arc_length([40.0])[0] < 40 * 12


def test_some_drive_is_fast():
    fastest = [drive(seed, 60.0).speed(times(drive(seed, 60.0))).max() for seed in range(10)]
    assert max(fastest) > 13


@settings(max_examples=10)
@several_seeds
def test_the_body_drives_in_the_right_lane_and_looks_ahead(seed):
    trajectory = drive(seed, 25.0)
    t = times(trajectory, 0.0037)
    street, motion = trajectory.street, trajectory.at(t)
    s, yaw = trajectory.arc_length(t), motion.rpy[:, 2]
    xy_w, z = motion.T_w_b[:, :2, 3], motion.T_w_b[:, 2, 3]
    offset = xy_w - street.position_w(s)
    right = offset[:, 0] * np.sin(yaw) - offset[:, 1] * np.cos(yaw)
    along = offset[:, 0] * np.cos(yaw) + offset[:, 1] * np.sin(yaw)
    assert_allclose(right, 1.75, atol=1e-3)
    assert_allclose(along, 0, atol=1e-3)
    velocity_w = motion.velocity_w
    assert_allclose(velocity_w[:, 1] * np.cos(yaw), velocity_w[:, 0] * np.sin(yaw), atol=2e-3)
    heave_m = z - street.height(xy_w) - 0.93
    assert np.abs(heave_m).max() < 6e-3 and heave_m.std() > 5e-4  # the road is rough
    assert s[-1] < street.end_m - 250


def test_a_body_at_rest_lies_flat_on_the_land():
    tilts = []
    for seed in range(20):
        trajectory = drive(seed, 12.0)
        motion = trajectory.at([0.0])
        slope = trajectory.street.slope(motion.T_w_b[0, :2, 3])
        normal_w = np.array([-slope[0], -slope[1], 1]) / np.hypot(1, np.linalg.norm(slope))
        assert np.linalg.norm(np.cross(normal_w, motion.T_w_b[0, :3, 2])) < 5e-3
        tilts.append(np.linalg.norm(slope))
    assert max(tilts) > 0.02  # else the land would be level, and this no test


@settings(max_examples=10)
@several_seeds
def test_the_suspension_gives_way(seed):
    trajectory = drive(seed, 40.0)
    t = times(trajectory)
    motion, accelerations = trajectory.at(t), np.column_stack(lane_accelerations(trajectory, t))
    land_roll, land_pitch = land_angles(trajectory, motion)
    roll, pitch = motion.rpy[:, 0] - land_roll, motion.rpy[:, 1] - land_pitch
    by_acceleration = np.linalg.lstsq(accelerations, np.column_stack([pitch, roll]))[0]
    expected = np.diag([-0.004, 0.006])  # the nose up as it speeds up, outward in curves
    assert_allclose(by_acceleration, expected, atol=5e-4)
    rest = np.column_stack([pitch, roll]) - accelerations @ expected
    assert np.abs(rest).max() < 5e-3
    assert 3e-4 < rest.std(0).min()  # the road is rough


def test_on_a_smooth_road_the_suspension_is_exact(monkeypatch):
    monkeypatch.setattr(module, "TILT_PER_WAVELENGTH", 0)
    for seed in range(3):
        trajectory = make_trajectory(seed, 25.0)
        t = times(trajectory)
        motion, (forward, left) = trajectory.at(t), lane_accelerations(trajectory, t)
        land_roll, land_pitch = land_angles(trajectory, motion)
        assert np.abs(left).max() > 1.5
        assert_allclose(motion.rpy[:, 0], land_roll + 0.006 * left, atol=2e-4)
        assert_allclose(motion.rpy[:, 1], land_pitch - 0.004 * forward, atol=2e-4)


def test_drives_follow_from_their_seeds():
    t = np.arange(-0.5, 12.5, 0.01)
    one, same, other = (make_trajectory(seed, 12.0).at(t) for seed in (1, 1, 2))
    assert np.array_equal(one.T_w_b, same.T_w_b)
    assert np.array_equal(one.rate_b, same.rate_b)
    assert np.abs(one.velocity_w - other.velocity_w).max() > 1


@pytest.mark.parametrize("duration_s", [1.0, 1.2345, 600.0])
def test_any_duration_is_defined_on_both_sides_of_the_drive(duration_s):
    trajectory = drive(4, duration_s)
    motion = trajectory.at(np.linspace(-0.5, duration_s + 0.5, 5000))
    assert all(np.isfinite(values).all() for values in vars(motion).values())
    assert np.isnan(trajectory.at([-5.0, duration_s + 5]).velocity_w).all()


def test_a_drive_of_no_duration_is_refused():
    with pytest.raises(ValueError, match="duration_s: expected 1 s or more, got 0.5"):
        make_trajectory(0, 0.5)


@settings(max_examples=10)
@several_seeds
def test_preintegrated_samples_give_the_motion(seed):
    trajectory = drive(seed, 12.0)
    t = times(trajectory)
    motion = trajectory.at(t)
    R_w_b = motion.T_w_b[:, :3, :3]
    accel = np.einsum("nji,nj->ni", R_w_b, motion.acceleration_w + GRAVITY)
    samples = np.arange(len(t) - 10)[:, None] + np.arange(11)  # every interval of 0.1 s
    first, last = samples[:, 0], samples[:, -1]
    preintegrated = preintegrate(
        torch.full((len(samples), 10), 0.01, dtype=torch.float64),
        torch.from_numpy(motion.rate_b[samples]),
        torch.from_numpy(accel[samples]),
    )
    moved_w, _ = move_body(
        preintegrated,
        torch.from_numpy(R_w_b[first]),
        torch.from_numpy(motion.velocity_w[first]),
        torch.from_numpy(np.broadcast_to(GRAVITY, (len(samples), 3)).copy()),
    )
    true_w = motion.T_w_b[last, :3, 3] - motion.T_w_b[first, :3, 3]
    assert_allclose(moved_w.numpy(), true_w, atol=1e-3)
    R_b1_b1 = rotations(motion)[last].inv() * rotations(motion)[first]
    R_b1_b1 = R_b1_b1 * Rotation.from_matrix(preintegrated.R_b0_b1.numpy())
    assert np.rad2deg(R_b1_b1.magnitude()).max() < 0.005
