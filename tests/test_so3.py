"""Laws of the rotations, with SciPy and GTSAM as independent oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch.autograd import gradcheck
from torch.testing import assert_close

from liegroups import so3
from tests.geometry import (
    ANGLES,
    NEAR_PI,
    SWITCH,
    matrix_exponential_law,
    rotation_vectors,
    value_and_gradient,
)

EYE = torch.eye(3, dtype=torch.float64)
ROUND_TRIP = {torch.float64: 1e-12, torch.float32: 5e-7}
ROUND_TRIP_ANGLES = [0.0, 1e-12, 1e-9, 1e-6, 1e-3, 0.05, *SWITCH, 0.15, 0.19, 0.5, 1.0, 2.0, 3.0]
ROUND_TRIP_ANGLES += NEAR_PI

vectors = st.lists(st.floats(-10, 10), min_size=3, max_size=3).map(
    lambda x: torch.tensor(x, dtype=torch.float64)
)


def random_rotations(count: int) -> tuple[torch.Tensor, Rotation]:
    oracle = Rotation.random(count, random_state=np.random.default_rng(0))
    return torch.from_numpy(oracle.as_matrix()), oracle


# Exponential map and logarithm


@pytest.mark.parametrize("angle", ROUND_TRIP_ANGLES)
def test_log_undoes_exp(angle, dtype, device):
    phi = rotation_vectors(angle, 1000).to(dtype=dtype, device=device)
    error = (so3.log(so3.exp(phi)) - phi).double().norm(dim=-1)
    assert error.max() <= ROUND_TRIP[dtype]


def test_log_undoes_exp_in_float32_where_rounding_is_worst():
    phi = torch.tensor([1.1870414018630981, 1.1904689073562622, 1.2048413753509521])  # 2.07 rad
    assert (so3.log(so3.exp(phi)) - phi).norm() <= ROUND_TRIP[torch.float32]
    angles = math.pi * torch.rand(100_000, 1)
    phi = angles * torch.nn.functional.normalize(torch.randn(100_000, 3), dim=-1)
    phi = phi[angles[:, 0] < math.pi - 1e-4]
    assert (so3.log(so3.exp(phi)) - phi).double().norm(dim=-1).max() <= ROUND_TRIP[torch.float32]


@pytest.mark.parametrize("angle", ROUND_TRIP_ANGLES)
def test_log_and_angle_lose_no_digits_in_float64(angle):
    phi = rotation_vectors(angle, 1000)
    digits = 4 * torch.finfo(torch.float64).eps * angle
    assert (so3.log(so3.exp(phi)) - phi).abs().max() <= digits
    assert (so3.angle(so3.exp(phi)) - phi.norm(dim=-1)).abs().max() <= digits


@pytest.mark.parametrize("gap", [0, 1e-16, 1e-12, 1e-9, 1e-7, 1e-5])
def test_exp_undoes_log_up_to_and_at_pi(gap, dtype):
    phi = rotation_vectors(math.pi - gap, 1000)
    R = torch.from_numpy(Rotation.from_rotvec(phi.numpy()).as_matrix()).to(dtype)
    assert (so3.exp(so3.log(R)) - R).abs().max() <= 1e-6
    assert (so3.log(R).norm(dim=-1) - math.pi).abs().max() <= 1e-6 + gap


def test_exp_and_log_agree_with_scipy_on_10000_random_rotations():
    R, oracle = random_rotations(10_000)
    phi = torch.from_numpy(oracle.as_rotvec())
    assert (so3.exp(phi) - R).abs().max() <= 1e-12
    assert (so3.log(R) - phi).abs().max() <= 1e-12
    assert (so3.angle(R) - torch.from_numpy(oracle.magnitude())).abs().max() <= 1e-12


@given(vectors)
def test_exp_is_a_rotation_and_its_inverse_turns_back(phi):
    R = so3.exp(phi)
    assert_close(R @ R.mT, EYE, atol=1e-14, rtol=0)
    assert_close(torch.linalg.det(R).item(), 1.0, atol=1e-14, rtol=0)
    assert_close(so3.exp(-phi), R.mT, atol=1e-14, rtol=0)
    assert_close(R @ phi, phi, atol=1e-13, rtol=0)  # the axis stays


@given(vectors, vectors)
def test_conjugation_turns_the_axis(phi, psi):
    R = so3.exp(psi)
    assert_close(so3.exp(R @ phi), R @ so3.exp(phi) @ R.mT, atol=1e-13, rtol=0)


@given(vectors, vectors)
def test_hat_is_the_cross_product_and_vee_its_inverse(a, b):
    assert_close(so3.hat(a) @ b, torch.linalg.cross(a, b))
    assert_close(so3.vee(so3.hat(a)), a, atol=0, rtol=0)


@pytest.mark.parametrize("angle", [*ANGLES, *NEAR_PI[:3]])
def test_angle_is_the_length_of_the_rotation_vector(angle, dtype):
    R = so3.exp(rotation_vectors(angle).to(dtype))
    assert_close(so3.angle(R), torch.full((20,), angle, dtype=dtype), atol=5e-7, rtol=0)


def test_angle_has_no_gradient_at_the_identity():
    R = EYE.clone().requires_grad_()
    so3.angle(R).backward()
    assert R.grad.tolist() == torch.zeros(3, 3).tolist()


# Jacobians


@pytest.mark.parametrize("angle", [*ANGLES, 5.0])
def test_left_jacobian_is_the_derivative_of_exp(angle):
    for phi in rotation_vectors(angle, 10):
        J, from_autograd = matrix_exponential_law(so3.exp, so3.left_jacobian, so3.vee, phi)
        assert_close(J, from_autograd, atol=1e-13, rtol=0)


@pytest.mark.parametrize("angle", ANGLES)
def test_exp_moves_by_its_jacobians(angle):
    phi = rotation_vectors(angle)
    d = 1e-6 * torch.randn(20, 3, dtype=torch.float64)
    moved = so3.exp(phi + d)
    left = so3.exp((so3.left_jacobian(phi) @ d[..., None])[..., 0]) @ so3.exp(phi)
    right = so3.exp(phi) @ so3.exp((so3.right_jacobian(phi) @ d[..., None])[..., 0])
    assert_close(moved, left, atol=1e-11, rtol=0)
    assert_close(moved, right, atol=1e-11, rtol=0)


@pytest.mark.parametrize("angle", [*ANGLES, *NEAR_PI, 5.0])
def test_jacobian_inverses_invert(angle):
    phi = rotation_vectors(angle)
    eye = EYE.expand(20, 3, 3)
    assert_close(so3.left_jacobian(phi) @ so3.left_jacobian_inverse(phi), eye, atol=1e-14, rtol=0)
    assert_close(so3.right_jacobian(phi) @ so3.right_jacobian_inverse(phi), eye, atol=1e-14, rtol=0)


@pytest.mark.parametrize("angle", ANGLES)
def test_jacobians_agree_with_gtsam(angle):
    gtsam = pytest.importorskip("gtsam")
    for phi in rotation_vectors(angle):
        # GTSAM's derivative of Expmap is the right Jacobian; it is good to 1e-8 near zero.
        expected = torch.from_numpy(np.array(gtsam.Rot3.ExpmapDerivative(phi.numpy())))
        assert_close(so3.right_jacobian(phi), expected, atol=1e-8, rtol=0)


# Gradients


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize(
    "function",
    [so3.exp, so3.left_jacobian, so3.left_jacobian_inverse]
    + [so3.right_jacobian, so3.right_jacobian_inverse],
    ids=lambda f: f.__name__,
)
def test_gradients_of_functions_of_a_vector(function, angle):
    phi = rotation_vectors(angle, 10).requires_grad_()
    assert gradcheck(function, (phi,))


@pytest.mark.parametrize("angle", [*ANGLES, *NEAR_PI])
@pytest.mark.parametrize("function", [so3.log, so3.to_quaternion], ids=lambda f: f.__name__)
def test_gradients_of_functions_of_a_rotation(function, angle):
    # Off the coordinate axes, where two rows of q q^T can be equally long.
    R = so3.exp(rotation_vectors(angle, 20)[7:]).requires_grad_()
    assert gradcheck(function, (R,))


@pytest.mark.parametrize("angle", [*ANGLES, *NEAR_PI])
def test_gradient_of_log_after_exp_is_the_identity(angle):
    for phi in rotation_vectors(angle, 10):
        J = torch.autograd.functional.jacobian(lambda x: so3.log(so3.exp(x)), phi)
        assert_close(J, EYE, atol=1e-9, rtol=0)


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize(
    "function", [so3.exp, so3.left_jacobian, so3.left_jacobian_inverse], ids=lambda f: f.__name__
)
def test_gradients_in_float32_are_those_in_float64(function, angle):
    phi = rotation_vectors(angle).float()
    _, gradient = value_and_gradient(function, phi)
    _, expected = value_and_gradient(function, phi.double())
    assert_close(gradient, expected, atol=2e-5, rtol=2e-5)


# Quaternions


@pytest.mark.parametrize("sign", [1, -1], ids=["q", "minus q"])
@pytest.mark.parametrize("order", ["wxyz", "xyzw"])
def test_quaternion_conventions_round_trip_and_agree_with_scipy(order, sign):
    R, oracle = random_rotations(10_000)
    q = so3.to_quaternion(R, order)
    expected = oracle.as_quat(canonical=True)  # xyzw
    expected = np.roll(expected, 1, -1) if order == "wxyz" else expected
    assert_close(q, torch.from_numpy(expected), atol=1e-12, rtol=0)
    assert_close(so3.from_quaternion(sign * q, order), R, atol=1e-12, rtol=0)


@given(vectors, st.floats(0.01, 100))
def test_quaternions_of_any_length_and_their_conjugates(phi, length):
    q = so3.to_quaternion(so3.exp(phi))
    assert_close(so3.from_quaternion(length * q), so3.exp(phi), atol=1e-13, rtol=0)
    conjugate = q * torch.tensor([1, -1, -1, -1])  # as a JPL quaternion would be read
    assert_close(so3.from_quaternion(conjugate), so3.exp(phi).mT, atol=1e-13, rtol=0)


@pytest.mark.parametrize("row", range(4))
def test_quaternions_where_each_row_is_the_longest(row):
    q = torch.full((4,), 0.1, dtype=torch.float64)
    q[row] = 1
    q = q / q.norm()
    assert_close(so3.to_quaternion(so3.from_quaternion(q)), q, atol=1e-15, rtol=0)


def test_gradient_of_from_quaternion():
    q = torch.randn(10, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(so3.from_quaternion, (q,))
    assert gradcheck(so3.from_quaternion, (q, "xyzw"))


@pytest.mark.parametrize("length", [1e-38, 1e-20, 1e20, 1e38])
def test_no_length_of_a_quaternion_but_zero_is_too_long_or_short(length):
    turned = torch.diag(torch.tensor([1.0, -1, -1]))
    assert torch.equal(so3.from_quaternion(torch.tensor([0, length, 0, 0])), turned)
    assert so3.from_quaternion(torch.zeros(4)).isnan().all()
    assert so3.from_quaternion(torch.tensor([0, torch.inf, 0, 0])).isnan().all()


def test_an_unknown_order_is_refused():
    for function, argument in [(so3.to_quaternion, EYE), (so3.from_quaternion, torch.ones(4))]:
        with pytest.raises(ValueError, match="order: expected one of wxyz, xyzw, got 'zyxw'"):
            function(argument, "zyxw")


# Roll, pitch, yaw


def test_rpy_agrees_with_scipy_on_10000_random_rotations():
    R, oracle = random_rotations(10_000)
    rpy = torch.from_numpy(oracle.as_euler("xyz"))  # about fixed axes: Rz Ry Rx
    assert_close(so3.from_rpy(rpy), R, atol=1e-12, rtol=0)
    assert_close(so3.to_rpy(R), rpy, atol=1e-11, rtol=0)  # SciPy loses a digit near the lock
    assert_close(so3.from_rpy(so3.to_rpy(R)), R, atol=1e-12, rtol=0)


@pytest.mark.parametrize("pitch", [math.pi / 2, -math.pi / 2])
@pytest.mark.parametrize("off", [0, 1e-12, 1e-8, 1e-4])
def test_rpy_reproduce_the_rotation_at_gimbal_lock(pitch, off):
    angles = 6 * torch.rand(100, 3, dtype=torch.float64) - 3
    angles[:, 1] = pitch - math.copysign(off, pitch)
    R = so3.from_rpy(angles)
    assert_close(so3.from_rpy(so3.to_rpy(R)), R, atol=1e-14, rtol=0)
    A = so3.exp(torch.randn(100, 3, dtype=torch.float64))
    rounded = A.mT @ (A @ R)  # so that no digit of the small entries can be relied on
    assert_close(so3.from_rpy(so3.to_rpy(rounded)), R, atol=1e-14, rtol=0)
    assert so3.to_rpy(rounded)[:, 1].abs().max() <= math.pi / 2


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["up", "down"])
@pytest.mark.parametrize("yaw", [0.0, 0.7, 2.5, -3.0])
def test_rpy_of_an_exact_lock_have_no_roll(sign, yaw):
    R_pitch = torch.tensor([[0, 0, sign], [0, 1, 0], [-sign, 0, 0]], dtype=torch.float64)
    R = so3.exp(torch.tensor([0, 0, yaw], dtype=torch.float64)) @ R_pitch
    rpy = so3.to_rpy(R)
    assert_close(rpy, torch.tensor([0, sign * math.pi / 2, yaw], dtype=torch.float64))
    assert_close(so3.from_rpy(rpy), R, atol=1e-15, rtol=0)


@pytest.mark.parametrize("quarter", [-1, 1, 2])
def test_rpy_of_exact_quarter_turns_about_x_are_all_roll(quarter):
    c, s = [(0, -1), (1, 0), (0, 1), (-1, 0)][quarter + 1]
    R = torch.tensor([[1, 0, 0], [0, c, -s], [0, s, c]], dtype=torch.float64)
    expected = torch.tensor([quarter * math.pi / 2, 0, 0], dtype=torch.float64)
    assert_close(so3.to_rpy(R), expected, atol=1e-15, rtol=0)


def test_rpy_gradients_are_right_and_finite_at_the_lock():
    rpy = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(so3.from_rpy, (rpy,))
    R = so3.exp(torch.randn(10, 3, dtype=torch.float64)).requires_grad_()
    assert gradcheck(so3.to_rpy, (R,))
    lock = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]], requires_grad=True)
    so3.to_rpy(lock).sum().backward()
    assert lock.grad.isfinite().all()


# The nearest rotation


def test_normalize_leaves_rotations_alone(dtype):
    R = so3.exp(2 * torch.randn(1000, 3, dtype=dtype))
    assert_close(so3.normalize(R), R, atol=10 * torch.finfo(dtype).eps, rtol=0)
    result = so3.normalize(R.float())  # the rounding of its entries is all that is left
    assert (result.mT @ result - torch.eye(3)).abs().max() <= 2 * torch.finfo(torch.float32).eps


def test_normalize_solves_the_orthogonal_procrustes_problem_as_scipy_does():
    M = torch.randn(200, 3, 3, dtype=torch.float64)  # of either handedness
    assert 50 < (torch.linalg.det(M) < 0).sum() < 150
    for matrix, R in zip(M, so3.normalize(M), strict=True):
        # The rotation that best takes e_i to the columns of M maximises tr(R^T M), as the nearest.
        oracle, _ = Rotation.align_vectors(matrix.mT.numpy(), np.eye(3))
        assert_close(R, torch.from_numpy(oracle.as_matrix()), atol=1e-10, rtol=0)


@pytest.mark.parametrize("noise", [0, 0.1, 1])
def test_gradient_of_normalize(noise):
    M = so3.exp(torch.randn(10, 3, dtype=torch.float64))
    M = (M + noise * torch.randn(10, 3, 3, dtype=torch.float64)).requires_grad_()
    assert gradcheck(so3.normalize, (M,), check_forward_ad=True)


def test_gradient_of_normalize_of_a_thin_matrix():
    U, V = so3.exp(torch.randn(2, 3, dtype=torch.float64))
    M = (U @ torch.diag(torch.tensor([1, 4e-3, 2e-3], dtype=torch.float64)) @ V).requires_grad_()
    assert gradcheck(so3.normalize, (M,), eps=1e-8, atol=1e-4)


def test_normalize_is_blind_to_scale():
    M = torch.randn(3, 3, dtype=torch.float64)
    J = torch.autograd.functional.jacobian(so3.normalize, M)
    for scale in (1e-9, 1e9):
        assert_close(so3.normalize(scale * M), so3.normalize(M), atol=1e-14, rtol=0)
        J_scaled = torch.autograd.functional.jacobian(so3.normalize, scale * M)
        assert_close(scale * J_scaled, J, atol=1e-12, rtol=0)


def test_normalize_is_finite_where_the_answer_is_not_unique():
    M = torch.zeros(2, 3, 3, dtype=torch.float64)
    M[1] = -EYE
    M.requires_grad_()
    R = so3.normalize(M)
    assert_close(R @ R.mT, EYE.expand(2, 3, 3))
    assert_close(torch.linalg.det(R), torch.ones(2, dtype=torch.float64))
    (R * torch.randn(2, 3, 3)).sum().backward()
    assert M.grad.isfinite().all()
    assert torch.equal(M.grad[0], torch.zeros(3, 3, dtype=torch.float64))


# Bad input


@pytest.mark.parametrize(
    "function", [so3.log, so3.angle, so3.to_quaternion, so3.to_rpy], ids=lambda f: f.__name__
)
def test_what_is_no_rotation_is_refused_unless_unchecked(function):
    with pytest.raises(ValueError, match="R: expected rotation matrices .* got at index"):
        function(2 * torch.eye(3))
    function(2 * torch.eye(3), check=False)
    infinite = torch.diag(torch.tensor([torch.inf, 1, 1]))
    with pytest.raises(ValueError, match="R: expected rotation matrices .* got at index"):
        function(infinite)
    assert function(infinite, check=False).isnan().all()
