"""What a camera and a LiDAR see of the world.

An image is made from two by two rays for each pixel, every second of which goes through a pixel's
centre, and is blurred as by a lens: what is as fine as a pixel could not be followed from one image
to the next. Shutter and LiDAR are instantaneous.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from datasets.synthetic.raster import Rays, camera_rays, cast, scan_rays
from datasets.synthetic.shading import Surfaces
from datasets.synthetic.world import World

LIDAR_RANGE_M = 120.0
_RAYS_PER_PIXEL = 2  # in each direction
_LENS_PX = 0.6  # deviation of the blur; the reduction to pixels adds 0.5


class View(NamedTuple):
    """What a camera sees.

    Attributes:
        image: (H, W, 3) float32 RGB in 0..1, not rounded
        depth_m: (H, W) float32 z in the camera, 0 for the sky
        moving: (H, W) bool, what is not fixed to the ground
    """

    image: np.ndarray
    depth_m: np.ndarray
    moving: np.ndarray


class Renderer:
    """The eyes of a vehicle in a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def view(self, K: np.ndarray, size: tuple[int, int], T_w_c: np.ndarray, time_s: float) -> View:
        """Return what a camera sees.

        Args:
            K: (3, 3) intrinsics [px], pixel centres are at whole coordinates
            size: width, height [px]
            T_w_c: (4, 4) pose of the camera
            time_s: decides where moving cars are
        """
        rays = camera_rays(K, size, _RAYS_PER_PIXEL)
        colour, depth, moving = self._look(rays, T_w_c, time_s)
        centres = np.s_[::_RAYS_PER_PIXEL, ::_RAYS_PER_PIXEL]
        image = cv2.GaussianBlur(cv2.pyrDown(colour, dstsize=size), (0, 0), _LENS_PX)
        return View(np.clip(image, 0, 1), depth[centres].copy(), moving[centres].copy())

    def scan(
        self, T_w_v: np.ndarray, time_s: float, elevation_rad: np.ndarray, azimuth_rad: np.ndarray
    ) -> np.ndarray:
        """Return what a LiDAR sees: (N, 4) float32 x, y, z [m], reflectance 0..1, by azimuth.

        Args:
            T_w_v: (4, 4) pose of the LiDAR
            time_s: decides where moving cars are
            elevation_rad: (E,) of the beams, increasing
            azimuth_rad: (A,) increasing in equal steps once around
        """
        rays = scan_rays(elevation_rad, azimuth_rad)
        colour, distance, _ = self._look(rays, T_w_v, time_s)
        directions = rays.base[:, None] + rays.t[:, None] * np.eye(3)[rays.axis]  # (A, E, 3)
        points = directions * distance[..., None]
        met = (distance > 0) & ((points**2).sum(-1) < LIDAR_RANGE_M**2)
        reflectance = np.clip(colour[met].mean(-1, keepdims=True), 0, 1)
        return np.concatenate([points[met], reflectance], 1, dtype=np.float32)

    def _look(
        self, rays: Rays, T_w_s: np.ndarray, time_s: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return colours (R, C, 3), depths (R, C) along the rays [m], and what moves (R, C)."""
        scene = self._world.scene(time_s)
        surfaces = Surfaces(scene, T_w_s, rays)
        hits = cast(rays, surfaces.corners, surfaces.centres, scene.balls.radius)
        moving = np.zeros(len(scene.facets) + len(scene.balls) + 1, bool)  # the last: nothing
        moving[: len(scene.facets)] = scene.facets.moving
        return *surfaces.shade(hits), moving[hits.surface]
