"""Procedural materials: values of a texture, tiles without a seam, contrast at any distance."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose

from datasets.synthetic import textures

SIDE = 256
SHAPE = (SIDE, SIDE)
MATERIALS = {
    "asphalt": textures.asphalt,
    "slabs": lambda rng, shape: textures.slabs(rng, shape, 16),
    "grass": textures.grass,
    "leaves": textures.leaves,
    "bark": textures.bark,
    "plaster": lambda rng, shape: textures.plaster(rng, shape, (0.8, 0.75, 0.6)),
    "bricks": lambda rng, shape: textures.bricks(rng, shape, (0.56, 0.3, 0.23)),
    "roof_tiles": textures.roof_tiles,
    "planks": textures.planks,
    "clouds": textures.cloud_cover,
}
TILED = ("grass", "leaves", "bark", "plaster", "roof_tiles", "planks", "clouds")
FLOORS = {  # of the deviation of the brightness, at reductions by 1, 2, 4, 8
    "asphalt": (0.02, 0.015, 0.012, 0.008),
    "slabs": (0.03, 0.02, 0.02, 0.012),
    "grass": (0.025, 0.02, 0.015, 0.01),
    "leaves": (0.06, 0.05, 0.04, 0.015),
    "bark": (0.03, 0.03, 0.02, 0.01),
    "plaster": (0.02, 0.02, 0.02, 0.015),
    "bricks": (0.03, 0.02, 0.015, 0.01),
    "roof_tiles": (0.03, 0.02, 0.015, 0.01),
    "planks": (0.04, 0.03, 0.025, 0.01),
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def seam(image: np.ndarray, axis: int) -> float:
    """Return the step from the last to the first texel over the largest between two lines."""
    steps = np.abs(np.diff(image, axis=axis, append=image.take([0], axis)))
    steps = steps.reshape(*image.shape[:2], -1).mean((1 - axis, 2))
    return steps[-1] / steps[:-1].max()


@pytest.mark.parametrize("name", MATERIALS)
@pytest.mark.parametrize("shape", [SHAPE, (128, 320), (640, 64)])
def test_a_material_is_an_image_of_values_from_0_to_1(name, shape):
    for seed in range(3):
        image = MATERIALS[name](rng(seed), shape)
        assert image.shape == (*shape, 3) and image.dtype == np.float32
        assert image.min() >= 0 and image.max() <= 1


@pytest.mark.parametrize("name", MATERIALS)
def test_a_material_follows_from_its_seed(name):
    one, same, other = (MATERIALS[name](rng(seed), SHAPE) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert np.abs(one - other).mean() > 0.004


@pytest.mark.parametrize("name", FLOORS)
def test_a_material_has_contrast_at_any_distance(name):
    image = MATERIALS[name](rng(5), SHAPE).mean(-1)
    for i, floor in enumerate(FLOORS[name]):
        size = SIDE >> i
        assert cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).std() > floor


@pytest.mark.parametrize("name", TILED)
@pytest.mark.parametrize("axis", [0, 1])
def test_what_objects_are_tiled_with_has_no_seam(name, axis):
    assert all(seam(MATERIALS[name](rng(seed), SHAPE), axis) < 1.4 for seed in range(5))


@pytest.mark.parametrize("waves", [(4,), (16,), (32,), (4, 8, 16), (16, 32, 64)])
def test_noise_has_mean_0_and_deviation_about_1(waves):
    drawn = np.stack([textures.noise(rng(seed), SHAPE, waves) for seed in range(20)])
    assert abs(drawn.mean()) < 0.12
    assert 0.8 < drawn.std() < 1.3
    assert drawn.dtype == np.float32


@pytest.mark.parametrize("waves", [(4,), (8, 32), (64,)])
@pytest.mark.parametrize("axis", [0, 1])
def test_noise_tiles_without_a_seam(waves, axis):
    assert all(seam(textures.noise(rng(seed), SHAPE, waves), axis) < 1.2 for seed in range(5))


@pytest.mark.parametrize("wave", [4, 8, 16, 32])
def test_noise_has_the_waves_asked_for_and_no_shorter_ones(wave):
    power = np.zeros(SHAPE)
    for seed in range(6):
        power += np.abs(np.fft.fft2(textures.noise(rng(seed), SHAPE, (wave,)))) ** 2
    power[0, 0] = 0
    frequency = np.abs(np.fft.fftfreq(SIDE))
    highest = np.maximum(frequency[:, None], frequency) * wave
    assert power[highest > 1].sum() < 1e-3 * power.sum()
    assert power[highest > 0.6].sum() < 0.04 * power.sum()
    assert power[highest > 0.3].sum() > 0.3 * power.sum()


def test_every_wave_of_noise_weighs_the_same():
    one, both = (textures.noise(rng(4), SHAPE, waves) for waves in ((8,), (8, 32)))
    coarse = both * np.sqrt(2) - one  # the same numbers are drawn for the first
    assert abs(np.corrcoef(coarse.ravel(), one.ravel())[0, 1]) < 0.1
    assert 0.7 < coarse.std() / one.std() < 1.4
    assert seam(coarse, 0) < 1.2 and np.abs(np.diff(coarse, axis=0)).max() < 0.5


def test_clouds_are_smooth():
    cover = textures.cloud_cover(rng(6), SHAPE)
    assert_allclose(cover, cover[..., :1].repeat(3, 2))
    assert np.abs(np.diff(cover, axis=0)).max() < 0.05
    assert np.abs(np.diff(cover, axis=1)).max() < 0.05
    assert cover.std() > 0.04


def test_masonry_repeats_its_courses():
    bricks, slabs, tiles = (MATERIALS[n](rng(7), SHAPE) for n in ("bricks", "slabs", "roof_tiles"))
    rows = bricks.mean((1, 2)).reshape(-1, 4).mean(0)
    assert rows.argmax() == 0 and rows[0] > rows[1:].max() + 0.02  # bright mortar
    for axis in (0, 1):
        lines = slabs.mean((1 - axis, 2)).reshape(-1, 16).mean(0)
        assert lines[:2].max() < lines[2:].min() - 0.05  # dark joints
    rows = tiles.mean((1, 2)).reshape(-1, 8).mean(0)
    assert rows[:2].max() < rows[2:].min() - 0.05  # the shadow of each row on the next


def test_every_second_course_of_bricks_is_shifted_by_half_a_brick():
    bricks = textures.bricks(rng(8), SHAPE, (0.5, 0.5, 0.5))[..., 0]
    steps = np.abs(np.diff(bricks, axis=1, append=bricks[:, :1]))
    course = np.arange(SIDE) // 4 % 2
    for odd in (0, 1):
        columns = steps[course == odd].mean(0)[:-1]
        ends = columns[7 - 4 * odd :: 8]
        assert ends.min() > 2 * np.delete(columns, np.s_[7 - 4 * odd :: 8]).max()


def test_boards_and_furrows_stand_upright():
    for name in ("planks", "bark"):
        image = MATERIALS[name](rng(9), SHAPE).mean(-1)
        assert np.abs(np.diff(image, axis=1)).mean() > 1.5 * np.abs(np.diff(image, axis=0)).mean()


def test_tinting_is_proportional():
    variation = np.array([[0.0, 0.5], [-0.5, -1.0]], np.float32)
    tinted = textures.tinted((0.2, 0.4, 0.8), variation)
    assert_allclose(tinted, (1 + variation[..., None]) * np.array([0.2, 0.4, 0.8]), rtol=1e-6)


def test_blending_paints_where_the_cover_is():
    under = rng().random((4, 5, 3)).astype(np.float32)
    before, over = under.copy(), rng(1).random((4, 5, 3))
    cover = np.zeros((4, 5), np.float32)
    cover[0], cover[1] = 1, 0.5
    textures.blend(under, over, cover)
    assert_allclose(under[0], over[0], rtol=1e-6)
    assert_allclose(under[1], (before + over)[1] / 2, rtol=1e-6)
    assert np.array_equal(under[2:], before[2:])


def test_writing_leaves_text_above_and_to_the_right_of_its_place():
    image = np.zeros((64, 96, 3), np.float32)
    textures.write(image, "30", (20, 40), 0.8, (1.0, 0.5, 0.0), 2)
    rows, columns = np.nonzero(image[..., 0])
    assert 18 <= columns.min() < columns.max() < 70 and 10 < rows.min() < rows.max() <= 42
    assert_allclose(image[..., 1], image[..., 0] / 2, atol=1e-6)
    assert not image[..., 2].any() and image.max() == 1
