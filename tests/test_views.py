"""Laws of the views: true depth and motion bring every source to the target.

The world is a corridor whose colours and depth are known for every ray.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from datasets.batch import STEREO, Batch, map_tensors
from liegroups import se3
from tests.training_setup import (
    CAMERA_ALONE,
    corridor_batch,
    gentle_window,
    random_prediction,
    tiny_batch,
    tiny_options,
    true_prediction,
)
from training.motion import Motion, fuse
from training.prediction import Prediction, from_target, sources_of
from training.views import Views, enlarged, scaled_intrinsics, synthesise, warps_inertially

SIZE = ("--width", "128", "--height", "96")


def truth(*argv: str) -> tuple[Namespace, Batch, Prediction, Motion, Tensor]:
    """Return a corridor with what perfect networks and a perfect IMU say of it, and its depth."""
    options = tiny_options(*SIZE, *argv)
    frames = [frame for frame in sources_of(options) if frame != STEREO]
    window = gentle_window(min(frames), max(frames))
    batch, depth = corridor_batch(options, window)
    prediction = true_prediction(options, window, depth)
    felt = dict(prediction.T_first_second)
    return options, batch, prediction, Motion(felt, felt, {}, None, None), depth


def seen_error(view: Tensor, target: Tensor, T_source_c0: Tensor, K: Tensor, depth: Tensor):
    """Return the mean difference where the source can see what the target sees.

    Its image ends, and parts of the corridor are never hidden.
    """
    height, width = depth.shape[-2:]
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.linalg.inv(K) @ torch.stack([u, v, torch.ones_like(u)]).flatten(1).to(K)
    points = T_source_c0[:, :3, :3] @ (points * depth.flatten(2)) + T_source_c0[:, :3, 3:]
    x, y, z = (K @ points).unbind(1)
    inside = (z > 0) & (x / z > 0) & (x / z < width - 1) & (y / z > 0) & (y / z < height - 1)
    inside = inside.view(-1, 1, height, width)
    assert inside.float().mean() > 0.4
    difference = (view - target).abs() * inside
    return difference.sum() / inside.sum() / 3


@pytest.mark.parametrize("frames", [("0", "-1", "1"), ("0", "-2", "-1", "1", "2")])
def test_true_depth_and_motions_bring_all_sources_to_the_target(frames):
    options, batch, prediction, motion, depth = truth(
        "--use_stereo", "--scales", "0", "--frame_ids", *frames
    )
    views = synthesise(batch, prediction, prediction.T_first_second, motion, options)[0]
    sources = sources_of(options)
    assert sources[-1] == STEREO and len(views.camera) == len(sources) == len(frames)
    assert len(views.inertial) == len(sources) - 1
    for place, source in enumerate(sources):
        if source == STEREO:
            T_source_c0 = batch.T_source_c0[STEREO]
        else:
            T_source_c0 = from_target(prediction.T_first_second[source], source)
        still = seen_error(batch.image[source], views.target, T_source_c0, batch.K, depth)
        by_camera = seen_error(views.camera[place], views.target, T_source_c0, batch.K, depth)
        assert still > 0.1 and by_camera < 0.02
        if source != STEREO:
            by_imu = seen_error(views.inertial[place], views.target, T_source_c0, batch.K, depth)
            assert by_imu < 0.02


def test_stereo_is_warped_by_its_calibration_whatever_is_predicted():
    options, batch, prediction, motion, _ = truth("--use_stereo", "--scales", "0")
    views = synthesise(batch, prediction, prediction.T_first_second, motion, options)[0]
    others = {k: T @ T for k, T in prediction.T_first_second.items()}
    moved = Motion({k: T @ T for k, T in motion.used.items()}, motion.inertial, {}, None, None)
    found = synthesise(batch, prediction, others, moved, options)[0]
    assert torch.equal(found.camera[2], views.camera[2])
    assert (found.camera[:2] != views.camera[:2]).any()
    nearer = batch._replace(T_source_c0={STEREO: torch.eye(4).double().repeat(2, 1, 1)})
    found = synthesise(nearer, prediction, prediction.T_first_second, motion, options)[0]
    assert_close(found.camera[2], batch.image[STEREO])


def test_views_are_those_of_their_sources_and_motions():
    options = tiny_options("--use_stereo", "--scales", "0", "--frame_ids", "1", "0", "-1")
    batch = tiny_batch(options)
    image = {
        frame: torch.full_like(batch.image[frame], colour)
        for frame, colour in {0: 0.0, 1: 0.1, -1: 0.2, STEREO: 0.3}.items()
    }
    batch = batch._replace(image=image, pyramid={0: image})
    prediction = random_prediction(options, batch)
    motion = fuse(batch.imu, prediction, options, None)
    views = synthesise(batch, prediction, prediction.T_first_second, motion, options)[0]
    assert_close(views.target, image[0])
    expected = torch.tensor([0.1, 0.2, 0.3, 0.1, 0.2])
    assert_close(views.sources.mean((1, 2, 3, 4)), expected[:3])
    assert_close(views.camera.mean((1, 2, 3, 4)), expected[:3])
    assert_close(views.inertial.mean((1, 2, 3, 4)), expected[3:])
    assert_close(views.warped.mean((1, 2, 3, 4)), expected)


def test_inertial_views_are_by_the_motion_that_is_used():
    options, batch, prediction, motion, _ = truth("--scales", "0")
    wrong = {k: se3.exp(torch.zeros(2, 6).double()) for k in motion.used}
    given = Motion(
        wrong, motion.used, {}, None, None
    )  # what the IMU says is not what the filter says
    found = synthesise(batch, prediction, prediction.T_first_second, given, options)[0]
    by_camera = synthesise(batch, prediction, motion.used, given, options)[0]
    assert_close(found.inertial, by_camera.camera)
    given = Motion(motion.inertial, wrong, {}, None, None)
    found = synthesise(batch, prediction, prediction.T_first_second, given, options)[0]
    assert_close(found.inertial, found.sources)  # nothing moves


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((), True),
        (("--imu_warp_weight", "0"), True),
        (("--imu_consistency_weight", "0"), True),
        (("--imu_warp_weight", "0", "--imu_consistency_weight", "0"), False),
        ((*CAMERA_ALONE, "--imu_l2_weight", "1"), False),
    ],
)
def test_the_imu_warps_if_a_loss_looks_at_it(argv, expected):
    options, batch, prediction, motion, _ = truth(*argv)
    views = synthesise(batch, prediction, prediction.T_first_second, motion, options)
    assert warps_inertially(options) is expected
    for view in views.values():
        assert len(view.camera) == 2 and len(view.inertial) == 2 * expected


@pytest.mark.parametrize("resolution", ["full", "native"])
def test_scales_are_compared_at_the_resolution_that_is_asked_for(resolution):
    options, batch, prediction, motion, _ = truth("--loss_resolution", resolution)
    views = synthesise(batch, prediction, prediction.T_first_second, motion, options)
    assert list(views) == [0, 1, 2, 3]
    for scale, view in views.items():
        level = scale if resolution == "native" else 0
        size = 96 // 2**level, 128 // 2**level
        assert view.target.shape == (2, 3, *size)
        assert view.sources.shape == (2, 2, 3, *size) and view.warped.shape == (4, 2, 3, *size)
        assert view.target is batch.pyramid[level][0]
        if level == 3:
            continue  # of 16 x 12 pixels, in which the corridor's colours are lost
        # A coarse disparity of the truth, and coarse images, still bring the sources near.
        middle = (..., slice(size[0] // 4, -size[0] // 4), slice(size[1] // 4, -size[1] // 4))
        error = (view.warped - view.target)[middle].abs().mean()
        assert error < 0.5 * (view.sources - view.target)[middle].abs().mean()


@pytest.mark.parametrize("scale", [0, 1, 2, 3])
def test_scaled_intrinsics_see_a_point_where_the_mean_of_its_pixels_is(scale):
    batch = tiny_batch(tiny_options(*SIZE))
    K = batch.K.clone()
    scaled = scaled_intrinsics(batch.K, scale)
    assert torch.equal(K, batch.K) and (scaled[:, 2] == torch.tensor([0.0, 0, 1])).all()
    point = torch.tensor([0.7, -0.4, 6.0])
    full, small = (matrix[0] @ point / point[2] for matrix in (K, scaled))
    # An image whose value is its pixel's own u or v: the mean says where a pixel is in the full.
    v, u = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    coarse = F.avg_pool2d(torch.stack([u, v]).unsqueeze(0), 2**scale)[0]
    (u0, v0), step = coarse[:, 0, 0], 2**scale
    assert_close(full[0], u0 + step * small[0])
    assert_close(full[1], v0 + step * small[1])


def test_enlarged_images_keep_their_edges():
    image = torch.rand(2, 1, 4, 6)
    assert enlarged(image, 4, 6) is image
    # A slope stays the slope: pixel centres of both sizes lie on one line.
    u = torch.arange(6.0).expand(1, 1, 4, 6)
    found = enlarged(u, 8, 12)[0, 0, 0]
    expected = ((torch.arange(12.0) + 0.5) / 2 - 0.5).clamp(0, 5)
    assert_close(found, expected)


def test_gradients_of_all_views_reach_disparity_and_both_motions():
    options = tiny_options()
    batch = tiny_batch(options)
    prediction = random_prediction(options, batch)
    used = {k: T.detach().clone().requires_grad_() for k, T in prediction.T_first_second.items()}
    motion = Motion(used, used, {}, None, None)
    views = synthesise(batch, prediction, prediction.T_first_second, motion, options)
    for scale, view in views.items():
        leaves = [*prediction.T_first_second.values(), *used.values(), prediction.disparity[scale]]
        weight = torch.linspace(-1, 1, view.warped.numel()).view_as(view.warped)
        value = (weight * view.warped).sum()
        for gradient in torch.autograd.grad(value, leaves, retain_graph=True):
            assert gradient.isfinite().all() and (gradient.flatten(1).abs().sum(1) > 0).all()


def test_a_motion_that_is_lost_is_seen():
    options, batch, prediction, motion, _ = truth("--scales", "0")
    lost = {k: T.clone() for k, T in prediction.T_first_second.items()}
    lost[1][1, 0, 0] = torch.nan
    views: Views = synthesise(batch, replace(prediction), lost, motion, options)[0]
    bad = views.warped.isnan().flatten(2).any(-1)
    assert bad.tolist() == [[False, False], [False, True], [False, False], [False, False]]
    assert not map_tensors(lambda image: image.isnan().any().item(), batch.image)[1]
