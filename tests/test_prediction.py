"""Laws of the prediction: what each network sees, how often, and what its numbers mean."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn
from torch.testing import assert_close

from datasets.batch import STEREO, Batch
from liegroups import se3
from networks.pose_decoder import PoseOutput
from tests.samples import tensors
from tests.training_setup import CAMERA_ALONE, models_by_formula, tiny_batch, tiny_options
from training.prediction import (
    depth_in_metres,
    from_target,
    neighbours_of,
    pair_of,
    predict,
    sources_of,
)

UNIT_M = 5.4
WIDE = ("--frame_ids", "0", "-2", "-1", "1", "2")


class Spy(nn.Module):
    """Notes what a network is given, and answers for it."""

    def __init__(self, answer: Callable) -> None:
        super().__init__()
        self.answer, self.given = answer, []

    def forward(self, x):
        self.given.append(x)
        return self.answer(x)


def spied(models: nn.ModuleDict) -> dict[str, Spy]:
    """Put a spy before every network."""
    for name in models:
        models[name] = Spy(models[name])
    return dict(models.items())


def plain_batch(options, batch: int = 2) -> Batch:
    """Return a batch whose images have one colour: 0.5 + frame / 10, and 1 more by sample."""
    made = tiny_batch(options, batch)
    brightness = torch.arange(batch).view(-1, 1, 1, 1)
    images = {
        frame: torch.full_like(image, 0.5 + frame / 10) + brightness
        for frame, image in made.image.items()
        if frame != STEREO
    }
    return made._replace(augmented=images)


def frames_seen(pairs: Tensor, sample: int) -> list[tuple[int, ...]]:
    """Return the frames in each row (n * 2, 3 * images, H, W) of a sample, in their order."""
    colours = (pairs[sample::2, ::3, 0, 0] - sample - 0.5) * 10
    return [tuple(map(round, row)) for row in colours.tolist()]


def poses(count: int, motions: int = 2) -> PoseOutput:
    """Return different motions for every row; the second of a pair's two is nonsense."""
    numbers = torch.arange(count * motions * 3).view(count, motions, 3)
    output = PoseOutput(
        0.3 * torch.sin(0.7 * numbers + 1),
        torch.cos(0.9 * numbers),
        torch.cat([numbers / 100, -numbers / 100], -1),
    )
    if motions == 2:
        for part in output:
            part[:, 1] = torch.nan
    return output


def motion(axisangle: Tensor, translation_m: Tensor) -> Tensor:
    T = torch.eye(4)
    T[:3, :3] = torch.from_numpy(Rotation.from_rotvec(axisangle.numpy()).as_matrix())
    T[:3, 3] = translation_m
    return T


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((), [-1, 1, STEREO]),
        (WIDE, [-2, -1, 1, 2, STEREO]),
        (("--frame_ids", "1", "0"), [1, STEREO]),
        ((*CAMERA_ALONE, "--frame_ids", "0"), [STEREO]),
    ],
)
def test_sources_are_the_neighbours_and_then_stereo(argv, expected):
    options = tiny_options(*argv, "--use_stereo")
    assert sources_of(options) == expected
    assert neighbours_of(options) == expected[:-1]
    options.use_stereo = False
    assert sources_of(options) == expected[:-1]


def test_pairs_are_in_temporal_order():
    assert [pair_of(source) for source in (-2, -1, 1, 3)] == [(-2, 0), (-1, 0), (0, 1), (0, 3)]


def test_later_sources_are_seen_by_the_inverse_motion():
    T = se3.exp(torch.randn(3, 6, dtype=torch.float64))
    assert_close(from_target(T, -1), T)
    assert_close(from_target(T, 2) @ T, torch.eye(4).double().expand(3, 4, 4))


def test_depth_is_in_metres():
    options = tiny_options("--min_depth", "0.5", "--max_depth", "20", "--trans_scale_factor", "3")
    found = depth_in_metres(torch.tensor([[0.0, 1.0, 0.5]]), options)
    halfway = 2 / (1 / 0.5 + 1 / 20)
    assert_close(found, 3 * torch.tensor([[20.0, 0.5, halfway]]))


@pytest.mark.parametrize(
    ("argv", "pose_pairs", "near"),
    [
        ((), [(-1, 0), (0, 1)], [(-1, 0), (0, 1)]),
        (WIDE, [(-2, 0), (-1, 0), (0, 1), (0, 2)], [(-1, 0), (0, 1)]),
        (("--frame_ids", "0", "1", "2"), [(0, 1), (0, 2)], [(0, 1)]),
        (("--frame_ids", "0", "-2", "-1"), [(-2, 0), (-1, 0)], [(-1, 0)]),
    ],
    ids=["usual", "wide", "later", "earlier"],
)
def test_every_network_sees_its_pairs_once_in_temporal_order(argv, pose_pairs, near):
    options = tiny_options(*argv, "--scales", "0")
    models = models_by_formula(options).eval()
    spies = spied(models)
    predict(models, plain_batch(options), options)
    assert {name: len(spy.given) for name, spy in spies.items()} == dict.fromkeys(models, 1)
    for sample in (0, 1):
        assert frames_seen(spies["encoder"].given[0], sample) == [(0,)]
        assert frames_seen(spies["pose_encoder"].given[0], sample) == pose_pairs
        assert frames_seen(spies["velo_encoder"].given[0], sample) == near
        assert frames_seen(spies["gravity_encoder"].given[0], sample) == near


def test_all_images_at_once_are_in_temporal_order():
    options = tiny_options("--pose_model_input", "all", *WIDE, "--scales", "0")
    models = models_by_formula(options).eval()
    spies = spied(models)
    predict(models, plain_batch(options), options)
    assert len(spies["pose_encoder"].given) == 1
    assert frames_seen(spies["pose_encoder"].given[0], 1) == [(-2, -1, 0, 1, 2)]


@pytest.mark.parametrize("scale", [0, 2])
@pytest.mark.parametrize("pose_type", ["separate_resnet", "shared", "posecnn"])
def test_a_motion_is_that_of_its_pair_in_metres(pose_type, scale):
    options = tiny_options("--pose_model_type", pose_type, *WIDE, "--scales", str(scale))
    models = models_by_formula(options).eval()
    models["pose"] = Spy(lambda _: poses(8))
    prediction = predict(models, tiny_batch(options), options)
    given = poses(8)
    unit_m = torch.full((2,), UNIT_M)
    if pose_type == "posecnn":  # its translation is in units of the mean depth
        unit_m = UNIT_M * (0.01 + (10 - 0.01) * prediction.disparity[scale]).mean((1, 2, 3))
    for row, source in enumerate((-2, -1, 1, 2)):
        for i in (0, 1):
            axisangle, translation, uncertainty = (part[2 * row + i, 0] for part in given)
            expected = motion(axisangle, unit_m[i] * translation)
            assert_close(prediction.T_first_second[source][i], expected, atol=1e-5, rtol=1e-5)
            assert_close(prediction.uncertainty[source][i], uncertainty)


@pytest.mark.parametrize("pose_type", ["separate_resnet", "shared", "posecnn"])
def test_of_all_images_the_motions_are_from_the_target(pose_type):
    argv = ("--pose_model_type", pose_type, "--pose_model_input", "all", "--frame_ids")
    options = tiny_options(*argv, "1", "0", "-1", "-2", "--scales", "0")
    models = models_by_formula(options).eval()
    models["pose"] = Spy(lambda _: poses(2, 3))
    prediction = predict(models, tiny_batch(options), options)
    given = poses(2, 3)
    unit_m = torch.full((2,), UNIT_M)
    if pose_type == "posecnn":
        unit_m = UNIT_M * (0.01 + (10 - 0.01) * prediction.disparity[0]).mean((1, 2, 3))
    for place, source in enumerate((-2, -1, 1)):
        T_source_c0 = from_target(prediction.T_first_second[source], source)
        for i in (0, 1):
            axisangle, translation, uncertainty = (part[i, place] for part in given)
            expected = motion(axisangle, unit_m[i] * translation)
            assert_close(T_source_c0[i], expected, atol=1e-5, rtol=1e-5)
            assert_close(prediction.uncertainty[source][i], uncertainty)


HALF = ("--motion_resolution", "half", "--height", "128")


@pytest.mark.parametrize("given", ["pairs", "all"])
@pytest.mark.parametrize("network", ["pose_encoder", "pose"])
def test_motion_is_seen_at_half_the_resolution_where_it_is_asked_for(network, given):
    kind = "separate_resnet" if network == "pose_encoder" else "posecnn"
    argv = ("--pose_model_type", kind, "--pose_model_input", given, "--scales", "0")
    options = tiny_options(*argv, *HALF)
    models = models_by_formula(options).eval()
    spies = spied(models)
    batch = tiny_batch(options)
    predict(models, batch, options)
    images = 2 if given == "pairs" else 3
    assert spies["encoder"].given[0].shape == (2, 3, 128, 64)
    assert spies[network].given[0].shape[1:] == (3 * images, 64, 32)
    for name in ("velo_encoder", "gravity_encoder"):
        assert spies[name].given[0].shape == (4, 6, 64, 32)
    first = batch.augmented[-1].unflatten(3, (32, 2)).unflatten(2, (64, 2)).mean((3, 5))
    for name in (network, "velo_encoder"):
        assert_close(spies[name].given[0][:2, :3], first)


def test_a_shared_encoder_sees_motion_in_whole_images_and_velocity_in_half_ones():
    options = tiny_options("--pose_model_type", "shared", "--scales", "0", *HALF)
    models = models_by_formula(options).eval()
    spies = spied(models)
    predict(models, tiny_batch(options), options)
    assert spies["encoder"].given[0].shape == (6, 3, 128, 64)
    assert spies["velo_encoder"].given[0].shape == (4, 6, 64, 32)


def test_the_smallest_images_that_may_be_halved_can_be_learnt_from():
    argv = ("--batch_size", "1", "--frame_ids", "0", "1", "--scales", "2")
    options = tiny_options(*argv, *HALF[:2], "--height", "96")
    models = models_by_formula(options).train()
    said = predict(models, tiny_batch(options, batch=1), options)
    (said.T_first_second[1].sum() + said.velocity[0].sum()).backward()
    assert models["pose_encoder"].encoder.layer4[1].conv2.weight.grad.isfinite().all()


@pytest.mark.parametrize("scales", [(0, 1), (1, 3), (2,)], ids=str)
def test_the_finest_disparity_is_that_of_the_finest_scale(scales):
    options = tiny_options(*CAMERA_ALONE, "--scales", *map(str, scales))
    models = models_by_formula(options).eval()
    said = predict(models, tiny_batch(options), options)
    assert set(said.disparity) == set(scales)
    assert said.finest_disparity is said.disparity[scales[0]]
    assert said.finest_disparity.shape[-1] == 64 >> scales[0]


def test_a_velocity_that_is_fitted_needs_gravity_alone():
    options = tiny_options("--velocity_source", "camera", "--scales", "0")
    found = predict(models_by_formula(options).eval(), tiny_batch(options), options)
    assert not found.velocity and list(found.gravity) == [-1, 0]


@pytest.mark.parametrize("given", ["pairs", "all"])
def test_the_shared_encoder_sees_every_image_once_and_the_pose_network_their_features(given):
    argv = ("--pose_model_type", "shared", "--pose_model_input", given, *WIDE, *CAMERA_ALONE)
    options = tiny_options(*argv, "--scales", "0")
    models = models_by_formula(options).eval()
    encoder = models["encoder"] = Spy(lambda images: [images])
    depth = models["depth"] = Spy(lambda features: {("disp", 0): features[0][:, :1]})
    pose = models["pose"] = Spy(lambda _: poses(8) if given == "pairs" else poses(2, 4))
    predict(models, plain_batch(options), options)
    assert frames_seen(encoder.given[0], 1) == [(0,), (-2,), (-1,), (1,), (2,)]
    assert len(encoder.given) == 1
    assert frames_seen(depth.given[0][0], 1) == [(0,)]
    seen = [frames_seen(features[0], 1) for features in pose.given[0]]
    if given == "pairs":
        assert seen == [[(-2,), (-1,), (0,), (0,)], [(0,), (0,), (1,), (2,)]]
    else:
        assert seen == [[(frame,)] for frame in (-2, -1, 0, 1, 2)]


def test_velocity_and_gravity_may_share_the_encoder_of_the_motion():
    argv = (*WIDE, "--scales", "0")
    apart, shared = tiny_options(*argv), tiny_options(*argv, "--shared_motion_encoder")
    models = models_by_formula(apart).eval()
    weights = copy.deepcopy(models["pose_encoder"].state_dict())
    models["velo_encoder"].load_state_dict(weights)
    models["gravity_encoder"].load_state_dict(weights)
    batch = tiny_batch(apart)
    with torch.no_grad():
        expected = predict(models, batch, apart)
        for name in ("velo_encoder", "gravity_encoder"):
            del models[name]
        spies = spied(models)
        found = predict(models, batch, shared)
    assert len(spies["pose_encoder"].given) == 1
    assert list(found.velocity) == list(found.gravity) == [-1, 0]
    assert (found.velocity[-1] - found.velocity[0]).abs().max() > 1e-5
    assert_close(found.velocity, expected.velocity, atol=1e-5, rtol=1e-5)
    assert_close(found.gravity, expected.gravity, atol=1e-5, rtol=1e-5)


def test_a_velocity_is_that_of_the_first_image_of_its_pair():
    options = tiny_options("--scales", "0")
    models = models_by_formula(options).eval()
    answer = torch.arange(12.0).view(4, 3)  # two pairs of two samples
    models["velo"], models["gravity"] = Spy(lambda _: answer), Spy(lambda _: -answer)
    prediction = predict(models, tiny_batch(options), options)
    assert_close(prediction.velocity, {-1: answer[:2], 0: answer[2:]})
    assert_close(prediction.gravity, {-1: -answer[:2], 0: -answer[2:]})


@pytest.mark.parametrize("argv", [(), WIDE, ("--frame_ids", "0", "-2", "-1")])
def test_a_residue_is_added_to_the_velocity_of_the_camera(argv):
    options = tiny_options("--predict_velo_residue", "--scales", "0", *argv)
    models = models_by_formula(options).eval()
    batch = tiny_batch(options)
    found = predict(models, batch, options)
    options.predict_velo_residue = False
    residue = predict(models, batch, options).velocity
    assert found.velocity
    for first, velocity in found.velocity.items():
        T_first_second = found.T_first_second[{-1: -1, 0: 1}[first]]
        mean = T_first_second[:, :3, 3] / 0.12  # make_sample's intervals are of 12 steps
        assert mean.abs().max() > 0.01
        assert_close(velocity, residue[first] + mean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("argv", "absent"),
    [
        (CAMERA_ALONE, {"mask", "velocity", "gravity"}),
        ((*CAMERA_ALONE, "--velo_weight", "1"), {"mask", "gravity"}),
        (
            (*CAMERA_ALONE, "--frame_ids", "0", "--use_stereo"),
            {"mask", "velocity", "gravity", "T_first_second", "uncertainty"},
        ),
        (("--predictive_mask", "--disable_automasking"), set()),
    ],
)
def test_there_is_nothing_of_networks_that_are_not_there(argv, absent):
    options = tiny_options(*argv)
    models = models_by_formula(options).eval()
    found = vars(predict(models, tiny_batch(options), options))
    assert {name for name, of_frames in found.items() if not of_frames} == absent
    assert list(found["disparity"]) == [3, 2, 1, 0]
    for scale, mask in found["mask"].items():
        assert mask.shape == (2, 2, 64 // 2**scale, 64 // 2**scale)


@pytest.mark.parametrize("pose_type", ["separate_resnet", "shared", "posecnn"])
@torch.no_grad()
def test_motion_alone_is_the_same_and_asks_for_depth_only_where_it_needs_it(pose_type):
    argv = ("--pose_model_type", pose_type, "--predictive_mask", "--disable_automasking")
    options = tiny_options(*argv)
    models = models_by_formula(options).eval()
    batch = tiny_batch(options)
    expected = predict(models, batch, options)
    spies = {name: Spy(models[name]) for name in ("encoder", "depth", "predictive_mask")}
    for name, spy in spies.items():
        models[name] = spy
    found = predict(models, batch, options, motion_only=True)
    for name in ("T_first_second", "uncertainty", "velocity", "gravity"):
        assert_close(getattr(found, name), getattr(expected, name))
    asked = {name: len(spy.given) for name, spy in spies.items()}
    needed = {"separate_resnet": (0, 0), "shared": (1, 0), "posecnn": (1, 1)}[pose_type]
    assert asked == {"encoder": needed[0], "depth": needed[1], "predictive_mask": 0}
    assert bool(found.disparity) == (pose_type == "posecnn") and not found.mask


def closest(found, expected) -> float:
    """Return the largest difference of two trees of tensors, relative to the numbers' size."""
    worst = [0.0]
    for a, b in zip(tensors(vars(found)), tensors(vars(expected)), strict=True):
        assert a.dtype == torch.float32
        worst.append(((a - b).abs().max() / (1e-3 + b.abs().max())).item())
    return max(worst)


@pytest.mark.parametrize("pose_type", ["separate_resnet", "shared", "posecnn"])
@torch.no_grad()
def test_half_precision_and_layout_change_little_and_what_comes_out_is_single(pose_type):
    argv = ("--pose_model_type", pose_type, "--predictive_mask", "--disable_automasking")
    options = tiny_options(*argv)
    models = models_by_formula(options).eval()
    batch = tiny_batch(options)
    expected = predict(models, batch, options)
    options.amp = "bf16"
    half = closest(predict(models, batch, options), expected)
    assert 1e-6 < half < 0.05
    options.amp, options.channels_last = "off", True
    models.to(memory_format=torch.channels_last)
    assert closest(predict(models, batch, options), expected) < 1e-4


@torch.no_grad()
def test_channels_last_reaches_the_networks():
    options = tiny_options("--channels_last", *CAMERA_ALONE, "--scales", "0")
    models = models_by_formula(options).eval()
    spies = spied(models)
    predict(models, tiny_batch(options), options)
    for name in ("encoder", "pose_encoder"):
        assert spies[name].given[0].is_contiguous(memory_format=torch.channels_last), name
