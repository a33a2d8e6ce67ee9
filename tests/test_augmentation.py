"""A mirrored batch is a mirrored world, and colours change as torchvision changes them."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from scipy.stats import kstest
from torch.testing import assert_close

import layers
from datasets.augmentation import (
    Augmentation,
    draw_augmentation,
    jitter,
    mirror,
    prepare,
    pyramid,
)
from datasets.batch import STEREO, Batch, map_tensors
from datasets.image_noise import ImageNoise, disturb, draw_noise
from ekf.preintegration import camera_motion, mirror_motion, preintegrate
from liegroups import se3
from tests.samples import FRAMES, SIZE, make_sample, tensors
from tests.test_colours import ORDERS, one_by_one

WIDTH, HEIGHT = SIZE
MIRROR = torch.tensor([-1.0, 1, 1]).double()  # of the camera's axes
INDEX = torch.tensor([5, 900, 2, 31])
NOISES = [ImageNoise(), ImageNoise("bcsh"), ImageNoise("gg"), ImageNoise("mask", mask_num=2)]


def all_of(batch: int) -> torch.Tensor:
    return torch.ones(batch, dtype=torch.bool)


def some_of(batch: int) -> torch.Tensor:
    return torch.arange(batch) % 2 == 0


def augmentation_of(mirrored: torch.Tensor, jittered: torch.Tensor) -> Augmentation:
    batch = len(mirrored)
    strength = torch.rand(batch, 4) * torch.tensor([0.4, 0.4, 0.4, 0.2])
    strength = strength + torch.tensor([0.8, 0.8, 0.8, -0.1])
    return Augmentation(mirrored, jittered, ORDERS[torch.randint(24, (batch,))], strength)


def assert_equal(a, b) -> None:
    for x, y in zip(tensors(a), tensors(b), strict=True):
        assert x.dtype == y.dtype and torch.equal(x, y)


# What is drawn


def test_a_row_depends_on_seed_epoch_and_sample_alone():
    together = draw_augmentation(1, 2, INDEX)
    for turned, field in zip(draw_augmentation(1, 2, INDEX.flip(0)), together, strict=True):
        assert torch.equal(turned.flip(0), field)
    for i in range(len(INDEX)):
        for alone, field in zip(draw_augmentation(1, 2, INDEX[i : i + 1]), together, strict=True):
            assert torch.equal(alone[0], field[i])


def test_seeds_epochs_and_samples_all_differ():
    seen = []
    for seed in range(4):
        for epoch in range(4):
            seen += draw_augmentation(seed, epoch, torch.arange(20)).strength[:, 0].tolist()
    assert len(seen) == len(set(seen)) == 4 * 4 * 20


def test_draws_are_as_published():
    drawn = draw_augmentation(0, 0, torch.arange(4000))
    for choice in (drawn.mirrored, drawn.jittered, drawn.mirrored ^ drawn.jittered):
        assert abs(int(choice.sum()) - 2000) < 4 * 32  # four standard deviations
    for operation, (low, high) in enumerate([(0.8, 1.2)] * 3 + [(-0.1, 0.1)]):
        for jittered in (False, True):
            values = drawn.strength[drawn.jittered == jittered, operation]
            assert kstest(values.numpy(), "uniform", (low, high - low)).pvalue > 1e-3
    _, counts = drawn.order.unique(dim=0, return_counts=True)
    assert len(counts) == 24 and abs(counts - 4000 / 24).max() < 4 * 13
    assert drawn.strength.dtype == torch.float32 and drawn.order.dtype == torch.int64


# Mirror


def test_mirrored_measurements_integrate_to_the_mirrored_motion():
    mirrored = mirror(make_sample(dtype=torch.float64), some_of(3))
    for interval in mirrored.imu.values():
        motion = preintegrate(interval.dt, interval.gyro, interval.accel)
        for field, expected in vars(motion).items():
            assert_close(getattr(interval.preintegrated, field), expected, atol=1e-12, rtol=0)


def test_the_camera_of_a_mirrored_sample_moves_mirrored():
    sample = make_sample(dtype=torch.float64)
    mirrored = mirror(sample, all_of(3))
    velocity, gravity = torch.randn(2, 3, 3, dtype=torch.float64)
    for first, interval in sample.imu.items():
        T_c0_c1 = camera_motion(interval.preintegrated, interval.T_c_b, velocity, gravity)
        flipped = mirrored.imu[first]
        moved = camera_motion(
            flipped.preintegrated, flipped.T_c_b, MIRROR * velocity, MIRROR * gravity
        )
        assert_close(moved, mirror_motion(T_c0_c1), atol=1e-12, rtol=0)
        assert not torch.allclose(moved, T_c0_c1)


def test_mirrored_points_fall_on_mirrored_pixels():
    sample = make_sample(dtype=torch.float64)
    points_c = torch.randn(50, 3, dtype=torch.float64) + torch.tensor([0, 0, 8])
    K_mirrored = mirror(sample, all_of(3)).K[0]

    def pixels(points, K):
        projected = points @ K.T
        return projected[:, :2] / projected[:, 2:]

    u, v = pixels(points_c, sample.K[0]).unbind(1)
    expected = torch.stack([(WIDTH - 1) - u, v], 1)
    assert_close(pixels(MIRROR * points_c, K_mirrored), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("source", [-1, 1, STEREO])
def test_the_view_from_a_mirrored_sample_is_the_mirrored_view(source):
    """The last step before the losses: a source frame seen from the target."""
    sample = make_sample(dtype=torch.float64)
    velocity, gravity = torch.randn(2, 3, 3, dtype=torch.float64)

    def view(sample, velocity, gravity):
        if source == STEREO:
            T_source_c0 = sample.T_source_c0[STEREO]
        else:
            interval = sample.imu[min(source, 0)]
            motion = camera_motion(interval.preintegrated, interval.T_c_b, velocity, gravity)
            T_source_c0 = motion if source == -1 else se3.inverse(motion)
        points = layers.backproject(sample.depth[0], torch.linalg.inv(sample.K))
        grid, _ = layers.project(points, sample.K, T_source_c0, HEIGHT, WIDTH)
        return layers.warp(sample.image[source].double(), grid)

    seen = view(sample, velocity, gravity)
    flipped = view(mirror(sample, all_of(3)), MIRROR * velocity, MIRROR * gravity)
    assert_close(flipped.flip(-1), seen, atol=1e-8, rtol=0)
    assert seen.std() > 10  # gray values: a view out of the image would be mirrored anyway


def test_twice_is_the_identity():
    sample = make_sample()
    assert_equal(mirror(mirror(sample, some_of(3)), some_of(3)), sample)


def test_what_is_not_marked_stays_bit_by_bit_and_so_does_the_input():
    sample, untouched = make_sample(4), make_sample(4)
    for original, copy in zip(tensors(sample), tensors(untouched), strict=True):
        copy.copy_(original)
    mirrored = mirror(sample, some_of(4))
    everything = mirror(sample, all_of(4))
    assert_equal(sample, untouched)
    for got, recorded, flipped in zip(*map(tensors, (mirrored, sample, everything)), strict=True):
        assert torch.equal(got[1::2], recorded[1::2])
        assert torch.equal(got[::2], flipped[::2])


def test_what_does_not_know_left_from_right_stays():
    sample = make_sample()
    mirrored = mirror(sample, all_of(3))
    assert_equal([mirrored.index, mirrored.skipped], [sample.index, sample.skipped])
    for first, interval in sample.imu.items():
        for name in ("dt", "duration", "speed"):
            assert torch.equal(getattr(mirrored.imu[first], name), getattr(interval, name))


def test_a_sample_without_imu_stereo_and_depth_is_mirrored_too():
    sample = make_sample(frames=(0, 2))._replace(imu={}, depth={})
    mirrored = mirror(sample, all_of(3))
    assert (mirrored.imu, mirrored.T_source_c0, mirrored.depth) == ({}, {}, {})
    assert torch.equal(mirrored.image[2], sample.image[2].flip(-1))


# Jitter


def test_all_frames_of_a_sample_change_alike_and_as_in_torchvision():
    images = {frame: torch.rand(24, 3, 6, 10) * (0.4 + 0.2 * i) for i, frame in enumerate(FRAMES)}
    augmentation = augmentation_of(all_of(24), some_of(24))._replace(order=ORDERS)
    jittered = jitter(images, augmentation)
    assert list(jittered) == list(images)
    for frame, image in images.items():
        assert torch.equal(jittered[frame][1::2], image[1::2])
        changed = map(one_by_one, image[::2], ORDERS[::2], augmentation.strength[::2])
        assert_close(jittered[frame][::2], torch.stack(list(changed)), atol=1e-5, rtol=0)


def test_jitter_leaves_its_input_unchanged():
    images = {0: torch.rand(3, 3, 4, 4)}
    before = images[0].clone()
    assert not torch.equal(jitter(images, augmentation_of(all_of(3), all_of(3)))[0], before)
    assert torch.equal(images[0], before)


def test_without_a_jittered_sample_the_images_are_the_same_tensors():
    images = {0: torch.rand(3, 3, 4, 4)}
    assert jitter(images, augmentation_of(all_of(3), ~all_of(3)))[0] is images[0]


# Pyramid


def test_each_scale_has_the_means_of_squares():
    images = {frame: torch.rand(2, 3, 16, 24) for frame in FRAMES}
    levels = pyramid(images, (0, 1, 2, 3))
    assert list(levels) == [0, 1, 2, 3]
    for frame, image in images.items():
        assert levels[0][frame] is image
        for scale in (1, 2, 3):
            side = 2**scale
            squares = image.unflatten(3, (24 // side, side)).unflatten(2, (16 // side, side))
            assert_close(levels[scale][frame], squares.mean((3, 5)))


@pytest.mark.parametrize("scales", [(), (0,), (2,), (3, 1)])
def test_only_the_scales_asked_for_and_full_size_are_there(scales):
    levels = pyramid({0: torch.rand(2, 3, 16, 24)}, scales)
    assert list(levels) == sorted({0, *scales})
    for scale in levels:
        assert levels[scale][0].shape == (2, 3, 16 >> scale, 24 >> scale)


@pytest.mark.parametrize("size", [(12, 24), (16, 20)], ids=str)
def test_sizes_that_cannot_be_halved_are_named(size):
    with pytest.raises(ValueError, match=rf"divisible by 8 for scale 3, got {size[0]}x{size[1]}"):
        pyramid({0: torch.rand(1, 3, *size)}, (0, 3))


# All of it


def test_eight_bits_become_the_nearest_floats_from_zero_to_one():
    sample = make_sample(1, frames=(0,))
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 8, 32)
    image = prepare(sample._replace(image={0: values}), (0,)).image[0].flatten()
    assert torch.equal(image, (torch.arange(256).double() / 255).float())
    assert image[0] == 0 and image[-1] == 1


def test_without_augmentation_the_networks_see_the_recorded_images():
    sample = make_sample()
    batch = prepare(sample)
    for frame in FRAMES:
        assert batch.augmented[frame] is batch.image[frame] is batch.pyramid[0][frame]
        assert torch.equal(batch.image[frame], sample.image[frame] / 255)
    for name in ("K", "imu", "T_source_c0", "depth", "index", "skipped"):
        assert_equal(getattr(batch, name), getattr(sample, name))


def test_only_what_the_networks_see_is_jittered():
    sample, augmentation = make_sample(), augmentation_of(some_of(3), all_of(3))
    batch, mirrored = prepare(sample, (0, 1), augmentation), mirror(sample, some_of(3))
    images = {frame: image / 255 for frame, image in mirrored.image.items()}
    expected = Batch(images, jitter(images, augmentation), pyramid(images, (0, 1)), *mirrored[1:])
    assert_equal(batch, expected)
    assert not torch.equal(batch.augmented[0], batch.image[0])


@pytest.mark.parametrize("noise", NOISES[1:], ids=lambda noise: noise.kind)
def test_noise_is_in_what_the_camera_recorded(noise):
    sample, augmentation = make_sample(), augmentation_of(some_of(3), all_of(3))
    draw = draw_noise(noise, 0, 0, sample.index, FRAMES)
    batch = prepare(sample, (0, 1), augmentation, draw)
    clean = prepare(sample, (0, 1), augmentation)
    assert_equal(batch.image, disturb(clean.image, draw))
    assert_equal(batch.pyramid, pyramid(batch.image, (0, 1)))
    assert_equal(batch.augmented, jitter(batch.image, augmentation))


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.kind)
def test_nothing_asks_for_a_value_on_the_device(noise):
    """The meta device has shapes but no values: whatever looks at one is refused."""
    sample = make_sample(4)
    augmentation = augmentation_of(some_of(4), torch.tensor([True, True, False, True]))
    draw = draw_noise(noise, 0, 0, sample.index, FRAMES)
    batch = prepare(
        map_tensors(lambda tensor: tensor.to("meta"), sample), (0, 2), augmentation, draw
    )
    expected = prepare(sample, (0, 2), augmentation, draw)
    for without, with_values in zip(tensors(batch), tensors(expected), strict=True):
        assert without.device.type == "meta"
        assert (without.shape, without.dtype) == (with_values.shape, with_values.dtype)


@contextmanager
def no_waiting(device: torch.device):
    """Let whatever makes the host wait for a CUDA device raise."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.kind)
def test_every_device_gives_the_same(noise, device):
    sample = make_sample(4)
    augmentation = augmentation_of(some_of(4), torch.tensor([True, True, False, True]))
    draw = draw_noise(noise, 0, 0, sample.index, FRAMES)
    on_device = map_tensors(lambda tensor: tensor.to(device), sample)
    with no_waiting(device):
        batch = prepare(on_device, (0, 2), augmentation, draw)
    expected = prepare(sample, (0, 2), augmentation, draw)
    for got, wanted in zip(tensors(batch), tensors(expected), strict=True):
        assert got.device.type == device.type
        assert_close(got.cpu(), wanted, atol=1e-5, rtol=1e-5)
