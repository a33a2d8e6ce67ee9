"""Samples of raw drives: each tensor against the files it comes from, and what cannot be read."""

from __future__ import annotations

import logging
import pickle
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pykitti
import pytest
import torch
from PIL import Image
from pykitti.utils import read_calib_file
from torch.utils.data import DataLoader

from datasets.batch import STEREO
from datasets.kitti import KittiDataset
from datasets.loading import SampleLoader
from datasets.selection import BEYOND, NO_DEPTH, UNREADABLE
from datasets.text import DataError
from tests.image_tree import (
    DRIVES,
    NETWORK_SIZE,
    SINGLE,
    SIZE,
    make_image_tree,
    options_of,
    picture,
    tell_apart,
    write_improved_depth,
    write_list,
    write_single_images,
)
from tests.kitti_tree import DATE, REAL, edit_line

FRAMES, OTHER = 11, 5  # the second drive shows other pictures, by this number
CPU = torch.device("cpu")


def make(root, **kinds):
    trees = make_image_tree(root, frames=FRAMES, **kinds)
    tell_apart(trees[1], OTHER)
    return trees


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Two drives; nothing is changed in them."""
    return make(tmp_path_factory.mktemp("tree"))


@pytest.fixture
def own(tmp_path):
    """Two drives that a test may damage."""
    return make(tmp_path)


def dataset(trees, **changes):
    return KittiDataset(options_of(trees[0].root, **changes), "train")


def samples(data, trees):
    """Yield each sample with its drive, frame and camera."""
    by_drive = {f"{tree.date}/{tree.drive}_sync": tree for tree in trees}
    lines = data.selection.file.read_text().splitlines()
    kept = np.flatnonzero(data.selection.kept).tolist()
    assert len(kept) == len(data)
    for i, place in enumerate(kept):
        folder, frame, side = lines[place].split()
        yield data[i], by_drive[folder], int(frame), {"l": 2, "r": 3}[side]


def by_pillow(trees, tree, frame, camera):
    number = 10 * frame + camera + (OTHER if tree is trees[1] else 0)
    image = Image.fromarray(picture(number)[..., ::-1])
    resized = np.asarray(image.resize(NETWORK_SIZE, Image.Resampling.BILINEAR), int)
    return resized.transpose(2, 0, 1)


def is_picture(image, expected):
    return image.dtype == torch.uint8 and np.abs(image.numpy() - expected).max() <= 1


def interval_in_files(tree, k):
    """Return stamps [ns] and packets of an interval, read without our readers."""
    folder = tree.sync / "matched_oxts"
    stamps = (folder / "matched_timestamps.txt").read_text().splitlines()[k].split(" | ")
    packets = (folder / "matched_oxts.txt").read_text().splitlines()[k].split(" | ")
    stamps_ns = np.array(stamps, "datetime64[ns]").astype(np.int64)
    return stamps_ns, np.array([packet.split() for packet in packets], np.float64)


def test_images_are_those_of_the_drive_the_frame_and_the_camera(trees):
    for sample, tree, frame, camera in samples(dataset(trees, use_stereo=True), trees):
        assert [*sample.image] == [0, -1, 1, STEREO]
        for offset in (0, -1, 1):
            expected = by_pillow(trees, tree, frame + offset, camera)
            assert is_picture(sample.image[offset], expected)
        assert is_picture(sample.image[STEREO], by_pillow(trees, tree, frame, 5 - camera))


def test_a_list_of_one_side_has_stereo_images_of_the_other(own):
    lines = [f"{tree.drive} {i} l" for tree in own for i in (2, 5)]
    write_list(own[0].root / "splits" / "train_files.txt", lines)
    data = dataset(own, use_stereo=True)
    for i, (tree, frame) in enumerate((tree, frame) for tree in own for frame in (2, 5)):
        assert is_picture(data[i].image[STEREO], by_pillow(own, tree, frame, 3))


def test_calibration_is_that_of_the_camera(trees):
    kitti = pykitti.raw(str(trees[0].root), DATE, "0001").calib
    for sample, _, _, camera in samples(dataset(trees, use_stereo=True), trees):
        T_c_v, T_s_v = (getattr(kitti, f"T_cam{c}_velo") for c in (camera, 5 - camera))
        T_s_c0 = sample.T_source_c0[STEREO].numpy()
        np.testing.assert_allclose(T_s_c0 @ T_c_v, T_s_v, atol=1e-5)
        T_c_b = getattr(kitti, f"T_cam{camera}_imu")
        for interval in sample.imu.values():
            np.testing.assert_allclose(interval.T_c_b, T_c_b, atol=1e-6)
        K = getattr(kitti, f"K_cam{camera}")
        centre = (K[:2, 2] + 0.5) * np.divide(NETWORK_SIZE, SIZE) - 0.5
        focal = np.diag(K)[:2] * np.divide(NETWORK_SIZE, SIZE)
        np.testing.assert_allclose(sample.K[[0, 1], 2], centre, rtol=1e-6)
        np.testing.assert_allclose(sample.K.diagonal()[:2], focal, rtol=1e-6)


@pytest.mark.parametrize(
    "frame_ids", [(0, -1, 1), (0, -1, 1, -2, 2), (0, *range(-4, 0), *range(1, 5)), (0, 1), (-1, 0)]
)
def test_the_imu_of_a_window_is_that_of_the_files(trees, frame_ids):
    first, last = min(frame_ids), max(frame_ids)
    data, seen = dataset(trees, frame_ids=frame_ids), 0
    for sample, tree, frame, _ in samples(data, trees):
        assert [*sample.imu] == [*range(first, last)] and [*sample.image] == [*frame_ids]
        for k, interval in sample.imu.items():
            stamps_ns, packets = interval_in_files(tree, frame + k)
            n = len(packets)
            np.testing.assert_allclose(interval.dt[: n - 1], np.diff(stamps_ns) / 1e9, rtol=1e-6)
            assert not interval.dt[n - 1 :].any()
            np.testing.assert_array_equal(interval.gyro[:n], packets[:, 17:20].astype(np.float32))
            np.testing.assert_array_equal(interval.accel[:n], packets[:, 11:14].astype(np.float32))
            assert interval.speed.item() == pytest.approx(np.linalg.norm(packets[0, 8:11]))
            duration = (stamps_ns[-1] - stamps_ns[0]) / 1e9
            assert interval.duration.item() == pytest.approx(duration)
        seen += 1
    inside = [f for f in range(1, FRAMES - 1) if f + first >= 0 and f + last < FRAMES]
    assert seen == 4 * len(inside)
    beyond = 4 * (FRAMES - 2 - len(inside))
    assert data.selection.left_out == ({BEYOND: beyond} if beyond else {})


@pytest.mark.parametrize("frame_ids", [(0,), (0, -2, 2), (0, 3)])
def test_without_imu_any_frames_will_do_and_none_is_read(own, frame_ids):
    for tree in own:
        (tree.sync / "matched_oxts").rename(tree.sync / "gone")
    data = dataset(own, frame_ids=frame_ids, use_imu=False)
    for sample, tree, frame, camera in samples(data, own):
        assert sample.imu == {} and [*sample.image] == [*frame_ids]
        for offset in frame_ids:
            expected = by_pillow(own, tree, frame + offset, camera)
            assert is_picture(sample.image[offset], expected)


def test_a_sample_knows_its_place_and_is_what_was_asked_for(trees):
    data = dataset(trees, use_depth=True)
    for i in (0, len(data) - 1):
        assert (data[i].index.item(), data[i].skipped.item()) == (i, 0)
        assert [*data[i].depth] == [0] and data[i].T_source_c0 == {}
    assert dataset(trees)[0].depth == {}


def by_hand(path, P_px_v, size):
    """Project a scan point by point; the nearest of a pixel stays."""
    depth = np.zeros(size[::-1])
    for x, y, z, _ in np.fromfile(path, np.float32).reshape(-1, 4).astype(np.float64):
        u, v, w = P_px_v @ [x, y, z, 1]
        column, row = round(u / w) - 1, round(v / w) - 1
        if x >= 0 and 0 <= column < size[0] and 0 <= row < size[1]:
            depth[row, column] = min(depth[row, column] or np.inf, w)
    return depth


def test_ground_truth_is_the_scan_of_the_frame_in_the_camera(trees):
    folder = trees[0].root / DATE
    cameras = read_calib_file(folder / "calib_cam_to_cam.txt")
    velodyne = read_calib_file(folder / "calib_velo_to_cam.txt")
    T_cam0_v = np.column_stack([velodyne["R"].reshape(3, 3), velodyne["T"]])
    T_rect_v = np.vstack([cameras["R_rect_00"].reshape(3, 3) @ T_cam0_v, [0, 0, 0, 1]])
    data = dataset(trees, use_depth=True)
    for i, (sample, tree, frame, camera) in enumerate(samples(data, trees)):
        if frame % 4 == 1:
            path = tree.sync / "velodyne_points" / "data" / f"{frame:010d}.bin"
            P = cameras[f"P_rect_0{camera}"].reshape(3, 4)
            expected = by_hand(path, P @ T_rect_v, SIZE)
            assert (expected > 0).sum() > 100
            np.testing.assert_allclose(data.depth(i), expected, rtol=1e-6)
            np.testing.assert_array_equal(sample.depth[0][0], data.depth(i))


def test_ground_truth_of_smaller_images_is_resized_to_that_of_the_largest(tmp_path):
    small = 100, 30
    make_image_tree(tmp_path, drives=DRIVES[:1])
    make_image_tree(tmp_path, drives=["2011_09_30_drive_0016"], size=small)
    lines = [f"{DRIVES[0]} 2 l", "2011_09_30_drive_0016 2 l"]
    write_list(tmp_path / "splits" / "train_files.txt", lines)
    data = KittiDataset(options_of(tmp_path, use_depth=True), "train")
    assert data.depth(0).shape == SIZE[::-1] and data.depth(1).shape == small[::-1]
    np.testing.assert_array_equal(data[0].depth[0][0], data.depth(0))
    # The pixel that holds the centre of the wanted one, in whole numbers.
    columns, rows = (
        [(2 * i + 1) * have // (2 * want) for i in range(want)]
        for have, want in zip(small, SIZE, strict=True)
    )
    np.testing.assert_array_equal(data[1].depth[0][0], data.depth(1)[np.ix_(rows, columns)])
    (batch,) = SampleLoader(data, 2, range(2), 0, CPU)
    assert batch.depth[0].shape == (2, 1, *SIZE[::-1])


def test_samples_without_a_scan_are_counted(own):
    (own[0].sync / "velodyne_points" / "data" / "0000000004.bin").unlink()
    data = dataset(own, use_depth=True)
    assert data.selection.left_out == {NO_DEPTH: 2}
    assert (0, 4) not in {(own.index(tree), frame) for _, tree, frame, _ in samples(data, own)}
    assert dataset(own).selection.left_out == {}


def test_what_evaluation_needs_is_there_whatever_samples_have(trees):
    data, lines = dataset(trees), (trees[0].root / "splits" / "train_files.txt").read_text()
    assert [data.line(i) for i in range(len(data))] == lines.splitlines()
    with_depth = dataset(trees, use_depth=True)
    for i in (0, len(data) - 1):
        np.testing.assert_array_equal(data.depth(i), with_depth.depth(i))
        assert data.camera(i).mounting.recorded_size == SIZE
        z, x = data.depth(i), data.depth(i, axis="x")  # of the same points, 0.27 m further back
        assert ((z > 0) == (x > 0)).mean() > 0.99 and 0.2 < np.median(x[x > 0] - z[z > 0]) < 0.4
    uncalibrated = dataset(trees, intrinsics="fixed", use_imu=False)
    with pytest.raises(DataError, match="no calibration was read"):
        uncalibrated.depth(0)


def test_a_camera_without_improved_depth_beside_one_that_has_it_is_counted(own):
    for tree in own:
        write_improved_depth(tree.sync, range(FRAMES))
        shutil.rmtree(tree.sync / "proj_depth" / "groundtruth" / "image_03")
    data = dataset(own, dataset="kitti_depth", use_depth=True)
    assert {sample.split()[2] for sample in map(data.line, range(len(data)))} == {"l"}
    assert data.selection.left_out == {NO_DEPTH: len(data)}


def test_a_dataset_ends(trees):
    data = dataset(trees)
    assert len([*zip(data, range(10**4), strict=False)]) == len(data)
    assert torch.equal(data[-1].image[0], data[len(data) - 1].image[0])
    for index in (len(data), -len(data) - 1):
        with pytest.raises(IndexError, match=f"index {index} of {len(data)}"):
            data[index]


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def empty(path):
    path.write_bytes(b"")


def other_size(path):
    cv2.imwrite(str(path), picture(0, (100, 38)))


IMAGE, SCAN = "image_02/data/0000000003", "velodyne_points/data/0000000003.bin"
DEPTH = "proj_depth/groundtruth/image_02/0000000003.png"
BROKEN = {
    "cut JPEG": (cut, f"{IMAGE}.jpg", "{path}: a JPEG image that was cut off", {}),
    "cut PNG": (cut, f"{IMAGE}.png", "{path}: a PNG image that was cut off", {}),
    "empty image": (empty, f"{IMAGE}.png", "{path}: not an image", {}),
    "size": (other_size, f"{IMAGE}.png", "{path}: 100x38 pixels, but", {}),
    "gone": (Path.unlink, f"{IMAGE}.png", "{path}: no such file", {}),
    "scan": (empty, SCAN, "{path}: 0 bytes", {"use_depth": True}),
    "cut scan": (cut, SCAN, "{path}: 7960 bytes", {"use_depth": True}),
    "depth": (cut, DEPTH, "{path}: not a PNG", {"use_depth": True, "dataset": "kitti_depth"}),
}


@pytest.mark.parametrize("damage, name, message, asked", BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_read_is_named_or_its_sample_skipped(
    tmp_path, caplog, damage, name, message, asked
):
    trees = make(tmp_path, extension=Path(name).suffix if "image" in name else ".png")
    if asked.get("dataset"):
        for tree in trees:
            write_improved_depth(tree.sync, range(FRAMES))
    strict, skipping = (dataset(trees, skip_broken=skip, **asked) for skip in (False, True))
    path = trees[0].sync / name
    damage(path)  # only now: what is missing from the beginning is told by the constructor
    begin = 2 * (3 - 1)  # frame 3, left
    text = message.format(path=path)
    with pytest.raises((DataError, FileNotFoundError)) as error:
        strict[begin]
    assert str(error.value).startswith(text) and "\n" not in str(error.value)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            sample = skipping[begin]
    # The scan of a frame is that of both cameras.
    skipped = 2 if name == SCAN else 1
    assert (sample.index.item(), sample.skipped.item()) == (begin + skipped, skipped)
    healthy = skipping[begin + skipped]
    assert torch.equal(sample.image[0], healthy.image[0]) and healthy.skipped.item() == 0
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == skipped  # once for each sample, however often it is asked for
    assert all(text in warning and "\n" not in warning for warning in warnings)


def test_the_last_sample_is_replaced_by_the_first(own):
    data = dataset(own, skip_broken=True)
    cut(own[1].sync / "image_03" / "data" / f"{FRAMES - 1:010d}.png")
    sample = data[len(data) - 1]
    assert (sample.index.item(), sample.skipped.item()) == (0, 1)


def test_when_no_sample_is_left_it_is_an_error_that_says_why(own, caplog):
    data = dataset(own, skip_broken=True)
    for tree in own:
        for path in tree.sync.glob("image_*/data/*.png"):
            cut(path)
    with pytest.raises(DataError, match=r"train_files\.txt: none of its samples can be read$"):
        data[3]
    (own[0].root / DATE / "calib_cam_to_cam.txt").unlink()
    message = rf"train_files\.txt: no sample of it can be used: 36 {UNREADABLE}"
    with pytest.raises(DataError, match=message) as error:
        dataset(own, skip_broken=True)
    assert "\n" not in str(error.value)
    assert "calib_cam_to_cam.txt: no such file" in caplog.text


def test_what_was_left_out_is_logged_once(own, caplog):
    edit_line(own[0].sync / "matched_oxts" / "matched_oxts.txt", 4, "nan")
    with caplog.at_level(logging.INFO):
        data = dataset(own)
        data[0], data[1]
    said = [record.getMessage() for record in caplog.records if "datasets.kitti" == record.name]
    assert said == [str(data.selection)]
    assert "32 of 36 samples can be used" in said[0] and "4 IMU: nan" in said[0]
    assert data.selection.kept.sum() + data.selection.left_out.total() == 36


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_over_a_split_gives_every_sample_once(trees, workers):
    data = dataset(trees, use_stereo=True, use_depth=True)
    batches = [*SampleLoader(data, 8, range(len(data)), workers, CPU)]
    assert [len(batch.index) for batch in batches] == [8, 8, 8, 8, 4]
    assert torch.cat([batch.index for batch in batches]).tolist() == [*range(len(data))]
    for image, expected in zip(batches[4].image[0], range(32, 36), strict=True):
        assert torch.equal(image, data[expected].image[0])


def test_with_a_cache_it_is_sent_small_to_processes_that_are_started_afresh(trees, tmp_path):
    plain, data = dataset(trees), dataset(trees, cache_dir=tmp_path)
    images = [data[i].image[0] for i in range(len(data))]  # opens every cache
    assert all(torch.equal(image, plain[i].image[0]) for i, image in enumerate(images))
    pixels = len(images) * images[0].numel()
    assert len(pickle.dumps(data)) < len(pickle.dumps(plain)) + pixels // 20
    loader = DataLoader(data, None, sampler=[5, 30], num_workers=1, multiprocessing_context="spawn")
    for sample, i in zip(loader, (5, 30), strict=True):
        assert sample.index.item() == i and torch.equal(sample.image[0], images[i])


def test_the_real_calibration_with_images_of_the_real_size(tmp_path):
    if not REAL.exists():
        pytest.skip("the real calibration files are not here")
    trees = make_image_tree(tmp_path, drives=DRIVES[:1], frames=3, size=(1242, 375))
    for path in REAL.glob("calib_*.txt"):
        (tmp_path / DATE / path.name).write_bytes(path.read_bytes())
    asked = {"width": 640, "height": 192, "use_stereo": True, "use_depth": True}
    data = KittiDataset(options_of(tmp_path, **asked), "train")
    kitti = pykitti.raw(str(tmp_path), DATE, "0001").calib
    for sample, _, _, camera in samples(data, trees):
        assert sample.image[0].shape == (3, 192, 640) and sample.depth[0].shape == (1, 375, 1242)
        centre = (getattr(kitti, f"K_cam{camera}")[0, 2] + 0.5) * 640 / 1242 - 0.5
        assert sample.K[0, 2].item() == pytest.approx(centre, rel=1e-6)
        sign = 1 if camera == 3 else -1
        assert sign * sample.T_source_c0[STEREO][0, 3].item() == pytest.approx(0.5327, abs=1e-3)


def test_a_broken_packet_is_clipped(own, caplog):
    path = own[0].sync / "matched_oxts" / "matched_oxts.txt"
    packets = [packet.split() for packet in path.read_text().splitlines()[3].split(" | ")]
    packets[5][13] = "1000000.0"  # az
    edit_line(path, 4, " | ".join(map(" ".join, packets)))
    highest = {}
    for clip in (5.0, 10.0, float("inf")):
        data = dataset(own, imu_clip=clip)
        accel = torch.cat([interval.accel for sample in data for interval in sample.imu.values()])
        highest[clip] = accel.max().item()
    expected = {5.0: 49.05, 10.0: 98.1, float("inf"): 1e6}
    assert highest == pytest.approx(expected)
    assert caplog.text.count("1 IMU packets are beyond") == 2


def test_the_same_data_have_the_same_fingerprint_wherever_they_lie(own, tmp_path):
    asked = {"use_stereo": True, "use_depth": True}
    first = dataset(own, **asked).fingerprint()
    assert re.fullmatch("[0-9a-f]{16}", first)
    shutil.copytree(own[0].root / DATE, tmp_path / "other" / DATE)
    shutil.copytree(own[0].root / "splits", tmp_path / "elsewhere")
    for root, more in (
        (own[0].root, {}),
        (own[0].root, {"cache_dir": tmp_path / "cache", "cache_workers": 1}),
        (own[0].root, {"skip_broken": True, "check_attitude": False, "imu_clip": 50.0}),
        (own[0].root, {"frame_ids": (1, -1, 0), "png": True}),
        (tmp_path / "other", {"split": tmp_path / "elsewhere"}),
    ):
        data = KittiDataset(options_of(root, **asked, **more), "train")
        assert data.fingerprint() == first
    unpickled = pickle.loads(pickle.dumps(data))
    assert unpickled.fingerprint() == first


def test_every_option_that_changes_samples_changes_the_fingerprint(trees):
    changes = [
        {},
        {"frame_ids": (0, 1)},
        {"frame_ids": (0, -1)},
        {"use_stereo": True},
        {"use_depth": True},
        {"use_imu": False},
        {"intrinsics": "fixed"},
        {"intrinsics": "fixed", "use_stereo": True},
        {"width": 96},
        {"height": 64},
        {"imu_clip": 0.5},
    ]
    prints = [dataset(trees, **change).fingerprint() for change in changes]
    assert len({*prints}) == len(changes)


def edit_imu(trees):
    """Change one digit of one angular rate."""
    path = trees[1].sync / "matched_oxts" / "matched_oxts.txt"
    packets = [packet.split() for packet in path.read_text().splitlines()[3].split(" | ")]
    packets[5][17] = repr(float(packets[5][17]) + 1e-5)
    edit_line(path, 4, " | ".join(map(" ".join, packets)))


def shift_stamp(trees):
    path = trees[0].sync / "matched_oxts" / "matched_timestamps.txt"
    line = path.read_text().splitlines()[2]
    first, *others = line.split(" | ")
    later = str(np.datetime64(first) + np.timedelta64(10, "us")).replace("T", " ")
    edit_line(path, 3, " | ".join([later, *others]))


def edit_calibration(name, key, column):
    def edit(trees):
        path = trees[0].root / DATE / f"calib_{name}.txt"
        lines = path.read_text().splitlines()
        (i,) = [i for i, line in enumerate(lines) if line.startswith(f"{key}:")]
        words = lines[i].split()
        words[column] = repr(float(words[column]) + 1e-4)
        edit_line(path, i + 1, " ".join(words))

    return edit


def edit_list(change):
    def edit(trees):
        path = trees[0].root / "splits" / "train_files.txt"
        write_list(path, change(path.read_text().splitlines()))

    return edit


def as_jpg(trees):
    for path in trees[0].sync.glob("image_02/data/*.png"):
        cv2.imwrite(str(path.with_suffix(".jpg")), picture(0))


EDITS = {
    "a digit of the IMU": edit_imu,
    "a stamp": shift_stamp,
    "the focal length": edit_calibration("cam_to_cam", "P_rect_03", 1),
    "where the IMU sits": edit_calibration("imu_to_velo", "T", 1),
    "where the LiDAR sits": edit_calibration("velo_to_cam", "T", 1),
    "one line less": edit_list(lambda lines: lines[1:]),
    "two lines for each other": edit_list(lambda lines: [lines[1], lines[0], *lines[2:]]),
    "a line of the other side": edit_list(lambda lines: [lines[1], *lines[1:]]),
    "JPEG for PNG": as_jpg,
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_every_change_of_the_data_changes_the_fingerprint(own, edit):
    asked = {"use_stereo": True, "use_depth": True}
    before = dataset(own, **asked).fingerprint()
    edit(own)
    assert dataset(own, **asked).fingerprint() != before


@pytest.mark.parametrize(
    "asked, edit",
    [
        ({"use_stereo": True}, edit_calibration("cam_to_cam", "P_rect_03", 4)),  # the baseline
        ({"use_depth": True}, edit_calibration("velo_to_cam", "T", 1)),
    ],
    ids=["stereo", "depth"],
)
def test_what_stereo_and_depth_alone_depend_on_is_in_the_fingerprint_if_they_are_used(
    own, asked, edit
):
    def prints():
        return [dataset(own, use_imu=False, **a).fingerprint() for a in ({}, asked)]

    before = prints()
    edit(own)
    after = prints()
    assert after[0] == before[0] and after[1] != before[1]


def test_a_fault_that_costs_samples_changes_the_fingerprint_as_a_shorter_list_does(own):
    whole = dataset(own).fingerprint()
    edit_line(own[0].sync / "matched_oxts" / "matched_oxts.txt", 1, "nan")
    assert dataset(own).fingerprint() != whole


def test_intrinsics_of_single_images_are_in_the_fingerprint(tmp_path):
    write_single_images(tmp_path / SINGLE, 3)
    write_list(tmp_path / "splits" / "test_files.txt", [f"{SINGLE} {i} l" for i in range(3)])
    asked = options_of(tmp_path, dataset="kitti_test", use_imu=False, frame_ids=(0,))
    before = KittiDataset(asked, "test").fingerprint()
    assert KittiDataset(asked, "test").fingerprint() == before
    path = tmp_path / SINGLE / "intrinsics" / "0000000002.txt"
    path.write_text(path.read_text().replace("72.0", "72.5"))
    assert KittiDataset(asked, "test").fingerprint() != before


def test_a_target_alone_is_that_of_its_sample_and_as_it_was_recorded(trees):
    data = dataset(trees)
    for i in range(0, len(data), 5):
        assert torch.equal(data.target(i), data[i].image[0])
        folder, frame, side = data.line(i).split()
        path = trees[0].root / folder / f"image_0{2 if side == 'l' else 3}" / "data"
        expected = cv2.imread(str(path / f"{int(frame):010d}.png"))[..., ::-1]
        assert np.array_equal(data.recorded(i), expected)


def test_which_target_has_ground_truth_is_known_without_reading_it(own):
    for tree in own:
        write_improved_depth(tree.sync, range(FRAMES))
        shutil.rmtree(tree.sync / "proj_depth" / "groundtruth" / "image_03")
        (tree.sync / "proj_depth" / "groundtruth" / "image_02" / "0000000002.png").write_bytes(b"")
    data = dataset(own, dataset="kitti_depth", use_imu=False, frame_ids=(0,))
    for i in range(len(data)):
        assert data.has_depth(i) == data.line(i).endswith(" l")
    shutil.rmtree(own[0].sync / "proj_depth")
    with pytest.raises(DataError, match="data_depth_annotated.zip brings it"):
        dataset(own, dataset="kitti_depth", use_imu=False, frame_ids=(0,)).has_depth(0)
