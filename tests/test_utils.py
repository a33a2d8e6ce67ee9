"""Generators come back as they were, files are whole or refused, and errors are one line."""

from __future__ import annotations

import errno
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import utils
from datasets.text import DataError
from utils import (
    UserError,
    check_intact,
    load_state,
    load_weights,
    rng_states,
    save_state,
    save_weights,
    seed_everything,
    set_rng_states,
)


def test_a_broken_file_of_data_is_a_mistake_of_the_user():
    assert issubclass(DataError, UserError) and issubclass(UserError, ValueError)


def refusal(call, kind=UserError) -> str:
    """Return the one line that a call is refused with."""
    with pytest.raises(kind) as error:
        call()
    text = str(error.value)
    assert text and "\n" not in text
    return text


# Random numbers


@pytest.fixture(autouse=True)
def _leaves_the_settings():
    states = rng_states()
    settings = os.environ.get("CUBLAS_WORKSPACE_CONFIG"), torch.backends.cudnn.benchmark
    yield
    set_rng_states(states)
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = settings[1]
    torch.backends.cudnn.deterministic = False
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    if settings[0] is not None:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = settings[0]


def draw(device=None) -> list[float]:
    """Draw from every generator, an odd number of normal ones: half a pair is kept for later."""
    drawn = [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()]
    drawn += torch.rand(3).tolist() + torch.randn(3, device=device).tolist()
    return drawn


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_seed_decides_all_generators(device, deterministic):
    seed_everything(3, deterministic)
    first = draw(device)
    seed_everything(4, deterministic)
    second = draw(device)
    seed_everything(3, deterministic)
    assert draw(device) == first
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_a_seed_may_be_large():
    seed_everything(2**32 + 3, False)
    assert len(set(draw())) == 10


def test_repeatable_or_fast():
    seed_everything(0, True)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()  # grid_sample has no such form
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    seed_everything(0, False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark and not torch.backends.cudnn.deterministic


def test_the_users_choice_for_cublas_stays(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    seed_everything(0, True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.parametrize("drawn_before", [0, 1, 2, 700])
def test_generators_go_on_where_they_were(tmp_path, device, drawn_before):
    seed_everything(1, False)
    for _ in range(drawn_before):
        draw(device)
    save_state(tmp_path / "rng.pth", rng_states())
    expected = [draw(device) for _ in range(3)]
    set_rng_states(load_state(tmp_path / "rng.pth"))
    assert [draw(device) for _ in range(3)] == expected


def test_states_are_of_their_time():
    states = rng_states()
    first = draw()
    draw()
    set_rng_states(states)
    assert draw() == first


def test_generators_of_missing_devices_are_passed_over(monkeypatch):
    given = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *args: given.append(args))
    set_rng_states(rng_states() | {"cuda": ["state of 0", "state of 1"]})
    assert given == [("state of 0", 0)]


@pytest.mark.parametrize(("used", "states"), [(False, []), (True, ["state of 0"])])
def test_a_gpu_that_was_not_used_is_not_asked(monkeypatch, used, states):
    """Asking would start CUDA, which takes memory of a GPU that others may use."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: ["state of 0"])
    assert rng_states()["cuda"] == states


# Files


def models_of(width=3, names=("encoder", "depth")) -> nn.ModuleDict:
    return nn.ModuleDict(
        {name: nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width)) for name in names}
    )


ENTRIES = {"height": 192, "width": 640, "use_stereo": False, "trans_scale_factor": 4.5}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(7)
    save_weights(tmp_path, models_of(), ENTRIES)
    return tmp_path


def test_weights_come_back(folder):
    torch.manual_seed(7)
    saved, loaded = models_of(), models_of()
    assert load_weights(loaded, folder, ["encoder", "depth"]) == ENTRIES
    for key, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    assert sorted(os.listdir(folder)) == ["depth.pth", "encoder.pth"]


def test_only_the_models_asked_for_are_loaded(folder):
    loaded = models_of()
    before = {key: value.clone() for key, value in loaded.state_dict().items()}
    assert load_weights(loaded, folder, ["depth"]) == {}
    same = {key: torch.equal(value, before[key]) for key, value in loaded.state_dict().items()}
    assert same["encoder.0.weight"] and not same["depth.0.weight"]


def test_the_files_are_those_of_the_published_programs(folder):
    encoder = torch.load(folder / "encoder.pth", weights_only=True)
    names = [f"0.{name}" for name in ("weight", "bias")]
    names += [f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    assert set(encoder) == {*names, "1.num_batches_tracked", *ENTRIES}
    assert {name: encoder[name] for name in ENTRIES} == ENTRIES
    assert not set(torch.load(folder / "depth.pth", weights_only=True)) & set(ENTRIES)


def test_compiled_models_have_their_own_names(tmp_path, folder):
    models = models_of()
    for model in models.values():
        model.compile()
    save_weights(tmp_path, models, ENTRIES)
    assert load_weights(models_of(), tmp_path, ["encoder", "depth"]) == ENTRIES


def test_weights_of_a_gpu_are_loaded_without_one(tmp_path, device):
    save_weights(tmp_path, models_of().to(device), {})
    state = torch.load(tmp_path / "depth.pth", weights_only=True)
    assert {value.device.type for value in state.values()} == {"cpu"}


def test_encoder_entries_may_be_missing(tmp_path):
    save_weights(tmp_path, models_of(), {"height": 96})
    assert load_weights(models_of(), tmp_path, ["encoder"]) == {"height": 96}


def test_weights_that_are_not_there_are_named(folder):
    models = models_of(names=("encoder", "depth", "pose", "velo"))
    text = refusal(lambda: load_weights(models, folder, ["depth", "pose", "velo"]))
    assert text == f"{folder}: has no pose.pth, velo.pth; its weights are depth.pth, encoder.pth"
    text = refusal(lambda: load_weights(models, folder, ["depth", "mask"]))
    assert text == "mask: not a model of this run, which has encoder, depth, pose, velo"
    text = refusal(lambda: load_weights(models, folder / "missing", ["depth"]))
    assert text == f"{folder / 'missing'}: no such folder"
    text = refusal(lambda: load_weights(models, folder / "depth.pth", ["depth"]))
    assert text == f"{folder / 'depth.pth'}: not a folder"
    (folder / "empty").mkdir()
    text = refusal(lambda: load_weights(models, folder / "empty", ["depth"]))
    assert text.endswith("has no depth.pth; its weights are none")


def test_the_first_wrong_shape_is_named_and_explained(folder):
    def explain(state):
        return f"It is for width {len(state['0.bias'])}" if len(state) == 7 else None

    text = refusal(lambda: load_weights(models_of(width=4), folder, ["encoder"], explain))
    assert text == (
        f"{folder / 'encoder.pth'}: does not fit the model encoder of this run: 0.weight is 3x2 "
        "there and 4x2 here, and 5 more differ. It is for width 3"
    )
    text = refusal(lambda: load_weights(models_of(width=4), folder, ["depth"]))
    assert text.endswith("4x2 here, and 5 more differ")


def test_an_explanation_may_have_nothing_to_say(folder):
    text = refusal(lambda: load_weights(models_of(4), folder, ["depth"], lambda _: None))
    assert text.endswith("differ")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda state: state.pop("0.bias"), "1 entry missing (first 0.bias)"),
        (lambda state: state.update(a=torch.ones(1)), "1 entry too many (first a)"),
        (lambda state: state.update(height=192), "height is int, not a tensor"),
        (
            lambda state: [state.update({f"m.{key}": state.pop(key)}) for key in list(state)],
            "6 entries missing (first 0.weight) and 7 entries too many (first m.0.weight)",
        ),
        (lambda state: state.update({"0.bias": torch.tensor(1.0)}), "0.bias is a number there "),
    ],
)
def test_entries_that_do_not_fit_are_counted(folder, change, fault):
    state = load_state(folder / "depth.pth")
    change(state)
    save_state(folder / "depth.pth", state)
    text = refusal(lambda: load_weights(models_of(), folder, ["depth"]))
    assert f"does not fit the model depth of this run: {fault}" in text


class _Reshaping(nn.Linear):
    """Takes a bias with one number for all, as of an older version."""

    def _load_from_state_dict(self, state_dict, prefix, *args):
        bias = state_dict[f"{prefix}bias"]
        if len(bias) == 1:
            state_dict[f"{prefix}bias"] = bias.expand(self.out_features)
        super()._load_from_state_dict(state_dict, prefix, *args)


def test_a_model_may_reshape_what_it_reads(tmp_path):
    models = nn.ModuleDict({"pose": _Reshaping(2, 3)})
    save_state(tmp_path / "pose.pth", {"weight": torch.ones(3, 2), "bias": torch.ones(1)})
    load_weights(models, tmp_path, ["pose"])
    assert torch.equal(models["pose"].bias, torch.ones(3))
    save_state(tmp_path / "pose.pth", {"bias": torch.ones(1), "weight": torch.ones(4, 2)})
    text = refusal(lambda: load_weights(models, tmp_path, ["pose"]))
    assert text.endswith("of this run: weight is 4x2 there and 3x2 here")


def test_any_other_trouble_of_a_model_is_one_line(tmp_path):
    class Failing(nn.Linear):
        def _load_from_state_dict(self, *args):
            raise RuntimeError("one\n\ttwo")

    save_state(tmp_path / "pose.pth", {})
    text = refusal(lambda: load_weights(nn.ModuleDict({"pose": Failing(1, 1)}), tmp_path, ["pose"]))
    assert text.endswith("of this run: one two")


# Files that are not what they should be


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_a_file_wants_to_run_is_refused(tmp_path, zipped):
    path, made = tmp_path / "a.pth", tmp_path / "made"
    torch.save({"a": Evil(made)}, path, _use_new_zipfile_serialization=zipped)
    text = refusal(lambda: load_state(path))
    assert text.startswith(f"{path}: refused, since it holds {os.mkdir.__module__}.mkdir, which is")
    assert not made.exists()
    torch.load(path, weights_only=False)
    assert made.exists()  # so it would have run


def test_a_plain_pickle_is_not_run(tmp_path):
    path, made = tmp_path / "a.pth", tmp_path / "made"
    path.write_bytes(pickle.dumps({"a": Evil(made)}))
    refusal(lambda: load_state(path))
    assert not made.exists()


def test_a_whole_module_is_refused_by_its_name(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "a.pth")
    assert "holds torch.nn.modules.linear.Linear, which" in refusal(
        lambda: load_state(tmp_path / "a.pth")
    )


@pytest.mark.parametrize("content", [b"", b"hello world", pickle.dumps(1, 4), b"\x89PNG\r\n\x1a\n"])
def test_what_pytorch_did_not_write_is_named(tmp_path, content, recwarn):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    text = refusal(lambda: load_state(path))
    assert text.startswith(f"{path}: ")
    assert "not a file that PyTorch wrote" in text or "holds int," in text
    assert not recwarn.list


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_off_anywhere_is_named(tmp_path, zipped):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(100)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for size in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:size])
        text = refusal(lambda: load_state(path))
        # Where it ends in a name, that of a stranger is left.
        assert "cut off or damaged" in text or (not zipped and "refused" in text)


@pytest.mark.parametrize("content", [[1], torch.ones(2), {1: torch.ones(2)}, None])
def test_what_is_no_dictionary_of_names_is_named(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    text = refusal(lambda: load_state(tmp_path / "a.pth"))
    assert f"holds {type(content).__name__}, expected tensors by name" in text


def test_a_missing_file_is_named(tmp_path):
    for path, what in ((tmp_path / "a.pth", "no such file"), (tmp_path, "not a file")):
        assert refusal(lambda path=path: load_state(path)) == f"{path}: {what}"
    assert refusal(lambda: check_intact(tmp_path / "a")) == f"{tmp_path / 'a'}: no such file"


def test_a_disk_that_cannot_be_read_is_named(folder, monkeypatch):
    def fails(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(utils.torch, "load", fails)
    monkeypatch.setattr(utils.zipfile, "ZipFile", fails)
    for read in (load_state, check_intact):
        with pytest.raises(OSError) as error:
            read(folder / "depth.pth")
        assert error.value.filename == str(folder / "depth.pth")


def test_any_changed_number_is_noticed(folder):
    path = folder / "depth.pth"
    check_intact(path)
    whole = path.read_bytes()
    place = whole.index(load_state(path)["0.weight"].numpy().tobytes())
    for i in range(place, place + 24):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        assert refusal(lambda: check_intact(path)).startswith(f"{path}: cut off or damaged")
    path.write_bytes(whole[:-100])
    assert "checksums" in refusal(lambda: check_intact(path))


@pytest.mark.parametrize("room", [10, 600, 100_000])
def test_a_disk_that_is_full_is_named_and_the_old_file_stays(tmp_path, monkeypatch, room):
    """Whether it is full at once or in the middle of a tensor."""
    path = tmp_path / "a.pth"
    save_state(path, {"a": torch.ones(1)})
    open_file = Path.open

    def open_on_small_disk(self, mode):
        file, left = open_file(self, mode, buffering=0), room

        class Small:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def write(self, data):
                nonlocal left
                left -= len(data)
                if left < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return file.write(data)

        return Small()

    monkeypatch.setattr(Path, "open", open_on_small_disk)
    with pytest.raises(OSError) as error:
        save_state(path, {"a": torch.ones(100_000)})
    monkeypatch.undo()
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(path))
    assert torch.equal(load_state(path)["a"], torch.ones(1)) and os.listdir(tmp_path) == ["a.pth"]


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        save_state(tmp_path / "missing" / "a.pth", {})
    assert "missing" in error.value.filename


def test_a_fault_of_our_own_is_no_full_disk(tmp_path):
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        save_state(tmp_path / "a.pth", {"a": lambda: 0})
    assert os.listdir(tmp_path) == []
