"""Worse images for studies of robustness, in training only: `--img_noise_type`.

Each image is disturbed by itself: the light changes between the images of a sample, and what covers
a part of one is elsewhere in the next. What is drawn depends on the seed, the epoch, the place in
the dataset and the frame alone; it stays on the CPU until it is used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets import colours
from datasets.batch import STEREO, Frame
from datasets.colours import factor_range, send
from datasets.text import DataError

CLEAN, COLOURS, TONES, SQUARES = KINDS = "clean", "bcsh", "gg", "mask"

_STREAM = 1  # apart from the augmentation's, which has no number behind the place in the dataset


@dataclass(frozen=True)
class ImageNoise:
    """How images are disturbed: the options `--img_noise_*` and `--img_mask_*`.

    Attributes:
        kind: "bcsh" changes the colours, "gg" gamma and gain, "mask" blackens squares
        brightness, contrast, saturation, gamma, gain: factors are within this of 1
        hue: changes are within this, as a fraction of the circle
        mask_num: how many squares an image has
        mask_size: their side, in pixels of the recorded image
        recorded_size: width and height of the recorded images [px]
    """

    kind: str = CLEAN
    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.5
    gamma: float = 0.5
    gain: float = 0.5
    mask_num: int = 1
    mask_size: float = 50.0
    recorded_size: tuple[int, int] = (1242, 375)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(
                f"--img_noise_type: expected one of {', '.join(KINDS)}, got {self.kind!r}"
            )
        for name in ("brightness", "contrast", "saturation", "gamma", "gain"):
            strength = getattr(self, name)
            if not 0 <= strength < math.inf:
                raise DataError(f"--img_noise_{name}: expected 0 or more, got {strength}")
        if not 0 <= self.hue <= 0.5:
            raise DataError(f"--img_noise_hue: expected 0 to 0.5, got {self.hue}")
        if self.mask_num < 1:
            raise DataError(f"--img_mask_num: expected 1 or more, got {self.mask_num}")
        if not 0 < self.mask_size < math.inf:
            raise DataError(f"--img_mask_size: expected more than 0, got {self.mask_size}")
        if self.kind == SQUARES and self.mask_size > min(self.recorded_size):
            width, height = self.recorded_size
            raise DataError(
                f"--img_mask_size: squares of {self.mask_size:g} pixels do not fit into images of "
                f"{width}x{height}"
            )


class Colours(NamedTuple):
    """Changes of one image of each sample, as `colours.adjust` takes them."""

    order: Tensor  # (B, 4) int64
    strength: Tensor  # (B, 4)


class Tones(NamedTuple):
    """The image becomes gain * image ** gamma."""

    gamma: Tensor  # (B,)
    gain: Tensor  # (B,)


class Squares(NamedTuple):
    """What is black. The image spans 0 to 1 both ways, from its first edge to its last."""

    left: Tensor  # (B, squares)
    top: Tensor  # (B, squares)
    width: float
    height: float


NoiseDraw = Mapping[Frame, Colours | Tones | Squares]
"""What was drawn for each frame; nothing for clean images."""


def draw_noise(
    noise: ImageNoise, seed: int, epoch: int, index: Tensor, frames: Iterable[Frame]
) -> NoiseDraw:
    """Draw the disturbance of each image of a batch.

    Args:
        noise: what kind, and how strong
        seed: zero or more, the same for the whole training
        epoch: counted from zero
        index: (B,) places in the dataset, on the CPU
        frames: of each sample; any order gives the same
    """
    if noise.kind == CLEAN:
        return {}
    draw = {COLOURS: _draw_colours, TONES: _draw_tones, SQUARES: _draw_squares}[noise.kind]
    places = index.tolist()

    def generators(frame: Frame) -> list[np.random.Generator]:
        key = _STREAM, _number(frame)
        return [np.random.default_rng([seed, epoch, place, *key]) for place in places]

    return {frame: draw(noise, generators(frame)) for frame in frames}


def disturb(images: Mapping[Frame, Tensor], draw: NoiseDraw) -> dict[Frame, Tensor]:
    """Return disturbed images.

    Args:
        images: (B, 3, H, W) from 0 to 1, on any device; unchanged
        draw: of `draw_noise` for these frames
    """
    if not draw:
        return dict(images)
    return {frame: _disturb(image, draw[frame]) for frame, image in images.items()}


def _disturb(image: Tensor, draw: Colours | Tones | Squares) -> Tensor:
    if isinstance(draw, Colours):
        return colours.adjust(image, *draw)
    if isinstance(draw, Tones):
        values = torch.stack(draw).to(image.dtype)
        gamma, gain = send(values, image.device)[..., None, None, None]  # (B, 1, 1, 1) each
        return image.pow(gamma).mul_(gain).clamp_(0, 1)
    return image * _visible(draw, *image.shape[-2:], like=image)


def _visible(squares: Squares, height: int, width: int, like: Tensor) -> Tensor:
    """Return the share (B, 1, H, W) of each pixel that no square covers.

    It is exact but in a pixel with parallel borders of two squares: each darkens what the other
    leaves.
    """
    corners = send(torch.stack([squares.left, squares.top]).to(like.dtype), like.device)
    left, top = corners.unsqueeze(-1)  # (B, squares, 1) each
    columns = _covered(left, squares.width, width).unsqueeze(2)  # (B, squares, 1, W)
    rows = _covered(top, squares.height, height).unsqueeze(3)  # (B, squares, H, 1)
    return (1 - rows * columns).prod(1, keepdim=True)


def _covered(begin: Tensor, length: float, pixels: int) -> Tensor:
    """Return the share (..., pixels) of each pixel of a line that an interval (..., 1) covers."""
    edge = torch.arange(pixels, dtype=begin.dtype, device=begin.device)
    first = torch.maximum(begin * pixels, edge)
    last = torch.minimum((begin + length) * pixels, edge + 1)
    return (last - first).clamp_min_(0)


def _draw_colours(noise: ImageNoise, generators: list[np.random.Generator]) -> Colours:
    factors = [factor_range(s) for s in (noise.brightness, noise.contrast, noise.saturation)]
    drawn = [colours.draw(g, (*factors, (-noise.hue, noise.hue))) for g in generators]
    order, strength = zip(*drawn, strict=True)
    return Colours(torch.tensor(np.stack(order)), _float32(strength))


def _draw_tones(noise: ImageNoise, generators: list[np.random.Generator]) -> Tones:
    low, high = np.transpose([factor_range(noise.gamma), factor_range(noise.gain)])
    return Tones(*_float32([g.uniform(low, high) for g in generators]).unbind(1))


def _draw_squares(noise: ImageNoise, generators: list[np.random.Generator]) -> Squares:
    size = noise.mask_size / np.array(noise.recorded_size)  # width, height
    shape = noise.mask_num, 2
    corners = _float32([g.uniform(0, 1 - size, shape) for g in generators])  # (B, squares, 2)
    return Squares(*corners.unbind(2), *size.tolist())


def _float32(rows: list[np.ndarray] | tuple[np.ndarray, ...]) -> Tensor:
    return torch.tensor(np.stack(rows), dtype=torch.float32)


def _number(frame: Frame) -> int:
    """Return a number that is zero or more, as seeds must be, and that no other frame has."""
    if frame == STEREO:
        return 0
    return 1 + 2 * abs(frame) - (frame < 0)
