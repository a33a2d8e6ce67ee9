"""A run is neither lost nor mixed with another, and what it was started with is on record."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import torch
from torch import nn

from training import run_folder
from training.checkpoints import TRAINING_STATE, Checkpoints, Progress, Trained
from training.run_folder import MAY_CHANGE, held, open_run
from utils import UserError

CPU = torch.device("cpu")
OPTIONS = {
    "model_name": "run",
    "data_path": Path("data/kitti"),
    "frame_ids": (0, -1, 1),
    "learning_rate": 1e-4,
    "use_ekf": False,
    "height": 192,
    "pretrained_path": None,
    "num_epochs": 30,
    "split": None,
}
DATA = {"train": {"fingerprint": "ab12", "samples": 100}, "val": {"fingerprint": "c", "samples": 5}}


def refusal(call) -> str:
    """Return the one line that a call is refused with."""
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def contents(folder) -> dict[str, bytes]:
    """Return all files of a folder by their paths."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def save(models, number, step, rolling=False) -> Path:
    module = nn.ModuleDict({"depth": nn.Linear(1, 1)})
    optimizer = torch.optim.Adam(module.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    trained = Trained(module, optimizer, scheduler, torch.amp.GradScaler("cpu", enabled=False))
    if rolling:
        return Checkpoints(models).save_rolling(trained, Progress(step=step), [])
    return Checkpoints(models).save_epoch(number, trained, Progress(step=step), [])


def make_run(log_dir, name="run", steps=(10, 20), options=OPTIONS) -> Path:
    """Make a run with a checkpoint for each step, and all files that a run has."""
    run = open_run(log_dir, name, options)
    run.begin(CPU, 1, 0, DATA)
    for part in ("train", "val", "replay"):
        (run.folder / part).mkdir()
        (run.folder / part / "events").touch()
    (run.folder / "metrics.jsonl").touch()
    for number, step in enumerate(steps):
        save(run.models, number, step)
    return run.folder


# A new run


def test_a_new_run_begins(tmp_path):
    run = open_run(tmp_path / "logs", "a/b", OPTIONS)
    assert run.folder == tmp_path / "logs" / "a" / "b" and run.models == run.folder / "models"
    assert run.checkpoint is None and not run.replaces
    assert not (tmp_path / "logs").exists()  # an error that follows leaves nothing behind
    run.begin(CPU, 1, 0, DATA)
    assert sorted(contents(tmp_path / "logs")) == ["a/b/models/opt.json", "a/b/run.json"]


def test_opt_json_has_the_options_flat(tmp_path):
    folder = make_run(tmp_path)
    assert json.loads((folder / "models" / "opt.json").read_text()) == OPTIONS | {
        "data_path": "data/kitti",
        "frame_ids": [0, -1, 1],
    }


@pytest.mark.parametrize("name", ["", ".", "..", "a/../..", "/tmp/a"])
def test_a_name_leads_to_a_folder_in_the_log_dir(tmp_path, name):
    assert "--model_name" in refusal(lambda: open_run(tmp_path, name, OPTIONS))


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "run").touch()
    text = refusal(lambda: open_run(tmp_path, "run", OPTIONS))
    assert text.startswith(f"{tmp_path / 'run'}: not a folder")


def test_a_folder_without_a_run_is_taken_and_its_files_stay(tmp_path):
    (tmp_path / "run" / "models").mkdir(parents=True)
    (tmp_path / "run" / "train").mkdir()
    (tmp_path / "run" / "train" / "mine").touch()
    for overwrite in (False, True):
        run = open_run(tmp_path, "run", OPTIONS, overwrite=overwrite)
        assert not run.replaces
    run.begin(CPU, 1, 0, DATA)
    assert (tmp_path / "run" / "train" / "mine").exists()


def test_what_a_run_returns_goes_to_other_processes(tmp_path):
    run = open_run(tmp_path, "run", OPTIONS)
    assert pickle.loads(pickle.dumps(run)) == run


# A run that is there


def test_a_run_is_left_alone(tmp_path):
    folder = make_run(tmp_path)
    before = contents(folder)
    text = refusal(lambda: open_run(tmp_path, "run", OPTIONS))
    assert text.startswith(f"{folder}: holds a run already")
    assert all(way in text for way in ("--resume auto", "--overwrite", "--model_name"))
    (folder / "models" / "opt.json").unlink()  # its checkpoints are a run as well
    refusal(lambda: open_run(tmp_path, "run", OPTIONS))
    assert contents(folder) == {key: before[key] for key in before if "opt.json" not in key}


def test_overwriting_removes_the_run_and_nothing_else(tmp_path):
    folder = make_run(tmp_path)
    (folder / "notes.txt").write_text("mine")
    (folder / "figures").mkdir()
    (folder / "figures" / "a.png").touch()
    before = contents(folder)
    run = open_run(tmp_path, "run", OPTIONS, overwrite=True)
    assert contents(folder) == before  # what follows may still find a mistake
    run.begin(CPU, 1, 0, DATA)
    after = contents(folder)
    assert sorted(after) == ["figures/a.png", "models/opt.json", "notes.txt", "run.json"]
    assert len(json.loads(after["run.json"])["starts"]) == 1


def test_overwriting_follows_no_link(tmp_path):
    folder = make_run(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").touch()
    shutil.rmtree(folder / "train")
    (folder / "train").symlink_to(tmp_path / "elsewhere")
    open_run(tmp_path, "run", OPTIONS, overwrite=True).begin(CPU, 1, 0, DATA)
    assert (tmp_path / "elsewhere" / "mine").exists() and not (folder / "train").exists()


def test_killed_while_overwriting_it_is_still_a_run(tmp_path, monkeypatch):
    """Else the checkpoints that are left would be taken for those of the new run."""

    class Killed(BaseException):
        pass

    for count in range(1, 20):
        folder = make_run(tmp_path, str(count))
        removed = 0
        remove = run_folder._remove

        def dying(path, limit=count, remove=remove):
            nonlocal removed
            removed += 1
            if removed == limit:
                raise Killed
            remove(path)

        with monkeypatch.context() as patch:
            patch.setattr(run_folder, "_remove", dying)
            try:
                open_run(tmp_path, str(count), OPTIONS, overwrite=True).begin(CPU, 1, 0, DATA)
                break
            except Killed:
                assert "already" in refusal(lambda n=str(count): open_run(tmp_path, n, OPTIONS))
        assert (folder / "models" / "opt.json").exists()
    assert count > 6


def test_resuming_and_overwriting_exclude_each_other(tmp_path):
    make_run(tmp_path)
    text = refusal(lambda: open_run(tmp_path, "run", OPTIONS, "auto", overwrite=True))
    assert "--resume" in text and "--overwrite" in text


# Going on


def test_auto_goes_on_or_begins(tmp_path):
    assert open_run(tmp_path, "run", OPTIONS, "auto").checkpoint is None
    folder = make_run(tmp_path, steps=())
    assert open_run(tmp_path, "run", OPTIONS, "auto").checkpoint is None  # killed before the first
    save(folder / "models", 0, 10)
    run = open_run(tmp_path, "run", OPTIONS, "auto")
    assert run.checkpoint == folder / "models" / "weights_0" and not run.replaces
    save(folder / "models", 0, 15, rolling=True)
    run = open_run(tmp_path, "run", OPTIONS, "auto")
    assert run.checkpoint == folder / "models" / "rolling_15"


def test_auto_takes_what_a_killed_process_had_put_aside(tmp_path):
    models = make_run(tmp_path, steps=(10,)) / "models"
    (models / "weights_0").rename(models / "weights_0.old")
    run = open_run(tmp_path, "run", OPTIONS, "auto")
    assert run.checkpoint == models / "weights_0"


def test_auto_does_not_begin_anew_over_broken_checkpoints(tmp_path, caplog):
    models = make_run(tmp_path, steps=(10,)) / "models"
    (models / "weights_0" / "depth.pth").unlink()
    text = refusal(lambda: open_run(tmp_path, "run", OPTIONS, "auto"))
    assert text.startswith(f"{models}: none of its checkpoints") and "--overwrite" in text
    assert "depth.pth" in caplog.text


@pytest.mark.parametrize(
    ("place", "found"),
    [
        (".", "weights_1"),
        ("models", "weights_1"),
        ("models/weights_0", "weights_0"),
        ("models/weights_1", "weights_1"),
    ],
)
def test_a_path_is_a_checkpoint_or_a_run(tmp_path, place, found):
    folder = make_run(tmp_path)
    for name in ("run", "another"):
        run = open_run(tmp_path, name, OPTIONS, str(folder / place))
        assert run.folder == tmp_path / name
        assert run.checkpoint.samefile(folder / "models" / found)


def test_a_checkpoint_that_is_not_the_furthest_is_remarked(tmp_path, caplog):
    folder = make_run(tmp_path)
    open_run(tmp_path, "run", OPTIONS, str(folder / "train" / ".." / "models" / "weights_1"))
    open_run(tmp_path, "another", OPTIONS, str(folder / "models" / "weights_0"))
    assert caplog.text == ""
    open_run(tmp_path, "run", OPTIONS, str(folder / "models" / "weights_0"))
    assert "weights_1 stays, and --resume auto would take it" in caplog.text


def test_a_path_without_a_checkpoint_is_named(tmp_path):
    folder = make_run(tmp_path, steps=(10,))
    checkpoint = folder / "models" / "weights_0"
    (checkpoint / TRAINING_STATE).unlink()
    (tmp_path / "file").touch()
    for path, what in (
        (tmp_path / "missing", "no such folder"),
        (tmp_path / "file", "not a folder"),
        (folder / "train", "holds no checkpoint"),
        (folder, "holds no checkpoint"),
        (checkpoint, "has weights but no training state (training_state.pth): start from it with"),
    ):
        text = refusal(lambda path=path: open_run(tmp_path, "b", OPTIONS, str(path)))
        assert text.startswith(f"{path}: {what}")


def test_two_runs_are_not_mixed(tmp_path):
    first, second = make_run(tmp_path, "first"), make_run(tmp_path, "second")
    text = refusal(lambda: open_run(tmp_path, "second", OPTIONS, str(first)))
    assert text.startswith(f"{second}: holds a run already, and {first}") and "model_name" in text


# The same options


def change(**changes):
    return OPTIONS | changes


@pytest.mark.parametrize(
    ("changes", "was", "now"),
    [
        ({"learning_rate": 1e-3}, "0.0001", "0.001"),
        ({"frame_ids": [0, -1]}, "0 -1 1", "0 -1"),
        ({"use_ekf": True}, "off", "on"),
        ({"split": "odom"}, "not given", "odom"),
        ({"height": 96, "split": "odom"}, "192", "96"),  # the first of two
        ({"frame_ids": []}, "0 -1 1", "empty"),
    ],
)
@pytest.mark.parametrize("resume", ["auto", "path"])
def test_what_decides_what_is_trained_has_to_stay(tmp_path, changes, was, now, resume):
    folder = make_run(tmp_path)
    before = contents(folder)
    where = "auto" if resume == "auto" else str(folder)
    text = refusal(lambda: open_run(tmp_path, "run", change(**changes), where))
    name = next(iter(changes))
    assert text.startswith(
        f"{folder / 'models' / 'opt.json'}: --{name} was {was} and is {now} now:"
    )
    assert contents(folder) == before


@pytest.mark.parametrize("name", sorted(MAY_CHANGE))
def test_the_rest_may_change(tmp_path, name):
    make_run(tmp_path, options=change(**{name: 1}), steps=(10,))
    run = open_run(tmp_path, "run", change(**{name: 2}), "auto")
    assert run.checkpoint is not None
    run.begin(CPU, 1, 10, DATA)
    assert json.loads((run.models / "opt.json").read_text())[name] == 2


def test_options_of_another_version_say_nothing(tmp_path):
    make_run(tmp_path, options=change(of_old=1))
    assert open_run(tmp_path, "run", change(of_new=1), "auto").checkpoint is not None


def test_paths_and_tuples_are_equal_to_what_was_written(tmp_path):
    folder = make_run(tmp_path)
    written = json.loads((folder / "models" / "opt.json").read_text())
    for options in (OPTIONS, written):
        assert open_run(tmp_path, "run", options, "auto").checkpoint is not None


def test_without_a_record_the_options_are_not_compared(tmp_path, caplog):
    folder = make_run(tmp_path)
    (folder / "models" / "opt.json").unlink()
    run = open_run(tmp_path, "run", change(height=96), "auto")
    assert run.checkpoint is not None and "opt.json: no such file" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[1]", "\xff"])
def test_a_broken_record_is_named(tmp_path, content):
    folder = make_run(tmp_path)
    (folder / "models" / "opt.json").write_text(content, encoding="latin-1")
    text = refusal(lambda: open_run(tmp_path, "run", OPTIONS, "auto"))
    assert text.startswith(f"{folder / 'models' / 'opt.json'}: not a JSON object")


# What is on record


def test_every_start_is_on_record(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "--model_name", "a b"])
    before = datetime.now(timezone.utc) - timedelta(seconds=1)
    folder = make_run(tmp_path)
    run = open_run(tmp_path, "run", change(num_epochs=40), "auto")
    run.begin(CPU, 2, 20, DATA)
    first, second = json.loads((folder / "run.json").read_text())["starts"]
    for start in (first, second):
        time = datetime.fromisoformat(start["time"])
        assert before <= time <= datetime.now(timezone.utc)
        assert start["command"] == "train.py --model_name 'a b'"
        assert start["data"] == DATA
        versions = start["versions"]
        assert versions["torch"] == torch.__version__ and versions["device"] == "cpu"
        assert all(versions[name] for name in ("python", "torchvision", "numpy", "system"))
    assert (first["processes"], first["step"], first["checkpoint"]) == (1, 0, None)
    assert (second["processes"], second["step"]) == (2, 20)
    assert second["checkpoint"] == str(folder / "models" / "weights_1")
    assert [start["options"]["num_epochs"] for start in (first, second)] == [30, 40]


def test_the_device_is_named(tmp_path, device):
    run = open_run(tmp_path, "run", OPTIONS)
    run.begin(device, 1, 0, DATA)
    (start,) = json.loads((run.folder / "run.json").read_text())["starts"]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    assert start["versions"]["device"] == name


def test_a_package_that_is_missing_has_no_version():
    assert run_folder._version_of("no-such-package-at-all") is None


@pytest.mark.parametrize("content", ["{", '{"starts": 1}', "{}"])
def test_a_broken_history_is_named_and_kept(tmp_path, content):
    folder = make_run(tmp_path)
    (folder / "run.json").write_text(content)
    run = open_run(tmp_path, "run", OPTIONS, "auto")
    text = refusal(lambda: run.begin(CPU, 1, 20, DATA))
    assert text.startswith(f"{folder / 'run.json'}: not ") and "move it away" in text
    assert (folder / "run.json").read_text() == content


def test_a_disk_that_is_full_leaves_the_record(tmp_path, monkeypatch):
    folder = make_run(tmp_path)
    before = contents(folder)
    run = open_run(tmp_path, "run", OPTIONS, "auto")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError) as error:
        run.begin(CPU, 1, 20, DATA)
    assert error.value.filename == str(folder / "run.json")
    assert contents(folder) == before


def git(folder, *command):
    subprocess.run(["git", "-C", str(folder), *command], check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # of a hook that runs these tests
    if shutil.which("git") is None:
        pytest.skip("no git here")
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "a.py")
    author = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    git(tmp_path, *author, "commit", "-qm", "first")
    return tmp_path


def test_the_commit_and_changes_to_it_are_found(clone):
    state = run_folder._git_state(clone)
    assert len(state["commit"]) == 40 and state["dirty"] is False
    (clone / "results.txt").touch()
    assert run_folder._git_state(clone) == state
    (clone / "a.py").write_text("2")
    assert run_folder._git_state(clone) == state | {"dirty": True}


def test_an_archive_in_somebody_elses_clone_has_no_commit(clone):
    (clone / "program").mkdir()
    assert run_folder._git_state(clone / "program") is None


@pytest.mark.parametrize(
    "error", [FileNotFoundError("git"), subprocess.TimeoutExpired("git", 1), UnicodeError()]
)
def test_without_git_there_is_no_commit_and_no_error(clone, monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(run_folder.subprocess, "run", fails)
    assert run_folder._git_state(clone) is None


def test_lists_in_a_folder_may_move_with_the_data_but_not_change(tmp_path):
    folder = make_run(tmp_path, options=OPTIONS | {"split": "/old/splits"})
    moved = open_run(tmp_path, "run", OPTIONS | {"split": "/new/splits"}, resume="auto")
    other = DATA | {"train": {"fingerprint": "cd34", "samples": 99}}
    text = refusal(lambda: moved.begin(CPU, 1, 20, other))
    assert "its train data had the fingerprint ab12 with 100 samples" in text
    assert "cd34 with 99 now" in text
    assert len(json.loads((folder / "run.json").read_text())["starts"]) == 1
    moved.begin(CPU, 1, 20, DATA)
    assert len(json.loads((folder / "run.json").read_text())["starts"]) == 2


# Two trainings


def test_a_folder_that_a_training_holds_is_refused_and_its_unfinished_files_stay(tmp_path):
    folder = make_run(tmp_path)
    unfinished = folder / "models" / "rolling_30.tmp"
    unfinished.mkdir()
    with held(folder):
        for how in ({"resume": "auto"}, {"overwrite": True}, {}):
            text = refusal(lambda how=how: open_run(tmp_path, "run", OPTIONS, **how))
            assert text.startswith(f"{folder}: another training is writing to it")
        assert unfinished.is_dir()
    open_run(tmp_path, "run", OPTIONS, resume="auto")
    assert not unfinished.exists()


def test_of_two_that_begin_at_once_the_second_is_refused(tmp_path):
    first, second = (open_run(tmp_path, "run", OPTIONS) for _ in range(2))
    first.begin(CPU, 1, 0, DATA)
    assert "another training has begun" in refusal(lambda: second.begin(CPU, 1, 0, DATA))
    assert len(json.loads((first.folder / "run.json").read_text())["starts"]) == 1
