"""Print the largest errors of the geometry over random inputs: `python -m benchmarks.accuracy`."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

import layers
from liegroups import so3

TYPES = (torch.float64, torch.float32)


def random_axes(count: int) -> Tensor:
    """Return unit vectors (count, 3), float64."""
    return torch.nn.functional.normalize(torch.randn(count, 3, dtype=torch.float64), dim=-1)


def round_trip(dtype: torch.dtype, count: int = 2_000_000) -> float:
    """Return the largest |log(exp(phi)) - phi| [rad] at all scales of angle, 0 to pi - 1e-4."""
    angles = (math.pi - 1e-4) * torch.rand(count, 1, dtype=torch.float64)
    angles[::10] = 10.0 ** (-12 * torch.rand(count // 10, 1, dtype=torch.float64))
    angles[:100], angles[100:200] = 0, math.pi - 1e-4
    phi = (angles * random_axes(count)).to(dtype)
    return (so3.log(so3.exp(phi)) - phi).norm(dim=-1).max().item()


def at_pi(dtype: torch.dtype, count: int = 200_000) -> float:
    """Return the largest entry of exp(log(R)) - R for rotations by pi."""
    R = so3.exp(math.pi * random_axes(count)).to(dtype)
    return (so3.exp(so3.log(R)) - R).abs().max().item()


def against_scipy(dtype: torch.dtype, count: int = 10_000) -> float:
    """Return the largest difference of exp, log and quaternions from SciPy's (float64)."""
    oracle = Rotation.random(count, random_state=np.random.default_rng(0))
    R, phi = torch.from_numpy(oracle.as_matrix()), torch.from_numpy(oracle.as_rotvec())
    q = torch.from_numpy(oracle.as_quat(canonical=True))
    pairs = [(so3.exp(phi.to(dtype)), R), (so3.log(R.to(dtype)), phi)]
    pairs += [
        (so3.to_quaternion(R.to(dtype), "xyzw"), q),
        (so3.from_quaternion(q.to(dtype), "xyzw"), R),
    ]
    return max((got.double() - expected).abs().max().item() for got, expected in pairs)


def identity_warp(image: Tensor) -> float:
    """Return the largest change of an image (1, 1, H, W) warped by no motion at random depths."""
    height, width = image.shape[-2:]
    K = torch.tensor([[[721.5, 0, 609.6], [0, 721.5, 172.9], [0, 0, 1]]], dtype=torch.float64)
    depth = 3 + 70 * torch.rand(image.shape, dtype=image.dtype)
    points = layers.backproject(depth, torch.linalg.inv(K).to(image.dtype))
    still = torch.eye(4, dtype=image.dtype)[None]
    grid, _ = layers.project(points, K.to(image.dtype), still, height, width)
    return (layers.warp(image, grid) - image).abs().max().item()


def white_noise(dtype: torch.dtype) -> float:
    """Return `identity_warp` of an image whose neighbours differ by up to 1."""
    return identity_warp(torch.rand(1, 1, 375, 1242, dtype=dtype))


def smooth_image(dtype: torch.dtype) -> float:
    """Return `identity_warp` of an image whose neighbours differ by up to 0.02."""
    x = torch.arange(1242, dtype=torch.float64) + torch.arange(375.0)[:, None]
    return identity_warp((0.5 + 0.5 * (x / 25).sin()).to(dtype)[None, None])


MEASURES = {
    "log(exp(phi)), angles 0 to pi - 1e-4 [rad]": round_trip,
    "exp(log(R)) at pi": at_pi,
    "exp, log, quaternions against SciPy": against_scipy,
    "identity warp of white noise, 1242x375": white_noise,
    "identity warp of a smooth image, 1242x375": smooth_image,
}


def main() -> None:
    """Measure and print."""
    torch.manual_seed(0)
    print(f"largest errors, torch {torch.__version__}")
    print(f"{'':44} float64  float32")
    for name, measure in MEASURES.items():
        print(f"{name:44} " + "  ".join(f"{measure(dtype):.1e}" for dtype in TYPES))


if __name__ == "__main__":
    main()
