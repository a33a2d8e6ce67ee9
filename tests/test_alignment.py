"""Laws of the scale that the IMU gives to a camera's motion."""

import pytest
import torch

from benchmarks.simulation import Drive, Wave, extrinsics, random_drive
from ekf.alignment import Segment, align, velocities
from ekf.preintegration import Preintegrated, preintegrate
from liegroups import se3

INTERVALS, STEPS = 120, 10
DT = 0.01


def make_segments(count=4, unit_m=1.0, T_c_b=None, drive=None, noise=0.0, change=lambda x: x):
    """Return segments of exact drives, with the camera's translations in a unit of metres."""
    T_c_b = extrinsics() if T_c_b is None else T_c_b
    segments = []
    for _ in range(count):
        motion = drive or random_drive()
        time = DT * torch.arange(INTERVALS * STEPS + 1, dtype=torch.float64)
        index = STEPS * torch.arange(INTERVALS)[:, None] + torch.arange(STEPS + 1)  # (N, S + 1)
        dt = torch.full((INTERVALS, STEPS), DT, dtype=torch.float64)
        imu = preintegrate(dt, motion.gyro(time)[index], motion.accel(time)[index])
        T_w_c = motion.T_w_b(time[::STEPS]) @ se3.inverse(T_c_b)  # (N + 1, 4, 4)
        T_c0_c1 = se3.inverse(T_w_c[:-1]) @ T_w_c[1:]
        seen = T_c0_c1[:, :3, 3] / unit_m
        seen = change(seen + noise / unit_m * torch.randn_like(seen))
        segments.append(Segment(imu, T_c_b, seen))
    return segments


@pytest.mark.parametrize("unit_m", [0.1, 1.0, 5.4, 40.0])
def test_a_camera_without_error_gets_its_unit(unit_m):
    torch.manual_seed(0)
    found = align(make_segments(unit_m=unit_m))
    assert found.scale == pytest.approx(unit_m, rel=2e-3)  # the rule of integration
    assert found.segments == 4 and found.relative_std < 2e-3


def test_single_precision_is_enough():
    torch.manual_seed(0)
    exact = make_segments()
    rounded = [
        Segment(
            Preintegrated(*(x.float() for x in vars(s.imu).values())),
            s.T_c_b.float(),
            s.translation.float(),
        )
        for s in exact
    ]
    assert align(rounded).scale == pytest.approx(align(exact).scale, rel=1e-4)


def test_what_is_seen_and_felt_is_the_same_velocity():
    torch.manual_seed(0)
    for segment in make_segments():
        seen, felt = velocities(segment)
        assert (seen - felt).abs().max() < 0.02 < felt.abs().max()  # [m/s]


def test_noise_of_the_camera_does_not_bias_it_as_the_other_regression_is_biased():
    torch.manual_seed(0)
    segments = make_segments(count=200, unit_m=2.0, noise=0.1)  # 1 m/s: as large as the signal
    other = sum((x * y).sum() for x, y in map(velocities, segments))
    other = other / sum((x * x).sum() for x, _ in map(velocities, segments))
    assert align(segments).scale == pytest.approx(2.0, rel=0.03)
    assert other < 1.8


def test_its_deviation_is_that_of_repetitions():
    torch.manual_seed(0)
    found = [align(make_segments(count=8, noise=0.03)) for _ in range(60)]
    scales = torch.tensor([one.scale for one in found])
    said = torch.tensor([one.relative_std for one in found]).mean()
    assert 0.6 < said / scales.std() < 1.7


def test_neither_another_gravity_nor_another_start_changes_it():
    torch.manual_seed(0)
    segments = make_segments()
    time = 0.1 * torch.arange(INTERVALS, dtype=torch.float64)[:, None]

    def moved(segment):
        """Add to what the camera sees a velocity that is constant or grows as fast at all times."""
        R_b0_b1 = segment.imu.R_b0_b1
        R_b0_bk = [torch.eye(3, dtype=torch.float64)]
        for R in R_b0_b1[:-1]:
            R_b0_bk.append(R_b0_bk[-1] @ R)
        R_ck_b0 = (torch.stack(R_b0_bk) @ segment.T_c_b[:3, :3].mT).mT
        extra_b0 = torch.tensor([1.0, -2.0, 0.5]) + time * torch.tensor([0.3, 0.2, -0.4])
        extra = (R_ck_b0 @ extra_b0.unsqueeze(-1)).squeeze(-1)
        return segment._replace(translation=segment.translation + 0.1 * extra)

    assert align(list(map(moved, segments))).scale == pytest.approx(align(segments).scale, rel=1e-6)


def test_the_camera_swings_about_the_body():
    torch.manual_seed(0)
    far = extrinsics().clone()
    far[:3, 3] = torch.tensor([3.0, -2.0, 4.0])
    segments = make_segments(T_c_b=far)
    assert align(segments).scale == pytest.approx(1, rel=2e-3)
    forgotten = [s._replace(T_c_b=extrinsics()) for s in segments]
    assert abs(align(forgotten).scale - 1) > 0.01


def test_a_mirrored_world_has_the_same_scale():
    torch.manual_seed(0)
    segments = make_segments(unit_m=3.0)
    M = torch.diag(torch.tensor([-1.0, 1, 1], dtype=torch.float64))  # of the camera, x right
    M_b = torch.diag(torch.tensor([1.0, -1, 1], dtype=torch.float64))  # of the body, y left
    mirrored = []
    for s in segments:
        imu = s.imu
        flipped = Preintegrated(
            M_b @ imu.rotation @ M_b, imu.position @ M_b, imu.velocity @ M_b, imu.duration
        )
        T_c_b = se3.from_rt(M @ s.T_c_b[:3, :3] @ M_b, M @ s.T_c_b[:3, 3])
        mirrored.append(Segment(flipped, T_c_b, s.translation @ M))
    assert align(mirrored).scale == pytest.approx(align(segments).scale, rel=1e-9)


def straight(acceleration=0.0):
    """Return a drive ahead at 8 m/s; a slow wave of large amplitude is a constant acceleration."""
    none = torch.zeros(3, 1, dtype=torch.float64)
    ahead = torch.tensor([8.0, 0, 0], dtype=torch.float64)
    still = torch.zeros(3, dtype=torch.float64)
    angle = Wave(still, still, none, none, none)
    frequency = none + 1e-3
    amplitude = none.clone()
    amplitude[0] = -acceleration / (2 * torch.pi * 1e-3) ** 2
    return Drive(Wave(still, ahead, amplitude, frequency, none + torch.pi / 2), angle)


@pytest.mark.parametrize("acceleration", [0.0, 0.5])
def test_what_changes_as_fast_at_all_times_says_nothing(acceleration):
    found = align(make_segments(drive=straight(acceleration)))
    assert found.segments == 0 and found.relative_std == float("inf")
    assert found.scale != found.scale


def test_nothing_says_nothing_and_one_segment_is_not_sure():
    assert align([]).segments == 0 and align([]).relative_std == float("inf")
    torch.manual_seed(0)
    one = align(make_segments(count=1))
    assert one.scale == pytest.approx(1, rel=2e-3) and one.relative_std == float("inf")


@pytest.mark.parametrize("see", [torch.neg, torch.zeros_like, lambda x: x * torch.nan])
def test_a_camera_that_sees_the_opposite_or_nothing_is_not_believed(see):
    torch.manual_seed(0)
    found = align(make_segments(change=see))
    assert found.scale != found.scale and found.relative_std == float("inf")
