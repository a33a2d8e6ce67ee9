"""A world that is only a plane, to test what is written of a drive without the cost of a real one.

The plane is z = PLANE_M in the world, without end, in a chequered grey; above it is a blue sky.
"""

from __future__ import annotations

import numpy as np

from datasets.synthetic import recording
from datasets.synthetic.rendering import View

PLANE_M = -4.0  # below all that the relief does near the start of a drive
SCAN_RANGE_M = 120.0
SKY_RGB = 0.2, 0.5, 1.0
MOVING_PX_PER_S = 10


class PlaneWorld:
    """Stands in for the world."""

    def __init__(self, trajectory, seed, moving_cars):
        self.seed, self.moving_cars = seed, moving_cars


class PlaneRenderer:
    """Stands in for the renderer; what moves are columns, one for each moving car, to the right.

    All points of a scan reflect as much as its time says, in units of 10 s.
    """

    def __init__(self, world):
        self.world = world

    def view(self, K, size, T_w_c, time_s):
        width, height = size
        v, u = np.mgrid[:height, :width]
        rays_c = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K).T  # (H, W, 3)
        depth = distance(rays_c @ T_w_c[:3, :3].T, T_w_c)
        depth[depth > 500] = 0  # further than 16 bits can say, and then the sky
        points_w = depth[..., None] * rays_c @ T_w_c[:3, :3].T + T_w_c[:3, 3]
        squares = np.floor(points_w[..., :2]).sum(-1) % 2
        image = np.where(depth[..., None] > 0, 0.25 + 0.5 * squares[..., None], SKY_RGB)
        moving = (u - round(MOVING_PX_PER_S * time_s)) % width < self.world.moving_cars
        return View(np.float32(image), np.float32(depth), moving)

    def scan(self, T_w_v, time_s, elevation_rad, azimuth_rad):
        azimuth, elevation = np.meshgrid(azimuth_rad[::20], elevation_rad, indexing="ij")
        level = np.cos(elevation)
        rays_v = np.stack(
            [level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)], -1
        ).reshape(-1, 3)
        far = distance(rays_v @ T_w_v[:3, :3].T, T_w_v)
        met = (far > 0) & (far < SCAN_RANGE_M)
        points = far[met, None] * rays_v[met]
        return np.column_stack([points, np.full(len(points), time_s / 10)]).astype(np.float32)


def distance(rays_w, T_w_s):
    """Return how often each ray (..., 3) reaches from the sensor to the plane, 0 for never."""
    fall = rays_w[..., 2]
    far = (PLANE_M - T_w_s[2, 3]) / np.where(fall < 0, fall, 1)
    return np.where(fall < 0, far, 0)


def stand_in(monkeypatch):
    """Make all drives in the plane; only within the process of the test."""
    monkeypatch.setattr(recording, "World", PlaneWorld)
    monkeypatch.setattr(recording, "Renderer", PlaneRenderer)
