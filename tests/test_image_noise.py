"""Disturbed images: against torchvision, and against blackening at full size before resizing."""

from __future__ import annotations

import pytest
import torch
import torchvision.transforms.functional as oracle
from scipy.stats import kstest
from torch import Tensor
from torch.testing import assert_close

from datasets.augmentation import draw_augmentation
from datasets.batch import STEREO
from datasets.image_noise import ImageNoise, Squares, Tones, disturb, draw_noise
from datasets.text import DataError
from tests.samples import FRAMES
from tests.test_colours import one_by_one

DISTURBING = ["bcsh", "gg", "mask"]
INDEX = torch.tensor([3, 141, 59])


def make_images(height: int = 12, width: int = 20) -> dict:
    return {frame: torch.rand(len(INDEX), 3, height, width) for frame in FRAMES}


def numbers(drawn) -> list[Tensor]:
    """Return what was drawn for each sample (B, ...), without what is the same for all."""
    return [field for field in drawn if isinstance(field, Tensor)]


# What is drawn


@pytest.mark.parametrize("kind", DISTURBING)
def test_a_draw_depends_on_seed_epoch_sample_and_frame_alone(kind):
    noise = ImageNoise(kind, mask_num=2)
    draw = draw_noise(noise, 1, 2, INDEX, FRAMES)
    turned = draw_noise(noise, 1, 2, INDEX.flip(0), FRAMES[::-1])
    alone = draw_noise(noise, 1, 2, INDEX[1:2], [-1])
    for frame in FRAMES:
        for a, b in zip(numbers(draw[frame]), numbers(turned[frame]), strict=True):
            assert torch.equal(a, b.flip(0))
    for a, b in zip(numbers(draw[-1]), numbers(alone[-1]), strict=True):
        assert torch.equal(a[1:2], b)


@pytest.mark.parametrize("kind", DISTURBING)
def test_seeds_epochs_samples_and_frames_all_differ(kind):
    frames = [STEREO, 0, -1, 1, -2, 2, -3]
    seen = []
    for seed in range(3):
        for epoch in range(3):
            draw = draw_noise(ImageNoise(kind), seed, epoch, torch.arange(4), frames)
            for drawn in draw.values():
                seen += numbers(drawn)[-1].reshape(4, -1)[:, 0].tolist()
    assert len(seen) == len(set(seen)) == 3 * 3 * 4 * len(frames)


def test_noise_is_drawn_apart_from_the_augmentation():
    """From the same stream, the first number would both mirror a sample and darken its image."""
    index = torch.arange(1000)
    mirrored = draw_augmentation(1, 2, index).mirrored
    for drawn in draw_noise(ImageNoise("gg"), 1, 2, index, FRAMES).values():
        together = int((mirrored == (drawn.gamma < 1)).sum())
        assert abs(together - 500) < 4 * 16  # four standard deviations


def test_strengths_are_uniform_within_their_options():
    index = torch.arange(1000)
    noise = ImageNoise("bcsh", brightness=0.3, contrast=1.5, saturation=0.1, hue=0.25)
    strength = draw_noise(noise, 0, 0, index, [0])[0].strength
    bounds = [(0.7, 1.3), (0, 2.5), (0.9, 1.1), (-0.25, 0.25)]
    tones = draw_noise(ImageNoise("gg", gamma=0.4, gain=2), 0, 0, index, [0])[0]
    drawn = [*strength.unbind(1), tones.gamma, tones.gain]
    for values, (low, high) in zip(drawn, [*bounds, (0.6, 1.4), (0, 3)], strict=True):
        assert kstest(values.numpy(), "uniform", (low, high - low)).pvalue > 1e-3


def test_squares_are_spread_over_the_image_and_wholly_inside():
    noise = ImageNoise("mask", mask_num=3, mask_size=60, recorded_size=(400, 100))
    squares = draw_noise(noise, 0, 0, torch.arange(400), [0])[0]
    assert (400 * squares.width, 100 * squares.height) == pytest.approx((60, 60))
    assert squares.left.shape == squares.top.shape == (400, 3)
    for values, room in ((squares.left, 0.85), (squares.top, 0.4)):
        assert kstest(values.flatten().numpy(), "uniform", (0, room)).pvalue > 1e-3


# What is done with it


@pytest.mark.parametrize("kind", DISTURBING)
def test_images_are_left_unchanged_and_come_back_within_their_range(kind, device):
    images = {frame: image.to(device) for frame, image in make_images().items()}
    before = {frame: image.clone() for frame, image in images.items()}
    noise = ImageNoise(kind, 3, 3, 3, 0.5, 3, 3, recorded_size=(200, 120))
    disturbed = disturb(images, draw_noise(noise, 0, 0, INDEX, FRAMES))
    assert list(disturbed) == list(FRAMES)
    for frame in FRAMES:
        assert torch.equal(images[frame], before[frame])
        assert not torch.equal(disturbed[frame], before[frame])
        assert disturbed[frame].min() >= 0 and disturbed[frame].max() <= 1


def test_clean_images_are_the_same_tensors():
    images = make_images()
    clean = disturb(images, draw_noise(ImageNoise(), 0, 0, INDEX, FRAMES))
    assert all(clean[frame] is images[frame] for frame in FRAMES)


def test_each_image_has_colours_of_its_own_as_torchvision_gives_them():
    images = make_images()
    draw = draw_noise(ImageNoise("bcsh"), 0, 0, INDEX, FRAMES)
    disturbed = disturb(images, draw)
    for frame, image in images.items():
        expected = torch.stack(list(map(one_by_one, image, *draw[frame])))
        assert_close(disturbed[frame], expected, atol=1e-5, rtol=0)


def test_gamma_and_gain_agree_with_torchvision():
    images = {0: torch.linspace(0, 1, 240).view(1, 3, 8, 10).repeat(4, 1, 1, 1)}
    draw = {0: Tones(torch.tensor([0, 0.5, 1, 2.5]), torch.tensor([0.8, 1.5, 1, 0.0]))}
    expected = torch.stack(
        [
            oracle.adjust_gamma(image, float(gamma), float(gain))
            for image, gamma, gain in zip(images[0], *draw[0], strict=True)
        ]
    )
    assert_close(disturb(images, draw)[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [1, 7, 12, 13])
def test_squares_are_those_of_the_recorded_image_resized(size):
    """Pixels of the network are 4x3 recorded ones, whose borders the squares do not keep to."""
    images = torch.rand(len(INDEX), 3, 10, 20)
    recorded = images.repeat_interleave(4, 3).repeat_interleave(3, 2)  # (3, 3, 30, 80)
    left = torch.tensor([[0, 50], [11, 35], [80 - size, 3]])  # (3, 2), far from each other
    top = torch.tensor([[0, 9], [7, 5], [30 - size, 14]])
    for i in range(len(INDEX)):
        for x, y in zip(left[i].tolist(), top[i].tolist(), strict=True):
            recorded[i, :, y : y + size, x : x + size] = 0
    expected = recorded.unflatten(3, (20, 4)).unflatten(2, (10, 3)).mean((3, 5))
    draw = {0: Squares(left / 80, top / 30, size / 80, size / 30)}
    assert_close(disturb({0: images}, draw)[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("left, top", [([2.0, 3.0], [2.0, 2.0]), ([2.5, 0.0], [0.0, 2.5])])
def test_squares_that_overlap_are_black_once(left, top):
    quarters = torch.ones(1, 1, 16, 16)  # of the pixels
    for x, y in zip(left, top, strict=True):
        quarters[..., int(2 * y) : int(2 * y) + 8, int(2 * x) : int(2 * x) + 8] = 0
    expected = quarters.unflatten(3, (8, 2)).unflatten(2, (8, 2)).mean((3, 5)).expand(1, 3, 8, 8)
    draw = {0: Squares(torch.tensor([left]) / 8, torch.tensor([top]) / 8, 0.5, 0.5)}
    assert torch.equal(disturb({0: torch.ones(1, 3, 8, 8)}, draw)[0], expected)


def test_a_square_is_as_large_as_the_option_says_at_the_networks_resolution():
    images = {frame: torch.ones(len(INDEX), 3, 192, 640) for frame in FRAMES}
    draw = draw_noise(ImageNoise("mask"), 0, 0, INDEX, FRAMES)
    expected_px = 50 * 640 / 1242 * 50 * 192 / 375
    for image in disturb(images, draw).values():
        black_px = (1 - image.double()).sum((2, 3))  # (B, 3)
        assert_close(black_px, torch.full_like(black_px, expected_px), rtol=1e-4, atol=0)


# Options


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"kind": "fog"}, "--img_noise_type: expected one of clean, bcsh, gg, mask, got 'fog'"),
        ({"brightness": -0.1}, "--img_noise_brightness: expected 0 or more, got -0.1"),
        ({"contrast": float("nan")}, "--img_noise_contrast: expected 0 or more, got nan"),
        ({"saturation": float("inf")}, "--img_noise_saturation: expected 0 or more, got inf"),
        ({"gamma": -1}, "--img_noise_gamma: expected 0 or more, got -1"),
        ({"gain": -1}, "--img_noise_gain: expected 0 or more, got -1"),
        ({"hue": 0.6}, "--img_noise_hue: expected 0 to 0.5, got 0.6"),
        ({"hue": -0.1}, "--img_noise_hue: expected 0 to 0.5, got -0.1"),
        ({"mask_num": 0}, "--img_mask_num: expected 1 or more, got 0"),
        ({"mask_size": 0}, "--img_mask_size: expected more than 0, got 0"),
        (
            {"kind": "mask", "mask_size": 376},
            "--img_mask_size: squares of 376 pixels do not fit into images of 1242x375",
        ),
    ],
)
def test_an_impossible_option_is_named(fields, message):
    with pytest.raises(DataError) as error:
        ImageNoise(**fields)
    assert str(error.value) == message


def test_the_largest_square_fills_the_height():
    noise = ImageNoise("mask", mask_size=30, recorded_size=(60, 30))
    squares = draw_noise(noise, 0, 0, INDEX, [0])[0]
    assert (squares.top == 0).all() and squares.height == 1


def test_only_images_that_get_squares_have_to_be_large_enough():
    assert ImageNoise("gg", recorded_size=(40, 30)).mask_size == 50
