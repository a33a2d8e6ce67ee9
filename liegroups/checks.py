"""Argument checks: an error names the argument, what it got and what it expected.

Shapes and types cost nothing to look at. Values do: reading them makes the host wait for a GPU.
So only `check_rotation` and `check_motion` read values, and their callers offer `check=False`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from liegroups.matrices import identity

FLOAT_TYPES = (torch.float32, torch.float64)


def check_tensor(name: str, tensor: Tensor, *trailing: int) -> None:
    """Refuse what is not a float32 or float64 tensor whose shape ends in `trailing`."""
    expected = f"shape ({', '.join(['...', *map(str, trailing)])})"
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a tensor of {expected}, got {type(tensor).__name__}")
    if tensor.dtype not in FLOAT_TYPES:
        raise ValueError(f"{name}: expected float32 or float64, got {tensor.dtype}")
    device = tensor.device.type  # others, like meta, may not know autocast
    if device in ("cpu", "cuda") and torch.is_autocast_enabled(device):
        raise ValueError(
            f"{name}: expected full precision, got torch.autocast: it is for the networks alone, "
            "leave it before the geometry and the losses"
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
    with torch.no_grad():
        error = (R.mT @ R - identity(3, R)).abs().amax((-2, -1))  # (...)
        determinant = (torch.linalg.cross(R[..., 0, :], R[..., 1, :]) * R[..., 2, :]).sum(-1)
        right = (error <= _tolerance(R)) & (determinant > 0)
        expected = f"rotation matrices (R^T R = I within {_tolerance(R):g}, determinant 1)"
        _refuse(f"{name}: expected {expected}", R, ~right & ~R.isnan().any(-1).any(-1))


def check_motion(name: str, T: Tensor) -> None:
    """Refuse matrices (..., 4, 4) that are not rigid motions; let NaN pass, to come out as NaN."""
    check_rotation(f"{name}[..., :3, :3]", T[..., :3, :3])
    with torch.no_grad():
        row = T[..., 3, :]
        right = ((row - identity(4, T)[3]).abs() <= _tolerance(T)).all(-1)
        _refuse(f"{name}: expected a last row of 0 0 0 1", row, ~right & ~row.isnan().any(-1))


def _refuse(expected: str, values: Tensor, wrong: Tensor) -> None:
    if wrong.any():
        index = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(f"{expected}, got at index {index} {values[index].tolist()}")


def _tolerance(matrix: Tensor) -> float:
    # Loose enough for a product of many float32 rotations and for the step of a numeric gradient.
    return 1e-5 if matrix.dtype == torch.float64 else 1e-3
