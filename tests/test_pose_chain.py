"""The networks along a drive: every pair is seen, each image is read once, in one convention."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import Dataset

from datasets.augmentation import prepare
from datasets.text import DataError
from evaluation import pose_chain
from evaluation.pose_chain import (
    SeenMotion,
    chain,
    check_sees_motion,
    see_motion,
    unsaid_at_start,
)
from evaluation.weights import Weights
from liegroups import se3, so3
from networks.pose_decoder import PoseOutput
from tests.test_prediction import Spy, poses
from tests.test_trajectory_metrics import winding
from tests.training_runs import use_small_networks
from tests.training_setup import CAMERA_ALONE, models_by_formula, tiny_options, tiny_sample
from training.prediction import neighbours_of, predict
from utils import UserError

COUNT = 9
CPU = torch.device("cpu")
ALL = ("--pose_model_input", "all")
WIDE = (*ALL, "--frame_ids", "0", "-2", "-1", "1", "2")


class Drive(Dataset):
    """Images of random numbers, that notes which are read."""

    def __init__(self, count=COUNT):
        generator = torch.Generator().manual_seed(3)
        self.images = torch.randint(256, (count, 3, 64, 64), dtype=torch.uint8, generator=generator)
        self.read = []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        self.read.append(i)
        return self.images[i]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    use_small_networks(monkeypatch)


def weights_of(*words):
    options = tiny_options(*words)
    models = models_by_formula(options).eval().requires_grad_(False)
    return Weights(None, models, options, CPU)


def along(weights, drive=None, batch_size=4, durations_s=None, **how):
    drive = drive or Drive()
    if durations_s is None:
        durations_s = torch.full((len(drive) - 1,), 0.1, dtype=torch.float64)
    *done, seen = see_motion(weights, drive, durations_s, batch_size, **how)
    assert isinstance(seen, SeenMotion) and sum(done) == len(drive) - 1
    return seen


def asked_directly(weights, drive, target, offsets):
    """Return what `predict` says of one window, with depth."""
    options = copy.copy(weights.options)
    options.frame_ids = offsets
    sample = tiny_sample(options, 1)
    images = {k: drive.images[target + k][None] for k in sorted(offsets)}
    with torch.no_grad():
        return predict(weights.models, prepare(sample._replace(image=images)), options)


@pytest.mark.parametrize("pose_type", ["separate_resnet", "shared", "posecnn"])
@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_motions_are_those_that_training_predicts(pose_type, batch_size):
    weights, drive = weights_of("--pose_model_type", pose_type), Drive()
    seen = along(weights, drive, batch_size)
    assert seen.T_c0_c1.shape == (COUNT - 1, 4, 4) and seen.T_c0_c1.dtype == torch.float64
    for k in range(COUNT - 1):
        expected = asked_directly(weights, drive, k, [0, 1])
        T = expected.T_first_second[1][0].double()
        assert_close(seen.T_c0_c1[k], T, atol=1e-6, rtol=0)
        assert_close(seen.uncertainty[k], expected.uncertainty[1][0].double(), atol=1e-5, rtol=1e-4)
        if k == 0:
            assert_close(seen.velocity, expected.velocity[0][0].double(), atol=1e-5, rtol=1e-5)
            assert_close(seen.gravity, expected.gravity[0][0].double(), atol=1e-5, rtol=1e-5)
    assert (seen.T_c0_c1[1:] - seen.T_c0_c1[:-1]).abs().amax((1, 2)).min() > 1e-6


@pytest.mark.parametrize("words", [ALL, WIDE, (*ALL, "--frame_ids", "0", "1"), ()])
def test_each_image_is_read_once_and_in_order(words):
    drive = Drive()
    along(weights_of(*words), drive, batch_size=2)
    assert drive.read == list(range(COUNT))


@pytest.mark.parametrize(
    ("offsets", "motions"), [([0, -1, 1], 2), ([0, -2, -1, 1, 2], 4), ([0, 1, 2], 2), ([0, -1], 1)]
)
def test_networks_of_all_images_cover_every_pair(offsets, motions):
    weights = weights_of(*ALL, "--frame_ids", *map(str, offsets))
    drive = Drive()
    seen = along(weights, drive, batch_size=3)
    low, high = -min(offsets), COUNT - 1 - max(offsets)
    row = sorted(offsets)
    for k in range(COUNT - 1):
        # A target from which k and k + 1 are seen, and as near to k as there is one.
        targets = [t for t in range(low, high + 1) if {k - t, k + 1 - t} <= set(row)]
        target = min(targets, key=lambda t, k=k: (abs(t - k), t))
        said = asked_directly(weights, drive, target, weights.options.frame_ids)
        T_target_j = {0: torch.eye(4)}
        for source, T in said.T_first_second.items():
            T_target_j[source] = T[0] if source > 0 else se3.inverse(T[0])
        expected = se3.inverse(T_target_j[k - target]) @ T_target_j[k + 1 - target]
        assert_close(seen.T_c0_c1[k], expected.double(), atol=1e-5, rtol=0)
    assert len(neighbours_of(weights.options)) == motions


def test_depth_is_not_asked_for_where_nobody_needs_it():
    weights = weights_of()
    calls = {name: Spy(model) for name, model in weights.models.items() if name != "ekf_model"}
    for name, spy in calls.items():
        weights.models[name] = spy
    along(weights, batch_size=3)
    given = {name: len(spy.given) for name, spy in calls.items()}
    assert given["encoder"] == given["depth"] == 0
    assert given["pose_encoder"] == given["pose"] == 3
    assert given["velo"] == given["gravity"] == 1  # the filter carries them on


def test_the_start_is_said_with_the_residue_of_the_camera(monkeypatch):
    weights = weights_of("--predict_velo_residue")
    durations_s = torch.linspace(0.1, 0.5, COUNT - 1, dtype=torch.float64)
    seen = along(weights, durations_s=durations_s)
    weights.options.predict_velo_residue = False
    residue = along(weights, durations_s=durations_s).velocity
    mean = seen.T_c0_c1[0, :3, 3] / 0.1
    assert mean.norm() > 1e-3
    assert_close(seen.velocity, residue + mean, atol=1e-5, rtol=1e-5)


def test_where_no_network_says_how_it_begins_it_is_said_why():
    seen = along(weights_of(*CAMERA_ALONE))
    assert seen.velocity == "the weights have no velocity network"
    assert seen.gravity == "the weights have no gravity network"
    seen = along(weights_of(*WIDE))
    assert "from image 1 on" in seen.velocity and "from image 1 on" in seen.gravity
    assert isinstance(along(weights_of(*ALL)).velocity, torch.Tensor)


@pytest.mark.parametrize("words", [(), CAMERA_ALONE, WIDE, ALL, (*ALL, "--frame_ids", "0", "1")])
def test_who_says_how_it_begins_is_known_before_any_image_is_seen(words):
    weights = weights_of(*words)
    seen = along(weights)
    said = {"velocity": seen.velocity, "gravity": seen.gravity}
    assert unsaid_at_start(weights) == {k: x for k, x in said.items() if isinstance(x, str)}


def test_perfect_motions_chain_to_the_truth():
    weights = weights_of("--trans_scale_factor", "5.4")
    weights.models["pose"] = Spy(lambda features: poses(len(features[0][0])))
    seen = along(weights, batch_size=20)
    trajectory = chain(seen.T_c0_c1)
    assert_close(trajectory[0], torch.eye(4, dtype=torch.float64))
    steps = se3.inverse(trajectory[:-1]) @ trajectory[1:]
    assert_close(steps, seen.T_c0_c1, atol=1e-12, rtol=0)
    said = poses(COUNT - 1)
    assert_close(seen.T_c0_c1[:, :3, 3], 5.4 * said.translation[:, 0].double(), atol=1e-5, rtol=0)
    assert_close(seen.uncertainty, said.uncertainty[:, 0].double())


@pytest.mark.parametrize("inverted", [False, True])
def test_a_network_that_knows_the_truth_gives_it_in_either_convention(inverted):
    truth = torch.from_numpy(winding(60))
    T_c0_c1 = se3.inverse(truth[:-1]) @ truth[1:]
    T_said = se3.inverse(T_c0_c1) if inverted else T_c0_c1
    weights = weights_of("--trans_scale_factor", "5.4")
    weights.models["pose"] = Spy(saying(T_said, 5.4))
    weights = replace(weights, pose_says_second_first=inverted)
    found = chain(along(weights, Drive(61), batch_size=7).T_c0_c1)
    assert_close(found, truth, atol=2e-4, rtol=0)
    wrong = replace(weights, pose_says_second_first=not inverted)
    weights.models["pose"] = Spy(saying(T_said, 5.4))
    assert (chain(along(wrong, Drive(61)).T_c0_c1) - truth)[-1].abs().max() > 50


def saying(T_said, unit_m):
    """Return a pose network that says these motions one after the other."""
    said = iter(T_said)

    def network(features):
        T = torch.stack([next(said) for _ in features[0][0]])
        axisangle, translation = so3.log(T[:, :3, :3]), T[:, :3, 3] / unit_m
        both = [torch.stack([x, x], 1).float() for x in (axisangle, translation)]
        return PoseOutput(*both, torch.zeros(len(T), 2, 6))

    return network


@pytest.mark.parametrize("offsets", [[0, -1, 1], [0, -2, -1, 1, 2], [0, 1, 2]])
def test_certainty_is_that_of_the_motion_to_the_image_further_away(offsets):
    weights = weights_of(*ALL, "--frame_ids", *map(str, offsets))
    sources = sorted(offset for offset in offsets if offset)

    def network(features):  # whose certainty names the source of which it is
        batch = len(features[0][0])
        names = torch.tensor(sources, dtype=torch.float32)
        motion = torch.zeros(batch, len(sources), 3)
        return PoseOutput(motion, motion, names[:, None].expand(batch, -1, 6))

    weights.models["pose"] = Spy(network)
    seen = along(weights, batch_size=3)
    low, high = -min(offsets), COUNT - 1 - max(offsets)
    for k in range(COUNT - 1):
        target = min(max(k, low), high)  # the nearest to k from which all is seen
        expected = max(k - target, k + 1 - target, key=abs)
        assert (seen.uncertainty[k] == expected).all(), k


def test_half_precision_changes_little():
    weights = weights_of()
    whole, half = along(weights), along(weights, amp="bf16")
    difference = (whole.T_c0_c1 - half.T_c0_c1).abs().max()
    assert 1e-8 < difference < 0.05


def test_it_runs_on_any_device(device):
    weights = weights_of()
    expected = along(weights)
    moved = Weights(None, weights.models.to(device), weights.options, device)
    seen = along(moved)
    assert seen.T_c0_c1.device == CPU
    assert_close(seen.T_c0_c1, expected.T_c0_c1, atol=1e-4, rtol=0)


def test_memory_does_not_grow_with_the_drive(monkeypatch):
    held, original = [], pose_chain._sample

    def watched(block, images, *args):
        held.append(len(images))
        return original(block, images, *args)

    monkeypatch.setattr(pose_chain, "_sample", watched)
    most = []
    for count in (20, 50):
        held.clear()
        along(weights_of(*WIDE), Drive(count), batch_size=3)
        most.append(max(held))
    assert most[0] == most[1] <= 3 + 2 * 4 + 3


@pytest.mark.parametrize(
    ("words", "count", "message"),
    [
        (WIDE, 4, "4 images, but the pose network of these weights sees 5 at once"),
        ((*ALL, "--frame_ids", "0", "-2", "2", *CAMERA_ALONE), 9, "no two in a row"),
    ],
)
def test_what_the_networks_cannot_see_is_refused(words, count, message):
    with pytest.raises(UserError, match=message):
        along(weights_of(*words), Drive(count))


def test_an_image_that_cannot_be_read_is_named():
    class Broken(Drive):
        def __getitem__(self, i):
            if i == 5:
                raise DataError("0000000005.png: cut off")
            return super().__getitem__(i)

    with pytest.raises(DataError, match="0000000005.png: cut off"):
        along(weights_of(), Broken())


def test_weights_that_see_no_motion_are_refused():
    weights = weights_of(*CAMERA_ALONE, "--use_stereo", "--frame_ids", "0")
    with pytest.raises(UserError, match="has no pose.pth"):
        check_sees_motion(weights)
    check_sees_motion(weights_of())
    assert isinstance(weights.models, nn.ModuleDict)
