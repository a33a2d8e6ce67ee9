"""Colours mean what their legend says, and dots are where points are."""

from __future__ import annotations

import base64
import io
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import label

from evaluation import panels
from evaluation.panels import (
    as_jpeg,
    as_png,
    coloured_depth,
    coloured_error,
    depth_range,
    error_top,
)
from tests.depth_results import make_picture

MAGENTA = [255, 0, 255]


def opened(uri: str) -> np.ndarray:
    """Return the picture (H, W, 3) that an address is."""
    kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,([\w+/=]+)", uri).groups()
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    assert image.format == kind.upper()
    return np.asarray(image.convert("RGB"))


def colours_of(gradient: str) -> list[list[int]]:
    return [[*bytes.fromhex(stop)] for stop in re.findall("#([0-9a-f]{6})", gradient)]


# Colours


def test_near_is_red_and_far_is_blue_and_beyond_stays_the_same():
    near, far = coloured_depth(np.array([2.0, 80.0]), 2, 80).astype(int)
    assert near[0] > near[2] + 100 and far[2] > far[0] + 100
    outside = coloured_depth(np.array([0.1, 1000.0]), 2, 80)
    assert outside.tolist() == [near.tolist(), far.tolist()]


def test_depth_is_on_a_logarithmic_scale():
    depths = np.geomspace(2, 80, 224)
    colours = coloured_depth(depths, 2, 80)
    assert len(np.unique(colours, axis=0)) == 224  # each step is the next colour
    assert np.array_equal(coloured_depth(depths * 10, 20, 800), colours)


def test_errors_of_either_sign_have_colours_of_their_own_and_none_is_grey():
    near, right, far = coloured_error(np.array([-0.3, 0.0, 0.3]), 0.3).astype(int)
    assert near[2] > near[0] + 100 and far[0] > far[2] + 100
    assert right.tolist() == [240, 240, 240]
    assert coloured_error(np.array([-9.0, 9.0]), 0.3).tolist() == [near.tolist(), far.tolist()]


def test_what_is_no_number_is_magenta_and_no_number_is():
    values = np.array([math.nan, 1.0])
    for colours in (coloured_depth(values, 1, 80), coloured_error(values, 0.5)):
        assert colours[0].tolist() == MAGENTA
    all_depths = coloured_depth(np.geomspace(1, 80, 999), 1, 80)
    all_errors = coloured_error(np.linspace(-1, 1, 999), 1)
    assert not (np.concatenate([all_depths, all_errors]) == MAGENTA).all(-1).any()


def test_legends_show_the_colours_that_are_used():
    scale = panels.depth_scale(2, 80)
    colours = colours_of(scale.gradient)
    expected = coloured_depth(np.geomspace(2, 80, len(colours)), 2, 80)
    assert colours == expected.tolist()
    for place, text in scale.ticks:
        assert float(text.removesuffix(" m")) == pytest.approx(2 * 40**place, rel=0.01)
    assert [text for _, text in scale.ticks] == ["2 m", "5 m", "10 m", "20 m", "40 m", "80 m"]
    scale = panels.error_scale(0.3)
    colours = colours_of(scale.gradient)
    assert colours == coloured_error(np.linspace(-0.3, 0.3, len(colours)), 0.3).tolist()
    assert [place for place, _ in scale.ticks] == [0, 0.5, 1]
    assert "30%" in scale.ticks[0][1] and "too near" in scale.ticks[0][1]


def test_a_legend_of_a_small_range_has_numbers_too():
    scale = panels.depth_scale(6, 9)
    assert [text for _, text in scale.ticks] == ["6 m", "7.35 m", "9 m"]


def test_truth_and_prediction_share_a_range():
    picture = make_picture(factor=3)
    low, high = depth_range(picture)
    assert low == pytest.approx(3, rel=0.2) and high == pytest.approx(3 * 60 * 1.2, rel=0.2)


def test_only_what_counts_has_a_say_in_the_range():
    picture = make_picture()
    sky = picture.predicted_m.copy()
    sky[:10] = 1e5
    valid = picture.valid.copy()
    valid[:10] = False
    assert depth_range(replace(picture, predicted_m=sky, valid=valid))[1] < 100


def test_the_last_colour_of_an_error_suits_all_pictures():
    assert error_top([]) == error_top([make_picture()]) == 0.1
    assert error_top([make_picture(factor=1.25)]) == 0.3
    assert error_top([make_picture(factor=1.05), make_picture(factor=1.25)]) == 0.3
    assert error_top([make_picture(factor=40)]) == 1.0


# Panels


@pytest.mark.parametrize("share", [1.0, 0.3, 0.04])
def test_a_perfect_prediction_looks_like_its_truth_and_has_no_error(share):
    picture = make_picture(share=share, size=(240, 80))
    shown = {name: opened(uri) for name, uri in panels.panels(picture, 0.2).items()}
    assert list(shown) == ["image", "predicted", "truth", "error"]
    known = picture.valid
    difference = shown["truth"][known].astype(int) - shown["predicted"][known]
    assert np.abs(difference).mean() < 8  # of the JPEG
    assert (shown["error"][known] == 240).all()
    assert np.abs(picture.relative_error()).max() == 0


def test_relative_errors_by_hand_where_truth_counts():
    picture = make_picture(factor=1.25, share=0.5)
    errors = picture.relative_error()
    assert errors[picture.valid] == pytest.approx(0.25)
    assert (errors[~picture.valid] == 0).all()


def test_a_single_point_is_a_dot_that_can_be_seen():
    known = np.zeros((40, 60), bool)
    known[10, 20] = True
    colours = np.full((40, 60, 3), [200, 30, 40], np.uint8)
    ground = np.zeros((40, 60, 3), np.uint8)
    dots = (panels._dots(colours, known, ground) == [200, 30, 40]).all(-1)
    rows, columns = np.nonzero(dots)
    assert label(dots)[1] == 1 and 20 <= dots.sum() <= 40
    assert (rows.mean(), columns.mean()) == (10, 20)


def test_each_pixel_of_a_dot_has_the_colour_of_its_own_point():
    generator = np.random.default_rng(0)
    known = generator.random((60, 80)) < 0.03
    colours = generator.integers(1, 256, (60, 80, 3), np.uint8)
    shown = panels._dots(colours, known, np.zeros((60, 80, 3), np.uint8))
    assert np.array_equal(shown[known], colours[known])
    points = {tuple(colour) for colour in colours[known].tolist()}
    assert {tuple(colour) for colour in shown.reshape(-1, 3).tolist()} == points | {(0, 0, 0)}


def test_dense_truth_is_shown_as_it_is():
    known = np.random.default_rng(0).random((40, 60)) < 0.9
    colours = np.full((40, 60, 3), 200, np.uint8)
    shown = panels._dots(colours, known, np.zeros_like(colours))
    assert np.array_equal(shown[..., 0] == 200, known)


def test_without_any_truth_there_is_the_ground():
    picture = replace(make_picture(), truth_m=np.zeros((32, 64)), valid=np.zeros((32, 64), bool))
    shown = panels.panels(picture, error_top([picture]))
    assert (opened(shown["truth"]) == panels._GROUND).all()
    assert depth_range(picture) == (1, 80)


def test_a_prediction_that_is_no_number_is_seen():
    picture = make_picture()
    broken = picture.predicted_m.copy()
    broken[:, :32] = math.nan
    shown = panels.panels(replace(picture, predicted_m=broken), 0.2)
    predicted = opened(shown["predicted"])
    assert np.abs(predicted[:, :30].astype(int) - MAGENTA).max() < 20
    assert np.abs(predicted[:, 40:].astype(int) - MAGENTA).sum(-1).min() > 100
    assert (opened(shown["error"])[:, :32] == MAGENTA).all()


def test_an_image_of_another_size_than_its_truth_is_shown_with_it():
    image = np.full((100, 200, 3), 90, np.uint8)
    shown = panels.panels(replace(make_picture(), image=image), 0.2)
    assert opened(shown["image"]).shape == (100, 200, 3)
    assert opened(shown["error"]).shape == (32, 64, 3)


def test_a_grid_of_other_sides_than_its_image_is_shown_over_all_of_it():
    image = np.full((60, 120, 3), 90, np.uint8)
    for name in ("image", "predicted", "truth", "error"):
        shown = panels.panels(replace(make_picture(size=(70, 5)), image=image), 0.2)
        assert opened(shown[name]).shape == (60, 120, 3)


def test_a_sheet_has_all_views_at_the_size_of_the_image():
    image = np.full((96, 192, 3), 90, np.uint8)  # three times as large as the truth
    picture = replace(make_picture(share=0.5), image=image)
    sheet, shown = panels.sheet(picture, 0.2), panels.views(picture, 0.2)
    assert sheet.shape == (192, 384, 3) and sheet.dtype == np.uint8
    assert np.array_equal(sheet[:96, :192], image)
    for name, part in (
        ("predicted", sheet[:96, 192:]),
        ("truth", sheet[96:, :192]),
        ("error", sheet[96:, 192:]),
    ):
        assert np.array_equal(part[1::3, 1::3], shown[name])


def test_depths_of_different_sizes_and_images_of_other_types_are_refused():
    with pytest.raises(ValueError, match="drive_0 3 l: expected depths of one shape"):
        replace(make_picture(), predicted_m=np.ones((3, 4)))
    with pytest.raises(ValueError, match="uint8"):
        replace(make_picture(), image=np.ones((32, 64, 3)))


# Files within the page


def test_dots_are_kept_to_the_last_bit():
    generator = np.random.default_rng(0)
    few = generator.integers(0, 256, (256, 3), np.uint8)[generator.integers(0, 256, (50, 90))]
    uri = as_png(few)
    assert uri.startswith("data:image/png") and np.array_equal(opened(uri), few)


def test_photographs_are_kept_nearly():
    x, y = np.meshgrid(np.arange(250), np.arange(100))
    smooth = np.stack([x, y, 255 - y], -1).astype(np.uint8)
    uri = as_jpeg(smooth)
    assert uri.startswith("data:image/jpeg")
    assert np.abs(opened(uri).astype(int) - smooth).mean() < 3


def test_photographs_are_no_larger_than_they_can_be_seen_and_may_be_noise():
    wide = np.random.default_rng(0).integers(0, 256, (375, 1242, 3), np.uint8)
    assert opened(as_jpeg(wide)).shape == (333, 1104, 3)


@pytest.mark.parametrize("factor", [0.5, 1.3, math.nan])
def test_drawings_have_no_more_colours_than_a_palette(factor):
    picture = make_picture(size=(400, 120), share=0.3, factor=factor)
    picture.predicted_m[:, ::3] *= np.linspace(0.5, 2, 134)
    low, high = depth_range(picture)
    truth, error = panels._drawings(picture, low, high, 0.2)
    assert np.array_equal(opened(as_png(truth)), truth)
    assert np.array_equal(opened(as_png(error)), error)
