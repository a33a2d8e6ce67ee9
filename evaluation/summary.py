"""What the errors of many images come to: means, how sure they are, and how right the scale is.

Images of one drive look alike, and so do their errors: what is drawn anew to say how sure a mean is
are whole drives. Taken as independent, images would promise several times too much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from evaluation.results import DepthResult
from metrics import DEPTH_METRICS
from utils import UserError

LEVEL = 0.95
"""How many of the resampled means are within an interval."""

RESAMPLES = 2000

FEW_DRIVES = 10
"""With fewer, intervals come out narrower than they should: see `Summary.remark`."""

_BLOCK = 2_000_000  # weights of images that are looked at together
_BINS = 20  # of a histogram, about


class Interval(NamedTuple):
    """Where a number is likely to be, from the resampled drives."""

    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One kind of errors, as means over all images; one NaN makes a mean NaN.

    Attributes:
        errors: by the names of `metrics.DEPTH_METRICS`
        intervals: of these; empty where there is none
        by_distance: abs_rel in each range of `metrics.DISTANCES_M`, mean over the images with true
            depth there; NaN where there is no such image
    """

    errors: Mapping[str, float]
    intervals: Mapping[str, Interval]
    by_distance: tuple[float, ...]


@dataclass(frozen=True)
class Summary:
    """What an evaluation comes to.

    Attributes:
        protocol: a name in `metrics.PROTOCOLS`
        images: how many have errors
        drives: how many they are of
        left_out: names of images without true depth that counts
        unscaled: of predictions in metres
        scaled: of the same after median scaling
        scale_ratio: median over the images of the ratio of medians, truth over prediction
        scale_spread: deviation of that ratio, relative to its median
        scale_interval: of the median; None where there is none
        images_by_distance: how many have true depth in each range of `metrics.DISTANCES_M`
        facts: what was evaluated, as it is printed
        median_scaled: whether the scaled errors are those that were asked for
        resamples: of the drives, for the intervals
        seed: of these
    """

    protocol: str
    images: int
    drives: int
    left_out: tuple[str, ...]
    unscaled: Row
    scaled: Row
    scale_ratio: float
    scale_spread: float
    scale_interval: Interval | None
    images_by_distance: tuple[int, ...]
    facts: Mapping[str, str]
    median_scaled: bool
    resamples: int
    seed: int

    @property
    def asked(self) -> Row:
        """The errors that were asked for."""
        return self.scaled if self.median_scaled else self.unscaled

    @property
    def group(self) -> str:
        """What images are drawn from: those of Make3D are each of a place of its own."""
        return "place" if self.protocol == "make3d" else "drive"

    @property
    def remark(self) -> str:
        """What to know of the intervals, or why there is none."""
        group = self.group
        if self.drives < 2:
            return (
                f"no intervals: all images are of one {group}, so nothing says how {group}s differ"
            )
        text = (
            f"{LEVEL:.0%} intervals: bootstrap over the {self.drives} {group}s, "
            f"{self.resamples} resamples"
        )
        few = f"; too narrow, as they are with fewer than {FEW_DRIVES} {group}s"
        return text + few * (self.drives < FEW_DRIVES)


def summarise(result: DepthResult, resamples: int = RESAMPLES, seed: int = 0) -> Summary:
    """Return means, their intervals, and what there is to say of the scale.

    Args:
        result: the errors of each image
        resamples: how often as many drives as there are are drawn from them, with replacement
        seed: of the drawing; the same one gives the same intervals

    Raises:
        UserError: there is no image with errors
    """
    if not len(result):
        raise UserError(
            f"protocol {result.protocol}: no image has true depth that counts "
            f"({len(result.left_out)} have none): nothing can be compared"
        )
    names, drive = np.unique(np.asarray(result.drives), return_inverse=True)  # (D,), (N,)
    drawn = None
    if len(names) > 1:
        draw = np.random.default_rng(seed).multinomial
        drawn = draw(len(names), np.full(len(names), 1 / len(names)), resamples)  # (R, D)
    counts = _have_truth(result.by_distance, result.unscaled).sum(0)
    return Summary(
        protocol=result.protocol,
        images=len(result),
        drives=len(names),
        left_out=tuple(result.left_out),
        unscaled=_row(result.unscaled, result.by_distance, drive, drawn),
        scaled=_row(result.scaled, result.scaled_by_distance, drive, drawn),
        **_scale(result.ratio, drive, drawn),
        images_by_distance=tuple(counts.tolist()),
        facts=dict(result.facts),
        median_scaled=result.median_scaled,
        resamples=resamples,
        seed=seed,
    )


def _row(
    errors: np.ndarray, by_distance: np.ndarray, drive: np.ndarray, drawn: np.ndarray | None
) -> Row:
    """Return the means of errors (N, 7), of images from drives (N,), drawn so often (R, D)."""
    # Column by column: NumPy sums those more exactly, and as the validation of a training does.
    columns = np.ascontiguousarray(errors.T)
    means = {name: float(x.mean()) for name, x in zip(DEPTH_METRICS, columns, strict=True)}
    intervals = {}
    if drawn is not None:
        sums = np.stack([np.bincount(drive, x, drawn.shape[1]) for x in columns], 1)  # (D, 7)
        resampled = (drawn @ sums) / (drawn @ np.bincount(drive))[:, None]  # (R, 7)
        spans = map(_interval, resampled.T)
        intervals = dict(zip(DEPTH_METRICS, spans, strict=True))
    known = _have_truth(by_distance, errors)
    near_to_far = [
        float(x[here].mean()) if here.any() else math.nan
        for x, here in zip(by_distance.T, known.T, strict=True)
    ]
    return Row(means, intervals, tuple(near_to_far))


def _have_truth(by_distance: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return which images have true depth in which range (N, ranges).

    A NaN says that there is none, unless the whole image is NaN: then it is the prediction that
    says nothing, and must not seem good.
    """
    return ~np.isnan(by_distance) | np.isnan(errors[:, :1])


def _scale(ratio: np.ndarray, drive: np.ndarray, drawn: np.ndarray | None) -> dict[str, object]:
    """Return the scale's part of a summary."""
    with np.errstate(invalid="ignore"):  # of an infinite ratio, where depth is predicted as zero
        median = float(np.median(ratio))
        spread = float(ratio.std() / median)
        interval = None if drawn is None else _interval(_medians(ratio, drive, drawn))
    return {"scale_ratio": median, "scale_spread": spread, "scale_interval": interval}


def _medians(ratio: np.ndarray, drive: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return the median (R,) of the ratios (N,) of each set of drives that was drawn (R, D)."""
    if np.isnan(ratio).any():
        return np.full(len(drawn), math.nan)
    order = np.argsort(ratio)
    ordered, drive = ratio[order], drive[order]
    found = []
    step = max(1, _BLOCK // len(ratio))
    for first in range(0, len(drawn), step):
        up_to = drawn[first : first + step, drive].cumsum(1)  # (r, N) how many are not above each
        total = up_to[:, -1:]
        middle = [(up_to < rank).sum(1) for rank in ((total + 1) // 2, total // 2 + 1)]
        found.append((ordered[middle[0]] + ordered[middle[1]]) / 2)
    return np.concatenate(found)


def _interval(resampled: np.ndarray) -> Interval:
    """Return where the middle of the resampled values (R,) is."""
    tail = (1 - LEVEL) / 2
    return Interval(*np.quantile(resampled, (tail, 1 - tail)).tolist())


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often which ratio is found.

    Attributes:
        edges: (bins + 1) of the bins, all of one width
        counts: (bins) those below the first edge and above the last are in the end bins
        below, above: how many these are
        not_numbers: how many are in no bin
    """

    edges: np.ndarray
    counts: np.ndarray
    below: int
    above: int
    not_numbers: int

    @property
    def remark(self) -> str:
        """What the bins do not show; empty if there is nothing."""
        parts = []
        for count, where, edge, end in (
            (self.below, "below", self.edges[0], "first"),
            (self.above, "above", self.edges[-1], "last"),
        ):
            if count:
                parts.append(f"the {end} bin includes {count} {where} {edge:.4g}")
        if self.not_numbers:
            parts.append(f"{self.not_numbers} in no bin, since they are not numbers")
        return "; ".join(parts)


def histogram(ratio: np.ndarray) -> Histogram:
    """Sort ratios (N,) into about 20 bins of a round width, where most of them are.

    Bins reach to 1, the right scale, unless that is far off.
    """
    numbers = ratio[~np.isnan(ratio)]
    low, high = _most(numbers[np.isfinite(numbers)])
    towards = min(low, 1.0), max(high, 1.0)
    if towards[1] - towards[0] <= 3 * (high - low):
        low, high = towards
    step = round_step((high - low) / _BINS)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    edges = np.arange(first, last + 1) * step
    counts, _ = np.histogram(np.clip(numbers, edges[0], edges[-1]), edges)
    return Histogram(
        edges,
        counts,
        below=int((numbers < edges[0]).sum()),
        above=int((numbers > edges[-1]).sum()),
        not_numbers=len(ratio) - len(numbers),
    )


def round_step(least: float) -> float:
    """Return the least of 1, 2 and 5 times a power of ten that is not below a positive number."""
    power = 10.0 ** math.floor(math.log10(least))
    # As text, since 2 * 1e-1 and the like should be what a person would have written.
    return next(
        float(f"{factor * power:.0e}") for factor in (1, 2, 5, 10) if factor * power >= least
    )


def _most(numbers: np.ndarray) -> tuple[float, float]:
    """Return a range that outliers do not stretch, of finite numbers, perhaps none."""
    if not len(numbers):
        return 0.9, 1.1
    lower, upper = np.quantile(numbers, (0.25, 0.75)).tolist()
    reach = 2 * (upper - lower)
    low, high = max(numbers.min(), lower - reach), min(numbers.max(), upper + reach)
    least = max(0.02 * abs(lower + upper), 1e-6)  # so that equal numbers have a width
    widen = max(0.0, (least - (high - low)) / 2)
    return float(low - widen), float(high + widen)
