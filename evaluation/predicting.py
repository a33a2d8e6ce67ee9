"""Depth of a user's own images: read, ask the network, write; a few batches at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

import metrics
from evaluation.depth_outputs import (
    LARGEST_PNG_M,
    VIDEO_SUFFIX,
    Wanted,
    of_size,
    picture_video,
    prepare,
    write_depth,
    write_image,
)
from evaluation.media import Broken, Frame, ImageFiles, Reading, Source, Video
from evaluation.weights import Weights
from training.stopping import StopRequest
from utils import UserError

_log = logging.getLogger(__name__)


class Network(Protocol):
    """What says how deep images are: `evaluation.inference.DepthNetwork`, or a test's own."""

    def inverse_depth(self, images: Tensor) -> Tensor:
        """Return (B, 1, H, W) [1/m] of images (B, 3, H, W) uint8."""


class DepthCounts:
    """How often depths occur: as much memory for a day of video as for one image."""

    _PER_FACTOR_10, _LOWEST, _HIGHEST = 500, -4, 6  # bins of half a percent, exponents of metres

    def __init__(self) -> None:
        bins = self._PER_FACTOR_10 * (self._HIGHEST - self._LOWEST)
        self._counts = torch.zeros(bins, dtype=torch.float64)

    def add(self, inverse_depth: Tensor) -> None:
        """Count inverse depths [1/m] of any shape, above zero."""
        exponents = -inverse_depth.float().log10()
        exponents = exponents.clamp(self._LOWEST, self._HIGHEST)
        self._counts += torch.histc(exponents, len(self._counts), self._LOWEST, self._HIGHEST).cpu()

    def quantile(self, share: float) -> float:
        """Return the depth [m] that this share of all depths is below, to half a percent."""
        total = self._counts.cumsum(0)
        place = int(torch.searchsorted(total, share * total[-1].item()))
        return 10 ** (self._LOWEST + (place + 0.5) / self._PER_FACTOR_10)

    def share_beyond(self, depth_m: float) -> float:
        """Return the share of depths that are larger, to half a percent of the depth."""
        place = round((np.log10(depth_m) - self._LOWEST) * self._PER_FACTOR_10)
        return float(self._counts[place:].sum() / self._counts.sum())


@dataclass
class Report:
    """What was done.

    Attributes:
        images: that depth was predicted of
        broken: image files that were skipped
        seconds: from the first image to the last file
        network_images, network_s: seen by the network, and how long it took; without the first
            batch, which takes longer, if there is another
        depths: of all images, at the network's size
    """

    images: int = 0
    broken: int = 0
    seconds: float = 0.0
    network_images: int = 0
    network_s: float = 0.0
    depths: DepthCounts = field(default_factory=DepthCounts)

    def lines(self, wanted: Wanted) -> list[str]:
        """Return the report for a person."""
        skipped = f", {self.broken} that cannot be read skipped" * bool(self.broken)
        if not self.images:
            return [f"no image{skipped}"]
        count = f"{self.images} image{'s' * (self.images > 1)}{skipped}"
        lines = [
            f"{count}: {self.images / self.seconds:.1f} a second in all, "
            f"{self.network_images / self.network_s:.1f} in the network alone",
            f"depth: median {self.depths.quantile(0.5):.3g} m, 5 % below "
            f"{self.depths.quantile(0.05):.3g} m, 5 % beyond {self.depths.quantile(0.95):.3g} m",
        ]
        cut = self.depths.share_beyond(LARGEST_PNG_M)
        if "png16" in wanted.kinds and cut > 0:
            lines.append(
                f"{100 * cut:.3g} % of the depths are beyond {LARGEST_PNG_M:.3f} m, the largest "
                "that 16 bits can say, which they have become there; npy has them as they are"
            )
        return [*lines, f"written to {wanted.folder}: {', '.join(wanted.kinds)}"]


def predict(
    network: Network,
    sources: Sequence[Source],
    reading: Reading,
    wanted: Wanted,
    advance: Callable[[int], object] = lambda _: None,
) -> Report:
    """Predict the depth of all images and write what is wanted of it.

    Args:
        network: says inverse depth
        sources: of images
        reading: how they are read, and at which size the network wants them
        wanted: what is written
        advance: called with a number of images that are done

    Raises:
        UserError: an image cannot be read, an output cannot be written, or the network says
            nothing that could be depth; what was written until then is whole
    """
    check(sources, reading, wanted)
    run = _Run(network, reading, wanted, advance)
    began = time.perf_counter()
    for source in sources:
        if isinstance(source, Video):
            run.video(source)
        else:
            run.images(source)
    run.report.seconds = time.perf_counter() - began
    return run.report


def check(sources: Sequence[Source], reading: Reading, wanted: Wanted) -> None:
    """Make the folder of the outputs, unless the sources are not to be had in this way.

    Raises:
        UserError: something of them would be lost or has no effect
    """
    takes_frames = reading.every != 1 or reading.max_frames is not None
    if takes_frames and not any(isinstance(source, Video) for source in sources):
        raise UserError(
            "--every and --max_frames are for videos and cameras, there are images only"
        )
    prepare(wanted, sources)


def total_images(sources: Sequence[Source], reading: Reading) -> int | None:
    """Return how many images there are, as far as all sources know."""
    counts = [source.count(reading) for source in sources]
    return None if None in counts else sum(counts)


def compile_networks(weights: Weights, network: Network, batch_size: int) -> None:
    """Let PyTorch compile the networks, which takes a minute and makes them faster.

    Args:
        weights: their modules are compiled
        network: asks them
        batch_size: that it will be asked; the first batch of another size compiles anew

    Raises:
        UserError: PyTorch cannot do so on this machine
    """
    for name in ("encoder", "depth"):
        weights.models[name].compile()
    width, height = weights.size
    try:
        network.inverse_depth(torch.zeros(batch_size, 3, height, width, dtype=torch.uint8))
    except Exception as error:  # of any kind: compilers and drivers take part
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"--compile: PyTorch cannot compile the networks here ({reason}): leave it out"
        ) from None


class _Answer(NamedTuple):
    frame: Frame
    inverse_depth: np.ndarray  # (H, W) float32 [1/m] at the size of the image


class _Run:
    """The way of all images through one network."""

    def __init__(
        self,
        network: Network,
        reading: Reading,
        wanted: Wanted,
        advance: Callable[[int], object],
    ) -> None:
        self.report = Report()
        self._network, self._reading, self._wanted = network, reading, wanted
        self._advance = advance

    def images(self, source: ImageFiles) -> None:
        """Write one batch while the next one is read and predicted."""
        with ThreadPoolExecutor(max(1, self._reading.workers)) as pool:
            writing: list[Future[None]] = []
            for batch in source.batches(self._reading):
                answers = list(self._ask(batch))
                _finish(writing)
                writing = [pool.submit(write_image, self._wanted, *answer) for answer in answers]
                self._advance(len(batch))
            _finish(writing)

    def video(self, source: Video) -> None:
        """Write a video, and numbered files of each frame."""
        wanted, fps = self._wanted, source.fps / self._reading.every
        path = wanted.folder / f"{source.name}{VIDEO_SUFFIX}"
        # Ctrl-C is how a camera is stopped, and its video is wanted; of a file it would be a part.
        interrupt = StopRequest() if source.is_camera else nullcontext()
        with interrupt as stop, picture_video(path, fps, wanted.nearest_m) as pictures:
            for batch in source.batches(self._reading):
                for frame, inverse_depth in self._ask(batch):
                    write_depth(self._wanted, frame, inverse_depth)
                    if "colour" in wanted.kinds:
                        pictures.write(frame.image.numpy(), inverse_depth)
                self._advance(len(batch))
                if stop is not None and stop.signal is not None:
                    break

    def _ask(self, batch: Sequence[Frame | Broken]) -> Iterator[_Answer]:
        """Yield the depth of the images that could be read, each at its own size."""
        frames = [entry for entry in batch if isinstance(entry, Frame)]
        for entry in batch:
            if isinstance(entry, Broken):
                _log.warning("%s: skipped", entry.message)
        self.report.broken += len(batch) - len(frames)
        if not frames:
            return
        for frame in frames:
            self._wanted = of_size(self._wanted, frame)
        inverse_depth = self._timed(torch.stack([frame.resized for frame in frames]))
        self.report.depths.add(inverse_depth)
        for frame, of_frame in zip(frames, inverse_depth, strict=True):
            resized = metrics.resize_disparity(of_frame.unsqueeze(0), frame.image.shape[:2])
            yield _Answer(frame, resized[0, 0].cpu().numpy())

    def _timed(self, images: Tensor) -> Tensor:
        report, began = self.report, time.perf_counter()
        inverse_depth = self._network.inverse_depth(images)
        finite = bool((inverse_depth.isfinite() & (inverse_depth > 0)).all())  # waits for a GPU
        if report.images == report.network_images:  # so far there was one batch, or none
            report.network_images, report.network_s = 0, 0.0
        report.images += len(images)
        report.network_images += len(images)
        report.network_s += time.perf_counter() - began
        if not finite:
            raise UserError(
                "the network says depths that are no numbers: its weights are damaged, or --amp "
                "fp16 is too narrow for them"
            )
        return inverse_depth


def _finish(writing: Sequence[Future[None]]) -> None:
    """Wait for files; raise the error of the first that could not be written."""
    for file in writing:
        file.result()
