"""The unit of the networks, found from the IMU while they are trained; see `ekf.alignment`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from datasets.augmentation import prepare
from datasets.batch import ImuInterval
from datasets.kitti import KittiDataset
from datasets.loading import SampleLoader
from ekf.alignment import Alignment, Segment, align
from ekf.preintegration import Preintegrated
from training.data import Part
from training.prediction import predict
from training.step import Step
from utils import UserError

LONGEST = 150
"""Intervals of a segment: some 15 s, in which a gyro's drift turns gravity by little."""

SHORTEST = 30

LEAST_SEGMENTS = 2
"""So many have to agree, or nobody knows how sure the scale is."""

MOST = 800
"""Intervals that are looked at: enough for a few percent, and soon done."""

BATCH = 16
"""Pairs that the networks see at once."""

SURE = 0.2
"""An alignment that is less certain than this changes nothing."""

LARGEST_STEP = 2.0
"""A unit is changed by at most this factor at once: networks at their beginning say anything."""


@torch.no_grad()
def alignment(step: Step, part: Part, device: torch.device) -> Alignment:
    """Align the camera's motion with the IMU, along the drives that are trained on.

    Args:
        step: the models, which are in evaluation mode meanwhile
        part: the training list
        device: of the models
    """
    options = Namespace(**vars(step.options) | {"frame_ids": [0, 1]})
    runs = list(spread_out(segments(part.dataset), MOST))
    places = [place for run in runs for place in run]
    if not places:
        return align([])
    loader = SampleLoader(part.dataset, BATCH, places, 0, device)
    was_training = step.training
    step.eval()
    translation, imu = [], []
    try:
        for sample in loader:
            batch = prepare(sample, ())
            prediction = predict(step.models, batch, options, motion_only=True)
            translation.append(prediction.T_first_second[1][:, :3, 3].cpu())
            imu.append(ImuInterval(*(x.cpu() for x in batch.imu[0])))
    finally:
        step.train(was_training)
    interval = ImuInterval(*map(torch.cat, zip(*imu, strict=True)))
    lengths = [len(run) for run in runs]
    return align(list(_cut(interval, torch.cat(translation), lengths)))


def check_segments(dataset: KittiDataset) -> None:
    """Refuse lists whose images are not enough in a row for the IMU to say anything."""
    count = len(list(spread_out(segments(dataset), MOST)))
    if count < LEAST_SEGMENTS:
        raise UserError(
            f"--align_steps needs {LEAST_SEGMENTS} stretches of {SHORTEST} images in a row, and "
            f"the training list has {count}: take a list with whole drives"
        )


def applied(found: Alignment) -> float:
    """Return the factor that the unit is multiplied by: 1 where too little is known."""
    if not found.relative_std < SURE:
        return 1.0
    return min(max(found.scale, 1 / LARGEST_STEP), LARGEST_STEP)


def segments(dataset: KittiDataset) -> Iterator[list[int]]:
    """Yield places of images in a row, of one camera of one drive, in pieces of useful length."""
    lines = sorted((*_parsed(dataset.line(place)), place) for place in range(len(dataset)))
    run: list[int] = []
    for before, line in zip([None, *lines], lines, strict=False):
        follows = before is not None and before[:2] == line[:2] and before[2] + 1 == line[2]
        if run and (not follows or len(run) == LONGEST):
            yield run
            run = []
        run.append(line[3])
    if run:
        yield run


def spread_out(runs: Iterator[list[int]], most: int) -> Iterator[list[int]]:
    """Yield runs that are long enough, evenly chosen so that they have about so many places."""
    long_enough = [run for run in runs if len(run) >= SHORTEST]
    every = -(-sum(map(len, long_enough)) // most) if long_enough else 1
    yield from long_enough[::every]


def _parsed(line: str) -> tuple[str, str, int]:
    """Return drive, camera and number of an image."""
    folder, number, *side = line.split()
    return folder, "".join(side), int(number)


def _cut(interval: ImuInterval, translation: Tensor, lengths: Sequence[int]) -> Iterator[Segment]:
    motion = interval.preintegrated
    parts = (motion.rotation, motion.position, motion.velocity, motion.duration)
    rows = zip(
        *(part.split(lengths) for part in (*parts, interval.T_c_b, translation)), strict=True
    )
    for *imu, T_c_b, moved in rows:
        yield Segment(Preintegrated(*imu), T_c_b[0], moved)
