"""The options of the program that predicts depth for images of a user's own."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from option_groups.shared import (
    Options,
    command,
    file,
    folder,
    number,
    parse,
    whole,
)
from option_groups.trained_networks import (
    add_machine,
    add_prediction,
    add_size,
    add_weights,
    settle,
)

KINDS = ("png16", "npy", "colour", "ply")

_OF_IMAGES = (
    *("out", "save", "nearest", "intrinsics", "calibration", "max_distance"),
    *("every", "max_frames", "skip_broken", "post_process", "compile"),
    *("batch_size", "num_workers", "amp", "no_cuda"),
)
_OF_CLOUDS = ("intrinsics", "calibration", "max_distance")


def predict(argv: Sequence[str] | None = None) -> Namespace:
    """Read the options of `predict.py`; what has no effect beside the others is refused."""
    parser = command(
        "predict.py",
        usage="%(prog)s [-h] --load_weights_folder FOLDER INPUT [INPUT ...] [--OPTION ...] ...\n"
        "       %(prog)s [-h] --load_weights_folder FOLDER --onnx FILE",
        description="Predict metric depth for images, videos and cameras of your own.",
        epilog="exit code: 0 all is done; 2 an option, an input or the weights are wrong\n\n"
        "16-bit files are as KITTI's: depth in metres times 256, 0 for none; what is further than\n"
        "255.99 m has that depth there. Colours are linear in inverse depth: black is infinitely\n"
        "far, and 5 % of an image, or of a video's first frame, are as bright as can be.",
    )
    _add_inputs(parser)
    weights = parser.add_argument_group("network")
    add_weights(weights, required=False)
    add_size(weights)
    add_prediction(weights)
    _add_outputs(parser.add_argument_group("output"))
    _add_cloud(parser.add_argument_group("point clouds"))
    machine = parser.add_argument_group("machine")
    add_machine(machine, batch_size=8)
    machine.add_argument(
        "--compile",
        action="store_true",
        help="let PyTorch compile the networks: a minute at the beginning, and once more "
        "for a last batch that is smaller; faster then",
    )
    args, given = parse(parser, sys.argv[1:] if argv is None else argv)
    for wrong, message in _contradictions(args, given):
        if wrong:
            parser.error(message)
    settle(parser, args)
    args.save = tuple(dict.fromkeys(args.save))
    return args


def _add_inputs(parser: ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="an image, a folder (all images in it), a quoted pattern like 'drive/*.png', a video, "
        "or the number of a camera",
    )
    group = parser.add_argument_group("input")
    group.add_argument(
        "--every",
        type=whole(1),
        default=1,
        metavar="N",
        help="take each N-th frame of a video or a camera (default: %(default)s)",
    )
    group.add_argument(
        "--max_frames",
        type=whole(1),
        metavar="N",
        help="stop a video or a camera after so many (default: at its end, a camera on Ctrl-C)",
    )
    group.add_argument(
        "--skip_broken",
        action="store_true",
        help="pass over image files that cannot be read, count them, and say so",
    )


def _add_outputs(options: Options) -> None:
    options.add_argument(
        "--out",
        type=folder,
        default=Path("predictions"),
        metavar="FOLDER",
        help="gets all files; made if missing (default: %(default)s, in the current folder)",
    )
    options.add_argument(
        "--save",
        nargs="+",
        choices=KINDS,
        default=["png16", "colour"],
        metavar="KIND",
        help="png16: depth in 16 bits, as KITTI's; npy: float32 metres; colour: a picture beside "
        "the image, of a video an MP4; ply: a point cloud (default: png16 colour)",
    )
    options.add_argument(
        "--nearest",
        type=number(least=1e-3, most=1e6),
        metavar="METRES",
        help="the depth that is brightest, for pictures that are to be compared (default: each "
        "image, and each video's first frame, decides)",
    )
    options.add_argument(
        "--overwrite", action="store_true", help="replace files that are there; refused otherwise"
    )
    options.add_argument(
        "--onnx",
        type=file,
        metavar="FILE",
        help="write the networks as ONNX, in float32: RGB from 0 to 1 in, metres out. Needs "
        "`pip install -r requirements-onnx.txt`",
    )


def _add_cloud(options: Options) -> None:
    which = options.add_mutually_exclusive_group()
    which.add_argument(
        "--intrinsics",
        nargs=4,
        type=float,
        metavar=("FX", "FY", "CX", "CY"),
        help="of the input's camera, in its pixels; the centre of the first pixel is (0, 0)",
    )
    which.add_argument(
        "--calibration",
        type=file,
        metavar="FILE",
        help="KITTI's calib_cam_to_cam.txt (P_rect_02), or an odometry sequence's calib.txt (P2)",
    )
    options.add_argument(
        "--max_distance",
        type=number(above=True, may_be_infinite=True),
        default=80.0,
        metavar="METRES",
        help="leave out points whose depth is larger; inf keeps all (default: %(default)g)",
    )


def _contradictions(args: Namespace, given: Collection[str]) -> Iterable[tuple[bool, str]]:
    alone = [f"--{name}" for name in _OF_IMAGES if name in given and not args.inputs]
    flat = [f"--{name}" for name in _OF_CLOUDS if name in given and "ply" not in args.save]
    located = args.intrinsics is not None or args.calibration is not None
    focal = args.intrinsics is None or min(args.intrinsics[:2]) > 0
    return [
        (args.load_weights_folder is None, "--load_weights_folder FOLDER is needed"),
        (
            not args.inputs and args.onnx is None,
            "no INPUT: name images, a folder, a video or a camera, or export with --onnx FILE",
        ),
        (bool(alone), f"{', '.join(alone)} has no use without INPUT"),
        (
            "ply" in args.save and not located,
            "--save ply needs the camera: --intrinsics FX FY CX CY or --calibration FILE",
        ),
        (bool(flat), f"{', '.join(flat)} has no use without --save ply"),
        (
            not focal or not all(abs(x) < float("inf") for x in args.intrinsics or ()),
            "--intrinsics: expected finite numbers, and focal lengths above zero",
        ),
        (
            args.nearest is not None and "colour" not in args.save,
            "--nearest has no use without --save colour",
        ),
    ]
