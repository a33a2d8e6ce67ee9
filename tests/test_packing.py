"""A packed batch is the batch that PyTorch's collation makes, in one block of memory."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from datasets.batch import STEREO, ImuInterval, Sample, map_tensors
from datasets.packing import Packed, pack
from tests.samples import make_sample, tensors

FRAMES = [(0, -1, 1, STEREO), (0,)]  # with and without IMU, stereo, neighbours


def samples_of(frames=FRAMES[0], count=3) -> list[Sample]:
    """Return samples as a dataset gives them."""
    sample = make_sample(count, frames)
    return [map_tensors(lambda tensor, i=i: tensor[i].clone(), sample) for i in range(count)]


def same(a, b) -> bool:
    """Whether two trees have the same types, keys in the same order, and tensors."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("frames", FRAMES, ids=str)
@pytest.mark.parametrize("count", [1, 3])
def test_it_is_what_pytorch_collates(frames, count):
    samples = samples_of(frames, count)
    unpacked = pack(samples).unpack()
    assert same(unpacked, default_collate(samples))
    assert type(unpacked) is Sample and unpacked.index.shape == (count,)
    if len(frames) > 1:
        assert type(unpacked.imu[-1]) is ImuInterval and unpacked.image[0].dtype == torch.uint8


@pytest.mark.parametrize(
    "leaf",
    [
        torch.tensor(True),
        torch.tensor(7, dtype=torch.int64),
        torch.arange(5, dtype=torch.int16),
        torch.randn(3, 5, 7, dtype=torch.float64),
        torch.randn(2, 3).half(),
        torch.randn(4, 6).T,  # not contiguous
        torch.zeros(0, 3),
    ],
    ids=lambda leaf: f"{leaf.dtype}{tuple(leaf.shape)}",
)
def test_tensors_of_every_kind_stay_as_they_are(leaf):
    samples = [
        {"a": torch.tensor(i, dtype=torch.uint8), "b": leaf + 0 * i, "c": {}} for i in (1, 2)
    ]
    assert same(pack(samples).unpack(), default_collate(samples))


def test_samples_stay_as_they_were():
    samples = samples_of()
    before = [map_tensors(torch.clone, sample) for sample in samples]
    for tensor in tensors(pack(samples).unpack()):
        tensor.zero_()
    assert all(same(*pair) for pair in zip(samples, before, strict=True))


def test_all_tensors_lie_in_one_block_at_lines_of_cache():
    packed = pack(samples_of())
    begin, end = packed.block.data_ptr(), packed.block.data_ptr() + packed.block.numel()
    places = sorted(
        (tensor.data_ptr(), tensor.numel() * tensor.itemsize) for tensor in tensors(packed.unpack())
    )
    assert len(places) == 4 + 1 + 2 * 9 + 1 + 1 + 2
    assert all((place - begin) % 64 == 0 for place, _ in places)
    ends = [place + size for place, size in places]
    assert all(a <= b for a, (b, _) in zip([begin, *ends], places, strict=False))  # no overlap
    assert ends[-1] <= end < ends[-1] + 64
    packed.block.zero_()
    assert not any(tensor.any() for tensor in tensors(packed.unpack()))


# What does not belong together


def different(change) -> list[Sample]:
    samples = samples_of()
    samples[1] = change(samples[1])
    return samples


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s._replace(K=torch.zeros(3, 4)), r"\(3, 3\) torch.float32 and \(3, 4\)"),
        (lambda s: s._replace(K=torch.zeros(1, 3, 3)), r"\(3, 3\) torch.float32 and \(1, 3, 3\)"),
        (lambda s: s._replace(K=s.K.double()), r"torch.float32 and \(3, 3\) torch.float64"),
        (lambda s: s._replace(depth={}), "keys"),
        (lambda s: s._replace(depth={1: s.depth[0]}), "keys"),  # as many, but of others
        (lambda s: s._replace(image=s.image | {2: s.image[0]}), "keys"),
    ],
)
def test_samples_of_different_form_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        pack(different(change))


def test_a_shape_that_all_but_the_first_have_is_refused():
    samples = [s._replace(K=torch.zeros(4, 4)) for s in samples_of()]
    samples[0] = samples[0]._replace(K=torch.zeros(3, 3))
    with pytest.raises(ValueError, match="samples of one batch"):
        pack(samples)


def test_the_order_of_keys_does_not_matter():
    samples = different(lambda s: s._replace(image=dict(reversed(s.image.items()))))
    assert same(pack(samples).unpack(), default_collate(samples))


# On its way


class Samples(Dataset):
    """A dataset that worker processes can have."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> Sample:
        return self.samples[i]


def test_it_comes_through_a_worker_process_in_one_piece():
    samples = samples_of()
    (packed,) = DataLoader(Samples(samples), 3, num_workers=1, collate_fn=pack)
    assert isinstance(packed, Packed) and packed.block.is_shared()
    assert same(packed.unpack(), default_collate(samples))
    assert same(pickle.loads(pickle.dumps(packed)).unpack(), default_collate(samples))


def test_it_arrives_on_its_device(device):
    samples = samples_of()
    packed = pack(samples).to(device)
    assert packed.block.device.type == device.type
    sent = packed.unpack()
    assert all(tensor.device.type == device.type for tensor in tensors(sent))
    assert same(map_tensors(torch.Tensor.cpu, sent), default_collate(samples))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_loader_pins_its_memory():
    samples = samples_of()
    (packed,) = DataLoader(Samples(samples), 3, collate_fn=pack, pin_memory=True)
    assert packed.block.is_pinned()
    assert same(packed.unpack(), default_collate(samples))
