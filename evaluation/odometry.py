"""Trajectories of a drive by the camera, by the IMU, by the filter of both, and their errors."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

import metrics
from datasets.oxts import Packets
from ekf.filter import EKFModel
from ekf.sequence import CameraMotions, ImuIntervals, Track, run_sequence
from evaluation.drive_frames import DriveFrames
from evaluation.pose_chain import SeenMotion, chain, unsaid_at_start
from evaluation.true_poses import TruePoses
from evaluation.weights import Weights
from liegroups import so3
from liegroups.matrices import apply
from losses import GRAVITY
from metrics import TrajectoryErrors
from networks.factory import vision_form
from utils import UserError

CAMERA, IMU, FILTER = ESTIMATES = ("camera", "imu", "filter")
"""The motions of the pose network in a row, dead reckoning, and the filter over the whole drive."""

STARTS = ("network", "recorded")
"""Who says velocity and gravity at the first image: networks, or the OXTS unit."""


@dataclass(frozen=True)
class Start:
    """What the IMU begins with, in the axes of the camera at the first image."""

    velocity: Tensor  # (3) float64, of the body [m/s]
    gravity: Tensor  # (3) float64, pointing up [m/s^2]
    source: str


@dataclass(frozen=True, eq=False)
class Estimates:
    """What is said of where the camera was at N images.

    Attributes:
        T_c0_ck: by name, (N, 4, 4) float64 [m]
        absent: why one of `ESTIMATES` is not there
        start: that of the IMU and of the filter; None where they are absent
        nis: mean surprise of the filter at the camera, 6 where it believes the right noise
        gyro_bias, accel_bias: (3) of the filter at the last image [rad/s], [m/s^2]
    """

    T_c0_ck: dict[str, np.ndarray]
    absent: dict[str, str] = field(default_factory=dict)
    start: Start | None = None
    nis: float = float("nan")
    gyro_bias: tuple[float, ...] = ()
    accel_bias: tuple[float, ...] = ()


@dataclass(frozen=True)
class Errors:
    """The errors of one estimate.

    Attributes:
        aligned: by the names of `metrics.ALIGNMENTS`
        snippet_m: mean of `metrics.snippet_errors`
        snippet_std_m: their standard deviation
    """

    aligned: dict[str, TrajectoryErrors]
    snippet_m: float
    snippet_std_m: float


def filter_of(weights: Weights, noise_preset: str | None = None) -> EKFModel:
    """Return the filter, float64 on the CPU: that of the weights, or one of a noise preset.

    Weights without a filter have what their options say of its noise.
    """
    options = weights.options
    if noise_preset is None and "ekf_model" in weights.models:
        model = copy.deepcopy(weights.models["ekf_model"])
    else:
        model = EKFModel(noise_preset or options.noise_preset, vision_form(options))
    return model.requires_grad_(False).double().cpu()


def find_start(drive: DriveFrames, seen: SeenMotion, asked: str | None) -> Start | str:
    """Return what the IMU begins with, or a line that says why nobody knows.

    Args:
        drive: with the record
        seen: with what the networks say
        asked: of `STARTS`; None for the networks if there are any

    Raises:
        UserError: the networks are asked for, and do not say it
    """
    if asked == "recorded":
        if drive.first_packet is None or drive.T_c_b is None:
            return f"{drive.name}: no OXTS packet of the first image says how it begins"
        return recorded_start(drive.first_packet, drive.T_c_b)
    said = seen.velocity, seen.gravity
    reason = next((x for x in said if isinstance(x, str)), None)
    if reason is None:
        return Start(*said, "said by the networks at the first image")
    if asked == "network":
        raise _not_said(reason)
    return f"{reason}, so nobody says how it begins: --start recorded takes the OXTS unit's word"


def check_start(weights: Weights, asked: str | None) -> None:
    """Refuse weights whose networks do not say how a drive begins, where they are asked for it.

    Args:
        weights: with a network of motion
        asked: of `STARTS`, or None
    """
    if asked == "network":
        for reason in unsaid_at_start(weights).values():
            raise _not_said(reason)


def recorded_start(packet: Packets, T_c_b: Tensor) -> Start:
    """Return velocity and gravity as an OXTS packet has them, in the camera's axes.

    Args:
        packet: one
        T_c_b: (4, 4) float64, body to camera
    """
    velocity_level, rpy = (
        torch.from_numpy(packet.fields(*names)[0])
        for names in (("vf", "vl", "vu"), ("roll", "pitch", "yaw"))
    )
    # vf, vl, vu are along the ground: turned with the heading, but not with roll and pitch.
    R_level_b = so3.from_rpy(rpy * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    R_c_level = T_c_b[:3, :3] @ R_level_b.mT
    up = torch.tensor([0, 0, GRAVITY], dtype=torch.float64)
    return Start(R_c_level @ velocity_level, apply(R_c_level, up), "recorded by the OXTS unit")


def estimate(
    drive: DriveFrames, seen: SeenMotion, model: EKFModel, asked: str | None = None
) -> Estimates:
    """Return all trajectories that there can be of a drive.

    Args:
        drive: N images
        seen: what the networks say of them
        model: the filter, float64
        asked: of `STARTS`; None for the networks if there are any
    """
    camera = chain(seen.T_c0_c1).numpy()
    start = find_start(drive, seen, asked)
    reason = next((x for x in (drive.imu, start) if isinstance(x, str)), None)
    if reason is not None:
        return Estimates({CAMERA: camera}, dict.fromkeys((IMU, FILTER), reason))
    covariance = model.vision_covariance(seen.uncertainty)
    track = reckon(model, drive.imu, seen.T_c0_c1, covariance, drive.T_c_b, start)
    alone, fused = track.T_c0_ck.numpy()
    nis = track.nis[1]
    return Estimates(
        T_c0_ck={CAMERA: camera, IMU: alone, FILTER: fused},
        start=start,
        nis=float(nis.nanmean()),
        gyro_bias=tuple(track.gyro_bias[1, -1].tolist()),
        accel_bias=tuple(track.accel_bias[1, -1].tolist()),
    )


@torch.no_grad()
def reckon(
    model: EKFModel,
    imu: ImuIntervals,
    T_c0_c1: Tensor,
    covariance: Tensor,
    T_c_b: Tensor,
    start: Start,
) -> Track:
    """Run the filter over a drive twice at once: (2, ...), without the camera and with it.

    Args:
        model: the filter
        imu: N intervals
        T_c0_c1: (N, 4, 4) what the camera sees
        covariance: (N, 6, 6) of it
        T_c_b: (4, 4) extrinsics
        start: at the first image
    """

    def twice(x: Tensor) -> Tensor:
        return x.expand(2, *x.shape)

    sees = torch.tensor([[False], [True]]).expand(2, len(T_c0_c1))
    return run_sequence(
        model,
        ImuIntervals(*map(twice, vars(imu).values())),
        CameraMotions(twice(T_c0_c1), twice(covariance), sees),
        T_c_b,
        model.initial_state(start.velocity, start.gravity),
    )


def errors_of(T_c0_ck: np.ndarray, truth: TruePoses) -> Errors:
    """Compare a trajectory (N, 4, 4) with the truth, at the images where that is known."""
    known = np.flatnonzero(truth.known)
    compared = truth.T_w_c[known], T_c0_ck[known], known
    snippets = metrics.snippet_errors(*compared)
    mean, std = (snippets.mean(), snippets.std()) if len(snippets) else (np.nan, np.nan)
    return Errors(metrics.trajectory_errors(*compared), float(mean), float(std))


def _not_said(reason: str) -> UserError:
    return UserError(f"--start network: {reason}; use --start recorded")
