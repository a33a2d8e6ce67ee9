"""Samples keep their form through collation, worker processes and devices."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset, default_collate

from datasets.batch import ImuInterval, Sample, map_tensors
from ekf.preintegration import camera_motion, preintegrate
from tests.samples import FRAMES, make_interval, make_sample, tensors

WINDOWS = [FRAMES, (0,)]  # with and without IMU, stereo and neighbours


def form(tree) -> object:
    """Return types and keys, with the shapes of the tensors."""
    if isinstance(tree, torch.Tensor):
        return tree.dtype, tuple(tree.shape)
    branches = tree if isinstance(tree, dict) else tree._asdict()
    return type(tree), {key: form(branch) for key, branch in branches.items()}


def one(sample: Sample, i: int) -> Sample:
    """Return a sample of the batch as a dataset gives it."""
    return map_tensors(lambda tensor: tensor[i], sample)


class Samples(Dataset):
    """A dataset that worker processes can have."""

    def __init__(self, collated: Sample) -> None:
        self.collated = collated

    def __len__(self) -> int:
        return len(self.collated.index)

    def __getitem__(self, i: int) -> Sample:
        return one(self.collated, i)


# Structure


def test_a_function_of_each_tensor_keeps_the_structure():
    sample = make_sample()
    doubled = map_tensors(lambda tensor: tensor.double() * 2, sample)
    assert type(doubled) is Sample and type(doubled.imu[0]) is ImuInterval
    assert list(doubled.image) == list(sample.image)
    for twice, once in zip(tensors(doubled), tensors(sample), strict=True):
        assert twice.dtype == torch.float64 and torch.equal(twice, once.double() * 2)


def test_a_function_of_each_tensor_builds_new_dictionaries():
    sample = make_sample()
    same = map_tensors(lambda tensor: tensor, sample)
    same.image.clear()
    assert list(sample.image) == list(FRAMES)


@pytest.mark.parametrize("frames", WINDOWS, ids=str)
def test_collation_undoes_the_split_into_samples(frames):
    sample = make_sample(3, frames)
    collated = default_collate([one(sample, i) for i in range(3)])
    assert form(collated) == form(sample)
    for got, expected in zip(tensors(collated), tensors(sample), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("frames", WINDOWS, ids=str)
def test_a_worker_process_gives_what_it_was_given(frames):
    sample = make_sample(2, frames)
    (collated,) = DataLoader(Samples(sample), batch_size=2, num_workers=1)
    assert form(collated) == form(sample)
    for got, expected in zip(tensors(collated), tensors(sample), strict=True):
        assert torch.equal(got, expected)


# The IMU


def test_an_interval_moves_the_camera_as_its_measurements_do():
    interval = make_interval(4, torch.float64)
    velocity, gravity = torch.randn(2, 4, 3, dtype=torch.float64)
    motion = preintegrate(interval.dt, interval.gyro, interval.accel)
    assert_close(
        camera_motion(interval.preintegrated, interval.T_c_b, velocity, gravity),
        camera_motion(motion, interval.T_c_b, velocity, gravity),
        atol=0,
        rtol=0,
    )


def test_each_field_of_the_preintegrated_motion_is_that_of_the_interval():
    interval = make_interval(2)
    for name, tensor in vars(interval.preintegrated).items():
        assert tensor is getattr(interval, name)
