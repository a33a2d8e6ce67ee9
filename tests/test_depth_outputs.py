"""Files of depth: exactly these metres, whole or not at all, and nothing lost on the way."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from datasets.lidar import read_depth_png
from evaluation import depth_outputs
from evaluation.colour_map import coloured, nearest_of, side_by_side
from evaluation.depth_outputs import (
    LARGEST_PNG_M,
    SUFFIX_OF,
    Wanted,
    of_size,
    picture_video,
    prepare,
    write_depth,
    write_image,
)
from evaluation.media import Frame, find_sources
from evaluation.point_cloud import Pinhole
from tests.image_tree import picture
from tests.media_files import files_in, read_ply, read_video, write_video
from tests.media_files import write_image as make_image
from utils import UserError

SIZE = 60, 40
PINHOLE = Pinhole.of(50, 55, 29.5, 20)


def frame(name="a", size=SIZE) -> Frame:
    image = torch.from_numpy(picture(0, size))
    return Frame(name, image, image.permute(2, 0, 1))


def plane() -> np.ndarray:
    """Return depths (H, W) [m] that a file of 16 bits can say exactly, 2 to 200."""
    return np.linspace(2 * 256, 200 * 256, SIZE[0] * SIZE[1]).round().reshape(SIZE[::-1]) / 256


def test_every_file_has_exactly_these_metres(tmp_path):
    wanted = Wanted(tmp_path, tuple(SUFFIX_OF), PINHOLE, max_distance_m=100)
    depth = plane()
    inverse = (1 / depth).astype(np.float32)
    write_image(wanted, frame(), inverse)
    assert files_in(tmp_path) == ["a.ply", "a_colour.png", "a_depth.npy", "a_depth.png"]
    assert np.array_equal(read_depth_png(tmp_path / "a_depth.png"), depth)
    array = np.load(tmp_path / "a_depth.npy", allow_pickle=False)
    assert array.dtype == np.float32 and np.array_equal(array, 1 / inverse)
    points, colours = read_ply(tmp_path / "a.ply")
    v, u = np.nonzero(1 / inverse <= 100)
    assert len(points) == len(u) < depth.size
    pixels = np.stack([u, v, np.ones(len(u))], 1)
    assert_allclose(points, pixels @ np.linalg.inv(PINHOLE.K).T * array[v, u, None], rtol=1e-5)
    assert np.array_equal(colours, frame().image.numpy()[v, u])
    shown = cv2.imread(str(tmp_path / "a_colour.png"))[..., ::-1]
    assert np.array_equal(shown, side_by_side(frame().image.numpy(), inverse, nearest_of(inverse)))


def test_only_what_is_wanted_is_written(tmp_path):
    for kind, suffix in SUFFIX_OF.items():
        folder = tmp_path / kind
        folder.mkdir()
        write_image(Wanted(folder, (kind,), PINHOLE), frame(), np.full((40, 60), 0.1, np.float32))
        assert files_in(folder) == [f"a{suffix}"]


def test_depths_beyond_16_bits_become_the_largest_and_none_becomes_no_depth(tmp_path):
    depth = np.array([[1e-4, 1 / 512, 255.99, 256, 1e6]], np.float32)
    write_depth(Wanted(tmp_path, ("png16", "npy")), frame(), 1 / depth)
    got = read_depth_png(tmp_path / "a_depth.png")
    largest = LARGEST_PNG_M
    assert np.array_equal(got, np.float32([[1 / 256, 1 / 256, 255.98828125, largest, largest]]))
    assert_allclose(np.load(tmp_path / "a_depth.npy"), depth, rtol=1e-6)


def test_the_nearest_that_was_asked_for_counts(tmp_path):
    inverse = (1 / plane()).astype(np.float32)
    write_image(Wanted(tmp_path, ("colour",), nearest_m=7), frame(), inverse)
    shown = cv2.imread(str(tmp_path / "a_colour.png"))[..., ::-1]
    assert np.array_equal(shown[:, SIZE[0] :], coloured(inverse, 7))


# The camera


def test_intrinsics_are_of_images_of_one_size():
    wanted = Wanted(None, pinhole=PINHOLE)
    known = of_size(wanted, frame())
    assert known.pinhole.image_size == SIZE and np.array_equal(known.pinhole.K, PINHOLE.K)
    assert of_size(known, frame()) is known
    with pytest.raises(UserError, match="b: 60x41 pixels, but the intrinsics .* 60x40"):
        of_size(known, frame("b", (60, 41)))
    assert of_size(Wanted(None), frame()).pinhole is None


# Videos


def test_a_centre_outside_of_the_image_is_told_but_may_be(caplog):
    """An image that was cut out of another may have it; intrinsics of another size look so too."""
    for centre, told in (((30, 20), 0), ((-1, 20), 1), ((30, 500), 2)):
        of_size(Wanted(None, pinhole=Pinhole.of(50, 50, *centre)), frame())
        assert len(caplog.records) == told
    assert "the centre of the intrinsics is at 30, 500" in caplog.text


def test_a_video_shows_each_image_beside_its_depth(tmp_path):
    path = tmp_path / "v.mp4"
    inverse = np.full((64, 96), 0.1, np.float32)
    with picture_video(path, 12.5) as video:
        for i in range(5):
            video.write(np.full((64, 96, 3), 40 * i, np.uint8), inverse / (i + 1))
        assert not path.exists()
    frames, fps = read_video(path)
    assert len(frames) == 5 and fps == pytest.approx(12.5)
    for i, shown in enumerate(frames):
        assert shown.shape == (64, 192, 3)
        assert abs(shown[:, :90].mean() - 40 * i) < 4
        # One range for all, that of the first frame: what is further away is darker.
        expected = coloured(inverse / (i + 1), 10)
        assert abs(shown[:, 100:].mean((0, 1)) - expected.mean((0, 1))).max() < 12
    assert files_in(tmp_path) == ["v.mp4"]


def test_a_video_of_odd_size_and_one_without_frames(tmp_path):
    with picture_video(tmp_path / "odd.mp4", 10) as video:
        video.write(np.zeros((63, 97, 3), np.uint8), np.ones((63, 97), np.float32))
    assert read_video(tmp_path / "odd.mp4")[0][0].shape == (62, 194, 3)
    with picture_video(tmp_path / "none.mp4", 10):
        pass
    assert files_in(tmp_path) == ["odd.mp4"]


def test_a_video_is_whole_or_not_there(tmp_path, monkeypatch):
    image, inverse = np.zeros((64, 96, 3), np.uint8), np.ones((64, 96), np.float32)
    path = tmp_path / "v.mp4"
    path.write_text("of another time")
    with pytest.raises(KeyboardInterrupt), picture_video(path, 10) as video:
        video.write(image, inverse)
        raise KeyboardInterrupt
    with (
        pytest.raises(UserError, match="change their size"),
        picture_video(path, 10) as video,
    ):
        video.write(image, inverse)
        video.write(image[:32], inverse[:32])
    monkeypatch.setattr(depth_outputs, "_frames_in", lambda path: 0)  # the disk was full
    with (
        pytest.raises(UserError, match="could not be written whole"),
        picture_video(path, 10) as video,
    ):
        video.write(image, inverse)
    assert files_in(tmp_path) == ["v.mp4"] and path.read_text() == "of another time"


def test_a_video_that_cannot_be_written_is_one_line(tmp_path, capfd):
    path = tmp_path / "gone" / "v.mp4"
    with pytest.raises(UserError) as error, picture_video(path, 10) as video:
        video.write(np.zeros((64, 96, 3), np.uint8), np.ones((64, 96), np.float32))
    assert f"{path}: OpenCV cannot write an MP4 of 192x64" in str(error.value)
    assert capfd.readouterr() == ("", "")


# What would be lost


@pytest.fixture
def inputs(tmp_path):
    """Return the paths of an image and of a video."""
    return make_image(tmp_path / "in" / "a.png"), write_video(tmp_path / "in" / "v.mp4")


def test_an_empty_folder_is_made(tmp_path, inputs):
    out = tmp_path / "deep" / "out"
    prepare(Wanted(out), find_sources(map(str, inputs)))
    assert files_in(out) == []


@pytest.mark.parametrize(
    ("there", "kinds"),
    [
        ("a_depth.png", "png16"),
        ("a_depth.npy", "npy"),
        ("a_colour.png", "colour"),
        ("a.ply", "ply"),
        ("v_colour.mp4", "colour"),
        ("v_000003_depth.png", "png16"),
        ("v_1234567_depth.npy", "npy"),
        ("v_000000.ply", "ply"),
    ],
)
def test_a_file_that_is_there_is_replaced_only_if_asked(there, kinds, tmp_path, inputs):
    sources = find_sources(map(str, inputs))
    out = tmp_path / "out"
    out.mkdir()
    (out / there).touch()
    with pytest.raises(UserError, match=f"has {there} already: .*--overwrite"):
        prepare(Wanted(out, (kinds,)), sources)
    prepare(Wanted(out, (kinds,), overwrite=True), sources)
    others = tuple(kind for kind in SUFFIX_OF if kind != kinds)
    prepare(Wanted(out, others), sources)  # they do not write it


@pytest.mark.parametrize(
    "there", ["b_depth.png", "a_depth.jpg", "xa_depth.png", "v_depth.png", "v_12_depth.png", "a"]
)
def test_files_of_other_names_are_in_nobodys_way(there, tmp_path, inputs):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / there).touch()
    for overwrite in (False, True):  # neither refused for it nor removed
        wanted = Wanted(tmp_path / "out", tuple(SUFFIX_OF), overwrite=overwrite)
        prepare(wanted, find_sources(map(str, inputs)))
        assert [path.name for path in (tmp_path / "out").iterdir()] == [there]


@pytest.mark.parametrize(
    "names",
    [("x/a.png", "y/a.png"), ("x/a.png", "x/a.jpg"), ("x/v.mp4", "y/v.avi"), ("v_000001.png",)],
)
def test_two_inputs_of_one_name_are_refused(names, tmp_path):
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        write_video(path) if path.suffix in (".mp4", ".avi") else make_image(path)
    if len(paths) == 1:
        paths.append(write_video(tmp_path / "v.mp4"))
    with pytest.raises(UserError, match="would have one name") as error:
        prepare(Wanted(tmp_path / "out"), find_sources(map(str, paths)))
    assert all(str(path) in str(error.value) for path in paths)
    assert not (tmp_path / "out").exists()


def test_an_input_given_twice_is_refused(inputs, tmp_path):
    with pytest.raises(UserError, match="would have one name"):
        prepare(Wanted(tmp_path / "out"), find_sources([str(inputs[0])] * 2))


def test_an_input_is_never_overwritten(tmp_path):
    first, second = make_image(tmp_path / "a.png"), make_image(tmp_path / "out" / "a_depth.png")
    sources = find_sources(map(str, [first, second]))
    with pytest.raises(UserError, match="a_depth.png: an input would be overwritten"):
        prepare(Wanted(tmp_path / "out", overwrite=True), sources)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path, inputs):
    (tmp_path / "out").touch()
    with pytest.raises(OSError) as error:
        prepare(Wanted(tmp_path / "out"), find_sources(map(str, inputs)))
    assert error.value.filename == str(tmp_path / "out")
