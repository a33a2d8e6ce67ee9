"""Tensors as pictures that a person can read: (3, H, W) uint8, RGB, on the CPU."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

_PERCENTILE = 95  # of a disparity: a few pixels that are very near would leave the rest dark


def photograph(image: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Return an image as it is.

    Args:
        image: (3, H, W) from 0 to 1, RGB
        size: width and height of the picture [px], those of the image if not given

    Returns:
        (3, H, W) uint8
    """
    return _bytes(_resized(_plain(image, 3), size))


def coloured_disparity(disp: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Return a disparity in colours: dark is far, bright is near.

    Args:
        disp: (1, H, W) from 0; the brightest is its own 95th percentile
        size: as in `photograph`
    """
    disp = _resized(_plain(disp, 1).nan_to_num(0, 0, 0), size)
    brightest = float(np.percentile(disp.numpy(), _PERCENTILE))
    # Where that is zero, what is not zero is infinite and bright, and the rest no number and dark.
    return _coloured(disp / brightest, cv2.COLORMAP_MAGMA)


def coloured_error(error: Tensor, top: float, size: tuple[int, int] | None = None) -> Tensor:
    """Return an error in colours: black is none.

    Args:
        error: (1, H, W) from 0; what is no number is as bad as can be
        top: the error that is brightest
        size: as in `photograph`
    """
    if not 0 < top < math.inf:
        raise ValueError(f"top: expected more than 0, got {top}")
    error = (_plain(error, 1) / top).nan_to_num(1, 1, 0).clamp(0, 1)
    return _coloured(_resized(error, size), cv2.COLORMAP_INFERNO)


def coloured_mask(mask: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Return a mask: white is what counts, black what does not, grey what does in part.

    Args:
        mask: (1, H, W) bool, or from 0 to 1
        size: as in `photograph`
    """
    return _bytes(_resized(_plain(mask, 1), size, "nearest-exact")).repeat(3, 1, 1)


def _plain(values: Tensor, channels: int) -> Tensor:
    """Return values (C, H, W) as float32 on the CPU, and nothing that has gradients."""
    if values.ndim != 3 or len(values) != channels:
        raise ValueError(f"picture: expected ({channels}, H, W), got {tuple(values.shape)}")
    return values.detach().float().cpu()


def _resized(values: Tensor, size: tuple[int, int] | None, mode: str = "bilinear") -> Tensor:
    if size is None or size == (values.shape[2], values.shape[1]):
        return values
    smooth = {"antialias": True, "align_corners": False} if mode == "bilinear" else {}
    return interpolate(values.unsqueeze(0), size[::-1], mode=mode, **smooth).squeeze(0)


def _bytes(values: Tensor) -> Tensor:
    """Return values from 0 to 1 as bytes; what is no number is 0."""
    return (values.nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8)


def _coloured(values: Tensor, colour_map: int) -> Tensor:
    """Return colours (3, H, W) for values (1, H, W) from 0 to 1."""
    levels = np.arange(256, dtype=np.uint8)[:, None]
    bgr = cv2.applyColorMap(levels, colour_map)[:, 0]  # (256, 3) the order of OpenCV
    rgb = torch.from_numpy(bgr[:, ::-1].copy())
    return rgb[_bytes(values)[0].long()].permute(2, 0, 1).contiguous()
