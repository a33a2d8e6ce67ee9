"""Processes that train together: what they exchange, who comes first, and how they end."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from training import distributed
from training.distributed import (
    MainProcessError,
    World,
    agree,
    gather,
    join,
    joined,
    leave,
    main_first,
)
from utils import UserError

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def start_world(function: Callable, folder: Path, size: int = 2) -> list[subprocess.Popen]:
    """Start processes as torchrun does, each of which calls a function of a test module.

    It gets the world and the folder, and what it returns is written to RANK.pth in the folder.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    name = f"{function.__module__}:{function.__name__}"
    code = f"import tests.test_distributed as t; t.run_in_world({name!r}, {str(folder)!r})"
    processes = []
    for rank in range(size):
        places = {
            "RANK": rank,
            "WORLD_SIZE": size,
            "LOCAL_RANK": rank,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": 1,
        }
        environment = os.environ | {key: str(value) for key, value in places.items()}
        command = [sys.executable, "-c", code]
        processes.append(
            subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        )
    return processes


def run_in_world(name: str, folder: str) -> None:
    """Call a function; this is what the processes of `start_world` do."""
    module, function = name.split(":")
    with joined(no_cuda=True) as world:
        result = getattr(importlib.import_module(module), function)(world, Path(folder))
        torch.save(result, Path(folder) / f"{world.rank}.pth")
    assert not torch.distributed.is_initialized()


def in_world(function: Callable, folder: Path, size: int = 2) -> list[Any]:
    """Return what a function returns in each of the processes of a world."""
    processes = start_world(function, folder, size)
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * size, "\n".join(errors)
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in range(size)]


# One process


@pytest.fixture
def no_torchrun(monkeypatch):
    for name in PLACE:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that there are two GPUs; return the list of those that became the default one."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def torchrun(monkeypatch, rank: int, size: int, local_size: int | None = None) -> None:
    for name, value in zip(PLACE, (rank, size, rank, local_size), strict=True):
        if value is not None:
            monkeypatch.setenv(name, str(value))


def test_without_torchrun_a_process_is_alone_on_the_first_gpu(no_torchrun, gpus):
    assert join(no_cuda=False) == World(0, 1, torch.device("cuda", 0))
    assert gpus == [torch.device("cuda", 0)]
    assert join(no_cuda=True) == ALONE
    assert len(gpus) == 1


def test_where_there_is_no_gpu_it_is_alone_on_the_cpu(no_torchrun, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with joined(no_cuda=False) as world:
        assert world == ALONE and world.main
        assert not torch.distributed.is_initialized()


def test_a_world_of_one_by_torchrun_needs_no_exchange(no_torchrun, monkeypatch):
    torchrun(monkeypatch, 0, 1, 1)
    assert join(no_cuda=True) == ALONE
    assert not torch.distributed.is_initialized()


def test_only_the_first_process_is_the_main_one():
    assert [World(rank, 3, CPU).main for rank in range(3)] == [True, False, False]


@pytest.mark.parametrize("local_size", [None, 3])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_too_few_gpus_are_said_in_one_line(no_torchrun, gpus, monkeypatch, rank, local_size):
    torchrun(monkeypatch, rank, 3, local_size)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch.distributed, "new_group", lambda **_: None)
    if local_size is None and rank < 2:
        assert join(no_cuda=False) == World(rank, 3, torch.device("cuda", rank))
        return
    with pytest.raises(UserError, match="3 processes .* GPUs for 2: .* 2, or --no_cuda") as error:
        join(no_cuda=False)
    assert "\n" not in str(error.value)
    assert gpus == []
    assert join(no_cuda=True).device == CPU


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_gpus_exchange_over_nccl_and_cpus_over_gloo(no_torchrun, gpus, monkeypatch, device):
    torchrun(monkeypatch, 1, 2, 2)
    started = []
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda name, **how: started.append((name, how))
    )
    monkeypatch.setattr(torch.distributed, "new_group", lambda **how: how["backend"])
    world = join(no_cuda=device == "cpu")
    ((backend, how),) = started
    assert backend == {"cuda": "nccl", "cpu": "gloo"}[device]
    assert (how["rank"], how["world_size"]) == (1, 2)
    assert (world.device.type, world.host_group) == (device, "gloo")
    assert gpus == [torch.device("cuda", 1)] * (device == "cuda")


def test_half_of_an_environment_is_refused(no_torchrun, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="RANK is set .* but WORLD_SIZE is not: .* torchrun"):
        join(no_cuda=True)


@pytest.mark.parametrize("rank", ["one", "-1", ""])
def test_a_place_that_is_no_number_is_refused(no_torchrun, monkeypatch, rank):
    torchrun(monkeypatch, 0, 2)
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(UserError, match=f"RANK in the environment: .* got '{rank}'"):
        join(no_cuda=True)


def test_in_a_world_of_one_nothing_is_exchanged():
    assert agree([True, False], ALONE) == [True, False]
    assert gather("state", ALONE) == ["state"]
    with main_first(ALONE):
        pass
    with pytest.raises(KeyError), main_first(ALONE):
        raise KeyError
    leave(ALONE)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_gpu_that_failed_is_not_waited_for(monkeypatch, device):
    left = []
    world = World(0, 2, torch.device(device))
    monkeypatch.setattr(distributed, "join", lambda no_cuda: world)
    monkeypatch.setattr(distributed, "leave", left.append)
    with pytest.raises(KeyError), joined(no_cuda=False):
        raise KeyError
    assert left == ([] if device == "cuda" else [world])
    with joined(no_cuda=False):
        left.clear()
    assert left == [world]


# Two processes


def _exchange(world: World, folder: Path) -> dict:
    first, second = [[True, False, False], [True, True, False]][world.rank], world.rank == 1
    result = {
        "world": [world.rank, world.size, world.device.type, world.main],
        "agreed": [agree(first, world), agree([second], world), agree([False], world)],
        "gathered": gather({"rng": torch.arange(world.rank + 1), "step": world.rank}, world),
    }
    made = folder / "made"
    with main_first(world):
        result["found"] = made.exists()
        if world.main:
            time.sleep(0.3)  # the other would be long past it
            made.touch()
    result["failures"] = [
        _failure(error, world)
        for error in (UserError("a.png: broken"), OSError(28, "No space", "b"), KeyError("c"))
    ]
    result["after"] = gather(world.rank, world)  # who failed and who heard of it can go on
    return result


def _failure(error: Exception, world: World) -> list:
    began = False
    try:
        with main_first(world):
            began = True
            raise error
    except Exception as raised:
        return [began, type(raised).__name__, str(raised)]
    return []


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory) -> list[dict]:
    return in_world(_exchange, tmp_path_factory.mktemp("world"))


def test_each_process_knows_its_place(exchanged):
    assert [result["world"] for result in exchanged] == [[0, 2, "cpu", True], [1, 2, "cpu", False]]


def test_what_one_process_says_all_hear(exchanged):
    for result in exchanged:
        assert result["agreed"] == [[True, True, False], [True], [False]]


def test_states_are_gathered_by_rank(exchanged):
    for result in exchanged:
        assert [state["step"] for state in result["gathered"]] == [0, 1]
        assert [state["rng"].tolist() for state in result["gathered"]] == [[0], [0, 1]]


def test_the_others_find_what_the_main_process_made(exchanged):
    assert [result["found"] for result in exchanged] == [False, True]


def test_a_failure_of_the_main_process_ends_the_wait_of_the_others(exchanged):
    main, other = (result["failures"] for result in exchanged)
    assert [(began, kind) for began, kind, _ in main] == [
        (True, "UserError"),
        (True, "OSError"),
        (True, "KeyError"),
    ]
    message = "process 1 ends because process 0 failed: "
    assert other == [
        [False, "MainProcessError", message + "a.png: broken"],
        [False, "MainProcessError", message + "b: no space"],
        [False, "MainProcessError", message + "KeyError: 'c'"],
    ]
    assert issubclass(MainProcessError, UserError)
    assert [result["after"] for result in exchanged] == [[0, 1], [0, 1]]


def _vanish(world: World, folder: Path) -> None:
    if world.main:
        with main_first(world):
            os._exit(9)
    with main_first(world):
        (folder / "went on").touch()


def test_nobody_waits_for_a_process_that_is_gone(tmp_path):
    processes = start_world(_vanish, tmp_path)
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert processes[0].returncode == 9
    assert processes[1].returncode == 1
    # Which of the two depends on where it was when the other went.
    assert "RuntimeError" in errors[1] or "DistNetworkError" in errors[1]
    assert list(tmp_path.iterdir()) == []
