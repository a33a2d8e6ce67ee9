"""A whole training: what is left of it, that it goes on exactly, and what it does not take."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import options
from datasets.text import DataError
from ekf.alignment import Alignment
from networks.resnet_encoder import ResnetEncoder
from tests.training_runs import (
    ALONE,
    CAMERA_ONLY,
    EKF,
    TRAIN_LINES,
    VAL_LINES,
    batches_of,
    equal_states,
    lines_of,
    make_data,
    make_trainer,
    options_for,
    parameters,
    states,
    use_small_networks,
    watch,
)
from trainer import Trainer
from training import data, schedule, unit
from training.guard import CollapseError, load_replay
from training.run_folder import held
from training.step import Step
from utils import UserError, load_state, set_rng_states

STEPS = TRAIN_LINES // 2  # of an epoch
MEAN_OF_TWO = "--disable_automasking --accumulate_steps 2"


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    use_small_networks(monkeypatch)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


class Finished:
    """A training that was watched to its end, or to where it was stopped."""

    def __init__(self, trainer: Trainer, after_step=lambda _: None) -> None:
        self.trainer = trainer
        self.began = trainer.progress.step
        self.terms = watch(trainer, after_step)
        self.ended_by = trainer.train()
        self.folder = trainer.run.folder
        self.states = states(trainer)

    @property
    def lines(self) -> dict[str, list[dict]]:
        return {part: lines_of(self.folder, part) for part in ("train", "val")}


def stop_at(step: int, number: int = signal.SIGTERM):
    """Return what sends a signal to this process after a step."""
    return lambda done: os.kill(os.getpid(), number) if done == step else None


@pytest.fixture(scope="module")
def straight(root, tmp_path_factory) -> Finished:
    with pytest.MonkeyPatch.context() as patch:
        use_small_networks(patch)
        return Finished(make_trainer(root, tmp_path_factory.mktemp("runs"), EKF))


# What is left of it


def test_a_run_leaves_a_folder_with_everything(straight):
    folder, trainer = straight.folder, straight.trainer
    assert straight.ended_by is None and trainer.progress.step == 2 * STEPS
    assert {path.name for path in folder.iterdir()} == {
        *(".lock", "metrics.jsonl", "models", "run.json", "train", "val")
    }
    assert {path.name for path in (folder / "models").iterdir()} == {
        *("best", "opt.json", "weights_1")
    }
    networks = "encoder depth pose_encoder pose velo_encoder velo gravity_encoder gravity ekf_model"
    files = {f"{name}.pth" for name in (*networks.split(), "adam", "training_state")}
    for name in ("best", "weights_1"):
        assert {path.name for path in (folder / "models" / name).iterdir()} == files
    for part in ("train", "val"):
        (events,) = (folder / part).iterdir()
        assert events.name.startswith("events.out.tfevents.") and events.stat().st_size > 1000
    (start,) = json.loads((folder / "run.json").read_text())["starts"]
    assert start["data"]["train"]["samples"] == TRAIN_LINES
    assert start["data"]["val"]["samples"] == VAL_LINES
    entries = load_state(folder / "models" / "best" / "encoder.pth")
    assert (entries["height"], entries["width"], entries["use_stereo"]) == (64, 64, False)


def test_what_is_logged_is_finite_and_of_the_steps_that_were_taken(straight):
    train, val = straight.lines["train"], straight.lines["val"]
    assert [line["step"] for line in train] == [1, *range(2, 2 * STEPS + 1, 2)]
    assert [(line["step"], line["epoch"]) for line in val] == [(STEPS, 0), (2 * STEPS, 1)]
    for line in train + val:
        numbers = [value for value in line.values() if not isinstance(value, str)]
        assert all(value is not None and math.isfinite(value) for value in numbers)
    for line in train:
        terms = straight.terms[line["step"] - 1]
        named = {name.removeprefix("loss/"): line[name] for name in line if "loss/" in name[:5]}
        assert named == {name: value for name, value in terms.items() if name != "gradient"}
        assert line["gradient_norm"] == terms["gradient"]
        total = sum(line[f"weight/{name}"] * named[name] for name in named if name != "total")
        assert total == pytest.approx(named["total"], rel=1e-5)
        assert line["learning_rate"] == 1e-4 and "probe/abs_rel" in line
    assert {"abs_rel", "scaled/abs_rel", "scale_ratio", "loss/total"} <= val[0].keys()


def test_the_best_models_are_those_of_the_least_error_of_depth(straight):
    best = load_state(straight.folder / "models" / "best" / "training_state.pth")["progress"]
    errors = [line["abs_rel"] for line in straight.lines["val"]]
    assert best["best_error"] == min(errors) == straight.trainer.progress.best_error
    assert best["epoch"] == errors.index(min(errors))


def test_the_options_that_were_written_make_the_run_again(straight, root, tmp_path):
    written = json.loads((straight.folder / "models" / "opt.json").read_text())
    words = []
    for name, value in written.items():
        if value is True and not name.startswith(("use_imu", "use_velocity", "use_gravity")):
            words += [f"--{name}"] if name != "use_inertial_motion" else []
        elif isinstance(value, list):
            words += [f"--{name}", *map(str, value)] if name != "models_to_load" else []
        elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
            of_noise = name.startswith("img_") and name != "img_noise_type"
            words += [] if of_noise else [f"--{name}", str(value)]
    again = options.train(words)
    assert vars(again) == vars(straight.trainer.options)
    again.log_dir = tmp_path
    trainer = Trainer(again, straight.trainer.world)
    terms = watch(trainer, stop_at(3))
    trainer.train()
    assert terms == straight.terms[:3]


# It goes on exactly


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "stop, words",
    [
        pytest.param(3, "", id="within an epoch"),
        pytest.param(3, "--num_workers 1", id="within an epoch, read by a worker"),
        pytest.param(STEPS + 1, "--log_frequency 7", id="in the second epoch, logged otherwise"),
        pytest.param(STEPS, "", id="at the last step of an epoch"),
    ],
)
def test_a_run_goes_on_to_the_last_bit(stop, words, straight, root, tmp_path):
    first = Finished(make_trainer(root, tmp_path, EKF, words), stop_at(stop))
    assert first.ended_by == signal.SIGTERM
    assert first.trainer.progress.step == stop
    torch.manual_seed(77)  # a new process knows nothing of the old one's random numbers
    second = Finished(make_trainer(root, tmp_path, EKF, words, "--resume auto"))
    assert second.began == stop and second.ended_by is None
    assert first.terms + second.terms == straight.terms
    assert second.lines["val"] == straight.lines["val"]
    if "log" not in words:
        assert second.lines == straight.lines
    assert equal_states(second.states, straight.states)
    assert vars(second.trainer.progress) | {"seconds": 0} == (
        vars(straight.trainer.progress) | {"seconds": 0}
    )


def test_a_run_goes_on_from_within_a_validation(straight, root, tmp_path, monkeypatch):
    stopped = make_trainer(root, tmp_path, EKF)
    forward, seen = Step.forward, []

    def interrupted(self, *batch):
        if not self.training and stopped.progress.step == STEPS:
            seen.append(batch)
            if len(seen) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "forward", interrupted)
        first = Finished(stopped)
    assert len(seen) == 1 and first.lines["val"] == []
    second = Finished(make_trainer(root, tmp_path, EKF, "--resume auto"))
    assert first.terms + second.terms == straight.terms
    assert second.lines == straight.lines
    assert equal_states(second.states, straight.states)


def test_a_validation_that_was_ended_is_not_done_again(straight, root, tmp_path):
    trainer = make_trainer(root, tmp_path, EKF)
    scalars = trainer.reporter.scalars

    def stop(part: str, *what) -> None:
        scalars(part, *what)
        if part == "val":
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.reporter.scalars = stop
    first = Finished(trainer)
    assert first.ended_by == signal.SIGTERM and trainer.progress.epoch == 1
    second = Finished(make_trainer(root, tmp_path, EKF, "--resume auto"))
    assert first.terms + second.terms == straight.terms
    assert second.lines == straight.lines


def test_models_whose_error_is_no_number_are_never_the_best(root, tmp_path, monkeypatch):
    trainer = make_trainer(root, tmp_path, CAMERA_ONLY, "--num_epochs 4")
    errors = iter([math.nan, 0.5, 0.7, 0.4])
    monkeypatch.setattr("trainer.selection_error", lambda *_: next(errors))
    monkeypatch.setattr(Trainer, "run_epoch", lambda self: None)
    saved, save = [], trainer.checkpoints.save_best
    trainer.checkpoints.save_best = lambda *what: saved.append(what[2]) or save(*what)
    trainer.train()
    assert saved == [0.5, 0.4] and trainer.progress.best_error == 0.4


def test_a_killed_run_goes_on_from_its_last_rolling_checkpoint(straight, root, tmp_path):
    def die(step: int) -> None:
        if step == 4:
            raise KeyboardInterrupt

    first = make_trainer(root, tmp_path, EKF, "--save_minutes 1e-9")
    terms = watch(first, die)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    assert [p.name for p in first.run.models.glob("rolling*")] == ["rolling_3"]
    second = Finished(make_trainer(root, tmp_path, EKF, "--resume auto"))
    assert second.began == 3  # the fourth is taken again
    assert terms[:3] + second.terms == straight.terms
    assert second.lines == straight.lines
    assert equal_states(second.states, straight.states)
    assert not list(first.run.models.glob("rolling*"))  # the end of an epoch replaces them


def test_a_run_of_several_batches_a_step_goes_on_to_the_last_bit(root, tmp_path):
    words = EKF, "--accumulate_steps 2"
    straight = Finished(make_trainer(root, tmp_path / "a", *words))
    assert len(straight.terms) == 2 * (STEPS // 2)
    assert straight.trainer.progress.examples == 4 * len(straight.terms)
    first = Finished(make_trainer(root, tmp_path / "b", *words), stop_at(1))
    assert first.trainer.progress.batches == 2
    second = Finished(make_trainer(root, tmp_path / "b", *words, "--resume auto"))
    assert first.terms + second.terms == straight.terms
    assert second.lines == straight.lines
    assert equal_states(second.states, straight.states)


def test_a_longer_run_goes_on_where_a_finished_one_ended(root, tmp_path):
    words = f"{CAMERA_ONLY} --first_save_epoch 0"
    straight = Finished(make_trainer(root, tmp_path / "a", words))
    short = Finished(make_trainer(root, tmp_path / "b", words, "--num_epochs 1"))
    longer = Finished(make_trainer(root, tmp_path / "b", words, "--resume auto"))
    assert longer.began == STEPS and short.terms + longer.terms == straight.terms
    assert equal_states(longer.states, straight.states)
    done = Finished(make_trainer(root, tmp_path / "b", words, "--resume auto"))
    assert done.terms == [] and equal_states(done.states, straight.states)


# What it begins with


def test_weights_that_are_loaded_are_those_of_the_files_and_no_other(straight, root, tmp_path):
    folder = straight.folder / "models" / "weights_1"
    words = f"--load_weights_folder {folder} --models_to_load encoder pose"
    fresh = make_trainer(root, tmp_path / "a", EKF)
    loaded = make_trainer(root, tmp_path / "b", EKF, words)
    for name, model in loaded.models.items():
        source = straight.trainer if name in ("encoder", "pose") else fresh
        assert equal_states(model.state_dict(), source.models[name].state_dict()), name
    assert loaded.progress.step == 0 and not loaded.trained.optimizer.state


@pytest.mark.parametrize(
    "option, added",
    [
        ("--resume_velo", {"velo_encoder", "velo"}),
        ("--resume_gravity", {"gravity_encoder", "gravity"}),
        ("--resume_imu", {"ekf_model"}),
    ],
)
def test_networks_of_the_imu_begin_with_an_earlier_epoch(option, added, straight, root, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(straight.folder / "models" / "weights_1", models / "weights_7")
    learnt = straight.trainer.models["ekf_model"].state_dict()  # nothing, here
    torch.save({k: v + 1 for k, v in learnt.items()}, models / "weights_7" / "ekf_model.pth")
    fresh = make_trainer(root, tmp_path / "a", EKF)
    words = f"--load_weights_folder {models} --resume_epochs 7 {option}"
    loaded = make_trainer(root, tmp_path / "b", EKF, words)
    differing = {
        name
        for name, model in loaded.models.items()
        if not equal_states(model.state_dict(), fresh.models[name].state_dict())
    }
    assert differing == {"encoder", "depth", "pose_encoder", "pose"} | added


def test_weights_of_another_resnet_are_refused_in_one_line(root, tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    folder.mkdir()
    torch.save(ResnetEncoder(34).state_dict(), folder / "encoder.pth")
    monkeypatch.setattr("networks.factory.ResnetEncoder", ResnetEncoder)
    words = f"--load_weights_folder {folder} --models_to_load encoder --pose_model_type posecnn"
    with pytest.raises(UserError, match="holds a ResNet-34: see --num_layers") as error:
        make_trainer(root, tmp_path / "runs", CAMERA_ONLY, words)
    assert "\n" not in str(error.value) and str(folder / "encoder.pth") in str(error.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        ("--resume auto --num_layers 34", "--num_layers was 18 and is 34 now"),
        ("--resume auto --seed 4", "--seed was 0 and is 4 now"),
        ("", "holds a run already: --resume auto goes on with it"),
    ],
)
def test_a_run_is_neither_mixed_with_another_nor_overwritten(words, message, straight, root):
    before = (straight.folder / "run.json").read_bytes()
    with pytest.raises(UserError, match=message) as error:
        make_trainer(root, straight.folder.parent, EKF, words)
    assert "\n" not in str(error.value)
    assert (straight.folder / "run.json").read_bytes() == before


def test_a_run_is_replaced_if_that_is_asked_for(root, tmp_path):
    make_trainer(root, tmp_path, CAMERA_ONLY).train()
    again = make_trainer(root, tmp_path, CAMERA_ONLY, "--overwrite")
    assert again.progress.step == 0 and not list(again.run.models.glob("*_*"))
    assert len(json.loads((again.run.folder / "run.json").read_text())["starts"]) == 1


# What is not finite


@pytest.fixture
def begun(root, tmp_path) -> Trainer:
    """Return a trainer that has taken a step."""
    trainer = make_trainer(root, tmp_path, EKF)
    trainer.step.train()
    assert trainer.training_step(batches_of(trainer)[:1]) is not None
    return trainer


def planted(batch):
    """Return the batch with one pixel that is no number."""
    image = batch.augmented[-1].clone()
    image[1, 2, 30, 30] = math.nan
    return batch._replace(augmented=batch.augmented | {-1: image})


def kept(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return all that a step changes."""
    moments = trainer.trained.optimizer.state_dict()["state"]
    return states(trainer) | {
        f"{i} {name}": value.clone() for i, of in moments.items() for name, value in of.items()
    }


def test_a_step_that_is_not_finite_is_left_out_named_and_kept(begun, caplog):
    batch = planted(batches_of(begun)[1])
    before = kept(begun)
    assert begun.training_step([batch]) is None
    assert equal_states(before, kept(begun))
    assert begun.progress.step == 1 and begun.progress.examples == 2
    assert all(p.grad is None for p in begun.parameters)
    (message,) = [record.getMessage() for record in caplog.records if "left out" in record.msg]
    replay = begun.run.folder / "replay" / "step_2_rank_0.pth"
    for part in ("step 2 left out", "total is nan", "photometric is nan", str(replay)):
        assert part in message
    for place in batch.index.tolist():
        assert begun.training.dataset.line(place) in message
    assert begun.training_step(batches_of(begun)[1:2]) is not None
    assert begun.progress.step == 2


def test_a_replay_says_the_same_again(begun):
    begun.training_step([planted(batches_of(begun)[1])])
    found = begun.guard.values
    batch, state = load_replay(begun.run.folder / "replay" / "step_2_rank_0.pth")
    begun.models.load_state_dict(state["models"])
    set_rng_states(state["rng"])
    terms, _ = begun.step(batch)
    again = {name: term.item() for name, term in terms.items()}
    assert again.keys() == found.keys() and math.isnan(again["total"])
    for name, value in found.items():
        assert again[name] == value or math.isnan(value) and math.isnan(again[name]), name


def test_a_gradient_that_is_not_finite_is_left_out_too(begun, caplog):
    before = kept(begun)
    hook = begun.parameters[0].register_hook(lambda grad: grad * math.inf)
    assert begun.training_step(batches_of(begun)[1:2]) is None
    hook.remove()
    assert "gradient is" in caplog.text
    assert equal_states(before, kept(begun))


def test_one_bad_batch_of_several_leaves_out_their_step(root, tmp_path):
    trainer = make_trainer(root, tmp_path, CAMERA_ONLY, "--accumulate_steps 2")
    trainer.step.train()
    before = states(trainer)
    good, bad = batches_of(trainer)[:2]
    assert trainer.training_step([good, planted(bad)]) is None
    assert equal_states(before, states(trainer))
    assert all(p.grad is None for p in trainer.parameters)


def test_half_precision_searches_its_scale_and_gives_up_when_there_is_none(begun, caplog):
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    begun.trained = replace(begun.trained, scaler=scaler)
    batch = batches_of(begun)[1:2]
    before, step = kept(begun), begun.progress.step
    hook = begun.parameters[0].register_hook(lambda grad: grad * math.inf)
    scales = []
    for _ in range(2):  # from 4 to 1 without a word
        assert begun.training_step(batch) is None
        scales.append(scaler.get_scale())
    assert scales == [2.0, 1.0] and not caplog.text
    assert not math.isfinite(begun.guard.values["gradient"])
    for _ in range(9):
        assert begun.training_step(batch) is None
    assert "gradient is" in caplog.text
    assert equal_states(before, kept(begun)) and begun.progress.step == step
    hook.remove()
    assert begun.training_step(batch) is not None
    assert not equal_states(before, kept(begun)) and begun.progress.step == step + 1
    begun.parameters[0].register_hook(lambda grad: grad * math.inf)
    with pytest.raises(CollapseError, match="10 times in a row"):
        for _ in range(10):
            begun.training_step(batch)


def test_what_was_trained_is_saved_when_a_file_turns_out_broken(root, tmp_path, monkeypatch):
    trainer = make_trainer(root, tmp_path)
    batches = data.training_batches

    def two_then_broken(*given):
        yield from islice(batches(*given), 2)
        raise DataError("image 7: cut off")

    monkeypatch.setattr(data, "training_batches", two_then_broken)
    with pytest.raises(DataError, match="image 7"):
        trainer.train()
    assert [path.name for path in trainer.run.models.glob("rolling_*")] == ["rolling_2"]


def test_half_precision_is_refused_where_there_is_no_gpu(root, tmp_path):
    options = options_for(root, tmp_path)
    options.amp = "fp16"  # without --no_cuda, on a machine that has none
    with pytest.raises(UserError, match="--amp fp16 needs a GPU.* --amp bf16"):
        Trainer(options, ALONE)


def test_a_second_training_in_the_same_folder_is_refused(root, tmp_path):
    trainer = make_trainer(root, tmp_path)
    with held(trainer.run.folder), pytest.raises(UserError, match="another training is writing"):
        trainer.train()
    assert trainer.train() is None


def test_a_step_of_more_batches_than_there_are_is_refused(root, tmp_path):
    with pytest.raises(UserError, match="--accumulate_steps 6: an epoch has 5 batches"):
        make_trainer(root, tmp_path, "--accumulate_steps 6")
    assert not list(tmp_path.iterdir())


def test_ten_in_a_row_end_the_training(begun):
    batch = planted(batches_of(begun)[1])
    for _ in range(9):
        assert begun.training_step([batch]) is None
    with pytest.raises(CollapseError, match="10 times in a row") as error:
        begun.training_step([batch])
    assert "\n" not in str(error.value)


# How it steps, and what it keeps


def test_a_step_of_several_batches_takes_the_mean_of_their_gradients(root, tmp_path):
    trainer = make_trainer(
        root, tmp_path, CAMERA_ONLY, "--disable_automasking --accumulate_steps 2"
    )
    group = batches_of(trainer)[:2]
    trainer.step.train()
    gradients = []
    for batch in group:  # batch norms see a batch alone, so their order does not matter
        terms, _ = trainer.step(batch)
        gradients.append(torch.autograd.grad(terms["total"], trainer.parameters))
    found = []
    trainer.trained.optimizer.register_step_pre_hook(
        lambda *_: found.extend(p.grad.clone() for p in trainer.parameters)
    )
    assert trainer.training_step(group) is not None
    for gradient, first, second in zip(found, *gradients, strict=True):
        assert_close(gradient, (first + second) / 2, rtol=1e-4, atol=1e-7)
    assert trainer.progress.examples == 4


def test_the_filter_takes_part_when_it_is_warm(root, tmp_path):
    words = "--use_ekf --ekf_velo_weight 0.1 --ekf_warming_epochs 1 --train_init_covar"
    trainer = make_trainer(root, tmp_path, words)
    initial = trainer.models["ekf_model"].state_dict()
    initial = {name: value.clone() for name, value in initial.items()}
    run = Finished(trainer)
    assert ["ekf_velocity" in terms for terms in run.terms] == [False] * STEPS + [True] * STEPS
    assert ["loss/ekf_velocity" in line for line in run.lines["val"]] == [False, True]
    assert not equal_states(initial, dict(trainer.models["ekf_model"].state_dict()))


@pytest.mark.parametrize(
    "words, epochs",
    [
        ("--first_save_epoch 0", {0, 1, 2, 3}),
        ("--first_save_epoch 2", {2, 3}),
        ("--first_save_epoch 0 --save_frequency 2", {1, 3}),
        ("--first_save_epoch 0 --keep_checkpoints 2", {2, 3}),
        ("--first_save_epoch 0 --save_frequency 3", {2, 3}),  # and always the last
    ],
)
def test_the_wanted_epochs_are_kept(words, epochs, root, tmp_path, monkeypatch):
    trainer = make_trainer(root, tmp_path, CAMERA_ONLY, "--num_epochs 4 --batch_size 5", words)
    monkeypatch.setattr(Trainer, "run_epoch", lambda self: None)
    monkeypatch.setattr(Trainer, "look_at_validation", lambda self: True)
    trainer.train()
    found = {path.name for path in trainer.run.models.iterdir()} - {"opt.json"}
    assert found == {f"weights_{epoch}" for epoch in epochs}


@pytest.mark.parametrize(
    "words",
    ["--scheduler_step_size 1", "--scheduler cosine", "--scheduler cosine --warmup_steps 3"],
)
def test_the_rate_follows_its_schedule_step_by_step(words, root, tmp_path, monkeypatch):
    trainer = make_trainer(root, tmp_path, CAMERA_ONLY, words)
    monkeypatch.setattr(Trainer, "look_at_validation", lambda self: True)
    rates = []
    monkeypatch.setattr(
        trainer,
        "report",
        lambda *_: rates.append(trainer.trained.optimizer.param_groups[0]["lr"]),
    )
    trainer.train()
    assert len(rates) == 2 * STEPS
    wanted = [schedule.factor(step, STEPS, trainer.options) for step in range(1, 2 * STEPS + 1)]
    assert rates == pytest.approx([1e-4 * factor for factor in wanted])


def test_the_imu_says_the_unit_and_a_run_goes_on_with_it(root, tmp_path, monkeypatch):
    found = iter([1.5, 0.5, 1.25, 1.0, 1.0, 1.0])
    monkeypatch.setattr(unit, "alignment", lambda *_: Alignment(next(found), 0.01, 4))
    words = CAMERA_ONLY.replace("--imu_warp_weight 0 ", ""), "--align_steps 2"
    first = make_trainer(root, tmp_path, *words)
    monkeypatch.setattr(Trainer, "look_at_validation", lambda self: True)
    first.train()
    aligned = [1.5, 0.5, 1.25, 1.0, 1.0, 1.0][: 2 * STEPS // 2]
    metres = 5.4 * math.prod(aligned)
    unit_m = first.progress.unit_m
    assert unit_m == pytest.approx(metres)
    assert first.step.options.trans_scale_factor == unit_m
    assert first.options.trans_scale_factor == 5.4  # what the user asked for, and opt.json says
    folder = first.run.models / "weights_1"
    encoder = torch.load(folder / "encoder.pth", weights_only=True)
    assert encoder["trans_scale_factor"] == unit_m
    again = make_trainer(root, tmp_path, *words, "--resume auto --num_epochs 3")
    assert again.step.options.trans_scale_factor == again.progress.unit_m == unit_m


@pytest.mark.parametrize("stop", [2, 3])  # at an alignment, between two
def test_a_rate_and_a_unit_that_change_go_on_to_the_last_bit(stop, root, tmp_path, monkeypatch):
    def seen_by(step, *_) -> Alignment:
        """Say what hangs on the networks alone, as the true one does."""
        weight = sum(p.detach().double().sum() for p in step.models["pose"].parameters())
        return Alignment(1.2 + 0.1 * math.tanh(float(weight)), 0.01, 4)

    monkeypatch.setattr(unit, "alignment", seen_by)
    words = "--align_steps 2 --scheduler cosine --warmup_steps 2"
    straight = Finished(make_trainer(root, tmp_path / "a", words))
    first = Finished(make_trainer(root, tmp_path / "b", words), stop_at(stop))
    second = Finished(make_trainer(root, tmp_path / "b", words, "--resume auto"))
    assert second.began == stop
    assert first.terms + second.terms == straight.terms
    assert second.lines == straight.lines
    assert second.trainer.progress.unit_m == straight.trainer.progress.unit_m > 5.4
    assert equal_states(second.states, straight.states)


def test_an_imu_that_says_nothing_leaves_the_unit_and_is_written_down(root, tmp_path):
    run = Finished(make_trainer(root, tmp_path, "--align_steps 5 --num_epochs 1"))
    assert run.trainer.progress.unit_m == 5.4  # no drive is long enough
    (line,) = (line for line in run.lines["train"] if "alignment/unit_m" in line)
    assert (line["step"], line["alignment/unit_m"]) == (5, 5.4)
    assert line["alignment/factor"] is line["alignment/relative_std"] is None


def test_lists_that_are_too_short_to_align_are_refused(root, tmp_path, monkeypatch):
    monkeypatch.setattr(unit, "LEAST_SEGMENTS", 1)
    with pytest.raises(UserError, match="--align_steps needs .* images in a row") as error:
        make_trainer(root, tmp_path, "--align_steps 5")
    assert "\n" not in str(error.value)


def test_weights_that_count_in_another_unit_are_refused(root, tmp_path, monkeypatch):
    monkeypatch.setattr(unit, "alignment", lambda *_: Alignment(1.5, 0.01, 4))
    monkeypatch.setattr(Trainer, "look_at_validation", lambda self: True)
    words = CAMERA_ONLY.replace("--imu_warp_weight 0 ", ""), f"--align_steps {2 * STEPS}"
    first = make_trainer(root, tmp_path, *words)
    first.train()
    loading = f"--load_weights_folder {first.run.models / 'weights_1'} --model_name second"
    with pytest.raises(UserError, match="count in 8.1 m, this run in 5.4 m: add --trans_scale"):
        make_trainer(root, tmp_path, CAMERA_ONLY, loading)
    make_trainer(root, tmp_path, CAMERA_ONLY, loading, "--trans_scale_factor 8.1")


def test_without_alignment_the_unit_is_that_of_the_options(root, tmp_path):
    trainer = make_trainer(root, tmp_path, CAMERA_ONLY)
    assert trainer.progress.unit_m is None and not trainer.alignment_is_due


def test_an_epoch_that_is_not_kept_can_be_resumed_from(root, tmp_path, monkeypatch):
    trainer = make_trainer(root, tmp_path, CAMERA_ONLY)
    monkeypatch.setattr(Trainer, "look_at_validation", lambda self: True)
    terms = watch(trainer, stop_at(STEPS + 1, signal.SIGINT))
    found = []
    save = trainer.save_epoch

    def look() -> None:
        save()
        found.extend(path.name for path in trainer.run.models.glob("*_*"))

    trainer.save_epoch = look
    assert trainer.train() == signal.SIGINT
    assert found == [f"rolling_{STEPS}"] and len(terms) == STEPS + 1


def test_an_odd_number_of_batches_leaves_a_rest_that_no_step_has(root, tmp_path):
    run = Finished(make_trainer(root, tmp_path, CAMERA_ONLY, "--accumulate_steps 3"))
    assert run.trainer.progress.step == 2 and run.trainer.progress.examples == 12
    assert [line["step"] for line in run.lines["train"]] == [1, 2]


def test_the_same_options_take_the_same_steps(straight, root, tmp_path):
    terms = watch(trainer := make_trainer(root, tmp_path, EKF), stop_at(2))
    trainer.train()
    assert terms == straight.terms[:2]
    assert not torch.equal(parameters(trainer), parameters(straight.trainer))
    assert options_for(root, tmp_path, EKF).seed == 0
