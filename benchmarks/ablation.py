"""What each part is worth, on streets nobody trained on: `python -m benchmarks.ablation`.

Trainings by the recipe of `make demo`, shorter: the camera alone, with the IMU's motion, with the
recorded speed, with the filter; and with IMU and filter but no recorded speed. Each under four
conditions, which have drives of their own, for tests too, and with several seeds. Stopped and
started again, it goes on; what is done so far is in FOLDER/ablation.md after every training.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.study import ROOT, Run, Scores, Workshop, end_on_sigterm, make_drives, say
from datasets.command import exit_code
from utils import written_whole

CAMERA, IMU, SPEED, FILTER, INERTIAL = "camera", "imu", "speed", "filter", "inertial"

_IMU = "--shared_motion_encoder --imu_warp_weight 2 --imu_consistency_weight 0 --imu_l2_weight 0.5"
_SPEED = "--velocity_source recorded --velo_weight 0.1 --imu_velocity_weight 0.1"
_FILTER = "--use_ekf --noise_preset calibrated"

VARIANTS: Mapping[str, str] = {
    CAMERA: "--imu_warp_weight 0 --imu_consistency_weight 0 --velo_weight 0",
    IMU: f"{_IMU} --velo_weight 0 --gravity_weight 0",
    SPEED: f"{_IMU} {_SPEED}",
    FILTER: f"{_IMU} {_SPEED} {_FILTER}",
    INERTIAL: f"{_IMU} --velocity_source camera --velo_weight 0 --align_steps 100 {_FILTER}",
}
"""What each adds to the options of configs/demo_camera.txt."""

CONDITIONS: Mapping[str, tuple[str, ...]] = {
    "clean": (),
    "imu_noise": ("--imu_noise", "10"),
    "light": ("--illumination", "1"),
    "cars": ("--moving_cars", "4"),
}
"""Options of `make_synthetic_kitti.py`."""

DRIVES, FRAMES, SIZE = 10, 100, "320x96"

COLUMNS: Mapping[str, tuple[str, Callable[[Scores], float | None]]] = {
    "abs_rel": ("{:.3f}", lambda s: s.abs_rel),
    "scaled": ("{:.3f}", lambda s: s.scaled_abs_rel),
    "scale ratio": ("{:.3f}", lambda s: s.scale_ratio),
    "its spread": ("{:.3f}", lambda s: s.scale_spread),
    "camera [m]": ("{:.3f}", lambda s: _step(s, "camera")),
    "IMU [m]": ("{:.3f}", lambda s: _step(s, "imu")),
    "fused [m]": ("{:.3f}", lambda s: _step(s, "filter")),
    "speed, seen [m/s]": ("{:.2f}", lambda s: s.speed_error.get("train")),
    "speed, new [m/s]": ("{:.2f}", lambda s: s.speed_error.get("test")),
}
"""What the table has of each training, means over seeds with their deviation."""


def run(args: argparse.Namespace) -> int:
    """Do all trainings that are left, seed after seed; return the exit code."""
    drives = {name: args.out / "drives" / _folder(name) for name in args.conditions}
    for condition, folder in drives.items():
        say(f"drives: {condition}")
        size = ("--drives", str(DRIVES), "--frames", str(FRAMES), "--size", SIZE)
        make_drives(folder, *size, *CONDITIONS[condition])
    runs = {
        (condition, variant, seed): Run(
            f"{condition}, {variant}, seed {seed}",
            args.out / f"seed_{seed}" / f"{_folder(condition)}.{_folder(variant)}",
            drives[condition],
            (
                f"@{ROOT / 'configs' / 'demo_camera.txt'}",
                *VARIANTS[variant].split(),
                *("--num_epochs", str(args.epochs), "--seed", str(seed)),
            ),
        )
        for seed in args.seeds
        for condition in args.conditions
        for variant in args.variants
    }
    file = args.out / "ablation.md"

    def note(_: Run | None = None) -> None:
        found = {
            key: Scores.read(run.scores_file)
            for key, run in runs.items()
            if run.scores_file.exists()
        }
        with written_whole(file) as out:
            out.write((table(found) + "\n").encode())

    note()
    Workshop(args.at_once, [run.name for run in runs.values()]).finish(list(runs.values()), note)
    say(f"{file.read_text(encoding='utf-8')}\nwritten: {file}")
    return 0


def table(found: Mapping[tuple[str, str, int], Scores]) -> str:
    """Return a Markdown table: a line for each condition and variant, means over its seeds."""
    heads = ["condition", "training", "seeds", *COLUMNS]
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "--:|" * (len(heads) - 2)]
    for condition in CONDITIONS:
        for variant in VARIANTS:
            of_seeds = [s for key, s in found.items() if key[:2] == (condition, variant)]
            if of_seeds:
                cells = [cell(form, map(read, of_seeds)) for form, read in COLUMNS.values()]
                line = [condition, variant, str(len(of_seeds)), *cells]
                lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines)


def cell(form: str, values: Iterable[float | None]) -> str:
    """Return mean and standard deviation of what is known; of one value it alone."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    mean = form.format(statistics.fmean(known))
    return mean if len(known) < 2 else f"{mean} ± {form.format(statistics.stdev(known))}"


def _step(scores: Scores, name: str) -> float | None:
    return scores.pose[name].step_m if name in scores.pose else None


def _folder(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and put a user's mistake into one line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3, help="of every training")
    parser.add_argument(
        "--at_once",
        type=int,
        choices=range(1, 65),
        default=2,
        metavar="TRAININGS",
        help="side by side",
    )
    for name, choices in (("conditions", CONDITIONS), ("variants", VARIANTS)):
        parser.add_argument(f"--{name}", nargs="+", choices=choices, default=list(choices))
    args = parser.parse_args(argv)
    end_on_sigterm()
    return exit_code("ablation", lambda: run(args), "started again, it goes on where it stopped")


if __name__ == "__main__":
    sys.exit(main())
