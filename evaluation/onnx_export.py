"""The networks of depth as one ONNX file: an image in, depth in metres out."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.weights import Weights
from training.prediction import depth_in_metres
from training.views import enlarged
from utils import UserError, written_whole

INPUT, OUTPUT = "image", "depth_m"
LARGEST_DIFFERENCE = 1e-3
"""Relative, between ONNX Runtime's depths and PyTorch's: beyond it nothing is written."""

BATCHES = 1, 3
"""Images that both are given at once to compare them."""

_TRACED_BATCH = 2  # of one image, some versions of the exporter take the batch for a constant


class DepthInMetres(nn.Module):
    """The networks of depth, and the metres, as one module.

    Args:
        weights: of `evaluation.weights.open_depth`; they stay as they are
        factor: of all depths
    """

    def __init__(self, weights: Weights, factor: float = 1.0) -> None:
        super().__init__()
        self._models = copy.deepcopy(weights.models).cpu().to(memory_format=torch.contiguous_format)
        self._options, self._factor = weights.options, factor

    def forward(self, image: Tensor) -> Tensor:
        """Return depth (B, 1, H, W) [m] of images (B, 3, H, W) RGB from 0 to 1."""
        disparity = self._models["depth"].finest(self._models["encoder"](image))
        disparity = enlarged(disparity, *image.shape[-2:])
        return depth_in_metres(disparity, self._options) * self._factor


def check_packages() -> None:
    """Refuse to go on without the packages that only this needs."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--onnx needs packages that are not here ({error}): "
            "pip install -r requirements-onnx.txt"
        ) from None


def export(weights: Weights, path: Path, factor: float = 1.0, overwrite: bool = False) -> float:
    """Write the networks of depth as ONNX, if ONNX Runtime says the same with them as PyTorch.

    The file has float32 images `image` (B, 3, H, W), RGB from 0 to 1 at the size of the weights,
    depths `depth_m` (B, 1, H, W), any B, and metadata that say size, scale and weights.

    Args:
        weights: of `evaluation.weights.open_depth`
        path: of the file
        factor: of all depths
        overwrite: replace the file if there is one

    Returns:
        the largest relative difference of depths

    Raises:
        UserError: packages are missing, the file is there, or the two differ
    """
    check_packages()
    if path.exists() and not overwrite:
        raise UserError(f"{path}: there is one already: name another, or give --overwrite")
    module = DepthInMetres(weights, factor).eval()
    model = _exported(module, weights.size)
    _describe_(model, weights, factor)
    content = model.SerializeToString()
    difference = _largest_difference(content, module, weights.size)
    if not difference <= LARGEST_DIFFERENCE:  # nan is not
        raise UserError(
            f"{path}: not written: ONNX Runtime's depths differ from PyTorch's by up to "
            f"{100 * difference:.3g} %"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as file:
        file.write(content)
    return difference


def _exported(module: nn.Module, size: tuple[int, int]) -> Any:
    """Return an `onnx.ModelProto`."""
    width, height = size
    image = torch.rand(_TRACED_BATCH, 3, height, width)
    with _quiet_exporter():
        program = torch.onnx.export(
            module,
            (image,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
        )
    return program.model_proto


def _describe_(model: Any, weights: Weights, factor: float) -> None:
    import onnx

    width, height = weights.size
    options = weights.options
    onnx.helper.set_model_props(
        model,
        {
            "weights": weights.folder.resolve().name,
            "network": f"ResNet-{options.num_layers}",
            "width": str(width),
            "height": str(height),
            "input": "RGB from 0 to 1, resized to width x height without aliasing",
            "output": "depth along the camera's axis in metres",
            "trans_scale_factor": str(options.trans_scale_factor),
            "min_depth": str(options.min_depth),
            "max_depth": str(options.max_depth),
            "pred_depth_scale_factor": str(factor),
        },
    )
    onnx.checker.check_model(model)


def _largest_difference(content: bytes, module: nn.Module, size: tuple[int, int]) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    width, height = size
    generator = torch.Generator().manual_seed(0)
    found = []
    for batch in BATCHES:
        image = torch.rand(batch, 3, height, width, generator=generator)
        with torch.inference_mode():
            expected = module(image).numpy()
        (depth,) = session.run([OUTPUT], {INPUT: image.numpy()})
        if depth.shape != expected.shape:
            return float("nan")
        found.append(np.abs(depth / expected - 1).max())
    return float(np.max(found))


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Leave out what the exporter tells of its own working."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
