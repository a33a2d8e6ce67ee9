"""What an evaluation of depth found: the errors of every image, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from metrics import DEPTH_METRICS


@dataclass(frozen=True, eq=False)
class DepthResult:
    """The errors of N images under one protocol.

    Attributes:
        protocol: a name in `metrics.PROTOCOLS`
        names: of the images, `folder frame side` for those of a list
        drives: (N) what the images are drawn from: errors of one drive depend on each other
        unscaled: (N, 7) in the order of `metrics.DEPTH_METRICS`, of predictions in metres
        scaled: (N, 7) the same after median scaling
        ratio: (N,) of medians, truth over prediction: 1 where the scale is right
        by_distance: (N, ranges) abs_rel in the ranges of `metrics.DISTANCES_M`, NaN where no truth
        scaled_by_distance: the same after median scaling
        left_out: names of images without true depth that counts; they are in nothing above
        facts: what was evaluated: weights, resolution, and the like, as they are printed
        median_scaled: whether the scaled errors are those that were asked for: `--eval_mono`
    """

    protocol: str
    names: tuple[str, ...]
    drives: tuple[str, ...]
    unscaled: np.ndarray
    scaled: np.ndarray
    ratio: np.ndarray
    by_distance: np.ndarray
    scaled_by_distance: np.ndarray
    left_out: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    median_scaled: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def by_error(self) -> np.ndarray:
        """Return the images (N,) from the least abs_rel that was asked for to the largest.

        Those of one error keep their order; what is no number is the worst.
        """
        return np.argsort(self.errors[:, DEPTH_METRICS.index("abs_rel")], kind="stable")

    @property
    def errors(self) -> np.ndarray:
        """The errors (N, 7) that were asked for."""
        return self.scaled if self.median_scaled else self.unscaled
