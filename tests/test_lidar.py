"""Ground truth of depth, against a loop over pixels as in the usual exports, and scikit-image."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from skimage.transform import resize

from datasets.calibration import read_calibration
from datasets.lidar import depth_map, encode_depth_png, read_depth_png, read_scan, resize_depth
from datasets.synthetic import rig
from datasets.synthetic.recording import DEPTH
from datasets.text import DataError
from tests.kitti_tree import REAL
from tests.plane_world import stand_in
from tests.test_recording import make, recipe

SIZE = 8, 6  # even and small: several points on most pixels, and a border that is never far
# One pixel for a slope of one; the camera is half a metre ahead of the velodyne.
PLAIN_P = np.array([[0, -1.0, 0, 0], [0, 0, -1, 0], [1, 0, 0, -0.5]])


def by_loop(points_v, P_px_v, size, depth, pixel_of):
    """Return the depth map by a loop over pixels with several points.

    `pixel_of` tells by row, column and width which points are on one pixel: see below.
    """
    width, height = size
    points = points_v.copy()
    points[:, 3] = 1
    points = points[points[:, 0] >= 0, :]
    u, v, z = np.dot(P_px_v, points.T).T.T
    with np.errstate(divide="ignore", invalid="ignore"):
        columns, rows = np.round(u / z) - 1, np.round(v / z) - 1
    values = points[:, 0].astype(float) if depth == "x" else z
    result, together = np.zeros((height, width)), {}
    for row, column, value in zip(rows.tolist(), columns.tolist(), values.tolist(), strict=True):
        if 0 <= row < height and 0 <= column < width:
            result[int(row), int(column)] = value
            together.setdefault(pixel_of(row, column, width), []).append((row, column, value))
    for members in together.values():
        row, column, _ = members[0]
        if len(members) > 1:
            result[int(row), int(column)] = min(value for _, _, value in members)
    return np.where(result < 0, 0, result).astype(np.float32)


def true_pixel(row, column, width):
    return row, column


def pixel_of_the_export(row, column, width):
    """Return the same for the last pixel of a row and the first of the next."""
    return row * (width - 1) + column - 1


def random_scan(seed, count=20_000):
    """Return points before and behind, far and so near that some are between the two sensors."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (count, 4)) * [1, 1, 0.4, 1]
    points[:, :3] *= rng.choice([0.5, 2, 20, 80], (count, 1))
    return points.astype(np.float32)


def at_pixels(u, v, z):
    """Return points that PLAIN_P has at these coordinates, exactly if they are short in binary."""
    u, v, z = np.broadcast_arrays(*map(np.float64, (u, v, z)))
    return np.stack([z + 0.5, -u * z, -v * z, 0 * z], -1).reshape(-1, 4).astype(np.float32)


@pytest.fixture(scope="module")
def small_P(tmp_path_factory):
    """KITTI's camera, with images of 62 pixels by 19."""
    return rig.write_calibration(tmp_path_factory.mktemp("rig"), (62, 19))[2].P_px_v


@pytest.mark.parametrize("depth", ["z", "x"])
@pytest.mark.parametrize("seed", range(5))
def test_a_map_is_what_a_loop_over_its_pixels_gives(small_P, seed, depth):
    points = random_scan(seed)
    expected = by_loop(points, small_P, (62, 19), depth, true_pixel)
    assert_array_equal(depth_map(points, small_P, (62, 19), depth), expected)
    assert (expected > 0).mean() > 0.4


@given(st.data())
def test_points_on_edges_of_pixels_and_in_equal_depths_make_no_difference(data):
    halves = st.integers(-2, 20).map(lambda number: number / 2)
    depths = st.sampled_from([-0.5, -0.25, 0.0, 0.5, 1.0, 2.0])
    chosen = data.draw(st.lists(st.tuples(halves, halves, depths), max_size=40))
    points = at_pixels(*np.reshape(chosen, (-1, 3)).T)
    for depth in ("z", "x"):
        expected = by_loop(points, PLAIN_P, SIZE, depth, true_pixel)
        assert_array_equal(depth_map(points, PLAIN_P, SIZE, depth), expected)


def test_a_whole_scan_agrees_to_the_last_bit_with_real_calibration():
    if not REAL.exists():
        pytest.skip("the real calibration files are not here")
    points = random_scan(0, 60_000)
    for camera in read_calibration(REAL).cameras[2:]:
        for depth in ("z", "x"):
            expected = by_loop(points, camera.P_px_v, camera.image_size, depth, true_pixel)
            found = depth_map(points, camera.P_px_v, camera.image_size, depth)
            assert_array_equal(found, expected)
            assert (found > 0).sum() > 1000


@pytest.mark.parametrize("seed", range(3))
def test_away_from_the_border_it_is_the_published_export(small_P, seed):
    points = random_scan(seed)
    theirs = by_loop(points, small_P, (62, 19), "z", pixel_of_the_export)
    ours = depth_map(points, small_P, (62, 19))
    assert_array_equal(ours[:, 1:-1], theirs[:, 1:-1])
    assert (ours[:, [0, -1]] != theirs[:, [0, -1]]).any()


def test_at_the_border_the_export_takes_two_pixels_for_one():
    width, _ = SIZE
    points = at_pixels([width, 1], [3, 4], [5, 2])  # the last pixel of row 2, the first of row 3
    theirs = by_loop(points, PLAIN_P, SIZE, "z", pixel_of_the_export)
    ours = depth_map(points, PLAIN_P, SIZE)
    assert (theirs[2, -1], theirs[3, 0]) == (2, 2)
    assert (ours[2, -1], ours[3, 0]) == (5, 2)


def columns_of(*u, size=SIZE):
    found = depth_map(at_pixels(u, 2, 1), PLAIN_P, size)
    assert not np.delete(found, 1, axis=0).any()
    return np.flatnonzero(found[1]).tolist()


def test_halves_are_rounded_to_even_and_pixels_counted_from_one():
    assert columns_of(1) == [0]
    assert columns_of(1.5) == columns_of(2) == columns_of(2.5) == [1]
    assert columns_of(0.5) == columns_of(0) == []  # the pixel before the first
    assert columns_of(0.75) == [0]
    assert columns_of(8.5) == [7]
    assert columns_of(8.75) == columns_of(9) == []
    assert columns_of(7.5, size=(7, 6)) == []


def test_the_nearest_of_a_pixel_stays_whatever_the_order():
    depths = np.array([4, 2, 8, 2, 16])
    for turn in range(5):
        points = at_pixels(3, 2, np.roll(depths, turn))
        assert depth_map(points, PLAIN_P, SIZE)[1, 2] == 2
        assert depth_map(points, PLAIN_P, SIZE, "x")[1, 2] == 2.5


def test_points_between_velodyne_and_camera_hide_others_and_have_no_depth():
    points = at_pixels(3, 2, [4, -0.25])
    assert_array_equal(depth_map(points, PLAIN_P, SIZE), np.zeros(SIZE[::-1]))
    assert depth_map(points, PLAIN_P, SIZE, "x")[1, 2] == 0.25


def test_points_behind_the_velodyne_are_left_out_and_those_beside_it_are_not():
    front = at_pixels(3, 2, 4)
    beside, behind = at_pixels(3, 2, [-0.5, -0.75])[:, None]
    assert behind[0, 0] < 0 == beside[0, 0]
    for depth, value in (("z", 4), ("x", 4.5)):
        found = depth_map(np.concatenate([front, behind]), PLAIN_P, SIZE, depth)
        assert found[1, 2] == value
        found = depth_map(np.concatenate([front, beside]), PLAIN_P, SIZE, depth)
        assert found[1, 2] == 0


def test_points_without_a_pixel_are_left_out_without_a_word():
    good = at_pixels(3, 2, 4)
    bad = np.float32([[0.5, 0, 0, 0], [0.5, 1, -1, 0], [1, np.nan, 0, 0], [np.nan, 0, 0, 0]])
    endless = np.float32([[np.inf, -1, -1, 0], [1, np.inf, 0, 0], [1, -1, -np.inf, 0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for depth in ("z", "x"):
            found = depth_map(np.concatenate([bad, good, endless]), PLAIN_P, SIZE, depth)
            assert_array_equal(found, depth_map(good, PLAIN_P, SIZE, depth))


def test_no_points_are_no_depth():
    for points in (np.zeros((0, 4), np.float32), -random_scan(0).clip(1)):
        found = depth_map(points, PLAIN_P, SIZE)
        assert found.shape == (6, 8) and found.dtype == np.float32 and not found.any()


def test_the_scan_stays_as_it_was_and_its_reflectance_does_not_count(small_P):
    points = random_scan(0)
    before = points.copy()
    points.flags.writeable = False
    found = depth_map(points, small_P, (62, 19))
    assert_array_equal(points, before)
    before[:, 3] = 7
    assert_array_equal(depth_map(before, small_P, (62, 19)), found)


def test_an_unknown_kind_of_depth_is_refused():
    with pytest.raises(ValueError, match=r"depth: expected one of \('z', 'x'\), got 'y'"):
        depth_map(random_scan(0), PLAIN_P, SIZE, "y")


def test_scan_and_dense_truth_of_a_synthetic_drive_agree(tmp_path, monkeypatch):
    stand_in(monkeypatch)
    sync, calibration, _ = make(tmp_path, recipe(size=(192, 96)), edges=(0, 1))
    camera, name = calibration[2], f"{0:010d}"
    points = read_scan(sync / "velodyne_points" / "data" / f"{name}.bin")
    truth = read_depth_png(sync / DEPTH / f"{name}.png")
    sparse = depth_map(points, camera.P_px_v, camera.image_size)
    # Pixels are counted from 1 in the export: what it has at (0, 0) was seen at (1, 1).
    found, there = sparse[:-1, :-1], truth[1:, 1:]
    both = (found > 0) & (there > 0)
    assert both.sum() > 100
    # A scan has noise, and a point lies up to half a pixel beside the centre.
    error = np.median(np.abs(found[both] / there[both] - 1))
    both = (sparse > 0) & (truth > 0)
    assert error < 0.01
    assert error < 0.5 * np.median(np.abs(sparse[both] / truth[both] - 1))


def test_a_scan_reads_as_it_was_written(tmp_path):
    points = random_scan(0, 7)
    path = tmp_path / "0000000000.bin"
    path.write_bytes(points.astype("<f4").tobytes())
    read = read_scan(path)
    assert_array_equal(read, points)
    assert read.dtype == np.float32


@pytest.mark.parametrize("size", [0, 8, 100, 16 * 7 + 1])
def test_a_broken_scan_is_named(tmp_path, size):
    path = tmp_path / "0000000177.bin"
    path.write_bytes(bytes(size))
    message = rf"0000000177\.bin: {size} bytes, a scan has 16 for each point: fetch it again$"
    with pytest.raises(DataError, match=message):
        read_scan(path)


@pytest.mark.parametrize("read", [read_scan, read_depth_png])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(FileNotFoundError, match=r"0000000178: no such file$"):
        read(tmp_path / "0000000178")


def random_depth(shape):
    units = np.random.default_rng(0).integers(0, 2**16, shape).astype(np.uint16)
    units.flat[:2] = 0, 2**16 - 1
    return units


def encode(image, kind=".png"):
    return cv2.imencode(kind, image)[1].tobytes()


def test_a_depth_map_is_in_metres(tmp_path):
    units = random_depth((9, 13))
    path = tmp_path / "depth.png"
    path.write_bytes(encode(units))
    read = read_depth_png(path)
    assert read.dtype == np.float32
    assert_array_equal(read, units / 256)
    assert read[0, 0] == 0 and read[0, 1] == 256 - 1 / 256


@pytest.mark.parametrize(
    "data, message",
    [
        (encode(np.uint8(random_depth((9, 13)) >> 8)), "an image of mode L, a depth map has 16"),
        (encode(random_depth((9, 13, 3))), "an image of mode RGB, a depth map has 16"),
        (encode(random_depth((9, 13, 4))), "an image of mode RGBA, a depth map has 16"),
        (encode(np.zeros((9, 13), np.uint8), ".jpg"), "not a PNG image that can be read"),
        (b"", r"not a PNG image that can be read \(0 bytes\): fetch it again"),
        (b"version https://git-lfs\n", r"not a PNG image that can be read \(24 bytes\)"),
    ],
)
def test_what_is_not_a_depth_map_is_refused(tmp_path, data, message):
    path = tmp_path / "depth.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"^{path}: {message}[^\n]*$"):
        read_depth_png(path)


def test_a_depth_map_is_whole_or_refused(tmp_path):
    units = random_depth((20, 30))
    whole, path = encode(units), tmp_path / "depth.png"
    rng = np.random.default_rng(0)
    for trial in range(300):
        data = bytearray(whole)
        if trial % 2:
            del data[rng.integers(len(data) - 12) :]  # the mark of the end has 12 bytes
        else:
            data[rng.integers(33, len(data) - 12)] ^= 1 << rng.integers(8)  # after the header
        path.write_bytes(data)
        with pytest.raises(DataError, match="depth.png: not a PNG image that can be read"):
            read_depth_png(path)


sizes = st.tuples(st.integers(1, 60), st.integers(1, 60))


@given(sizes, sizes)
def test_nearest_pixels_are_those_of_scikit_image(size, wanted):
    check_resize(size, wanted)


@pytest.mark.parametrize("size", [(1242, 375), (1216, 352), (96, 2), (4, 4)], ids=str)
@pytest.mark.parametrize("wanted", [(1242, 375), (1226, 370), (640, 192), (374, 49)], ids=str)
def test_nearest_pixels_are_those_of_scikit_image_at_our_sizes(size, wanted):
    check_resize(size, wanted)


def check_resize(size, wanted):
    depth = np.arange(1, size[0] * size[1] + 1, dtype=np.float32).reshape(size[::-1])
    before = depth.copy()
    found = resize_depth(depth, wanted)
    options = dict(order=0, preserve_range=True, mode="constant", anti_aliasing=False)
    assert_array_equal(found, resize(depth, wanted[::-1], **options))
    assert found.dtype == np.float32
    found[:] = -1
    assert_array_equal(depth, before)


def test_a_map_of_the_same_size_stays_the_same():
    depth = random_scan(0)
    assert_array_equal(resize_depth(depth, depth.shape[::-1]), depth)


def test_a_depth_map_survives_its_file_to_half_a_unit_and_is_cut_beyond(tmp_path):
    depth_m = np.random.default_rng(0).uniform(0, 255, (7, 9)).astype(np.float32)
    depth_m[0, :4] = 0, 1 / 600, 300, np.inf  # none, less than half a unit, beyond, beyond
    path = tmp_path / "depth.png"
    path.write_bytes(encode_depth_png(depth_m))
    read = read_depth_png(path)
    assert read[0, :4].tolist() == [0, 0, 65535 / 256, 65535 / 256]
    assert np.abs(read - depth_m)[1:].max() <= 1 / 512
