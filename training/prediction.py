"""What the networks say about a batch, in metres and full precision, whatever they computed in.

A pair is two images in temporal order, named by its source: source -1 is the pair of frames -1 and
0, source 1 that of 0 and 1, source 2 that of 0 and 2. `T_first_second` is the motion between them.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.batch import STEREO, Batch, Frame
from layers import disp_to_depth, transformation_from_parameters
from liegroups import se3

AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What `--amp` lets the networks compute in."""


@dataclass(frozen=True)
class Prediction:
    """What the networks say of a batch; what no active loss, or nobody, asks for is not in it."""

    disparity: dict[int, Tensor]  # by scale: (B, 1, H / 2^scale, W / 2^scale) in (0, 1)
    mask: dict[int, Tensor]  # by scale: (B, sources, h, w) in (0, 1), of `--predictive_mask`
    T_first_second: dict[int, Tensor]  # by source: (B, 4, 4) the camera's motion [m]
    uncertainty: dict[int, Tensor]  # by source: (B, 6) of that motion, as `ekf.noise` reads it
    velocity: dict[int, Tensor]  # by first frame: (B, 3) of the body, in its camera's axes [m/s]
    gravity: dict[int, Tensor]  # by first frame: (B, 3) pointing up, in the same axes [m/s^2]

    @property
    def finest_disparity(self) -> Tensor:
        """The disparity at the finest scale there is."""
        return self.disparity[min(self.disparity)]


def sources_of(options: Namespace) -> list[Frame]:
    """Return the frames that are warped into the target: neighbours in time, then stereo."""
    return neighbours_of(options) + [STEREO] * options.use_stereo


def neighbours_of(options: Namespace) -> list[int]:
    """Return the sources that are neighbours in time."""
    return [frame for frame in options.frame_ids if frame != 0]


def pair_of(source: int) -> tuple[int, int]:
    """Return the first and the second frame of a pair."""
    return min(source, 0), max(source, 0)


def from_target(T_first_second: Tensor, source: int) -> Tensor:
    """Return T_source_c0: the target is the second frame of earlier sources, the first of later."""
    return T_first_second if source < 0 else se3.inverse(T_first_second)


def to_metres(network_units: Tensor, trans_scale_factor: float) -> Tensor:
    """Leave the networks' unit of depth and translation: the only place where it is crossed."""
    return network_units * trans_scale_factor


def depth_in_metres(disparity: Tensor, options: Namespace) -> Tensor:
    """Return the depth that a disparity of the network stands for."""
    _, depth = disp_to_depth(disparity, options.min_depth, options.max_depth)
    return to_metres(depth, options.trans_scale_factor)


def predict(
    models: nn.ModuleDict, batch: Batch, options: Namespace, motion_only: bool = False
) -> Prediction:
    """Ask every network once, for all images or pairs that it has to see.

    Args:
        models: of `networks.factory.build_models`
        batch: of B samples
        options: of `options.train`
        motion_only: do not ask for depth, unless the pose network needs it
    """
    see_depth = not motion_only or options.pose_model_type == "posecnn"
    device = batch.K.device.type
    amp = AMP_TYPES.get(options.amp)
    with torch.autocast(device, dtype=amp, enabled=amp is not None):
        images = _network_images(batch, options)
        features = _image_features(models, images, see_depth, options)
        disparity, mask = {}, {}
        if see_depth:
            disparity = models["depth"]([level[: len(batch.K)] for level in features])
        if options.predictive_mask and not motion_only:
            mask = models["predictive_mask"]([level[: len(batch.K)] for level in features])
        images = _motion_images(images, options)
        pairs = _pairs(images, neighbours_of(options))
        pair_features = _pair_features(models, pairs, options)
        pose = _pose_output(models, images, pairs, features, pair_features, options)
        vectors = _velocity_and_gravity(models, pairs, pair_features, options)
    disparity = _by_scale(disparity)
    T_first_second, uncertainty = _motions(pose, disparity, options)
    velocity, gravity = vectors
    if options.predict_velo_residue:
        velocity = {
            first: residue + _mean_velocity(T_first_second, first, batch)
            for first, residue in velocity.items()
        }
    return Prediction(disparity, _by_scale(mask), T_first_second, uncertainty, velocity, gravity)


def _network_images(batch: Batch, options: Namespace) -> dict[int, Tensor]:
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    frames = [0, *neighbours_of(options)]
    return {frame: batch.augmented[frame].contiguous(memory_format=layout) for frame in frames}


def _motion_images(images: dict[int, Tensor], options: Namespace) -> dict[int, Tensor]:
    """Return the images that motion, velocity and gravity are seen in."""
    if options.motion_resolution == "full":
        return images
    return {frame: F.avg_pool2d(image, 2) for frame, image in images.items()}


def _image_features(
    models: nn.ModuleDict, images: dict[int, Tensor], see_depth: bool, options: Namespace
) -> list[Tensor]:
    """Return the depth encoder's features of the target; the shared pose network needs all."""
    seen = [images[0]] if see_depth else []
    if options.pose_model_type == "shared":
        seen = list(images.values())
    return models["encoder"](torch.cat(seen)) if seen else []


def _pairs(images: dict[int, Tensor], sources: Sequence[int]) -> dict[int, Tensor]:
    """Return by source the two images (B, 6, H, W), in temporal order."""
    return {
        source: torch.cat([images[frame] for frame in pair_of(source)], 1) for source in sources
    }


def _pair_features(
    models: nn.ModuleDict, pairs: dict[int, Tensor], options: Namespace
) -> list[Tensor] | None:
    """Return the pose encoder's features of all pairs, one after the other."""
    separate = options.pose_model_type == "separate_resnet"
    if not (separate and options.pose_model_input == "pairs" and pairs):
        return None
    return models["pose_encoder"](torch.cat(list(pairs.values())))


def _pose_output(
    models: nn.ModuleDict,
    images: dict[int, Tensor],
    pairs: dict[int, Tensor],
    features: list[Tensor],
    pair_features: list[Tensor] | None,
    options: Namespace,
) -> tuple[Tensor, ...] | None:
    """Return axis-angle, translation and uncertainty (n, B, 3 or 6) of n sources, as predicted.

    Of pairs they are T_first_second; of all images at once T_source_c0, in temporal order.
    """
    if not pairs:
        return None
    of_pairs = options.pose_model_input == "pairs"
    count, batch = len(pairs), len(images[0])
    if options.pose_model_type == "shared":
        levels = zip(*(level.split(batch) for level in features), strict=True)
        of_frame = dict(zip(images, levels, strict=True))
        given = [list(of_frame[frame]) for frame in sorted(images)]
        if of_pairs:
            given = [_stacked([of_frame[pair_of(k)[side]] for k in pairs]) for side in (0, 1)]
        output = models["pose"](given)
    else:
        stacked = (
            torch.cat(list(pairs.values()))
            if of_pairs
            else torch.cat([images[frame] for frame in sorted(images)], 1)
        )
        if options.pose_model_type == "posecnn":
            output = models["pose"](stacked)
        else:
            output = models["pose"]([pair_features or models["pose_encoder"](stacked)])
    if of_pairs:  # the decoder has room for two motions, as published; the first is used
        return tuple(part[:, 0].float().unflatten(0, (count, batch)) for part in output)
    return tuple(part.float().transpose(0, 1) for part in output)


def _velocity_and_gravity(
    models: nn.ModuleDict,
    pairs: dict[int, Tensor],
    pair_features: list[Tensor] | None,
    options: Namespace,
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Return what two networks say of the pairs next to the target, by first frame."""
    near = [source for source in (-1, 1) if source in pairs]
    found = {}
    for name, wanted in (("velo", options.use_velocity), ("gravity", options.use_gravity)):
        if not wanted:
            found[name] = {}
            continue
        if options.shared_motion_encoder:
            sources = list(pairs)
            rows = [level.chunk(len(sources)) for level in pair_features]
            seen = [torch.cat([level[sources.index(k)] for k in near]) for level in rows]
        else:
            seen = models[f"{name}_encoder"](torch.cat([pairs[source] for source in near]))
        parts = models[name](seen).float().chunk(len(near))
        found[name] = {min(k, 0): part for k, part in zip(near, parts, strict=True)}
    return found["velo"], found["gravity"]


def _motions(
    pose: tuple[Tensor, ...] | None, disparity: dict[int, Tensor], options: Namespace
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Return T_first_second [m] and its uncertainty, by source."""
    if pose is None:
        return {}, {}
    axisangle, translation, uncertainty = pose
    if options.pose_model_type == "posecnn":
        finest = disparity[min(disparity)]
        inverse_depth, _ = disp_to_depth(finest, options.min_depth, options.max_depth)
        translation = translation * inverse_depth.mean((2, 3))  # (n, B, 3) times (B, 1)
    translation = to_metres(translation, options.trans_scale_factor)
    sources = neighbours_of(options)
    if options.pose_model_input == "all":
        sources = sorted(sources)
    motions = {}
    for i, source in enumerate(sources):
        T = transformation_from_parameters(axisangle[i], translation[i])
        # All images at once are answered by T_source_c0, which for earlier sources is the same.
        motions[source] = T if options.pose_model_input == "pairs" else from_target(T, source)
    return motions, dict(zip(sources, uncertainty, strict=True))


def _mean_velocity(T_first_second: dict[int, Tensor], first: int, batch: Batch) -> Tensor:
    """Return the camera's displacement over the time between two neighbouring images (B, 3)."""
    source = first or 1
    return T_first_second[source][:, :3, 3] / batch.imu[first].duration.unsqueeze(-1)


def _stacked(pyramids: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return one pyramid of features for the images of several."""
    return [torch.cat(level) for level in zip(*pyramids, strict=True)]


def _by_scale(outputs: dict[tuple[str, int], Tensor]) -> dict[int, Tensor]:
    return {scale: output.float() for (_, scale), output in outputs.items()}
