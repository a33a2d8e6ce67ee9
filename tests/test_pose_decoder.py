"""Laws of the decoders of motion, velocity and gravity: published names, the network by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from losses import GRAVITY
from networks.motion_forms import DRIVING, PUBLISHED, TRANSLATION, UP, VELOCITY, LinearForm
from networks.pose_decoder import PoseDecoder, VectorDecoder

R18 = (64, 64, 128, 256, 512)
R50 = (64, 256, 512, 1024, 2048)
SMALL = (4, 5, 6, 7, 8)  # an encoder for quick tests
PLAIN = VELOCITY[PUBLISHED]


def published_shapes(channels: int, outputs: int, inputs: int = 1) -> dict[str, tuple[int, ...]]:
    kernels = [
        (256, channels, 1, 1),
        (256, 256 * inputs, 3, 3),
        (256, 256, 3, 3),
        (outputs, 256, 1, 1),
    ]
    shapes = {}
    for j, kernel in enumerate(kernels):
        shapes[f"net.{j}.weight"] = kernel
        shapes[f"net.{j}.bias"] = kernel[:1]
    return shapes


def random_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Return kernels that keep the size of what goes through, and small biases."""
    state = {}
    for name, shape in shapes.items():
        scale = (2 / math.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.2
        state[name] = scale * torch.randn(shape, dtype=torch.float64)
    return state


def by_hand(state, maps):
    """Compute the published numbers (B, outputs) with functions alone, from the coarsest maps."""

    def conv(x, j):
        kernel = state[f"net.{j}.weight"]
        return F.conv2d(x, kernel, state[f"net.{j}.bias"], padding=kernel.shape[-1] // 2)

    x = torch.cat([conv(x, 0).clamp(min=0) for x in maps], 1)
    x = conv(conv(x, 1).clamp(min=0), 2).clamp(min=0)
    return 0.01 * conv(x, 3).mean(3).mean(2)


def pyramids(count=1, batch=2, dtype=torch.float64) -> list[list[torch.Tensor]]:
    return [
        [torch.randn(batch, c, 64 >> s, 96 >> s, dtype=dtype) for s, c in enumerate(SMALL, 1)]
        for _ in range(count)
    ]


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


@pytest.mark.parametrize(("inputs", "frames"), [(1, 2), (2, 1), (3, 2), (1, 4)])
@pytest.mark.parametrize("channels", [R18, R50], ids=["18", "50"])
def test_a_pose_decoder_has_the_published_names_and_shapes(channels, inputs, frames):
    with torch.device("meta"):
        decoder = PoseDecoder(channels, inputs, frames)
    assert shapes_of(decoder) == published_shapes(channels[-1], 12 * frames, inputs)


@pytest.mark.parametrize("channels", [R18, R50], ids=["18", "50"])
def test_a_vector_decoder_has_the_published_names_and_shapes(channels):
    with torch.device("meta"):
        assert shapes_of(VectorDecoder(channels, PLAIN)) == published_shapes(channels[-1], 3)


@pytest.mark.parametrize(("inputs", "frames"), [(1, 2), (2, 2), (3, 1)])
def test_motions_are_those_computed_by_hand(inputs, frames):
    state = random_weights(published_shapes(SMALL[-1], 12 * frames, inputs))
    decoder = PoseDecoder(SMALL, inputs, frames).double()
    decoder.load_state_dict(state)
    given = pyramids(inputs)
    kept = copy.deepcopy(given)
    output = decoder(given)
    assert all(map(torch.equal, sum(given, []), sum(kept, [])))
    numbers = by_hand(state, [features[-1] for features in given])
    for f in range(frames):
        axisangle, translation, std = numbers[:, 12 * f : 12 * f + 12].split([3, 3, 6], 1)
        assert numbers[:, 12 * f].abs().min() > 1e-6
        assert_close(output.axisangle[:, f], axisangle, atol=1e-14, rtol=1e-9)
        assert_close(output.translation[:, f], translation, atol=1e-14, rtol=1e-9)
        assert_close(output.uncertainty[:, f], std, atol=1e-14, rtol=1e-9)
    assert output.axisangle.shape == (2, frames, 3)


def test_a_vector_is_that_computed_by_hand():
    state = random_weights(published_shapes(SMALL[-1], 3))
    decoder = VectorDecoder(SMALL, PLAIN).double()
    decoder.load_state_dict(state)
    (features,) = pyramids()
    vector = decoder(features)
    assert vector.shape == (2, 3)
    assert_close(vector, by_hand(state, [features[-1]]), atol=1e-14, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_published_numbers_are_hundredths_of_the_raw_ones_bit_for_bit(dtype):
    (features,) = pyramids(dtype=dtype)
    pose, vector = PoseDecoder(SMALL).to(dtype), VectorDecoder(SMALL, UP[PUBLISHED]).to(dtype)
    raw = pose._means([features]).unflatten(1, (2, 12))
    for part, numbers in zip(pose([features]), raw.split([3, 3, 6], -1), strict=True):
        assert torch.equal(part, 0.01 * numbers)
    assert torch.equal(vector(features), 0.01 * vector._means([features]))


def test_a_form_multiplies_and_adds_in_the_type_of_the_numbers():
    state = random_weights(published_shapes(SMALL[-1], 3))
    decoder = VectorDecoder(SMALL, LinearForm(3.0, (1.0, -2.0, 0.5))).double()
    decoder.load_state_dict(state)
    (features,) = pyramids()
    mean = torch.tensor([1, -2, 0.5], dtype=torch.float64)
    expected = mean + 300 * by_hand(state, [features[-1]])
    assert_close(decoder(features), expected, atol=1e-12, rtol=1e-9)


def test_a_known_length_is_that_of_every_vector_and_leaves_its_direction():
    free, known = (VectorDecoder(SMALL, UP[DRIVING], length) for length in (None, GRAVITY))
    known.load_state_dict(free.state_dict())
    (features,) = pyramids(batch=5, dtype=torch.float32)
    said, scaled = free(features), known(features)
    assert_close(scaled.norm(dim=-1), torch.full((5,), GRAVITY))
    assert (said.norm(dim=-1) - GRAVITY).abs().min() > 1
    assert_close(F.cosine_similarity(said, scaled), torch.ones(5))


def test_only_the_translation_of_a_motion_has_another_form():
    published, driving = PoseDecoder(SMALL), PoseDecoder(SMALL, motion_form=DRIVING)
    driving.load_state_dict(published.state_dict())
    given = pyramids(dtype=torch.float32)
    before, after = published(given), driving(given)
    assert torch.equal(after.axisangle, before.axisangle)
    assert torch.equal(after.uncertainty, before.uncertainty)
    scale, mean = TRANSLATION[DRIVING]
    expected = torch.tensor(mean) + scale / 0.01 * before.translation
    assert_close(after.translation, expected)
    assert not torch.allclose(after.translation, before.translation)


def test_a_form_that_does_not_exist_is_refused():
    with pytest.raises(KeyError, match="flying"):
        PoseDecoder(SMALL, motion_form="flying")


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("prefix", ["", "pose."])
def test_weights_without_uncertainty_give_the_same_motion_and_an_exponent_of_zero(prefix, frames):
    old = random_weights(published_shapes(SMALL[-1], 6 * frames))
    decoder = PoseDecoder(SMALL, 1, frames).double()
    module = nn.ModuleDict({"pose": decoder}) if prefix else decoder
    file = {prefix + name: value for name, value in old.items()}
    kept = {name: value.clone() for name, value in file.items()}
    module.load_state_dict(file, strict=True)
    assert all(torch.equal(file[name], kept[name]) for name in kept)
    (features,) = pyramids()
    output = decoder([features])
    numbers = by_hand(old, [features[-1]]).unflatten(1, (frames, 6))
    assert_close(output.axisangle, numbers[..., :3], atol=1e-14, rtol=1e-9)
    assert_close(output.translation, numbers[..., 3:], atol=1e-14, rtol=1e-9)
    assert not output.uncertainty.any()


@pytest.mark.parametrize(("frames", "rows"), [(2, 6), (2, 18), (1, 3)])
def test_weights_of_another_size_are_refused(frames, rows):
    decoder = PoseDecoder(SMALL, 1, frames)
    with pytest.raises(RuntimeError, match=r"size mismatch for net.3.weight"):
        decoder.load_state_dict(random_weights(published_shapes(SMALL[-1], rows)))


def test_weights_that_lack_the_last_layer_are_refused():
    state = random_weights(published_shapes(SMALL[-1], 24))
    del state["net.3.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key.*net.3.bias"):
        PoseDecoder(SMALL).load_state_dict(state)


def test_a_copy_of_the_decoder_loads_its_own_weights():
    original = PoseDecoder(SMALL, 1, 1)
    other = copy.deepcopy(original)
    before = copy.deepcopy(original.state_dict())
    other.load_state_dict(random_weights(published_shapes(SMALL[-1], 6)))
    assert not other.net[3].weight[6:].any() and other.net[3].weight[:6].any()
    assert all(torch.equal(value, before[name]) for name, value in original.state_dict().items())


@pytest.mark.parametrize("kind", ["pose", "driving", "several", "vector", "up"])
def test_every_parameter_gets_a_gradient(kind):
    count = 3 if kind == "several" else 1
    decoder = {
        "driving": lambda: PoseDecoder(SMALL, motion_form=DRIVING),
        "vector": lambda: VectorDecoder(SMALL, PLAIN),
        "up": lambda: VectorDecoder(SMALL, UP[DRIVING], GRAVITY),
    }.get(kind, lambda: PoseDecoder(SMALL, count))()
    given = pyramids(count, dtype=torch.float32)
    outputs = [decoder(given[0])] if kind in ("vector", "up") else decoder(given)
    sum((x * torch.randn_like(x)).sum() for x in outputs).backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize("form", [PUBLISHED, DRIVING])
def test_motions_are_in_full_precision_under_autocast(form):
    decoder, given = PoseDecoder(SMALL, motion_form=form), pyramids(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        halves = decoder(given)
    for half, full in zip(halves, decoder(given), strict=True):
        assert half.dtype == torch.float32
        assert_close(half, full, atol=2e-4 if form == PUBLISHED else 2e-3, rtol=0)
        assert not torch.equal(half, half.bfloat16().float())


def test_a_wrong_number_of_pyramids_is_refused():
    with pytest.raises(ValueError, match="pyramids: expected 2 of them, got 1"):
        PoseDecoder(SMALL, 2).double()(pyramids(1))


@pytest.mark.parametrize(("inputs", "frames", "name"), [(0, 2, "features"), (1, 0, "frames")])
def test_an_impossible_decoder_is_refused(inputs, frames, name):
    with pytest.raises(ValueError, match=f"num_.*{name}.*: expected 1 or more, got 0"):
        PoseDecoder(SMALL, inputs, frames)
