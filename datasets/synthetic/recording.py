"""One synthetic drive: its files in KITTI's layout, and the truth beside them.

What has a file for each drive is written once by `write_records`; what has one for each image by
`write_frames`, for any range of images, in any order and any process.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from datasets.calibration import Calibration, Camera
from datasets.drives import Drive
from datasets.oxts import format_stamp, parse_stamp
from datasets.synthetic import faults, sensors
from datasets.synthetic.rendering import Renderer, View
from datasets.synthetic.trajectory import Trajectory, make_trajectory
from datasets.synthetic.world import World

DATE = "2011_01_01"
"""No drive of KITTI is of this day: these drives may lie beside real ones."""

CAMERAS = 2, 3
FIRST_START_NS = parse_stamp("2011-01-01 00:01:00.000000000")
SCAN_HALF_NS = 50_000_000
DEPTH_PER_M = 256
FARTHEST_M = 255.99
PNG_LEVEL = 1  # twice as fast as the default, and little larger
JPG_QUALITY = 95

DEPTH = "proj_depth/groundtruth/image_02"
MOVING = "truth/moving/image_02"
_MINUTE_NS = 60 * 10**9
_SCAN_STAMPS = {"": 0, "_start": -SCAN_HALF_NS, "_end": SCAN_HALF_NS}

DATAFORMAT = {
    "lat": "latitude [deg]",
    "lon": "longitude [deg]",
    "alt": "altitude [m]",
    "roll": "roll [rad], 0 is level, positive is left side up",
    "pitch": "pitch [rad], 0 is level, positive is front down",
    "yaw": "heading [rad], 0 is east, positive is counter-clockwise, -pi to pi",
    "vn": "velocity to the north [m/s]",
    "ve": "velocity to the east [m/s]",
    "vf": "velocity forward, level [m/s]",
    "vl": "velocity to the left, level [m/s]",
    "vu": "velocity upward [m/s]",
    "ax": "specific force along the vehicle's x, forward [m/s^2]",
    "ay": "specific force along the vehicle's y, left [m/s^2]",
    "az": "specific force along the vehicle's z, up [m/s^2]",
    "af": "specific force forward, level [m/s^2]",
    "al": "specific force to the left, level [m/s^2]",
    "au": "specific force upward [m/s^2]",
    "wx": "angular rate around the vehicle's x [rad/s]",
    "wy": "angular rate around the vehicle's y [rad/s]",
    "wz": "angular rate around the vehicle's z [rad/s]",
    "wf": "angular rate around forward, level [rad/s]",
    "wl": "angular rate around left, level [rad/s]",
    "wu": "angular rate around up [rad/s]",
    "pos_accuracy": "accuracy of the position [m]",
    "vel_accuracy": "accuracy of the velocity [m/s]",
    "navstat": "state of the navigation",
    "numsats": "satellites in view",
    "posmode": "mode of the position",
    "velmode": "mode of the velocity",
    "orimode": "mode of the orientation",
}


@dataclass(frozen=True)
class Recipe:
    """What decides about every byte of a drive.

    Attributes:
        seed: of all drives
        number: of this one, from 1
        frames: N images of each camera
        size: width, height [px]
        moving_cars: how many
        imu_noise: 0 is none, 1 that of the real unit
        illumination: 0 is constant, 1 changes strongly
        faults: whether the known troubles are planted
        image_format: "png" or "jpg"
    """

    seed: int
    number: int
    frames: int
    size: tuple[int, int]
    moving_cars: int = 0
    imu_noise: float = 1.0
    illumination: float = 0.0
    faults: bool = False
    image_format: str = "png"

    @property
    def drive(self) -> Drive:
        return Drive(DATE, f"{self.number:04d}")

    @property
    def source(self) -> sensors.Source:
        return sensors.Source(self.seed, self.number)

    def trajectory(self) -> Trajectory:
        return make_trajectory(self.source.world_seed(), sensors.duration_s(self.frames))

    def clock(self) -> sensors.Clock:
        # Every drive begins at a minute of its own, when the one before is over. The stamps of more
        # drives than a day has room for go on into the next days, their folders' names do not.
        each_ns = _MINUTE_NS * (1 + int((sensors.duration_s(self.frames) + 2) // 60))
        start_ns = FIRST_START_NS + each_ns * (self.number - 1)
        return sensors.make_clock(self.source, self.frames, start_ns)


@dataclass(frozen=True)
class Records:
    """What was recorded besides images and scans.

    Attributes:
        metres: driven from the first image to the last
        missing_scans: frames that are to have no scan
    """

    metres: float
    missing_scans: tuple[int, ...]


def poses_w_c(T_w_b: np.ndarray, camera: Camera) -> np.ndarray:
    """Return the poses (N, 4, 4) of a camera where those of the body (N, 4, 4) are given."""
    return T_w_b @ np.linalg.inv(camera.T_c_b)


def write_records(root: Path, recipe: Recipe, calibration: Calibration) -> Records:
    """Write all of a drive but what has a file for each image, and make the folders for that.

    Args:
        root: gets the folder of the date, if it is not there
        recipe: of the drive
        calibration: of the date
    """
    clock, trajectory = recipe.clock(), recipe.trajectory()
    sync, extract = recipe.drive.sync(root), recipe.drive.extract(root)
    for folder in (*_frame_folders(), "oxts/data"):
        (sync / folder).mkdir(parents=True)
    (extract / "oxts" / "data").mkdir(parents=True)
    errors = sensors.draw_imu_errors(recipe.source, len(clock.raw_ns), recipe.imu_noise)
    motion = trajectory.at(clock.seconds(clock.raw_ns))
    packets = sensors.record_oxts(recipe.source, clock, motion, errors)
    files = faults.whole_files(packets, clock.twins)
    if recipe.faults:
        planted = faults.draw_faults(recipe.source.rng(sensors.Stream.FAULTS), clock.twins)
        files = faults.plant(files, planted)
        described = faults.describe(planted, str(recipe.drive))
        _write(sync / "truth" / "faults.json", json.dumps(described, indent=2) + "\n")
    _write_oxts(extract / "oxts", files.raw_ns, files.raw_lines)
    _write_oxts(sync / "oxts", files.sync_ns, files.sync_lines)
    _write_image_stamps(sync, clock.image_ns, files.missing_scans)
    T_w_b = trajectory.at(clock.seconds(clock.image_ns)).T_w_b
    T_w_c0 = poses_w_c(T_w_b, calibration[0])
    _write(sync / "truth" / "poses.txt", pose_lines(np.linalg.inv(T_w_c0[0]) @ T_w_c0))
    _write(sync / "truth" / "imu_bias.txt", bias_lines(errors.bias))
    metres = np.linalg.norm(np.diff(T_w_b[:, :3, 3], axis=0), axis=1).sum()
    return Records(float(metres), files.missing_scans)


def _frame_folders() -> Iterator[str]:
    yield from (f"image_{camera:02d}/data" for camera in CAMERAS)
    yield from (DEPTH, MOVING, "velodyne_points/data")


def _write_oxts(folder: Path, stamps_ns: np.ndarray, lines: Iterable[str | None]) -> None:
    _write(folder / "timestamps.txt", stamp_lines(stamps_ns))
    _write(folder / "dataformat.txt", "".join(f"{k}: {v}\n" for k, v in DATAFORMAT.items()))
    for number, line in enumerate(lines):
        if line is not None:
            _write(folder / "data" / f"{number:010d}.txt", line + "\n")


def _write_image_stamps(sync: Path, image_ns: np.ndarray, missing_scans: tuple[int, ...]) -> None:
    for camera in CAMERAS:
        _write(sync / f"image_{camera:02d}" / "timestamps.txt", stamp_lines(image_ns))
    for suffix, offset_ns in _SCAN_STAMPS.items():
        lines = stamp_lines(image_ns + offset_ns).splitlines(keepends=True)
        for frame in missing_scans:
            lines[frame] = "\n"
        _write(sync / "velodyne_points" / f"timestamps{suffix}.txt", "".join(lines))


def stamp_lines(stamps_ns: np.ndarray) -> str:
    """Return the text of a `timestamps.txt`."""
    return "".join(format_stamp(ns) + "\n" for ns in stamps_ns.tolist())


def pose_lines(poses: np.ndarray) -> str:
    """Return poses (N, 4, 4) as the text of KITTI's odometry: 12 numbers by rows, to 13 digits."""
    rows = poses[:, :3].reshape(-1, 12).tolist()
    return "".join(" ".join(f"{x:.12e}" for x in row) + "\n" for row in rows)


def bias_lines(bias: np.ndarray) -> str:
    """Return the biases (M, 6) of the IMU as text."""
    head = "# bias of wx wy wz [rad/s] and ax ay az [m/s^2] in each packet of the extract\n"
    return head + "".join(" ".join(f"{x:.12e}" for x in row) + "\n" for row in bias.tolist())


@dataclass(frozen=True)
class Block:
    """Consecutive images of a drive, made by one process.

    Attributes:
        root: where `write_records` wrote
        recipe: of the drive
        calibration: of the date
        first, end: from this image on, before that one
        missing_scans: images without a scan
        tally: a file that gets a byte for every image that is done
    """

    root: Path
    recipe: Recipe
    calibration: Calibration
    first: int
    end: int
    missing_scans: tuple[int, ...]
    tally: Path


def write_frames(block: Block) -> None:
    """Render and write the images, scans and dense truth of a block."""
    recipe = block.recipe
    clock, trajectory = recipe.clock(), recipe.trajectory()
    renderer = Renderer(World(trajectory, recipe.source.world_seed(), recipe.moving_cars))
    exposure = sensors.Exposure(recipe.source, recipe.illumination)
    time_s = clock.seconds(clock.image_ns)
    T_w_b = trajectory.at(time_s).T_w_b
    with block.tally.open("ab", buffering=0) as tally, _one_thread():
        for frame in range(block.first, block.end):
            now_s = float(time_s[frame])
            _write_views(block, renderer, exposure, frame, now_s, T_w_b[frame])
            if frame not in block.missing_scans:
                _write_scan(block, renderer, frame, now_s, T_w_b[frame])
            tally.write(b".")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep OpenCV to one thread for a while: the processes share the cores."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)  # this may be the caller's own process


def _write_views(
    block: Block,
    renderer: Renderer,
    exposure: sensors.Exposure,
    frame: int,
    now_s: float,
    T_w_b: np.ndarray,
) -> None:
    sync = block.recipe.drive.sync(block.root)
    for number in CAMERAS:
        camera = block.calibration[number]
        view = renderer.view(camera.K, camera.image_size, poses_w_c(T_w_b, camera), now_s)
        image = exposure.develop(view.image, number, now_s)
        name = f"image_{number:02d}/data/{frame:010d}.{block.recipe.image_format}"
        _encode(sync / name, image[..., ::-1])  # OpenCV has blue first
        if number == CAMERAS[0]:
            _write_truth(sync, frame, view)


def _write_scan(
    block: Block, renderer: Renderer, frame: int, now_s: float, T_w_b: np.ndarray
) -> None:
    """Write what the LiDAR sees at once, without the turn of a tenth of a second."""
    camera = block.calibration[CAMERAS[0]]
    T_w_v = poses_w_c(T_w_b, camera) @ camera.T_c_v
    points = renderer.scan(T_w_v, now_s, sensors.BEAMS_RAD, sensors.AZIMUTHS_RAD)
    noisy = sensors.with_range_noise(block.recipe.source.rng(sensors.Stream.LIDAR, frame), points)
    path = block.recipe.drive.sync(block.root) / "velodyne_points" / "data" / f"{frame:010d}.bin"
    path.write_bytes(noisy.astype("<f4").tobytes())


def _write_truth(sync: Path, frame: int, view: View) -> None:
    near = np.where(view.depth_m <= FARTHEST_M, view.depth_m, 0)
    depth = np.rint(DEPTH_PER_M * near).astype(np.uint16)
    _encode(sync / DEPTH / f"{frame:010d}.png", depth)
    _encode(sync / MOVING / f"{frame:010d}.png", 255 * view.moving.astype(np.uint8))


def _encode(path: Path, image: np.ndarray) -> None:
    options = [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL]
    if path.suffix == ".jpg":
        options = [cv2.IMWRITE_JPEG_QUALITY, JPG_QUALITY]
    done, data = cv2.imencode(path.suffix, np.ascontiguousarray(image), options)
    assert done, path
    path.write_bytes(data.tobytes())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
