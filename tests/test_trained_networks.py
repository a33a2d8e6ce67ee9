"""The options that programs with trained networks share."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import pytest

from option_groups.trained_networks import (
    add_machine,
    add_prediction,
    add_size,
    add_weights,
    settle,
)
from option_groups.training import RESNETS


def parser() -> ArgumentParser:
    made = ArgumentParser(allow_abbrev=False)
    add_weights(made)
    add_size(made)
    add_machine(made, batch_size=5)
    return made


def test_what_is_not_given_is_that_of_the_weights():
    args = parser().parse_args(["--load_weights_folder", "w"])
    assert args.load_weights_folder == Path("w")
    of_weights = (args.num_layers, args.trans_scale_factor, args.height, args.width)
    assert of_weights == (None,) * 4
    assert (args.batch_size, args.amp, args.no_cuda) == (5, "off", False)


@pytest.mark.parametrize("name", ["--num_layer", "--num_layers"])
@pytest.mark.parametrize("layers", RESNETS)
def test_both_spellings_of_the_layers_are_one_option(name, layers):
    assert parser().parse_args(["--load_weights_folder", "w", name, str(layers)]).num_layers == (
        layers
    )


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--load_weights_folder ",
        "--load_weights_folder w --height 63",
        "--load_weights_folder w --width 32",
        "--load_weights_folder w --trans_scale_factor 0",
        "--load_weights_folder w --trans_scale_factor 1e7",
        "--load_weights_folder w --num_workers -1",
        "--load_weights_folder w --amp half",
    ],
)
def test_what_cannot_be_is_refused(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args(words.split(" ") if words else [])
    assert stopped.value.code == 2


def test_weights_may_be_left_out_where_something_else_takes_their_place():
    made = ArgumentParser()
    add_weights(made, required=False)
    assert made.parse_args([]).load_weights_folder is None


def test_half_of_a_size_is_refused_and_home_is_found(monkeypatch, capsys):
    monkeypatch.setenv("HOME", "/home/someone")
    made = parser()
    whole = made.parse_args("--load_weights_folder ~/w --height 64 --width 96".split())
    settle(made, whole)
    assert whole.load_weights_folder == Path("/home/someone/w")
    for words in ("--height 64", "--width 64"):
        with pytest.raises(SystemExit):
            settle(made, made.parse_args(["--load_weights_folder", "w", *words.split()]))
        assert "--height and --width belong together" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        settle(made, made.parse_args(["--load_weights_folder", "~nobody-at-all/w"]))
    assert "no such home folder" in capsys.readouterr().err


def test_what_is_made_of_an_answer():
    made = ArgumentParser()
    add_prediction(made)
    usual = made.parse_args([])
    assert (usual.post_process, usual.pred_depth_scale_factor) == (False, 1.0)
    asked = made.parse_args(["--post_process", "--pred_depth_scale_factor", "1.5"])
    assert (asked.post_process, asked.pred_depth_scale_factor) == (True, 1.5)
