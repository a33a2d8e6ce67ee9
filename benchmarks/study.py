"""Trainings on synthetic drives, from options to scores: what `demo` and `ablation` are made of.

Every training is a process of its own, `train.py` as a user types it, with its share of the cores:
small networks leave half of a second core idle, so two trainings side by side are done sooner than
one after the other. Scores are of the weights at the end of the schedule, on drives that nothing
was trained on, whose truth nothing has seen before.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import make_synthetic_kitti
import match_kitti_imu
import options
from datasets.augmentation import prepare
from datasets.builders import build_dataset
from datasets.data_options import DataOptions
from datasets.loading import SampleLoader
from evaluation.depth_run import depth_task, run_depth
from evaluation.odometry_result import mean_errors
from evaluation.odometry_run import evaluate_odometry
from evaluation.summary import summarise
from evaluation.weights import open_all
from training.prediction import predict
from utils import UserError, written_whole

ROOT = Path(__file__).resolve().parent.parent
_BATCH = 16


@dataclass(frozen=True)
class Run:
    """A training.

    Attributes:
        name: that its lines begin with
        folder: of the run
        drives: that it is trained and scored on
        words: other options of `train.py`
    """

    name: str
    folder: Path
    drives: Path
    words: tuple[str, ...]

    @property
    def scores_file(self) -> Path:
        """Where its scores are, when it is done."""
        return self.folder / "scores.json"

    @property
    def arguments(self) -> list[str]:
        """The whole line of `train.py`."""
        named = ["--log_dir", str(self.folder.parent), "--model_name", self.folder.name]
        return [*self.words, "--data_path", str(self.drives), *named, "--resume", "auto"]

    def check(self) -> None:
        """Refuse to take what was trained with other options for this.

        Raises:
            UserError: names the folder and the first option that differs
        """
        file = self.folder / "models" / "opt.json"
        if not file.exists():
            return
        trained = json.loads(file.read_bytes())
        asked = json.loads(json.dumps(vars(options.train(self.arguments)), default=str))
        for name in sorted(
            trained.keys() & asked.keys() - {"resume", "data_path", "log_dir", "split"}
        ):
            if trained[name] != asked[name]:
                raise UserError(
                    f"{self.folder}: trained with {name} {trained[name]}, and {asked[name]} is "
                    "asked for: remove it, or take another --out"
                )


@dataclass(frozen=True)
class Pose:
    """The errors of an estimate of motion, means over the test drives: see `TrajectoryErrors`."""

    step_m: float
    step_deg: float
    t_rel_percent: float
    ate_m: float


@dataclass(frozen=True)
class Scores:
    """What a training has come to, on drives that it has not seen.

    Attributes:
        abs_rel: of depths as predicted, in metres
        scaled_abs_rel: after median scaling
        a1: of depths as predicted
        scale_ratio, scale_spread: of `evaluation.summary.Summary`
        pose: by the names of `evaluation.odometry.ESTIMATES`, of those that there are
        speed_error: mean of |predicted - recorded speed| [m/s] in the lists `train` and `test`
        speed: mean of the recorded one there [m/s]
    """

    abs_rel: float
    scaled_abs_rel: float
    a1: float
    scale_ratio: float
    scale_spread: float
    pose: Mapping[str, Pose]
    speed_error: Mapping[str, float]
    speed: Mapping[str, float]

    def write(self, path: Path) -> None:
        """Write all of it as JSON."""
        with written_whole(path) as file:
            file.write(json.dumps(asdict(self), indent=2).encode() + b"\n")

    @classmethod
    def read(cls, path: Path) -> Scores:
        """Return what was written.

        Raises:
            UserError: it is damaged, or of another version of this program
        """
        try:
            found = json.loads(path.read_bytes())
            pose = {name: Pose(**errors) for name, errors in found.pop("pose").items()}
            return cls(pose=pose, **found)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(f"{path}: no scores of this version: remove it") from None


def make_drives(folder: Path, *words: str) -> None:
    """Make drives and match their IMU, unless that is done.

    Args:
        folder: of the drives
        words: options of `make_synthetic_kitti.py`

    Raises:
        UserError: other drives are there
    """
    note = folder / "made_with.txt"
    if not note.exists():
        make_synthetic_kitti.run(options.make_synthetic_kitti(["--out", str(folder), *words]))
        note.write_text(" ".join(words) + "\n", encoding="utf-8")
    elif (made := note.read_text(encoding="utf-8").split()) != list(words):
        raise UserError(
            f"{folder}: drives made with {' '.join(made)}, not with {' '.join(words)}: remove "
            "them, or take another --out"
        )
    named = ["--raw_path", str(folder), "--sync_path", str(folder)]
    if match_kitti_imu.run(options.match_kitti_imu(named)) != 0:
        raise UserError(f"{folder}: its IMU could not be matched")


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def end_on_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does, so that its trainings are ended with it."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


class Workshop:
    """Does what is left of several trainings, so many at once, and relays what they say.

    Args:
        at_once: processes, which share the cores
        names: of all trainings, so that their lines stand below each other
    """

    def __init__(self, at_once: int, names: Iterable[str]) -> None:
        self._at_once = at_once
        self._width = max(map(len, names))
        self._processes: list[subprocess.Popen] = []
        self._stopping = False

    def finish(self, runs: Sequence[Run], done: Callable[[Run], object] = lambda run: None) -> None:
        """Train and score all runs, those first that come first; what is done stays as it is.

        Args:
            runs: with different folders
            done: called after each, from one thread at a time

        Raises:
            UserError: some failed; the others have come to their ends
        """
        for run in runs:
            run.check()
        failed, turn = [], threading.Lock()

        def work(run: Run) -> None:
            code = 0 if run.scores_file.exists() else self._train(run) or self._score(run)
            with turn:
                failed.extend([run.name] * (code != 0))
                if code == 0:
                    done(run)

        with ThreadPoolExecutor(self._at_once) as pool:
            try:
                list(pool.map(work, runs))
            except BaseException:  # Ctrl-C: they save where they are
                self._stopping = True
                pool.shutdown(wait=False, cancel_futures=True)
                for process in self._processes:
                    process.terminate()
                raise
        if failed:
            raise UserError(f"not trained to the end: {', '.join(failed)}")

    def _train(self, run: Run) -> int:
        return self._relay(run, [str(ROOT / "train.py"), *run.arguments])

    def _score(self, run: Run) -> int:
        given = str(last_weights(run.folder)), str(run.drives), str(run.scores_file)
        return self._relay(run, ["-m", "benchmarks.study", *given])

    def _relay(self, run: Run, command: list[str]) -> int:
        """Let Python run a command, line by line; return its exit code."""
        if self._stopping:
            return 1
        threads = max(1, _cores() // self._at_once)
        process = subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._processes.append(process)
        for line in process.stdout:
            if wanted(line):
                say(f"{run.name:<{self._width}} | {line.rstrip()}")
        return process.wait()


def wanted(line: str) -> bool:
    """Whether a line of a training is for the reader of several: all but long lists of numbers."""
    return bool(line.strip()) and ", val: " not in line


_saying = threading.Lock()


def say(line: str) -> None:
    """Print a line whole, whoever else prints."""
    with _saying:
        print(line, flush=True)


def last_weights(run_folder: Path) -> Path:
    """Return the weights at the end of the schedule: never the best ones, which were chosen."""
    folders = list((run_folder / "models").glob("weights_*"))
    if not folders:
        raise UserError(f"{run_folder / 'models'}: no weights of a finished training")
    return max(folders, key=lambda folder: int(folder.name.rpartition("_")[2]))


def scores(weights: Path, data_path: Path) -> Scores:
    """Evaluate weights on the test drives of synthetic data."""
    named = ["--load_weights_folder", str(weights), "--data_path", str(data_path)]
    named += ["--num_workers", "0"]
    args = options.evaluate_depth([*named, "--eval_split", "synthetic"])
    summary = summarise(run_depth(args, depth_task(args)).result)
    drives = list(evaluate_odometry(options.evaluate_odometry(named)))
    pose = {}
    for name, errors in mean_errors(drives).items():
        plain = errors.aligned["unaligned"]
        pose[name] = Pose(plain.step_m, plain.step_deg, plain.t_rel_percent, plain.ate_m)
    speed_error, speed = {}, {}
    for part in ("train", "test"):
        found = _speeds(weights, data_path, part)
        if found is not None:
            speed_error[part], speed[part] = found
    return Scores(
        abs_rel=summary.unscaled.errors["abs_rel"],
        scaled_abs_rel=summary.scaled.errors["abs_rel"],
        a1=summary.unscaled.errors["a1"],
        scale_ratio=summary.scale_ratio,
        scale_spread=summary.scale_spread,
        pose=pose,
        speed_error=speed_error,
        speed=speed,
    )


@torch.inference_mode()
def _speeds(weights: Path, data_path: Path, part: str) -> tuple[float, float] | None:
    """Return the mean error of the predicted speed and the mean speed of a list [m/s]."""
    opened = open_all(weights, torch.device("cpu"))
    asked = opened.options
    if not asked.use_velocity:
        return None
    asked.frame_ids, asked.amp, asked.channels_last = [0, 1], "off", False
    dataset = build_dataset(
        DataOptions(
            data_path=data_path,
            split=data_path / "splits",
            height=asked.height,
            width=asked.width,
            frame_ids=(0, 1),
        ),
        part,
    )
    errors, speeds = [], []
    for sample in SampleLoader(dataset, _BATCH, range(0, len(dataset), 2), 0, opened.device):
        batch = prepare(sample, ())
        velocity = predict(opened.models, batch, asked, motion_only=True).velocity[0]
        speed = batch.imu[0].speed
        errors.append((velocity.norm(dim=-1) - speed).abs())
        speeds.append(speed)
    return float(torch.cat(errors).mean()), float(torch.cat(speeds).mean())


if __name__ == "__main__":
    _weights, _drives, _file = map(Path, sys.argv[1:])
    scores(_weights, _drives).write(_file)
