"""Augmentation of a whole batch on its device, from the recorded `Sample` to the `Batch`.

What is drawn for a sample depends on the seed, the epoch and its place in the dataset alone: not on
its batch, the worker or the process. It stays on the CPU until it is used, so the host, which has
to know which images to change, never waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datasets import colours
from datasets.batch import Batch, Frame, ImuInterval, Sample, map_tensors
from datasets.colours import send
from datasets.image_noise import NoiseDraw, disturb
from ekf import preintegration

# As published, by Monodepth2 and all that follow it.
MIRROR_PROBABILITY = 0.5
JITTER_PROBABILITY = 0.5
JITTER: colours.Ranges = ((0.8, 1.2), (0.8, 1.2), (0.8, 1.2), (-0.1, 0.1))
"""Brightness, contrast and saturation as factors, hue as a fraction of the circle."""

SCALES = 0, 1, 2, 3


class Augmentation(NamedTuple):
    """What was drawn for each sample of a batch, on the CPU."""

    mirrored: Tensor  # (B,) bool
    jittered: Tensor  # (B,) bool
    order: Tensor  # (B, 4) int64, permutations of the operations; the first is done first
    strength: Tensor  # (B, 4) float32, by operation: factors, and hue as a fraction of the circle


def draw_augmentation(seed: int, epoch: int, index: Tensor) -> Augmentation:
    """Draw the augmentation of a batch.

    Args:
        seed: zero or more, the same for the whole training
        epoch: counted from zero
        index: (B,) places in the dataset, on the CPU
    """
    rows = []
    for place in index.tolist():
        generator = np.random.default_rng([seed, epoch, place])
        mirrored, jittered = generator.random(2) < (MIRROR_PROBABILITY, JITTER_PROBABILITY)
        rows.append((mirrored, jittered, *colours.draw(generator, JITTER)))
    mirrored, jittered, order, strength = (np.stack(column) for column in zip(*rows, strict=True))
    return Augmentation(
        torch.from_numpy(mirrored),
        torch.from_numpy(jittered),
        torch.from_numpy(order),
        torch.from_numpy(strength).float(),
    )


def prepare(
    sample: Sample,
    scales: Sequence[int] = SCALES,
    augmentation: Augmentation | None = None,
    noise: NoiseDraw | None = None,
) -> Batch:
    """Turn a collated sample into what the training step sees.

    Args:
        sample: on the device; unchanged
        scales: of the pyramid, zero or more each; scale 0 is the image itself
        augmentation: mirrors samples, and changes the colours that the networks see
        noise: of `image_noise.draw_noise`: worsens what the camera recorded, so both `image` and
            `augmented` have it
    """
    if augmentation is not None:
        sample = mirror(sample, augmentation.mirrored)
    image = {frame: recorded / 255 for frame, recorded in sample.image.items()}
    image = disturb(image, noise or {})
    augmented = dict(image) if augmentation is None else jitter(image, augmentation)
    return Batch(
        image=image,
        augmented=augmented,
        pyramid=pyramid(image, scales),
        K=sample.K,
        imu=sample.imu,
        T_source_c0=sample.T_source_c0,
        depth=sample.depth,
        index=sample.index,
        skipped=sample.skipped,
    )


def mirror(sample: Sample, mirrored: Tensor) -> Sample:
    """Flip some samples of a batch: their images, and all that has to go with a flipped image.

    Args:
        sample: on any device; unchanged
        mirrored: (B,) bool, on the CPU
    """
    mirrored = send(mirrored, sample.K.device)

    def choose(flipped: Tensor, recorded: Tensor) -> Tensor:
        return torch.where(mirrored.view(-1, *[1] * (recorded.ndim - 1)), flipped, recorded)

    width = next(iter(sample.image.values())).shape[-1]
    return sample._replace(
        image=map_tensors(lambda image: choose(image.flip(-1), image), sample.image),
        K=choose(_mirror_K(sample.K, width), sample.K),
        imu={
            first: ImuInterval(*map(choose, _mirror_interval(interval), interval))
            for first, interval in sample.imu.items()
        },
        T_source_c0=map_tensors(
            lambda T: choose(preintegration.mirror_motion(T), T), sample.T_source_c0
        ),
        depth=map_tensors(lambda depth: choose(depth.flip(-1), depth), sample.depth),
    )


def jitter(images: Mapping[Frame, Tensor], augmentation: Augmentation) -> dict[Frame, Tensor]:
    """Change the colours of some samples, those of all frames of a sample alike.

    Args:
        images: (B, 3, H, W) from 0 to 1, on any device; unchanged
        augmentation: of these samples
    """
    chosen = augmentation.jittered.nonzero().squeeze(1)  # (n,), on the CPU
    if not len(chosen):
        return dict(images)
    rows = send(chosen, next(iter(images.values())).device)
    changed = colours.adjust(
        torch.cat([image.index_select(0, rows) for image in images.values()]),
        augmentation.order[chosen].repeat(len(images), 1),
        augmentation.strength[chosen].repeat(len(images), 1),
    ).split(len(chosen))
    return {
        frame: image.index_copy(0, rows, part)
        for (frame, image), part in zip(images.items(), changed, strict=True)
    }


def pyramid(
    images: Mapping[Frame, Tensor], scales: Sequence[int]
) -> dict[int, dict[Frame, Tensor]]:
    """Halve images (B, 3, H, W) again and again by means of 2x2 pixels.

    Returns:
        by scale, of those asked for and 0: (B, 3, H / 2^scale, W / 2^scale); at 0 the tensors
        given
    """
    deepest = max(scales, default=0)
    for frame, image in images.items():
        height, width = image.shape[-2:]
        if height % 2**deepest or width % 2**deepest:
            raise ValueError(
                f"images: expected height and width divisible by {2**deepest} for scale {deepest}, "
                f"got {height}x{width} for frame {frame!r}"
            )
    levels = {0: dict(images)}
    for scale in range(1, deepest + 1):
        finer = levels[scale - 1]
        levels[scale] = map_tensors(lambda image: F.avg_pool2d(image, 2), finer)
    return {scale: levels[scale] for scale in sorted({0, *scales})}


def _mirror_K(K: Tensor, width: int) -> Tensor:
    """Return the intrinsics (B, 3, 3) of flipped images: cx' = (W - 1) - cx; they have no skew."""
    flipped = K.clone()
    flipped[:, 0, 2] = (width - 1) - K[:, 0, 2]
    return flipped


def _mirror_interval(interval: ImuInterval) -> ImuInterval:
    gyro, accel, T_c_b = preintegration.mirror(interval.gyro, interval.accel, interval.T_c_b)
    motion = interval.preintegrated.mirrored()
    return interval._replace(
        gyro=gyro,
        accel=accel,
        rotation=motion.rotation,
        position=motion.position,
        velocity=motion.velocity,
        T_c_b=T_c_b,
    )
