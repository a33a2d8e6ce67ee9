"""What every room may use: a user's mistake, seeds, files written whole, weights in them."""

from __future__ import annotations

import os
import random
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

ENCODER_ENTRIES = ("height", "width", "use_stereo", "trans_scale_factor")
"""In encoder.pth beside its weights; published files have the first three."""


class UserError(ValueError):
    """Something that the user gave is wrong; the message is one line: what, where, what to do."""


# Random numbers


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed Python, NumPy and PyTorch on all devices, and choose between repeatable and fast.

    Args:
        seed: from 0 on
        deterministic: the same run gives the same bits, as far as PyTorch can. On CUDA the
            gradients of `grid_sample`, of reflection padding and of bilinear resizing have no such
            form: PyTorch warns of each once, and training goes on.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # of CUDA too, as soon as that is used
    if deterministic:
        # Read when cuBLAS is first used. A choice of the user's stays.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic  # times the algorithms, so the choice varies


def rng_states() -> dict[str, Any]:
    """Return the states of all generators, as tensors and numbers that a checkpoint may hold.

    CUDA's are left out as long as this process has not used it: nothing was drawn there.
    """
    version, words, gauss = random.getstate()
    legacy = np.random.get_state(legacy=False)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "python": {"version": version, "words": list(words), "gauss": gauss},
        "numpy": {
            "words": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
            "place": int(legacy["state"]["pos"]),
            "has_gauss": int(legacy["has_gauss"]),
            "gauss": float(legacy["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def set_rng_states(states: Mapping[str, Any]) -> None:
    """Take up the states of all generators; CUDA devices that are not here are passed over."""
    python, numpy = states["python"], states["numpy"]
    random.setstate((python["version"], tuple(python["words"]), python["gauss"]))
    words = numpy["words"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", words, numpy["place"], numpy["has_gauss"], numpy["gauss"]))
    torch.set_rng_state(states["torch"])
    for i, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, i)


# Files


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that is at its place when all has been written, and not before.

    Raises:
        OSError: it names the file; what was at its place is still there
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            yield file
        unfinished.replace(path)
    except OSError as error:
        if error.filename == str(unfinished):  # a name that the user has never heard of
            error = OSError(error.errno, error.strerror, str(path))
        raise named(error, path) from None
    finally:
        with suppress(OSError):  # where nothing can be written, nothing can be removed either
            unfinished.unlink(missing_ok=True)


def named(error: OSError, path: Path) -> OSError:
    """Return the error with its file, which a full or a broken disk does not say."""
    if error.filename is not None:
        return error
    if error.errno is None:  # of NumPy, which counts bytes
        return OSError(f"{path}: {error}: is the disk full?")
    return OSError(error.errno, error.strerror, str(path))


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a dictionary of tensors and plain values, as `written_whole` writes files."""
    with written_whole(path) as file:
        _save_into(file, dict(state))
        file.flush()
        os.fsync(file.fileno())  # a rename may reach the disk before what was written does


def _save_into(file: BinaryIO, state: dict[str, Any]) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:  # what PyTorch makes of a disk that is full half-way
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def save_weights(folder: Path, models: nn.ModuleDict, encoder_entries: Mapping[str, Any]) -> None:
    """Write NAME.pth for each model, into a folder that is there.

    Args:
        folder: of the files
        models: their parameters and buffers are written as they would be on the CPU
        encoder_entries: height, width and use_stereo, which stand among the encoder's weights
    """
    for name, model in models.items():
        state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
        if name == "encoder":
            state |= encoder_entries
        save_state(folder / f"{name}.pth", state)


def load_state(path: Path) -> dict[str, Any]:
    """Read a dictionary that PyTorch wrote onto the CPU; nothing in the file is ever run."""
    if not path.is_file():
        raise UserError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that it does not know well, in many lines
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise named(error, path) from None
    except Exception as error:  # a damaged file may raise anything: KeyError, EOFError, ...
        stranger = re.search(r"GLOBAL ([\w.]+)", str(error))
        if stranger:
            raise UserError(
                f"{path}: refused, since it holds {stranger[1]}, which is no tensor; nothing of it "
                "was run. Give a file of plain weights"
            ) from None
        raise UserError(
            f"{path}: not a file that PyTorch wrote, or one that was cut off or damaged"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise UserError(f"{path}: holds {type(state).__name__}, expected tensors by name")
    return dict(state)


def check_intact(path: Path) -> None:
    """Raise a `UserError` for a file that `save_state` wrote if it was changed or cut since.

    PyTorch reads changed numbers without a word; the file has a checksum of each tensor, though.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            intact = archive.testzip() is None
    except OSError as error:
        raise named(error, path) from None
    except Exception:  # a damaged archive may raise anything
        intact = False
    if not intact:
        raise UserError(f"{path}: cut off or damaged, its checksums are wrong")


def _advice(folder: Path) -> str:
    """Return what to give in place of a folder that holds checkpoints, not weights."""
    inner = [*folder.glob("*/encoder.pth"), *folder.glob("models/*/encoder.pth")]
    found = sorted((path.parent for path in inner), key=lambda path: path.stat().st_mtime)
    return f": give {found[-1]}" if found else ""


def load_weights(
    models: nn.ModuleDict,
    folder: Path,
    names: Sequence[str],
    explain: Callable[[dict[str, Any]], str | None] | None = None,
) -> dict[str, Any]:
    """Read NAME.pth into each of these models; after an error they are of no use.

    Args:
        models: those of this run
        folder: holds the files, ours or published ones
        names: which models
        explain: what can be said of weights that do not fit, the end of an error

    Returns:
        `ENCODER_ENTRIES`, as far as encoder.pth has them and was asked for.
    """
    for name in names:
        if name not in models:
            raise UserError(f"{name}: not a model of this run, which has {', '.join(models)}")
    _check_there(folder, names)
    entries: dict[str, Any] = {}
    for name in names:
        path = folder / f"{name}.pth"
        state = load_state(path)
        if name == "encoder":
            entries = {key: state.pop(key) for key in ENCODER_ENTRIES if key in state}
        misfit = _load_into(models[name], state)
        if misfit:
            reason = explain(state) if explain else None
            raise UserError(
                f"{path}: does not fit the model {name} of this run: {misfit}"
                + (f". {reason}" if reason else "")
            )
    return entries


def _check_there(folder: Path, names: Sequence[str]) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    missing = [f"{name}.pth" for name in names if not (folder / f"{name}.pth").exists()]
    if missing:
        there = sorted(path.name for path in folder.glob("*.pth"))
        raise UserError(
            f"{folder}: has no {', '.join(missing)}; its weights are {', '.join(there) or 'none'}"
            f"{_advice(folder)}"
        )


def _load_into(model: nn.Module, state: dict[str, Any]) -> str:
    """Load all entries and return what does not fit, in a few words."""
    for key, value in state.items():
        if not isinstance(value, Tensor):
            return f"{key} is {type(value).__name__}, not a tensor"
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        own, told = model.state_dict(), str(error)
        # Not what differs here: a model may know how to reshape the weights of another age.
        differing = [key for key in own if f"size mismatch for {key}:" in told and key in state]
        if not differing:
            return " ".join(told.split())
        key = differing[0]
        return (
            f"{key} is {_size(state[key])} there and {_size(own[key])} here"
            + f", and {len(differing) - 1} more differ" * (len(differing) > 1)
        )
    faults = [
        f"{len(keys)} {'entry' if len(keys) == 1 else 'entries'} {what} (first {keys[0]})"
        for keys, what in ((missing, "missing"), (unexpected, "too many"))
        if keys
    ]
    return " and ".join(faults)


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
