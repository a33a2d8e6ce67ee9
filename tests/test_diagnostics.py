"""Laws of what is shown of a step: the numbers are those of a case done by hand, all are finite."""

from __future__ import annotations

import math
from argparse import Namespace

import pytest
import torch
from torch.testing import assert_close

from datasets.batch import STEREO, Batch
from ekf.filter import EKFModel
from liegroups import se3
from tests.training_setup import (
    CAMERA_ALONE,
    models_by_formula,
    random_prediction,
    tiny_batch,
    tiny_options,
)
from training.diagnostics import images, numbers
from training.motion import Motion, fuse
from training.prediction import Prediction
from training.step import Details, Step, compute_losses
from training.views import synthesise

ALWAYS = {"depth_median_m", "kept_by_automask"}
OF_IMU = {
    f"imu_camera_{source}_{what}"
    for source in (-1, 1)
    for what in ("translation_m", "rotation_deg")
} | {"speed_error_-1_m_s", "speed_error_0_m_s"}


def details_of(batch: Batch, prediction: Prediction, motion: Motion, options: Namespace) -> Details:
    views = synthesise(batch, prediction, prediction.T_first_second, motion, options)
    _, compared = compute_losses(batch, prediction, motion, views, options)
    return Details(prediction, motion, views[0], compared)


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (CAMERA_ALONE, ALWAYS),
        ((*CAMERA_ALONE, "--frame_ids", "0", "--use_stereo"), ALWAYS),
        (
            (*CAMERA_ALONE, "--velo_weight", "1"),
            ALWAYS | {"speed_error_-1_m_s", "speed_error_0_m_s"},
        ),
        ((), ALWAYS | OF_IMU),
        (("--display_velo_scale",), ALWAYS | OF_IMU | {"speed_scale_-1", "speed_scale_0"}),
        (
            ("--use_ekf",),
            ALWAYS | OF_IMU | {"filter_rotation_std_deg", "filter_translation_std_m"},
        ),
    ],
)
def test_numbers_are_those_of_the_options_and_finite(argv, names):
    options = tiny_options("--scales", "0", *argv)
    batch = tiny_batch(options)
    _, details = Step(models_by_formula(options), options)(batch)
    found = numbers(batch, details, options)
    assert set(found) == names
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())


def test_numbers_of_a_case_done_by_hand():
    options = tiny_options("--scales", "0", "--display_velo_scale")
    batch = tiny_batch(options)
    still = torch.eye(4).repeat(2, 1, 1)
    turned = se3.exp(torch.tensor([[0.0] * 6, [0, 0, 0, 0, math.radians(30), 0]]))
    seen = still.clone()
    seen[:, :3, 3] = torch.tensor([[0.0, 2, 1], [0, 0, 3]])
    turned[:, :3, 3] = torch.tensor([[3.0, 2, 5], [0, 0, 4]])
    near, far = 1 / options.min_depth, 1 / options.max_depth
    disparity = torch.full((2, 1, 64, 64), (1 / 2 - far) / (near - far))  # 2 units of 5.4 m
    speed = torch.tensor([8.0, 12.0])
    batch.imu[-1] = batch.imu[-1]._replace(speed=speed)
    batch.imu[0] = batch.imu[0]._replace(speed=speed)
    prediction = Prediction(
        disparity={0: disparity},
        mask={},
        T_first_second={-1: seen, 1: still},
        uncertainty={},
        velocity={
            -1: torch.tensor([[0, 3.0, 4], [0, 0, 15]]),
            0: torch.tensor([[0, 0, 8.0], [0, -12, 0]]),
        },
        gravity={0: torch.ones(2, 3)},
    )
    felt = {-1: turned, 1: still}
    motion = Motion(felt, felt, {}, None, None)
    found = numbers(batch, details_of(batch, prediction, motion, options), options)
    found.pop("kept_by_automask")
    expected = {
        "depth_median_m": 10.8,
        "imu_camera_-1_translation_m": 3.0,  # of 5 and 1
        "imu_camera_-1_rotation_deg": 15.0,  # of 0 and 30
        "imu_camera_1_translation_m": 0.0,
        "imu_camera_1_rotation_deg": 0.0,
        "speed_error_-1_m_s": 3.0,  # 5 for 8, 15 for 12
        "speed_error_0_m_s": 0.0,
        "speed_scale_-1": 1.0,
        "speed_scale_0": 1.0,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-3), name


def test_the_scale_of_speed_is_what_the_prediction_lacks():
    options = tiny_options("--scales", "0", "--display_velo_scale")
    batch = tiny_batch(options)
    prediction = random_prediction(options, batch)
    for first, velocity in prediction.velocity.items():
        direction = velocity.detach() / velocity.detach().norm(dim=-1, keepdim=True)
        prediction.velocity[first] = direction * batch.imu[first].speed[:, None] / 2
    motion = fuse(batch.imu, prediction, options, None)
    found = numbers(batch, details_of(batch, prediction, motion, options), options)
    assert found["speed_scale_-1"] == pytest.approx(2) == found["speed_scale_0"]


@pytest.mark.parametrize("source", ["recorded", "camera"])
def test_the_error_of_speed_is_of_what_learns_from_the_recorded_one(source):
    options = tiny_options("--scales", "0", "--velocity_source", source)
    batch = tiny_batch(options)
    prediction = random_prediction(options, batch)
    motion = fuse(batch.imu, prediction, options, None)
    said = prediction.velocity[0] if source == "recorded" else motion.velocity[0]
    error = (said.norm(dim=-1) - batch.imu[0].speed).abs().mean()
    found = numbers(batch, details_of(batch, prediction, motion, options), options)
    assert found["speed_error_0_m_s"] == pytest.approx(error.item(), abs=1e-5)
    assert error > 0.01


def test_the_filter_is_the_surer_the_surer_the_camera():
    options = tiny_options("--scales", "0", "--use_ekf", "--noise_preset", "calibrated")
    batch = tiny_batch(options)
    deviations = []
    for exponent in (-1.0, 0.0, 1.0):
        prediction = random_prediction(options, batch)
        for source, uncertainty in prediction.uncertainty.items():
            prediction.uncertainty[source] = torch.full_like(uncertainty, exponent)
        motion = fuse(batch.imu, prediction, options, EKFModel("calibrated"))
        found = numbers(batch, details_of(batch, prediction, motion, options), options)
        deviations.append(
            torch.tensor([found["filter_rotation_std_deg"], found["filter_translation_std_m"]])
        )
        std = motion.fusion.covariance.diagonal(dim1=1, dim2=2).detach().sqrt().mean(0)  # (6)
        expected = torch.stack([std[:3].mean() * 180 / math.pi, std[3:].mean()])
        assert_close(deviations[-1], expected)
    sharp, usual, vague = deviations
    assert (0 < sharp).all() and (sharp < usual).all() and (usual < vague).all()


def test_the_automask_keeps_what_is_better_explained_by_motion():
    options = tiny_options("--scales", "0", *CAMERA_ALONE)
    batch = tiny_batch(options)
    prediction = random_prediction(options, batch)
    details = details_of(batch, prediction, Motion({}, {}, {}, None, None), options)
    moving = details.compared.moving
    assert 0 < moving.float().mean() < 1
    found = numbers(batch, details, options)["kept_by_automask"]
    assert found == pytest.approx(moving.sum().item() / moving.numel())


OF_CAMERA = {"target", "network_input", "disparity", "error", "camera_-1", "camera_1"}


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (CAMERA_ALONE, OF_CAMERA | {"automask"}),
        ((*CAMERA_ALONE, "--disable_automasking"), OF_CAMERA),
        (
            (*CAMERA_ALONE, "--disable_automasking", "--predictive_mask"),
            OF_CAMERA | {"predictive_mask"},
        ),
        (("--use_stereo",), OF_CAMERA | {"automask", f"camera_{STEREO}", "imu_-1", "imu_1"}),
        (("--loss_resolution", "native"), OF_CAMERA | {"automask", "imu_-1", "imu_1"}),
    ],
)
def test_pictures_are_those_of_the_options(argv, names):
    options = tiny_options(*argv)
    batch = tiny_batch(options)
    prediction = random_prediction(options, batch)
    motion = fuse(batch.imu, prediction, options, None)
    shown = images(batch, details_of(batch, prediction, motion, options), options)
    assert set(shown) == {f"{sample}/{name}" for sample in (0, 1) for name in names}
    for picture in shown.values():
        assert picture.dtype == torch.uint8 and picture.shape == (3, 64, 64)


def test_pictures_show_their_sample_and_not_more_than_four():
    options = tiny_options("--use_stereo")
    batch = tiny_batch(options, 5)
    batch = batch._replace(augmented={k: 1 - image for k, image in batch.image.items()})
    prediction = random_prediction(options, batch)
    motion = fuse(batch.imu, prediction, options, None)
    details = details_of(batch, prediction, motion, options)
    shown = images(batch, details, options)
    assert {name.split("/")[0] for name in shown} == {"0", "1", "2", "3"}
    for i in range(4):
        target = (batch.image[0][i] * 255).round()
        assert_close(shown[f"{i}/target"].float(), target)
        assert_close(shown[f"{i}/network_input"].float(), 255 - target)
        for place, frame in enumerate((-1, 1, STEREO)):
            camera = (details.views.camera[place, i] * 255).round()
            assert_close(shown[f"{i}/camera_{frame}"].float(), camera, atol=1, rtol=0)
        for place, frame in enumerate((-1, 1)):
            felt = (details.views.inertial[place, i] * 255).round()
            assert_close(shown[f"{i}/imu_{frame}"].float(), felt, atol=1, rtol=0)


def test_looking_changes_no_gradient():
    options = tiny_options("--scales", "0")
    batch = tiny_batch(options)
    prediction = random_prediction(options, batch)
    motion = fuse(batch.imu, prediction, options, None)
    details = details_of(batch, prediction, motion, options)
    shown = images(batch, details, options)
    numbers(batch, details, options)
    assert not any(picture.requires_grad for picture in shown.values())
    details.compared.loss.backward()
    assert prediction.disparity[0].grad.isfinite().all()
