"""Every dataset that can be asked for can be built."""

from __future__ import annotations

import pytest

from datasets.builders import BUILDERS, build_dataset
from datasets.kitti import KittiDataset
from datasets.layouts import LAYOUTS
from datasets.text import DataError
from tests.image_tree import SINGLE, make_image_tree, options_of, write_list, write_single_images


def test_there_is_a_builder_for_each_name():
    assert set(BUILDERS) == set(LAYOUTS)


def test_a_dataset_is_the_one_of_its_options_and_part(tmp_path):
    (tree,) = make_image_tree(tmp_path, drives=["2011_09_26_drive_0001"])
    write_list(tmp_path / "splits" / "val_files.txt", [f"{tree.drive} 2 l"])
    data = build_dataset(options_of(tmp_path, frame_ids=(0, 1)), "val")
    assert isinstance(data, KittiDataset) and len(data) == 1
    assert [*data[0].image] == [0, 1] and len(build_dataset(options_of(tmp_path), "train")) == 8


def test_single_images_are_built_by_their_name(tmp_path):
    write_single_images(tmp_path / SINGLE, 3)
    write_list(tmp_path / "splits" / "test_files.txt", [f"{SINGLE} {i} l" for i in range(3)])
    asked = options_of(tmp_path, dataset="kitti_test", use_imu=False, frame_ids=(0,))
    assert len(build_dataset(asked, "test")) == 3


def test_another_kind_comes_in_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setitem(BUILDERS, "kitti_odom", lambda options, part: (options.dataset, part))
    asked = options_of(tmp_path, dataset="kitti_odom")
    assert build_dataset(asked, "val") == ("kitti_odom", "val")


def test_what_is_missing_is_said_as_the_dataset_says_it(tmp_path):
    (tree,) = make_image_tree(tmp_path, drives=["2011_09_26_drive_0001"])
    (tree.sync / "image_02" / "data" / "0000000002.png").unlink()
    with pytest.raises(DataError, match=r"0000000002\.png: no such image"):
        build_dataset(options_of(tmp_path), "train")
