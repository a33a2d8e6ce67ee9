"""Small trainings for tests: drives on disk, networks of few channels, what their steps gave."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import options
from datasets.batch import Batch
from networks.resnet_encoder import ResnetEncoder
from tests.image_tree import DRIVES, make_image_tree, tell_apart, write_list
from trainer import Trainer
from training import data
from training.distributed import World
from training.step import Details

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
CAMERA_ONLY = "--imu_warp_weight 0 --imu_consistency_weight 0 --velo_weight 0"
EKF = "--use_ekf --sample_vis_pose --ekf_velo_weight 0.1"
TRAIN_LINES, VAL_LINES = 10, 3


class SmallEncoder(ResnetEncoder):
    """Five maps as a ResNet's, of few channels: a step costs little, and a checkpoint less."""

    def __init__(self, num_layers: int, num_input_images: int = 1, narrow: bool = False) -> None:
        nn.Module.__init__(self)
        self.num_layers, self.num_input_images = num_layers, num_input_images
        self.narrow = narrow
        self.num_ch_enc = 4, 4, 6, 8, 8
        channels = 3 * num_input_images, *self.num_ch_enc
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b))
            for a, b in zip(channels, channels[1:], strict=False)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        features = [(image - 0.45) / 0.225]
        for stage in self.stages:
            features.append(F.relu(stage(features[-1])))
        return features[1:]


def use_small_networks(monkeypatch: Any) -> None:
    """Let every encoder be a small one, and drives be too short for the IMU to say a scale."""
    monkeypatch.setattr("networks.factory.ResnetEncoder", SmallEncoder)
    monkeypatch.setattr("training.unit.LEAST_SEGMENTS", 0)


def make_data(root: Path) -> Path:
    """Write two drives that differ, and lists of TRAIN_LINES and VAL_LINES; return the folder."""
    trees = make_image_tree(root)
    tell_apart(trees[1], 5)
    lines = [
        f"{tree.date}/{drive}_sync {frame} {side}"
        for tree, drive in zip(trees, DRIVES, strict=True)
        for frame in range(1, 5)
        for side in "lr"
    ]
    write_list(root / "splits" / "train_files.txt", lines[:TRAIN_LINES])
    write_list(root / "splits" / "val_files.txt", lines[-VAL_LINES:])
    return root


def options_for(root: Path, runs: Path, *words: str) -> Namespace:
    """Return the options of a small training; each of `words` may hold several, and counts last."""
    usual = (
        f"--data_path {root} --log_dir {runs} --width 64 --height 64 --batch_size 2 --num_workers 0"
        " --num_epochs 2 --no_cuda --weights_init scratch --log_frequency 2 --save_minutes 0"
    )
    return options.train(" ".join([usual, *words]).split())


def make_trainer(root: Path, runs: Path, *words: str) -> Trainer:
    """Return a trainer of one process that has not begun."""
    return Trainer(options_for(root, runs, *words), ALONE)


def batches_of(trainer: Trainer, epoch: int = 0) -> list[Batch]:
    """Return the batches that the trainer would train on in an epoch."""
    trainer.training.sampler.set_position(epoch)
    return list(data.training_batches(trainer.training, trainer.options, epoch))


class Taken:
    """What one step of a new trainer found.

    Attributes:
        trainer: after the step
        group: the batches of the step
        terms: of the loss, with `total` and `gradient`
        details: of its last batch
        moved: how far each weight went, all in a row
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.group = batches_of(trainer)[: trainer.options.accumulate_steps]
        before = parameters(trainer)
        trainer.step.train()
        self.details: Details | None = trainer.training_step(self.group)
        self.terms = dict(trainer.guard.values)
        self.moved = parameters(trainer) - before


def parameters(trainer: Trainer) -> Tensor:
    """Return a copy of all trained weights, in a row."""
    return torch.cat([p.detach().flatten().clone() for p in trainer.parameters])


def states(trainer: Trainer) -> dict[str, Tensor]:
    """Return a copy of weights and buffers."""
    return {name: value.clone() for name, value in trainer.models.state_dict().items()}


def equal_states(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether all weights and buffers are equal to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def watch(trainer: Trainer, after_step: Callable[[int], None] = lambda _: None) -> list[dict]:
    """Collect the terms of every step that is taken from now on.

    Args:
        trainer: has not begun
        after_step: called with the number of each step when it is done
    """
    found, report = [], trainer.report

    def collect(batch: Batch, details: Details) -> None:
        found.append(dict(trainer.guard.values))
        report(batch, details)
        after_step(trainer.progress.step)

    trainer.report = collect
    return found


def lines_of(folder: Path, part: str) -> list[dict[str, Any]]:
    """Return what metrics.jsonl of a run says of a part, without the times."""
    timed = ("time", "examples_per_second")
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [
        {key: value for key, value in line.items() if key not in timed}
        for line in lines
        if line["part"] == part
    ]
