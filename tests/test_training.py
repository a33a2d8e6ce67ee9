"""The options of training: paths, training, optimisation, ablation, noise."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import fields

import pytest

from datasets.data_options import INTRINSICS, DataOptions
from datasets.image_noise import KINDS, ImageNoise
from datasets.splits import SPLITS
from networks.motion_forms import MOTION_FORMS
from option_groups import training


def parsed(add, *words: str) -> dict[str, object]:
    parser = ArgumentParser(allow_abbrev=False)
    add(parser)
    return vars(parser.parse_args(words))


def test_the_splits_are_those_that_have_frames_to_train_on():
    assert set(training.SPLITS) == {file.parent.name for file in SPLITS.glob("*/train_files.txt")}


def test_the_data_is_by_default_what_the_dataset_takes_it_to_be():
    given = parsed(training.add_training) | parsed(training.add_noise) | parsed(training.add_paths)
    given["frame_ids"] = tuple(given["frame_ids"])
    given["split"] = "eigen_zhou"  # the default depends on the data: see `contradictions`
    behind = {field.name: field.default for field in fields(DataOptions)}
    same = set(given) & set(behind) - {"data_path"}
    assert len(same) == 11
    assert {name: given[name] for name in same} == {name: behind[name] for name in same}


@pytest.mark.parametrize("kind", INTRINSICS)
def test_intrinsics_are_those_of_the_dataset(kind):
    assert parsed(training.add_training, "--intrinsics", kind)["intrinsics"] == kind


def test_every_noise_of_images_has_its_options_and_no_other():
    assert tuple(training.NOISE_OF_IMAGES) == KINDS
    given = parsed(training.add_noise)
    behind = {field.name: field.default for field in fields(ImageNoise)}
    named = {name for names in training.NOISE_OF_IMAGES.values() for name in names}
    assert named == {name for name in given if name.startswith("img_")} - {"img_noise_type"}
    for name in named:
        inside = name.removeprefix("img_noise_").removeprefix("img_")
        assert given[name] == behind.pop(inside), name
    assert set(behind) == {"kind", "recorded_size"}  # the rest is no option


@pytest.mark.parametrize(
    "name, value",
    [
        ("brightness", "0"),
        ("contrast", "7"),
        ("saturation", "1"),
        ("hue", "0.5"),
        ("gamma", "2"),
        ("gain", "0.1"),
    ],
)
def test_a_strength_that_is_read_is_one_that_images_can_have(name, value):
    strength = parsed(training.add_noise, f"--img_noise_{name}", value)[f"img_noise_{name}"]
    assert getattr(ImageNoise(**{name: strength}), name) == float(value)


def test_the_motion_forms_are_those_of_the_networks(capsys):
    for form in MOTION_FORMS:
        assert parsed(training.add_ablation, "--motion_form", form)["motion_form"] == form
    with pytest.raises(SystemExit):
        parsed(training.add_ablation, "--motion_form", "none")
    listed = capsys.readouterr().err.split("choose from ")[1]
    assert {name.strip(" ')\n") for name in listed.split(",")} == set(MOTION_FORMS)


@pytest.mark.parametrize("spelling", ["--num_layer", "--num_layers"])
@pytest.mark.parametrize("count", [18, 34, 50, 101, 152])
def test_both_spellings_of_the_depth_of_the_resnets_are_known(spelling, count):
    given = parsed(training.add_training, spelling, str(count))
    assert given["num_layers"] == count and "num_layer" not in given
    assert given["num_layers_imu"] == 18


@pytest.mark.parametrize(
    "add, words, message",
    [
        (training.add_paths, "--log_dir=", "expected a folder, got ''"),
        (training.add_paths, "--cache_dir=", "expected a folder, got ''"),
        (training.add_training, "--model_name a/b", "expected the plain name of a folder"),
        (training.add_training, "--model_name ..", "expected the plain name of a folder"),
        (training.add_training, "--split=", "expected a split, got ''"),
        (training.add_training, "--num_layers 20", "invalid choice: 20"),
        (training.add_training, "--initial_depth_m 0", "more than 0"),
        (training.add_training, "--initial_depth_m inf", "more than 0"),
        (training.add_training, "--num_layers_imu 19", "invalid choice: 19"),
        (training.add_training, "--height 200", "expected a multiple of 32"),
        (training.add_training, "--width 32", "expected a multiple of 32, 64 or more"),
        (training.add_training, "--scales 0 4", "invalid choice: 4"),
        (training.add_training, "--min_depth 0", "more than 0"),
        (training.add_training, "--max_depth inf", "more than 0"),
        (training.add_training, "--disparity_smoothness -1", "0 or more"),
        (training.add_training, "--intrinsics own", "invalid choice"),
        (training.add_optimisation, "--batch_size 0", "1 or more"),
        (training.add_optimisation, "--accumulate_steps 0", "1 or more"),
        (training.add_optimisation, "--num_epochs 0", "1 or more"),
        (training.add_optimisation, "--scheduler_step_size 0", "1 or more"),
        (training.add_optimisation, "--scheduler linear", "invalid choice"),
        (training.add_optimisation, "--warmup_steps -1", "0 or more"),
        (training.add_optimisation, "--learning_rate 0", "more than 0"),
        (training.add_optimisation, "--clip_grad_norm -1", "0 or more"),
        (training.add_optimisation, "--amp on", "invalid choice"),
        (training.add_ablation, "--loss_resolution half", "invalid choice"),
        (training.add_ablation, "--weights_init zero", "invalid choice"),
        (training.add_ablation, "--pretrained_path=", "expected a file, got ''"),
        (training.add_ablation, "--pose_model_input three", "invalid choice"),
        (training.add_ablation, "--pose_model_type lstm", "invalid choice"),
        (training.add_ablation, "--motion_form flying", "invalid choice"),
        (training.add_ablation, "--motion_resolution quarter", "invalid choice"),
        (training.add_noise, "--img_noise_type fog", "invalid choice"),
        (training.add_noise, "--img_noise_hue 0.6", "0.5 or less"),
        (training.add_noise, "--img_noise_gain -0.1", "0 or more"),
        (training.add_noise, "--img_mask_num 0", "1 or more"),
        (training.add_noise, "--img_mask_size 0", "more than 0"),
    ],
)
def test_values_that_cannot_be_are_refused(add, words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parsed(add, *words.split())
    assert stopped.value.code == 2 and message in capsys.readouterr().err
