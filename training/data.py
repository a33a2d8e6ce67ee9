"""The data of a training: its lists, loaders, and what each batch is changed by."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, replace

from datasets.augmentation import draw_augmentation, prepare
from datasets.batch import Batch
from datasets.builders import build_dataset
from datasets.data_options import DataOptions
from datasets.files import describe
from datasets.image_noise import ImageNoise, draw_noise
from datasets.kitti import KittiDataset
from datasets.loading import SampleLoader
from datasets.matched import PACKETS_FILE
from training.distributed import World
from training.sampling import ShardedSampler
from training.stopping import ignore_signals
from utils import UserError

_log = logging.getLogger(__name__)

VALIDATION_WORKERS = 4
"""They read while nothing trains: few are enough, and all of them stay in memory."""


@dataclass(frozen=True)
class Part:
    """A list of samples and the way to its batches."""

    dataset: KittiDataset
    sampler: ShardedSampler
    loader: SampleLoader


def open_training(options: Namespace, world: World) -> Part:
    """Open the list that is trained on."""
    dataset = build_dataset(data_options(options), "train")
    # Refused here, before a run begins: what images cannot have, and steps that would never be.
    image_noise(options, dataset)
    sampler = ShardedSampler(
        len(dataset), options.batch_size, world.rank, world.size, options.seed, shuffle=True
    )
    if sampler.batches < options.accumulate_steps:
        raise UserError(
            f"--accumulate_steps {options.accumulate_steps}: an epoch has {sampler.batches} batches"
        )
    return _part(dataset, sampler, options, world, options.num_workers)


def open_validation(options: Namespace, world: World) -> Part:
    """Open the list that is validated on, without noise, with its true depth if there is one."""
    # Noise is for training alone: a noisy variant of the IMU lies beside the one it is made of.
    wanted = replace(data_options(options), use_depth=True, imu_filename=PACKETS_FILE)
    try:
        dataset = build_dataset(wanted, "val")
    except (UserError, OSError) as error:
        dataset = build_dataset(replace(wanted, use_depth=False), "val")
        _log.warning("validation without true depth, so without its errors: %s", describe(error))
    sampler = ShardedSampler(
        len(dataset), options.batch_size, world.rank, world.size, options.seed, shuffle=False
    )
    workers = min(options.num_workers, VALIDATION_WORKERS)
    return _part(dataset, sampler, options, world, workers)


def data_options(options: Namespace) -> DataOptions:
    """Return what the datasets are asked for."""
    return DataOptions(
        data_path=options.data_path,
        split=options.split,
        dataset=options.dataset,
        png=options.png,
        height=options.height,
        width=options.width,
        frame_ids=tuple(options.frame_ids),
        use_stereo=options.use_stereo,
        use_imu=options.use_imu,
        imu_filename=options.imu_filename,
        intrinsics=options.intrinsics,
        cache_dir=options.cache_dir,
        cache_workers=max(options.num_workers, 1),
        skip_broken=options.skip_broken,
        check_attitude=not options.avoid_quat_check,
        imu_clip=options.k_imu_clip,
    )


def training_batches(part: Part, options: Namespace, epoch: int) -> Iterator[Batch]:
    """Yield what is left of an epoch, augmented and, if asked for, disturbed."""
    noise = image_noise(options, part.dataset)
    for sample in part.loader:
        augmentation = draw_augmentation(options.seed, epoch, sample.index)
        disturbance = draw_noise(noise, options.seed, epoch, sample.index, sample.image)
        yield prepare(sample, options.scales, augmentation, disturbance)


def validation_batches(part: Part, options: Namespace) -> Iterator[Batch]:
    """Yield all batches of this process, as recorded."""
    part.sampler.set_position(0)
    for sample in part.loader:
        yield prepare(sample, options.scales)


def first_batch(part: Part, options: Namespace, world: World) -> Batch:
    """Return the first batch of a list, as recorded: the same for every process."""
    places = range(min(options.batch_size, len(part.dataset)))
    loader = SampleLoader(part.dataset, len(places), places, 0, world.device)
    return prepare(next(iter(loader)), options.scales)


def image_noise(options: Namespace, dataset: KittiDataset) -> ImageNoise:
    """Return how training images are disturbed."""
    return ImageNoise(
        kind=options.img_noise_type,
        brightness=options.img_noise_brightness,
        contrast=options.img_noise_contrast,
        saturation=options.img_noise_saturation,
        hue=options.img_noise_hue,
        gamma=options.img_noise_gamma,
        gain=options.img_noise_gain,
        mask_num=options.img_mask_num,
        mask_size=options.img_mask_size,
        recorded_size=dataset.camera(0).mounting.recorded_size,
    )


def _part(
    dataset: KittiDataset,
    sampler: ShardedSampler,
    options: Namespace,
    world: World,
    workers: int,
) -> Part:
    loader = SampleLoader(
        dataset,
        options.batch_size,
        sampler,
        workers,
        world.device,
        worker_init=ignore_signals,
    )
    return Part(dataset, sampler, loader)
