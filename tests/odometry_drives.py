"""Whole drives whose truth is known, for tests: simulated without files, and recorded on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks.simulation import Simulation, random_drive, simulate
from datasets.drives import MatchOptions, match_drive
from datasets.oxts import FIELDS, Packets
from datasets.synthetic.recording import DATE, Recipe, write_records
from datasets.synthetic.rig import write_calibration
from ekf.filter import EKFModel
from evaluation.drive_frames import DriveFrames
from evaluation.odometry import Start
from evaluation.pose_chain import SeenMotion, chain
from evaluation.true_poses import TruePoses
from tests.image_tree import picture, write_list

SIZE = 64, 64  # of images, recorded and the network's [px]
DRIVE = f"{DATE}_drive_0003"


def exact_simulation(intervals: int = 60) -> Simulation:
    """Drive with sensors that make no error, and a start that is the truth."""
    model = EKFModel("calibrated").double()
    with torch.no_grad():
        model.densities.zero_()
        model.init_covar_diag_sqrt.zero_()
    return simulate(model, random_drive(), intervals, 1e-24 * torch.eye(6, dtype=torch.float64))


def seen_in(simulation: Simulation, T_c0_c1: Tensor | None = None) -> SeenMotion:
    """Return what networks say that know the truth, unless the camera sees something else."""
    T_c0_c1 = simulation.T_c0_c1 if T_c0_c1 is None else T_c0_c1
    unsure = torch.zeros(len(T_c0_c1), 6, dtype=torch.float64)
    return SeenMotion(T_c0_c1, unsure, simulation.velocity[0], simulation.gravity[0])


def drive_in(simulation: Simulation, **changes: object) -> DriveFrames:
    """Return a simulated drive as one that was opened, without images."""
    count = len(simulation.T_c0_c1) + 1
    packet = dict.fromkeys(FIELDS, 0.0)
    truth = TruePoses(chain(simulation.T_c0_c1).numpy(), np.ones(count, bool), "simulation")
    drive = DriveFrames(
        name="simulated",
        short="simulated",
        drive=None,
        images=None,
        frames=range(count),
        stamps_s=0.1 * np.arange(count),
        imu=simulation.imu,
        T_c_b=simulation.T_c_b,
        first_packet=Packets(np.array([list(packet.values())]), np.zeros(1, np.int64)),
        truth=truth,
    )
    return replace(drive, **changes)


def true_start(simulation: Simulation) -> Start:
    """Return the velocity and gravity that the drive truly begins with."""
    return Start(simulation.velocity[0], simulation.gravity[0], "simulation")


def record(root: Path, frames: int = 40, align: str = "camera", imu_noise: float = 0.0) -> Path:
    """Write a synthetic drive, matched, whose images show nothing of the world; return its folder.

    `root/splits/test_files.txt` names it.
    """
    recipe = Recipe(seed=1, number=3, frames=frames, size=SIZE, imu_noise=imu_noise)
    (root / DATE).mkdir(parents=True)
    write_records(root, recipe, write_calibration(root / DATE, SIZE))
    match_drive(recipe.drive, MatchOptions(root, root, align=align))
    sync = recipe.drive.sync(root)
    for i in range(frames):
        path = sync / "image_02" / "data" / f"{i:010d}.png"
        cv2.imwrite(str(path), picture(i, SIZE))
    lines = [f"{DATE}/{recipe.drive}_sync {i} l" for i in range(1, frames - 1)]
    write_list(root / "splits" / "test_files.txt", lines)
    return sync
