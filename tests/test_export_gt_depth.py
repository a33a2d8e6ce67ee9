"""The command line that exports true depths, as a user types it."""

from __future__ import annotations

import numpy as np
import pytest

import evaluate_depth
import export_gt_depth
from tests.evaluation_tree import full_lines, make_evaluation_tree, write_weights


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_evaluation_tree(tmp_path_factory.mktemp("tree"))


def test_what_it_writes_takes_the_place_of_the_tree(root, tmp_path, capsys):
    output = tmp_path / "gt_depths.npz"
    line = f"--data_path {root} --split synthetic --output {output}"
    assert export_gt_depth.main(line.split()) == 0
    assert f"{output}: {len(full_lines())} true depths" in capsys.readouterr().out
    with np.load(output, allow_pickle=False) as archive:
        assert archive["lines"].tolist() == full_lines()
    weights = write_weights(tmp_path / "weights")
    usual = f"--load_weights_folder {weights} --data_path {root} --eval_split synthetic --no_cuda"
    tables = []
    for more in ("", f"--gt_depths {output}"):
        assert evaluate_depth.main(f"{usual} --num_workers 0 {more}".split()) == 0
        out = capsys.readouterr().out
        tables.append([row for row in out.split("\n") if row.startswith(("metric", "median"))])
    assert tables[0] == tables[1] and len(tables[0]) == 4


def test_a_mistake_is_one_line(tmp_path, capsys):
    line = f"--data_path {tmp_path}/nothing --output {tmp_path}/gt.npz"
    assert export_gt_depth.main(line.split()) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("export_gt_depth: ") and "\n" not in told and "--data_path" in told
    assert not list(tmp_path.iterdir())
