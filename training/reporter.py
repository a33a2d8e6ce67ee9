"""What a training says of itself: a bar, curves and pictures for TensorBoard, and lines of JSON.

The folder of a run has `train/` and `val/` for TensorBoard, and `metrics.jsonl` for programs: one
line for every call of `scalars`, there as soon as it returns.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from datasets.files import read_bytes
from utils import named, written_whole

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

METRICS_FILE = "metrics.jsonl"
PARTS = ("train", "val")

_log = logging.getLogger(__name__)
_OWN = ("part", "step", "epoch", "time")  # keys of a line that no value may have
_SMOOTHING = 0.98  # of the loss that is shown: about the last fifty steps
_WINDOW = 50  # steps that the speed is taken of
_REDRAW_S = 0.5
_LINE_S = 60  # between lines where there is no bar
_FLUSH_S = 30
_FORMAT = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


class Reporter:
    """Says how far a training is, and keeps its numbers; only the main process does.

    A step's number is how many have been done, itself included: the first one is 1.

    Args:
        folder: of the run, made if missing
        total_steps: of the whole training
        examples_per_step: of a whole step, all processes together
        first_step: how many were done before; what was kept of later ones is dropped
        main: whether this is the process that reports

    Raises:
        OSError: the folder cannot be written to
    """

    def __init__(
        self,
        folder: Path,
        total_steps: int,
        examples_per_step: int,
        first_step: int = 0,
        main: bool = True,
    ) -> None:
        self.main = main
        self._pace = Pace(total_steps, examples_per_step, first_step)
        self._closing = ExitStack()
        self._bar: tqdm | None = None
        self._drawn = -math.inf
        self._said = time.perf_counter()
        if main:
            folder.mkdir(parents=True, exist_ok=True)
            self._metrics = self._closing.enter_context(MetricsFile(folder, first_step))
            self._writers = {part: self._open_writer(folder / part, first_step) for part in PARTS}
            if sys.stderr is not None and sys.stderr.isatty():
                self._open_bar(total_steps, first_step)

    def _open_writer(self, folder: Path, first_step: int) -> SummaryWriter:
        from tensorboardX import SummaryWriter  # other processes need not wait for it

        # What is no number is shown as such there; it need not warn of each one in the terminal.
        logging.getLogger("tensorboardX.x2num").setLevel(logging.ERROR)
        # Purged is what has this step or a later one. A new training has nothing to keep.
        purge_step = first_step + 1 if first_step else 0
        writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=_FLUSH_S)
        self._closing.callback(writer.close)
        return writer

    def _open_bar(self, total_steps: int, first_step: int) -> None:
        self._closing.enter_context(logging_redirect_tqdm())  # warnings stand above the bar
        self._bar = self._closing.enter_context(
            tqdm(
                total=total_steps,
                initial=first_step,
                file=sys.stderr,
                bar_format=_FORMAT,
                dynamic_ncols=True,
            )
        )

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def step(self, step: int, loss: float, examples: int) -> None:
        """Say that a step is done.

        Args:
            step: how many are done now
            loss: of this one
            examples: of this one, all processes together
        """
        self._pace.step(step, loss, examples)
        now = time.perf_counter()
        if self._bar is not None and now - self._drawn >= _REDRAW_S:
            self._drawn, self._bar.n = now, step
            self._bar.set_postfix_str(self._pace.text())  # draws it
        elif self._bar is None and self.main and now - self._said >= _LINE_S:
            self._say_progress()

    def _say_progress(self) -> None:
        """Write a line where there is no bar."""
        self._said = time.perf_counter()
        _log.info("step %d of %d: %s", self._pace.done, self._pace.total_steps, self._pace.text())

    def scalars(
        self, part: str, step: int, values: Mapping[str, float], epoch: int | None = None
    ) -> None:
        """Keep numbers, one curve for each name.

        Args:
            part: `train` or `val`
            step: how many are done
            values: by name; what is no number is null in the line of JSON
            epoch: in the line of JSON, if given
        """
        _check_part(part)
        if not self.main:
            return
        self._metrics.add(part, step, values, epoch)
        for name, value in values.items():
            self._writers[part].add_scalar(name, float(value), step)
        if self._bar is None and part == "train":
            self._say_progress()
        elif self._bar is None:
            numbers = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            _log.info("step %d of %d, %s: %s", step, self._pace.total_steps, part, numbers)

    def images(self, part: str, step: int, images: Mapping[str, Tensor]) -> None:
        """Show pictures (3, H, W) uint8, RGB, by name; as `scalars`."""
        _check_part(part)
        if not self.main:
            return
        for name, image in images.items():
            if image.dtype != torch.uint8 or image.ndim != 3 or len(image) != 3:
                found = f"{tuple(image.shape)} {image.dtype}"
                raise ValueError(f"{name}: expected (3, H, W) uint8, got {found}")
            self._writers[part].add_image(name, image.cpu().numpy(), step, dataformats="CHW")

    def throughput(self) -> float:
        """Return the examples per second since the last call, at first since the beginning."""
        return self._pace.throughput()

    def close(self) -> None:
        """End the bar and close all files; a second time does nothing."""
        if self._bar is not None:
            self._bar.n = self._pace.done
            self._bar.set_postfix_str(self._pace.text())
            self._bar = None
        self._closing.close()


def _check_part(part: str) -> None:
    if part not in PARTS:
        raise ValueError(f"part: expected {' or '.join(PARTS)}, got {part!r}")


class Pace:
    """How far and how fast a training is."""

    def __init__(self, total_steps: int, examples_per_step: int, first_step: int) -> None:
        self.total_steps, self.done = total_steps, first_step
        self._examples_per_step = examples_per_step
        self._loss, self._weight = 0.0, 0.0
        self._examples = 0
        self._asked = time.perf_counter(), 0  # when, and how many examples then
        # It begins with the end of the first step: that one waits for all that is done only once.
        self._window: deque[tuple[float, int]] = deque(maxlen=_WINDOW + 1)

    def step(self, step: int, loss: float, examples: int) -> None:
        """Count a step."""
        self.done = step
        self._examples += examples
        self._window.append((time.perf_counter(), self._examples))
        if math.isfinite(loss):  # else it would be all that is seen from then on
            self._loss = _SMOOTHING * self._loss + (1 - _SMOOTHING) * loss
            self._weight = _SMOOTHING * self._weight + 1 - _SMOOTHING

    @property
    def loss(self) -> float:
        """The mean loss of the last steps, weighted; NaN before the first."""
        return self._loss / self._weight if self._weight else math.nan

    @property
    def speed(self) -> float:
        """Examples per second over the last steps; NaN before the second."""
        if len(self._window) < 2:
            return math.nan
        (began, before), (ended, after) = self._window[0], self._window[-1]
        return (after - before) / max(ended - began, 1e-9)

    @property
    def left_s(self) -> float:
        """How long the rest takes at this speed [s]; NaN or infinite if that is not known."""
        examples = (self.total_steps - self.done) * self._examples_per_step
        return examples / self.speed if self.speed else math.inf

    def throughput(self) -> float:
        """Return the examples per second since the last call."""
        (began, before), self._asked = self._asked, (time.perf_counter(), self._examples)
        return (self._examples - before) / max(self._asked[0] - began, 1e-9)

    def text(self) -> str:
        """Return all of it as one line, without the number of steps."""
        left_s, gigabytes = self.left_s, memory_gb()
        left = f"{tqdm.format_interval(left_s)} left" if math.isfinite(left_s) else ""
        speed = f"{self.speed:.1f} examples/s" if math.isfinite(self.speed) else ""
        memory = f"{gigabytes:.1f} GB" if gigabytes is not None else ""
        return ", ".join(filter(None, (f"loss {self.loss:.4f}", speed, left, memory)))


def memory_gb() -> float | None:
    """Return the most that CUDA had in use, without CUDA what this process has [10^9 bytes]."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e9
    try:
        resident_pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except OSError:
        return None  # not a Linux
    return resident_pages * os.sysconf("SC_PAGE_SIZE") / 1e9


class MetricsFile:
    """The file METRICS_FILE of a run: one object of JSON in each line.

    Args:
        folder: of the run
        first_step: lines of later steps are dropped, and so are those that were not ended; if it is
            0, all are
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self._path = folder / METRICS_FILE
        if self._path.exists():
            _drop_lines(self._path, first_step)
        self._file = self._path.open("ab")

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, part: str, step: int, values: Mapping[str, float], epoch: int | None) -> None:
        """Write a line.

        Raises:
            OSError: it names the file, for instance where the disk is full
        """
        if taken := set(_OWN) & set(values):
            raise ValueError(f"values: {', '.join(sorted(taken))} are names of a line's own")
        line: dict[str, object] = {"part": part, "step": int(step)}
        if epoch is not None:
            line["epoch"] = int(epoch)
        line["time"] = round(time.time(), 3)  # seconds since 1970
        numbers = {name: float(value) for name, value in values.items()}
        line |= {name: x if math.isfinite(x) else None for name, x in numbers.items()}
        text = json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            self._file.write(text.encode())
            self._file.flush()
        except OSError as error:
            raise named(error, self._path) from None


def _drop_lines(path: Path, first_step: int) -> None:
    """Leave the lines up to a step; what a killed process did not end is no line."""
    content = read_bytes(path)
    lines = content.splitlines(keepends=True)
    steps = [_step_of(line) for line in lines]
    kept = [
        line
        for line, step in zip(lines, steps, strict=True)
        if first_step and step is not None and step <= first_step
    ]
    if broken := steps.count(None):
        _log.warning("%s: dropped what is no whole line of it: %d", path, broken)
    if len(kept) < len(lines):
        with written_whole(path) as file:
            file.write(b"".join(kept))


def _step_of(line: bytes) -> int | None:
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return None
    return step if line.endswith(b"\n") and isinstance(step, int) else None
