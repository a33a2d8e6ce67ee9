"""The data of a training: what is asked of the datasets, and what batches are changed by."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from datasets.data_options import DataOptions
from tests.samples import tensors
from tests.training_runs import (
    ALONE,
    CAMERA_ONLY,
    CPU,
    TRAIN_LINES,
    VAL_LINES,
    make_data,
    options_for,
)
from training import data
from training.distributed import World

BADLY = "--img_noise_type gg --img_noise_gain 0.9"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def asked(root: Path, *words: str):
    return options_for(root, Path("runs"), *words)


def training(root: Path, *words: str, epoch: int = 0, world: World = ALONE) -> list:
    options = asked(root, *words)
    part = data.open_training(options, world)
    part.sampler.set_position(epoch)
    return list(data.training_batches(part, options, epoch))


def validation(root: Path, *words: str, world: World = ALONE) -> list:
    options = asked(root, *words)
    return list(data.validation_batches(data.open_validation(options, world), options))


def equal(a, b) -> bool:
    pairs = list(zip(tensors(a), tensors(b), strict=True))
    return all(x.shape == y.shape and torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize(
    "words, name, value",
    [
        ("--data_path ROOT/b", "data_path", "ROOT/b"),
        ("--split eigen_full", "split", "eigen_full"),
        ("--split ROOT/lists", "split", "ROOT/lists"),
        ("--split synthetic", "split", "ROOT/splits"),
        ("--dataset kitti_depth", "dataset", "kitti_depth"),
        ("--png", "png", True),
        ("--height 96", "height", 96),
        ("--width 128", "width", 128),
        ("--frame_ids -1 0", "frame_ids", (0, -1)),
        ("--use_stereo", "use_stereo", True),
        (CAMERA_ONLY, "use_imu", False),
        ("--imu_filename noisy.txt", "imu_filename", "noisy.txt"),
        ("--intrinsics fixed", "intrinsics", "fixed"),
        ("--cache_dir ROOT/cache", "cache_dir", "ROOT/cache"),
        ("--num_workers 3", "cache_workers", 3),
        ("--skip_broken", "skip_broken", True),
        ("--avoid_quat_check", "check_attitude", False),
        ("--k_imu_clip 7", "imu_clip", 7.0),
    ],
)
def test_each_option_of_the_data_reaches_the_dataset(words, name, value, root):
    before = vars(data.data_options(asked(root)))
    found = vars(data.data_options(asked(root, words.replace("ROOT", str(root)))))
    if isinstance(value, str) and "ROOT" in value:
        value = Path(value.replace("ROOT", str(root)))
    assert found[name] == value
    changed = {key for key in found if found[key] != before[key]}
    assert changed <= {name, *(("split",) if name == "data_path" else ())}


def test_no_option_of_the_dataset_is_forgotten(root):
    every = {field.name for field in fields(DataOptions)}
    rows = test_each_option_of_the_data_reaches_the_dataset.pytestmark[0].args[1]
    assert {name for _, name, _ in rows} | {"use_depth"} == every
    assert not data.data_options(asked(root)).use_depth  # validation alone has it


@pytest.mark.parametrize(
    "words, name, value",
    [
        ("--img_noise_type bcsh", "kind", "bcsh"),
        *(
            (f"--img_noise_type bcsh --img_noise_{name} 0.3", name, 0.3)
            for name in ("brightness", "contrast", "saturation", "hue")
        ),
        *((f"--img_noise_type gg --img_noise_{name} 0.3", name, 0.3) for name in ("gamma", "gain")),
        ("--img_noise_type mask --img_mask_size 9 --img_mask_num 3", "mask_num", 3),
        ("--img_noise_type mask --img_mask_size 9", "mask_size", 9.0),
    ],
)
def test_each_option_of_noise_reaches_the_images(words, name, value, root):
    options = asked(root, words)
    noise = data.image_noise(options, data.open_training(options, ALONE).dataset)
    assert getattr(noise, name) == value and noise.recorded_size == (124, 38)


def test_training_shows_every_sample_once_augmented_and_another_way_each_epoch(root):
    first, again, second = (training(root, epoch=epoch) for epoch in (0, 0, 1))
    seen = torch.cat([batch.index for batch in first])
    assert sorted(seen.tolist()) == list(range(TRAIN_LINES))
    assert all(map(equal, first, again))
    assert not torch.equal(seen, torch.cat([batch.index for batch in second]))
    recorded = data.open_training(asked(root), ALONE).dataset
    mirrored = jittered = 0
    for epoch in (first, second):
        for batch in epoch:
            for i, place in enumerate(batch.index.tolist()):
                image = recorded[place].image[0] / 255
                mirrored += not torch.equal(batch.image[0][i], image)
                assert equal(batch.image[0][i], image) or equal(batch.image[0][i], image.flip(-1))
                jittered += not torch.equal(batch.augmented[0][i], batch.image[0][i])
    assert 0 < mirrored < 2 * TRAIN_LINES and 0 < jittered < 2 * TRAIN_LINES
    assert all(not batch.depth for batch in first)


def test_noise_is_in_the_training_and_not_in_the_validation(root):
    clean, noisy = training(root), training(root, BADLY)
    for a, b in zip(clean, noisy, strict=True):
        assert torch.equal(a.index, b.index)
        assert all((a.image[k] - b.image[k]).abs().max() > 0.05 for k in (0, -1, 1))
        assert (a.augmented[0] - b.augmented[0]).abs().max() > 0.05
    assert all(map(equal, validation(root), validation(root, BADLY)))


def test_a_noisy_imu_is_for_training_alone(root):
    noisy = data.data_options(options_for(root, root, "--imu_filename noisy.txt"))
    assert noisy.imu_filename == "noisy.txt"
    part = data.open_validation(options_for(root, root, "--imu_filename noisy.txt"), ALONE)
    assert part.dataset.options.imu_filename == "matched_oxts.txt"


@pytest.mark.parametrize("words", ["", BADLY])
def test_an_image_is_changed_in_another_way_each_epoch(words, root):
    shown = []
    for epoch in (0, 1):
        batches = training(root, words, epoch=epoch)
        images = torch.cat([batch.augmented[0] for batch in batches])
        shown.append(images[torch.cat([batch.index for batch in batches]).argsort()])
    alike = [torch.equal(a, b) for a, b in zip(*shown, strict=True)]
    assert sum(alike) < (1 if words else TRAIN_LINES / 2)


def test_another_seed_is_another_order_and_other_images(root):
    first, second = (training(root, f"--seed {seed}") for seed in (0, 1))
    assert [b.index.tolist() for b in first] != [b.index.tolist() for b in second]


def test_validation_is_as_recorded_with_its_true_depth(root):
    batches = validation(root)
    seen = [place for batch in batches for place in batch.index.tolist()]
    assert seen == list(range(VAL_LINES)) and len(batches) == 2
    dataset = data.open_validation(asked(root), ALONE).dataset
    for batch in batches:
        for i, place in enumerate(batch.index.tolist()):
            sample = dataset[place]
            assert torch.equal(batch.image[-1][i], sample.image[-1] / 255)
            assert torch.equal(batch.augmented[0][i], batch.image[0][i])
            assert torch.equal(batch.K[i], sample.K)
            assert torch.equal(batch.depth[0][i], sample.depth[0]) and sample.depth[0].max() > 0
    assert all(map(equal, batches, validation(root)))  # from the beginning, every time


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 9])
def test_who_reads_changes_nothing(workers, root):
    words = f"--num_workers {workers}"
    assert all(map(equal, training(root), training(root, words)))
    part = data.open_validation(asked(root, words), ALONE)
    assert part.loader._loader.num_workers == min(workers, 4)
    assert all(map(equal, validation(root), data.validation_batches(part, asked(root, words))))


def test_processes_share_the_samples(root):
    joint = training(root, "--batch_size 4")
    parts = [training(root, world=World(rank, 2, CPU)) for rank in (0, 1)]
    for whole, *halves in zip(joint, *parts, strict=True):
        assert torch.equal(whole.index, torch.cat([half.index for half in halves]))
        assert torch.equal(whole.augmented[1], torch.cat([half.augmented[1] for half in halves]))
    seen = [batch.index for rank in (0, 1) for batch in validation(root, world=World(rank, 2, CPU))]
    assert torch.cat(seen).tolist() == list(range(VAL_LINES))


@pytest.mark.parametrize("world", [ALONE, World(1, 2, CPU)])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_first_batch_is_the_same_for_all(world, size, root):
    options = asked(root, f"--batch_size {size}", "--num_workers 2")
    part = data.open_validation(options, world)
    first = data.first_batch(part, options, world)
    assert first.index.tolist() == list(range(min(size, VAL_LINES)))
    usual = validation(root, f"--batch_size {size}")[0]
    assert equal(first, usual)


def test_without_true_depth_there_is_a_warning_and_all_else(root, tmp_path, caplog):
    bare = make_data(tmp_path)
    for scan in bare.glob("*/*_sync/velodyne_points/data/*.bin"):
        scan.unlink()
    with caplog.at_level(logging.WARNING):
        batches = validation(bare)
    (message,) = [r.getMessage() for r in caplog.records if "true depth" in r.getMessage()]
    assert "validation without true depth" in message and "\n" not in message
    assert all(not batch.depth for batch in batches)
    for batch, other in zip(batches, validation(root), strict=True):
        assert equal(batch, other._replace(depth={}))
