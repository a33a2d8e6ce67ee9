"""The atlas: all reductions of a texture are box means, and no two textures overlap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from datasets.synthetic.atlas import GRANULE, LEVELS, Atlas, Chart, ripmap

sides = st.integers(1, 3).map(lambda granules: granules * GRANULE)


def texture(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3))


def box_mean(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return the means of blocks of an image (H, W, 3)."""
    h, w = image.shape[0] // rows, image.shape[1] // columns
    return image.reshape(h, rows, w, columns, 3).mean((1, 3))


def starts(side: int) -> list[int]:
    """Return where each reduction begins along one direction: right behind the one before."""
    return [sum(side >> i for i in range(level)) for level in range(LEVELS)]


def rectangle(chart: Chart) -> tuple[slice, slice]:
    """Return what a texture and its reductions take up of the atlas."""
    return np.s_[
        chart.row : chart.row + 2 * chart.height, chart.column : chart.column + 2 * chart.width
    ]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 192), (256, 128)])
def test_every_reduction_is_a_box_mean_where_the_formula_says(height, width):
    image = texture(0, height, width)
    reductions, seen = ripmap(image), np.zeros((2 * height, 2 * width), int)
    assert reductions.shape == (2 * height, 2 * width, 3)
    for j, row in enumerate(starts(height)):
        for i, column in enumerate(starts(width)):
            assert (row, column) == (2 * height * (1 - 2**-j), 2 * width * (1 - 2**-i))
            mean = box_mean(image, 1 << j, 1 << i)
            place = np.s_[row : row + (height >> j), column : column + (width >> i)]
            assert_allclose(reductions[place], 255 * mean, atol=0.501)
            seen[place] += 1
    assert seen.max() == 1  # no reduction lies on another


def test_the_least_reduction_is_the_mean_of_each_granule():
    reductions = ripmap(np.full((GRANULE, GRANULE, 3), 0.6))
    assert starts(GRANULE)[-1] == 2 * GRANULE - 2
    assert_array_equal(reductions[2 * GRANULE - 2, 2 * GRANULE - 2], 153)


def test_colours_out_of_range_are_clipped_not_wrapped():
    assert_array_equal(ripmap(np.full((64, 64, 3), 1.2))[:64, :64], 255)
    assert_array_equal(ripmap(np.full((64, 64, 3), -0.2))[:64, :64], 0)


@settings(max_examples=20)
@given(st.lists(st.tuples(sides, sides), min_size=1, max_size=12))
def test_textures_on_a_page_never_overlap(sizes):
    atlas, taken = Atlas(2, 600, 700), np.zeros((1200, 700), int)
    page, placed = atlas.page(1), []
    for seed, (height, width) in enumerate(sizes):
        image = texture(seed, height, width)
        before = atlas.texels.copy()
        try:
            chart = page.add(image, tiles=seed % 2 == 1)
        except ValueError:
            assert_array_equal(atlas.texels, before)
            continue
        assert (chart.height, chart.width, chart.tiles) == (height, width, seed % 2 == 1)
        assert taken[rectangle(chart)].shape == (2 * height, 2 * width)  # within the atlas
        taken[rectangle(chart)] += 1
        placed.append((chart, ripmap(image)))
    assert taken.max(initial=0) <= 1
    assert not taken[:600].any()  # the other page
    for chart, reductions in placed:
        assert_array_equal(atlas.texels[rectangle(chart)], reductions)


def test_a_page_is_filled_to_its_last_texel_and_no_further():
    page = Atlas(1, 384, 256).page(0)
    charts = [page.add(texture(0, *size)) for size in ((64, 64), (128, 64), (64, 128))]
    assert [(chart.column, chart.row) for chart in charts] == [(0, 0), (128, 0), (0, 256)]
    with pytest.raises(ValueError, match="64 x 64 does not fit"):
        page.add(texture(3, 64, 64))


@pytest.mark.parametrize(("height", "width"), [(192, 64), (64, 192)])
def test_a_texture_larger_than_the_page_is_refused(height, width):
    with pytest.raises(ValueError, match=f"{width} x {height} does not fit"):
        Atlas(1, 256, 256).page(0).add(texture(0, height, width))


def test_a_page_can_be_filled_anew_and_leaves_the_others_alone():
    atlas = Atlas(3, 128, 128)
    for index in range(3):
        chart = atlas.page(index).add(texture(index, 64, 64))
        assert (chart.column, chart.row) == (0, 128 * index)
    before = atlas.texels.copy()
    assert atlas.page(1).add(texture(9, 64, 64)).row == 128
    assert_array_equal(atlas.texels[128:256], ripmap(texture(9, 64, 64)))
    assert_array_equal(atlas.texels[:128], before[:128])
    assert_array_equal(atlas.texels[256:], before[256:])


def test_look_up_interpolates_between_texel_centres_at_whole_places():
    atlas = Atlas(1, 128, 128)
    atlas.page(0).add(texture(0, 64, 64))
    columns, rows = np.meshgrid(np.arange(0, 60, 7.0), np.arange(3, 60, 11.0))
    texels = atlas.texels.astype(float)
    i, j = rows.astype(int), columns.astype(int)
    for right, down in [(0, 0), (0.5, 0), (0.25, 0.75)]:
        found = atlas.look_up(
            (columns + right).astype(np.float32), (rows + down).astype(np.float32)
        )
        upper = (1 - right) * texels[i, j] + right * texels[i, j + 1]
        lower = (1 - right) * texels[i + 1, j] + right * texels[i + 1, j + 1]
        assert_allclose(found, (1 - down) * upper + down * lower, atol=1.0)


@pytest.mark.parametrize(
    ("pages", "height", "width"), [(40, 2000, 20_000), (1, 64, 40_000), (1, 40_000, 64)]
)
def test_an_atlas_that_cannot_be_looked_up_is_refused(pages, height, width):
    with pytest.raises(ValueError, match="cannot be looked up"):
        Atlas(pages, height, width)
