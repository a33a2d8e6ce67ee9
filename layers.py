"""Differentiable building blocks between the networks and the losses.

Pixel centres have integer coordinates: the first pixel is (0, 0), the last (width - 1, height - 1).
Sampling grids are in [-1, 1] with those two at the corners, which is `align_corners=True`. Depth
and translation share one unit, whichever it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from liegroups import se3, so3
from liegroups.checks import check_tensor

NEAREST = 1e-3
"""Points closer than this to the plane of a camera, or behind it, are out of its view."""

OUT_OF_VIEW = 2.0
"""Grid coordinate of what is out of view."""


def disp_to_depth(disp: Tensor, min_depth: float, max_depth: float) -> tuple[Tensor, Tensor]:
    """Map a network's disparity in [0, 1] to depth, linearly in inverse depth.

    Returns:
        scaled disparity in [1/max_depth, 1/min_depth] and its inverse, the depth; shaped like disp
    """
    check_tensor("disp", disp)
    if not 0 < min_depth < max_depth:
        raise ValueError(
            "min_depth, max_depth: expected 0 < min_depth < max_depth, "
            f"got {min_depth}, {max_depth}"
        )
    min_disp, max_disp = 1 / max_depth, 1 / min_depth
    scaled_disp = min_disp + (max_disp - min_disp) * disp
    return scaled_disp, 1 / scaled_disp


def depth_to_disp(depth: float, min_depth: float, max_depth: float) -> float:
    """Return the disparity in [0, 1] that `disp_to_depth` maps to a depth between its limits."""
    return (1 / depth - 1 / max_depth) / (1 / min_depth - 1 / max_depth)


def transformation_from_parameters(
    axisangle: Tensor, translation: Tensor, invert: bool = False
) -> Tensor:
    """Build the motion that rotates first and then translates, or its exact inverse.

    Args:
        axisangle: (B, 3) or, as a pose decoder gives it, (B, 1, 3) axis times angle [rad]
        translation: shaped like axisangle

    Returns:
        (B, 4, 4)
    """
    check_tensor("axisangle", axisangle, 3)
    check_tensor("translation", translation, 3)
    if axisangle.ndim not in (2, 3) or (axisangle.ndim == 3 and axisangle.shape[1] != 1):
        raise ValueError(
            f"axisangle: expected shape (B, 3) or (B, 1, 3), got {tuple(axisangle.shape)}"
        )
    check_like("translation", translation, "axisangle", axisangle)
    T = se3.from_rt(so3.exp(axisangle.reshape(-1, 3)), translation.reshape(-1, 3))
    return se3.inverse(T) if invert else T


def backproject(depth: Tensor, inv_K: Tensor) -> Tensor:
    """Lift every pixel to its point in the camera.

    Args:
        depth: (B, 1, H, W) along the optical axis
        inv_K: (B, 3, 3) or (B, 4, 4) inverse intrinsics in pixels of this depth map

    Returns:
        (B, 4, H*W) homogeneous points in the camera, row by row
    """
    batch, height, width = check_map("depth", depth, 1)
    inv_K = _check_intrinsics("inv_K", inv_K, "depth", batch)
    u = torch.arange(width, dtype=depth.dtype, device=depth.device)  # (W)
    v = torch.arange(height, dtype=depth.dtype, device=depth.device).unsqueeze(-1)  # (H, 1)
    along_u, along_v, origin = inv_K[..., None, None].unbind(-3)  # (B, 3, 1, 1) each
    points = depth * (along_u * u + along_v * v + origin)  # (B, 3, H, W)
    return torch.cat([points, torch.ones_like(depth)], 1).flatten(2)


def project(points: Tensor, K: Tensor, T: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Find where a camera sees points that lie in the frame of another.

    Points behind the camera get a coordinate outside its image and no gradient; dividing by their
    depth would mirror them into it.

    Args:
        points: (B, 4, H*W) homogeneous points, one for each pixel of the target view
        K: (B, 3, 3) or (B, 4, 4) intrinsics of the source camera in pixels of a (H, W) image
        T: (..., B, 4, 4) takes target coordinates to the source camera, T_source_target; the points
            are seen by as many cameras as there are motions
        height: H
        width: W

    Returns:
        (..., B, H, W, 2) sampling grid, x before y, in [-1, 1] inside of the source image, and
        (..., B, 1, H, W) depth in the source camera
    """
    check_tensor("points", points, 4, height * width)
    if points.ndim != 3:
        raise ValueError(f"points: expected shape (B, 4, H*W), got {tuple(points.shape)}")
    batch = points.shape[0]
    K = _check_intrinsics("K", K, "points", batch)
    check_tensor("T", T, 4, 4)
    if T.ndim < 3 or T.shape[-3] != batch:
        raise ValueError(f"T: expected shape (..., {batch}, 4, 4) as points, got {tuple(T.shape)}")
    # Scaling pixels to the grid here, on nine numbers, saves doing it for every pixel.
    P = _pixels_to_grid(K, height, width) @ T[..., :3, :]  # (..., B, 3, 4)
    # All cameras of a sample are one product with its points, which then need not be repeated.
    rows = P.reshape(-1, batch, 3, 4).transpose(0, 1).flatten(1, 2)  # (B, cameras * 3, 4)
    seen = (rows @ points).view(batch, -1, 3, height, width).transpose(0, 1)
    x, y, depth = seen.reshape(*T.shape[:-2], 3, height, width).unbind(-3)  # (..., B, H, W) each
    behind = depth < NEAREST  # false for NaN, which goes on
    divisor = torch.where(behind, 1, depth)
    grid = torch.stack([x / divisor, y / divisor], -1)
    return torch.where(behind.unsqueeze(-1), OUT_OF_VIEW, grid), depth.unsqueeze(-3)


def warp(image: Tensor, grid: Tensor, padding_mode: str = "border") -> Tensor:
    """Sample an image bilinearly at a grid.

    Args:
        image: (B, C, H, W)
        grid: (B, H', W', 2) from `project`; a coordinate that is NaN gives a pixel that is NaN
        padding_mode: what lies outside, "border" or "zeros"

    Returns:
        (B, C, H', W')
    """
    batch, _, _ = check_map("image", image)
    check_tensor("grid", grid, 2)
    if grid.ndim != 4 or grid.shape[0] != batch:
        raise ValueError(f"grid: expected shape ({batch}, H, W, 2), got {tuple(grid.shape)}")
    # grid_sample takes NaN for a corner: a pose gone wrong would go on as a plausible image. Worse,
    # its gradient on the CPU takes NaN for an address and crashes.
    lost = (grid[..., :1] + grid[..., 1:]).isnan()  # (B, H', W', 1)
    sampled = F.grid_sample(
        image,
        torch.where(lost, OUT_OF_VIEW, grid),
        mode="bilinear",
        padding_mode=padding_mode,
        align_corners=True,
    )
    return sampled.masked_fill_(lost.squeeze(-1).unsqueeze(1), torch.nan)


def edge_aware_smoothness(disp: Tensor, image: Tensor) -> Tensor:
    """Return the mean slope of disparity over its mean, less where the image has edges.

    The division by the mean of each map makes the term blind to scale: shrinking all disparities
    does not lower it.

    Args:
        disp: (B, 1, H, W)
        image: (B, C, H, W) in [0, 1]

    Returns:
        scalar
    """
    batch, height, width = check_map("disp", disp, 1)
    if check_map("image", image) != (batch, height, width):
        raise ValueError(
            f"image: expected shape ({batch}, C, {height}, {width}) as disp, "
            f"got {tuple(image.shape)}"
        )
    if min(height, width) < 2:
        raise ValueError(f"disp: expected at least 2x2 pixels, got {tuple(disp.shape)}")
    disp = disp / disp.mean((2, 3), keepdim=True).clamp(min=1e-7)  # (B, 1, H, W)

    def along(axis: int) -> Tensor:
        edge = image.diff(dim=axis).abs().mean(1, keepdim=True)
        return (disp.diff(dim=axis).abs() * torch.exp(-edge)).mean()

    return along(2) + along(3)


def _pixels_to_grid(K: Tensor, height: int, width: int) -> Tensor:
    """Return K (B, 3, 3) with grid coordinates for pixels: 2 u / (width - 1) - 1, v alike."""
    # An image one pixel wide has all of its grid at -1.
    x = 2 / max(width - 1, 1) * K[:, 0] - K[:, 2]
    y = 2 / max(height - 1, 1) * K[:, 1] - K[:, 2]
    return torch.stack([x, y, K[:, 2]], 1)


def check_map(name: str, image: Tensor, channels: int | None = None) -> tuple[int, int, int]:
    """Return batch, height and width of (B, C, H, W)."""
    check_tensor(name, image)
    if image.ndim != 4 or channels not in (None, image.shape[1]):
        raise ValueError(
            f"{name}: expected shape (B, {channels or 'C'}, H, W), got {tuple(image.shape)}"
        )
    return image.shape[0], image.shape[2], image.shape[3]


def _check_intrinsics(name: str, K: Tensor, other: str, batch: int) -> Tensor:
    """Return the (B, 3, 3) of intrinsics (B, 3, 3) or (B, 4, 4)."""
    check_tensor(name, K)
    if tuple(K.shape) not in ((batch, 3, 3), (batch, 4, 4)):
        raise ValueError(
            f"{name}: expected shape ({batch}, 3, 3) or ({batch}, 4, 4) as {other}, "
            f"got {tuple(K.shape)}"
        )
    return K[:, :3, :3]


def check_like(name: str, tensor: Tensor, other: str, reference: Tensor) -> None:
    """Refuse a tensor that is not shaped like another."""
    check_tensor(name, tensor)
    if tensor.shape != reference.shape:
        raise ValueError(
            f"{name}: expected shape {tuple(reference.shape)} as {other}, got {tuple(tensor.shape)}"
        )
