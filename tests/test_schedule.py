"""The learning rate over the steps: PyTorch's own schedules, and a warm-up."""

import math
from argparse import Namespace

import pytest
import torch

from training import schedule


def options(**changes):
    usual = {"scheduler": "step", "scheduler_step_size": 2, "num_epochs": 6, "warmup_steps": 0}
    return Namespace(**usual | changes)


def factors(steps_per_epoch, given):
    """Return the factor of every step of a training."""
    count = steps_per_epoch * given.num_epochs
    return [schedule.factor(step, steps_per_epoch, given) for step in range(count)]


def test_steps_are_those_of_pytorch_epoch_by_epoch():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    theirs = torch.optim.lr_scheduler.StepLR(optimizer, 2, schedule.DECAY)
    found = iter(factors(5, options()))
    for _ in range(6):
        for _ in range(5):
            assert next(found) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
            optimizer.step()
        theirs.step()


def test_a_cosine_is_that_of_pytorch_step_by_step():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30, schedule.LAST)
    for ours in factors(5, options(scheduler="cosine")):
        assert ours == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_a_cosine_falls_all_the_way_and_stays_down():
    given = options(scheduler="cosine")
    found = factors(7, given)
    assert found[0] == 1 and all(a > b for a, b in zip(found, found[1:], strict=False))
    assert schedule.factor(42, 7, given) == pytest.approx(schedule.LAST)
    assert schedule.factor(1000, 7, given) == pytest.approx(schedule.LAST)


@pytest.mark.parametrize("kind", ["step", "cosine"])
def test_it_warms_up_along_a_line(kind):
    cold, warm = options(scheduler=kind), options(scheduler=kind, warmup_steps=9)
    for step, (of_cold, of_warm) in enumerate(zip(factors(5, cold), factors(5, warm), strict=True)):
        assert of_warm == pytest.approx(of_cold * min(1, (step + 1) / 10))
    assert math.isclose(factors(5, warm)[9], factors(5, cold)[9])
