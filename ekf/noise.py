"""How far the IMU, the camera and what the filter starts from are to be trusted.

Noise densities are those of continuous white noise: over a time dt it adds density * dt to the
variance of what it drives. That of the gyro, (rad/s)^2/Hz or rad^2/s, drives the rotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from liegroups.checks import check_tensor

VisionForm = Literal["learned", "naive", "fixed"]

IMU_NOISE_DECADES = 4
"""A learnt exponent moves a density of the IMU by at most this many powers of ten."""

VISION_NOISE_DECADES = 3
"""A predicted exponent moves a variance of the camera by at most this many powers of ten."""


@dataclass(frozen=True)
class NoisePreset:
    """One consistent set of variances, in SI units."""

    gyro_density: float  # [rad^2/s] white noise of the angular rate
    gyro_bias_density: float  # [rad^2/s^3] random walk of its bias
    accel_density: float  # [m^2/s^3] white noise of the specific force
    accel_bias_density: float  # [m^2/s^5] random walk of its bias
    velocity_std: float  # [m/s] of the velocity that the filter starts from
    gravity_std: float  # [m/s^2]
    gyro_bias_std: float  # [rad/s]
    accel_bias_std: float  # [m/s^2]
    camera_rotation_variance: float  # [rad^2] where the network says nothing (exponent 0)
    camera_translation_variance: float  # [m^2]
    fixed_camera_rotation_variance: float  # [rad^2] for the form that asks no network
    fixed_camera_translation_variance: float  # [m^2]

    def densities(self) -> list[float]:
        """Return the IMU's densities in the order of the published parameter vector."""
        return [
            self.gyro_density,
            self.gyro_bias_density,
            self.accel_density,
            self.accel_bias_density,
        ]

    def initial_std(self) -> list[float]:
        """Return the standard deviations (18) of the filter's first state.

        Rotation and position are zero by definition: the motion is counted from there.
        """
        blocks = [
            *(0.0, 0.0, self.velocity_std),
            *(self.gravity_std, self.gyro_bias_std, self.accel_bias_std),
        ]
        return [std for std in blocks for _ in range(3)]


# The published constants are for the network's unit of translation, of 5.4 m; here they are metres.
# The published code multiplies the rotation's by 5.4^2 too, which has no meaning.
_NETWORK_UNIT_M = 5.4

PRESETS = {
    # Trusts the network's velocity to 1 cm/s and the camera never better than to 10 cm, so that the
    # "fused" motion is nearly the inertial one whatever the camera sees.
    "published": NoisePreset(
        gyro_density=1e-7,
        gyro_bias_density=1e-7,
        accel_density=1e-2,
        accel_bias_density=1e-3,
        velocity_std=1e-2,
        gravity_std=1e-4,
        gyro_bias_std=1e-8,
        accel_bias_std=1e-1,
        camera_rotation_variance=10 / _NETWORK_UNIT_M**2,
        camera_translation_variance=10.0,
        fixed_camera_rotation_variance=1 / _NETWORK_UNIT_M**2,
        fixed_camera_translation_variance=1.0,
    ),
    # With these densities the errors on a real recording are what they should be: their reduced
    # chi-square is near 1 (benchmarks.recording). The rest is among the best of a grid for a NEES
    # near 6 in six situations (benchmarks.fusion --search), which take a velocity network to be
    # wrong by 0.2 m/s on streets that it was trained on and by 2 m/s on new ones.
    "calibrated": NoisePreset(
        gyro_density=1e-7,
        gyro_bias_density=1e-10,
        accel_density=1e-3,
        accel_bias_density=1e-6,
        velocity_std=1.5,
        gravity_std=0.3,
        gyro_bias_std=1e-3,
        accel_bias_std=5e-2,
        camera_rotation_variance=1e-5,
        camera_translation_variance=4e-2,
        fixed_camera_rotation_variance=1e-5,
        fixed_camera_translation_variance=4e-2,
    ),
}


def preset(name: str) -> NoisePreset:
    """Return a preset by name."""
    if name not in PRESETS:
        raise ValueError(f"noise preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]


def imu_densities(densities: Tensor, exponents: Tensor) -> Tensor:
    """Scale densities (4) by learnt exponents (4), each at most four powers of ten either way."""
    return densities * 10 ** (IMU_NOISE_DECADES * exponents.tanh())


def check_form(form: str) -> None:
    """Refuse a form of the camera's covariance that does not exist."""
    if form not in get_args(VisionForm):
        raise ValueError(f"form: expected {', '.join(get_args(VisionForm))}, got {form!r}")


def vision_covariance(
    predicted: Tensor, noise: NoisePreset, form: VisionForm = "learned"
) -> Tensor:
    """Return the covariance (..., 6, 6) of the camera's rotation [rad^2] and translation [m^2].

    Args:
        predicted: (..., 6) what the pose network says of its uncertainty, rotation first
        noise: the preset that the forms scale
        form: "learned": variance * 10^(3 tanh(predicted)); "naive": variance * predicted^2;
            "fixed": the preset's own, whatever the network says
    """
    check_tensor("predicted", predicted, 6)
    check_form(form)
    if form == "fixed":
        rotation = noise.fixed_camera_rotation_variance
        translation = noise.fixed_camera_translation_variance
    else:
        rotation, translation = noise.camera_rotation_variance, noise.camera_translation_variance
    # Filled on the device: a tensor made from a list would be copied there and make the host wait.
    variance = torch.cat([predicted.new_full((3,), v) for v in (rotation, translation)])  # (6)
    if form == "learned":
        variance = variance * 10 ** (VISION_NOISE_DECADES * predicted.tanh())
    elif form == "naive":
        variance = variance * predicted.square()
    return torch.diag_embed(variance.expand(predicted.shape))
