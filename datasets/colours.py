"""Brightness, contrast, saturation and hue of many images at once, each with its own change.

An image may have its four operations in any order. What is drawn stays on the CPU, so that the host
knows which images need which operation and never waits for the device to say.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = OPERATIONS = range(4)
"""Entries of an order, and columns of a strength."""

Ranges = tuple[tuple[float, float], ...]
"""Lowest and highest strength of each operation."""

_LUMA = 0.2989, 0.587, 0.114  # of red, green, blue, as torchvision has them


def factor_range(strength: float) -> tuple[float, float]:
    """Return the factors around 1 that a strength allows; none is below zero."""
    return max(0.0, 1 - strength), 1 + strength


def draw(generator: np.random.Generator, ranges: Ranges) -> tuple[np.ndarray, np.ndarray]:
    """Draw the order (4) and the strength (4) of one image's change."""
    order = generator.permutation(len(OPERATIONS))
    return order, generator.uniform(*np.transpose(ranges))


def adjust(images: Tensor, order: Tensor, strength: Tensor) -> Tensor:
    """Change the colours of each image, as torchvision's `adjust_*` do one by one.

    Args:
        images: (N, 3, H, W) from 0 to 1, on any device; unchanged
        order: (N, 4) on the CPU, permutations of the operations; the first is done first
        strength: (N, 4) on the CPU, by operation: factors, and the hue as a fraction of the circle

    Returns:
        (N, 3, H, W) from 0 to 1
    """
    # At each position, images with the same operation stand together; in the end, all as they came.
    came = torch.arange(len(order)).unsqueeze(0)
    together = order.T.argsort(stable=True)  # (4, N)
    before, after = torch.cat([came, together]), torch.cat([together, came])
    moves = send(before.argsort().gather(1, after), images.device)  # (5, N) rows to take
    strengths = send(strength[together].to(images.dtype), images.device)  # (4, N, 4)
    for position in OPERATIONS:
        images = images.index_select(0, moves[position])  # a copy, so it may be written to
        counts = order[:, position].bincount(minlength=len(OPERATIONS)).tolist()
        groups = zip(images.split(counts), strengths[position].split(counts), strict=True)
        for operation, (group, by_operation) in enumerate(groups):
            if len(group):
                _ADJUST_[operation](group, by_operation[:, operation, None, None])
    return images.index_select(0, moves[-1])


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Send a small tensor from the CPU to a device without waiting for what it is busy with."""
    # From memory that is not pinned, CUDA may wait whatever non_blocking says.
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


# Each takes images (n, 3, H, W), which it writes to, and strengths (n, 1, 1).


def _adjust_brightness_(images: Tensor, factor: Tensor) -> None:
    images.mul_(factor.unsqueeze(1)).clamp_(0, 1)


def _adjust_contrast_(images: Tensor, factor: Tensor) -> None:
    mean = _gray(images.mean((2, 3), keepdim=True))  # of each image's gray (n, 1, 1)
    images.mul_(factor.unsqueeze(1)).add_((mean * (1 - factor)).unsqueeze(1)).clamp_(0, 1)


def _adjust_saturation_(images: Tensor, factor: Tensor) -> None:
    rest = _gray(images).mul_(1 - factor)  # (n, H, W)
    images.mul_(factor.unsqueeze(1)).add_(rest.unsqueeze(1)).clamp_(0, 1)


def _adjust_hue_(images: Tensor, shift: Tensor) -> None:
    """Turn the hue: the place of a colour on the hexagon of HSV, counted in its sides, 0 to 6."""
    red, green, blue = images.unbind(1)  # (n, H, W) views
    most = red.maximum(green).maximum(blue)
    least = red.minimum(green).minimum(blue)
    chroma = most - least
    hue = torch.where(
        most == red,
        green - blue,
        torch.where(
            most == green,
            (blue - red).add_(chroma, alpha=2),
            (red - green).add_(chroma, alpha=4),
        ),
    )
    # What follows is multiplied by the chroma: where that is zero, any finite hue will do.
    hue.div_(chroma.clamp_min(torch.finfo(chroma.dtype).tiny)).add_(6 * shift).remainder_(6)
    # A channel has the whole chroma within a side of its own place, nothing from two sides on.
    for channel, share in (
        (red, (hue - 3).abs_().sub_(1)),
        (green, (hue - 2).abs_().neg_().add_(2)),
        (blue, (hue - 4).abs_().neg_().add_(2)),
    ):
        torch.addcmul(least, chroma, share.clamp_(0, 1), out=channel)


def _gray(images: Tensor) -> Tensor:
    """Return (n, H, W) from (n, 3, H, W)."""
    red, green, blue = images.unbind(1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


_ADJUST_ = _adjust_brightness_, _adjust_contrast_, _adjust_saturation_, _adjust_hue_
