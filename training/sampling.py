"""Which samples each process takes, in which order, from any place in an epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from utils import UserError

# Apart from what is drawn for samples: here, augmentation.py has nothing (which is the same as
# zero) and image_noise.py has 1.
_STREAM = 2


class ShardedSampler:
    """The places in a dataset that one of several processes takes.

    With `shuffle`, the processes together see what one process would with a batch as large as all
    of theirs: that batch is a slice of the epoch's order, and each process has a part of it. The
    last slice is left out if it is too short. Without, every sample is taken once, and processes
    may get numbers that differ by one.

    Args:
        length: samples in the dataset
        batch_size: samples of a batch of one process
        world_rank: of this process, from 0
        world_size: how many processes there are
        seed: zero or more, the same for the whole training
        shuffle: as for training

    Raises:
        UserError: there are too few samples to train on
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        world_rank: int,
        world_size: int,
        seed: int,
        shuffle: bool = True,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        if not 0 <= world_rank < world_size:
            raise ValueError(f"world_rank: expected 0 to {world_size - 1}, got {world_rank}")
        self._length = length
        self._batch_size = batch_size
        self._rank, self._size = world_rank, world_size
        self._seed = seed
        self._shuffle = shuffle
        self._epoch = self._batches_done = 0
        if shuffle and self.batches == 0:
            several = world_size > 1
            raise UserError(
                f"{length} samples are too few for a batch of {batch_size * world_size}"
                f"{f' ({batch_size} for each of {world_size} processes)' if several else ''}: "
                f"use a smaller --batch_size{' or fewer processes' if several else ''}"
            )

    @property
    def batches(self) -> int:
        """Return how many batches this process has in a whole epoch."""
        if self._shuffle:
            return self._length // (self._batch_size * self._size)
        return -(-len(self._shard()) // self._batch_size)

    def set_position(self, epoch: int, batches_done: int = 0) -> None:
        """Say where the next iteration begins.

        Args:
            epoch: counted from zero
            batches_done: of this epoch, by each process: these are left out
        """
        if epoch < 0 or not 0 <= batches_done <= self.batches:
            raise ValueError(
                f"batches_done: expected 0 to {self.batches} of an epoch from 0, got "
                f"{batches_done} of epoch {epoch}"
            )
        self._epoch, self._batches_done = epoch, batches_done

    def __len__(self) -> int:
        """Return how many samples the next iteration yields."""
        return max(0, len(self._shard()) - self._batches_done * self._batch_size)

    def __iter__(self) -> Iterator[int]:
        """Yield places in the dataset, the same every time from the same position."""
        places = self._shard()
        if self._shuffle:
            places = self._order()[places]
        return iter(places[self._batches_done * self._batch_size :].tolist())

    def _shard(self) -> np.ndarray:
        """Return where in the order of the epoch this process's samples are."""
        if not self._shuffle:
            # Neighbours stay together: they are in the same files.
            return np.array_split(np.arange(self._length), self._size)[self._rank]
        joint = np.arange(self.batches * self._size * self._batch_size)
        return joint.reshape(self.batches, self._size, self._batch_size)[:, self._rank].ravel()

    def _order(self) -> np.ndarray:
        generator = np.random.default_rng([self._seed, self._epoch, 0, _STREAM])
        return generator.permutation(self._length)
