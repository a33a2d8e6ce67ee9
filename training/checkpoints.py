"""Checkpoints: published weights beside all that an exact continuation needs, in one folder.

A folder has its final name when it is whole. It is made as NAME.tmp and renamed; one that it
replaces is called NAME.old meanwhile, and comes back if the process is killed between the two.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from datasets.files import describe
from utils import UserError, check_intact, load_state, load_weights, save_state, save_weights

_log = logging.getLogger(__name__)
OPTIMIZER = "adam.pth"  # the published name
TRAINING_STATE = "training_state.pth"
BEST = "best"
_VERSION = 1  # of what TRAINING_STATE holds
_NUMBERED = re.compile(r"(weights|rolling)_(\d+)")


@dataclass
class Progress:
    """How far the training is.

    Attributes:
        epoch: the one in progress, from 0
        batches: of it that are done
        step: of the optimiser, over all epochs
        examples: samples seen, over all epochs
        best_error: of the best validation so far
        seconds: of training, over all starts
        unit_m: of the networks, where it is found from the IMU [m]
    """

    epoch: int = 0
    batches: int = 0
    step: int = 0
    examples: int = 0
    best_error: float | None = None
    seconds: float = 0.0
    unit_m: float | None = None

    def to_dict(self) -> dict[str, int | float | None]:
        """Return plain numbers, whatever kind of number was put in."""
        best = None if self.best_error is None else float(self.best_error)
        unit = None if self.unit_m is None else float(self.unit_m)
        whole = ("epoch", "batches", "step", "examples")
        return {name: int(getattr(self, name)) for name in whole} | {
            "best_error": best,
            "seconds": float(self.seconds),
            "unit_m": unit,
        }

    @classmethod
    def from_dict(cls, numbers: Mapping[str, int | float | None]) -> Progress:
        """Return what `to_dict` made plain numbers of."""
        return cls(**numbers)


@dataclass(frozen=True)
class Trained:
    """All that training changes, but for the generators of random numbers."""

    models: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler


class Checkpoints:
    """The checkpoints of a run; to be made by its main process alone, which writes them.

    Args:
        folder: RUN/models
        keep: how many weights_N stay, the newest; 0 for all
        encoder_entries: height, width and use_stereo, for encoder.pth; the unit is added
    """

    def __init__(
        self, folder: Path, keep: int = 0, encoder_entries: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = folder
        self._keep = keep
        self._encoder_entries = {} if encoder_entries is None else dict(encoder_entries)
        tidy(folder)

    def save_epoch(
        self, number: int, trained: Trained, progress: Progress, rng: Sequence[dict[str, Any]]
    ) -> Path:
        """Write weights_N, and remove rolling checkpoints and those that need not be kept.

        Args:
            number: N
            trained: is not changed
            progress: as the next step finds it: at the end of an epoch, the next with 0 batches
            rng: `utils.rng_states` of each process
        """
        path = self._write(f"weights_{number}", trained, progress, rng)
        others = [(found, kind) for found, kind in _numbered(self.folder) if found != path]
        epochs = sorted((p for p, kind in others if kind == "weights"), key=_number, reverse=True)
        self._remove(epochs[self._keep - 1 :] if self._keep > 0 else [])
        self._remove([found for found, kind in others if kind == "rolling"])
        return path

    def save_rolling(
        self, trained: Trained, progress: Progress, rng: Sequence[dict[str, Any]]
    ) -> Path:
        """Write rolling_STEP, and remove the others when it is whole."""
        path = self._write(f"rolling_{progress.step}", trained, progress, rng)
        others = [(found, kind) for found, kind in _numbered(self.folder) if found != path]
        self._remove([found for found, kind in others if kind == "rolling"])
        return path

    def save_best(
        self,
        trained: Trained,
        progress: Progress,
        error: float,
        rng: Sequence[dict[str, Any]] = (),
    ) -> Path:
        """Write best, with this error as the best so far; without `rng` no exact start from it."""
        return self._write(BEST, trained, replace(progress, best_error=error), rng)

    def _write(
        self, name: str, trained: Trained, progress: Progress, rng: Sequence[dict[str, Any]]
    ) -> Path:
        unfinished = self.folder / f"{name}.tmp"
        state = {
            "version": _VERSION,
            "torch": str(torch.__version__),
            "models": list(trained.models),
            "progress": progress.to_dict(),
            "scheduler": trained.scheduler.state_dict(),
            "scaler": trained.scaler.state_dict(),
            "rng": list(rng),
        }
        _delete(unfinished)
        try:
            unfinished.mkdir(parents=True)
            entries = dict(self._encoder_entries)
            if progress.unit_m is not None:
                entries["trans_scale_factor"] = progress.unit_m
            save_weights(unfinished, trained.models, entries)
            save_state(unfinished / OPTIMIZER, trained.optimizer.state_dict())
            save_state(unfinished / TRAINING_STATE, state)
            # What is no plain value can be written but not read. Better now than when it is needed.
            load_state(unfinished / TRAINING_STATE)
            _sync(unfinished)
            return _put_in_place(unfinished, self.folder / name)
        finally:
            _delete(unfinished)

    def _remove(self, paths: Sequence[Path]) -> None:
        """Remove folders, which a killed process must not leave half removed."""
        for path in paths:
            aside = path.with_name(f"{path.name}.tmp")
            try:
                _delete(aside)
                path.rename(aside)
            except OSError as error:  # no reason to end the training
                _log.warning("%s: not removed: %s", path, error.strerror)
            _delete(aside)


def latest(folder: Path) -> Path | None:
    """Return the checkpoint among weights_N and rolling_N that is furthest, None without any.

    One that is not whole is passed over with a warning that names the file.
    """
    candidates = []
    for path, kind in _numbered(folder):
        try:
            progress = _progress(path, _training_state(path))
        except (UserError, OSError) as error:
            _log.warning("%s; this checkpoint is passed over", describe(error))
            continue
        at = (progress.step, progress.epoch, progress.batches, kind == "weights")
        candidates.append((at, path))
    for _, path in sorted(candidates, reverse=True):
        try:
            _check_whole(path, _training_state(path))
            return path
        except (UserError, OSError) as error:
            _log.warning("%s; this checkpoint is passed over", describe(error))
    return None


def restore(path: Path, trained: Trained) -> tuple[Progress, list[dict[str, Any]]]:
    """Load a checkpoint into all that training changes.

    Args:
        path: the folder of a checkpoint
        trained: is changed, and of no use after an error

    Returns:
        Progress, and `utils.rng_states` of each process that there was.
    """
    state = _training_state(path)
    progress = _progress(path, state)
    _check_models(path, state["models"], trained.models)
    _check_whole(path, state)
    load_weights(trained.models, path, list(trained.models))
    _take_up(path / OPTIMIZER, trained.optimizer.load_state_dict, load_state(path / OPTIMIZER))
    scheduler = state["scheduler"]
    if "step_size" in scheduler and isinstance(trained.scheduler, LambdaLR):
        # Once it counted epochs; how far it is in steps is all that ours has to know.
        scheduler = {"last_epoch": progress.step, "lr_lambdas": [None]}
    _take_up(path / TRAINING_STATE, trained.scheduler.load_state_dict, scheduler)
    if state["scaler"]:  # empty if it was written without mixed precision: then it begins anew
        _take_up(path / TRAINING_STATE, trained.scaler.load_state_dict, state["scaler"])
    return progress, list(state["rng"])


def tidy(folder: Path) -> None:
    """Bring back or remove what killed processes left in a folder of checkpoints."""
    for aside in folder.glob("*.old"):
        if _NUMBERED.fullmatch(aside.stem) or aside.stem == BEST:
            if not aside.with_suffix("").exists():
                aside.rename(aside.with_suffix(""))
            _delete(aside)
    for unfinished in folder.glob("*.tmp"):
        if _NUMBERED.fullmatch(unfinished.stem) or unfinished.stem == BEST:
            _delete(unfinished)


def has_checkpoints(folder: Path) -> bool:
    """Whether there is a checkpoint by its name, whole or not."""
    return bool(_numbered(folder)) or (folder / BEST).is_dir()


def weights_alone(path: Path) -> UserError:
    """Return the error for a folder of weights that no training can go on from."""
    return UserError(
        f"{path}: has weights but no training state ({TRAINING_STATE}): start from it with "
        "--load_weights_folder"
    )


def _numbered(folder: Path) -> list[tuple[Path, str]]:
    """Return the checkpoints of a folder by their names, each with its kind."""
    found = [(path, _NUMBERED.fullmatch(path.name)) for path in sorted(folder.glob("*_*"))]
    return [(path, match[1]) for path, match in found if match and path.is_dir()]


def _number(path: Path) -> int:
    return int(path.name.split("_")[1])


def _training_state(path: Path) -> dict[str, Any]:
    file = path / TRAINING_STATE
    if not path.is_dir():
        raise UserError(f"{path}: {'not a folder' if path.exists() else 'no such folder'}")
    if not file.exists():
        if any(path.glob("*.pth")):
            raise weights_alone(path)
        raise UserError(f"{path}: not a checkpoint, it has no {TRAINING_STATE}")
    check_intact(file)
    state = load_state(file)
    if state.get("version") != _VERSION:
        raise UserError(
            f"{file}: of version {state.get('version')}, this program reads {_VERSION}: start from "
            "its weights with --load_weights_folder"
        )
    return state


def _progress(path: Path, state: Mapping[str, Any]) -> Progress:
    return Progress.from_dict(state["progress"])


def _check_whole(path: Path, state: Mapping[str, Any]) -> None:
    for name in state["models"]:
        check_intact(path / f"{name}.pth")
    check_intact(path / OPTIMIZER)


def _check_models(path: Path, saved: Sequence[str], models: nn.ModuleDict) -> None:
    extra = [name for name in saved if name not in models]
    lacking = [name for name in models if name not in saved]
    if extra or lacking:
        faults = ["holds " + ", ".join(extra)] * bool(extra)
        faults += ["lacks " + ", ".join(lacking)] * bool(lacking)
        raise UserError(
            f"{path}: {' and '.join(faults)}, unlike the models of this run: go on with the "
            "options that it began with"
        )


def _take_up(file: Path, load: Callable[[Any], object], state: Mapping[str, Any]) -> None:
    try:
        load(state)
    except (ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{file}: does not fit this run ({' '.join(str(error).split())}): go on with the "
            "options that it began with"
        ) from None


def _put_in_place(unfinished: Path, target: Path) -> Path:
    """Rename a whole folder to its final name, at which an older one may be."""
    aside = target.with_name(f"{target.name}.old")
    if target.exists():
        _delete(aside)
        target.rename(aside)
    try:
        unfinished.rename(target)
    except BaseException:  # Ctrl-C too
        if aside.exists():
            aside.rename(target)
        raise
    _sync(target.parent)
    _delete(aside)
    return target


def _delete(folder: Path) -> None:
    # What stays, on a broken disk, stays under a name that nobody takes for a checkpoint.
    shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Let the names in a folder reach the disk, where the system has a way to ask for it."""
    with suppress(OSError):  # Windows and some network drives have none
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
