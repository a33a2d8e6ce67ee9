"""The picture of all drives: where each image lies, and what its colours say."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from datasets.drives import Drive
from datasets.synthetic.contact_sheet import (
    FAR_M,
    MOST_DRIVES,
    NEAR_M,
    colour_depth,
    contact_sheet,
)
from datasets.text import DataError

DRIVES = [Drive("2011_01_01", "0001"), Drive("2011_01_01", "0002")]
STANDING = 10


@pytest.fixture
def root(tmp_path):
    """Drives that stand for some frames; frame i has the grey 4 i and the depth 5 + i."""
    for drive in DRIVES:
        sync = drive.sync(tmp_path)
        for folder in ("image_02/data", "proj_depth/groundtruth/image_02", "truth"):
            (sync / folder).mkdir(parents=True)
        metres = np.maximum(0, np.arange(50) - STANDING)
        lines = [f"1 0 0 0 0 1 0 0 0 0 1 {z}" for z in metres]
        (sync / "truth" / "poses.txt").write_text("\n".join(lines) + "\n")
        for i in range(50):
            name = f"{i:010d}.png"
            grey = np.full((20, 60, 3), 4 * i, np.uint8)
            cv2.imwrite(str(sync / "image_02" / "data" / name), grey)
            depth = np.full((20, 60), 256 * (5 + i), np.uint16)
            cv2.imwrite(str(sync / "proj_depth/groundtruth/image_02" / name), depth)
    return tmp_path


def sheet(*arguments, **options):
    data = contact_sheet(*arguments, **options)
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_images_stand_above_their_depth_evenly_along_the_way(root):
    columns, width = 3, 600
    picture = sheet(root, DRIVES, columns=columns, width=width)
    assert picture.shape[1] == width
    half = picture[: picture.shape[0] // 3]
    # The middles of thirds of 39 m: frames 10 + 6.5, 10 + 19.5, 10 + 32.5, rounded up.
    for i, frame in enumerate((17, 30, 43)):
        column = half[:, 14 + 40 + i * 190]
        grey = (column == 4 * frame).all(1)
        colour = (column == colour_depth(np.array([5.0 + frame]))[0]).all(1)
        assert grey.sum() > 20 and colour.sum() > 20
        assert np.flatnonzero(grey)[-1] < np.flatnonzero(colour)[0]


def test_it_grows_with_the_drives_and_repeats_itself(root):
    one, two = (sheet(root, DRIVES[:n]) for n in (1, 2))
    assert one.shape[1] == two.shape[1] == 1600
    assert two.shape[0] > 1.5 * one.shape[0]
    assert contact_sheet(root, DRIVES) == contact_sheet(root, DRIVES)


def test_a_drive_that_stands_is_spread_over_time(root):
    poses = DRIVES[0].sync(root) / "truth" / "poses.txt"
    poses.write_text("1 0 0 0 0 1 0 0 0 0 1 0\n" * 50)
    picture = sheet(root, DRIVES[:1], columns=2, width=400)
    assert {tuple(picture[50, x]) for x in (60, 260)} == {(4 * 13,) * 3, (4 * 37,) * 3}


def test_colours_tell_depths_apart_and_nothing_is_dark():
    depth = np.array([0, 1, NEAR_M, 8, 16, 32, 64, FAR_M, 300])
    colours = colour_depth(depth)
    assert colours.shape == (9, 3) and colours.dtype == np.uint8
    assert colours[0].max() < 50
    assert (colours[1] == colours[2]).all() and (colours[-1] == colours[-2]).all()
    assert len({tuple(colour) for colour in colours[2:-1].tolist()}) == 6
    assert colour_depth(np.ones((3, 4))).shape == (3, 4, 3)


def test_what_is_missing_is_named(root):
    sync = DRIVES[0].sync(root)
    poses = sync / "truth" / "poses.txt"
    (sync / "image_02" / "data" / f"{17:010d}.png").unlink()
    with pytest.raises(DataError, match="image_02.data: no image 0000000017"):
        contact_sheet(root, DRIVES[:1], columns=3)
    poses.write_text("1 0 0\n")
    with pytest.raises(DataError, match="poses.txt, line 1: expected 12 numbers, got 3"):
        contact_sheet(root, DRIVES[:1])
    depth = DRIVES[1].sync(root) / "proj_depth/groundtruth/image_02" / f"{17:010d}.png"
    depth.write_bytes(b"x")
    with pytest.raises(DataError, match="0000000017.png: not an image"):
        contact_sheet(root, DRIVES[1:], columns=3)


def test_of_many_drives_some_are_shown_and_the_last_among_them(root):
    many = [*[DRIVES[0]] * 30, Drive("2011_01_01", "0009")]
    with pytest.raises(FileNotFoundError, match="drive_0009"):
        contact_sheet(root, many)
    many[-1], shown = DRIVES[1], [*[DRIVES[0]] * (MOST_DRIVES - 1), DRIVES[1]]
    assert contact_sheet(root, many) == contact_sheet(root, shown)
