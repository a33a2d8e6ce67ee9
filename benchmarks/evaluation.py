"""Time an evaluation of depth: `python -m benchmarks.evaluation`.

What the network takes, and what everything else does: reading images and scans, resizing, errors.
R18 at 640x192 on images of 1242x375, with single LiDAR scans as truth. Then one image's errors
alone, and whether memory grows with the number of images.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import metrics
from benchmarks.timing import interleaved_medians
from datasets.data_options import DataOptions
from datasets.synthetic.recording import DATE
from datasets.synthetic.rig import REAL_SIZE
from datasets.synthetic.writer import SyntheticOptions, write_synthetic_kitti
from evaluation.depth import NetworkPredictions, evaluate_depth
from evaluation.examples import KittiExamples
from evaluation.inference import DepthNetwork
from evaluation.weights import open_depth
from networks.factory import build_models
from options import train
from utils import save_weights

LIMITS = {
    "all but the network, of an evaluation": 0.3,
    "errors of an image, LiDAR [ms]": 8.0,
    "memory of four times as many images": 1.05,
}
SIZE = 640, 192
RENDERED = 12  # images; a list repeats them
BATCH = 16


def make_examples(root: Path, count: int, dataset: str = "kitti") -> KittiExamples:
    """Return so many images of one drive with scans or dense depth; it is made if need be."""
    if not (root / DATE).exists():
        write_synthetic_kitti(SyntheticOptions(root, drives=1, frames=RENDERED, size=REAL_SIZE))
    lines = [f"{DATE}/{DATE}_drive_0001_sync {i % RENDERED} l\n" for i in range(count)]
    file = root / f"{count}_images.txt"
    file.write_text("".join(lines))
    asked = DataOptions(root, split=file, dataset=dataset, width=SIZE[0], height=SIZE[1])
    return KittiExamples(asked, "x")


def make_network(root: Path, amp: str = "off") -> DepthNetwork:
    """Return a ResNet-18 with random weights from a folder like any other."""
    folder = root / "weights"
    if not folder.exists():
        folder.mkdir()
        models = build_models(train(["--weights_init", "scratch"]), pretrained=False)
        entries = {"width": SIZE[0], "height": SIZE[1], "use_stereo": False}
        save_weights(folder, models, entries)
    return DepthNetwork(open_depth(folder, torch.device("cpu")), amp)


def cases(
    examples: KittiExamples, networks: dict[str, DepthNetwork], workers: int
) -> dict[str, Callable[[], object]]:
    """Return an evaluation for each network, and what its network alone takes of it."""
    count = len(examples.names)
    images = torch.randint(0, 256, (min(BATCH, count), 3, *SIZE[::-1]), dtype=torch.uint8)

    def whole(network: DepthNetwork) -> None:
        predictions = NetworkPredictions(network, BATCH, workers).read(examples, truths=True)
        evaluate_depth(examples, predictions, "eigen", {})

    def alone(network: DepthNetwork) -> None:
        for first in range(0, count, BATCH):
            network.inverse_depth(images[: count - first])

    found: dict[str, Callable[[], object]] = {}
    for name, network in networks.items():
        found[f"{name}, whole"] = lambda network=network: whole(network)
        found[f"{name}, network"] = lambda network=network: alone(network)
    return found


def parts(root: Path) -> dict[str, Callable[[], object]]:
    """Return what is done for one image, part by part."""
    scans, dense = make_examples(root, RENDERED), make_examples(root, RENDERED, "kitti_depth")
    rules = metrics.PROTOCOLS
    truths = {
        "errors, LiDAR": (torch.from_numpy(scans.truth(0))[None, None], rules["eigen"]),
        "errors, dense": (torch.from_numpy(dense.truth(0))[None, None], rules["synthetic"]),
    }
    small = torch.rand(1, 1, *SIZE[::-1])

    def errors(truth: torch.Tensor, protocol: metrics.Protocol) -> Callable[[], object]:
        predicted_m = 1.1 * truth.clamp(min=1)
        return lambda: metrics.evaluate(truth, predicted_m, protocol)

    return {
        "read an image": lambda: scans.image(0),
        "read and project a scan": lambda: scans.truth(0),
        "resize a prediction": lambda: metrics.resize_disparity(
            small, REAL_SIZE[::-1]
        ).reciprocal(),
        **{name: errors(*given) for name, given in truths.items()},
    }


def memory_growth(root: Path, network: DepthNetwork, batches: int) -> float:
    """Return how much more memory this process has had after four times as many batches."""
    peaks = []
    for count in (batches * BATCH, 4 * batches * BATCH):
        examples = make_examples(root, count)
        predictions = NetworkPredictions(network, BATCH, 0).read(examples, truths=True)
        evaluate_depth(examples, predictions, "eigen", {})
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peaks[1] / peaks[0]


def main(argv: Sequence[str] | None = None) -> None:
    """Print times in seconds and milliseconds, and what they come to beside their limits."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=48, help="of an evaluation")
    parser.add_argument("--batches", type=int, default=1, help="that memory is compared after")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        examples = make_examples(root, args.images)
        networks = {"float32": make_network(root), "bf16": make_network(root, "bf16")}
        growth = memory_growth(root, networks["bf16"], args.batches)
        took = interleaved_medians(cases(examples, networks, args.workers), args.repeats)
        each = interleaved_medians(parts(root), 10 * args.repeats)
    print(f"{args.images} images, {args.workers} workers, {torch.get_num_threads()} threads")
    rest = {}
    for name in networks:
        whole, alone = (took[f"{name}, {part}"] for part in ("whole", "network"))
        rest[name] = 1 - alone / whole
        print(
            f"{name:8} whole {whole:6.2f} s, network {alone:6.2f} s, the rest {rest[name]:6.1%}, "
            f"{args.images / whole:5.1f} images/s"
        )
    for name, seconds in each.items():
        print(f"{name:24} {1e3 * seconds:7.2f} ms")
    measured = (rest["float32"], 1e3 * each["errors, LiDAR"], growth)
    for (name, limit), value in zip(LIMITS.items(), measured, strict=True):
        print(f"{name:40} {value:7.3f}   at most {limit:g}")


if __name__ == "__main__":
    main()
