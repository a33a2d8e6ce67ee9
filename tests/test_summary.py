"""Means by hand, intervals against drawing drives one by one and SciPy, and histograms."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evaluation import summary
from evaluation.results import DepthResult
from evaluation.summary import histogram, round_step, summarise
from metrics import DEPTH_METRICS
from tests.depth_results import make_result, same_error
from training import validation
from utils import UserError


def from_drives(means: list[float], images: int = 6, spread: float = 0.01) -> DepthResult:
    """Return a result whose drives have errors about these."""
    noise = np.random.default_rng(1).normal(0, spread, (len(means), images))
    noise -= noise.mean(1, keepdims=True)
    errors = same_error((np.array(means)[:, None] + noise).ravel())
    return make_result([images] * len(means), unscaled=errors)


def width(found: summary.Summary, name: str = "abs_rel") -> float:
    low, high = found.unscaled.intervals[name]
    return high - low


def drawn_one_by_one(result: DepthResult, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the images of each draw, those of a drive as often as it was drawn."""
    drives = np.array(result.drives)
    names = np.unique(drives)
    share = np.full(len(names), 1 / len(names))
    for times in np.random.default_rng(seed).multinomial(len(names), share, resamples):
        yield np.concatenate(
            [np.flatnonzero(drives == name) for name, n in zip(names, times, strict=True)
             for _ in range(n)]
        )  # fmt: skip


# Means


def test_means_on_paper():
    found = summarise(
        make_result(
            (2, 1),
            unscaled=same_error([0.1, 0.2, 0.6]),
            scaled=same_error([0.1, 0.1, 0.1]),
            ratio=np.array([1.0, 2.0, 1.5]),
        )
    )
    assert found.unscaled.errors == pytest.approx(dict.fromkeys(DEPTH_METRICS, 0.3))
    assert found.scaled.errors == pytest.approx(dict.fromkeys(DEPTH_METRICS, 0.1))
    assert found.scale_ratio == 1.5
    assert found.scale_spread == pytest.approx(math.sqrt((0.25 + 0.25 + 0) / 3) / 1.5)
    assert (found.images, found.drives, found.protocol) == (3, 2, "eigen")
    assert found.left_out == ("drive_9 7 l",)


@pytest.mark.parametrize("images", [1, 2, 7, 697])
def test_means_are_to_the_last_bit_those_of_the_validation_of_a_training(images):
    result = make_result([images - images // 2, images // 2])
    found = summarise(result, resamples=2)
    lists = {name: result.unscaled[:, i].tolist() for i, name in enumerate(DEPTH_METRICS)}
    lists |= {
        f"scaled/{name}": result.scaled[:, i].tolist() for i, name in enumerate(DEPTH_METRICS)
    }
    expected = validation._summary([lists | {"ratio": result.ratio.tolist()}])
    own = {**found.unscaled.errors, "scale_ratio": found.scale_ratio}
    own |= {f"scaled/{name}": value for name, value in found.scaled.errors.items()}
    assert own | {"scale_spread": found.scale_spread} == expected


def test_spread_is_that_of_the_ratio_over_its_median():
    result = make_result((30, 20))
    expected = np.std(result.ratio / np.median(result.ratio))
    assert summarise(result).scale_spread == pytest.approx(expected, rel=1e-12)


def test_the_row_asked_for():
    assert (found := summarise(make_result())).asked is found.unscaled
    assert (found := summarise(make_result(median_scaled=True))).asked is found.scaled


def test_one_nan_makes_a_mean_and_its_interval_nan_and_no_other():
    errors = same_error([0.1] * 12)
    errors[5, DEPTH_METRICS.index("rmse")] = math.nan
    found = summarise(make_result(unscaled=errors)).unscaled
    assert math.isnan(found.errors["rmse"])
    assert all(map(math.isnan, found.intervals["rmse"]))
    for name in set(DEPTH_METRICS) - {"rmse"}:
        assert found.errors[name] == pytest.approx(0.1)
        assert found.intervals[name] == pytest.approx((0.1, 0.1))


def test_a_ratio_that_is_no_number_makes_the_scale_none():
    ratio = np.linspace(0.9, 1.1, 12)
    ratio[3] = math.nan
    found = summarise(make_result(ratio=ratio))
    assert math.isnan(found.scale_ratio) and math.isnan(found.scale_spread)
    assert all(map(math.isnan, found.scale_interval))


@pytest.mark.filterwarnings("error")
def test_an_infinite_ratio_is_taken_without_a_warning():
    ratio = np.linspace(0.9, 1.1, 12)
    ratio[3] = math.inf  # depth predicted as zero
    found = summarise(make_result(ratio=ratio))
    assert found.scale_ratio == np.median(ratio)
    assert math.isnan(found.scale_spread)


def test_errors_by_distance_are_means_over_the_images_with_truth_there():
    nan = math.nan
    by_distance = np.array([[0.1, 0.2, nan, nan], [0.3, nan, nan, nan], [0.2, 0.6, 0.5, nan]])
    found = summarise(make_result((3,), by_distance=by_distance))
    assert found.images_by_distance == (3, 2, 1, 0)
    assert found.unscaled.by_distance[:3] == pytest.approx((0.2, 0.4, 0.5))
    assert math.isnan(found.unscaled.by_distance[3])


def test_a_prediction_of_nan_does_not_look_like_missing_truth():
    errors = same_error([0.1, math.nan])
    by_distance = np.array([[0.1, 0.1, 0.1, math.nan], [math.nan] * 4])
    found = summarise(make_result((2,), unscaled=errors, by_distance=by_distance))
    assert all(map(math.isnan, found.unscaled.by_distance))
    assert found.images_by_distance == (2, 2, 2, 1)


def test_without_any_image_there_is_one_clear_line():
    empty = np.zeros((0, 7))
    result = make_result((), unscaled=empty, scaled=empty)
    with pytest.raises(UserError, match=r"^protocol eigen: no image .*\(1 have none\)"):
        summarise(result)


# Intervals


@pytest.mark.parametrize("sizes", [(1, 4, 2, 7, 3), (1, 1, 1, 1, 1), (2, 2), (1, 3, 5)])
def test_intervals_are_those_of_drives_drawn_one_by_one(sizes, monkeypatch):
    monkeypatch.setattr(summary, "_BLOCK", 100)  # several blocks, the last not a whole one
    result = make_result(sizes)
    found = summarise(result, resamples=333, seed=5)
    means, scaled, medians = [], [], []
    for images in drawn_one_by_one(result, 333, seed=5):
        means.append(result.unscaled[images].mean(0))
        scaled.append(result.scaled[images].mean(0))
        medians.append(np.median(result.ratio[images]))
    for row, of_draws in ((found.unscaled, means), (found.scaled, scaled)):
        low, high = np.quantile(of_draws, (0.025, 0.975), axis=0)
        for i, name in enumerate(DEPTH_METRICS):
            assert row.intervals[name] == pytest.approx((low[i], high[i]), rel=1e-12)
    assert found.scale_interval == pytest.approx(np.quantile(medians, (0.025, 0.975)), rel=1e-12)


def test_intervals_are_scipys_where_each_drive_is_one_image():
    result = make_result([1] * 40)
    found = summarise(result, resamples=20_000)
    scipys = stats.bootstrap(
        (result.unscaled[:, 0],), np.mean, n_resamples=20_000, method="percentile", rng=0
    ).confidence_interval
    assert found.unscaled.intervals["abs_rel"] == pytest.approx(scipys, abs=0.03 * width(found))


def test_an_interval_is_around_the_mean():
    found = summarise(make_result((5, 4, 6, 3)))
    for row in (found.unscaled, found.scaled):
        for name, (low, high) in row.intervals.items():
            assert low < row.errors[name] < high
    low, high = found.scale_interval
    assert low <= found.scale_ratio <= high


def test_drives_that_are_alike_leave_no_doubt_however_different_their_images_are():
    alike = np.tile(np.random.default_rng(0).uniform(0.1, 0.9, (6, 7)), (4, 1))
    ratio = np.tile([0.9, 1.0, 1.1, 1.3, 1.0, 0.8], 4)
    found = summarise(make_result([6] * 4, unscaled=alike, ratio=ratio))
    assert all(width(found, name) < 1e-12 for name in DEPTH_METRICS)
    assert found.scale_interval == (1.0, 1.0)


def test_an_interval_grows_with_how_much_drives_differ():
    widths = [
        width(summarise(from_drives([0.1, 0.1 + d, 0.1 - d]))) for d in (0.0, 0.01, 0.02, 0.04)
    ]
    assert widths[0] < 1e-12
    assert widths[1:] == pytest.approx([widths[1], 2 * widths[1], 4 * widths[1]], rel=1e-9)


def test_more_drives_make_it_narrower():
    means = np.linspace(0.1, 0.2, 7).tolist()
    few, many = from_drives(means), from_drives(means * 4)
    assert width(summarise(many)) == pytest.approx(width(summarise(few)) / 2, rel=0.1)


def test_images_of_a_drive_are_not_taken_for_independent():
    """Each image written four times, as neighbours in a video nearly are, says nothing new."""
    once = from_drives([0.1, 0.15, 0.12, 0.2])
    often = make_result([24] * 4, unscaled=np.repeat(once.unscaled, 4, 0))
    assert width(summarise(often)) == pytest.approx(width(summarise(once)), rel=1e-9)


def test_the_same_seed_gives_the_same_and_another_gives_about_the_same():
    result = make_result((5, 4, 6, 3, 5, 4))
    one, again, other = (
        summarise(result, seed=1),
        summarise(result, seed=1),
        summarise(result, seed=2),
    )
    assert one == again
    assert one.unscaled.intervals != other.unscaled.intervals
    assert width(one) == pytest.approx(width(other), rel=0.2)
    assert one.unscaled.errors == other.unscaled.errors


def test_the_random_numbers_are_its_own():
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    summarise(make_result())
    assert np.random.random() == expected


@pytest.mark.parametrize("images", [1, 5])
def test_one_drive_has_no_interval_and_it_says_why(images):
    found = summarise(make_result((images,)))
    assert found.unscaled.intervals == {} and found.scaled.intervals == {}
    assert found.scale_interval is None
    assert "one drive" in found.remark


def test_few_drives_are_said_to_be_few():
    assert "too narrow" in summarise(make_result([2] * 9)).remark
    assert "too narrow" not in summarise(make_result([2] * 10)).remark
    assert "10 drives, 70 resamples" in summarise(make_result([2] * 10), resamples=70).remark


# Histogram


def test_a_histogram_counts_what_is_between_its_edges():
    ratio = np.random.default_rng(0).normal(1.02, 0.05, 500)
    found = histogram(ratio)
    inside = ratio[(ratio >= found.edges[0]) & (ratio <= found.edges[-1])]
    counts, _ = np.histogram(inside, found.edges)
    counts[0] += (ratio < found.edges[0]).sum()
    counts[-1] += (ratio > found.edges[-1]).sum()
    assert found.counts.tolist() == counts.tolist()
    assert np.allclose(np.diff(found.edges), found.edges[1] - found.edges[0])


@given(
    st.lists(st.floats(0, 1e6) | st.sampled_from([math.nan, math.inf, 1.0, 0.0]), min_size=1),
)
def test_every_ratio_is_counted_once(ratios):
    found = histogram(np.array(ratios))
    missing = sum(map(math.isnan, ratios))
    assert found.counts.sum() + missing == len(ratios)
    assert found.not_numbers == missing
    assert 1 <= len(found.counts) <= 70
    assert (np.diff(found.edges) > 0).all()


def test_what_is_far_out_is_in_the_end_bins_and_that_is_said():
    ratio = np.concatenate([np.linspace(0.9, 1.1, 50), [0.01, 40, 50, math.inf, math.nan]])
    found = histogram(ratio)
    assert (found.below, found.above, found.not_numbers) == (1, 3, 1)
    assert found.counts[0] >= 1 and found.counts[-1] >= 3
    assert found.edges[0] > 0.5 and found.edges[-1] < 1.5
    assert "first bin includes 1 below" in found.remark
    assert "last bin includes 3 above" in found.remark
    assert "1 in no bin" in found.remark
    assert histogram(np.linspace(0.9, 1.1, 50)).remark == ""


def test_it_reaches_to_the_right_scale_if_that_is_near():
    near = histogram(np.linspace(1.05, 1.2, 50))
    assert near.edges[0] <= 1 <= near.edges[-1]
    far = histogram(np.linspace(30, 32, 50))
    assert far.edges[0] > 20


def test_ratios_that_are_all_the_same_have_a_bin():
    found = histogram(np.full(7, 0.93))
    at = np.searchsorted(found.edges, 0.93, side="right") - 1
    assert found.counts[at] == 7 and found.counts.sum() == 7


@pytest.mark.parametrize(
    "least, step", [(1, 1), (1.01, 2), (0.011, 0.02), (0.03, 0.05), (0.06, 0.1), (700, 1000)]
)
def test_round_steps(least, step):
    assert round_step(least) == step
