"""The time offset between a camera and its IMU, from what both know about the rotation.

An IMU that stamps late by `offset_s` says at t_camera + offset_s what happened at t_camera:
t_imu = t_camera + offset_s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from datasets.text import DataError, at_line, parse_numbers, read_lines
from liegroups import so3

GRID_S = 5e-3  # fine enough not to miss the highest of several peaks: a car turns slower than 10 Hz
MIN_INTERVALS = 20
MIN_RATE_STD = 5e-3  # [rad/s] below it, the noise of a good gyro is most of what correlates
MAX_GAP_NS = 50 * 10**6
_ROTATION_TOLERANCE = 1e-3  # pose files have six digits at times


@dataclass(frozen=True)
class TimeOffset:
    """A time offset and how far to trust it.

    Attributes:
        offset_s: t_imu = t_camera + offset_s [s]
        std_s: standard deviation of the offset, if the residual rates are white noise [s]
        correlation: of the rates of both at this offset, 1 at best
        intervals: how many intervals between rotations were compared
    """

    offset_s: float
    std_s: float
    correlation: float
    intervals: int


def check_range(max_offset_s: float) -> None:
    """Refuse a range of offsets [s] that cannot be searched."""
    if not GRID_S <= max_offset_s < math.inf:
        raise DataError(f"range of time offsets: expected at least {GRID_S} s, got {max_offset_s}")


def estimate_time_offset(
    gyro_stamps_ns: np.ndarray,
    gyro: np.ndarray,
    rotation_stamps_ns: np.ndarray,
    R_w_b: np.ndarray,
    max_offset_s: float = 0.5,
) -> TimeOffset:
    """Find the offset at which the gyro agrees best with a sequence of rotations.

    The mean body rate between consecutive rotations is correlated with the mean gyro rate over the
    same time, shifted: on a grid first, then at the maximum of the continuous function. Constant
    gyro biases drop out.

    Args:
        gyro_stamps_ns: (M,) int64, increasing, in the clock of the IMU
        gyro: (M, 3) body rates [rad/s]
        rotation_stamps_ns: (N,) int64, increasing, in the clock of the camera
        R_w_b: (N, 3, 3) rotations of the body; the world is free
        max_offset_s: the offset is looked for from minus to plus this

    Raises:
        DataError: too little time in common, too little rotation, or no maximum within the range
    """
    for name, stamps in (("gyro", gyro_stamps_ns), ("rotation", rotation_stamps_ns)):
        if len(stamps) < 2 or (np.diff(stamps) <= 0).any():
            raise DataError(f"{name} stamps: expected at least two, each after the one before")
    check_range(max_offset_s)
    starts = _usable(gyro_stamps_ns, rotation_stamps_ns, round(max_offset_s * 1e9))
    if len(starts) < MIN_INTERVALS:
        raise DataError(
            f"gyro and rotations have {len(starts)} intervals in common that stay within an "
            f"unbroken gyro when shifted by {max_offset_s:g} s, at least {MIN_INTERVALS} are needed"
        )
    turns = _Turns.of(gyro_stamps_ns, gyro, rotation_stamps_ns, R_w_b, starts)
    if turns.rate_std < MIN_RATE_STD:
        raise DataError(
            f"too little rotation to compare: the rates vary by {turns.rate_std:.1e} rad/s, "
            f"at least {MIN_RATE_STD:.0e} are needed"
        )
    return _maximise(turns, max_offset_s)


def _usable(gyro_ns: np.ndarray, rotation_ns: np.ndarray, reach_ns: int) -> np.ndarray:
    """Return the intervals over which the gyro has no gap, however they are shifted."""
    earliest, latest = rotation_ns[:-1] - reach_ns, rotation_ns[1:] + reach_ns
    gaps = np.concatenate([[0], np.cumsum(np.diff(gyro_ns) > MAX_GAP_NS)])  # (M,) before each
    before = np.searchsorted(gyro_ns, earliest, "right") - 1
    after = np.searchsorted(gyro_ns, latest, "left")
    inside = (before >= 0) & (after < len(gyro_ns))
    last = len(gyro_ns) - 1
    unbroken = gaps[np.clip(before, 0, last)] == gaps[np.clip(after, 0, last)]
    return np.flatnonzero(inside & unbroken)


@dataclass(frozen=True, eq=False)
class _Turns:
    """Rates over the same intervals: seen by the camera, and by the gyro at any shift."""

    begin_s: np.ndarray  # (K,) of each interval, since the first gyro sample
    end_s: np.ndarray  # (K,)
    rate: np.ndarray  # (K, 3) seen by the camera, less their mean [rad/s]
    gyro_s: np.ndarray  # (M,)
    integral: np.ndarray  # (M, 3) of the gyro [rad]

    @staticmethod
    def of(
        gyro_ns: np.ndarray,
        gyro: np.ndarray,
        rotation_ns: np.ndarray,
        R_w_b: np.ndarray,
        starts: np.ndarray,
    ) -> _Turns:
        R = torch.from_numpy(R_w_b)
        turn = so3.log(R[starts].mT @ R[starts + 1]).numpy()
        begin_s, end_s = ((rotation_ns[i] - gyro_ns[0]) / 1e9 for i in (starts, starts + 1))
        rate = turn / (end_s - begin_s)[:, None]
        gyro_s = (gyro_ns - gyro_ns[0]) / 1e9
        steps = (gyro[1:] + gyro[:-1]) / 2 * np.diff(gyro_s)[:, None]
        integral = np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)])
        return _Turns(begin_s, end_s, rate - rate.mean(0), gyro_s, integral)

    @property
    def rate_std(self) -> float:
        return float(np.sqrt((self.rate**2).sum(1).mean()))

    def correlation(self, offset_s: float) -> float:
        begin, end = (self._integral_at(t + offset_s) for t in (self.begin_s, self.end_s))
        rate = (end - begin) / (self.end_s - self.begin_s)[:, None]
        rate = rate - rate.mean(0)
        norm = np.linalg.norm(rate) * np.linalg.norm(self.rate)
        return float((rate * self.rate).sum() / norm) if norm > 0 else 0.0

    def _integral_at(self, t: np.ndarray) -> np.ndarray:
        # Its kinks at the samples cost a microsecond: too little to integrate between them exactly.
        return np.stack([np.interp(t, self.gyro_s, axis) for axis in self.integral.T], 1)


def _maximise(turns: _Turns, max_offset_s: float) -> TimeOffset:
    count = math.ceil(max_offset_s / GRID_S)
    grid = np.linspace(-max_offset_s, max_offset_s, 2 * count + 1)
    values = [turns.correlation(offset) for offset in grid.tolist()]
    best = int(np.argmax(values))
    if best in (0, len(grid) - 1) or values[best] <= 0:
        raise DataError(
            f"the correlation has no maximum within {1e3 * max_offset_s:g} ms: the offset is "
            "larger, or the two do not show the same motion"
        )
    found = minimize_scalar(
        lambda offset: -turns.correlation(offset),
        bounds=(grid[best - 1], grid[best + 1]),
        method="bounded",
        options={"xatol": 1e-7},
    )
    offset, peak = float(found.x), turns.correlation(float(found.x))
    # Both sides of the peak, but not beyond the range that was seen to be free of gaps.
    h = min(GRID_S, max_offset_s - abs(offset))
    sides = turns.correlation(offset - h) + turns.correlation(offset + h)
    curvature = max((2 * peak - sides) / h**2, np.finfo(float).tiny)
    intervals = len(turns.rate)
    std = math.sqrt(max(1 - peak**2, 0) / (intervals * peak * curvature))
    return TimeOffset(offset, std, peak, intervals)


def read_rotations(path: Path) -> np.ndarray:
    """Read the rotations R_c0_ci (N, 3, 3) of a trajectory: 12 numbers a line, T_c0_ci by rows."""
    matrices = []
    for line, text in enumerate(read_lines(path), start=1):
        try:
            numbers = parse_numbers(text, 12)
        except DataError as error:
            raise at_line(path, line, str(error)) from None
        M = np.array(numbers).reshape(3, 4)[:, :3]
        deviation = np.abs(M.T @ M - np.eye(3)).max()
        if deviation > _ROTATION_TOLERANCE or np.linalg.det(M) < 0:
            raise at_line(path, line, "its 3x3 part is not a rotation")
        matrices.append(M)
    if not matrices:
        raise DataError(f"{path}: no poses in it")
    return so3.normalize(torch.from_numpy(np.stack(matrices))).numpy()
