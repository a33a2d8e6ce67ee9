"""The datasets that there are, by name: where one of another kind comes in."""

from __future__ import annotations

from collections.abc import Callable

from torch.utils.data import Dataset

from datasets.batch import Sample
from datasets.data_options import DataOptions
from datasets.kitti import KittiDataset
from datasets.layouts import LAYOUTS

BUILDERS: dict[str, Callable[[DataOptions, str], Dataset[Sample]]] = {
    name: KittiDataset for name in LAYOUTS
}
"""What makes a dataset of the options and the part of the split, by `DataOptions.dataset`."""


def build_dataset(options: DataOptions, part: str) -> Dataset[Sample]:
    """Return the dataset that is asked for.

    Args:
        options: which data, and what of it makes a sample
        part: `train`, `val` or `test`: which list of the split

    Raises:
        DataError, OSError: something of it is missing or broken
    """
    return BUILDERS[options.dataset](options, part)
