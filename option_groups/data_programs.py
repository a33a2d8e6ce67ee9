"""The options of the programs that prepare and check data."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from option_groups.shared import (
    add_choice_of_drives,
    add_data_path,
    add_frames,
    add_imu_filename,
    add_kind_of_data,
    add_resolution,
    command,
    folder,
)

MATCHING_DEFAULTS = {"align": "packet", "max_drift_ms": 5.0, "check": False, "overwrite": False}
OFFSET_DEFAULTS = {"rotations": None, "max_offset_ms": 500.0}
NOISE_DEFAULTS = {
    "misalignment": 0.02,
    "gyro_noise": 0.01,
    "accel_noise": 0.1,
    "velocity_noise": 0.1,
    "seed": 0,
    "overwrite": False,
}
NOISE_OF_TYPE = {
    "gyro": ("gyro_noise",),
    "accel": ("accel_noise",),
    "both": ("gyro_noise", "accel_noise"),
    "velocity": ("velocity_noise",),
}


def match_kitti_imu(argv: Sequence[str] | None = None) -> Namespace:
    """Read the options of `match_kitti_imu.py`; an option of the other task is refused."""
    parser = command(
        "match_kitti_imu.py",
        description="Match raw IMU packets to the images of KITTI drives, or estimate the time\n"
        "offset between camera and IMU.",
        epilog="exit code: 0 all drives are done; 1 a drive failed, the others are done;\n"
        "2 an option is wrong, nothing was begun",
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
    add_choice_of_drives(data, "every drive that is in both folders")
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
    parser = command(
        "make_synthetic_kitti.py",
        description="Make drives in the layout of KITTI's raw data, with dense depth, poses and\n"
        "IMU biases as the truth beside them. The same options make the same bytes.",
        epilog="exit code: 0 all is made; 2 an option is wrong, something is in the way, or the\n"
        "disk is full: the drives are as before, or all replaced if only tidying was left",
    )
    parser.add_argument(
        "--out",
        type=folder,
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


def check(argv: Sequence[str] | None = None) -> Namespace:
    """Read the options of `python -m datasets.check`."""
    parser = command(
        "python -m datasets.check",
        description="Say what is there of a KITTI tree, what is missing and which archive brings\n"
        "it, and which frames can be trained on.",
        epilog="exit code: 0 every split asked for can be used whole, but for frames without IMU\n"
        "or neighbours; 1 something is missing or broken; 2 an option is wrong",
    )
    add_data_path(parser)
    add_kind_of_data(parser)
    parser.add_argument(
        "--split",
        nargs="+",
        metavar="SPLIT",
        help="names in splits/ or folders (default: DATA_PATH/splits if there is one, else "
        "eigen_zhou; odom for kitti_odom, benchmark for kitti_test)",
    )
    add_frames(parser)
    add_imu_filename(parser)
    parser.add_argument(
        "--no_imu", action="store_true", help="the matched IMU will not be used: do not ask for it"
    )
    parser.add_argument(
        "--deep", action="store_true", help="decode every image and read every scan of the splits"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    return parser.parse_args(argv)


def cache(argv: Sequence[str] | None = None) -> Namespace:
    """Read the options of `python -m datasets.cache`."""
    parser = command(
        "python -m datasets.cache",
        description="Decode and resize the images of a split once. Training with the same\n"
        "--cache_dir then reads them from there.",
        epilog="exit code: 0 all is there; 1 some images could not be read, the others are there;\n"
        "2 an option is wrong, or the disk is too small",
    )
    add_data_path(parser)
    add_kind_of_data(parser)
    parser.add_argument(
        "--cache_dir", type=folder, required=True, metavar="FOLDER", help="made if missing"
    )
    parser.add_argument(
        "--split", required=True, help="a name in splits/ or a folder: its drives are cached"
    )
    parser.add_argument(
        "--use_stereo", action="store_true", help="both cameras of every drive, listed or not"
    )
    add_resolution(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="make anew what is there and up to date, too"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    return parser.parse_args(argv)


def add_noise(argv: Sequence[str] | None = None) -> Namespace:
    """Read the options of `python -m datasets.add_noise`; what has no effect is refused."""
    parser = command(
        "python -m datasets.add_noise",
        description="Write noisy variants of the matched IMU beside it, to study robustness:\n"
        "m' = (I + E) m + n. E is drawn once for a drive, n for each packet. Train on one with\n"
        "--imu_filename.",
        epilog="exit code: 0 all drives are done; 1 a drive failed, the others are done;\n"
        "2 an option is wrong, nothing was begun",
    )
    parser.add_argument(
        "--data_path",
        type=folder,
        default=Path("data/kitti/kitti_raw"),
        metavar="FOLDER",
        help="holds DATE/DATE_drive_NNNN_sync/matched_oxts (default: %(default)s)",
    )
    add_choice_of_drives(parser, "all that are matched")
    parser.add_argument(
        "--type", choices=tuple(NOISE_OF_TYPE), required=True, help="what becomes noisy"
    )
    parser.add_argument(
        "--output",
        metavar="NAME",
        help="of the file in matched_oxts (default: matched_oxts_TYPE.txt)",
    )
    parser.add_argument("--remove", action="store_true", help="remove these files instead")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    _add_noise_strength(parser)
    args = parser.parse_args(argv)
    _settle_noise(parser, args)
    return args


def _add_noise_strength(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("noise")
    for name, unit, what in (
        ("misalignment", "STD", "each entry of E: scale factors and misalignment"),
        ("gyro_noise", "RAD_S", "n of the angular rates [rad/s]"),
        ("accel_noise", "M_S2", "n of the accelerations [m/s^2]"),
        ("velocity_noise", "M_S", "n of the velocities [m/s]"),
    ):
        group.add_argument(
            f"--{name}",
            type=float,
            metavar=unit,
            help=f"deviation of {what} (default: {NOISE_DEFAULTS[name]:g})",
        )
    group.add_argument("--seed", type=int, help=f"(default: {NOISE_DEFAULTS['seed']})")
    group.add_argument(
        "--overwrite",
        action="store_const",
        const=True,
        help="replace such a file; a drive that has one is skipped otherwise",
    )


def _settle_noise(parser: ArgumentParser, args: Namespace) -> None:
    """Fill in the defaults of what has an effect, refuse and drop what has none."""
    if args.output is None:
        args.output = f"matched_oxts_{args.type}.txt"
    used = () if args.remove else ("misalignment", *NOISE_OF_TYPE[args.type], "seed", "overwrite")
    for name, default in NOISE_DEFAULTS.items():
        if name in used:
            if getattr(args, name) is None:
                setattr(args, name, default)
            continue
        if getattr(args, name) is not None:
            idle = "--remove" if args.remove else f"--type {args.type}"
            parser.error(f"--{name} has no use with {idle}")
        delattr(args, name)
