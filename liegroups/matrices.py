"""Small matrices in batches: what geometry and filter both do with them."""

from __future__ import annotations

import torch
from torch import Tensor


def apply(A: Tensor, x: Tensor) -> Tensor:
    """Multiply matrices (..., n, m) with vectors (..., m)."""
    return (A @ x.unsqueeze(-1)).squeeze(-1)


def identity(n: int, neighbour: Tensor) -> Tensor:
    """Return the unit matrix (n, n) with the type and on the device of a neighbour."""
    return torch.eye(n, dtype=neighbour.dtype, device=neighbour.device)


def symmetric(P: Tensor) -> Tensor:
    """Return the symmetric part of matrices (..., n, n)."""
    return (P + P.mT) / 2


def like_leading(mask: Tensor, x: Tensor) -> Tensor:
    """Give a mask of the leading dimensions of x its trailing ones too, all of them 1."""
    return mask.reshape(*mask.shape, *[1] * (x.ndim - mask.ndim))
