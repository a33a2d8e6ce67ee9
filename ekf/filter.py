"""The error-state Kalman filter that corrects the IMU's motion by the camera's.

The state moves with the IMU; its error is small and Gaussian, and lives in the tangent space:

    R_c0_b exp(phi)   rotation of the body, error in the body's own axes
    p_c0_b + pos      position of the body, in the axes of c0
    v + vel, g + grav velocity of the body and gravity (pointing up), in the axes of c0
    b_g + bg, b_a + ba biases of gyro and accelerometer

c0 is the camera where counting begins, c1 the camera now, b the body (IMU) now. Leading dimensions
are free and broadcast: all pairs of a batch go through in one call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ekf import noise as noises
from ekf.noise import VisionForm
from ekf.preintegration import mean_of_neighbours, move_body, preintegrate, unbiased_samples
from liegroups import se3, so3
from liegroups.checks import check_batch
from liegroups.matrices import apply, identity, like_leading, symmetric

PHI, POS, VEL, GRAV, BG, BA = (slice(3 * i, 3 * i + 3) for i in range(6))
"""Blocks of the state's error (18)."""

N_G, N_BG, N_A, N_BA = (slice(3 * i, 3 * i + 3) for i in range(4))
"""Blocks of the IMU's noise (12): gyro, its bias, accelerometer, its bias."""

ROT, TRANS = slice(0, 3), slice(3, 6)
"""Blocks of the camera's motion (6): rotation in the axes of c1, translation in those of c0."""

STATE, NOISE, MOTION = 18, 12, 6

INITIAL_VARIANCE = 1e-12  # added to the square of every initial deviation


@dataclass(frozen=True)
class FilterState:
    """Where the camera is, what moves it, and how well all of that is known."""

    T_c0_c1: Tensor  # (..., 4, 4) motion of the camera since c0 [m]
    velocity: Tensor  # (..., 3) of the body, in the axes of c0 [m/s]
    gravity: Tensor  # (..., 3) pointing up, in the axes of c0 [m/s^2]
    gyro_bias: Tensor  # (..., 3) [rad/s]
    accel_bias: Tensor  # (..., 3) [m/s^2]
    P: Tensor  # (..., 18, 18) covariance of the error

    def expand(self, *others: Tensor) -> FilterState:
        """Broadcast the leading dimensions against those of matrices (..., n, m)."""
        batch = self.P.shape[:-2]
        for other in others:
            batch = check_batch("state", batch, "the other arguments", other.shape[:-2])
        mine = len(self.P.shape[:-2])
        return FilterState(*(x.expand(*batch, *x.shape[mine:]) for x in vars(self).values()))

    def where(self, valid: Tensor, other: FilterState) -> FilterState:
        """Return this state where valid (...), the other elsewhere."""
        valid = valid.expand(self.P.shape[:-2])
        both = zip(vars(self).values(), vars(other).values(), strict=True)
        return FilterState(*(torch.where(like_leading(valid, x), x, y) for x, y in both))


@dataclass(frozen=True)
class Innovation:
    """What the camera says beyond what was expected, and how surprising that is."""

    r: Tensor  # (..., 6) [Log(R_imu^T R_vis); p_vis - p_imu]
    S: Tensor  # (..., 6, 6) its covariance

    def nis(self) -> Tensor:
        """Return r^T S^-1 r (...): the normalised innovation squared, chi-square with 6 degrees."""
        L, positive = cholesky(self.S)
        r = self.r.unsqueeze(-1)
        nis = (r * torch.cholesky_solve(r, L)).sum((-2, -1))
        return torch.where(positive, nis, torch.nan)


@dataclass(frozen=True)
class Fusion:
    """The motion between two images, from the IMU alone and with the camera."""

    inertial: FilterState
    fused: FilterState
    covariance: Tensor  # (..., 6, 6) of the fused T_c0_c1, rotation first
    innovation: Innovation


def error_dynamics(R_c0_b: Tensor, w: Tensor, a: Tensor) -> Tensor:
    """Return F (..., 18, 18): the rate at which the error of the state changes with itself.

    Args:
        R_c0_b: (..., 3, 3)
        w: (..., 3) angular rate without bias [rad/s]
        a: (..., 3) specific force without bias, which includes gravity [m/s^2]
    """
    one = identity(3, w)
    F = w.new_zeros(*w.shape[:-1], STATE, STATE)
    F[..., PHI, PHI] = -so3.hat(w)
    F[..., PHI, BG] = -one
    F[..., POS, VEL] = one
    F[..., VEL, PHI] = -R_c0_b @ so3.hat(a)
    F[..., VEL, GRAV] = -one
    F[..., VEL, BA] = -R_c0_b
    return F


def noise_input(R_c0_b: Tensor) -> Tensor:
    """Return G (..., 18, 12): how the noise of the IMU drives the error of the state."""
    one = identity(3, R_c0_b)
    G = R_c0_b.new_zeros(*R_c0_b.shape[:-2], STATE, NOISE)
    G[..., PHI, N_G] = -one
    G[..., VEL, N_A] = -R_c0_b
    G[..., BG, N_BG] = one
    G[..., BA, N_BA] = one
    return G


def transition(F: Tensor, w: Tensor, dt: Tensor) -> Tensor:
    """Return Phi = I + F dt + F^2 dt^2 / 2 (..., 18, 18), its rotation block exact.

    Second order holds over a step when F is that of the middle of the step.
    """
    F_dt = F * dt[..., None, None]
    Phi = identity(STATE, F) + F_dt + 0.5 * F_dt @ F_dt
    Phi[..., PHI, PHI] = so3.exp(w * dt.unsqueeze(-1)).mT
    return Phi


def measurement_jacobian(state: FilterState, T_c_b: Tensor) -> Tensor:
    """Return H (..., 6, 18): how the camera's motion changes with the error of the state."""
    R_c_b, t_b_c = T_c_b[..., :3, :3], se3.inverse(T_c_b)[..., :3, 3]
    R_c0_b = state.T_c0_c1[..., :3, :3] @ R_c_b
    H = state.P.new_zeros(*state.P.shape[:-2], MOTION, STATE)
    H[..., ROT, PHI] = R_c_b
    H[..., TRANS, PHI] = -R_c0_b @ so3.hat(t_b_c)
    H[..., TRANS, POS] = identity(3, H)
    return H


def propagate(
    state: FilterState, dt: Tensor, gyro: Tensor, accel: Tensor, T_c_b: Tensor, densities: Tensor
) -> FilterState:
    """Move the state along with the IMU.

    Args:
        state: at the first sample
        dt: (..., S) steps [s], zero where padded
        gyro: (..., S+1, 3) [rad/s]
        accel: (..., S+1, 3) [m/s^2]
        T_c_b: (..., 4, 4) extrinsics, camera from body
        densities: (4) noise of gyro, gyro bias, accelerometer, accelerometer bias; see `noise`
    """
    state = state.expand(dt.unsqueeze(-1), gyro, accel, T_c_b)
    dt, gyro, accel = unbiased_samples(dt, gyro, accel, state.gyro_bias, state.accel_bias)
    motion = preintegrate(dt, gyro, accel)
    T_c0_b = state.T_c0_c1 @ T_c_b
    R_c0_b, p_c0_b = T_c0_b[..., :3, :3], T_c0_b[..., :3, 3]
    moved_c0, velocity = move_body(motion, R_c0_b, state.velocity, state.gravity)
    T_c0_b1 = se3.from_rt(R_c0_b @ motion.R_b0_b1, p_c0_b + moved_c0)

    w, a = mean_of_neighbours(gyro), mean_of_neighbours(accel)  # (..., S, 3)
    half_turn = so3.exp(0.5 * w * dt.unsqueeze(-1))
    R_c0_bm = R_c0_b.unsqueeze(-3) @ motion.rotation[..., :-1, :, :] @ half_turn  # mid-step
    Phi = transition(error_dynamics(R_c0_bm, w, a), w, dt)  # (..., S, 18, 18)
    G = noise_input(R_c0_bm)  # (..., S, 18, 12)
    N_dt = densities.repeat_interleave(3) * dt.unsqueeze(-1)  # (..., S, 12) a diagonal
    Q = G * N_dt.unsqueeze(-2) @ G.mT
    P = state.P
    for Phi_i, Q_i in zip(Phi.unbind(-3), Q.unbind(-3), strict=True):
        P = Phi_i @ (P + Q_i) @ Phi_i.mT  # Phi P Phi^T + Phi G N G^T Phi^T dt
    return replace(state, T_c0_c1=T_c0_b1 @ se3.inverse(T_c_b), velocity=velocity, P=symmetric(P))


def innovate(
    state: FilterState, T_c0_c1_vis: Tensor, covariance_vis: Tensor, T_c_b: Tensor
) -> Innovation:
    """Compare the camera's motion with the state's.

    Args:
        state: where the IMU brought it
        T_c0_c1_vis: (..., 4, 4) the camera's motion [m]
        covariance_vis: (..., 6, 6) of its rotation [rad^2] and translation [m^2]
        T_c_b: (..., 4, 4) extrinsics
    """
    return _innovate(state, T_c0_c1_vis, covariance_vis, measurement_jacobian(state, T_c_b))


def _innovate(
    state: FilterState, T_c0_c1_vis: Tensor, covariance_vis: Tensor, H: Tensor
) -> Innovation:
    R, R_vis = state.T_c0_c1[..., :3, :3], T_c0_c1_vis[..., :3, :3]
    turned = so3.log(R.mT @ R_vis, check=False)
    moved = T_c0_c1_vis[..., :3, 3] - state.T_c0_c1[..., :3, 3]
    S = symmetric(H @ state.P @ H.mT) + covariance_vis
    return Innovation(torch.cat([turned, moved], -1), S)


def update(
    state: FilterState, T_c0_c1_vis: Tensor, covariance_vis: Tensor, T_c_b: Tensor
) -> tuple[FilterState, Innovation]:
    """Correct the state by the camera's motion, arguments as in `innovate`.

    Where S is finite but not positive, a covariance gone wrong, the state becomes NaN. That sample
    can be left out of a loss; raising would end the training run, and to look at the values would
    make the host wait for a GPU.
    """
    state = state.expand(T_c0_c1_vis, covariance_vis, T_c_b)
    H = measurement_jacobian(state, T_c_b)  # (..., 6, 18)
    innovation = _innovate(state, T_c0_c1_vis, covariance_vis, H)
    L, positive = cholesky(innovation.S)
    K = torch.cholesky_solve(H @ state.P, L).mT  # (..., 18, 6)
    delta = apply(K, innovation.r)  # (..., 18)
    A = identity(STATE, K) - K @ H
    P = A @ state.P @ A.mT + K @ covariance_vis @ K.mT  # Joseph: positive whatever K is
    # The error is now counted from the corrected rotation, in whose axes it looks turned.
    reset = identity(STATE, K).expand_as(P).clone()
    reset[..., PHI, PHI] = so3.left_jacobian(-delta[..., PHI])
    P = symmetric(reset @ P @ reset.mT)
    lost = FilterState(*(torch.full_like(x, torch.nan) for x in vars(state).values()))
    return _retract(state, delta, H, P).where(positive, lost), innovation


def _retract(state: FilterState, delta: Tensor, H: Tensor, P: Tensor) -> FilterState:
    """Add an error (..., 18) to the state.

    The camera's translation moves along H rather than by the body's displacement: equal to first
    order, and a camera without noise is then followed exactly.
    """
    moved = apply(H, delta)  # (..., 6)
    R = state.T_c0_c1[..., :3, :3] @ so3.exp(moved[..., ROT])
    p = state.T_c0_c1[..., :3, 3] + moved[..., TRANS]
    return FilterState(
        T_c0_c1=se3.from_rt(R, p),
        velocity=state.velocity + delta[..., VEL],
        gravity=state.gravity + delta[..., GRAV],
        gyro_bias=state.gyro_bias + delta[..., BG],
        accel_bias=state.accel_bias + delta[..., BA],
        P=P,
    )


def motion_covariance(state: FilterState, T_c_b: Tensor) -> Tensor:
    """Return the covariance (..., 6, 6) of the camera's motion, rotation first."""
    H = measurement_jacobian(state, T_c_b)
    return symmetric(H @ state.P @ H.mT)


def cholesky(S: Tensor) -> tuple[Tensor, Tensor]:
    """Factor S (..., n, n), and say where it is positive (...).

    Elsewhere the factor is that of the identity, so that what is computed with it, and then thrown
    away, is finite and gives no NaN to gradients that others share. (NaN given from outside does:
    zero times NaN is NaN.)
    """
    positive = torch.linalg.cholesky_ex(S).info == 0
    one = identity(S.shape[-1], S)
    return torch.linalg.cholesky_ex(torch.where(like_leading(positive, S), S, one)).L, positive


class EKFModel(nn.Module):
    """The filter with its noise, some of which may be learnt.

    The parameters have the published names, so that a published `ekf_model.pth` loads. It brings
    its own initial deviations, whichever preset is chosen.
    """

    def __init__(
        self,
        noise_preset: str = "published",
        vision_form: VisionForm = "learned",
        train_init_covar: bool = False,
        train_imu_noise_covar: bool = False,
    ) -> None:
        super().__init__()
        noises.check_form(vision_form)
        self.noise = noises.preset(noise_preset)
        self.vision_form = vision_form
        initial_std = torch.tensor(self.noise.initial_std())  # (18)
        self.init_covar_diag_sqrt = nn.Parameter(initial_std, requires_grad=train_init_covar)
        self.imu_noise_covar_weights = nn.Linear(1, 4, bias=False)
        nn.init.zeros_(self.imu_noise_covar_weights.weight)
        self.imu_noise_covar_weights.weight.requires_grad_(train_imu_noise_covar)
        self.register_buffer("densities", torch.tensor(self.noise.densities()), persistent=False)

    def imu_densities(self) -> Tensor:
        """Return the IMU's noise densities (4) with what was learnt about them."""
        exponents = self.imu_noise_covar_weights.weight.squeeze(-1)
        return noises.imu_densities(self.densities, exponents)

    def initial_state(
        self, velocity: Tensor, gravity: Tensor, velocity_std: float | None = None
    ) -> FilterState:
        """Begin at an image: no motion yet, velocity and gravity (..., 3) as given.

        Args:
            velocity: of the body, in the axes of c0 [m/s]
            gravity: pointing up, in the same axes [m/s^2]
            velocity_std: of each component, where something better than a network says it [m/s]
        """
        velocity, gravity = torch.broadcast_tensors(velocity, gravity)
        deviation = self.init_covar_diag_sqrt.to(velocity)
        if velocity_std is not None:
            known = torch.arange(STATE, device=deviation.device)
            known = (known >= VEL.start) & (known < VEL.stop)
            deviation = torch.where(known, velocity_std, deviation)
        variance = deviation.square() + INITIAL_VARIANCE
        batch = velocity.shape[:-1]
        return FilterState(
            T_c0_c1=identity(4, velocity).expand(*batch, 4, 4),
            velocity=velocity,
            gravity=gravity,
            gyro_bias=torch.zeros_like(velocity),
            accel_bias=torch.zeros_like(velocity),
            P=torch.diag(variance).expand(*batch, STATE, STATE),
        )

    def propagate(
        self, state: FilterState, dt: Tensor, gyro: Tensor, accel: Tensor, T_c_b: Tensor
    ) -> FilterState:
        """Move the state along with the IMU; see the function of this name."""
        return propagate(state, dt, gyro, accel, T_c_b, self.imu_densities())

    def update(
        self, state: FilterState, T_c0_c1_vis: Tensor, covariance_vis: Tensor, T_c_b: Tensor
    ) -> tuple[FilterState, Innovation]:
        """Correct the state by the camera's motion; see the function of this name."""
        return update(state, T_c0_c1_vis, covariance_vis, T_c_b)

    def vision_covariance(self, predicted: Tensor) -> Tensor:
        """Return the covariance (..., 6, 6) of what the pose network says, in the chosen form."""
        return noises.vision_covariance(predicted, self.noise, self.vision_form)

    def forward(
        self,
        dt: Tensor,
        gyro: Tensor,
        accel: Tensor,
        T_c_b: Tensor,
        velocity: Tensor,
        gravity: Tensor,
        T_c0_c1_vis: Tensor,
        predicted_vis: Tensor,
        velocity_std: float | None = None,
    ) -> Fusion:
        """Fuse the motions between image pairs, in full precision whatever surrounds it.

        Args:
            dt: (B, S) steps [s], zero where padded
            gyro: (B, S+1, 3) [rad/s]
            accel: (B, S+1, 3) [m/s^2]
            T_c_b: (B, 4, 4) extrinsics, camera from body
            velocity: (B, 3) at the first image, in the axes of c0 [m/s]
            gravity: (B, 3) at the first image, in the axes of c0 [m/s^2]
            T_c0_c1_vis: (B, 4, 4) the pose network's motion [m]
            predicted_vis: (B, 6) what it says of its uncertainty; see `noise.vision_covariance`
            velocity_std: of `initial_state`
        """
        given = (dt, gyro, accel, T_c_b, velocity, gravity, T_c0_c1_vis, predicted_vis)
        with torch.autocast(dt.device.type, enabled=False):
            dt, gyro, accel, T_c_b, velocity, gravity, T_c0_c1_vis, predicted_vis = _full(given)
            state = self.initial_state(velocity, gravity, velocity_std)
            inertial = self.propagate(state, dt, gyro, accel, T_c_b)
            covariance_vis = self.vision_covariance(predicted_vis)
            fused, innovation = self.update(inertial, T_c0_c1_vis, covariance_vis, T_c_b)
            return Fusion(inertial, fused, motion_covariance(fused, T_c_b), innovation)


def _full(given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return tensors of one type: float32, or float64 where that is all they are."""
    double = all(x.dtype == torch.float64 for x in given)
    return tuple(x if double else x.float() for x in given)
