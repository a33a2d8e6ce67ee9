"""The scalar coefficients against arithmetic of many digits."""

from __future__ import annotations

import mpmath
import pytest
import torch

from liegroups import coefficients
from liegroups.coefficients import SMALL_ANGLE, Angle
from tests.geometry import SWITCH

# Name, formula in theta, and the power of theta that it is multiplied with where it is used.
FORMULAS = {
    "sine": (lambda t: mpmath.sin(t) / t, 0),
    "versine": (lambda t: (1 - mpmath.cos(t)) / t**2, 0),
    "sine_rest": (lambda t: (t - mpmath.sin(t)) / t**3, 2),
    "versine_slope": (lambda t: (t * mpmath.sin(t) - 2 + 2 * mpmath.cos(t)) / t**4, 2),
    "sine_rest_slope": (lambda t: (3 * mpmath.sin(t) - t * mpmath.cos(t) - 2 * t) / t**5, 3),
    "cotangent": (lambda t: (1 - t / 2 * mpmath.cot(t / 2)) / t**2, 2),
}
ANGLES = [
    1e-12,
    1e-9,
    1e-5,
    1e-3,
    0.03,
    0.07,
    SMALL_ANGLE,
    *SWITCH,
    0.2,
    0.5,
    1.0,
    2.0,
    3.0,
    3.1415,
]
DIGITS = 150  # the slopes cancel 48 of them at the least angle


@pytest.mark.parametrize("name", FORMULAS)
def test_agrees_with_many_digits_at_every_angle(name, dtype):
    formula, power = FORMULAS[name]
    theta = torch.tensor(ANGLES, dtype=dtype)
    got = getattr(coefficients, name)(Angle.of(_along_x(theta)))
    with mpmath.workdps(DIGITS):
        expected = torch.tensor(
            [float(formula(mpmath.mpf(t))) for t in theta.tolist()], dtype=dtype
        )
    if dtype == torch.float32:  # computed in float64
        assert torch.allclose(got, expected, rtol=torch.finfo(dtype).eps, atol=0)
    else:
        _assert_accurate(got, expected, theta, power, 16 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", FORMULAS)
def test_derivative_agrees_with_many_digits_at_every_angle(name):
    formula, power = FORMULAS[name]
    theta = torch.tensor(ANGLES, dtype=torch.float64, requires_grad=True)
    value = getattr(coefficients, name)(Angle.of(_along_x(theta)))
    (got,) = torch.autograd.grad(value.sum(), theta)
    with mpmath.workdps(DIGITS):
        expected = [float(mpmath.diff(formula, mpmath.mpf(t))) for t in theta.tolist()]
    expected = torch.tensor(expected, dtype=torch.float64)
    _assert_accurate(got, expected, theta.detach(), power, 1e-13)


def _assert_accurate(got, expected, theta, power, tolerance):
    """Series must be right in themselves, closed forms after the product that they are used in."""
    error = (got - expected).abs()
    series = theta < SMALL_ANGLE
    assert (error / expected.abs())[series].max() <= tolerance / 4
    assert (error * theta**power)[~series].max() <= tolerance


@pytest.mark.parametrize(
    "name, of", [("versine_slope", "versine"), ("sine_rest_slope", "sine_rest")]
)
def test_slopes_are_twice_the_derivatives_by_theta_squared(name, of):
    theta2 = torch.tensor([0.5, 1, 4, 9], dtype=torch.float64, requires_grad=True)
    value = getattr(coefficients, of)(Angle.of(_along_x(theta2.sqrt())))
    (derivative,) = torch.autograd.grad(value.sum(), theta2)
    slope = getattr(coefficients, name)(Angle.of(_along_x(theta2.detach().sqrt())))
    assert torch.allclose(slope, 2 * derivative, rtol=1e-13)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_stay_finite_where_the_series_would_overflow(name):
    phi = torch.tensor([1e60, 0, 0], dtype=torch.float64, requires_grad=True)
    getattr(coefficients, name)(Angle.of(phi)).backward()
    assert phi.grad.isfinite().all()


@pytest.mark.parametrize("name", FORMULAS)
def test_value_and_derivatives_at_zero_are_those_of_the_limit(name):
    formula, _ = FORMULAS[name]
    phi = torch.zeros(3, dtype=torch.float64, requires_grad=True)

    def coefficient(phi):
        return getattr(coefficients, name)(Angle.of(phi))

    value = coefficient(phi)
    (gradient,) = torch.autograd.grad(value, phi)
    hessian = torch.autograd.functional.hessian(coefficient, phi.detach())
    with mpmath.workdps(DIGITS):
        limit = formula(mpmath.mpf("1e-15"))
        curvature = 2 * (formula(mpmath.mpf("1e-8")) - limit) / mpmath.mpf("1e-8") ** 2
    assert value.item() == pytest.approx(float(limit), rel=1e-15)
    assert gradient.tolist() == [0, 0, 0]
    assert torch.allclose(hessian, float(curvature) * torch.eye(3, dtype=torch.float64), rtol=1e-9)


def _along_x(theta: torch.Tensor) -> torch.Tensor:
    return torch.stack([theta, torch.zeros_like(theta), torch.zeros_like(theta)], -1)
