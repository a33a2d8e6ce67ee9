"""Depth from images: the published formula, any batch, both orientations, half precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from evaluation.inference import DepthNetwork
from evaluation.weights import open_depth
from tests.evaluation_tree import SIDE, write_weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def images():
    return torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8)


def disparity(weights, images):
    """Return what the decoder says of images, asked by hand."""
    with torch.no_grad():
        return weights.models["depth"](weights.models["encoder"](images.float() / 255))["disp", 0]


def test_it_is_the_inverse_of_the_published_depth_in_metres(folder, images, device):
    network = DepthNetwork(open_depth(folder, device))
    got = network.inverse_depth(images).cpu()
    disp = disparity(open_depth(folder, CPU), images).double()
    depth_m = 5.4 / (1 / 100 + (1 / 0.1 - 1 / 100) * disp)
    assert got.shape == (3, 1, SIDE, SIDE) and got.dtype == torch.float32
    assert_close(got.double(), 1 / depth_m, atol=0, rtol=1e-4)


@pytest.mark.parametrize("scales", [(1, 2, 3), (3,)], ids=str)
def test_a_disparity_that_is_smaller_than_the_images_is_enlarged(scales, images, tmp_path):
    words = ("--scales", *map(str, scales))
    folder = write_weights(tmp_path / "models" / "w", *words, told={"scales": list(scales)})
    weights = open_depth(folder, CPU)
    with torch.no_grad():
        features = weights.models["encoder"](images.float() / 255)
        disp = weights.models["depth"](features)["disp", scales[0]]
    assert disp.shape[-1] == SIDE >> scales[0]
    got = DepthNetwork(weights).inverse_depth(images)
    assert got.shape == (3, 1, SIDE, SIDE)
    enlarged = F.interpolate(disp, scale_factor=2 ** scales[0], mode="bilinear")
    assert_close(got, (1 / 100 + (1 / 0.1 - 1 / 100) * enlarged) / 5.4, atol=0, rtol=1e-4)


def test_the_unit_and_the_factor_multiply_all_depths(folder, images):
    usual = DepthNetwork(open_depth(folder, CPU)).inverse_depth(images)
    twice = DepthNetwork(open_depth(folder, CPU, trans_scale_factor=10.8)).inverse_depth(images)
    by_hand = DepthNetwork(open_depth(folder, CPU), factor=2).inverse_depth(images)
    assert_close(twice, usual / 2)
    assert_close(by_hand, usual / 2)


def test_images_of_a_batch_do_not_see_each_other(folder, images):
    network = DepthNetwork(open_depth(folder, CPU))
    together = network.inverse_depth(images)
    for i in range(3):
        assert_close(network.inverse_depth(images[i : i + 1]), together[i : i + 1])


def test_post_processing_makes_a_mirrored_image_have_a_mirrored_depth(folder, images):
    network = DepthNetwork(open_depth(folder, CPU), post_process=True)
    once, mirrored = network.inverse_depth(images), network.inverse_depth(images.flip(-1))
    assert_close(once, mirrored.flip(-1))
    alone = DepthNetwork(open_depth(folder, CPU)).inverse_depth(images)
    assert not torch.allclose(once, alone)
    assert_close(once[..., -2:], alone[..., -2:])  # the right border is the image's own


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_half_precision_is_near_and_comes_back_in_full(amp, folder, images):
    full = DepthNetwork(open_depth(folder, CPU)).inverse_depth(images)
    half = DepthNetwork(open_depth(folder, CPU), amp).inverse_depth(images)
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    assert_close(half, full, atol=0, rtol=0.05)


def test_nothing_of_it_keeps_a_graph_and_images_stay(folder, images):
    before = images.clone()
    got = DepthNetwork(open_depth(folder, CPU)).inverse_depth(images)
    assert not got.requires_grad and torch.equal(images, before)
