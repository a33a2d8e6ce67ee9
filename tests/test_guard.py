"""Steps that are refused: which, what is told and kept of them, when it is enough."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from datasets.augmentation import prepare
from datasets.batch import Batch, ImuInterval
from tests.samples import make_sample, tensors
from tests.test_distributed import in_world
from training import guard as guard_module
from training.distributed import World
from training.guard import MAX_REPLAYS, BufferSnapshot, CollapseError, CollapseGuard, load_replay
from utils import UserError, rng_states, set_rng_states

ALONE = World(0, 1, torch.device("cpu"))
GOOD = {"camera": 0.5, "warp": 0.25}
BAD = {"camera": 0.5, "warp": math.nan, "total": math.inf}


def make_batch(size: int = 3) -> Batch:
    return prepare(make_sample(size), range(2))


def make_models() -> nn.ModuleDict:
    return nn.ModuleDict({"encoder": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))})


def scalars(values: dict[str, float], **how) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, **how) for name, value in values.items()}


class Asked:
    """A guard, and what it is asked about; a step's number counts itself."""

    def __init__(self, folder: Path, patience: int = 10, size: int = 3) -> None:
        self.folder = folder / "replay"
        self.guard = CollapseGuard(self.folder, "drive {} l".format, patience)
        self.batch, self.models, self.step = make_batch(size), make_models(), 0

    def terms(self, values: dict[str, float]) -> bool:
        self.step += 1
        return self.guard.accepts(scalars(values), self.batch, self.step, self.models, ALONE)

    def gradient(self, norm: float, expected: bool = False) -> bool:
        where = self.batch, self.step, self.models, ALONE
        return self.guard.accepts_gradient(torch.tensor(norm), *where, expected)

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*"))


@pytest.fixture
def asked(tmp_path) -> Asked:
    return Asked(tmp_path)


# What is refused


def test_finite_terms_are_accepted_and_nothing_is_kept_or_said(asked, caplog):
    assert asked.terms(GOOD) and asked.gradient(3.5)
    assert asked.guard.values == GOOD | {"gradient": 3.5}
    assert caplog.records == [] and not asked.folder.exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", GOOD)
def test_one_term_that_is_not_finite_is_enough(asked, name, value):
    assert not asked.terms(GOOD | {name: value})
    assert not asked.gradient(value)
    assert_close(asked.guard.values, GOOD | {name: value, "gradient": value}, equal_nan=True)


def test_terms_of_any_type_and_shape_of_one_number_are_read(device):
    terms = {
        "double": torch.tensor(1e300, dtype=torch.float64, device=device),  # not infinite
        "half": torch.ones(1, 1, dtype=torch.float16, device=device),
        "single": torch.ones((), device=device, requires_grad=True),
    }
    guard = CollapseGuard(Path("never"), str)
    assert guard.accepts(terms, make_batch(), 1, make_models(), ALONE)
    assert guard.values == {"double": 1e300, "half": 1, "single": 1}


def test_all_terms_come_in_one_copy(monkeypatch):
    copies = []
    for name in ("tolist", "item", "cpu", "__float__", "__bool__"):
        original = getattr(torch.Tensor, name)

        def counted(*values, name=name, original=original, **how):
            copies.append(name)
            return original(*values, **how)

        monkeypatch.setattr(torch.Tensor, name, counted)
    guard = CollapseGuard(Path("never"), str)
    assert guard.accepts(scalars(GOOD), make_batch(), 1, make_models(), ALONE)
    assert len(copies) == 1


# What is told


def test_a_refusal_names_the_terms_the_samples_and_the_replay(asked, caplog):
    asked.terms(GOOD)
    assert not asked.terms(BAD)
    assert caplog.messages == [
        "step 2 left out: warp is nan, total is inf. Samples: drive 7 l, drive 8 l, drive 9 l; "
        f"replay: {asked.folder}/step_2_rank_0.pth"
    ]
    assert caplog.records[0].levelno == logging.WARNING


def test_of_many_samples_a_few_are_named(tmp_path, caplog):
    assert not Asked(tmp_path, size=9).terms(BAD)
    named = "Samples: drive 7 l, drive 8 l, drive 9 l, drive 10 l and 5 more; replay"
    assert named in caplog.messages[0]


def test_a_gradient_is_told_as_such(asked, caplog):
    assert asked.terms(GOOD) and not asked.gradient(math.inf)
    assert caplog.messages[0].startswith("step 1 left out: gradient is inf. Samples: drive 7 l, ")


# When it is enough


@pytest.mark.parametrize("patience", [1, 3])
def test_too_many_refusals_in_a_row_end_the_training_in_one_line(tmp_path, patience):
    asked = Asked(tmp_path, patience)
    for _ in range(2):
        for _ in range(patience - 1):
            assert not asked.terms(BAD)
        assert asked.terms(GOOD)
    for _ in range(patience - 1):
        assert not asked.terms(BAD)
    with pytest.raises(CollapseError) as error:
        asked.terms(BAD)
    message = str(error.value)
    assert isinstance(error.value, UserError) and "\n" not in message
    for word in ("warp and total not finite", f" {patience} times", str(asked.folder)):
        assert word in message
    for way_out in ("--learning_rate", "--clip_grad_norm", "--amp off"):
        assert way_out in message


def test_a_gradient_that_was_expected_to_be_infinite_is_refused_and_not_counted(asked, caplog):
    for _ in range(30):
        assert not asked.gradient(math.inf, expected=True)
    assert asked.guard.values["gradient"] == math.inf and not caplog.text
    assert asked.gradient(2.0, expected=True)


def test_refused_gradients_count_although_terms_were_finite(tmp_path):
    asked = Asked(tmp_path, patience=3)
    for _ in range(2):
        assert asked.terms(GOOD) and asked.terms(GOOD)  # two batches of one step
        assert not asked.gradient(math.nan)
    assert asked.terms(GOOD)
    with pytest.raises(CollapseError, match="gradient not finite"):
        asked.gradient(math.nan)


def test_refused_terms_and_gradients_are_one_row_and_a_whole_step_ends_it(tmp_path):
    asked = Asked(tmp_path, patience=3)
    for _ in range(3):
        assert asked.terms(GOOD) and not asked.gradient(math.nan)
        assert not asked.terms(BAD)
        assert asked.terms(GOOD) and asked.gradient(1.0)
    assert not asked.terms(BAD)
    assert asked.terms(GOOD) and not asked.gradient(math.nan)
    with pytest.raises(CollapseError):
        asked.terms(BAD)


def test_patience_is_at_least_one(tmp_path):
    with pytest.raises(ValueError, match="patience: expected at least 1, got 0"):
        CollapseGuard(tmp_path, str, 0)


# What is kept


def test_a_replay_has_everything_that_the_step_had(asked):
    asked.models["encoder"](asked.batch.image[0])  # moves the running statistics
    assert not asked.terms(BAD)
    batch, rest = load_replay(asked.folder / "step_1_rank_0.pth")
    assert type(batch) is Batch and {type(i) for i in batch.imu.values()} == {ImuInterval}
    assert list(batch.image) == list(asked.batch.image)
    for got, expected in zip(tensors(batch), tensors(asked.batch), strict=True):
        assert torch.equal(got, expected) and got.dtype == expected.dtype
    models = make_models()
    models.load_state_dict(rest["models"])
    assert_close(dict(models.state_dict()), dict(asked.models.state_dict()), atol=0, rtol=0)
    assert (rest["step"], rest["rank"]) == (1, 0)
    assert_close(rest["terms"], BAD, equal_nan=True)


@pytest.mark.parametrize("marked", [True, False])
def test_a_replay_draws_the_random_numbers_of_its_step(asked, marked):
    if marked:
        asked.guard.before_step()
    drawn = torch.rand(3)
    if not marked:
        set_rng_states(before := rng_states())
    assert not asked.terms(BAD)
    torch.rand(5)
    _, rest = load_replay(asked.folder / "step_1_rank_0.pth")
    set_rng_states(rest["rng"])
    if marked:
        assert torch.equal(torch.rand(3), drawn)
    else:
        assert torch.equal(torch.get_rng_state(), before["torch"])


def test_a_replay_holds_tensors_and_not_what_they_are_parts_of(asked):
    assert not asked.terms(BAD)
    size = (asked.folder / "step_1_rank_0.pth").stat().st_size
    asked.batch = asked.batch._replace(index=torch.arange(1_000_000)[7:10])
    assert not asked.terms(BAD)
    assert (asked.folder / "step_2_rank_0.pth").stat().st_size == pytest.approx(size, rel=0.01)
    # And one that is at two places only once: here the network sees the images as they are.
    assert asked.batch.augmented[0] is asked.batch.image[0]
    images = sum(image.nbytes for image in asked.batch.image.values())
    asked.batch = asked.batch._replace(augmented=torch_copies(asked.batch.augmented))
    assert not asked.terms(BAD)
    larger = (asked.folder / "step_3_rank_0.pth").stat().st_size
    assert larger - size == pytest.approx(images, rel=0.05)


def torch_copies(images: dict) -> dict:
    return {frame: image.clone() for frame, image in images.items()}


def test_a_step_that_is_refused_again_has_a_replay_of_its_own(asked):
    for _ in range(2):
        asked.step = 6  # the next one is the seventh, as long as it is not taken
        assert not asked.terms(GOOD | {"velocity": math.nan})
    assert asked.files == ["step_7_rank_0.pth", "step_7_rank_0_again_1.pth"]


def test_at_most_a_few_replays_are_kept_in_a_run(asked, caplog, tmp_path):
    for _ in range(MAX_REPLAYS + 2):
        assert not asked.terms(BAD)
    expected = [f"step_{i + 1}_rank_0.pth" for i in range(MAX_REPLAYS)]
    assert asked.files == expected
    assert ["replay: " in message for message in caplog.messages] == [True] * 3 + [False] * 2
    assert all("no replay of it" in message for message in caplog.messages[MAX_REPLAYS:])
    resumed = Asked(tmp_path)
    resumed.step = 50
    assert not resumed.terms(BAD)
    assert resumed.files == expected


def test_a_full_disk_does_not_end_the_training(asked, caplog, monkeypatch):
    def full(path, state):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(guard_module, "save_state", full)
    assert not asked.terms(BAD)
    name = asked.folder / "step_1_rank_0.pth"
    assert caplog.messages[0].endswith(f"no replay of it: {name}: no space left on device")


@pytest.mark.parametrize(
    "state",
    [
        {"step": 1},
        dict.fromkeys(("models", "rng", "step", "rank", "terms"), 0),
        dict.fromkeys(("batch", "models", "rng", "step", "rank", "terms"), 0),
        dict.fromkeys(("models", "rng", "step", "rank", "terms"), 0) | {"batch": {"picture": 1}},
    ],
)
def test_another_file_is_no_replay(tmp_path, state):
    path = tmp_path / "file.pth"
    torch.save(state, path)
    with pytest.raises(UserError, match=f"{path}: not a step that this version kept"):
        load_replay(path)


def test_a_replay_that_is_missing_or_broken_is_named(tmp_path):
    path = tmp_path / "file.pth"
    with pytest.raises(UserError, match=str(path)):
        load_replay(path)
    path.write_bytes(b"cut off")
    with pytest.raises(UserError, match=str(path)):
        load_replay(path)


# Two processes: both have something wrong, then one, then the other


def _refuse(world: World, folder: Path) -> dict:
    caught = _Messages()
    logging.getLogger("training.guard").addHandler(caught)
    guard = CollapseGuard(folder / "replay", "drive {} l".format, patience=4)
    batch, models = make_batch(), make_models()
    answers, error = [], ""
    steps = [(GOOD, GOOD), (BAD, BAD), (GOOD, GOOD)]
    steps += [(BAD, BAD), ({"a": math.nan}, GOOD), (GOOD, BAD), (GOOD, {"b": math.inf})]
    for step, terms in enumerate(steps):
        try:
            values = scalars(terms[world.rank])
            answers.append(guard.accepts(values, batch, step, models, world))
        except CollapseError as raised:
            error = str(raised)
    return {"answers": answers, "error": error, "messages": caught.messages}


class _Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def test_all_processes_refuse_what_one_refuses_and_give_up_together(tmp_path):
    main, other = in_world(_refuse, tmp_path)
    assert main["answers"] == other["answers"] == [True, False, True, False, False, False]
    assert main["error"] == other["error"] != ""
    assert "b not finite" in main["error"]
    # One of them tells it all, of both; and the folder has no more files for it.
    assert other["messages"] == []
    told = [message.partition(". Samples")[0] for message in main["messages"]]
    wrong = "warp is nan, total is inf"
    assert told == [
        f"step 1 (process 0) left out: {wrong}",
        f"step 1 (process 1) left out: {wrong}",
        f"step 3 (process 0) left out: {wrong}",
        f"step 3 (process 1) left out: {wrong}",
        "step 4 (process 0) left out: a is nan",
        f"step 5 (process 1) left out: {wrong}",
        "step 6 (process 1) left out: b is inf",
    ]
    files = sorted(path.name for path in (tmp_path / "replay").iterdir())
    assert files == ["step_1_rank_0.pth", "step_1_rank_1.pth", "step_3_rank_0.pth"]
    assert load_replay(tmp_path / "replay" / files[1])[1]["rank"] == 1


# Buffers


def test_a_step_that_is_left_out_leaves_nothing_in_the_buffers(device):
    net = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3).double()).to(device)
    net.register_buffer("mask", torch.tensor([True, False], device=device))
    snapshot = BufferSnapshot(net)
    net[0](torch.randn(2, 3, 4, 4, device=device))
    snapshot.take()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    weights = [parameter.clone() for parameter in net.parameters()]
    places = [buffer.data_ptr() for buffer in net.buffers()]
    net[0](torch.full((2, 3, 4, 4), torch.nan, device=device))
    net.mask.fill_(True)
    with torch.no_grad():
        net[0].weight.fill_(2)
    assert net[0].running_mean.isnan().all()
    for _ in range(2):
        snapshot.restore()
        assert_close(dict(net.named_buffers()), before, atol=0, rtol=0)
        net[0].running_var.zero_()
    assert net[0].num_batches_tracked == 1
    assert [buffer.data_ptr() for buffer in net.buffers()] == places
    assert torch.equal(net[0].weight, 2 * weights[0])  # parameters are no buffers


def test_buffers_are_remembered_when_the_snapshot_is_made():
    net = nn.BatchNorm2d(3)
    snapshot = BufferSnapshot(net)
    net.running_mean.fill_(7)
    snapshot.restore()
    assert torch.equal(net.running_mean, torch.zeros(3))


def test_models_without_buffers_are_no_trouble():
    snapshot = BufferSnapshot(nn.Linear(2, 2))
    assert snapshot.take() is None and snapshot.restore() is None
