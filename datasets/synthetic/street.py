"""A street: the centreline that its lanes follow, and the relief of the land around it.

Lengths s [m] run along the centreline. The ego vehicle starts at s = 0; the street begins before it
and goes on behind the end of the drive, further than anything is drawn. The world w has x
east, y north and z up [m], and its origin on the centreline at s = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import BSpline, PPoly, make_interp_spline

START_M = -60.0
MARGIN_M = 270.0  # beyond what the drive needs: further than anything is drawn

FIRST_STRAIGHT_END_M = (15.0, 25.0)
STRAIGHT_M = (15.0, 50.0)
RADIUS_M = (16.0, 45.0)
TURN_RAD = (np.deg2rad(35), np.deg2rad(90))
RAMP_M = (8.0, 14.0)
# The first two turns go to different sides, so that drives of about 25 s see both of them.
FIRST_TURNS = 2
FIRST_RADIUS_M = (20.0, 32.0)
FIRST_STRAIGHT_M = (15.0, 30.0)
# A heading that never points back keeps the street off itself: between two opposite legs lie two
# quarter turns, hence more than 2 * 16 m.
HEADING_LIMIT_RAD = np.deg2rad(90)

WAVELENGTHS_M = (60.0, 90.0, 140.0, 205.0)  # the shortest; each is up to a fifth longer
GRADIENT = 0.05
"""Nowhere is the land steeper."""

_GRID_M = 0.25
_CURVE, _RELIEF = 1, 2  # streams of random numbers
_SMOOTHERSTEP = (6.0, -15.0, 10.0, 0.0, 0.0, 0.0)  # of u in 0..1, highest power first


@dataclass(frozen=True, eq=False)
class Relief:
    """A sum of plane waves, defined everywhere.

    Attributes:
        wave_vectors: (M, 2) [rad/m]
        amplitudes_m: (M,)
        phases: (M,) [rad]
    """

    wave_vectors: np.ndarray
    amplitudes_m: np.ndarray
    phases: np.ndarray

    def height(self, xy_w: np.ndarray) -> np.ndarray:
        """Return z [m] (...) at points (..., 2) of the plane."""
        x, y = np.asarray(xy_w)[..., 0], np.asarray(xy_w)[..., 1]
        height = np.zeros(x.shape)
        for (kx, ky), amplitude, phase in self._waves():
            height += amplitude * np.sin(kx * x + ky * y + phase)
        return height

    def slope(self, xy_w: np.ndarray) -> np.ndarray:
        """Return dz/dx, dz/dy (..., 2) at points (..., 2) of the plane."""
        x, y = np.asarray(xy_w)[..., 0], np.asarray(xy_w)[..., 1]
        slope = np.zeros((*x.shape, 2))
        for (kx, ky), amplitude, phase in self._waves():
            rise = amplitude * np.cos(kx * x + ky * y + phase)
            slope[..., 0] += kx * rise
            slope[..., 1] += ky * rise
        return slope

    def _waves(self) -> zip:
        # One wave after the other: meshes ask for millions of points, and (..., M) would not fit.
        return zip(self.wave_vectors, self.amplitudes_m, self.phases, strict=True)


class Street:
    """The centreline of a street and the relief of the land around it.

    Attributes:
        start_m, end_m: range of s; outside of it, all that depends on s is nan
    """

    def __init__(self, curvature: PPoly, heading_rad: float, end_m: float, relief: Relief) -> None:
        """Lay the centreline.

        Args:
            curvature: of s [1/m], left positive, zero at its start
            heading_rad: at the start of the street, 0 is east, counter-clockwise
            end_m: at most the end of `curvature`
            relief: of the land
        """
        self.start_m, self.end_m = float(curvature.x[0]), float(end_m)
        self._curvature = curvature
        self._turned = curvature.antiderivative()  # exact: curvature is piecewise polynomial
        self._heading_rad = heading_rad
        self._relief = relief
        self._position = self._integrate()

    def position_w(self, s: ArrayLike) -> np.ndarray:
        """Return the centreline (..., 2) in the plane [m] at s (...)."""
        return self._position(s)

    def heading(self, s: ArrayLike) -> np.ndarray:
        """Return the direction (...) [rad] of the centreline at s (...), continuous in s."""
        return self._heading_rad + self._turned(s)

    def curvature(self, s: ArrayLike) -> np.ndarray:
        """Return the curvature (...) [1/m] of the centreline at s (...), positive to the left."""
        return self._curvature(s)

    def place_w(self, s: ArrayLike, left_m: ArrayLike) -> np.ndarray:
        """Return the points (..., 2) `left_m` to the left of the centreline at s (broadcast)."""
        s, left_m = np.broadcast_arrays(s, left_m)
        heading = self.heading(s)
        left_w = np.stack([-np.sin(heading), np.cos(heading)], -1)
        return self.position_w(s) + left_m[..., None] * left_w

    def height(self, xy_w: np.ndarray) -> np.ndarray:
        """Return the relief z [m] (...) at points (..., 2) of the plane."""
        return self._relief.height(xy_w)

    def slope(self, xy_w: np.ndarray) -> np.ndarray:
        """Return the gradient (..., 2) of the relief at points (..., 2) of the plane."""
        return self._relief.slope(xy_w)

    def _integrate(self) -> BSpline:
        cells = int(np.ceil((self.end_m - self.start_m) / _GRID_M))
        grid = self.start_m + _GRID_M * np.arange(cells + 1)
        grid[-1] = self.end_m
        nodes, weights = np.polynomial.legendre.leggauss(4)
        half = np.diff(grid)[:, None] / 2  # (cells, 1)
        heading = self.heading(grid[:-1, None] + half * (1 + nodes))  # (cells, 4)
        steps = np.stack([np.cos(heading), np.sin(heading)], -1)  # (cells, 4, 2)
        moved = (half[..., None] * weights[:, None] * steps).sum(-2)  # (cells, 2)
        position_w = np.concatenate([np.zeros((1, 2)), moved.cumsum(0)])
        spline = make_interp_spline(grid, position_w, k=5)
        spline.c -= spline(0.0)
        spline.extrapolate = False
        return spline


def make_street(seed: int, length_m: float) -> Street:
    """Make the street of a drive of `length_m`, with margins on both ends.

    The same seed with another length gives the same street, longer or shorter.
    """
    end_m = length_m + MARGIN_M
    rng = np.random.default_rng([seed, _CURVE])
    heading_rad = rng.uniform(-np.pi, np.pi)
    curvature = _draw_curvature(rng, end_m)
    curvature.extrapolate = False
    return Street(curvature, heading_rad, end_m, _draw_relief(seed))


def _draw_curvature(rng: np.random.Generator, end_m: float) -> PPoly:
    """Draw straights and curves in turn until beyond the end."""
    pieces = [(rng.uniform(*FIRST_STRAIGHT_END_M) - START_M, 0.0, 0.0)]  # length, curvatures
    reached_m, heading, side, turns = START_M + pieces[0][0], 0.0, rng.choice([-1, 1]), 0
    while reached_m < end_m:
        first = turns < FIRST_TURNS
        side = -side if first else _draw_side(rng, heading)
        radius_m = rng.uniform(*(FIRST_RADIUS_M if first else RADIUS_M))
        turn = rng.uniform(TURN_RAD[0], min(TURN_RAD[1], HEADING_LIMIT_RAD - side * heading))
        ramp_m = min(rng.uniform(*RAMP_M), turn * radius_m)
        straight_m = rng.uniform(*(FIRST_STRAIGHT_M if first else STRAIGHT_M))
        bent = side / radius_m
        pieces += [
            (ramp_m, 0.0, bent),
            (turn * radius_m - ramp_m, bent, bent),
            (ramp_m, bent, 0.0),
            (straight_m, 0.0, 0.0),
        ]
        reached_m += turn * radius_m + ramp_m + straight_m
        heading += side * turn
        turns += 1
    pieces = [piece for piece in pieces if piece[0] > 0]  # a curve can be all ramps
    borders = START_M + np.cumsum([0.0] + [length_m for length_m, _, _ in pieces])
    return PPoly(np.stack([_smooth_step(*piece) for piece in pieces], 1), borders)


def _draw_side(rng: np.random.Generator, heading: float) -> int:
    """Choose left (1) or right (-1), where there is room for a turn."""
    sides = [side for side in (-1, 1) if HEADING_LIMIT_RAD - side * heading >= TURN_RAD[0]]
    return int(rng.choice(sides))


def _smooth_step(length_m: float, before: float, after: float) -> np.ndarray:
    """Return the coefficients (6,) of a step over a piece of the street, highest power first."""
    coefficients = (after - before) * np.array(_SMOOTHERSTEP) / length_m ** np.arange(5.0, -1, -1)
    coefficients[-1] += before
    return coefficients


def _draw_relief(seed: int) -> Relief:
    rng = np.random.default_rng([seed, _RELIEF])
    count = len(WAVELENGTHS_M)
    wave_numbers = 2 * np.pi / (np.array(WAVELENGTHS_M) * rng.uniform(1, 1.2, count))
    directions = rng.uniform(0, np.pi, count)
    gradients = rng.uniform(0.5, 1, count)
    gradients *= rng.uniform(0.6, 1) * GRADIENT / gradients.sum()
    return Relief(
        wave_vectors=wave_numbers[:, None] * np.stack([np.cos(directions), np.sin(directions)], -1),
        amplitudes_m=gradients / wave_numbers,
        phases=rng.uniform(0, 2 * np.pi, count),
    )
