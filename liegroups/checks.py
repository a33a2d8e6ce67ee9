"""Argument checks: an error names the argument, what it got and what it expected.

Shapes and types cost nothing to look at. Values do: reading them makes the host wait for a GPU.
So only `check_rotation` reads values, and its callers offer `check=False`.
"""

from __future__ import annotations

import torch
from torch import Tensor

FLOAT_TYPES = (torch.float32, torch.float64)


def check_tensor(name: str, tensor: Tensor, *trailing: int) -> None:
    """Refuse what is not a float32 or float64 tensor whose shape ends in `trailing`."""
    expected = f"shape ({', '.join(['...', *map(str, trailing)])})"
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a tensor of {expected}, got {type(tensor).__name__}")
    if tensor.dtype not in FLOAT_TYPES:
        raise ValueError(f"{name}: expected float32 or float64, got {tensor.dtype}")
    if torch.is_autocast_enabled(tensor.device.type):
        raise ValueError(
            f"{name}: expected full precision, got torch.autocast, under which matrix products "
            "lose half of it; mixed precision is for the networks alone"
        )
    if tuple(tensor.shape[tensor.ndim - len(trailing) :]) != trailing:
        raise ValueError(f"{name}: expected {expected}, got {tuple(tensor.shape)}")


def check_batch(name: str, batch: torch.Size, other: str, other_batch: torch.Size) -> torch.Size:
    """Return the common leading dimensions of two arguments, refuse those that do not broadcast."""
    try:
        return torch.broadcast_shapes(batch, other_batch)
    except RuntimeError:
        raise ValueError(
            f"{name}: leading dimensions {tuple(batch)} do not fit "
            f"those of {other}, {tuple(other_batch)}"
        ) from None


def check_rotation(name: str, R: Tensor) -> None:
    """Refuse matrices (..., 3, 3) that are not rotations; let NaN pass, to come out as NaN."""
    # Loose enough for a product of many float32 rotations and for the step of a numeric gradient.
    tolerance = 1e-5 if R.dtype == torch.float64 else 1e-3
    with torch.no_grad():
        eye = torch.eye(3, dtype=R.dtype, device=R.device)
        skew = (R.mT @ R - eye).abs().amax((-2, -1))  # (...)
        determinant = (torch.linalg.cross(R[..., 0, :], R[..., 1, :]) * R[..., 2, :]).sum(-1)
        wrong = (skew > tolerance) | (determinant < 0)  # false for NaN
        if wrong.any():
            index = tuple(wrong.nonzero()[0].tolist())
            raise ValueError(
                f"{name}: expected rotation matrices (R^T R = I within {tolerance:g}, "
                f"determinant 1), got at index {index} one with "
                f"|R^T R - I| = {skew[index].item():.3g} "
                f"and determinant {determinant[index].item():.3g}"
            )
