"""The options of training: paths, training, optimisation, ablation, noise.

Those of the IMU and the filter are in `inertial_training`, those of the machine and of what is kept
in `runs`.
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from option_groups.shared import (
    Options,
    add_data_path,
    add_frames,
    add_imu_filename,
    add_kind_of_data,
    add_resolution,
    file,
    folder,
    number,
    plain_name,
    something,
    whole,
)

SPLITS = (
    "eigen_quater",
    "eigen_half",
    "eigen_three_quater",
    "eigen_zhou",
    "eigen_full",
    "odom",
    "benchmark",
    "test",
)
"""The lists in `splits/` that have frames to train on."""

RESNETS = (18, 34, 50, 101, 152)
# The encoders halve an image five times, and decoders mirror the border of what is left.
SIDE = whole(64, multiple_of=32)

NOISE_OF_IMAGES = {
    "clean": (),
    "bcsh": (
        "img_noise_brightness",
        "img_noise_contrast",
        "img_noise_saturation",
        "img_noise_hue",
    ),
    "gg": ("img_noise_gamma", "img_noise_gain"),
    "mask": ("img_mask_num", "img_mask_size"),
}
"""Which options each type of noise uses."""


def add_paths(parser: ArgumentParser) -> None:
    """Add where things are read and written."""
    group = parser.add_argument_group("paths")
    add_data_path(group)
    group.add_argument(
        "--log_dir",
        type=folder,
        default=Path("~/tmp"),
        metavar="FOLDER",
        help="the run goes to LOG_DIR/MODEL_NAME (default: %(default)s)",
    )
    group.add_argument(
        "--cache_dir",
        type=folder,
        metavar="FOLDER",
        help="decode and resize the images once, keep them here, and read them from here; one "
        "folder serves many runs (default: none, images are decoded each time)",
    )


def add_training(parser: ArgumentParser) -> None:
    """Add what is trained, and on which data."""
    group = parser.add_argument_group("training")
    group.add_argument(
        "--model_name",
        type=plain_name,
        default="dynadepth",
        metavar="NAME",
        help="of the run, a new folder in LOG_DIR (default: %(default)s)",
    )
    _add_data(group)
    _add_depth(group)


def _add_depth(group: Options) -> None:
    group.add_argument(
        "--num_layers",
        "--num_layer",
        type=int,
        choices=RESNETS,
        default=18,
        help="of the ResNets of depth and camera motion (default: %(default)s)",
    )
    group.add_argument(
        "--num_layers_imu",
        type=int,
        choices=RESNETS,
        default=18,
        help="of the ResNets of velocity and gravity (default: %(default)s)",
    )
    group.add_argument(
        "--disparity_smoothness",
        type=number(),
        default=1e-3,
        metavar="WEIGHT",
        help="of the loss that wants the disparity smooth where the image is; halved with every "
        "scale (default: %(default)g)",
    )
    group.add_argument(
        "--scales",
        type=int,
        choices=range(4),
        nargs="+",
        default=[0, 1, 2, 3],
        help="of the disparities, 2^SCALE times smaller than the images; the finest is enlarged "
        "where depth is asked for (default: 0 1 2 3)",
    )
    group.add_argument(
        "--min_depth",
        type=number(above=True),
        default=0.1,
        metavar="UNITS",
        help="depth where the disparity is 1, in units of TRANS_SCALE_FACTOR metres (default: "
        "%(default)g)",
    )
    group.add_argument(
        "--max_depth",
        type=number(above=True),
        default=100.0,
        metavar="UNITS",
        help="depth where the disparity is 0, in the same units (default: %(default)g)",
    )
    group.add_argument(
        "--initial_depth_m",
        type=number(above=True),
        metavar="M",
        help="what untrained networks say everywhere [m] (default: none, it is where the "
        "disparity is 1/2, about 1 m, as published)",
    )


def _add_data(group: Options) -> None:
    group.add_argument(
        "--split",
        type=something("a split"),
        help=f"which frames: {', '.join(SPLITS)}, synthetic for DATA_PATH/splits, or a folder with "
        "train_files.txt and val_files.txt (default: DATA_PATH/splits if there is one, else "
        "eigen_zhou; odom for kitti_odom)",
    )
    add_kind_of_data(group)
    add_resolution(group, SIDE)
    add_frames(group)
    group.add_argument(
        "--intrinsics",
        choices=("calibrated", "fixed"),
        default="calibrated",
        help="the camera's of each recording day, or one for all, as published (default: "
        "%(default)s)",
    )
    group.add_argument(
        "--skip_broken",
        action="store_true",
        help="leave out samples with a missing or broken file and count them, instead of stopping",
    )


def add_optimisation(parser: ArgumentParser) -> None:
    """Add how the weights are improved."""
    group = parser.add_argument_group("optimisation")
    group.add_argument(
        "--batch_size",
        type=whole(1),
        default=8,
        metavar="SAMPLES",
        help="of each process at once (default: %(default)s)",
    )
    group.add_argument(
        "--accumulate_steps",
        type=whole(1),
        default=1,
        metavar="BATCHES",
        help="each step follows the mean gradient of so many batches: of ACCUMULATE_STEPS x "
        "BATCH_SIZE x processes samples (default: %(default)s)",
    )
    group.add_argument(
        "--learning_rate",
        type=number(above=True),
        default=1e-4,
        metavar="RATE",
        help="of Adam, at the beginning (default: %(default)g)",
    )
    group.add_argument(
        "--num_epochs", type=whole(1), default=30, metavar="EPOCHS", help="(default: %(default)s)"
    )
    group.add_argument(
        "--scheduler",
        choices=("step", "cosine"),
        default="step",
        help="of the learning rate: a tenth every SCHEDULER_STEP_SIZE epochs, or down a cosine to "
        "a hundredth at the end (default: %(default)s)",
    )
    group.add_argument(
        "--warmup_steps",
        type=whole(0),
        default=0,
        metavar="STEPS",
        help="the learning rate rises over so many steps at first (default: %(default)s)",
    )
    group.add_argument(
        "--scheduler_step_size",
        type=whole(1),
        default=15,
        metavar="EPOCHS",
        help="the learning rate becomes a tenth every so many epochs (default: %(default)s)",
    )
    group.add_argument(
        "--clip_grad_norm",
        type=number(),
        default=0.0,
        metavar="MAX",
        help="shorten a gradient that is longer than this (default: %(default)g, never)",
    )
    group.add_argument(
        "--amp",
        choices=("off", "bf16", "fp16"),
        default="off",
        help="networks in mixed precision; geometry, filter and losses stay in float32 (default: "
        "%(default)s)",
    )


def add_ablation(parser: ArgumentParser) -> None:
    """Add the variants of networks and camera losses."""
    group = parser.add_argument_group("ablation")
    group.add_argument(
        "--v1_multiscale",
        action="store_true",
        help="as in monodepth v1: the same as --loss_resolution native",
    )
    group.add_argument(
        "--loss_resolution",
        choices=("full", "native"),
        default="full",
        help="compare images at full size with the disparity of each scale, or each scale at its "
        "own size, which is faster (default: %(default)s)",
    )
    group.add_argument(
        "--avg_reprojection",
        action="store_true",
        help="average the errors of the source images; otherwise each pixel takes the least",
    )
    group.add_argument(
        "--disable_automasking",
        action="store_true",
        help="keep the pixels that look the same without any motion",
    )
    group.add_argument(
        "--predictive_mask",
        action="store_true",
        help="predict which pixels to trust; needs --disable_automasking",
    )
    group.add_argument(
        "--no_ssim",
        action="store_true",
        help="compare images by their absolute difference alone, without SSIM",
    )
    _add_networks(group)


def _add_networks(group: Options) -> None:
    group.add_argument(
        "--weights_init",
        choices=("pretrained", "scratch"),
        default="pretrained",
        help="the encoders begin with ImageNet's weights, or at random (default: %(default)s)",
    )
    group.add_argument(
        "--narrow_networks",
        action="store_true",
        help="half the channels in every ResNet and in the decoder of depth, for a quick look on a "
        "CPU; needs --weights_init scratch, since there are no such weights of ImageNet",
    )
    group.add_argument(
        "--pretrained_path",
        type=file,
        metavar="PATH",
        help="ImageNet's weights, a .pth of torchvision's ResNet, or a folder with several under "
        "torchvision's names (default: none, they are downloaded)",
    )
    group.add_argument(
        "--pose_model_input",
        choices=("pairs", "all"),
        default="pairs",
        help="the camera's motion is predicted from two images, or from all of a sample at once "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--pose_model_type",
        choices=("separate_resnet", "posecnn", "shared"),
        default="separate_resnet",
        help="the network of the camera's motion: an encoder of its own, a small one that predicts "
        "no uncertainty, or the encoder of depth (default: %(default)s)",
    )
    group.add_argument(
        "--motion_form",
        choices=("published", "driving"),
        default="published",
        help="what the numbers of the decoders of motion, velocity and gravity stand for: "
        "hundredths, as published, which begin at rest; or those of a car, which begins at 5 m/s "
        "upright (default: %(default)s)",
    )
    group.add_argument(
        "--motion_resolution",
        choices=("full", "half"),
        default="full",
        help="of the images that motion, velocity and gravity are seen in (default: %(default)s)",
    )
    group.add_argument(
        "--shared_motion_encoder",
        action="store_true",
        help="velocity and gravity share the encoder of the camera's motion: faster, and fewer "
        "weights",
    )


def add_noise(parser: ArgumentParser) -> None:
    """Add what makes the data worse, to study robustness; validation is always clean."""
    group = parser.add_argument_group("noise", "worse data, to study robustness; in training only")
    add_imu_filename(group)
    group.add_argument(
        "--avoid_quat_check",
        action="store_true",
        help="do not compare the gyro with the recorded attitudes (a noisy --imu_filename "
        "disagrees)",
    )
    group.add_argument(
        "--img_noise_type",
        choices=tuple(NOISE_OF_IMAGES),
        default="clean",
        help="none; brightness, contrast, saturation, hue; gamma, gain; black squares (default: "
        "%(default)s)",
    )
    for name in ("brightness", "contrast", "saturation", "gamma", "gain"):
        group.add_argument(
            f"--img_noise_{name}",
            type=number(),
            default=0.5,
            metavar="STRENGTH",
            help="a factor that is within this of 1 (default: %(default)g)",
        )
    group.add_argument(
        "--img_noise_hue",
        type=number(most=0.5),
        default=0.5,
        metavar="STRENGTH",
        help="a turn of the hues by up to this fraction of the circle (default: %(default)g)",
    )
    group.add_argument(
        "--img_mask_num",
        type=whole(1),
        default=1,
        metavar="COUNT",
        help="black squares in each image (default: %(default)s)",
    )
    group.add_argument(
        "--img_mask_size",
        type=number(above=True),
        default=50.0,
        metavar="PX",
        help="their side, in pixels of the recorded image (default: %(default)g)",
    )
