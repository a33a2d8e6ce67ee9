"""ResNets as encoders of one image or several, and their ImageNet weights."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from utils import UserError, load_state

# Blocks of the four stages, and whether they are bottlenecks of three convolutions.
_BLOCKS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}

_CHANNELS = 64  # of the first two maps

_MEAN, _STD = 0.45, 0.225  # of ImageNet, one for all channels, as published

_REASON_LENGTH = 120  # characters of another library's error that ours repeats


class _NarrowResNet(ResNet):
    """torchvision's, with half the channels in all stages."""

    def __init__(self, block: type[BasicBlock | Bottleneck], layers: list[int]) -> None:
        super().__init__(block, layers)
        first = _CHANNELS // 2
        self.conv1 = nn.Conv2d(3, first, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1 = nn.BatchNorm2d(first)
        self.fc = nn.Linear(self.inplanes, self.fc.out_features)

    def _make_layer(self, block: type, planes: int, *args: Any, **kwargs: Any) -> nn.Sequential:
        if planes == _CHANNELS:  # the first stage
            self.inplanes = _CHANNELS // 2
        return super()._make_layer(block, planes // 2, *args, **kwargs)


class ResnetEncoder(nn.Module):
    """Five feature maps of an image, or of several stacked along their channels.

    Attributes:
        num_ch_enc: channels of the maps, the finest first
    """

    def __init__(self, num_layers: int, num_input_images: int = 1, narrow: bool = False) -> None:
        """Build the network, with weights at random.

        Args:
            num_layers: 18, 34, 50, 101 or 152
            num_input_images: stacked along their channels
            narrow: half the channels everywhere, which no published weights have
        """
        super().__init__()
        if num_layers not in _BLOCKS:
            raise ValueError(
                f"num_layers: expected one of {', '.join(map(str, _BLOCKS))}, got {num_layers}"
            )
        if num_input_images < 1:
            raise ValueError(f"num_input_images: expected 1 or more, got {num_input_images}")
        self.num_layers = num_layers
        self.num_input_images = num_input_images
        self.narrow = narrow
        counts, bottleneck = _BLOCKS[num_layers]
        expansion, first = (4 if bottleneck else 1), (_CHANNELS // 2 if narrow else _CHANNELS)
        self.num_ch_enc = (first, *(first * 2**stage * expansion for stage in range(4)))
        block = Bottleneck if bottleneck else BasicBlock
        self.encoder = (_NarrowResNet if narrow else ResNet)(block, list(counts))
        if num_input_images > 1:
            self.encoder.conv1 = nn.Conv2d(3 * num_input_images, first, 7, 2, 3, bias=False)
            # As torchvision begins all of its convolutions.
            nn.init.kaiming_normal_(self.encoder.conv1.weight, mode="fan_out", nonlinearity="relu")
        # The published weights have the classifier, so it stays; but nothing asks for classes, and
        # a parameter without a gradient must not look as if it were trained.
        self.encoder.fc.requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return five maps, at a half, a quarter ... a 32nd of the image's size.

        Args:
            image: (B, 3 * num_input_images, H, W) in [0, 1]; H, W are multiples of 32
        """
        net = self.encoder
        stem = net.relu(net.bn1(net.conv1((image - _MEAN) / _STD)))  # (B, 64, H/2, W/2)
        features = [stem, net.layer1(net.maxpool(stem))]
        for stage in (net.layer2, net.layer3, net.layer4):
            features.append(stage(features[-1]))
        return features

    def load_imagenet(self, path: Path | None = None) -> None:
        """Begin with what was learnt on ImageNet.

        Args:
            path: a state dict of torchvision's ResNet of this depth, or a folder with such files
                under torchvision's names; downloaded, or taken from torch's cache, if not given

        Raises:
            UserError: the weights cannot be had, or are those of another network; a narrow one
                has none
        """
        if self.narrow:
            raise UserError(
                "narrow networks cannot begin with ImageNet, whose weights are twice as wide: "
                "--narrow_networks needs --weights_init scratch"
            )
        if path is None:
            source, state = _weights(self.num_layers).url, _download(self.num_layers)
        else:
            source = _file_for(path, self.num_layers)
            state = _read(source, self.num_layers)
        for name, value in self.encoder.fc.state_dict(prefix="fc.").items():
            # The classifier is not used: it may be missing, or know other classes.
            if name not in state or state[name].shape != value.shape:
                state[name] = value
        try:
            # Alike for all images and of the same sum: n equal images give what one image gives.
            images = self.num_input_images
            state["conv1.weight"] = state["conv1.weight"].repeat(1, images, 1, 1) / images
            self.encoder.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(
                f"{source}: not a ResNet-{self.num_layers} as torchvision saves it "
                f"({_reason(error)})"
            ) from None


def resnet_layers_of(state_dict: Mapping[str, object]) -> int | None:
    """Return which ResNet a state dict is of, 18 to 152, or None if of none.

    Args:
        state_dict: torchvision's, or a `ResnetEncoder`'s, whose names begin with "encoder."
    """
    named = {str(name).removeprefix("encoder."): value for name, value in state_dict.items()}
    stages: list[set[str]] = [set(), set(), set(), set()]
    for name in named:
        block = re.match(r"layer([1-4])\.(\d+)\.", name)
        if block:
            stages[int(block[1]) - 1].add(block[2])
    bottleneck = "layer1.0.conv3.weight" in named
    # Wide ResNets and ResNeXts have the same names; their first blocks are wider.
    kernel = 1 if bottleneck else 3
    shape = getattr(named.get("layer1.0.conv1.weight"), "shape", ())
    if tuple(shape) not in [(n, n, kernel, kernel) for n in (_CHANNELS, _CHANNELS // 2)]:
        return None
    found = tuple(map(len, stages)), bottleneck
    return next((layers for layers, blocks in _BLOCKS.items() if blocks == found), None)


def _weights(num_layers: int) -> WeightsEnum:
    # Not the newer V2 of some depths: the whole family of methods, and every published number of
    # it, began with V1; and of the depths 18 and 34 there is nothing else.
    return models.get_model_weights(f"resnet{num_layers}").IMAGENET1K_V1


def _file_name(num_layers: int) -> str:
    return _weights(num_layers).url.rsplit("/", 1)[1]


def _download(num_layers: int) -> dict[str, Tensor]:
    weights = _weights(num_layers)
    try:
        return dict(weights.get_state_dict(check_hash=True, weights_only=True))
    except (OSError, HTTPException, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        cached = Path(torch.hub.get_dir()) / "checkpoints" / _file_name(num_layers)
        if cached.exists():
            raise UserError(
                f"{cached}: cannot be read ({_reason(error)}): remove it to download it again"
            ) from None
        raise UserError(
            f"{weights.url}: cannot be downloaded ({_reason(error)}): give such a file with "
            "--pretrained_path FILE, or begin without ImageNet with --weights_init scratch"
        ) from None


def _file_for(path: Path, num_layers: int) -> Path:
    if not path.is_dir():
        return path
    file = path / _file_name(num_layers)
    if not file.exists():
        raise UserError(
            f"{file}: no such file: a folder for --pretrained_path holds the weights of each "
            "depth that is built, under torchvision's names"
        )
    return file


def _read(path: Path, num_layers: int) -> dict[str, Tensor]:
    state = load_state(path)
    found = resnet_layers_of(state)
    plain = all(isinstance(value, Tensor) for value in state.values())
    if found is None or not plain or "conv1.weight" not in state:
        raise UserError(
            f"{path}: not a ResNet as torchvision saves it: --pretrained_path takes its state "
            "dict; weights of a training go to --load_weights_folder"
        )
    if found != num_layers:
        raise UserError(
            f"{path}: holds a ResNet-{found}, but a ResNet-{num_layers} is to begin with it: "
            "change --num_layers or --num_layers_imu, or give --pretrained_path another file, "
            f"or a folder that holds {_file_name(num_layers)} too"
        )
    return state


def _reason(error: Exception) -> str:
    """Return one line, not too long, of another library's error."""
    return " ".join(str(error).split())[:_REASON_LENGTH] or type(error).__name__
