"""Errors of depth by hand and with NumPy; what protocols count and cut."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from torch.testing import assert_close

import metrics
from metrics import DEPTH_METRICS, PROTOCOLS, Protocol

EVERYTHING = Protocol(truth_range_m=(0.0, math.inf), min_depth_m=0.0, max_depth_m=math.inf)


def depth(batch: int = 2, height: int = 30, width: int = 40) -> torch.Tensor:
    return 2 + 60 * torch.rand(batch, 1, height, width)


def sparse(truth: torch.Tensor, share: float = 0.3) -> torch.Tensor:
    """Return a truth that is unknown, zero, at most of its pixels."""
    return truth.where(torch.rand_like(truth) < share, 0)


def row(*values: float) -> torch.Tensor:
    return torch.tensor(values)[None, None, None]  # (1, 1, 1, w)


def numpy_errors(truth: np.ndarray, predicted: np.ndarray, log=np.log) -> list[float]:
    """Return the errors of one image as they are customarily written."""
    threshold = np.maximum(truth / predicted, predicted / truth)
    return [
        np.mean(np.abs(truth - predicted) / truth),
        np.mean((truth - predicted) ** 2 / truth),
        np.sqrt(np.mean((truth - predicted) ** 2)),
        np.sqrt(np.mean((log(truth) - log(predicted)) ** 2)),
        *[np.mean(threshold < 1.25**k) for k in (1, 2, 3)],
    ]


# Errors


def test_each_error_on_paper():
    truth, predicted = torch.tensor([1.0, 2, 4, 8]), torch.tensor([1, 3, 2, 8.8])
    got = metrics.depth_errors(truth, predicted)
    log_terms = [0, math.log(1.5), math.log(2), math.log(1.1)]
    expected = {
        "abs_rel": (0 + 1 / 2 + 2 / 4 + 0.8 / 8) / 4,
        "sq_rel": (0 + 1 / 2 + 4 / 4 + 0.64 / 8) / 4,
        "rmse": math.sqrt((0 + 1 + 4 + 0.64) / 4),
        "rmse_log": math.sqrt(sum(x * x for x in log_terms) / 4),
        "a1": 2 / 4,  # factors 1, 1.5, 2, 1.1 against 1.25, 1.5625, 1.953
        "a2": 3 / 4,
        "a3": 3 / 4,
    }
    assert tuple(got) == DEPTH_METRICS
    for name, value in expected.items():
        assert_close(got[name].item(), value, atol=1e-6, rtol=0)


def test_a_factor_of_exactly_the_threshold_is_outside():
    got = metrics.depth_errors(torch.tensor([4.0]), torch.tensor([5.0]))
    assert (got["a1"], got["a2"]) == (0, 1)


@pytest.mark.parametrize("base, log", [(math.e, np.log), (10, np.log10)])
def test_errors_agree_with_numpy(base, log, dtype, device):
    truth, predicted = depth(1).flatten().to(dtype), depth(1).flatten().to(dtype)
    got = metrics.depth_errors(truth.to(device), predicted.to(device), base)
    by_numpy = numpy_errors(truth.double().numpy(), predicted.double().numpy(), log)
    for name, expected in zip(DEPTH_METRICS, by_numpy, strict=True):
        assert got[name].dtype == torch.float64 and got[name].shape == ()
        assert_close(got[name].item(), expected, atol=0, rtol=1e-6)


def test_what_does_not_count_has_no_part_whatever_it_is():
    truth, predicted = sparse(depth()), depth()
    counts = metrics.valid_pixels(truth, PROTOCOLS["eigen"])
    expected = metrics.evaluate(truth, predicted, PROTOCOLS["eigen"])
    for trash in (0.0, -1.0, math.nan, math.inf):
        got = metrics.evaluate(truth, predicted.where(counts, trash), PROTOCOLS["eigen"])
        for name in DEPTH_METRICS:
            assert torch.equal(got.unscaled[name], expected.unscaled[name])
            assert torch.equal(got.scaled[name], expected.scaled[name])
        assert torch.equal(got.ratio, expected.ratio)


def test_an_image_without_truth_is_nan_and_the_others_are_not():
    truth = depth()
    truth[1] = 0
    got = metrics.evaluate(truth, depth(), EVERYTHING)
    for value in (got.ratio, *got.unscaled.values(), *got.scaled.values()):
        assert value[0].isfinite() and value[1].isnan()
    assert got.by_distance[1].isnan().all() and got.scaled_by_distance[1].isnan().all()


# Evaluation


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_truth_as_prediction_is_perfect_under_every_protocol(name, device):
    truth = sparse(depth()).to(device)
    got = metrics.evaluate(truth, truth.where(truth > 0, 7), PROTOCOLS[name])
    for kind in (got.unscaled, got.scaled):
        assert tuple(kind) == DEPTH_METRICS
        assert all(not kind[error].any() for error in DEPTH_METRICS[:4])
        assert all((kind[share] == 1).all() for share in DEPTH_METRICS[4:])
    assert (got.ratio == 1).all()
    for by_distance in (got.by_distance, got.scaled_by_distance):
        assert by_distance.shape == (2, 4)
        assert (by_distance == 0)[~by_distance.isnan()].all()
    assert not got.by_distance[:, :3].isnan().any()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_truth_times_1_1_is_off_by_a_tenth_and_right_after_scaling(name):
    truth = 2 + 50 * torch.rand(2, 1, 30, 40)  # nothing is cut
    got = metrics.evaluate(truth, 1.1 * truth, PROTOCOLS[name])
    tenth, none = torch.full((2,), 0.1).double(), torch.zeros(2).double()
    assert_close(got.unscaled["abs_rel"], tenth, atol=1e-6, rtol=0)
    off = math.log(1.1) / math.log(PROTOCOLS[name].log_base)
    assert_close(got.unscaled["rmse_log"], torch.full((2,), off).double(), atol=1e-6, rtol=0)
    assert_close(got.scaled["abs_rel"], none, atol=1e-6, rtol=0)
    assert_close(got.ratio, torch.full((2,), 1 / 1.1).double(), atol=0, rtol=1e-6)


def test_median_scaling_makes_the_scale_of_each_image_irrelevant():
    truth, predicted = sparse(depth()), depth() / 100
    scale = torch.tensor([3.0, 0.2]).view(2, 1, 1, 1)
    one = metrics.evaluate(truth, predicted, PROTOCOLS["eigen"])
    other = metrics.evaluate(truth, scale * predicted, PROTOCOLS["eigen"])
    for name in DEPTH_METRICS:
        assert_close(one.scaled[name], other.scaled[name], atol=0, rtol=1e-5)
    assert_close(other.ratio * scale.flatten(), one.ratio, atol=0, rtol=1e-6)


def test_errors_by_distance_are_those_of_the_pixels_there():
    truth, predicted = row(5, 19.99, 20, 39, 70, 90), row(6, 19.99, 25, 39, 35, 10)
    got = metrics.evaluate(truth, predicted, EVERYTHING)
    near, middle, last = (1 / 5) / 2, (5 / 20) / 2, 35 / 70  # 90 is beyond the last range
    expected = torch.tensor([[near, middle, math.nan, last]]).double()
    assert_close(got.by_distance, expected, equal_nan=True, atol=1e-6, rtol=0)
    scaled = metrics.evaluate(truth, predicted * got.ratio.item(), EVERYTHING)
    assert_close(got.scaled_by_distance, scaled.by_distance, equal_nan=True, atol=1e-5, rtol=0)


@pytest.mark.parametrize("points", [2, 4095, 4096, 4097, 20_000, 50_001])
@pytest.mark.parametrize("kind", ["random", "few values", "rising", "two far apart", "outliers"])
def test_the_median_of_many_values_is_numpys(points, kind):
    values = {
        "random": torch.rand(points),
        "few values": (3 * torch.rand(points)).round(),
        "rising": torch.arange(points).float(),
        "two far apart": torch.arange(points).remainder(2) * 1e6,
        "outliers": torch.rand(points).where(torch.arange(points) % 97 > 0, 1e9),
    }[kind]
    assert metrics._median(values).item() == np.median(values.double().numpy())


@pytest.mark.parametrize("points", [1, 2, 3, 10, 11])
def test_the_median_is_numpys_for_odd_and_even_numbers(points):
    truth, predicted = torch.zeros(2, 1, 4, 6), depth(2, 4, 6)
    for i in range(2):
        truth[i].view(-1)[torch.randperm(24)[:points]] = 1 + 50 * torch.rand(points)
    ratio = metrics.evaluate(truth, predicted, EVERYTHING).ratio
    for i in range(2):
        valid = truth[i] > 0
        medians = [np.median(x[i][valid].double().numpy()) for x in (truth, predicted)]
        assert ratio[i].item() == medians[0] / medians[1]


def test_a_prediction_that_is_nan_does_not_pass_for_a_ratio():
    predicted = depth(1)
    predicted[0, 0, 3, 4] = math.nan
    got = metrics.evaluate(depth(1), predicted, EVERYTHING)
    assert got.ratio.isnan() and got.scaled["abs_rel"].isnan() and got.unscaled["abs_rel"].isnan()


def test_predictions_are_cut_after_scaling():
    protocol = Protocol(min_depth_m=10.0, max_depth_m=20.0)
    truth = row(10, 15, 20)
    cut = metrics.evaluate(truth, row(1, 15, 70), protocol)
    assert cut.unscaled["abs_rel"] == 0
    assert_close(cut.ratio.item(), 1.0)
    scaled = metrics.evaluate(truth, row(0.5, 7.5, 35), protocol)  # 1, 15, 70 after scaling
    assert scaled.scaled["abs_rel"] == 0
    assert_close(scaled.ratio.item(), 2.0)


def test_inputs_are_left_as_they_are():
    truth, predicted = sparse(depth()), depth()
    before = truth.clone(), predicted.clone()
    metrics.evaluate(truth, predicted, PROTOCOLS["eigen"])
    assert torch.equal(truth, before[0]) and torch.equal(predicted, before[1])


# Protocols


def test_the_eigen_protocol_counts_what_the_garg_crop_holds():
    truth = torch.full((1, 1, 375, 1242), 10.0)
    valid = metrics.valid_pixels(truth, PROTOCOLS["eigen"])
    # 0.40810811 * 375 = 153.04, 0.99189189 * 375 = 371.96, 0.03594771 * 1242 = 44.6, 1197.4
    expected = torch.zeros_like(valid)
    expected[..., 153:371, 44:1197] = True
    assert torch.equal(valid, expected)


@pytest.mark.parametrize(
    "name, counted",
    [
        ("eigen", [False, False, True, True, False, False]),
        ("synthetic", [False, False, True, True, False, False]),
        ("eigen_benchmark", [False, True, True, True, True, True]),
        ("benchmark", [False, True, True, True, True, True]),
        ("make3d", [False, True, True, False, False, False]),
    ],
)
def test_which_truth_counts(name, counted):
    values = torch.tensor([0, 1e-3, 2e-3, 79.9, 80, 85])
    truth = values.view(6, 1, 1, 1).expand(6, 1, 20, 60)
    valid = metrics.valid_pixels(truth, PROTOCOLS[name])
    assert valid[:, 0, 15, 30].tolist() == counted  # inside of every crop
    cropped = name == "eigen"
    assert valid[2, 0, 0, 0] == (not cropped)


def test_predictions_are_cut_to_the_cap_of_the_protocol():
    for name, protocol in PROTOCOLS.items():
        assert protocol.max_depth_m == (70 if name == "make3d" else 80)
        assert protocol.min_depth_m == 1e-3
        assert protocol.log_base == (10 if name == "make3d" else math.e)
    truth = row(100)
    got = metrics.evaluate(truth, truth, PROTOCOLS["eigen_benchmark"])
    assert_close(got.unscaled["abs_rel"].item(), 0.2)


# Resizing


@pytest.mark.parametrize("size", [(375, 1242), (24, 80), (7, 9)], ids=str)
def test_disparity_is_resized_as_opencv_does(size):
    disparity = torch.rand(2, 1, 24, 80)
    got = metrics.resize_disparity(disparity, size)
    assert got.shape == (2, 1, *size)
    for one, resized in zip(disparity, got, strict=True):
        expected = cv2.resize(one[0].numpy(), size[::-1], interpolation=cv2.INTER_LINEAR)
        assert_close(resized[0], torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_a_plane_stays_a_plane():
    # Inverse depth of a plane is linear over the image; inside of the border, halving is exact.
    v, u = torch.meshgrid(torch.arange(16.0), torch.arange(20.0), indexing="ij")
    disparity = (0.01 + 0.02 * (v + 0.5) + 0.005 * (u + 0.5))[None, None]
    got = metrics.resize_disparity(disparity, (32, 40))[0, 0]
    v, u = torch.meshgrid(torch.arange(32.0), torch.arange(40.0), indexing="ij")
    expected = 0.01 + 0.02 * (v + 0.5) / 2 + 0.005 * (u + 0.5) / 2
    assert_close(got[1:-1, 1:-1], expected[1:-1, 1:-1])


def test_the_nearest_pixel_is_opencvs():
    disparity = torch.rand(1, 1, 256, 512)
    got = metrics.resize_disparity(disparity, (21, 305), "nearest")
    expected = cv2.resize(disparity[0, 0].numpy(), (305, 21), interpolation=cv2.INTER_NEAREST)
    assert torch.equal(got[0, 0], torch.from_numpy(expected))


# Both answers of a network, to an image and to the mirrored one


def test_both_answers_alike_are_the_blend():
    disparity = depth()
    assert_close(metrics.blend_mirrored(disparity, disparity.flip(-1)), disparity)


def test_the_left_border_is_the_mirrored_images_the_right_one_the_images_own():
    ones, zeros = torch.ones(1, 1, 2, 101), torch.zeros(1, 1, 2, 101)
    own = metrics.blend_mirrored(ones, zeros)[0, 0, 0]  # what the image itself has a part of
    expected = np.interp(np.linspace(0, 1, 101), [0.05, 0.1, 0.9, 0.95], [0, 0.5, 0.5, 1])
    assert_close(own, torch.from_numpy(expected).float(), atol=1e-6, rtol=0)
    of_mirrored = metrics.blend_mirrored(zeros, ones)[0, 0, 0]
    assert_close(own + of_mirrored, torch.ones(101))


# Refusals


@pytest.mark.parametrize("shape", [(1, 1, 30, 40), (2, 30, 40), (2, 1, 30, 41)], ids=str)
def test_maps_that_would_broadcast_are_refused(shape):
    truth = depth()
    with pytest.raises(ValueError, match=r"predicted_m: expected shape \(2, 1, 30, 40\), got"):
        metrics.evaluate(truth, torch.ones(shape), EVERYTHING)
    with pytest.raises(ValueError, match=r"of_mirrored: expected shape \(2, 1, 30, 40\), got"):
        metrics.blend_mirrored(truth, torch.ones(shape))


@pytest.mark.parametrize("shape", [(1,), (2, 3), ()], ids=str)
def test_pixels_that_would_broadcast_are_refused(shape):
    with pytest.raises(ValueError, match=r"truth, predicted: expected shape \(n,\)"):
        metrics.depth_errors(torch.ones(3), torch.ones(shape))


def test_a_truth_that_is_no_batch_of_maps_is_refused():
    with pytest.raises(ValueError, match=r"truth: expected shape \(B, 1, h, w\), got \(30, 40\)"):
        metrics.valid_pixels(torch.ones(30, 40), EVERYTHING)
