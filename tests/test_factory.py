"""Laws of the factory: which models there are for which options, and how they begin."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import losses
from ekf import noise
from layers import disp_to_depth
from networks import motion_forms
from networks.factory import POSE_NETWORKS, build_models, pretrain
from networks.resnet_encoder import ResnetEncoder
from utils import UserError

BASE = {"encoder", "depth", "pose_encoder", "pose"}
VELO, GRAVITY = {"velo_encoder", "velo"}, {"gravity_encoder", "gravity"}


def options_of(**changes) -> Namespace:
    """Return options of a training with the camera alone, changed."""
    options = Namespace(
        num_layers=18,
        num_layers_imu=18,
        narrow_networks=False,
        scales=[0, 1, 2, 3],
        min_depth=0.1,
        max_depth=100.0,
        initial_depth_m=None,
        trans_scale_factor=5.4,
        frame_ids=[0, -1, 1],
        use_stereo=False,
        pose_model_type="separate_resnet",
        pose_model_input="pairs",
        motion_form="published",
        predictive_mask=False,
        shared_motion_encoder=False,
        use_velocity=False,
        use_gravity=False,
        use_ekf=False,
        noise_preset="published",
        vis_covar_use_fixed=False,
        naive_vis_covar=False,
        train_init_covar=False,
        train_imu_noise_covar=False,
        weights_init="pretrained",
        pretrained_path=None,
    )
    assert changes.keys() <= vars(options).keys()
    return Namespace(**vars(options) | changes)


def build(**changes) -> nn.ModuleDict:
    """Build models without memory for their weights, which tests of names do not need."""
    with torch.device("meta"):
        return build_models(options_of(**changes), pretrained=False)


IMU = {"use_velocity": True, "use_gravity": True}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, BASE),
        ({"frame_ids": [0], "use_stereo": True}, {"encoder", "depth"}),
        ({"frame_ids": [0, 1]}, BASE),
        ({"use_stereo": True}, BASE),
        ({"pose_model_type": "shared"}, BASE - {"pose_encoder"}),
        ({"pose_model_type": "posecnn"}, BASE - {"pose_encoder"}),
        ({"pose_model_input": "all"}, BASE),
        ({"predictive_mask": True}, BASE | {"predictive_mask"}),
        ({"use_velocity": True}, BASE | VELO),
        ({"use_gravity": True}, BASE | GRAVITY),
        ({"use_gravity": True, "shared_motion_encoder": True}, BASE | {"gravity"}),
        (IMU, BASE | VELO | GRAVITY),
        ({**IMU, "use_ekf": True}, BASE | VELO | GRAVITY | {"ekf_model"}),
        ({**IMU, "shared_motion_encoder": True}, BASE | {"velo", "gravity"}),
        ({"use_velocity": True, "shared_motion_encoder": True}, BASE | {"velo"}),
        ({**IMU, "pose_model_type": "posecnn"}, BASE - {"pose_encoder"} | VELO | GRAVITY),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_there_are_the_models_that_are_needed_and_no_others(changes, names):
    assert set(build(**changes)) == names


def test_models_have_one_order_which_that_of_the_options_does_not_change():
    everything = build(**IMU, use_ekf=True, predictive_mask=True)
    assert list(everything) == [
        *("encoder", "depth", "pose_encoder", "pose", "predictive_mask"),
        *("velo_encoder", "velo", "gravity_encoder", "gravity", "ekf_model"),
    ]


@pytest.mark.parametrize(
    ("kind", "inputs", "frames", "images", "maps", "outputs"),
    [
        ("separate_resnet", "pairs", [0, -1, 1], 2, 1, 24),
        ("separate_resnet", "all", [0, -1, 1], 3, 1, 24),
        ("separate_resnet", "all", [0, -2, -1, 1], 4, 1, 36),
        ("separate_resnet", "all", [0, 1], 2, 1, 12),
        ("shared", "pairs", [0, -1, 1], None, 2, 24),
        ("shared", "all", [0, -2, -1, 1], None, 4, 36),
    ],
)
def test_pose_networks_fit_what_they_see(kind, inputs, frames, images, maps, outputs):
    models = build(pose_model_type=kind, pose_model_input=inputs, frame_ids=frames, use_stereo=True)
    pose = models["pose"].net
    assert pose[1].in_channels == 256 * maps
    assert pose[3].out_channels == outputs
    if images:
        assert models["pose_encoder"].encoder.conv1.in_channels == 3 * images


@pytest.mark.parametrize(("inputs", "images"), [("pairs", 2), ("all", 4)])
def test_a_pose_cnn_fits_what_it_sees(inputs, images):
    models = build(pose_model_type="posecnn", pose_model_input=inputs, frame_ids=[0, -2, -1, 1])
    assert models["pose"].net[0].in_channels == 3 * images
    assert models["pose"].pose_conv.out_channels == 6 * (images - 1)


def test_every_kind_of_pose_network_has_a_builder():
    assert set(POSE_NETWORKS) == {"separate_resnet", "posecnn", "shared"}


def test_encoders_have_their_own_depths_and_decoders_fit_them():
    models = build(**IMU, num_layers=50, num_layers_imu=34)
    depths = {name: m.num_layers for name, m in models.items() if isinstance(m, ResnetEncoder)}
    assert depths == {"encoder": 50, "pose_encoder": 50, "velo_encoder": 34, "gravity_encoder": 34}
    channels = {name: models[name].net[0].in_channels for name in ("pose", "velo", "gravity")}
    assert channels == {"pose": 2048, "velo": 512, "gravity": 512}
    assert models["depth"].decoder[0].conv.conv.in_channels == 2048
    assert models["velo_encoder"].num_input_images == models["gravity_encoder"].num_input_images
    assert models["velo_encoder"].num_input_images == 2


def test_narrow_networks_are_narrow_throughout_and_fit_together():
    wide, narrow = (
        build(**IMU, num_layers=50, predictive_mask=True, use_ekf=True, narrow_networks=narrow)
        for narrow in (False, True)
    )
    assert list(wide) == list(narrow)
    for name, model in narrow.items():
        if isinstance(model, ResnetEncoder):
            assert model.num_ch_enc == tuple(n // 2 for n in wide[name].num_ch_enc), name
    for name in ("depth", "predictive_mask"):
        first, last = narrow[name].decoder[0].conv.conv, narrow[name].decoder[9].conv.conv
        assert (first.in_channels, first.out_channels, last.out_channels) == (1024, 128, 8), name
    channels = {name: narrow[name].net[0].in_channels for name in ("pose", "velo", "gravity")}
    assert channels == {"pose": 1024, "velo": 256, "gravity": 256}


@pytest.mark.parametrize("kind", ["shared", "posecnn"])
def test_other_networks_of_motion_fit_narrow_ones_too(kind):
    models = build(pose_model_type=kind, narrow_networks=True)
    if kind == "shared":
        assert models["pose"].net[0].in_channels == 256


@pytest.mark.parametrize("unit_m", [5.4, 2.0])
@pytest.mark.parametrize("depth_m", [1.0, 8.0])
def test_depth_begins_where_it_is_asked_to(depth_m, unit_m):
    options = options_of(
        initial_depth_m=depth_m, trans_scale_factor=unit_m, frame_ids=[0], use_stereo=True
    )
    models = build_models(options, pretrained=False)
    for output in models["depth"].decoder[10:]:
        _, depth = disp_to_depth(output.conv.bias.sigmoid(), 0.1, 100.0)
        assert_close(unit_m * depth, torch.tensor([depth_m]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("form", motion_forms.MOTION_FORMS)
def test_all_decoders_have_the_form_that_is_asked_for(form, shared):
    models = build(**IMU, motion_form=form, shared_motion_encoder=shared)
    assert models["pose"].translation == motion_forms.TRANSLATION[form]
    assert models["velo"].form == motion_forms.VELOCITY[form]
    assert models["gravity"].form == motion_forms.UP[form]
    assert models["velo"].length is None
    assert models["gravity"].length == (losses.GRAVITY if form == motion_forms.DRIVING else None)
    kind = build(pose_model_type="shared", motion_form=form)["pose"]
    assert kind.translation == motion_forms.TRANSLATION[form]


def test_shared_vectors_sit_on_the_pose_encoder():
    models = build(**IMU, num_layers=50, shared_motion_encoder=True)
    assert models["velo"].net[0].in_channels == models["gravity"].net[0].in_channels == 2048


@pytest.mark.parametrize(
    "changes",
    [
        {"pose_model_type": "posecnn"},
        {"pose_model_type": "shared"},
        {"pose_model_input": "all"},
        {"frame_ids": [0], "use_stereo": True},
    ],
    ids=str,
)
def test_without_a_pose_encoder_of_pairs_there_is_none_to_share(changes):
    with pytest.raises(ValueError, match="no pose encoder of pairs to share"):
        build(use_velocity=True, shared_motion_encoder=True, **changes)


@pytest.mark.parametrize(
    ("frames", "stereo", "sources"),
    [([0, -1, 1], False, 2), ([0, -1, 1], True, 3), ([0], True, 1), ([0, -2, -1, 1, 2], False, 4)],
)
def test_a_mask_has_a_channel_for_each_source(frames, stereo, sources):
    models = build(predictive_mask=True, frame_ids=frames, use_stereo=stereo, scales=[0, 2])
    outputs = models["predictive_mask"].decoder[10:]
    assert [output.conv.out_channels for output in outputs] == [sources, sources]
    assert [output.conv.out_channels for output in models["depth"].decoder[10:]] == [1, 1]


@pytest.mark.parametrize(
    ("fixed", "naive", "form"),
    [(False, False, "learned"), (False, True, "naive"), (True, False, "fixed")],
)
@pytest.mark.parametrize("preset", noise.PRESETS)
def test_the_filter_is_the_chosen_one(preset, fixed, naive, form):
    forms = {"vis_covar_use_fixed": fixed, "naive_vis_covar": naive}
    models = build(**IMU, use_ekf=True, noise_preset=preset, **forms)
    predicted = torch.full((6,), 0.3)
    expected = noise.vision_covariance(predicted, noise.PRESETS[preset], form)
    assert_close(models["ekf_model"].vision_covariance(predicted), expected)


@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("imu", [False, True])
def test_the_filter_learns_what_is_asked_for(initial, imu):
    filter_ = build(use_ekf=True, train_init_covar=initial, train_imu_noise_covar=imu)["ekf_model"]
    learns = {name: parameter.requires_grad for name, parameter in filter_.named_parameters()}
    assert learns == {"init_covar_diag_sqrt": initial, "imu_noise_covar_weights.weight": imu}


# How encoders begin


@pytest.fixture
def loaded(monkeypatch) -> list[tuple[int, int, Path | None]]:
    """Collect depth, images and path of every encoder that ImageNet is loaded into."""
    calls = []

    def note(self, path=None):
        calls.append((self.num_layers, self.num_input_images, path))

    monkeypatch.setattr(ResnetEncoder, "load_imagenet", note)
    return calls


def test_every_encoder_begins_with_imagenet_that_of_depth_first(loaded):
    path = Path("imagenet")
    options = options_of(**IMU, num_layers=34, use_ekf=True, pretrained_path=path)
    with torch.device("meta"):
        build_models(options, pretrained=True)
    assert loaded == [(34, 1, path), (34, 2, path), (18, 2, path), (18, 2, path)]


def test_nothing_is_loaded_where_weights_are_restored_afterwards(loaded):
    build(**IMU)
    assert loaded == []


def test_models_can_be_given_imagenet_later(loaded):
    pretrain(build(), None)
    assert loaded == [(18, 1, None), (18, 2, None)]


def test_all_encoders_of_one_depth_begin_alike(tmp_path):
    state = ResnetEncoder(18).encoder.state_dict()
    torch.save(state, tmp_path / "r18.pth")
    options = options_of(use_velocity=True, pretrained_path=tmp_path / "r18.pth")
    models = build_models(options, pretrained=True)
    for name in ("encoder", "pose_encoder", "velo_encoder"):
        assert torch.equal(
            models[name].encoder.layer3[0].conv1.weight, state["layer3.0.conv1.weight"]
        )


def test_one_file_does_not_do_for_two_depths(tmp_path):
    torch.save(ResnetEncoder(18).encoder.state_dict(), tmp_path / "r18.pth")
    options = options_of(use_velocity=True, num_layers_imu=34, pretrained_path=tmp_path / "r18.pth")
    with pytest.raises(UserError, match="ResNet-18, but a ResNet-34 .* a folder that holds"):
        build_models(options, pretrained=True)
