"""The small network that sees the camera's motion in the images themselves, without an encoder."""

from __future__ import annotations

from torch import Tensor, nn

from networks.depth_decoder import in_full
from networks.motion_forms import RAW_SCALE
from networks.pose_decoder import PoseOutput

_CHANNELS = (16, 32, 64, 128, 256, 256, 256)
_KERNELS = (7, 5, 3, 3, 3, 3, 3)


class PoseCNN(nn.Module):
    """Motions between images from seven convolutions, without uncertainty."""

    def __init__(self, num_input_frames: int) -> None:
        """Build the network for n images, which have n - 1 motions between them."""
        super().__init__()
        if num_input_frames < 2:
            raise ValueError(f"num_input_frames: expected 2 or more, got {num_input_frames}")
        self.num_motions = num_input_frames - 1
        inputs = (3 * num_input_frames, *_CHANNELS)
        self.net = nn.ModuleList(
            nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2)
            for before, after, kernel in zip(inputs, _CHANNELS, _KERNELS, strict=False)
        )
        self.pose_conv = nn.Conv2d(_CHANNELS[-1], 6 * self.num_motions, 1)

    def forward(self, images: Tensor) -> PoseOutput:
        """Return the motions; the translation's unit is still that of the mean depth.

        Args:
            images: (B, 3 * n, H, W) in [0, 1], in temporal order
        """
        x = images
        for conv in self.net:
            x = conv(x).relu()
        means = RAW_SCALE * in_full(self.pose_conv(x)).mean((2, 3))  # (B, 6 * (n - 1))
        frames = means.unflatten(1, (self.num_motions, 6))
        axisangle, translation = frames.split(3, -1)
        return PoseOutput(axisangle, translation, frames.new_zeros(frames.shape))
