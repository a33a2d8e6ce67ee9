"""Networks from a folder of weights, ours or published: the files themselves say what they hold."""

from __future__ import annotations

import json
import logging
import math
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datasets.files import read_bytes
from networks.factory import build_models
from networks.motion_forms import MOTION_FORMS, PUBLISHED
from networks.resnet_encoder import resnet_layers_of
from utils import ENCODER_ENTRIES, UserError, load_state, load_weights

_log = logging.getLogger(__name__)
OPTIONS_FILE = "opt.json"
_MULTIPLE, _LEAST_SIDE, _LARGEST_SIDE = 32, 64, 16_384  # [px] encoders halve an image five times


def _is_number(value: object) -> bool:
    # bool is an int to Python.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_above_zero(value: object) -> bool:
    return _is_number(value) and value > 0


def _is_limit(value: object) -> bool:
    return _is_above_zero(value) or value == math.inf


def _is_side(value: object) -> bool:
    return (
        isinstance(value, int) and _LEAST_SIDE <= value <= _LARGEST_SIDE and not value % _MULTIPLE
    )


def _are_offsets(value: object) -> bool:
    whole = isinstance(value, list) and all(type(x) is int for x in value if x != "s")
    return whole and 0 in value


def _are_scales(value: object) -> bool:
    whole = isinstance(value, list) and all(type(x) is int for x in value)
    return whole and len(value) > 0 and set(value) <= {0, 1, 2, 3}


def _one_of(*values: object) -> Callable[[object], bool]:
    return lambda value: any(value == one and type(value) is type(one) for one in values)


_flag = _one_of(False, True)

TRAINED_WITH: Mapping[str, tuple[Any, Callable[[object], bool]]] = {
    "height": (192, _is_side),
    "width": (640, _is_side),
    "scales": ([0, 1, 2, 3], _are_scales),
    "min_depth": (0.1, _is_above_zero),
    "max_depth": (100.0, _is_above_zero),
    "trans_scale_factor": (5.4, _is_above_zero),
    "frame_ids": ([0, -1, 1], _are_offsets),
    "pose_model_type": (
        "separate_resnet",
        _one_of("separate_resnet", "shared", "posecnn"),
    ),
    "pose_model_input": ("pairs", _one_of("pairs", "all")),
    "narrow_networks": (False, _flag),
    "motion_form": (PUBLISHED, _one_of(*MOTION_FORMS)),
    "motion_resolution": ("full", _one_of("full", "half")),
    "velocity_source": ("network", _one_of("network", "recorded", "camera")),
    "predict_velo_residue": (False, _flag),
    "noise_preset": ("published", _one_of("published", "calibrated")),
    "vis_covar_use_fixed": (False, _flag),
    "naive_vis_covar": (False, _flag),
    "use_stereo": (False, _flag),
    "use_imu": (True, _flag),
    "avoid_quat_check": (False, _flag),
    "png": (False, _flag),
    "dataset": ("kitti", lambda value: isinstance(value, str)),
    "split": (None, lambda value: isinstance(value, str)),
    "intrinsics": ("calibrated", _one_of("calibrated", "fixed")),
    "k_imu_clip": (5.0, _is_limit),
}
"""What of a training matters later: its default where no file says it, and what a value must be."""


@dataclass(frozen=True)
class Weights:
    """Networks as they were trained, ready to be asked.

    Attributes:
        folder: of the .pth files
        models: in evaluation mode, on the device
        options: what they were trained with: the names of `TRAINED_WITH`, and what `build_models`
            asks for
        device: of the models
        pose_says_second_first: a pair's motion is said as T_second_first, as monodepth2's pose
            network does, and not as T_first_second
    """

    folder: Path
    models: nn.ModuleDict
    options: Namespace
    device: torch.device
    pose_says_second_first: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the images that the networks were trained on [px]."""
        return self.options.width, self.options.height


def open_depth(
    folder: Path, device: torch.device, num_layers: int | None = None, **asked: object
) -> Weights:
    """Open the networks of depth; see `open_all` for the arguments."""
    return _open(folder, device, ("encoder", "depth"), num_layers, asked)


def open_all(
    folder: Path, device: torch.device, num_layers: int | None = None, **asked: object
) -> Weights:
    """Open every network that a folder has weights of.

    Args:
        folder: of .pth files, a checkpoint of ours or a published one; `opt.json` in it, or beside
            it, says what the files cannot
        device: where the networks will be
        num_layers: what the caller expects the encoder to be; not given: what it is
        asked: values for names of `TRAINED_WITH` in place of those of the training; None for none

    Raises:
        UserError: names the file that is missing, is broken, or holds something else
    """
    return _open(folder, device, None, num_layers, asked)


def as_asked(args: Namespace) -> dict[str, Any]:
    """Return the arguments of `open_depth` and `open_all` as the options of a program have them."""
    names = "num_layers", "height", "width", "trans_scale_factor"
    given = {name: getattr(args, name) for name in names}
    return {"folder": args.load_weights_folder, "device": choose_device(args.no_cuda)} | given


def choose_device(no_cuda: bool) -> torch.device:
    """Return the GPU if there is one and it is wanted, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and not no_cuda else "cpu")


def _open(
    folder: Path,
    device: torch.device,
    names: tuple[str, ...] | None,
    num_layers: int | None,
    asked: Mapping[str, object],
) -> Weights:
    folder = folder.expanduser()
    there = {path.stem for path in folder.glob("*.pth")}
    encoder = _encoder_state(folder, there)
    options = Namespace(**_trained_with(folder, encoder))
    vars(options).update({name: value for name, value in asked.items() if value is not None})
    options.num_layers = _layers(folder, encoder, num_layers)
    _settle(options, folder, there if names is None else there & set(names))
    try:
        models = build_models(options, pretrained=False)
    except ValueError as error:  # files of different trainings in one folder
        raise UserError(f"{folder}: its weights do not belong together: {error}") from None
    load_weights(models, folder, list(models), _explain)
    models = models.eval().requires_grad_(False).to(device)
    return Weights(folder, models, options, device, _says_second_first(folder, models, options))


def _encoder_state(folder: Path, there: set[str]) -> dict[str, Any]:
    if "encoder" in there:
        return load_state(folder / "encoder.pth")
    # Says that the folder or the file is not there, and what to give instead.
    load_weights(nn.ModuleDict({"encoder": nn.Module()}), folder, ["encoder"])
    raise AssertionError("unreachable: the file is missing")


def _trained_with(folder: Path, encoder: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `TRAINED_WITH`: the encoder's own entries, opt.json's, or defaults."""
    found = {name: default for name, (default, _) in TRAINED_WITH.items()}
    for file in (folder / OPTIONS_FILE, folder.parent / OPTIONS_FILE):
        if file.is_file():
            told = _read_options(file)
            found |= {name: told[name] for name in TRAINED_WITH if told.get(name) is not None}
            break
    else:
        _log.info("%s: no %s, taking the published options", folder, OPTIONS_FILE)
        file = folder / OPTIONS_FILE
    for name, value in found.items():
        default, right = TRAINED_WITH[name]
        if value is not default and not right(value):
            raise UserError(f"{file}: {name} cannot be {str(value)[:40]!r}")
    for name in ENCODER_ENTRIES:
        if name in encoder:
            value, right = encoder[name], TRAINED_WITH[name][1]
            if not right(value):
                raise UserError(f"{folder / 'encoder.pth'}: {name} cannot be {str(value)[:40]!r}")
            found[name] = value
    found["frame_ids"] = [offset for offset in found["frame_ids"] if offset != "s"]
    if found["min_depth"] >= found["max_depth"]:
        raise UserError(f"{file}: min_depth is not less than max_depth")
    return found


def _read_options(file: Path) -> dict[str, Any]:
    try:
        told = json.loads(read_bytes(file))
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise UserError(f"{file}: not the options of a training, expected a JSON object")
    return told


def _layers(folder: Path, encoder: Mapping[str, Any], expected: int | None) -> int:
    layers = resnet_layers_of(encoder)
    if layers is None:
        raise UserError(f"{folder / 'encoder.pth'}: holds no ResNet of 18 to 152 layers")
    if expected is not None and layers != expected:
        raise UserError(
            f"encoder.pth in {folder} holds a ResNet-{layers}, but --num_layers is {expected}. "
            f"Use --num_layers {layers}"
        )
    return layers


def _settle(options: Namespace, folder: Path, names: set[str]) -> None:
    """Add what `build_models` asks for, so that it builds the networks of these names."""
    moves = "pose" in names
    if "pose_encoder" in names:
        options.pose_model_type = "separate_resnet"
    elif moves and options.pose_model_type == "separate_resnet":
        posecnn = any(key.startswith("pose_conv.") for key in load_state(folder / "pose.pth"))
        options.pose_model_type = "posecnn" if posecnn else "shared"
    options.frame_ids_of_training = options.frame_ids
    if not moves:
        options.frame_ids = [0]
    options.predictive_mask = False
    options.initial_depth_m = None  # it began somewhere, and has been trained since
    options.use_velocity, options.use_gravity = "velo" in names, "gravity" in names
    own = sorted(names & {"velo_encoder", "gravity_encoder"})
    options.shared_motion_encoder = bool(names & {"velo", "gravity"}) and not own
    options.use_ekf = "ekf_model" in names
    options.num_layers_imu = options.num_layers
    if own:
        layers = resnet_layers_of(load_state(folder / f"{own[-1]}.pth"))
        options.num_layers_imu = layers or options.num_layers
    options.train_init_covar = options.train_imu_noise_covar = False
    options.channels_last, options.amp = False, "off"


def _says_second_first(folder: Path, models: nn.ModuleDict, options: Namespace) -> bool:
    """Return whether the pose network is of monodepth2's kind, which says no uncertainty.

    Only those with an encoder of their own can be told apart: PoseCNN says none in either family,
    and monodepth2's on shared features has room for one motion, and does not fit ours.
    """
    kind = options.pose_model_type, options.pose_model_input
    if "pose" not in models or kind != ("separate_resnet", "pairs"):
        return False
    motions = models["pose"].num_frames_to_predict_for
    return len(load_state(folder / "pose.pth")["net.3.bias"]) == 6 * motions


def _explain(state: dict[str, Any]) -> str | None:
    layers = resnet_layers_of(state)
    return f"It holds a ResNet-{layers}" if layers else None
