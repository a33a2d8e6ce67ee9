"""How good depth and trajectories are: the usual errors, and the protocols of their comparison.

A protocol says which pixels count and what predicted depths are cut to; results of different
protocols cannot be compared. Truth and predictions are in metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from torch import Tensor

DEPTH_METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")
"""Errors of depth; a1, a2, a3 are the shares of pixels within a factor of 1.25, 1.25^2, 1.25^3."""

DISTANCES_M = (0, 20, 40, 60, 80)
"""Limits of the ranges that errors are also given for: all of one width, the first from zero."""

_SAMPLE = 4096  # values that a median is looked for with
_ONE_PLACE = 1e-10  # points that spread less, over their largest coordinate, are but rounded


@dataclass(frozen=True)
class Protocol:
    """Which pixels of the truth count, and what becomes of predictions.

    Attributes:
        truth_range_m: true depth counts where it is between these, both excluded
        min_depth_m, max_depth_m: predictions are cut to these, after scaling
        rows, columns: first and last of the crop, as fractions of height and width
        log_base: of `rmse_log`
        resizing: how predictions get the size of the truth, `bilinear` or `nearest`
    """

    truth_range_m: tuple[float, float] = (1e-3, 80.0)
    min_depth_m: float = 1e-3
    max_depth_m: float = 80.0
    rows: tuple[float, float] = (0.0, 1.0)
    columns: tuple[float, float] = (0.0, 1.0)
    log_base: float = math.e
    resizing: str = "bilinear"


_GARG_ROWS, _GARG_COLUMNS = (0.40810811, 0.99189189), (0.03594771, 0.96405229)

PROTOCOLS = {
    # Single LiDAR scans; what they see is all below the horizon.
    "eigen": Protocol(rows=_GARG_ROWS, columns=_GARG_COLUMNS),
    # Truth from many scans. It is not capped, only predictions are.
    "eigen_benchmark": Protocol(truth_range_m=(0.0, math.inf)),
    # The same truth. That of the test images is not public, that of the validation images is.
    "benchmark": Protocol(truth_range_m=(0.0, math.inf)),
    "synthetic": Protocol(),
    "make3d": Protocol(
        truth_range_m=(0.0, 70.0), max_depth_m=70.0, log_base=10.0, resizing="nearest"
    ),
}
"""Protocols by name; the name belongs beside every result."""


def resize_disparity(
    disparity: Tensor, size: tuple[int, int], resizing: str = "bilinear"
) -> Tensor:
    """Resize disparity (B, 1, h, w) to (height, width) of the truth, as customary.

    Inverse depth is what is linear over the image of a plane. Invert afterwards.
    """
    corners = None if resizing == "nearest" else False
    return F.interpolate(disparity, tuple(size), mode=resizing, align_corners=corners)


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


def blend_mirrored(disparity: Tensor, of_mirrored: Tensor) -> Tensor:
    """Return the mean of two disparities, but near the left and the right border only one of them.

    At its left border an image lacks what the left camera of a pair would see, and disparity is
    worst there; mirrored, that border is the right one.

    Args:
        disparity: (B, 1, h, w) of images
        of_mirrored: (B, 1, h, w) of the same images mirrored left to right, as predicted
    """
    _check_maps("of_mirrored", of_mirrored, disparity.shape)
    mirrored_back = of_mirrored.flip(-1)
    x = torch.linspace(0, 1, disparity.shape[-1], dtype=disparity.dtype, device=disparity.device)
    left = 1 - (20 * (x - 0.05)).clamp(0, 1)  # one up to 5 % of the width, zero from 10 % on
    right = left.flip(0)
    mean = (disparity + mirrored_back) / 2
    return right * disparity + left * mirrored_back + (1 - left - right) * mean


def depth_errors(truth: Tensor, predicted: Tensor, log_base: float = math.e) -> dict[str, Tensor]:
    """Return the errors over all pixels that are given.

    Args:
        truth: (n,) depth [m], positive
        predicted: (n,) depth [m], positive
        log_base: of `rmse_log`

    Returns:
        the names of `DEPTH_METRICS` with a float64 scalar each, NaN if there is no pixel
    """
    if truth.ndim != 1 or predicted.shape != truth.shape:  # would broadcast
        raise ValueError(
            f"truth, predicted: expected shape (n,), got {tuple(truth.shape)} and "
            f"{tuple(predicted.shape)}"
        )

    def mean(values: Tensor) -> Tensor:
        return values.mean().double()  # summed in pairs: its error is that of one rounding

    difference = (truth - predicted).abs()
    square = difference.square()
    quotient = truth / predicted
    factor = torch.maximum(quotient, predicted / truth)
    log_ratio = quotient.log() / math.log(log_base)
    pixels = truth.new_tensor(len(truth), dtype=torch.float64)
    values = (
        mean(difference / truth),
        mean(square / truth),
        mean(square).sqrt(),
        mean(log_ratio.square()).sqrt(),
        *((factor < 1.25**power).count_nonzero() / pixels for power in (1, 2, 3)),
    )
    return dict(zip(DEPTH_METRICS, values, strict=True))


@dataclass(frozen=True)
class Evaluation:
    """How good the depths of B images are, (B,) float64 each, NaN for images without a valid pixel.

    Attributes:
        unscaled: by the names of `DEPTH_METRICS`, of predictions as they are: in metres
        scaled: the same after median scaling: what is left if a wrong scale is forgiven
        ratio: of medians, truth over prediction before it is cut: 1 where the scale is right
        by_distance: (B, ranges) abs_rel of the unscaled where the truth is in each range of
            `DISTANCES_M`, NaN where it nowhere is
        scaled_by_distance: the same after median scaling
    """

    unscaled: dict[str, Tensor]
    scaled: dict[str, Tensor]
    ratio: Tensor
    by_distance: Tensor
    scaled_by_distance: Tensor


def evaluate(truth: Tensor, predicted_m: Tensor, protocol: Protocol) -> Evaluation:
    """Return the errors of each image under a protocol, with median scaling and without.

    Args:
        truth: (B, 1, h, w) depth [m], zero where unknown
        predicted_m: (B, 1, h, w) depth [m]
        protocol: of `PROTOCOLS`
    """
    valid = valid_pixels(truth, protocol)
    _check_maps("predicted_m", predicted_m, truth.shape)
    images = []
    for of_truth, of_prediction, counts in zip(truth, predicted_m, valid, strict=True):
        at = counts.flatten().nonzero().squeeze(1)  # several times faster than masks twice
        pixels = (maps.flatten().index_select(0, at) for maps in (of_truth, of_prediction))
        images.append(_evaluate_pixels(*pixels, protocol))
    ratio, unscaled, scaled, by_distance, scaled_by_distance = (
        torch.stack(column) for column in zip(*images, strict=True)
    )
    return Evaluation(
        unscaled=dict(zip(DEPTH_METRICS, unscaled.unbind(-1), strict=True)),
        scaled=dict(zip(DEPTH_METRICS, scaled.unbind(-1), strict=True)),
        ratio=ratio,
        by_distance=by_distance,
        scaled_by_distance=scaled_by_distance,
    )


def _evaluate_pixels(
    truth: Tensor, predicted: Tensor, protocol: Protocol
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return of some pixels (n,) the ratio, both kinds of errors (7), and both by distance."""
    ratio = _median(truth) / _median(predicted)
    place, count = _places(truth)
    errors, by_distance = [], []
    for factor in (1, ratio.to(predicted.dtype)):
        cut = (predicted * factor).clamp(protocol.min_depth_m, protocol.max_depth_m)
        errors.append(torch.stack(list(depth_errors(truth, cut, protocol.log_base).values())))
        relative = ((truth - cut).abs() / truth).double()
        by_distance.append(torch.bincount(place, relative, len(DISTANCES_M))[:-1] / count[:-1])
    return ratio, *errors, *by_distance


def _places(truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return in which range of `DISTANCES_M` each depth (n,) is, and how many are in each.

    Those beyond the last are in one more.
    """
    place = (truth / DISTANCES_M[1]).clamp(max=len(DISTANCES_M) - 1).long()
    return place, torch.bincount(place, minlength=len(DISTANCES_M))


def _median(values: Tensor) -> Tensor:
    """Return the median of values (n,) as float64; of an even number the mean of the middle two.

    Torch's own takes the lower of the two, and its selection takes twice as long as NumPy's.
    """
    n = len(values)
    if n == 0 or bool(values.isnan().any()):
        return values.new_tensor(math.nan, dtype=torch.float64)
    upper, lower = _kth(values.detach().cpu().numpy(), n // 2)
    return values.new_tensor((upper if n % 2 else (lower + upper) / 2), dtype=torch.float64)


def _kth(values: np.ndarray, k: int) -> tuple[float, float]:
    """Return element k of the sorted values (n,), counted from 0, and the one before it.

    Of many values a sample says between which two the element is, give or take: what is sorted out
    then is a tenth of them.
    """
    below = 0
    if len(values) > _SAMPLE:
        sample = np.sort(values[:: len(values) // _SAMPLE])
        middle, margin = k * len(sample) // len(values), len(sample) // 20
        low, high = sample[max(middle - margin, 0)], sample[min(middle + margin, len(sample) - 1)]
        near, under = values[(values >= low) & (values <= high)], int((values < low).sum())
        if under < k < under + len(near):
            values, below = near, under
    ordered = np.partition(values, k - below)
    before = ordered[: k - below]
    return float(ordered[k - below]), float(before.max()) if len(before) else -math.inf


def _check_maps(name: str, maps: Tensor, shape: torch.Size) -> None:
    """Refuse what would broadcast."""
    if maps.ndim != 4 or maps.shape[1] != 1 or maps.shape != shape:
        wanted = tuple(shape) if len(shape) == 4 and shape[1] == 1 else "(B, 1, h, w)"
        raise ValueError(f"{name}: expected shape {wanted}, got {tuple(maps.shape)}")


# Trajectories

SEGMENTS_M = (100, 200, 300, 400, 500, 600, 700, 800)
"""Lengths of the segments that `t_rel` and `r_rel` are the mean error of."""

SEGMENT_EVERY = 10
"""Segments begin at each tenth image."""

SNIPPET = 5
"""Images of the pieces that a snippet's error is of."""

ALIGNMENTS = ("unaligned", "scale", "7dof")
"""What may be done to an estimate before it is compared: nothing, one factor, or a similarity.

Metric methods are to be judged unaligned. The factor is the same in both other cases, that of the
similarity, as evo has it; `t_rel`, `r_rel` and steps do not see the rest of the similarity.
"""


@dataclass(frozen=True)
class TrajectoryErrors:
    """How far a trajectory is from the truth; NaN where there is nothing to take a mean of.

    Attributes:
        t_rel_percent: translation lost in a segment, over its length
        r_rel_deg_per_100m: rotation lost in a segment, over its length
        ate_m: root mean square distance of the positions
        step_m, step_deg: root mean square error of the motion from one image to the next
        scale: that the estimate was multiplied by
        segments: of which the first two are the mean
    """

    t_rel_percent: float
    r_rel_deg_per_100m: float
    ate_m: float
    step_m: float
    step_deg: float
    scale: float
    segments: int


def trajectory_errors(
    truth: np.ndarray, estimate: np.ndarray, numbers: np.ndarray | None = None
) -> dict[str, TrajectoryErrors]:
    """Compare trajectories that are given in any axes; both are counted from their first image.

    Where images in between are left out, as those of unknown truth, the rest say their numbers:
    steps are then those of neighbours alone.

    Args:
        truth: (N, 4, 4) T_w_c of each image [m]
        estimate: (N, 4, 4) of the same images, in a world of its own
        numbers: (N,) of the images in their drive, rising; 0 to N - 1 if not given

    Returns:
        the errors by the names of `ALIGNMENTS`
    """
    numbers = _checked_numbers(truth, estimate, numbers)
    neighbours = np.flatnonzero(np.diff(numbers) == 1)
    truth, estimate = (np.linalg.inv(T_w_c[0]) @ T_w_c for T_w_c in (truth, estimate))
    found = {}
    for name in ALIGNMENTS:
        moved, scale = align(truth, estimate, name)
        lost_m, lost_rad = segment_errors(truth, moved, numbers)
        step_m, step_rad = relative_errors(truth, moved, neighbours)
        distance_m = np.linalg.norm(moved[:, :3, 3] - truth[:, :3, 3], axis=1)
        found[name] = TrajectoryErrors(
            t_rel_percent=100 * _mean(lost_m),
            r_rel_deg_per_100m=100 * math.degrees(_mean(lost_rad)),
            ate_m=math.sqrt(_mean(distance_m**2)),
            step_m=math.sqrt(_mean(step_m**2)),
            step_deg=math.degrees(math.sqrt(_mean(step_rad**2))),
            scale=scale,
            segments=len(lost_m),
        )
    return found


def align(truth: np.ndarray, estimate: np.ndarray, alignment: str) -> tuple[np.ndarray, float]:
    """Return an estimate (N, 4, 4) as near to the truth (N, 4, 4) as it may come, and its scale.

    Args:
        truth, estimate: T_w_c of each image, unchanged
        alignment: a name in `ALIGNMENTS`; the similarity is Umeyama's, of least squares
    """
    if alignment not in ALIGNMENTS:
        raise ValueError(f"alignment: expected one of {', '.join(ALIGNMENTS)}, got {alignment!r}")
    _check_trajectories(truth, estimate)
    moved = np.array(estimate, np.float64)
    if alignment == "unaligned":
        return moved, 1.0
    if not np.isfinite(moved).all():
        return np.full_like(moved, np.nan), math.nan
    scale, R, t = umeyama(moved[:, :3, 3], truth[:, :3, 3])
    moved[:, :3, 3] *= scale
    if alignment == "7dof":
        moved[:, :3] = R @ moved[:, :3]
        moved[:, :3, 3] += t
    return moved, scale


def umeyama(points: np.ndarray, onto: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return s, R (3, 3), t (3) for which s R p + t comes nearest to the other points (Umeyama).

    Points on a line leave the turn about it open, and any one is returned; points that are all in
    one place leave the scale open, and it stays 1.

    Args:
        points, onto: (N, 3) that belong together
    """
    mean, mean_onto = points.mean(0), onto.mean(0)
    around, around_onto = points - mean, onto - mean_onto
    U, d, Vt = np.linalg.svd(around_onto.T @ around / len(points))
    sign = np.array([1, 1, np.linalg.det(U) * np.linalg.det(Vt)]).round()  # no reflection
    R = U * sign @ Vt
    variance = (around**2).sum(1).mean()
    moves = math.sqrt(variance) > _ONE_PLACE * np.abs(points).max()
    scale = float((d * sign).sum() / variance) if moves else 1.0
    return scale, R, mean_onto - scale * R @ mean


def segment_errors(
    truth: np.ndarray, estimate: np.ndarray, numbers: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return what each segment loses, by the rule of KITTI's development kit.

    A segment begins at each tenth image and ends at the first one that is further than its length,
    along the truth's way. (Its error is then over the nominal length.)

    Args:
        truth, estimate: (N, 4, 4)
        numbers: (N,) of the images in their drive, as of `trajectory_errors`

    Returns:
        (M,) metres of translation per metre, (M,) radians per metre
    """
    numbers = _checked_numbers(truth, estimate, numbers)
    steps_m = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1)
    way_m = np.concatenate([[0], np.cumsum(steps_m)])
    first = np.flatnonzero(numbers % SEGMENT_EVERY == 0)
    length_m, first = (x.ravel() for x in np.meshgrid(SEGMENTS_M, first))
    last = np.searchsorted(way_m, way_m[first] + length_m, "right")
    inside = last < len(truth)
    first, last, length_m = first[inside], last[inside], length_m[inside]
    lost_m, lost_rad = relative_errors(truth, estimate, first, last)
    return lost_m / length_m, lost_rad / length_m


def relative_errors(
    truth: np.ndarray, estimate: np.ndarray, first: np.ndarray, last: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the length (M,) [m] and the angle (M,) [rad] of E = dT_estimate^-1 dT_truth.

    Args:
        truth, estimate: (N, 4, 4)
        first, last: (M,) the images that each motion dT is between; last is the next if not given
    """
    last = first + 1 if last is None else last
    dT, dT_estimate = (np.linalg.inv(T[first]) @ T[last] for T in (truth, estimate))
    E = np.linalg.inv(dT_estimate) @ dT
    known = np.isfinite(E).all((1, 2))
    angle_rad = np.full(len(E), np.nan)
    if known.any():
        angle_rad[known] = Rotation.from_matrix(E[known, :3, :3]).magnitude()
    return np.linalg.norm(E[:, :3, 3], axis=1), angle_rad


def snippet_errors(
    truth: np.ndarray, estimate: np.ndarray, numbers: np.ndarray | None = None
) -> np.ndarray:
    """Return the error [m] (M,) of five images in a row from each image on, scaled by itself.

    All is as Monodepth2 and its kin have it, since their numbers are what it is compared with: each
    snippet gets the scale of least squares, and what remains is sqrt(sum of squares) / 5, not their
    root mean square; the last three snippets are shorter; and of truth and estimate alike the
    inverse motions T_k+1_k are chained, in the order of the images. That is no way that anything
    went, but its errors are those of the way, within some per cent. M is N - 1, or less where
    images in between are left out, since no snippet is across them.

    Args:
        truth, estimate: (N, 4, 4)
        numbers: (N,) of the images in their drive, as of `trajectory_errors`
    """
    numbers = _checked_numbers(truth, estimate, numbers)
    chains = [np.linalg.inv(T_w_c[1:]) @ T_w_c[:-1] for T_w_c in (truth, estimate)]  # T_k+1_k
    errors = []
    for k in range(len(truth) - 1):
        if (np.diff(numbers[k : k + SNIPPET]) != 1).any():
            continue
        xyz, seen = (_chained_positions(chain[k : k + SNIPPET - 1]) for chain in chains)
        square = (seen**2).sum()
        scale = (xyz * seen).sum() / square if square > 0 else 1.0
        errors.append(math.sqrt(((scale * seen - xyz) ** 2).sum()) / len(xyz))
    return np.array(errors)


def _chained_positions(motions: np.ndarray) -> np.ndarray:
    """Return the positions (n + 1, 3) that motions (n, 4, 4) in a row lead to, from the origin."""
    poses = [np.eye(4)]
    for T in motions:
        poses.append(poses[-1] @ T)
    return np.stack(poses)[:, :3, 3]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _checked_numbers(
    truth: np.ndarray, estimate: np.ndarray, numbers: np.ndarray | None
) -> np.ndarray:
    """Return the numbers (N,) of images; refuse what would broadcast, and images in no order."""
    _check_trajectories(truth, estimate)
    if numbers is None:
        return np.arange(len(truth))
    if numbers.shape != (len(truth),) or (np.diff(numbers) < 1).any():
        raise ValueError(f"numbers: expected {len(truth)} rising ones, got shape {numbers.shape}")
    return numbers


def _check_trajectories(truth: np.ndarray, estimate: np.ndarray) -> None:
    """Refuse what would broadcast."""
    if truth.ndim != 3 or truth.shape[1:] != (4, 4) or estimate.shape != truth.shape:
        raise ValueError(
            f"truth, estimate: expected shape (N, 4, 4), got {truth.shape} and {estimate.shape}"
        )
