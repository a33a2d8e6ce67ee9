"""Structural similarity (SSIM) of images, made to be fast: it is most of what a loss costs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from layers import check_like, check_map
from liegroups.checks import check_tensor

_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2
_CACHED_NUMBERS = 400_000  # of a map in work; several maps fit into the cache of a CPU core's group
_EDGES = ((0, 1), (-1, -2))  # first and last row or column, each with its neighbour


class SsimStatistics(NamedTuple):
    """What SSIM needs to know of an image, computed once for all that it is compared with.

    The sums carry no gradient: that of the image does not lead over them.
    """

    image: Tensor  # (B, C, H, W)
    total: Tensor  # (B, C, H, W) sum over the window
    spread: Tensor  # (B, C, H, W) 9 (variance of the window + C2)


@torch.compiler.disable
def ssim_statistics(image: Tensor) -> SsimStatistics:
    """Sum images (B, C, H, W), at least 2x2, over 3x3 windows with mirrored borders."""
    _, height, width = check_map("image", image)
    if min(height, width) < 2:
        raise ValueError(f"image: expected at least 2x2 pixels, got {tuple(image.shape)}")
    with torch.no_grad():
        total, spread = torch.empty_like(image), torch.empty_like(image)
        for _, part, work in _blocks(image.unsqueeze(0), maps=4):
            total[part], spread[part] = _window_statistics(image[part], work)
    return SsimStatistics(image, total, spread)


@torch.compiler.disable
def ssim_loss(x: Tensor, y: Tensor | SsimStatistics) -> Tensor:
    """Return (1 - SSIM) / 2 per pixel, clamped to [0, 1], over 3x3 windows with mirrored borders.

    Args:
        x: (B, C, H, W) images in [0, 1], at least 2x2, or several for each y, (N, B, C, H, W)
        y: (B, C, H, W) images, or their statistics

    Returns:
        shaped like x, zero where the windows are equal
    """
    planes = [each.flatten(0, 1).unsqueeze(1) for each in _as_statistics(x, y)]  # (B*C, 1, H, W)
    sources = x.reshape(-1, *planes[0].shape)  # (N, B*C, 1, H, W)
    return _Dissimilarity.apply(sources, *planes, 1.0, 0.0).view(x.shape)


@torch.compiler.disable
def dissimilarity(
    x: Tensor, y: Tensor | SsimStatistics, ssim_weight: float, l1_weight: float
) -> Tensor:
    """Return ssim_weight * ssim_loss(x, y) + l1_weight * |x - y|, averaged over the channels.

    Args: as of `ssim_loss`

    Returns:
        (B, 1, H, W) or (N, B, 1, H, W)
    """
    target = _as_statistics(x, y)
    result = _Dissimilarity.apply(x.reshape(-1, *x.shape[-4:]), *target, ssim_weight, l1_weight)
    return result.view(*x.shape[:-3], 1, *x.shape[-2:])


class _Dissimilarity(torch.autograd.Function):
    """`dissimilarity` for x (N, B, C, H, W), with the memory in mind: that is what takes the time.

    It works in place, on one block of images after the other, each small enough for the cache of a
    CPU. For the gradient it keeps nothing but the images: to compute the rest again is faster than
    to write and to read it. It is kept from compilers, which would write all sums over windows as
    one endless expression.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, *rest: Tensor | float) -> Tensor:
        *target, ssim_weight, l1_weight = rest
        ctx.save_for_backward(x, *target)
        ctx.weights = ssim_weight / x.shape[2], l1_weight / x.shape[2]
        result = x.new_empty(*x.shape[:2], 1, *x.shape[3:])
        for n, part, work in _blocks(x, maps=6):
            block = SsimStatistics(*(each[part] for each in target))
            result[n, part] = _dissimilarity(x[n, part], block, ctx.weights, work)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *target = ctx.saved_tensors
        grad_x = grad_y = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.empty_like(x)
            for n, part, work in _blocks(x, maps=9):
                block = SsimStatistics(*(each[part] for each in target))
                given = x[n, part], block, ctx.weights, grad[n, part]
                grad_x[n, part] = _dissimilarity_gradient(*given, work)
        if ctx.needs_input_grad[1]:  # it is symmetric: y moves, and is compared with x
            y, grad_y = target[0], torch.zeros_like(target[0])
            for n, part, work in _blocks(x, maps=11):
                block = SsimStatistics(x[n, part], *_window_statistics(x[n, part], work[-4:]))
                given = y[part], block, ctx.weights, grad[n, part]
                grad_y[part] += _dissimilarity_gradient(*given, work[:9])
        return grad_x, grad_y, None, None, None, None


def _as_statistics(x: Tensor, y: Tensor | SsimStatistics) -> SsimStatistics:
    """Return the statistics of y (B, C, H, W), which must fit x, (B, C, H, W) or with N before."""
    image = y.image if isinstance(y, SsimStatistics) else y
    check_tensor("x", x)
    if x.ndim not in (4, 5):
        raise ValueError(f"x: expected shape (B, C, H, W) or (N, B, C, H, W), got {tuple(x.shape)}")
    check_like("y", image, "x", x if x.ndim == 4 else x[0])
    if image.dtype != x.dtype:
        raise ValueError(f"y: expected {x.dtype} as x, got {image.dtype}")
    return y if isinstance(y, SsimStatistics) else ssim_statistics(y)


def _blocks(x: Tensor, maps: int) -> Iterator[tuple[int, slice, Tensor]]:
    """Divide x (N, B, C, H, W) into blocks: source, part of the batch, (maps, b, C, H, W) to use.

    The memory is that of the block before. It holds anything.
    """
    sources, batch, *shape = x.shape
    size = max(batch, 1)
    if x.device.type == "cpu":
        size = min(size, max(1, _CACHED_NUMBERS // math.prod(shape)))
    memory = x.new_empty(maps * size * math.prod(shape))
    for start in range(0, batch, size):
        part = slice(start, min(start + size, batch))
        block = (maps, part.stop - start, *shape)
        work = memory[: math.prod(block)].view(block)
        for source in range(sources):
            yield source, part, work


def _dissimilarity(
    x: Tensor, y: SsimStatistics, weights: tuple[float, float], work: Tensor
) -> Tensor:
    """Return the weighted sum over the channels (B, 1, H, W); work is (6, B, C, H, W)."""
    sum_d, sum_x, r1, _, r2, _ = _structure(x, y, work)
    loss = torch.add(r1, r2, out=sum_d).addcmul_(r1, r2, value=-1)  # 1 - (1 - r1) (1 - r2)
    loss.clamp_(0, 2).mul_(weights[0] / 2)  # it leaves [0, 2] by rounding only
    difference = torch.sub(x, y.image, out=sum_x).abs_()
    return loss.add_(difference, alpha=weights[1]).sum(1, keepdim=True)


def _dissimilarity_gradient(
    x: Tensor, y: SsimStatistics, weights: tuple[float, float], grad: Tensor, work: Tensor
) -> Tensor:
    """Return the gradient to x of the sum of grad times `_dissimilarity`; work is (9, B, C, H, W).

    Of half of 1 - SSIM, by the three sums over the window:

        sum d^2   by = (1 - r1) / b2
        sum x^2   -r2 by
        sum x     (1 - r2) (sum d - r1 sum x) / b1 - by (sum d - r2 sum x) / 9,  also in sum d

    halved once more where the sum is one of squares.
    """
    sum_d, sum_x, r1, b1, r2, b2 = _structure(x, y, work[:6])
    by_x, by_d2, by_x2 = by = work[6:]
    torch.sub(1, r1, out=by_d2).div_(b2)
    torch.mul(r2, by_d2, out=by_x2).neg_()
    torch.addcmul(sum_d, r1, sum_x, value=-1, out=by_x).div_(b1)
    by_x.addcmul_(by_x, r2, value=-1)
    by_x.addcmul_(sum_d.addcmul_(r2, sum_x, value=-1), by_d2, value=-1 / 9)
    _sum_windows_(by.mul_(grad), work[3:6], transposed=True)
    d = torch.sub(x, y.image, out=work[0])
    by_x.addcmul_(d, by_d2).addcmul_(x, by_x2).mul_(weights[0])
    return by_x.add_(d.sign_().mul_(grad), alpha=weights[1])


def _structure(x: Tensor, y: SsimStatistics, work: Tensor) -> tuple[Tensor, ...]:
    """Return sum d, sum x, r1, b1, r2 and b2 (B, C, H, W), which are work (6, B, C, H, W).

    With d = x - y, and sums over windows instead of means, SSIM = (1 - r1) (1 - r2) where

        r1 = mean(d)^2 / (mean(x)^2 + mean(y)^2 + C1) = (sum d)^2 / b1
        r2 = var(d) / (var(x) + var(y) + C2) = (sum d^2 - (sum d)^2 / 9) / b2

    This is the usual fraction. But where x is close to y, 1 - SSIM is not what rounding has left of
    the difference of large numbers.
    """
    sums, work = work[:3], work[3:]
    sum_d, sum_d2, sum_x2 = sums
    torch.sub(x, y.image, out=sum_d)
    torch.mul(sum_d, sum_d, out=sum_d2)
    torch.mul(x, x, out=sum_x2)
    _sum_windows_(sums, work)
    sum_x, r1, b1 = work
    torch.add(sum_d, y.total, out=sum_x)
    torch.mul(y.total, y.total, out=b1).addcmul_(sum_x, sum_x).add_(81 * _SSIM_C1)
    b2 = sum_x2.addcmul_(sum_x, sum_x, value=-1 / 9).add_(y.spread)
    torch.mul(sum_d, sum_d, out=r1)
    r2 = sum_d2.add_(r1, alpha=-1 / 9).div_(b2)
    return sum_d, sum_x, r1.div_(b1), b1, r2, b2


def _window_statistics(image: Tensor, work: Tensor) -> tuple[Tensor, Tensor]:
    """Return total and spread of an image, the last two of work (4, B, C, H, W)."""
    total, squares = sums = work[2:]
    total.copy_(image)
    torch.mul(image, image, out=squares)
    _sum_windows_(sums, work[:2])
    return total, squares.addcmul_(total, total, value=-1 / 9).add_(9 * _SSIM_C2)


def _sum_windows_(maps: Tensor, work: Tensor, transposed: bool = False) -> None:
    """Replace maps (..., H, W) by their sums over 3x3 windows, the border mirrored.

    All maps at once are added to themselves, moved by a row and then by a pixel, and what came from
    the neighbouring map or row is written anew: on a CPU that takes a tenth of the time of
    `avg_pool2d`. Transposed, it takes gradients back through the sums.
    """
    for dim, given, sums in ((-2, maps, work), (-1, work, maps)):
        step = given.stride(dim)
        flat, middle = given.view(-1), sums.view(-1)[step:-step]
        torch.add(flat[: -2 * step], flat[2 * step :], out=middle).add_(flat[step:-step])
        for edge, inner in _EDGES:
            border = sums.select(dim, edge).copy_(given.select(dim, edge))
            border.add_(given.select(dim, inner), alpha=1 if transposed else 2)
        for edge, inner in _EDGES if transposed else ():
            sums.select(dim, inner).add_(given.select(dim, edge))
