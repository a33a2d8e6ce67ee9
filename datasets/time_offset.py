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
from scipy.interpolate import PPoly
from scipy.optimize import minimize_scalar

from datasets.text import DataError, at_line, parse_numbers, read_lines
from liegroups import so3

GRID_S = 5e-3  # images at 20 Hz see motion up to 10 Hz, whose correlation has lobes of 50 ms
SMOOTHING_S = 25e-3
MAX_OFFSET_S = 3600.0  # more is another day or another time zone, not two clocks apart
MIN_INTERVALS = 20
MIN_RATE_STD = 5e-3  # [rad/s] below it, the noise of a good gyro is most of what correlates
# Mere noise reaches 0.2 over 290 intervals at 10 Hz, and 0.5 in 1 of 300 trials over 20 intervals;
# a turning car's correlation falls to 0.7 where its rotations are wrong by 10 mrad each.
MIN_CORRELATION = 0.5
# The lobe of a peak ends where the correlation falls below the first part of it. Where it rises
# above the second part again, the motion repeats itself and noise decides which peak is higher.
LOBE, RIVAL = 0.8, 0.9
FLAT = 4.0  # standard deviations; the highest of many places is 2 or 3 above its ends by chance
MAX_GAP_NS = 50 * 10**6
_ROTATION_TOLERANCE = 1e-3  # pose files have six digits at times


@dataclass(frozen=True)
class TimeOffset:
    """A time offset and how far to trust it.

    Attributes:
        offset_s: t_imu = t_camera + offset_s [s]
        std_s: standard deviation of the offset, by how the rates of both disagree [s]
        correlation: of the rates of both at this offset, 1 at best
        intervals: how many intervals between rotations were compared
    """

    offset_s: float
    std_s: float
    correlation: float
    intervals: int


def check_range(max_offset_s: float) -> None:
    """Refuse a range of offsets [s] that cannot be searched."""
    if not GRID_S <= max_offset_s <= MAX_OFFSET_S:
        raise DataError(
            f"range of time offsets: expected at least {GRID_S} s and at most {MAX_OFFSET_S:g} s, "
            f"got {max_offset_s}"
        )


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
        DataError: too little time in common, too little rotation, no clear maximum in the range
    """
    for name, stamps in (("gyro", gyro_stamps_ns), ("rotation", rotation_stamps_ns)):
        if len(stamps) < 2 or (np.diff(stamps) <= 0).any():
            raise DataError(f"{name} stamps: expected at least two, each after the one before")
    check_range(max_offset_s)
    reach_s = max_offset_s + 2 * SMOOTHING_S + GRID_S  # a step more for the slopes of _std
    starts = _usable(gyro_stamps_ns, rotation_stamps_ns, round(reach_s * 1e9))
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
    offset_s = _highest(turns, max_offset_s)
    std_s = _std(turns, offset_s, max_offset_s)
    return TimeOffset(offset_s, std_s, turns.correlation(offset_s), len(starts))


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
    gyro_twice: PPoly  # integrated, by the time since its first sample [rad s]

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
        slopes = np.diff(gyro, axis=0) / np.diff(gyro_s)[:, None]
        lines = PPoly(np.stack([slopes, gyro[:-1]]), gyro_s)
        return _Turns(begin_s, end_s, rate - rate.mean(0), lines.antiderivative(2))

    @property
    def rate_std(self) -> float:
        return float(np.sqrt((self.rate**2).sum(1).mean()))

    def gyro_rate(self, offset_s: float) -> np.ndarray:
        """Return the rates (K, 3) seen by the gyro at this shift, less their mean [rad/s]."""
        begin, end = (self._turned(t + offset_s) for t in (self.begin_s, self.end_s))
        rate = (end - begin) / (self.end_s - self.begin_s)[:, None]
        return rate - rate.mean(0)

    def correlation(self, offset_s: float) -> float:
        rate = self.gyro_rate(offset_s)
        norm = np.linalg.norm(rate) * np.linalg.norm(self.rate)
        return float((rate * self.rate).sum() / norm) if norm > 0 else 0.0

    def _turned(self, t: np.ndarray) -> np.ndarray:
        # The gyro's integral, averaged around t. Its plain value at t has the gyro at t for its
        # slope: a maximum made of so few samples has more noise, and would be drawn to the phase
        # between two samples at which their interpolation takes away the most of it.
        # Two means, combined so that a curved integral stays as it is: the ends of a short sequence
        # would show the difference.
        near, far = (
            (self.gyro_twice(t + reach) - self.gyro_twice(t - reach)) / (2 * reach)
            for reach in (SMOOTHING_S, 2 * SMOOTHING_S)
        )
        return (4 * near - far) / 3


def _highest(turns: _Turns, max_offset_s: float) -> float:
    """Return the offset [s] of the highest correlation, if there is but one to take for it."""
    count = math.ceil(max_offset_s / GRID_S)
    grid = np.linspace(-max_offset_s, max_offset_s, 2 * count + 1)
    values = np.array([turns.correlation(offset) for offset in grid.tolist()])
    best = int(np.argmax(values))
    peak = values[best]
    if peak < MIN_CORRELATION:
        raise DataError(
            f"the correlation of gyro and rotations is {peak:.2f} at best within "
            f"{1e3 * max_offset_s:g} ms, at least {MIN_CORRELATION} is needed: there is too "
            "little rotation, the offset is larger, or the two do not show the same motion"
        )
    if best in (0, len(grid) - 1):
        raise DataError(
            f"the correlation has no maximum within {1e3 * max_offset_s:g} ms: the offset is larger"
        )
    place = np.arange(len(grid))
    low = place[values < LOBE * peak]
    begin, end = low[low < best].max(initial=0), low[low > best].min(initial=len(grid))
    outside = np.where((place < begin) | (place > end), values, 0.0)
    rival = int(np.argmax(outside))
    if outside[rival] > RIVAL * peak:
        raise DataError(
            f"the correlation is {outside[rival]:.2f} at {1e3 * grid[rival]:.0f} ms, too close to "
            f"the {peak:.2f} at {1e3 * grid[best]:.0f} ms: the motion repeats itself within "
            f"{1e3 * max_offset_s:g} ms to both sides, search less"
        )
    found = minimize_scalar(
        lambda offset: -turns.correlation(offset),
        bounds=(grid[best - 1], grid[best + 1]),
        method="bounded",
    )
    return float(found.x)


def _std(turns: _Turns, offset_s: float, max_offset_s: float) -> float:
    """Return the standard deviation of the offset of the highest correlation [s].

    Each interval pulls at the maximum by its residual times the slope of its rate. In the same way
    it lifts the maximum above the ends of the range, or not: one that hardly stands out from them
    is refused.
    """
    steps = offset_s + GRID_S * np.array([-1, 0, 1])
    before, at, after = (turns.gyro_rate(step) for step in steps)
    below, peak, above = (turns.correlation(step) for step in steps)
    residual = turns.rate - at * (at * turns.rate).sum() / (at**2).sum()
    norm = np.linalg.norm(at) * np.linalg.norm(turns.rate)
    pull = (residual * (after - before)).sum(1) / (2 * GRID_S)
    curvature = norm * (2 * peak - below - above) / GRID_S**2
    for end in (-max_offset_s, max_offset_s):
        lift = norm * (peak - turns.correlation(end))
        noise = _deviation_of_sum((residual * (at - turns.gyro_rate(end))).sum(1))
        if curvature <= 0 or lift < FLAT * noise:
            raise DataError(
                f"the correlation of {peak:.3f} at {1e3 * offset_s:.0f} ms stands out too little "
                f"from that at {1e3 * end:g} ms: there is too little change of the rotation"
            )
    return _deviation_of_sum(pull) / float(curvature)


def _deviation_of_sum(terms: np.ndarray) -> float:
    """Return how much the sum of a sequence (K,) varies, by its sums under a moving window.

    The window's slopes are gentle: the noise of a rotation comes back with the opposite sign in the
    interval after, and has to cancel.
    """
    window = np.bartlett(len(terms) // 10 + 2)[1:-1]
    return float(np.linalg.norm(np.convolve(terms, window)) / np.linalg.norm(window))


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
