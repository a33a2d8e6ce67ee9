"""Laws of the rigid motions, with SciPy's matrix exponential and GTSAM as independent oracles."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from liegroups import se3, so3
from tests.geometry import ANGLES, NEAR_PI, matrix_exponential_law, twists, value_and_gradient

EYE4 = torch.eye(4, dtype=torch.float64)
EYE6 = torch.eye(6, dtype=torch.float64)
ROTATION_FIRST = [3, 4, 5, 0, 1, 2]  # GTSAM's order of a twist


# Exponential map and logarithm


@pytest.mark.parametrize("angle", [*ANGLES, 5.0])
def test_exp_is_the_matrix_exponential_of_hat(angle):
    for xi in twists(angle):
        expected = torch.from_numpy(scipy.linalg.expm(se3.hat(xi).numpy()))
        assert_close(se3.exp(xi), expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("angle", [*ANGLES, *NEAR_PI])
def test_log_undoes_exp(angle, dtype, device):
    xi = twists(angle, 1000).to(dtype=dtype, device=device)
    # Translations are some metres, so float32 cannot know them better than a micrometre.
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}[dtype]
    assert (se3.log(se3.exp(xi)) - xi).abs().max() <= tolerance


@pytest.mark.parametrize("angle", ANGLES)
def test_exp_log_and_jacobian_agree_with_gtsam(angle):
    gtsam = pytest.importorskip("gtsam")
    for xi in twists(angle):
        pose = gtsam.Pose3.Expmap(xi.numpy()[ROTATION_FIRST])
        assert_close(se3.exp(xi), torch.from_numpy(pose.matrix()), atol=1e-8, rtol=0)
        log = torch.from_numpy(gtsam.Pose3.Logmap(pose)[ROTATION_FIRST])
        assert_close(se3.log(se3.exp(xi)), log, atol=1e-8, rtol=0)
        # GTSAM's derivative of Expmap is the right Jacobian, the left one at -xi.
        right = np.array(gtsam.Pose3.ExpmapDerivative(xi.numpy()[ROTATION_FIRST]))
        right = torch.from_numpy(right[np.ix_(ROTATION_FIRST, ROTATION_FIRST)])
        assert_close(se3.left_jacobian(-xi), right, atol=1e-7, rtol=0)


def test_hat_and_vee_are_inverse():
    xi = torch.randn(5, 6)
    assert_close(se3.vee(se3.hat(xi)), xi, atol=0, rtol=0)
    assert torch.equal(se3.hat(xi)[:, 3], torch.zeros(5, 4))


# Jacobians


@pytest.mark.parametrize("angle", [*ANGLES, 5.0])
def test_left_jacobian_is_the_derivative_of_exp(angle):
    for xi in twists(angle, 10):
        J, from_autograd = matrix_exponential_law(se3.exp, se3.left_jacobian, se3.vee, xi)
        assert_close(J, from_autograd, atol=1e-12, rtol=0)


@pytest.mark.parametrize("angle", [*ANGLES, *NEAR_PI, 5.0])
def test_left_jacobian_inverse_inverts(angle):
    xi = twists(angle)
    product = se3.left_jacobian(xi) @ se3.left_jacobian_inverse(xi)
    assert_close(product, EYE6.expand(20, 6, 6), atol=1e-12, rtol=0)


# The group


def test_adjoint_moves_a_twist_to_the_other_side():
    T, xi = se3.exp(twists(2.0)), twists(1.0)
    moved = (se3.adjoint(T) @ xi[..., None])[..., 0]
    assert_close(se3.exp(moved), T @ se3.exp(xi) @ se3.inverse(T), atol=1e-12, rtol=0)
    A, B = T[:10], T[10:]
    assert_close(se3.adjoint(A @ B), se3.adjoint(A) @ se3.adjoint(B), atol=1e-12, rtol=0)


def test_inverse_is_that_of_the_matrix_and_of_the_twist():
    xi = twists(2.0)
    T = se3.exp(xi)
    assert_close(se3.inverse(T) @ T, EYE4.expand(20, 4, 4), atol=1e-14, rtol=0)
    assert_close(se3.inverse(T), se3.exp(-xi), atol=1e-13, rtol=0)
    assert torch.equal(se3.inverse(T)[:, :3, :3], T[:, :3, :3].mT)  # without solving
    assert_close(se3.inverse(se3.inverse(T)), T, atol=1e-14, rtol=0)


def test_transform_takes_points_from_b_to_a_as_homogeneous_coordinates_do():
    T_a_b = se3.exp(twists(2.0, 4))
    points_b = torch.randn(4, 7, 3, dtype=torch.float64)
    homogeneous = torch.cat([points_b, torch.ones(4, 7, 1, dtype=torch.float64)], -1)
    expected = torch.einsum("bij,bnj->bni", T_a_b, homogeneous)[..., :3]
    assert_close(se3.transform(T_a_b, points_b), expected, atol=1e-13, rtol=0)
    back = se3.transform(se3.inverse(T_a_b), se3.transform(T_a_b, points_b))
    assert_close(back, points_b, atol=1e-13, rtol=0)


def test_transform_broadcasts_one_cloud_over_motions_and_one_motion_over_clouds():
    T, cloud = se3.exp(twists(1.0, 4)), torch.randn(7, 3, dtype=torch.float64)
    assert_close(se3.transform(T, cloud)[2], se3.transform(T[2], cloud))
    clouds = torch.randn(4, 7, 3, dtype=torch.float64)
    assert_close(se3.transform(T[0], clouds)[3], se3.transform(T[0], clouds[3]))


def test_from_rt_puts_the_parts_in_their_places():
    R, t = so3.exp(torch.randn(5, 3)), torch.randn(5, 3)
    T = se3.from_rt(R, t)
    assert torch.equal(T[:, :3, :3], R)
    assert torch.equal(T[:, :3, 3], t)
    assert torch.equal(T[:, 3], torch.tensor([0.0, 0, 0, 1]).expand(5, 4))
    assert torch.equal(se3.from_rt(R[0], t)[3], se3.from_rt(R[0], t[3]))  # one rotation for all


# Gradients


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize(
    "function", [se3.exp, se3.left_jacobian, se3.left_jacobian_inverse], ids=lambda f: f.__name__
)
def test_gradients_of_functions_of_a_twist(function, angle):
    xi = twists(angle, 5).requires_grad_()
    assert gradcheck(function, (xi,))


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize(
    "function", [se3.exp, se3.left_jacobian, se3.left_jacobian_inverse], ids=lambda f: f.__name__
)
def test_values_and_gradients_in_float32_are_those_in_float64(function, angle):
    xi = twists(angle).float()
    value, gradient = value_and_gradient(function, xi)
    expected_value, expected_gradient = value_and_gradient(function, xi.double())
    assert_close(value, expected_value, atol=3e-6, rtol=1e-6)
    assert_close(gradient, expected_gradient, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("angle", [*ANGLES, *NEAR_PI])
def test_gradient_of_log_after_exp_is_the_identity(angle):
    for xi in twists(angle, 10):
        J = torch.autograd.functional.jacobian(lambda x: se3.log(se3.exp(x)), xi)
        assert_close(J, EYE6, atol=1e-9, rtol=0)


def test_gradients_of_the_group_operations():
    T = se3.exp(twists(2.0, 5)).requires_grad_()
    points = torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(se3.inverse, (T,))
    assert gradcheck(se3.adjoint, (T,))
    assert gradcheck(se3.transform, (T, points))
    assert gradcheck(se3.from_rt, (T.detach()[:, :3, :3].requires_grad_(), points[:, 0].detach()))


# Bad input


def test_batches_that_do_not_fit_are_refused_by_name():
    T, R = torch.eye(4).expand(2, 4, 4), torch.eye(3).expand(2, 3, 3)
    with pytest.raises(ValueError, match=r"t: leading dimensions \(3,\) do not fit .* R, \(2,\)"):
        se3.from_rt(R, torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"R: expected shape \(\.\.\., 3, 3\), got \(2, 4, 4\)"):
        se3.from_rt(T, torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"t: expected shape \(\.\.\., 3\), got \(2, 1\)"):
        se3.from_rt(R, torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"T_a_b: expected shape .* got \(2, 3, 3\)"):
        se3.transform(R, torch.zeros(2, 5, 3))
    with pytest.raises(ValueError, match=r"points_b: leading dimensions \(3,\) .* T_a_b, \(2,\)"):
        se3.transform(T, torch.zeros(3, 5, 3))
    with pytest.raises(ValueError, match=r"points_b: expected shape \(\.\.\., N, 3\), got \(3,\)"):
        se3.transform(T, torch.zeros(3))
    with pytest.raises(
        ValueError, match=r"points_b: expected shape \(\.\.\., 3\), got \(2, 5, 4\)"
    ):
        se3.transform(T, torch.zeros(2, 5, 4))


def test_log_refuses_what_is_no_motion_unless_unchecked():
    reflected = torch.diag(torch.tensor([1.0, 1, -1, 1]))
    scaled = torch.diag(torch.tensor([1.0, 1, 1, 2]))
    with pytest.raises(ValueError, match=r"T\[\.\.\., :3, :3\]: expected rotation matrices"):
        se3.log(reflected)
    with pytest.raises(ValueError, match=r"T: expected a last row of 0 0 0 1, got at index \(1,\)"):
        se3.log(torch.stack([torch.eye(4), scaled]))
    for wrong in (reflected, scaled):
        se3.log(wrong, check=False)
    se3.log(torch.diag(torch.tensor([1.0, 1, 1, 1 + 1e-6])))  # rounding of a product
