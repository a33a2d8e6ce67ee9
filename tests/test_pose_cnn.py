"""Laws of the pose network without an encoder: published names, the network by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from networks.pose_cnn import PoseCNN

LAYERS = ((16, 7), (32, 5), (64, 3), (128, 3), (256, 3), (256, 3), (256, 3))  # channels, kernel


def published_shapes(frames: int) -> dict[str, tuple[int, ...]]:
    shapes, channels = {}, 3 * frames
    for j, (out, kernel) in enumerate(LAYERS):
        shapes[f"net.{j}.weight"] = (out, channels, kernel, kernel)
        shapes[f"net.{j}.bias"] = (out,)
        channels = out
    outputs = 6 * (frames - 1)
    return shapes | {"pose_conv.weight": (outputs, 256, 1, 1), "pose_conv.bias": (outputs,)}


def random_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Return kernels that keep the size of what goes through, and small biases."""
    state = {}
    for name, shape in shapes.items():
        scale = (2 / math.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.2
        state[name] = scale * torch.randn(shape, dtype=torch.float64)
    return state


def by_hand(state, images):
    """Compute the numbers (B, 6 (n - 1)) with functions alone."""
    x = images
    for j, (_, kernel) in enumerate(LAYERS):
        x = F.pad(x, [kernel // 2] * 4)
        x = F.conv2d(x, state[f"net.{j}.weight"], state[f"net.{j}.bias"], stride=2).clamp(min=0)
    x = F.conv2d(x, state["pose_conv.weight"], state["pose_conv.bias"])
    return 0.01 * x.mean(3).mean(2)


@pytest.mark.parametrize("frames", [2, 3, 5])
def test_parameters_have_the_published_names_and_shapes(frames):
    shapes = {name: tuple(value.shape) for name, value in PoseCNN(frames).state_dict().items()}
    assert shapes == published_shapes(frames)


@pytest.mark.parametrize("frames", [2, 3])
def test_motions_are_those_computed_by_hand(frames):
    state = random_weights(published_shapes(frames))
    network = PoseCNN(frames).double()
    network.load_state_dict(state)
    images = torch.rand(2, 3 * frames, 96, 160, dtype=torch.float64)
    kept = images.clone()
    output = network(images)
    assert torch.equal(images, kept)
    numbers = by_hand(state, images).unflatten(1, (frames - 1, 6))
    assert (numbers[0] - numbers[1]).abs().max() > 1e-6
    assert_close(output.axisangle, numbers[..., :3], atol=1e-14, rtol=1e-9)
    assert_close(output.translation, numbers[..., 3:], atol=1e-14, rtol=1e-9)
    assert torch.equal(output.uncertainty, torch.zeros_like(numbers))


def test_every_parameter_gets_a_gradient():
    network = PoseCNN(3)
    output = network(torch.rand(2, 9, 64, 96))
    sum((x * torch.randn_like(x)).sum() for x in (output.axisangle, output.translation)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_motions_are_in_full_precision_under_autocast():
    network, images = PoseCNN(2), torch.rand(1, 6, 256, 256)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        halves = network(images)
    for half, full in zip(halves, network(images), strict=True):
        assert half.dtype == torch.float32
        assert_close(half, full, atol=2e-4, rtol=0)
    assert not torch.equal(halves.translation, halves.translation.bfloat16().float())


def test_one_image_has_no_motion():
    with pytest.raises(ValueError, match="expected 2 or more, got 1"):
        PoseCNN(1)
