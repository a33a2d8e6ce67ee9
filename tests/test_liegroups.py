"""What all functions of one argument in `liegroups` have in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from liegroups import se3, so3


def vectors(*batch):
    return torch.randn(*batch, 3)


def quaternions(*batch):
    return torch.randn(*batch, 4)


def twists(*batch):
    return torch.randn(*batch, 6)


def rotations(*batch):
    return so3.exp(vectors(*batch))


def motions(*batch):
    return se3.exp(twists(*batch))


# What each function takes.
CASES = {
    so3.hat: vectors,
    so3.vee: rotations,
    so3.exp: vectors,
    so3.log: rotations,
    so3.angle: rotations,
    so3.left_jacobian: vectors,
    so3.left_jacobian_inverse: vectors,
    so3.right_jacobian: vectors,
    so3.right_jacobian_inverse: vectors,
    so3.from_quaternion: quaternions,
    so3.to_quaternion: rotations,
    so3.from_rpy: vectors,
    so3.to_rpy: rotations,
    so3.normalize: rotations,
    se3.hat: twists,
    se3.vee: motions,
    se3.exp: twists,
    se3.log: motions,
    se3.inverse: motions,
    se3.adjoint: motions,
    se3.left_jacobian: twists,
    se3.left_jacobian_inverse: twists,
}
# Each entry of their result depends on some entries of the argument alone.
SPARSE = {so3.hat, so3.vee, so3.from_rpy} | {f for f in CASES if f.__module__ == "liegroups.se3"}

every_function = pytest.mark.parametrize(
    "function, make",
    CASES.items(),
    ids=[f"{f.__module__.removeprefix('liegroups.')}.{f.__name__}" for f in CASES],
)


def test_every_function_of_one_argument_is_here():
    several_arguments = {se3.from_rt, se3.transform}
    public = {
        member
        for module in (so3, se3)
        for name, member in vars(module).items()
        if getattr(member, "__module__", "") == module.__name__ and not name.startswith("_")
    }
    assert public == set(CASES) | several_arguments


@every_function
@pytest.mark.parametrize("batch", [(), (1,), (0,), (2, 1, 3)], ids=str)
def test_any_leading_dimensions(function, make, batch, dtype, device):
    x = make(*batch).to(dtype=dtype, device=device)
    result = function(x)
    assert result.shape == (*batch, *function(make().to(x)).shape)
    assert (result.dtype, result.device) == (dtype, x.device)
    for index in np.ndindex(*batch):
        assert_close(result[index], function(x[index]))


@every_function
def test_compiled_functions_have_no_breaks_and_map_over_a_batch(function, make):
    x = make(5)
    unchecked = {"check": False} if "check" in (function.__kwdefaults__ or {}) else {}
    mapped = torch.func.vmap(lambda item: function(item, **unchecked))(x)
    assert_close(mapped, function(x))
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x, **unchecked), function(x))


@every_function
def test_inputs_stay_as_they_were(function, make):
    x = make(5)
    before = x.clone()
    function(x)
    assert torch.equal(x, before)


@every_function
def test_nan_in_any_entry_gives_nan_for_that_item_alone(function, make):
    x = make(2)
    clean = function(x)
    for entry in np.ndindex(*x.shape[1:]):
        if function in (so3.vee, se3.vee) and entry[0] == entry[1]:
            continue  # the diagonal is no part of a skew matrix
        if make is motions and entry[0] == 3 and function not in (se3.log, se3.inverse):
            continue  # the last row of a motion is not looked at
        broken = x.clone()
        broken[(0, *entry)] = torch.nan
        result = function(broken)
        assert result[0].isnan().any() if function in SPARSE else result[0].isnan().all(), entry
        assert_close(result[1], clean[1])


@every_function
def test_a_wrong_trailing_dimension_is_refused_by_name(function, make):
    with pytest.raises(
        ValueError, match=r"^(\w+): expected shape \(\.\.\., .*, got \(2, 5\)"
    ) as error:
        function(torch.zeros(2, 5))
    assert str(error.value).split(":")[0] in function.__annotations__
