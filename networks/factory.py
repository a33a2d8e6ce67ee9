"""The set of models that the options ask for."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import nn

import losses
from ekf.filter import EKFModel
from ekf.noise import VisionForm
from layers import depth_to_disp
from networks import motion_forms
from networks.depth_decoder import DepthDecoder
from networks.pose_cnn import PoseCNN
from networks.pose_decoder import PoseDecoder, VectorDecoder
from networks.resnet_encoder import ResnetEncoder

Models = Mapping[str, nn.Module]


def build_models(options: Namespace, pretrained: bool) -> nn.ModuleDict:
    """Build every model that the options need, under its name in a checkpoint, and no other.

    Args:
        options: those of `train.py`
        pretrained: begin with ImageNet, as `--weights_init pretrained` asks; False where weights
            are restored afterwards, so that nothing is downloaded for them
    """
    encoder = ResnetEncoder(options.num_layers, narrow=options.narrow_networks)
    models: dict[str, nn.Module] = {
        "encoder": encoder,
        "depth": DepthDecoder(encoder.num_ch_enc, options.scales, narrow=options.narrow_networks),
    }
    if options.initial_depth_m is not None:
        models["depth"].begin_at(_disparity_of(options.initial_depth_m, options))
    if _has_temporal_sources(options):
        models |= POSE_NETWORKS[options.pose_model_type](options, encoder.num_ch_enc)
    if options.predictive_mask:
        sources = len(options.frame_ids) - 1 + bool(options.use_stereo)
        models["predictive_mask"] = DepthDecoder(
            encoder.num_ch_enc, options.scales, sources, options.narrow_networks
        )
    for name in ("velo", "gravity"):
        if options.use_velocity if name == "velo" else options.use_gravity:
            models |= _vector_networks(options, name, models)
    if options.use_ekf:
        models["ekf_model"] = EKFModel(
            options.noise_preset,
            vision_form(options),
            options.train_init_covar,
            options.train_imu_noise_covar,
        )
    if pretrained:
        pretrain(models, options.pretrained_path)
    return nn.ModuleDict(models)


def pretrain(models: Models, path: Path | None) -> None:
    """Begin every encoder with ImageNet; see `ResnetEncoder.load_imagenet` for the path."""
    for model in models.values():
        if isinstance(model, ResnetEncoder):
            model.load_imagenet(path)


def _disparity_of(depth_m: float, options: Namespace) -> float:
    depth = depth_m / options.trans_scale_factor
    return depth_to_disp(depth, options.min_depth, options.max_depth)


def _has_temporal_sources(options: Namespace) -> bool:
    return any(frame != 0 for frame in options.frame_ids)


def _pose_images(options: Namespace) -> int:
    """Return how many images a pose network sees at once."""
    return 2 if options.pose_model_input == "pairs" else len(options.frame_ids)


def _pose_frames(options: Namespace) -> int:
    # A pair has one motion; the published weights have a second one all the same, never used.
    return 2 if options.pose_model_input == "pairs" else len(options.frame_ids) - 1


def _separate_resnet(options: Namespace, _: Sequence[int]) -> Models:
    pose_encoder = ResnetEncoder(options.num_layers, _pose_images(options), options.narrow_networks)
    pose = PoseDecoder(
        pose_encoder.num_ch_enc,
        num_frames_to_predict_for=_pose_frames(options),
        motion_form=options.motion_form,
    )
    return {"pose_encoder": pose_encoder, "pose": pose}


def _shared(options: Namespace, num_ch_enc: Sequence[int]) -> Models:
    """Build a pose network on the features of the depth's encoder, one pyramid an image."""
    frames = _pose_frames(options)
    return {"pose": PoseDecoder(num_ch_enc, _pose_images(options), frames, options.motion_form)}


def _posecnn(options: Namespace, _: Sequence[int]) -> Models:
    return {"pose": PoseCNN(_pose_images(options))}


POSE_NETWORKS: dict[str, Callable[[Namespace, Sequence[int]], Models]] = {
    "separate_resnet": _separate_resnet,
    "shared": _shared,
    "posecnn": _posecnn,
}
"""Builders of `--pose_model_type`, from the options and the channels of the depth's encoder."""


def _vector_networks(options: Namespace, name: str, models: Models) -> Models:
    """Build the network of a vector of each pair, on an encoder of its own or on the pose's."""
    if not options.shared_motion_encoder:
        encoder = ResnetEncoder(options.num_layers_imu, 2, options.narrow_networks)
        return {f"{name}_encoder": encoder, name: _vector_decoder(name, encoder, options)}
    encoder = models.get("pose_encoder")
    if not isinstance(encoder, ResnetEncoder) or encoder.num_input_images != 2:
        raise ValueError("shared_motion_encoder: there is no pose encoder of pairs to share")
    return {name: _vector_decoder(name, encoder, options)}


def _vector_decoder(name: str, encoder: ResnetEncoder, options: Namespace) -> VectorDecoder:
    if name == "velo":
        form = motion_forms.VELOCITY[options.motion_form]
        return VectorDecoder(encoder.num_ch_enc, form)
    known = options.motion_form == motion_forms.DRIVING
    form = motion_forms.UP[options.motion_form]
    return VectorDecoder(encoder.num_ch_enc, form, losses.GRAVITY if known else None)


def vision_form(options: Namespace) -> VisionForm:
    """Return what the pose network's uncertainty stands for."""
    if options.vis_covar_use_fixed:
        return "fixed"
    return "naive" if options.naive_vis_covar else "learned"
