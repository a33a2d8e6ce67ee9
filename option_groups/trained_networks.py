"""The options of every program that asks trained networks."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from option_groups.shared import Options, expand_paths, folder, number, whole
from option_groups.training import RESNETS, SIDE

_MOST = 1e6  # of factors and metres: beyond, float32 has no depth left to say


def add_weights(options: Options, required: bool = True) -> None:
    """Add where the networks come from."""
    options.add_argument(
        "--load_weights_folder",
        type=folder,
        required=required,
        metavar="FOLDER",
        help="the weights, like runs/r18/models/weights_19, or a published folder; what they were "
        "trained with is read from opt.json there or beside it",
    )
    options.add_argument(
        "--num_layers",
        "--num_layer",
        type=int,
        choices=RESNETS,
        help="refuse weights of another ResNet than this (default: take what the file holds)",
    )
    options.add_argument(
        "--trans_scale_factor",
        type=number(above=True, most=_MOST),
        metavar="METRES",
        help="metres of the networks' unit of depth and translation (default: that of the "
        "training, 5.4 where nothing says it)",
    )


def add_size(options: Options, default: str = "that of the training") -> None:
    """Add the size of the network's images; `default` says what it is if it is not given."""
    for name, other in (("height", "width"), ("width", "height")):
        options.add_argument(
            f"--{name}",
            type=SIDE,
            metavar="PX",
            help=f"of the network's images, with --{other} (default: {default})",
        )


def add_prediction(options: Options) -> None:
    """Add what is made of the networks' answers."""
    options.add_argument(
        "--post_process",
        action="store_true",
        help="predict for the mirrored image as well, and blend both",
    )
    options.add_argument(
        "--pred_depth_scale_factor",
        type=number(above=True, most=_MOST),
        default=1.0,
        metavar="FACTOR",
        help="multiply all depths by it, which are metres already (default: %(default)g)",
    )


def add_machine(options: Options, batch_size: int) -> None:
    """Add how the machine is used."""
    options.add_argument(
        "--batch_size",
        type=whole(1),
        default=batch_size,
        metavar="IMAGES",
        help="that the networks see at once (default: %(default)s)",
    )
    options.add_argument(
        "--num_workers",
        type=whole(0),
        default=2,
        metavar="COUNT",
        help="processes that read; 0 reads in this one (default: %(default)s)",
    )
    options.add_argument(
        "--amp",
        choices=("off", "bf16", "fp16"),
        default="off",
        help="let the networks compute in half precision (default: %(default)s)",
    )
    options.add_argument(
        "--no_cuda", action="store_true", help="use the CPU, even if there is a GPU"
    )


def settle(parser: ArgumentParser, args: Namespace) -> None:
    """Find the home folder in all paths, and refuse half of a size."""
    if (args.height is None) != (args.width is None):
        parser.error("--height and --width belong together: give both or neither")
    expand_paths(parser, args)
