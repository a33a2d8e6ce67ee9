"""Measure synthetic drives, from their files alone: `python -m benchmarks.synthetic`.

How well views agree, how well LiDAR and IMU agree with the truth, how long making them takes, and
how much memory.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from datasets.calibration import Calibration, read_calibration
from datasets.drives import Drive, find_drives
from datasets.imu_matching import match
from datasets.oxts import poses_w_b, read_oxts, read_stamps
from datasets.synthetic.rendering import View
from datasets.synthetic.sensors import GRAVITY
from ekf.preintegration import camera_motion, preintegrate
from liegroups import se3, so3
from liegroups.matrices import apply

ROOT = Path(__file__).parent.parent
LEAST_MOTION_M = (
    0.6  # in a tenth of a second; slower frames say little about the length of a motion
)
LEAST_FRAMES = 9  # a third of them must still be a drive
_AGREE = 0.03  # of a depth: what is nearer hides the pixel
_SMOOTH = 0.10  # of an inverse depth over the lens' blur: more is a silhouette
_BLUR_PX = 5


@dataclass(frozen=True)
class Frame:
    """One image of a drive with its truth.

    Attributes:
        image: (H, W, 3) float32 in 0..1
        depth_m: (H, W) float32, 0 for none
        T_w_c: (4, 4)
        moving: (H, W) bool
    """

    image: np.ndarray
    depth_m: np.ndarray
    T_w_c: np.ndarray
    moving: np.ndarray


def read_image(path: Path) -> np.ndarray:
    """Return an image (H, W, 3) float32 in 0..1."""
    return cv2.imread(str(path)).astype(np.float32) / 255


def read_depth(path: Path) -> np.ndarray:
    """Return depths (H, W) float32 [m], 0 for none."""
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float32) / 256


def read_poses(drive: Path, calibration: Calibration) -> np.ndarray:
    """Return T_w_c (N, 4, 4) of the left colour camera."""
    rows = np.loadtxt(drive / "truth" / "poses.txt").reshape(-1, 3, 4)
    T_w_c0 = np.tile(np.eye(4), (len(rows), 1, 1))
    T_w_c0[:, :3] = rows
    return T_w_c0 @ calibration[0].T_c_b @ np.linalg.inv(calibration[2].T_c_b)


def read_frame(drive: Path, frame: int, T_w_c: np.ndarray) -> Frame:
    """Read one frame of the left colour camera; its pose (4, 4) is given."""
    name = f"{frame:010d}.png"
    return Frame(
        read_image(drive / "image_02" / "data" / name),
        read_depth(drive / "proj_depth" / "groundtruth" / "image_02" / name),
        T_w_c,
        read_depth(drive / "truth" / "moving" / "image_02" / name) > 0,
    )


def photometric_error(
    seen: np.ndarray, target: Frame | View, K: np.ndarray, T_s_t: np.ndarray, where: np.ndarray
) -> float:
    """Return the mean absolute difference between the target and a source warped into it.

    Args:
        seen: (H, W, 3) the source image
        target: with its depth
        K: (3, 3) of both
        T_s_t: (4, 4) target camera to source camera
        where: (H, W) bool, pixels of the target that count
    """
    u, v, _ = _project(target, K, T_s_t)
    warped = cv2.remap(seen, u, v, cv2.INTER_LINEAR)
    return float(np.abs(warped - target.image)[where].mean())


def visible(
    target: Frame | View, source: Frame | View, K: np.ndarray, T_s_t: np.ndarray
) -> np.ndarray:
    """Return the static pixels (H, W) of the target that the source sees as well.

    Pixels whose colour is mixed of two surfaces, by the lens, are left out in both views.
    """
    u, v, depth = _project(target, K, T_s_t)
    height, width = target.depth_m.shape
    inside = (target.depth_m > 0) & (u > 1) & (u < width - 2) & (v > 1) & (v < height - 2)
    there = cv2.remap(_inverse(source.depth_m), u, v, cv2.INTER_LINEAR)
    agrees = np.abs(there * depth - 1) < _AGREE
    mixed = (~_one_surface(source) | source.moving).astype(np.float32)
    whole = cv2.remap(mixed, u, v, cv2.INTER_LINEAR) == 0
    return inside & agrees & whole & _one_surface(target) & ~target.moving


def _one_surface(frame: Frame | View) -> np.ndarray:
    inverse, around = _inverse(frame.depth_m), np.ones((_BLUR_PX, _BLUR_PX))
    return cv2.dilate(inverse, around) <= (1 + _SMOOTH) * cv2.erode(inverse, around)


def _inverse(depth_m: np.ndarray) -> np.ndarray:
    return np.where(depth_m > 0, 1 / np.maximum(depth_m, 1e-3), 0).astype(np.float32)


def _project(
    target: Frame | View, K: np.ndarray, T_s_t: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where pixels of the target are in the source: u, v [px] and depth [m], (H, W) each."""
    v, u = np.mgrid[: target.depth_m.shape[0], : target.depth_m.shape[1]]
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K).T
    points = rays * target.depth_m[..., None] @ T_s_t[:3, :3].T + T_s_t[:3, 3]
    depth = np.maximum(points[..., 2], 1e-3)
    pixels = points @ K.T
    return (
        (pixels[..., 0] / depth).astype(np.float32),
        (pixels[..., 1] / depth).astype(np.float32),
        points[..., 2].astype(np.float32),
    )


def perturbations(T_s_t: np.ndarray) -> dict[str, np.ndarray]:
    """Return motions (4, 4) that are 5 % wrong, each in its own way."""
    length_m = np.linalg.norm(T_s_t[:3, 3])
    turn = Rotation.from_matrix(T_s_t[:3, :3]).as_rotvec()
    wrong = {}
    for name, factor in (("5 % too far", 1.05), ("5 % too short", 0.95)):
        wrong[name] = T_s_t.copy()
        wrong[name][:3, :3] = Rotation.from_rotvec(factor * turn).as_matrix()
        wrong[name][:3, 3] *= factor
    for name, axis in (("5 % to the side", 0), ("5 % up", 1)):
        wrong[name] = T_s_t.copy()
        wrong[name][axis, 3] += 0.05 * length_m
    return wrong


def pairs(
    drive: Path, calibration: Calibration, step: int
) -> Iterator[tuple[str, np.ndarray, Frame, np.ndarray, np.ndarray]]:
    """Yield name, source image, target, T_s_t and visible pixels of pairs along a drive."""
    K = calibration[2].K
    T_r_l = calibration[3].T_c_b @ np.linalg.inv(calibration[2].T_c_b)
    T_w_c = read_poses(drive, calibration)
    for frame in range(1, len(T_w_c) - 1, step):
        target = read_frame(drive, frame, T_w_c[frame])
        for other in (frame - 1, frame + 1):
            source = read_frame(drive, other, T_w_c[other])
            T_s_t = np.linalg.inv(source.T_w_c) @ target.T_w_c
            if np.linalg.norm(T_s_t[:3, 3]) >= LEAST_MOTION_M:
                where = visible(target, source, K, T_s_t)
                yield "next" if other > frame else "previous", source.image, target, T_s_t, where
        right = read_image(drive / "image_03" / "data" / f"{frame:010d}.png")
        yield "stereo", right, target, T_r_l, _seen_from_right(target, K, T_r_l)


def _seen_from_right(target: Frame, K: np.ndarray, T_r_l: np.ndarray) -> np.ndarray:
    """Return the pixels (H, W) of one surface that nothing nearer hides from the right camera.

    The right camera has no depth in the files: a pixel is hidden where another lands on it.
    """
    u, _, depth = _project(target, K, T_r_l)
    height, width = depth.shape
    nearest = np.full((height, width + 1), np.inf, np.float32)
    column = np.clip(np.rint(u), 0, width).astype(int)
    rows = np.arange(height)[:, None].repeat(width, 1)
    known = target.depth_m > 0
    np.minimum.at(nearest, (rows[known], column[known]), depth[known])
    # Within the lens' blur of where it lands there must be nothing nearer, and no gap either.
    open_ = np.where(np.isinf(nearest), 0, nearest)
    around = np.ones((_BLUR_PX, _BLUR_PX))
    lowest = cv2.erode(open_, around)[rows, column]
    inside = known & (u > 2) & (u < width - 3)
    return inside & (lowest > depth / (1 + _SMOOTH)) & _one_surface(target) & ~target.moving


def photometry(drives: Sequence[Path], calibration: Calibration, step: int) -> list[str]:
    """Return lines that say how well neighbouring views and stereo pairs agree."""
    K = calibration[2].K
    right: dict[str, list[float]] = {}
    worse: dict[tuple[str, str], list[float]] = {}
    for drive in drives:
        for name, seen, target, T_s_t, where in pairs(drive, calibration, step):
            error = photometric_error(seen, target, K, T_s_t, where)
            right.setdefault(name, []).append(error)
            for way, T_wrong in perturbations(T_s_t).items():
                wrong = photometric_error(seen, target, K, T_wrong, where)
                worse.setdefault((name, way), []).append(wrong / error)
    lines = []
    for name, errors in right.items():
        ways = ", ".join(f"{w} {np.mean(r):.1f} x" for (n, w), r in worse.items() if n == name)
        lines.append(
            f"{name:9} {len(errors):3} pairs, mean abs error {np.mean(errors):.4f}, at most "
            f"{np.max(errors):.4f}; pose {ways}"
        )
    return lines


def scan_errors(drive: Path, calibration: Calibration, frame: int) -> np.ndarray:
    """Return by how much (N,) [m] the points of a scan miss the dense truth."""
    camera = calibration[2]
    scan = drive / "velodyne_points" / "data" / f"{frame:010d}.bin"
    points_v = np.fromfile(scan, np.float32).reshape(-1, 4)[:, :3].astype(np.float64)
    name = f"{frame:010d}.png"
    depth_m = read_depth(drive / "proj_depth" / "groundtruth" / "image_02" / name)
    return depth_errors(points_v, camera.T_c_v, depth_m, camera.K)


def depth_errors(
    points_v: np.ndarray, T_c_v: np.ndarray, depth_m: np.ndarray, K: np.ndarray
) -> np.ndarray:
    """Return by how much (M,) [m] those of points (N, 3) that are in view miss a depth (H, W).

    Inverse depth is linear in the image on any plane, so between pixels it is interpolated.
    """
    points = points_v @ T_c_v[:3, :3].T + T_c_v[:3, 3]
    points = points[points[:, 2] > 0.1]
    u, v, _ = (points @ K.T / points[:, 2:]).T
    height, width = depth_m.shape
    inside = (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
    u, v, depth = u[inside], v[inside], points[inside, 2]
    left, top = np.minimum(u.astype(int), width - 2), np.minimum(v.astype(int), height - 2)
    right, low = u - left, v - top  # parts of a pixel
    inverse = _inverse(depth_m)
    above = inverse[top, left] * (1 - right) + inverse[top, left + 1] * right
    below = inverse[top + 1, left] * (1 - right) + inverse[top + 1, left + 1] * right
    return np.abs(depth - 1 / np.maximum(above * (1 - low) + below * low, 1e-3))


def lidar(drives: Sequence[Path], calibration: Calibration, step: int) -> str:
    """Return a line that says how many points of the scans agree with the dense truth."""
    errors = [
        scan_errors(drive, calibration, int(scan.stem))
        for drive in drives
        for scan in sorted((drive / "velodyne_points" / "data").iterdir())[::step]
    ]
    shares = [np.mean(error <= 0.03) for error in errors]
    pooled = np.concatenate(errors)
    return (
        f"LiDAR against dense truth, {len(pooled)} points in {len(errors)} images: "
        f"{100 * np.mean(pooled <= 0.03):.1f} % within 3 cm (worst image "
        f"{100 * np.min(shares):.1f} %), median {1e3 * np.median(pooled):.1f} mm"
    )


def inertial_errors(root: Path, drive: Drive, align: str) -> tuple[np.ndarray, np.ndarray]:
    """Return how far preintegrated motions of camera 0 miss the true ones: (N,) [mm], (N,) [deg].

    With `packet` the truth is that between the packets at the ends of an interval, whose position,
    attitude and velocity are exact; with `camera` it is that between the exposures.
    """
    sync = drive.sync(root)
    stamps = sync / ("oxts" if align == "packet" else "image_02") / "timestamps.txt"
    imu = match(read_stamps(stamps), read_oxts(drive.extract(root) / "oxts"), align=align).imu
    assert imu.valid.all(), drive
    T_c_b = torch.from_numpy(read_calibration(sync.parent)[0].T_c_b)
    first, last = imu.packets.select(imu.offsets[:-1]), imu.packets.select(imu.offsets[1:] - 1)
    origin = first.fields("lat", "lon", "alt")[0]
    T_w_b0, T_w_b1 = (torch.from_numpy(poses_w_b(ends, origin)) for ends in (first, last))
    velocity_w = torch.from_numpy(first.fields("ve", "vn", "vu"))
    gravity_w = torch.tensor([0.0, 0.0, GRAVITY], dtype=torch.float64).expand_as(velocity_w)
    R_c0_w = T_c_b[:3, :3] @ T_w_b0[:, :3, :3].mT
    samples = imu.padded()
    motion = preintegrate(*map(torch.from_numpy, (samples.dt, samples.gyro, samples.accel)))
    found = camera_motion(
        motion, T_c_b.expand(len(imu), 4, 4), apply(R_c0_w, velocity_w), apply(R_c0_w, gravity_w)
    )
    if align == "packet":
        true = T_c_b @ se3.inverse(T_w_b0) @ T_w_b1 @ se3.inverse(T_c_b)
    else:
        rows = torch.from_numpy(np.loadtxt(sync / "truth" / "poses.txt")).reshape(-1, 3, 4)
        T_w_c = se3.from_rt(rows[..., :3], rows[..., 3])
        true = se3.inverse(T_w_c[:-1]) @ T_w_c[1:]
    wrong_m = torch.linalg.norm(found[:, :3, 3] - true[:, :3, 3], dim=-1)
    turned = so3.angle(found[:, :3, :3].mT @ true[:, :3, :3])
    return 1e3 * wrong_m.numpy(), turned.rad2deg().numpy()


def inertia(root: Path, drives: Sequence[Drive]) -> list[str]:
    """Return lines that say how well an IMU without noise gives the true motion."""
    lines = []
    for align in ("packet", "camera"):
        errors = [inertial_errors(root, drive, align) for drive in drives]
        mm, deg = (np.concatenate(kind) for kind in zip(*errors, strict=True))
        lines.append(
            f"IMU without noise, --align {align}, {len(mm)} intervals: at most {mm.max():.3f} mm "
            f"and {deg.max():.5f} deg, median {np.median(mm):.4f} mm"
        )
    return lines


@dataclass(frozen=True)
class Cost:
    """What making drives took: time [s], and memory of all processes together [GB]."""

    seconds: float
    memory_gb: float


def make(out: Path, *options: str) -> Cost:
    """Make drives in a program of its own."""
    command = [sys.executable, "make_synthetic_kitti.py", "--out", str(out), *options]
    start, peak = time.perf_counter(), 0.0
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            while process.poll() is None:
                peak = max(peak, _memory_gb(process.pid))
                time.sleep(0.2)
        finally:
            process.terminate()  # does nothing where it has ended
        if process.returncode:
            raise RuntimeError(process.stderr.read().decode())
    return Cost(time.perf_counter() - start, peak)


def _memory_gb(session: int) -> float:
    """Return what the processes of a session have in memory; what they share counts once."""
    total_kb = 0
    for path in Path("/proc").glob("[0-9]*/smaps_rollup"):
        with suppress(OSError):  # it has ended
            if os.getsid(int(path.parent.name)) == session:
                found = re.search(r"^Pss:\s+(\d+) kB", path.read_text(), re.MULTILINE)
                total_kb += int(found[1])
    return total_kb * 1024 / 1e9


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, make drives, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="processes that make drives")
    parser.add_argument("--frames", type=int, default=120, help="of each drive")
    parser.add_argument("--step", type=int, default=5, help="measure every how many frames")
    args = parser.parse_args(argv)
    if args.frames < LEAST_FRAMES:
        parser.error(f"--frames: expected at least {LEAST_FRAMES}, got {args.frames}")
    sizes = ((2, args.frames, "1242x375"), (2, args.frames // 3, "1242x375"))
    with tempfile.TemporaryDirectory() as name:
        for drives, frames, size in (*sizes, (4, args.frames, "416x128")):
            out = Path(name) / f"{size}_{frames}"
            numbers = ("--drives", drives, "--frames", frames, "--size", size)
            cost = make(out, *map(str, numbers), "--imu_noise", "0", "--workers", str(args.workers))
            print(
                f"{drives} drives x {frames:3} frames, {size:8}: {cost.seconds:4.0f} s, "
                f"{drives * frames / cost.seconds:.2f} stereo frames/s, {cost.memory_gb:.2f} GB"
            )
        report(Path(name) / f"1242x375_{args.frames}", args.step)


def report(root: Path, step: int) -> None:
    """Print how true drives without IMU noise are, looking at every step-th frame."""
    drives = find_drives(root, root).both
    calibration = read_calibration(root / drives[0].date)
    folders = [drive.sync(root) for drive in drives]
    print(*photometry(folders, calibration, step), sep="\n")
    print(lidar(folders, calibration, step))
    print(*inertia(root, drives), sep="\n")


if __name__ == "__main__":
    main()
