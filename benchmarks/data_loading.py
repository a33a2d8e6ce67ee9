"""Time the way from files to batches: `python -m benchmarks.data_loading`.

Samples per second with two workers, 640x192 from JPEG images of 1242x375, three frames: a plain
loader of the monodepth2 kind, ours, and ours with a cache. Then augmentation beside a training
step, and what a dataset of 40,000 samples with IMU costs to start.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ColorJitter
from torchvision.transforms import functional as F

from benchmarks.timing import interleaved_medians
from datasets.augmentation import draw_augmentation, prepare
from datasets.data_options import DataOptions
from datasets.kitti import KittiDataset
from datasets.loading import SampleLoader
from datasets.matched import FOLDER, PACKETS_FILE, STAMPS_FILE, read_matched
from datasets.oxts import FIELDS, format_stamp, parse_stamp
from datasets.synthetic.recording import DATE
from datasets.synthetic.rig import REAL_SIZE, write_calibration
from datasets.synthetic.writer import SyntheticOptions, write_synthetic_kitti

LIMITS = {
    "ours over plain": 4.0,
    "cached over plain": 20.0,
    "augmentation over step": 0.1,
    "start-up beyond reading [s]": 20.0,
    "memory of a worker [GB]": 1.5,
}
RECORDED, SIZE = REAL_SIZE, (640, 192)
BATCH, WORKERS, FRAMES = 8, 2, (0, -1, 1)
RENDERED = 24  # images; a drive repeats them, since decoding does not know
PACKETS = 11  # of an interval, both ends included
MEMORY_SAMPLES = 400  # that are read to see how much memory it takes


class PlainLoader(Dataset):
    """What loaders of this family do for each sample, with Pillow and torchvision, as published.

    Decode, resize each frame to four scales (each from the one before), flip and jitter the colours
    of every frame and scale with probability 1/2, and turn both versions into floats.
    """

    def __init__(self, images: Sequence[Path]) -> None:
        self.images = images
        self.jitter = (0.8, 1.2), (0.8, 1.2), (0.8, 1.2), (-0.1, 0.1)

    def __len__(self) -> int:
        return len(self.images) - 2

    def __getitem__(self, index: int) -> dict[tuple[str, int, int], Tensor]:
        flip, change = random.random() < 0.5, random.random() < 0.5
        parameters = ColorJitter.get_params(*map(list, self.jitter)) if change else None
        sample = {}
        for frame in FRAMES:
            with self.images[index + 1 + frame].open("rb") as file:
                image = Image.open(file).convert("RGB")
            if flip:
                image = F.hflip(image)
            for scale in range(4):
                size = [SIZE[1] >> scale, SIZE[0] >> scale]
                image = F.resize(image, size, F.InterpolationMode.LANCZOS)
                sample["color", frame, scale] = F.to_tensor(image)
                sample["color_aug", frame, scale] = F.to_tensor(self.changed(image, parameters))
        return sample

    @staticmethod
    def changed(image: Image.Image, parameters: tuple | None) -> Image.Image:
        """Jitter one image with these parameters."""
        if parameters is None:
            return image
        order, *strengths = parameters
        adjust = F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue
        for operation in order.tolist():
            image = adjust[operation](image, strengths[operation])
        return image


def make_drive(root: Path, frames: int) -> list[Path]:
    """Write a drive with images, calibration and matched IMU; return its images."""
    options = SyntheticOptions(
        root / "made", drives=1, frames=RENDERED, format="jpg", size=RECORDED
    )
    write_synthetic_kitti(options)
    made = sorted((root / "made" / DATE).glob("*_sync/image_02/data/*.jpg"))
    sync = root / DATE / f"{DATE}_drive_0001_sync"
    folder = sync / "image_02" / "data"
    folder.mkdir(parents=True)
    there_and_back = [*made, *made[-2:0:-1]]
    images = [folder / f"{i:010d}.jpg" for i in range(frames)]
    for i, image in enumerate(images):
        shutil.copyfile(there_and_back[i % len(there_and_back)], image)
    write_calibration(root / DATE, RECORDED)
    write_imu(sync, frames)
    write_split(root, [(f"{DATE}/{sync.name}", frames)])
    return images


def write_imu(sync: Path, frames: int) -> None:
    """Write matched IMU of random packets, as long as real ones, of a car that does not turn."""
    packet = np.random.default_rng(0).standard_normal((PACKETS, len(FIELDS)))
    packet[:, [FIELDS.index(name) for name in ("roll", "pitch", "yaw", "wx", "wy", "wz")]] = 0
    line = " | ".join(" ".join(map(repr, row)) for row in packet.tolist()) + "\n"
    start_ns = parse_stamp("2011-01-01 12:00:00.000000000")
    (sync / FOLDER).mkdir(parents=True)
    (sync / FOLDER / PACKETS_FILE).write_text(line * (frames - 1))
    steps = range(PACKETS)
    stamps = (
        " | ".join(format_stamp(start_ns + 10**7 * (10 * i + step)) for step in steps) + "\n"
        for i in range(frames - 1)
    )
    (sync / FOLDER / STAMPS_FILE).write_text("".join(stamps))


def write_split(root: Path, drives: Iterable[tuple[str, int]]) -> None:
    """Write a split of all frames with both neighbours."""
    lines = [f"{drive} {i} l\n" for drive, frames in drives for i in range(1, frames - 1)]
    (root / "splits").mkdir()
    (root / "splits" / "train_files.txt").write_text("".join(lines))


def open_dataset(root: Path, cache_dir: Path | None = None) -> KittiDataset:
    """Start the dataset of a tree with its own split."""
    width, height = SIZE
    options = DataOptions(root, root / "splits", width=width, height=height, cache_dir=cache_dir)
    return KittiDataset(options, "train")


def throughput(root: Path, images: Sequence[Path], repeats: int) -> dict[str, float]:
    """Return samples per second of each loader, the median of turns."""
    plain = DataLoader(PlainLoader(images), BATCH, num_workers=WORKERS, persistent_workers=True)
    loaders = {"plain": plain}
    for name, cache_dir in (("ours", None), ("cached", root / "cache")):
        dataset = open_dataset(root, cache_dir)
        order = range(len(dataset))
        loaders[name] = SampleLoader(dataset, BATCH, order, WORKERS, torch.device("cpu"))
    samples = len(images) - 2
    turns = {"plain": 1, "ours": 2, "cached": 8}  # epochs of each, to take about as long

    def epochs(name: str) -> Callable[[], None]:
        def run() -> None:
            for _ in range(turns[name]):
                for _ in loaders[name]:
                    pass

        return run

    medians = interleaved_medians({name: epochs(name) for name in loaders}, repeats)
    return {name: turns[name] * samples / seconds for name, seconds in medians.items()}


def augmentation(root: Path, repeats: int) -> dict[str, float]:
    """Return the median times [s] of augmenting a batch, and of what a training step is at least.

    That is: the depth encoder for the target and one pose encoder for both pairs, forward and
    backward, without decoders, warps, losses and optimiser.
    """
    dataset = open_dataset(root)
    loader = SampleLoader(dataset, BATCH, range(BATCH), 0, torch.device("cpu"))
    sample = next(iter(loader))
    encoder = torchvision.models.resnet18()
    pairs = torchvision.models.resnet18()
    pairs.conv1 = nn.Conv2d(6, 64, 7, 2, 3, bias=False)

    def step() -> None:
        batch = prepare(sample)
        both = [torch.cat([batch.image[-1], batch.image[0]], 1)]
        both.append(torch.cat([batch.image[0], batch.image[1]], 1))
        (encoder(batch.image[0]).sum() + pairs(torch.cat(both)).sum()).backward()

    epoch = iter(range(10**6))  # another draw every time
    cases = {
        "augmentation": lambda: prepare(
            sample, augmentation=draw_augmentation(0, next(epoch), sample.index)
        ),
        "step": step,
    }
    return interleaved_medians(cases, repeats)


def make_drives(root: Path, image: Path, samples: int) -> list[Path]:
    """Write drives that have so many samples together, all images the same; return the drives."""
    frames = 1000
    drives = [f"{DATE}_drive_{i:04d}_sync" for i in range(1, 1 + -(-samples // (frames - 2)))]
    (root / DATE).mkdir(parents=True)
    write_calibration(root / DATE, RECORDED)
    for drive in drives:
        sync = root / DATE / drive
        folder = sync / "image_02" / "data"
        folder.mkdir(parents=True)
        for i in range(frames):
            (folder / f"{i:010d}.jpg").hardlink_to(image)
        write_imu(sync, frames)
    write_split(root, [(f"{DATE}/{drive}", frames) for drive in drives])
    return [root / DATE / drive for drive in drives]


def start_up(root: Path, drives: Sequence[Path]) -> tuple[float, float]:
    """Return the time [s] to start a dataset with IMU, and of that to read the matched files."""
    begin = time.perf_counter()
    for drive in drives:
        read_matched(drive)
    read = time.perf_counter() - begin
    begin = time.perf_counter()
    open_dataset(root)
    return time.perf_counter() - begin, read


class WorkerMemory(Dataset):
    """A dataset whose samples say how much memory their worker has taken at most [GB]."""

    def __init__(self, dataset: KittiDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return MEMORY_SAMPLES

    def __getitem__(self, index: int) -> float:
        self.dataset[index * len(self.dataset) // len(self)]
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def worker_memory(root: Path) -> float:
    """Return the most memory [GB] that a worker takes, what it shares with its parent included."""
    dataset = open_dataset(root)
    return max(DataLoader(WorkerMemory(dataset), None, num_workers=WORKERS))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=162, help="images of the timed drive")
    parser.add_argument("--samples", type=int, default=40_000, help="of the large dataset")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions, medians are shown")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        drive, many = Path(folder) / "drive", Path(folder) / "many"
        images = make_drive(drive, args.frames)
        speed = throughput(drive, images, args.repeats)
        times = augmentation(drive, args.repeats)
        start, read = start_up(many, make_drives(many, images[0], args.samples))
        # In a process of its own: a worker has what its parent has, and this one has had much.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            memory = fresh.submit(worker_memory, many).result()
    print(f"samples/s, {WORKERS} workers, median of {args.repeats} interleaved turns")
    for name, value in speed.items():
        print(f"  {name:8} {value:8.1f}")
    print(
        f"batch of {BATCH}: augmentation {1e3 * times['augmentation']:.0f} ms, "
        f"encoders of a step {1e3 * times['step']:.0f} ms"
    )
    print(f"start with {args.samples} samples: {start:.1f} s, of which reading {read:.1f} s")
    measured = (
        speed["ours"] / speed["plain"],
        speed["cached"] / speed["plain"],
        times["augmentation"] / times["step"],
        start - read,
        memory,
    )
    print("what                           measured  limit")
    for (name, limit), value in zip(LIMITS.items(), measured, strict=True):
        print(f"{name:30} {value:8.2f}  {limit:g}")


if __name__ == "__main__":
    main()
