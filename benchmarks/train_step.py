"""Time the training step and its phases: `python -m benchmarks.train_step`.

With the filter, on the CPU and on a GPU if there is one: ours in fp32 and bf16, with the channels
last in memory, with losses at native resolution, with one encoder of motion, beside a plain step
that computes the same loss as programs of this family do. All cases take turns.
"""

from __future__ import annotations

import argparse
import copy
import functools
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import options
from benchmarks.plain_step import SOURCES, PlainStep
from benchmarks.simulation import Drive, extrinsics, random_drive
from benchmarks.timing import interleaved_medians, table
from datasets.augmentation import prepare
from datasets.batch import Batch, ImuInterval, Sample, map_tensors
from ekf.preintegration import preintegrate
from losses import GRAVITY
from networks.factory import build_models
from training.motion import fuse
from training.prediction import predict
from training.step import compute_losses, weights_of
from training.views import synthesise
from utils import seed_everything

LIMITS = {
    "plain over ours, fp32": 1.6,
    "plain over ours, bf16": 3.0,
    "native over full beyond networks": 0.5,
}
"""At least, of plain over ours with the channels last, where the CPU has matrices of bf16 (AMX); at
most, of native."""

CASES = {
    "ours, fp32": (),
    "ours, bf16": ("--amp", "bf16"),
    "last, fp32": ("--channels_last",),
    "last, bf16": ("--channels_last", "--amp", "bf16"),
    "native, fp32": ("--loss_resolution", "native"),
    "native, bf16": ("--amp", "bf16", "--loss_resolution", "native"),
    "shared, fp32": ("--shared_motion_encoder",),
    "shared, bf16": ("--shared_motion_encoder", "--amp", "bf16"),
}
"""Words of each; `shared` has one encoder of motion in place of three, so it is another network."""

PHASES = (
    *("depth networks", "motion networks", "IMU and filter", "warp", "losses"),
    *("backward to predictions", "backward to weights", "optimiser"),
)
GEOMETRY = "IMU and filter", "warp", "losses", "backward to predictions"
PLAIN = "plain, fp32"
BATCHES = {"cpu": 2, "cuda": 8}
REPEATS = {"cpu": 3, "cuda": 20}
WARM_UP = {"cpu": 0, "cuda": 5}  # steps of each case before the one that is left out anyway
LEARNING_RATE = 0.0  # so that all cases see the same weights, whatever their turn
PACKETS = 11  # of an interval, both ends included
TEXTURE_PX = 8  # side of what is one random colour before it is smoothed
AHEAD_M_S, DISPARITY_LOGIT = 8.0, -4.0  # a scene some 28 m away


class Clock:
    """Time between marks, by events on a GPU, which then has no need to wait."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[tuple[str, float | torch.cuda.Event]] = []

    def mark(self, name: str) -> None:
        """End a phase of this name."""
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append((name, event))
        else:
            self.marks.append((name, time.perf_counter()))

    def read(self) -> dict[str, float]:
        """Wait for the device, return the time [s] of each phase, and forget them."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        laps = {}
        for (_, before), (name, after) in zip(self.marks, self.marks[1:], strict=False):
            cuda = self.device.type == "cuda"
            laps[name] = before.elapsed_time(after) / 1e3 if cuda else after - before
        self.marks.clear()
        return laps


class OurStep:
    """The training's own step, in phases."""

    def __init__(self, models: nn.ModuleDict, options: Namespace, optimizer: torch.optim.Optimizer):
        self.models, self.options, self.optimizer = models, options, optimizer
        self.weights = weights_of(options)

    def loss(self, batch: Batch, clock: Clock) -> Tensor:
        """Return the total, as `training.step.Step` does."""
        models, options = self.models, self.options
        # The depth's decoder is asked before the networks of motion.
        hook = models["depth"].register_forward_hook(lambda *_: clock.mark("depth networks"))
        prediction = predict(models, batch, options)
        hook.remove()
        clock.mark("motion networks")
        # The last that is made of what the networks say, so the first that needs its gradient: all
        # of what is computed from predictions has been gone back through then.
        last = prediction.T_first_second[SOURCES[-1]]
        last.register_hook(lambda _: clock.mark("backward to predictions"))
        motion = fuse(batch.imu, prediction, options, models["ekf_model"])
        clock.mark("IMU and filter")
        views = synthesise(batch, prediction, prediction.T_first_second, motion, options)
        clock.mark("warp")
        terms, _ = compute_losses(batch, prediction, motion, views, options)
        total = sum(self.weights[name] * term for name, term in terms.items())
        clock.mark("losses")
        return total

    def __call__(self, batch: Batch, clock: Clock) -> dict[str, float]:
        """Take a step and return the time [s] of each phase."""
        clock.mark("begin")
        self.loss(batch, clock).backward()
        clock.mark("backward to weights")
        grads = [p.grad for p in self.models.parameters() if p.grad is not None]
        nn.utils.get_total_norm(grads)  # the training looks at it
        self.optimizer.step()
        self.optimizer.zero_grad()
        clock.mark("optimiser")
        return clock.read()


def parse_options(size: tuple[int, int], batch: int, words: Sequence[str] = ()) -> Namespace:
    """Return the options of a training of ours, with the filter."""
    width, height = map(str, size)
    shape = "--width", width, "--height", height, "--batch_size", str(batch)
    return options.train(["--use_ekf", *shape, *words])


def make_models(given: Namespace, device: torch.device) -> nn.ModuleDict:
    """Return networks that begin near the truth, so that images overlap as in a training."""
    models = build_models(given, pretrained=False)
    up_c0 = extrinsics()[:3, :3].float() @ torch.tensor([0, 0, GRAVITY])
    ahead_c0 = torch.tensor([0, 0, AHEAD_M_S])
    with torch.no_grad():
        for output in models["depth"].decoder[-len(given.scales) :]:
            output.conv.bias.fill_(DISPARITY_LOGIT)
        # All outputs are hundredths.
        models["pose"].net[-1].bias[3:6] = 100 * ahead_c0 / 10 / given.trans_scale_factor
        models["velo"].net[-1].bias.copy_(100 * ahead_c0)
        models["gravity"].net[-1].bias.copy_(100 * up_c0)
    return models.to(device).train()


def make_batch(given: Namespace, device: torch.device) -> Batch:
    """Return smooth random images that move, and the IMU of simulated drives."""
    batch, height, width = given.batch_size, given.height, given.width
    texture = torch.rand(batch, 3, height // TEXTURE_PX + 4, width // TEXTURE_PX + 4)
    wide = F.interpolate(texture, scale_factor=TEXTURE_PX, mode="bicubic").clamp(0, 1)
    image = {
        frame: (255 * wide[..., 8 : 8 + height, 8 + 3 * frame :][..., :width]).to(torch.uint8)
        for frame in (0, *SOURCES)
    }
    K = torch.tensor([[0.58 * width, 0, width / 2], [0, 1.92 * height, height / 2], [0, 0, 1]])
    drive = random_drive(batch)
    sample = Sample(
        image=image,
        K=K.repeat(batch, 1, 1),
        imu={first: make_interval(drive, batch, (first + 1) / 10) for first in (-1, 0)},
        T_source_c0={},
        depth={},
        index=torch.arange(batch),
        skipped=torch.zeros(batch, dtype=torch.int64),
    )
    return prepare(map_tensors(lambda x: x.to(device), sample), given.scales)


def make_interval(drive: Drive, batch: int, begin_s: float) -> ImuInterval:
    """Return a tenth of a second of drives (batch)."""
    time_s = begin_s + torch.linspace(0, 0.1, PACKETS, dtype=torch.float64)
    dt = time_s.diff().repeat(batch, 1)
    gyro, accel = drive.gyro(time_s).transpose(0, 1), drive.accel(time_s).transpose(0, 1)
    motion = preintegrate(dt, gyro, accel)
    speed = drive.velocity_w(time_s)[0].norm(dim=-1)
    given = dt, gyro, accel, *vars(motion).values(), speed, extrinsics().repeat(batch, 1, 1)
    return ImuInterval(*(tensor.float() for tensor in given))


class Timing(NamedTuple):
    """What was measured on a device."""

    seconds: dict[str, float]  # by case: the median time of a step
    phases: dict[str, dict[str, float]]  # by case and phase, the same; of ours
    memory: dict[str, int]  # by case: bytes on a GPU beyond weights, optimiser and data


def measure(size: tuple[int, int], batch_size: int, repeats: int, device: torch.device) -> Timing:
    """Take steps of all cases in turn."""
    seed_everything(0)
    shared = parse_options(size, batch_size)
    models = make_models(shared, device)
    batch = make_batch(shared, device)
    last = copy.deepcopy(models).to(memory_format=torch.channels_last)
    one_encoder = make_models(parse_options(size, batch_size, CASES["shared, fp32"]), device)
    ours = {  # by channels_last and shared_motion_encoder
        key: (networks, torch.optim.Adam(networks.parameters(), LEARNING_RATE, fused=True))
        for key, networks in (
            ((False, False), models),
            ((True, False), last),
            ((False, True), one_encoder),
        )
    }
    plain = PlainStep(models, shared, torch.optim.Adam(models.parameters(), LEARNING_RATE))
    clock, laps, memory = Clock(device), {name: [] for name in CASES}, {}

    def watched(name: str, step: Callable[[], dict[str, float]]) -> Callable[[], None]:
        def run() -> None:
            before = start_memory(device)
            phases = step()
            memory[name] = peak_memory(device) - before
            if name in laps:
                laps[name].append(phases)

        return run

    def plain_step() -> dict[str, float]:
        plain(batch)
        return clock.read()  # which waits for the device

    cases = {PLAIN: watched(PLAIN, plain_step)}
    for name, words in CASES.items():
        given = parse_options(size, batch_size, words)
        networks, adam = ours[given.channels_last, given.shared_motion_encoder]
        step = OurStep(networks, given, adam)
        cases[name] = watched(name, functools.partial(step, batch, clock))
    for run in WARM_UP[device.type] * list(cases.values()):
        run()
    seconds = interleaved_medians(cases, repeats)
    phases = {
        name: {phase: statistics.median(lap[phase] for lap in taken[-repeats:]) for phase in PHASES}
        for name, taken in laps.items()
    }
    return Timing(seconds, phases, memory)


def start_memory(device: torch.device) -> int:
    """Return what is allocated on a GPU, and begin to look for the most."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def peak_memory(device: torch.device) -> int:
    """Return the most that was allocated on a GPU since `start_memory`."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else 0


def processor(device: torch.device) -> str:
    """Return what steps are timed on; on a CPU it matters whether it multiplies bf16."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    information = Path("/proc/cpuinfo")
    flags = set(information.read_text().split()) if information.exists() else set()
    units = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    return f"CPU, {torch.get_num_threads()} threads, {' '.join(units) or 'no unit'} for bf16"


def report(timing: Timing) -> None:
    """Print times of cases and phases, and memory where it is known."""
    print(table(timing.seconds, PLAIN))
    width = max(map(len, PHASES))
    print(f"{'phase, ms':{width}}" + "".join(f"{name:>14}" for name in CASES))
    for phase in PHASES:
        values = "".join(f"{1e3 * timing.phases[name][phase]:14.1f}" for name in CASES)
        print(f"{phase:{width}}{values}")
    if any(timing.memory.values()):
        print("peak memory beyond weights, optimiser and data, GB")
        for name, most in timing.memory.items():
            print(f"  {name:12} {most / 1e9:6.2f}")


def ratios(timing: Timing) -> tuple[float, ...]:
    """Return what LIMITS limits, in its order."""
    plain = timing.seconds[PLAIN]
    native, full = (
        sum(timing.phases[name][phase] for phase in GEOMETRY)
        for name in ("native, fp32", "ours, fp32")
    )
    return plain / timing.seconds["last, fp32"], plain / timing.seconds["last, bf16"], native / full


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument(
        "--batch_size",
        type=int,
        help=f"samples (default: {BATCHES['cpu']} on the CPU, {BATCHES['cuda']} on a GPU)",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        help=f"repetitions, medians are shown (default: {REPEATS['cpu']} on "
        f"the CPU, {REPEATS['cuda']} on a GPU)",
    )
    args = parser.parse_args(argv)
    size = args.width, args.height
    for kind in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        device = torch.device(kind)
        batch_size = args.batch_size or BATCHES[kind]
        repeats = args.repeats or REPEATS[kind]
        print(
            f"{processor(device)}: step of {batch_size} samples of {size[0]}x{size[1]}, "
            f"median of {repeats} interleaved turns"
        )
        timing = measure(size, batch_size, repeats, device)
        report(timing)
        if kind == "cpu":
            print("what                             measured  limit")
            for (name, limit), value in zip(LIMITS.items(), ratios(timing), strict=True):
                print(f"{name:32} {value:8.2f}  {limit:g}")


if __name__ == "__main__":
    main()
