"""Which samples each process takes: together, what one would; from anywhere, exactly the rest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from training.sampling import ShardedSampler
from utils import UserError

SEED = 5


def world(length, batch_size, size, shuffle=True, seed=SEED) -> list[ShardedSampler]:
    return [ShardedSampler(length, batch_size, i, size, seed, shuffle) for i in range(size)]


def places(sampler: ShardedSampler, epoch: int = 0, batches_done: int = 0) -> list[int]:
    sampler.set_position(epoch, batches_done)
    found = list(sampler)
    assert len(sampler) == len(found)
    return found


shapes = {
    "length": st.integers(24, 70),
    "batch_size": st.integers(1, 4),
    "size": st.integers(1, 6),
    "epoch": st.integers(0, 3),
}


@given(**shapes)
def test_processes_see_together_what_one_would(length, batch_size, size, epoch):
    (one,) = world(length, batch_size * size, 1)
    shards = [
        np.reshape(places(s, epoch), (-1, batch_size)) for s in world(length, batch_size, size)
    ]
    together = np.stack(shards, 1)  # (batches, processes, batch_size)
    assert together.reshape(-1).tolist() == places(one, epoch)


@given(**shapes)
def test_an_epoch_is_all_whole_batches_of_a_permutation(length, batch_size, size, epoch):
    joint = batch_size * size
    seen = [place for s in world(length, batch_size, size) for place in places(s, epoch)]
    assert len(set(seen)) == len(seen) == length // joint * joint
    assert set(seen) <= set(range(length))
    assert {s.batches for s in world(length, batch_size, size)} == {length // joint}


@given(**shapes, shuffle=st.booleans(), done=st.integers(0, 6))
def test_from_any_place_exactly_the_rest_is_left(length, batch_size, size, epoch, shuffle, done):
    for sampler in world(length, batch_size, size, shuffle):
        done = min(done, sampler.batches)
        whole = places(sampler, epoch)
        assert places(sampler, epoch, done) == whole[done * batch_size :]
        assert places(sampler, epoch, sampler.batches) == []


@given(
    length=st.integers(0, 40),
    batch_size=st.integers(1, 9),
    size=st.integers(1, 6),
    epoch=st.just(2),
)
def test_without_shuffling_every_sample_comes_once_in_order(length, batch_size, size, epoch):
    samplers = world(length, batch_size, size, shuffle=False)
    shards = [places(sampler, epoch) for sampler in samplers]
    assert [place for shard in shards for place in shard] == list(range(length))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert [s.batches for s in samplers] == [-(-len(shard) // batch_size) for shard in shards]


def test_the_order_depends_on_seed_and_epoch_alone():
    (sampler,) = world(1000, 10, 1)
    orders = [places(sampler, epoch) for epoch in range(3)]
    assert orders[0] != orders[1] != orders[2] != list(range(1000))
    assert places(sampler, 1) == orders[1]
    (again,) = world(1000, 10, 1)
    assert places(again, 1) == orders[1]
    (other,) = world(1000, 10, 1, seed=SEED + 1)
    assert places(other, 1) not in orders


def test_the_order_owes_nothing_to_what_is_drawn_for_a_sample():
    (sampler,) = world(1000, 1, 1)
    # NumPy takes keys that differ in zeros at the end for the same.
    for key in ([SEED, 3], [SEED, 3, 0], [SEED, 3, 0, 1]):
        assert places(sampler, 3) != np.random.default_rng(key).permutation(1000).tolist()


def test_a_new_epoch_is_begun_at_its_beginning():
    (sampler,) = world(40, 4, 1)
    sampler.set_position(0, 7)
    assert places(sampler, 1) == places(sampler, 1, 0) and len(sampler) == 40


def test_what_is_being_read_is_not_changed_by_a_new_position():
    (sampler,) = world(40, 4, 1)
    whole = places(sampler)
    reading = iter(sampler)
    first = next(reading)
    sampler.set_position(3, 5)
    assert [first, *reading] == whole


def test_a_loader_makes_these_batches():
    sampler = world(23, 3, 2)[1]
    sampler.set_position(1, 1)
    batches = [batch.tolist() for batch in DataLoader(range(23), 3, sampler=sampler)]
    assert np.concatenate(batches).tolist() == places(sampler, 1, 1)
    assert [len(batch) for batch in batches] == [3] * (sampler.batches - 1) == [3, 3]


def test_too_few_samples_to_train_on_are_said_in_one_line():
    assert ShardedSampler(32, 8, 3, 4, SEED).batches == 1
    with pytest.raises(UserError) as error:
        ShardedSampler(31, 8, 3, 4, SEED)
    assert str(error.value) == (
        "31 samples are too few for a batch of 32 (8 for each of 4 processes): use a smaller "
        "--batch_size or fewer processes"
    )
    with pytest.raises(UserError) as error:
        ShardedSampler(7, 8, 0, 1, SEED)
    assert str(error.value) == (
        "7 samples are too few for a batch of 8: use a smaller --batch_size"
    )


def test_a_position_outside_of_an_epoch_is_refused():
    (sampler,) = world(40, 4, 1)
    for epoch, done in ((0, 11), (0, -1), (-1, 0)):
        with pytest.raises(ValueError, match="batches_done: expected 0 to 10 .* got"):
            sampler.set_position(epoch, done)


@pytest.mark.parametrize(("batch_size", "rank"), [(0, 0), (4, 2), (4, -1)])
def test_an_impossible_world_is_refused(batch_size, rank):
    with pytest.raises(ValueError, match="expected"):
        ShardedSampler(40, batch_size, rank, 2, SEED)
