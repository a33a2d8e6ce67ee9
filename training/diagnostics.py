"""What a log shows of a step beside its losses: numbers to follow, and pictures to look at."""

from __future__ import annotations

from argparse import Namespace

import torch
from torch import Tensor

from datasets.batch import Batch
from ekf.filter import ROT, TRANS
from liegroups import so3
from training.motion import said_velocity
from training.pictures import coloured_disparity, coloured_error, coloured_mask, photograph
from training.prediction import depth_in_metres, sources_of
from training.step import Details

LARGEST_ERROR = 0.5
"""Photometric error that is shown as the brightest."""

SHOWN = 4
"""Samples of a batch that are shown, at most."""


@torch.no_grad()
def numbers(batch: Batch, details: Details, options: Namespace) -> dict[str, float]:
    """Return what is worth following: IMU beside camera, speeds, the filter's deviations, depth."""
    found: dict[str, Tensor] = {
        "depth_median_m": depth_in_metres(details.prediction.finest_disparity, options).median(),
        "kept_by_automask": details.compared.moving.float().mean(),
    }
    for source, T_felt in details.motion.used.items():
        T_seen = details.prediction.T_first_second[source]
        moved = T_felt[:, :3, 3] - T_seen[:, :3, 3]
        turned = so3.log(T_felt[:, :3, :3].mT @ T_seen[:, :3, :3], check=False)
        name = f"imu_camera_{source}"
        found[f"{name}_translation_m"] = moved.norm(dim=-1).mean()
        found[f"{name}_rotation_deg"] = torch.rad2deg(turned.norm(dim=-1)).mean()
    for first, velocity in said_velocity(details.prediction, details.motion, options).items():
        predicted, measured = velocity.norm(dim=-1), batch.imu[first].speed
        found[f"speed_error_{first}_m_s"] = (predicted - measured).abs().mean()
        if options.display_velo_scale:
            found[f"speed_scale_{first}"] = measured.sum() / predicted.sum()
    if details.motion.fusion is not None:
        variance = details.motion.fusion.covariance.diagonal(dim1=-2, dim2=-1)  # (n * B, 6)
        deviation = variance.clamp(min=0).sqrt()
        found["filter_rotation_std_deg"] = torch.rad2deg(deviation[:, ROT]).mean()
        found["filter_translation_std_m"] = deviation[:, TRANS].mean()
    values = torch.stack([value.float() for value in found.values()]).tolist()
    return dict(zip(found, values, strict=True))


@torch.no_grad()
def images(batch: Batch, details: Details, options: Namespace) -> dict[str, Tensor]:
    """Return pictures (3, H, W) uint8: what went in, both warps, disparity, mask and errors."""
    shown, views = {}, details.views
    for i in range(min(len(batch.K), SHOWN)):
        shown[f"{i}/target"] = photograph(batch.image[0][i])
        shown[f"{i}/network_input"] = photograph(batch.augmented[0][i])
        shown[f"{i}/disparity"] = coloured_disparity(details.prediction.finest_disparity[i])
        shown[f"{i}/error"] = coloured_error(details.compared.per_pixel[i], LARGEST_ERROR)
        if not options.disable_automasking:
            shown[f"{i}/automask"] = coloured_mask(details.compared.moving[i])
        if options.predictive_mask:
            shown[f"{i}/predictive_mask"] = coloured_mask(
                details.prediction.mask[min(options.scales)][i].mean(0, True)
            )
        for kind, warped in (("camera", views.camera), ("imu", views.inertial)):
            for frame, image in zip(sources_of(options), warped, strict=False):
                shown[f"{i}/{kind}_{frame}"] = photograph(image[i])
    return shown
