"""Decoders of few numbers: the camera's motion, its velocity, gravity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks import motion_forms
from networks.depth_decoder import in_full
from networks.motion_forms import PUBLISHED, RAW_SCALE, LinearForm

_MOTION, _MOTION_AND_STD = 6, 12  # numbers for a frame, without and with uncertainty


class PoseOutput(NamedTuple):
    """Motions of F frames, in the network's unit of translation."""

    axisangle: Tensor  # (B, F, 3) [rad]
    translation: Tensor  # (B, F, 3)
    uncertainty: Tensor  # (B, F, 6) exponents, rotation first; see ekf.noise.vision_covariance


class _MeanDecoder(nn.Module):
    """Numbers of the whole image: convolutions of the coarsest maps, then the mean."""

    def __init__(self, num_ch_enc: Sequence[int], num_input_features: int, outputs: int) -> None:
        super().__init__()
        if num_input_features < 1:
            raise ValueError(f"num_input_features: expected 1 or more, got {num_input_features}")
        self.num_input_features = num_input_features
        self.net = nn.ModuleList(
            [
                nn.Conv2d(num_ch_enc[-1], 256, 1),
                nn.Conv2d(256 * num_input_features, 256, 3, padding=1),
                nn.Conv2d(256, 256, 3, padding=1),
                nn.Conv2d(256, outputs, 1),
            ]
        )

    def _means(self, pyramids: Sequence[Sequence[Tensor]]) -> Tensor:
        """Return (B, outputs)."""
        if len(pyramids) != self.num_input_features:
            raise ValueError(
                f"pyramids: expected {self.num_input_features} of them, got {len(pyramids)}"
            )
        squeeze, *convs, last = self.net
        x = torch.cat([squeeze(features[-1]).relu() for features in pyramids], 1)
        for conv in convs:
            x = conv(x).relu()
        return in_full(last(x)).mean((2, 3))


class PoseDecoder(_MeanDecoder):
    """Motions between images, and how uncertain they are, from features of all of them.

    Weights without uncertainty, as monodepth2's, load too: that of every motion is zero then,
    which says nothing.
    """

    def __init__(
        self,
        num_ch_enc: Sequence[int],
        num_input_features: int = 1,
        num_frames_to_predict_for: int = 2,
        motion_form: str = PUBLISHED,
    ) -> None:
        """Build the decoder.

        Args:
            num_ch_enc: channels of the encoder's maps; only the last, the coarsest, is used
            num_input_features: pyramids of features: one if the encoder saw all images together
            num_frames_to_predict_for: F motions
            motion_form: one of `motion_forms.MOTION_FORMS`
        """
        if num_frames_to_predict_for < 1:
            raise ValueError(
                f"num_frames_to_predict_for: expected 1 or more, got {num_frames_to_predict_for}"
            )
        outputs = _MOTION_AND_STD * num_frames_to_predict_for
        super().__init__(num_ch_enc, num_input_features, outputs)
        self.num_frames_to_predict_for = num_frames_to_predict_for
        self.translation = motion_forms.TRANSLATION[motion_form]
        self.register_load_state_dict_pre_hook(_add_uncertainty)

    def forward(self, pyramids: Sequence[Sequence[Tensor]]) -> PoseOutput:
        """Return the motions.

        Args:
            pyramids: num_input_features lists of an encoder's maps
        """
        frames = self._means(pyramids).unflatten(1, (self.num_frames_to_predict_for, -1))
        axisangle, translation, uncertainty = frames.split([3, 3, 6], -1)
        return PoseOutput(
            RAW_SCALE * axisangle, _meant(translation, self.translation), RAW_SCALE * uncertainty
        )


class VectorDecoder(_MeanDecoder):
    """One vector: the velocity [m/s] or gravity [m/s^2] in the axes of the first image's camera."""

    def __init__(
        self, num_ch_enc: Sequence[int], form: LinearForm, length: float | None = None
    ) -> None:
        """Build the decoder.

        Args:
            num_ch_enc: channels of the encoder's maps; only the last, the coarsest, is used
            form: what its numbers stand for
            length: that of every vector, where it is known
        """
        super().__init__(num_ch_enc, num_input_features=1, outputs=3)
        self.form, self.length = form, length

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return (B, 3) from the maps of an encoder that saw both images of a pair."""
        vector = _meant(self._means([features]), self.form)
        return vector if self.length is None else self.length * F.normalize(vector, dim=-1)


def _meant(raw: Tensor, form: LinearForm) -> Tensor:
    return form.scale * raw + raw.new_tensor(form.mean)


def _add_uncertainty(
    decoder: PoseDecoder, state_dict: dict[str, Any], prefix: str, *_: object
) -> None:
    """Give weights of six outputs for each frame the other six, which are always zero."""
    frames = decoder.num_frames_to_predict_for
    for name in (f"{prefix}net.3.weight", f"{prefix}net.3.bias"):
        rows = state_dict.get(name)
        if isinstance(rows, Tensor) and rows.ndim > 0 and len(rows) == _MOTION * frames:
            motion = rows.detach().unflatten(0, (frames, _MOTION))
            state_dict[name] = torch.cat([motion, torch.zeros_like(motion)], 1).flatten(0, 1)
