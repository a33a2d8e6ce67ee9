"""The fronts of houses: windows are painted where the wall is hollow."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from datasets.synthetic import facades, ground, world
from datasets.synthetic.atlas import GRANULE, Atlas
from datasets.synthetic.plan import PIECE_M

SCALE = facades.TEXELS_PER_M
WIDTHS_M = (5.5, 6.3, 7.7, 9.4, 11.9, 14.0)
CASES = [
    (seed, width_m, floors)
    for seed, (width_m, floors) in enumerate(product(WIDTHS_M * 3, (2, 3, 4)))
]


@pytest.fixture(scope="module")
def painted() -> list[tuple[facades.Facade, int]]:
    """Fronts of all sizes, with their floors."""
    return [(facades.paint(np.random.default_rng(s), w, floors), floors) for s, w, floors in CASES]


def windows(niches) -> list[tuple[float, float, float, float]]:
    """Return left, top, right, bottom of each niche [texels]."""
    left, top, right, bottom = niches.box
    return [
        (x + left, y + top, x + right, y + bottom)
        for x in niches.first[0] + niches.pitch[0] * np.arange(niches.count[0])
        for y in niches.first[1] + niches.pitch[1] * np.arange(niches.count[1])
    ]


def test_a_front_has_the_size_that_was_asked_for(painted):
    for (facade, floors), (_, width_m, _) in zip(painted, CASES, strict=True):
        assert facade.width_m == width_m
        # As the plan reckons with for the shadow.
        assert facade.height_m == pytest.approx(3.7 + 2.9 * (floors - 1))
        height, width = facade.image.shape[:2]
        assert 0 <= height - facade.height_m * SCALE < GRANULE and height % GRANULE == 0
        assert 0 <= width - facade.width_m * SCALE < GRANULE and width % GRANULE == 0


def test_a_front_has_values_from_0_to_1(painted):
    for facade, _ in painted:
        assert np.isfinite(facade.image).all()
        assert facade.image.min() >= 0 and facade.image.max() <= 1
        assert facade.wall.shape == (3,) and facade.wall.min() > 0 and facade.wall.max() < 1


def test_niches_lie_in_their_cells_and_cells_in_the_wall(painted):
    for facade, floors in painted:
        assert facade.upper.count[1] == floors - 1 and facade.lower.count[1] == 1
        assert facade.upper.count[0] == facade.lower.count[0] >= 2
        for niches in (facade.upper, facade.lower):
            left, top, right, bottom = niches.box
            assert 0 < left < right < niches.pitch[0]
            assert 0 < top < bottom < niches.pitch[1]
            assert niches.pitch[0] * niches.count[0] == pytest.approx(facade.width_m * SCALE)
            assert 0.05 < niches.depth_m < 0.5
        middle = (facade.height_m - facades.GROUND_FLOOR_M) * SCALE
        upper_end = facade.upper.first[1] + facade.upper.count[1] * facade.upper.pitch[1]
        assert facade.upper.first[0] == facade.lower.first[0] == 0
        assert facade.upper.first[1] > 0 and abs(upper_end - middle) < 1
        assert abs(facade.lower.first[1] - middle) < 1
        bottom_m = facade.height_m - (facade.lower.first[1] + facade.lower.box[3]) / SCALE
        assert bottom_m > 0.3  # the sill


def test_a_window_is_as_large_as_a_window(painted):
    for facade, _ in painted:
        for niches in (facade.upper, facade.lower):
            left, top, right, bottom = np.array(niches.box) / SCALE
            assert 0.9 < right - left < 4 and 1.2 < bottom - top < 2.2
        bay_m = facade.upper.pitch[0] / SCALE
        assert 1.8 < bay_m < 4


@pytest.mark.parametrize("floor", ["upper", "lower"])
def test_the_border_of_a_pane_is_where_the_wall_becomes_hollow(painted, floor):
    """Across the sides of a niche the picture changes more than a little beside them."""

    def step(offset: int) -> float:
        changes = []
        for facade, _ in painted:
            for left, top, right, bottom in windows(getattr(facade, floor)):
                rows = slice(round(top) + 4, round(bottom) - 4)
                for column in (round(left) + offset, round(right) + offset):
                    outside, inside = facade.image[rows, column - 1], facade.image[rows, column]
                    changes.append(np.abs(outside - inside).mean())
        return float(np.mean(changes))

    assert step(0) > 1.5 * max(step(offset) for offset in (-2, -1, 1, 2))


@pytest.mark.parametrize("floor", ["upper", "lower"])
def test_the_top_of_a_pane_is_where_the_wall_becomes_hollow(painted, floor):
    def step(offset: int) -> float:
        changes = []
        for facade, _ in painted:
            for left, top, right, _ in windows(getattr(facade, floor)):
                columns, row = slice(round(left) + 4, round(right) - 4), round(top) + offset
                outside, inside = facade.image[row - 1, columns], facade.image[row, columns]
                changes.append(np.abs(outside - inside).mean())
        return float(np.mean(changes))

    assert step(0) > 1.5 * max(step(offset) for offset in (-2, -1, 1, 2))


def test_panes_are_darker_than_their_walls_and_have_contrast(painted):
    darker, contrast = [], []
    for facade, _ in painted:
        for left, top, right, bottom in windows(facade.upper):
            pane = facade.image[round(top) : round(bottom), round(left) : round(right)]
            darker.append(facade.wall.mean() - pane.mean())
            contrast.append(pane.mean(-1).std())
    assert np.mean(darker) > 0.05 and np.mean(np.array(darker) > 0) > 0.6
    assert min(contrast) > 0.03 and np.median(contrast) > 0.1


def test_between_its_windows_a_front_has_the_colour_of_its_wall(painted):
    for facade, _ in painted:
        column = round(facade.upper.pitch[0])  # between two bays
        rows = slice(round(facade.upper.first[1]) + 8, round(facade.lower.first[1]) - 8)
        strip = facade.image[rows, column - 3 : column + 3].mean((0, 1))
        assert np.abs(strip - facade.wall).max() < 0.2
        assert 0.5 < (strip / facade.wall).min() and (strip / facade.wall).max() < 1.5


def test_a_front_follows_from_its_seed():
    one, same, other = (facades.paint(np.random.default_rng(s), 9.0, 3) for s in (1, 1, 2))
    assert np.array_equal(one.image, same.image) and one.upper == same.upper
    assert one.image.shape == other.image.shape
    assert np.abs(one.image - other.image).mean() > 0.02


def test_all_fronts_and_the_ground_of_a_piece_fit_on_its_page():
    page = Atlas(1, *world._PAGE_SIZE).page(0)
    across, along = 2 * ground.HALF_WIDTH_M, PIECE_M
    page.add(np.zeros((round(across * SCALE), round(along * SCALE), 3), np.float32))
    largest = facades.paint(np.random.default_rng(0), 14.0, 4).image
    # Two on each side of the street; a page that is full raises.
    charts = [page.add(largest) for _ in range(4)]
    assert len({(chart.column, chart.row) for chart in charts}) == 4
