"""Compare the integration of a real recording with GPS and GTSAM: `python -m benchmarks.recording`.

GTSAM's wheel carries 470 s of KITTI's drive 2011_10_03_0027: its IMU at 100 Hz, its GPS at 1 Hz.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import OptimizeResult, least_squares
from scipy.spatial.transform import Rotation

from benchmarks.simulation import GRAVITY
from ekf.preintegration import (
    POSITION,
    ROTATION,
    VELOCITY,
    Preintegrated,
    linearize,
    mean_of_neighbours,
    preintegrate,
)
from liegroups import so3
from liegroups.matrices import apply

LONGEST_STEP_S = 0.05
"""Windows with a longer step between two IMU samples are left out."""

GPS_STD_M = 0.02
"""What the GPS with its base station is taken to be good for."""

DENSITIES = {"published": (1e-7, 1e-2), "calibrated": (1e-7, 1e-3), "GTSAM's": (3e-8, 1e-4)}
"""Noise densities of gyro [rad^2/s] and accelerometer [m^2/s^3]."""


class Recording(NamedTuple):
    """An IMU and the positions that it should lead to."""

    time: np.ndarray  # (T) of the IMU [s]
    gyro: np.ndarray  # (T, 3) [rad/s]
    accel: np.ndarray  # (T, 3) [m/s^2]
    gps_time: np.ndarray  # (G) [s]
    gps_position: np.ndarray  # (G, 3) east, north, up [m]


class Differences(NamedTuple):
    """How far GTSAM's integration lies from ours, one number for each interval."""

    rotation_rad: np.ndarray
    position_m: np.ndarray
    velocity_m_s: np.ndarray


def read_recording() -> Recording:
    """Read the recording that GTSAM carries."""
    # By name, because GTSAM is needed here alone and is no requirement of the program.
    gtsam = importlib.import_module("gtsam")
    imu = np.loadtxt(gtsam.findExampleDataFile("KittiEquivBiasedImu.txt"), skiprows=1)
    gps_file = gtsam.findExampleDataFile("KittiGps_converted.txt")
    gps = np.loadtxt(gps_file, skiprows=1, delimiter=",")
    return Recording(imu[:, 0], imu[:, 5:8], imu[:, 2:5], gps[:, 0], gps[:, 1:4])


def between(
    recording: Recording, begin: float, end: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return dt, gyro and accel from one time to another, interpolated at both ends."""
    inside = recording.time[(recording.time > begin) & (recording.time < end)]
    time = np.concatenate([[begin], inside, [end]])
    gyro, accel = (
        np.stack([np.interp(time, recording.time, axis) for axis in measured.T], -1)
        for measured in (recording.gyro, recording.accel)
    )
    return torch.tensor(np.diff(time)), torch.tensor(gyro), torch.tensor(accel)


class Window(NamedTuple):
    """Consecutive GPS fixes, and the seconds of IMU between them."""

    elapsed_s: np.ndarray  # (n) since the first fix
    moved_m: np.ndarray  # (n, 3) since the first fix
    dt: torch.Tensor  # (n, S) padded
    gyro: torch.Tensor  # (n, S+1, 3)
    accel: torch.Tensor  # (n, S+1, 3)


def windows(recording: Recording, fixes: int) -> list[Window]:
    """Return all windows of so many seconds in which the IMU has no gap."""
    begin = int(np.searchsorted(recording.gps_time, recording.time[0]))
    found = []
    for first in range(begin, len(recording.gps_time) - fixes, fixes):
        times = recording.gps_time[first : first + fixes + 1]
        positions = recording.gps_position[first : first + fixes + 1]
        seconds = [between(recording, *ends) for ends in zip(times, times[1:], strict=False)]
        if max(dt.max() for dt, _, _ in seconds) > LONGEST_STEP_S:
            continue
        dt, gyro, accel = (
            torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
            for part in zip(*seconds, strict=True)
        )
        elapsed_s, moved_m = times[1:] - times[0], positions[1:] - positions[0]
        found.append(Window(elapsed_s, moved_m, dt, gyro, accel))
    return found


def displacements(window: Window) -> np.ndarray:
    """Return alpha from the first fix to each of the others: (n, 3) in the first body axes [m]."""
    motion = preintegrate(window.dt, window.gyro, window.accel)
    R_b0_bk = torch.eye(3, dtype=torch.float64)
    alpha = beta = torch.zeros(3, dtype=torch.float64)
    alphas = []
    for k in range(len(window.elapsed_s)):
        alpha = alpha + beta * motion.duration[k] + R_b0_bk @ motion.position[k]
        beta = beta + R_b0_bk @ motion.velocity[k]
        R_b0_bk = R_b0_bk @ motion.R_b0_b1[k]
        alphas.append(alpha)
    return torch.stack(alphas).numpy()


def displacement_covariance(
    window: Window, gyro_density: float, accel_density: float
) -> np.ndarray:
    """Return the covariance (3 n, 3 n) of `displacements`, from the covariance of each second."""
    measured = (window.dt, window.gyro, window.accel)
    motion = preintegrate(*measured)
    covariance = linearize(*measured, gyro_density, accel_density).covariance  # (n, 9, 9)
    n, one = len(window.elapsed_s), torch.eye(3, dtype=torch.float64)
    R_b0_bk, follows, begins = one, [], []
    for k in range(n):
        A, B = torch.eye(9, dtype=torch.float64), torch.eye(9, dtype=torch.float64)
        A[ROTATION, ROTATION] = motion.R_b0_b1[k].T
        A[POSITION, ROTATION] = -R_b0_bk @ so3.hat(motion.position[k])
        A[VELOCITY, ROTATION] = -R_b0_bk @ so3.hat(motion.velocity[k])
        A[POSITION, VELOCITY] = motion.duration[k] * one
        B[POSITION, POSITION] = B[VELOCITY, VELOCITY] = R_b0_bk
        follows.append(A)
        begins.append(B)
        R_b0_bk = R_b0_bk @ motion.R_b0_b1[k]
    total = torch.zeros(3 * n, 3 * n, dtype=torch.float64)
    for k in range(n):  # the noise of second k moves all displacements from there on
        effect, X = torch.zeros(3 * n, 9, dtype=torch.float64), begins[k]
        for j in range(k, n):
            X = X if j == k else follows[j] @ X
            effect[3 * j : 3 * j + 3] = X[POSITION]
        total += effect @ covariance[k] @ effect.T
    return total.numpy()


def fit(window: Window, alpha: np.ndarray, root: np.ndarray | None = None) -> OptimizeResult:
    """Fit attitude and velocity at the first fix to a window.

    They are what an IMU cannot know: 6 unknowns for 3 n coordinates. The attitude says where
    gravity is.

    Args:
        window: n fixes after the first
        alpha: (n, 3) displacements
        root: (3 n, 3 n) Cholesky factor of the residuals' covariance, to weight them with
    """
    elapsed, moved = window.elapsed_s[:, None], window.moved_m

    def residual(unknown: np.ndarray) -> np.ndarray:
        R_w_b0, v_w = Rotation.from_rotvec(unknown[:3]).as_matrix(), unknown[3:]
        g_w = np.array([0, 0, GRAVITY])
        missed = (alpha @ R_w_b0.T + v_w * elapsed - 0.5 * g_w * elapsed**2 - moved).ravel()
        return missed if root is None else np.linalg.solve(root, missed)

    heading = np.arctan2(moved[-1, 1], moved[-1, 0])
    start = np.concatenate([[0, 0, heading], moved[0] / elapsed[0]])
    return least_squares(residual, start)


def gps_errors_m(found: list[Window]) -> np.ndarray:
    """Return how far the IMU misses each fix, relative to the fix one second before it [m]."""
    errors = []
    for window in found:
        missed = fit(window, displacements(window)).fun.reshape(-1, 3)
        errors.append(np.diff(missed, axis=0, prepend=np.zeros((1, 3))))
    return np.linalg.norm(np.concatenate(errors), axis=1)


def reduced_chi_square(found: list[Window], gyro_density: float, accel_density: float) -> float:
    """Return the median over windows of the squared errors over what noise would make them.

    1 says that these densities, and GPS good to `GPS_STD_M`, explain the errors.
    """
    values = []
    for window in found:
        n, alpha = len(window.elapsed_s), displacements(window)
        R_w_b0 = np.kron(np.eye(n), Rotation.from_rotvec(fit(window, alpha).x[:3]).as_matrix())
        of_imu = R_w_b0 @ displacement_covariance(window, gyro_density, accel_density) @ R_w_b0.T
        # The error of the first fix is in all differences from it.
        of_gps = GPS_STD_M**2 * np.kron(np.eye(n) + np.ones((n, n)), np.eye(3))
        root = np.linalg.cholesky(of_imu + of_gps)
        values.append(2 * fit(window, alpha, root).cost / (3 * n - 6))
    return float(np.median(values))


def random_intervals(
    recording: Recording, steps: int, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return dt (count, steps), gyro and accel (count, steps+1, 3) of intervals without a gap."""
    gap = np.diff(recording.time) > LONGEST_STEP_S
    gaps_before = np.concatenate([[0], np.cumsum(gap)])
    starts = np.arange(len(recording.time) - steps)
    starts = starts[gaps_before[starts + steps] == gaps_before[starts]]
    chosen = np.random.default_rng(0).choice(starts, count, replace=False)
    rows = chosen[:, None] + np.arange(steps + 1)
    dt = np.diff(recording.time[rows], axis=1)
    return torch.tensor(dt), torch.tensor(recording.gyro[rows]), torch.tensor(recording.accel[rows])


def gtsam_differences(
    recording: Recording, steps: int, count: int, by_our_rule: bool
) -> Differences:
    """Compare our integration with GTSAM's over random intervals.

    GTSAM holds one measurement over each step: the one at its beginning, or, `by_our_rule`, the
    means that we take, which leaves what else the two do differently.
    """
    gtsam = importlib.import_module("gtsam")
    dt, gyro, accel = random_intervals(recording, steps, count)
    ours = preintegrate(dt, gyro, accel)
    fed_gyro, fed_accel = gyro[:, :-1], accel[:, :-1]
    if by_our_rule:
        fed_gyro, fed_accel = mean_of_neighbours(gyro), _mean_force(ours, accel)
    theirs = []
    for steps_s, rates, forces in zip(dt, fed_gyro, fed_accel, strict=True):
        bias = gtsam.imuBias.ConstantBias()
        pim = gtsam.PreintegratedImuMeasurements(gtsam.PreintegrationParams(np.zeros(3)), bias)
        for step, rate, force in zip(steps_s.numpy(), rates.numpy(), forces.numpy(), strict=True):
            pim.integrateMeasurement(force, rate, step)
        theirs.append((pim.deltaRij().matrix(), pim.deltaPij(), pim.deltaVij()))
    R, position, velocity = (torch.tensor(np.array(x)) for x in zip(*theirs, strict=True))
    return Differences(
        so3.log(R.mT @ ours.R_b0_b1).norm(dim=-1).numpy(),
        (position - ours.position).norm(dim=-1).numpy(),
        (velocity - ours.velocity).norm(dim=-1).numpy(),
    )


def _mean_force(motion: Preintegrated, accel: torch.Tensor) -> torch.Tensor:
    """Return the mean rotated force of each step in the axes at its beginning (..., S, 3)."""
    force_b0 = apply(motion.rotation, accel)
    R_bi_b0 = motion.rotation[..., :-1, :, :].mT
    return apply(R_bi_b0, mean_of_neighbours(force_b0))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="random intervals beside GTSAM")
    args = parser.parse_args(argv)
    if importlib.util.find_spec("gtsam") is None:
        print("left out: needs GTSAM (requirements-dev.txt; there is none for Python 3.10)")
        return
    recording = read_recording()
    speed = np.linalg.norm(np.diff(recording.gps_position, axis=0), axis=1)
    print(f"between GPS fixes 1 s apart (median {np.median(speed):.1f} m), fitted over windows of:")
    for fixes in (5, 10, 20):
        errors = gps_errors_m(windows(recording, fixes))
        print(
            f"  {fixes:2} s: median error {100 * np.median(errors):4.1f} cm, 90 % below "
            f"{100 * np.percentile(errors, 90):4.1f} cm, {len(errors)} seconds"
        )
    print("reduced chi-square of these errors (1: explained by the noise) over 5 and 10 s:")
    for name, densities in DENSITIES.items():
        values = (reduced_chi_square(windows(recording, fixes), *densities) for fixes in (5, 10))
        print(f"  {name:10} densities: " + ", ".join(f"{value:.2f}" for value in values))
    print(f"ours and GTSAM's over {args.count} random intervals, median (largest) difference:")
    for steps in (10, 100):
        for by_our_rule in (False, True):
            found = gtsam_differences(recording, steps, args.count, by_our_rule)
            rule = "our means" if by_our_rule else "as measured"
            numbers = (f"{np.median(x):.1e} ({x.max():.1e})" for x in found)
            print(f"  {steps / 100} s, {rule:11}: " + "; ".join(numbers) + "  [rad; m; m/s]")


if __name__ == "__main__":
    main()
