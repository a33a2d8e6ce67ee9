"""A batch as one block of memory: it crosses from worker to trainer and to the device in one piece.

Each tensor that crosses between processes costs a file descriptor, of which a process has some
thousand, and each that crosses to a GPU a copy of its own. A batch with IMU has up to a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from datasets.batch import Sample, map_tensors

_ALIGNMENT = 64  # bytes: a line of cache


@dataclass(frozen=True)
class _Slot:
    """Where in a block a tensor has its place."""

    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def of(self, block: Tensor) -> Tensor:
        """Return the tensor that has its place here, sharing the block's memory."""
        return block[self.offset : self.offset + self.size].view(self.dtype).view(self.shape)


class Packed:
    """A collated sample in one block of bytes."""

    def __init__(self, block: Tensor, slots: Sample) -> None:
        self.block = block  # (bytes,) uint8
        self.slots = slots  # of _Slot, where the tensors of a sample would be

    def to(self, device: torch.device) -> Packed:
        """Send it to a device; the host does not wait if it lies in pinned memory."""
        return Packed(self.block.to(device, non_blocking=True), self.slots)

    def pin_memory(self) -> Packed:
        """Copy it to where a GPU can fetch it from by itself; a `DataLoader` calls this."""
        return Packed(self.block.pin_memory(), self.slots)

    def unpack(self) -> Sample:
        """Return the sample; its tensors are views of the block."""
        return map_tensors(lambda slot: slot.of(self.block), self.slots)


def pack(samples: Sequence[Sample]) -> Packed:
    """Collate samples of equal shapes straight into one block.

    Raises:
        ValueError: shapes, types or keys differ
    """
    size = 0

    def place(tensor: Tensor) -> _Slot:
        nonlocal size
        slot = _Slot(size, tensor.dtype, (len(samples), *tensor.shape))
        size += -(-slot.size // _ALIGNMENT) * _ALIGNMENT
        return slot

    slots = map_tensors(place, samples[0])
    packed = Packed(torch.empty(size, dtype=torch.uint8), slots)
    _stack(samples, packed.unpack())
    return packed


def _stack(trees: Sequence[Any], out: Any) -> None:
    """Stack the tensors that have the same place in each of the trees."""
    if isinstance(out, Tensor):
        # torch.stack would make another tensor of `out`, or round to its type.
        for tree in trees:
            if (tree.shape, tree.dtype) != (out.shape[1:], out.dtype):
                raise ValueError(
                    f"samples of one batch have {tuple(out.shape[1:])} {out.dtype} and "
                    f"{tuple(tree.shape)} {tree.dtype}"
                )
        torch.stack(trees, out=out)
        return
    for tree in trees:
        if _keys(tree) != _keys(out):
            raise ValueError(f"samples of one batch have keys {_keys(out)} and {_keys(tree)}")
    for key in _keys(out):
        _stack([tree[key] for tree in trees], out[key])


def _keys(tree: Any) -> set[Any]:
    return set(tree) if isinstance(tree, dict) else set(range(len(tree)))
