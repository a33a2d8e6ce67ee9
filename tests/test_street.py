"""A street: one smooth line that never meets itself, over land of gentle slopes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import cumulative_simpson

from datasets.synthetic.street import GRADIENT, MARGIN_M, START_M, make_street

seeds = st.integers(0, 10_000)


def lengths(street, step_m: float = 0.5) -> np.ndarray:
    """Return s (N,) along the whole street."""
    return np.arange(street.start_m, street.end_m, step_m)


def stretches(street) -> list[tuple[float, float]]:
    """Return length [m] and turn [rad] of straights and curves in turn, the last one left out."""
    s = lengths(street, 0.01)
    curvature = street.curvature(s)
    side = np.sign(curvature) * (np.abs(curvature) > 1e-9)
    borders = [0, *(np.flatnonzero(np.diff(side)) + 1)]
    spans = zip(borders[:-1], borders[1:], strict=True)
    return [(s[b] - s[a], np.diff(street.heading(s[[a, b]]))[0]) for a, b in spans]


@pytest.mark.parametrize("seed", range(3))
def test_position_and_heading_are_the_integrals_of_the_curvature(seed):
    street = make_street(seed, 300)
    s = lengths(street, 0.02)
    heading = street.heading(s[0]) + cumulative_simpson(street.curvature(s), x=s, initial=0)
    tangent = np.stack([np.cos(heading), np.sin(heading)])
    position = street.position_w(s[0]) + cumulative_simpson(tangent, x=s, initial=0).T
    assert_allclose(street.heading(s), heading, atol=1e-7)
    assert_allclose(street.position_w(s), position, atol=1e-6)


@settings(max_examples=20)
@given(seeds)
def test_the_tangent_has_length_one_and_the_direction_of_the_heading(seed):
    street, h = make_street(seed, 100), 1e-3
    s = lengths(street)[1:]
    tangent = (street.position_w(s + h) - street.position_w(s - h)) / (2 * h)
    heading = street.heading(s)
    assert_allclose(tangent, np.stack([np.cos(heading), np.sin(heading)], -1), atol=1e-6)


@settings(max_examples=20)
@given(seeds)
def test_the_second_derivative_of_the_curvature_is_continuous(seed):
    street = make_street(seed, 300)

    def largest_jump(h: float) -> float:
        second = np.diff(street.curvature(lengths(street, h)), 2) / h**2
        return np.abs(np.diff(second)).max()

    assert largest_jump(0.01) < 0.2 * largest_jump(0.1)  # it goes down with the step


def test_the_origin_is_on_the_centreline():
    street = make_street(5, 100)
    assert street.start_m == START_M == -60
    assert street.end_m == 100 + MARGIN_M
    assert_allclose(street.position_w(0.0), 0, atol=1e-9)


@settings(max_examples=30)
@given(seeds)
def test_straights_and_curves_alternate_within_their_bounds(seed):
    street = make_street(seed, 400)
    s = lengths(street)
    assert np.abs(street.curvature(s)).max() <= 1 / 16 + 1e-12
    (first_m, no_turn), *others = stretches(street)
    assert 75 <= first_m <= 85.1 and abs(no_turn) < 1e-6
    curves, straights = others[::2], others[1::2]
    assert all(14.9 <= length_m <= 50.1 and abs(turn) < 1e-6 for length_m, turn in straights)
    assert all(34.99 <= np.rad2deg(abs(turn)) <= 90.01 for _, turn in curves)
    assert np.sign(curves[0][1]) == -np.sign(curves[1][1])


@settings(max_examples=60)
@given(seeds)
def test_a_street_keeps_off_itself(seed):
    street = make_street(seed, 500)
    s = lengths(street, 4.0)
    turned = street.heading(s) - street.heading(START_M)
    assert np.abs(turned).max() <= np.deg2rad(95)
    position_w = street.position_w(s)
    distance_m = np.linalg.norm(position_w[:, None] - position_w, axis=-1)
    assert distance_m[np.abs(s[:, None] - s) > 60].min() > 25


def test_a_longer_street_is_the_same_street():
    short, long = make_street(3, 50), make_street(3, 900)
    s = lengths(short)
    assert_allclose(short.position_w(s), long.position_w(s), atol=1e-7)
    assert np.array_equal(short.heading(s), long.heading(s))
    assert np.array_equal(short.height(short.position_w(s)), long.height(short.position_w(s)))


def test_streets_follow_from_their_seeds():
    s = np.arange(0, 100.0)
    one, same, other = (make_street(seed, 100) for seed in (1, 1, 2))
    assert np.array_equal(one.position_w(s), same.position_w(s))
    assert np.abs(one.position_w(s) - other.position_w(s)).max() > 1
    points = np.stack([s, -s], -1)
    assert np.abs(one.height(points) - other.height(points)).max() > 0.05


def test_places_lie_square_to_the_centreline():
    street = make_street(7, 100)
    s, left_m = np.linspace(0, 100, 30), np.array([[-3.0], [0.0], [8.0]])
    places_w = street.place_w(s, left_m)  # (3, 30, 2)
    assert places_w.shape == (3, 30, 2)
    offset, heading = places_w - street.position_w(s), street.heading(s)
    along = offset[..., 0] * np.cos(heading) + offset[..., 1] * np.sin(heading)
    left = offset[..., 1] * np.cos(heading) - offset[..., 0] * np.sin(heading)
    assert_allclose(along, 0, atol=1e-12)
    assert_allclose(left, np.broadcast_to(left_m, (3, 30)), atol=1e-12)
    assert street.place_w(3.0, 1).shape == (2,)


def test_beyond_its_ends_a_street_is_nan_and_the_land_goes_on():
    street = make_street(7, 100)
    beyond = np.array([street.start_m - 0.01, street.end_m + 0.01])
    assert np.isnan(street.position_w(beyond)).all()
    assert np.isnan(street.heading([-1000.0])).all()
    assert np.isfinite(street.position_w([street.start_m, street.end_m])).all()
    assert np.isfinite(street.height(np.array([[1e5, -1e5]]))).all()


@settings(max_examples=20)
@given(seeds)
def test_the_slope_is_the_gradient_of_the_height_and_gentle(seed):
    street, h = make_street(seed, 10), 1e-3
    xy_w = np.random.default_rng(seed).uniform(-2000, 2000, (40, 50, 2))
    steps = h * np.eye(2)
    rise = [street.height(xy_w + step) - street.height(xy_w - step) for step in steps]
    slope = street.slope(xy_w)
    assert_allclose(slope, np.stack(rise, -1) / (2 * h), atol=1e-8)
    steepest = np.linalg.norm(slope, axis=-1).max()
    assert 0.2 * GRADIENT < steepest <= GRADIENT
    assert 0.1 < np.ptp(street.height(xy_w)) < 4


def test_no_wave_of_the_land_is_shorter_than_a_house_row():
    for seed in range(20):
        relief = make_street(seed, 10)._relief
        wavelengths_m = 2 * np.pi / np.linalg.norm(relief.wave_vectors, axis=1)
        assert wavelengths_m.min() >= 60 and wavelengths_m.max() <= 250
