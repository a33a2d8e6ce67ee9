"""How good depth is: the usual errors, and the protocols they are compared under.

A protocol says which pixels count and what predictions are cut to; results of different protocols
cannot be compared. Truth and predictions are in metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

DEPTH_METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")
"""Errors of depth; a1, a2, a3 are the shares of pixels within a factor of 1.25, 1.25^2, 1.25^3."""


@dataclass(frozen=True)
class Protocol:
    """Which pixels of the truth count, and what becomes of predictions.

    Attributes:
        truth_range_m: true depth counts where it is between these, both excluded
        min_depth_m, max_depth_m: predictions are cut to these, after scaling
        rows, columns: first and last of the crop, as fractions of height and width
        log_base: of `rmse_log`
    """

    truth_range_m: tuple[float, float] = (1e-3, 80.0)
    min_depth_m: float = 1e-3
    max_depth_m: float = 80.0
    rows: tuple[float, float] = (0.0, 1.0)
    columns: tuple[float, float] = (0.0, 1.0)
    log_base: float = math.e


_GARG_ROWS, _GARG_COLUMNS = (0.40810811, 0.99189189), (0.03594771, 0.96405229)

PROTOCOLS = {
    # Single LiDAR scans; what they see is all below the horizon.
    "eigen": Protocol(rows=_GARG_ROWS, columns=_GARG_COLUMNS),
    # Truth from many scans. It is not capped, only predictions are.
    "eigen_benchmark": Protocol(truth_range_m=(0.0, math.inf)),
    # The same truth. That of the test images is not public, that of the validation images is.
    "benchmark": Protocol(truth_range_m=(0.0, math.inf)),
    "synthetic": Protocol(),
    "make3d": Protocol(truth_range_m=(0.0, 70.0), max_depth_m=70.0, log_base=10.0),
}
"""Protocols by name; the name belongs beside every result."""


def resize_disparity(disparity: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize disparity (B, 1, h, w) bilinearly to (height, width) of the truth, as customary.

    Inverse depth is what is linear over the image of a plane. Invert afterwards.
    """
    return F.interpolate(disparity, tuple(size), mode="bilinear", align_corners=False)


def valid_pixels(truth: Tensor, protocol: Protocol) -> Tensor:
    """Return where true depth (B, 1, h, w), zero where unknown, counts: the same as bool."""
    _check_maps("truth", truth, truth.shape)
    low, high = protocol.truth_range_m
    height, width = truth.shape[-2:]
    inside = torch.zeros_like(truth, dtype=torch.bool)
    top, bottom = (int(fraction * height) for fraction in protocol.rows)
    left, right = (int(fraction * width) for fraction in protocol.columns)
    inside[..., top:bottom, left:right] = True
    return inside & (truth > low) & (truth < high)


def depth_errors(
    truth: Tensor, predicted: Tensor, valid: Tensor, log_base: float = math.e
) -> dict[str, Tensor]:
    """Return the errors of each image over its valid pixels.

    Args:
        truth: (B, 1, h, w) depth [m], positive where valid
        predicted: (B, 1, h, w) depth [m], positive where valid
        valid: (B, 1, h, w) bool
        log_base: of `rmse_log`

    Returns:
        the names of `DEPTH_METRICS` with (B,) float64 each, NaN for images without a valid pixel
    """
    _check_maps("truth", truth, truth.shape)
    _check_maps("predicted", predicted, truth.shape)
    _check_maps("valid", valid, truth.shape)
    count = valid.sum((1, 2, 3), dtype=torch.float64)  # (B,)

    def mean(values: Tensor) -> Tensor:
        return values.where(valid, 0).sum((1, 2, 3), dtype=torch.float64) / count

    difference = (truth - predicted).abs()
    log_ratio = (truth.log() - predicted.log()) / math.log(log_base)
    factor = torch.maximum(truth / predicted, predicted / truth)
    values = (
        mean(difference / truth),
        mean(difference.square() / truth),
        mean(difference.square()).sqrt(),
        mean(log_ratio.square()).sqrt(),
        *(mean((factor < 1.25**power).to(truth.dtype)) for power in (1, 2, 3)),
    )
    return dict(zip(DEPTH_METRICS, values, strict=True))


def evaluate(
    truth: Tensor, predicted_m: Tensor, protocol: Protocol, median_scaling: bool
) -> dict[str, Tensor]:
    """Return the errors of each image under a protocol.

    Args:
        truth: (B, 1, h, w) depth [m], zero where unknown
        predicted_m: (B, 1, h, w) depth [m]
        protocol: of `PROTOCOLS`
        median_scaling: multiply each prediction by its ratio first: forgive a wrong scale

    Returns:
        the names of `DEPTH_METRICS`, and "ratio", the median of the truth over that of the
        prediction as it was given, before it is cut; (B,) float64 each, NaN for images without a
        valid pixel
    """
    valid = valid_pixels(truth, protocol)
    _check_maps("predicted_m", predicted_m, truth.shape)
    ratio = _medians(truth, valid) / _medians(predicted_m, valid)  # (B,)
    if median_scaling:
        predicted_m = predicted_m * ratio.to(predicted_m.dtype).view(-1, 1, 1, 1)
    predicted_m = predicted_m.clamp(protocol.min_depth_m, protocol.max_depth_m)
    return depth_errors(truth, predicted_m, valid, protocol.log_base) | {"ratio": ratio}


def _medians(values: Tensor, valid: Tensor) -> Tensor:
    """Return the median (B,) float64 of each image; of an even number the mean of the middle two.

    Torch's own takes the lower of the two.
    """
    return torch.stack([_median(x[v]) for x, v in zip(values, valid, strict=True)])


def _median(values: Tensor) -> Tensor:
    ordered = values.double().sort().values  # (n,), NaN last
    n = len(ordered)
    if n == 0 or ordered[-1].isnan():
        return ordered.new_tensor(math.nan)
    return ordered[(n - 1) // 2 : n // 2 + 1].mean()


def _check_maps(name: str, maps: Tensor, shape: torch.Size) -> None:
    """Refuse what would broadcast."""
    if maps.ndim != 4 or maps.shape[1] != 1 or maps.shape != shape:
        wanted = tuple(shape) if len(shape) == 4 and shape[1] == 1 else "(B, 1, h, w)"
        raise ValueError(f"{name}: expected shape {wanted}, got {tuple(maps.shape)}")
