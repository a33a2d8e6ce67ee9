"""Rotations and rigid motions as batched, differentiable torch functions."""

from liegroups import se3, so3

__all__ = ["se3", "so3"]
