"""The options of training that are of the IMU and of the filter."""

from __future__ import annotations

from argparse import ArgumentParser

from option_groups.shared import Options, number, whole


def add_imu(parser: ArgumentParser) -> None:
    """Add how the IMU takes part."""
    group = parser.add_argument_group("imu")
    for name, default, what in (
        ("imu_warp_weight", 0.5, "images warped by the IMU's motion, or by the fused one"),
        ("imu_consistency_weight", 0.01, "they equal those warped by the camera's motion"),
        ("imu_l2_weight", 0.0, "the two motions themselves are equal"),
        (
            "imu_velocity_weight",
            0.0,
            "the IMU carries the velocity of an image to that of the next",
        ),
        (
            "velo_weight",
            0.001,
            "the predicted speed is the recorded one, which GPS and IMU measured together: with 0, "
            "training is inertial only",
        ),
        ("gravity_weight", 0.001, "the predicted gravity is 9.81 m/s^2 strong"),
    ):
        group.add_argument(
            f"--{name}",
            type=number(),
            default=default,
            metavar="WEIGHT",
            help=f"of the loss: {what} (default: {default:g})",
        )
    group.add_argument(
        "--trans_scale_factor",
        type=number(above=True),
        default=5.4,
        metavar="M",
        help="the unit of the translations and depths that the networks predict [m] (default: "
        "%(default)g)",
    )
    group.add_argument(
        "--align_steps",
        type=whole(0),
        default=0,
        metavar="STEPS",
        help="every so many steps the IMU says how many metres that unit has, from how the speed "
        "changes along the drives; without the recorded speed it is the way to the scale "
        "(default: %(default)s, never: the networks learn to count in it)",
    )
    group.add_argument(
        "--no_grad_imu_consistency",
        choices=("none", "network", "imu"),
        default="none",
        help="which side of the consistency learns nothing from it: neither, the camera's motion, "
        "or the IMU's (default: %(default)s)",
    )
    group.add_argument(
        "--velocity_source",
        choices=("network", "recorded", "camera"),
        default="network",
        help="of the IMU's motion: a network of its own, as published; the recorded speed in the "
        "direction that the network says; or the one with which the IMU comes nearest to the "
        "camera's motion (default: %(default)s)",
    )
    group.add_argument(
        "--predict_velo_residue",
        action="store_true",
        help="the velocity network adds to the camera's motion divided by its time, instead of "
        "predicting all",
    )
    group.add_argument(
        "--display_velo_scale",
        action="store_true",
        help="log the ratio of the recorded speed to the predicted one",
    )
    group.add_argument(
        "--k_imu_clip",
        type=number(above=True, may_be_infinite=True),
        default=5.0,
        metavar="K",
        help="specific forces beyond K times gravity and angular rates beyond K rad/s are clipped: "
        "no car reaches them, a broken packet does; inf clips nothing (default: %(default)g)",
    )


def add_ekf(parser: ArgumentParser) -> None:
    """Add how the filter fuses the IMU's motion and the camera's."""
    group = parser.add_argument_group(
        "ekf", "the Kalman filter that corrects the IMU's motion by the camera's"
    )
    group.add_argument(
        "--use_ekf", action="store_true", help="the losses of the IMU get the filter's motion"
    )
    group.add_argument(
        "--ekf_warming_epochs",
        type=whole(0),
        default=0,
        metavar="EPOCHS",
        help="first train so many without the filter (default: %(default)s)",
    )
    for name, what in (("velo", "velocity"), ("gravity", "gravity")):
        group.add_argument(
            f"--ekf_{name}_weight",
            type=number(),
            default=0.0,
            metavar="WEIGHT",
            help=f"of the loss: the filter need not correct the predicted {what} (default: "
            "%(default)g)",
        )
    group.add_argument(
        "--train_init_covar",
        action="store_true",
        help="learn how uncertain velocity, gravity and biases are at first",
    )
    group.add_argument(
        "--train_imu_noise_covar", action="store_true", help="learn how noisy the IMU is"
    )
    _add_vision(group)
    _add_resumption(group)


def _add_vision(group: Options) -> None:
    group.add_argument(
        "--noise_preset",
        choices=("published", "calibrated"),
        default="published",
        help="the noise of IMU and camera and what the filter starts from: the published values, "
        "which hardly listen to the camera, or some that fit the errors there are (default: "
        "%(default)s)",
    )
    group.add_argument(
        "--vis_covar_use_fixed",
        action="store_true",
        help="the camera's motion is always equally uncertain, whatever the network says",
    )
    group.add_argument(
        "--naive_vis_covar",
        action="store_true",
        help="the camera's variance is the square of what the network says, not a power of ten",
    )
    group.add_argument(
        "--sample_vis_pose",
        action="store_true",
        help="draw the camera's motion from its distribution; works without --use_ekf as well",
    )


def _add_resumption(group: Options) -> None:
    for name, what in (
        ("imu", "the noise that the filter learnt"),
        ("velo", "the networks of velocity"),
        ("gravity", "the networks of gravity"),
    ):
        group.add_argument(
            f"--resume_{name}",
            action="store_true",
            help=f"load {what} from --load_weights_folder, too",
        )
    group.add_argument(
        "--resume_epochs",
        type=whole(0),
        metavar="N",
        help="--load_weights_folder is the folder `models` of a run: take weights_N in it "
        "(default: none, it holds the .pth files)",
    )
