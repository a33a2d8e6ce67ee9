"""The requirement files say what the program needs, and the constraints fit them."""

from __future__ import annotations

import ast
import os
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.test_house import NOT_ROOMS, ROOMS, imported_names, sources

ROOT = Path(__file__).parent.parent
PACKAGE_OF = {"cv2": "opencv-python-headless", "PIL": "pillow", "skimage": "scikit-image"}


def requirements(name: str) -> dict[str, Requirement]:
    """Return the requirements of a file by name, those for this or any Python alike."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    lines = [line.split("#")[0].strip() for line in lines]
    found = [Requirement(line) for line in lines if line and not line.startswith("-r")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def pins(python: str) -> dict[str, str]:
    """Return the version that the constraints pin for a Python on Linux, by name."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }
    pinned: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate(environment):
            name = canonicalize_name(pin.name)
            assert name not in pinned, f"two pins of {name} for Python {python}"
            pinned[name] = str(pin.specifier).removeprefix("==")
    return pinned


def installed() -> dict[str, str]:
    """Return the version of every installed package by name."""
    return {canonicalize_name(d.metadata["Name"]): d.version for d in distributions()}


RUNTIME = requirements("requirements.txt")
OPTIONAL = requirements("requirements-onnx.txt")
DEVELOPMENT = requirements("requirements-dev.txt")


def test_the_ranges_admit_the_oldest_pair_and_the_newest_and_nothing_older():
    for torch_version, torchvision_version in [("2.11.0", "0.26.0"), ("2.15.0", "0.29.2")]:
        assert torch_version in RUNTIME["torch"].specifier
        assert torchvision_version in RUNTIME["torchvision"].specifier
    assert "2.10.0" not in RUNTIME["torch"].specifier
    assert "0.25.0" not in RUNTIME["torchvision"].specifier
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "from PyTorch 2.11 with torchvision 0.26" in readme.replace("\n", " ")


def test_everything_that_is_imported_is_required():
    for room in [*ROOMS, "tests"]:
        known = set(RUNTIME) | set(OPTIONAL) | (set(DEVELOPMENT) if room == "tests" else set())
        for path in sources(room):
            foreign = imported_names(path) - sys.stdlib_module_names - set(ROOMS) - NOT_ROOMS
            needed = {canonicalize_name(PACKAGE_OF.get(name, name)) for name in foreign}
            assert needed <= known, path


def test_what_is_optional_is_imported_only_where_it_is_used():
    for room in ROOMS:
        for path in sources(room):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            statements = [
                node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
            ]
            at_once = {
                name.split(".")[0]
                for node in statements
                for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
                if name is not None
            }
            assert not at_once & set(OPTIONAL), path


def test_the_tests_have_what_is_optional():
    assert "-r requirements-onnx.txt" in (ROOT / "requirements-dev.txt").read_text().splitlines()


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_the_constraints_pin_released_versions_within_the_ranges(python):
    pinned = pins(python)
    for name, requirement in {**RUNTIME, **OPTIONAL, **DEVELOPMENT}.items():
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            assert pinned[name] in requirement.specifier, name
    assert [name for name, number in pinned.items() if Version(number).is_prerelease] == []


def test_what_is_installed_satisfies_the_requirements():
    for name, requirement in RUNTIME.items():
        assert requirement.specifier.contains(installed()[name], prereleases=True)


def test_cv2_belongs_to_one_package():
    owners = {name for name in installed() if name.startswith("opencv-")}
    assert owners == {"opencv-python-headless"}, (
        "they overwrite each other: uninstall all, then install it"
    )


@pytest.mark.skipif("CI" not in os.environ, reason="only a fresh environment holds the pins alone")
def test_continuous_integration_ran_with_the_pins_and_nothing_else():
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = installed()
    pinned = pins(python) | {name: found.get(name) for name in ("pip", "setuptools")}
    for name, number in found.items():
        assert number.split("+")[0] == pinned.get(name), name  # torch adds +cu132 or +cpu
