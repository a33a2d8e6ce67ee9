"""A camera ready to be read: its calibration against pykitti, its images against Pillow."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pykitti
import pytest
from PIL import Image
from pykitti.utils import read_calib_file

from datasets.cameras import DecodedImages, open_camera, other_side, stereo_motion
from datasets.layouts import LEFT, RIGHT, MissingError, locate
from datasets.text import DataError
from tests.image_tree import (
    DRIVES,
    NETWORK_SIZE,
    SIZE,
    make_image_tree,
    options_of,
    picture,
    write_sequence,
    write_single_images,
)
from tests.kitti_tree import DATE, REAL

SIDES = [LEFT, RIGHT]
SINGLE = "depth_selection/images"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    make_image_tree(root)
    return root


@pytest.fixture(scope="module")
def real_root(tmp_path_factory):
    """A drive with the real calibration of its day, and images of the real size."""
    if not REAL.exists():
        pytest.skip("the real calibration files are not here")
    root = tmp_path_factory.mktemp("real")
    make_image_tree(root, drives=DRIVES[:1], frames=4, size=(1242, 375), extension=".jpg")
    for path in REAL.glob("calib_*.txt"):
        (root / DATE / path.name).write_bytes(path.read_bytes())
    return root


@pytest.fixture(params=["made", "real"])
def any_root(request):
    return request.getfixturevalue("root" if request.param == "made" else "real_root")


def opened(root, camera, **changes):
    options = options_of(root, **changes)
    return open_camera(locate(options.dataset, root, DRIVES[0]), camera, options)


def points_v():
    """Return points ahead in velodyne axes (4, 50), homogeneous [m]."""
    points = np.random.default_rng(0).uniform((5, -6, -1), (40, 6, 2), (50, 3))
    return np.column_stack([points, np.ones(50)]).T


def pixels(projected):
    return projected[:2] / projected[2]


def resized_pixels(recorded, recorded_size):
    """Return where a pixel (2, N) of the recorded image is after resizing, by the area it covers:
    the part of the image to the left of its centre, and above, stays the same."""
    ratio = np.divide(NETWORK_SIZE, recorded_size)[:, None]
    return (recorded + 0.5) * ratio - 0.5


@pytest.mark.parametrize("camera", SIDES)
def test_a_point_is_at_the_pixel_where_resizing_puts_the_one_that_kitti_says(any_root, camera):
    read = opened(any_root, camera)
    kitti = pykitti.raw(str(any_root), DATE, "0001").calib
    points_c = getattr(kitti, f"T_cam{camera}_velo") @ points_v()
    recorded = pixels(getattr(kitti, f"K_cam{camera}") @ points_c[:3])
    expected = resized_pixels(recorded, read.mounting.recorded_size)
    np.testing.assert_allclose(pixels(read.K.numpy() @ points_c[:3]), expected, atol=1e-3)
    assert str(read.K.dtype) == "torch.float32"


@pytest.mark.parametrize("camera", SIDES)
def test_body_and_velodyne_are_where_pykitti_has_them(any_root, camera):
    mounting = opened(any_root, camera).mounting
    kitti = pykitti.raw(str(any_root), DATE, "0001").calib
    np.testing.assert_allclose(mounting.T_c_b, getattr(kitti, f"T_cam{camera}_imu"), atol=1e-6)
    np.testing.assert_allclose(mounting.T_c_v, getattr(kitti, f"T_cam{camera}_velo"), atol=1e-12)


@pytest.mark.parametrize("camera", SIDES)
def test_stereo_takes_a_point_to_where_the_other_camera_sees_it(any_root, camera):
    options, other = options_of(any_root), other_side(camera)
    own_read, other_read = opened(any_root, camera), opened(any_root, other)
    T_s_c0 = stereo_motion(camera, own_read.mounting, other_read.mounting, options).numpy()
    kitti = pykitti.raw(str(any_root), DATE, "0001").calib
    points_c = getattr(kitti, f"T_cam{camera}_velo") @ points_v()
    # P_rect . R_rect . T_velo, as the devkit's readme has it
    cameras = read_calib_file(any_root / DATE / "calib_cam_to_cam.txt")
    in_cam0 = kitti.T_cam0_velo @ points_v()
    recorded = pixels(cameras[f"P_rect_0{other}"].reshape(3, 4) @ in_cam0)
    expected = resized_pixels(recorded, other_read.mounting.recorded_size)
    # K T_c_v leaves out some millimetres along y and z, which are zero in the made files.
    atol = 1e-3 if any_root.name.startswith("tree") else 0.05
    seen = pixels(other_read.K.numpy() @ (T_s_c0 @ points_c)[:3])
    np.testing.assert_allclose(seen, expected, atol=atol)
    sign = -1 if camera == LEFT else 1
    assert 0.5 < sign * T_s_c0[0, 3] < 0.56


@pytest.mark.parametrize("camera, x", [(LEFT, -0.54), (RIGHT, 0.54)])
def test_fixed_intrinsics_and_baseline_are_the_published_ones(root, camera, x):
    options = options_of(root, intrinsics="fixed")
    read = opened(root, camera, intrinsics="fixed")
    width, height = NETWORK_SIZE
    expected = [[0.58 * width, 0, 0.5 * width], [0, 1.92 * height, 0.5 * height], [0, 0, 1]]
    np.testing.assert_allclose(read.K, expected, rtol=1e-6)
    other = opened(root, other_side(camera), intrinsics="fixed")
    T_s_c0 = np.eye(4)
    T_s_c0[0, 3] = x
    motion = stereo_motion(camera, read.mounting, other.mounting, options)
    np.testing.assert_allclose(motion, T_s_c0, rtol=1e-6)


def test_fixed_intrinsics_without_imu_need_no_calibration(root, tmp_path):
    folder = tmp_path / DATE / f"{DRIVES[0]}_sync" / "image_02" / "data"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "0000000000.png"), picture(0, (100, 30)))
    read = opened(tmp_path, LEFT, intrinsics="fixed", use_imu=False)
    assert read.mounting.recorded_size == (100, 30)
    lidar = {"intrinsics": "fixed", "use_imu": False, "use_depth": True}
    for changes in ({}, {"intrinsics": "fixed"}, {"use_imu": False}, lidar):
        with pytest.raises((DataError, FileNotFoundError), match=r"calib_cam_to_cam\.txt"):
            opened(tmp_path, LEFT, **changes)


def test_single_images_have_intrinsics_of_their_own(tmp_path):
    K = write_single_images(tmp_path / SINGLE, 3)
    options = options_of(tmp_path, dataset="kitti_test", use_imu=False, frame_ids=(0,))
    read = open_camera(locate("kitti_test", tmp_path, SINGLE), LEFT, options)
    assert read.K is None
    points_c = np.random.default_rng(0).uniform((-3, -1, 4), (3, 1, 9), (20, 3)).T
    for i in range(3):
        expected = resized_pixels(pixels(K[i] @ points_c), SIZE)
        K_network = read.K_of(i, NETWORK_SIZE).numpy()
        np.testing.assert_allclose(pixels(K_network @ points_c), expected, atol=1e-4)
    with pytest.raises(DataError, match=r"^depth_selection/images: has no camera 3$"):
        open_camera(locate("kitti_test", tmp_path, SINGLE), RIGHT, options)


@pytest.mark.parametrize("text", ["", "1 2 3", "1 0 0 0 1 0 0 0 x", "1 0 0 0 1 0 0 0 nan"])
def test_broken_intrinsics_are_named(tmp_path, text):
    write_single_images(tmp_path / SINGLE, 2)
    path = tmp_path / SINGLE / "intrinsics" / "0000000001.txt"
    path.write_text(text)
    options = options_of(tmp_path, dataset="kitti_test", use_imu=False, frame_ids=(0,))
    read = open_camera(locate("kitti_test", tmp_path, SINGLE), LEFT, options)
    read.K_of(0, NETWORK_SIZE)
    with pytest.raises(DataError, match=r"intrinsics/0000000001\.txt: ") as error:
        read.K_of(1, NETWORK_SIZE)
    assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"intrinsics/0000000001\.txt: no such file"):
        read.K_of(1, NETWORK_SIZE)


def drive_with(root, kinds):
    make_image_tree(root, drives=DRIVES[:1], frames=3)
    folder = root / DATE / f"{DRIVES[0]}_sync" / "image_02" / "data"
    for path in folder.iterdir():
        path.unlink()
    for kind in kinds:
        shift = 0 if kind == ".png" else 100
        for i in range(3):
            cv2.imwrite(str(folder / f"{i:010d}{kind}"), picture(10 * i + shift))
    return folder


@pytest.mark.parametrize("png", [False, True])
@pytest.mark.parametrize("kinds", [(".png",), (".jpg",), (".png", ".jpg")])
def test_images_of_either_kind_are_read_and_png_says_which_where_there_are_both(
    tmp_path, kinds, png
):
    folder = drive_with(tmp_path, kinds)
    kind = kinds[0] if len(kinds) == 1 else ".png" if png else ".jpg"
    read = opened(tmp_path, LEFT, png=png)
    assert (read.images.extension, read.images.numbers.tolist()) == (kind, [0, 1, 2])
    images = DecodedImages(read.images, read.mounting.recorded_size, NETWORK_SIZE)
    with Image.open(folder / f"0000000001{kind}") as image:
        expected = image.resize(NETWORK_SIZE, Image.Resampling.BILINEAR)
    difference = images.read(1).permute(1, 2, 0).numpy().astype(int) - np.asarray(expected, int)
    assert np.abs(difference).max() <= (1 if kind == ".png" else 3)


def test_an_image_of_another_size_than_the_calibration_says_is_refused(tmp_path):
    folder = drive_with(tmp_path, [".png"])
    cv2.imwrite(str(folder / "0000000001.png"), picture(1, (100, 38)))
    read = opened(tmp_path, LEFT)
    images = DecodedImages(read.images, read.mounting.recorded_size, NETWORK_SIZE)
    images.read(0)
    message = r"0000000001\.png: 100x38 pixels, but the images of this drive have 124x38$"
    with pytest.raises(DataError, match=message):
        images.read(1)


def test_the_size_is_that_of_the_first_image_that_can_be_read(root, tmp_path):
    shutil.copytree(root, tmp_path / "tree")
    asked = {"intrinsics": "fixed", "use_imu": False}
    images = sorted((tmp_path / "tree").rglob("image_02/data/*.png"))
    images[0].write_bytes(b"")
    assert opened(tmp_path / "tree", LEFT, **asked).mounting.recorded_size == SIZE
    for image in images:
        image.write_bytes(b"")
    with pytest.raises(DataError, match=f"{images[-1].name}.*not an image"):
        opened(tmp_path / "tree", LEFT, **asked)


def test_a_sequence_without_where_its_scanner_is_says_what_brings_it(tmp_path):
    (tree,) = make_image_tree(tmp_path, drives=["2011_09_30_drive_0016"])
    calib = write_sequence(tree, "04", range(6)) / "calib.txt"
    lines = [line for line in calib.read_text().splitlines() if not line.startswith("Tr")]
    calib.write_text("\n".join(lines))
    options = options_of(tmp_path, dataset="kitti_odom")
    with pytest.raises(MissingError, match="calib.txt: no line `Tr: ...`") as error:
        open_camera(locate("kitti_odom", tmp_path, "04"), LEFT, options)
    assert error.value.archive == "data_odometry_calib.zip"
