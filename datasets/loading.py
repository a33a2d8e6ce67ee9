"""Batches from a dataset, read by worker processes."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from datasets.batch import Sample
from datasets.files import describe
from datasets.packing import Packed, pack
from datasets.text import DataError


@dataclass(frozen=True)
class _Failure:
    """What a worker could not read. Raised there, it would arrive as a page of traceback."""

    message: str


class _Contained(Dataset):
    """A dataset whose failures are results."""

    def __init__(self, dataset: Dataset[Sample]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample | _Failure:
        try:
            return self.dataset[index]
        except (DataError, OSError) as error:
            return _Failure(describe(error))


def _collate(samples: Sequence[Sample | _Failure]) -> Packed | _Failure:
    return next((sample for sample in samples if isinstance(sample, _Failure)), None) or pack(
        samples
    )


class SampleLoader:
    """Collated samples on a device, in the order of a sampler.

    Args:
        dataset: gives samples of equal shapes
        batch_size: samples of a batch; the last of an epoch may have fewer
        sampler: yields places in the dataset
        workers: processes that read; none reads in this one
        device: where the batches are wanted
        drop_last: leave out a last batch that is smaller
        worker_init: called in each worker with its number when it begins
    """

    def __init__(
        self,
        dataset: Dataset[Sample],
        batch_size: int,
        sampler: Iterable[int],
        workers: int,
        device: torch.device,
        drop_last: bool = False,
        worker_init: Callable[[int], None] | None = None,
    ) -> None:
        self._device = device
        self._loader = DataLoader(
            _Contained(dataset),
            batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=device.type == "cuda",
            drop_last=drop_last,
            persistent_workers=workers > 0,
            worker_init_fn=worker_init,
            # Its workers' seeds would come from the random numbers of the whole program otherwise:
            # a training that goes on in the middle of an epoch would then draw others.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Sample]:
        """Yield batches; raise a `DataError` for the first file that cannot be read."""
        for packed in self._loader:
            if isinstance(packed, _Failure):
                raise DataError(packed.message)
            sample, recorded = packed.to(self._device).unpack(), packed.unpack()
            # What is drawn for a sample depends on its index: the host must not wait for it. And a
            # view of it would keep all of the batch alive.
            index, skipped = recorded.index.clone(), recorded.skipped.clone()
            yield sample._replace(index=index, skipped=skipped)


def read_in_order(
    dataset: Dataset, batch_size: int, workers: int, places: Sequence[int] | None = None
) -> Iterator[list]:
    """Yield lists of a dataset's items as they are, of whatever shapes.

    Args:
        dataset: of anything that processes can send to each other
        batch_size: items of a list; the last may have fewer
        workers: processes that read ahead; none reads in this one
        places: which items, all by default

    Raises:
        DataError: the first file that cannot be read
    """
    loader = DataLoader(
        _Contained(dataset),
        batch_size,
        sampler=range(len(dataset)) if places is None else places,
        num_workers=workers,
        # As bytes through a pipe. Tensors would each take shared memory and a file descriptor; a
        # worker that runs out of these drops what it has read, and all would wait for ever.
        collate_fn=pickle.dumps if workers else list,
        generator=torch.Generator(),
    )
    for sent in loader:
        items = pickle.loads(sent) if workers else sent
        failed = next((item for item in items if isinstance(item, _Failure)), None)
        if failed is not None:
            raise DataError(failed.message)
        yield items
