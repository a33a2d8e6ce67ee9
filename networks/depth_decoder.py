"""The decoder that turns features into maps between 0 and 1: disparities, or masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CHANNELS = (16, 32, 64, 128, 256)  # of each level, the finest first
_COARSEST = len(_CHANNELS) - 1
_FIRST_OUTPUT = 2 * len(_CHANNELS)  # place in the module list behind two blocks for each level


class DepthDecoder(nn.Module):
    """A U-Net's way up, with an output at every scale that is wanted."""

    def __init__(
        self,
        num_ch_enc: Sequence[int],
        scales: Sequence[int] = (0, 1, 2, 3),
        num_output_channels: int = 1,
        narrow: bool = False,
    ) -> None:
        """Build the decoder.

        Args:
            num_ch_enc: channels of the encoder's five maps, the finest first
            scales: s gives an output of 1 / 2^s of the image's size; 0 to 4, in any order
            num_output_channels: C, 1 for disparity
            narrow: half the channels on the way, which no published weights have
        """
        super().__init__()
        self.scales = tuple(scales)
        if (
            not self.scales
            or len(set(self.scales)) < len(self.scales)
            or not set(self.scales) <= set(range(len(_CHANNELS)))
        ):
            raise ValueError(
                f"scales: expected different numbers from 0 to {_COARSEST}, got {scales}"
            )
        channels = [count // 2 for count in _CHANNELS] if narrow else _CHANNELS
        # The order is that of the published weights.
        modules: list[nn.Module] = []
        for level in range(_COARSEST, -1, -1):
            below = num_ch_enc[-1] if level == _COARSEST else channels[level + 1]
            skipped = num_ch_enc[level - 1] if level > 0 else 0
            modules.append(ConvBlock(below, channels[level]))
            modules.append(ConvBlock(channels[level] + skipped, channels[level]))
        modules += [Conv3x3(channels[scale], num_output_channels) for scale in self.scales]
        self.decoder = nn.ModuleList(modules)
        # Blocks finer than every output have their place in the weights, but nothing to learn.
        for block in self.decoder[_place(min(self.scales)) + 2 : _FIRST_OUTPUT]:
            block.requires_grad_(False)

    def begin_at(self, disparity: float) -> None:
        """Let an untrained decoder say about the same everywhere, at all scales.

        Args:
            disparity: in (0, 1)
        """
        for output in self.decoder[_FIRST_OUTPUT:]:
            nn.init.constant_(output.conv.bias, math.log(disparity / (1 - disparity)))

    def forward(self, features: Sequence[Tensor]) -> dict[tuple[str, int], Tensor]:
        """Return maps between 0 and 1 by scale, in full precision under autocast too.

        Args:
            features: the encoder's five maps of an image (H, W), which is at least 64x64

        Returns:
            {("disp", scale): (B, C, H / 2^scale, W / 2^scale)}
        """
        outputs = {}
        x = features[-1]
        for level in range(_COARSEST, min(self.scales) - 1, -1):
            before, after = self.decoder[_place(level)], self.decoder[_place(level) + 1]
            x = F.interpolate(before(x), scale_factor=2, mode="nearest")
            if level > 0:
                x = torch.cat([x, features[level - 1]], 1)
            x = after(x)
            if level in self.scales:
                logits = self.decoder[_FIRST_OUTPUT + self.scales.index(level)](x)
                outputs["disp", level] = in_full(logits).sigmoid()
        return outputs

    def finest(self, features: Sequence[Tensor]) -> Tensor:
        """Return the map of the finest scale alone; see `forward`."""
        return self(features)["disp", min(self.scales)]


class ConvBlock(nn.Module):
    """A 3x3 convolution and ELU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = Conv3x3(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels_in, H, W) to (B, channels_out, H, W)."""
        return F.elu(self.conv(x), inplace=True)  # of the convolution's own output


class Conv3x3(nn.Module):
    """A 3x3 convolution with mirrored borders, which have no edge where the image ends."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels_in, H, W) to (B, channels_out, H, W)."""
        return self.conv(F.pad(x, (1, 1, 1, 1), mode="reflect"))


def in_full(x: Tensor) -> Tensor:
    """Return x in single precision if it is in half: what follows a network is metres."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _place(level: int) -> int:
    """Return where the first of a level's two blocks is in the module list."""
    return 2 * (_COARSEST - level)
