"""Where images come from: every kind of input, its order, its frames, and what is refused."""

from __future__ import annotations

import logging
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from datasets.images import resize
from datasets.text import DataError
from evaluation import media
from evaluation.media import Broken, Frame, ImageFiles, Reading, Video, find_sources, natural_order
from tests.image_tree import picture
from tests.media_files import write_image, write_video
from utils import UserError

SIZE = 64, 32  # of the network's images


def frames_of(source, **asked) -> list[Frame]:
    return [frame for batch in source.batches(Reading(SIZE, **asked)) for frame in batch]


def greys(frames: list[Frame]) -> list[int]:
    """Return i for each frame of `write_video`."""
    return [round(frame.image.float().mean().item() / 20) for frame in frames]


# Which images


def test_a_folder_has_its_images_in_natural_order_and_nothing_else(tmp_path):
    for name in ("b10.png", "b9.JPG", "a.png", ".hidden.png"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    write_image(tmp_path / "deeper" / "c.png")
    (source,) = find_sources([str(tmp_path)])
    assert [path.name for path in source.paths] == ["a.png", "b9.JPG", "b10.png"]


def test_numbers_in_names_count_as_numbers(tmp_path):
    names = ["x2/10.png", "y.png", "x10/2.png", "x2/9.png"]
    ordered = sorted(map(tmp_path.joinpath, names), key=natural_order)
    assert ordered == [tmp_path / name for name in ("x2/9.png", "x2/10.png", "x10/2.png", "y.png")]


def test_inputs_stay_in_their_order_and_images_beside_each_other_are_one_source(tmp_path):
    a, b, c = (write_image(tmp_path / f"{name}.png") for name in "abc")
    video = write_video(tmp_path / "v.mp4")
    first, second, third = find_sources(map(str, [b, a, video, c]))
    assert (first.paths, second.origin, third.paths) == ((b, a), video, (c,))


def test_a_pattern_has_what_it_matches(tmp_path):
    for name in ("x2.png", "x10.png", "y1.png"):
        write_image(tmp_path / name)
    (tmp_path / "x3.txt").write_text("no image")
    (source,) = find_sources([str(tmp_path / "x*")])
    assert [path.name for path in source.paths] == ["x2.png", "x10.png"]


def test_a_name_that_is_there_is_no_pattern_and_no_camera(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "a[1].png")
    write_image(tmp_path / "0" / "b.png")
    (source,) = find_sources(["a[1].png", "0"])
    assert [path.name for path in source.paths] == ["a[1].png", "b.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "INPUT is an empty word"),
        ("nothing", "nothing: no such file or folder"),
        ("no*thing", "no image and no video has such a name"),
        ("empty", "empty: no images in it"),
        ("notes.txt", "notes.txt: its name is neither that of an image"),
        ("text.mp4", "text.mp4: not a video that can be read"),
        ("zero.mp4", "zero.mp4: not a video that can be read"),
        ("cut.mp4", "cut.mp4: not a video that can be read"),
        ("99", "camera 99: cannot be opened"),
    ],
)
def test_what_is_no_input_is_refused_in_one_line(text, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "zero.mp4").touch()
    whole = write_video(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError) as error:
        find_sources([text])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")  # nor does a library write lines of its own


def test_a_video_without_frames_is_refused(tmp_path, monkeypatch):
    class Empty:
        isOpened, grab, release = (lambda *_, value=value: value for value in (True, False, None))

    monkeypatch.setattr(media.cv2, "VideoCapture", lambda *_: Empty())
    with pytest.raises(UserError, match="no frame can be read"):
        Video(tmp_path / "v.mp4")


# Image files


def test_an_image_comes_as_it_is_and_at_the_networks_size(tmp_path):
    path = write_image(tmp_path / "a.png", (124, 38), number=3)
    (frame,) = frames_of(ImageFiles([path]))
    whole = torch.from_numpy(picture(3, (124, 38))[..., ::-1].copy())
    assert frame.name == "a" and torch.equal(frame.image, whole)
    assert torch.equal(frame.resized, resize(whole, SIZE))


def test_an_image_of_the_networks_size_is_not_changed(tmp_path):
    (frame,) = frames_of(ImageFiles([write_image(tmp_path / "a.png", SIZE)]))
    assert torch.equal(frame.resized, frame.image.permute(2, 0, 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_lists_are_in_order_whoever_reads(workers, tmp_path):
    paths = [write_image(tmp_path / f"{i}.png", (20 + i, 10), number=i) for i in range(5)]
    batches = list(ImageFiles(paths).batches(Reading(SIZE, 2, workers)))
    assert [[frame.name for frame in batch] for batch in batches] == [["0", "1"], ["2", "3"], ["4"]]
    assert [frame.image.shape[1] for batch in batches for frame in batch] == [20, 21, 22, 23, 24]


RED = np.array([255, 0, 0])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1", "16 bits"])
def test_every_kind_of_image_becomes_rgb(mode, tmp_path):
    path, red = tmp_path / "a.png", Image.new("RGB", (20, 10), tuple(RED))
    if mode == "16 bits":
        cv2.imwrite(str(path), np.full((10, 20), 200 * 257, np.uint16))
    else:
        red.convert(mode).save(path)
    (frame,) = frames_of(ImageFiles([path]))
    assert frame.image.shape == (10, 20, 3)
    expected = {"L": 76, "LA": 76, "16 bits": 200}.get(mode)
    if mode != "1":  # which is a pattern of dots
        assert abs(frame.image.numpy().astype(int) - (expected or RED)).max() <= 1


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
def test_a_photograph_taken_upright_is_upright(extension, tmp_path):
    pixels = np.zeros((16, 48, 3), np.uint8)
    pixels[:, :16] = RED  # left in the file, which is to be turned clockwise: on top
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"a.{extension}"
    Image.fromarray(pixels).save(path, exif=exif)
    (frame,) = frames_of(ImageFiles([path]))
    assert frame.image.shape == (48, 16, 3)
    assert frame.image[:8, :, 0].min() > 200 and frame.image[24:].max() < 60


def test_an_image_of_one_pixel_is_an_image(tmp_path):
    (frame,) = frames_of(ImageFiles([write_image(tmp_path / "a.png", (1, 1))]))
    assert frame.image.shape == (1, 1, 3)
    assert torch.equal(frame.resized, frame.image.reshape(3, 1, 1).expand(3, SIZE[1], SIZE[0]))


def huge_png() -> bytes:
    """Return a PNG that says it had ten thousand million pixels, in a hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    parts = (b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def broken_files(folder) -> dict[str, str]:
    """Write files that are no images; return what is said of each."""
    (folder / "text.png").write_text("no image")
    (folder / "zero.png").touch()
    (folder / "huge.png").write_bytes(huge_png())
    whole = write_image(folder / "whole.jpg", (200, 100)).read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return {
        "text.png": "not an image that can be read",
        "zero.png": "not an image that can be read",
        "huge.png": "not an image that can be read",
        "cut.jpg": "a JPEG image that was cut off",
        "gone.png": "no such file",
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_ends_the_reading_or_is_passed_over(workers, tmp_path):
    expected = broken_files(tmp_path)
    good = [write_image(tmp_path / f"good{i}.png") for i in range(2)]
    for name, message in expected.items():
        source = ImageFiles([good[0], tmp_path / name, good[1]])
        with pytest.raises(DataError, match=f"{name}: {message}"):
            frames_of(source, workers=workers)
    paths = [good[0], *(tmp_path / name for name in expected), good[1]]
    found = frames_of(ImageFiles(paths), workers=workers, skip_broken=True)
    assert [frame.name for frame in found if isinstance(frame, Frame)] == ["good0", "good1"]
    said = [frame.message for frame in found if isinstance(frame, Broken)]
    for (name, message), line in zip(expected.items(), said, strict=True):
        assert f"{name}: {message}" in line and "\n" not in line


# Videos


def test_a_video_gives_all_frames_in_order(tmp_path):
    video = Video(write_video(tmp_path / "v.mp4", frames=7))
    frames = frames_of(video, batch_size=3)
    assert greys(frames) == list(range(7))
    assert [frame.name for frame in frames] == [f"v_{i:06d}" for i in range(7)]
    assert frames[0].image.shape == (64, 96, 3) and frames[0].resized.shape == (3, 32, 64)
    assert_close(video.fps, 12.5)
    assert not video.is_camera and video.count(Reading(SIZE)) == 7


@pytest.mark.parametrize(
    ("every", "most", "expected"), [(3, None, [0, 3, 6]), (1, 2, [0, 1]), (2, 3, [0, 2, 4])]
)
def test_frames_are_left_out_as_asked(every, most, expected, tmp_path):
    video = Video(write_video(tmp_path / "v.mp4", frames=7))
    asked = {"every": every, "max_frames": most}
    frames = frames_of(video, **asked)
    assert greys(frames) == expected
    assert [frame.name[-6:] for frame in frames] == [f"{i:06d}" for i in expected]
    assert video.count(Reading(SIZE, **asked)) == len(expected)


def test_a_video_is_read_as_it_is_asked_for_and_no_further(tmp_path, monkeypatch):
    video = Video(write_video(tmp_path / "v.mp4", frames=7))
    grabbed, real = [], cv2.VideoCapture

    class Counting:
        def __init__(self, *given):
            self._capture = real(*given)

        def __getattr__(self, name):
            grabbed.extend([name] * (name == "grab"))
            return getattr(self._capture, name)

    monkeypatch.setattr(media.cv2, "VideoCapture", Counting)
    batches = video.batches(Reading(SIZE, batch_size=2))
    next(batches)
    assert len(grabbed) == 2
    next(batches)
    assert len(grabbed) == 4


def test_a_video_that_ends_too_early_is_spoken_of(tmp_path, monkeypatch, caplog):
    video = Video(write_video(tmp_path / "v.mp4", frames=5))
    with caplog.at_level(logging.WARNING):
        frames_of(video, max_frames=2)
        frames_of(video)
    assert not caplog.messages
    video.announced = 8
    with caplog.at_level(logging.WARNING):
        assert len(frames_of(video)) == 5
    assert caplog.messages == [f"{tmp_path / 'v.mp4'}: 5 of 8 frames could be read"]


def test_a_camera_has_its_number_for_a_name_and_no_end(tmp_path, monkeypatch):
    path, real = write_video(tmp_path / "v.mp4", frames=3), cv2.VideoCapture
    monkeypatch.setattr(media.cv2, "VideoCapture", lambda origin, *_: real(str(path)))
    (camera,) = find_sources(["0"])
    assert camera.is_camera and camera.count(Reading(SIZE)) is None
    assert camera.count(Reading(SIZE, max_frames=5)) == 5
    assert [frame.name for frame in frames_of(camera)][:2] == ["camera0_000000", "camera0_000001"]
