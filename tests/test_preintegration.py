"""Inertial motion: closed forms, smooth motions, GTSAM, and the laws of padding and mirrors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from benchmarks.simulation import GRAVITY, extrinsics, random_drive
from ekf.preintegration import (
    ACCEL,
    GYRO,
    POSITION,
    ROTATION,
    VELOCITY,
    camera_motion,
    carry,
    carry_back,
    correct_biases,
    linearize,
    mirror,
    mirror_motion,
    move_body,
    preintegrate,
)
from liegroups import se3, so3
from liegroups.matrices import apply

UP = torch.tensor([0, 0, GRAVITY], dtype=torch.float64)


def samples(*batch: int, steps: int = 10) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return dt, gyro, accel of a rough ride with uneven steps, float64."""
    dt = 0.008 + 0.004 * torch.rand(*batch, steps, dtype=torch.float64)
    gyro = 0.5 * torch.randn(*batch, steps + 1, 3, dtype=torch.float64)
    accel = UP + 2 * torch.randn(*batch, steps + 1, 3, dtype=torch.float64)
    return dt, gyro, accel


def drive_intervals(drives: int, rate_hz: int, duration: float = 0.1):
    """Return dt, gyro, accel of smooth drives sampled without noise, and their true motion."""
    drive = random_drive(drives)
    steps = round(duration * rate_hz)
    time = torch.linspace(0, duration, steps + 1, dtype=torch.float64)
    dt = torch.full((drives, steps), duration / steps, dtype=torch.float64)
    T_w_b = drive.T_w_b(time[[0, -1]])
    v_w0 = drive.velocity_w(time[:1])[0]
    return dt, drive.gyro(time).movedim(0, 1), drive.accel(time).movedim(0, 1), T_w_b, v_w0


def test_constant_turn_and_acceleration_in_closed_form(device):
    rate = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, device=device)
    force_b0 = torch.tensor([1.5, -0.7, 9.0], dtype=torch.float64, device=device)
    dt = torch.tensor([0.01, 0.013, 0.007, 0.02, 0.05], dtype=torch.float64, device=device)
    time = torch.nn.functional.pad(dt.cumsum(0), (1, 0))  # (6)
    R_b0_bi = so3.exp(time.unsqueeze(-1) * rate)
    motion = preintegrate(dt, rate.expand(6, 3), apply(R_b0_bi.mT, force_b0))
    assert_close(motion.rotation, R_b0_bi, atol=1e-10, rtol=0)
    assert_close(motion.velocity, force_b0 * time[-1], atol=1e-10, rtol=0)
    assert_close(motion.position, 0.5 * force_b0 * time[-1] ** 2, atol=1e-10, rtol=0)
    assert_close(motion.duration, time[-1])


def test_a_car_at_rest_stays_at_rest(dtype):
    dt = torch.full((4, 10), 0.01, dtype=dtype)
    R_c_b = extrinsics()[:3, :3].to(dtype)
    motion = preintegrate(dt, torch.zeros(4, 11, 3, dtype=dtype), UP.to(dtype).expand(4, 11, 3))
    T = camera_motion(
        motion, extrinsics().to(dtype), torch.zeros(3, dtype=dtype), R_c_b @ UP.to(dtype)
    )
    assert_close(T, torch.eye(4, dtype=dtype).expand(4, 4, 4), atol=1e-6, rtol=0)


def test_a_smooth_drive_at_100_hz_is_followed_to_a_tenth_of_a_millimetre():
    dt, gyro, accel, T_w_b, v_w0 = drive_intervals(500, rate_hz=100)
    R_w_b0, T_c_b = T_w_b[0, :, :3, :3], extrinsics()
    motion = preintegrate(dt, gyro, accel)
    R_c_w = T_c_b[:3, :3] @ R_w_b0.mT
    T_c0_c1 = camera_motion(motion, T_c_b, apply(R_c_w, v_w0), R_c_w @ UP)
    T_w_c = T_w_b @ se3.inverse(T_c_b)
    error = se3.inverse(T_w_c[0]) @ T_w_c[1] @ se3.inverse(T_c0_c1)
    turned_deg = so3.log(error[:, :3, :3]).norm(dim=-1) * 180 / math.pi
    assert (T_w_c[0, :, :3, 3] - T_w_c[1, :, :3, 3]).norm(dim=-1).min() > 0.2  # it does drive
    assert turned_deg.max() <= 0.001
    assert error[:, :3, 3].norm(dim=-1).max() <= 1e-4


def test_the_error_falls_with_the_square_of_the_step():
    errors = []
    for rate_hz in (50, 100, 200):
        torch.manual_seed(1)
        dt, gyro, accel, T_w_b, v_w0 = drive_intervals(200, rate_hz, duration=1.0)
        motion = preintegrate(dt, gyro, accel)
        R_w_b0 = T_w_b[0, :, :3, :3]
        moved, _ = move_body(motion, R_w_b0, v_w0, UP)
        turned = so3.log(R_w_b0.mT @ T_w_b[1, :, :3, :3] @ motion.R_b0_b1.mT)
        displacement = T_w_b[1, :, :3, 3] - T_w_b[0, :, :3, 3]
        errors.append([(moved - displacement).norm(), turned.norm()])
    for coarse, fine in zip(errors, errors[1:], strict=False):
        for at_dt, at_half_dt in zip(coarse, fine, strict=True):
            assert 3.8 < at_dt / at_half_dt < 4.2


def test_carried_velocity_and_gravity_are_those_of_the_drive():
    dt, gyro, accel, T_w_b, v_w0 = drive_intervals(100, rate_hz=400)
    T_c_b = extrinsics()
    R_c_w = T_c_b[:3, :3] @ T_w_b[..., :3, :3].mT  # (2, 100, 3, 3)
    motion = preintegrate(dt, gyro, accel)
    velocity, gravity = carry(motion, T_c_b, apply(R_c_w[0], v_w0), R_c_w[0] @ UP)
    assert_close(gravity, R_c_w[1] @ UP, atol=1e-5, rtol=0)
    # The same drive from its end: what it gained is what the other half of it says.
    v_w1 = v_w0 + apply(T_w_b[0, :, :3, :3], motion.velocity) - 0.1 * UP
    assert_close(velocity, apply(R_c_w[1], v_w1), atol=1e-5, rtol=0)


def test_what_is_carried_on_is_carried_back():
    motion = preintegrate(*samples(7))
    T_c_b = se3.exp(torch.randn(7, 6, dtype=torch.float64))
    v, g = 8 * torch.randn(2, 7, 3, dtype=torch.float64)
    exactly = {"atol": 1e-12, "rtol": 1e-12}
    for there, back in ((carry, carry_back), (carry_back, carry)):
        carried = there(motion, T_c_b, v, g)
        assert (carried[0] - v).norm(dim=-1).min() > 0.1  # it is not the same anyway
        for again, before in zip(back(motion, T_c_b, *carried), (v, g), strict=True):
            assert_close(again, before, **exactly)


def test_what_is_carried_back_is_that_of_the_drive():
    dt, gyro, accel, T_w_b, v_w0 = drive_intervals(100, rate_hz=400)
    T_c_b = extrinsics()
    R_c_w = T_c_b[:3, :3] @ T_w_b[..., :3, :3].mT  # (2, 100, 3, 3)
    motion = preintegrate(dt, gyro, accel)
    v_w1 = v_w0 + apply(T_w_b[0, :, :3, :3], motion.velocity) - 0.1 * UP
    velocity, gravity = carry_back(motion, T_c_b, apply(R_c_w[1], v_w1), R_c_w[1] @ UP)
    assert_close(gravity, R_c_w[0] @ UP, atol=1e-5, rtol=0)
    assert_close(velocity, apply(R_c_w[0], v_w0), atol=1e-5, rtol=0)


def test_carrying_back_takes_free_dimensions_and_one_batch_of_extrinsics(dtype, device):
    dt, gyro, accel = (x.to(device, dtype) for x in samples(2, 3))
    motion = preintegrate(dt, gyro, accel)
    T_c_b = extrinsics().to(device, dtype)
    v, g = torch.randn(2, 2, 3, 3, dtype=dtype, device=device)
    for carried, alone in zip(
        carry_back(motion, T_c_b, v, g),
        carry_back(preintegrate(dt[1, 2], gyro[1, 2], accel[1, 2]), T_c_b, v[1, 2], g[1, 2]),
        strict=True,
    ):
        assert carried.shape == (2, 3, 3) and carried.dtype == dtype
        assert_close(carried[1, 2], alone)


def test_the_mirror_of_what_is_carried_back_is_carried_back_in_the_mirror():
    dt, gyro, accel = samples(4)
    T_c_b = se3.exp(torch.randn(4, 6, dtype=torch.float64))
    v, g = torch.randn(2, 4, 3, dtype=torch.float64)
    M = torch.tensor([-1, 1, 1], dtype=torch.float64)
    mirrored_gyro, mirrored_accel, mirrored_T_c_b = mirror(gyro, accel, T_c_b)
    mirrored = preintegrate(dt, mirrored_gyro, mirrored_accel)
    expected = carry_back(preintegrate(dt, gyro, accel), T_c_b, v, g)
    found = carry_back(mirrored, mirrored_T_c_b, M * v, M * g)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, M * other)


@pytest.mark.parametrize("shapes", [[(3,), (4,)], [(2,), (3,)]])
def test_carrying_back_refuses_other_shapes(shapes):
    motion = preintegrate(*samples())
    with pytest.raises(ValueError, match="velocity|gravity"):
        carry_back(motion, extrinsics(), *(torch.zeros(s, dtype=torch.float64) for s in shapes))


def test_intervals_compose():
    dt, gyro, accel = samples(steps=20)
    T_c_b = extrinsics()
    v, g = torch.tensor([0.3, -0.1, 8.0]).double(), torch.tensor([0.2, -9.7, 0.4]).double()
    whole = preintegrate(dt, gyro, accel)
    first = preintegrate(dt[:8], gyro[:9], accel[:9])
    second = preintegrate(dt[8:], gyro[8:], accel[8:])
    v1, g1 = carry(first, T_c_b, v, g)
    T_c0_c1, T_c1_c2 = camera_motion(first, T_c_b, v, g), camera_motion(second, T_c_b, v1, g1)
    assert_close(T_c0_c1 @ T_c1_c2, camera_motion(whole, T_c_b, v, g))
    for carried, expected in zip(
        carry(second, T_c_b, v1, g1), carry(whole, T_c_b, v, g), strict=True
    ):
        assert_close(carried, expected)


def test_padding_changes_nothing(dtype, device):
    dt, gyro, accel = (x.to(device, dtype) for x in samples(3))
    padded_dt = torch.nn.functional.pad(dt, (0, 4))
    rubbish = 1e3 * torch.randn(3, 4, 3, dtype=dtype, device=device)
    longer = [torch.cat([x, rubbish], 1) for x in (gyro, accel)]
    plain, padded = preintegrate(dt, gyro, accel), preintegrate(padded_dt, *longer)
    for name in ("position", "velocity", "duration", "R_b0_b1"):
        assert_close(getattr(padded, name), getattr(plain, name))
    noise = (1e-7, 1e-3)
    lines, padded_lines = linearize(dt, gyro, accel, *noise), linearize(padded_dt, *longer, *noise)
    assert_close(padded_lines.covariance, lines.covariance)
    assert_close(padded_lines.bias_jacobian, lines.bias_jacobian)
    assert_close(padded_lines.rotation_by_gyro_bias[:, -1], lines.rotation_by_gyro_bias[:, -1])


def test_leading_dimensions_are_free_and_broadcast():
    dt, gyro, accel = samples(2, 3)
    bias = torch.randn(5, 1, 1, 3, dtype=torch.float64)
    many = preintegrate(dt, gyro, accel, bias)
    assert many.rotation.shape == (5, 2, 3, 11, 3, 3)
    assert many.position.shape == many.velocity.shape == (5, 2, 3, 3)
    assert many.duration.shape == (5, 2, 3)
    one = preintegrate(dt[1, 2], gyro[1, 2], accel[1, 2], bias[4, 0, 0])
    assert_close(many.position[4, 1, 2], one.position)
    shared_steps = preintegrate(dt[0, 0], gyro, accel)
    assert_close(
        shared_steps.velocity[0, 0], preintegrate(dt[0, 0], gyro[0, 0], accel[0, 0]).velocity
    )
    shared_gyro = linearize(dt[0], gyro[0, 0], accel, 1e-7, 1e-3)
    assert shared_gyro.covariance.shape == (2, 3, 9, 9)
    alone = linearize(dt[0, 1], gyro[0, 0], accel[1, 1], 1e-7, 1e-3)
    assert_close(shared_gyro.covariance[1, 1], alone.covariance)


def test_gradients_with_respect_to_measurements_and_biases():
    dt, gyro, accel = samples(2, steps=3)
    biases = [0.1 * torch.randn(2, 3, dtype=torch.float64) for _ in range(2)]
    inputs = [x.requires_grad_() for x in (dt, gyro, accel, *biases)]

    def outputs(*arguments):
        motion = preintegrate(*arguments)
        return motion.rotation, motion.position, motion.velocity, motion.duration

    assert torch.autograd.gradcheck(outputs, inputs)


def test_the_gradient_of_a_car_at_rest_is_finite():
    gyro = torch.zeros(6, 3, requires_grad=True)
    motion = preintegrate(torch.full((5,), 0.01), gyro, UP.float().expand(6, 3))
    (motion.position.sum() + motion.rotation.sum()).backward()
    assert gyro.grad.isfinite().all()
    assert gyro.grad.abs().sum() > 0


def test_the_motion_of_a_camera_has_gradients():
    dt, gyro, accel = samples(2, steps=3)
    motion = preintegrate(dt, gyro, accel)
    v = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    g = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    T_c_b = extrinsics()
    assert torch.autograd.gradcheck(lambda v, g: camera_motion(motion, T_c_b, v, g), (v, g))
    assert torch.autograd.gradcheck(lambda v, g: carry(motion, T_c_b, v, g), (v, g))
    assert torch.autograd.gradcheck(lambda v, g: carry_back(motion, T_c_b, v, g), (v, g))


def tangent(reference, motion) -> torch.Tensor:
    """Return the difference (9) of two motions in the terms of a `Linearization`."""
    turned = so3.log(reference.R_b0_b1.mT @ motion.R_b0_b1, check=False)
    moved = motion.position - reference.position
    return torch.cat([turned, moved, motion.velocity - reference.velocity], -1)


def test_bias_jacobians_are_the_derivatives_of_the_integration():
    dt, gyro, accel = samples()
    biases = 0.1 * torch.randn(6, dtype=torch.float64)
    reference = preintegrate(dt, gyro, accel, biases[:3], biases[3:])

    def moved_by(b):
        return tangent(reference, preintegrate(dt, gyro, accel, b[:3], b[3:]))

    expected = torch.autograd.functional.jacobian(moved_by, biases)
    lines = linearize(dt, gyro, accel, 1e-7, 1e-3, biases[:3], biases[3:])
    assert_close(lines.bias_jacobian, expected, atol=1e-12, rtol=0)
    assert expected[POSITION, ACCEL].abs().min() > 0
    assert_close(lines.rotation_by_gyro_bias[-1], expected[ROTATION, GYRO], atol=1e-12, rtol=0)


def test_changed_biases_need_no_integration_again():
    dt, gyro, accel = samples(5)
    change = [1e-3 * torch.randn(5, 3, dtype=torch.float64) for _ in range(2)]
    lines = linearize(dt, gyro, accel, 1e-7, 1e-3)
    plain = preintegrate(dt, gyro, accel)
    corrected, again = correct_biases(plain, lines, *change), preintegrate(dt, gyro, accel, *change)
    for name, effect, tolerance in (
        ("rotation", 5e-5, 2e-9),
        ("position", 1e-6, 2e-9),
        ("velocity", 5e-5, 5e-8),
    ):
        assert (getattr(again, name) - getattr(plain, name)).abs().max() > effect
        assert_close(getattr(corrected, name), getattr(again, name), atol=tolerance, rtol=0)


def test_the_covariance_is_that_of_many_noisy_integrations():
    # Noise is drawn for the mean of each step, as the continuous model has it: sample noise
    # that alternates in time would be needed for that, so the steps' means are perturbed by
    # duplicating each sample: even steps measure, odd ones have no duration.
    torch.manual_seed(3)
    dt, gyro, accel = samples(steps=10)
    gyro_noise, accel_noise, runs = 1e-4, 1e-2, 40_000
    split_dt = torch.stack([dt, torch.zeros_like(dt)], -1).flatten()[:-1]  # (19)
    split = [torch.stack([x[:-1], x[1:]], 1).flatten(0, 1) for x in (gyro, accel)]  # (20, 3)

    def noise(density):
        per_step = (density / dt).sqrt().unsqueeze(-1) * torch.randn(
            runs, 10, 3, dtype=torch.float64
        )
        return per_step.repeat_interleave(2, 1)

    reference = preintegrate(split_dt, *split)
    assert_close(reference.position, preintegrate(dt, gyro, accel).position)
    noisy = preintegrate(split_dt, split[0] + noise(gyro_noise), split[1] + noise(accel_noise))
    drawn = torch.cov(tangent(reference, noisy).T)
    predicted = linearize(dt, gyro, accel, gyro_noise, accel_noise).covariance
    scale = predicted.diagonal().rsqrt()
    difference = scale[:, None] * (drawn - predicted) * scale
    assert difference.abs().max() < 5 * math.sqrt(2 / runs)
    assert (scale[:, None] * predicted * scale)[POSITION, VELOCITY].diagonal().min() > 0.8


def test_noise_densities_may_differ_from_interval_to_interval():
    dt, gyro, accel = samples(2)
    densities = [torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, 4.0]).double()]
    both = linearize(dt, gyro, accel, *densities).covariance
    for i in range(2):
        one = linearize(dt[i], gyro[i], accel[i], densities[0][i], densities[1][i]).covariance
        assert_close(both[i], one)


@pytest.fixture(scope="module")
def gtsam():
    return pytest.importorskip("gtsam")


def gtsam_preintegrate(gtsam, dt, gyro, accel, gyro_noise=1e-7, accel_noise=1e-3):
    parameters = gtsam.PreintegrationParams(
        np.zeros(3)
    )  # no gravity: its prediction is alpha, beta
    parameters.setGyroscopeCovariance(gyro_noise * np.eye(3))
    parameters.setAccelerometerCovariance(accel_noise * np.eye(3))
    parameters.setIntegrationCovariance(np.zeros((3, 3)))
    pim = gtsam.PreintegratedImuMeasurements(parameters, gtsam.imuBias.ConstantBias())
    for step, w, a in zip(dt.numpy(), gyro.numpy(), accel.numpy(), strict=True):
        pim.integrateMeasurement(a, w, step)
    return pim


@pytest.mark.parametrize("duration", [0.1, 1.0])
def test_gtsam_converges_to_ours_when_it_follows_our_rule_in_ever_shorter_steps(gtsam, duration):
    # We take the mean rate and the mean rotated force of each step. GTSAM takes one measurement and
    # holds it over the step, and adds turns up in the tangent space, to first order. Fed with our
    # means in shorter and shorter steps it comes to the same motion, to first order in the step.
    dt, gyro, accel = samples(steps=round(100 * duration))
    motion = preintegrate(dt, gyro, accel)
    force_b0 = apply(motion.rotation, accel)
    rate, force_b0 = ((x[:-1] + x[1:]) / 2 for x in (gyro, force_b0))  # (S, 3)
    errors = []
    for parts in (1, 4, 16):
        begun = torch.arange(parts, dtype=torch.float64) / parts
        part = (dt / parts).repeat_interleave(parts)
        turn = (begun[:, None, None] * dt[:, None] * rate).movedim(1, 0)  # (S, parts, 3)
        R_b0_b = motion.rotation[:-1, None] @ so3.exp(turn)
        force = apply(R_b0_b.mT, force_b0[:, None]).flatten(0, 1)
        pim = gtsam_preintegrate(gtsam, part, rate.repeat_interleave(parts, 0), force)
        theirs = (pim.deltaRij().matrix(), pim.deltaPij(), pim.deltaVij())
        ours = (motion.R_b0_b1, motion.position, motion.velocity)
        errors.append(
            [(x - torch.tensor(y)).norm().item() for x, y in zip(ours, theirs, strict=True)]
        )
    assert max(errors[0]) < 2e-5
    for coarse, fine in zip(errors, errors[1:], strict=False):
        for at_part, at_quarter in zip(coarse, fine, strict=True):
            assert 3.4 < at_part / at_quarter < 4.6


def test_gtsam_has_the_same_covariance_and_corrects_biases_alike(gtsam):
    steps, duration = 400, 0.1  # short ones, where its rule and ours are one
    dt = torch.full((steps,), duration / steps, dtype=torch.float64)
    gyro = torch.tensor([0.1, -0.2, 0.5]).double().expand(steps + 1, 3)
    accel = torch.tensor([1.0, 0.5, 9.8]).double().expand(steps + 1, 3)
    pim = gtsam_preintegrate(gtsam, dt, gyro[1:], accel[1:])
    lines = linearize(dt, gyro, accel, 1e-7, 1e-3)
    theirs = torch.tensor(pim.preintMeasCov())
    scale = torch.outer(theirs.diagonal(), theirs.diagonal()).rsqrt()
    assert_close(scale * lines.covariance, scale * theirs, atol=5e-3, rtol=0)
    change = torch.tensor([1e-4, -2e-4, 3e-4, 1e-2, 2e-2, -3e-2]).double()
    bias = gtsam.imuBias.ConstantBias(change[3:].numpy(), change[:3].numpy())
    moved = pim.predict(gtsam.NavState(), bias)
    corrected = correct_biases(preintegrate(dt, gyro, accel), lines, change[:3], change[3:])
    assert_close(corrected.R_b0_b1, torch.tensor(moved.attitude().matrix()), atol=1e-8, rtol=0)
    assert_close(corrected.position, torch.tensor(moved.position()), atol=1e-5, rtol=0)
    assert_close(corrected.velocity, torch.tensor(moved.velocity()), atol=2e-4, rtol=0)
    uncorrected = torch.tensor(pim.deltaVij())
    assert (corrected.velocity - uncorrected).abs().min() > 5e-4


def test_mirrored_measurements_integrate_to_the_mirrored_motion(dtype):
    dt, gyro, accel = (x.to(dtype) for x in samples(4))
    T_c_b = extrinsics().to(dtype)
    v, g = torch.randn(4, 3, dtype=dtype), torch.randn(4, 3, dtype=dtype)
    M = torch.tensor([-1.0, 1, 1], dtype=dtype)
    motion = preintegrate(dt, gyro, accel)
    gyro_m, accel_m, T_c_b_m = mirror(gyro, accel, T_c_b)
    motion_m = preintegrate(dt, gyro_m, accel_m)
    for name in ("rotation", "position", "velocity", "duration"):
        assert_close(getattr(motion_m, name), getattr(motion.mirrored(), name))
    assert_close(
        camera_motion(motion_m, T_c_b_m, M * v, M * g),
        mirror_motion(camera_motion(motion, T_c_b, v, g)),
    )


def test_a_mirrored_left_turn_is_a_right_turn():
    gyro = torch.tensor([[0.0, 0.0, 0.2]])  # left
    accel = torch.tensor([[0.0, 1.6, 9.8]])  # held to the left
    gyro_m, accel_m, T_c_b_m = mirror(gyro, accel, extrinsics().float())
    assert_close(gyro_m, torch.tensor([[0.0, 0.0, -0.2]]))
    assert_close(accel_m, torch.tensor([[0.0, -1.6, 9.8]]))
    t_b_c, t_b_c_m = (se3.inverse(T)[:3, 3] for T in (extrinsics().float(), T_c_b_m))
    assert_close(t_b_c_m, torch.tensor([1.0, -1.0, 1.0]) * t_b_c)
    assert_close(torch.linalg.det(T_c_b_m[:3, :3]), torch.tensor(1.0))


def test_mirroring_twice_changes_nothing():
    _, gyro, accel = samples(2)
    given = (gyro, accel, extrinsics())
    for twice, once in zip(mirror(*mirror(*given)), given, strict=True):
        assert torch.equal(twice, once)
    T = se3.exp(torch.randn(4, 6))
    assert torch.equal(mirror_motion(mirror_motion(T)), T)


def test_inputs_are_left_unchanged():
    dt, gyro, accel = samples(2)
    bias = torch.randn(2, 3, dtype=torch.float64)
    given = (dt, gyro, accel, bias, bias.clone())
    before = [x.clone() for x in given]
    preintegrate(*given)
    linearize(dt, gyro, accel, 1e-7, 1e-3, bias, given[4])
    mirror(gyro, accel, extrinsics())
    assert all(torch.equal(x, y) for x, y in zip(given, before, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dt": torch.tensor(0.1)}, r"dt: expected shape \(..., S\)"),
        ({"dt": torch.zeros(2, 0)}, r"dt: expected shape \(..., S\)"),
        ({"dt": torch.zeros(2, 9)}, r"gyro: expected shape \(..., 10, 3\)"),
        ({"dt": torch.zeros(3, 10)}, "gyro: leading dimensions"),
        ({"accel": torch.zeros(2, 11, 2)}, r"accel: expected shape \(..., 11, 3\)"),
        ({"gyro": torch.zeros(2, 11, 3, dtype=torch.int64)}, "gyro: expected float32 or float64"),
        ({"gyro_bias": torch.zeros(4)}, r"gyro_bias: expected shape \(..., 3\)"),
        ({"accel_bias": torch.zeros(5, 3)}, "accel_bias: leading dimensions"),
    ],
)
def test_samples_that_do_not_fit_are_refused(change, message):
    given = {
        "dt": torch.zeros(2, 10),
        "gyro": torch.zeros(2, 11, 3),
        "accel": torch.zeros(2, 11, 3),
    }
    with pytest.raises(ValueError, match=message):
        preintegrate(**{**given, **change})
