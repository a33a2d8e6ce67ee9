"""One drive: its files are KITTI's, and its images, scans, poses and depths are of one world."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from datasets.oxts import FIELDS, format_stamp, read_oxts, read_stamps
from datasets.synthetic import recording, sensors
from datasets.synthetic.recording import DATE, Block, Recipe, write_frames, write_records
from datasets.synthetic.rig import write_calibration
from tests.plane_world import MOVING_PX_PER_S, PLANE_M, stand_in

FRAMES = 20
SIZE = 96, 48


@pytest.fixture(autouse=True)
def _plane_world(monkeypatch):
    stand_in(monkeypatch)


def recipe(**changes):
    return Recipe(**{"seed": 1, "number": 3, "frames": FRAMES, "size": SIZE, **changes})


def make(root, made_of, edges=(0, FRAMES)):
    """Write a drive in blocks between these edges; return its synced folder and the rest."""
    (root / DATE).mkdir(parents=True)
    calibration = write_calibration(root / DATE, made_of.size)
    records = write_records(root, made_of, calibration)
    for first, end in zip(edges, edges[1:], strict=False):
        scans = records.missing_scans
        write_frames(Block(root, made_of, calibration, first, end, scans, root / "tally"))
    return made_of.drive.sync(root), calibration, records


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def tree(folder):
    paths = sorted(folder.rglob("*"))
    return {path.relative_to(folder): path.read_bytes() for path in paths if path.is_file()}


def poses(sync):
    rows = np.loadtxt(sync / "truth" / "poses.txt")
    T = np.tile(np.eye(4), (len(rows), 1, 1))
    T[:, :3] = rows.reshape(-1, 3, 4)
    return T


def test_the_layout_is_that_of_kitti(tmp_path):
    sync, _, _ = make(tmp_path, recipe())
    extract = sync.with_name(sync.name.replace("sync", "extract"))
    raw = len((extract / "oxts" / "timestamps.txt").read_text().splitlines())
    names = [f"{i:010d}" for i in range(FRAMES)]
    expected = {f"image_0{c}/data/{name}.png" for c in (2, 3) for name in names}
    expected |= {f"image_0{c}/timestamps.txt" for c in (2, 3)}
    expected |= {f"velodyne_points/data/{name}.bin" for name in names}
    expected |= {f"velodyne_points/timestamps{end}.txt" for end in ("", "_start", "_end")}
    expected |= {f"proj_depth/groundtruth/image_02/{name}.png" for name in names}
    expected |= {f"truth/moving/image_02/{name}.png" for name in names}
    expected |= {f"oxts/data/{name}.txt" for name in names}
    expected |= {"oxts/timestamps.txt", "oxts/dataformat.txt"}
    expected |= {"truth/poses.txt", "truth/imu_bias.txt"}
    assert {str(path) for path in tree(sync)} == expected
    expected = {f"oxts/data/{i:010d}.txt" for i in range(raw)}
    expected |= {"oxts/timestamps.txt", "oxts/dataformat.txt"}
    assert {str(path) for path in tree(extract)} == expected
    assert (tmp_path / "tally").read_bytes() == b"." * FRAMES


def test_synced_packets_are_raw_ones_to_the_last_digit(tmp_path):
    sync, _, _ = make(tmp_path, recipe(), edges=())
    synced = read_oxts(sync / "oxts", strict=True).packets
    raw = read_oxts(recipe().drive.extract(tmp_path) / "oxts", strict=True).packets
    twins = recipe().clock().twins
    assert synced.texts == raw.select(twins).texts
    assert_array_equal(synced.stamps_ns, raw.stamps_ns[twins])
    lines = (sync / "oxts" / "dataformat.txt").read_text().splitlines()
    assert tuple(line.split(":")[0] for line in lines) == FIELDS


def test_images_share_their_stamps_and_scans_are_around_them(tmp_path):
    sync, _, _ = make(tmp_path, recipe(), edges=())
    left, right = (read_stamps(sync / f"image_0{c}" / "timestamps.txt").ns for c in (2, 3))
    middle, start, end = (
        read_stamps(sync / "velodyne_points" / f"timestamps{suffix}.txt").ns
        for suffix in ("", "_start", "_end")
    )
    assert_array_equal(left, right)
    assert_array_equal(left, middle)
    assert_array_equal([middle - start, end - middle], np.full((2, FRAMES), 50_000_000))


def test_drives_do_not_overlap_in_time():
    clocks = [recipe(number=number, frames=900).clock() for number in (1, 2, 3)]
    for one, next_one in zip(clocks, clocks[1:], strict=False):
        assert one.raw_ns[-1] < next_one.raw_ns[0]
    for seed in range(12):
        clock = recipe(seed=seed, number=1).clock()
        first_ns = min(clock.raw_ns[0], clock.image_ns[0] - recording.SCAN_HALF_NS)
        assert format_stamp(int(first_ns)).startswith("2011-01-01 00:0")


def test_poses_are_the_trajectory_s_and_carry_depth_into_one_world(tmp_path):
    sync, calibration, records = make(tmp_path, recipe())
    T_c0_c = poses(sync)
    assert_allclose(T_c0_c[0], np.eye(4), atol=1e-15)
    clock, trajectory = recipe().clock(), recipe().trajectory()
    T_w_b = trajectory.at(clock.seconds(clock.image_ns)).T_w_b
    T_w_c = T_w_b @ np.linalg.inv(calibration[0].T_c_b)
    assert_allclose(T_w_c[0] @ T_c0_c, T_w_c, atol=1e-11)
    assert records.metres == pytest.approx(
        np.linalg.norm(np.diff(T_w_b[:, :3, 3], axis=0), axis=1).sum()
    )
    K = calibration[2].K
    T_c_c2 = calibration[0].T_c_b @ np.linalg.inv(calibration[2].T_c_b)
    for frame in (0, FRAMES - 1):
        depth = read(sync / recording.DEPTH / f"{frame:010d}.png") / 256
        v, u = np.nonzero(depth)
        z = depth[v, u]
        points_c2 = np.linalg.inv(K) @ np.stack([u * z, v * z, z])
        to_w = T_w_c[0] @ T_c0_c[frame] @ T_c_c2
        height = (to_w[:3, :3] @ points_c2 + to_w[:3, 3:])[2]
        assert len(z) > 100
        # Rounded to 1/512 m along the ray; far down the road that is still less of the height.
        assert_allclose(height, PLANE_M, atol=2e-3)


def test_scans_lie_in_the_same_world_as_the_depth(tmp_path):
    sync, calibration, _ = make(tmp_path, recipe())
    clock, trajectory = recipe().clock(), recipe().trajectory()
    T_w_b = trajectory.at(clock.seconds(clock.image_ns)).T_w_b[-1]
    T_w_v = T_w_b @ np.linalg.inv(calibration[2].T_c_b) @ calibration[2].T_c_v
    scan = np.fromfile(sync / "velodyne_points" / "data" / f"{FRAMES - 1:010d}.bin", "<f4")
    scan = scan.reshape(-1, 4)
    points_w = scan[:, :3] @ T_w_v[:3, :3].T + T_w_v[:3, 3]
    along = np.linalg.norm(scan[:, :3], axis=1)
    misses = (points_w[:, 2] - PLANE_M) / (T_w_v[2, 3] - PLANE_M) * along  # along the ray
    assert len(scan) > 500 and abs(misses.std() - 0.01) < 0.002
    assert_allclose(scan[:, 3], clock.seconds(clock.image_ns)[-1] / 10, rtol=1e-6)  # its time


def test_every_scan_has_noise_of_its_own(tmp_path):
    sync, _, _ = make(tmp_path, recipe(), edges=(1, 3))  # the car still stands
    paths = sorted((sync / "velodyne_points" / "data").iterdir())
    one, two = (np.fromfile(path, "<f4").reshape(-1, 4)[:, :3] for path in paths)
    change = np.linalg.norm(one, axis=1) - np.linalg.norm(two, axis=1)
    assert abs(change.std() - np.sqrt(2) * 0.01) < 0.002


def test_the_left_camera_is_on_the_left(tmp_path):
    sync, calibration, _ = make(tmp_path, recipe())
    baseline = calibration[2].T_c_b[0, 3] - calibration[3].T_c_b[0, 3]
    assert baseline == pytest.approx(0.532725, abs=1e-5)
    left, right = (read(sync / f"image_0{c}" / "data" / f"{5:010d}.png") for c in (2, 3))
    assert (left != right).any()


@pytest.mark.parametrize("changes", [{}, {"faults": True, "illumination": 1.0, "moving_cars": 2}])
def test_blocks_do_not_change_a_byte(tmp_path, changes):
    whole = make(tmp_path / "a", recipe(**changes))[0]
    parts = make(tmp_path / "b", recipe(**changes), edges=(0, 7, 8, FRAMES))[0]
    assert tree(whole.parent) == tree(parts.parent)


def test_the_bias_file_has_what_was_added_besides_white_noise(tmp_path):
    sync, _, _ = make(tmp_path, recipe(), edges=())
    noisy = read_oxts(recipe().drive.extract(tmp_path) / "oxts").packets
    make(tmp_path / "exact", recipe(imu_noise=0.0), edges=())
    exact = read_oxts(recipe().drive.extract(tmp_path / "exact") / "oxts").packets
    bias = np.loadtxt(sync / "truth" / "imu_bias.txt")
    assert bias.shape == (len(noisy), 6)
    added = np.column_stack([noisy.gyro - exact.gyro, noisy.accel - exact.accel])
    white = sensors.draw_imu_errors(recipe().source, len(noisy), 1.0).white
    assert_allclose(added - bias, white, atol=1e-12)
    exact_bias = recipe().drive.sync(tmp_path / "exact") / "truth" / "imu_bias.txt"
    assert not np.loadtxt(exact_bias).any()


def test_what_moves_is_white_in_the_mask(tmp_path):
    sync, _, _ = make(tmp_path, recipe(moving_cars=2))
    mask = read(sync / recording.MOVING / f"{4:010d}.png")
    assert mask.shape == (SIZE[1], SIZE[0]) and set(np.unique(mask)) == {0, 255}
    clock = recipe().clock()
    moved = round(MOVING_PX_PER_S * float(clock.seconds(clock.image_ns)[4]))
    expected = np.isin(np.arange(SIZE[0]), [moved, moved + 1])
    assert moved > 2
    assert_array_equal(mask == 255, np.broadcast_to(expected, mask.shape))


def test_images_keep_their_colours_and_light_changes_them(tmp_path):
    constant = make(tmp_path / "a", recipe(), edges=(5, 6))[0]
    changing = make(tmp_path / "b", recipe(illumination=1.0), edges=(5, 6))[0]
    name = f"image_02/data/{5:010d}.png"
    colours = {tuple(pixel) for pixel in read(constant / name).reshape(-1, 3).tolist()}
    assert colours == {(64, 64, 64), (191, 191, 191), (255, 128, 51)}  # blue first: a blue sky
    assert (read(changing / name) != read(constant / name)).any()
    changed = {p for p, b in tree(changing).items() if b != tree(constant)[p]}
    assert {str(path.parts[0]) for path in changed} == {"image_02", "image_03"}


def test_jpeg_is_nearly_the_same(tmp_path):
    png = make(tmp_path / "a", recipe(size=(192, 96)), edges=(5, 6))[0]
    jpg = make(tmp_path / "b", recipe(size=(192, 96), image_format="jpg"), edges=(5, 6))[0]
    name = f"image_02/data/{5:010d}"
    assert not (jpg / f"{name}.png").exists()
    difference = read(png / f"{name}.png").astype(float) - read(jpg / f"{name}.jpg")
    assert np.abs(difference).mean() < 6


def test_opencv_has_as_many_threads_as_before(tmp_path):
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        make(tmp_path, recipe(), edges=(0, 1))
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_depth_is_rounded_to_a_256th_and_none_where_it_cannot_be_said(tmp_path):
    for folder in (recording.DEPTH, recording.MOVING):
        (tmp_path / folder).mkdir(parents=True)
    depth = np.float32([[0, 1, 1.001, 80.4, 255.99, 255.995, 300]])
    view = recording.View(None, depth, np.zeros((1, 7), bool))
    recording._write_truth(tmp_path, 0, view)
    written = read(tmp_path / recording.DEPTH / f"{0:010d}.png")
    assert written.dtype == np.uint16
    assert_array_equal(written, [[0, 256, 256, 20582, 65533, 0, 0]])


def test_faults_are_in_the_files_and_not_in_the_truth(tmp_path):
    whole = make(tmp_path / "a", recipe(), edges=())[0]
    damaged, _, records = make(tmp_path / "b", recipe(faults=True))
    for name in ("poses.txt", "imu_bias.txt"):
        assert (whole / "truth" / name).read_bytes() == (damaged / "truth" / name).read_bytes()
    report = json.loads((damaged / "truth" / "faults.json").read_text())
    (scan,) = records.missing_scans
    entry = next(entry for entry in report["faults"] if entry["kind"] == "missing_scan")
    assert entry["frames"] == [scan]
    assert not (damaged.parent / entry["files"][0]).exists()
    assert len(list((damaged / "velodyne_points" / "data").iterdir())) == FRAMES - 1
    for path in entry["stamps"]:
        lines = (damaged.parent / path).read_text().split("\n")
        assert [i for i, line in enumerate(lines[:FRAMES]) if not line] == [scan]
    assert len(list((damaged / "image_02" / "data").iterdir())) == FRAMES
