"""Batch normalisation over the joint batch of all processes, on GPUs and on CPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from training.distributed import World


def synchronise(models: nn.Module, world: World) -> nn.Module:
    """Let batch norms see the batches of all processes, as one process would that has them all.

    Parameters, buffers and the keys of state dictionaries stay as they are.

    Args:
        models: changed in place, but for a batch norm by itself
        world: nothing is changed in a world of one

    Returns:
        the models, to be used instead
    """
    if world.size == 1:
        return models
    if world.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(models)
    return _replace(models, {})  # that of PyTorch refuses the CPU


class JointBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` whose statistics are those of the batches of all processes, on any device.

    Outside of a world, and to evaluate, it is the usual one.
    """

    @classmethod
    def of(cls, module: nn.BatchNorm2d) -> JointBatchNorm2d:
        """Return the same batch norm over all processes: it shares parameters and buffers."""
        joint = cls(
            module.num_features,
            module.eps,
            module.momentum,
            affine=False,
            track_running_stats=False,
        )
        joint.affine, joint.track_running_stats = module.affine, module.track_running_stats
        for name, parameter in module._parameters.items():
            joint.register_parameter(name, parameter)
        for name, buffer in module._buffers.items():
            joint.register_buffer(name, buffer)
        return joint.train(module.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise a batch (B, C, H, W); every process has to come here with its part."""
        if not (self.training and dist.is_initialized()):
            return super().forward(input)
        self._check_input_dim(input)
        output, mean, variance, count = _JointBatchNorm.apply(
            input, self.weight, self.bias, self.eps
        )
        if self.track_running_stats:
            self._track(mean, variance * count / (count - 1))
        return output

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those (C,) of a batch, the variance unbiased."""
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:  # the mean over all batches
            momentum = 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


class _JointBatchNorm(torch.autograd.Function):
    """y = weight (x - mean) / sqrt(variance + eps) + bias, mean and variance over all processes.

    The gradient with respect to x is that of the sum of all processes' losses. Those with respect
    to weight and bias are this process's share: DDP takes their mean, as of all parameters.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, variance, count = _joint_statistics(x)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        ctx.mark_non_differentiable(mean, variance, count)
        parameters = [None if p is None else p.to(mean.dtype) for p in (weight, bias)]
        output = F.batch_norm(x.to(mean.dtype), mean, variance, *parameters, eps=eps)
        return output.to(x.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor, *_: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, mean, scale, count = ctx.saved_tensors
        grad = grad.to(mean.dtype)
        normalised = (x.to(mean.dtype) - _per_channel(mean)) * _per_channel(scale)  # (B, C, H, W)
        grad_bias = grad.sum((0, 2, 3))  # (C,)
        grad_weight = (grad * normalised).sum((0, 2, 3))  # (C,)
        grad_x = None
        # All processes come here or none does: the networks are the same.
        if ctx.needs_input_grad[0]:
            # Mean and variance depend on every x, so what they pass back does on every gradient.
            sums = torch.stack([grad_bias, grad_weight])  # (2, C)
            dist.all_reduce(sums)
            through_mean, through_variance = (sums / count).unbind()
            grad_x = grad - _per_channel(through_mean) - normalised * _per_channel(through_variance)
            slope = scale if weight is None else scale * weight.to(mean.dtype)
            grad_x = (grad_x * _per_channel(slope)).to(x.dtype)
        if weight is None:
            return grad_x, None, None, None
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None


def _joint_statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean (C,), biased variance (C,) and count (1,) over the batches of all processes."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, (0, 2, 3), correction=0)  # (C,) each
    count = mean.new_tensor([x.numel() / x.shape[1]])
    own = torch.cat([mean, variance, count])
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, own)
    # Sums of squares would do with one sum less, and lose a small variance about a large mean.
    means, variances, counts = torch.stack(gathered).split([len(mean), len(mean), 1], 1)
    total = counts.sum(0)  # (1,)
    share = counts / total  # (processes, 1)
    mean = (share * means).sum(0)
    variance = (share * (variances + (means - mean).square())).sum(0)
    return mean, variance, total


def _per_channel(values: Tensor) -> Tensor:
    return values[:, None, None]  # (C, 1, 1)


def _replace(module: nn.Module, replaced: dict[nn.Module, JointBatchNorm2d]) -> nn.Module:
    """Replace batch norms in a tree of modules; one that is at two places stays one."""
    if isinstance(module, JointBatchNorm2d):
        return module
    if isinstance(module, nn.BatchNorm2d):
        if module not in replaced:
            replaced[module] = JointBatchNorm2d.of(module)
        return replaced[module]
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        raise TypeError(f"expected no batch norm but BatchNorm2d, got {type(module).__name__}")
    for name, child in module._modules.items():  # named_children passes over a second place
        if child is not None:
            setattr(module, name, _replace(child, replaced))
    return module
