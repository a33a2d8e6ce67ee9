"""Time preintegration and the filter: `python -m benchmarks.inertial`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.simulation import extrinsics, random_drive, simulate
from benchmarks.timing import interleaved_medians, table
from ekf.filter import EKFModel
from ekf.preintegration import linearize, preintegrate
from ekf.sequence import run_sequence
from liegroups import se3

STEPS = 11
DRIVE_INTERVALS = 100
LOOP_SHARE = 100  # the loop integrates one in so many intervals, and its time is multiplied
BLOCK = 8192  # of intervals: what fits into memory that the allocator uses again
LOOP = "a loop over samples, NumPy"


def samples(intervals: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return dt, gyro, accel of intervals at 100 Hz."""
    dt = torch.full((intervals, STEPS), 0.01, dtype=dtype)
    gyro = 0.2 * torch.randn(intervals, STEPS + 1, 3, dtype=dtype)
    accel = torch.tensor([0, 0, 9.81], dtype=dtype) + torch.randn_like(gyro)
    return dt, gyro, accel


def integrate_one(dt: np.ndarray, gyro: np.ndarray, accel: np.ndarray) -> tuple[np.ndarray, ...]:
    """Integrate one interval sample by sample, as it is written on paper."""
    R, position, velocity = np.eye(3), np.zeros(3), np.zeros(3)
    for i in range(len(dt)):
        x, y, z = (gyro[i] + gyro[i + 1]) / 2 * dt[i]
        angle = math.sqrt(x * x + y * y + z * z)
        hat = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        a, b = math.sin(angle) / angle, (1 - math.cos(angle)) / angle**2
        R_next = R @ (np.eye(3) + a * hat + b * hat @ hat)
        force = (R @ accel[i] + R_next @ accel[i + 1]) / 2
        position = position + velocity * dt[i] + 0.5 * force * dt[i] ** 2
        velocity = velocity + force * dt[i]
        R = R_next
    return R, position, velocity


def preintegration_cases(intervals: int) -> dict[str, Callable[[], object]]:
    """Return what to time for all intervals of a split; the loop does one in `LOOP_SHARE`."""
    double, single = samples(intervals, torch.float64), samples(intervals, torch.float32)
    few = [x[::LOOP_SHARE].numpy() for x in double]
    return {
        LOOP: lambda: [integrate_one(*interval) for interval in zip(*few, strict=True)],
        "preintegrate, float64": lambda: preintegrate(*double),
        f"preintegrate, float64, in blocks of {BLOCK}": lambda: [
            preintegrate(*block) for block in zip(*(x.split(BLOCK) for x in double), strict=True)
        ],
        "preintegrate, float32": lambda: preintegrate(*single),
        "bias Jacobians and covariance, float64": lambda: linearize(*double, 1e-7, 1e-3),
    }


def filter_cases(pairs: int) -> dict[str, Callable[[], object]]:
    """Return what to time for one training step's pairs, in float32."""
    model = EKFModel("calibrated", train_init_covar=True, train_imu_noise_covar=True)
    dt, gyro, accel = samples(pairs, torch.float32)
    T_c_b = extrinsics().float().expand(pairs, 4, 4)
    velocity = torch.tensor([0, 0, 8.0]).repeat(pairs, 1).requires_grad_()
    gravity = (T_c_b[:, :3, :3] @ torch.tensor([0, 0, 9.81])).requires_grad_()
    xi = (0.1 * torch.randn(pairs, 6)).requires_grad_()
    uncertainty = torch.zeros(pairs, 6, requires_grad=True)

    def forward() -> Tensor:
        T_vis = se3.exp(xi)
        fusion = model(dt, gyro, accel, T_c_b, velocity, gravity, T_vis, uncertainty)
        return fusion.fused.T_c0_c1.sum() + fusion.covariance.sum()

    return {
        f"EKF, {pairs} pairs, forward": forward,
        f"EKF, {pairs} pairs, forward and backward": lambda: forward().backward(),
    }


@torch.no_grad()
def filter_drive(intervals: int) -> None:
    """Filter a simulated drive in sequence, in float64."""
    model = EKFModel("calibrated").double()
    covariance = torch.diag(torch.tensor([1e-5] * 3 + [1e-2] * 3, dtype=torch.float64))
    s = simulate(model, random_drive(), intervals, covariance)
    run_sequence(model, s.imu, s.camera, s.T_c_b, s.start)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--intervals", type=int, default=45_000, help="intervals to preintegrate")
    parser.add_argument("--pairs", type=int, default=16, help="image pairs for the filter")
    parser.add_argument("--repeats", type=int, default=11, help="repetitions, medians are shown")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    print(
        f"{args.intervals} intervals of {STEPS} steps, median of {args.repeats} interleaved runs, "
        f"torch {torch.__version__} on {torch.get_num_threads()} threads"
    )
    medians = interleaved_medians(preintegration_cases(args.intervals), args.repeats)
    medians[LOOP] *= LOOP_SHARE
    print(table(medians, reference=LOOP))
    medians = interleaved_medians(filter_cases(args.pairs), args.repeats)
    print(table(medians, reference=f"EKF, {args.pairs} pairs, forward"))
    medians = interleaved_medians({"drive": lambda: filter_drive(DRIVE_INTERVALS)}, 3)
    each_ms = 1e3 * medians["drive"] / DRIVE_INTERVALS
    print(f"EKF in sequence: {each_ms:.1f} ms for each interval of a drive")


if __name__ == "__main__":
    main()
