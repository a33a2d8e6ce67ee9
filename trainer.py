"""The training, as prose: epochs of steps, a validation after each, and what is kept of them."""

from __future__ import annotations

import math
import signal
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from datasets.batch import Batch
from datasets.text import DataError
from networks.factory import build_models
from networks.resnet_encoder import resnet_layers_of
from training import batch_norm, data, diagnostics, schedule, unit
from training.checkpoints import Checkpoints, Progress, Trained, restore
from training.distributed import World, agree, gather, main_first
from training.guard import BufferSnapshot, CollapseGuard
from training.reporter import Reporter
from training.run_folder import held, open_run
from training.step import Details, Step
from training.stopping import StopRequest
from training.validation import selection_error, validate
from utils import UserError, load_weights, rng_states, seed_everything, set_rng_states


class Trainer:
    """Everything that a training needs, made from its options; `train` does it.

    Args:
        options: of `options.train`
        world: the processes that train together, and this one's device
    """

    def __init__(self, options: Namespace, world: World) -> None:
        self.options, self.world = options, world
        if options.amp == "fp16" and world.device.type != "cuda":
            raise UserError("--amp fp16 needs a GPU, and there is none: use --amp bf16")
        seed_everything(options.seed + world.rank, options.deterministic)
        with main_first(world):
            found = None
            if world.main:
                found = open_run(
                    options.log_dir,
                    options.model_name,
                    vars(options),
                    options.resume,
                    options.overwrite,
                )
            self.training = data.open_training(options, world)
            self.validation = data.open_validation(options, world)
        if options.align_steps > 0:
            unit.check_segments(self.training.dataset)
        self.run = gather(found, world)[0]
        self.progress = Progress()
        self.make_models()
        self.make_surroundings()
        self.start()

    def make_models(self) -> None:
        """Make the models, with the weights that they begin with, and share them."""
        options, world = self.options, self.world
        begins = self.run.checkpoint is None
        with main_first(world):
            models = build_models(options, begins and options.weights_init == "pretrained")
        if begins and options.load_weights_folder is not None:
            folder = options.load_weights_folder
            entries = load_weights(models, folder, options.models_to_load, other_resnet)
            check_unit(entries, folder, options)
        if options.channels_last:
            models.to(memory_format=torch.channels_last)
        self.models = batch_norm.synchronise(models.to(world.device), world)
        if options.compile:
            for name in self.models.keys() - {"ekf_model"}:
                self.models[name].compile()
        self.step = Step(self.models, Namespace(**vars(options)))  # its unit may change
        self.shared_step: nn.Module = self.step
        if world.size > 1:
            self.shared_step = DistributedDataParallel(
                self.step,
                # While the filter warms up, what it alone learns from gets no gradient.
                find_unused_parameters=options.use_ekf and options.ekf_warming_epochs > 0,
            )

    def make_surroundings(self) -> None:
        """Make what moves the models, and what watches over them."""
        options = self.options
        self.parameters = [p for p in self.models.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(self.parameters, options.learning_rate, fused=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            partial(schedule.factor, steps_per_epoch=self.steps_per_epoch, options=options),
        )
        # Half precision alone needs it: its smallest gradients would be zero.
        scaler = torch.amp.GradScaler(self.world.device.type, enabled=options.amp == "fp16")
        self.trained = Trained(self.models, optimizer, scheduler, scaler)
        self.buffers = BufferSnapshot(self.models)
        self.guard = CollapseGuard(self.run.folder / "replay", self.training.dataset.line)

    def start(self) -> None:
        """Go on where a checkpoint ended, or begin; from here on the run's folder is written to."""
        options, world = self.options, self.world
        if self.run.checkpoint is not None:
            self.progress, rng = restore(self.run.checkpoint, self.trained)
            self.take_unit()
            if len(rng) != world.size:
                raise UserError(
                    f"{self.run.checkpoint}: of {len(rng)} processes, and {world.size} train now: "
                    "go on with as many, or start from its weights with --load_weights_folder"
                )
            set_rng_states(rng[world.rank])
        self.probe = data.first_batch(self.validation, options, world)
        with main_first(world):
            if world.main:
                self.begin_run()
        self.examples_per_step = options.accumulate_steps * options.batch_size * world.size
        self.reporter = Reporter(
            self.run.folder,
            self.steps_per_epoch * options.num_epochs,
            self.examples_per_step,
            self.progress.step,
            world.main,
        )
        self.saved_at = time.monotonic()

    def begin_run(self) -> None:
        """Write how this start came about, and open the folder of checkpoints."""
        options, world = self.options, self.world
        parts = {"train": self.training.dataset, "val": self.validation.dataset}
        facts = {
            name: {"fingerprint": dataset.fingerprint(), "samples": len(dataset)}
            for name, dataset in parts.items()
        }
        self.run.begin(world.device, world.size, self.progress.step, facts)
        entries = {name: getattr(options, name) for name in ("height", "width", "use_stereo")}
        self.checkpoints = Checkpoints(self.run.models, options.keep_checkpoints, entries)

    def train(self) -> int | None:
        """Train all epochs that are left; return the signal that ended it early, if one did."""
        options, progress = self.options, self.progress
        alone = held(self.run.folder) if self.world.main else nullcontext()
        with alone, StopRequest() as self.stop, self.reporter, self.saved_when_data_fail():
            while progress.epoch < options.num_epochs:
                self.run_epoch()
                if self.stopping or not self.look_at_validation():
                    self.save_rolling()
                    return self.stop.signal or signal.SIGTERM
                self.end_epoch()
                self.save_epoch()
        return None

    @contextmanager
    def saved_when_data_fail(self) -> Iterator[None]:
        """Save what was trained before a broken file ends it; several processes could not agree."""
        try:
            yield
        except DataError as error:
            if self.world.size == 1:
                self.save_rolling()
            raise DataError(f"{error}; --skip_broken leaves such samples out") from None

    def run_epoch(self) -> None:
        """Take the steps that are left of an epoch, until someone asks to stop."""
        options, progress = self.options, self.progress
        self.step.train()
        self.training.sampler.set_position(progress.epoch, progress.batches)
        batches = data.training_batches(self.training, options, progress.epoch)
        while len(group := list(islice(batches, options.accumulate_steps))) == (
            options.accumulate_steps
        ):
            began = time.perf_counter()
            details = self.training_step(group)
            progress.batches += len(group)
            progress.seconds += time.perf_counter() - began
            if details is not None and self.world.main:
                self.report(group[-1], details)
            if details is not None and self.alignment_is_due:
                self.align_unit()
            stop, save = agree([self.stop.signal is not None, self.save_is_due], self.world)
            if stop:
                return
            if save:
                self.save_rolling()

    def end_epoch(self) -> None:
        """Count an epoch that is trained and validated."""
        self.progress.epoch, self.progress.batches = self.progress.epoch + 1, 0

    def training_step(self, group: list[Batch]) -> Details | None:
        """Take one step from the mean gradient of some batches; None if it was left out."""
        trained, progress = self.trained, self.progress
        where = (progress.step + 1, self.models, self.world)
        self.buffers.take()
        self.guard.before_step()
        for i, batch in enumerate(group):
            with self.gradients_shared(i == len(group) - 1):
                terms, details = self.shared_step(batch, self.filter_is_warm)
                if not self.guard.accepts(terms, batch, *where):
                    return self.leave_out()
                trained.scaler.scale(terms["total"] / len(group)).backward()
        if not self.follow_gradient(group[-1], *where):
            return self.leave_out()
        trained.scheduler.step()
        progress.step += 1
        progress.examples += self.examples_per_step
        return details

    def follow_gradient(self, batch: Batch, *where: Any) -> bool:
        """Let the optimiser take its step, unless the gradient is not finite."""
        optimizer, scaler = self.trained.optimizer, self.trained.scaler
        scaler.unscale_(optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        # Half precision finds the scale of its loss by gradients that are infinite, until it is 1.
        searching = scaler.is_enabled() and scaler.get_scale() > 1
        accepted = self.guard.accepts_gradient(norm, batch, *where, expected=searching)
        if accepted and self.options.clip_grad_norm > 0:
            nn.utils.clip_grads_with_norm_(self.parameters, self.options.clip_grad_norm, norm)
        if accepted:
            scaler.step(optimizer)
        if scaler.is_enabled():
            scaler.update()
        optimizer.zero_grad()
        return accepted

    def leave_out(self) -> None:
        """Forget a step whose loss or gradient is not finite."""
        self.trained.optimizer.zero_grad()
        self.buffers.restore()

    def gradients_shared(self, now: bool) -> AbstractContextManager[None]:
        """Share gradients among processes with the last batch of a step alone."""
        if now or self.world.size == 1:
            return nullcontext()
        return self.shared_step.no_sync()

    @property
    def steps_per_epoch(self) -> int:
        """How many steps an epoch has, if none is left out."""
        return self.training.sampler.batches // self.options.accumulate_steps

    @property
    def alignment_is_due(self) -> bool:
        """Whether the IMU is to be asked again for the networks' unit."""
        steps = self.options.align_steps
        return steps > 0 and self.progress.step % steps == 0

    def align_unit(self) -> None:
        """Let the IMU say how many metres the networks' unit has."""
        found = unit.alignment(self.step, self.training, self.world.device)
        factor = gather(unit.applied(found), self.world)[0]
        self.progress.unit_m = factor * self.step.options.trans_scale_factor
        self.take_unit()
        if self.world.main:
            said = {"factor": found.scale, "relative_std": found.relative_std}
            numbers = {f"alignment/{name}": value for name, value in said.items()}
            numbers["alignment/unit_m"] = self.progress.unit_m
            self.reporter.scalars("train", self.progress.step, numbers, self.progress.epoch)

    def take_unit(self) -> None:
        """Let the step count in the unit that was found, if one was."""
        if self.progress.unit_m is not None:
            self.step.options.trans_scale_factor = self.progress.unit_m

    @property
    def filter_is_warm(self) -> bool:
        """Whether the filter takes part."""
        return self.progress.epoch >= self.options.ekf_warming_epochs

    def report(self, batch: Batch, details: Details) -> None:
        """Say that a step is done; now and then, all that there is to say of it."""
        options, step = self.options, self.progress.step
        values = self.guard.values
        self.reporter.step(step, values["total"], self.examples_per_step)
        if step > 1 and step % options.log_frequency:
            return
        numbers = {f"loss/{name}": value for name, value in values.items() if name != "gradient"}
        numbers |= {f"weight/{name}": weight for name, weight in self.step.weights.items()}
        numbers |= {
            f"look/{k}": v
            for k, v in diagnostics.numbers(batch, details, self.step.options).items()
        }
        numbers["gradient_norm"] = values.get("gradient", torch.nan)
        numbers["learning_rate"] = self.trained.optimizer.param_groups[0]["lr"]
        numbers["examples_per_second"] = self.reporter.throughput()
        alone = World(0, 1, self.world.device)
        probed = validate(self.step, [self.probe], self.filter_is_warm, alone)
        numbers |= {f"probe/{name}": value for name, value in probed.items()}
        self.reporter.scalars("train", step, numbers, self.progress.epoch)
        self.reporter.images("train", step, diagnostics.images(batch, details, options))

    def look_at_validation(self) -> bool:
        """Look at all of the validation list, and keep the models if they were never better.

        Returns:
            whether nobody asked to stop meanwhile; else there is nothing of it
        """
        batches = data.validation_batches(self.validation, self.options)
        unasked = takewhile(lambda _: self.stop.signal is None, batches)
        errors = validate(self.step, unasked, self.filter_is_warm, self.world)
        if self.stopping:
            return False
        progress = self.progress
        if self.world.main:
            self.reporter.scalars("val", progress.step, errors, progress.epoch)
        error = selection_error(errors, self.options)
        least = math.inf if progress.best_error is None else progress.best_error
        if error < least:  # NaN never is
            progress.best_error = error
            rng = gather(rng_states(), self.world)
            if self.world.main:
                self.checkpoints.save_best(self.trained, progress, error, rng)
        return True

    @property
    def stopping(self) -> bool:
        """Whether someone has asked any process to stop; all have to ask alike."""
        return agree([self.stop.signal is not None], self.world)[0]

    @property
    def save_is_due(self) -> bool:
        """Whether the last checkpoint is older than it should be."""
        age_s = time.monotonic() - self.saved_at
        return self.world.main and 0 < self.options.save_minutes * 60 <= age_s

    def save_rolling(self) -> None:
        """Write where training is, to go on from there; it replaces the one before."""
        rng = gather(rng_states(), self.world)
        if self.world.main:
            self.checkpoints.save_rolling(self.trained, self.progress, rng)
        self.saved_at = time.monotonic()

    def save_epoch(self) -> None:
        """Write the weights of an epoch that has ended, where the options want to keep them."""
        options, ended = self.options, self.progress.epoch - 1
        wanted = ended >= options.first_save_epoch and (ended + 1) % options.save_frequency == 0
        if not wanted and ended + 1 < options.num_epochs:
            return self.save_rolling()
        rng = gather(rng_states(), self.world)
        if self.world.main:
            self.checkpoints.save_epoch(ended, self.trained, self.progress, rng)
        self.saved_at = time.monotonic()


def check_unit(entries: Mapping[str, Any], folder: Path, options: Namespace) -> None:
    """Refuse weights that count in another unit than this run: their metres would be others."""
    unit_m = entries.get("trans_scale_factor", options.trans_scale_factor)
    if not math.isclose(unit_m, options.trans_scale_factor, rel_tol=1e-3):
        raise UserError(
            f"{folder}: its networks count in {unit_m:.4g} m, this run in "
            f"{options.trans_scale_factor:g} m: add --trans_scale_factor {unit_m:.4g}"
        )


def other_resnet(state: Mapping[str, object]) -> str | None:
    """Return what to do about weights of an encoder that do not fit, None for other weights."""
    layers = resnet_layers_of(state)
    if layers is None:
        return None
    return f"It holds a ResNet-{layers}: see --num_layers, and --num_layers_imu for velo, gravity"
