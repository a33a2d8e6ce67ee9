"""Make3D's test set: which files are a pair, which part of them counts, what broken ones say."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from datasets import make3d
from datasets.make3d import Make3dPair, find_test_images, read_depth, read_image
from datasets.text import DataError

NAMES = ("math7-p-282t0", "10.21op2-p-015t000", "combined1-p-251t0")


def grid():
    """Return laser points whose every number is another one: 1000 channel + row + column / 512."""
    rows, columns = np.arange(55)[:, None, None], np.arange(305)[None, :, None] / 512
    return 1000 * np.arange(4.0) + rows + columns


def photograph(width, height):
    """Return an image that says in red how far down a row is, and in blue how far right."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, height).round()[:, None]
    image[..., 2] = np.linspace(0, 255, width).round()[None, :]
    return image


def make_pair(root, name, images="Test134", depths="Gridlaserdata", size=(30, 40)):
    for folder in (images, depths):
        (root / folder).mkdir(parents=True, exist_ok=True)
    pair = Make3dPair(
        name, root / images / f"img-{name}.jpg", root / depths / f"depth_sph_corr-{name}.mat"
    )
    Image.fromarray(photograph(*size)).save(pair.image, quality=98, subsampling=0)
    savemat(pair.depth, {"Position3DGrid": grid()})
    return pair


@pytest.fixture
def pair(tmp_path):
    return make_pair(tmp_path, NAMES[0])


@pytest.mark.parametrize(
    "images, depths", [("Test134", "Gridlaserdata"), ("", ""), ("", "Gridlaserdata")]
)
def test_pairs_are_found_in_the_usual_places_by_name(tmp_path, images, depths):
    pairs = [make_pair(tmp_path, name, images, depths) for name in NAMES]
    (tmp_path / images / "._img-math7-p-282t0.jpg").write_bytes(b"of a Mac")
    (tmp_path / images / "img-list.txt").write_text("")
    (tmp_path / depths / "depth_sph_corr-without-image.mat").write_bytes(b"")
    assert find_test_images(tmp_path) == [pairs[1], pairs[2], pairs[0]]


def test_another_number_of_images_is_said(tmp_path, caplog, monkeypatch):
    for name in NAMES:
        make_pair(tmp_path, name)
    find_test_images(tmp_path)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"{tmp_path}: 3 test images, but Make3D has 134" in caplog.text
    caplog.clear()
    monkeypatch.setattr(make3d, "COUNT", 3)
    find_test_images(tmp_path)
    assert not caplog.records


def test_an_image_without_its_depth_is_named(tmp_path, pair):
    make_pair(tmp_path, NAMES[1]).depth.unlink()
    message = rf"no depth_sph_corr-{NAMES[1]}\.mat, the depth of img-{NAMES[1]}\.jpg, in .*Gridlas"
    with pytest.raises(DataError, match=message):
        find_test_images(tmp_path)


@pytest.mark.parametrize("there", [True, False])
def test_without_images_it_says_what_to_fetch_and_where_it_looked(tmp_path, pair, there):
    pair.image.unlink()
    root = tmp_path if there else tmp_path / "absent"
    with pytest.raises(DataError) as error:
        find_test_images(root)
    text = str(error.value)
    for part in (str(root), "Test134.tar.gz", "Test134Depth.tar.gz", "http://make3d", "Gridlaser"):
        assert part in text
    assert "\n" not in text


@pytest.mark.parametrize("width, height, top", [(1704, 2272, 710), (30, 40, 12), (31, 40, 12)])
def test_the_middle_of_an_image_is_half_as_high_as_wide(tmp_path, width, height, top):
    image = read_image(make_pair(tmp_path, NAMES[0], size=(width, height)))
    assert (image.shape, image.dtype) == ((width // 2, width, 3), np.uint8)
    assert image.flags.c_contiguous
    expected = photograph(width, height).astype(int)
    error = {  # of JPEG, if it is this row that the band begins with; of the one before, or behind
        row: np.abs(image - expected[row : row + width // 2]).mean()
        for row in range(top - 1, top + 2)
    }
    assert min(error, key=error.get) == top and error[top] < 1


def test_the_bands_of_image_and_depth_are_the_same_part_of_the_scene():
    rows = np.arange(55)[make3d.GRID_ROWS]
    assert len(rows) == 21 and rows[0] + rows[-1] == 54
    assert len(rows) / 55 == pytest.approx(852 / 2272, abs=0.5 / 55)


def test_depths_are_the_last_channel_of_the_middle_rows(pair):
    depth = read_depth(pair)
    assert (depth.shape, depth.dtype) == ((21, 305), np.float32)
    rows, columns = np.meshgrid(np.arange(17, 38), np.arange(305) / 512, indexing="ij")
    np.testing.assert_array_equal(depth, (3000 + rows + columns).astype(np.float32))


def test_whole_numbers_are_depths_too(pair):
    savemat(pair.depth, {"Position3DGrid": grid().astype(np.int32)})
    assert read_depth(pair)[0, 0] == 3017


@pytest.mark.parametrize(
    "variables, message",
    [
        ({"Position3D": grid()}, "no Position3DGrid in it"),
        ({"Position3DGrid": grid()[:, :, :3]}, r"is float64 \(55, 305, 3\), expected numbers \(55"),
        ({"Position3DGrid": grid().transpose(1, 0, 2)}, r"\(305, 55, 4\), expected"),
        ({"Position3DGrid": grid() * 1j}, "is complex128"),
        ({"Position3DGrid": np.ones((2, 2), object)}, "is object"),
        ({"Position3DGrid": "far"}, r"is <U3 \(1,\), expected numbers"),
    ],
)
def test_a_file_with_something_else_is_named(pair, variables, message):
    savemat(pair.depth, variables)
    with pytest.raises(DataError, match=rf"{pair.depth.name}: .*{message}"):
        read_depth(pair)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_grid_that_was_cut_off_is_never_read_in_part(pair, compressed):
    savemat(pair.depth, {"Position3DGrid": grid()}, do_compression=compressed)
    whole = pair.depth.read_bytes()
    for length in (0, 1, 100, 128, 140, 200, len(whole) // 2, len(whole) - 9):
        pair.depth.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"depth_sph_corr-.*\.mat: ") as error:
            read_depth(pair)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"<html>not found</html>" * 20, b"\x89HDF\r\n\x1a\n" * 99])
def test_what_is_no_mat_file_is_named(pair, content):
    pair.depth.write_bytes(content)
    with pytest.raises(DataError, match=rf"{pair.depth.name}: not a \.mat file that can be read"):
        read_depth(pair)


def test_an_image_that_was_cut_off_or_lies_on_its_side_is_named(tmp_path, pair):
    pair.image.write_bytes(pair.image.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"{pair.image.name}: a JPEG image that was cut off"):
        read_image(pair)
    lying = make_pair(tmp_path, NAMES[1], size=(40, 30))
    with pytest.raises(DataError, match=rf"{lying.image.name}: 40x30 pixels, expected an upright"):
        read_image(lying)


def test_missing_files_are_named(pair):
    for path, read in ((pair.image, read_image), (pair.depth, read_depth)):
        path.unlink()
        with pytest.raises(FileNotFoundError, match=f"{path.name}: no such file"):
            read(pair)
