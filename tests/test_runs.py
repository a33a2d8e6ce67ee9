"""The options of training that are of the machine, of what is loaded and of what is kept."""

from __future__ import annotations

from argparse import ArgumentParser

import pytest

from option_groups import runs


def parsed(add, *words: str) -> dict[str, object]:
    parser = ArgumentParser(allow_abbrev=False)
    add(parser)
    return vars(parser.parse_args(words))


def test_every_model_can_be_loaded():
    given = parsed(runs.add_loading, "--models_to_load", *runs.MODELS)
    assert given["models_to_load"] == list(runs.MODELS)
    assert len(set(runs.MODELS)) == 10


@pytest.mark.parametrize("given", ["auto", "runs/r18", "./auto"])
def test_where_to_go_on_is_taken_literally(given):
    assert parsed(runs.add_loading, "--resume", given)["resume"] == given


def test_data_can_be_loaded_without_other_processes():
    assert parsed(runs.add_system, "--num_workers", "0")["num_workers"] == 0


@pytest.mark.parametrize(
    "add, words, message",
    [
        (runs.add_system, "--num_workers -1", "0 or more"),
        (runs.add_system, "--seed -1", "0 or more"),
        (runs.add_loading, "--load_weights_folder=", "expected a folder, got ''"),
        (runs.add_loading, "--models_to_load adam", "invalid choice: 'adam'"),
        (runs.add_loading, "--models_to_load", "expected at least one argument"),
        (runs.add_loading, "--resume=", "expected a path or auto, got ''"),
        (runs.add_loading, "--resume", "expected one argument"),
        (runs.add_logging, "--log_frequency 0", "1 or more"),
        (runs.add_logging, "--save_frequency 0", "1 or more"),
        (runs.add_logging, "--first_save_epoch -1", "0 or more"),
        (runs.add_logging, "--keep_checkpoints -1", "0 or more"),
        (runs.add_logging, "--save_minutes -1", "0 or more"),
    ],
)
def test_values_that_cannot_be_are_refused(add, words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parsed(add, *words.split())
    assert stopped.value.code == 2 and message in capsys.readouterr().err
