"""A training step with the filter as programs of this family write it, to be timed beside ours.

It computes the same loss, after Monodepth2: one pair at a time goes through the encoders, one view
at a time is warped, each two images are compared by themselves, the IMU moves the filter sample by
sample. While batch normalisation learns, its means are those of one pair, where ours are of all.
"""

from __future__ import annotations

from argparse import Namespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.batch import Batch, ImuInterval
from losses import GRAVITY
from training.step import weights_of

SOURCES = -1, 1
STILL_NOISE = 1e-5  # deviation, of auto-masking
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


class PlainStep:
    """Networks, and how their loss is computed."""

    def __init__(self, models: nn.ModuleDict, options: Namespace, optimizer: torch.optim.Optimizer):
        self.models, self.options, self.optimizer = models, options, optimizer
        self.weights = weights_of(options)

    def loss(self, batch: Batch) -> Tensor:
        """Return the total."""
        weights, scales = self.weights, self.options.scales
        disparities = self.models["depth"](self.models["encoder"](batch.augmented[0]))
        camera, inertial, total = {}, {}, 0
        for source in SOURCES:
            camera[source], inertial[source], velocity, gravity = self.motions(batch, source)
            speed = batch.imu[min(source, 0)].speed
            wrong = (velocity.norm(dim=1) - speed).abs().mean()
            total = total + weights["velocity"] * wrong / len(SOURCES)
            wrong = (gravity.norm(dim=1) - GRAVITY).abs().mean()
            total = total + weights["gravity"] * wrong / len(SOURCES)
        for scale in scales:
            disparity = disparities["disp", scale]
            of_scale = self.photometric(batch, disparity, camera, inertial)
            slope = plain_smoothness(disparity, batch.pyramid[scale][0])
            of_scale = of_scale + weights["smoothness"] * slope / 2**scale
            total = total + of_scale / len(scales)
        return total

    def motions(self, batch: Batch, source: int) -> tuple[Tensor, ...]:
        """Return T_source_c0 [m] by the camera and by the filter (B, 4, 4), velocity, gravity."""
        models, interval = self.models, batch.imu[min(source, 0)]
        pair = torch.cat([batch.augmented[min(source, 0)], batch.augmented[max(source, 0)]], 1)
        axisangle, translation, uncertainty = models["pose"]([models["pose_encoder"](pair)])
        velocity = models["velo"](models["velo_encoder"](pair))
        gravity = models["gravity"](models["gravity_encoder"](pair))
        unit_m = self.options.trans_scale_factor
        T_vis = plain_motion(axisangle[:, 0], unit_m * translation[:, 0])
        T_fused = self.filtered(interval, velocity, gravity, T_vis, uncertainty[:, 0])
        if source > 0:
            T_vis, T_fused = torch.inverse(T_vis), torch.inverse(T_fused)
        return T_vis, T_fused, velocity, gravity

    def filtered(
        self,
        interval: ImuInterval,
        velocity: Tensor,
        gravity: Tensor,
        T_vis: Tensor,
        uncertainty: Tensor,
    ) -> Tensor:
        """Return the filter's T_first_second (B, 4, 4), moved along with one IMU sample a time."""
        ekf_model, T_c_b = self.models["ekf_model"], interval.T_c_b
        state = ekf_model.initial_state(velocity, gravity)
        for i in range(interval.dt.shape[1]):
            step, ends = slice(i, i + 1), slice(i, i + 2)
            measured = interval.dt[:, step], interval.gyro[:, ends], interval.accel[:, ends]
            state = ekf_model.propagate(state, *measured, T_c_b)
        covariance = ekf_model.vision_covariance(uncertainty)
        return ekf_model.update(state, T_vis, covariance, T_c_b)[0].T_c0_c1

    def photometric(
        self,
        batch: Batch,
        disparity: Tensor,
        camera: dict[int, Tensor],
        inertial: dict[int, Tensor],
    ) -> Tensor:
        """Return the weighted terms of a scale that compare images."""
        weights, target = self.weights, batch.image[0]
        disparity = F.interpolate(
            disparity, target.shape[-2:], mode="bilinear", align_corners=False
        )
        least, most = 1 / self.options.max_depth, 1 / self.options.min_depth
        depth = self.options.trans_scale_factor / (least + (most - least) * disparity)
        seen = {k: plain_warp(batch.image[k], depth, batch.K, camera[k]) for k in SOURCES}
        felt = {k: plain_warp(batch.image[k], depth, batch.K, inertial[k]) for k in SOURCES}
        still = torch.cat([plain_error(batch.image[k], target) for k in SOURCES], 1)
        total = 0
        for name, views in (("photometric", seen), ("imu_photometric", felt)):
            errors = torch.cat([plain_error(views[k], target) for k in SOURCES], 1)
            noisy = still + STILL_NOISE * torch.randn_like(still)
            best, _ = torch.cat([noisy, errors], 1).min(1)
            total = total + weights[name] * best.mean()
        for k in SOURCES:
            wrong = plain_error(seen[k], felt[k]).mean()
            total = total + weights["imu_consistency"] * wrong / len(SOURCES)
        return total

    def __call__(self, batch: Batch) -> None:
        """Take a step."""
        self.loss(batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def plain_motion(axisangle: Tensor, translation: Tensor) -> Tensor:
    """Return T (B, 4, 4) of an axis times angle (B, 3) and a translation (B, 3), by Rodrigues."""
    angle = axisangle.norm(dim=1, keepdim=True)
    x, y, z = (axisangle / (angle + 1e-7)).unbind(1)
    cos, sin = angle[:, 0].cos(), angle[:, 0].sin()
    less = 1 - cos
    T = axisangle.new_zeros(len(axisangle), 4, 4)
    T[:, 0, 0], T[:, 1, 1], T[:, 2, 2] = (
        x * x * less + cos,
        y * y * less + cos,
        z * z * less + cos,
    )
    T[:, 0, 1], T[:, 1, 0] = x * y * less - z * sin, x * y * less + z * sin
    T[:, 0, 2], T[:, 2, 0] = x * z * less + y * sin, x * z * less - y * sin
    T[:, 1, 2], T[:, 2, 1] = y * z * less - x * sin, y * z * less + x * sin
    T[:, :3, 3] = translation
    T[:, 3, 3] = 1
    return T


def plain_warp(image: Tensor, depth: Tensor, K: Tensor, T_source_c0: Tensor) -> Tensor:
    """Return one source (B, 3, H, W) as the target's camera would see it, by depth (B, 1, H, W)."""
    batch, _, height, width = image.shape
    u = torch.arange(width, dtype=depth.dtype, device=depth.device).repeat(height, 1)
    v = torch.arange(height, dtype=depth.dtype, device=depth.device).repeat(width, 1).T
    pixels = torch.stack([u, v, torch.ones_like(u)]).view(3, -1)  # (3, H*W)
    rays = torch.inverse(K) @ pixels.expand(batch, -1, -1)
    points = depth.view(batch, 1, -1) * rays  # (B, 3, H*W)
    points = torch.cat([points, torch.ones_like(points[:, :1])], 1)
    seen = (K @ T_source_c0[:, :3]) @ points
    place = (seen[:, :2] / (seen[:, 2:] + 1e-7)).view(batch, 2, height, width).permute(0, 2, 3, 1)
    size = torch.tensor([width - 1, height - 1], device=place.device)
    grid = 2 * (place / size - 0.5)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=True)


def plain_error(x: Tensor, y: Tensor) -> Tensor:
    """Return the photometric error (B, 1, H, W) of two images (B, 3, H, W)."""
    l1 = (x - y).abs().mean(1, True)
    x, y = F.pad(x, (1, 1, 1, 1), mode="reflect"), F.pad(y, (1, 1, 1, 1), mode="reflect")
    mean_x, mean_y = F.avg_pool2d(x, 3, 1), F.avg_pool2d(y, 3, 1)
    var_x = F.avg_pool2d(x**2, 3, 1) - mean_x**2
    var_y = F.avg_pool2d(y**2, 3, 1) - mean_y**2
    covariance = F.avg_pool2d(x * y, 3, 1) - mean_x * mean_y
    above = (2 * mean_x * mean_y + SSIM_C1) * (2 * covariance + SSIM_C2)
    below = (mean_x**2 + mean_y**2 + SSIM_C1) * (var_x + var_y + SSIM_C2)
    ssim = torch.clamp((1 - above / below) / 2, 0, 1).mean(1, True)
    return 0.85 * ssim + 0.15 * l1


def plain_smoothness(disparity: Tensor, image: Tensor) -> Tensor:
    """Return the edge-aware smoothness of a disparity over its mean."""
    disparity = disparity / (disparity.mean(2, True).mean(3, True) + 1e-7)
    slope_x = (disparity[..., :-1] - disparity[..., 1:]).abs()
    slope_y = (disparity[..., :-1, :] - disparity[..., 1:, :]).abs()
    edge_x = (image[..., :-1] - image[..., 1:]).abs().mean(1, keepdim=True)
    edge_y = (image[..., :-1, :] - image[..., 1:, :]).abs().mean(1, keepdim=True)
    return (slope_x * torch.exp(-edge_x)).mean() + (slope_y * torch.exp(-edge_y)).mean()
