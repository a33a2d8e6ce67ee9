"""The filter's equations against autograd, its limits, its positivity and its consistency."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from scipy.stats import chi2
from torch.testing import assert_close

from benchmarks.simulation import disturb, extrinsics, motion_error, nees, random_drive, simulate
from ekf import filter as ekf_filter
from ekf.filter import (
    BA,
    BG,
    GRAV,
    N_A,
    N_BA,
    N_BG,
    N_G,
    PHI,
    POS,
    ROT,
    TRANS,
    VEL,
    EKFModel,
    FilterState,
    Innovation,
    cholesky,
    error_dynamics,
    innovate,
    measurement_jacobian,
    motion_covariance,
    noise_input,
    propagate,
    transition,
    update,
)
from ekf.noise import preset, vision_covariance
from ekf.preintegration import (
    POSITION,
    ROTATION,
    VELOCITY,
    camera_motion,
    linearize,
    preintegrate,
)
from liegroups import se3, so3
from liegroups.matrices import apply

DOUBLE = torch.float64
ERROR_BLOCKS = {"velocity": VEL, "gravity": GRAV, "gyro_bias": BG, "accel_bias": BA}


def random_state(*batch: int, dtype: torch.dtype = DOUBLE) -> FilterState:
    """Return a state in full motion with a covariance that couples everything."""
    root = 0.1 * torch.randn(*batch, 18, 18, dtype=dtype)
    return FilterState(
        T_c0_c1=se3.exp(0.5 * torch.randn(*batch, 6, dtype=dtype)),
        velocity=torch.tensor([0.3, -0.2, 8.0], dtype=dtype) + torch.randn(*batch, 3, dtype=dtype),
        gravity=torch.tensor([0.2, -9.7, 0.9], dtype=dtype)
        + 0.1 * torch.randn(*batch, 3, dtype=dtype),
        gyro_bias=0.01 * torch.randn(*batch, 3, dtype=dtype),
        accel_bias=0.1 * torch.randn(*batch, 3, dtype=dtype),
        P=root @ root.mT + 1e-3 * torch.eye(18, dtype=dtype),
    )


def samples(*batch: int, steps: int = 10, dt: float = 0.01, dtype: torch.dtype = DOUBLE):
    """Return dt, gyro, accel of a rough ride."""
    up = torch.tensor([0, 0, 9.81], dtype=dtype)
    return (
        torch.full((*batch, steps), dt, dtype=dtype),
        0.3 * torch.randn(*batch, steps + 1, 3, dtype=dtype),
        up + torch.randn(*batch, steps + 1, 3, dtype=dtype),
    )


def moved(state: FilterState, error: torch.Tensor, T_c_b: torch.Tensor) -> FilterState:
    """Return the state whose error from `state` is exactly `error`, by the definition of it."""
    T_c0_b = state.T_c0_c1 @ T_c_b
    R_c0_b = T_c0_b[..., :3, :3] @ so3.exp(error[..., PHI])
    T_c0_b = se3.from_rt(R_c0_b, T_c0_b[..., :3, 3] + error[..., POS])
    others = {
        name: getattr(state, name) + error[..., block] for name, block in ERROR_BLOCKS.items()
    }
    return replace(state, T_c0_c1=T_c0_b @ se3.inverse(T_c_b), **others)


def error_of(state: FilterState, truth: FilterState, T_c_b: torch.Tensor) -> torch.Tensor:
    """Return the error (..., 18) of a state: the inverse of `moved`."""
    T, T_true = state.T_c0_c1 @ T_c_b, truth.T_c0_c1 @ T_c_b
    phi = so3.log(T[..., :3, :3].mT @ T_true[..., :3, :3], check=False)
    blocks = [phi, T_true[..., :3, 3] - T[..., :3, 3]]
    return torch.cat([*blocks, *(getattr(truth, n) - getattr(state, n) for n in ERROR_BLOCKS)], -1)


def jacobian(function, *shape: int) -> torch.Tensor:
    return torch.autograd.functional.jacobian(function, torch.zeros(*shape, dtype=DOUBLE))


def test_F_and_G_are_the_derivatives_of_the_exact_error_dynamics():
    state, T_c_b = random_state(), extrinsics()
    w_measured, a_measured = torch.randn(2, 3, dtype=DOUBLE)
    still = torch.zeros(12, dtype=DOUBLE)

    def after(state: FilterState, time: torch.Tensor, noise: torch.Tensor) -> FilterState:
        """Follow rates that are right at time 0, where the derivative is taken."""
        T_c0_b = state.T_c0_c1 @ T_c_b
        w = w_measured - state.gyro_bias - noise[N_G]
        a = a_measured - state.accel_bias - noise[N_A]
        R_c0_b = T_c0_b[:3, :3]
        acceleration = R_c0_b @ a - state.gravity
        T_c0_b = se3.from_rt(R_c0_b @ so3.exp(w * time), T_c0_b[:3, 3] + state.velocity * time)
        return replace(
            state,
            T_c0_c1=T_c0_b @ se3.inverse(T_c_b),
            velocity=state.velocity + acceleration * time,
            gyro_bias=state.gyro_bias + noise[N_BG] * time,
            accel_bias=state.accel_bias + noise[N_BA] * time,
        )

    def rate_of_error(error: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        def at(time: torch.Tensor) -> torch.Tensor:
            true = after(moved(state, error, T_c_b), time, noise)
            return error_of(after(state, time, still), true, T_c_b)

        now = torch.zeros((), dtype=DOUBLE)
        return torch.autograd.functional.jacobian(at, now, create_graph=True)

    R_c0_b = state.T_c0_c1[:3, :3] @ T_c_b[:3, :3]
    F = error_dynamics(R_c0_b, w_measured - state.gyro_bias, a_measured - state.accel_bias)
    G = noise_input(R_c0_b)
    assert_close(F, jacobian(lambda e: rate_of_error(e, still), 18), atol=1e-10, rtol=0)
    no_error = torch.zeros(18, dtype=DOUBLE)
    assert_close(G, jacobian(lambda n: rate_of_error(no_error, n), 12), atol=1e-10, rtol=0)


def test_H_is_the_derivative_of_the_camera_motion():
    state, T_c_b = random_state(), extrinsics()

    def seen(error: torch.Tensor) -> torch.Tensor:
        return motion_error(moved(state, error, T_c_b).T_c0_c1, state.T_c0_c1)

    H = measurement_jacobian(state, T_c_b)
    assert_close(H, jacobian(seen, 18), atol=1e-10, rtol=0)
    assert H[TRANS, PHI].abs().max() > 0.1  # the lever from IMU to camera


def total_transition(state: FilterState, dt, gyro, accel, T_c_b) -> torch.Tensor:
    """Return what `propagate` multiplies P with over an interval, seen from outside."""
    silent = torch.zeros(4, dtype=DOUBLE)
    columns = []
    for i in range(18):  # with P = e_i e_i^T the result is the outer product of one column
        unit = torch.zeros(18, dtype=DOUBLE)
        unit[i] = 1.0
        P = propagate(replace(state, P=torch.outer(unit, unit)), dt, gyro, accel, T_c_b, silent).P
        columns.append(P)
    return torch.stack(columns)


def test_propagation_follows_the_exact_error_to_second_order_in_the_step():
    state, T_c_b = replace(random_state(), P=torch.eye(18, dtype=DOUBLE)), extrinsics()
    time = torch.linspace(0, 0.2, 81, dtype=DOUBLE).unsqueeze(-1)
    gyro = torch.cat([(3 * time).sin(), 0.4 * (5 * time).cos(), 0.5 + time], -1)
    accel = torch.cat([2 * (4 * time).sin(), time, 9.81 + (6 * time).cos()], -1)
    silent = torch.zeros(4, dtype=DOUBLE)
    differences = []
    for every in (8, 4, 2):
        given = (
            torch.full((80 // every,), 0.0025 * every, dtype=DOUBLE),
            gyro[::every],
            accel[::every],
        )
        nominal = propagate(state, *given, T_c_b, silent)

        def end(error, given=given, nominal=nominal):
            true = propagate(moved(state, error, T_c_b), *given, T_c_b, silent)
            return error_of(nominal, true, T_c_b)

        exact = jacobian(end, 18)
        differences.append((nominal.P - exact @ exact.mT).norm())
        by_columns = total_transition(state, *given, T_c_b)
        expected = exact.mT.unsqueeze(-1) * exact.mT.unsqueeze(-2)
        assert_close(by_columns, expected, atol=4e-5 * every, rtol=0)
    for coarse, fine in zip(differences, differences[1:], strict=False):
        assert 3.5 < coarse / fine < 4.5


def test_one_transition_is_the_exponential_of_the_dynamics_to_third_order():
    w, a = torch.randn(2, 3, dtype=DOUBLE)
    F = error_dynamics(so3.exp(torch.randn(3, dtype=DOUBLE)), w, a)
    errors = []
    for dt in (0.02, 0.01):
        dt = torch.tensor(dt, dtype=DOUBLE)
        Phi = transition(F, w, dt)
        assert_close(Phi[PHI, PHI], so3.exp(-w * dt), atol=1e-15, rtol=0)
        errors.append((Phi - torch.linalg.matrix_exp(F * dt)).norm())
    assert 7 < errors[0] / errors[1] < 9


def test_without_priors_the_covariance_is_the_preintegrated_one():
    # The filter lets the noise of a step in at its beginning, the preintegration in its middle.
    T_c_b = extrinsics()
    still = torch.eye(4, dtype=DOUBLE)
    state = replace(random_state(), T_c0_c1=still, P=torch.zeros(18, 18, dtype=DOUBLE))
    densities = torch.tensor([1e-5, 0, 1e-3, 0], dtype=DOUBLE)
    A = torch.zeros(9, 9, dtype=DOUBLE)  # from the axes of b0 to those of c0
    A[ROTATION, ROTATION] = torch.eye(3, dtype=DOUBLE)
    A[POSITION, POSITION] = A[VELOCITY, VELOCITY] = T_c_b[:3, :3]
    _, gyro, accel = samples(steps=200)
    differences = []
    for parts in (1, 2):
        dt = torch.full((200 * parts,), 0.0005 / parts, dtype=DOUBLE)
        given = [torch.cat([x[:-1].repeat_interleave(parts, 0), x[-1:]]) for x in (gyro, accel)]
        P = propagate(state, dt, *given, T_c_b, densities).P
        lines = linearize(dt, *given, 1e-5, 1e-3, state.gyro_bias, state.accel_bias)
        expected = A @ lines.covariance @ A.mT
        scale = torch.outer(expected.diagonal(), expected.diagonal()).rsqrt()
        differences.append((scale * (P[:9, :9] - expected)).abs().max())
    assert differences[0] < 0.01
    assert 1.9 < differences[0] / differences[1] < 2.1


def test_the_mean_moves_with_the_preintegrated_motion(dtype, device):
    dt, gyro, accel = (x.to(device) for x in samples(4, dtype=dtype))
    T_c_b = extrinsics().to(device, dtype)
    model = EKFModel().to(device, dtype)
    v, g = torch.randn(2, 4, 3, dtype=dtype, device=device)
    state = model.propagate(model.initial_state(v, g), dt, gyro, accel, T_c_b)
    motion = preintegrate(dt, gyro, accel)
    assert_close(state.T_c0_c1, camera_motion(motion, T_c_b, v, g))
    R_c_b = T_c_b[:3, :3]
    expected = v + apply(R_c_b, motion.velocity) - g * 0.1
    assert_close(state.velocity, expected)
    assert_close(state.gravity, g)


def test_propagation_in_two_parts_is_propagation_in_one():
    dt, gyro, accel = samples(3, steps=12)
    state, T_c_b = random_state(3), extrinsics()
    densities = torch.tensor([1e-5, 1e-8, 1e-3, 1e-6], dtype=DOUBLE)
    whole = propagate(state, dt, gyro, accel, T_c_b, densities)
    first = propagate(state, dt[:, :5], gyro[:, :6], accel[:, :6], T_c_b, densities)
    both = propagate(first, dt[:, 5:], gyro[:, 5:], accel[:, 5:], T_c_b, densities)
    for field in fields(FilterState):
        assert_close(getattr(both, field.name), getattr(whole, field.name))


def test_the_noise_of_a_step_goes_through_its_transition():
    dt, gyro, accel = samples(steps=1, dt=0.1)
    state, T_c_b = random_state(), extrinsics()
    densities = torch.tensor([1e-3, 2e-3, 3e-2, 4e-2], dtype=DOUBLE)
    certain = replace(state, P=torch.zeros(18, 18, dtype=DOUBLE))
    P = propagate(certain, dt, gyro, accel, T_c_b, densities).P
    w, a = gyro.mean(0) - state.gyro_bias, accel.mean(0) - state.accel_bias
    R_c0_b = state.T_c0_c1[:3, :3] @ T_c_b[:3, :3] @ so3.exp(0.05 * w)
    Phi, G = transition(error_dynamics(R_c0_b, w, a), w, dt[0]), noise_input(R_c0_b)
    N = torch.diag(densities.repeat_interleave(3))
    assert_close(P, Phi @ G @ N @ G.mT @ Phi.mT * 0.1, atol=1e-14, rtol=0)


def test_leading_dimensions_broadcast():
    state, T_c_b = random_state(3), extrinsics()
    dt, gyro, accel = samples(5, 1)
    densities = torch.tensor([1e-5, 1e-8, 1e-3, 1e-6], dtype=DOUBLE)
    moved_on = propagate(state, dt, gyro, accel, T_c_b.expand(5, 1, 4, 4), densities)
    assert moved_on.P.shape == (5, 3, 18, 18)
    one = replace(state, **{f.name: getattr(state, f.name)[2] for f in fields(state)})
    alone = propagate(one, dt[4, 0], gyro[4, 0], accel[4, 0], T_c_b, densities)
    assert_close(moved_on.P[4, 2], alone.P)
    assert_close(moved_on.T_c0_c1[4, 2], alone.T_c0_c1)
    T_vis, covariance = near(state, 0.1).unsqueeze(1), torch.eye(6, dtype=DOUBLE)
    fused, innovation = update(alone, T_vis, covariance, T_c_b)
    assert fused.P.shape == (3, 1, 18, 18)
    assert_close(fused.velocity[1, 0], update(alone, T_vis[1, 0], covariance, T_c_b)[0].velocity)
    with pytest.raises(ValueError, match=r"state: leading dimensions \(3,\) do not fit"):
        propagate(state, *samples(2), T_c_b, densities)


def test_padding_changes_nothing():
    dt, gyro, accel = samples(2)
    state, T_c_b = random_state(2), extrinsics()
    densities = torch.tensor([1e-5, 1e-8, 1e-3, 1e-6], dtype=DOUBLE)
    longer = [torch.cat([x, 100 * torch.randn(2, 3, 3, dtype=DOUBLE)], 1) for x in (gyro, accel)]
    plain = propagate(state, dt, gyro, accel, T_c_b, densities)
    padded = propagate(state, torch.nn.functional.pad(dt, (0, 3)), *longer, T_c_b, densities)
    for field in fields(FilterState):
        assert_close(getattr(padded, field.name), getattr(plain, field.name))


def test_the_innovation_is_zero_where_camera_and_imu_agree_and_what_the_camera_adds_elsewhere():
    state, T_c_b = random_state(5), extrinsics()
    covariance = 0.01 * torch.eye(6, dtype=DOUBLE)
    agree = innovate(state, state.T_c0_c1, covariance, T_c_b)
    assert_close(agree.r, torch.zeros(5, 6, dtype=DOUBLE), atol=1e-12, rtol=0)
    assert_close(agree.nis(), torch.zeros(5, dtype=DOUBLE), atol=1e-12, rtol=0)
    added = 0.3 * torch.randn(5, 6, dtype=DOUBLE)
    differ = innovate(state, disturb(state.T_c0_c1, added), covariance, T_c_b)
    assert_close(differ.r, added)
    expected = motion_covariance(state, T_c_b) + covariance
    assert_close(differ.S, expected)
    assert_close(differ.nis(), nees(added, expected))


def near(state: FilterState, size: float) -> torch.Tensor:
    """Return a camera motion that differs from a state's by some size [rad, m]."""
    noise = torch.randn(*state.velocity.shape[:-1], 6, dtype=state.velocity.dtype)
    return disturb(state.T_c0_c1, size * noise)


def test_a_camera_without_noise_is_followed_and_a_blind_one_ignored():
    state, T_c_b = random_state(6), extrinsics()
    T_vis = near(state, 0.5)
    trusted, _ = update(state, T_vis, 1e-14 * torch.eye(6, dtype=DOUBLE), T_c_b)
    assert_close(trusted.T_c0_c1, T_vis, atol=1e-10, rtol=0)
    assert motion_covariance(trusted, T_c_b).abs().max() < 1e-3 * state.P.abs().min(-1).values.max()
    ignored, _ = update(state, T_vis, 1e14 * torch.eye(6, dtype=DOUBLE), T_c_b)
    for field in fields(FilterState):
        assert_close(getattr(ignored, field.name), getattr(state, field.name), atol=1e-11, rtol=0)


def test_the_update_is_the_one_of_textbooks_for_small_innovations():
    state, T_c_b = random_state(), extrinsics()
    covariance = torch.diag(torch.rand(6, dtype=DOUBLE) + 0.1)
    T_vis = near(state, 1e-6)
    updated, innovation = update(state, T_vis, covariance, T_c_b)
    H, P = measurement_jacobian(state, T_c_b), state.P
    information = torch.linalg.inv(P) + H.mT @ torch.linalg.inv(covariance) @ H
    assert_close(updated.P, torch.linalg.inv(information), atol=1e-6, rtol=0)
    delta = torch.linalg.inv(information) @ H.mT @ torch.linalg.inv(covariance) @ innovation.r
    assert_close(error_of(state, updated, T_c_b), delta, atol=1e-11, rtol=0)


def test_the_covariance_is_turned_into_the_corrected_axes():
    state, T_c_b = random_state(), extrinsics()
    covariance = 0.1 * torch.eye(6, dtype=DOUBLE)
    T_vis = near(state, 0.5)
    near_by, far = (
        update(state, near(state, 1e-9), covariance, T_c_b)[0],
        update(state, T_vis, covariance, T_c_b)[0],
    )
    delta = so3.log((state.T_c0_c1 @ T_c_b)[:3, :3].mT @ (far.T_c0_c1 @ T_c_b)[:3, :3])

    def counted_from_the_correction(phi: torch.Tensor) -> torch.Tensor:
        return so3.log(so3.exp(-delta) @ so3.exp(delta + phi), check=False)

    assert delta.norm() > 0.1
    reset = torch.eye(18, dtype=DOUBLE)
    reset[PHI, PHI] = jacobian(counted_from_the_correction, 3)
    assert_close(far.P, reset @ near_by.P @ reset.mT, atol=1e-8, rtol=0)


def is_positive(P: torch.Tensor) -> bool:
    """Say whether covariances are positive once every deviation is scaled to one."""
    P = P.double()
    deviation = P.diagonal(dim1=-2, dim2=-1).sqrt()
    correlation = P / deviation.unsqueeze(-1) / deviation.unsqueeze(-2)
    return bool((torch.linalg.eigvalsh(correlation) > 0).all())


def test_a_camera_far_better_than_the_state_leaves_a_covariance_like_its_own_in_float32():
    # P - K H P loses here, by cancellation, all digits of the little that is left.
    state = random_state(dtype=torch.float32)
    state = replace(state, P=1e6 * state.P)
    T_c_b, covariance = extrinsics().float(), 1e-4 * torch.eye(6)
    fused, _ = update(state, state.T_c0_c1, covariance, T_c_b)
    assert_close(motion_covariance(fused, T_c_b), covariance, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["published", "calibrated"])
def test_the_covariance_stays_symmetric_and_positive_through_10000_steps_in_float32(name):
    model, T_c_b = EKFModel(name), extrinsics().float()
    gravity = T_c_b[:3, :3] @ torch.tensor([0, 0, 9.81])
    state = model.initial_state(torch.tensor([0.0, 0, 8]), gravity)
    covariance = torch.diag(torch.tensor([1e-5] * 3 + [1e-2] * 3))
    for k in range(1000):
        state = model.propagate(state, *samples(dtype=torch.float32), T_c_b)
        assert torch.equal(state.P, state.P.mT)
        if k % 3:  # now and then the camera is blind
            state, innovation = model.update(state, near(state, 1e-3), covariance, T_c_b)
            assert innovation.nis() > 0
        assert torch.equal(state.P, state.P.mT)
        assert is_positive(state.P)


def test_a_broken_covariance_comes_out_as_nan_and_leaves_the_others_alone():
    S = torch.eye(6).repeat(3, 1, 1)
    S[1, 2, 2] = -1
    L, positive = cholesky(S)
    assert positive.tolist() == [True, False, True]
    assert_close(L, torch.eye(6).repeat(3, 1, 1))
    nis = Innovation(torch.ones(3, 6), S).nis()
    assert nis[1].isnan()
    assert_close(nis[[0, 2]], torch.tensor([6.0, 6.0]))


def test_states_are_chosen_by_masks_that_broadcast():
    a, b = random_state(2, 2), random_state(2, 2)
    chosen = a.where(torch.tensor([True, False]), b)
    for field in fields(FilterState):
        x = getattr(chosen, field.name)
        assert torch.equal(x[:, 0], getattr(a, field.name)[:, 0])
        assert torch.equal(x[:, 1], getattr(b, field.name)[:, 1])


def test_one_broken_sample_can_be_left_out_of_a_loss():
    state, T_c_b = random_state(2), extrinsics()
    scale = torch.ones((), dtype=DOUBLE, requires_grad=True)  # what all samples share
    noise = torch.eye(6, dtype=DOUBLE).repeat(2, 1, 1)
    noise[0] *= -5
    fused, innovation = update(state, near(state, 0.1), noise * scale, T_c_b)
    for field in fields(FilterState):
        assert getattr(fused, field.name)[0].isnan().all(), field.name
        assert getattr(fused, field.name)[1].isfinite().all(), field.name
    assert innovation.nis()[0].isnan()
    (fused.T_c0_c1[1].sum() + fused.P[1].sum() + innovation.nis()[1]).backward()
    assert scale.grad.isfinite()
    assert scale.grad != 0


def forward_arguments(pairs: int, dtype: torch.dtype = DOUBLE) -> list[torch.Tensor]:
    dt, gyro, accel = samples(pairs, steps=3, dtype=dtype)
    T_c_b = extrinsics().to(dtype).expand(pairs, 4, 4)
    v, g = torch.randn(2, pairs, 3, dtype=dtype)
    T_vis = se3.exp(0.1 * torch.randn(pairs, 6, dtype=dtype))
    return [dt, gyro, accel, T_c_b, v, g, T_vis, torch.randn(pairs, 6, dtype=dtype)]


def test_a_batch_of_pairs_is_each_pair_alone():
    model = EKFModel("calibrated").double()
    given = forward_arguments(4)
    together = model(*given)
    for i in range(4):
        alone = model(*(x[i : i + 1] for x in given))
        assert_close(together.fused.T_c0_c1[i : i + 1], alone.fused.T_c0_c1)
        assert_close(together.covariance[i : i + 1], alone.covariance)
        assert_close(together.inertial.velocity[i : i + 1], alone.inertial.velocity)


def test_fusion_is_propagation_and_update_and_says_how_certain_it_is():
    model = EKFModel("calibrated", "naive").double()
    dt, gyro, accel, T_c_b, v, g, T_vis, predicted = forward_arguments(4)
    fusion = model(dt, gyro, accel, T_c_b, v, g, T_vis, predicted)
    inertial = model.propagate(model.initial_state(v, g), dt, gyro, accel, T_c_b)
    covariance_vis = vision_covariance(predicted, preset("calibrated"), "naive")
    fused, innovation = model.update(inertial, T_vis, covariance_vis, T_c_b)
    assert_close(fusion.inertial.P, inertial.P)
    assert_close(fusion.fused.T_c0_c1, fused.T_c0_c1)
    assert_close(fusion.innovation.r, innovation.r)
    assert_close(fusion.covariance, motion_covariance(fused, T_c_b))
    assert torch.equal(fusion.covariance, fusion.covariance.mT)
    before = motion_covariance(inertial, T_c_b)
    assert (torch.linalg.eigvalsh(before - fusion.covariance) > -1e-9).all()  # a camera only helps


def test_everything_that_is_learnt_has_its_gradient():
    model = EKFModel(train_init_covar=True, train_imu_noise_covar=True).double()
    given = forward_arguments(2)
    names = ["v", "g", "xi", "predicted"]
    learnt = [given[4], given[5], se3.log(given[6]), given[7]]
    learnt = [x.detach().requires_grad_() for x in learnt]

    def outputs(v, g, xi, predicted):
        fusion = model(*given[:4], v, g, se3.exp(xi), predicted)
        return (
            fusion.fused.T_c0_c1,
            fusion.fused.velocity,
            fusion.fused.gravity,
            1e3 * fusion.covariance,
        )

    assert torch.autograd.gradcheck(outputs, learnt, atol=1e-7)
    sum(x.sum() for x in outputs(*learnt)).backward()
    for name, x in zip(names, learnt, strict=True):
        assert x.grad.abs().min() > 0, name
    assert model.init_covar_diag_sqrt.grad[6:].abs().min() > 0
    assert model.imu_noise_covar_weights.weight.grad.abs().min() > 0


def test_fusion_is_in_full_precision_under_mixed_precision(device):
    model = EKFModel().to(device)
    given = [x.float().to(device) for x in forward_arguments(2)]
    expected = model(*given)
    given[7] = given[7].bfloat16()
    halved = model(*given[:7], given[7].float())
    with torch.autocast(device.type, dtype=torch.bfloat16):
        mixed = model(*given)
    assert mixed.fused.T_c0_c1.dtype == mixed.covariance.dtype == torch.float32
    assert torch.equal(mixed.fused.T_c0_c1, halved.fused.T_c0_c1)
    assert_close(mixed.inertial.P, expected.inertial.P)


def test_a_batch_of_mixed_types_is_fused_in_float32():
    model, given = EKFModel(), forward_arguments(2)
    mixed = [given[0], given[1], given[2], *(x.float() for x in given[3:])]
    fusion = model(*mixed)
    assert fusion.fused.P.dtype == torch.float32
    assert_close(fusion.fused.T_c0_c1, model(*(x.float() for x in given)).fused.T_c0_c1)
    assert model(*given).fused.P.dtype == torch.float64  # parameters follow the data


def test_a_form_that_does_not_exist_is_refused_at_once():
    with pytest.raises(ValueError, match="expected learned, naive, fixed, got 'free'"):
        EKFModel(vision_form="free")


def test_published_parameters_load_and_count():
    published = {
        "init_covar_diag_sqrt": torch.rand(18) + 0.1,
        "imu_noise_covar_weights.weight": torch.tensor([[0.5], [0], [-0.5], [0]]),
    }
    model = EKFModel()
    assert set(model.state_dict()) == set(published)
    model.load_state_dict(published, strict=True)
    P = model.initial_state(torch.zeros(3), torch.zeros(3)).P
    assert_close(P.diagonal().sqrt(), published["init_covar_diag_sqrt"])
    factors = model.imu_densities() / EKFModel().imu_densities()
    expected = 10 ** (4 * torch.tensor([0.5, 0, -0.5, 0]).tanh())
    assert_close(factors, expected)


@pytest.mark.parametrize("flag", ["train_init_covar", "train_imu_noise_covar"])
def test_only_what_is_asked_for_is_trained(flag):
    trained = [name for name, p in EKFModel(**{flag: True}).named_parameters() if p.requires_grad]
    name = {
        "train_init_covar": "init_covar_diag_sqrt",
        "train_imu_noise_covar": "imu_noise_covar_weights.weight",
    }
    assert trained == [name[flag]]
    assert not any(p.requires_grad for p in EKFModel().parameters())


def test_the_initial_state_is_still_and_as_uncertain_as_the_preset_says():
    model = EKFModel("calibrated")
    v, g = torch.randn(2, 3), torch.randn(3)
    state = model.initial_state(v, g)
    assert torch.equal(state.T_c0_c1, torch.eye(4).expand(2, 4, 4))
    assert torch.equal(state.velocity, v)
    assert torch.equal(state.gravity, g.expand(2, 3))
    assert_close(state.P[1].diagonal().sqrt()[VEL], torch.full((3,), model.noise.velocity_std))
    assert 0 < state.P[0, 0, 0] < 1e-11
    assert model.initial_state(v.double(), g.double()).P.dtype == DOUBLE


def chi_square_bounds(degrees: int, runs: int) -> tuple[float, float]:
    """Return where the mean of `runs` chi-square numbers lies in 95 of 100 experiments."""
    return tuple(chi2.ppf([0.025, 0.975], degrees * runs) / runs)


@pytest.mark.parametrize("name", ["published", "calibrated"])
def test_the_filter_is_consistent_over_1000_monte_carlo_runs(name):
    # At 1 kHz, because sampled noise is the continuous noise of the model only for short steps: at
    # 100 Hz the trapezoidal rule gives the outer samples half the weight of a step, and the filter
    # is cautious by some percent.
    runs = 1000
    covariance = torch.diag(torch.tensor([3e-3] * 3 + [0.05] * 3, dtype=DOUBLE).square())
    model = EKFModel(name).double()
    s = simulate(model, random_drive(runs), 1, covariance, rate_hz=1000)
    camera = s.camera.T_c0_c1[:, 0]
    with torch.no_grad():
        state = model.propagate(
            s.start, s.imu.dt[:, 0], s.imu.gyro[:, 0], s.imu.accel[:, 0], s.T_c_b
        )
        fused, innovation = model.update(state, camera, covariance, s.T_c_b)
    error = motion_error(s.T_c0_c1[:, 0], fused.T_c0_c1)
    low, high = chi_square_bounds(6, runs)
    assert low < nees(error, motion_covariance(fused, s.T_c_b)).mean() < high
    assert low < innovation.nis().mean() < high
    # and it is better than either: than the camera, and than the IMU with its unknown velocity
    inertial = motion_error(s.T_c0_c1[:, 0], state.T_c0_c1)
    seen = motion_error(s.T_c0_c1[:, 0], camera)
    for part in (ROT, TRANS):
        rms = [e[:, part].square().mean() for e in (error, inertial, seen)]
        assert rms[0] <= 1.01 * min(rms[1:])


def test_inputs_are_left_unchanged():
    model, given = EKFModel(), forward_arguments(2, torch.float32)
    before = [x.clone() for x in given]
    model(*given)
    state, T_c_b = random_state(2), extrinsics()
    old = {f.name: getattr(state, f.name).clone() for f in fields(FilterState)}
    propagate(state, *samples(2), T_c_b, torch.ones(4, dtype=DOUBLE))
    update(state, near(state, 0.1), torch.eye(6, dtype=DOUBLE), T_c_b)
    assert all(torch.equal(x, y) for x, y in zip(given, before, strict=True))
    assert all(torch.equal(getattr(state, name), x) for name, x in old.items())


def test_blocks_cover_the_state_without_overlap():
    for blocks, size in (
        ((PHI, POS, VEL, GRAV, BG, BA), ekf_filter.STATE),
        ((N_G, N_BG, N_A, N_BA), ekf_filter.NOISE),
        ((ROT, TRANS), ekf_filter.MOTION),
    ):
        covered = [i for block in blocks for i in range(size)[block]]
        assert covered == list(range(size))
