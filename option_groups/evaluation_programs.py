"""The options of the programs that evaluate depth, and of the one that exports its truth."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path

from option_groups.shared import (
    Options,
    add_data_path,
    add_png,
    command,
    expand_paths,
    file,
    folder,
    parse,
)
from option_groups.trained_networks import (
    add_machine,
    add_prediction,
    add_size,
    add_weights,
    settle,
)

EVAL_SPLITS = ("eigen", "eigen_benchmark", "benchmark", "odom_9", "odom_10", "synthetic", "val")
"""The lists that depth is evaluated on; the last is the validation list of the training."""

EXPORT_SPLITS = ("eigen", "eigen_benchmark", "odom_9", "odom_10", "synthetic")
MAKE3D_SIZE = {"height": 256, "width": 512}

_EXIT_CODES = "exit code: 0 all is done; 2 an option, a file or the data is wrong"
_OF_NETWORK = (
    *("num_layers", "trans_scale_factor", "height", "width"),
    *("post_process", "batch_size", "amp", "no_cuda"),
)
_OF_ERRORS = (
    *("eval_mono", "disable_median_scaling", "show_scale_hist"),
    *("json", "csv", "per_image", "report", "gt_depths"),
)


def evaluate_depth(argv: Sequence[str] | None = None) -> Namespace:
    """Read the options of `evaluate_depth.py`; what has no effect beside the others is refused."""
    parser = command(
        "evaluate_depth.py",
        usage="%(prog)s [-h] --load_weights_folder FOLDER [--OPTION [VALUE ...]] ...",
        description="Compare predicted depth with its truth. Errors of depth in metres and after\n"
        "median scaling are always shown together, with the protocol.",
        epilog=_EXIT_CODES,
    )
    weights = parser.add_argument_group("weights")
    add_weights(weights, required=False)
    _add_predictions_of_others(weights)
    _add_data(parser.add_argument_group("data"))
    prediction = parser.add_argument_group("prediction")
    add_size(prediction)
    add_prediction(prediction)
    results = parser.add_argument_group("results")
    _add_rows(results)
    _add_result_files(results)
    _add_kept_predictions(results)
    add_machine(parser.add_argument_group("machine"), batch_size=16)
    args, given = parse(parser, sys.argv[1:] if argv is None else argv)
    settle(parser, args)
    if args.eval_eigen_to_benchmark and args.eval_split in (None, "eigen"):
        args.eval_split = "eigen_benchmark"
    if args.eval_split is None:
        own = args.data_path / "splits" / "test_files.txt"
        args.eval_split = "synthetic" if own.is_file() else "eigen"
    for wrong, message in _contradictions(args, given):
        if wrong:
            parser.error(message)
    args.keeps_errors = not args.no_eval and args.eval_split != "benchmark"
    return args


def evaluate_make3d(argv: Sequence[str] | None = None) -> Namespace:
    """Read the options of `evaluate_make3d.py`."""
    parser = command(
        "evaluate_make3d.py",
        usage="%(prog)s [-h] --data_path FOLDER --load_weights_folder FOLDER [--OPTION ...] ...",
        description="Compare predicted depth with the laser depths of Make3D's test images, which\n"
        "no network here was trained on. rmse_log has base 10, as published.",
        epilog=_EXIT_CODES,
    )
    add_weights(parser.add_argument_group("weights"))
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data_path",
        type=folder,
        required=True,
        metavar="FOLDER",
        help="holds Test134 and Gridlaserdata, or the files of both",
    )
    prediction = parser.add_argument_group("prediction")
    add_size(prediction, default="512x256, as published")
    add_prediction(prediction)
    results = parser.add_argument_group("results")
    _add_rows(results)
    _add_result_files(results)
    _add_out_dir(results)
    results.add_argument(
        "--save_make3d",
        action="store_true",
        help="pictures of image, prediction, truth and error, to EVAL_OUT_DIR/make3d",
    )
    add_machine(parser.add_argument_group("machine"), batch_size=16)
    args = parser.parse_args(argv)
    settle(parser, args)
    if args.eval_out_dir is not None and not args.save_make3d:
        parser.error("--eval_out_dir has no use without --save_make3d")
    if args.height is None:
        args.height, args.width = MAKE3D_SIZE["height"], MAKE3D_SIZE["width"]
    return args


def export_gt_depth(argv: Sequence[str] | None = None) -> Namespace:
    """Read the options of `export_gt_depth.py`."""
    parser = command(
        "export_gt_depth.py",
        description="Write the true depths of a list to one file, for evaluate_depth.py\n"
        "--gt_depths: then the scans need not be at hand. Nothing in it is pickled.",
        epilog=_EXIT_CODES,
    )
    add_data_path(parser)
    add_png(parser)
    parser.add_argument(
        "--split",
        choices=EXPORT_SPLITS,
        default="eigen",
        help="the list (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=file,
        metavar="FILE",
        help="is replaced if it is there (default: splits/SPLIT/gt_depths.npz, splits/odom/"
        "gt_depths_NN.npz, DATA_PATH/splits/gt_depths.npz for synthetic)",
    )
    args = parser.parse_args(argv)
    expand_paths(parser, args)
    if args.output is None:
        args.output = _place_of_truth(args)
    return args


def _place_of_truth(args: Namespace) -> Path:
    if args.split == "synthetic":
        return args.data_path / "splits" / "gt_depths.npz"
    if args.split.startswith("odom_"):
        return Path("splits") / "odom" / f"gt_depths_{int(args.split[5:]):02d}.npz"
    return Path("splits") / args.split / "gt_depths.npz"


def _add_data(options: Options) -> None:
    add_data_path(options)
    options.add_argument(
        "--eval_split",
        choices=EVAL_SPLITS,
        help="the images, and with them the truth and the protocol: single LiDAR scans (eigen, "
        "odom_9, odom_10), improved depth (eigen_benchmark), none, to write PNG files for KITTI's "
        "server (benchmark), DATA_PATH/splits of synthetic drives, or what the training validates "
        "on, val (default: synthetic where DATA_PATH/splits has a list of tests, else eigen)",
    )
    add_png(options)
    options.add_argument(
        "--gt_depths",
        type=file,
        metavar="FILE",
        help="the truth, as export_gt_depth.py writes it (default: read the data tree)",
    )


def _add_predictions_of_others(options: Options) -> None:
    options.add_argument(
        "--ext_disp_to_eval",
        type=file,
        metavar="FILE",
        help="evaluate these inverse depths [1/m], an array (N, h, w) in the order of the list, in "
        "place of a network's. Published files are in 1/5.4 m: add --pred_depth_scale_factor 5.4",
    )
    options.add_argument(
        "--eval_eigen_to_benchmark",
        action="store_true",
        help="that array is of the 697 images of eigen: take the 652 of eigen_benchmark",
    )


def _add_rows(options: Options) -> None:
    options.add_argument(
        "--eval_mono",
        action="store_true",
        help="take the errors after median scaling for the LaTeX row and the order of the report's "
        "images; both kinds are shown all the same",
    )
    options.add_argument(
        "--disable_median_scaling",
        action="store_true",
        help="take the errors in metres for that, which is the default, even beside --eval_mono",
    )
    options.add_argument(
        "--show_scale_hist",
        action="store_true",
        help="print a histogram of the scale ratios of all images",
    )


def _add_result_files(options: Options) -> None:
    for name, what in (
        ("json", "everything that was found, as JSON"),
        ("csv", "both rows, as CSV"),
        ("per_image", "the errors of each image, as CSV"),
    ):
        options.add_argument(f"--{name}", type=file, metavar="FILE", help=f"write {what}")
    options.add_argument(
        "--report",
        type=folder,
        metavar="FOLDER",
        help="write index.html there: table, charts, the best, median and worst images",
    )


def _add_out_dir(options: Options) -> None:
    options.add_argument(
        "--eval_out_dir",
        type=folder,
        metavar="FOLDER",
        help="where predictions are written (default: the folder of the weights)",
    )


def _add_kept_predictions(options: Options) -> None:
    options.add_argument(
        "--save_pred_disps",
        action="store_true",
        help="write inverse depths [1/m] to EVAL_OUT_DIR/disps_SPLIT_split.npy",
    )
    options.add_argument(
        "--no_eval", action="store_true", help="only write predictions, compare nothing"
    )
    _add_out_dir(options)


def _contradictions(args: Namespace, given: Iterable[str]) -> Iterable[tuple[bool, str]]:
    external = args.ext_disp_to_eval is not None
    benchmark, given = args.eval_split == "benchmark", set(given)
    of_network = [f"--{name}" for name in _OF_NETWORK if external and name in given]
    silent = args.no_eval or benchmark
    of_errors = [f"--{name}" for name in _OF_ERRORS if silent and name in given]
    without = "--no_eval" if args.no_eval else "--eval_split benchmark, whose truth is not public"
    writes = args.save_pred_disps or benchmark
    return [
        (
            not external and args.load_weights_folder is None,
            "--load_weights_folder FOLDER is needed, or --ext_disp_to_eval FILE",
        ),
        (
            external and args.load_weights_folder is not None,
            "--load_weights_folder contradicts --ext_disp_to_eval: one of them says the depths",
        ),
        (bool(of_network), f"{', '.join(of_network)} has no use with --ext_disp_to_eval"),
        (
            external and args.save_pred_disps,
            "--save_pred_disps has no use with --ext_disp_to_eval: they are in a file already",
        ),
        (
            args.eval_eigen_to_benchmark
            and not (external and args.eval_split == "eigen_benchmark"),
            "--eval_eigen_to_benchmark is for --ext_disp_to_eval and --eval_split eigen_benchmark; "
            "networks predict for those images themselves",
        ),
        (
            external and args.eval_split == "val",
            "--eval_split val is of a training: give its --load_weights_folder",
        ),
        (
            external and benchmark and args.eval_out_dir is None,
            "--eval_split benchmark with --ext_disp_to_eval needs --eval_out_dir FOLDER",
        ),
        (bool(of_errors), f"{', '.join(of_errors)} has no use with {without}"),
        (
            args.no_eval and not writes,
            "--no_eval leaves nothing to do: add --save_pred_disps",
        ),
        (
            args.eval_out_dir is not None and not writes,
            "--eval_out_dir has no use without --save_pred_disps or --eval_split benchmark",
        ),
        (
            args.png and args.eval_split == "val",
            "--png has no use with --eval_split val, which reads what the training read",
        ),
        (
            args.gt_depths is not None and args.eval_split == "val",
            "--gt_depths has no use with --eval_split val, whose truth is the training's",
        ),
    ]
