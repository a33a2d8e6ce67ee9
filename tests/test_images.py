"""Reading images, against Pillow; what is wrong with a file; and what resizing does to K."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from datasets.calibration import read_calibration
from datasets.images import (
    check_size,
    image_size,
    read_image,
    read_resized,
    resize,
    resized_intrinsics,
)
from datasets.text import DataError
from tests.image_tree import SIZE, picture
from tests.kitti_tree import REAL

KINDS = [".png", ".jpg"]


@pytest.fixture
def written(tmp_path):
    def write(extension=".png", number=3, size=SIZE):
        path = tmp_path / f"0000000000{extension}"
        assert cv2.imwrite(str(path), picture(number, size))
        return path

    return write


def by_pillow(path):
    return np.array(Image.open(path).convert("RGB"))


def far(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max()


# Reading


@pytest.mark.parametrize(("extension", "levels"), [(".png", 0), (".jpg", 2)])
def test_an_image_is_what_pillow_reads(written, extension, levels):
    path = written(extension)
    image = read_image(path)
    assert image.dtype == np.uint8 and image.shape == (*SIZE[::-1], 3)
    assert far(image, by_pillow(path)) <= levels


def test_the_first_channel_is_red(tmp_path):
    Image.new("RGB", (4, 2), (200, 100, 50)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, 0].tolist() == [200, 100, 50]
    resized = read_resized(tmp_path / "a.png", (2, 1), (4, 2))
    assert resized[:, 0, 0].tolist() == [200, 100, 50]


def test_an_image_without_colours_has_three_channels_alike(tmp_path):
    gray = picture(1)[..., 0]
    Image.fromarray(gray).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "gray.png"), np.repeat(gray[..., None], 3, axis=2)
    )


def test_the_size_is_width_and_height(written):
    assert image_size(written(size=(31, 17))) == (31, 17)


# What is wrong with a file


@pytest.mark.parametrize("extension", KINDS)
def test_every_image_that_was_cut_off_is_refused(written, extension, capfd):
    path = written(extension, size=(20, 12))
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(DataError) as error:
            read_image(path)
        message = str(error.value)
        assert message.startswith(f"{path}: ") and f"{length} bytes" in message
        assert "\n" not in message
        if length >= 8:  # begins like an image of its kind
            assert f"a {'PNG' if extension == '.png' else 'JPEG'} image that was cut" in message
    assert capfd.readouterr() == ("", "")  # it did not even come to decoding


@pytest.mark.parametrize("extension", KINDS)
def test_some_bytes_after_the_end_do_no_harm(written, extension):
    path = written(extension)
    before = read_image(path)
    path.write_bytes(path.read_bytes() + bytes(16))
    np.testing.assert_array_equal(read_image(path), before)


def test_a_flipped_bit_of_a_png_is_noticed(written):
    path = written()
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 4, 3 * len(data) // 4, len(data) // 40):
        data[place] ^= 4
        path.write_bytes(data)
        with pytest.raises(DataError, match=f"not an image that can be read.*{len(data)} bytes"):
            read_image(path)
        data[place] ^= 4
    path.write_bytes(data)
    np.testing.assert_array_equal(read_image(path), picture(3)[..., ::-1])


@pytest.mark.parametrize("content", [b"", b"Not Found\n", bytes(5000)])
def test_what_is_no_image_is_refused(tmp_path, content):
    path = tmp_path / "0000000000.jpg"
    path.write_bytes(content)
    for read in (read_image, image_size, lambda path: read_resized(path, (32, 32), SIZE)):
        with pytest.raises(DataError) as error:
            read(path)
        assert str(error.value) == f"{path}: not an image that can be read ({len(content)} bytes)"


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "0000000000.png"
    with pytest.raises(FileNotFoundError) as error:
        read_image(path)
    assert str(error.value) == f"{path}: no such file"


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    path = tmp_path / "0000000000.png"
    path.mkdir()
    with pytest.raises(DataError) as error:
        read_image(path)
    assert str(error.value) == f"{path}: a folder, expected an image"


def test_an_error_of_the_disk_names_the_file(tmp_path, monkeypatch):
    def fails(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(OSError, match=r"Input/output error: '.*a\.png'"):
        read_image(tmp_path / "a.png")


def test_an_image_of_another_size_than_its_drive_is_refused(written):
    path = written(size=(60, 20))
    message = f"{path}: 60x20 pixels, but the images of this drive have 124x38"
    with pytest.raises(DataError) as error:
        read_resized(path, (32, 32), SIZE)
    assert str(error.value) == message
    with pytest.raises(DataError):
        check_size(path, (20, 60), (60, 20))
    check_size(path, (60, 20), (60, 20))


# Resizing


@pytest.mark.parametrize(
    "size", [(62, 19), (64, 32), (50, 19), (37, 11), (248, 76), (640, 192), (124, 20), (31, 60)]
)
@pytest.mark.parametrize("texture", ["smooth", "noise"])
def test_resizing_is_that_of_pillow(size, texture):
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (*SIZE[::-1], 3)).astype(np.uint8)
    image = picture(2) if texture == "smooth" else noise
    resized = resize(torch.from_numpy(image), size)
    assert resized.dtype == torch.uint8 and resized.shape == (3, *size[::-1])
    expected = np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    assert far(resized.permute(1, 2, 0).numpy(), expected) <= 1


def test_resizing_to_the_same_size_changes_nothing():
    image = torch.from_numpy(picture(2))
    assert torch.equal(resize(image, SIZE), image.permute(2, 0, 1))


@pytest.mark.parametrize("extension", KINDS)
def test_reading_at_a_size_is_reading_then_resizing(written, extension):
    path = written(extension)
    expected = resize(torch.from_numpy(read_image(path)), (64, 32))
    got = read_resized(path, (64, 32), SIZE)
    assert torch.equal(got, expected) and got.is_contiguous()


# Intrinsics

K = np.array([[721.5377, 0, 609.5593], [0, 650.25, 172.854], [0, 0, 1]])


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_a_pixel_of_the_resized_image_shows_what_its_intrinsics_say(axis, ratio):
    recorded, size = (64, 32), (64 // ratio, 32 // ratio)
    u, v = np.meshgrid(np.arange(64.0), np.arange(32.0))
    ramp = (u, v)[axis]  # its value is the coordinate itself
    areas = cv2.resize(ramp, size, interpolation=cv2.INTER_AREA)
    u, v = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    pixels = np.stack([u, v, np.ones_like(u)], -1)  # (H, W, 3)
    rays = pixels @ np.linalg.inv(resized_intrinsics(K, recorded, size)).T
    np.testing.assert_allclose((rays @ K.T)[..., axis], areas, atol=1e-9)


def test_an_image_is_resized_as_its_intrinsics_say():
    u = torch.arange(0, 240, 2, dtype=torch.uint8)  # (120,) two levels a pixel
    image = u[None, :, None].expand(30, -1, 3).contiguous()
    columns = resize(image, (40, 10))[0, 5].double() / 2  # where each column was
    scale = resized_intrinsics(np.eye(3), (120, 30), (40, 10))
    expected = (torch.arange(40.0, dtype=torch.float64) - scale[0, 2]) / scale[0, 0]
    inner = slice(1, -1)  # at a border the weights reach beyond the image
    torch.testing.assert_close(columns[inner], expected[inner], atol=0.3, rtol=0)


def test_resizing_twice_is_resizing_once():
    a, b, c = (1242, 375), (800, 96), (640, 192)
    twice = resized_intrinsics(resized_intrinsics(K, a, b), b, c)
    np.testing.assert_allclose(twice, resized_intrinsics(K, a, c), atol=1e-9)
    np.testing.assert_array_equal(resized_intrinsics(K, a, a), K)


def test_the_corners_of_the_image_keep_their_rays():
    recorded, size = (1242, 375), (640, 192)
    resized = resized_intrinsics(K, recorded, size)
    for x, y in ((0, 0), (0, 1), (1, 0), (1, 1)):  # in widths and heights
        before = np.array([x * recorded[0] - 0.5, y * recorded[1] - 0.5, 1])
        after = np.array([x * size[0] - 0.5, y * size[1] - 0.5, 1])
        ray, resized_ray = np.linalg.solve(K, before), np.linalg.solve(resized, after)
        np.testing.assert_allclose(resized_ray, ray, atol=1e-12)


@pytest.mark.skipif(not REAL.exists(), reason="the real calibration files are not here")
def test_real_intrinsics_at_the_size_of_the_network():
    camera = read_calibration(REAL)[2]
    resized = resized_intrinsics(camera.K, camera.image_size, (640, 192))
    expected = [721.5377 * 640 / 1242, (609.5593 + 0.5) * 640 / 1242 - 0.5]
    np.testing.assert_allclose(resized[0, [0, 2]], expected)
    expected = [721.5377 * 192 / 375, (172.854 + 0.5) * 192 / 375 - 0.5]
    np.testing.assert_allclose(resized[1, [1, 2]], expected)


@pytest.mark.parametrize("header", ["PNG", "JPEG"])
def test_a_header_that_promises_too_many_pixels_is_an_error(tmp_path, header):
    path = tmp_path / "a.png"
    image = np.zeros((8, 8, 3), np.uint8)
    data = bytearray(cv2.imencode(".png" if header == "PNG" else ".jpg", image)[1].tobytes())
    if header == "PNG":
        data[16:24] = struct.pack(">II", 100_000, 100_000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    else:
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
    path.write_bytes(data)
    with pytest.raises(DataError, match="a.png: not an image that can be read"):
        read_image(path)


@pytest.mark.parametrize("progressive", [False, True])
def test_what_a_phone_puts_behind_a_photograph_does_no_harm(progressive, tmp_path):
    """A moving picture of hundreds of kilobytes, say; and its small copy inside is no end."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    inside = io.BytesIO()
    Image.fromarray(pixels[::4, ::4].copy()).save(inside, "JPEG")
    whole = io.BytesIO()
    exif = b"Exif\0\0" + inside.getvalue()
    Image.fromarray(pixels).save(whole, "JPEG", progressive=progressive, exif=exif)
    path = tmp_path / "photo.jpg"
    path.write_bytes(whole.getvalue())
    alone = read_image(path)
    path.write_bytes(whole.getvalue() + bytes(range(256)) * 100)
    assert np.array_equal(read_image(path), alone)
    for length in range(len(exif) + 100, len(whole.getvalue()) - 1, 97):
        path.write_bytes(whole.getvalue()[:length])
        with pytest.raises(DataError, match="cut off"):
            read_image(path)
