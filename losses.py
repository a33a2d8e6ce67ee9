"""What training makes small: tensors in, one unweighted scalar or a map out.

A loss knows neither the batch nor the options, and its weight is the caller's. All are zero where
the prediction is perfect. Lengths have a finite gradient at zero, where they have a kink.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

import similarity
from liegroups import so3
from liegroups.checks import check_tensor

SSIM_WEIGHT, L1_WEIGHT = 0.85, 0.15
"""What structure and plain difference have in the photometric error."""

GRAVITY = 9.808679801065017
"""Length of gravity where KITTI was recorded [m/s^2]."""

_TIE_BREAK = 1e-5  # deviation of the noise on the errors of the images as they are


class PhotometricTarget(NamedTuple):
    """An image that others are compared with, and what of it all comparisons need."""

    image: Tensor  # (B, 3, H, W)
    statistics: similarity.SsimStatistics | None  # None: without SSIM


class Reprojection(NamedTuple):
    """How well one image is explained by its neighbours.

    Attributes:
        loss: scalar, the mean over all pixels
        per_pixel: (B, 1, H, W) what it is the mean of
        moving: (B, 1, H, W) bool: where a warped image explains the target better than all images
            as they are, or where nothing says otherwise; elsewhere the pixel gives no gradient
    """

    loss: Tensor
    per_pixel: Tensor
    moving: Tensor


def photometric_target(image: Tensor, ssim: bool = True) -> PhotometricTarget:
    """Prepare images (B, 3, H, W) in [0, 1] for comparisons, with structure (SSIM) or without."""
    return PhotometricTarget(image, similarity.ssim_statistics(image) if ssim else None)


def photometric_error(predicted: Tensor, target: PhotometricTarget) -> Tensor:
    """Return 0.85 (1 - SSIM) / 2 + 0.15 |difference|, or without SSIM |difference| alone.

    Args:
        predicted: (B, 3, H, W) or, from several sources, (N, B, 3, H, W) images in [0, 1]
        target: of `photometric_target`

    Returns:
        (B, 1, H, W) or (N, B, 1, H, W) means over the channels
    """
    if target.statistics is not None:
        return similarity.dissimilarity(predicted, target.statistics, SSIM_WEIGHT, L1_WEIGHT)
    check_tensor("predicted", predicted, *target.image.shape)
    return (predicted - target.image).abs().mean(-3, keepdim=True)


def reprojection(
    errors: Tensor,
    identity: Tensor | None = None,
    average: bool = False,
) -> Reprojection:
    """Take the best source for each pixel, and leave out what does not move with the scene.

    What looks best where no image is warped at all stands still in the image: a car ahead that
    drives as fast, or the sky. There the error of the unwarped images is taken, which has no
    gradient (auto-masking).

    Args:
        errors: (N, B, 1, H, W) of the warped sources, from `photometric_error`
        identity: (M, B, 1, H, W) of the sources as they are; not given: no auto-masking
        average: take the mean over the sources in place of the best, of both
    """
    _check_maps("errors", errors)
    per_pixel = _of_sources(errors, average)  # (B, 1, H, W)
    if identity is None:
        moving = torch.ones_like(per_pixel, dtype=torch.bool)
    else:
        _check_maps("identity", identity)
        _check_shape("identity", identity[0], "errors", errors.shape[1:])
        # Equal errors, as of a black border, shall not all be decided alike.
        still = _of_sources(identity + _TIE_BREAK * torch.randn_like(identity), average)
        moving = ~(still < per_pixel)  # an error that is NaN stays and is seen
        per_pixel = torch.where(moving, per_pixel, still)
    return Reprojection(per_pixel.mean(), per_pixel, moving)


def mask_pull(mask: Tensor) -> Tensor:
    """Return the mean cross-entropy of masks in [0, 1] with one: to mask has its price."""
    check_tensor("mask", mask)
    return -mask.clamp(min=torch.finfo(mask.dtype).tiny).log().mean()


def consistency(a: Tensor, b: Tensor, ssim: bool = True) -> Tensor:
    """Return the mean photometric error between two sets of images; both get its gradient.

    Args:
        a: (N, B, 3, H, W) target views, warped by one motion
        b: the same, warped by the other
        ssim: compare structure too
    """
    check_tensor("a", a)
    _check_shape("b", b, "a", a.shape)
    target = photometric_target(b.flatten(0, -4), ssim)
    return photometric_error(a.flatten(0, -4), target).mean()


def speed_error(velocity: Tensor, speed: Tensor) -> Tensor:
    """Return the mean difference of the length of velocities (..., 3) from speeds (...) [m/s]."""
    check_tensor("velocity", velocity, 3)
    _check_shape("speed", speed, "velocity", velocity.shape[:-1])
    return (_length(velocity) - speed).abs().mean()


def gravity_error(gravity: Tensor) -> Tensor:
    """Return the mean difference of the length of gravity (..., 3) from the known one [m/s^2]."""
    check_tensor("gravity", gravity, 3)
    return (_length(gravity) - GRAVITY).abs().mean()


def motion_difference(T_a: Tensor, T_b: Tensor) -> Tensor:
    """Return the mean over motions (..., 4, 4) of distance [m] plus angle [rad] between two."""
    check_tensor("T_a", T_a, 4, 4)
    _check_shape("T_b", T_b, "T_a", T_a.shape)
    distance = _length(T_a[..., :3, 3] - T_b[..., :3, 3])
    turn = so3.angle(T_a[..., :3, :3].mT @ T_b[..., :3, :3], check=False)  # |Log(R_a^T R_b)|
    return (distance + turn).mean()


def correction(after: Tensor, before: Tensor) -> Tensor:
    """Return the mean length of the filter's corrections of vectors (..., 3)."""
    check_tensor("after", after, 3)
    _check_shape("before", before, "after", after.shape)
    return _length(after - before).mean()


def _of_sources(errors: Tensor, average: bool) -> Tensor:
    """Return the mean or the least (B, 1, H, W) of errors (N, B, 1, H, W)."""
    return errors.mean(0) if average else functools.reduce(torch.minimum, errors.unbind())


def _length(vector: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vector, dim=-1)  # its gradient at zero is zero


def _check_maps(name: str, maps: Tensor) -> None:
    check_tensor(name, maps)
    if maps.ndim != 5 or len(maps) == 0:
        raise ValueError(
            f"{name}: expected shape (N, B, 1, H, W) with N > 0, got {tuple(maps.shape)}"
        )


def _check_shape(name: str, tensor: Tensor, other: str, shape: torch.Size) -> None:
    """Refuse what would broadcast, and then be a mean over the wrong pairs."""
    check_tensor(name, tensor)
    if tensor.shape != shape:
        raise ValueError(
            f"{name}: expected shape {tuple(shape)} as {other}, got {tuple(tensor.shape)}"
        )
