"""How the learning rate goes over the steps of a training."""

from __future__ import annotations

import math
from argparse import Namespace

DECAY = 0.1
"""What `--scheduler_step_size` epochs multiply the learning rate by, as published."""

LAST = 0.01
"""What a cosine leaves of the learning rate at the last step."""


def factor(step: int, steps_per_epoch: int, options: Namespace) -> float:
    """Return what the learning rate is multiplied by.

    Args:
        step: taken so far, from 0
        steps_per_epoch: with which epochs are counted
        options: of `options.train`
    """
    warm = min(1.0, (step + 1) / (options.warmup_steps + 1))
    if options.scheduler == "step":
        return warm * DECAY ** (step // steps_per_epoch // options.scheduler_step_size)
    done = min(1.0, step / (steps_per_epoch * options.num_epochs))
    return warm * (LAST + (1 - LAST) * (1 + math.cos(math.pi * done)) / 2)
