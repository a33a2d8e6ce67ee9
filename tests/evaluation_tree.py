"""What evaluations are tried on: small drives with all kinds of truth, and weights of a ResNet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

import options
from evaluation.examples import KittiExamples
from networks.factory import build_models
from tests.image_tree import (
    DRIVES,
    make_image_tree,
    options_of,
    tell_apart,
    write_improved_depth,
    write_list,
)
from utils import save_weights

FRAMES = 6
SIDE = 64  # of the network's images [px]
LINES = [f"{DRIVES[0]} {i} {side}" for i in (1, 3) for side in "lr"] + [f"{DRIVES[1]} 2 l"]


def make_evaluation_tree(root: Path) -> Path:
    """Write two drives with scans and improved depth, and lists whose tests are LINES."""
    trees = make_image_tree(root, frames=FRAMES)
    tell_apart(trees[1], 5)
    for tree in trees:
        write_improved_depth(tree.sync, range(FRAMES))
    write_list(root / "splits" / "test_files.txt", full_lines())
    return root


def full_lines() -> list[str]:
    """Return LINES with the folders of their dates, as lists have them."""
    return [f"{line[:10]}/{line.split()[0]}_sync {' '.join(line.split()[1:])}" for line in LINES]


def examples_of(root: Path, **changes: object) -> KittiExamples:
    """Return the examples of LINES, with improved depth unless told otherwise."""
    asked = {"dataset": "kitti_depth", "width": SIDE, "height": SIDE} | changes
    return KittiExamples(options_of(root, **asked))


def write_weights(folder: Path, *words: str, seed: int = 0, told: dict | None = None) -> Path:
    """Write random weights of the networks that a training with these options has.

    Args:
        folder: is made
        words: of the training's command line
        seed: of the weights
        told: what opt.json beside them says; none is written if not given
    """
    args = options.train(["--weights_init", "scratch", *words])
    torch.manual_seed(seed)
    models = build_models(args, pretrained=False)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder, models, {"height": SIDE, "width": SIDE, "use_stereo": args.use_stereo})
    if told is not None:
        (folder.parent / "opt.json").write_text(json.dumps(told))
    return folder


class Oracle:
    """A network that knows the truth: it says what it was made with, whatever it sees."""

    size = (SIDE, SIDE)

    def __init__(self, depth_m: float) -> None:
        self.depth_m = depth_m

    def inverse_depth(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images), 1, SIDE, SIDE), 1 / self.depth_m)


def true_inverse(examples: KittiExamples, i: int, factor: float = 1.0) -> np.ndarray:
    """Return inverse depth (h, w) [1/m] that is the truth times a factor; far where it is none."""
    truth = examples.truth(i)
    return np.where(truth > 0, 1 / np.maximum(factor * truth, 1e-3), 1e-3).astype(np.float32)
