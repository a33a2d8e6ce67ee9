"""What the options of training become: final values, what is derived, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

import options
from option_groups import contradictions

NO_IMU = "--imu_warp_weight 0 --imu_consistency_weight 0 --velo_weight 0 "
STEREO = "--frame_ids 0 --use_stereo " + NO_IMU


def train(words: str):
    return options.train(words.split())


def refusal(words: str, capsys) -> str:
    with pytest.raises(SystemExit) as stopped:
        train(words)
    assert stopped.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: train.py ") and error.startswith("train.py: error: ")
    return error.removeprefix("train.py: error: ")


@pytest.mark.parametrize(
    "words, inertial, velocity",
    [
        ("", True, True),
        (NO_IMU, False, False),
        (NO_IMU + "--imu_warp_weight 0.1", True, True),
        (NO_IMU + "--imu_consistency_weight 0.1", True, True),
        (NO_IMU + "--imu_l2_weight 0.1", True, True),
        (NO_IMU + "--velo_weight 0.1", False, True),
        (NO_IMU + "--use_ekf --ekf_velo_weight 1", True, True),
        (NO_IMU + "--use_ekf --ekf_gravity_weight 1", True, True),
        (NO_IMU + "--imu_velocity_weight 0.1", True, True),
        (NO_IMU + "--imu_warp_weight 1 --velocity_source recorded", True, True),
        (STEREO, False, False),
    ],
)
def test_networks_are_there_for_the_losses_that_need_them(words, inertial, velocity):
    args = train(words)
    assert (args.use_inertial_motion, args.use_gravity) == (inertial, inertial)
    assert (args.use_velocity, args.use_imu) == (velocity, velocity)
    assert args.gravity_weight == (0.001 if inertial else 0)


@pytest.mark.parametrize("loss", ["--imu_warp_weight 1", "--velo_weight 1", "--imu_l2_weight 1"])
def test_a_velocity_that_is_fitted_needs_the_imu_and_gravity_and_no_network_of_its_own(loss):
    args = train(NO_IMU + f"--velocity_source camera {loss}")
    assert args.use_inertial_motion and args.use_imu and args.use_gravity
    assert not args.use_velocity and args.gravity_weight == 0.001


def test_the_length_of_gravity_is_no_loss_where_it_is_known():
    assert train("--motion_form driving").gravity_weight == 0


@pytest.mark.parametrize(
    "words, names",
    [
        ("", "encoder depth pose_encoder pose velo_encoder velo gravity_encoder gravity"),
        (NO_IMU, "encoder depth pose_encoder pose"),
        (STEREO, "encoder depth"),
        (NO_IMU + "--velo_weight 1", "encoder depth pose_encoder pose velo_encoder velo"),
        (NO_IMU + "--pose_model_type posecnn", "encoder depth pose"),
        (NO_IMU + "--pose_model_type shared", "encoder depth pose"),
        ("--shared_motion_encoder", "encoder depth pose_encoder pose velo gravity"),
        (
            "--velocity_source camera",
            "encoder depth pose_encoder pose gravity_encoder gravity",
        ),
        (
            "--velocity_source camera --shared_motion_encoder",
            "encoder depth pose_encoder pose gravity",
        ),
        (
            NO_IMU + "--predictive_mask --disable_automasking",
            "encoder depth pose_encoder pose predictive_mask",
        ),
        (
            "--use_ekf",
            "encoder depth pose_encoder pose velo_encoder velo gravity_encoder gravity ekf_model",
        ),
    ],
)
def test_the_models_of_a_run_follow_from_its_options(words, names):
    args = train(words)
    assert contradictions.models(args) == names.split()
    usual = {"encoder", "depth", "pose_encoder", "pose"}
    assert args.models_to_load == [name for name in names.split() if name in usual]


@pytest.mark.parametrize("given, ordered", [("3 0 1", [0, 1, 3]), ("3 1", [1, 3]), ("2", [2])])
def test_frames_and_scales_are_put_in_order(given, ordered):
    args = train(f"--frame_ids 2 1 0 -1 --scales {given}")
    assert (args.frame_ids, args.scales) == ([0, 2, 1, -1], ordered)


@pytest.mark.parametrize(
    "words, resolution",
    [
        ("", "full"),
        ("--loss_resolution full", "full"),
        ("--loss_resolution native", "native"),
        ("--v1_multiscale", "native"),
        ("--v1_multiscale --loss_resolution native", "native"),
    ],
)
def test_two_names_of_one_thing_agree(words, resolution):
    args = train(words)
    assert (args.loss_resolution, args.v1_multiscale) == (resolution, resolution == "native")


def test_a_shared_encoder_is_that_of_the_camera_motion():
    assert train("--shared_motion_encoder --num_layers 50").num_layers_imu == 50
    assert train("--num_layers 50").num_layers_imu == 18


@pytest.mark.parametrize("epochs, first", [(30, 10), (11, 10), (10, 9), (1, 0)])
def test_the_last_epoch_is_kept_however_few_there_are(epochs, first):
    assert train(f"--num_epochs {epochs}").first_save_epoch == first


def test_the_split_is_that_of_the_data_where_it_has_one(tmp_path):
    data = f"--data_path {tmp_path} "
    assert train(data).split == "eigen_zhou"
    assert train(data + "--dataset kitti_depth").split == "eigen_zhou"
    assert train(data + "--dataset kitti_odom").split == "odom"
    assert train(data + "--split synthetic").split == tmp_path / "splits"
    (tmp_path / "splits").mkdir()
    assert train(data).split == tmp_path / "splits"
    assert train(data + "--dataset kitti_odom").split == tmp_path / "splits"
    assert train(data + "--split eigen_full").split == "eigen_full"
    assert train(data + "--split own/lists").split == Path("own/lists")


def test_the_home_folder_is_known_in_every_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "raw" / "splits").mkdir(parents=True)
    assert train("").log_dir == tmp_path / "tmp"
    args = train("--data_path ~/raw --log_dir ~/runs --cache_dir ~/c --pretrained_path ~/r18.pth")
    assert (args.data_path, args.split) == (tmp_path / "raw", tmp_path / "raw" / "splits")
    assert (args.log_dir, args.cache_dir) == (tmp_path / "runs", tmp_path / "c")
    assert args.pretrained_path == tmp_path / "r18.pth"
    assert train("--split ~/lists").split == tmp_path / "lists"
    assert train("--load_weights_folder ~/w").load_weights_folder == tmp_path / "w"
    assert train("--resume ~/runs/a").resume == str(tmp_path / "runs" / "a")
    assert [train(f"--resume {path}").resume for path in ("auto", "./auto")] == ["auto", "./auto"]


@pytest.mark.parametrize(
    "words, folder, names",
    [
        ("", "models", ["encoder", "depth", "pose_encoder", "pose"]),
        ("--models_to_load depth depth encoder", "models", ["depth", "encoder"]),
        ("--resume_epochs 0 --models_to_load depth", "models/weights_0", ["depth"]),
        ("--models_to_load depth --use_ekf --resume_imu", "models", ["depth", "ekf_model"]),
        ("--models_to_load velo --resume_velo", "models", ["velo", "velo_encoder"]),
        (
            "--models_to_load depth --resume_gravity --resume_velo",
            "models",
            ["depth", "velo_encoder", "velo", "gravity_encoder", "gravity"],
        ),
        (
            "--models_to_load pose --resume_gravity --resume_velo --shared_motion_encoder",
            "models",
            ["pose", "velo", "gravity"],
        ),
    ],
)
def test_an_earlier_stage_s_weights_are_asked_for_by_name(words, folder, names):
    args = train("--load_weights_folder models " + words)
    assert args.load_weights_folder == Path(folder)
    assert args.models_to_load == names


DATA = [
    ("--dataset kitti_test", "nothing to train on"),
    ("--split eigen", "--split eigen lists frames for tests alone: choose one of eigen_quater"),
    ("--split eigen_benchmark", "--split eigen_benchmark lists frames for tests alone"),
    ("--split odom", "--split odom lists odometry sequences, it needs --dataset kitti_odom"),
    ("--dataset kitti_odom --split eigen_full", "--split eigen_full lists raw drives"),
    ("--min_depth 5 --max_depth 5", "--min_depth 5 is not less than --max_depth 5"),
    ("--data_path ~nobody_of_this_name", "no such home folder"),
    ("--frame_ids -1 1", "--frame_ids -1 1 lacks 0, the target"),
    ("--frame_ids 0 0 1", "--frame_ids 0 0 1 has an image twice"),
    ("--initial_depth_m 0.5", "--initial_depth_m 0.5 is not between 0.54 and 540 m"),
    ("--initial_depth_m 540", "--initial_depth_m 540.0 is not between 0.54 and 540 m"),
    (
        "--initial_depth_m 8 --min_depth 0.5 --max_depth 4 --trans_scale_factor 2",
        "--initial_depth_m 8.0 is not between 1 and 8 m, which are --min_depth and --max_depth ti",
    ),
    ("--scales 0 1 1", "--scales has a scale twice"),
    (NO_IMU + "--frame_ids 0", "--frame_ids 0 without --use_stereo leaves no image"),
]
CAMERA = [
    ("--predictive_mask", "--predictive_mask needs --disable_automasking"),
    ("--v1_multiscale --loss_resolution full", "--v1_multiscale contradicts --loss_resolution"),
    ("--narrow_networks", "--narrow_networks needs --weights_init scratch"),
    ("--narrow_networks --pretrained_path a.pth", "--narrow_networks needs --weights_init scratch"),
    ("--pretrained_path a.pth --weights_init scratch", "--pretrained_path has no use with"),
    ("--pretrained_path a.pth --num_layers 50", "--num_layers is 50 and --num_layers_imu 18"),
    (STEREO + "--pose_model_type posecnn", "--pose_model_type has no use here: --frame_ids 0"),
    (STEREO + "--pose_model_input all", "--pose_model_input has no use here: --frame_ids 0"),
    (STEREO + "--sample_vis_pose", "--sample_vis_pose has no use here: --frame_ids 0"),
]
IMAGE_NOISE = [
    (f"{of_type} --img_{name} 0.25", f"--img_{name} has no use with --img_noise_type {kind}, whi")
    for of_type, kind, names in (
        (
            "",
            "clean",
            "noise_brightness noise_contrast noise_saturation noise_hue noise_gamma noise_gain "
            "mask_size",
        ),
        ("--img_noise_type bcsh", "bcsh", "noise_gamma noise_gain mask_size"),
        ("--img_noise_type gg", "gg", "noise_brightness noise_hue mask_size"),
        ("--img_noise_type mask", "mask", "noise_brightness noise_saturation noise_gamma"),
    )
    for name in names.split()
] + [("--img_mask_num 2", "--img_mask_num has no use with --img_noise_type clean")]
IMU = [
    ("--frame_ids 0 --use_stereo", "--frame_ids 0 has no interval for the IMU"),
    ("--frame_ids 0 --use_stereo", "turn it off: --imu_warp_weight 0 --imu_consistency_weight 0 -"),
    ("--frame_ids 0 1 3", "--frame_ids 0 1 3 is not one run"),
    ("--frame_ids 0 -2 2", "--frame_ids 0 -2 2 is not one run"),
    (NO_IMU + "--velo_weight 1 --frame_ids 0 2", "--frame_ids 0 2 is not one run"),
    (NO_IMU + "--imu_filename a.txt", "--imu_filename has no use without the IMU: no loss uses"),
    (NO_IMU + "--avoid_quat_check", "--avoid_quat_check has no use without the IMU"),
    (NO_IMU + "--k_imu_clip 4", "--k_imu_clip has no use without the IMU"),
    (NO_IMU + "--align_steps 100", "--align_steps has no use without the IMU"),
    (NO_IMU + "--num_layers_imu 18", "--num_layers_imu has no use without a network of velocity"),
    (NO_IMU + "--predict_velo_residue", "--predict_velo_residue has no use without a network"),
    (NO_IMU + "--display_velo_scale", "--display_velo_scale has no use without a network"),
    (NO_IMU + "--shared_motion_encoder", "--shared_motion_encoder has no use without a network"),
    (NO_IMU + "--gravity_weight 0.1", "--gravity_weight has no use without a network of gravity"),
    (NO_IMU + "--velo_weight 1 --gravity_weight 0.1", "--gravity_weight has no use without"),
    (
        "--imu_consistency_weight 0 --no_grad_imu_consistency imu",
        "--no_grad_imu_consistency imu has no use with --imu_consistency_weight 0",
    ),
    (
        "--imu_consistency_weight 0 --no_grad_imu_consistency network",
        "--no_grad_imu_consistency network has no use with --imu_consistency_weight 0",
    ),
    (
        "--shared_motion_encoder --pose_model_type posecnn",
        "--shared_motion_encoder has no use with --pose_model_type posecnn",
    ),
    (
        "--shared_motion_encoder --pose_model_type shared",
        "--shared_motion_encoder has no use with --pose_model_type shared",
    ),
    (
        "--shared_motion_encoder --pose_model_input all",
        "--shared_motion_encoder has no use with --pose_model_input all",
    ),
    (
        "--shared_motion_encoder --num_layers 34 --num_layers_imu 18",
        "--num_layers_imu 18 contradicts --shared_motion_encoder: that has the 34 of",
    ),
]
SEEN_MOTION = [
    (STEREO + "--motion_form driving", "--motion_form driving has no use here: --frame_ids 0"),
    (STEREO + "--motion_resolution half", "--motion_resolution half has no use here: --frame_ids"),
    (
        NO_IMU + "--motion_form driving --pose_model_type posecnn",
        "--motion_form driving has no use with --pose_model_type posecnn and no network",
    ),
    (
        NO_IMU + "--motion_resolution half --pose_model_type shared",
        "--motion_resolution half has no use with --pose_model_type shared and no network",
    ),
    (
        "--motion_resolution half --height 64 --width 64",
        "--motion_resolution half leaves one pixel of 64x64 images",
    ),
    (
        "--motion_form driving --predict_velo_residue",
        "--predict_velo_residue contradicts --motion_form driving",
    ),
    (
        "--motion_form driving --gravity_weight 0.001",
        "--gravity_weight has no use with --motion_form driving",
    ),
]
VELOCITY = [
    *(
        (words, f"--velocity_source {source} has no use: no loss has the IMU's motion")
        for words, source in (
            (NO_IMU + "--velocity_source camera", "camera"),
            (NO_IMU + "--velocity_source recorded", "recorded"),
            (NO_IMU + "--velocity_source recorded --velo_weight 1", "recorded"),
        )
    ),
    (
        "--velocity_source camera --frame_ids 0 -1",
        "--velocity_source camera needs 1 among --frame_ids, not 0 -1",
    ),
    (
        "--velocity_source camera --imu_velocity_weight 1",
        "--imu_velocity_weight has no use with --velocity_source camera",
    ),
    (
        "--velocity_source camera --predict_velo_residue",
        "--predict_velo_residue has no use without a network of velocity: --velocity_source camera",
    ),
    (
        "--velocity_source camera --load_weights_folder a --resume_velo",
        "--resume_velo has no use without a network of velocity: --velocity_source camera",
    ),
    (
        "--imu_velocity_weight 1 --frame_ids 0 1 2",
        "--imu_velocity_weight needs -1 and 1 among --frame_ids, not 0 1 2",
    ),
    ("--imu_velocity_weight 1 --frame_ids 0 -1", "--imu_velocity_weight needs -1 and 1 among"),
    ("--align_steps 9 --frame_ids 0 -1", "--align_steps needs 1 among --frame_ids, not 0 -1"),
    (
        "--align_steps 9 --pose_model_input all",
        "--align_steps needs --pose_model_input pairs",
    ),
]
FILTER = [
    *(
        (given, f"{given.split()[0]} has no use without --use_ekf: there is no filter")
        for given in (
            *("--ekf_warming_epochs 5", "--ekf_velo_weight 1", "--ekf_gravity_weight 1"),
            *("--train_init_covar", "--train_imu_noise_covar", "--resume_imu"),
            *("--train_init_covar --sample_vis_pose", "--ekf_velo_weight 1 --sample_vis_pose"),
        )
    ),
    *(
        (given, f"{given.split()[0]} has no use without --use_ekf or --sample_vis_pose")
        for given in ("--noise_preset published", "--vis_covar_use_fixed", "--naive_vis_covar")
    ),
    (NO_IMU + "--use_ekf", "--use_ekf has no use without a loss of the motion that it fuses"),
    (NO_IMU + "--use_ekf --imu_velocity_weight 1", "--use_ekf has no use without a loss"),
    (NO_IMU + "--use_ekf --velo_weight 1 --velocity_source camera", "--use_ekf has no use without"),
    (NO_IMU + "--use_ekf --velo_weight 1", "--use_ekf has no use without a loss"),
    (
        "--use_ekf --vis_covar_use_fixed --naive_vis_covar",
        "--vis_covar_use_fixed contradicts --naive_vis_covar",
    ),
    (
        "--use_ekf --pose_model_type posecnn",
        "--use_ekf needs --vis_covar_use_fixed with --pose_model_type posecnn",
    ),
    (
        "--sample_vis_pose --pose_model_type posecnn --naive_vis_covar",
        "--sample_vis_pose needs --vis_covar_use_fixed with --pose_model_type posecnn",
    ),
    (
        "--use_ekf --ekf_warming_epochs 7 --num_epochs 7",
        "--ekf_warming_epochs 7 leaves none of the --num_epochs 7 to the filter",
    ),
]
RUN = [
    (
        "--scheduler cosine --scheduler_step_size 15",
        "--scheduler_step_size has no use with --scheduler cosine",
    ),
    ("--amp fp16 --no_cuda", "--amp fp16 needs a GPU, with --no_cuda use bf16"),
    ("--first_save_epoch 30", "--first_save_epoch 30 never comes: epochs are counted from 0 to 29"),
    ("--models_to_load depth", "--models_to_load has no use without --load_weights_folder"),
    ("--resume_velo", "--resume_velo has no use without --load_weights_folder"),
    ("--resume_gravity", "--resume_gravity has no use without --load_weights_folder"),
    ("--use_ekf --resume_imu", "--resume_imu has no use without --load_weights_folder"),
    ("--resume_epochs 0", "--resume_epochs has no use without --load_weights_folder"),
    (NO_IMU + "--load_weights_folder a --resume_velo", "--resume_velo has no use without a netw"),
    (NO_IMU + "--load_weights_folder a --resume_gravity", "--resume_gravity has no use without a"),
    (
        NO_IMU + "--velo_weight 1 --load_weights_folder a --resume_gravity",
        "--resume_gravity has no use without a network of gravity",
    ),
    (
        NO_IMU + "--load_weights_folder a --models_to_load encoder velo ekf_model",
        "--models_to_load velo ekf_model: this run has none, only encoder depth pose_encoder pose",
    ),
    ("--resume auto --overwrite", "--resume contradicts --overwrite"),
    ("--resume a --load_weights_folder b", "--resume contradicts --load_weights_folder"),
    ("--resume ~nobody_of_this_name/a", "no such home folder"),
]


@pytest.mark.parametrize(
    "words, message",
    [*DATA, *CAMERA, *IMAGE_NOISE, *IMU, *SEEN_MOTION, *VELOCITY, *FILTER, *RUN],
)
def test_a_contradiction_is_one_line_with_the_reason(words, message, capsys):
    assert message in refusal(words, capsys)


@pytest.mark.parametrize(
    "words",
    [
        NO_IMU + "--gravity_weight 0",
        "--ekf_velo_weight 0 --ekf_warming_epochs 0",
        "--sample_vis_pose --noise_preset calibrated",
        "--sample_vis_pose --naive_vis_covar",
        "--sample_vis_pose --vis_covar_use_fixed --pose_model_type posecnn",
        "--use_ekf --vis_covar_use_fixed --pose_model_type posecnn",
        "--use_ekf --naive_vis_covar --pose_model_type shared",
        "--use_ekf --ekf_warming_epochs 6 --num_epochs 7",
        "--use_ekf --train_init_covar --train_imu_noise_covar --ekf_velo_weight 1",
        "--imu_consistency_weight 0 --no_grad_imu_consistency none",
        "--no_grad_imu_consistency imu",
        "--frame_ids 0 1",
        "--frame_ids 0 -1 --pose_model_input all",
        "--frame_ids 1 0 -1 2",
        NO_IMU + "--frame_ids 0 -3 5",
        NO_IMU + "--velo_weight 1 --display_velo_scale --predict_velo_residue",
        STEREO,
        STEREO + "--motion_form published --motion_resolution full",
        STEREO + "--velocity_source network --align_steps 0 --imu_velocity_weight 0",
        "--motion_form driving --gravity_weight 0",
        "--motion_form driving --pose_model_type posecnn",
        NO_IMU + "--motion_form driving --pose_model_type shared",
        NO_IMU + "--motion_resolution half --pose_model_type posecnn --height 96 --width 64",
        NO_IMU + "--motion_resolution half --pose_model_input all",
        "--motion_resolution half --pose_model_type shared",
        "--velocity_source camera --frame_ids 0 1",
        "--velocity_source camera --display_velo_scale --num_layers_imu 34",
        "--velocity_source camera --shared_motion_encoder --velo_weight 0 --align_steps 9",
        "--velocity_source recorded --predict_velo_residue --imu_velocity_weight 1",
        NO_IMU + "--velo_weight 1 --align_steps 9",
        "--narrow_networks --weights_init scratch",
        "--initial_depth_m 0.6",
        "--initial_depth_m 8 --min_depth 0.5 --max_depth 4 --trans_scale_factor 2.1",
        "--scheduler cosine --warmup_steps 50",
        "--scheduler step --scheduler_step_size 3 --warmup_steps 50",
        "--frame_ids 0 -1 1 --use_stereo",
        "--dataset kitti_odom --split odom --png",
        "--predictive_mask --disable_automasking --avg_reprojection --no_ssim",
        "--pretrained_path a.pth",
        "--pretrained_path a.pth --num_layers 50 --num_layers_imu 50",
        "--pretrained_path a.pth --num_layers 50 --shared_motion_encoder",
        NO_IMU + "--pretrained_path a.pth --num_layers 50",
        "--shared_motion_encoder --num_layers 34 --num_layers_imu 34",
        "--img_noise_type bcsh --img_noise_brightness 1 --img_noise_hue 0.1",
        "--img_noise_type gg --img_noise_gamma 1 --img_noise_gain 1",
        "--img_noise_type mask --img_mask_num 3 --img_mask_size 20",
        "--amp fp16",
        "--amp bf16 --no_cuda",
        "--deterministic --compile",
        "--first_save_epoch 29",
        "--resume auto --load_weights_folder a",
        "--overwrite --load_weights_folder a",
    ],
)
def test_what_is_no_contradiction_is_read(words):
    assert train(words).model_name == "dynadepth"
