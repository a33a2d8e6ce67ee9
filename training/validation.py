"""How good the models are on images that they are not trained on: losses, and errors of depth."""

from __future__ import annotations

from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

import metrics
from datasets.batch import Batch
from training.distributed import World, gather
from training.prediction import depth_in_metres
from training.step import Step
from training.views import enlarged

PROTOCOL_OF = {"kitti": "eigen", "kitti_odom": "eigen", "kitti_depth": "eigen_benchmark"}
"""How the depth of a dataset is compared: see `metrics.PROTOCOLS`."""

SCALED = "scaled/"
"""Begins the names of errors after median scaling, which hides what was learnt about metres."""

_RATIO = "ratio"  # of medians, truth over prediction: 1 where the scale is learnt


@torch.no_grad()
def validate(
    step: Step, batches: Iterable[Batch], with_filter: bool, world: World
) -> dict[str, float]:
    """Return the means over all samples of all processes, by name.

    Args:
        step: the models; they are in evaluation mode meanwhile
        batches: of this process, as recorded
        with_filter: whether the filter takes part
        world: all of its processes come here; each gets the same

    Returns:
        `loss/...`; where there is true depth, the names of `metrics.DEPTH_METRICS`, the same
        after median scaling, `scale_ratio` (median) and `scale_spread` (relative deviation)
    """
    values: dict[str, list[float]] = defaultdict(list)
    was_training = step.training
    step.eval()
    try:
        with _own_random_numbers(world.device):
            for batch in batches:
                terms, details = step(batch, with_filter)
                for name, term in terms.items():
                    values[f"loss/{name}"] += [term] * len(batch.K)
                if batch.depth:
                    depth = _predicted_depth(
                        details.prediction.finest_disparity, batch, step.options
                    )
                    for name, of_images in _depth_errors(batch, depth, step.options).items():
                        values[name] += of_images.unbind()
    finally:
        step.train(was_training)
    read = {name: torch.stack(numbers).tolist() for name, numbers in values.items() if numbers}
    return _summary(gather(read, world))


def selection_error(errors: dict[str, float], options: Namespace) -> float:
    """Return what the best models have least of: the error of depth, if its truth is known.

    Without IMU and stereo there are no metres to be learnt, and scaling is part of the task.
    """
    metric = options.use_imu or options.use_stereo
    name = "abs_rel" if metric else f"{SCALED}abs_rel"
    return errors.get(name, errors["loss/photometric"])


@contextmanager
def _own_random_numbers(device: torch.device) -> Iterator[None]:
    """Draw the same numbers every time, and none of those of the training.

    A training that goes on then does not depend on how often it was looked at, nor on where in a
    validation it was stopped.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(0)
        yield


def _predicted_depth(disparity: Tensor, batch: Batch, options: Namespace) -> Tensor:
    """Return depth [m] at the size of the truth; what is resized is disparity, as customary."""
    disparity = enlarged(disparity, options.height, options.width)
    resized = metrics.resize_disparity(disparity, batch.depth[0].shape[-2:])
    return depth_in_metres(resized, options)


def _depth_errors(batch: Batch, depth_m: Tensor, options: Namespace) -> dict[str, Tensor]:
    """Return the errors of each image with a point of truth in the crop, (n,) by name."""
    protocol = metrics.PROTOCOLS[PROTOCOL_OF[options.dataset]]
    truth_m = batch.depth[0]
    found = metrics.evaluate(truth_m, depth_m, protocol)
    known = metrics.valid_pixels(truth_m, protocol).flatten(1).any(1)
    scaled = {f"{SCALED}{name}": value for name, value in found.scaled.items()}
    both = found.unscaled | scaled | {_RATIO: found.ratio}
    return {name: value[known] for name, value in both.items()}


def _summary(processes: list[dict[str, list[float]]]) -> dict[str, float]:
    """Return the means; one NaN makes a mean NaN: models that say it must not seem good."""
    names = dict.fromkeys(name for process in processes for name in process)
    joined = {
        name: np.concatenate([process.get(name, []) for process in processes]) for name in names
    }
    ratio = joined.pop(_RATIO, None)
    summary = {name: float(of_images.mean()) for name, of_images in joined.items()}
    if ratio is not None:
        summary["scale_ratio"] = float(np.median(ratio))
        summary["scale_spread"] = float(ratio.std() / summary["scale_ratio"])
    return summary
