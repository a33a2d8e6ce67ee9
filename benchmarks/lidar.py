"""Time projecting LiDAR scans into depth maps: `python -m benchmarks.lidar`.

The loop's time grows with the pixels that have several points, ours does not. Both take the same
product of all points, whose threads wait for each other on a busy machine: set
OPENBLAS_NUM_THREADS=1 there.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.timing import interleaved_medians
from datasets.lidar import depth_map
from datasets.synthetic import rig, sensors

LIMIT = 20  # times faster than the loop
_SENSOR_HEIGHT_M, _RANGE_M = 1.73, 120.0
# How far rays are beside a regular lattice. Those of a sensor are nearly on it and seldom meet on a
# pixel, random ones often do.
JITTER_RAD = {"regular": 1e-3, "random": np.pi}


def make_scan(points: int, jitter_rad: float) -> np.ndarray:
    """Return a scan (N, 4) float32 of 64 rings: a level ground, and things at random distances."""
    rng, rings = np.random.default_rng(0), len(sensors.BEAMS_RAD)
    around = np.linspace(-np.pi, np.pi, points // rings, endpoint=False)
    elevation = np.repeat(sensors.BEAMS_RAD, len(around))  # (N,)
    azimuth = np.tile(around, rings) + rng.uniform(-jitter_rad, jitter_rad, len(elevation))
    ground_m = _SENSOR_HEIGHT_M / np.maximum(-np.sin(elevation), _SENSOR_HEIGHT_M / _RANGE_M)
    range_m = np.minimum(ground_m, 3 + rng.gamma(2, 10, len(elevation)))
    level_m = range_m * np.cos(elevation)
    xyz = level_m * np.cos(azimuth), level_m * np.sin(azimuth), range_m * np.sin(elevation)
    return np.stack([*xyz, rng.uniform(size=len(elevation))], -1).astype(np.float32)


def loop_over_pixels(
    points_v: np.ndarray, P_px_v: np.ndarray, image_size: tuple[int, int]
) -> tuple[np.ndarray, int]:
    """Project a scan as the usual exports do: pixels with several points one by one.

    Only that here points share a pixel if it is the same, see `datasets.lidar`.

    Returns:
        depth map (H, W) float32, and how many pixels have several points
    """
    width, height = image_size
    points = points_v.copy()
    points[:, 3] = 1
    points = points[points[:, 0] >= 0, :]
    seen = np.dot(P_px_v, points.T).T  # (M, 3) column, row, depth
    seen[:, :2] = seen[:, :2] / seen[:, 2:]
    seen[:, :2] = np.round(seen[:, :2]) - 1
    inside = (seen[:, 0] >= 0) & (seen[:, 1] >= 0) & (seen[:, 0] < width) & (seen[:, 1] < height)
    seen = seen[inside, :]
    depth = np.zeros((height, width))
    depth[seen[:, 1].astype(int), seen[:, 0].astype(int)] = seen[:, 2]
    pixels = seen[:, 1] * width + seen[:, 0]
    shared = [pixel for pixel, count in Counter(pixels).items() if count > 1]
    for pixel in shared:
        members = np.where(pixels == pixel)[0]
        depth.flat[int(pixel)] = seen[members, 2].min()
    depth[depth < 0] = 0
    return depth.astype(np.float32), len(shared)


def compare(points_v: np.ndarray, repeats: int) -> tuple[dict[str, float], int, bool]:
    """Return median times [s], how many pixels have several points, and whether maps are equal."""
    with tempfile.TemporaryDirectory() as folder:
        camera = rig.write_calibration(Path(folder), rig.REAL_SIZE)[2]
    scan = points_v, camera.P_px_v, camera.image_size
    cases = {"loop": lambda: loop_over_pixels(*scan), "ours": lambda: depth_map(*scan)}
    expected, shared = loop_over_pixels(*scan)
    equal = np.array_equal(depth_map(*scan), expected)
    return interleaved_medians(cases, repeats), shared, equal


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=120_000, help="points of a scan")
    parser.add_argument("--repeats", type=int, default=15, help="repetitions, medians are shown")
    args = parser.parse_args(argv)
    print(
        f"scans of {args.points} points into {rig.REAL_SIZE[0]}x{rig.REAL_SIZE[1]} pixels, "
        f"median of {args.repeats} interleaved runs"
    )
    print("rays     shared pixels  loop_ms  ours_ms  times faster  limit  maps")
    for rays, jitter_rad in JITTER_RAD.items():
        medians, shared, equal = compare(make_scan(args.points, jitter_rad), args.repeats)
        loop_ms, ours_ms = 1e3 * medians["loop"], 1e3 * medians["ours"]
        print(
            f"{rays:7} {shared:14} {loop_ms:8.2f} {ours_ms:8.2f} {loop_ms / ours_ms:13.1f} "
            f"{LIMIT:6}  {'equal' if equal else 'DIFFERENT'}"
        )


if __name__ == "__main__":
    main()
