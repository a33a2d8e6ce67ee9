"""A training step up to its loss: predict, fuse, synthesise, compare."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

import losses
from datasets.batch import Batch
from layers import edge_aware_smoothness
from training.motion import Motion, fuse, said_velocity, sample_camera_motions
from training.prediction import Prediction, neighbours_of, predict
from training.views import Views, enlarged, synthesise

MASK_WEIGHT = 0.2
"""Of the pull that keeps a predictive mask from hiding everything."""


@dataclass(frozen=True)
class Details:
    """What a step found on its way to the losses, without gradients, to be looked at."""

    prediction: Prediction
    motion: Motion
    views: Views  # of the finest scale
    compared: losses.Reprojection  # of the camera's views there


class Step(nn.Module):
    """The models and what is asked of them; a module so that it can be shared among processes."""

    def __init__(self, models: nn.ModuleDict, options: Namespace) -> None:
        super().__init__()
        self.models = models
        self.options = options
        self.weights = weights_of(options)

    def forward(self, batch: Batch, with_filter: bool = True) -> tuple[dict[str, Tensor], Details]:
        """Return the named terms with their weighted sum, `total`, and the way to them.

        Args:
            batch: of `datasets.augmentation.prepare`
            with_filter: fuse by the filter, where there is one; false while it warms up
        """
        options = self.options
        ekf_model = self.models["ekf_model"] if options.use_ekf and with_filter else None
        prediction = predict(self.models, batch, options)
        motion = fuse(batch.imu, prediction, options, ekf_model)
        T_first_second = prediction.T_first_second
        if options.sample_vis_pose and self.training:
            T_first_second = sample_camera_motions(prediction, options)
        views = synthesise(batch, prediction, T_first_second, motion, options)
        terms, compared = compute_losses(batch, prediction, motion, views, options)
        terms["total"] = sum(self.weights[name] * term for name, term in terms.items())
        return terms, detached(Details(prediction, motion, views[min(views)], compared))


def detached(tree: Any) -> Any:
    """Return the same records, tuples and dictionaries with tensors that have no graph.

    Whoever keeps them then keeps no graph alive; and processes that share gradients take what they
    can reach from a step's results for something that gets one.
    """
    if isinstance(tree, Tensor):
        return tree.detach()
    if isinstance(tree, dict):
        return {key: detached(value) for key, value in tree.items()}
    if is_dataclass(tree):
        return type(tree)(*(detached(getattr(tree, field.name)) for field in fields(tree)))
    if isinstance(tree, tuple):
        return type(tree)(*map(detached, tree))
    return tree


def weights_of(options: Namespace) -> dict[str, float]:
    """Return the weight of every term that is on."""
    weights = {
        "photometric": 1.0,
        "smoothness": options.disparity_smoothness,
        "mask": MASK_WEIGHT * options.predictive_mask,
        "imu_photometric": options.imu_warp_weight,
        "imu_consistency": options.imu_consistency_weight,
        "imu_l2": options.imu_l2_weight,
        "imu_velocity": options.imu_velocity_weight,
        "velocity": options.velo_weight,
        "gravity": options.gravity_weight,
        "ekf_velocity": options.ekf_velo_weight,
        "ekf_gravity": options.ekf_gravity_weight,
    }
    return {name: weight for name, weight in weights.items() if weight > 0}


def compute_losses(
    batch: Batch,
    prediction: Prediction,
    motion: Motion,
    views: dict[int, Views],
    options: Namespace,
) -> tuple[dict[str, Tensor], losses.Reprojection]:
    """Return the terms that are on, unweighted, and the comparison of the camera's views."""
    comparison = Comparison(options)
    of_scales: dict[str, list[Tensor]] = {}
    for scale, view in views.items():
        camera, of_scale = comparison.of_scale(view, prediction.mask.get(scale))
        if options.disparity_smoothness > 0:
            slope = edge_aware_smoothness(prediction.disparity[scale], batch.pyramid[scale][0])
            of_scale["smoothness"] = slope / 2**scale
        for name, term in of_scale.items():
            of_scales.setdefault(name, []).append(term)
        if scale == min(views):
            compared = camera
    terms = {name: torch.stack(values).mean() for name, values in of_scales.items()}
    return terms | motion_losses(batch, prediction, motion, options), compared


class Comparison:
    """Photometric losses of scale after scale; what depends on the images alone is found once."""

    def __init__(self, options: Namespace) -> None:
        self._options = options
        self._neighbours = len(neighbours_of(options))
        self._of_size: dict[int, tuple[losses.PhotometricTarget, Tensor | None]] = {}

    def of_scale(
        self, view: Views, mask: Tensor | None
    ) -> tuple[losses.Reprojection, dict[str, Tensor]]:
        """Return what the camera's views compare to, and the terms of this scale.

        Args:
            view: the images
            mask: (B, N, h', w') predictive mask at the scale's own resolution, if there is one
        """
        options, count, near = self._options, len(view.sources), self._neighbours
        target, identity = self._images_alone(view)
        compared = view.warped if options.imu_warp_weight > 0 else view.camera
        errors = losses.photometric_error(compared, target)  # (M, B, 1, h, w)
        terms = {}
        if mask is not None:
            terms["mask"] = losses.mask_pull(mask)
            mask = enlarged(mask, *view.target.shape[-2:]).transpose(0, 1).unsqueeze(2)
            errors = errors * torch.cat([mask, mask[: len(errors) - count]])
        average = options.avg_reprojection
        camera = losses.reprojection(errors[:count], identity, average)
        terms["photometric"] = camera.loss
        if len(errors) > count:
            # The stereo view is that of the calibration, whoever says how the car moves.
            inertial = torch.cat([errors[count:], errors[near:count]])
            terms["imu_photometric"] = losses.reprojection(inertial, identity, average).loss
        if options.imu_consistency_weight > 0:
            seen, felt = view.camera[:near], view.inertial
            if options.no_grad_imu_consistency == "network":
                seen = seen.detach()
            elif options.no_grad_imu_consistency == "imu":
                felt = felt.detach()
            terms["imu_consistency"] = losses.consistency(seen, felt, not options.no_ssim)
        return camera, terms

    def _images_alone(self, view: Views) -> tuple[losses.PhotometricTarget, Tensor | None]:
        height = view.target.shape[-2]
        if height not in self._of_size:
            target = losses.photometric_target(view.target, ssim=not self._options.no_ssim)
            identity = None
            if not self._options.disable_automasking:
                identity = losses.photometric_error(view.sources, target)
            self._of_size[height] = target, identity
        return self._of_size[height]


def motion_losses(
    batch: Batch, prediction: Prediction, motion: Motion, options: Namespace
) -> dict[str, Tensor]:
    """Return the terms that are on and compare motions, velocities and gravity, not images."""
    terms = {}
    if options.velo_weight > 0:
        said = said_velocity(prediction, motion, options)
        velocity = torch.cat(list(said.values()))
        speed = torch.cat([batch.imu[first].speed for first in said])
        terms["velocity"] = losses.speed_error(velocity, speed)
    if options.gravity_weight > 0:
        terms["gravity"] = losses.gravity_error(torch.cat(list(prediction.gravity.values())))
    if options.imu_velocity_weight > 0:
        terms["imu_velocity"] = losses.correction(motion.carried, motion.velocity[0])
    if options.imu_l2_weight > 0:
        felt = torch.cat(list(motion.used.values()))
        seen = torch.cat([prediction.T_first_second[source] for source in motion.used])
        terms["imu_l2"] = losses.motion_difference(felt, seen)
    if motion.fusion is not None:
        after, before = motion.fusion.fused, motion.fusion.inertial
        if options.ekf_velo_weight > 0:
            terms["ekf_velocity"] = losses.correction(after.velocity, before.velocity)
        if options.ekf_gravity_weight > 0:
            terms["ekf_gravity"] = losses.correction(after.gravity, before.gravity)
    return terms
