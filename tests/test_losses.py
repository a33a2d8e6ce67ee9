"""Laws of the losses: zero when all is right, closed forms, and gradients where they have kinks."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

import losses
import similarity
from liegroups import se3, so3


def images(*leading: int, dtype=torch.float64) -> torch.Tensor:
    return torch.rand(*leading, 3, 5, 6, dtype=dtype)


def errors(*leading: int, dtype=torch.float64) -> torch.Tensor:
    return torch.rand(*leading, 1, 5, 6, dtype=dtype)


# Photometric error


@pytest.mark.parametrize("leading", [(2,), (1,), (3, 2)], ids=str)
def test_the_photometric_error_weighs_structure_and_difference(leading):
    target, predicted = images(2)[: leading[-1]], images(*leading)
    error = losses.photometric_error(predicted, losses.photometric_target(target))
    ssim = similarity.ssim_loss(predicted, target).mean(-3, keepdim=True)
    difference = (predicted - target).abs().mean(-3, keepdim=True)
    assert error.shape == (*leading, 1, 5, 6)
    assert_close(error, 0.85 * ssim + 0.15 * difference, atol=1e-14, rtol=0)


def test_without_ssim_the_photometric_error_is_the_difference():
    target, predicted = images(2), images(3, 2)
    error = losses.photometric_error(predicted, losses.photometric_target(target, ssim=False))
    assert_close(error, (predicted - target).abs().mean(-3, keepdim=True))


@pytest.mark.parametrize("ssim", [True, False])
def test_two_flat_images_differ_by_their_brightness_alone(ssim):
    a, b = 0.2, 0.7
    target = losses.photometric_target(torch.full((1, 3, 4, 5), b).double(), ssim)
    error = losses.photometric_error(torch.full((1, 3, 4, 5), a).double(), target)
    luminance = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    expected = 0.85 * (1 - luminance) / 2 + 0.15 * (b - a) if ssim else b - a
    assert_close(error, torch.full_like(error, expected))


@pytest.mark.parametrize("ssim", [True, False])
def test_a_perfect_image_has_no_photometric_error(ssim, dtype, device):
    image = images(2, dtype=dtype).to(device)
    target = losses.photometric_target(image, ssim)
    assert not losses.photometric_error(torch.stack([image, image]), target).any()
    assert losses.consistency(image[None], image[None].clone(), ssim) == 0


@pytest.mark.parametrize("ssim", [True, False])
def test_gradient_of_the_photometric_error(ssim):
    predicted, target = images(2, 1).requires_grad_(), images(1).requires_grad_()

    def error(predicted, target):
        return losses.photometric_error(predicted, losses.photometric_target(target, ssim))

    assert gradcheck(error, (predicted, target))


@pytest.mark.parametrize("ssim", [True, False])
def test_consistency_is_symmetric_and_the_mean_of_errors_with_gradient_to_both(ssim):
    a, b = images(2, 2).requires_grad_(), images(2, 2).requires_grad_()
    value = losses.consistency(a, b, ssim)
    assert_close(value, losses.consistency(b, a, ssim))
    each = [
        losses.photometric_error(x, losses.photometric_target(y, ssim)).mean()
        for x, y in zip(a, b, strict=True)
    ]
    assert_close(value, sum(each) / 2)
    both = torch.autograd.grad(value, (a, b))
    assert all(gradient.any() for gradient in both)
    one = images(1, 1).requires_grad_(), images(1, 1).requires_grad_()
    assert gradcheck(lambda a, b: losses.consistency(a, b, ssim), one)


# Reprojection


def test_the_best_source_explains_a_pixel():
    compared = errors(3, 2)
    result = losses.reprojection(compared)
    assert torch.equal(result.per_pixel, compared.amin(0))
    assert_close(result.loss, compared.amin(0).mean())
    assert result.moving.dtype == torch.bool and result.moving.all()


def test_the_mean_over_the_sources_in_place_of_the_best():
    compared, identity = errors(3, 2), errors(2, 2)
    assert_close(losses.reprojection(compared, average=True).per_pixel, compared.mean(0))
    result = losses.reprojection(compared, identity, average=True)
    still = identity.mean(0)
    assert torch.equal(result.moving, compared.mean(0) < still)
    assert_close(result.per_pixel, torch.minimum(compared.mean(0), still), atol=1e-4, rtol=0)


def test_pixels_that_look_best_unwarped_are_left_out():
    compared = errors(2, 2).requires_grad_()
    identity = errors(3, 2)
    result = losses.reprojection(compared, identity)
    expected = compared.amin(0) < identity.amin(0)  # no two are as close as the noise
    assert torch.equal(result.moving, expected)
    assert 0 < expected.sum() < expected.numel()
    assert_close(
        result.per_pixel, torch.minimum(compared.amin(0), identity.amin(0)), atol=1e-4, rtol=0
    )
    assert_close(result.loss, result.per_pixel.mean())
    result.loss.backward()
    assert torch.equal(compared.grad.any(0), expected)
    share = torch.full((int(expected.sum()),), 1 / expected.numel(), dtype=torch.float64)
    assert_close(compared.grad.sum(0)[expected], share)


def test_ties_of_warped_and_unwarped_are_broken_at_random_by_little():
    equal = torch.full((1, 2, 1, 50, 60), 0.25)
    torch.manual_seed(5)
    result = losses.reprojection(equal, equal)
    assert 0.4 < result.moving.float().mean() < 0.6
    noise = (result.per_pixel - 0.25)[~result.moving]
    assert torch.equal(result.per_pixel[result.moving], equal[0][result.moving])
    assert -1e-4 < noise.min() < noise.max() < 0
    assert_close(noise.square().mean().sqrt().item(), 1e-5, rtol=0.05, atol=0)  # a half normal
    torch.manual_seed(5)
    assert torch.equal(losses.reprojection(equal, equal).moving, result.moving)


def test_an_error_that_is_nan_is_not_hidden_by_auto_masking():
    compared, identity = errors(2, 1), errors(2, 1)
    compared[1, 0, 0, 2, 3] = torch.nan
    result = losses.reprojection(compared, identity)
    assert result.loss.isnan()
    assert result.per_pixel.isnan().sum() == 1


@pytest.mark.parametrize("average", [False, True])
def test_gradient_of_reprojection(average):
    compared = errors(2, 2).requires_grad_()
    assert gradcheck(lambda x: losses.reprojection(x, None, average).loss, compared)


# Predictive mask


def test_the_pull_on_a_mask_is_its_cross_entropy_with_one(dtype):
    mask = torch.rand(2, 3, 4, 5, dtype=dtype)
    expected = torch.nn.functional.binary_cross_entropy(mask, torch.ones_like(mask))
    assert_close(losses.mask_pull(mask), expected)
    assert losses.mask_pull(torch.ones_like(mask)) == 0
    assert gradcheck(losses.mask_pull, mask.double().requires_grad_())


def test_a_mask_whose_sigmoid_has_run_empty_still_gives_a_finite_pull():
    for logit in (-20.0, -80.0, -200.0):
        logits = torch.full((4,), logit, requires_grad=True)
        loss = losses.mask_pull(logits.sigmoid())
        loss.backward()
        assert loss.isfinite() and logits.grad.isfinite().all()
        if logit > -87:  # the sigmoid is above zero: the pull is as strong as ever
            assert_close(logits.grad.sum(), torch.tensor(-1.0))


# Velocity, gravity, motion


def test_speed_and_gravity_are_compared_by_length():
    velocity = torch.tensor([[3.0, 0, 4], [0, 0, 0], [0, -2, 0]])
    speed = torch.tensor([5.0, 1, 0.5])
    assert_close(losses.speed_error(velocity, speed), torch.tensor((0 + 1 + 1.5) / 3))
    up = torch.tensor([[0, -losses.GRAVITY, 0], [losses.GRAVITY + 0.5, 0, 0]]).double()
    assert_close(losses.gravity_error(up), torch.tensor(0.25).double())
    assert losses.GRAVITY == 9.808679801065017


def test_speed_and_gravity_do_not_depend_on_the_direction():
    velocity, speed = torch.randn(4, 2, 3, dtype=torch.float64), torch.rand(4, 2).double()
    R = so3.exp(torch.randn(3, dtype=torch.float64))
    turned = velocity @ R.mT
    assert_close(losses.speed_error(turned, speed), losses.speed_error(velocity, speed))
    assert_close(losses.gravity_error(turned), losses.gravity_error(velocity))


def test_lengths_of_zero_have_a_finite_gradient(dtype):
    zero = torch.zeros(2, 3, dtype=dtype, requires_grad=True)
    for loss in (
        losses.speed_error(zero, torch.ones(2, dtype=dtype)),
        losses.gravity_error(zero),
        losses.correction(zero, torch.zeros_like(zero)),
    ):
        (gradient,) = torch.autograd.grad(loss, zero)
        assert torch.equal(gradient, torch.zeros_like(zero))


def test_a_motion_differs_by_distance_and_angle():
    T_a = se3.exp(torch.randn(3, 6, dtype=torch.float64))
    phi = torch.tensor([[0.3, 0, 0], [0, math.pi - 1e-6, 0], [0, 0, 0]], dtype=torch.float64)
    shift = torch.tensor([[0, 3.0, 4], [0, 0, 0], [0.5, 0, 0]], dtype=torch.float64)
    T_b = se3.from_rt(T_a[:, :3, :3] @ so3.exp(phi), T_a[:, :3, 3] + shift)
    expected = (5 + 0.3 + math.pi - 1e-6 + 0.5) / 3
    assert_close(losses.motion_difference(T_a, T_b).item(), expected)
    assert_close(losses.motion_difference(T_b, T_a).item(), expected)


def test_equal_motions_differ_by_nothing_and_have_a_finite_gradient(dtype):
    T = torch.eye(4, dtype=dtype).repeat(2, 1, 1)
    T[:, :3, 3] = torch.randn(2, 3, dtype=dtype)
    a, b = T.clone().requires_grad_(), T.clone().requires_grad_()
    loss = losses.motion_difference(a, b)
    loss.backward()
    assert loss == 0
    assert a.grad.isfinite().all() and b.grad.isfinite().all()
    turned = se3.exp(torch.randn(50, 6, dtype=dtype))
    assert losses.motion_difference(turned, turned.clone()) < 4 * torch.finfo(dtype).eps


def test_a_correction_is_the_mean_of_lengths_not_the_length_of_all():
    before = torch.randn(2, 3, dtype=torch.float64)
    after = before + torch.tensor([[3.0, 4, 0], [0, 0, 1]], dtype=torch.float64)
    assert_close(losses.correction(after, before).item(), 3.0)
    assert losses.correction(before, before.clone()) == 0


def test_gradients_of_the_motion_losses():
    velocity = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    speed = torch.rand(4, 2, dtype=torch.float64, requires_grad=True)
    other = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(losses.speed_error, (velocity, speed))
    assert gradcheck(losses.gravity_error, (velocity,))
    assert gradcheck(losses.correction, (velocity, other))
    xi_a, xi_b = torch.randn(2, 3, 6, dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda a, b: losses.motion_difference(se3.exp(a), se3.exp(b)), (xi_a, xi_b))


# All functions alike


def calls(dtype=torch.float32, batch=2):
    """Return every loss with arguments that fit it; the batch is at position -4 or first."""
    T_a, T_b = se3.exp(torch.randn(2, batch, 6, dtype=dtype))
    vectors = torch.randn(2, batch, 3, dtype=dtype)
    return {
        "consistency": (images(2, batch, dtype=dtype), images(2, batch, dtype=dtype)),
        "reprojection": (errors(2, batch, dtype=dtype), errors(2, batch, dtype=dtype)),
        "mask_pull": (errors(2, batch, dtype=dtype),),
        "speed_error": (vectors[0], vectors[1, :, 0].abs()),
        "gravity_error": (vectors[0],),
        "motion_difference": (T_a, T_b),
        "correction": tuple(vectors),
    }


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", calls())
def test_types_batches_devices_and_untouched_inputs(name, batch, dtype, device):
    arguments = [a.to(device).requires_grad_() for a in calls(dtype, batch)[name]]
    before = [a.detach().clone() for a in arguments]
    result = getattr(losses, name)(*arguments)
    loss = result.loss if name == "reprojection" else result
    assert loss.shape == () and loss.dtype == dtype and loss.device.type == device.type
    loss.backward()
    assert loss.isfinite() and loss >= 0
    for a, b in zip(arguments, before, strict=True):
        assert torch.equal(a, b) and a.grad.isfinite().all()


@pytest.mark.parametrize(
    "name, position, shape, message",
    [
        ("consistency", 1, (1, 2, 3, 5, 6), r"b: expected shape \(2, 2, 3, 5, 6\) as a, got"),
        ("reprojection", 0, (2, 1, 5, 6), r"errors: expected shape \(N, B, 1, H, W\) with N > 0"),
        ("reprojection", 0, (0, 2, 1, 5, 6), "errors: expected shape"),
        ("reprojection", 1, (2, 1, 1, 5, 6), r"identity: expected shape \(2, 1, 5, 6\) as errors"),
        ("speed_error", 0, (2, 4), r"velocity: expected shape \(\.\.\., 3\), got \(2, 4\)"),
        ("speed_error", 1, (2, 1), r"speed: expected shape \(2,\) as velocity, got \(2, 1\)"),
        ("gravity_error", 0, (2, 4), r"gravity: expected shape \(\.\.\., 3\)"),
        ("motion_difference", 0, (2, 3, 4), r"T_a: expected shape \(\.\.\., 4, 4\)"),
        ("motion_difference", 1, (1, 4, 4), r"T_b: expected shape \(2, 4, 4\) as T_a"),
        ("correction", 1, (1, 3), r"before: expected shape \(2, 3\) as after"),
    ],
)
def test_what_would_broadcast_to_a_wrong_mean_is_refused(name, position, shape, message):
    arguments = list(calls()[name])
    arguments[position] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        getattr(losses, name)(*arguments)


@pytest.mark.parametrize("ssim", [True, False])
def test_images_that_do_not_fit_their_target_are_refused(ssim):
    target = losses.photometric_target(images(2), ssim)
    with pytest.raises(ValueError, match="expected"):
        losses.photometric_error(images(1), target)
