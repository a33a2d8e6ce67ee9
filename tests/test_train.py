"""Every option of `train.py` in a step of training, and what the program ends with."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18

import options
import train
from networks.resnet_encoder import ResnetEncoder
from tests.image_tree import write_improved_depth
from tests.test_distributed import in_world
from tests.training_runs import (
    CAMERA_ONLY,
    EKF,
    TRAIN_LINES,
    Taken,
    equal_states,
    lines_of,
    make_data,
    make_trainer,
    options_for,
    states,
    use_small_networks,
)
from trainer import Trainer
from training import data
from training.distributed import World
from training.prediction import depth_in_metres

ROOT = Path(__file__).parent.parent
STEPS = TRAIN_LINES // 2
UNIT = 5.4  # [m]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    use_small_networks(monkeypatch)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = make_data(tmp_path_factory.mktemp("data"))
    for drive in root.glob("*/*_sync"):
        write_improved_depth(drive, range(6))
        folder = drive / "matched_oxts"
        text = (folder / "matched_oxts.txt").read_text()
        (folder / "noisy.txt").write_text(text.replace("9.", "8.").replace(" 0.2", " 0.3"))
    return root


@pytest.fixture(scope="module")
def usual(root, tmp_path_factory) -> Callable[[str], Taken]:
    """Return what gives the first step with some options, for comparison, and takes it once."""
    taken: dict[str, Taken] = {}

    def step(words: str) -> Taken:
        if words not in taken:
            taken[words] = Taken(make_trainer(root, tmp_path_factory.mktemp("usual"), words))
        return taken[words]

    return step


# What an option changes in the first step, beside the same step without it


def differs(*terms: str, by: float = 1e-6) -> Callable[[Taken, Taken], bool]:
    """Say that these terms and no other are another number; what both have is compared."""

    def check(a: Taken, b: Taken) -> bool:
        both = (a.terms.keys() & b.terms.keys()) - {"total", "gradient"}
        found = {n for n in both if not math.isclose(a.terms[n], b.terms[n], rel_tol=by)}
        return found == set(terms) and a.terms["total"] != b.terms["total"]

    return check


def has(*terms: str) -> Callable[[Taken, Taken], bool]:
    """Say that it has these terms more."""
    return lambda a, b: a.terms.keys() - b.terms.keys() == set(terms)


def lacks(*terms: str) -> Callable[[Taken, Taken], bool]:
    """Say that it has these terms less."""
    return lambda a, b: b.terms.keys() - a.terms.keys() == set(terms)


def only_total(a: Taken, b: Taken) -> bool:
    """Say that a weight has changed and no term has."""
    same = all(math.isclose(a.terms[n], b.terms[n], rel_tol=1e-5) for n in b.terms if n in TERMS)
    return same and a.terms["total"] != b.terms["total"]


def only_gradient(a: Taken, b: Taken) -> bool:
    """Say that the loss is the same and learns otherwise."""
    same = math.isclose(a.terms["total"], b.terms["total"], rel_tol=1e-5)
    return same and not math.isclose(a.terms["gradient"], b.terms["gradient"], rel_tol=1e-4)


def nearly(a: Taken, b: Taken) -> bool:
    """Say that it computes the same in another way."""
    return all(math.isclose(a.terms[n], b.terms[n], rel_tol=1e-4) for n in b.terms)


def rounded(a: Taken, b: Taken) -> bool:
    """Say that it computes nearly the same, with fewer digits."""
    same = math.isclose(a.terms["total"], b.terms["total"], rel_tol=0.05)
    return same and not nearly(a, b) and a.details.prediction.disparity[0].dtype == torch.float32


def images(a: Taken, b: Taken) -> bool:
    """Say that all images that are compared are others, and what they are of is the same."""
    others = [
        a.group[0].image[k].sub(b.group[0].image[k]).abs().max() > 1 / 255 for k in (0, -1, 1)
    ]
    return all(others) and torch.equal(a.group[0].index, b.group[0].index)


def depth_range(a: Taken, b: Taken) -> tuple[float, float]:
    disparity = torch.tensor([0.0, 1.0])
    far, near = depth_in_metres(disparity, a.trainer.options).tolist()
    shown = depth_in_metres(a.details.prediction.disparity[0], a.trainer.options)
    assert near <= shown.min() and shown.max() <= far
    return near, far


TERMS = "photometric smoothness imu_photometric imu_consistency velocity gravity".split()
CLEAN = "--avoid_quat_check"
SAMPLED = f"{CAMERA_ONLY} --sample_vis_pose"
NOISY = "--imu_filename noisy.txt --avoid_quat_check"
VELOCITY = "--velo_weight 0.001 --imu_warp_weight 0 --imu_consistency_weight 0"

# words, those of the step that it is compared with, and what is then true of the two
CASES: list[tuple[str, str, Callable[[Taken, Taken], bool]]] = [
    ("--model_name other", "", lambda a, b: a.trainer.run.folder.name == "other"),
    ("--num_layers 34", "", lambda a, b: a.trainer.models["encoder"].num_layers == 34),
    ("--num_layers_imu 34", "", lambda a, b: a.trainer.models["velo_encoder"].num_layers == 34),
    ("--height 96", "", lambda a, b: a.group[0].image[0].shape == (2, 3, 96, 64)),
    ("--width 96", "", lambda a, b: a.group[0].image[0].shape == (2, 3, 64, 96)),
    ("--disparity_smoothness 0.1", "", only_total),
    ("--disparity_smoothness 0", "", lacks("smoothness")),
    ("--scales 1 3", "", lambda a, b: a.details.views.target.shape == (2, 3, 64, 64)),
    (
        "--scales 1 3 --loss_resolution native",
        "",
        lambda a, b: a.details.views.target.shape == (2, 3, 32, 32),
    ),
    ("--scales 1 --disable_automasking --predictive_mask", "", has("mask")),
    ("--scales 0 2", "", lambda a, b: set(a.details.prediction.disparity) == {0, 2}),
    ("--min_depth 2", "", lambda a, b: depth_range(a, b) == pytest.approx((2 * UNIT, 100 * UNIT))),
    ("--max_depth 9", "", lambda a, b: depth_range(a, b) == pytest.approx((0.1 * UNIT, 9 * UNIT))),
    (
        "--initial_depth_m 30",
        "",
        lambda a, b: (
            a.details.prediction.disparity[0].median() < 0.1 < 0.3
            and b.details.prediction.disparity[0].median() > 0.3
        ),
    ),
    ("--use_stereo", "", lambda a, b: len(a.details.views.sources) == 3),
    ("--use_stereo --use_ekf", "--use_ekf", lambda a, b: len(a.details.views.warped) == 5),
    ("--frame_ids 0 -1", "", lambda a, b: set(a.details.motion.used) == {-1}),
    ("--frame_ids 0 -2 -1 1", "", lambda a, b: set(a.details.motion.used) == {-2, -1, 1}),
    ("--frame_ids 0 -1 1 2 --use_ekf", "", lambda a, b: 2 in a.details.motion.used),
    ("--frame_ids 0 --use_stereo " + CAMERA_ONLY, "", lambda a, b: "pose" not in a.trainer.models),
    ("--intrinsics fixed", "", lambda a, b: not torch.equal(a.group[0].K, b.group[0].K)),
    ("--skip_broken", "", nearly),
    ("--dataset kitti_depth", "", nearly),
    ("--batch_size 3", "", lambda a, b: len(a.group[0].K) == 3),
    ("--accumulate_steps 2", "", lambda a, b: a.trainer.progress.examples == 4),
    ("--learning_rate 1e-3", "", lambda a, b: a.moved.norm() > 9 * b.moved.norm()),
    ("--warmup_steps 99", "", lambda a, b: a.moved.norm() < 0.02 * b.moved.norm()),
    ("--clip_grad_norm 1e-12", "", lambda a, b: a.moved.norm() < 0.01 * b.moved.norm()),
    ("--clip_grad_norm 100", "", lambda a, b: torch.equal(a.moved, b.moved)),
    ("--amp bf16", "", rounded),
    ("--amp bf16 --use_ekf", "--use_ekf", rounded),
    ("--v1_multiscale", "--loss_resolution native", lambda a, b: a.terms == b.terms),
    ("--loss_resolution native", "", differs("photometric", "imu_photometric", "imu_consistency")),
    (
        "--loss_resolution native --use_ekf",
        "--use_ekf",
        differs("photometric", "imu_photometric", "imu_consistency"),
    ),
    ("--avg_reprojection", "", differs("photometric", "imu_photometric")),
    ("--disable_automasking", "", lambda a, b: a.details.compared.moving.all().item()),
    ("--disable_automasking --predictive_mask", "", has("mask")),
    ("--no_ssim", "", differs("photometric", "imu_photometric", "imu_consistency")),
    (
        "--pose_model_input all",
        "",
        lambda a, b: a.trainer.models["pose_encoder"].num_input_images == 3,
    ),
    ("--pose_model_type posecnn", "", lambda a, b: "pose_encoder" not in a.trainer.models),
    ("--pose_model_type shared", "", lambda a, b: "pose_encoder" not in a.trainer.models),
    (
        "--pose_model_type shared --pose_model_input all --use_ekf",
        "--pose_model_type shared --use_ekf",
        lambda a, b: a.terms["photometric"] != b.terms["photometric"],
    ),
    ("--narrow_networks", "", lambda a, b: a.trainer.models["encoder"].narrow),
    (
        "--motion_resolution half --width 96",
        "--width 96",
        differs("photometric", "imu_photometric", "imu_consistency", "velocity"),
    ),
    (
        "--motion_form driving --use_ekf",
        "--use_ekf",
        lambda a, b: a.details.prediction.T_first_second[1][:, 2, 3].min() > 0.3,
    ),
    ("--shared_motion_encoder", "", lambda a, b: "velo_encoder" not in a.trainer.models),
    ("--shared_motion_encoder --use_ekf", "", lambda a, b: "gravity" in a.trainer.models),
    (NOISY, CLEAN, lambda a, b: not torch.equal(a.group[0].imu[0].accel, b.group[0].imu[0].accel)),
    (CLEAN, "", nearly),
    ("--img_noise_type bcsh", "", images),
    ("--img_noise_type gg", "", images),
    ("--img_noise_type mask --img_mask_size 10", "", images),
    ("--img_noise_type mask --img_mask_size 10 --img_mask_num 4", "", images),
    *(
        (f"--img_noise_type {kind} --img_noise_{name} 0.2", f"--img_noise_type {kind}", images)
        for kind, names in {
            "bcsh": ("brightness", "contrast", "hue"),
            "gg": ("gamma", "gain"),
        }.items()
        for name in names
    ),
    (
        "--img_noise_type bcsh --img_noise_saturation 0",
        "--img_noise_type bcsh",
        lambda a, b: not torch.equal(a.group[0].image[0], b.group[0].image[0]),
    ),
    ("--imu_l2_weight 1", "", has("imu_l2")),
    ("--imu_l2_weight 1 --use_ekf", "--use_ekf", has("imu_l2")),
    ("--imu_warp_weight 1", "", only_total),
    ("--imu_warp_weight 0", "", lacks("imu_photometric")),
    ("--imu_consistency_weight 1", "", only_total),
    ("--imu_consistency_weight 0", "", lacks("imu_consistency")),
    ("--velo_weight 1", "", only_total),
    ("--velo_weight 0", "", lacks("velocity")),
    (VELOCITY, CAMERA_ONLY, has("velocity")),
    ("--gravity_weight 1", "", only_total),
    ("--gravity_weight 0", "", lacks("gravity")),
    (
        "--trans_scale_factor 1",
        "",
        lambda a, b: depth_range(a, b)[1] == pytest.approx(100),
    ),
    ("--no_grad_imu_consistency network", "--no_grad_imu_consistency none", only_gradient),
    ("--no_grad_imu_consistency imu", "", only_gradient),
    (
        "--predict_velo_residue",
        "",
        differs("velocity", "imu_photometric", "imu_consistency"),
    ),
    (
        "--velocity_source recorded",
        "",
        lambda a, b: torch.allclose(
            a.details.motion.velocity[0].norm(dim=-1), a.group[0].imu[0].speed
        ),
    ),
    ("--velocity_source camera", "", lambda a, b: "velo" not in a.trainer.models),
    ("--velocity_source camera --use_ekf", "", lambda a, b: "gravity" in a.trainer.models),
    ("--imu_velocity_weight 1", "", has("imu_velocity")),
    ("--imu_velocity_weight 1 --velocity_source recorded", "", has("imu_velocity")),
    ("--align_steps 5", "", nearly),
    ("--display_velo_scale", "", nearly),
    ("--k_imu_clip 0.5", "", lambda a, b: a.group[0].imu[0].accel.abs().max() < 5),
    ("--use_ekf", "", lambda a, b: a.details.motion.fusion is not None),
    ("--use_ekf --ekf_velo_weight 1", "--use_ekf", has("ekf_velocity")),
    ("--use_ekf --ekf_gravity_weight 1", "--use_ekf", has("ekf_gravity")),
    ("--use_ekf --ekf_warming_epochs 1", "", lambda a, b: a.details.motion.fusion is None),
    (
        "--use_ekf --noise_preset calibrated",
        "--use_ekf",
        differs("imu_photometric", "imu_consistency", by=1e-9),
    ),
    (
        "--use_ekf --noise_preset calibrated --vis_covar_use_fixed",
        "--use_ekf --noise_preset calibrated",
        differs("imu_photometric", "imu_consistency", by=1e-9),
    ),
    (
        "--use_ekf --noise_preset calibrated --naive_vis_covar",
        "--use_ekf --noise_preset calibrated",
        differs("imu_photometric", "imu_consistency", by=1e-9),
    ),
    (
        "--use_ekf --pose_model_type posecnn --vis_covar_use_fixed",
        "",
        lambda a, b: a.details.motion.fusion is not None,
    ),
    (SAMPLED, CAMERA_ONLY, differs("photometric")),
    (f"{EKF}", "--use_ekf", lambda a, b: a.terms["photometric"] != b.terms["photometric"]),
    (f"{SAMPLED} --noise_preset calibrated", SAMPLED, differs("photometric")),
    *(
        (f"--use_ekf --{name}", "--use_ekf", lambda a, b: len(a.moved) > len(b.moved))
        for name in ("train_init_covar", "train_imu_noise_covar")
    ),
    ("--no_cuda", "", lambda a, b: a.trainer.world.device.type == "cpu"),
    ("--num_workers 2", "", lambda a, b: a.terms == b.terms),
    (
        "--channels_last",
        "",
        lambda a, b: (
            nearly(a, b)
            and a.trainer.models["depth"]
            .state_dict()["decoder.0.conv.conv.weight"]
            .is_contiguous(memory_format=torch.channels_last)
        ),
    ),
    ("--seed 5", "", lambda a, b: not torch.equal(a.group[0].index, b.group[0].index)),
]


@pytest.mark.parametrize("words, beside, true", CASES, ids=[case[0][:60] for case in CASES])
def test_a_step_shows_the_option(words, beside, true, root, tmp_path, usual):
    taken = Taken(make_trainer(root, tmp_path, words))
    assert taken.details is not None
    assert all(map(math.isfinite, taken.terms.values()))
    assert taken.moved.isfinite().all() and taken.moved.norm() > 0
    assert true(taken, usual(beside))


# Options that such a step cannot show

OF_WHOLE_RUNS = set(  # in test_trainer.py
    "num_epochs scheduler scheduler_step_size load_weights_folder models_to_load resume overwrite "
    "log_frequency save_frequency first_save_epoch keep_checkpoints save_minutes "
    "resume_imu resume_velo resume_gravity resume_epochs".split()
)
BELOW = set(
    "data_path log_dir split cache_dir png weights_init pretrained_path compile "
    "deterministic".split()
)


def test_every_option_is_in_a_step():
    derived = {"use_imu", "use_inertial_motion", "use_velocity", "use_gravity"}
    known = set(vars(options.train([]))) - derived
    words = {word for case in CASES for word in case[0].split()}
    shown = {word.removeprefix("--") for word in words if word.startswith("--")}
    assert shown | OF_WHOLE_RUNS | BELOW == known
    tests = (ROOT / "tests" / "test_trainer.py").read_text()
    runs = (ROOT / "tests" / "training_runs.py").read_text()
    assert all(f"--{name}" in tests + runs for name in OF_WHOLE_RUNS)


def test_the_folders_are_those_that_were_given(root, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    for part, count in (("train", 4), ("val", 2)):
        lines = (root / "splits" / f"{part}_files.txt").read_text().splitlines()[:count]
        (lists / f"{part}_files.txt").write_text("\n".join(lines))
    cache = tmp_path / "cache"
    words = f"--split {lists} --cache_dir {cache} --model_name m"
    taken = Taken(make_trainer(root, tmp_path / "logs", words))
    assert (tmp_path / "logs" / "m" / "models" / "opt.json").is_file()
    assert len(taken.trainer.training.dataset) == 4
    assert len(taken.trainer.validation.dataset) == 2
    assert sum(path.stat().st_size for path in cache.rglob("*.*")) > 8 * 64 * 64 * 3


def test_png_takes_the_one_kind_of_two(tmp_path):
    root = make_data(tmp_path)
    for path in root.glob("*/*_sync/image_*/data/*.png"):
        cv2.imwrite(str(path.with_suffix(".jpg")), np.zeros((38, 124, 3), np.uint8))
    sums = [
        Taken(make_trainer(root, tmp_path / "runs", words)).group[0].image[0].sum()
        for words in ("--model_name jpg", "--model_name png --png")
    ]
    assert sums[0] == 0 < sums[1]


def test_a_whole_step_of_the_real_networks_from_imagenet(root, tmp_path, monkeypatch):
    monkeypatch.setattr("networks.factory.ResnetEncoder", ResnetEncoder)
    file = tmp_path / "resnet18.pth"
    torch.save(resnet18().state_dict(), file)
    words = f"--weights_init pretrained --pretrained_path {file} --use_ekf"
    trainer = make_trainer(root, tmp_path, words)
    first = torch.load(file, weights_only=True)["conv1.weight"]
    assert torch.equal(trainer.models["encoder"].encoder.conv1.weight, first)
    pair = trainer.models["pose_encoder"].encoder.conv1.weight
    assert torch.equal(pair, first.repeat(1, 2, 1, 1) / 2)
    taken = Taken(trainer)
    assert taken.details is not None and taken.moved.norm() > 0


@pytest.mark.parametrize("words", ["--compile --use_ekf", ""])
def test_compile_compiles_every_network_and_not_the_filter(words, root, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    taken = Taken(make_trainer(root, tmp_path, words))
    models = taken.trainer.models
    expected = [model for name, model in models.items() if name != "ekf_model"] if words else []
    assert set(compiled) == set(expected) and len(compiled) == len(expected)


@pytest.mark.slow
def test_what_is_compiled_takes_the_same_step(root, tmp_path, usual):
    taken = Taken(make_trainer(root, tmp_path, "--compile"))
    assert nearly(taken, usual(""))


def test_deterministic_asks_pytorch_for_it(root, tmp_path, request, usual):
    request.addfinalizer(lambda: torch.use_deterministic_algorithms(False))
    request.addfinalizer(lambda: setattr(torch.backends.cudnn, "deterministic", False))
    plain = usual("")
    taken = Taken(make_trainer(root, tmp_path, "--deterministic"))
    assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic
    assert nearly(taken, plain)


# What the program ends with


def arguments(root: Path, runs: Path, *words: str) -> list[str]:
    usual = (
        f"--data_path {root} --log_dir {runs} --width 64 --height 64 --batch_size 2 --num_workers 0"
        f" --no_cuda --weights_init scratch {CAMERA_ONLY} --pose_model_type posecnn"
    )
    return " ".join([usual, *words]).split()


def test_a_training_ends_with_0(root, tmp_path, capsys):
    assert train.main(arguments(root, tmp_path, "--num_epochs 1")) == 0
    output = capsys.readouterr()
    assert output.out == f"trained: {STEPS} steps, {tmp_path / 'dynadepth' / 'models'}\n"
    assert "Traceback" not in output.err


def test_a_training_that_collapses_ends_with_1_and_one_line(root, tmp_path, capsys, monkeypatch):
    def spoiled(part, options, epoch):
        for batch in data_batches(part, options, epoch):
            yield batch._replace(
                augmented=dict.fromkeys(batch.augmented, batch.image[0] * math.nan)
            )

    data_batches = data.training_batches
    monkeypatch.setattr(data, "training_batches", spoiled)
    # Each of three epochs has five batches, none of which is a step.
    assert train.main(arguments(root, tmp_path, "--num_epochs 3")) == 1
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("train:")]
    assert "training collapsed" in line and "10 times in a row" in line
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "words, message",
    [
        ("--data_path {0}/nowhere", "{0}/nowhere"),
        ("--load_weights_folder {0}/none", "{0}/none: no such folder"),
        ("--resume {0}/none", "{0}/none: no such folder"),
        ("--batch_size 11", "10 samples are too few for a batch of 11"),
        ("--img_noise_type mask", "squares of 50 pixels do not fit"),
    ],
)
def test_a_users_mistake_ends_with_2_and_one_line(words, message, root, tmp_path, capsys):
    given = arguments(root, tmp_path / "runs", words.format(tmp_path))
    assert train.main(given) == 2
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("train:")]
    assert message.format(tmp_path) in line and "Traceback" not in error
    assert not (tmp_path / "runs").exists()


def test_options_that_contradict_each_other_end_with_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        train.main(["--predictive_mask"])
    assert stopped.value.code == 2 and "needs --disable_automasking" in capsys.readouterr().err


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_with_its_code_when_all_is_saved(
    number, code, root, tmp_path, capsys, monkeypatch
):
    report = Trainer.report

    def stop(self, *what):
        report(self, *what)
        os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "report", stop)
        assert train.main(arguments(root, tmp_path)) == code
    assert "stopped after 1 steps; go on with --resume auto" in capsys.readouterr().out
    assert (tmp_path / "dynadepth" / "models" / "rolling_1").is_dir()


# Two processes

OF_TWO = "--use_ekf --disable_automasking --learning_rate 1e-3"


def train_of_two(world: World, folder: Path) -> dict:
    """Train straight; then be stopped by a signal to the second process alone, and go on."""
    with pytest.MonkeyPatch.context() as patch:
        use_small_networks(patch)
        asked = options_for(folder / "data", folder / "runs", OF_TWO)
        straight = Trainer(asked, world)
        gradient = first_gradient(straight)
        assert straight.train() is None
        asked.model_name = "stopped"
        stopped = Trainer(asked, world)
        step = stopped.training_step

        def stopping(group):
            found = step(group)
            if world.rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return found

        stopped.training_step = stopping
        ended_by = stopped.train()
        asked.resume = "auto"
        resumed = Trainer(asked, world)
        began = resumed.progress.step
        resumed.train()
    return {
        "gradient": gradient[0],
        "straight": states(straight),
        "resumed": states(resumed),
        "steps": [began, resumed.progress.step, straight.progress.step],
        "ended_by": int(ended_by),
    }


def first_gradient(trainer: Trainer) -> list[torch.Tensor]:
    """Return where the gradient of every step to come will be."""
    found = []

    def keep(*_) -> None:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trainer.parameters]
        found.append(torch.cat([gradient.flatten() for gradient in gradients]))

    trainer.trained.optimizer.register_step_pre_hook(keep)
    return found


def test_two_processes_train_as_one_with_the_joint_batch(root, tmp_path):
    (tmp_path / "data").symlink_to(root)
    first, second = in_world(train_of_two, tmp_path)
    one = make_trainer(root, tmp_path / "one", OF_TWO, "--batch_size 4")
    gradient = first_gradient(one)
    one.train()
    assert (first["gradient"] - gradient[0]).norm() < 1e-4 * gradient[0].norm()
    for name, value in states(one).items():
        assert torch.equal(first["straight"][name], second["straight"][name]), name
        torch.testing.assert_close(first["straight"][name], value, rtol=0.02, atol=2e-3)
    # A signal to one of them stopped both, and they went on exactly.
    for found in (first, second):
        assert found["ended_by"] == signal.SIGTERM and found["steps"] == [1, 4, 4]
        assert equal_states(found["resumed"], found["straight"])
    runs = [tmp_path / "runs" / name for name in ("dynadepth", "stopped")]
    assert [line["step"] for line in lines_of(runs[0], "train")] == [1, 2, 4]
    for part in ("train", "val"):
        assert lines_of(runs[0], part) == lines_of(runs[1], part)
    alone = lines_of(tmp_path / "one" / "dynadepth", "val")
    for joint, single in zip(lines_of(runs[0], "val"), alone, strict=True):
        assert joint["abs_rel"] == pytest.approx(single["abs_rel"], rel=0.01)


def test_torchrun_stops_both_processes_with_a_checkpoint(root, tmp_path, capsys, monkeypatch):
    given = arguments(root, tmp_path, "--num_epochs 1000")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    free = ["--master_addr", "127.0.0.1", "--master_port", "0", "--rdzv_backend", "c10d"]
    launch += [*free, "--rdzv_endpoint", "127.0.0.1:0", "train.py"]
    metrics = tmp_path / "dynadepth" / "metrics.jsonl"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (tmp_path / "output").open("w") as output:
        with subprocess.Popen([*launch, *given], cwd=ROOT, env=environment, stderr=output) as main:
            try:
                end = time.monotonic() + 90
                while not (metrics.exists() and metrics.stat().st_size) and main.poll() is None:
                    assert time.monotonic() < end
                    time.sleep(0.1)
                main.send_signal(signal.SIGTERM)
                main.wait(60)
            finally:
                main.kill()
    told = (tmp_path / "output").read_text()
    models = tmp_path / "dynadepth" / "models"
    assert len(list(models.glob("rolling_*"))) == 1, told
    assert "SIGTERM: finishing this step, then saving" in told
    monkeypatch.setattr("networks.factory.ResnetEncoder", ResnetEncoder)
    capsys.readouterr()
    assert train.main([*given, "--resume", "auto"]) == 2
    assert "of 2 processes, and 1 train now" in capsys.readouterr().err
