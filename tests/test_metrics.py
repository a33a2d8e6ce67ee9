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
    truth, predicted = row(1, 2, 4, 8, 99), row(1, 3, 2, 8.8, 1)
    valid = torch.tensor([True, True, True, True, False])[None, None, None]
    got = metrics.depth_errors(truth, predicted, valid)
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
    got = metrics.depth_errors(row(4), row(5), torch.ones(1, 1, 1, 1, dtype=torch.bool))
    assert (got["a1"], got["a2"]) == (0, 1)


@pytest.mark.parametrize("base, log", [(math.e, np.log), (10, np.log10)])
def test_errors_agree_with_numpy_image_by_image(base, log, dtype, device):
    truth, predicted = sparse(depth(3)).to(dtype), depth(3).to(dtype)
    valid = truth > 0
    got = metrics.depth_errors(*(x.to(device) for x in (truth, predicted, valid)), base)
    for i in range(3):
        pair = (x[i][valid[i]].double().numpy() for x in (truth, predicted))
        for name, expected in zip(DEPTH_METRICS, numpy_errors(*pair, log), strict=True):
            assert got[name].dtype == torch.float64 and got[name].shape == (3,)
            assert_close(got[name][i].item(), expected, atol=0, rtol=1e-6)


def test_what_is_not_valid_has_no_part_whatever_it_is():
    truth, predicted = depth(), depth()
    valid = torch.rand_like(truth) < 0.5
    expected = metrics.depth_errors(truth, predicted, valid)
    for trash in (0.0, -1.0, math.nan, math.inf):
        got = metrics.depth_errors(truth.where(valid, trash), predicted.where(valid, trash), valid)
        assert all(torch.equal(got[name], expected[name]) for name in DEPTH_METRICS)


def test_an_image_without_truth_is_nan_and_the_others_are_not():
    truth = depth()
    truth[1] = 0
    for scaling in (False, True):
        got = metrics.evaluate(truth, depth(), EVERYTHING, scaling)
        for value in got.values():
            assert value[0].isfinite() and value[1].isnan()


# Evaluation


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("scaling", [False, True])
def test_the_truth_as_prediction_is_perfect_under_every_protocol(name, scaling, device):
    truth = sparse(depth()).to(device)
    got = metrics.evaluate(truth, truth.where(truth > 0, 7), PROTOCOLS[name], scaling)
    assert all(not got[error].any() for error in DEPTH_METRICS[:4])
    assert all((got[share] == 1).all() for share in DEPTH_METRICS[4:])
    assert (got["ratio"] == 1).all()


def test_a_wrong_scale_is_an_error_unless_it_is_forgiven():
    truth = depth()
    got = metrics.evaluate(truth, 1.1 * truth, EVERYTHING, median_scaling=False)
    assert_close(got["abs_rel"], torch.full((2,), 0.1).double(), atol=1e-6, rtol=0)
    assert_close(got["rmse_log"], torch.full((2,), math.log(1.1)).double(), atol=1e-6, rtol=0)
    scaled = metrics.evaluate(truth, 1.1 * truth, EVERYTHING, median_scaling=True)
    assert_close(scaled["abs_rel"], torch.zeros(2).double(), atol=1e-6, rtol=0)
    for result in (got, scaled):
        assert_close(result["ratio"], torch.full((2,), 1 / 1.1).double(), atol=0, rtol=1e-6)


def test_median_scaling_makes_the_scale_of_each_image_irrelevant():
    truth, predicted = sparse(depth()), depth() / 100
    scale = torch.tensor([3.0, 0.2]).view(2, 1, 1, 1)
    one = metrics.evaluate(truth, predicted, PROTOCOLS["eigen"], True)
    other = metrics.evaluate(truth, scale * predicted, PROTOCOLS["eigen"], True)
    for name in DEPTH_METRICS:
        assert_close(one[name], other[name], atol=0, rtol=1e-5)
    assert_close(other["ratio"] * scale.flatten(), one["ratio"], atol=0, rtol=1e-6)


@pytest.mark.parametrize("points", [1, 2, 3, 10, 11])
def test_the_median_is_numpys_for_odd_and_even_numbers(points):
    truth, predicted = torch.zeros(2, 1, 4, 6), depth(2, 4, 6)
    for i in range(2):
        truth[i].view(-1)[torch.randperm(24)[:points]] = 1 + 50 * torch.rand(points)
    ratio = metrics.evaluate(truth, predicted, EVERYTHING, False)["ratio"]
    for i in range(2):
        valid = truth[i] > 0
        medians = [np.median(x[i][valid].double().numpy()) for x in (truth, predicted)]
        assert ratio[i].item() == medians[0] / medians[1]


def test_a_prediction_that_is_nan_does_not_pass_for_a_ratio():
    predicted = depth(1)
    predicted[0, 0, 3, 4] = math.nan
    got = metrics.evaluate(depth(1), predicted, EVERYTHING, median_scaling=True)
    assert got["ratio"].isnan() and got["abs_rel"].isnan()


def test_predictions_are_cut_after_scaling():
    protocol = Protocol(min_depth_m=10.0, max_depth_m=20.0)
    truth = row(10, 15, 20)
    cut = metrics.evaluate(truth, row(1, 15, 70), protocol, False)
    assert cut["abs_rel"] == 0
    assert_close(cut["ratio"].item(), 1.0)
    scaled = metrics.evaluate(truth, row(0.5, 7.5, 35), protocol, True)  # 1, 15, 70 after scaling
    assert scaled["abs_rel"] == 0
    assert_close(scaled["ratio"].item(), 2.0)


def test_inputs_are_left_as_they_are():
    truth, predicted = sparse(depth()), depth()
    before = truth.clone(), predicted.clone()
    metrics.evaluate(truth, predicted, PROTOCOLS["eigen"], True)
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
    got = metrics.evaluate(truth, truth, PROTOCOLS["eigen_benchmark"], False)
    assert_close(got["abs_rel"].item(), 0.2)


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


# Refusals


@pytest.mark.parametrize("shape", [(1, 1, 30, 40), (2, 30, 40), (2, 1, 30, 41)], ids=str)
def test_maps_that_would_broadcast_are_refused(shape):
    truth = depth()
    with pytest.raises(ValueError, match=r"predicted_m: expected shape \(2, 1, 30, 40\), got"):
        metrics.evaluate(truth, torch.ones(shape), EVERYTHING, False)
    for name, maps in {
        "predicted": (truth, torch.ones(shape), truth > 0),
        "valid": (truth, truth, torch.ones(shape) > 0),
    }.items():
        with pytest.raises(ValueError, match=f"{name}: expected shape"):
            metrics.depth_errors(*maps)


def test_a_truth_that_is_no_batch_of_maps_is_refused():
    with pytest.raises(ValueError, match=r"truth: expected shape \(B, 1, h, w\), got \(30, 40\)"):
        metrics.valid_pixels(torch.ones(30, 40), EVERYTHING)
