"""Cached images are the decoded ones or there is no cache, whatever was changed or killed."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch

from datasets import image_cache
from datasets.data_options import DataOptions
from datasets.image_cache import build, build_all, cache_job, open_cached
from datasets.images import read_resized
from datasets.kitti import KittiDataset
from datasets.layouts import list_files
from datasets.text import DataError
from tests.image_tree import DRIVES, NETWORK_SIZE, SIZE, make_image_tree, picture

ROOT = Path(__file__).parent.parent
FRAMES = 4


def image(root, number) -> Path:
    return root / "raw" / "image_02" / "data" / f"{number:010d}.png"


def make_images(root, first=0) -> None:
    image(root, 0).parent.mkdir(parents=True)
    for i in range(FRAMES):
        cv2.imwrite(str(image(root, i)), picture(first + i))


def job_of(root, cache="cache"):
    """Return the job for the images as they are now."""
    images = list_files(image(root, 0).parent, 10, (".png",))
    return cache_job(root / cache, root / "raw", images, SIZE, NETWORK_SIZE)


def is_right(job) -> bool:
    """Whether the cache has what the files have, and nothing else lies beside it."""
    cached = open_cached(job)
    for number in job.images.numbers.tolist():
        expected = read_resized(job.images.path(number), job.size, job.recorded_size)
        if not torch.equal(cached.read(number), expected):
            return False
    names = sorted(path.suffix for path in job.file.parent.iterdir())
    return names == [".json", ".lock", ".uint8"]


@pytest.fixture
def root(tmp_path):
    make_images(tmp_path)
    return tmp_path


@pytest.fixture
def cached(root):
    """Return the root of images that are cached."""
    assert build(job_of(root)) == 0
    return root


@pytest.fixture
def no_decoding(monkeypatch):
    def fails(*_):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(image_cache, "read_resized", fails)


def array_of(job) -> Path:
    return job.file.with_name(json.loads(job.file.read_text())["array"])


# What is read


def test_cached_images_are_the_decoded_ones(root, caplog):
    job = job_of(root)
    assert open_cached(job) is None  # not built yet: no cause for a warning
    assert build(job) == 0
    assert is_right(job) and not caplog.messages
    assert array_of(job).stat().st_size == job.bytes == FRAMES * 3 * 64 * 32
    assert job.file == root / "cache" / "64x32" / "image_02" / "data.json"
    read = open_cached(job).read(1)
    assert read.dtype == torch.uint8 and read.shape == (3, 32, 64)


def test_a_dataset_reads_the_same_with_and_without_a_cache(tmp_path, caplog):
    make_image_tree(tmp_path, drives=DRIVES[:1])
    asked = DataOptions(tmp_path, tmp_path / "splits", height=32, width=64)
    plain = KittiDataset(asked, "train")
    for changed in (False, True):  # then the cache is of no use any more
        if changed:
            for path in tmp_path.rglob("image_02/data/*.png"):
                os.utime(path, (1, 1))
        dataset = KittiDataset(replace(asked, cache_dir=tmp_path / "cache"), "train")
        assert sum("not used" in text for text in caplog.messages) == changed
        for i in range(len(plain)):
            for frame, expected in plain[i].image.items():
                assert torch.equal(dataset[i].image[frame], expected)
    assert len(list(tmp_path.rglob("*.uint8"))) == 2


@pytest.mark.filterwarnings("error")
def test_who_writes_into_an_image_does_not_write_into_the_cache(cached):
    open_cached(job_of(cached)).read(2).zero_()
    assert is_right(job_of(cached))


def test_a_worker_gets_the_place_of_the_array_and_not_the_array(cached):
    images = open_cached(job_of(cached))
    before = images.read(3)
    sent = pickle.dumps(images)
    assert len(sent) < 3 * 64 * 32
    assert torch.equal(pickle.loads(sent).read(3), before)
    assert torch.equal(images.read(3), before)


# What does not fit any more


def exchange(root):
    image(root, 1).rename(root / "x")
    image(root, 2).rename(image(root, 1))
    (root / "x").rename(image(root, 2))


def other_version(root):
    file = job_of(root).file
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": 0}))


CHANGES = {
    "touched": lambda root: os.utime(image(root, 1), (1, 1)),
    "replaced": lambda root: cv2.imwrite(str(image(root, 1)), picture(9)),
    "exchanged": exchange,
    "added": lambda root: cv2.imwrite(str(image(root, FRAMES)), picture(FRAMES)),
    "removed": lambda root: image(root, 1).unlink(),
    "version": other_version,
    "cut off": lambda root: os.truncate(array_of(job_of(root)), 100),
    "no array": lambda root: array_of(job_of(root)).unlink(),
}
GARBAGE = ["", "{", "[]", "3", "{}", '{"version": 1, "numbers": []}']
GARBAGE += ['{"version":1,"array":5,"source":"","fingerprint":"","numbers":0,"broken":0}']
CHANGES |= {text: lambda root, text=text: job_of(root).file.write_text(text) for text in GARBAGE}


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit_is_said_once_left_alone_and_built_anew(cached, caplog, change):
    CHANGES[change](cached)
    job = job_of(cached)
    before = job.file.read_bytes()
    assert open_cached(job) is None
    (message,) = caplog.messages
    assert message.startswith(f"{job.file}: not used") and str(job.images.folder) in message
    assert job.file.read_bytes() == before
    assert build(job) == 0
    assert is_right(job)


def test_another_root_with_the_same_folders_gets_no_wrong_pictures(cached, caplog):
    make_images(cached / "other", first=20)
    images = list_files(image(cached / "other", 0).parent, 10, (".png",))
    data_path = cached / "other" / "raw"
    other = cache_job(cached / "cache", data_path, images, SIZE, NETWORK_SIZE)
    assert other.file == job_of(cached).file
    assert open_cached(other) is None
    now, then = other.images.folder, job_of(cached).images.folder
    assert f"from other images than are in {now} now, of {then};" in caplog.text
    assert open_cached(replace(job_of(cached), recorded_size=(99, 9))) is None
    assert is_right(job_of(cached))


# Building


def test_what_is_there_is_not_built_again(cached, no_decoding):
    assert build(job_of(cached)) == 0
    assert list(build_all([job_of(cached)], 1)) == [0]


def test_overwriting_builds_again(cached):
    with array_of(job_of(cached)).open("r+b") as file:
        file.write(b"wrong")  # of the right size and age
    assert list(build_all([job_of(cached)], 1, overwrite=True)) == [0]
    assert is_right(job_of(cached))


def test_broken_images_are_counted_and_raise_what_their_files_raise(root):
    image(root, 1).write_bytes(image(root, 1).read_bytes()[:-40])
    cv2.imwrite(str(image(root, 2)), picture(2, (60, 20)))
    image(root, 3).unlink()
    image(root, 3).symlink_to(root / "nowhere.png")
    job = job_of(root)
    assert [build(job), build(job)] == [3, 3]  # and so when it is there
    images = open_cached(job)
    assert torch.equal(images.read(0), read_resized(image(root, 0), NETWORK_SIZE, SIZE))
    for number in (1, 2, 3):
        with pytest.raises((DataError, FileNotFoundError)) as expected:
            read_resized(image(root, number), NETWORK_SIZE, SIZE)
        with pytest.raises(DataError) as error:
            images.read(number)
        assert str(error.value) == str(expected.value)
        image(root, number).unlink()
        cv2.imwrite(str(image(root, number)), picture(number))
    assert open_cached(job_of(root)) is None  # they are mended
    assert build(job_of(root)) == 0 and is_right(job_of(root))


def test_an_image_that_may_not_be_read_ends_the_build(root, monkeypatch):
    def denied(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(image_cache, "read_resized", denied)
    with pytest.raises(PermissionError) as error:
        build(job_of(root))
    assert error.value.filename == str(image(root, 0))
    assert [path.suffix for path in job_of(root).file.parent.iterdir()] == [".lock"]


# A full disk


def test_too_little_room_is_noticed_before_anything_is_written(cached, monkeypatch):
    job, other = job_of(cached), job_of(cached, "other")
    usage = shutil.disk_usage(cached)._replace(free=job.bytes - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    for jobs, overwrite in (([other], False), ([job], True)):
        with pytest.raises(DataError, match="0.0 GB are needed for the cache, 0.0 GB are free"):
            list(build_all(jobs, 1, overwrite))
    assert not list((cached / "other").rglob("data*"))
    assert list(build_all([job], 1)) == [0]  # it needs no room any more


class Filling:
    """A file that the disk has room for 10000 bytes of, a part of the array."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        if self.file.tell() + memoryview(data).nbytes > 10_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.file.write(data)


def test_a_disk_that_becomes_full_leaves_what_was_there(cached, monkeypatch):
    job, really_open = job_of(cached), Path.open
    names = sorted(job.file.parent.iterdir())

    def open_filling(path, mode="r", **more):
        file = really_open(path, mode, **more)
        return Filling(file) if mode == "wb" else file

    monkeypatch.setattr(Path, "open", open_filling)
    with pytest.raises(OSError, match=r"No space left on device: '.*data-[0-9a-f]{12}\.uint8'"):
        build(job, overwrite=True)
    assert sorted(job.file.parent.iterdir()) == names and is_right(job)
    with pytest.raises(OSError, match="No space left"):
        build(job_of(cached, "other"))
    assert open_cached(job_of(cached, "other")) is None


# Other processes

SLOW_BUILD = """
import sys
from pathlib import Path
import tests.test_image_cache as t
read = t.image_cache.read_resized
def slowly(path, *sizes):
    if path == t.image(Path(sys.argv[1]), 2):
        print("half", flush=True)
        sys.stdin.readline()
    return read(path, *sizes)
t.image_cache.read_resized = slowly
t.build(t.job_of(Path(sys.argv[1])))
"""


@pytest.fixture
def half_built(root):
    """Start a process that has built half of the cache and goes on when it is told to."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", SLOW_BUILD, str(root)]
    with subprocess.Popen(command, cwd=ROOT, text=True, bufsize=1, **pipes) as process:
        assert process.stdout.readline() == "half\n"
        yield process
        process.kill()


def test_of_two_processes_one_builds_and_the_other_waits(
    half_built, root, no_decoding, monkeypatch
):
    class GoOn(logging.Handler):
        def emit(self, record):
            if "another process is building it, waiting" in record.getMessage():
                half_built.stdin.write("\n")

    monkeypatch.setattr(image_cache, "_log", logging.Logger("ours", logging.INFO))
    image_cache._log.addHandler(GoOn())
    assert open_cached(job_of(root)) is None
    assert build(job_of(root)) == 0
    assert half_built.wait() == 0 and is_right(job_of(root))


def test_a_killed_build_leaves_no_cache_and_the_next_one_tidies_up(half_built, root, caplog):
    half_built.kill()
    half_built.wait()
    job = job_of(root)
    assert open_cached(job) is None and not caplog.messages
    assert list(job.file.parent.glob("*.tmp"))
    others = [job.file.with_name(name) for name in ("data2-0123456789ab.uint8", "data.note")]
    for path in others:
        path.touch()
    build(job)
    for path in others:
        path.unlink()  # which were none of its own
    assert is_right(job)


def test_an_array_without_description_is_removed_when_images_change(root, monkeypatch):
    def killed(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(json, "dumps", killed)  # the array is there already
        build(job_of(root))
    assert [path.suffix for path in job_of(root).file.parent.glob("data-*")] == [".uint8"]
    CHANGES["touched"](root)
    build(job_of(root))
    assert is_right(job_of(root))
