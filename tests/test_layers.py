"""Laws of the camera geometry and of the smoothness, with OpenCV and SciPy."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch.autograd import gradcheck
from torch.testing import assert_close

import layers
from liegroups import se3, so3

KITTI_SIZE = (375, 1242)
SIZES = [(24, 32), (192, 640), KITTI_SIZE]


def intrinsics(height: int, width: int, batch: int = 1, dtype=torch.float64) -> torch.Tensor:
    """Return a KITTI-like camera (batch, 3, 3), its centre off the middle."""
    K = torch.tensor(
        [[0.58 * width, 0, 0.51 * width], [0, 1.92 * height, 0.46 * height], [0, 0, 1]],
        dtype=torch.float64,
    )
    return K.to(dtype).expand(batch, 3, 3)


def scene(height: int, width: int, batch: int = 2, dtype=torch.float64):
    """Return depth, K, its inverse and small motions T_source_target."""
    depth = 3 + 20 * torch.rand(batch, 1, height, width, dtype=torch.float64)
    K = intrinsics(height, width, batch)
    T = se3.exp(0.05 * torch.randn(batch, 6, dtype=torch.float64))
    return tuple(x.to(dtype) for x in (depth, K, torch.linalg.inv(K), T))


def to_pixels(grid: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return (grid + 1) / 2 * torch.tensor([width - 1, height - 1], dtype=grid.dtype)


def pixel_grid(height: int, width: int) -> torch.Tensor:
    v, u = torch.meshgrid(
        torch.arange(height, dtype=torch.float64),
        torch.arange(width, dtype=torch.float64),
        indexing="ij",
    )
    return torch.stack([u, v], -1)  # (H, W, 2)


# Disparity to depth


def test_disparity_spans_the_depth_range_and_is_linear_in_inverse_depth(dtype):
    disp = torch.linspace(0, 1, 11, dtype=dtype)
    scaled, depth = layers.disp_to_depth(disp, 0.1, 100)
    assert_close(depth[[0, -1]], torch.tensor([100, 0.1], dtype=dtype))
    assert_close(scaled.diff(), torch.full((10,), (10 - 0.01) / 10, dtype=dtype))
    assert_close(scaled * depth, torch.ones(11, dtype=dtype))


@pytest.mark.parametrize("depth", [0.1, 0.5, 1.7, 100])
def test_the_disparity_of_a_depth_leads_back_to_it(depth):
    disp = layers.depth_to_disp(depth, 0.1, 100)
    assert -1e-12 <= disp <= 1 + 1e-12
    _, back = layers.disp_to_depth(torch.tensor(disp, dtype=torch.float64), 0.1, 100)
    assert_close(back.item(), float(depth))


@pytest.mark.parametrize("bounds", [(0, 100), (-1, 100), (10, 1), (1, 1), (float("nan"), 1)])
def test_an_impossible_depth_range_is_refused(bounds):
    with pytest.raises(ValueError, match="expected 0 < min_depth < max_depth, got"):
        layers.disp_to_depth(torch.rand(2), *bounds)


# Motion from a pose network


@pytest.mark.parametrize("shape", [(5, 3), (5, 1, 3)], ids=str)
def test_parameters_rotate_first_then_translate(shape, dtype):
    axisangle, translation = torch.randn(2, *shape, dtype=dtype)
    T = layers.transformation_from_parameters(axisangle, translation)
    points = torch.randn(5, 4, 3, dtype=dtype)
    rotated = points @ so3.exp(axisangle.reshape(5, 3)).mT
    assert_close(se3.transform(T, points), rotated + translation.reshape(5, 1, 3))


def test_inverted_parameters_give_the_exact_inverse():
    axisangle, translation = torch.randn(2, 5, 3, dtype=torch.float64)
    T = layers.transformation_from_parameters(axisangle, translation)
    T_inverse = layers.transformation_from_parameters(axisangle, translation, invert=True)
    eye = torch.eye(4, dtype=torch.float64).expand(5, 4, 4)
    assert_close(T @ T_inverse, eye, atol=1e-15, rtol=0)


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("size", [0.0, 1e-5, 1.0])
def test_gradient_of_parameters(size, invert):
    axisangle, translation = size * torch.randn(2, 3, 1, 3, dtype=torch.float64)
    inputs = (axisangle.requires_grad_(), translation.requires_grad_(), invert)
    assert gradcheck(layers.transformation_from_parameters, inputs)


# Backprojection and projection


def test_backprojection_agrees_with_opencv():
    height, width = 12, 17
    depth, K, inv_K, _ = scene(height, width)
    points = layers.backproject(depth, inv_K)
    assert points.shape == (2, 4, height * width)
    assert torch.equal(points[:, 3], torch.ones(2, height * width, dtype=torch.float64))
    pixels = pixel_grid(height, width).reshape(-1, 1, 2).numpy()
    rays = cv2.undistortPoints(pixels, K[0].numpy(), None).reshape(-1, 2)
    expected = np.c_[rays, np.ones(len(rays))] * depth[0].reshape(-1, 1).numpy()
    assert_close(points[0, :3].T, torch.from_numpy(expected), atol=1e-12, rtol=0)


@pytest.mark.parametrize("rows", [3, 4])
def test_projection_agrees_with_opencv(rows):
    height, width = 12, 17
    depth, K, inv_K, T = scene(height, width)
    K4 = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    K4[:, :3, :3] = K
    points = layers.backproject(depth, torch.linalg.inv(K4)[:, :rows, :rows])
    grid, depth_source = layers.project(points, K4[:, :rows, :rows], T, height, width)
    rvec, _ = cv2.Rodrigues(T[1, :3, :3].numpy())
    tvec = T[1, :3, 3].numpy()
    pixels, _ = cv2.projectPoints(points[1, :3].T.numpy(), rvec, tvec, K[1].numpy(), None)
    got = to_pixels(grid, height, width)[1].reshape(-1, 1, 2)
    assert_close(got, torch.from_numpy(pixels), atol=1e-10, rtol=0)
    assert_close(depth_source.flatten(1), (T @ points)[:, 2], atol=1e-13, rtol=0)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_plane_moved_sideways_shifts_by_focal_length_times_shift_over_depth(size):
    height, width = size
    K = intrinsics(height, width)
    distance, shift = 8.0, 0.37
    depth = torch.full((1, 1, height, width), distance, dtype=torch.float64)
    T = se3.from_rt(torch.eye(3).double()[None], torch.tensor([[shift, 0, 0]], dtype=torch.float64))
    points = layers.backproject(depth, torch.linalg.inv(K))
    grid, depth_source = layers.project(points, K, T, height, width)
    moved = to_pixels(grid, height, width)[0] - pixel_grid(height, width)
    expected = torch.tensor([float(K[0, 0, 0]) * shift / distance, 0], dtype=torch.float64)
    assert_close(moved, expected.expand(height, width, 2), atol=1e-9, rtol=0)
    assert_close(depth_source, depth)


def test_a_plane_moved_by_whole_pixels_gives_the_image_moved_by_whole_pixels():
    height, width, pixels = 24, 32, 3
    K = intrinsics(height, width)
    image = torch.rand(1, 3, height, width, dtype=torch.float64)
    depth = torch.full((1, 1, height, width), 5.0, dtype=torch.float64)
    t = torch.tensor([[pixels * 5.0 / float(K[0, 0, 0]), 0, 0]], dtype=torch.float64)
    T = se3.from_rt(torch.eye(3, dtype=torch.float64)[None], t)
    grid, _ = layers.project(layers.backproject(depth, torch.linalg.inv(K)), K, T, height, width)
    warped = layers.warp(image, grid)
    assert_close(warped[..., :-pixels], image[..., pixels:], atol=1e-12, rtol=0)
    border = image[..., -1:].expand(1, 3, height, pixels)
    assert_close(warped[..., -pixels:], border, atol=1e-12, rtol=0)


def test_points_behind_the_camera_are_out_of_view_and_have_no_gradient():
    height, width = 6, 8
    depth, K, inv_K, _ = scene(height, width, batch=1)
    depth.requires_grad_()
    T = se3.from_rt(torch.eye(3).double()[None], torch.tensor([[0, 0, -50]]).double())
    points = layers.backproject(depth, inv_K)
    grid, depth_source = layers.project(points, K, T, height, width)
    assert (grid == layers.OUT_OF_VIEW).all()
    assert (depth_source < 0).all()
    grid.sum().backward()
    assert torch.equal(depth.grad, torch.zeros_like(depth))


def test_points_are_in_view_down_to_the_nearest_distance():
    z = torch.tensor([1.1, 0.9]) * layers.NEAREST
    points = torch.stack([torch.zeros(2), torch.zeros(2), z, torch.ones(2)])[None]  # (1, 4, 2)
    grid, depth = layers.project(points, torch.eye(3)[None], torch.eye(4)[None], 1, 2)
    assert grid[0, 0].tolist() == [[-1, -1], [layers.OUT_OF_VIEW] * 2]
    assert_close(depth.flatten(), z)
    assert layers.NEAREST <= 1e-3  # [m] far below the least depth of a network, 0.1


@pytest.mark.parametrize("z", [-1e-3, 0.0, 1e-30])
def test_points_in_the_plane_of_the_camera_give_finite_gradients(z):
    points = torch.tensor([[[1.0], [2], [z], [1]]], requires_grad=True)
    grid, _ = layers.project(points, torch.eye(3)[None], torch.eye(4)[None], 1, 1)
    grid.sum().backward()
    assert grid.isfinite().all()
    assert points.grad.isfinite().all()


def test_gradients_of_backprojection_and_projection():
    depth, K, inv_K, T = scene(3, 4)
    assert gradcheck(layers.backproject, (depth.requires_grad_(), inv_K.requires_grad_()))
    points = layers.backproject(depth, inv_K).detach().requires_grad_()
    inputs = (points, K.clone().requires_grad_(), T.requires_grad_(), 3, 4)
    assert gradcheck(layers.project, inputs)


def test_a_mirrored_scene_is_seen_mirrored():
    height, width = 12, 17
    depth, K, _, T = scene(height, width)
    image = torch.rand(2, 3, height, width, dtype=torch.float64)
    K_mirrored = K.clone()
    K_mirrored[:, 0, 2] = (width - 1) - K[:, 0, 2]
    M = torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64))

    def view(image, depth, K, T):
        points = layers.backproject(depth, torch.linalg.inv(K))
        return layers.warp(image, layers.project(points, K, T, height, width)[0])

    seen = view(image, depth, K, T)
    mirrored = view(image.flip(-1), depth.flip(-1), K_mirrored, M @ T @ M)
    assert_close(mirrored.flip(-1), seen, atol=1e-12, rtol=0)


# Warping


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_identity_pose_returns_the_image(size, device):
    height, width = size
    depth, K, inv_K, _ = (x.to(device) for x in scene(height, width))
    image = torch.rand(2, 3, height, width, dtype=torch.float64, device=device)
    T = torch.eye(4, dtype=torch.float64, device=device).expand(2, 4, 4)
    grid, _ = layers.project(layers.backproject(depth, inv_K), K, T, height, width)
    assert (layers.warp(image, grid) - image).abs().max() <= 1e-12


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_identity_pose_in_float32_is_as_good_as_its_grid(size, device):
    height, width = size
    depth, K, inv_K, _ = (x.to(device) for x in scene(height, width, dtype=torch.float32))
    T = torch.eye(4, device=device).expand(2, 4, 4)
    grid, _ = layers.project(layers.backproject(depth, inv_K), K, T, height, width)
    # Near -1 neighbouring float32 numbers are 6e-8 apart, which is 2e-5 pixels at a width of 640.
    one_step = torch.finfo(torch.float32).eps / 2 * width / 2  # [px]
    noise = torch.rand(2, 3, height, width, device=device)  # differs by up to 1 per pixel
    assert (layers.warp(noise, grid) - noise).abs().max() <= 8 * one_step
    smooth = (pixel_grid(height, width).sum(-1) / 50).sin().float().expand(2, 1, -1, -1).to(device)
    assert (layers.warp(smooth, grid) - smooth).abs().max() <= 1e-5


def test_warp_agrees_with_scipy_inside_and_repeats_the_border_outside():
    image = torch.rand(2, 3, 9, 11, dtype=torch.float64)
    grid = 3 * torch.rand(2, 5, 7, 2, dtype=torch.float64) - 1.5
    pixels = to_pixels(grid, 9, 11).numpy()
    warped = layers.warp(image, grid)
    for b, c in np.ndindex(2, 3):
        at = np.moveaxis(pixels[b], -1, 0)[::-1]  # rows first
        expected = map_coordinates(image[b, c].numpy(), at, order=1, mode="nearest")
        assert_close(warped[b, c], torch.from_numpy(expected), atol=1e-12, rtol=0)


def test_warp_can_give_zeros_outside():
    grid = torch.full((1, 2, 2, 2), layers.OUT_OF_VIEW)
    assert torch.equal(layers.warp(torch.ones(1, 3, 4, 4), grid, "zeros"), torch.zeros(1, 3, 2, 2))


def test_gradient_of_warp():
    image = torch.rand(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    grid = (1.8 * torch.rand(2, 3, 3, 2, dtype=torch.float64) - 0.9).requires_grad_()
    assert gradcheck(layers.warp, (image, grid))


@pytest.mark.parametrize("coordinate", [0, 1])
def test_a_coordinate_that_is_nan_gives_a_pixel_that_is_nan(coordinate):
    grid = torch.zeros(2, 3, 3, 2)
    grid[1, 2, 0, coordinate] = torch.nan
    image = torch.rand(2, 3, 4, 4, requires_grad=True)
    warped = layers.warp(image, grid.requires_grad_())
    assert warped[1, :, 2, 0].isnan().all()
    assert warped.isnan().sum() == 3
    warped.nansum().backward()  # the gradient of grid_sample would crash here
    assert image.grad.isfinite().all()
    assert torch.equal(grid.grad[1, 2, 0], torch.zeros(2))


def test_a_pose_that_is_nan_gives_an_image_that_is_nan():
    depth, K, inv_K, T = scene(6, 8, dtype=torch.float32)
    T = T.clone()
    T[1] = torch.nan
    depth.requires_grad_()
    grid, _ = layers.project(layers.backproject(depth, inv_K), K, T, 6, 8)
    warped = layers.warp(torch.rand(2, 3, 6, 8), grid)
    assert warped[1].isnan().all()
    assert warped[0].isfinite().all()
    warped.sum().backward()
    assert depth.grad[0].isfinite().all()


def test_several_cameras_see_the_points_as_each_does_alone():
    depth, K, inv_K, T = scene(6, 8)
    several = torch.stack([T, se3.inverse(T), T @ T])  # (3, 2, 4, 4)
    points = layers.backproject(depth, inv_K)
    grid, seen = layers.project(points, K, several, 6, 8)
    assert grid.shape == (3, 2, 6, 8, 2) and seen.shape == (3, 2, 1, 6, 8)
    for i, T_source_target in enumerate(several):
        for whole, alone in zip(
            (grid[i], seen[i]), layers.project(points, K, T_source_target, 6, 8), strict=True
        ):
            assert_close(whole, alone)
    short = tuple(x[:1, ..., :4] if x is points else x[:1] for x in (points, K))
    assert gradcheck(
        lambda p, T: layers.project(p, short[1], T, 2, 2),
        (short[0].requires_grad_(), several[:2, :1].detach().requires_grad_()),
    )


def test_images_one_pixel_wide_or_high_warp_onto_themselves():
    for height, width in [(1, 1), (1, 5), (5, 1)]:
        depth, K, inv_K, _ = scene(height, width)
        image = torch.rand(2, 3, height, width, dtype=torch.float64)
        T = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
        grid, _ = layers.project(layers.backproject(depth, inv_K), K, T, height, width)
        assert_close(layers.warp(image, grid), image)


# Smoothness


def test_smoothness_is_zero_for_a_plane_of_constant_disparity_and_blind_to_scale():
    image, disp = torch.rand(2, 3, 8, 9), torch.rand(2, 1, 8, 9) + 0.1
    assert layers.edge_aware_smoothness(torch.full_like(disp, 0.3), image) == 0
    scaled = layers.edge_aware_smoothness(1e-3 * disp, image)
    assert_close(scaled, layers.edge_aware_smoothness(disp, image))
    assert layers.edge_aware_smoothness(torch.zeros_like(disp), image).isfinite()


def test_smoothness_of_a_ramp_is_its_slope_over_its_mean_times_the_weight_of_the_edges():
    ramp = torch.arange(1.0, 10).expand(1, 1, 8, 9)  # slope 1 along x, mean 5
    flat = torch.full((1, 3, 8, 9), 0.5)
    assert_close(layers.edge_aware_smoothness(ramp, flat), torch.tensor(1 / 5))
    striped = (
        torch.arange(9.0).remainder(2).expand(1, 3, 8, 9)
    )  # an edge of height 1 at every pixel
    assert_close(layers.edge_aware_smoothness(ramp, striped), torch.tensor(np.exp(-1) / 5).float())
    opposed = torch.cat([striped[:, :1], 3 * (1 - striped[:, :1])], 1)  # 1 up where 3 down: mean 2
    assert_close(layers.edge_aware_smoothness(ramp, opposed), torch.tensor(np.exp(-2) / 5).float())
    assert_close(
        layers.edge_aware_smoothness(ramp.mT, striped.mT),
        layers.edge_aware_smoothness(ramp, striped),
    )


def test_each_map_of_a_batch_is_normalised_by_its_own_mean():
    image, disp = torch.rand(2, 3, 8, 9), torch.rand(2, 1, 8, 9) + 0.1
    each = [layers.edge_aware_smoothness(disp[i : i + 1], image[i : i + 1]) for i in range(2)]
    scale = torch.tensor([1.0, 7.0]).view(2, 1, 1, 1)
    assert_close(layers.edge_aware_smoothness(scale * disp, image), sum(each) / 2)


def test_gradient_of_the_smoothness():
    x = torch.rand(1, 2, 4, 5, dtype=torch.float64)
    disp = (torch.rand(1, 1, 4, 5, dtype=torch.float64) + 0.1).requires_grad_()
    assert gradcheck(layers.edge_aware_smoothness, (disp, x))


# All functions alike


def calls(dtype=torch.float32, batch=2):
    """Return every function of tensors with arguments that fit it."""
    depth, K, inv_K, T = scene(6, 8, batch, dtype)
    image = torch.rand(batch, 3, 6, 8, dtype=dtype)
    points = layers.backproject(depth, inv_K)
    grid, _ = layers.project(points, K, T, 6, 8)
    vectors = torch.randn(2, batch, 3, dtype=dtype)
    return {
        "disp_to_depth": (torch.rand(batch, 1, 6, 8, dtype=dtype), 0.1, 100.0),
        "transformation_from_parameters": tuple(vectors),
        "backproject": (depth, inv_K),
        "project": (points, K, T, 6, 8),
        "warp": (image, grid),
        "edge_aware_smoothness": (depth, image),
    }


@pytest.mark.parametrize("name", calls())
def test_types_batch_of_one_and_untouched_inputs(name, dtype):
    arguments = calls(dtype)[name]
    before = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    result = getattr(layers, name)(*arguments)
    for a, b in zip(arguments, before, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    single = [a[:1] if isinstance(a, torch.Tensor) else a for a in arguments]
    first = getattr(layers, name)(*single)
    for whole, one in zip(
        *(r if isinstance(r, tuple) else (r,) for r in (result, first)), strict=True
    ):
        assert whole.dtype == dtype
        if whole.ndim:
            assert_close(whole[:1], one)


@pytest.mark.parametrize(
    "name, position, shape, message",
    [
        (
            "transformation_from_parameters",
            0,
            (2, 4),
            r"axisangle: expected shape \(\.\.\., 3\), got",
        ),
        ("transformation_from_parameters", 0, (2, 2, 3), r"axisangle: expected shape \(B, 3\) or"),
        ("transformation_from_parameters", 1, (3, 3), r"translation: expected shape \(2, 3\)"),
        (
            "backproject",
            0,
            (2, 3, 6, 8),
            r"depth: expected shape \(B, 1, H, W\), got \(2, 3, 6, 8\)",
        ),
        ("backproject", 1, (3, 3, 3), r"inv_K: expected shape \(2, 3, 3\) or \(2, 4, 4\)"),
        ("project", 0, (2, 4, 47), r"points: expected shape \(\.\.\., 4, 48\), got \(2, 4, 47\)"),
        ("project", 0, (4, 48), r"points: expected shape \(B, 4, H\*W\), got \(4, 48\)"),
        ("project", 1, (1, 3, 3), r"K: expected shape \(2, 3, 3\) or"),
        ("project", 2, (3, 4, 4), r"T: expected shape \(..., 2, 4, 4\) as points, got \(3, 4"),
        ("warp", 0, (3, 6, 8), r"image: expected shape \(B, C, H, W\), got \(3, 6, 8\)"),
        ("warp", 1, (1, 6, 8, 2), r"grid: expected shape \(2, H, W, 2\), got \(1, 6, 8, 2\)"),
        ("warp", 1, (2, 6, 8, 3), r"grid: expected shape \(\.\.\., 2\), got \(2, 6, 8, 3\)"),
        ("edge_aware_smoothness", 1, (2, 3, 6, 7), r"image: expected shape \(2, C, 6, 8\) as disp"),
    ],
)
def test_a_wrong_shape_is_refused_by_name(name, position, shape, message):
    arguments = list(calls()[name])
    arguments[position] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        getattr(layers, name)(*arguments)


@pytest.mark.parametrize("name", calls())
def test_half_precision_and_bytes_are_refused_by_name(name):
    for position, argument in enumerate(calls()[name]):
        for dtype in (torch.bfloat16, torch.uint8):
            arguments = list(calls()[name])
            if isinstance(argument, torch.Tensor):
                arguments[position] = argument.to(dtype)
                with pytest.raises(
                    ValueError, match=r"^\w+: expected float32 or float64, got torch"
                ):
                    getattr(layers, name)(*arguments)


@pytest.mark.parametrize("shape", [(1, 1, 1, 5), (1, 1, 5, 1)], ids=str)
def test_images_without_a_neighbour_are_refused_where_one_is_needed(shape):
    image = torch.rand(shape)
    with pytest.raises(ValueError, match="disp: expected at least 2x2 pixels"):
        layers.edge_aware_smoothness(image, image)
