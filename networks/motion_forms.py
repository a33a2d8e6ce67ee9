"""What the raw numbers of the decoders of motion, velocity and gravity stand for."""

from __future__ import annotations

from typing import NamedTuple

PUBLISHED, DRIVING = "published", "driving"
MOTION_FORMS = PUBLISHED, DRIVING
"""The choices of `--motion_form`."""

RAW_SCALE = 0.01
"""Factor of all numbers as published: an untrained network begins near no motion."""


class LinearForm(NamedTuple):
    """What is added to how many times the raw numbers, in the axes of the first camera."""

    scale: float
    mean: tuple[float, float, float]


_AS_PUBLISHED = LinearForm(RAW_SCALE, (0.0, 0.0, 0.0))

TRANSLATION = {
    PUBLISHED: _AS_PUBLISHED,
    DRIVING: LinearForm(0.1, (0.0, 0.0, 0.1)),
}
"""Of the camera between neighbouring images, in the networks' unit: 5.4 m as published."""

VELOCITY = {
    PUBLISHED: _AS_PUBLISHED,
    DRIVING: LinearForm(5.0, (0.0, 0.0, 5.0)),
}
"""Of the body [m/s]."""

UP = {
    PUBLISHED: _AS_PUBLISHED,
    DRIVING: LinearForm(0.1, (0.0, -1.0, 0.0)),
}
"""Gravity [m/s^2] as published; its direction alone for driving, whose length is known."""
