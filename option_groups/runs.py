"""The options of training that are of the machine, of what is loaded and of what is kept."""

from __future__ import annotations

from argparse import ArgumentParser

from option_groups.shared import folder, number, something, whole

MODELS = (
    "encoder",
    "depth",
    "pose_encoder",
    "pose",
    "predictive_mask",
    "velo_encoder",
    "velo",
    "gravity_encoder",
    "gravity",
    "ekf_model",
)
"""All networks that a run may have; each is a file of a checkpoint."""


def add_system(parser: ArgumentParser) -> None:
    """Add how the machine is used."""
    group = parser.add_argument_group("system")
    group.add_argument("--no_cuda", action="store_true", help="use the CPU, even if there is a GPU")
    group.add_argument(
        "--num_workers",
        type=whole(0),
        default=12,
        metavar="COUNT",
        help="processes that load data, for each process that trains; 0 loads in that itself "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="compile the networks: a minute or more at first, faster steps then",
    )
    group.add_argument(
        "--channels_last",
        action="store_true",
        help="keep images with the channels last in memory, which is faster on most GPUs",
    )
    group.add_argument(
        "--seed",
        type=whole(0),
        default=0,
        help="of all that is random: equal runs draw equal numbers (default: %(default)s)",
    )
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="ask PyTorch for operations that give the same bits again, which is slower; on a GPU "
        "a few have none, those of warping among them, and warn",
    )


def add_loading(parser: ArgumentParser) -> None:
    """Add what a run begins with."""
    group = parser.add_argument_group("loading")
    group.add_argument(
        "--load_weights_folder",
        type=folder,
        metavar="FOLDER",
        help="begin with the weights in it, like runs/r18/models/weights_19, or a published one "
        "(default: none)",
    )
    group.add_argument(
        "--models_to_load",
        nargs="+",
        choices=MODELS,
        default=["encoder", "depth", "pose_encoder", "pose"],
        metavar="MODEL",
        help=f"which of them: {', '.join(MODELS)} (default: encoder depth pose_encoder pose)",
    )
    group.add_argument(
        "--resume",
        type=something("a path or auto"),
        metavar="PATH",
        help="go on exactly where a run stopped: a checkpoint, a run, or auto for the newest "
        "checkpoint of LOG_DIR/MODEL_NAME, if there is one (default: none)",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the run in LOG_DIR/MODEL_NAME; without it or --resume it is left alone",
    )


def add_logging(parser: ArgumentParser) -> None:
    """Add what is reported and kept."""
    group = parser.add_argument_group("logging")
    group.add_argument(
        "--log_frequency",
        type=whole(1),
        default=250,
        metavar="STEPS",
        help="report the losses and a validation batch every so many (default: %(default)s)",
    )
    group.add_argument(
        "--save_frequency",
        type=whole(1),
        default=1,
        metavar="EPOCHS",
        help="keep the weights of every so many epochs (default: %(default)s)",
    )
    group.add_argument(
        "--first_save_epoch",
        type=whole(0),
        default=10,
        metavar="EPOCH",
        help="the first whose weights are kept, counted from 0; the last one if there are fewer "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--keep_checkpoints",
        type=whole(0),
        default=0,
        metavar="K",
        help="keep only the newest K of them (default: %(default)s, all)",
    )
    group.add_argument(
        "--save_minutes",
        type=number(),
        default=30.0,
        metavar="MINUTES",
        help="keep a state to resume from this often, too; 0 is only at the end of an epoch "
        "(default: %(default)g)",
    )
