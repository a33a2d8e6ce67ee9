"""Images decoded and resized once: one memory-mapped array for each folder of images.

Beside `NAME.json`, which says what the array was made from, lies the array that it names. The
`.json` is renamed into place last, so that whoever reads it finds a whole array.

`python -m datasets.cache` builds them, and so does a dataset that is told where they are kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.images import read_resized
from datasets.layouts import NumberedFiles
from datasets.locks import locked
from datasets.processes import in_processes
from datasets.text import DataError
from utils import written_whole

_log = logging.getLogger(__name__)
_VERSION = 1  # of the format and of the way images are resized
_GB = 1e9


@dataclass(frozen=True, eq=False)
class CacheJob:
    """A folder of images and the size at which they are kept.

    Attributes:
        images: the folder
        recorded_size: width and height of its images [px]
        size: width and height at which they are kept [px]
        file: where the description is kept, NAME.json
    """

    images: NumberedFiles
    recorded_size: tuple[int, int]
    size: tuple[int, int]
    file: Path

    @property
    def bytes(self) -> int:
        """How large the array is."""
        return 3 * self.size[0] * self.size[1] * len(self.images.numbers)


@dataclass(frozen=True)
class _Description:
    """What `NAME.json` says."""

    version: int
    array: str
    source: str
    fingerprint: str
    numbers: list[int]
    broken: dict[str, str]  # by number, as JSON has text for keys


def cache_job(
    cache_dir: Path,
    data_path: Path,
    images: NumberedFiles,
    recorded_size: tuple[int, int],
    size: tuple[int, int],
) -> CacheJob:
    """Return where the images of a folder under `data_path` are kept at a size."""
    place = images.folder.relative_to(data_path)
    folder = cache_dir / f"{size[0]}x{size[1]}" / place.parent
    return CacheJob(images, recorded_size, size, folder / f"{place.name}.json")


class CachedImages:
    """The images of a folder, read from its array. A process opens it when it first reads."""

    def __init__(self, file: Path, description: _Description, shape: tuple[int, ...]) -> None:
        self._array_path = file.with_name(description.array)
        self._shape = shape
        self._rows = {number: row for row, number in enumerate(description.numbers)}
        self._broken = {int(number): message for number, message in description.broken.items()}
        self._array: np.ndarray | None = None

    def __getstate__(self) -> dict[str, object]:
        # Sent to a worker process, an open array would be sent whole.
        return vars(self) | {"_array": None}

    def read(self, number: int) -> Tensor:
        """Return an image (3, H, W) uint8, or raise what reading its file raised."""
        if number in self._broken:
            raise DataError(self._broken[number])
        if self._array is None:
            self._array = _open(self._array_path, self._shape)
        return torch.from_numpy(self._array[self._rows[number]])


def _open(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    # Copy on write: nobody writes, but PyTorch warns of arrays that cannot be written to.
    return np.memmap(path, np.uint8, "c", shape=shape)


def open_cached(job: CacheJob) -> CachedImages | None:
    """Return the cache of a folder, None if it has not been built or is of no use.

    One that does not fit the images as they are now is reported and left alone.
    """
    if not job.file.exists():
        return None
    description = _read(job.file)
    shape = (len(job.images.numbers), 3, job.size[1], job.size[0])
    if description is None or not _fits(job, description):
        _log.warning(
            "%s: not used, it was made from other images than are in %s now, of %s; "
            "`python -m datasets.cache` makes it anew",
            job.file,
            job.images.folder,
            description.source if description else "nobody knows which folder",
        )
        return None
    return CachedImages(job.file, description, shape)


def _read(file: Path) -> _Description | None:
    try:
        return _Description(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _fits(job: CacheJob, description: _Description) -> bool:
    if description.version != _VERSION or description.fingerprint != _fingerprint(job):
        return False
    array = job.file.with_name(description.array)
    return array.exists() and array.stat().st_size == job.bytes


def _fingerprint(job: CacheJob) -> str:
    """Return a digest of the names, sizes and times of the images, and of what is made of them."""
    digest = hashlib.sha256(repr((_VERSION, job.recorded_size, job.size)).encode())
    for number in job.images.numbers.tolist():
        try:
            state = job.images.path(number).stat()
            text = f"{number} {state.st_size} {state.st_mtime_ns}\n"
        except FileNotFoundError:  # a link to nothing is a broken image like others
            text = f"{number} is missing\n"
        digest.update(text.encode())
    return digest.hexdigest()


def build_all(jobs: Sequence[CacheJob], workers: int, overwrite: bool = False) -> Iterator[int]:
    """Build the caches of several folders; yield how many images of each are broken, in order.

    Raises:
        DataError: the disk has less room than they need
    """
    _check_room([job for job in jobs if overwrite or not job.file.exists()])
    yield from in_processes(partial(build, overwrite=overwrite), jobs, workers)


def _check_room(jobs: Sequence[CacheJob]) -> None:
    needed = sum(job.bytes for job in jobs)
    for job in jobs[:1]:
        job.file.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(job.file.parent).free
        if free < needed:
            raise DataError(
                f"{job.file.parent}: {needed / _GB:.1f} GB are needed for the cache, "
                f"{free / _GB:.1f} GB are free"
            )


def build(job: CacheJob, overwrite: bool = False) -> int:
    """Build the cache of a folder unless it is there, and return how many images are broken.

    Several processes may be told to at once: one builds, the others wait for it.
    """
    job.file.parent.mkdir(parents=True, exist_ok=True)
    waiting = partial(_log.info, "%s: another process is building it, waiting", job.file)
    with locked(job.file.with_suffix(".lock"), waiting) as alone:
        old = _read(job.file)
        if not overwrite and old is not None and _fits(job, old):
            return len(old.broken)
        if alone:
            _tidy(job, old)
        fingerprint = _fingerprint(job)  # before reading: what changes meanwhile is found stale
        array = job.file.with_name(f"{job.file.stem}-{fingerprint[:12]}.uint8")
        broken = _write_array(array, job)
        description = _Description(
            _VERSION,
            array.name,
            str(job.images.folder),
            fingerprint,
            job.images.numbers.tolist(),
            broken,
        )
        with written_whole(job.file) as file:
            file.write(json.dumps(asdict(description)).encode())
        if alone:
            _tidy(job, description)
        return len(broken)


def _tidy(job: CacheJob, current: _Description | None) -> None:
    """Remove what killed builds left of this folder, and arrays of another description."""
    name = re.escape(job.file.stem)
    ours = re.compile(rf"{name}(-[0-9a-f]{{12}}\.uint8(\.[0-9]+\.tmp)?|\.json\.[0-9]+\.tmp)")
    for path in job.file.parent.iterdir():
        if ours.fullmatch(path.name) and (current is None or path.name != current.array):
            path.unlink(missing_ok=True)


def _write_array(path: Path, job: CacheJob) -> dict[str, str]:
    """Write the array of a folder, and return what is wrong with which images."""
    broken: dict[str, str] = {}
    with written_whole(path) as file:
        for number in job.images.numbers.tolist():
            # Other errors, like files that may not be read, end the build: they would be kept for
            # good, since to mend them does not change the image.
            try:
                image = read_resized(job.images.path(number), job.size, job.recorded_size)
            except (DataError, FileNotFoundError) as error:
                broken[str(number)] = str(error)
                image = torch.zeros(3, job.size[1], job.size[0], dtype=torch.uint8)
            file.write(image.numpy())  # its tofile() does not say that the disk is full
    return broken
