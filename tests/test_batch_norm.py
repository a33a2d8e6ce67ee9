"""Batch norms of several processes against one process that has the joint batch."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.test_distributed import in_world
from training.batch_norm import JointBatchNorm2d, synchronise
from training.distributed import World

CPU = torch.device("cpu")
ALONE, ONE_OF_TWO = World(0, 1, CPU), World(0, 2, CPU)
SIZES = [2, 3]  # batches of the processes: they need not be equal
CASES = {
    "usual": {},
    "mean of all batches": {"momentum": None},
    "no parameters": {"affine": False},
    "no running statistics": {"track_running_stats": False},
    "other constants": {"eps": 0.1, "momentum": 0.7},
}


def network(dtype: torch.dtype = torch.float64, **how) -> nn.Sequential:
    """Return two batch norms, so that what one passes back reaches another."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, **how), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 5, 3))
    )
    net[3].append(nn.BatchNorm2d(5, **how))
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    return net.to(dtype)


def batches(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Return one batch for each of three steps, for all processes."""
    torch.manual_seed(2)
    return [20 + 3 * torch.randn(sum(SIZES), 3, 7, 9, dtype=dtype) for _ in range(3)]


def train(net: nn.Module, steps: list[torch.Tensor]) -> dict:
    """Return outputs, gradients summed over the steps, and the state after them."""
    outputs, inputs = [], []
    for x in steps:
        inputs.append(x.clone().requires_grad_())
        outputs.append(net(inputs[-1]))
        (outputs[-1] ** 3).sum().backward()
    net.eval()
    return {
        "outputs": [y.detach() for y in outputs],
        "inputs": [x.grad for x in inputs],
        "parameters": {name: p.grad for name, p in net.named_parameters()},
        "state": dict(net.state_dict()),
        "evaluated": net(steps[0]).detach(),
    }


def _train_in_parts(world: World, folder: Path) -> dict:
    def part(x: torch.Tensor) -> torch.Tensor:
        return x.split(SIZES)[world.rank]

    results = {
        name: train(synchronise(network(**how), world), [part(x) for x in batches()])
        for name, how in CASES.items()
    }
    single = synchronise(network(torch.float32), world)
    results["float32"] = train(single, [part(x) for x in batches(torch.float32)])
    half = synchronise(nn.BatchNorm2d(3), world)
    x = part(batches(torch.bfloat16)[0]).requires_grad_()
    y = half(x)
    y.sum().backward()
    results["bfloat16"] = [y.detach(), x.grad, half.weight.grad]
    frozen = synchronise(nn.BatchNorm2d(3).double(), world)
    frozen(part(batches()[0])).sum().backward()  # images need no gradient
    results["of images"] = frozen.bias.grad
    return results


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> list[dict]:
    return in_world(_train_in_parts, tmp_path_factory.mktemp("world"))


def check(parts: list[dict], whole: dict, **tolerance) -> None:
    for name in ("outputs", "inputs"):
        joined = [torch.cat(step) for step in zip(*(part[name] for part in parts), strict=True)]
        assert_close(joined, whole[name], **tolerance)
    for name, gradient in whole["parameters"].items():
        # DDP divides both the loss and this by their number.
        summed = sum(part["parameters"][name] for part in parts)
        assert_close(summed, gradient, **tolerance)
    for part, size in zip(parts, (slice(0, 2), slice(2, 5)), strict=True):
        assert_close(part["state"], whole["state"], **tolerance)
        if "1.running_mean" in whole["state"]:
            assert_close(part["evaluated"], whole["evaluated"][size], **tolerance)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_do_what_one_does_with_both_batches(parts, case):
    whole = train(network(**CASES[case]), batches())
    assert max(x.abs().max() for x in whole["inputs"]) > 0.1
    check([part[case] for part in parts], whole, atol=1e-10, rtol=1e-10)


def test_processes_that_see_their_own_batch_do_something_else(parts):
    alone = [train(network(), [x.split(SIZES)[i] for x in batches()]) for i in range(2)]
    with pytest.raises(AssertionError):
        check(alone, train(network(), batches()), atol=1e-3, rtol=1e-3)


def test_in_single_precision_nothing_is_lost_about_a_large_mean(parts):
    whole = train(network(), [x.double() for x in batches(torch.float32)])
    for part, rows in zip(parts, (slice(0, 2), slice(2, 5)), strict=True):
        for got, expected in zip(part["float32"]["outputs"], whole["outputs"], strict=True):
            assert got.dtype == torch.float32
            assert_close(got.double(), expected[rows], atol=2e-5, rtol=2e-5)


def test_half_precision_has_statistics_in_single(parts):
    x = batches(torch.bfloat16)[0].float()
    expected = nn.BatchNorm2d(3)(x)
    y, grad, grad_weight = ([part["bfloat16"][i] for part in parts] for i in range(3))
    assert {t.dtype for t in y + grad} == {torch.bfloat16}
    assert {t.dtype for t in grad_weight} == {torch.float32}
    assert_close(torch.cat(y).float(), expected.detach(), atol=1e-2, rtol=1e-2)
    assert_close(sum(grad_weight), torch.zeros(3), atol=0.5, rtol=0)  # of a mean of zero


def test_images_that_need_no_gradient_are_no_trouble(parts):
    for part, size in zip(parts, SIZES, strict=True):
        assert_close(part["of images"], torch.full((3,), size * 63.0, dtype=torch.float64))


# What becomes of the models


def test_models_keep_their_state_and_their_parameters():
    models = nn.ModuleDict({"encoder": network(), "norm": nn.BatchNorm2d(2)})
    before, parameters = copy.deepcopy(models.state_dict()), list(models.parameters())
    buffers = list(models.buffers())
    joint = synchronise(models, ONE_OF_TWO)
    assert joint is models
    assert list(joint.state_dict()) == list(before)
    assert_close(dict(joint.state_dict()), dict(before), atol=0, rtol=0)
    assert [id(p) for p in joint.parameters()] == [id(p) for p in parameters]
    assert [id(b) for b in joint.buffers()] == [id(b) for b in buffers]
    norms = [m for m in joint.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [type(norm) for norm in norms] == [JointBatchNorm2d] * 3
    assert synchronise(joint, ONE_OF_TWO) is joint
    assert [id(m) for m in joint.modules() if isinstance(m, nn.BatchNorm2d)] == list(map(id, norms))


def test_a_batch_norm_at_two_places_stays_one():
    norm = nn.BatchNorm2d(3).eval()
    net = synchronise(nn.Sequential(norm, nn.ReLU(), norm), ONE_OF_TWO)
    assert net[0] is net[2] and type(net[0]) is JointBatchNorm2d and not net[0].training


def test_a_child_that_is_absent_stays_absent():
    net = nn.Sequential(nn.BatchNorm2d(3))
    net.register_module("absent", None)
    assert synchronise(net, ONE_OF_TWO).absent is None


def test_a_world_of_one_keeps_the_usual_batch_norm():
    net = synchronise(network(), ALONE)
    assert type(net[1]) is nn.BatchNorm2d


def test_gpus_have_the_batch_norm_of_pytorch():
    net = synchronise(network(), World(0, 2, torch.device("cuda")))
    assert type(net[1]) is nn.SyncBatchNorm and type(net[3][1]) is nn.SyncBatchNorm


def test_other_batch_norms_are_not_passed_over():
    with pytest.raises(TypeError, match="expected no batch norm but BatchNorm2d, got BatchNorm1d"):
        synchronise(nn.Sequential(nn.BatchNorm1d(3)), ONE_OF_TWO)


@pytest.mark.parametrize("training", [True, False])
def test_outside_of_a_world_it_is_the_usual_batch_norm(training):
    x = torch.randn(4, 3, 5, 6)
    usual = nn.BatchNorm2d(3).train(training)
    joint = JointBatchNorm2d.of(copy.deepcopy(usual))
    assert torch.equal(joint(x), usual(x))
    assert_close(dict(joint.state_dict()), dict(usual.state_dict()), atol=0, rtol=0)
