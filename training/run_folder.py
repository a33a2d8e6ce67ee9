"""The folder of a run: what is there, where it goes on, and how it was started each time."""

from __future__ import annotations

import json
import logging
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from datasets.files import read_bytes
from datasets.locks import locked
from training.checkpoints import TRAINING_STATE, has_checkpoints, latest, tidy, weights_alone
from utils import UserError, written_whole

_log = logging.getLogger(__name__)
_ROOT = Path(__file__).parent.parent  # of the program
_GIT_SECONDS = 10  # longer than git needs, shorter than a hanging network drive

AUTO = "auto"
MAY_CHANGE = frozenset(
    {
        # where things are, and what a run is called
        "data_path",
        "log_dir",
        "model_name",
        "cache_dir",
        "pretrained_path",
        "load_weights_folder",
        # what it begins with: only its first start asks for it
        "models_to_load",
        "resume_imu",
        "resume_velo",
        "resume_gravity",
        "resume_epochs",
        # how it is started, how long it goes on, what is shown and kept of it
        "resume",
        "overwrite",
        "num_epochs",
        "log_frequency",
        "save_frequency",
        "first_save_epoch",
        "keep_checkpoints",
        "save_minutes",
        "display_velo_scale",
        # what the machine computes it with
        "no_cuda",
        "num_workers",
        "compile",
        "channels_last",
        "deterministic",
        "amp",
    }
)
"""Options that a resumed run need not have in common with its beginning."""


@dataclass(frozen=True)
class RunFolder:
    """A run on disk, which `begin` writes to.

    Attributes:
        folder: of the run: metrics.jsonl, run.json, train/, val/, replay/
        models: in it; checkpoints and opt.json
        checkpoint: to go on from, None if the run begins
        options: as they are written, by name
        replaces: an older run is to be removed
    """

    folder: Path
    models: Path
    checkpoint: Path | None
    options: Mapping[str, Any]
    replaces: bool = False

    def begin(
        self, device: torch.device, processes: int, step: int, data: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Remove a run that is replaced, and write how this one is started.

        To be called when all that can be wrong with options and data has been found, and before
        anything else is written to the folder.

        Args:
            device: of the main process
            processes: that train together
            step: of the optimiser at which it begins
            data: for each part, like train and val, its fingerprint and its number of samples
        """
        if self.replaces:
            _remove_run(self.folder)
        elif self.checkpoint is None and _has_run(self.folder):
            raise UserError(f"{self.folder}: another training has begun in it meanwhile")
        self.models.mkdir(parents=True, exist_ok=True)
        history = _history(self.folder / "run.json")
        if self.checkpoint is not None and self.checkpoint.parent == self.models:
            self._check_data(history["starts"], data)
        history["starts"].append(
            {
                "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "command": shlex.join(sys.argv),
                "versions": _versions(device),
                "git": _git_state(_ROOT),
                "data": {part: dict(facts) for part, facts in data.items()},
                "processes": processes,
                "step": step,
                "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
                "options": dict(self.options),
            }
        )
        _write_json(self.folder / "run.json", history)
        _write_json(self.models / "opt.json", dict(self.options))

    def _check_data(
        self, starts: Sequence[Mapping[str, Any]], data: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Raise a `UserError` if the lists are not those that the run was trained on."""
        before = starts[-1].get("data", {}) if starts else {}
        for part, facts in data.items():
            was = before.get(part, facts)
            if was["fingerprint"] != facts["fingerprint"]:
                raise UserError(
                    f"{self.folder}: its {part} data had the fingerprint {was['fingerprint']} with "
                    f"{was['samples']} samples, and have {facts['fingerprint']} with "
                    f"{facts['samples']} now: bring back the data, or begin another --model_name"
                )


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other trainings out of a run's folder, which is made if it is missing.

    Raises:
        UserError: another one is in it
    """

    def refuse() -> None:
        raise UserError(
            f"{folder}: another training is writing to it: wait until it ends, or give another "
            "--model_name"
        )

    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", refuse):
        yield


def open_run(
    log_dir: Path,
    model_name: str,
    options: Mapping[str, Any],
    resume: str | None = None,
    overwrite: bool = False,
) -> RunFolder:
    """Return the folder of a run and where to go on; nothing is written yet.

    Only the main process calls this: what a killed process left half done is put in order.

    Args:
        log_dir: holds the folders of runs
        model_name: of the folder in it
        options: of this start; paths become text
        resume: auto for the newest checkpoint of this run, if there is one; or the path of a
            checkpoint, a run, or its folder models
        overwrite: replace the run that is there
    """
    folder = _folder_of(log_dir, model_name)
    if folder.is_dir():
        with held(folder):  # whoever is in it has files that are not finished
            tidy(folder / "models")
    models, plain = folder / "models", _plain(options)
    if resume is not None and overwrite:
        raise UserError("--resume goes on with a run and --overwrite removes it: give one of them")
    if resume is None:
        taken = _has_run(folder)
        if taken and not overwrite:
            raise UserError(
                f"{folder}: holds a run already: --resume auto goes on with it, --overwrite "
                "replaces it, another --model_name leaves it alone"
            )
        return RunFolder(folder, models, None, plain, replaces=taken)
    checkpoint = _own_latest(models) if resume == AUTO else _checkpoint_at(Path(resume))
    if checkpoint is None:
        return RunFolder(folder, models, None, plain)
    if _has_run(folder) and checkpoint.parent.resolve() != models.resolve():
        raise UserError(
            f"{folder}: holds a run already, and {checkpoint} is of another: give another "
            "--model_name to go on with that one"
        )
    _compare(checkpoint.parent / "opt.json", plain)
    if resume != AUTO:
        furthest = latest(models)
        if furthest is not None and not furthest.samefile(checkpoint):
            _log.warning("%s stays, and --resume auto would take it: it is furthest", furthest)
    return RunFolder(folder, models, checkpoint, plain)


def _folder_of(log_dir: Path, model_name: str) -> Path:
    place = Path(model_name)
    if not place.parts or place.is_absolute() or ".." in place.parts:
        raise UserError(f"--model_name: expected the name of a folder in --log_dir, got {place}")
    folder = log_dir / place
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: not a folder: give another --model_name or --log_dir")
    return folder


def _has_run(folder: Path) -> bool:
    models = folder / "models"
    return (models / "opt.json").exists() or has_checkpoints(models)


def _own_latest(models: Path) -> Path | None:
    found = latest(models)
    if found is None and has_checkpoints(models):
        raise UserError(
            f"{models}: none of its checkpoints can be gone on from: --overwrite begins anew, "
            "--load_weights_folder takes weights alone into another --model_name"
        )
    return found


def _checkpoint_at(path: Path) -> Path:
    """Return the checkpoint that a path means: itself, or the latest of a run."""
    if not path.is_dir():
        what = "not a folder" if path.exists() else "no such folder"
        raise UserError(f"{path}: {what}: --resume takes a checkpoint, a run, or auto")
    if (path / TRAINING_STATE).exists():
        return path
    if any(path.glob("*.pth")):
        raise weights_alone(path)
    found = latest(path / "models" if (path / "models").is_dir() else path)
    if found is None:
        raise UserError(f"{path}: holds no checkpoint to go on from")
    return found


# What was there before


def _compare(file: Path, options: Mapping[str, Any]) -> None:
    """Raise a `UserError` if an option that decides what is trained is not as it was."""
    if not file.exists():
        _log.warning("%s: no such file, so the options are not compared with it", file)
        return
    for name, before in _read_json(file).items():
        # An option that one of the two programs did not have yet says nothing.
        if name not in options or name in MAY_CHANGE or options[name] == before:
            continue
        # The lists in a folder move with the data, and are compared by their fingerprint.
        if name != "split" or not all(
            Path(str(split)).is_absolute() for split in (before, options[name])
        ):
            raise UserError(
                f"{file}: --{name} was {_shown(before)} and is {_shown(options[name])} now: a run "
                "goes on as it began; give it the same, or begin another --model_name"
            )


def _shown(value: object) -> str:
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "empty"
    return str(value)


def _remove_run(folder: Path) -> None:
    """Remove what a run wrote, and nothing else; the file that makes it a run comes last."""
    for name in ("train", "val", "replay"):
        _remove(folder / name)
    for name in ("metrics.jsonl", "run.json"):
        _remove(folder / name)
    models = folder / "models"
    for path in models.iterdir():
        if path.name != "opt.json":
            _remove(path)
    _remove(models)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _history(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {"starts": []}
    history = _read_json(file)
    if not isinstance(history.get("starts"), list):
        raise UserError(f"{file}: not the record of a run's starts: move it away")
    return history


# JSON


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as they come back from a file."""
    return json.loads(json.dumps(dict(options), default=str))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(file))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{file}: not a JSON object: move it away, or bring back the file it was")
    return content


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    with written_whole(file) as stream:
        stream.write((json.dumps(content, indent=2) + "\n").encode())


# What it runs on


def _versions(device: torch.device) -> dict[str, str | None]:
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": _version_of("torchvision"),
        "numpy": _version_of("numpy"),
        "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "system": platform.platform(),
    }


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_state(root: Path) -> dict[str, Any] | None:
    """Return the commit of the program and whether files of it are changed, None if no clone."""

    def git(*command: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *command],
            check=True,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
        ).stdout.strip()

    try:
        # An archive unpacked in somebody's own clone is not that clone.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return None
        changes = git("--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changes)}
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
