"""The rules of the house that can be read off the files: which room may import which."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each room and the rooms it may import. A new room takes its place here, with no arrow back up.
ROOMS: dict[str, set[str]] = {
    "liegroups": set(),
    "layers": {"liegroups"},
    "ekf": {"liegroups"},
    "similarity": {"liegroups", "layers"},
    "losses": {"liegroups", "similarity"},
    "metrics": set(),
    "utils": set(),
    "networks": {"layers", "losses", "ekf", "utils"},
    "splits": set(),
    "option_groups": set(),
    "options": {"option_groups"},
    "datasets": {"liegroups", "ekf", "utils", "options"},
    "training": {
        *("liegroups", "layers", "ekf", "losses", "metrics", "utils", "networks", "datasets"),
    },
    "evaluation": {
        *("liegroups", "ekf", "losses", "metrics", "utils", "networks", "datasets", "training"),
    },
    "trainer": {"utils", "networks", "datasets", "training"},
    "train": {"options", "datasets", "training", "trainer"},
    "match_kitti_imu": {"options", "datasets"},
    "make_synthetic_kitti": {"options", "datasets"},
    "evaluate_depth": {"options", "datasets", "evaluation"},
    "evaluate_make3d": {"options", "datasets", "evaluation"},
    "evaluate_odometry": {"options", "datasets", "evaluation"},
    "export_gt_depth": {"options", "datasets", "evaluation"},
    "predict": {"options", "datasets", "evaluation"},
    "benchmarks": {
        *("liegroups", "layers", "ekf", "losses", "metrics", "utils", "networks"),
        *("options", "datasets", "training", "evaluation"),
        *("make_synthetic_kitti", "match_kitti_imu"),
    },
}
NOT_ROOMS = {"tests", "data", "runs"}
NO_CODE = {"configs"}


def sources(room: str) -> list[Path]:
    return (
        [ROOT / f"{room}.py"] if (ROOT / f"{room}.py").exists() else [*(ROOT / room).rglob("*.py")]
    )


def modules(room: str) -> list[str]:
    paths = [path.relative_to(ROOT).with_suffix("") for path in sources(room)]
    return [".".join(path.parts).removesuffix(".__init__") for path in paths]


def existing_rooms() -> set[str]:
    files = {path.stem for path in ROOT.glob("*.py")}
    folders = {path.parent.name for path in ROOT.glob("*/*.py")}
    return {name for name in files | folders if not name.startswith(".")} - NOT_ROOMS


def imported_names(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}: import *"
            names.add(node.module.split(".")[0])
    return names


def test_the_rooms_here_in_the_readme_and_on_disk_are_the_same():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    layout = readme.split("## Layout")[1].split("\n## ")[0]
    in_readme = re.findall(r"^\| `(\w+)(?:\.py|/)` \|", layout, re.MULTILINE)
    assert existing_rooms() == set(ROOMS)
    assert set(in_readme) == set(ROOMS) | {"tests"} | NO_CODE
    assert all((ROOT / name).is_dir() for name in NO_CODE)
    for room, needs in ROOMS.items():  # the README says: a room imports only rooms above it
        above = in_readme[: in_readme.index(room)]
        assert needs <= set(above), f"{room} stands above {needs - set(above)}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room):
    for path in sources(room):
        forbidden = (imported_names(path) & (set(ROOMS) | {"tests"})) - ROOMS[room] - {room}
        assert not forbidden, f"{path.name} imports {forbidden}"


def test_in_datasets_only_command_lines_know_of_options():
    for path in sources("datasets"):
        runs = 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
        assert runs == ("options" in imported_names(path)), path


def test_the_lie_groups_need_nothing_but_torch():
    for path in sources("liegroups"):
        assert imported_names(path) - sys.stdlib_module_names <= {"torch", "liegroups"}, path


def test_the_rooms_form_no_circle():
    settled: set[str] = set()
    while settled != set(ROOMS):
        ready = {room for room, needs in ROOMS.items() if needs <= settled} - settled
        assert ready, f"a circle among {set(ROOMS) - settled}"
        settled |= ready


IMPORTS = """
import json, os, sys, traceback
import torch, torchvision  # what takes seconds is imported once, and each room in a copy of that
found = {}
for room, modules in json.loads(sys.argv[1]).items():
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 1), os.dup2(write, 2)
        try:
            for module in modules:
                __import__(module)
            status = int(torch.cuda.is_initialized())
        except BaseException:
            traceback.print_exc()
            status = 2
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    os.close(write)
    with os.fdopen(read) as pipe:
        printed = pipe.read()
    found[room] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), printed
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, list]:
    """Return for each room the exit code of a process that imports all of it, and its output."""
    rooms = json.dumps({room: modules(room) for room in ROOMS})
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", IMPORTS, rooms],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("room", ROOMS)
def test_importing_a_room_prints_nothing_and_leaves_the_gpu_alone(room, imported):
    assert imported[room] == [0, ""]


def test_every_module_has_its_tests():
    for room in ROOMS:
        for path in sources(room):
            if path.stem != "__init__" and room != "benchmarks":
                assert (ROOT / "tests" / f"test_{path.stem}.py").exists(), path
