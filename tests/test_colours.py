"""Colours of many images at once, against torchvision one image and one operation at a time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as oracle
from scipy.stats import kstest
from torch.testing import assert_close

from datasets import colours

ORDERS = torch.tensor(list(itertools.permutations(range(4))))  # (24, 4)
ADJUST = {
    colours.BRIGHTNESS: oracle.adjust_brightness,
    colours.CONTRAST: oracle.adjust_contrast,
    colours.SATURATION: oracle.adjust_saturation,
    colours.HUE: oracle.adjust_hue,
}
NEUTRAL = torch.tensor([1.0, 1, 1, 0])


def all_colours() -> torch.Tensor:
    """Return an image (3, 17, 289): grey, black, white, the pure colours and those in between."""
    levels = torch.linspace(0, 1, 17)
    return torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij")).flatten(2)


def nearly_grey() -> torch.Tensor:
    """Return an image (3, 17, 289) whose channels differ by one step of eight bits at most."""
    grey = torch.randint(1, 255, (1, 17, 289))
    return (grey + torch.randint(-1, 2, (3, 17, 289))) / 255


def one_by_one(image: torch.Tensor, order: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    for operation in order.tolist():
        image = ADJUST[operation](image, float(strength[operation]))
    return image


def random_strength(count: int) -> torch.Tensor:
    """Return strengths (count, 4) as wide as any option allows."""
    return torch.rand(count, 4) * torch.tensor([2.0, 2, 2, 1]) - torch.tensor([0, 0, 0, 0.5])


def test_every_order_agrees_with_torchvision(device):
    images = torch.stack([all_colours(), nearly_grey()] * 12)
    strength = random_strength(24)
    adjusted = colours.adjust(images.to(device), ORDERS, strength)
    expected = torch.stack(list(map(one_by_one, images, ORDERS, strength)))
    assert_close(adjusted.cpu(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "operation, strength",
    [
        *itertools.product(list(ADJUST)[:3], [0.0, 0.1, 1.0, 1.3, 5.0]),
        *((colours.HUE, shift) for shift in (-0.5, -0.1, 0.0, 1e-3, 0.1, 0.5)),
    ],
)
def test_each_operation_agrees_with_torchvision(operation, strength):
    images = torch.stack([all_colours(), nearly_grey()])
    change = NEUTRAL.clone()
    change[operation] = strength
    adjusted = colours.adjust(images, ORDERS[:2], change.expand(2, 4))
    for image, one in zip(images, adjusted, strict=True):
        assert_close(one, ADJUST[operation](image, strength), atol=1e-5, rtol=0)


def test_a_third_of_the_circle_turns_red_into_green_into_blue_and_keeps_grey():
    image = all_colours()
    strength = torch.tensor([[1, 1, 1, 1 / 3]])
    turned = colours.adjust(image[None], ORDERS[:1], strength)[0]
    assert_close(turned, image[[2, 0, 1]], atol=1e-6, rtol=0)
    grey = torch.rand(1, 1, 5, 5).expand(1, 3, 5, 5)
    assert torch.equal(colours.adjust(grey, ORDERS[:1], strength), grey)


def test_images_keep_their_places_and_know_nothing_of_each_other():
    images, order = torch.rand(9, 3, 4, 6), ORDERS[torch.randint(24, (9,))]
    strength = random_strength(9)
    together = colours.adjust(images, order, strength)
    for i in range(9):
        alone = colours.adjust(images[i : i + 1], order[i : i + 1], strength[i : i + 1])
        assert_close(together[i], alone[0], atol=1e-6, rtol=0)


def test_images_come_back_within_their_range_and_are_left_unchanged(dtype):
    images = all_colours().to(dtype).repeat(24, 1, 1, 1)
    before = images.clone()
    adjusted = colours.adjust(images, ORDERS, random_strength(24))
    assert torch.equal(images, before)
    assert adjusted.dtype == dtype
    assert adjusted.min() >= 0 and adjusted.max() <= 1


def test_no_change_is_none():
    images = torch.rand(24, 3, 8, 8)
    adjusted = colours.adjust(images, ORDERS, NEUTRAL.expand(24, 4))
    assert_close(adjusted, images, atol=1e-6, rtol=0)


def test_draws_are_uniform_and_so_are_their_orders():
    ranges = ((0.5, 1.5), (0.0, 3.0), (0.9, 1.1), (-0.2, 0.1))
    generator = np.random.default_rng(0)
    drawn = [colours.draw(generator, ranges) for _ in range(2400)]
    strength = np.stack([s for _, s in drawn])
    for column, (low, high) in zip(strength.T, ranges, strict=True):
        assert kstest(column, "uniform", (low, high - low)).pvalue > 1e-3
    _, counts = np.unique(np.stack([o for o, _ in drawn]), axis=0, return_counts=True)
    assert len(counts) == 24
    assert counts.min() > 100 - 4 * 10 and counts.max() < 100 + 4 * 10  # four standard deviations


@pytest.mark.parametrize("strength, expected", [(0, (1, 1)), (0.5, (0.5, 1.5)), (2, (0, 3))])
def test_factors_are_around_one_and_not_below_zero(strength, expected):
    assert colours.factor_range(strength) == expected
