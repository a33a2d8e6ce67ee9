"""Validation: its errors by hand, for any number of processes, and that it changes nothing."""

from __future__ import annotations

import math
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import metrics
from evaluation.inference import DepthNetwork
from evaluation.weights import open_depth
from tests.training_runs import (
    ALONE,
    CAMERA_ONLY,
    CPU,
    equal_states,
    make_data,
    make_trainer,
    states,
    use_small_networks,
)
from trainer import Trainer
from training import data, validation
from training.distributed import World
from training.validation import selection_error, validate

PROTOCOL = metrics.PROTOCOLS["eigen"]
CROP = 0.40810811, 0.99189189, 0.03594771, 0.96405229  # of Garg et al.: top, bottom, left, right


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trainer(root, tmp_path_factory) -> Trainer:
    with pytest.MonkeyPatch.context() as patch:
        use_small_networks(patch)
        return make_trainer(root, tmp_path_factory.mktemp("runs"), "--use_ekf")


def batches(trainer: Trainer) -> list:
    return list(data.validation_batches(trainer.validation, trainer.options))


def errors_by_hand(trainer: Trainer, scaled: bool) -> list[dict[str, float]]:
    """Return the errors of each image by NumPy, from the disparity of the networks."""
    found = []
    models = trainer.models.eval()
    for batch in batches(trainer):
        with torch.no_grad():
            disparity = models["depth"](models["encoder"](batch.image[0]))["disp", 0]
        disparity = F.interpolate(disparity, batch.depth[0].shape[-2:], mode="bilinear")
        for truth, disp in zip(batch.depth[0].numpy()[:, 0], disparity.numpy()[:, 0], strict=True):
            depth = 5.4 / (1 / 100 + (1 / 0.1 - 1 / 100) * disp.astype(np.float64))
            h, w = truth.shape
            rows = slice(int(CROP[0] * h), int(CROP[1] * h))
            columns = slice(int(CROP[2] * w), int(CROP[3] * w))
            true, guess = truth[rows, columns], depth[rows, columns]
            known = (true > 1e-3) & (true < 80)
            true, guess = true[known].astype(np.float64), guess[known]
            ratio = np.median(true) / np.median(guess)
            guess = np.clip(guess * (ratio if scaled else 1), 1e-3, 80)
            worse = np.maximum(true / guess, guess / true)
            found.append(
                {
                    "abs_rel": np.mean(np.abs(true - guess) / true),
                    "sq_rel": np.mean((true - guess) ** 2 / true),
                    "rmse": np.sqrt(np.mean((true - guess) ** 2)),
                    "rmse_log": np.sqrt(np.mean((np.log(true) - np.log(guess)) ** 2)),
                    "a1": np.mean(worse < 1.25),
                    "a2": np.mean(worse < 1.25**2),
                    "a3": np.mean(worse < 1.25**3),
                    "ratio": ratio,
                }
            )
    return found


@pytest.mark.parametrize("prefix", ["", "scaled/"])
def test_errors_are_those_of_the_predicted_depth_by_hand(prefix, trainer):
    found = validate(trainer.step, batches(trainer), True, ALONE)
    by_hand = errors_by_hand(trainer, scaled=bool(prefix))
    ratios = [errors.pop("ratio") for errors in by_hand]
    assert len(by_hand) == 3
    for name in by_hand[0]:
        expected = np.mean([errors[name] for errors in by_hand])  # of images, not of batches
        assert found[f"{prefix}{name}"] == pytest.approx(expected, rel=1e-4), name
    assert found["scale_ratio"] == pytest.approx(np.median(ratios), rel=1e-4)
    spread = np.std(ratios) / np.median(ratios)
    assert found["scale_spread"] == pytest.approx(spread, rel=1e-3)
    assert f"{prefix}ratio" not in found


def test_losses_are_means_over_samples(trainer):
    found = validate(trainer.step, batches(trainer), True, ALONE)
    trainer.step.eval()
    with torch.no_grad():
        terms = [(len(batch.K), trainer.step(batch)[0]) for batch in batches(trainer)]
    assert [count for count, _ in terms] == [2, 1]
    for name in terms[0][1]:
        expected = sum(count * term[name].item() for count, term in terms) / 3
        assert found[f"loss/{name}"] == pytest.approx(expected, rel=1e-4)


def test_a_warming_filter_takes_no_part(trainer):
    with_filter, without = (
        validate(trainer.step, batches(trainer), warm, ALONE) for warm in (True, False)
    )
    assert with_filter["abs_rel"] == without["abs_rel"]
    assert with_filter["loss/imu_photometric"] != without["loss/imu_photometric"]


@pytest.mark.parametrize("mode", [True, False])
def test_nothing_is_changed_by_it(mode, trainer):
    trainer.step.train(mode)
    before, modes = states(trainer), []
    hook = trainer.models["depth"].register_forward_pre_hook(
        lambda module, _: modes.append((module.training, torch.is_grad_enabled()))
    )
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = validate(trainer.step, batches(trainer), True, ALONE)
    assert torch.equal(torch.rand(4), expected)  # the training's random numbers are its own
    second = validate(trainer.step, batches(trainer), True, ALONE)
    hook.remove()
    assert first == second
    assert set(modes) == {(False, False)}
    assert trainer.step.training is mode and trainer.models["encoder"].training is mode
    assert equal_states(before, states(trainer))
    assert all(p.grad is None for p in trainer.parameters)


def test_the_mode_is_restored_after_an_error_too(trainer):
    trainer.step.train()
    (first, *_) = batches(trainer)
    with pytest.raises(KeyError):
        validate(trainer.step, [first._replace(augmented={})], True, ALONE)
    assert trainer.step.training


@pytest.mark.parametrize("sizes", [(1, 2), (3, 0)])
def test_any_number_of_processes_finds_the_same(sizes, trainer, monkeypatch):
    whole = validate(trainer.step, batches(trainer), True, ALONE)
    one, two = batches(trainer)
    of_rank = {(1, 2): [[two], [one]], (3, 0): [[one, two], []]}[sizes]
    told = []
    for part in of_rank:
        with monkeypatch.context() as patch:
            patch.setattr(validation, "gather", lambda read, world: told.append(read) or [read])
            validate(trainer.step, part, True, World(len(told), 2, CPU))
    results = []
    for part in of_rank:
        with monkeypatch.context() as patch:
            patch.setattr(validation, "gather", lambda read, world: told)
            results.append(validate(trainer.step, part, True, World(0, 2, CPU)))
    assert results[0] == results[1] and results[0].keys() == whole.keys()
    assert results[0] == pytest.approx(whole, rel=1e-4)


def test_an_image_without_truth_in_the_crop_has_no_errors(trainer):
    one, two = batches(trainer)
    blind = two._replace(depth={0: torch.zeros_like(two.depth[0])})
    seen = validate(trainer.step, [one, blind], True, ALONE)
    alone = validate(trainer.step, [one], True, ALONE)
    assert seen["abs_rel"] == pytest.approx(alone["abs_rel"], rel=1e-6)
    assert seen["scale_ratio"] == pytest.approx(alone["scale_ratio"], rel=1e-6)
    assert seen["loss/total"] != alone["loss/total"]
    assert "abs_rel" not in validate(trainer.step, [blind], True, ALONE)


def test_a_depth_that_is_no_number_makes_the_errors_none(trainer, monkeypatch):
    one, two = batches(trainer)
    depth_of = validation._predicted_depth

    def broken(disparity, batch, options):
        depth = depth_of(disparity, batch, options)
        return depth * math.nan if batch is two else depth

    monkeypatch.setattr(validation, "_predicted_depth", broken)
    found = validate(trainer.step, [one, two], True, ALONE)
    for name in ("abs_rel", "rmse", "scaled/abs_rel", "scale_ratio"):
        assert math.isnan(found[name])
    assert found["a1"] <= 2 / 3  # no pixel of it is within a factor


def test_without_true_depth_there_are_losses_alone(trainer):
    without = [batch._replace(depth={}) for batch in batches(trainer)]
    found = validate(trainer.step, without, True, ALONE)
    assert found and all(name.startswith("loss/") for name in found)
    assert selection_error(found, trainer.options) == found["loss/photometric"]


@pytest.mark.parametrize(
    "use_imu, use_stereo, name",
    [
        (True, False, "abs_rel"),
        (False, True, "abs_rel"),
        (True, True, "abs_rel"),
        (False, False, "scaled/abs_rel"),
    ],
)
def test_what_the_best_models_have_least_of(use_imu, use_stereo, name):
    errors = {"abs_rel": 0.1, "scaled/abs_rel": 0.2, "loss/photometric": 0.3}
    options = Namespace(use_imu=use_imu, use_stereo=use_stereo)
    assert selection_error(errors, options) == errors[name]
    assert selection_error({"loss/photometric": 0.3}, options) == 0.3
    assert math.isnan(selection_error(errors | {name: math.nan}, options))


def test_a_camera_alone_is_compared_after_scaling(root, tmp_path, monkeypatch):
    use_small_networks(monkeypatch)
    trainer = make_trainer(root, tmp_path, CAMERA_ONLY)
    trainer.train()
    errors = validate(trainer.step, batches(trainer), True, ALONE)
    assert selection_error(errors, trainer.options) == errors["scaled/abs_rel"]
    assert trainer.progress.best_error <= errors["scaled/abs_rel"]


def test_what_is_saved_evaluates_as_in_the_validation_whatever_its_unit(root, tmp_path):
    trainer = make_trainer(root, tmp_path, CAMERA_ONLY)  # real networks, as evaluation asks for
    found = {}
    for unit_m in (5.4, 2.7):
        trainer.progress.unit_m = unit_m
        trainer.take_unit()
        validated = validate(trainer.step, batches(trainer), True, ALONE)
        saved = trainer.checkpoints.save_rolling(trainer.trained, trainer.progress, [])
        network = DepthNetwork(open_depth(saved, CPU))
        errors = []
        for batch in batches(trainer):
            inverse = network.inverse_depth((255 * batch.image[0]).round().to(torch.uint8))
            depth_m = 1 / metrics.resize_disparity(inverse, batch.depth[0].shape[-2:])
            errors.append(metrics.evaluate(batch.depth[0], depth_m, PROTOCOL).unscaled["abs_rel"])
        found[unit_m] = torch.cat(errors).mean().item()
        assert found[unit_m] == pytest.approx(validated["abs_rel"], rel=1e-4)
    assert found[2.7] != pytest.approx(found[5.4], rel=0.01)


def test_every_kind_of_data_that_is_trained_on_has_a_protocol():
    assert {"kitti", "kitti_odom", "kitti_depth"} == set(validation.PROTOCOL_OF)
    assert set(validation.PROTOCOL_OF.values()) <= set(validation.metrics.PROTOCOLS)
