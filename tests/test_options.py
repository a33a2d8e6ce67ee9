"""The one place of all options: those of training, files of options, and the other programs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest

import options
from option_groups import data_programs, inertial_training

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.txt"))

# What was published, by the groups of the help.
PUBLISHED = {
    "paths": {"data_path": Path("data/kitti/kitti_raw"), "log_dir": Path("~/tmp").expanduser()},
    "training": {
        "model_name": "dynadepth",
        "split": "eigen_zhou",
        "num_layers": 18,
        "num_layers_imu": 18,
        "dataset": "kitti",
        "png": False,
        "height": 192,
        "width": 640,
        "disparity_smoothness": 1e-3,
        "scales": [0, 1, 2, 3],
        "min_depth": 0.1,
        "max_depth": 100.0,
        "use_stereo": False,
        "frame_ids": [0, -1, 1],
    },
    "optimisation": {
        "batch_size": 8,
        "learning_rate": 1e-4,
        "num_epochs": 30,
        "scheduler_step_size": 15,
    },
    "ablation": {
        "v1_multiscale": False,
        "avg_reprojection": False,
        "disable_automasking": False,
        "predictive_mask": False,
        "no_ssim": False,
        "weights_init": "pretrained",
        "pose_model_input": "pairs",
        "pose_model_type": "separate_resnet",
    },
    "noise": {
        "imu_filename": "matched_oxts.txt",
        "img_noise_type": "clean",
        "img_noise_brightness": 0.5,
        "img_noise_contrast": 0.5,
        "img_noise_saturation": 0.5,
        "img_noise_hue": 0.5,
        "img_noise_gamma": 0.5,
        "img_noise_gain": 0.5,
        "img_mask_num": 1,
        "img_mask_size": 50,
        "avoid_quat_check": False,
    },
    "imu": {
        "imu_l2_weight": 0,
        "imu_warp_weight": 0.5,
        "imu_consistency_weight": 0.01,
        "trans_scale_factor": 5.4,
        "no_grad_imu_consistency": "none",
        "predict_velo_residue": False,
        "velo_weight": 0.001,
        "gravity_weight": 0.001,
        "display_velo_scale": False,
        "k_imu_clip": 5,
    },
    "ekf": {
        "use_ekf": False,
        "ekf_warming_epochs": 0,
        "ekf_velo_weight": 0,
        "ekf_gravity_weight": 0,
        "train_init_covar": False,
        "train_imu_noise_covar": False,
        "vis_covar_use_fixed": False,
        "naive_vis_covar": False,
        "sample_vis_pose": False,
        "resume_imu": False,
        "resume_gravity": False,
        "resume_velo": False,
        "resume_epochs": None,
    },
    "system": {"no_cuda": False, "num_workers": 12},
    "loading": {
        "load_weights_folder": None,
        "models_to_load": ["encoder", "depth", "pose_encoder", "pose"],
    },
    "logging": {"log_frequency": 250, "save_frequency": 1, "first_save_epoch": 10},
}
BEYOND = {
    "paths": {"cache_dir": None},
    "training": {"intrinsics": "calibrated", "skip_broken": False, "initial_depth_m": None},
    "optimisation": {
        "accumulate_steps": 1,
        "scheduler": "step",
        "warmup_steps": 0,
        "clip_grad_norm": 0,
        "amp": "off",
    },
    "ablation": {
        "loss_resolution": "full",
        "narrow_networks": False,
        "pretrained_path": None,
        "motion_form": "published",
        "motion_resolution": "full",
        "shared_motion_encoder": False,
    },
    "noise": {},
    "imu": {"imu_velocity_weight": 0, "align_steps": 0, "velocity_source": "network"},
    "ekf": {"noise_preset": "published"},
    "system": {"compile": False, "channels_last": False, "seed": 0, "deterministic": False},
    "loading": {"resume": None, "overwrite": False},
    "logging": {"keep_checkpoints": 0, "save_minutes": 30},
}
DERIVED = {"use_inertial_motion", "use_velocity", "use_gravity", "use_imu"}
DEFAULTS = {
    name: value
    for part in (PUBLISHED, BEYOND)
    for group in part.values()
    for name, value in group.items()
}

# Each line can be given as a whole; together they give every option a value other than its default.
GIVEN = [
    "--data_path raw --log_dir runs --cache_dir cache --model_name r50 --split eigen_full",
    "--num_layers 50 --num_layers_imu 34 --dataset kitti_depth --png --height 96 --width 320",
    "--disparity_smoothness 0.01 --scales 0 2 --min_depth 1 --max_depth 80 --use_stereo",
    "--frame_ids 0 -2 -1 1 2 --intrinsics fixed --skip_broken",
    "--batch_size 4 --accumulate_steps 2 --learning_rate 2e-4 --num_epochs 20",
    "--scheduler_step_size 5 --clip_grad_norm 1.5 --amp bf16",
    "--scheduler cosine --warmup_steps 50",
    "--scales 1 3 --initial_depth_m 8",
    "--loss_resolution native --v1_multiscale --avg_reprojection --no_ssim",
    "--disable_automasking --predictive_mask --pose_model_input all --pose_model_type shared",
    "--weights_init scratch --narrow_networks",
    "--motion_form driving --motion_resolution half --gravity_weight 0",
    "--pretrained_path r18.pth",
    "--shared_motion_encoder",
    "--imu_filename noisy.txt --avoid_quat_check --img_noise_type bcsh",
    "--img_noise_type bcsh --img_noise_brightness 1 --img_noise_contrast 2"
    " --img_noise_saturation 3 --img_noise_hue 0.25",
    "--img_noise_type gg --img_noise_gamma 1 --img_noise_gain 2",
    "--img_noise_type mask --img_mask_num 3 --img_mask_size 20",
    "--imu_l2_weight 1 --imu_warp_weight 2 --imu_consistency_weight 3 --trans_scale_factor 4",
    "--no_grad_imu_consistency network --predict_velo_residue --velo_weight 5 --gravity_weight 6",
    "--display_velo_scale --k_imu_clip 7",
    "--imu_velocity_weight 8 --velocity_source recorded --align_steps 9",
    "--use_ekf --ekf_warming_epochs 5 --ekf_velo_weight 1 --ekf_gravity_weight 2"
    " --train_init_covar --train_imu_noise_covar --noise_preset calibrated --sample_vis_pose",
    "--use_ekf --vis_covar_use_fixed",
    "--use_ekf --naive_vis_covar",
    "--no_cuda --num_workers 3 --compile --channels_last --seed 7 --deterministic",
    "--load_weights_folder w --models_to_load depth pose --overwrite",
    "--load_weights_folder w --use_ekf --resume_imu --resume_gravity --resume_velo"
    " --resume_epochs 3",
    "--resume runs/r18",
    "--log_frequency 10 --save_frequency 2 --first_save_epoch 5 --keep_checkpoints 3"
    " --save_minutes 0",
]
LOADED = {"load_weights_folder", "models_to_load"}  # which follow from others


def value_of(words: list[str]) -> object:
    """Read the words after an option's name without knowing its type."""
    values = [float(word) if re.fullmatch(r"-?[\d.]+(e-\d)?", word) else word for word in words]
    return values if len(values) > 1 else values[0] if values else True


def same(value: object) -> object:
    """Bring an option's value to the form of `value_of`."""
    return str(value) if isinstance(value, Path) else value


def parsed_names(add) -> set[str]:
    """Return the names of the options that a function adds."""
    parser = ArgumentParser()
    add(parser)
    return set(vars(parser.parse_args([])))


@pytest.fixture
def help_text(capsys, monkeypatch) -> str:
    monkeypatch.setenv("COLUMNS", "10000")
    monkeypatch.setenv("NO_COLOR", "1")
    with pytest.raises(SystemExit) as stopped:
        options.train(["--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_the_defaults_are_those_published(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where no data is that has splits of its own
    args = vars(options.train([]))
    assert {name: args[name] for name in DEFAULTS} == DEFAULTS
    assert set(args) - set(DEFAULTS) == DERIVED


@pytest.mark.parametrize("line", GIVEN)
def test_each_option_is_read_and_touches_no_other(line, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    args = vars(options.train(line.split()))
    given = {}
    for words in re.split(r"(?:^| )--", line)[1:]:
        name, *values = words.split()
        given[name] = value_of(values)
    settled = LOADED if {"resume_epochs", "pose_model_type"} & set(given) else set()
    for name in set(DEFAULTS) - settled:
        assert same(args[name]) == given.get(name, same(DEFAULTS[name])), name


def test_every_option_is_among_those_given():
    named = {name for line in GIVEN for name in re.findall(r"--(\w+)", line)}
    assert named == set(DEFAULTS)


def test_the_result_can_be_kept_as_json():
    for line in GIVEN:
        args = vars(options.train(line.split()))
        assert set(json.loads(json.dumps(args, default=str))) == set(args)


def test_no_call_sees_the_lists_of_another():
    for name in ("frame_ids", "scales", "models_to_load"):
        getattr(options.train([]), name).append("x")
        assert getattr(options.train([]), name) == DEFAULTS[name]


def test_without_arguments_they_are_those_of_the_program(monkeypatch, tmp_path):
    (tmp_path / "a.txt").write_text("--seed 5")
    monkeypatch.setattr(sys, "argv", ["train.py", "--height", "64", f"@{tmp_path / 'a.txt'}"])
    assert (options.train().height, options.train().seed) == (64, 5)


@pytest.mark.parametrize("word", ["--batch", "--learning-rate", "--eval_mono", "extra"])
def test_nothing_is_guessed(word, capsys):
    with pytest.raises(SystemExit) as stopped:
        options.train([word])
    assert stopped.value.code == 2
    assert f"unrecognized arguments: {word}" in capsys.readouterr().err


def test_the_help_has_every_option_in_its_group_with_text_and_default(help_text):
    groups = dict(re.findall(r"^(\w+):\n(.*?)\n(?=\n\w)", help_text, re.MULTILINE | re.DOTALL))
    groups.pop("options")
    assert list(groups) == list(PUBLISHED) == list(BEYOND)
    for title, text in groups.items():
        entries = re.findall(r"^  (--(\w+).*(?:\n {6,}.*)?)$", text, re.MULTILINE)
        expected = PUBLISHED[title] | BEYOND[title]
        assert sorted(name for _, name in entries) == sorted(expected)
        for entry, name in entries:
            words = re.split(r"  +|\n +", entry, maxsplit=1)[1]
            assert re.sub(r"\(default.*", "", words) or name in ("width", "num_epochs"), name
            assert ("(default: " in words) == (expected[name] is not False), name


def test_the_help_says_the_defaults_that_are_used(help_text):
    option = re.compile(r"^  --(\w+) .*(?:\n {6,}.*)?\(default: ([^,;)]+)", re.MULTILINE)
    shown = dict(option.findall(help_text))
    for name, default in DEFAULTS.items():
        if default is False or name == "split":
            continue
        words = default if isinstance(default, list) else [default]
        text = " ".join(f"{word:g}" if isinstance(word, float) else str(word) for word in words)
        text = {"None": "none", str(DEFAULTS["log_dir"]): "~/tmp"}.get(text, text)
        assert shown[name] == text, name


def test_the_help_ends_with_the_exit_codes_and_several_gpus(help_text):
    assert help_text.startswith("usage: train.py [-h] [@FILE] ")
    end = help_text.split("\n\nexit code: ")[1]
    for words in ("0 the model", "1 training collapsed", "2 an option", "128 + signal", "torchrun"):
        assert words in end
    command = re.search(r"torchrun --nproc_per_node \d+ train.py (.*)", end)[1]
    assert options.train([command.replace("@", f"@{ROOT}/")]).model_name == "r18"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_says_what_it_is_and_only_what_it_changes(config, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = config.read_text(encoding="utf-8")
    assert text.startswith("# ") and f"python train.py @configs/{config.name} " in text
    args = vars(options.train([f"@{config}"]))
    assert args["model_name"] == config.stem
    named = re.findall(r"--(\w+)", re.sub(r"#.*", "", text))
    assert len(named) == len(set(named))
    for name in named:
        assert args[name] != DEFAULTS[name], name
    gives_way = {"gravity_weight", "models_to_load", "first_save_epoch"}
    if args["loss_resolution"] == "native":
        gives_way.add("v1_multiscale")  # the same by its older name
    for name in set(DEFAULTS) - set(named) - gives_way:
        assert args[name] == DEFAULTS[name], name


def test_the_configs_are_what_their_names_say():
    args = {path.stem: options.train([f"@{path}"]) for path in CONFIGS}
    assert set(args) == {
        *("r18", "r18_ekf", "r50", "r50_ekf"),
        *("camera_only", "stereo", "inertial_only"),
        *("demo", "demo_camera"),
    }
    for name in ("r18", "r18_ekf", "r50", "r50_ekf"):
        assert args[name].num_layers == int(name[1:3])
        assert args[name].use_ekf == name.endswith("_ekf")
        assert args[name].velo_weight > 0 and args[name].use_inertial_motion
    assert not args["camera_only"].use_imu and not args["camera_only"].use_stereo
    assert not args["stereo"].use_imu and args["stereo"].frame_ids == [0]
    assert args["stereo"].use_stereo
    inertial = args["inertial_only"]
    assert inertial.velo_weight == 0 and inertial.use_inertial_motion and inertial.use_imu
    assert sorted(inertial.frame_ids) == [-2, -1, 0, 1, 2]
    demo, camera = vars(args["demo"]), vars(args["demo_camera"])
    assert demo["use_ekf"] and not camera["use_imu"]
    inertial = parsed_names(inertial_training.add_imu) | parsed_names(inertial_training.add_ekf)
    different = {name for name in demo if demo[name] != camera[name]}
    assert different - DERIVED - inertial == {"model_name", "shared_motion_encoder"}


def test_what_comes_after_a_config_counts():
    config = f"@{ROOT / 'configs' / 'r50_ekf.txt'}"
    args = options.train([config, "--num_layers", "34", "--batch_size", "4"])
    assert (args.num_layers, args.batch_size, args.use_ekf) == (34, 4, True)
    assert options.train(["--num_layers", "34", config]).num_layers == 50


def test_a_contradiction_may_come_from_a_config_as_well(capsys):
    with pytest.raises(SystemExit):
        options.train([f"@{ROOT / 'configs' / 'stereo.txt'}", "--use_ekf"])
    assert "--use_ekf has no use without a loss" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["match_kitti_imu", "make_synthetic_kitti", "check", "cache", "add_noise"]
)
def test_the_programs_of_the_data_are_here_too(name):
    assert name in options.__all__
    assert getattr(options, name) is getattr(data_programs, name)


def test_options_need_nothing_but_python():
    code = "import sys, options; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
