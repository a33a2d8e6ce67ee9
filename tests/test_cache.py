"""The command that builds the cache: what it builds, what it prints, how a mistake ends."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from datasets import cache, image_cache
from datasets.data_options import DataOptions
from datasets.images import read_resized
from datasets.kitti import KittiDataset
from tests.image_tree import DRIVES, NETWORK_SIZE, SIZE, make_image_tree, write_list
from tests.kitti_tree import DATE

ROOT = Path(__file__).parent.parent
SMALL = "--width", NETWORK_SIZE[0], "--height", NETWORK_SIZE[1]


@pytest.fixture
def root(tmp_path):
    make_image_tree(tmp_path)
    return tmp_path


def arguments(root, *more):
    paths = "--data_path", root, "--split", root / "splits", "--cache_dir", root / "cache"
    return [*map(str, (*paths, *SMALL, "--workers", 1, *more))]


@pytest.fixture
def call(root, capsys):
    def call(*more):
        code = cache.main(arguments(root, *more))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def decoded(monkeypatch):
    """Return a list of the images that are decoded from now on."""
    paths = []

    def read(path, *sizes):
        paths.append(path)
        return read_resized(path, *sizes)

    monkeypatch.setattr(image_cache, "read_resized", read)
    return paths


def test_all_cameras_of_all_drives_are_cached_once(root, call, decoded):
    line = f"4 folders, 24 images, 0 broken: {root / 'cache'}\n"
    assert call() == (0, line, "")
    assert sorted(decoded) == sorted(root.rglob("image_*/data/*.png"))
    folders = {path.parent.relative_to(root / "cache") for path in root.rglob("data.json")}
    cameras = ("image_02", "image_03")
    place = Path(f"{NETWORK_SIZE[0]}x{NETWORK_SIZE[1]}") / DATE
    assert folders == {place / f"{drive}_sync" / camera for drive in DRIVES for camera in cameras}
    decoded.clear()
    assert call() == (0, line, "") and not decoded
    assert call("--overwrite") == (0, line, "") and len(decoded) == 24


def test_a_dataset_finds_what_the_command_built(root, call, decoded):
    assert call()[0] == 0
    decoded.clear()
    asked = DataOptions(root, root / "splits", height=32, width=64, cache_dir=root / "cache")
    sample = KittiDataset(asked, "train")[0]
    assert not decoded
    path = root / DATE / f"{DRIVES[0]}_sync" / "image_02" / "data" / "0000000001.png"
    assert torch.equal(sample.image[0], read_resized(path, NETWORK_SIZE, SIZE))


def test_lists_that_are_missing_or_empty_are_passed_over(root, call):
    (root / "splits" / "train_files.txt").unlink()
    write_list(root / "splits" / "val_files.txt", [])
    write_list(root / "splits" / "test_files.txt", [f"{DATE}/{DRIVES[1]}_sync 2 r"])
    assert call() == (0, f"1 folder, 6 images, 0 broken: {root / 'cache'}\n", "")
    write_list(root / "splits" / "test_files.txt", [])
    code, out, err = call()
    assert (code, out) == (2, "") and "no lists of frames here" in err and err.count("\n") == 1


def test_broken_images_are_counted_every_time(root, call):
    folder = root / DATE / f"{DRIVES[1]}_sync" / "image_03" / "data"
    for i in (0, 4):
        path = folder / f"{i:010d}.png"
        path.write_bytes(path.read_bytes()[:-20])
    expected = [f"{folder}: 2 broken", f"4 folders, 24 images, 2 broken: {root / 'cache'}"]
    for _ in range(2):
        code, out, err = call()
        assert (code, out.splitlines(), err) == (1, expected, "")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--split", "eigen_zho"], "eigen_zho: no such split, expected a folder or one of"),
        (["--height", 33], "height: expected a multiple of 32, got 33"),
        (["--width", 0], "width: expected a multiple of 32, got 0"),
        (["--workers", 0], "workers: expected at least 1, got 0"),
        (["--data_path", "absent"], "absent: no such folder"),
    ],
)
def test_a_mistake_ends_in_one_line(root, call, more, message):
    code, out, err = call(*more)
    assert (code, out) == (2, "")
    assert err.startswith("python -m datasets.cache: ") and message in err
    assert err.count("\n") == 1
    assert not list(root.rglob("*.uint8"))


def test_a_full_disk_ends_in_one_line(call, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda _: usage)
    code, out, err = call()
    assert (code, out) == (2, "")
    assert "are needed for the cache, 0.0 GB are free" in err and err.count("\n") == 1


def test_it_runs_from_its_folder_with_several_processes(root):
    command = [sys.executable, "-m", "datasets.cache", *arguments(root, "--workers", 2)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    line = f"4 folders, 24 images, 0 broken: {root / 'cache'}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, line, "")
    assert len(list(root.rglob("*.uint8"))) == 4


def test_what_is_there_is_cached_when_a_drive_is_not(root, call):
    shutil.rmtree(root / DATE / f"{DRIVES[1]}_sync")
    code, out, err = call()
    assert (code, err) == (1, "")
    missing, done = out.splitlines()
    assert f"{DRIVES[1]}_sync: no such folder" in missing
    assert done == f"2 folders, 12 images, 0 broken: {root / 'cache'}"


def test_both_cameras_are_cached_for_stereo(root, call):
    write_list(root / "splits" / "train_files.txt", [f"{DATE}/{DRIVES[0]}_sync 2 l"])
    for part in ("val", "test"):
        (root / "splits" / f"{part}_files.txt").unlink()
    assert call()[1].startswith("1 folder, 6 images")
    assert call("--use_stereo")[1].startswith("2 folders, 12 images")
