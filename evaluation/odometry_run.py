"""The task of `evaluate_odometry.py`: drive after drive, from files to errors and pictures."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from datasets.drives import Drive
from datasets.splits import read_split
from evaluation.drive_frames import DriveFrames, Wanted, open_drive
from evaluation.odometry import Errors, Estimates, check_start, errors_of, estimate, filter_of
from evaluation.odometry_result import DriveResult, as_json
from evaluation.pose_chain import SeenMotion, check_sees_motion, see_motion
from evaluation.top_view import draw_top_view
from evaluation.training_drives import leakage
from evaluation.trajectory_files import write_kitti, write_tum
from evaluation.true_poses import TruePoses
from evaluation.weights import Weights, as_asked, open_all
from utils import UserError, written_whole

SEQUENCE_OF_SPLIT = {"odom_9": "09", "odom_10": "10"}
"""What the usual lists of odometry stand for: the sequences that they are all of."""

SYNTHETIC = "synthetic"
TRUTH = "truth"


def evaluate_odometry(args: Namespace) -> Iterator[DriveResult]:
    """Evaluate drive after drive, and write what is asked for; what is wrong is said at the first.

    Args:
        args: of `options.evaluate_odometry`

    Raises:
        UserError, OSError: a file is missing, is broken or is of another kind
    """
    folders = chosen_folders(args)
    weights = open_all(**as_asked(args))
    check_sees_motion(weights)
    check_start(weights, args.start)
    wanted = Wanted(
        args.data_path,
        weights.size,
        args.frames,
        args.png,
        args.imu_filename,
        args.truth,
        weights.options.k_imu_clip,
    )
    drives = [open_drive(wanted, folder) for folder in folders]
    for path in (args.out, args.json and args.json.parent):
        if path is not None:
            path.mkdir(parents=True, exist_ok=True)
    results = []
    for drive in drives:
        estimates = estimate(
            drive, _seen(drive, weights, args), filter_of(weights, args.noise_preset), args.start
        )
        results.append(_result(drive, estimates, weights, args.noise_preset))
        yield results[-1]  # to be shown before it is written, which may fail
        if args.out is not None:
            write_trajectories(args.out / drive.short, drive, estimates, results[-1])
        if args.json is not None:
            about = {"weights": str(weights.folder), "noise_preset": args.noise_preset}
            with written_whole(args.json) as file:
                file.write(json.dumps(about | as_json(results), indent=2).encode() + b"\n")


def chosen_folders(args: Namespace) -> list[str]:
    """Return the drives and sequences that are asked for, each once, however it is written.

    Raises:
        UserError, OSError: none is named, and there is no list of test drives; a name is of none
    """
    if args.sequences:
        return _each_once(f"{int(number):02d}" for number in args.sequences)
    if args.drives:
        return _each_once(args.drives)
    if args.eval_split in SEQUENCE_OF_SPLIT:
        return [SEQUENCE_OF_SPLIT[args.eval_split]]
    listed = args.data_path / "splits" / "test_files.txt"
    if args.eval_split is None and not listed.exists():
        raise UserError(
            f"{listed}: no such file to take drives from: name some by --drives or --sequences"
        )
    return _each_once(read_split(listed).folders)


def write_trajectories(
    folder: Path, drive: DriveFrames, estimates: Estimates, result: DriveResult
) -> None:
    """Write every trajectory as KITTI's and as TUM's tools read it, and a picture of all.

    The truth is written where it is known at every image.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trajectories = dict(estimates.T_c0_ck)
    truth = drive.truth
    if not isinstance(truth, str) and truth.known.all():
        trajectories = {TRUTH: np.linalg.inv(truth.T_w_c[0]) @ truth.T_w_c} | trajectories
    for name, T_c0_ck in trajectories.items():
        write_kitti(folder / f"{name}_kitti.txt", T_c0_ck)
        write_tum(folder / f"{name}_tum.txt", drive.stamps_s, T_c0_ck)
    xyz, labels = _seen_from_above(estimates, truth, result.errors)
    picture = draw_top_view(xyz, drive.name, labels)
    with written_whole(folder / "top_view.png") as file:
        file.write(picture)


def _seen_from_above(
    estimates: Estimates, truth: TruePoses | str, errors: Mapping[str, Errors]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return by name positions (N, 3) to be drawn, and what is said of those with errors.

    All are counted from the first image whose truth is known, as their errors are.
    """
    if isinstance(truth, str):
        return {name: T[:, :3, 3] for name, T in estimates.T_c0_ck.items()}, {}
    first = int(np.flatnonzero(truth.known)[0])
    xyz = {
        name: (np.linalg.inv(T[first]) @ T[first:])[:, :3, 3]
        for name, T in ({TRUTH: truth.T_w_c} | estimates.T_c0_ck).items()
    }
    known, labels = truth.known[first:], {}
    for name, of_name in errors.items():
        labels[name] = f"ATE {of_name.aligned['unaligned'].ate_m:.2f} m"
        away_m = (xyz[name] - xyz[TRUTH])[known]
        if (away_m[:, 1] ** 2).sum() > (away_m**2).sum() / 2:  # what a view from above hides
            labels[name] += ", mostly in height"
    xyz[TRUTH] = xyz[TRUTH][known]
    return xyz, labels


def _each_once(folders: Iterable[str]) -> list[str]:
    """Return folders without those that are another way to write a drive's name."""
    first: dict[str | Drive, str] = {}
    for folder in folders:
        number = folder.isascii() and folder.isdigit()
        first.setdefault(f"{int(folder):02d}" if number else Drive.parse(folder), folder)
    return list(first.values())


def _seen(drive: DriveFrames, weights: Weights, args: Namespace) -> SeenMotion:
    """Ask the networks along a drive, with a bar."""
    durations_s = torch.from_numpy(drive.durations_s)
    asked = args.batch_size, args.num_workers, args.amp
    bar = tqdm(total=len(durations_s), desc=drive.name, unit="pair", leave=False, disable=None)
    with bar:
        for found in see_motion(weights, drive.images, durations_s, *asked):
            if isinstance(found, SeenMotion):
                return found
            bar.update(found)
    raise AssertionError("unreachable: the result comes last")


def _result(
    drive: DriveFrames, estimates: Estimates, weights: Weights, noise_preset: str | None
) -> DriveResult:
    truth, errors, way_m = drive.truth, {}, None
    notes = []
    if isinstance(truth, str):
        said = f"none, so there are trajectories and no errors: {truth}"
    else:
        said = truth.source
        errors = {name: errors_of(T, truth) for name, T in estimates.T_c0_ck.items()}
        steps_m = np.diff(truth.T_w_c[truth.known, :3, 3], axis=0)
        way_m = float(np.linalg.norm(steps_m, axis=1).sum())
        if unknown := int((~truth.known).sum()):
            notes.append(f"{unknown} images have no true pose and are left out of all errors")
        notes += [truth.note] * bool(truth.note)
    seen, words = leakage(drive.drive, weights.options)
    notes += _notes(drive, estimates, weights, noise_preset)
    return DriveResult(
        name=drive.name,
        frames=(drive.frames.start, drive.frames.stop - 1),
        seconds=float(drive.stamps_s[-1]),
        way_m=way_m,
        truth=said,
        seen_in_training=seen,
        training=words,
        start=_start(estimates),
        absent=estimates.absent,
        errors=errors,
        nis=estimates.nis,
        gyro_bias=estimates.gyro_bias,
        accel_bias=estimates.accel_bias,
        notes=tuple(notes),
    )


def _start(estimates: Estimates) -> str:
    if estimates.start is None:
        return ""
    speed = estimates.start.velocity.norm().item()
    return f"{estimates.start.source}: {speed:.2f} m/s"


def _notes(
    drive: DriveFrames, estimates: Estimates, weights: Weights, noise_preset: str | None
) -> Iterator[str]:
    """Yield what else is to be known of the estimates."""
    options = weights.options
    if weights.pose_says_second_first:
        yield "pose network of monodepth2's kind: motions inverted"
    if not (options.use_velocity or options.use_gravity or options.use_stereo):
        yield (
            "the weights were trained without IMU and stereo: the camera's motion is in no known "
            "unit, and only its aligned errors tell something"
        )
    if estimates.start is None:
        return
    if bridged := int((~drive.imu.valid).sum()):
        yield f"{bridged} of {len(drive.imu.valid)} intervals have no IMU and are bridged"
    if "ekf_model" not in weights.models:
        preset = noise_preset or options.noise_preset
        yield f"the weights were trained without the filter; its noise is {preset!r}"
