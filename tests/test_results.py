"""Which errors a result is asked for, and which images are the best by them."""

from __future__ import annotations

import math

import numpy as np

from tests.depth_results import make_result, same_error


def test_it_is_as_long_as_it_has_images():
    assert len(make_result((2, 3))) == 5


def test_the_errors_asked_for_are_those_in_metres_unless_scaled_ones_were():
    metric, scaled = make_result(), make_result(median_scaled=True)
    assert metric.errors is metric.unscaled
    assert scaled.errors is scaled.scaled


def test_images_are_ordered_by_the_error_that_was_asked_for():
    unscaled, scaled = same_error([0.3, 0.1, 0.2]), same_error([0.1, 0.2, 0.3])
    unscaled[:, 1:] = same_error([1, 2, 3])[:, 1:]  # other errors have no say
    both = {"unscaled": unscaled, "scaled": scaled}
    assert make_result((3,), **both).by_error().tolist() == [1, 2, 0]
    assert make_result((3,), **both, median_scaled=True).by_error().tolist() == [0, 1, 2]


def test_equal_errors_keep_their_order_and_no_number_is_the_worst():
    result = make_result((5,), unscaled=same_error([0.2, math.nan, 0.2, math.inf, 0.1]))
    assert result.by_error().tolist() == [4, 0, 2, 3, 1]


def test_ordering_leaves_the_result_as_it_is():
    result = make_result()
    before = result.unscaled.copy()
    result.by_error()
    assert np.array_equal(result.unscaled, before)
