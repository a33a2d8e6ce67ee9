"""Batches from worker processes: their order, their samples, and how a broken file ends them."""

from __future__ import annotations

import resource
import traceback
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from datasets.batch import Sample
from datasets.loading import SampleLoader, read_in_order
from datasets.text import DataError
from tests.samples import tensors

CPU = torch.device("cpu")


class Numbers(Dataset):
    """Samples that are known by their place; some raise an error instead."""

    def __init__(self, errors: dict[int, Exception] | None = None, count: int = 10) -> None:
        self.errors = errors or {}
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Sample:
        if i in self.errors:
            raise self.errors[i]
        image = torch.full((3, 2, 4), i, dtype=torch.uint8)
        return Sample(
            {0: image}, i * torch.eye(3), {}, {}, {}, torch.tensor(i), torch.tensor(2 * i)
        )


@pytest.fixture(params=[0, 2], ids="{} workers".format)
def workers(request):
    return request.param


def places(loader) -> list[list[int]]:
    return [batch.index.tolist() for batch in loader]


def test_batches_follow_the_sampler(workers):
    order = [3, 1, 4, 1, 5, 9, 2]
    loader = SampleLoader(Numbers(), 3, order, workers, CPU)
    assert places(loader) == [[3, 1, 4], [1, 5, 9], [2]]
    assert len(loader) == 3


def test_a_smaller_last_batch_can_be_left_out(workers):
    loader = SampleLoader(Numbers(), 4, range(10), workers, CPU, drop_last=True)
    assert places(loader) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(loader) == 2
    whole = SampleLoader(Numbers(), 5, range(10), workers, CPU, drop_last=True)
    assert places(whole) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_a_batch_has_what_the_dataset_gave(workers):
    dataset = Numbers()
    for batch in SampleLoader(dataset, 4, range(10), workers, CPU):
        assert type(batch) is Sample and batch.image[0].dtype == torch.uint8
        samples = [tensors(dataset[i]) for i in batch.index.tolist()]
        for got, expected in zip(tensors(batch), zip(*samples, strict=True), strict=True):
            assert torch.equal(got, torch.stack(expected))


def test_batches_arrive_on_their_device(device):
    for batch in SampleLoader(Numbers(), 4, range(10), 0, device):
        i = batch.index.byte().view(-1, 1, 1, 1)
        assert torch.equal(batch.image[0].cpu(), i.expand(-1, 3, 2, 4))


@pytest.mark.parametrize("target", ["meta", "cuda"])
def test_what_the_host_decides_by_stays_with_it(target):
    if target == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    for batch in SampleLoader(Numbers(), 4, range(10), 0, torch.device(target)):
        assert batch.index.device == batch.skipped.device == CPU
        rest = tensors(batch._replace(index=batch.image[0], skipped=batch.image[0]))
        assert {tensor.device.type for tensor in rest} == {target}


def test_an_index_that_is_kept_does_not_keep_its_batch():
    (batch,) = SampleLoader(Numbers(), 4, range(4), 0, CPU)
    for kept in (batch.index, batch.skipped):
        assert kept.untyped_storage().nbytes() == 4 * 8


def test_every_epoch_asks_the_sampler_anew(workers):
    class Rising:
        epoch = 0

        def __len__(self):
            return 2

        def __iter__(self):
            self.epoch += 1
            return iter([self.epoch, self.epoch + 1])

    loader = SampleLoader(Numbers(), 2, Rising(), workers, CPU)
    assert [places(loader) for _ in range(3)] == [[[1, 2]], [[2, 3]], [[3, 4]]]


def test_an_epoch_that_was_left_early_leaves_nothing_to_the_next(workers):
    loader = SampleLoader(Numbers(), 2, range(10), workers, CPU)
    for batch in loader:
        if 3 in batch.index:
            break
    assert places(loader) == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


# What cannot be read

MESSAGE = "data/0000000005.png: a PNG image that was cut off after 99 bytes"


def read_until_it_fails(loader) -> tuple[list[int], type[Exception], str]:
    """Return the places that came, and what ended them."""
    seen = []
    try:
        for batch in loader:
            seen += batch.index.tolist()
    except Exception as error:
        # Else the loader stays in a circle of references (with pytest.raises as well), and when
        # that is collected, PyTorch waits 5 s for each worker.
        traceback.clear_frames(error.__traceback__)
        return seen, type(error), str(error)
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError(MESSAGE), MESSAGE),
        (FileNotFoundError("a/b.png: no such file"), "a/b.png: no such file"),
        (PermissionError(13, "Not allowed", "a.png"), "a.png: not allowed"),
    ],
)
def test_a_broken_file_ends_the_epoch_in_one_line(workers, error, message):
    loader = SampleLoader(Numbers({5: error}), 2, range(10), workers, CPU)
    for _ in range(2):  # and again, with the same workers
        seen, kind, text = read_until_it_fails(loader)
        assert (kind, text) == (DataError, message)
        assert seen == [0, 1, 2, 3]  # what came before was whole


def test_the_first_of_several_broken_files_is_named(workers):
    errors = {i: DataError(f"{i}.png: broken") for i in (4, 3, 8)}
    loader = SampleLoader(Numbers(errors), 5, range(10), workers, CPU)
    assert read_until_it_fails(loader) == ([], DataError, "3.png: broken")


def test_a_fault_of_our_own_is_not_taken_for_a_broken_file(workers):
    loader = SampleLoader(Numbers({5: TypeError("a bug")}), 2, range(10), workers, CPU)
    _, kind, text = read_until_it_fails(loader)
    assert kind is TypeError and "a bug" in text


# Items as they are


class Ragged(Dataset):
    """Arrays of as many numbers as their place says; some raise an error instead."""

    def __init__(self, broken: tuple[int, ...] = ()) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 7

    def __getitem__(self, i: int) -> torch.Tensor:
        if i in self.broken:
            raise DataError(f"file {i} is broken")
        return torch.arange(i)


def test_items_of_any_shape_come_in_order(workers):
    found = list(read_in_order(Ragged(), 3, workers))
    assert [[len(item) for item in items] for items in found] == [[0, 1, 2], [3, 4, 5], [6]]
    some = list(read_in_order(Ragged(), 2, workers, places=[5, 1, 5]))
    assert [[len(item) for item in items] for items in some] == [[5, 1], [5]]


def test_the_first_item_that_cannot_be_read_ends_it_in_one_line(workers):
    read = read_in_order(Ragged(broken=(4, 5)), 2, workers)
    assert [len(item) for item in [*next(read), *next(read)]] == [0, 1, 2, 3]
    with pytest.raises(DataError, match="^file 4 is broken$"):
        next(read)


def test_workers_need_no_file_descriptor_for_an_item():
    """Of tensors that are shared, a batch of 400 would take as many."""
    open_now = Path("/proc/self/fd")
    if not open_now.is_dir():
        pytest.skip("this system does not say how many are open")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = max(int(path.name) for path in open_now.iterdir()) + 150
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(few, hard), hard))
    try:
        places = [i % 7 for i in range(800)]
        found = list(read_in_order(Ragged(), 400, 2, places))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [len(items) for items in found] == [400, 400]
    assert [len(item) for items in found for item in items] == places


def test_reading_draws_no_random_numbers(workers):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    list(read_in_order(Ragged(), 2, workers))
    assert torch.equal(torch.rand(3), expected)
