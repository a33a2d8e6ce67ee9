"""The filter over a drive: anchoring, holes in the data, consistency, convergence of the biases."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch.testing import assert_close

from benchmarks.simulation import (
    extrinsics,
    motion_error,
    nees,
    random_drive,
    simulate,
    without,
)
from ekf.filter import (
    BA,
    BG,
    GRAV,
    PHI,
    ROT,
    TRANS,
    VEL,
    EKFModel,
    FilterState,
    motion_covariance,
)
from ekf.preintegration import camera_motion, carry, preintegrate
from ekf.sequence import (
    UNKNOWN_ACCEL_DENSITY,
    UNKNOWN_RATE_DENSITY,
    Track,
    anchor,
    coast,
    run_sequence,
)
from liegroups import se3, so3
from liegroups.matrices import apply
from tests.test_filter import (
    DOUBLE,
    chi_square_bounds,
    error_of,
    is_positive,
    jacobian,
    moved,
    random_state,
)

CAMERA = torch.diag(torch.tensor([3e-4] * 3 + [0.02] * 3, dtype=DOUBLE).square())


def run(simulation, model=None) -> Track:
    model = model or EKFModel("calibrated").double()
    s = simulation
    with torch.no_grad():
        return run_sequence(model, s.imu, s.camera, s.T_c_b, s.start)


def drive(*batch: int, intervals: int = 12, model: EKFModel | None = None):
    return simulate(
        model or EKFModel("calibrated").double(), random_drive(*batch), intervals, CAMERA
    )


def test_one_interval_is_what_training_does():
    s = drive(3, intervals=1)
    model = EKFModel("calibrated").double()
    track = run(s, model)
    state = model.propagate(s.start, s.imu.dt[:, 0], s.imu.gyro[:, 0], s.imu.accel[:, 0], s.T_c_b)
    fused, innovation = model.update(state, s.camera.T_c0_c1[:, 0], CAMERA, s.T_c_b)
    assert_close(track.T_c0_c1[:, 0], fused.T_c0_c1)
    assert_close(track.nis[:, 0], innovation.nis())
    assert_close(track.T_c0_ck[:, 1], fused.T_c0_c1)


def test_anchoring_changes_the_axes_and_not_the_world():
    state, T_c_b = random_state(4), extrinsics()
    anchored = anchor(state, T_c_b)
    R_c0_c1 = state.T_c0_c1[..., :3, :3]
    assert torch.equal(anchored.T_c0_c1, torch.eye(4, dtype=DOUBLE).expand(4, 4, 4))
    for name in ("velocity", "gravity"):
        in_c0 = apply(R_c0_c1, getattr(anchored, name))
        assert_close(in_c0, getattr(state, name))
    assert torch.equal(anchored.gyro_bias, state.gyro_bias)
    assert torch.equal(anchored.accel_bias, state.accel_bias)


def test_the_covariance_is_anchored_by_the_derivative_of_anchoring():
    state, T_c_b = random_state(), extrinsics()
    anchored = anchor(state, T_c_b)

    def error_after(error: torch.Tensor) -> torch.Tensor:
        return error_of(anchored, anchor(moved(state, error, T_c_b), T_c_b), T_c_b)

    A = jacobian(error_after, 18)
    assert A[GRAV, PHI].abs().max() > 1  # a wrong rotation is a wrong gravity, seen from there
    assert_close(anchored.P, A @ state.P @ A.mT, atol=1e-10, rtol=0)
    certain = anchor(replace(state, P=torch.zeros_like(state.P)), T_c_b).P
    assert_close(certain, torch.diag(torch.tensor([1e-12] * 6 + [0.0] * 12, dtype=DOUBLE)))


def test_coasting_keeps_the_velocity_and_loses_certainty():
    state, T_c_b = random_state(2), extrinsics()
    time = torch.tensor([0.1, 0.3], dtype=DOUBLE)
    densities = torch.tensor([1e-7, 1e-6, 1e-3, 1e-2], dtype=DOUBLE)
    after = coast(state, time, T_c_b, densities)
    assert_close(after.T_c0_c1[:, :3, :3], state.T_c0_c1[:, :3, :3])
    way = after.T_c0_c1[:, :3, 3] - state.T_c0_c1[:, :3, 3]
    assert_close(way, state.velocity * time.unsqueeze(-1))
    one, t = torch.eye(3, dtype=DOUBLE), time[:, None, None]
    for block, density in (
        (PHI, UNKNOWN_RATE_DENSITY),
        (VEL, UNKNOWN_ACCEL_DENSITY),
        (BG, 1e-6),
        (BA, 1e-2),
    ):
        assert_close((after.P - state.P)[:, block, block], density * t * one)
    assert is_positive(after.P)


def test_certainty_is_lost_with_time_however_it_is_cut():
    state, T_c_b = random_state(), extrinsics()
    densities = torch.tensor([1e-7, 1e-6, 1e-3, 1e-2], dtype=DOUBLE)
    whole = coast(state, torch.tensor(0.6, dtype=DOUBLE), T_c_b, densities)
    for _ in range(6):
        state = coast(state, torch.tensor(0.1, dtype=DOUBLE), T_c_b, densities)
    for field in fields(FilterState):
        assert_close(getattr(state, field.name), getattr(whole, field.name))


def test_coasting_covers_what_cars_do_without_an_imu():
    # From a known start the error after a second lies within what the covariance admits.
    torch.manual_seed(2)
    s = drive(400, intervals=10)
    certain = replace(s.start, velocity=s.velocity[:, 0], P=torch.zeros_like(s.start.P))
    second = torch.ones(400, dtype=DOUBLE)
    after = coast(certain, second, s.T_c_b, torch.zeros(4, dtype=DOUBLE))
    true = s.T_c0_c1[:, 0]
    for k in range(1, 10):
        true = true @ s.T_c0_c1[:, k]
    error = motion_error(true, after.T_c0_c1)
    assert nees(error, motion_covariance(after, s.T_c_b)).quantile(0.95) < 12.6  # of chi-square, 6


def test_a_drive_is_followed_and_each_image_has_its_own_axes():
    s = drive(20, intervals=40)
    track = run(s)
    assert track.T_c0_ck.shape == (20, 41, 4, 4)
    assert track.P.shape == (20, 41, 18, 18)
    assert track.covariance.shape == (20, 40, 6, 6)
    way_m = s.T_c0_c1[..., :3, 3].norm(dim=-1).sum(-1)
    truth = torch.eye(4, dtype=DOUBLE).expand(20, 4, 4)
    for k in range(40):
        truth = truth @ s.T_c0_c1[:, k]
    lost_m = (truth[:, :3, 3] - track.T_c0_ck[:, -1, :3, 3]).norm(dim=-1)
    assert way_m.min() > 15
    assert (lost_m / way_m).max() < 0.02
    steps = se3.inverse(track.T_c0_ck[:, :-1]) @ track.T_c0_ck[:, 1:]
    assert_close(steps, track.T_c0_c1)
    for name, tolerance in (("velocity", 0.4), ("gravity", 0.5)):
        assert_close(getattr(track, name)[:, -1], getattr(s, name)[:, -1], atol=tolerance, rtol=0)


@pytest.mark.parametrize("preset", ["published", "calibrated"])
def test_a_whole_drive_is_consistent_over_1000_runs(preset):
    runs, model = 1000, EKFModel(preset).double()
    s = drive(runs, intervals=30, model=model)
    track = run(s, model)
    error = motion_error(s.T_c0_c1, track.T_c0_c1)
    low, high = chi_square_bounds(6, runs)
    assert low < nees(error[:, -1], track.covariance[:, -1]).mean() < high
    assert low < track.nis[:, -1].mean() < high
    carried = [
        getattr(s, n) - getattr(track, n)
        for n in ("velocity", "gravity", "gyro_bias", "accel_bias")
    ]
    carried = torch.cat([error[:, -1] for error in carried], -1)
    low, high = chi_square_bounds(12, runs)
    assert low < nees(carried, track.P[:, -1, 6:, 6:]).mean() < high


def test_biases_converge_to_the_truth():
    model = EKFModel("calibrated").double()
    with torch.no_grad():
        model.init_covar_diag_sqrt[BG], model.init_covar_diag_sqrt[BA] = 3e-3, 0.1
    s = drive(64, intervals=300, model=model)
    track = run(s, model)
    for name, block, shrinks in (("gyro_bias", BG, 10), ("accel_bias", BA, 1.1)):
        deviation = track.P[..., block, block].diagonal(dim1=-2, dim2=-1).sqrt()  # (64, 301, 3)
        error = (getattr(track, name) - getattr(s, name)).abs()
        within = (error[:, -1] < 3 * deviation[:, -1]).double().mean()
        assert within > 0.98, name  # 0.9973 of a Gaussian
        assert (deviation[:, 0] / deviation[:, -1]).mean() > shrinks, name
        assert error[:, -1].mean() < error[:, 0].mean() / shrinks, name


def test_without_imu_the_camera_is_followed_and_without_camera_the_imu():
    s = without(drive(2), imu=[3], camera=[7])
    track = run(s)
    for field in fields(Track):
        if field.name != "nis":
            assert getattr(track, field.name).isfinite().all(), field.name
    assert track.nis.isnan()[:, 7].all()
    assert track.nis.isfinite().sum() == 2 * 11
    beside_the_camera = motion_error(s.camera.T_c0_c1[:, 3], track.T_c0_c1[:, 3]).abs()
    assert beside_the_camera[:, ROT].max() < 1e-4
    assert beside_the_camera[:, TRANS].max() < 3 * 0.02  # the velocity until then has a say too
    motion = preintegrate(
        s.imu.dt[:, 7],
        s.imu.gyro[:, 7],
        s.imu.accel[:, 7],
        track.gyro_bias[:, 7],
        track.accel_bias[:, 7],
    )
    v, g = track.velocity[:, 7], track.gravity[:, 7]
    assert_close(track.T_c0_c1[:, 7], camera_motion(motion, s.T_c_b, v, g))
    v, g = carry(motion, s.T_c_b, v, g)
    assert_close(track.velocity[:, 8], v)
    assert_close(track.gravity[:, 8], g)


def test_with_neither_it_goes_on_and_a_camera_brings_it_back():
    s = without(drive(8, intervals=30), imu=[10, 11], camera=[10, 11])
    track = run(s)
    speed_deviation = track.P[..., VEL, VEL].diagonal(dim1=-2, dim2=-1).sqrt().mean((0, 2))
    assert speed_deviation[12] > 2 * speed_deviation[10]
    assert speed_deviation[-1] < 1.2 * speed_deviation[10]
    T = track.T_c0_c1[:, 10]
    assert_close(T[:, :3, :3], torch.eye(3, dtype=DOUBLE).expand(8, 3, 3), atol=1e-12, rtol=0)
    assert_close(T[:, :3, 3], track.velocity[:, 10] * 0.1)
    e = motion_error(s.T_c0_c1[:, -1], track.T_c0_c1[:, -1])
    assert nees(e, track.covariance[:, -1]).mean() < 12


def test_one_drive_with_holes_is_what_it_is_among_others():
    torch.manual_seed(5)
    whole = drive(3)
    some = without(whole, imu=[2, 3], camera=[3, 6])
    mixed = replace(
        some,
        imu=replace(
            some.imu,
            **{
                n: torch.cat([getattr(some.imu, n)[:1], getattr(whole.imu, n)[1:]])
                for n in ("dt", "gyro", "accel", "valid")
            },
        ),
        camera=replace(
            some.camera,
            **{
                n: torch.cat([getattr(some.camera, n)[:1], getattr(whole.camera, n)[1:]])
                for n in ("T_c0_c1", "covariance", "valid")
            },
        ),
    )
    with_holes, without_holes, both = run(some), run(whole), run(mixed)
    for field in fields(Track):
        expected = torch.cat(
            [getattr(with_holes, field.name)[:1], getattr(without_holes, field.name)[1:]]
        )
        assert_close(getattr(both, field.name), expected, equal_nan=True)


def test_a_drive_alone_is_the_same_as_in_a_batch():
    s = drive(2, intervals=4)
    together = run(s)
    first = {
        name: {f.name: getattr(getattr(s, name), f.name)[0] for f in fields(getattr(s, name))}
        for name in ("imu", "camera", "start")
    }
    alone = run(
        replace(
            s,
            imu=replace(s.imu, **first["imu"]),
            camera=replace(s.camera, **first["camera"]),
            start=FilterState(**first["start"]),
        )
    )
    for field in fields(Track):
        assert_close(getattr(alone, field.name), getattr(together, field.name)[0])


def test_a_drive_may_begin_where_another_ended():
    s = drive(intervals=6)
    whole = run(s)
    first, rest = (
        replace(
            s,
            imu=replace(s.imu, **{f.name: getattr(s.imu, f.name)[part] for f in fields(s.imu)}),
            camera=replace(
                s.camera, **{f.name: getattr(s.camera, f.name)[part] for f in fields(s.camera)}
            ),
        )
        for part in (slice(0, 4), slice(4, 6))
    )
    begun = run(first)
    carried = ("velocity", "gravity", "gyro_bias", "accel_bias")
    still, T_c0_c4 = torch.eye(4, dtype=DOUBLE), begun.T_c0_ck[-1]
    in_c4 = FilterState(still, **{n: getattr(begun, n)[-1] for n in carried}, P=begun.P[-1])
    R = torch.eye(18, dtype=DOUBLE)
    R[VEL, VEL] = R[GRAV, GRAV] = R_c0_c4 = T_c0_c4[:3, :3]
    in_c0 = replace(
        in_c4,
        T_c0_c1=T_c0_c4,
        velocity=R_c0_c4 @ in_c4.velocity,
        gravity=R_c0_c4 @ in_c4.gravity,
        P=R @ in_c4.P @ R.T,
    )
    for start, T_c0_start in ((in_c4, still), (in_c0, T_c0_c4)):
        track = run(replace(rest, start=start))
        assert_close(track.velocity, whole.velocity[4:], atol=1e-8, rtol=0)
        assert_close(track.T_c0_c1, whole.T_c0_c1[4:], atol=1e-8, rtol=0)
        expected = T_c0_start @ se3.inverse(T_c0_c4) @ whole.T_c0_ck[4:]
        assert_close(track.T_c0_ck, expected, atol=1e-8, rtol=0)


def test_a_drive_without_intervals_or_with_more_of_one_sensor_is_refused():
    s = drive(intervals=3)
    for count in (0, 2):
        fewer = replace(s.imu, **{f.name: getattr(s.imu, f.name)[:count] for f in fields(s.imu)})
        with pytest.raises(ValueError, match=f"as many of both, got {count} and 3"):
            run(replace(s, imu=fewer))


@pytest.mark.parametrize("broken", ["negative", "nan camera", "nan imu"])
def test_a_broken_interval_of_one_drive_stays_its_own(broken):
    s = drive(2, intervals=4)
    covariance, gyro = s.camera.covariance.clone(), s.imu.gyro.clone()
    if broken == "negative":
        covariance[1, 1] = -torch.eye(6, dtype=DOUBLE)
    elif broken == "nan camera":
        covariance[1, 1] = torch.nan
    else:
        gyro[1, 1, 3] = torch.nan
    imu, camera = replace(s.imu, gyro=gyro), replace(s.camera, covariance=covariance)
    model = EKFModel("calibrated", train_init_covar=True, train_imu_noise_covar=True).double()
    start = model.initial_state(s.start.velocity, s.start.gravity)
    track = run_sequence(model, imu, camera, s.T_c_b, start)
    assert track.T_c0_ck.isfinite().all()  # the drive goes on
    assert track.nis[1, 1].isnan() == (broken != "nan imu")
    (track.T_c0_ck[0].sum() + track.P[0].sum()).backward()
    assert model.imu_noise_covar_weights.weight.grad.isfinite().all()
    assert model.init_covar_diag_sqrt.grad.isfinite().all()


def test_drives_may_share_their_start_and_their_extrinsics():
    s = drive(2, intervals=3)
    one = FilterState(*(getattr(s.start, f.name)[0] for f in fields(FilterState)))
    shared = run(replace(s, start=one))
    first = run(replace(s, T_c_b=s.T_c_b.expand(2, 4, 4)))
    assert shared.P.shape == (2, 4, 18, 18)
    assert_close(shared.T_c0_ck[0], first.T_c0_ck[0])
    assert_close(shared.velocity[1, 0], one.velocity)


def test_gradients_pass_by_the_holes():
    s = without(drive(intervals=5), imu=[1, 3], camera=[2, 3])
    duration = s.imu.duration.masked_fill(s.imu.valid, torch.nan)
    s = replace(s, imu=replace(s.imu, duration=duration))
    inputs = [s.imu.gyro, s.imu.accel, s.camera.T_c0_c1, s.start.velocity]
    inputs = [x.requires_grad_() for x in inputs]
    model = EKFModel("calibrated", train_imu_noise_covar=True).double()
    track = run_sequence(model, s.imu, s.camera, s.T_c_b, s.start)
    (track.T_c0_ck.sum() + track.P.sum()).backward()
    for x in inputs:
        assert x.grad.isfinite().all()
    assert s.imu.gyro.grad[[0, 2, 4]].abs().sum() > 0
    assert torch.equal(s.imu.gyro.grad[[1, 3]], torch.zeros_like(s.imu.gyro[[1, 3]]))
    assert model.imu_noise_covar_weights.weight.grad.abs().min() > 0


def test_it_runs_in_float32(device):
    s = drive(2, intervals=5)

    def single(part):
        cast = {f.name: getattr(part, f.name) for f in fields(part)}
        return replace(
            part,
            **{
                n: x.to(device, x.dtype if x.dtype == torch.bool else torch.float32)
                for n, x in cast.items()
            },
        )

    s32 = replace(
        s,
        imu=single(s.imu),
        camera=single(s.camera),
        start=single(s.start),
        T_c_b=s.T_c_b.float().to(device),
    )
    track, exact = run(s32, EKFModel("calibrated").to(device)), run(s)
    assert track.T_c0_ck.dtype == torch.float32
    assert_close(track.T_c0_ck.cpu().double(), exact.T_c0_ck, atol=1e-4, rtol=0)
    assert is_positive(track.covariance.cpu())
    assert so3.log(track.T_c0_ck[..., :3, :3]).isfinite().all()


def test_inputs_are_left_unchanged():
    s = without(drive(intervals=3), imu=[1], camera=[2])
    parts = [
        (part, {f.name: getattr(part, f.name).clone() for f in fields(part)})
        for part in (s.imu, s.camera, s.start)
    ]
    run(s)
    for part, before in parts:
        for name, x in before.items():
            assert_close(getattr(part, name), x, equal_nan=True, rtol=0, atol=0)
