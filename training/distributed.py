"""Several processes that train together, one for each GPU, as `torchrun` starts them.

The same program runs in each of them. Every function here is called by all, in the same order; in a
world of one they do nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from datasets.files import describe
from utils import UserError

_PLACE = "RANK", "WORLD_SIZE", "LOCAL_RANK"  # what torchrun says to each process
_LONGEST_WAIT = timedelta(days=1)  # for a download or a cache that one process makes for all


class MainProcessError(UserError):
    """The main process failed at what all others wait for; it tells the user by itself."""


@dataclass(frozen=True)
class World:
    """The processes that train together, and which of them this is.

    Attributes:
        rank: of this process, from 0
        size: how many there are
        device: what this process computes on
        host_group: over which they exchange what lies on the CPU; None is the default one
    """

    rank: int
    size: int
    device: torch.device
    host_group: dist.ProcessGroup | None = field(default=None, repr=False, compare=False)

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.rank == 0


def join(no_cuda: bool) -> World:
    """Enter the world that torchrun made, or one of this process alone.

    Args:
        no_cuda: compute on the CPU, even if there is a GPU

    Raises:
        UserError: the environment is half that of torchrun, or there are too few GPUs
    """
    missing = [name for name in _PLACE if name not in os.environ]
    if len(missing) == len(_PLACE):
        return World(0, 1, _take_device(no_cuda, 0, 1))
    if missing:
        present = next(name for name in _PLACE if name not in missing)
        raise UserError(
            f"{present} is set in the environment, but {missing[0]} is not: start several "
            f"processes with torchrun, or unset {present} for one"
        )
    rank, size, local_rank = map(_number_from_environment, _PLACE)
    local_size = local_rank + 1
    if "LOCAL_WORLD_SIZE" in os.environ:
        local_size = _number_from_environment("LOCAL_WORLD_SIZE")
    device = _take_device(no_cuda, local_rank, local_size)
    if size == 1:
        return World(0, 1, device)
    if device.type == "cuda":
        dist.init_process_group("nccl", rank=rank, world_size=size, device_id=device)
    else:
        dist.init_process_group("gloo", rank=rank, world_size=size)
    # Flags, names and states are on the host: they need no GPU, and should not wait for one.
    return World(rank, size, device, dist.new_group(backend="gloo", timeout=_LONGEST_WAIT))


def leave(world: World) -> None:
    """End the exchange with the others; all have to come here."""
    if world.size > 1:
        dist.destroy_process_group()


@contextmanager
def joined(no_cuda: bool) -> Iterator[World]:
    """Enter the world for a block, and leave it."""
    world = join(no_cuda)
    try:
        yield world
    except BaseException:
        # NCCL would wait here for what the others are still at. This process is about to end:
        # torchrun then ends them. Gloo waits for nobody, and the others hear of it at once.
        if world.device.type != "cuda":
            leave(world)
        raise
    leave(world)


def agree(flags: Sequence[bool], world: World) -> list[bool]:
    """Return for each flag whether any process has raised it; all pass as many."""
    if world.size == 1:
        return [bool(flag) for flag in flags]
    raised = torch.tensor([bool(flag) for flag in flags], dtype=torch.uint8)
    dist.all_reduce(raised, dist.ReduceOp.MAX, world.host_group)
    return raised.bool().tolist()


def gather(obj: Any, world: World) -> list[Any]:
    """Return to every process what each of them passed, by rank: plain data and CPU tensors."""
    if world.size == 1:
        return [obj]
    objects = [None] * world.size
    dist.all_gather_object(objects, obj, group=world.host_group)
    return objects


@contextmanager
def main_first(world: World) -> Iterator[None]:
    """Run a block in the main process, and then in the others: they find what it made.

    Raises:
        MainProcessError: in the others, where the main process left the block by an exception
    """
    if world.size == 1:
        yield
    elif world.main:
        failure: str | None = None
        try:
            yield
        except BaseException as error:
            failure = _first_line(error)
            raise
        finally:
            # A process that is gone must not hide the exception.
            with suppress(*[RuntimeError] if failure else []):
                _from_main(failure, world)
    else:
        failure = _from_main(None, world)
        if failure is not None:
            raise MainProcessError(f"process {world.rank} ends because process 0 failed: {failure}")
        yield


def _from_main(obj: Any, world: World) -> Any:
    """Return what the main process passed."""
    objects = [obj]
    dist.broadcast_object_list(objects, src=0, group=world.host_group)
    return objects[0]


def _first_line(error: BaseException) -> str:
    if isinstance(error, (UserError, OSError)):
        text = describe(error)
    else:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return text.partition("\n")[0]


def _take_device(no_cuda: bool, local_rank: int, local_size: int) -> torch.device:
    """Return the device of one of the processes on this machine, and make it the default GPU."""
    if no_cuda or not torch.cuda.is_available():
        return torch.device("cpu")
    gpus = torch.cuda.device_count()
    if max(local_rank + 1, local_size) > gpus:
        raise UserError(
            f"torchrun started {max(local_rank + 1, local_size)} processes on this machine, which "
            f"has GPUs for {gpus}: use --nproc_per_node {gpus}, or --no_cuda for the CPU"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def _number_from_environment(name: str) -> int:
    text = os.environ[name]
    if not (text.isascii() and text.isdigit()):
        raise UserError(
            f"{name} in the environment: expected a number, got {text!r}; torchrun sets it"
        )
    return int(text)
