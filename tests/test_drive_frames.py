"""A whole drive: its images, stamps, IMU and start, from raw data and from sequences."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from datasets.calibration import read_calibration
from datasets.cameras import DecodedImages
from datasets.images import read_image
from datasets.imu_table import GRAVITY
from datasets.layouts import MissingError
from datasets.matched import read_matched
from datasets.oxts import poses_w_b, read_oxts, read_stamps
from datasets.splits import ODOMETRY, RawRun
from datasets.text import DataError
from evaluation.drive_frames import USUAL_PERIOD_S, Wanted, open_drive
from evaluation.trajectory_files import write_kitti
from tests.image_tree import SIZE as IMAGE_SIZE
from tests.image_tree import make_image_tree, picture, write_sequence
from tests.kitti_tree import DRIVE, Tree, edit_line
from utils import UserError

FRAMES = 8
SIZE = 64, 32
SEQUENCE_DRIVE = "2011_09_30_drive_0016"  # of 04


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    make_image_tree(root, drives=[DRIVE, SEQUENCE_DRIVE], frames=FRAMES)
    return root


@pytest.fixture
def own(made, tmp_path):
    """Return a copy that a test may change, and its first drive."""
    root = tmp_path / "tree"
    shutil.copytree(made, root)
    return root, root / DRIVE[:10] / f"{DRIVE}_sync"


def opened(root, folder=DRIVE, **changes):
    return open_drive(Wanted(root, SIZE, **changes), folder)


def trees_of(root):
    return [Tree(root, name, None, None, None, None) for name in (DRIVE, SEQUENCE_DRIVE)]


def test_a_raw_drive_is_opened_whole(made):
    drive = opened(made)
    assert len(drive) == len(drive.images) == FRAMES
    assert drive.name == drive.short == str(drive.drive) == DRIVE
    assert drive.images[3].shape == (3, 32, 64) and drive.images[3].dtype == torch.uint8
    sync = made / DRIVE[:10] / f"{DRIVE}_sync"
    whole = read_image(sync / "image_02" / "data" / "0000000003.png")
    assert np.array_equal(whole[..., ::-1], picture(32, IMAGE_SIZE))  # image 3 of camera 2
    assert abs(drive.images[3].float().mean() - whole.mean()) < 1
    matched = read_matched(sync)
    assert torch.equal(drive.imu.gyro, torch.from_numpy(matched.padded().gyro))
    assert drive.imu.gyro.dtype == torch.float64 and drive.imu.valid.all()
    assert drive.truth.known.all() and "GPS" in drive.truth.source
    assert (
        drive.first_packet.values.tolist() == read_oxts(sync / "oxts").packets.values[:1].tolist()
    )


def test_a_part_of_a_drive_has_all_of_that_part(made):
    whole, part = opened(made), opened(made, frames=(2, 5))
    assert len(part) == 4 and part.frames == range(2, 6)
    assert torch.equal(part.images[0], whole.images[2])
    assert torch.equal(part.imu.accel, whole.imu.accel[2:5])
    assert_allclose(part.durations_s, whole.durations_s[2:5])
    assert part.stamps_s[0] == 0
    assert_allclose(part.first_packet.stamps_ns - whole.first_packet.stamps_ns, 2 * 10**8)


def test_every_way_to_write_its_name_is_right(made):
    for name in (f"{DRIVE}_sync", f"{DRIVE[:10]}/{DRIVE}_sync"):
        assert opened(made, name).name == DRIVE


def test_an_interval_without_imu_has_its_duration(own):
    root, sync = own
    edit_line(sync / "matched_oxts" / "matched_oxts.txt", 3, "nan")
    drive = opened(root)
    assert drive.imu.valid.tolist() == [i != 2 for i in range(FRAMES - 1)]
    assert_allclose(drive.imu.duration.numpy(), 0.1)


def test_a_stamp_that_is_missing_costs_no_interval(own):
    root, sync = own
    stamps = sync / "image_02" / "timestamps.txt"
    edit_line(stamps, 4, "")
    assert_allclose(opened(root).durations_s, 0.1)
    stamps.unlink()
    assert_allclose(opened(root).durations_s, USUAL_PERIOD_S)


def test_without_imu_it_is_said_why(own):
    root, sync = own
    shutil.rmtree(sync / "matched_oxts")
    drive = opened(root)
    assert "make it with match_kitti_imu.py" in drive.imu
    assert drive.first_packet is not None and drive.T_c_b is not None
    shutil.rmtree(sync / "oxts")
    drive = opened(root)
    assert drive.first_packet is None and isinstance(drive.truth, str)


def test_a_first_interval_without_imu_begins_at_the_synced_packet(own):
    root, sync = own
    edit_line(sync / "matched_oxts" / "matched_oxts.txt", 1, "nan")
    found = opened(root).first_packet.values
    assert_allclose(found[0], read_oxts(sync / "oxts").packets.values[0])
    (sync / "oxts" / "data" / "0000000000.txt").unlink()
    assert opened(root).first_packet is None


def test_sequences_are_cut_from_the_raw_drives(made):
    drive = opened(made, "4")
    assert drive.name == "sequence 04" and drive.short == "04"
    assert str(drive.drive) == SEQUENCE_DRIVE
    assert len(drive) == FRAMES and not isinstance(drive.imu, str)


def test_sequences_of_their_own_tree_have_stamps_and_the_imu_of_the_raw_drive(own):
    root, _ = own
    (tree,) = (t for t in trees_of(root) if t.drive == SEQUENCE_DRIVE)
    sequence = write_sequence(tree, "04", range(FRAMES))
    (sequence / "times.txt").write_text("".join(f"{0.25 * i:.6e}\n" for i in range(FRAMES)))
    drive, raw = opened(root, "04"), opened(root, SEQUENCE_DRIVE)
    assert_allclose(drive.durations_s, 0.25)
    assert torch.equal(drive.imu.gyro, raw.imu.gyro)
    assert_allclose(drive.T_c_b, raw.T_c_b)
    assert torch.equal(drive.images[5], raw.images[5])
    edit_line(sequence / "times.txt", 2, "soon")
    with pytest.raises(DataError, match="times.txt, line 2"):
        opened(root, "04")
    shutil.rmtree(root / tree.date)  # the camera alone
    edit_line(sequence / "times.txt", 2, "0.25")
    drive = opened(root, "04")
    assert isinstance(drive.imu, str) and isinstance(drive.truth, str)
    assert len(drive.images) == FRAMES


@pytest.fixture(params=["raw drives", "sequences", "sequences and poses"])
def offset(request, tmp_path, monkeypatch):
    """Return a tree with a sequence that begins within its drive, at frame 3 and not at 0."""
    monkeypatch.setitem(ODOMETRY, "04", RawRun(SEQUENCE_DRIVE, 3, 9))
    (tree,) = make_image_tree(tmp_path, drives=[SEQUENCE_DRIVE], frames=14)
    if "sequences" in request.param:
        sequence = write_sequence(tree, "04", range(3, 10))
        stamps = read_stamps(tree.sync / "image_02" / "timestamps.txt").ns[3:10]
        times = (stamps - stamps[0]) / 1e9
        (sequence / "times.txt").write_text("".join(f"{t:.9e}\n" for t in times))
    if "poses" in request.param:
        T_b_c0 = np.linalg.inv(read_calibration(tmp_path / tree.date)[0].T_c_b)
        T_w_c0 = poses_w_b(read_oxts(tree.sync / "oxts").packets) @ T_b_c0
        (tmp_path / "poses").mkdir()
        write_kitti(tmp_path / "poses" / "04.txt", T_w_c0[3:10])
    return tmp_path


@pytest.mark.parametrize("part", [None, (2, 5)])
def test_a_sequence_within_its_drive_is_that_part_of_it(part, offset):
    in_drive = (3, 9) if part is None else (part[0] + 3, part[1] + 3)
    raw = opened(offset, SEQUENCE_DRIVE, frames=in_drive)
    cut = opened(offset, "04", frames=part)
    assert cut.name == "sequence 04" and str(cut.drive) == SEQUENCE_DRIVE
    assert len(cut) == len(raw) == (7 if part is None else 4)
    for a, b in zip(raw.images, cut.images, strict=True):
        assert torch.equal(a, b)
    for name in ("dt", "gyro", "accel", "valid"):
        assert torch.equal(getattr(raw.imu, name), getattr(cut.imu, name)), name
    assert_allclose(cut.stamps_s, raw.stamps_s, atol=1e-8)
    assert_allclose(cut.imu.duration, raw.imu.duration, atol=1e-8)
    assert cut.first_packet.stamps_ns.tolist() == raw.first_packet.stamps_ns.tolist()
    assert cut.first_packet.values.tolist() == raw.first_packet.values.tolist()
    assert_allclose(cut.T_c_b, raw.T_c_b, atol=1e-12)
    counted = [np.linalg.inv(d.truth.T_w_c[0]) @ d.truth.T_w_c for d in (raw, cut)]
    assert_allclose(*counted, atol=1e-6)
    assert np.linalg.norm(counted[0][-1, :3, 3]) > 0.1
    assert ("poses" in cut.truth.source) == (offset / "poses").exists()
    # None of it would be found by the numbers of the sequence in the drive.
    wrong = opened(offset, SEQUENCE_DRIVE, frames=part or (0, 6))
    assert not torch.equal(wrong.images[0], cut.images[0])
    assert not torch.equal(wrong.imu.gyro, cut.imu.gyro)


def test_a_sequence_within_its_drive_needs_no_more_of_it(offset):
    sync = offset / SEQUENCE_DRIVE[:10] / f"{SEQUENCE_DRIVE}_sync"
    table = sync / "matched_oxts" / "matched_oxts.txt"
    stamps = sync / "matched_oxts" / "matched_timestamps.txt"
    edit_line(table, 4, "nan")  # of frame 0: its packet is the synced one
    packet = opened(offset, "04").first_packet
    synced = read_oxts(sync / "oxts").packets
    assert packet.values.tolist() == synced.values[3:4].tolist()
    for intervals in (9, 8):
        for path in (table, stamps):
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(lines[:intervals]))
        if intervals == 9:
            assert len(opened(offset, "04").imu.gyro) == 6
            continue
        with pytest.raises(DataError, match="8 intervals, but there are images beyond"):
            opened(offset, "04")
    if not (offset / "sequences").exists():
        image = sync / "image_02" / "data" / "0000000008.png"
        image.unlink()
        with pytest.raises(MissingError, match="0000000008.png: no such image; --frames"):
            opened(offset, "04")


def test_the_imu_is_clipped_as_in_training(made):
    whole = opened(made, imu_clip=math.inf).imu
    clip = 0.2
    assert (whole.gyro.abs() > clip).any() and (whole.gyro.abs() < clip).any()
    cut = opened(made, imu_clip=clip).imu
    assert torch.equal(cut.gyro, whole.gyro.clamp(-clip, clip))
    assert torch.equal(cut.accel, whole.accel.clamp(-clip * GRAVITY, clip * GRAVITY))
    assert not torch.equal(cut.accel, whole.accel) and torch.equal(cut.dt, whole.dt)
    usual = opened(made).imu
    assert torch.equal(usual.gyro, whole.gyro.clamp(-5, 5))


@pytest.mark.parametrize("late", [2, 3, 7])
def test_a_stamp_that_does_not_rise_costs_no_interval(late, own):
    root, sync = own
    path = sync / "image_02" / "timestamps.txt"
    stamps = path.read_text().splitlines()
    edit_line(path, late + 1, stamps[late - 2])  # as two images before
    expected_s = np.full(FRAMES - 1, 0.1)
    expected_s[late:][:1] = 0.3  # by what the stamp is early
    expected_s[late - 1] = np.delete(expected_s, late - 1).mean()
    assert_allclose(opened(root).durations_s, expected_s)


def test_a_hole_in_the_images_is_named_and_can_be_gone_around(own):
    root, sync = own
    (sync / "image_02" / "data" / "0000000003.png").unlink()
    with pytest.raises(MissingError, match=r"0000000003.png: no such image; --frames .*_sync.zip"):
        opened(root)
    assert len(opened(root, frames=(4, 7))) == 4


@pytest.mark.parametrize(
    ("folder", "changes", "message"),
    [
        ("2011_09_26_drive_0099", {}, "no such folder"),
        ("monday", {}, "expected a drive like"),
        ("77", {}, "expected a sequence from 00 to 10, got '77'"),
        (DRIVE, {"frames": (2, 8)}, "--frames 2 8, but there are 0 to 7"),
        (DRIVE, {"frames": (3, 3)}, "a motion is between two"),
        (DRIVE, {"imu_filename": "other.txt"}, "other.txt: no such file"),
        (DRIVE, {"truth": "poses"}, "--truth oxts"),
    ],
)
def test_what_is_wrong_is_said(folder, changes, message, made):
    with pytest.raises((UserError, OSError), match=message):
        opened(made, folder, **changes)


def test_a_single_image_has_no_motion(own):
    root, sync = own
    for path in (sync / "image_02" / "data").glob("*.png"):
        if path.stem != "0000000000":
            path.unlink()
    with pytest.raises(DataError, match="1 image, but a motion is between two"):
        opened(root)
    (sync / "image_02" / "data" / "0000000000.png").unlink()
    with pytest.raises(MissingError, match="no images here"):
        opened(root)


def test_too_few_intervals_are_refused(own):
    root, sync = own
    for name in ("matched_oxts.txt", "matched_timestamps.txt"):
        path = sync / "matched_oxts" / name
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="6 intervals, but there are images beyond the last"):
        opened(root)


def test_images_are_decoded_by_the_datasets_own_reader(made, monkeypatch):
    read = []
    monkeypatch.setattr(DecodedImages, "read", lambda self, number: read.append(number))
    drive = opened(made, frames=(3, 5))
    assert [drive.images[i] for i in range(3)] == [None] * 3
    assert read == [3, 4, 5]
