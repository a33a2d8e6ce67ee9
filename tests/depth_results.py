"""Results of depth evaluations that nobody evaluated, and pictures that nobody took."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.panels import Picture
from evaluation.results import DepthResult
from metrics import DEPTH_METRICS

HOSTILE = "<script>alert(1)</script> \"quoted\" & 'so', =1+1 \u00e4\u6df1 {x} %s"
"""A name of a file that must be seen as it is."""


def make_result(sizes: Sequence[int] = (4, 3, 5), seed: int = 0, **changes: object) -> DepthResult:
    """Return errors of so many images of each drive; `changes` replace what a result has."""
    generator = np.random.default_rng(seed)
    images = sum(sizes)
    names = tuple(f"drive_{d} {i} l" for d, count in enumerate(sizes) for i in range(count))
    values = {
        "protocol": "eigen",
        "names": names,
        "drives": tuple(name.split()[0] for name in names),
        "unscaled": generator.uniform(0.1, 0.9, (images, 7)),
        "scaled": generator.uniform(0.1, 0.9, (images, 7)),
        "ratio": generator.uniform(0.8, 1.3, images),
        "by_distance": generator.uniform(0.1, 0.9, (images, 4)),
        "scaled_by_distance": generator.uniform(0.1, 0.9, (images, 4)),
        "left_out": ("drive_9 7 l",),
        "facts": {"weights": "runs/r18/models/weights_19", "network": "ResNet-18, 640x192"},
    }
    return DepthResult(**(values | changes))


def same_error(errors: Sequence[float]) -> np.ndarray:
    """Return (N, 7) errors, of which all seven are the same for an image."""
    return np.repeat(np.asarray(errors, float)[:, None], len(DEPTH_METRICS), 1)


def make_picture(
    title: str = "best",
    name: str = "drive_0 3 l",
    size: tuple[int, int] = (64, 32),
    factor: float = 1.0,
    share: float = 1.0,
) -> Picture:
    """Return a picture of a slope.

    Args:
        title, name: of it
        size: width, height [px]
        factor: predicted over true depth
        share: of the pixels that have true depth
    """
    generator = np.random.default_rng(0)
    width, height = size
    depth_m = np.geomspace(60, 3, height)[:, None] * np.linspace(1, 1.2, width)  # (h, w)
    known = generator.random((height, width)) < share
    return Picture(
        title=title,
        name=name,
        image=generator.integers(0, 256, (height, width, 3), np.uint8),
        predicted_m=depth_m * factor,
        truth_m=np.where(known, depth_m, 0),
        valid=known,
        errors=dict.fromkeys(DEPTH_METRICS, 0.125) | {"ratio": 1 / factor},
    )
