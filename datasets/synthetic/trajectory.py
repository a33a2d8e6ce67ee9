"""The motion of the ego vehicle along its street, smooth and known in closed form.

A plan of the speed gives the length s(t) driven along the street's centreline. Where the body is
and how it is turned follows for a dense row of knots in time: from the street, its relief, the
suspension and the roughness of the road. The splines of degree 5 through these knots are the truth
from then on: velocities, accelerations and angular rates are their derivatives, without error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import BSpline, make_interp_spline
from scipy.spatial.transform import Rotation

from datasets.synthetic.street import Street, make_street

LANE_OFFSET_M = 1.75
"""The vehicle drives on the right: so far from the centreline."""

IMU_HEIGHT_M = 0.93
SPARE_S = 0.5
"""Before the start and after the end a trajectory is defined for as long."""

SPEED_LIMIT = 15.0  # [m/s]
CRUISE = (9.0, 14.0)  # [m/s]
FAST_DRIVES = 0.25  # share of the drives that go up to the limit
ACCELERATION = (2.4, 3.2)  # [m/s^2]
BRAKING = (2.5, 3.2)  # [m/s^2]
LATERAL_ACCELERATION = 2.3  # [m/s^2] as planned; smoothing adds some percent
STANDING_START_S = (0.6, 1.0)
HALT_S = 0.7
HALT_EVERY_S = 25.0
HALTING_DRIVE_S = 10.0  # shorter ones have no time to halt
HALT_AT = (0.84, 0.88)  # of each such stretch of the drive

PITCH_PER_ACCELERATION = -0.004  # [rad per m/s^2] positive pitch is front down
ROLL_PER_ACCELERATION = 0.006  # [rad per m/s^2] outward: left side up in a left curve
# Short waves of a road are flat ones: were they as high as the long ones, a gyro at 100 Hz would
# miss a part of what they do at speed.
ROUGH_WAVELENGTHS_M = ((3.0, 6.0), (6.0, 12.0))
HEAVE_PER_WAVELENGTH = 0.3e-3  # [m/m]
TILT_PER_WAVELENGTH = 0.17e-3  # [rad/m]

PLAN_STEP_S = 0.01
KNOT_STEPS = 2  # of the plan between two knots
SPARE_KNOTS = 10  # keep the ends of the splines, where they are less smooth, out of sight
SMOOTHING_S = 0.8
SMOOTHING_BOXES = 4
_LIMIT_STEP_M = 0.5
_SPEED, _ROUGHNESS = 3, 4  # streams of random numbers; the street has 1 and 2


@dataclass(frozen=True, eq=False)
class Motion:
    """Where the body is, and how it moves, at N times.

    Attributes:
        T_w_b: (N, 4, 4)
        rpy: (N, 3) roll, pitch, yaw [rad] of R_w_b = Rz(yaw) Ry(pitch) Rx(roll); yaw 0 is east,
            counter-clockwise, continuous in time and not wrapped
        velocity_w: (N, 3) [m/s]
        acceleration_w: (N, 3) [m/s^2] of the motion alone, without gravity
        rate_b: (N, 3) angular rate about the body's axes [rad/s]
    """

    T_w_b: np.ndarray
    rpy: np.ndarray
    velocity_w: np.ndarray
    acceleration_w: np.ndarray
    rate_b: np.ndarray


class Trajectory:
    """A drive along a street.

    Attributes:
        street: along which it goes
        duration_s: the drive lasts from 0 to this; it is defined for SPARE_S more on both ends
    """

    def __init__(self, street: Street, duration_s: float, arc_length: BSpline, body: BSpline):
        """Take the splines of s [m] and of x, y, z [m], roll, pitch, yaw [rad] over time [s]."""
        self.street, self.duration_s = street, duration_s
        self._arc_length, self._body = arc_length, body

    def at(self, time_s: ArrayLike) -> Motion:
        """Return the motion at N times [s]."""
        time_s = np.asarray(time_s, np.float64)
        body, change = self._body(time_s), self._body(time_s, 1)  # (N, 6)
        rpy = body[:, 3:]
        T_w_b = np.zeros((len(time_s), 4, 4))
        T_w_b[:, :3, :3] = Rotation.from_euler("ZYX", rpy[:, ::-1]).as_matrix()
        T_w_b[:, :3, 3] = body[:, :3]
        T_w_b[:, 3, 3] = 1
        return Motion(
            T_w_b=T_w_b,
            rpy=rpy,
            velocity_w=change[:, :3],
            acceleration_w=self._body(time_s, 2)[:, :3],
            rate_b=_rate_b(rpy, change[:, 3:]),
        )

    def arc_length(self, time_s: ArrayLike) -> np.ndarray:
        """Return s (N,) [m] along the street's centreline at N times [s]."""
        return self._arc_length(time_s)

    def speed(self, time_s: ArrayLike) -> np.ndarray:
        """Return the speed (N,) [m/s] at N times [s]."""
        return np.linalg.norm(self._body(time_s, 1)[..., :3], axis=-1)


def make_trajectory(seed: int, duration_s: float) -> Trajectory:
    """Make a drive, and the street it needs."""
    if duration_s < 1:
        raise ValueError(f"duration_s: expected 1 s or more, got {duration_s}")
    # How long the street must be is known after the drive; a longer one of this seed is the same.
    longest = make_street(seed, SPEED_LIMIT * (duration_s + 2 * SPARE_S + SMOOTHING_S))
    time_s, arc_m = _plan(longest, seed, duration_s)
    street = make_street(seed, float(arc_m[-1]))
    body = _body_at_knots(street, time_s, arc_m, np.random.default_rng([seed, _ROUGHNESS]))
    return Trajectory(street, duration_s, _spline(time_s, arc_m), _spline(time_s, body))


def _plan(street: Street, seed: int, duration_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the times (N,) [s] of the knots and the lengths s (N,) [m] driven until then."""
    rng = np.random.default_rng([seed, _SPEED])
    kernel = _smoothing_kernel()
    spare = round(SPARE_S / PLAN_STEP_S) + SPARE_KNOTS * KNOT_STEPS + len(kernel) // 2
    steps = np.arange(-spare, int(np.ceil(duration_s / PLAN_STEP_S)) + spare + 1)
    plan_m = _plan_progress(street, rng, PLAN_STEP_S * steps, duration_s)
    # Never backwards, as no weight is negative.
    smooth_m = np.convolve(plan_m, kernel, "valid")
    time_s = PLAN_STEP_S * steps[len(kernel) // 2 : -(len(kernel) // 2)]
    return time_s[::KNOT_STEPS], smooth_m[::KNOT_STEPS]


def _plan_progress(
    street: Street, rng: np.random.Generator, time_s: np.ndarray, duration_s: float
) -> np.ndarray:
    """Return s (N,) [m] for a driver who sees speed limit, curves and halts ahead."""
    cruise = SPEED_LIMIT if rng.random() < FAST_DRIVES else rng.uniform(*CRUISE)
    acceleration, braking = rng.uniform(*ACCELERATION), rng.uniform(*BRAKING)
    stretches, limits = _speed_limits(street, cruise, braking)
    halts = _draw_halts(rng, duration_s)
    standing_until = rng.uniform(*STANDING_START_S) + SMOOTHING_S / 2
    s = speed = 0.0
    halting = False
    progress = []
    for t in time_s.tolist():
        cell, part = divmod(s / _LIMIT_STEP_M, 1)
        here = int(cell)
        if t >= standing_until:
            change = -braking if halting else acceleration
            limit = limits[here] + part * (limits[here + 1] - limits[here])
            speed = min(max(speed + change * PLAN_STEP_S, 0.0), limit)
            if halting and speed == 0:
                halting, standing_until = False, t + HALT_S + SMOOTHING_S
            elif halts and t + speed / braking >= halts[0]:
                halting = True
                halts.pop(0)
        stretch = stretches[here] + part * (stretches[here + 1] - stretches[here])
        s += speed / stretch * PLAN_STEP_S
        progress.append(s)
    return np.array(progress)


def _speed_limits(street: Street, cruise: float, braking: float) -> tuple[list[float], list[float]]:
    """Return metres of the lane per metre of s, and the largest speed [m/s], every _LIMIT_STEP_M.

    The largest speed is that of a driver who brakes before each curve.
    """
    curvature = street.curvature(np.arange(0, street.end_m, _LIMIT_STEP_M))
    stretch = _stretch(curvature)
    curve = np.sqrt(LATERAL_ACCELERATION * stretch / np.maximum(np.abs(curvature), 1e-6))
    stretches, limits = stretch.tolist(), np.minimum(cruise, curve).tolist()
    for i in reversed(range(len(limits) - 1)):
        gain = 2 * braking * stretches[i] * _LIMIT_STEP_M
        limits[i] = min(limits[i], (limits[i + 1] ** 2 + gain) ** 0.5)
    return stretches, limits


def _stretch(curvature: np.ndarray) -> np.ndarray:
    """Return how long the lane's path is (...) for each metre of the centreline."""
    return 1 + LANE_OFFSET_M * curvature


def _draw_halts(rng: np.random.Generator, duration_s: float) -> list[float]:
    """Return the times [s] at which the vehicle comes to a halt."""
    if duration_s < HALTING_DRIVE_S:
        return []
    count = max(1, round(duration_s / HALT_EVERY_S))
    return ((np.arange(count) + rng.uniform(*HALT_AT, count)) * duration_s / count).tolist()


def _smoothing_kernel() -> np.ndarray:
    """Return the weights of several means in a row, each of which makes s once more smooth."""
    box = np.ones(round(SMOOTHING_S / SMOOTHING_BOXES / PLAN_STEP_S) + 1)
    kernel = np.ones(1)
    for _ in range(SMOOTHING_BOXES):
        kernel = np.convolve(kernel, box / box.sum())
    return kernel


def _body_at_knots(
    street: Street, time_s: np.ndarray, arc_m: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return x, y, z [m], roll, pitch, yaw [rad] (N, 6)."""
    xy_w = street.place_w(arc_m, -LANE_OFFSET_M)
    curvature, yaw = street.curvature(arc_m), street.heading(arc_m)
    stretch = _stretch(curvature)
    speed = _spline(time_s, arc_m)(time_s, 1) * stretch
    forward = _spline(time_s, speed)(time_s, 1)  # [m/s^2]
    left = speed**2 * curvature / stretch  # [m/s^2]
    slope = street.slope(xy_w)
    rise_forward = slope[:, 0] * np.cos(yaw) + slope[:, 1] * np.sin(yaw)
    rise_left = slope[:, 1] * np.cos(yaw) - slope[:, 0] * np.sin(yaw)
    # The turns that lay the body's x and y axes into the tangent plane of the land.
    pitch = -np.arctan(rise_forward)
    roll = np.arctan(rise_left * np.cos(pitch))
    heave_m = _rough(rng, arc_m, HEAVE_PER_WAVELENGTH)
    roll += _rough(rng, arc_m, TILT_PER_WAVELENGTH) + ROLL_PER_ACCELERATION * left
    pitch += _rough(rng, arc_m, TILT_PER_WAVELENGTH) + PITCH_PER_ACCELERATION * forward
    z = street.height(xy_w) + IMU_HEIGHT_M + heave_m
    return np.column_stack([xy_w, z, roll, pitch, yaw])


def _rough(rng: np.random.Generator, arc_m: np.ndarray, per_wavelength: float) -> np.ndarray:
    """Draw the waves of a rough road, and return what they do (N,) to one coordinate."""
    total = np.zeros_like(arc_m)
    for shortest, longest in ROUGH_WAVELENGTHS_M:
        wavelength_m, phase = rng.uniform(shortest, longest), rng.uniform(0, 2 * np.pi)
        angle = 2 * np.pi / wavelength_m * arc_m + phase
        total += per_wavelength * wavelength_m * np.sin(angle)
    return total


def _spline(time_s: np.ndarray, values: np.ndarray) -> BSpline:
    spline = make_interp_spline(time_s, values, k=5)
    spline.extrapolate = False
    return spline


def _rate_b(rpy: np.ndarray, rpy_change: np.ndarray) -> np.ndarray:
    """Return the angular rate (N, 3) about the body's axes from the rates of the angles (N, 3)."""
    roll, pitch, _ = rpy.T
    roll_change, pitch_change, yaw_change = rpy_change.T
    return np.stack(
        [
            roll_change - yaw_change * np.sin(pitch),
            pitch_change * np.cos(roll) + yaw_change * np.cos(pitch) * np.sin(roll),
            yaw_change * np.cos(pitch) * np.cos(roll) - pitch_change * np.sin(roll),
        ],
        -1,
    )
