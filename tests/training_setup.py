"""Small trainings without files: options, random batches, and a corridor whose truth is known."""

from __future__ import annotations

import math
from argparse import Namespace
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import options
from benchmarks.simulation import GRAVITY, extrinsics, random_drive
from datasets.augmentation import prepare
from datasets.batch import STEREO, Batch, Frame, ImuInterval, Sample, map_tensors
from ekf.filter import EKFModel
from ekf.preintegration import preintegrate
from liegroups import se3
from liegroups.matrices import apply
from networks.factory import build_models, vision_form
from networks.pose_decoder import VectorDecoder
from tests.samples import make_sample
from training.prediction import Prediction, neighbours_of, sources_of

CAMERA_ALONE = ("--imu_warp_weight", "0", "--imu_consistency_weight", "0", "--velo_weight", "0")
"""Options of a training that has no IMU."""

BASELINE_M = 0.54

_RIGHT_M, _DOWN_M, _UP_M, _AHEAD_M = 3.0, 1.5, 2.5, 14.0  # the corridor's sides from camera c0
_TWIST = torch.tensor([0, 0, 0.8, 0, 0, 0], dtype=torch.float64)  # from one image to the next
_STEPS, _DT_S = 10, 0.01  # of the IMU, from one image to the next


def tiny_options(*argv: str) -> Namespace:
    """Return the options of the smallest training there is, with others beside."""
    return options.train(
        [
            *("--height", "64", "--width", "64", "--batch_size", "2", "--num_workers", "0"),
            *("--weights_init", "scratch", "--no_cuda"),
            *argv,
        ]
    )


def frames_of(options: Namespace) -> tuple[Frame, ...]:
    """Return the images of a sample."""
    return 0, *sources_of(options)


def tiny_batch(options: Namespace, batch: int = 2, dtype: torch.dtype = torch.float32) -> Batch:
    """Return a batch of random images and random motion, as the step gets it."""
    return prepare_in(tiny_sample(options, batch, dtype), options, dtype)


def tiny_sample(options: Namespace, batch: int = 2, dtype: torch.dtype = torch.float32) -> Sample:
    """Return what `tiny_batch` is prepared from."""
    sample = make_sample(batch, frames_of(options), dtype, (options.width, options.height))
    return sample if options.use_imu else sample._replace(imu={})


def prepare_in(sample: Sample, options: Namespace, dtype: torch.dtype = torch.float32) -> Batch:
    """Prepare a sample, its images in the type of its other numbers."""
    image = map_tensors(lambda x: x.to(dtype), sample.image)
    return prepare(sample._replace(image=image), options.scales)


def models_by_formula(options: Namespace) -> nn.ModuleDict:
    """Build networks whose weights depend on no generator, and which know how cars move.

    It is quicker than to draw weights at random.
    """
    with torch.device("meta"):
        models = build_models(options, pretrained=False)
    models.to_empty(device="cpu")
    wave = torch.sin(0.7 + torch.arange(1009).double().square() % 1009).float()
    for parameter in models.parameters():
        parameter.data.zero_()
        if parameter.ndim == 4:
            values = wave.repeat(parameter.numel() // len(wave) + 1)[: parameter.numel()]
            # So wide that disparities are neither 0 nor 1.
            scale = math.sqrt(1.3 / parameter[0].numel())
            parameter.data.copy_(values.view_as(parameter)).mul_(scale)
    for module in models.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    for name, mean in (("velo", [0.2, -0.1, 3]), ("gravity", [0.3, -9.7, 0.4])):
        if name in models:  # in the axes of the camera
            say(models[name], mean)
    if options.use_ekf:
        learns = options.train_init_covar, options.train_imu_noise_covar
        models["ekf_model"] = EKFModel(options.noise_preset, vision_form(options), *learns)
    return models


def say(decoder: VectorDecoder, mean: list[float]) -> None:
    """Let a decoder of velocity or gravity answer about this, whatever its form."""
    scale, added = decoder.form
    raw = (torch.tensor(mean) - torch.tensor(added)) / scale
    decoder.net[3].bias.data.copy_(raw)


def random_prediction(options: Namespace, batch: Batch) -> Prediction:
    """Return what networks could say of a batch, as leaves that want gradients."""
    count, like = len(batch.K), batch.K
    sources, near = neighbours_of(options), neighbours_of(options)
    firsts = sorted({min(k, 0) for k in near if k in (-1, 1)})

    def leaf(value: Tensor) -> Tensor:
        return value.to(like).requires_grad_()

    def maps(scale: int, channels: int) -> Tensor:
        height, width = options.height // 2**scale, options.width // 2**scale
        return leaf(0.02 + 0.2 * torch.rand(count, channels, height, width))

    def vectors(wanted: bool, mean: list[float]) -> dict[int, Tensor]:
        near_mean = torch.tensor(mean) + 0.2 * torch.randn(count, 3)
        return {k: leaf(near_mean + 0.01 * torch.randn(count, 3)) for k in firsts if wanted}

    scales = options.scales
    return Prediction(
        disparity={scale: maps(scale, 1) for scale in scales},
        mask={s: maps(s, len(sources_of(options))) for s in scales if options.predictive_mask},
        T_first_second={
            k: leaf(se3.exp(abs(k) * (0.03 * torch.randn(count, 6).double() + _TWIST)))
            for k in sources
        },
        uncertainty={k: leaf(0.3 * torch.randn(count, 6)) for k in sources},
        velocity=vectors(options.use_velocity, [0.1, 0, 8]),
        gravity=vectors(options.use_gravity, [0.2, -9.7, 0.3]),
    )


@dataclass(frozen=True)
class Window:
    """The true motion of cars around an image, float64."""

    imu: dict[int, ImuInterval]  # measured without noise
    T_c0_ck: dict[int, Tensor]  # (B, 4, 4) pose of each frame's camera in the target's
    velocity: dict[int, Tensor]  # (B, 3) of the body, in the axes of the frame's camera
    gravity: dict[int, Tensor]  # (B, 3) up, in the same axes

    def T_first_second(self, source: int) -> Tensor:
        """Return the true motion of a pair."""
        first, second = min(source, 0), max(source, 0)
        return se3.inverse(self.T_c0_ck[first]) @ self.T_c0_ck[second]


def drive_window(first: int, last: int, batch: int = 2) -> Window:
    """Drive, and look at the frames from `first` to `last`, ten of them in a second."""
    drive = random_drive(batch)
    # (T): sample i of frame k is that of sample i + _STEPS of frame k - 1
    time = 3 + _DT_S * torch.arange(first * _STEPS, last * _STEPS + 1, dtype=torch.float64)
    gyro, accel = drive.gyro(time).transpose(0, 1), drive.accel(time).transpose(0, 1)
    T_c_b = extrinsics().repeat(batch, 1, 1)
    images = dict(zip(range(first, last + 1), time[::_STEPS].split(1), strict=True))
    T_w_c = {k: drive.T_w_b(t)[0] @ se3.inverse(T_c_b) for k, t in images.items()}
    R_c_w = {k: T[:, :3, :3].mT for k, T in T_w_c.items()}
    up = torch.tensor([0, 0, GRAVITY], dtype=torch.float64)
    velocity_w = {k: drive.velocity_w(t)[0] for k, t in images.items()}
    imu = {}
    for k in range(first, last):
        part = slice((k - first) * _STEPS, (k + 1 - first) * _STEPS + 1)
        dt = torch.full((batch, _STEPS), _DT_S, dtype=torch.float64)
        motion = preintegrate(dt, gyro[:, part], accel[:, part])
        integrated = motion.rotation, motion.position, motion.velocity, motion.duration
        speed = velocity_w[k].norm(dim=-1)
        imu[k] = ImuInterval(dt, gyro[:, part], accel[:, part], *integrated, speed, T_c_b)
    return Window(
        imu=imu,
        T_c0_ck={k: se3.inverse(T_w_c[0]) @ T for k, T in T_w_c.items()},
        velocity={k: apply(R_c_w[k], v) for k, v in velocity_w.items()},
        gravity={k: R @ up for k, R in R_c_w.items()},
    )


def gentle_window(first: int, last: int, batch: int = 2) -> Window:
    """Move a camera evenly, aside and ahead, by less than half a metre a frame; without IMU."""
    twist = torch.tensor([0.15, 0.03, 0.4, 0.002, 0.02, 0], dtype=torch.float64)
    poses = {k: se3.exp(k * twist).expand(batch, 4, 4) for k in range(first, last + 1)}
    return Window({}, poses, {}, {})


def corridor(T_c0_ck: Tensor, K: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Look from a camera into a corridor that is straight ahead of camera c0.

    Args:
        T_c0_ck: (B, 4, 4)
        K: (B, 3, 3) [px]
        size: width and height [px]

    Returns:
        (B, 3, H, W) smoothly coloured images in [0, 1], and their depth (B, 1, H, W) [m]
    """
    width, height = size
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)]).flatten(1).to(K)  # (3, H * W)
    rays = T_c0_ck[:, :3, :3] @ torch.linalg.inv(K) @ pixels  # (B, 3, H * W) one metre deep
    start = T_c0_ck[:, :3, 3:]
    far = torch.tensor([[_RIGHT_M], [_DOWN_M], [_AHEAD_M]]).to(K)
    near = torch.tensor([[-_RIGHT_M], [-_UP_M], [-_AHEAD_M]]).to(K)
    met = (torch.where(rays > 0, far, near) - start) / rays
    depth = met.min(1, keepdim=True).values  # (B, 1, H * W)
    x, y, z = (start + depth * rays).unbind(1)
    phases = 1.1 * x + 2.3 * z, 2.1 * y - 1.3 * z + 1, 1.7 * x - 1.9 * y + 0.9 * z
    image = torch.stack([0.5 + 0.25 * phase.sin() + 0.2 * (2.3 * phase).cos() for phase in phases])
    return image.transpose(0, 1).unflatten(2, (height, width)), depth.unflatten(2, (height, width))


def corridor_batch(options: Namespace, window: Window) -> tuple[Batch, Tensor]:
    """Return what the cameras of cars in a corridor record, float64, and the target's depth [m]."""
    size = options.width, options.height
    count = len(window.T_c0_ck[0])
    K = torch.tensor([[0.8, 0, 0.49], [0, 0.8, 0.47], [0, 0, 1]], dtype=torch.float64)
    K = K * torch.tensor([[options.width], [options.height], [1]])
    K = K.repeat(count, 1, 1)
    T_stereo_c0 = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    T_stereo_c0[:, 0, 3] = -BASELINE_M
    poses = window.T_c0_ck | {STEREO: se3.inverse(T_stereo_c0)}
    image = {frame: corridor(poses[frame], K, size)[0] for frame in frames_of(options)}
    depth = corridor(poses[0], K, size)[1]
    sample = Sample(
        image=map_tensors(lambda x: 255 * x, image),
        K=K,
        imu=window.imu if options.use_imu else {},
        T_source_c0={STEREO: T_stereo_c0} if options.use_stereo else {},
        depth={0: depth},
        index=torch.arange(count),
        skipped=torch.zeros(count, dtype=torch.int64),
    )
    return prepare(sample, options.scales), depth


def true_prediction(
    options: Namespace, window: Window, depth: Tensor, dtype: torch.dtype = torch.float64
) -> Prediction:
    """Return what networks would say of `corridor_batch` if they were perfect."""
    near, far = 1 / options.min_depth, 1 / options.max_depth
    disparity = (options.trans_scale_factor / depth - far) / (near - far)
    firsts = [k for k in (-1, 0) if k in window.imu]
    sources = neighbours_of(options)
    truth = Prediction(
        disparity={
            scale: torch.nn.functional.avg_pool2d(disparity, 2**scale) for scale in options.scales
        },
        mask={},
        T_first_second={k: window.T_first_second(k) for k in sources},
        uncertainty={k: depth.new_zeros(len(depth), 6) for k in sources},
        velocity={k: window.velocity[k] for k in firsts if options.use_velocity},
        gravity={k: window.gravity[k] for k in firsts if options.use_gravity},
    )
    return Prediction(**map_tensors(lambda x: x.to(dtype), vars(truth)))
