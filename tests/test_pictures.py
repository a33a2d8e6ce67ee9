"""Pictures: the order of the colours, brightness that grows with the value, sizes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from training.pictures import coloured_disparity, coloured_error, coloured_mask, photograph

ALL = {
    "photograph": lambda x, size=None: photograph(x.expand(3, -1, -1), size),
    "disparity": coloured_disparity,
    "error": lambda x, size=None: coloured_error(x, 1.0, size),
    "mask": coloured_mask,
}
every_kind = pytest.mark.parametrize("draw", ALL.values(), ids=ALL)
RAMP = torch.linspace(0, 1, 256).reshape(1, 1, 256)


def brightness(picture):
    """Return how bright a person sees each pixel (ITU-R BT.601)."""
    return torch.tensor([0.299, 0.587, 0.114]) @ picture.float().flatten(1)


@every_kind
def test_a_picture_is_rgb_bytes_on_the_cpu(draw, device):
    values = torch.rand(1, 6, 8, device=device, requires_grad=True)
    picture = draw(values)
    assert picture.shape == (3, 6, 8) and picture.dtype == torch.uint8
    assert picture.device.type == "cpu" and not picture.requires_grad


@every_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_of_the_numbers_makes_no_difference(draw, dtype):
    values = torch.rand(1, 6, 8).to(dtype)
    assert torch.equal(draw(values), draw(values.float()))


@every_kind
def test_what_is_drawn_is_not_changed(draw):
    values = torch.rand(1, 6, 8)
    values[0, 0, 0] = torch.nan
    before = values.clone()
    draw(values, (4, 4))
    assert torch.equal(values.nan_to_num(9), before.nan_to_num(9))


@every_kind
@pytest.mark.parametrize("size", [(8, 6), (16, 12), (5, 3), (40, 2)])
def test_a_size_is_width_and_height_and_plain_areas_stay_plain(draw, size):
    for value in (0.0, 1.0):
        plain = torch.full((1, 6, 8), value)
        picture = draw(plain, size)
        assert picture.shape == (3, size[1], size[0])
        assert torch.equal(picture, draw(plain)[:, :1, :1].expand_as(picture))


@pytest.mark.parametrize("shape", [(2, 6, 8), (6, 8), (1, 3, 6, 8), (4, 6, 8)], ids=str)
def test_other_shapes_are_refused(shape):
    values = torch.rand(shape)
    with pytest.raises(ValueError, match=r"expected \(3, H, W\), got"):
        photograph(values)
    for draw in (coloured_disparity, ALL["error"], coloured_mask):
        with pytest.raises(ValueError, match=r"expected \(1, H, W\), got"):
            draw(values)


@every_kind
def test_a_larger_value_is_brighter(draw):
    seen = brightness(draw(RAMP))
    assert (seen.diff() > -2.5).all()  # bytes of three colours are rounded
    assert (seen[16:] - seen[:-16] > 0).all()
    assert seen[0] < 5 and seen[-1] > 200


def test_a_photograph_has_its_colours_in_place():
    image = torch.zeros(3, 2, 3)
    image[0, :, 0], image[1, :, 1], image[2, :, 2] = 1.0, 0.5, 0.25
    assert photograph(image)[:, 0].T.tolist() == [[255, 0, 0], [0, 128, 0], [0, 0, 64]]


def test_a_photograph_of_bytes_is_those_bytes():
    recorded = torch.randint(0, 256, (3, 9, 11), dtype=torch.uint8)
    assert torch.equal(photograph(recorded.float() / 255), recorded)


def test_a_photograph_is_clipped_not_wrapped():
    values = torch.tensor([-0.1, 1.2, torch.nan, torch.inf]).expand(3, 1, 4)
    assert photograph(values)[0, 0].tolist() == [0, 255, 0, 255]


def test_a_smaller_photograph_is_the_mean_of_what_it_covers():
    image = torch.rand(3, 8, 12)
    small = photograph(image, (1, 1))[:, 0, 0].float() / 255
    assert_close(small, image.mean((1, 2)), atol=0.1, rtol=0)
    stripes = (torch.arange(64) % 2).float().expand(3, 8, 64)
    assert (photograph(stripes, (16, 2)).float() - 127.5).abs().max() < 20


@pytest.mark.parametrize(
    "draw, colour_map",
    [(coloured_disparity, cv2.COLORMAP_MAGMA), (ALL["error"], cv2.COLORMAP_INFERNO)],
)
def test_colours_are_those_of_opencv_in_rgb(draw, colour_map):
    levels = np.arange(256, dtype=np.uint8)
    bgr = cv2.applyColorMap(levels[None], colour_map)[0]
    top = 255 / np.percentile(levels, 95) if draw is coloured_disparity else 1
    expected = bgr[np.minimum(np.rint(levels * top), 255).astype(int), ::-1]
    picture = draw(torch.from_numpy(levels).float()[None, None] / 255)
    assert np.abs(picture[:, 0].numpy().T.astype(int) - expected).max() <= 6  # half a level
    middle = picture[:, 0, 128].tolist()
    assert middle[0] > middle[2]  # reddish in the middle, not bluish


def test_a_disparity_is_drawn_in_its_own_unit():
    disp = torch.rand(1, 20, 30)
    assert torch.equal(coloured_disparity(disp), coloured_disparity(4 * disp))


def test_a_few_near_pixels_leave_the_rest_as_it_is():
    disp = torch.rand(1, 20, 30)
    disp.view(-1)[:30] = 1.0  # the nearest twentieth
    nearer = disp.clone()
    nearer.view(-1)[:20] = 1000.0
    assert torch.equal(coloured_disparity(nearer), coloured_disparity(disp))


def test_without_any_disparity_all_is_dark():
    for nothing in (torch.zeros(1, 4, 4), torch.full((1, 4, 4), torch.nan)):
        assert brightness(coloured_disparity(nothing)).max() < 5
    one_near = torch.zeros(1, 10, 10)
    one_near[0, 3, 4] = 1e-3
    seen = brightness(coloured_disparity(one_near))
    assert seen[34] > 200 and seen.sort().values[-2] < 5


def test_an_error_beyond_the_top_is_as_bright_as_the_top():
    error = torch.tensor([0.0, 0.5, 1.0, 2.0, torch.inf, torch.nan]).view(1, 1, -1)
    seen = coloured_error(error, top=1.0)[:, 0].T.tolist()
    assert seen[2] == seen[3] == seen[4] == seen[5] and len({*map(tuple, seen[:3])}) == 3
    assert torch.equal(coloured_error(10 * error, top=10.0), coloured_error(error, top=1.0))


@pytest.mark.parametrize("top", [0.0, -1.0, float("nan"), float("inf")])
def test_a_top_that_is_none_is_refused(top):
    with pytest.raises(ValueError, match="top: expected more than 0"):
        coloured_error(torch.zeros(1, 2, 2), top)


def test_a_mask_is_black_and_white_at_any_size():
    mask = torch.rand(1, 13, 17) > 0.5
    picture = coloured_mask(mask)
    assert torch.equal(picture, 255 * mask.byte().expand(3, -1, -1))
    for size in ((34, 26), (7, 5)):
        assert set(coloured_mask(mask, size).unique().tolist()) == {0, 255}
    mirrored = coloured_mask(mask.flip(2), (7, 5)).flip(2)
    assert torch.equal(mirrored, coloured_mask(mask, (7, 5)))
    doubled = mask.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(coloured_mask(mask, (34, 26)), coloured_mask(doubled))


def test_a_mask_that_counts_in_part_is_grey():
    assert coloured_mask(torch.full((1, 1, 1), 0.2)).flatten().tolist() == [51, 51, 51]
