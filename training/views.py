"""The source images as the target's camera would see them, were the predictions true."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.batch import Batch
from layers import backproject, project, warp
from training.motion import Motion
from training.prediction import (
    Prediction,
    depth_in_metres,
    from_target,
    neighbours_of,
    sources_of,
)


@dataclass(frozen=True)
class Views:
    """What the losses of one scale compare; sources in the order of `sources_of`."""

    target: Tensor  # (B, 3, h, w)
    sources: Tensor  # (N, B, 3, h, w) as they are
    warped: Tensor  # (M, B, 3, h, w) sources by the camera's motion, then neighbours by the IMU's

    @property
    def camera(self) -> Tensor:
        """The sources (N, B, 3, h, w) warped by the camera's motion, stereo by its calibration."""
        return self.warped[: len(self.sources)]

    @property
    def inertial(self) -> Tensor:
        """The neighbours (n or 0, B, 3, h, w) warped by the IMU's motion, or the fused one."""
        return self.warped[len(self.sources) :]


def synthesise(
    batch: Batch,
    prediction: Prediction,
    T_first_second: dict[int, Tensor],
    motion: Motion,
    options: Namespace,
) -> dict[int, Views]:
    """Warp all sources by all motions, those of a scale in one piece.

    Args:
        batch: of B samples
        prediction: of the networks
        T_first_second: (B, 4, 4) the camera's motions by source, sampled or as predicted [m]
        motion: by the IMU
        options: of `options.train`; `loss_resolution` says at which resolution scales are compared
    """
    T_source_c0 = _motions_to_sources(batch, T_first_second, motion, options)  # (M, B, 4, 4)
    sources = sources_of(options)
    frames = sources + neighbours_of(options) * warps_inertially(options)  # M
    stacks: dict[int, Tensor] = {}
    views = {}
    for scale in options.scales:
        level = scale if options.loss_resolution == "native" else 0
        images = batch.pyramid[level]
        height, width = images[0].shape[-2:]
        if level not in stacks:
            stacks[level] = torch.stack([images[frame] for frame in frames])
        seen = stacks[level]  # (M, B, 3, h, w)
        disparity = enlarged(prediction.disparity[scale], height, width)
        depth = depth_in_metres(disparity, options)  # (B, 1, h, w)
        K = scaled_intrinsics(batch.K, level)
        inv_K = torch.linalg.inv_ex(K).inverse  # unchecked: the host need not wait for a GPU
        points = backproject(depth, inv_K)  # (B, 4, h * w)
        grid, _ = project(points, K, T_source_c0, height, width)  # (M, B, h, w, 2)
        warped = warp(seen.flatten(0, 1), grid.flatten(0, 1)).unflatten(0, seen.shape[:2])
        views[scale] = Views(images[0], seen[: len(sources)], warped)
    return views


def warps_inertially(options: Namespace) -> bool:
    """Say whether a loss looks at views by the IMU's motion."""
    return options.imu_warp_weight > 0 or options.imu_consistency_weight > 0


def enlarged(image: Tensor, height: int, width: int) -> Tensor:
    """Resize (B, C, h, w) bilinearly; pixels of all sizes share the image's edges."""
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image, (height, width), mode="bilinear", align_corners=False)


def scaled_intrinsics(K: Tensor, scale: int) -> Tensor:
    """Return the intrinsics (B, 3, 3) of images whose pixels are the means of 2^scale squared.

    The centre of such a pixel is that of the ones it covers: u' + 1/2 = (u + 1/2) / 2^scale.
    """
    scaled = K / 2**scale
    scaled[:, :2, 2] = (K[:, :2, 2] + 0.5) / 2**scale - 0.5
    scaled[:, 2, 2] = 1
    return scaled


def _motions_to_sources(
    batch: Batch, T_first_second: dict[int, Tensor], motion: Motion, options: Namespace
) -> Tensor:
    """Return T_source_c0 (M, B, 4, 4): of all sources by the camera, of neighbours by the IMU."""
    T_source_c0 = []
    for frame in sources_of(options):
        if frame in T_first_second:
            T_source_c0.append(from_target(T_first_second[frame], frame))
        else:
            T_source_c0.append(batch.T_source_c0[frame])
    if warps_inertially(options):
        T_source_c0 += [from_target(motion.used[k], k) for k in neighbours_of(options)]
    return torch.stack(T_source_c0)
