"""Training goes on from a checkpoint as if it had never stopped, whenever it was killed."""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training import checkpoints
from training.checkpoints import (
    OPTIMIZER,
    TRAINING_STATE,
    Checkpoints,
    Progress,
    Trained,
    has_checkpoints,
    latest,
    restore,
    tidy,
)
from utils import UserError, load_state, rng_states, save_state, set_rng_states

ENTRIES = {"height": 192, "width": 640, "use_stereo": False}


def make(seed=0, names=("encoder", "depth"), enabled=True) -> Trained:
    """Build small models with all kinds of state: buffers, dropout, moments, a falling rate."""
    torch.manual_seed(seed)
    models = nn.ModuleDict(
        {name: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)) for name in names}
    )
    optimizer = torch.optim.Adam(models.parameters(), 1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=4, enabled=enabled)
    return Trained(models, optimizer, scheduler, scaler)


def train(trained: Trained, steps: int) -> list[float]:
    """Train on random numbers of all generators, and return the losses."""
    losses = []
    for _ in range(steps):
        x = torch.randn(8, 4) + random.gauss(0, 1) + np.random.randn()
        loss = F.mse_loss(trained.models["depth"](trained.models["encoder"](x)), x)
        trained.optimizer.zero_grad()
        trained.scaler.scale(loss).backward()
        trained.scaler.step(trained.optimizer)
        trained.scaler.update()
        trained.scheduler.step()
        losses.append(loss.item())
    return losses


def everything(trained: Trained) -> list:
    """Return all state as a list of numbers."""
    states = [trained.models.state_dict(), trained.optimizer.state_dict()]
    states += [trained.scheduler.state_dict(), trained.scaler.state_dict()]

    def flat(value):
        if isinstance(value, torch.Tensor):
            return value.flatten().tolist()
        if isinstance(value, dict):
            return [x for key in sorted(value, key=str) for x in (key, *flat(value[key]))]
        if isinstance(value, list | tuple):
            return [x for item in value for x in flat(item)]
        return [value]

    return flat(states)


@pytest.fixture(autouse=True)
def _leaves_the_generators():
    states = rng_states()
    yield
    set_rng_states(states)


@pytest.fixture(scope="module")
def trained():
    result = make()
    train(result, 2)
    return result


@pytest.fixture
def store(tmp_path):
    return Checkpoints(tmp_path / "models", encoder_entries=ENTRIES)


def names(folder) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def step_of(path) -> int:
    return restore(path, make(9))[0].step


def refusal(call) -> str:
    """Return the one line that a call is refused with."""
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


# An exact continuation


@pytest.mark.parametrize("kind", ["weights_4", "rolling_5", "best"])
def test_five_steps_and_five_more_are_ten(store, kind):
    straight = make()
    train(straight, 5)
    start = Progress(epoch=1, batches=2, step=5, examples=40, best_error=0.25, seconds=1.5)
    rng = [rng_states()]
    path = {
        "weights_4": lambda: store.save_epoch(4, straight, start, rng),
        "rolling_5": lambda: store.save_rolling(straight, start, rng),
        "best": lambda: store.save_best(straight, start, 0.125, rng),
    }[kind]()
    assert path.name == kind
    at_five = everything(straight)
    losses = train(straight, 5)

    resumed = make(seed=1)
    train(resumed, 3)  # so that all its state is another
    progress, (states,) = restore(path, resumed)
    assert everything(resumed) == at_five
    set_rng_states(states)
    assert train(resumed, 5) == losses
    assert everything(resumed) == everything(straight)
    assert progress == (start if kind != "best" else Progress(1, 2, 5, 40, 0.125, 1.5))


def test_saving_changes_nothing(store):
    first, second = make(), make()
    start = rng_states()
    expected = train(first, 4)
    set_rng_states(start)
    losses = train(second, 2)
    progress = Progress(step=2)
    store.save_rolling(second, progress, [rng_states()])
    store.save_best(second, progress, 0.5)
    assert progress == Progress(step=2)
    assert losses + train(second, 2) == expected


def test_the_states_of_every_process_come_back(store, trained):
    rng = []
    for seed in range(3):
        torch.manual_seed(seed)
        rng.append(rng_states())
    _, found = restore(store.save_rolling(trained, Progress(), rng), make())
    for seed, states in enumerate(found):
        set_rng_states(states)
        drawn = torch.rand(4)
        torch.manual_seed(seed)
        assert torch.equal(drawn, torch.rand(4))
    assert len(found) == 3


def test_a_checkpoint_moves_between_devices(store, trained, device):
    path = store.save_rolling(trained, Progress(step=2), [])
    resumed = make(1)
    resumed.models.to(device)
    restore(path, resumed)
    assert {p.device.type for p in resumed.models.parameters()} == {device.type}
    moments = [state["exp_avg"] for state in resumed.optimizer.state_dict()["state"].values()]
    assert {moment.device.type for moment in moments} == {device.type}


def test_any_kind_of_number_is_written_as_a_plain_one(store, trained):
    strange = Progress(
        np.int64(1), 2, torch.tensor(3), np.int32(4), np.float64(0.5), np.float32(2), 3
    )
    progress, _ = restore(store.save_rolling(trained, strange, []), make())
    assert progress == Progress(1, 2, 3, 4, 0.5, 2.0, 3.0)
    assert {type(value) for value in vars(progress).values()} == {int, float}


@pytest.mark.parametrize(("before", "now"), [(True, False), (False, True), (False, False)])
def test_mixed_precision_may_be_turned_on_or_off(store, before, now):
    saved, resumed = make(enabled=before), make(1, enabled=now)
    train(saved, 1)
    restore(store.save_rolling(saved, Progress(), []), resumed)
    assert resumed.scaler.state_dict() == make(enabled=now).scaler.state_dict()
    assert len(train(resumed, 1)) == 1


def test_the_files_are_those_of_the_published_programs_and_one_more(store, trained):
    path = store.save_epoch(3, trained, Progress(), [])
    assert names(path) == ["adam.pth", "depth.pth", "encoder.pth", "training_state.pth"]
    encoder = torch.load(path / "encoder.pth", weights_only=True)
    assert {name: encoder[name] for name in ENTRIES} == ENTRIES
    adam = torch.load(path / "adam.pth", weights_only=True)
    make().optimizer.load_state_dict(adam)
    assert set(adam) == {"state", "param_groups"}


def test_a_unit_that_was_found_is_said_beside_the_weights(store, trained):
    for progress, told in ((Progress(), None), (Progress(step=1, unit_m=4.5), 4.5)):
        path = store.save_rolling(trained, progress, [])
        encoder = torch.load(path / "encoder.pth", weights_only=True)
        assert encoder.get("trans_scale_factor") == told
        assert restore(path, make())[0] == progress


def test_a_checkpoint_from_before_units_and_steps_of_the_rate_goes_on(store, trained):
    path = store.save_epoch(0, trained, Progress(1, 0, 7), [])
    state = load_state(path / TRAINING_STATE)
    del state["progress"]["unit_m"]
    assert "step_size" in state["scheduler"]  # of a StepLR, as it was
    save_state(path / TRAINING_STATE, state)
    new = make()
    scheduler = torch.optim.lr_scheduler.LambdaLR(new.optimizer, lambda step: 0.5**step)
    progress, _ = restore(path, replace(new, scheduler=scheduler))
    assert progress == Progress(1, 0, 7)
    new.optimizer.step()
    scheduler.step()
    assert new.optimizer.param_groups[0]["lr"] == 1e-2 * 0.5**8


# Which of them stay


def test_all_stay_or_the_newest(tmp_path, trained):
    for keep, left in ((0, range(12)), (1, [11]), (3, [9, 10, 11])):
        store = Checkpoints(tmp_path / str(keep), keep)
        for i in range(12):
            store.save_epoch(i, trained, Progress(step=i), [])
        assert set(names(tmp_path / str(keep))) == {f"weights_{i}" for i in left}


def test_what_was_just_written_stays(tmp_path, trained):
    later = Checkpoints(tmp_path)
    for i in (7, 8):
        later.save_epoch(i, trained, Progress(step=i), [])
    Checkpoints(tmp_path, keep=2).save_epoch(3, trained, Progress(step=3), [])
    assert names(tmp_path) == ["weights_3", "weights_8"]


def test_a_rolling_checkpoint_goes_when_there_is_a_newer(store, tmp_path, trained):
    store.save_best(trained, Progress(), 1.0)
    for step in (1, 2, 10):
        store.save_rolling(trained, Progress(step=step), [])
        assert names(tmp_path / "models") == ["best", f"rolling_{step}"]
    store.save_epoch(0, trained, Progress(step=11), [])
    assert names(tmp_path / "models") == ["best", "weights_0"]
    store.save_rolling(trained, Progress(step=12), [])
    assert names(tmp_path / "models") == ["best", "rolling_12", "weights_0"]


def test_files_of_others_stay(tmp_path, trained):
    for name in ("weights_old", "notes.tmp", "a.old", "rolling_", "weights_1_copy"):
        (tmp_path / name).mkdir()
    before = names(tmp_path)
    store = Checkpoints(tmp_path, keep=1)
    for i in range(3):
        store.save_rolling(trained, Progress(step=i), [])
        store.save_epoch(i, trained, Progress(step=i), [])
    assert names(tmp_path) == sorted([*before, "weights_2"])


def test_an_epoch_that_is_repeated_is_replaced(store, tmp_path, trained):
    for step in (5, 6):
        path = store.save_epoch(1, trained, Progress(step=step), [])
        (path / f"mark{step}").touch()
    assert step_of(path) == 6 and not (path / "mark5").exists()
    assert names(tmp_path / "models") == ["weights_1"]


def test_what_cannot_be_removed_ends_nothing(store, tmp_path, trained, monkeypatch, caplog):
    store.save_rolling(trained, Progress(step=1), [])
    rename = Path.rename

    def fails(self, target):
        if self.name == "rolling_1":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    store.save_rolling(trained, Progress(step=2), [])
    assert names(tmp_path / "models") == ["rolling_1", "rolling_2"]
    assert "rolling_1: not removed: Permission denied" in caplog.text


# Killed, or without room


class Killed(BaseException):
    """Stands for the end of the process."""


def killed_at(monkeypatch, count: int) -> None:
    """Let the process end at the n-th change of the disk; nothing can be tidied up then."""
    done = 0

    def dying(change, halfway):
        def wrapped(*args, **kwargs):
            nonlocal done
            done += 1
            if done == count:
                halfway(*args)
            if done >= count:
                raise Killed
            return change(*args, **kwargs)

        return wrapped

    def remove_a_file(folder, **_):
        for path in list(folder.glob("*"))[:1]:
            path.unlink()

    for owner, name, halfway in (
        (torch, "save", lambda state, file: file.write(b"half")),
        (Path, "rename", lambda *_: None),
        (Path, "mkdir", lambda *_: None),
        (shutil, "rmtree", remove_a_file),
    ):
        monkeypatch.setattr(owner, name, dying(getattr(owner, name), halfway))


def save_anything(store, trained, step):
    store.save_epoch(0, trained, Progress(step=step), [])
    store.save_best(trained, Progress(step=step), 1.0)
    store.save_rolling(trained, Progress(step=step + 1), [])


def test_a_killed_process_leaves_whole_checkpoints(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # which takes most of the time
    killed = 0
    for count in range(1, 100):
        folder = tmp_path / str(count)
        save_anything(Checkpoints(folder), trained, 10)
        with monkeypatch.context() as patch:
            killed_at(patch, count)
            try:
                save_anything(Checkpoints(folder), trained, 20)
                break
            except Killed:
                killed += 1
        for path in folder.iterdir():  # nothing is half, as others see it
            if path.suffix == "":
                restore(path, make())
        store = Checkpoints(folder)
        assert not [name for name in names(folder) if "." in name]
        assert step_of(latest(store.folder)) in (10, 11, 20, 21)
        assert {"best", "weights_0"} <= set(names(folder))
        save_anything(store, trained, 30)
        assert names(folder) == ["best", "rolling_31", "weights_0"]
    assert killed > 15


def test_an_interrupt_between_the_renames_is_undone(store, tmp_path, trained, monkeypatch):
    path = store.save_best(trained, Progress(step=1), 1.0)
    rename = Path.rename

    def interrupted(self, target):
        if self.suffix == ".tmp":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.save_best(trained, Progress(step=2), 0.5)
    assert step_of(path) == 1 and names(tmp_path / "models") == ["best"]


@pytest.mark.parametrize("fails_at", ["encoder.pth", "depth.pth", OPTIMIZER, TRAINING_STATE])
def test_a_full_disk_leaves_the_older_ones(store, tmp_path, trained, monkeypatch, fails_at):
    save_anything(store, trained, 1)
    before = names(tmp_path / "models")
    save = torch.save

    def full(state, file):
        if fails_at in file.name:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, file)

    monkeypatch.setattr(torch, "save", full)
    for write in (
        lambda: store.save_epoch(0, trained, Progress(step=5), []),
        lambda: store.save_epoch(1, trained, Progress(step=5), []),
        lambda: store.save_rolling(trained, Progress(step=5), []),
        lambda: store.save_best(trained, Progress(step=5), 0.1),
    ):
        with pytest.raises(OSError) as error:
            write()
        assert error.value.filename.endswith(fails_at)
        assert names(tmp_path / "models") == before
    assert [step_of(tmp_path / "models" / name) for name in before] == [1, 2, 1]


def test_what_could_not_be_read_again_is_not_kept(store, tmp_path, trained):
    with pytest.raises(UserError, match="refused"):
        store.save_rolling(trained, Progress(), [{"python": random.Random(0)}])
    assert names(tmp_path / "models") == []


def test_leftovers_are_removed_and_put_back(tmp_path, trained):
    store = Checkpoints(tmp_path)
    for i in (1, 2):
        store.save_epoch(i, trained, Progress(step=i), [])
    (tmp_path / "weights_1").rename(tmp_path / "weights_1.old")
    shutil.copytree(tmp_path / "weights_2", tmp_path / "weights_2.old")
    (tmp_path / "rolling_7.tmp").mkdir()
    (tmp_path / "rolling_7.tmp" / "encoder.pth.12.tmp").touch()
    tidy(tmp_path)
    assert names(tmp_path) == ["weights_1", "weights_2"]
    assert [step_of(tmp_path / f"weights_{i}") for i in (1, 2)] == [1, 2]


def test_there_is_nothing_to_tidy_in_a_folder_that_is_missing(tmp_path):
    store = Checkpoints(tmp_path / "missing")
    assert latest(store.folder) is None and not has_checkpoints(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


# The one to go on from


def test_the_furthest_is_the_latest(store, tmp_path, trained):
    assert latest(store.folder) is None
    store.save_best(trained, Progress(step=99), 1.0)
    assert latest(store.folder) is None and has_checkpoints(tmp_path / "models")
    store.save_epoch(9, trained, Progress(epoch=10, step=90), [])
    store.save_epoch(10, trained, Progress(epoch=11, step=100), [])
    assert latest(store.folder).name == "weights_10"  # not the last by its letters
    store.save_rolling(trained, Progress(epoch=11, batches=5, step=105), [])
    assert latest(store.folder).name == "rolling_105"
    shutil.rmtree(latest(store.folder))
    store.save_rolling(trained, Progress(epoch=10, batches=10, step=100), [])
    assert latest(store.folder).name == "weights_10"  # the same step, but its epoch is over
    store.save_rolling(trained, Progress(epoch=11, batches=3, step=100), [])
    # The same step: the batches since were left out.
    assert latest(store.folder).name == "rolling_100"


@pytest.mark.parametrize("file", ["encoder.pth", "depth.pth", OPTIMIZER, TRAINING_STATE])
@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "unreadable"])
def test_a_broken_checkpoint_is_passed_over_by_name(tmp_path, trained, caplog, file, damage):
    store = Checkpoints(tmp_path)
    for i in (1, 2):
        store.save_epoch(i, trained, Progress(step=i), [])
    path = tmp_path / "weights_2" / file
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "changed":
        place = whole.index(b"_")  # in a name of an entry
        path.write_bytes(whole[:place] + b"-" + whole[place + 1 :])
    else:
        path.unlink()
        if damage == "unreadable":
            path.mkdir()
    with caplog.at_level(logging.WARNING):
        assert latest(store.folder) == tmp_path / "weights_1"
    (record,) = caplog.records
    assert str(tmp_path / "weights_2") in record.message and file in record.message
    assert record.message.endswith("; this checkpoint is passed over")
    assert "\n" not in record.message
    assert file in refusal(lambda: restore(tmp_path / "weights_2", make()))


def test_a_disk_that_cannot_be_read_is_passed_over(store, trained, monkeypatch, caplog):
    store.save_epoch(1, trained, Progress(step=1), [])

    def fails(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(checkpoints, "check_intact", fails)
    assert latest(store.folder) is None
    assert "training_state.pth: input/output error; this checkpoint" in caplog.text


# What cannot be restored


def test_published_weights_are_no_checkpoint(store, trained):
    path = store.save_epoch(1, trained, Progress(), [])
    (path / TRAINING_STATE).unlink()
    assert refusal(lambda: restore(path, make())) == (
        f"{path}: has weights but no training state (training_state.pth): start from it with "
        "--load_weights_folder"
    )


def test_other_folders_are_no_checkpoints(tmp_path):
    assert refusal(lambda: restore(tmp_path, make())).startswith(f"{tmp_path}: not a checkpoint")
    path = tmp_path / "a"
    assert refusal(lambda: restore(path, make())) == f"{path}: no such folder"
    path.touch()
    assert refusal(lambda: restore(path, make())) == f"{path}: not a folder"


@pytest.mark.parametrize(
    ("models", "fault"),
    [
        (("encoder",), "holds depth"),
        (("encoder", "depth", "pose", "velo"), "lacks pose, velo"),
        (("encoder", "pose"), "holds depth and lacks pose"),
    ],
)
def test_other_models_are_named(store, trained, models, fault):
    path = store.save_epoch(1, trained, Progress(), [])
    text = refusal(lambda: restore(path, make(names=models)))
    assert text.startswith(f"{path}: {fault}, unlike the models of this run")


def test_another_optimizer_does_not_fit(store, trained):
    path = store.save_epoch(1, trained, Progress(), [])
    other = make()
    other.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    text = refusal(lambda: restore(path, other))
    assert text.startswith(f"{path / OPTIMIZER}: does not fit this run (") and "groups" in text


def test_another_version_is_named(store, trained):
    path = store.save_epoch(1, trained, Progress(), [])
    save_state(path / TRAINING_STATE, {"version": 99})
    text = refusal(lambda: restore(path, make()))
    assert "of version 99" in text and "--load_weights_folder" in text


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("file", ["encoder.pth", OPTIMIZER, TRAINING_STATE])
def test_what_a_file_wants_to_run_is_refused(store, tmp_path, trained, file):
    path = store.save_epoch(1, trained, Progress(), [])
    torch.save({"version": Evil(tmp_path / "made")}, path / file)
    text = refusal(lambda: restore(path, make()))
    assert text.startswith(f"{path / file}: refused") and not (tmp_path / "made").exists()
