"""The options of `evaluate_odometry.py`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from option_groups.shared import (
    Options,
    add_data_path,
    add_imu_filename,
    add_png,
    command,
    file,
    folder,
    whole,
)
from option_groups.trained_networks import add_machine, add_size, add_weights, settle

SPLITS = ("odom_9", "odom_10", "synthetic")


def evaluate_odometry(argv: Sequence[str] | None = None) -> Namespace:
    """Read the options of `evaluate_odometry.py`; `--frames` becomes a pair."""
    parser = command(
        "evaluate_odometry.py",
        usage="%(prog)s [-h] --load_weights_folder FOLDER [--OPTION [VALUE ...]] ...",
        description="Compare trajectories of whole drives with the truth: by the camera's motions\n"
        "in a row, by the IMU alone, and by the filter of both. Errors of an estimate as it is,\n"
        "with its scale aligned, and aligned by a similarity are always shown together.",
        epilog="exit code: 0 all is done; 2 an option, a file or the data is wrong",
    )
    add_weights(parser.add_argument_group("weights"))
    _add_drives(parser.add_argument_group("data"))
    estimates = parser.add_argument_group("estimates")
    add_size(estimates)
    _add_estimates(estimates)
    _add_results(parser.add_argument_group("results"))
    add_machine(parser.add_argument_group("machine"), batch_size=16)
    args = parser.parse_args(argv)
    _settle(parser, args)
    return args


def _add_drives(options: Options) -> None:
    add_data_path(options)
    which = options.add_mutually_exclusive_group()
    which.add_argument(
        "--drives", nargs="+", metavar="DRIVE", help="raw drives, like 2011_09_26_drive_0001"
    )
    which.add_argument(
        "--sequences",
        nargs="+",
        type=whole(0),
        metavar="NUMBER",
        help="of KITTI's odometry, like 09: from DATA_PATH/sequences, or else from the raw drives",
    )
    which.add_argument(
        "--eval_split",
        choices=SPLITS,
        help="sequence 09, sequence 10, or the drives of DATA_PATH/splits/test_files.txt, "
        "synthetic, which is the default",
    )
    options.add_argument(
        "--frames",
        type=whole(0),
        nargs=2,
        metavar=("FIRST", "LAST"),
        help="a part of every drive or sequence (default: all)",
    )
    add_png(options)
    add_imu_filename(options)
    options.add_argument(
        "--truth",
        choices=("auto", "poses", "oxts"),
        default="auto",
        help="poses: DATA_PATH/poses/NN.txt of a sequence, truth/poses.txt of a synthetic drive; "
        "oxts: GPS and INS of the synced packets; auto: poses where there are some, else oxts "
        "(default: %(default)s)",
    )


def _add_estimates(options: Options) -> None:
    options.add_argument(
        "--start",
        choices=("network", "recorded"),
        help="who says velocity and gravity at the first image, which IMU and filter begin with: "
        "the networks, or the OXTS unit (default: the networks, if the weights have them)",
    )
    options.add_argument(
        "--noise_preset",
        choices=("published", "calibrated"),
        help="the filter's noise, in place of that of the weights with all that was learnt of it",
    )


def _add_results(options: Options) -> None:
    options.add_argument(
        "--out",
        type=folder,
        metavar="FOLDER",
        help="write FOLDER/DRIVE/top_view.png, and NAME_kitti.txt and NAME_tum.txt of each "
        "trajectory",
    )
    options.add_argument(
        "--json", type=file, metavar="FILE", help="write everything that was found, as JSON"
    )


def _settle(parser: ArgumentParser, args: Namespace) -> None:
    if args.frames is not None:
        first, last = args.frames = tuple(args.frames)
        if first >= last:
            parser.error(f"--frames {first} {last}: a motion is between two images")
    settle(parser, args)
