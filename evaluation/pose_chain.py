"""What the networks say of the motion along a drive: of every image to the next, and at its start.

Every image is read once, and only those of one block are held at a time.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.augmentation import prepare
from datasets.batch import ImuInterval, Sample
from datasets.loading import read_in_order
from evaluation.weights import Weights
from liegroups import se3, so3
from training.prediction import Prediction, from_target, neighbours_of, predict
from utils import UserError


@dataclass(frozen=True)
class SeenMotion:
    """What the networks say of N + 1 images, float64 on the CPU.

    Attributes:
        T_c0_c1: (N, 4, 4) from each image to the next [m]
        uncertainty: (N, 6) of that, as `ekf.noise` reads it
        velocity: (3) of the body at the first image, in its axes [m/s]; a line that says why where
            no network says it
        gravity: (3) pointing up, in the same axes [m/s^2]; or that line
    """

    T_c0_c1: Tensor
    uncertainty: Tensor
    velocity: Tensor | str
    gravity: Tensor | str


class _Window(NamedTuple):
    """The images that are seen for one interval; the target is one of them."""

    interval: int
    target: int


def check_sees_motion(weights: Weights) -> None:
    """Refuse weights without a network of motion."""
    if "pose" not in weights.models:
        raise UserError(
            f"{weights.folder}: has no pose.pth: these networks see depth, and no motion"
        )


def unsaid_at_start(weights: Weights) -> dict[str, str]:
    """Return by name why no network says velocity, or gravity, at the first image of a drive.

    Args:
        weights: with a network of motion
    """
    options = weights.options
    earliest = min(neighbours_of(_asked(options, "off")), default=0)
    reasons = {}
    for name, trained in (("velocity", options.use_velocity), ("gravity", options.use_gravity)):
        if not trained:
            reasons[name] = f"the weights have no {name} network"
        elif earliest < -1:  # only the pairs beside the target are asked
            reasons[name] = f"the networks say {name} from image {-earliest - 1} on"
    return reasons


def see_motion(
    weights: Weights,
    images: Dataset[Tensor],
    durations_s: Tensor,
    batch_size: int = 16,
    workers: int = 0,
    amp: str = "off",
) -> Iterator[int | SeenMotion]:
    """Ask the networks along a drive; yield how many intervals are done, and at last the result.

    Args:
        weights: of `open_all`
        images: N + 1 of (3, H, W) uint8 RGB
        durations_s: (N,) from each image to the next [s]
        batch_size: intervals that the networks see at once
        workers: processes that read images; none reads in this one
        amp: what the networks compute in: `off` for float32, `bf16` or `fp16`

    Raises:
        UserError: the networks want to see more images at once than there are, or others
        DataError: an image cannot be read
    """
    asked = _asked(weights.options, amp)
    offsets = sorted([0, *neighbours_of(asked)])
    windows = _windows(len(durations_s), offsets)
    models = weights.models.to(memory_format=torch.channels_last)
    parts, first = [], None
    for block, held in _read(images, windows, offsets, batch_size, workers):
        sample = _to(_sample(block, held, offsets, durations_s), weights.device)
        batch = prepare(sample, scales=())
        with torch.inference_mode():
            prediction = predict(models, batch, asked, motion_only=True)
        if weights.pose_says_second_first:
            prediction = _inverted(prediction)
        if first is None:
            first = prediction
            # What is said of the others is not used: the filter carries its own.
            asked = Namespace(**{**vars(asked), "use_velocity": False, "use_gravity": False})
        parts.append(_of_intervals(prediction, block))
        yield len(block)
    T_c0_c1, uncertainty = map(torch.cat, zip(*parts, strict=True))
    yield SeenMotion(T_c0_c1, uncertainty, **_start(first, windows[0], weights))


def chain(T_c0_c1: Tensor) -> Tensor:
    """Return the trajectory T_c0_ck (N + 1, 4, 4) of motions (N, 4, 4) from image to image."""
    poses = [torch.eye(4, dtype=T_c0_c1.dtype)]
    for T in T_c0_c1:
        poses.append(poses[-1] @ T)
    return torch.stack(poses)


def _asked(options: Namespace, amp: str) -> Namespace:
    """Return what the networks are asked for: a pair, or all images of the training's window."""
    frame_ids = [0, 1] if options.pose_model_input == "pairs" else options.frame_ids
    return Namespace(**{**vars(options), "frame_ids": frame_ids, "amp": amp, "channels_last": True})


def _windows(intervals: int, offsets: list[int]) -> list[_Window]:
    """Return for each interval a target from which both of its images are seen.

    It is the one that comes nearest: the first image itself, where all that is seen with it exists.
    """
    low, high = -offsets[0], intervals - offsets[-1]
    if low > high:
        raise UserError(
            f"{intervals + 1} images, but the pose network of these weights sees "
            f"{offsets[-1] - offsets[0] + 1} at once"
        )
    seen_in_a_row = [k for k in offsets if k + 1 in offsets]
    windows = []
    for k in range(intervals):
        targets = [t for t in (k - j for j in seen_in_a_row) if low <= t <= high]
        if not targets:
            raise UserError(
                f"the pose network of these weights sees the images {offsets}: no two in a row "
                "from which each motion could be taken"
            )
        windows.append(_Window(k, min(targets, key=lambda t, k=k: (abs(t - k), t))))
    return windows


def _read(
    images: Dataset[Tensor],
    windows: list[_Window],
    offsets: list[int],
    batch_size: int,
    workers: int,
) -> Iterator[tuple[list[_Window], dict[int, Tensor]]]:
    """Yield blocks of windows with the images that they need, by place."""
    ordered: Iterable[Tensor] = (
        image for images in read_in_order(images, batch_size, workers) for image in images
    )
    numbered = enumerate(ordered)
    held: dict[int, Tensor] = {}
    for begin in range(0, len(windows), batch_size):
        block = windows[begin : begin + batch_size]
        targets = [window.target for window in block]
        last = max(targets) + offsets[-1]
        # The next block's targets may be nearer to the beginning by as much as a window is wide.
        first = min(targets) - (offsets[-1] - 2 * offsets[0])
        held = {place: image for place, image in held.items() if place >= first}
        while max(held, default=-1) < last:
            place, image = next(numbered)
            held[place] = image
        yield block, held


def _sample(
    block: list[_Window], held: dict[int, Tensor], offsets: list[int], durations_s: Tensor
) -> Sample:
    """Collate the images of windows; of the IMU the networks know but how long an interval is."""
    batch = len(block)
    targets = [window.target for window in block]
    longest = len(durations_s) - 1
    imu = {}
    for offset in offsets[:-1]:
        interval = [min(target + offset, longest) for target in targets]
        imu[offset] = _interval(durations_s[interval].float())
    return Sample(
        image={k: torch.stack([held[target + k] for target in targets]) for k in offsets},
        K=torch.eye(3).repeat(batch, 1, 1),
        imu=imu,
        T_source_c0={},
        depth={},
        index=torch.tensor([window.interval for window in block]),
        skipped=torch.zeros(batch, dtype=torch.int64),
    )


def _interval(duration_s: Tensor) -> ImuInterval:
    """Return intervals of these durations (B,) in which nothing was measured."""
    batch = len(duration_s)
    zeros, one = torch.zeros(batch, 2, 3), torch.eye(3).expand(batch, 2, 3, 3)
    return ImuInterval(
        dt=duration_s[:, None],
        gyro=zeros,
        accel=zeros,
        rotation=one,
        position=zeros[:, 0],
        velocity=zeros[:, 0],
        duration=duration_s,
        speed=zeros[:, 0, 0],
        T_c_b=torch.eye(4).expand(batch, 4, 4),
    )


def _to(sample: Sample, device: torch.device) -> Sample:
    def send(by_frame: dict) -> dict:
        return {k: x.to(device, non_blocking=True) for k, x in by_frame.items()}

    imu = {k: ImuInterval(*(x.to(device) for x in parts)) for k, parts in sample.imu.items()}
    return sample._replace(image=send(sample.image), K=sample.K.to(device), imu=imu)


def _inverted(prediction: Prediction) -> Prediction:
    """Return a prediction whose motions were said as T_second_first."""
    motions = {k: se3.inverse(T) for k, T in prediction.T_first_second.items()}
    return replace(prediction, T_first_second=motions)


def _of_intervals(prediction: Prediction, block: list[_Window]) -> tuple[Tensor, Tensor]:
    """Return the motions (B, 4, 4) of a block's intervals, and what is said of their certainty."""
    T_seen = {k: from_target(T, k).double().cpu() for k, T in prediction.T_first_second.items()}
    uncertainty = {k: u.double().cpu() for k, u in prediction.uncertainty.items()}
    motions, certainties = [], []
    for row, (interval, target) in enumerate(block):
        first = interval - target  # of the pair, counted from the target
        T_first_t, T_second_t = (
            T_seen[k][row] if k else torch.eye(4, dtype=torch.float64) for k in (first, first + 1)
        )
        motions.append(T_first_t @ se3.inverse(T_second_t))
        # Of two motions to the target, that to the image further away.
        source = first + 1 if abs(first + 1) > abs(first) else first
        certainties.append(uncertainty[source][row])
    T = torch.stack(motions)
    # Rotations of float32 are none in float64, and thousands in a row would make it worse.
    T = se3.from_rt(so3.normalize(T[:, :3, :3]), T[:, :3, 3])
    return T, torch.stack(certainties)


def _start(prediction: Prediction, window: _Window, weights: Weights) -> dict[str, Tensor | str]:
    """Return velocity and gravity (3) at the first image of all, as far as networks say them."""
    unsaid = unsaid_at_start(weights)
    first = -window.target  # the first image of all, counted from the target
    return {
        name: unsaid[name] if name in unsaid else said[first][0].double().cpu()
        for name, said in (("velocity", prediction.velocity), ("gravity", prediction.gravity))
    }
