"""The argument checks themselves: what they say, and what they let pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liegroups import se3
from liegroups.checks import check_batch, check_rotation, check_tensor


def test_a_wrong_shape_is_named_with_what_was_expected_and_got():
    with pytest.raises(ValueError, match=r"phi: expected shape \(\.\.\., 3\), got \(5, 4\)"):
        check_tensor("phi", torch.zeros(5, 4), 3)
    with pytest.raises(ValueError, match=r"R: expected shape \(\.\.\., 3, 3\), got \(3,\)"):
        check_tensor("R", torch.zeros(3), 3, 3)
    with pytest.raises(ValueError, match=r"phi: expected shape \(\.\.\., 3\), got \(\)"):
        check_tensor("phi", torch.tensor(1.0), 3)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float16, torch.bfloat16])
def test_types_that_geometry_cannot_be_trusted_in_are_refused(dtype):
    with pytest.raises(ValueError, match="phi: expected float32 or float64, got torch"):
        check_tensor("phi", torch.zeros(3, dtype=dtype), 3)


def test_geometry_under_autocast_is_refused_and_not_silently_inexact():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(ValueError, match="T_a_b: expected full precision, got torch.autocast"):
            se3.transform(torch.eye(4), torch.rand(5, 3))
    with torch.autocast("cpu", enabled=False):
        se3.transform(torch.eye(4), torch.rand(5, 3))


def test_shapes_can_be_checked_without_numbers():
    check_tensor("phi", torch.zeros(3, device="meta"), 3)


def test_what_is_no_tensor_is_a_type_error():
    with pytest.raises(
        TypeError, match=r"phi: expected a tensor of shape \(\.\.\., 3\), got ndarray"
    ):
        check_tensor("phi", np.zeros(3), 3)


def test_leading_dimensions_broadcast_or_are_refused():
    assert check_batch("t", torch.Size([1, 4]), "R", torch.Size([3, 1])) == (3, 4)
    with pytest.raises(ValueError, match=r"t: leading dimensions \(2,\) do not fit .* R, \(3,\)"):
        check_batch("t", torch.Size([2]), "R", torch.Size([3]))


@pytest.mark.parametrize(
    "wrong",
    [
        torch.diag(torch.tensor([1.0, 1.0, -1.0])),
        2 * torch.eye(3),
        torch.zeros(3, 3),
        torch.full((3, 3), torch.inf),
        torch.diag(torch.tensor([torch.inf, 1, 1])),
        torch.tensor([[1.0, 0.01, 0], [0, 1, 0], [0, 0, 1]]),
    ],
    ids=["reflection", "scaled", "zero", "infinite", "one infinite", "sheared"],
)
def test_what_is_no_rotation_is_refused_with_its_place(wrong, dtype):
    batch = torch.eye(3, dtype=dtype).repeat(2, 3, 1, 1)
    batch[1, 2] = wrong
    with pytest.raises(ValueError, match=r"R: expected rotation matrices .* got at index \(1, 2\)"):
        check_rotation("R", batch)


@pytest.mark.parametrize("dtype, limit", [(torch.float64, 1e-5), (torch.float32, 1e-3)], ids=str)
def test_rounding_passes_and_more_does_not(dtype, limit):
    eye = torch.eye(3, dtype=dtype)
    check_rotation("R", (1 + 0.4 * limit) * eye)
    with pytest.raises(ValueError, match=f"within {limit:g}, .* got at index \\(\\) "):
        check_rotation("R", (1 + 0.6 * limit) * eye)


def test_rotations_of_every_batch_shape_pass_and_so_does_nan(dtype):
    eye = torch.eye(3, dtype=dtype)
    for passing in (
        eye,
        eye.expand(0, 3, 3),
        eye.expand(2, 1, 3, 3),
        torch.full_like(eye, torch.nan),
    ):
        check_rotation("R", passing)
    some_nan = torch.stack([torch.full_like(eye, torch.nan), -eye])
    with pytest.raises(ValueError, match=r"index \(1,\)"):
        check_rotation("R", some_nan)
