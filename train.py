"""Train: `python train.py`, or `torchrun --nproc_per_node N train.py` for N GPUs."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Sequence

import options
from datasets.command import exit_code
from trainer import Trainer
from training.distributed import MainProcessError, joined
from training.guard import CollapseError

COLLAPSED, WRONG = 1, 2


def run(args: Namespace) -> int:
    """Train, and return the exit code: 128 and the signal if one ended it, all being saved."""
    with joined(args.no_cuda) as world:
        if not world.main:  # one process talks to the user
            logging.getLogger().setLevel(logging.ERROR)
        try:
            trainer = Trainer(args, world)
            ended_by = trainer.train()
        except CollapseError as error:
            if world.main:
                print(f"train: {error}", file=sys.stderr)
            return COLLAPSED
        except MainProcessError:  # it speaks for itself
            return WRONG
        if ended_by is not None:
            if world.main:
                print(f"stopped after {trainer.progress.step} steps; go on with --resume auto")
            return 128 + ended_by
        if world.main:
            print(f"trained: {trainer.progress.step} steps, {trainer.run.models}")
        return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, train, and put a user's mistake into one line."""
    return exit_code(
        "train",
        lambda: run(options.train(argv)),
        "what was trained since the last checkpoint is lost",
    )


if __name__ == "__main__":
    sys.exit(main())
