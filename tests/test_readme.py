"""What the README tells a newcomer to type works, and its requirements are what it says."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    inline = re.findall(r"`(make [^`]+|pip install [^`]+)`", README)
    return [line for line in lines if line] + inline


def requirements(name: str) -> list[Requirement]:
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-r")]


@pytest.mark.parametrize("command", commands())
def test_every_command_exists(command):
    words = command.split()
    if words[0] == "make":
        if shutil.which("make") is None:
            pytest.skip("no make here")
        targets = [word for word in words[1:] if "=" not in word]
        run = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
    elif words[:3] == ["python3", "-m", "venv"]:
        assert words[3:] == [".venv"]
    elif "pip" in words:
        assert all((ROOT / word).exists() for word in words if word.endswith(".txt"))
    elif words[:2] == [".venv/bin/python", "-m"]:
        assert importlib.util.find_spec(words[2]) is not None
    else:
        pytest.fail(f"no test knows how to check: {command}")


def test_there_is_something_to_check():
    assert len(commands()) >= 6
    assert len(blocks("python")) >= 2


@pytest.mark.parametrize("code", blocks("python"))
def test_every_example_runs_and_its_shapes_are_as_the_comments_say(code):
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    shapes = re.findall(r"^(\w+)(?:, \w+)* = .*# \(([\d, ]+)\)", code, re.MULTILINE)
    assert len(shapes) >= 5
    for name, shape in shapes:
        assert tuple(names[name].shape) == tuple(int(n) for n in shape.split(", ")), name


def test_the_make_targets_that_are_documented_are_all_listed_by_make_help():
    if shutil.which("make") is None:
        pytest.skip("no make here")
    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    for target in ("demo", "test", "lint", "bench", "help"):
        assert f"  make {target}: " in printed


# Requirements


def test_the_ranges_admit_the_oldest_and_the_newest_pair():
    by_name = {
        requirement.name: requirement.specifier for requirement in requirements("requirements.txt")
    }
    for torch_version, torchvision_version in [("2.11.0", "0.26.0"), ("2.15.0", "0.29.2")]:
        assert torch_version in by_name["torch"]
        assert torchvision_version in by_name["torchvision"]
    assert "2.10.0" not in by_name["torch"]
    assert "opencv-python" not in by_name  # cv2 without a display


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_the_constraints_pin_one_version_within_the_ranges_for_every_python(python):
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    pins: dict[str, str] = {}
    for pin in requirements("constraints.txt"):
        if pin.marker is None or pin.marker.evaluate(environment):
            assert pin.name.lower() not in pins, f"two pins of {pin.name} for Python {python}"
            pins[pin.name.lower()] = str(pin.specifier).removeprefix("==")
    for requirement in requirements("requirements.txt") + requirements("requirements-dev.txt"):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert pins[requirement.name.lower()] in requirement.specifier, requirement.name


def test_what_is_installed_satisfies_the_requirements():
    for requirement in requirements("requirements.txt"):
        assert requirement.specifier.contains(version(requirement.name), prereleases=True)
    with pytest.raises(PackageNotFoundError):  # two packages that own cv2 break each other
        version("opencv-python")
