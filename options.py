"""Every option of every command line: its default, its help, its checks."""

from __future__ import annotations

from argparse import (
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
    RawDescriptionHelpFormatter,
)
from collections.abc import Sequence
from pathlib import Path

MATCHING_DEFAULTS = {"align": "packet", "max_drift_ms": 5.0, "check": False, "overwrite": False}
OFFSET_DEFAULTS = {"rotations": None, "max_offset_ms": 500.0}


def match_kitti_imu(argv: Sequence[str] | None = None) -> Namespace:
    """Read the options of `match_kitti_imu.py`; an option of the other task is refused."""
    parser = ArgumentParser(
        prog="match_kitti_imu.py",
        description="Match raw IMU packets to the images of KITTI drives, or estimate the time\n"
        "offset between camera and IMU.",
        epilog="exit code: 0 all drives are done; 1 a drive failed, the others are done;\n"
        "2 an option is wrong, nothing was begun",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--raw_path",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="holds DATE/DATE_drive_NNNN_extract/oxts: all packets, at 100 Hz",
    )
    data.add_argument(
        "--sync_path",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="holds DATE/DATE_drive_NNNN_sync; the output, matched_oxts, goes there",
    )
    which = data.add_mutually_exclusive_group()
    which.add_argument(
        "--drives",
        nargs="+",
        metavar="DRIVE",
        help="like 2011_09_26_drive_0001; every drive that is in both folders if not given",
    )
    which.add_argument("--split", help="the drives that the files in splits/SPLIT name")
    data.add_argument(
        "--workers", type=int, default=1, help="drives worked on at once (default: %(default)s)"
    )
    _add_matching(parser)
    _add_time_offset(parser)
    args = parser.parse_args(argv)
    idle, used = MATCHING_DEFAULTS, OFFSET_DEFAULTS
    if not args.estimate_time_offset:
        idle, used = used, idle
    for name in idle:
        if getattr(args, name) is not None:
            word = "with" if args.estimate_time_offset else "without"
            parser.error(f"--{name} has no use {word} --estimate_time_offset")
        delattr(args, name)
    for name, default in used.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    if getattr(args, "check", False) and args.overwrite:
        parser.error("--check writes nothing, so there is nothing to --overwrite")
    return args


def _add_matching(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("matching")
    group.add_argument(
        "--align",
        choices=("packet", "camera"),
        help="where an interval begins and ends: at the raw packets stamped as the synced ones, as "
        f"published, or, interpolated, at the exposures (default: {MATCHING_DEFAULTS['align']})",
    )
    group.add_argument(
        "--max_drift_ms",
        type=float,
        metavar="MS",
        help="an interval is dropped if a step between its raw packets is further than this from "
        f"10 ms (default: {MATCHING_DEFAULTS['max_drift_ms']:g})",
    )
    group.add_argument(
        "--check", action="store_const", const=True, help="report only, write nothing"
    )
    group.add_argument(
        "--overwrite",
        action="store_const",
        const=True,
        help="replace matched_oxts where there is one, with all that is in it; such a drive is "
        "skipped otherwise",
    )


def _add_time_offset(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("time offset")
    group.add_argument(
        "--estimate_time_offset",
        action="store_true",
        help="match nothing, but print by how much the IMU's stamps are late: t_imu - t_camera",
    )
    group.add_argument(
        "--rotations",
        type=Path,
        metavar="FILE",
        help="a visual trajectory of one drive to compare the gyro with: 12 numbers, T_c0_ci by "
        "rows, for each image. Without it the attitudes of the synced packets are taken to be "
        "those at the images: that shows how far apart in time a packet and its image are, and no "
        "delay that both have in common",
    )
    group.add_argument(
        "--max_offset_ms",
        type=float,
        metavar="MS",
        help=f"search as far as this either way (default: {OFFSET_DEFAULTS['max_offset_ms']:g})",
    )


def make_synthetic_kitti(argv: Sequence[str] | None = None) -> Namespace:
    """Read the options of `make_synthetic_kitti.py`."""
    parser = ArgumentParser(
        prog="make_synthetic_kitti.py",
        description="Make drives in the layout of KITTI's raw data, with dense depth, poses and\n"
        "IMU biases as the truth beside them. The same options make the same bytes.",
        epilog="exit code: 0 all is made; 2 an option is wrong, something is in the way, or the\n"
        "disk is full: the drives are as before, or all replaced if only tidying was left",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--out",
        type=_folder,
        required=True,
        metavar="FOLDER",
        help="becomes a root of raw data: it gets 2011_01_01/, splits/, contact_sheet.png, "
        "README.txt",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace all drives of 2011_01_01 in it, with all that is in them",
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="processes (default: as many as there are drives, or cores if these are fewer)",
    )
    _add_synthetic_scene(parser)
    _add_synthetic_sensors(parser)
    return parser.parse_args(argv)


def _folder(text: str) -> Path:
    if not text:  # a shell's variable without a value; Path would take it for the current folder
        raise ArgumentTypeError("expected a folder, got ''")
    return Path(text)


def _add_synthetic_scene(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("scene")
    group.add_argument(
        "--drives", type=int, default=4, help="each on another street (default: %(default)s)"
    )
    group.add_argument(
        "--frames",
        type=int,
        default=120,
        help="stereo images of each drive, 9.7 a second (default: %(default)s)",
    )
    group.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    group.add_argument(
        "--moving_cars",
        type=int,
        default=0,
        metavar="COUNT",
        help="besides the parked ones: one ahead, the others oncoming (default: %(default)s)",
    )


def _add_synthetic_sensors(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("sensors")
    group.add_argument(
        "--size",
        default="1242x375",
        metavar="WIDTHxHEIGHT",
        help="of the images; the field of view stays (default: %(default)s)",
    )
    group.add_argument(
        "--format", choices=("png", "jpg"), default="png", help="of them (default: %(default)s)"
    )
    group.add_argument(
        "--imu_noise",
        type=float,
        default=1.0,
        metavar="SCALE",
        help="0 is none, 1 is that of the real unit (default: %(default)g)",
    )
    group.add_argument(
        "--illumination",
        type=float,
        default=0.0,
        metavar="STRENGTH",
        help="how gain, gamma and white balance wander: 0 is not at all, 1 is strongly (default: "
        "%(default)g)",
    )
    group.add_argument(
        "--faults",
        action="store_true",
        help="plant the known troubles of KITTI's recordings; truth/faults.json says where",
    )
