"""The command line for Make3D, as a user types it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat

import evaluate_make3d
from tests.evaluation_tree import write_weights
from tests.test_make3d import NAMES, make_pair


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def root(tmp_path):
    """Test images with depths that count; some are beyond 70 m and do not."""
    for i, name in enumerate(NAMES):
        pair = make_pair(tmp_path, name)
        grid = np.full((55, 305, 4), 10.0 + i)
        grid[:30, :, 3] = 75
        savemat(pair.depth, {"Position3DGrid": grid})
    return tmp_path


def words(root, weights, *more):
    usual = f"--data_path {root} --load_weights_folder {weights} --num_workers 0 --no_cuda"
    return [*usual.split(), *map(str, more)]


def test_it_prints_the_table_under_its_own_protocol(root, weights, capsys):
    assert evaluate_make3d.main(words(root, weights, "--height", 64, "--width", 128)) == 0
    out = capsys.readouterr().out
    for told in ("make3d", "3 images", "128x64", "metric", "median-scaled", "LaTeX"):
        assert told in out


def test_pictures_are_written_if_they_are_asked_for(root, weights, tmp_path, capsys):
    more = ("--save_make3d", "--eval_out_dir", tmp_path / "out", "--height", 64, "--width", 128)
    assert evaluate_make3d.main(words(root, weights, *more)) == 0
    pictures = sorted((tmp_path / "out" / "make3d").iterdir())
    assert [path.name for path in pictures] == sorted(f"{name}.png" for name in NAMES)
    assert f"written: {tmp_path / 'out' / 'make3d'}" in capsys.readouterr().out


def test_a_mistake_is_one_line(root, weights, tmp_path, capsys):
    assert evaluate_make3d.main(words(tmp_path / "nothing", weights)) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("evaluate_make3d: no img-*.jpg in") and "\n" not in line
