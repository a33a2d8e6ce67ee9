"""The whole way in minutes, on a CPU: `make demo`, or `python -m benchmarks.demo`.

Makes synthetic drives, matches their IMU, trains one camera alone and the same camera with IMU and
filter side by side, evaluates both on streets that neither has seen, and ends with a table and a
picture. Everything goes to one folder; started again, it goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import demo_picture
from benchmarks.study import (
    ROOT,
    Run,
    Scores,
    Workshop,
    end_on_sigterm,
    last_weights,
    make_drives,
    say,
)
from datasets.command import exit_code

DRIVES = 10
FRAMES = 120
SIZE = "320x96"
CAMERA, FUSED = "camera_only", "imu_and_filter"
CONFIGS = {
    CAMERA: ROOT / "configs" / "demo_camera.txt",
    FUSED: ROOT / "configs" / "demo.txt",
}
"""They differ in what the IMU brings, and in nothing else."""

STREETS = {"train": "streets of the training", "test": "others"}


def run(args: argparse.Namespace) -> int:
    """Do all steps that are left; return the exit code."""
    began = time.monotonic()
    out: Path = args.out
    drives, trained = out / "drives", out / f"seed_{args.seed}"
    if args.fresh:  # nothing goes that was not made here
        for made in [drives] * (drives / "made_with.txt").exists() + [trained / n for n in CONFIGS]:
            if made.exists():
                shutil.rmtree(made)
    say(f"1 of 3: {DRIVES} drives along streets that do not exist, in {drives}")
    make_drives(drives, "--drives", str(DRIVES), "--frames", str(FRAMES), "--size", SIZE)
    say(f"2 of 3: two trainings side by side and their scores on other streets, in {trained}")
    runs = [
        Run(name, trained / name, drives, (f"@{config}", "--seed", str(args.seed)))
        for name, config in CONFIGS.items()
    ]
    Workshop(2, CONFIGS).finish(runs)
    say("3 of 3: table and picture")
    text = table({run.name: Scores.read(run.scores_file) for run in runs})
    (trained / "table.txt").write_text(text + "\n", encoding="utf-8")
    picture = trained / "demo.png"
    demo_picture.draw(picture, drives, {run.name: last_weights(run.folder) for run in runs})
    minutes = (time.monotonic() - began) / 60
    say(f"\n{text}\n\npicture: {picture}\nthis took {minutes:.1f} minutes")
    return 0


def table(found: dict[str, Scores]) -> str:
    """Return the errors on test drives: of depth for each training, and of motion."""
    lines = [
        "depth on streets that nothing was trained on (abs_rel; the scale is truth / prediction)",
        f"{'':<16}{'in metres':>10}{'median-scaled':>15}{'scale ratio':>13}{'its spread':>12}",
    ]
    for name, of_name in found.items():
        lines.append(
            f"{name.replace('_', ' '):<16}{of_name.abs_rel:>10.3f}{of_name.scaled_abs_rel:>15.3f}"
            f"{of_name.scale_ratio:>13.3f}{of_name.scale_spread:>12.3f}"
        )
    fused = found[FUSED]
    steps = ", ".join(f"{name} {pose.step_m:.3f} m" for name, pose in fused.pose.items())
    lines += [
        "",
        f"motion of {FUSED.replace('_', ' ')}, error from one image to the next: {steps}",
        "its velocity network, error of the speed: "
        + ", ".join(
            f"{error:.2f} of {fused.speed[part]:.1f} m/s on {STREETS[part]}"
            for part, error in fused.speed_error.items()
        ),
    ]
    return "\n".join(lines)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0, help="of both trainings")
    parser.add_argument(
        "--fresh", action="store_true", help="start over: remove drives and the trainings of SEED"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and put a user's mistake into one line."""
    args = parse(argv)
    end_on_sigterm()
    return exit_code("demo", lambda: run(args), "started again, it goes on where it stopped")


if __name__ == "__main__":
    sys.exit(main())
