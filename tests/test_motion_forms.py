"""What raw numbers stand for: rest as published, or a car that drives ahead, upright."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from losses import GRAVITY
from networks.factory import build_models
from networks.motion_forms import (
    DRIVING,
    MOTION_FORMS,
    PUBLISHED,
    RAW_SCALE,
    TRANSLATION,
    UP,
    VELOCITY,
)
from tests.training_setup import tiny_batch, tiny_options
from training.prediction import predict

AHEAD, UPWARDS = torch.tensor([0.0, 0, 1]), torch.tensor([0.0, -1, 0])  # in the camera's axes


def untrained(*argv: str, seed: int = 0):
    """Return what networks say of a batch before they have learnt anything."""
    options = tiny_options("--height", "96", "--scales", "2", *argv)
    torch.manual_seed(seed)
    models = build_models(options, pretrained=False)
    with torch.no_grad():
        return predict(models, tiny_batch(options), options)


@pytest.mark.parametrize("forms", [TRANSLATION, VELOCITY, UP])
def test_everything_that_moves_has_every_form(forms):
    assert tuple(forms) == MOTION_FORMS
    assert forms[PUBLISHED] == (RAW_SCALE, (0, 0, 0))
    assert all(scale > 0 and len(mean) == 3 for scale, mean in forms.values())


def test_translation_and_velocity_of_driving_are_about_one_speed():
    unit_m, hertz = 5.4, 10
    (_, moved), (_, velocity) = TRANSLATION[DRIVING], VELOCITY[DRIVING]
    assert_close(unit_m * hertz * torch.tensor(moved), torch.tensor(velocity), atol=0.5, rtol=0)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("narrow", [(), ("--narrow_networks",)], ids=["wide", "narrow"])
def test_untrained_networks_of_driving_say_that_a_car_drives_ahead(narrow, seed):
    said = untrained("--motion_form", DRIVING, *narrow, seed=seed)
    for first, velocity in said.velocity.items():
        assert_close(velocity, (5 * AHEAD).expand(2, 3), atol=1, rtol=0)
        assert_close(said.gravity[first].norm(dim=-1), torch.full((2,), GRAVITY))
        assert (F.cosine_similarity(said.gravity[first], UPWARDS, dim=-1) > 0.99).all()
    for T_first_second in said.T_first_second.values():
        assert_close(T_first_second[:, :3, 3], (0.54 * AHEAD).expand(2, 3), atol=0.15, rtol=0)


def test_untrained_networks_of_the_published_form_say_that_nothing_moves():
    said = untrained()
    for vector in (*said.velocity.values(), *said.gravity.values()):
        assert vector.norm(dim=-1).max() < 0.02
    for T_first_second in said.T_first_second.values():
        assert T_first_second[:, :3, 3].norm(dim=-1).max() < 0.05
