"""Small drives in the layout of KITTI's raw data, for tests: smooth motion, exact 100 Hz or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from datasets.oxts import FIELDS, STATES, format_stamp, parse_stamp

START_NS = parse_stamp("2011-09-26 13:02:25.964389445")
RAW_STEP_NS, FRAME_EVERY = 10_000_000, 10  # 11 packets in an interval, both ends included
# A few real files of KITTI; tests that use them skip where they are not.
REAL = Path(__file__).parent.parent.parent / "shared" / "kitti_real"

DATE, DRIVE = "2011_09_26", "2011_09_26_drive_0001"


@dataclass
class Tree:
    """A drive with its extract and its synced twin on disk, and what was written to it."""

    root: Path
    drive: str
    raw_ns: np.ndarray  # (M,)
    raw_lines: list[str]
    frames: np.ndarray  # (N,) which raw packet each synced one is
    image_ns: np.ndarray  # (N,)

    @property
    def date(self) -> str:
        return self.drive[:10]

    @property
    def sync(self) -> Path:
        return self.root / self.date / f"{self.drive}_sync"

    @property
    def extract(self) -> Path:
        return self.root / self.date / f"{self.drive}_extract"

    @property
    def raw_stamps(self) -> Path:
        return self.extract / "oxts" / "timestamps.txt"

    def raw_file(self, packet: int) -> Path:
        return self.extract / "oxts" / "data" / f"{packet:010d}.txt"


def packets(seconds: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return packets (M, 30) of a car that turns about all axes, in the order of FIELDS."""
    t = np.asarray(seconds)
    values = {name: np.random.default_rng(seed).uniform(0.1, 2) + 0 * t for name in FIELDS}
    values |= dict(zip(("roll", "pitch", "yaw"), rpy(t).T, strict=True))
    values |= dict(zip(("wx", "wy", "wz"), body_rates(t).T, strict=True))
    values |= {"lat": 49.015 + 1e-6 * t, "lon": 8.4343 + 1.3e-4 * t, "alt": 116.4 + 0.1 * np.sin(t)}
    values |= {"ax": 0.3 * np.sin(t), "ay": 0.5 * np.cos(t), "az": 9.8 + 0.2 * np.sin(2 * t)}
    values |= {name: np.full_like(t, i) for i, name in enumerate(STATES, start=4)}
    return np.stack([values[name] for name in FIELDS], 1)


def rpy(t: np.ndarray) -> np.ndarray:
    """Return roll, pitch, yaw (M, 3) [rad] at times (M,) [s]."""
    roll = 0.03 * np.sin(3.1 * t)
    pitch = 0.02 * np.cos(2.3 * t)
    return np.stack([roll, pitch, 0.4 * np.sin(0.7 * t) + 0.05 * np.sin(4.3 * t + 1)], -1)


def body_rates(t: np.ndarray) -> np.ndarray:
    """Return the body rates (M, 3) [rad/s] of that motion, by the kinematics of its angles."""
    roll, pitch, _ = rpy(t).T
    droll, dpitch = 0.03 * 3.1 * np.cos(3.1 * t), -0.02 * 2.3 * np.sin(2.3 * t)
    dyaw = 0.4 * 0.7 * np.cos(0.7 * t) + 0.05 * 4.3 * np.cos(4.3 * t + 1)
    (sr, sp), (cr, cp) = (np.sin([roll, pitch])), np.cos([roll, pitch])
    rates = [droll - dyaw * sp, dpitch * cr + dyaw * sr * cp, -dpitch * sr + dyaw * cr * cp]
    return np.stack(rates, -1)


def make_tree(
    root: Path,
    *,
    frames: int = 6,
    drive: str = DRIVE,
    start_ns: int = START_NS,
    image_delay_ns: int = -3_000_000,
    raw_lead: int = 2,
    newline: str = "\n",
) -> Tree:
    """Write a drive.

    Args:
        root: where its date's folder is made
        frames: synced packets and images
        drive: its name
        start_ns: stamp of the first raw packet
        image_delay_ns: an image's stamp less that of its synced packet
        raw_lead: raw packets before the first synced one, and after the last
        newline: line ends of all files
    """
    count = (frames - 1) * FRAME_EVERY + 1 + 2 * raw_lead
    raw_ns = start_ns + RAW_STEP_NS * np.arange(count)
    lines = [packet_line(values) for values in packets((raw_ns - start_ns) / 1e9)]
    synced = raw_lead + FRAME_EVERY * np.arange(frames)
    tree = Tree(root, drive, raw_ns, lines, synced, raw_ns[synced] + image_delay_ns)
    write_oxts(tree.extract / "oxts", raw_ns, lines, newline)
    write_oxts(tree.sync / "oxts", raw_ns[synced], [lines[i] for i in synced], newline)
    for camera in ("image_02", "image_03"):
        write_stamps(tree.sync / camera / "timestamps.txt", tree.image_ns, newline)
    return tree


def packet_line(values: np.ndarray) -> str:
    """Write a packet the way the recordings have it: numbers, then whole numbers."""
    whole = len(FIELDS) - len(STATES)
    return " ".join([*map(repr, values[:whole].tolist()), *(f"{x:.0f}" for x in values[whole:])])


def write_oxts(folder: Path, stamps_ns: np.ndarray, lines: list[str], newline: str = "\n") -> None:
    """Write stamps and packets as a folder `oxts`."""
    write_stamps(folder / "timestamps.txt", stamps_ns, newline)
    (folder / "data").mkdir()
    for i, line in enumerate(lines):
        (folder / "data" / f"{i:010d}.txt").write_bytes((line + newline).encode())


def write_stamps(path: Path, stamps_ns: np.ndarray, newline: str = "\n") -> None:
    """Write a `timestamps.txt`."""
    path.parent.mkdir(parents=True)
    path.write_bytes("".join(format_stamp(ns) + newline for ns in stamps_ns.tolist()).encode())


def edit_line(path: Path, line: int, text: str) -> None:
    """Put another text into a line, counted from 1."""
    lines = path.read_text().split("\n")
    lines[line - 1] = text
    path.write_text("\n".join(lines))


def write_calibration(folder: Path) -> None:
    """Write the three calibration files of a recording day, in the digits of the real ones."""
    folder.mkdir(parents=True, exist_ok=True)
    T_v_b = _keyed(R=_rotation(0.1, -0.8, 0.04), T=[-0.81, 0.32, -0.8])
    T_c_v = _keyed(R=_rotation(-89.2, 0.8, -89.1), T=[-0.004, -0.076, -0.272])
    cameras = {"corner_dist": [0.0995]}
    for camera in range(4):
        f, x = 721.5377, (0, -387.5744, 44.85728, -339.5242)[camera]
        cameras[f"S_rect_{camera:02d}"] = [1242, 375]
        cameras[f"R_rect_{camera:02d}"] = _rotation(0.2, -0.4, 0.6 + camera)
        cameras[f"P_rect_{camera:02d}"] = [f, 0, 609.5593, x, 0, f, 172.854, 0.2, 0, 0, 1, 0.003]
    files = {"imu_to_velo": T_v_b, "velo_to_cam": T_c_v, "cam_to_cam": _keyed(**cameras)}
    for name, text in files.items():
        (folder / f"calib_{name}.txt").write_text("calib_time: 25-May-2012 16:47:16\n" + text)


def _rotation(*xyz_deg: float) -> np.ndarray:
    return Rotation.from_euler("xyz", xyz_deg, degrees=True).as_matrix().ravel()


def _keyed(**numbers: Sequence[float]) -> str:
    lines = (f"{key}: {' '.join(f'{x:.6e}' for x in values)}" for key, values in numbers.items())
    return "\n".join(lines) + "\n"
