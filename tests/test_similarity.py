"""Laws of structural similarity, with scikit-image and with the formula written plainly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torch.autograd import gradcheck
from torch.testing import assert_close

import similarity
from similarity import dissimilarity, ssim_loss, ssim_statistics


def test_ssim_of_equal_images_is_no_loss_exactly(dtype, device):
    x = torch.rand(2, 3, 8, 9, dtype=dtype, device=device)
    assert torch.equal(ssim_loss(x, x.clone()), torch.zeros_like(x))


def test_ssim_agrees_with_scikit_image_inside_the_border():
    x, y = torch.rand(2, 2, 3, 12, 15, dtype=torch.float64)
    loss = ssim_loss(x, y)
    for b, c in np.ndindex(2, 3):
        _, ssim = structural_similarity(
            *(x[b, c].numpy(), y[b, c].numpy()),
            win_size=3,
            data_range=1,
            use_sample_covariance=False,
            full=True,
        )
        expected = torch.from_numpy((1 - ssim) / 2).clamp(0, 1)
        assert_close(loss[b, c, 1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-12, rtol=0)


def test_ssim_mirrors_at_the_border():
    x, y = torch.rand(2, 1, 1, 6, 7, dtype=torch.float64)
    padded = [
        torch.from_numpy(np.pad(i[0, 0].numpy(), 1, mode="reflect"))[None, None] for i in (x, y)
    ]
    assert_close(ssim_loss(*padded)[..., 1:-1, 1:-1], ssim_loss(x, y))


def test_ssim_is_symmetric_bounded_and_worst_for_opposites():
    x, y = torch.rand(2, 2, 3, 8, 9)
    assert_close(ssim_loss(x, y), ssim_loss(y, x))
    board = (torch.arange(8)[:, None] + torch.arange(9)[None]).remainder(2).float()[None, None]
    worst = ssim_loss(board, 1 - board)
    assert 0.9 < worst.min() <= worst.max() <= 1


def plain_dissimilarity(x, y, ssim_weight, l1_weight):
    """Return the formula as it is usually written; autograd gives its gradient."""

    def mean(image):
        padded = F.pad(image.flatten(0, -4), (1, 1, 1, 1), mode="reflect")
        return F.avg_pool2d(padded, 3, stride=1).view(image.shape)

    y = y.expand_as(x)
    mean_x, mean_y = mean(x), mean(y)
    covariance = mean(x * y) - mean_x * mean_y
    variances = mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2
    numerator = (2 * mean_x * mean_y + 1e-4) * (2 * covariance + 9e-4)
    ssim = numerator / ((mean_x**2 + mean_y**2 + 1e-4) * (variances + 9e-4))
    error = ssim_weight * (1 - ssim) / 2 + l1_weight * (x - y).abs()
    return error.mean(-3, keepdim=True)


@pytest.mark.parametrize("numbers", [1, 2 * 3 * 7 * 9, 10**9], ids=["one", "two", "all"])
@pytest.mark.parametrize("sources", [(), (1,), (3,)], ids=str)
def test_dissimilarity_and_its_gradients_are_those_of_the_formula(sources, numbers, monkeypatch):
    monkeypatch.setattr(similarity, "_CACHED_NUMBERS", numbers)  # one, two, all images in a block
    x = torch.rand(*sources, 5, 3, 7, 9, dtype=torch.float64, requires_grad=True)
    y = torch.rand(5, 3, 7, 9, dtype=torch.float64, requires_grad=True)
    got = dissimilarity(x, y, 0.85, 0.15)
    expected = plain_dissimilarity(x, y, 0.85, 0.15)
    assert_close(got, expected, atol=1e-13, rtol=0)
    weight = torch.randn_like(expected)
    for inputs in [(x, y), (x,), (y,)]:
        assert_close(
            torch.autograd.grad((weight * got).sum(), inputs, retain_graph=True),
            torch.autograd.grad((weight * expected).sum(), inputs, retain_graph=True),
            atol=1e-12,
            rtol=0,
        )


@pytest.mark.parametrize("size", [(2, 2), (3, 2), (2, 4), (4, 3)], ids=str)
def test_gradient_of_dissimilarity_down_to_the_smallest_images(size):
    x = torch.rand(2, 1, 2, *size, dtype=torch.float64, requires_grad=True)
    y = torch.rand(1, 2, *size, dtype=torch.float64, requires_grad=True)
    assert gradcheck(dissimilarity, (x, y, 0.85, 0.15))
    assert gradcheck(ssim_loss, (x, y))
    assert gradcheck(ssim_loss, (y.detach().clone().requires_grad_(), y))  # equal: singular


def test_equal_images_give_no_gradient():
    x = torch.rand(1, 3, 6, 7, requires_grad=True)
    dissimilarity(x, x.detach().clone(), 0.85, 0.15).sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_statistics_stand_for_their_image():
    x, y = torch.rand(2, 2, 3, 6, 7)
    y.requires_grad_()
    statistics = ssim_statistics(y)
    kept = [each.detach().clone() for each in statistics]
    from_image, from_statistics = ssim_loss(x, y), ssim_loss(x, statistics)
    assert torch.equal(from_image, from_statistics)
    gradient, other = (torch.autograd.grad(r.sum(), y)[0] for r in (from_image, from_statistics))
    assert torch.equal(gradient, other) and gradient.any()
    assert all(torch.equal(a, b) for a, b in zip(statistics, kept, strict=True))
    assert not statistics.total.requires_grad and not statistics.spread.requires_grad


def test_several_sources_are_as_good_as_one_by_one():
    x, y = torch.rand(3, 2, 3, 6, 7), torch.rand(2, 3, 6, 7)
    assert_close(ssim_loss(x, y), torch.stack([ssim_loss(each, y) for each in x]))


def test_images_that_lie_otherwise_in_memory_give_the_same():
    x, y = torch.rand(2, 2, 3, 6, 7)
    expected = dissimilarity(x, y, 1, 1)
    for turn in (lambda i: i.to(memory_format=torch.channels_last), lambda i: i.mT.clone().mT):
        x_turned = turn(x).requires_grad_()
        got = dissimilarity(x_turned, turn(y), 1, 1)
        assert torch.equal(got, expected)
        got.mean().backward()  # of a gradient that is one number, expanded
        plain = turn(x).requires_grad_()
        plain_dissimilarity(plain, y, 1, 1).mean().backward()
        assert_close(x_turned.grad, plain.grad, atol=1e-6, rtol=1e-4)


def test_in_float32_small_differences_keep_their_digits():
    x = 0.3 + 0.4 * torch.rand(1, 3, 12, 15)
    y = x + 1e-3 * torch.randn_like(x)
    exact = plain_dissimilarity(x.double(), y.double(), 1, 0)
    assert_close(dissimilarity(x, y, 1, 0).double(), exact, atol=0, rtol=1e-3)


def test_a_pixel_that_is_nan_is_lost_with_its_window_alone():
    x, y = torch.rand(2, 2, 3, 6, 7)
    for row, column in [(2, 6), (3, 0), (5, 6), (1, 1)]:
        broken = x.clone()
        broken[0, 1, row, column] = torch.nan
        lost = torch.zeros(2, 1, 6, 7, dtype=torch.bool)
        lost[0, 0, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
        assert torch.equal(dissimilarity(broken, y, 0.85, 0.15).isnan(), lost)


def test_compiled_code_may_call_it():
    x, y = torch.rand(2, 1, 3, 6, 7, requires_grad=True), torch.rand(1, 3, 6, 7)

    def loss(x, y):
        return 2 * dissimilarity(x.sin(), ssim_statistics(y), 0.85, 0.15).sum()

    seen = []

    def backend(graph, _):
        seen.extend(node for node in graph.graph.nodes if node.op.startswith("call"))
        return graph.forward

    value = torch.compile(loss, backend=backend)(x, y)
    assert 0 < len(seen) < 10  # the sums over windows would be hundreds
    assert_close(value, loss(x, y))
    assert_close(torch.autograd.grad(value, x), torch.autograd.grad(loss(x, y), x))


def test_images_of_other_types_and_dimensions_are_refused():
    image = torch.rand(1, 3, 4, 5)
    with pytest.raises(ValueError, match="y: expected torch.float32 as x, got torch.float64"):
        ssim_loss(image, image.double())
    with pytest.raises(ValueError, match=r"x: expected shape \(B, C, H, W\) or \(N, B"):
        ssim_loss(image[0], image[0])


# All functions alike


def calls(dtype=torch.float32):
    """Return every function of tensors with arguments that fit it."""
    image = torch.rand(2, 3, 6, 8, dtype=dtype)
    return {
        "ssim_statistics": (image,),
        "ssim_loss": (image, image.flip(-1)),
        "dissimilarity": (image, image.flip(-1), 0.85, 0.15),
    }


@pytest.mark.parametrize("name", calls())
def test_types_batch_of_one_and_untouched_inputs(name, dtype):
    arguments = calls(dtype)[name]
    images = [a for a in arguments if isinstance(a, torch.Tensor)]
    before = [image.clone() for image in images]
    result = getattr(similarity, name)(*arguments)
    assert all(torch.equal(a, b) for a, b in zip(images, before, strict=True))
    first = getattr(similarity, name)(*(image[:1] for image in images), *arguments[len(images) :])
    parts = zip(*(r if isinstance(r, tuple) else (r,) for r in (result, first)), strict=True)
    for whole, one in parts:
        assert whole.dtype == dtype
        assert_close(whole[:1], one)


@pytest.mark.parametrize("name", calls())
def test_half_precision_and_bytes_are_refused_by_name(name):
    for dtype in (torch.bfloat16, torch.uint8):
        first, *others = calls()[name]
        with pytest.raises(ValueError, match=r"^\w+: expected float32 or float64, got torch"):
            getattr(similarity, name)(first.to(dtype), *others)


def test_a_wrong_shape_is_refused_by_name():
    x = torch.rand(2, 3, 6, 8)
    with pytest.raises(ValueError, match=r"y: expected shape \(2, 3, 6, 8\) as x, got"):
        ssim_loss(x, x[..., :7])


@pytest.mark.parametrize("shape", [(1, 1, 1, 5), (1, 1, 5, 1)], ids=str)
def test_images_without_a_neighbour_are_refused(shape):
    with pytest.raises(ValueError, match="image: expected at least 2x2 pixels"):
        ssim_loss(torch.rand(shape), torch.rand(shape))
