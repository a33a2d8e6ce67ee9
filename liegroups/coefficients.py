"""Scalar coefficients of the exponential maps and their Jacobians, as functions of theta^2.

Each is smooth in theta^2, yet its closed form divides zero by zero at theta = 0. So it is evaluated
twice, as a Taylor series and in closed form, and the right one is selected. The one not selected
sees a harmless angle instead of the true one: its gradient is multiplied by zero, and zero times
infinity is NaN.

Coefficients of float32 vectors are computed in float64 and rounded: the closed forms lose digits to
cancellation, and the angle's own rounding would cost a rotation near pi more than 5e-7.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial
from typing import NamedTuple

import torch
from torch import Tensor

SMALL_ANGLE = 0.1
"""Where series and closed forms change over [rad].

Below it the first term that a series leaves out is less than 1e-17 of its value. Above it
cancellation costs a closed form, after multiplication with the powers of theta that belong to it,
a few units in the last place.
"""

_TERMS = 5  # of each series: theta^0 to theta^8


class Angle(NamedTuple):
    """The angle of a rotation vector, prepared once for all of its coefficients."""

    small: Tensor  # (...) whether the series is the better one
    theta2: Tensor  # (...) theta^2 where small, else 0: what the series see
    theta: Tensor  # (...) theta where not small, else 1: what the closed forms see
    dtype: torch.dtype  # of the coefficients

    @classmethod
    def of(cls, phi: Tensor) -> Angle:
        """Prepare the angles (...) of rotation vectors (..., 3) [rad]."""
        theta2 = phi.double().square().sum(-1)
        small = theta2 < SMALL_ANGLE**2
        safe_theta2, theta = torch.where(small, theta2, 0), torch.where(small, 1, theta2).sqrt()
        return cls(small, safe_theta2, theta, phi.dtype)

    def select(self, series: Sequence[float], closed_form: Tensor) -> Tensor:
        """Take sum_k series[k] theta^2k where the angle is small, the closed form elsewhere."""
        return torch.where(self.small, horner(series, self.theta2), closed_form).to(self.dtype)


def horner(series: Sequence[float], x: Tensor) -> Tensor:
    """Evaluate the polynomial sum_k series[k] x^k."""
    value = torch.full_like(x, series[-1])
    for coefficient in reversed(series[:-1]):
        value = (value * x).add_(coefficient)
    return value


def _alternating_factorials(first: int, terms: int = _TERMS) -> list[float]:
    # 1/first! - theta^2/(first + 2)! + theta^4/(first + 4)! - ...
    return [(-1) ** k / factorial(2 * k + first) for k in range(terms)]


_SINE = _alternating_factorials(1)
_VERSINE = _alternating_factorials(2)
_SINE_REST = _alternating_factorials(3)
_COTANGENT = [1 / 12, 1 / 720, 1 / 30240, 1 / 1209600, 1 / 47900160]  # |Bernoulli numbers| / (2k)!


def _twice_derivative(series: Sequence[float]) -> list[float]:
    # with respect to theta^2
    return [2 * k * coefficient for k, coefficient in enumerate(series)][1:]


_VERSINE_SLOPE = _twice_derivative(_alternating_factorials(2, _TERMS + 1))
_SINE_REST_SLOPE = _twice_derivative(_alternating_factorials(3, _TERMS + 1))


def sine(angle: Angle) -> Tensor:
    """sin(theta) / theta."""
    return angle.select(_SINE, angle.theta.sin() / angle.theta)


def versine(angle: Angle) -> Tensor:
    """(1 - cos(theta)) / theta^2, by half the angle so that nothing cancels."""
    half = angle.theta / 2
    return angle.select(_VERSINE, (half.sin() / half).square() / 2)


def sine_rest(angle: Angle) -> Tensor:
    """(theta - sin(theta)) / theta^3."""
    theta = angle.theta
    return angle.select(_SINE_REST, (theta - theta.sin()) / theta**3)


def versine_slope(angle: Angle) -> Tensor:
    """Twice the derivative of `versine` with respect to theta^2."""
    theta = angle.theta
    closed_form = (theta * theta.sin() - 4 * (theta / 2).sin().square()) / theta**4
    return angle.select(_VERSINE_SLOPE, closed_form)


def sine_rest_slope(angle: Angle) -> Tensor:
    """Twice the derivative of `sine_rest` with respect to theta^2."""
    theta = angle.theta
    closed_form = (3 * theta.sin() - theta * theta.cos() - 2 * theta) / theta**5
    return angle.select(_SINE_REST_SLOPE, closed_form)


def cotangent(angle: Angle) -> Tensor:
    """(1 - theta/2 cot(theta/2)) / theta^2; it has a pole at 2 pi."""
    half = angle.theta / 2
    return angle.select(_COTANGENT, (1 - half * half.cos() / half.sin()) / angle.theta**2)
