"""What the README and the pages in docs tell a newcomer to type exists and works."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest

import options
from benchmarks import demo
from splits import make_splits
from training.step import MASK_WEIGHT, weights_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = "\n".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))
)
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE).group(1).split())

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES, re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    inline = re.findall(r"`((?:make|python|python3|pip|\.venv/bin/\w+) [^`]+)`", PAGES)
    return [line for line in lines if line] + inline


def make(*arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    run = subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def check_make(words: list[str]) -> None:
    """A target of the Makefile, with values of its variables; the demo reads its options."""
    assert {word for word in words if "=" not in word} <= TARGETS
    for word in words:
        if word.startswith("DEMO="):
            demo.parse(word.removeprefix("DEMO=").split())


def check_pip(words: list[str]) -> None:
    assert words[0] == "install"
    for option, value in zip(words[1::2], words[2::2], strict=True):
        assert option in ("-r", "-c")
        assert (ROOT / value).is_file()


def check_program(name: str, arguments: list[str]) -> None:
    """A program of ours reads its command line; the paths in it are the reader's own."""
    if name == "splits/make_splits.py":
        assert make_splits.main([*arguments, "--check"]) == 0  # so that it never writes here
    else:
        getattr(options, name.removesuffix(".py"))(arguments)


def check_torchrun(words: list[str]) -> None:
    """One of our programs is started several times; what comes behind its name is for it."""
    assert words[0] == "--nproc_per_node" and int(words[1]) > 1
    assert (ROOT / words[2]).is_file()
    check_program(words[2], words[3:])


def check_module(python: str, name: str, arguments: list[str]) -> None:
    """A module is there; where it is to be run, not only named, ours read their command lines."""
    assert importlib.util.find_spec(name) is not None
    if python == ".venv/bin/python" and name.startswith("datasets."):
        check_program(name.removeprefix("datasets."), arguments)


def check_shell(command: str) -> None:
    """The shell understands a line, and our files in it are there; it is not run."""
    subprocess.run(["sh", "-n", "-c", command], check=True)
    for path in re.findall(r"\bsplits/\S+", command):
        assert (ROOT / path).is_file()
    offered = (ROOT / "splits" / "kitti_archives_to_download.txt").read_text(encoding="utf-8")
    for archive in re.findall(r"/(\w+\.zip)", command):
        assert f"/{archive}\n" in offered


@pytest.mark.parametrize("command", commands())
def test_every_command_exists(command, monkeypatch):
    monkeypatch.chdir(ROOT)  # where the reader is; configs are read from there
    words = command.split(" | ")[0].split()
    if words[0] == "make":
        check_make(shlex.split(command, comments=True)[1:])
    elif words[0] == "pip":
        check_pip(words[1:])
    elif words[:3] == ["python3", "-m", "venv"]:
        assert words[3:] == [".venv"]
    elif words[1:3] == ["-m", "pip"]:
        check_pip(words[3:])
    elif words[1] == "-m":
        check_module(words[0], words[2], words[3:])
    elif words[0] in ("mkdir", "wget", "for", "grep", "unzip"):
        check_shell(command)
    elif words[0] == ".venv/bin/torchrun":
        check_torchrun(words[1:])
    elif words == ["python", "train.py", "--help"]:  # how the program calls itself
        assert (ROOT / words[1]).is_file()
    elif words[0] == ".venv/bin/python":
        check_program(words[1], words[2:])
    else:
        pytest.fail(f"no test knows how to check: {command}")


def test_options_of_training_are_there_and_their_defaults_are_those_that_are_named():
    defaults = vars(options.train([]))
    training = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    section = README.split("\n## Train\n")[1].split("\n## ")[0]
    for text, count in ((training, 20), (section, 2)):
        outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        named = set(re.findall(r"`--(\w+)[ `]", outside)) - {"help"}
        assert named <= set(defaults), f"no options: {named - set(defaults)}"
        shown = re.findall(r"`--(\w+)` \(([\d.]+)[,)]", outside)
        assert len(shown) >= count
        for name, value in shown:
            assert float(value) == defaults[name], name


def test_the_table_of_losses_is_that_of_the_program():
    training = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    table = training.split("| term | weight |")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE))
    all_on = Namespace(**{name: 1 for name in vars(options.train([]))})
    assert set(rows) == set(weights_of(all_on))
    weights = weights_of(options.train(["--use_ekf"]))
    for name, cell in rows.items():
        number = float(re.search(r"(?:\(|^)([\d.]+)", cell)[1])
        assert number == (MASK_WEIGHT if name == "mask" else weights.get(name, 0)), name


def test_there_is_something_to_check_and_nothing_that_is_not():
    assert len(commands()) >= 8
    assert len(blocks("python")) >= 2
    assert not re.findall(r"^[A-Z]+$", PAGES, re.MULTILINE)  # what was to be filled in
    assert set(re.findall(r"^```(\w+)$", PAGES, re.MULTILINE)) == {"bash", "python"}


@pytest.mark.parametrize("code", blocks("python"))
def test_every_example_runs_and_its_shapes_are_as_the_comments_say(code):
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    shapes = re.findall(r"^(\w+)(?:, \w+)* = .*# \(([\d, ]+)\)", code, re.MULTILINE)
    assert len(shapes) >= 5
    for name, shape in shapes:
        assert tuple(names[name].shape) == tuple(int(n) for n in shape.split(", ")), name


@needs_make
def test_make_lists_its_commands():
    printed = make("help")
    for target in TARGETS - {"anew"}:
        assert f"  make {target}: " in printed


@needs_make
def test_make_test_lints_and_tests_and_continuous_integration_runs_it_alone():
    lines = make("-n", "test").splitlines()
    for end in ("-m ruff check .", "-m ruff format --check .", "--numprocesses 2 --dist loadfile"):
        assert any(line.endswith(end) for line in lines), end
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert script[-1] == "make test"
    assert "set -euo pipefail" in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
