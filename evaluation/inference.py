"""Images in, inverse depth in metres out: batched, on any device, in the precision asked for."""

from __future__ import annotations

import torch
from torch import Tensor

import metrics
from evaluation.weights import Weights
from training.prediction import AMP_TYPES, depth_in_metres
from training.views import enlarged


class DepthNetwork:
    """The networks of depth as one function.

    Args:
        weights: of `evaluation.weights.open_depth`
        amp: what the networks compute in: `off` for float32, `bf16` or `fp16`
        post_process: also look at the mirrored image, and blend both answers
        factor: of all depths; 1 unless the scale is to be changed by hand
    """

    def __init__(
        self,
        weights: Weights,
        amp: str = "off",
        post_process: bool = False,
        factor: float = 1.0,
    ) -> None:
        self.weights = weights
        self._amp = AMP_TYPES.get(amp)
        self._post_process = post_process
        self._factor = factor
        # Convolutions are faster so on CPUs and GPUs alike: see benchmarks/evaluation.py.
        self._models = weights.models.to(memory_format=torch.channels_last)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the images that it wants [px]."""
        return self.weights.size

    @torch.inference_mode()
    def inverse_depth(self, images: Tensor) -> Tensor:
        """Return what is seen in images (B, 3, H, W) uint8 RGB: (B, 1, H, W) float32 [1/m].

        Inverse depth is what may be resized: see `metrics.resize_disparity`.
        """
        device = self.weights.device
        images = images.to(device, non_blocking=True).to(torch.float32) / 255
        batch = len(images)
        if self._post_process:
            images = torch.cat([images, images.flip(-1)])
        with torch.autocast(device.type, dtype=self._amp, enabled=self._amp is not None):
            features = self._models["encoder"](images.contiguous(memory_format=torch.channels_last))
            disparity = self._models["depth"].finest(features)  # (B, 1, h, w) in 0..1
        disparity = enlarged(disparity.float(), *images.shape[-2:])
        inverse = depth_in_metres(disparity, self.weights.options).reciprocal()
        if self._post_process:
            inverse = metrics.blend_mirrored(inverse[:batch], inverse[batch:])
        return inverse / self._factor
