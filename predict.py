"""Predict metric depth for images, videos and cameras of a user's own, or export the networks."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from tqdm import tqdm

import options
from datasets.command import exit_code
from evaluation.depth_outputs import Wanted
from evaluation.inference import DepthNetwork
from evaluation.media import Reading, find_sources
from evaluation.onnx_export import export
from evaluation.point_cloud import Pinhole, read_pinhole
from evaluation.predicting import check, compile_networks, predict, total_images
from evaluation.weights import as_asked, open_depth


def run(args: Namespace) -> int:
    """Export, predict, and print what was done; return the exit code."""
    sources = find_sources(args.inputs)
    pinhole = Pinhole.of(*args.intrinsics) if args.intrinsics else None
    if args.calibration is not None:
        pinhole = read_pinhole(args.calibration)
    weights = open_depth(**as_asked(args))
    factor = args.pred_depth_scale_factor
    width, height = weights.size
    print(f"{weights.folder}: ResNet-{weights.options.num_layers}, {width}x{height}")
    wanted = Wanted(args.out, args.save, pinhole, args.max_distance, args.nearest, args.overwrite)
    frames = args.skip_broken, args.every, args.max_frames
    reading = Reading(weights.size, args.batch_size, args.num_workers, *frames)
    if sources:
        check(sources, reading, wanted)
    if args.onnx is not None:
        difference = export(weights, args.onnx, factor, args.overwrite)
        print(
            f"{args.onnx}: ONNX Runtime and PyTorch differ by at most {difference:.1e} of a depth"
        )
    if not sources:
        return 0
    network = DepthNetwork(weights, args.amp, args.post_process, factor)
    if args.compile:
        compile_networks(weights, network, args.batch_size)
    precision = "float32" if args.amp == "off" else args.amp
    print(f"predicting on {weights.device} in {precision}, {args.batch_size} images at once")
    with tqdm(total=total_images(sources, reading), unit="image", disable=None) as bar:
        report = predict(network, sources, reading, wanted, bar.update)
    print("\n".join(report.lines(wanted)))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and put a user's mistake into one line."""
    return exit_code(
        "predict", lambda: run(options.predict(argv)), "files that were written are whole"
    )


if __name__ == "__main__":
    sys.exit(main())
