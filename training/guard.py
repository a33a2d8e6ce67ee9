"""What keeps one bad batch from spoiling a training, and says so when it was not only one.

A step whose losses or gradient are not finite is left out: an optimiser that takes it has lost its
weights for good. What led to it is kept, to be looked at.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from datasets.batch import Batch, ImuInterval
from datasets.files import describe
from training.distributed import World, agree, gather
from utils import UserError, load_state, rng_states, save_state

_log = logging.getLogger(__name__)

MAX_REPLAYS = 3
"""Files that one run may leave: each holds a whole batch and all weights."""

GRADIENT = "gradient"
"""What the norm of the gradient is called among the terms of the loss."""

_NAMED = 4  # samples of a batch that a message names


class CollapseError(UserError):
    """So many steps in a row were left out that training has nothing more to gain."""


class CollapseGuard:
    """Refuse steps whose numbers are not finite, and give up after too many in a row.

    Every process has to ask alike: all refuse a step that one of them has to refuse. Call
    `before_step` where a step begins, so that a replay draws the same random numbers.

    Args:
        folder: where replays go, made when there is one
        name_sample: tells the user which sample is at a place in the dataset
        patience: how many refusals in a row end the training

    Attributes:
        values: the numbers last read from the device, by name
    """

    def __init__(self, folder: Path, name_sample: Callable[[int], str], patience: int = 10) -> None:
        if patience < 1:
            raise ValueError(f"patience: expected at least 1, got {patience}")
        self.values: dict[str, float] = {}
        self._folder = folder
        self._name_sample = name_sample
        self._patience = patience
        self._row = 0
        self._gradient_is_asked = False
        self._replays = len(list(folder.glob("step_*.pth")))
        self._rng: dict[str, Any] | None = None

    def before_step(self) -> None:
        """Remember the states of the random generators."""
        self._rng = rng_states()

    def accepts(
        self,
        terms: Mapping[str, Tensor],
        batch: Batch,
        step: int,
        models: nn.Module,
        world: World,
    ) -> bool:
        """Return whether the terms of the loss are finite on all processes.

        Args:
            terms: numbers on one device, read in one copy
            batch: what they are of
            step: what the user knows this step by
            models: what they were computed with
            world: whose processes all ask

        Raises:
            CollapseError: this refusal is one too many, on all processes
        """
        self.values = _read(terms)
        accepted = self._judge(self.values, batch, step, models, world)
        if accepted and not self._gradient_is_asked:
            self._row = 0
        return accepted

    def accepts_gradient(
        self,
        norm: Tensor,
        batch: Batch,
        step: int,
        models: nn.Module,
        world: World,
        expected: bool = False,
    ) -> bool:
        """Return whether the norm of the gradient is finite on all processes; see `accepts`.

        From the first call on, only a finite gradient ends a row of refusals: finite terms come
        before every gradient that is not.

        Args:
            norm, batch, step, models, world: as of `accepts`; a norm is that of all processes
            expected: it may be infinite, as while the loss's scale is searched: do not count that
        """
        self._gradient_is_asked = True
        value = {GRADIENT: float(norm)}
        self.values = self.values | value
        if expected and not math.isfinite(value[GRADIENT]):
            return False
        accepted = self._judge(value, batch, step, models, world)
        if accepted:
            self._row = 0
        return accepted

    def _judge(
        self,
        values: Mapping[str, float],
        batch: Batch,
        step: int,
        models: nn.Module,
        world: World,
    ) -> bool:
        wrong = {name: value for name, value in values.items() if not math.isfinite(value)}
        # One flag for each process: all learn who is concerned, and so whose replays are kept.
        refusing = agree([bool(wrong) and rank == world.rank for rank in range(world.size)], world)
        if not any(refusing):
            return True
        report = None
        if wrong:
            kept = self._replays + sum(refusing[: world.rank])
            where = "no replay of it: the folder has enough"
            if kept < MAX_REPLAYS:
                where = self._keep(values, batch, step, models, world)
            report = _Report(wrong, self._name_samples(batch), where)
        self._replays += sum(refusing)
        self._row += 1
        reports = gather(report, world)
        if world.main:
            _warn(reports, step)
        if self._row >= self._patience:
            raise self._collapse(reports, step)
        return False

    def _keep(
        self,
        values: Mapping[str, float],
        batch: Batch,
        step: int,
        models: nn.Module,
        world: World,
    ) -> str:
        """Write a replay, and return what to tell of it: a full disk does not end the training."""
        path = self._free_name(f"step_{step}_rank_{world.rank}")
        state = {
            "batch": _to_plain(batch),
            "models": _to_plain(dict(models.state_dict())),
            "rng": self._rng or rng_states(),
            "step": step,
            "rank": world.rank,
            "terms": dict(values),
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_state(path, state)
        except OSError as error:
            return f"no replay of it: {describe(error)}"
        return f"replay: {path}"

    def _free_name(self, stem: str) -> Path:
        """Return a file that is not there: a step that is left out does not count."""
        names = chain([stem], (f"{stem}_again_{i}" for i in count(1)))
        paths = (self._folder / f"{name}.pth" for name in names)
        return next(path for path in paths if not path.exists())

    def _name_samples(self, batch: Batch) -> str:
        places = batch.index.tolist()
        names = ", ".join(self._name_sample(place) for place in places[:_NAMED])
        more = len(places) - _NAMED
        return f"{names} and {more} more" if more > 0 else names

    def _collapse(self, reports: Sequence[_Report | None], step: int) -> CollapseError:
        names = dict.fromkeys(chain.from_iterable(report.wrong for report in reports if report))
        return CollapseError(
            f"training collapsed: {' and '.join(names)} not finite, {self._row} times in a row in "
            f"place of step {step}; see the replays in {self._folder}, and try a lower "
            "--learning_rate, --clip_grad_norm 1 or --amp off"
        )


def load_replay(path: Path) -> tuple[Batch, dict[str, Any]]:
    """Read what a refused step was made of, onto the CPU.

    Returns:
        the batch, and by name: models (a state dictionary: the statistics of batch norms may have
        seen this step), rng (states for `utils.set_rng_states`), step, rank, terms

    Raises:
        UserError: there is no such file, or it holds something else
    """
    state = load_state(path)
    missing = {"batch", "models", "rng", "step", "rank", "terms"} - state.keys()
    try:
        if missing:
            raise KeyError(*missing)
        batch = Batch(**state.pop("batch"))
        imu = {frame: ImuInterval(**interval) for frame, interval in batch.imu.items()}
    except (KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path}: not a step that this version kept; replays are called step_N_rank_N*.pth"
        ) from None
    return batch._replace(imu=imu), state


class BufferSnapshot:
    """The buffers of models as they were: batch norms take in a step that is then left out.

    Args:
        models: where they are to stay; moving them to another device afterwards makes new buffers
    """

    def __init__(self, models: nn.Module) -> None:
        # Of one type and device each, which one kernel copies.
        kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for buffer in models.buffers():
            kinds.setdefault((buffer.device, buffer.dtype), []).append(buffer)
        self._buffers = list(kinds.values())
        self._copies = [[buffer.detach().clone() for buffer in kind] for kind in self._buffers]

    @torch.no_grad()
    def take(self) -> None:
        """Remember the buffers as they are; without it, as they were when this was made."""
        for buffers, copies in zip(self._buffers, self._copies, strict=True):
            torch._foreach_copy_(copies, buffers)

    @torch.no_grad()
    def restore(self) -> None:
        """Make the buffers again what they were."""
        for buffers, copies in zip(self._buffers, self._copies, strict=True):
            torch._foreach_copy_(buffers, copies)


class _Report(NamedTuple):
    """What a process says of a step that it refuses."""

    wrong: dict[str, float]
    samples: str
    replay: str


def _warn(reports: Sequence[_Report | None], step: int) -> None:
    several = len(reports) > 1
    for rank, report in enumerate(reports):
        if report is not None:
            _log.warning(
                "step %d%s left out: %s. Samples: %s; %s",
                step,
                f" (process {rank})" if several else "",
                ", ".join(f"{name} is {value}" for name, value in report.wrong.items()),
                report.samples,
                report.replay,
            )


def _read(terms: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the values of numbers on a device, for which the host waits once."""
    # No copy where all have one type, as they do.
    dtype = reduce(torch.promote_types, (term.dtype for term in terms.values()))
    values = torch.stack([term.detach().reshape(()).to(dtype) for term in terms.values()])
    return dict(zip(terms, values.tolist(), strict=True))


def _to_plain(tree: Any) -> Any:
    """Return dictionaries of tensors on the CPU, which are all that `weights_only` reads."""
    copies: dict[int, Tensor] = {}  # a tensor that is at two places is written once

    def walk(tree: Any) -> Any:
        if hasattr(tree, "_asdict"):
            tree = tree._asdict()
        if isinstance(tree, dict):
            return {key: walk(value) for key, value in tree.items()}
        if id(tree) not in copies:
            # A copy even of what is on the CPU: a view would bring all that it is a view of.
            copies[id(tree)] = tree.detach().to("cpu", copy=True)
        return copies[id(tree)]

    return walk(tree)
