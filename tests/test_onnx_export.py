"""Networks as ONNX: the same metres as PyTorch's, whole and checked, or no file."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.testing import assert_allclose

from evaluation import onnx_export
from evaluation.inference import DepthNetwork
from evaluation.onnx_export import DepthInMetres, export
from evaluation.weights import open_depth
from tests.evaluation_tree import SIDE, write_weights
from tests.media_files import files_in
from utils import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = write_weights(tmp_path_factory.mktemp("run") / "weights_7")
    return open_depth(folder, CPU, width=96)


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory):
    """Return an exported file; its depths are doubled."""
    path = tmp_path_factory.mktemp("onnx") / "deep" / "depth.onnx"
    difference = export(weights, path, factor=2)
    assert 0 <= difference < 1e-4
    assert files_in(path.parent) == ["depth.onnx"]  # weights and all
    return path


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_its_depths_are_those_that_are_predicted_here(batch, file, weights):
    images = torch.randint(0, 256, (batch, 3, SIDE, 96), dtype=torch.uint8)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"image": images.numpy().astype(np.float32) / 255})
    expected = 1 / DepthNetwork(weights, factor=2).inverse_depth(images).numpy()
    assert got.shape == (batch, 1, SIDE, 96)
    assert_allclose(got, expected, rtol=1e-4)
    assert got.std() > 1e-4  # it does look at the images


def test_depths_are_as_large_as_the_images_whatever_the_finest_scale(tmp_path):
    told = {"scales": [1, 3]}
    folder = write_weights(tmp_path / "models" / "w", "--scales", "1", "3", told=told)
    weights = open_depth(folder, CPU)
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    export(weights, tmp_path / "depth.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "depth.onnx", providers=["CPUExecutionProvider"]
    )
    (got,) = session.run(None, {"image": images.numpy().astype(np.float32) / 255})
    assert got.shape == (2, 1, SIDE, SIDE)
    assert_allclose(got, 1 / DepthNetwork(weights).inverse_depth(images).numpy(), rtol=1e-4)


def test_it_says_what_it_is(file):
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: [x.dim_value or x.dim_param for x in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"image": ["batch", 3, SIDE, 96], "depth_m": ["batch", 1, SIDE, 96]}
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert (told["width"], told["height"], told["weights"]) == ("96", str(SIDE), "weights_7")
    assert (told["network"], told["trans_scale_factor"]) == ("ResNet-18", "5.4")
    assert told["pred_depth_scale_factor"] == "2" and "metres" in told["output"]


def test_nothing_of_this_machine_is_in_the_file(file, weights):
    assert str(weights.folder.parent).encode() not in file.read_bytes()


def test_the_weights_stay_as_they_are(weights):
    before = {name: value.clone() for name, value in weights.models.state_dict().items()}
    module = DepthInMetres(weights)
    next(module.parameters()).fill_(7)
    for name, value in weights.models.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.fixture
def quick(monkeypatch):
    """Let the exporter give the same file at once, whatever it is given."""
    node = onnx.helper.make_node("Identity", ["image"], ["depth_m"])
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3, None, None])
        for name in ("image", "depth_m")
    ]
    graph = onnx.helper.make_graph([node], "identity", values[:1], values[1:])
    opset = [onnx.helper.make_opsetid("", 20)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    monkeypatch.setattr(onnx_export, "_exported", lambda *_: model)


class Scaled(torch.nn.Module):
    """Differs from the file of `quick` by a known factor."""

    factor = 1.0

    def __init__(self, *_) -> None:
        super().__init__()

    def forward(self, image):
        return image * self.factor


@pytest.mark.parametrize(("factor", "right"), [(1.0005, True), (1.002, False), (np.nan, False)])
def test_a_file_that_says_something_else_is_not_written(
    factor, right, quick, weights, tmp_path, monkeypatch
):
    monkeypatch.setattr(onnx_export, "DepthInMetres", Scaled)
    monkeypatch.setattr(Scaled, "factor", factor)
    path = tmp_path / "depth.onnx"
    if right:
        assert export(weights, path) == pytest.approx(5e-4, rel=1e-2)
        return
    with pytest.raises(UserError, match="not written: ONNX Runtime's depths differ"):
        export(weights, path)
    assert files_in(tmp_path) == []


def test_a_file_of_other_shapes_is_not_written(quick, weights, tmp_path):
    with pytest.raises(UserError, match="not written"):
        export(weights, tmp_path / "depth.onnx")  # three channels, not one
    assert files_in(tmp_path) == []


def test_a_file_that_is_there_is_replaced_only_if_asked(quick, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "DepthInMetres", Scaled)
    path = tmp_path / "depth.onnx"
    path.write_text("of another time")
    with pytest.raises(UserError, match="depth.onnx: there is one already: .*--overwrite"):
        export(weights, path)
    assert path.read_text() == "of another time"
    export(weights, path, overwrite=True)
    onnx.load(path)


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "onnxscript"])
def test_a_package_that_is_missing_is_one_line(name, weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError) as error:
        export(weights, tmp_path / "depth.onnx")
    assert name in str(error.value) and "\n" not in str(error.value)
    assert "pip install -r requirements-onnx.txt" in str(error.value)
