"""Every option of every command line: its default, its help, its checks.

One function per program reads its command line. The options themselves are in `option_groups`.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from option_groups import inertial_training, runs, training
from option_groups.contradictions import settle
from option_groups.data_programs import (
    MATCHING_DEFAULTS,
    NOISE_DEFAULTS,
    NOISE_OF_TYPE,
    OFFSET_DEFAULTS,
    add_noise,
    cache,
    check,
    make_synthetic_kitti,
    match_kitti_imu,
)
from option_groups.evaluation_programs import evaluate_depth, evaluate_make3d, export_gt_depth
from option_groups.odometry_program import evaluate_odometry
from option_groups.prediction_program import predict
from option_groups.shared import DATASETS, command, expand_files, parse

__all__ = [
    "DATASETS",
    "MATCHING_DEFAULTS",
    "NOISE_DEFAULTS",
    "NOISE_OF_TYPE",
    "OFFSET_DEFAULTS",
    "add_noise",
    "cache",
    "check",
    "evaluate_depth",
    "evaluate_make3d",
    "evaluate_odometry",
    "export_gt_depth",
    "make_synthetic_kitti",
    "match_kitti_imu",
    "predict",
    "train",
]


def train(argv: Sequence[str] | None = None) -> Namespace:
    """Read the options of `train.py`; `contradictions` says what is derived and what refused."""
    parser = command(
        "train.py",
        usage="%(prog)s [-h] [@FILE] [--OPTION [VALUE ...]] ...",
        description="Train metric depth and ego-motion from a driving video and its IMU.\n"
        "@FILE reads options from a file, like @configs/r18.txt; what comes later counts.",
        epilog="exit code: 0 the model is trained; 1 training collapsed; 2 an option or the data\n"
        "is wrong; 128 + signal when one ended it; if it saved, go on with --resume auto\n\n"
        "several GPUs: torchrun --nproc_per_node 4 train.py @configs/r18.txt",
    )
    training.add_paths(parser)
    training.add_training(parser)
    training.add_optimisation(parser)
    training.add_ablation(parser)
    training.add_noise(parser)
    inertial_training.add_imu(parser)
    inertial_training.add_ekf(parser)
    runs.add_system(parser)
    runs.add_loading(parser)
    runs.add_logging(parser)
    words = expand_files(parser, sys.argv[1:] if argv is None else argv)
    args, given = parse(parser, words)
    settle(parser, args, given)
    return args
