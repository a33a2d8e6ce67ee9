"""Depth in colours: what is black, what is bright, and a legend whose numbers are right."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from evaluation.colour_map import coloured, nearest_of, side_by_side, ticks

MAGMA = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_MAGMA)[:, 0, ::-1]


def test_black_is_infinitely_far_and_what_is_nearest_or_nearer_is_as_bright_as_can_be():
    inverse = np.array([[0, 1e-9, 1 / 5, 1 / 4, 10]], np.float32)
    got = coloured(inverse, nearest_m=5)
    assert got.shape == (1, 5, 3) and got.dtype == np.uint8
    assert np.array_equal(got[0], MAGMA[[0, 0, 255, 255, 255]])
    assert MAGMA[0].sum() < 10 and MAGMA[255].min() > 150


def test_colours_are_linear_in_inverse_depth():
    shares = np.array([[0.2, 0.4, 0.6, 0.8]])
    assert np.array_equal(coloured(shares / 7, nearest_m=7)[0], MAGMA[[51, 102, 153, 204]])


def test_five_percent_of_an_image_are_as_bright_as_can_be():
    inverse = 1 / np.linspace(2, 50, 10_000).reshape(100, 100)
    nearest = nearest_of(inverse)
    assert np.mean(1 / inverse < nearest) == pytest.approx(0.05, abs=1e-3)


def test_the_image_stands_beside_its_depth_unchanged():
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    inverse = np.full((70, 90), 0.1, np.float32)
    got = side_by_side(image, inverse, 10)
    assert got.shape == (70, 180, 3)
    assert np.array_equal(got[:, :90], image)
    assert np.array_equal(got[:, 90:], coloured(inverse, 10))  # too small for a legend


ROUND_M = [step * 10**k for k in (1, 2, 3) for step in (1, 1.5, 2, 3, 4, 5, 6, 7, 8)]
LEVELS = {tuple(colour): level for level, colour in enumerate(MAGMA.tolist())}


@pytest.mark.parametrize("size", [(96, 96), (128, 416), (375, 1242), (1080, 1920), (2000, 100)])
def test_the_legend_is_a_bar_of_all_colours_at_the_right_with_ticks_where_they_belong(size):
    height, width = size
    black = np.zeros((*size, 3), np.uint8)
    depths = side_by_side(black, np.zeros(size), nearest_m=8.7)[:, width:]
    assert not (depths[:, : width // 3] - MAGMA[0]).any()  # nothing there but what is far
    columns = [list(map(tuple, column.tolist())) for column in depths.transpose(1, 0, 2)]
    first = next(x for x, column in enumerate(columns) if len(set(column) & set(LEVELS)) > 20)
    bar = {y: LEVELS[colour] for y, colour in enumerate(columns[first]) if colour in LEVELS}
    assert len(set(bar.values())) > min(200, height // 2)
    assert list(bar.values()) == sorted(bar.values())  # the nearest is at the bottom
    ticked = [y for y, colour in enumerate(columns[first - 2]) if colour == (255, 255, 255)]
    assert ticked
    for y in ticked:
        shares = (bar[y] - 2) / 255, (bar[y] + 2) / 255
        between = 8.7 / shares[1], 8.7 / max(shares[0], 1e-9)
        assert any(between[0] <= depth <= between[1] for depth in ROUND_M)


@pytest.mark.parametrize("nearest", [0.013, 1.0, 4.9, 9.99, 250.0])
@pytest.mark.parametrize("gap", [0.02, 0.07, 0.3])
def test_ticks_are_round_where_they_belong_and_apart(nearest, gap):
    found = ticks(nearest, gap)
    assert found
    for depth, place in found:
        assert place == pytest.approx(nearest / depth) and 0 < place < 1
        digits = f"{depth:.12g}".replace(".", "").strip("0")
        assert len(digits) == 1 or digits == "15"
    places = [place for _, place in found]
    assert all(a - b >= gap for a, b in zip(places, places[1:], strict=False))
