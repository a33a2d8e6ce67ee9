"""The evaluation of depth: predictions beside the truth, image by image, under one protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import metrics
from datasets.lidar import encode_depth_png
from datasets.loading import read_in_order
from evaluation.examples import Example, Examples, Reading
from evaluation.results import DepthResult
from utils import UserError, written_whole

BENCHMARK_SIZE = 352, 1216
"""Height and width of the depth maps that KITTI's server wants [px]."""

_LEAST_INVERSE = 1e-6  # [1/m] a thousand kilometres: a prediction of zero is infinitely far


class Network(Protocol):
    """What says how deep images are: `evaluation.inference.DepthNetwork`, or a test's own."""

    def inverse_depth(self, images: Tensor) -> Tensor:
        """Return (B, 1, H, W) [1/m] of images (B, 3, H, W) uint8."""


class Predicted(NamedTuple):
    """What is known of one image when its turn has come."""

    example: Example
    inverse_depth: Tensor  # (1, h, w) [1/m], at the size of the prediction


class Predictions(Protocol):
    """Where predictions come from: a network, or a file."""

    def read(
        self, examples: Examples, truths: bool, places: Sequence[int] | None = None
    ) -> Iterator[Predicted]:
        """Yield the predictions of these places, or of all, with or without the truth."""


class NetworkPredictions:
    """Predictions of a network, batch by batch.

    Args:
        network: that is asked
        batch_size: images at once
        workers: processes that read images and truth ahead
    """

    def __init__(self, network: Network, batch_size: int, workers: int) -> None:
        self._network, self._batch_size, self._workers = network, batch_size, workers

    def read(
        self, examples: Examples, truths: bool, places: Sequence[int] | None = None
    ) -> Iterator[Predicted]:
        reading = Reading(examples, images=True, truths=truths)
        for batch in read_in_order(reading, self._batch_size, self._workers, places):
            images = torch.stack([example.image for example in batch])
            inverse = self._network.inverse_depth(images).cpu()
            for example, of_image in zip(batch, inverse, strict=True):
                if not of_image.isfinite().all():
                    raise UserError(
                        f"{examples.names[example.place]}: the network says depths that are no "
                        "numbers: its weights are damaged, or --amp fp16 is too narrow for them"
                    )
                yield Predicted(example, of_image)


class FilePredictions:
    """Predictions that others have saved: `--ext_disp_to_eval`.

    Args:
        path: of an array (N, h, w) of inverse depths [1/m] in the order of the list
        count: N
        rows: which of them belong to the list, all by default
        factor: of all depths

    Raises:
        UserError: there is no such file, or it holds something else
    """

    def __init__(
        self, path: Path, count: int, rows: Sequence[int] | None = None, factor: float = 1.0
    ) -> None:
        self._path, self._factor = path, factor
        self._rows = range(count) if rows is None else rows
        self._array = _opened_array(path)
        if len(self._array) != count:
            raise UserError(
                f"{path}: {len(self._array)} predictions for {count} images: it is of another list"
            )

    def read(
        self, examples: Examples, truths: bool, places: Sequence[int] | None = None
    ) -> Iterator[Predicted]:
        reading = Reading(examples, images=False, truths=truths)
        for (example,) in read_in_order(reading, 1, 0, places):
            inverse = np.array(self._array[self._rows[example.place]], np.float32)
            if not (np.isfinite(inverse).all() and (inverse >= 0).all()):
                name = examples.names[example.place]
                raise UserError(
                    f"{self._path}: the prediction of {name} has numbers below zero, or none at "
                    "all; inverse depths are expected"
                )
            yield Predicted(example, torch.from_numpy(inverse)[None] / self._factor)


def evaluate_depth(
    examples: Examples,
    predictions: Iterable[Predicted],
    protocol: str,
    facts: Mapping[str, str],
    median_scaled: bool = False,
    without_truth: Sequence[str] = (),
) -> DepthResult:
    """Compare predictions with the truth; nothing of an image is kept but its errors.

    Args:
        examples: what they are of
        predictions: of all or some of them, with their truth
        protocol: a name in `metrics.PROTOCOLS`
        facts: what is evaluated, for the result
        median_scaled: whether the errors after median scaling are those that were asked for
        without_truth: names of examples that are not among the predictions for lack of a truth

    Raises:
        UserError: no image has a true depth that counts, or a prediction is no number
    """
    rows: list[list[np.ndarray]] = []
    counted: list[int] = []
    left_out = list(without_truth)
    for example, inverse in predictions:
        name = examples.names[example.place]
        errors = _errors(example.truth_m, inverse, protocol)
        if errors is None:
            left_out.append(name)
            continue
        if not np.isfinite(errors[0]).all():
            raise UserError(f"{name}: the predicted depth is no number, so it has no errors")
        counted.append(example.place)
        rows.append(errors)
    if not rows:
        raise UserError(
            f"none of {len(left_out)} images has a true depth that counts under the protocol "
            f"{protocol} (first {left_out[0] if left_out else 'none'})"
        )
    unscaled, scaled, ratio, near, scaled_near = map(np.stack, zip(*rows, strict=True))
    return DepthResult(
        protocol=protocol,
        names=tuple(examples.names[i] for i in counted),
        drives=tuple(examples.drives[i] for i in counted),
        unscaled=unscaled,
        scaled=scaled,
        ratio=ratio,
        by_distance=near,
        scaled_by_distance=scaled_near,
        left_out=tuple(left_out),
        facts=dict(facts),
        median_scaled=median_scaled,
    )


def at_truth(inverse: Tensor, size: tuple[int, int], protocol: metrics.Protocol) -> Tensor:
    """Return the depth [m] at the size of the truth: what is resized is inverse depth.

    Args:
        inverse: (1, h, w) [1/m]
        size: height and width of the truth
        protocol: says how it is resized

    Returns:
        (1, 1, height, width)
    """
    resized = metrics.resize_disparity(inverse[None], size, protocol.resizing)
    return resized.clamp(min=_LEAST_INVERSE).reciprocal()


def _errors(truth_m: np.ndarray | None, inverse: Tensor, protocol: str) -> list[np.ndarray] | None:
    """Return unscaled, scaled, ratio and both by distance, None without truth that counts."""
    if truth_m is None:
        return None
    rules = metrics.PROTOCOLS[protocol]
    truth = torch.from_numpy(truth_m)[None, None]  # (1, 1, h, w)
    found = metrics.evaluate(truth, at_truth(inverse, truth.shape[-2:], rules), rules)
    if found.unscaled["abs_rel"].isnan() and not metrics.valid_pixels(truth, rules).any():
        return None
    columns = [torch.cat(list(kind.values())) for kind in (found.unscaled, found.scaled)]
    others = (found.ratio[0], found.by_distance[0], found.scaled_by_distance[0])
    return [x.numpy() for x in (*columns, *others)]


def saved_as_array(path: Path, predictions: Iterable[Predicted], count: int) -> Iterator[Predicted]:
    """Pass predictions on, and write them to an array (count, h, w) [1/m] meanwhile.

    The file is at its place when the last has passed.
    """
    iterator = iter(predictions)
    first = next(iterator)
    shape = tuple(first.inverse_depth.shape[1:])
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, *shape)}
    with written_whole(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for predicted in chain([first], iterator):
            file.write(predicted.inverse_depth.numpy().astype("<f4").tobytes())
            yield predicted


def saved_for_benchmark(folder: Path, predictions: Iterable[Predicted]) -> Iterator[Predicted]:
    """Pass predictions on, and write each as KITTI's server wants it: 16 bits, 1216x352."""
    folder.mkdir(parents=True, exist_ok=True)
    rules = metrics.PROTOCOLS["benchmark"]
    for predicted in predictions:
        depth_m = at_truth(predicted.inverse_depth, BENCHMARK_SIZE, rules)[0, 0]
        depth_m = depth_m.clamp(rules.min_depth_m, rules.max_depth_m)
        with written_whole(folder / f"{predicted.example.place:010d}.png") as file:
            file.write(encode_depth_png(depth_m.numpy()))
        yield predicted


def with_progress(predictions: Iterable[Predicted], count: int) -> Iterator[Predicted]:
    """Pass predictions on and show how many there were, where someone watches."""
    with tqdm(total=count, unit="image", disable=None) as bar:
        for predicted in predictions:
            yield predicted
            bar.update()


def _opened_array(path: Path) -> np.ndarray:
    """Return an array (N, h, w) that stays on disk until it is asked for."""
    if not path.is_file():
        raise UserError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError):
        raise UserError(f"{path}: not an array of numbers (.npy)") from None
    plain = isinstance(array, np.ndarray) and array.ndim == 3 and array.dtype.kind == "f"
    if not plain or 0 in array.shape:
        found = getattr(array, "shape", "an archive")
        raise UserError(f"{path}: expected inverse depths (N, h, w), found {found}")
    return array
