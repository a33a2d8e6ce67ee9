"""Procedural materials: images (H, W, 3) float32 with values in 0..1.

Most are fractal: a learner finds contrast in them at any distance, and coarse contrast beside the
fine, in which alone it would lose its way. Sides are multiples of 64 texels, and what is made of
noise alone can be laid side by side without a seam.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Colour = Sequence[float] | np.ndarray


def noise(rng: np.random.Generator, shape: tuple[int, int], waves: Sequence[int]) -> np.ndarray:
    """Return smooth noise (H, W) of mean 0 and deviation 1.1 to 1.2 that tiles.

    Args:
        rng: where chance comes from
        shape: sides, multiples of all waves
        waves: lengths [texels], powers of two; each weighs the same
    """
    total = np.zeros(shape, np.float32)
    for wave in waves:
        cells = max(shape[0] // wave, 1), max(shape[1] // wave, 1)
        values = np.pad(rng.standard_normal(cells, np.float32), 2, mode="wrap")
        fine = cv2.resize(values, None, fx=wave, fy=wave, interpolation=cv2.INTER_CUBIC)
        total += fine[2 * wave :, 2 * wave :][: shape[0], : shape[1]]
    return total / np.float32(0.75 * len(waves) ** 0.5)


def tinted(colour: Colour, variation: np.ndarray) -> np.ndarray:
    """Return a colour made lighter and darker by (H, W) parts of itself."""
    return np.asarray(colour, np.float32) * (1 + variation[..., None])


def blend(under: np.ndarray, over: Colour, cover: np.ndarray) -> None:
    """Paint a colour, or an image, onto another (H, W, 3) where cover (H, W) is 1."""
    under += cover[..., None] * (np.asarray(over, np.float32) - under)


def asphalt(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return grey asphalt with stains."""
    grain = 0.09 * noise(rng, shape, (4, 8, 16)) + 0.05 * noise(rng, shape, (32, 64))
    return tinted((0.34, 0.34, 0.355), grain)


def slabs(rng: np.random.Generator, shape: tuple[int, int], size: int) -> np.ndarray:
    """Return a pavement of square slabs [texels] with dark joints."""
    rows, columns = np.arange(shape[0]) // size, np.arange(shape[1]) // size
    each = rng.uniform(-0.12, 0.12, (rows[-1] + 1, columns[-1] + 1)).astype(np.float32)
    stone = each[rows][:, columns] + 0.06 * noise(rng, shape, (4, 16, 64))
    joint = (np.arange(shape[0]) % size < 2)[:, None] | (np.arange(shape[1]) % size < 2)
    return tinted((0.56, 0.54, 0.51), stone - np.float32(0.3) * joint)


def grass(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return a meadow."""
    green = tinted((0.30, 0.39, 0.17), 0.13 * noise(rng, shape, (4, 8, 16)))
    dry = np.clip(0.35 * noise(rng, shape, (16, 32, 64)), 0, 0.6)
    blend(green, (0.45, 0.43, 0.25), dry)
    return green


def leaves(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return foliage: clumps with dark gaps."""
    clumps = noise(rng, shape, (4, 8)) + 0.6 * noise(rng, shape, (16, 32))
    green = tinted((0.40, 0.50, 0.21), 0.20 * clumps)
    blend(green, (0.09, 0.13, 0.05), np.clip(-1.3 * clumps - 0.35, 0, 0.9))
    blend(green, (0.60, 0.66, 0.34), np.clip(0.8 * clumps - 0.9, 0, 0.6))
    return np.clip(green, 0, 1)


def bark(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return bark, furrowed along the rows' direction."""
    furrows = _drawn_out(noise(rng, (16, shape[1]), (4, 8, 16)), shape[0])
    furrows = 0.25 * furrows + 0.10 * noise(rng, shape, (8, 32))
    return np.clip(tinted((0.36, 0.30, 0.24), furrows), 0, 1)


def _drawn_out(image: np.ndarray, rows: int) -> np.ndarray:
    """Return an image that tiles, stretched along its columns to this many rows; it still tiles."""
    times = rows // len(image)
    padded = np.pad(image, ((1, 1), (0, 0)), mode="wrap")
    return cv2.resize(padded, None, fx=1, fy=times)[times:-times]


def plaster(rng: np.random.Generator, shape: tuple[int, int], colour: Colour) -> np.ndarray:
    """Return a rendered wall with stains that run down."""
    stains = 0.035 * noise(rng, shape, (4, 8)) + 0.045 * noise(rng, shape, (16, 32, 64))
    streaks = _drawn_out(noise(rng, (8, shape[1]), (8, 32)), shape[0])
    return np.clip(tinted(colour, stains + 0.04 * streaks), 0, 1)


def bricks(rng: np.random.Generator, shape: tuple[int, int], colour: Colour) -> np.ndarray:
    """Return brickwork, courses of 4 by 8 texels."""
    rows = np.arange(shape[0]) // 4
    columns = (np.arange(shape[1]) + 4 * (rows % 2)[:, None]) // 8
    each = rng.uniform(-0.22, 0.22, (rows[-1] + 1, columns.max() + 1)).astype(np.float32)
    stone = each[rows[:, None], columns] + 0.05 * noise(rng, shape, (16, 64))
    joint = (np.arange(shape[0]) % 4 == 0)[:, None]
    return np.clip(tinted(colour, stone + np.float32(0.12) * joint), 0, 1)


def roof_tiles(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return rows of clay tiles, 8 by 8 texels."""
    curve = np.abs(np.sin(np.arange(shape[1]) * np.pi / 8)) - 0.6
    edge = np.arange(shape[0]) % 8 < 2
    each = rng.uniform(-0.1, 0.1, (shape[0] // 8, shape[1] // 8))
    each = np.kron(each, np.ones((8, 8)))
    tile = each + 0.15 * curve - 0.25 * edge[:, None] + 0.08 * noise(rng, shape, (16, 64))
    return np.clip(tinted((0.52, 0.27, 0.19), tile.astype(np.float32)), 0, 1)


def planks(rng: np.random.Generator, shape: tuple[int, int], width: int = 8) -> np.ndarray:
    """Return upright boards."""
    column = np.arange(shape[1])
    each = rng.uniform(-0.2, 0.2, shape[1] // width + 1)[column // width]
    gap = np.where(column % width == 0, -0.6, 0)
    wood = (each + gap).astype(np.float32) + 0.08 * noise(rng, shape, (8, 32))
    return np.clip(tinted((0.47, 0.36, 0.25), wood), 0, 1)


def cloud_cover(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return how much cloud there is, smooth: the sky is where a learner finds little."""
    cover = 0.5 + 0.16 * noise(rng, shape, (32, 64, 128))
    return np.repeat(np.clip(cover, 0, 1)[..., None], 3, 2)


def write(
    image: np.ndarray, text: str, at: tuple[int, int], scale: float, colour: Colour, weight: int
) -> None:
    """Write into an image; `at` is the lower left of the text, column and row."""
    cover = np.zeros(image.shape[:2], np.uint8)
    cv2.putText(cover, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, weight, cv2.LINE_AA)
    blend(image, colour, cover.astype(np.float32) / 255)
