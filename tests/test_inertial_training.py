"""The options of training that are of the IMU and of the filter."""

from __future__ import annotations

import math
from argparse import ArgumentParser

import pytest

from ekf.noise import PRESETS
from option_groups import inertial_training


def parsed(add, *words: str) -> dict[str, object]:
    parser = ArgumentParser(allow_abbrev=False)
    add(parser)
    return vars(parser.parse_args(words))


@pytest.mark.parametrize("name", PRESETS)
def test_the_noise_presets_are_those_of_the_filter(name):
    given = parsed(inertial_training.add_ekf, "--noise_preset", name)
    assert given["noise_preset"] == name


def test_there_is_no_preset_that_the_filter_lacks(capsys):
    with pytest.raises(SystemExit):
        parsed(inertial_training.add_ekf, "--noise_preset", "none")
    listed = capsys.readouterr().err.split("choose from ")[1]
    assert {name.strip(" ')\n") for name in listed.split(",")} == set(PRESETS)


def test_clipping_can_be_turned_off():
    assert parsed(inertial_training.add_imu, "--k_imu_clip", "inf")["k_imu_clip"] == math.inf


@pytest.mark.parametrize(
    "add, words, message",
    [
        (inertial_training.add_imu, "--imu_warp_weight -1", "0 or more"),
        (inertial_training.add_imu, "--imu_consistency_weight nan", "0 or more"),
        (inertial_training.add_imu, "--imu_l2_weight x", "0 or more"),
        (inertial_training.add_imu, "--velo_weight -0.1", "0 or more"),
        (inertial_training.add_imu, "--imu_velocity_weight -1", "0 or more"),
        (inertial_training.add_imu, "--align_steps -1", "0 or more"),
        (inertial_training.add_imu, "--velocity_source gps", "invalid choice"),
        (inertial_training.add_imu, "--gravity_weight inf", "0 or more"),
        (inertial_training.add_imu, "--trans_scale_factor 0", "more than 0"),
        (inertial_training.add_imu, "--k_imu_clip 0", "more than 0"),
        (inertial_training.add_imu, "--no_grad_imu_consistency both", "invalid choice"),
        (inertial_training.add_ekf, "--ekf_warming_epochs -1", "0 or more"),
        (inertial_training.add_ekf, "--ekf_velo_weight -1", "0 or more"),
        (inertial_training.add_ekf, "--ekf_gravity_weight -1", "0 or more"),
        (inertial_training.add_ekf, "--resume_epochs -1", "0 or more"),
    ],
)
def test_values_that_cannot_be_are_refused(add, words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parsed(add, *words.split())
    assert stopped.value.code == 2 and message in capsys.readouterr().err
