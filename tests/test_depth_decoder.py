"""Laws of the depth decoder: published names, the network by hand, which scales there are."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from layers import depth_to_disp, disp_to_depth
from networks.depth_decoder import DepthDecoder

R18 = (64, 64, 128, 256, 512)
R50 = (64, 256, 512, 1024, 2048)
CHANNELS = (16, 32, 64, 128, 256)
SMALL = (4, 5, 6, 7, 8)  # an encoder for quick tests


def published_shapes(
    num_ch_enc, scales, outputs=1, channels=CHANNELS
) -> dict[str, tuple[int, ...]]:
    kernels = []
    for i in (4, 3, 2, 1, 0):
        kernels.append(("conv.conv", channels[i], num_ch_enc[4] if i == 4 else channels[i + 1]))
        skipped = num_ch_enc[i - 1] if i else 0
        kernels.append(("conv.conv", channels[i], channels[i] + skipped))
    kernels += [("conv", outputs, channels[scale]) for scale in scales]
    shapes = {}
    for j, (name, to, of) in enumerate(kernels):
        shapes[f"decoder.{j}.{name}.weight"] = (to, of, 3, 3)
        shapes[f"decoder.{j}.{name}.bias"] = (to,)
    return shapes


def random_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Return kernels that keep the size of what goes through, and small biases."""
    state = {}
    for name, shape in shapes.items():
        scale = (2 / math.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.2
        state[name] = scale * torch.randn(shape, dtype=torch.float64)
    return state


def by_hand(state, features, scales):
    """Compute the disparities with functions alone."""

    def conv(x, name):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight, bias)

    x, outputs = features[4], {}
    for step, i in enumerate((4, 3, 2, 1, 0)):
        x = F.elu(conv(x, f"decoder.{2 * step}.conv.conv"))
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)  # each pixel becomes four
        if i:
            x = torch.cat([x, features[i - 1]], 1)
        x = F.elu(conv(x, f"decoder.{2 * step + 1}.conv.conv"))
        if i in scales:
            outputs["disp", i] = 1 / (1 + (-conv(x, f"decoder.{10 + scales.index(i)}.conv")).exp())
    return outputs


def pyramid(channels=SMALL, height=64, width=96, batch=2, dtype=torch.float64):
    return [
        torch.randn(batch, c, height >> s, width >> s, dtype=dtype)
        for s, c in enumerate(channels, start=1)
    ]


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("scales", [(0, 1, 2, 3), (3, 0), (2,)], ids=str)
@pytest.mark.parametrize("channels", [R18, R50], ids=["18", "50"])
def test_parameters_have_the_published_names_and_shapes(channels, scales, outputs):
    with torch.device("meta"):
        decoder = DepthDecoder(channels, scales, outputs)
    shapes = {name: tuple(value.shape) for name, value in decoder.state_dict().items()}
    assert shapes == published_shapes(channels, scales, outputs)


@pytest.mark.parametrize("scales", [(0, 1, 2, 3), (2,)], ids=str)
def test_a_narrow_decoder_has_half_the_channels_under_the_same_names(scales):
    encoder = tuple(count // 2 for count in R18)
    with torch.device("meta"):
        decoder = DepthDecoder(encoder, scales, narrow=True)
    shapes = {name: tuple(value.shape) for name, value in decoder.state_dict().items()}
    assert shapes == published_shapes(encoder, scales, channels=(8, 16, 32, 64, 128))


@pytest.mark.parametrize("scales", [(0, 1, 2, 3), (1, 3)], ids=str)
@pytest.mark.parametrize("depth", [0.6, 1.5, 10.0])
def test_an_untrained_decoder_says_the_depth_it_is_to_begin_at(depth, scales):
    decoder = DepthDecoder(R18, scales)
    decoder.begin_at(depth_to_disp(depth, 0.1, 100))
    with torch.no_grad():
        outputs = decoder(pyramid(R18, dtype=torch.float32))
    assert len(outputs) == len(scales)
    for disp in outputs.values():
        _, said = disp_to_depth(disp, 0.1, 100)
        away = (said / depth).log()
        assert away.mean().abs() < 0.4 and (away.abs() < math.log(3)).float().mean() > 0.98


def test_a_beginning_changes_nothing_but_the_outputs_biases():
    decoder = DepthDecoder(SMALL)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    decoder.begin_at(0.2)
    changed = {n for n, value in decoder.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == {f"decoder.{j}.conv.bias" for j in (10, 11, 12, 13)}
    for module in decoder.decoder[10:]:
        assert_close(module.conv.bias.sigmoid(), torch.tensor([0.2]))


@pytest.mark.parametrize("scales", [(0, 1, 2, 3), (3, 1), (2,)], ids=str)
def test_the_finest_output_is_that_of_the_finest_scale(scales):
    decoder, features = DepthDecoder(SMALL, scales).double(), pyramid()
    assert torch.equal(decoder.finest(features), decoder(features)["disp", min(scales)])


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("scales", [(0, 1, 2, 3), (0,), (3, 1, 0), (2, 4)], ids=str)
def test_outputs_are_those_computed_by_hand(scales, outputs):
    state = random_weights(published_shapes(SMALL, scales, outputs))
    decoder = DepthDecoder(SMALL, scales, outputs).double()
    decoder.load_state_dict(state)
    features = pyramid()
    kept = [x.clone() for x in features]
    result = decoder(features)
    assert all(map(torch.equal, features, kept))
    expected = by_hand(state, features, scales)
    assert set(result) == set(expected) == {("disp", scale) for scale in scales}
    for key, disp in result.items():
        assert disp.shape == (2, outputs, 64 >> key[1], 96 >> key[1])
        assert expected[key].std() > 1e-3
        assert_close(disp, expected[key], atol=1e-12, rtol=1e-10)


def test_the_order_of_scales_moves_weights_and_changes_no_output():
    features = pyramid(batch=1)
    decoder = DepthDecoder(SMALL, (0, 1, 2)).double()
    expected = decoder(features)
    for order in itertools.permutations((0, 1, 2)):
        other = DepthDecoder(SMALL, order).double()
        for i in range(10):
            other.decoder[i].load_state_dict(decoder.decoder[i].state_dict())
        for i, scale in enumerate(order):
            other.decoder[10 + i].load_state_dict(decoder.decoder[10 + scale].state_dict())
        result = other(features)
        assert all(torch.equal(result[key], expected[key]) for key in expected)


@pytest.mark.parametrize("scales", [(0, 1, 2, 3), (0,), (1, 3), (3,)], ids=str)
def test_every_trainable_parameter_gets_a_gradient(scales):
    decoder = DepthDecoder(SMALL, scales)
    outputs = decoder(pyramid(dtype=torch.float32))
    sum((x * torch.randn_like(x)).sum() for x in outputs.values()).backward()
    trained = set()
    for name, parameter in decoder.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all() and parameter.grad.any(), name
            trained.add(int(name.split(".")[1]))
    # Two blocks for each level down to the finest output, and the outputs.
    used = 2 * (5 - min(scales))
    assert trained == {*range(used), *range(10, 10 + len(scales))}


def test_disparities_are_in_full_precision_under_autocast():
    decoder, features = DepthDecoder(SMALL), pyramid(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        halves = decoder(features)
    for key, disp in decoder(features).items():
        assert halves[key].dtype == torch.float32
        assert_close(halves[key], disp, atol=0.02, rtol=0)
        assert not torch.equal(halves[key], halves[key].bfloat16().float())


@pytest.mark.parametrize("scales", [(), (0, 0), (5,), (-1, 0)], ids=str)
def test_impossible_scales_are_refused(scales):
    with pytest.raises(ValueError, match="expected different numbers from 0 to 4, got"):
        DepthDecoder(SMALL, scales)
