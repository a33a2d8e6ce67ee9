"""Small matrices in batches, against NumPy."""

from __future__ import annotations

import numpy as np
import torch
from torch.testing import assert_close

from liegroups.matrices import apply, identity, like_leading, symmetric


def test_apply_multiplies_each_matrix_with_its_vector(dtype, device):
    A = torch.randn(4, 1, 3, 2, dtype=dtype, device=device)
    x = torch.randn(5, 2, dtype=dtype, device=device)
    expected = np.einsum("...ij,...j->...i", A.cpu().numpy(), x.cpu().numpy())
    assert_close(apply(A, x).cpu(), torch.from_numpy(expected))


def test_the_identity_is_like_its_neighbour(dtype, device):
    one = identity(4, torch.zeros(2, dtype=dtype, device=device))
    assert (one.dtype, one.device.type) == (dtype, device.type)
    assert torch.equal(one.cpu(), torch.from_numpy(np.eye(4)).to(dtype))


def test_the_symmetric_part_is_symmetric_and_leaves_a_skew_rest():
    P = torch.randn(3, 5, 5)
    S = symmetric(P)
    assert torch.equal(S, S.mT)
    assert_close(P - S, -(P - S).mT)


def test_a_mask_selects_by_leading_dimensions():
    mask = torch.tensor([[True, False, True], [False, False, True]])
    x = torch.randn(2, 3, 4, 5)
    kept = torch.where(like_leading(mask, x), x, 0)
    assert torch.equal(kept.abs().sum((-2, -1)) > 0, mask)
    assert torch.equal(like_leading(mask, mask), mask)
