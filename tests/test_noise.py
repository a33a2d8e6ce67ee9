"""From what a network says, or a preset, to covariances."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from ekf.noise import PRESETS, imu_densities, preset, vision_covariance

PUBLISHED = preset("published")


def test_the_published_constants_in_metres():
    assert PUBLISHED.densities() == [1e-7, 1e-7, 1e-2, 1e-3]
    assert PUBLISHED.initial_std() == [0] * 6 + [1e-2] * 3 + [1e-4] * 3 + [1e-8] * 3 + [1e-1] * 3
    variance = vision_covariance(torch.zeros(6, dtype=torch.float64), PUBLISHED).diagonal()
    assert_close(variance, torch.tensor([10 / 5.4**2] * 3 + [10.0] * 3).double())
    fixed = vision_covariance(torch.randn(6, dtype=torch.float64), PUBLISHED, "fixed").diagonal()
    assert_close(fixed, torch.tensor([1 / 5.4**2] * 3 + [1.0] * 3).double())


@pytest.mark.parametrize("name", PRESETS)
def test_a_learned_variance_spans_three_decades_either_way(name, dtype, device):
    at_zero = vision_covariance(torch.zeros(2, 6, dtype=dtype, device=device), preset(name))
    for extreme, factor in ((100.0, 1e3), (-100.0, 1e-3)):
        predicted = torch.full((2, 6), extreme, dtype=dtype, device=device)
        assert_close(vision_covariance(predicted, preset(name)), at_zero * factor)
    one = torch.zeros(6, dtype=dtype, device=device)
    one[4] = 0.5
    variance = vision_covariance(one, preset(name)).diagonal() / at_zero[0].diagonal()
    assert_close(variance[4].item(), 10 ** (3 * 0.46211715726), rtol=1e-5, atol=0)
    assert_close(variance[[0, 1, 2, 3, 5]], torch.ones(5, dtype=dtype, device=device))


def test_the_naive_form_is_a_square(dtype):
    predicted = torch.tensor([1.0, -2, 3, 0.1, 0, -4], dtype=dtype)
    covariance = vision_covariance(predicted, PUBLISHED, "naive")
    expected = torch.tensor([1, 4, 9], dtype=dtype) * 10 / 5.4**2
    assert_close(covariance.diagonal()[:3], expected)
    assert_close(covariance.diagonal()[3:], torch.tensor([0.1, 0, 160], dtype=dtype))
    assert_close(covariance, torch.diag(covariance.diagonal()))


def test_the_fixed_form_asks_no_network():
    predicted = torch.randn(3, 6, requires_grad=True)
    covariance = vision_covariance(predicted, preset("calibrated"), "fixed")
    assert covariance.shape == (3, 6, 6)
    assert not covariance.requires_grad
    assert (covariance == covariance[0]).all()


def test_imu_densities_move_by_at_most_four_decades():
    densities = torch.tensor(PUBLISHED.densities())
    assert_close(imu_densities(densities, torch.zeros(4)), densities)
    exponents = torch.tensor([50.0, -50.0, 0.0, 0.2])
    expected = [1e4, 1e-4, 1, 10 ** (4 * 0.1973753202)]
    assert_close(imu_densities(densities, exponents) / densities, torch.tensor(expected))


def test_gradients():
    predicted = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    for form in ("learned", "naive"):
        assert torch.autograd.gradcheck(
            lambda x, f=form: vision_covariance(x, PUBLISHED, f), predicted
        )
    exponents = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: imu_densities(torch.ones(4).double(), x), exponents)


def test_every_preset_is_positive():
    for noise in PRESETS.values():
        assert all(value > 0 for value in vars(noise).values())


def test_what_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="expected one of published, calibrated, got 'best'"):
        preset("best")
    with pytest.raises(ValueError, match="expected learned, naive, fixed, got 'free'"):
        vision_covariance(torch.zeros(6), PUBLISHED, "free")
    with pytest.raises(ValueError, match=r"predicted: expected shape \(..., 6\)"):
        vision_covariance(torch.zeros(3), PUBLISHED)
