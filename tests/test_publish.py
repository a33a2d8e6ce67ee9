"""What a user gets: both kinds of errors on the screen, and each file that was asked for."""

from __future__ import annotations

import csv
import json

import pytest

import options
from evaluation.depth_run import depth_task, run_depth
from evaluation.publish import make_folders, told, write_files
from evaluation.summary import summarise
from evaluation.tables import text_histogram
from tests.evaluation_tree import full_lines, make_evaluation_tree, write_weights


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_evaluation_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def published(root, weights):
    def run(*words):
        usual = f"--load_weights_folder {weights} --data_path {root} --eval_split synthetic"
        args = options.evaluate_depth([*usual.split(), "--num_workers", "0", "--no_cuda", *words])
        make_folders(args)
        task = depth_task(args)
        result = run_depth(args, task).result
        summary = summarise(result)
        text = told(args, result, summary)
        return text, result, list(write_files(args, task, result, summary))

    return run


def test_both_kinds_of_errors_and_what_they_are_of_are_always_shown(published, weights):
    for words in ((), ("--eval_mono",), ("--disable_median_scaling",)):
        text, result, written = published(*words)
        assert not written
        for mean in (*result.unscaled.mean(0), *result.scaled.mean(0)):
            assert f"{mean:.3f}" in text
        for fact in ("synthetic", f"{len(full_lines())} images", str(weights), "64x64", "0-20 m"):
            assert fact in text
        row = " & ".join(f"{mean:.3f}" for mean in result.errors.mean(0))
        assert f"LaTeX: & {row} \\\\" in text


def test_the_histogram_is_shown_if_it_is_asked_for(published):
    text, result, _ = published("--show_scale_hist")
    assert text_histogram(result.ratio) in text
    assert text_histogram(result.ratio) not in published()[0]


def test_each_file_is_written_into_folders_that_are_made(published, tmp_path):
    paths = {name: tmp_path / name / f"a.{name}" for name in ("json", "csv", "per_image")}
    words = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    _, result, written = published(*words, "--report", str(tmp_path / "r" / "s"))
    assert written == [*paths.values(), tmp_path / "r" / "s" / "index.html"]
    assert all(path.is_file() for path in written)
    summary = json.loads(paths["json"].read_text())
    assert summary["images"] == len(result)
    with paths["per_image"].open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == list(result.names)
    page = (tmp_path / "r" / "s" / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/") >= 4 * 3  # there are as many images as can be chosen


def test_a_place_that_cannot_be_written_is_found_before_the_work(root, weights, tmp_path):
    (tmp_path / "file").write_text("")
    usual = f"--load_weights_folder {weights} --data_path {root} --eval_split synthetic"
    for name in ("json", "report"):
        args = options.evaluate_depth([*usual.split(), f"--{name}", str(tmp_path / "file" / "x")])
        with pytest.raises(OSError, match="file"):
            make_folders(args)
    for name in ("json", "csv", "per_image"):
        args = options.evaluate_depth([*usual.split(), f"--{name}", str(tmp_path)])
        with pytest.raises(IsADirectoryError, match=str(tmp_path)):
            make_folders(args)
