"""Print how consistent and how good each noise preset is: `python -m benchmarks.fusion`.

Image pairs of simulated drives are fused with velocities, gravities and camera motions that are as
wrong as networks are, whatever the preset believes. NEES is the squared error over the squared
expected error, summed over the six numbers of a motion: 6 if the covariance is honest, more if the
filter is too sure of itself, less if it is too modest.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.simulation import motion_error, nees, random_drive, simulate
from ekf.filter import BA, BG, GRAV, TRANS, VEL, EKFModel
from ekf.noise import PRESETS, VISION_NOISE_DECADES, NoisePreset, preset


class Networks(NamedTuple):
    """How wrong the networks are, as standard deviations."""

    velocity_m_s: float
    gravity_m_s2: float
    camera_rad: float
    camera_m: float


# A velocity network is right to 0.2 m/s on streets that it has seen and to 2 m/s on others; gravity
# is wrong by a tilt of some hundredths of a radian.
SITUATIONS = {
    "good camera, seen streets": Networks(0.2, 0.1, 1e-3, 0.02),
    "good camera, new streets": Networks(2.0, 0.3, 1e-3, 0.02),
    "fair camera, seen streets": Networks(0.2, 0.1, 3e-3, 0.1),
    "fair camera, new streets": Networks(2.0, 0.3, 3e-3, 0.1),
    "poor camera, seen streets": Networks(0.2, 0.1, 1e-2, 0.5),
    "poor camera, new streets": Networks(2.0, 0.3, 1e-2, 0.5),
}

# A unit like that of KITTI's car: densities as in GTSAM's example for it (gyro), and as the
# residuals of its recording show (accelerometer; `benchmarks.recording`).
IMU_DENSITIES = (3e-8, 1e-11, 1e-3, 1e-8)
IMU_BIAS_STD = (5e-4, 2e-2)


GRID = ((0.5, 1.0, 1.5, 2.0), (0.05, 0.1, 0.2, 0.3), (1e-6, 1e-5, 1e-4))
"""First velocity [m/s], camera's translation [m] and rotation variance [rad^2] that are tried."""

TOLD = "told"
"""The calibrated preset with a pose network that knows how wrong it is."""


class Result(NamedTuple):
    """What came of a preset in a situation."""

    nees: float
    camera_m: float
    imu_m: float
    fused_m: float


def reality(networks: Networks) -> EKFModel:
    """Return a filter model from which things as they are can be drawn."""
    model = EKFModel().double()
    model.densities.copy_(torch.tensor(IMU_DENSITIES))
    with torch.no_grad():
        model.init_covar_diag_sqrt[VEL] = networks.velocity_m_s
        model.init_covar_diag_sqrt[GRAV] = networks.gravity_m_s2
        model.init_covar_diag_sqrt[BG], model.init_covar_diag_sqrt[BA] = IMU_BIAS_STD
    return model


def exponents(networks: Networks) -> Tensor:
    """Return what a pose network that knows itself says (6), for the calibrated preset."""
    noise = preset("calibrated")
    of_rotation = networks.camera_rad**2 / noise.camera_rotation_variance
    of_translation = networks.camera_m**2 / noise.camera_translation_variance
    decades = [math.log10(of_rotation)] * 3 + [math.log10(of_translation)] * 3
    return (torch.tensor(decades, dtype=torch.float64) / VISION_NOISE_DECADES).atanh()


@torch.no_grad()
def measure(name: str, networks: Networks, pairs: int, noise: NoisePreset | None = None) -> Result:
    """Fuse image pairs with a preset, the pose network saying nothing (exponents 0), or `TOLD`.

    `noise` takes the place of the preset's, for those that are no preset yet.
    """
    torch.manual_seed(0)
    deviation = torch.tensor([networks.camera_rad] * 3 + [networks.camera_m] * 3).double()
    s = simulate(reality(networks), random_drive(pairs), 1, torch.diag(deviation.square()))
    camera = s.camera.T_c0_c1[:, 0]
    told = name == TOLD
    model = EKFModel("calibrated" if told else name)
    if noise is not None:
        model.noise = noise
        model.init_covar_diag_sqrt.copy_(torch.tensor(noise.initial_std()))
    fusion = model.double()(
        *(x[:, 0] for x in (s.imu.dt, s.imu.gyro, s.imu.accel)),
        s.T_c_b,
        s.start.velocity,
        s.start.gravity,
        camera,
        exponents(networks).expand(pairs, 6) if told else camera.new_zeros(pairs, 6),
    )
    true = s.T_c0_c1[:, 0]
    fused = motion_error(true, fusion.fused.T_c0_c1)

    def rms_m(error: Tensor) -> float:
        return error[:, TRANS].square().sum(-1).mean().sqrt().item()

    return Result(
        nees=nees(fused, fusion.covariance).mean().item(),
        camera_m=rms_m(motion_error(true, camera)),
        imu_m=rms_m(motion_error(true, fusion.inertial.T_c0_c1)),
        fused_m=rms_m(fused),
    )


def search(pairs: int) -> list[tuple[float, NoisePreset, list[Result]]]:
    """Try priors and camera variances beside the calibrated ones, the most honest first.

    Honest is who is least wrong about its errors over all situations: the sum of |log(NEES / 6)|.
    """
    found = []
    for velocity_m_s, camera_m, camera_rad2 in itertools.product(*GRID):
        noise = replace(
            preset("calibrated"),
            velocity_std=velocity_m_s,
            camera_translation_variance=camera_m**2,
            camera_rotation_variance=camera_rad2,
        )
        results = [measure("calibrated", n, pairs, noise) for n in SITUATIONS.values()]
        found.append((sum(abs(math.log(r.nees / 6)) for r in results), noise, results))
    return sorted(found, key=lambda one: one[0])


def print_search(pairs: int) -> None:
    """Print the ten most honest of the grid."""
    print(
        "sum of |log(NEES / 6)|; first velocity [m/s], camera [m], [rad^2]; NEES of each situation"
    )
    for dishonesty, noise, results in search(pairs)[:10]:
        camera_m, camera_rad2 = (
            noise.camera_translation_variance**0.5,
            noise.camera_rotation_variance,
        )
        all_nees = " ".join(f"{r.nees:5.1f}" for r in results)
        print(
            f"{dishonesty:5.2f}; {noise.velocity_std} {camera_m:.2f} {camera_rad2:.0e}; {all_nees}"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2000, help="image pairs for each line")
    parser.add_argument("--search", action="store_true", help="rank what a preset could be instead")
    args = parser.parse_args(argv)
    if args.search:
        print_search(args.pairs)
        return
    print(f"{args.pairs} image pairs 0.1 s apart; translation errors [m], root mean square")
    print(f"{'situation':26} {'preset':11} camera    IMU  fused   NEES (6 is honest)")
    for name, networks in SITUATIONS.items():
        for way in (*PRESETS, TOLD):
            r = measure(way, networks, args.pairs)
            print(
                f"{name:26} {way:11} {r.camera_m:6.3f} {r.imu_m:6.3f} {r.fused_m:6.3f} "
                f"{r.nees:6.1f}"
            )


if __name__ == "__main__":
    main()
