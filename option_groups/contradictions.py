"""What the options of training become: final values, and combinations that are refused.

Nothing is ignored silently. An option that was given and has no effect beside the others is an
error with the reason, except as 0, which says what is the case anyway. A default that has no effect
gives way.

Beside the options, the Namespace gets what several of them decide together:

    use_inertial_motion  some loss compares the IMU's motion, or the fused one, with something
    use_velocity         there is a network of velocity: for that motion, or for the velocity loss;
                         with --velocity_source camera there is none
    use_gravity          there is a network of gravity: for that motion
    use_imu              samples have the IMU's packets

and these options become final:

    split                a name in `splits/`, or the path of a folder
    all paths            with the home folder in place of `~`
    scales, frame_ids    ascending; the target, 0, first and the others as they were given
    loss_resolution      native with --v1_multiscale, which is the same and true for both
    num_layers_imu       that of the encoder which velocity and gravity share, if they do
    gravity_weight       0 without a network of gravity, and with --motion_form driving, which
                         knows how strong gravity is
    first_save_epoch     the last epoch, if there are not as many
    load_weights_folder  the folder of the .pth files, with --resume_epochs
    models_to_load       with those that --resume_imu and its like add; the default has only those
                         that the run has
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from option_groups.runs import MODELS
from option_groups.shared import expand_user
from option_groups.training import NOISE_OF_IMAGES, SPLITS

Refusals = Iterable[tuple[bool, str]]
"""Whether something is wrong, and what an error says then."""

_LISTS_OF_TESTS = ("eigen", "eigen_benchmark")
_NO_IMU = "no loss uses the IMU, the weights are 0"
_ONE_PIXEL_PX = 64  # side of an image whose half encoders turn into one pixel
_NO_POSES = "--frame_ids 0 has no camera motion to predict"


def settle(parser: ArgumentParser, args: Namespace, given: Collection[str]) -> None:
    """Bring the options into their final form, or end with the first contradiction.

    Args:
        parser: writes the error
        args: all options; is changed
        given: the names of those that the user gave
    """
    try:
        _find_paths(args)
    except ValueError as error:
        parser.error(str(error))
    _refuse(parser, _of_frames(args))
    _put_in_order(args)
    _derive(args)
    given = {name for name in given if getattr(args, name) not in (0, None)}  # False is 0
    for rule in _RULES:
        _refuse(parser, rule(args, given))
    _give_way(args, given)


def _refuse(parser: ArgumentParser, refusals: Refusals) -> None:
    for wrong, message in refusals:
        if wrong:
            parser.error(message)


def _idle(given: Collection[str], names: Iterable[str], why: str, unless: bool) -> Refusals:
    """Refuse each of these options that was given, unless there is what it needs."""
    return [(not unless and name in given, f"--{name} has no use {why}") for name in names]


def _find_paths(args: Namespace) -> None:
    for name in ("data_path", "log_dir", "cache_dir", "pretrained_path", "load_weights_folder"):
        if (path := getattr(args, name)) is not None:
            setattr(args, name, expand_user(path))
    if args.resume is not None and args.resume.startswith("~"):  # Path would make ./auto auto
        args.resume = str(expand_user(Path(args.resume)))
    own = args.data_path / "splits"
    if args.split == "synthetic":
        args.split = own
    elif args.split is None:
        usual = "odom" if args.dataset == "kitti_odom" else "eigen_zhou"
        args.split = own if own.is_dir() else usual
    elif args.split not in (*SPLITS, *_LISTS_OF_TESTS):
        args.split = expand_user(Path(args.split))


def _of_frames(args: Namespace) -> Refusals:
    offsets, scales = args.frame_ids, args.scales
    shown = " ".join(map(str, offsets))
    return [
        (0 not in offsets, f"--frame_ids {shown} lacks 0, the target"),
        (len(set(offsets)) < len(offsets), f"--frame_ids {shown} has an image twice"),
        (len(set(scales)) < len(scales), "--scales has a scale twice"),
    ]


def _put_in_order(args: Namespace) -> None:
    args.scales = sorted(args.scales)
    args.frame_ids = [0, *(offset for offset in args.frame_ids if offset != 0)]


def _derive(args: Namespace) -> None:
    inertial = args.imu_warp_weight + args.imu_consistency_weight + args.imu_l2_weight
    fused = args.ekf_velo_weight + args.ekf_gravity_weight if args.use_ekf else 0
    inertial += args.imu_velocity_weight
    by_network = args.velocity_source != "camera"
    # Only the IMU's motion can be brought near to the camera's, and that needs gravity.
    fitted = 0 if by_network else args.velo_weight
    args.use_inertial_motion = inertial + fused + fitted > 0
    args.use_imu = args.use_inertial_motion or args.velo_weight > 0
    args.use_velocity = args.use_imu and by_network
    args.use_gravity = args.use_inertial_motion


def models(args: Namespace) -> list[str]:
    """Return the networks that a run with these options has, in the order of MODELS."""
    moves = len(args.frame_ids) > 1
    own_encoders = not args.shared_motion_encoder
    there = {
        "encoder": True,
        "depth": True,
        "pose_encoder": moves and args.pose_model_type == "separate_resnet",
        "pose": moves,
        "predictive_mask": args.predictive_mask,
        "velo_encoder": args.use_velocity and own_encoders,
        "velo": args.use_velocity,
        "gravity_encoder": args.use_gravity and own_encoders,
        "gravity": args.use_gravity,
        "ekf_model": args.use_ekf,
    }
    return [name for name in MODELS if there[name]]


def _data(args: Namespace, given: Collection[str]) -> Refusals:
    sequences = args.dataset == "kitti_odom"
    nearest, farthest = (x * args.trans_scale_factor for x in (args.min_depth, args.max_depth))
    return [
        (
            args.dataset == "kitti_test",
            "--dataset kitti_test has single images, there is nothing to train on",
        ),
        (
            args.split in _LISTS_OF_TESTS,
            f"--split {args.split} lists frames for tests alone: choose one of {', '.join(SPLITS)}",
        ),
        (
            args.split == "odom" and not sequences,
            "--split odom lists odometry sequences, it needs --dataset kitti_odom",
        ),
        (
            sequences and args.split in SPLITS and args.split != "odom",
            f"--dataset kitti_odom has sequences, but --split {args.split} lists raw drives: "
            "use --split odom",
        ),
        (
            args.min_depth >= args.max_depth,
            f"--min_depth {args.min_depth:g} is not less than --max_depth {args.max_depth:g}",
        ),
        (
            args.initial_depth_m is not None and not nearest < args.initial_depth_m < farthest,
            f"--initial_depth_m {args.initial_depth_m} is not between {nearest:g} and {farthest:g} "
            "m, which are --min_depth and --max_depth times --trans_scale_factor",
        ),
        (
            len(args.frame_ids) == 1 and not args.use_stereo,
            "--frame_ids 0 without --use_stereo leaves no image to compare the target with",
        ),
    ]


def _camera(args: Namespace, given: Collection[str]) -> Refusals:
    moves = len(args.frame_ids) > 1
    names = "pose_model_type", "pose_model_input", "sample_vis_pose"
    return [
        (
            args.predictive_mask and not args.disable_automasking,
            "--predictive_mask needs --disable_automasking: one mask takes the place of the other",
        ),
        (
            args.v1_multiscale and "loss_resolution" in given and args.loss_resolution == "full",
            "--v1_multiscale contradicts --loss_resolution full: it is --loss_resolution native",
        ),
        (
            args.narrow_networks and args.weights_init != "scratch",
            "--narrow_networks needs --weights_init scratch: ImageNet's weights are twice as wide",
        ),
        (
            args.pretrained_path is not None and args.weights_init == "scratch",
            "--pretrained_path has no use with --weights_init scratch, which begins at random",
        ),
        (
            args.pretrained_path is not None
            and not args.pretrained_path.is_dir()
            and args.num_layers != args.num_layers_imu
            and "velo_encoder" in models(args),
            f"--pretrained_path holds one ResNet, but --num_layers is {args.num_layers} and "
            f"--num_layers_imu {args.num_layers_imu}: make them equal, or name a folder with both",
        ),
        *_idle(given, names, f"here: {_NO_POSES}", unless=moves),
    ]


def _image_noise(args: Namespace, given: Collection[str]) -> Refusals:
    used = NOISE_OF_IMAGES[args.img_noise_type]
    others = [name for names in NOISE_OF_IMAGES.values() for name in names if name not in used]
    why = f"with --img_noise_type {args.img_noise_type}, which does not draw it"
    return _idle(given, others, why, unless=False)


def _imu(args: Namespace, given: Collection[str]) -> Refusals:
    offsets = sorted(args.frame_ids)
    shown = " ".join(map(str, args.frame_ids))
    one_run = offsets == list(range(offsets[0], offsets[-1] + 1))
    weights_off = "--imu_warp_weight 0 --imu_consistency_weight 0 --velo_weight 0"
    read = "imu_filename", "avoid_quat_check", "k_imu_clip", "align_steps"
    of_vectors = "num_layers_imu", "display_velo_scale", "shared_motion_encoder"
    of_velocity = "predict_velo_residue", "resume_velo"
    no_velocity = "--velocity_source camera fits it" if args.use_imu else _NO_IMU
    return [
        (
            args.use_imu and len(offsets) == 1,
            "--frame_ids 0 has no interval for the IMU: give a neighbour, like 0 -1 1, or turn it "
            f"off: {weights_off}",
        ),
        (
            args.use_imu and not one_run,
            f"--frame_ids {shown} is not one run, like 0 -1 1, and the IMU is integrated from each "
            f"image to the next: fill the gaps, or turn it off: {weights_off}",
        ),
        *_idle(given, read, f"without the IMU: {_NO_IMU}", unless=args.use_imu),
        *_idle(given, of_vectors, f"without a network of velocity: {_NO_IMU}", unless=args.use_imu),
        *_idle(
            given,
            of_velocity,
            f"without a network of velocity: {no_velocity}",
            unless=args.use_velocity,
        ),
        *_idle(
            given,
            ("gravity_weight", "resume_gravity"),
            "without a network of gravity: no loss has the IMU's motion, --imu_warp_weight and "
            "the like are 0",
            unless=args.use_gravity,
        ),
        (
            args.no_grad_imu_consistency != "none" and args.imu_consistency_weight == 0,
            f"--no_grad_imu_consistency {args.no_grad_imu_consistency} has no use with "
            "--imu_consistency_weight 0: there is no such loss",
        ),
    ]


def _motion_networks(args: Namespace, given: Collection[str]) -> Refusals:
    driving, half = args.motion_form == "driving", args.motion_resolution == "half"
    moves, vectors = len(args.frame_ids) > 1, args.use_velocity or args.use_gravity
    without = f"with --pose_model_type {args.pose_model_type} and no network of velocity or gravity"
    return [
        (driving and not moves, f"--motion_form driving has no use here: {_NO_POSES}"),
        (half and not moves, f"--motion_resolution half has no use here: {_NO_POSES}"),
        (
            driving and args.pose_model_type == "posecnn" and not vectors,
            f"--motion_form driving has no use {without}: that has the published form",
        ),
        (
            half and args.pose_model_type == "shared" and not vectors,
            f"--motion_resolution half has no use {without}: depth's encoder sees whole images",
        ),
        (
            half and max(args.height, args.width) <= _ONE_PIXEL_PX,
            f"--motion_resolution half leaves one pixel of {args.width}x{args.height} images, "
            "which encoders halve five times more: use larger images",
        ),
        (
            driving and args.pose_model_input == "all",
            "--motion_form driving needs --pose_model_input pairs: of all images at once, some are "
            "before the target and some behind it",
        ),
        (
            driving and args.predict_velo_residue,
            "--predict_velo_residue contradicts --motion_form driving: a residue begins at 0, and "
            "not at 5 m/s",
        ),
        (
            driving and "gravity_weight" in given,
            "--gravity_weight has no use with --motion_form driving, which knows how strong "
            "gravity is",
        ),
    ]


def _velocity(args: Namespace, given: Collection[str]) -> Refusals:
    source, offsets = args.velocity_source, args.frame_ids
    shown = " ".join(map(str, offsets))
    return [
        (
            source != "network" and not args.use_inertial_motion,
            f"--velocity_source {source} has no use: no loss has the IMU's motion, "
            "--imu_warp_weight and the like are 0",
        ),
        (
            source == "camera" and 1 not in offsets,
            f"--velocity_source camera needs 1 among --frame_ids, not {shown}: the velocity is "
            "fitted with the target's gravity, which is seen in the pair of 0 and 1",
        ),
        (
            source == "recorded" and args.use_ekf and args.naive_vis_covar,
            "--naive_vis_covar contradicts --velocity_source recorded: the camera could become "
            "more certain than any speed, and nothing would hold the scale",
        ),
        (
            source == "camera" and args.imu_velocity_weight > 0,
            "--imu_velocity_weight has no use with --velocity_source camera: there is one velocity "
            "for all images, which the IMU carries",
        ),
        (
            args.imu_velocity_weight > 0 and not {-1, 1} <= set(offsets),
            f"--imu_velocity_weight needs -1 and 1 among --frame_ids, not {shown}: it compares "
            "velocities of two pairs",
        ),
        (
            args.align_steps > 0 and 1 not in offsets,
            f"--align_steps needs 1 among --frame_ids, not {shown}: it follows drives from each "
            "image to the next",
        ),
        (
            args.align_steps > 0 and args.pose_model_input == "all",
            "--align_steps needs --pose_model_input pairs: it follows drives from each image to "
            "the next",
        ),
    ]


def _shared_encoder(args: Namespace, given: Collection[str]) -> Refusals:
    if not args.shared_motion_encoder:
        return []
    return [
        (
            args.pose_model_type != "separate_resnet",
            f"--shared_motion_encoder has no use with --pose_model_type {args.pose_model_type}: it "
            "is the encoder of separate_resnet that would be shared",
        ),
        (
            args.pose_model_input == "all",
            "--shared_motion_encoder has no use with --pose_model_input all: velocity and gravity "
            "are those of a pair of images",
        ),
        (
            "num_layers_imu" in given and args.num_layers_imu != args.num_layers,
            f"--num_layers_imu {args.num_layers_imu} contradicts --shared_motion_encoder: that has "
            f"the {args.num_layers} of --num_layers",
        ),
    ]


def _filter(args: Namespace, given: Collection[str]) -> Refusals:
    filtered = (
        *("ekf_warming_epochs", "ekf_velo_weight", "ekf_gravity_weight"),
        *("train_init_covar", "train_imu_noise_covar", "resume_imu"),
    )
    of_vision = "noise_preset", "vis_covar_use_fixed", "naive_vis_covar"
    uncertain = args.use_ekf or args.sample_vis_pose
    silent = args.pose_model_type == "posecnn" and not args.vis_covar_use_fixed
    compared = (
        *(args.imu_warp_weight, args.imu_consistency_weight, args.imu_l2_weight),
        *(args.ekf_velo_weight, args.ekf_gravity_weight),
    )
    alone = "needs --vis_covar_use_fixed with --pose_model_type posecnn: that predicts no"
    return [
        *_idle(given, filtered, "without --use_ekf: there is no filter", unless=args.use_ekf),
        *_idle(
            given,
            of_vision,
            "without --use_ekf or --sample_vis_pose: nothing asks how uncertain a motion is",
            unless=uncertain,
        ),
        (
            args.use_ekf and not any(compared),
            "--use_ekf has no use without a loss of the motion that it fuses: give "
            "--imu_warp_weight, --imu_consistency_weight, --imu_l2_weight, --ekf_velo_weight or "
            "--ekf_gravity_weight",
        ),
        (
            args.vis_covar_use_fixed and args.naive_vis_covar,
            "--vis_covar_use_fixed contradicts --naive_vis_covar: the one ignores what the network "
            "says of its uncertainty, the other squares it",
        ),
        (args.use_ekf and silent, f"--use_ekf {alone} uncertainty"),
        (args.sample_vis_pose and silent, f"--sample_vis_pose {alone} uncertainty to draw from"),
        (
            args.ekf_warming_epochs >= args.num_epochs,
            f"--ekf_warming_epochs {args.ekf_warming_epochs} leaves none of the --num_epochs "
            f"{args.num_epochs} to the filter",
        ),
    ]


def _run(args: Namespace, given: Collection[str]) -> Refusals:
    loading = "models_to_load", "resume_imu", "resume_velo", "resume_gravity"
    why = "without --load_weights_folder: there is nothing to load from"
    there = args.load_weights_folder is not None
    absent = [name for name in args.models_to_load if name not in models(args)]
    return [
        (
            args.scheduler == "cosine" and "scheduler_step_size" in given,
            "--scheduler_step_size has no use with --scheduler cosine, which falls at every step",
        ),
        (args.amp == "fp16" and args.no_cuda, "--amp fp16 needs a GPU, with --no_cuda use bf16"),
        (
            "first_save_epoch" in given and args.first_save_epoch >= args.num_epochs,
            f"--first_save_epoch {args.first_save_epoch} never comes: epochs are counted from 0 to "
            f"{args.num_epochs - 1}",
        ),
        *_idle(given, loading, why, unless=there),
        (args.resume_epochs is not None and not there, f"--resume_epochs has no use {why}"),
        (
            "models_to_load" in given and bool(absent),
            f"--models_to_load {' '.join(absent)}: this run has none, only "
            f"{' '.join(models(args))}",
        ),
        (
            args.resume is not None and args.overwrite,
            "--resume contradicts --overwrite: the one goes on with a run, the other removes it",
        ),
        # With auto the same line may be used again after each interruption.
        (
            args.resume not in (None, "auto") and there,
            "--resume contradicts --load_weights_folder: a checkpoint has all the weights",
        ),
    ]


_RULES: tuple[Callable[[Namespace, Collection[str]], Refusals], ...] = (
    *(_data, _camera, _image_noise, _imu, _motion_networks, _velocity, _shared_encoder),
    *(_filter, _run),
)


def _give_way(args: Namespace, given: Collection[str]) -> None:
    args.v1_multiscale = args.v1_multiscale or args.loss_resolution == "native"
    args.loss_resolution = "native" if args.v1_multiscale else "full"
    if args.shared_motion_encoder:
        args.num_layers_imu = args.num_layers
    if not args.use_gravity or args.motion_form == "driving":
        args.gravity_weight = 0.0
    args.first_save_epoch = min(args.first_save_epoch, args.num_epochs - 1)
    if args.resume_epochs is not None:
        args.load_weights_folder = args.load_weights_folder / f"weights_{args.resume_epochs}"
    names = list(args.models_to_load)
    for asked, added in (
        (args.resume_imu, ("ekf_model",)),
        (args.resume_velo, ("velo_encoder", "velo")),
        (args.resume_gravity, ("gravity_encoder", "gravity")),
    ):
        names += added if asked else ()
    args.models_to_load = [name for name in dict.fromkeys(names) if name in models(args)]
