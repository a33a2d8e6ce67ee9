"""Angles, rotations and motions that several tests are run at."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from liegroups.coefficients import SMALL_ANGLE

SWITCH = [SMALL_ANGLE - 1e-3, SMALL_ANGLE + 1e-3]
"""Angles on both sides of the change from series to closed form."""

ANGLES = [0.0, 1e-9, 1e-5, *SWITCH, 1.0, 3.0]
"""Singular and ordinary points: where values and gradients are checked."""

NEAR_PI = [math.pi - gap for gap in (1e-1, 1e-2, 1e-3, 1e-4)]


def axes(count: int) -> Tensor:
    """Return unit vectors (count, 3): the coordinate axes, some with a zero, the rest at random."""
    fixed = torch.tensor(
        [[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [1, -1, 0], [0, 3, 4], [1, 1, 1]],
        dtype=torch.float64,
    )
    vectors = torch.cat([fixed, torch.randn(count, 3, dtype=torch.float64)])[:count]
    return vectors / vectors.norm(dim=-1, keepdim=True)


def rotation_vectors(angle: float, count: int = 20) -> Tensor:
    """Return rotation vectors (count, 3) of one angle [rad], float64."""
    return angle * axes(count)


def twists(angle: float, count: int = 20) -> Tensor:
    """Return twists (count, 6) with translations of some metres, float64."""
    return torch.cat(
        [3 * torch.randn(count, 3, dtype=torch.float64), rotation_vectors(angle, count)], -1
    )


def matrix_exponential_law(exp, left_jacobian, vee, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return J_l(x), and the same from autograd: column i is vee(d exp(x)/dx_i exp(x)^-1)."""
    derivative = torch.autograd.functional.jacobian(exp, x)  # (n, n, d)
    columns = [vee(D @ torch.linalg.inv(exp(x))) for D in derivative.unbind(-1)]
    return left_jacobian(x), torch.stack(columns, -1)


def value_and_gradient(function, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return function(x) and the gradient of a fixed weighted sum of its entries, as float64."""
    x = x.clone().requires_grad_()
    value = function(x)
    weight = torch.linspace(-1, 1, value[0].numel()).view(value[0].shape).to(x.dtype)
    (gradient,) = torch.autograd.grad((weight * value).sum(), x)
    return value.detach().double(), gradient.double()
