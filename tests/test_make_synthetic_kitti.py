"""The command, end to end: real worlds, read by our own readers and by pykitti's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pykitti
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import make_synthetic_kitti
import match_kitti_imu
import options
from datasets.calibration import CAMERAS, read_calibration
from datasets.synthetic.recording import DATE, Recipe
from datasets.synthetic.writer import SyntheticOptions, parse_size

ROOT = Path(__file__).parent.parent
FRAMES, SIZE = 14, (96, 32)
OPTIONS = ["--drives", "1", "--frames", str(FRAMES), "--size", "96x32", "--seed", "3"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A short drive, which no test may change."""
    out = tmp_path_factory.mktemp("synthetic")
    assert make_synthetic_kitti.main(["--out", str(out), *OPTIONS, "--workers", "1"]) == 0
    return out


@pytest.fixture
def sync(made):
    return made / DATE / f"{DATE}_drive_0001_sync"


def tree(folder):
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


def test_pykitti_reads_the_calibration_as_we_do(made):
    theirs, ours = pykitti.raw(str(made), DATE, "0001").calib, read_calibration(made / DATE)
    for camera in CAMERAS:
        assert_array_equal(getattr(theirs, f"K_cam{camera}"), ours[camera].K)
        assert_allclose(getattr(theirs, f"T_cam{camera}_velo"), ours[camera].T_c_v, atol=1e-14)
        assert_allclose(getattr(theirs, f"T_cam{camera}_imu"), ours[camera].T_c_b, atol=1e-14)
    assert theirs.b_rgb == pytest.approx(0.532725, abs=1e-5)


def test_the_poses_that_pykitti_finds_are_the_truth(made):
    recipe = Recipe(seed=3, number=1, frames=FRAMES, size=SIZE)
    clock, trajectory = recipe.clock(), recipe.trajectory()
    T_w_b = trajectory.at(clock.seconds(clock.raw_ns[clock.twins])).T_w_b
    T_w_b[:, :3, 3] -= T_w_b[0, :3, 3]
    drive = pykitti.raw(str(made), DATE, "0001")
    assert_allclose(np.stack([oxts.T_w_imu for oxts in drive.oxts]), T_w_b, atol=1e-7)
    # Theirs are of microseconds.
    seconds = [(stamp - drive.timestamps[0]).total_seconds() for stamp in drive.timestamps]
    expected = (clock.raw_ns[clock.twins] - clock.raw_ns[clock.twins[0]]) / 1e9
    assert_allclose(seconds, expected, atol=2e-6)


def test_pykitti_reads_images_and_scans(made):
    drive = pykitti.raw(str(made), DATE, "0001")
    assert len(drive) == len(drive.cam2_files) == len(drive.velo_files) == FRAMES
    left, right = drive.get_rgb(FRAMES - 1)
    assert left.size == right.size == SIZE and left.mode == "RGB"
    assert np.asarray(left).std() > 10 and (np.asarray(left) != np.asarray(right)).any()
    scan = drive.get_velo(3)
    assert len(scan) > 50_000 and scan.dtype == np.float32
    assert np.linalg.norm(scan[:, :3], axis=1).max() < 120.1
    assert scan[:, 3].min() >= 0 and scan[:, 3].max() <= 1


def test_scans_and_depth_are_of_the_same_world(made, sync):
    camera = read_calibration(made / DATE)[2]
    near = []
    for frame in (2, FRAMES - 1):
        scan = np.fromfile(sync / "velodyne_points" / "data" / f"{frame:010d}.bin", "<f4")
        points = scan.reshape(-1, 4)[:, :3] @ camera.T_c_v[:3, :3].T + camera.T_c_v[:3, 3]
        points = points[points[:, 2] > 2] @ camera.K.T
        u, v = np.rint(points[:, :2] / points[:, 2:]).astype(int).T
        inside = (u >= 0) & (u < SIZE[0]) & (v >= 0) & (v < SIZE[1])
        path = sync / "proj_depth" / "groundtruth" / "image_02" / f"{frame:010d}.png"
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) / 256
        seen = depth[v[inside], u[inside]]
        near.append(np.abs(seen / points[inside, 2] - 1)[seen > 0])
    # A pixel of these small images is wide: depth changes within it.
    assert np.median(np.concatenate(near)) < 0.02


def test_all_intervals_can_be_matched(made, capsys):
    paths = ["--raw_path", str(made), "--sync_path", str(made)]
    assert match_kitti_imu.main([*paths, "--check"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"1 drive: 1 checked; {FRAMES - 1} of {FRAMES - 1} intervals valid"


def test_more_workers_make_the_same_bytes(made, tmp_path):
    # Two for one drive: it is made in two blocks, each by a process of its own.
    assert make_synthetic_kitti.main(["--out", str(tmp_path), *OPTIONS, "--workers", "2"]) == 0
    assert tree(tmp_path) == tree(made)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--size", "big"], "size: expected WIDTHxHEIGHT like 1242x375, got 'big'"),
        (["--frames", "2"], "frames: expected a number from 3 to 100000, got 2"),
        (["--imu_noise", "nan"], "imu_noise: expected a number from 0 to 100, got nan"),
        (["--workers", "0"], "workers: expected at least 1, got 0"),
    ],
)
def test_a_mistake_ends_in_one_line(tmp_path, capsys, given, message):
    code = make_synthetic_kitti.main(["--out", str(tmp_path / "out"), *given])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert captured.err == f"make_synthetic_kitti: {message}\n"
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_name_is_refused(capsys):
    with pytest.raises(SystemExit) as refused:
        make_synthetic_kitti.main(["--out", ""])
    assert refused.value.code == 2
    assert "argument --out: expected a folder, got ''" in capsys.readouterr().err


def test_drives_that_are_there_are_refused_before_anything_is_made(made, capsys):
    before = tree(made)
    assert make_synthetic_kitti.main(["--out", str(made), *OPTIONS]) == 2
    error = capsys.readouterr().err
    assert "--overwrite replaces all drives" in error and error.count("\n") == 1
    assert tree(made) == before


def test_the_defaults_are_those_of_the_function_behind():
    args = options.make_synthetic_kitti(["--out", "x"])
    given = SyntheticOptions(**{**vars(args), "size": parse_size(args.size)})
    assert given == SyntheticOptions(Path("x"))


def test_it_runs_from_its_folder_and_says_what_comes_next(tmp_path):
    command = [sys.executable, "make_synthetic_kitti.py", "--out", str(tmp_path / "a b")]
    command += ["--drives", "1", "--frames", "3", "--size", "48x16"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].endswith("1 drive, 3 stereo frames")
    assert "nothing is held out for tests: that takes 2 drives or more" in done.stdout
    assert "nothing is held out for validation: that takes 6 frames or more" in done.stdout
    folder = f"'{tmp_path / 'a b'}'"
    assert lines[-1].endswith(f"match_kitti_imu.py --raw_path {folder} --sync_path {folder}")
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 2 and again.stderr.count("\n") == 1
