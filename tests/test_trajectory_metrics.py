"""Laws of the errors of trajectories: closed forms, KITTI's rule in loops, evo, Monodepth2."""

from __future__ import annotations

import math

import numpy as np
import pytest
from evo.core import metrics as evo_metrics
from evo.core.trajectory import PoseTrajectory3D
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

import metrics
from metrics import (
    ALIGNMENTS,
    SEGMENTS_M,
    align,
    relative_errors,
    segment_errors,
    snippet_errors,
    trajectory_errors,
    umeyama,
)


def motion(rotvec, t):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_rotvec(rotvec).as_matrix(), t
    return T


def chained(steps):
    poses = [np.eye(4)]
    for T in steps:
        poses.append(poses[-1] @ T)
    return np.array(poses)


def steady(count, turn_rad=0.0, step_m=1.0):
    """Return a trajectory of equal steps: a line, or a circle."""
    return chained([motion([0, turn_rad, 0], [0, 0, step_m])] * count)


def winding(count, seed=0, noise=0.0, step_m=1.3):
    """Return a drive that turns and climbs, and whose steps are wrong by some noise."""
    wave, random = np.arange(count), np.random.default_rng(seed)
    steps = []
    for k in wave:
        turn = [0.002 * math.sin(0.1 * k), 0.03 * math.sin(0.05 * k), 0.001]
        wrong = noise * random.standard_normal((2, 3))
        steps.append(motion(turn + 0.1 * wrong[0], [0.01, 0.02, step_m] + wrong[1]))
    return chained(steps)


def devkit(truth, estimate):
    """Return what KITTI's development kit does, in its order and with its loops."""
    distance = [0.0]
    for i in range(1, len(truth)):
        dx, dy, dz = truth[i][:3, 3] - truth[i - 1][:3, 3]
        distance.append(distance[i - 1] + math.sqrt(dx * dx + dy * dy + dz * dz))
    errors = []
    for first in range(0, len(truth), 10):
        for length in (100, 200, 300, 400, 500, 600, 700, 800):
            last = -1
            for i in range(first, len(distance)):
                if distance[i] > distance[first] + length:
                    last = i
                    break
            if last == -1:
                continue
            dT_truth = np.linalg.inv(truth[first]) @ truth[last]
            dT_estimate = np.linalg.inv(estimate[first]) @ estimate[last]
            E = np.linalg.inv(dT_estimate) @ dT_truth
            cosine = 0.5 * (np.trace(E[:3, :3]) - 1)
            angle = math.acos(max(min(cosine, 1.0), -1.0))
            errors.append((math.sqrt((E[:3, 3] ** 2).sum()) / length, angle / length))
    return np.array(errors)


def evo_ate(truth, estimate, **how):
    reference, moved = (
        PoseTrajectory3D(poses_se3=list(T), timestamps=np.arange(len(T), dtype=float))
        for T in (truth, estimate)
    )
    if how:
        moved.align(reference, **how)
    ape = evo_metrics.APE(evo_metrics.PoseRelation.translation_part)
    ape.process_data((reference, moved))
    return ape.get_statistic(evo_metrics.StatisticsType.rmse)


@pytest.mark.parametrize("truth", [steady(300), steady(300, 0.01), winding(300)])
def test_the_truth_has_no_error(truth):
    for errors in trajectory_errors(truth, truth).values():
        numbers = vars(errors)
        assert numbers.pop("scale") == pytest.approx(1, abs=1e-12)
        assert numbers.pop("segments") >= 30
        assert max(numbers.values()) < 1e-6
    assert snippet_errors(truth, truth).max() < 1e-12


@pytest.mark.parametrize("turn", [0.0, 0.004, -0.02])
def test_a_drift_of_the_scale_is_t_rel(turn):
    truth, estimate = steady(1000, turn), steady(1000, turn, 1.03)
    lost_m, lost_rad = segment_errors(truth, estimate)
    # A segment ends at the first image further than its length, so after one step of 1 m more;
    # what is lost is 3 % of the chord, which is n on a line.
    expected = []
    for _ in range(0, 1001, 10):
        for length in SEGMENTS_M:
            n = length + 1
            chord = n if turn == 0 else math.sin(n * turn / 2) / math.sin(turn / 2)
            expected.append(0.03 * abs(chord) / length)
    whole = [first + length + 1 <= 1000 for first in range(0, 1001, 10) for length in SEGMENTS_M]
    assert_allclose(lost_m, np.array(expected)[whole], rtol=1e-9)
    assert lost_rad.max() < 1e-9
    errors = trajectory_errors(truth, estimate)["unaligned"]
    assert errors.t_rel_percent == pytest.approx(100 * np.array(expected)[whole].mean())
    assert errors.step_m == pytest.approx(0.03)


@pytest.mark.parametrize("turn", [0.0, 0.004])
def test_a_drift_of_the_heading_is_r_rel(turn):
    truth, estimate = steady(900, turn), steady(900, turn + 2e-4)
    lost_m, lost_rad = segment_errors(truth, estimate)
    pairs = [(f, n) for f in range(0, 901, 10) for n in SEGMENTS_M if f + n + 1 <= 900]
    expected = np.array([2e-4 * (n + 1) / n for _, n in pairs])
    assert_allclose(lost_rad, expected, rtol=1e-9)
    found = trajectory_errors(truth, estimate)["unaligned"]
    assert found.r_rel_deg_per_100m == pytest.approx(100 * math.degrees(expected.mean()))
    assert found.step_deg == pytest.approx(math.degrees(2e-4))
    assert found.segments == len(pairs) and lost_m.min() > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_segments_are_those_of_the_development_kit(seed):
    truth, estimate = winding(900, seed), winding(900, seed, noise=0.02)
    expected = devkit(truth, estimate)
    lost_m, lost_rad = segment_errors(truth, estimate)
    assert len(expected) > 300
    assert_allclose(lost_m, expected[:, 0], rtol=1e-9)
    assert_allclose(lost_rad, expected[:, 1], atol=1e-9)
    errors = trajectory_errors(truth, estimate)["unaligned"]
    assert errors.t_rel_percent == pytest.approx(100 * expected[:, 0].mean())
    assert errors.segments == len(expected)


@pytest.mark.parametrize(
    ("alignment", "how"),
    [
        ("unaligned", {}),
        ("scale", {"correct_only_scale": True}),
        ("7dof", {"correct_scale": True}),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_distance_of_positions_is_that_of_evo(alignment, how, seed):
    truth, estimate = winding(200, seed), winding(200, seed, noise=0.1, step_m=0.9)
    expected = evo_ate(truth, estimate, **how)
    assert trajectory_errors(truth, estimate)[alignment].ate_m == pytest.approx(expected, abs=1e-9)
    moved, _ = align(truth, estimate, alignment)
    assert evo_ate(truth, moved) == pytest.approx(expected, abs=1e-9)


def test_a_straight_line_can_be_aligned():
    # evo refuses it, since the turn about the line is open.
    truth = steady(50)
    turned = motion([0.3, -1.2, 0.4], [5, 6, 7]) @ steady(50, step_m=0.5)
    moved, scale = align(truth, turned, "7dof")
    assert scale == pytest.approx(2)
    assert_allclose(moved[:, :3, 3], truth[:, :3, 3], atol=1e-9)
    R = moved[:, :3, :3]
    assert_allclose(R.swapaxes(1, 2) @ R, np.tile(np.eye(3), (51, 1, 1)), atol=1e-12)
    assert np.linalg.det(R).min() > 0.99


def test_a_similarity_is_found_again_and_is_no_reflection():
    points = np.random.default_rng(0).standard_normal((30, 3))
    R, t = Rotation.from_rotvec([0.4, 2.0, -1]).as_matrix(), np.array([1.0, -2, 3])
    scale, found_R, found_t = umeyama(points, 1.7 * points @ R.T + t)
    assert scale == pytest.approx(1.7)
    assert_allclose(found_R, R, atol=1e-12)
    assert_allclose(found_t, t, atol=1e-12)
    _, found_R, _ = umeyama(points, points * [1, 1, -1])
    assert np.linalg.det(found_R) == pytest.approx(1)


def test_nothing_nearby_is_nearer_than_the_similarity():
    random = np.random.default_rng(3)
    points, onto = random.standard_normal((2, 40, 3))
    scale, R, t = umeyama(points, onto)

    def distance(scale, R, t):
        return ((scale * points @ R.T + t - onto) ** 2).sum()

    least = distance(scale, R, t)
    for _ in range(50):
        turn = Rotation.from_rotvec(1e-3 * random.standard_normal(3)).as_matrix()
        near = scale * (1 + 1e-3 * random.standard_normal()), turn @ R
        assert distance(*near, t + 1e-3 * random.standard_normal(3)) > least


def test_what_does_not_move_keeps_its_scale():
    still = np.tile(np.eye(4), (20, 1, 1))
    _, scale = align(steady(19), still, "scale")
    assert scale == 1
    assert trajectory_errors(steady(19), still)["7dof"].ate_m == pytest.approx(np.arange(20).std())


@pytest.mark.parametrize("place_m", [(0.1, 0.7, 123.3), (1 / 3, 2e3, -7.7)])
def test_what_stands_still_anywhere_keeps_its_scale_too(place_m):
    # The mean of equal numbers is another number by rounding.
    still = np.tile(motion([0.3, 0.2, -1], place_m), (20, 1, 1))
    for alignment in ("scale", "7dof"):
        assert align(steady(19), still, alignment)[1] == 1
        assert trajectory_errors(steady(19), still)[alignment].scale == 1
    slow = still.copy()
    slow[:, 2, 3] += 1e-3 * np.arange(20)
    assert align(steady(19), slow, "scale")[1] == pytest.approx(1e3, rel=1e-6)


HOLES = [(), (30,), range(30, 50), (0, 1, 2), (100, 99), range(1, 101, 2)]


def without(holes, *trajectories):
    """Return trajectories without some images, and the numbers of the others."""
    numbers = np.setdiff1d(np.arange(len(trajectories[0])), holes)
    return *(T[numbers] for T in trajectories), numbers


@pytest.mark.parametrize("holes", HOLES, ids=str)
def test_a_step_is_from_one_image_to_the_next_whatever_is_left_out(holes):
    truth, estimate, numbers = without(holes, steady(100), steady(100, step_m=1.03))
    errors = trajectory_errors(truth, estimate, numbers)["unaligned"]
    # Both count from the first image that there is.
    gone = 0.03 * (numbers - numbers[0])
    assert errors.ate_m == pytest.approx(math.sqrt((gone**2).mean()))
    if len(numbers) > 51:
        assert errors.step_m == pytest.approx(0.03)
    else:  # no two neighbours
        assert math.isnan(errors.step_m) and math.isnan(errors.step_deg)


@pytest.mark.parametrize("holes", HOLES[:-1], ids=str)
def test_no_snippet_is_across_what_is_left_out(holes):
    whole = winding(100), winding(100, noise=0.05)
    *cut, numbers = without(holes, *whole)
    there, all_of_them = set(numbers.tolist()), snippet_errors(*whole)
    full = [k for k in range(97) if {k, k + 1, k + 2, k + 3, k + 4} <= there]
    found = snippet_errors(*cut, numbers)
    assert_allclose(found[: len(full)], all_of_them[full])
    assert len(found) == len(full) + 3  # the last are shorter
    assert len(snippet_errors(*without(HOLES[-1], *whole))) == 0


@pytest.mark.parametrize("holes", HOLES, ids=str)
def test_segments_begin_at_each_tenth_image_of_the_drive(holes):
    whole = steady(400), steady(400, 2e-4, 1.03)
    *cut, numbers = without(holes, *whole)
    there, expected = set(numbers.tolist()), []
    for first in range(0, 401, 10):
        for length in SEGMENTS_M:
            further = (k for k in range(first + length + 1, 401) if k in there)
            last = next(further, None)
            if first in there and last is not None:
                turn, m = (last - first) * 2e-4 / length, relative(*whole, first, last) / length
                expected.append((m, turn))
    lost_m, lost_rad = segment_errors(*cut, numbers)
    assert len(expected) > 30
    order = np.argsort(lost_m), np.argsort([m for m, _ in expected])
    assert_allclose(lost_m[order[0]], np.array(expected)[order[1], 0], rtol=1e-9)
    assert_allclose(np.sort(lost_rad), np.sort([rad for _, rad in expected]), rtol=1e-6)


def relative(truth, estimate, first, last):
    dT, dT_estimate = (np.linalg.solve(T[first], T[last]) for T in (truth, estimate))
    return np.linalg.norm(np.linalg.solve(dT_estimate, dT)[:3, 3])


def test_other_axes_of_the_world_change_nothing():
    truth, estimate = winding(300), winding(300, noise=0.05)
    first, second = motion([1, 2, -0.4], [30, -5, 8]), motion([-0.3, 0.9, 2], [-3, 500, 1])
    expected = trajectory_errors(truth, estimate)
    found = trajectory_errors(first @ truth, second @ estimate)
    for alignment in ALIGNMENTS:
        for name, number in vars(expected[alignment]).items():
            assert getattr(found[alignment], name) == pytest.approx(number, rel=1e-7), name
    assert_allclose(
        snippet_errors(first @ truth, second @ estimate), snippet_errors(truth, estimate)
    )
    aligned = [align(truth, moved, "7dof")[0] for moved in (estimate, second @ estimate)]
    assert_allclose(*aligned, atol=1e-9)


def test_a_scale_is_forgiven_where_it_is_to_be():
    truth = winding(300)
    estimate = truth.copy()
    estimate[:, :3, 3] *= 0.2
    errors = trajectory_errors(truth, estimate)
    assert errors["unaligned"].t_rel_percent > 70 and errors["unaligned"].scale == 1
    for name in ("scale", "7dof"):
        assert errors[name].scale == pytest.approx(5)
        assert errors[name].t_rel_percent < 1e-6 and errors[name].ate_m < 1e-6


def test_a_short_drive_has_steps_and_no_segments():
    errors = trajectory_errors(steady(99), steady(99, step_m=1.1))["unaligned"]
    assert errors.segments == 0
    assert math.isnan(errors.t_rel_percent) and math.isnan(errors.r_rel_deg_per_100m)
    assert errors.step_m == pytest.approx(0.1) and errors.ate_m > 1
    assert trajectory_errors(steady(101), steady(101))["unaligned"].segments == 1


def monodepth2_ate(gtruth_xyz, pred_xyz_o):
    """The function of this name in Monodepth2's evaluate_pose.py, line by line."""
    offset = gtruth_xyz[0] - pred_xyz_o[0]
    pred_xyz = pred_xyz_o + offset[None, :]
    scale = np.sum(gtruth_xyz * pred_xyz) / np.sum(pred_xyz**2)
    alignment_error = pred_xyz * scale - gtruth_xyz
    return np.sqrt(np.sum(alignment_error**2)) / gtruth_xyz.shape[0]


def monodepth2_xyz(transformations):
    xyzs, pose = [np.zeros(3)], np.eye(4)
    for T in transformations:
        pose = pose @ T
        xyzs.append(pose[:3, 3])
    return np.array(xyzs)


def test_snippets_are_scored_as_monodepth2_does():
    truth, estimate = winding(60), winding(60, noise=0.05)
    # Its predictions are T_second_first, and the truth is brought to that.
    chains = [np.linalg.inv(np.linalg.inv(T[:-1]) @ T[1:]) for T in (truth, estimate)]
    expected = [
        monodepth2_ate(*(monodepth2_xyz(of[i : i + 4]) for of in chains))
        for i in range(0, len(truth) - 1)
    ]
    assert len(expected) == 60
    assert_allclose(snippet_errors(truth, estimate), expected, rtol=1e-9)


def test_the_way_itself_has_nearly_the_errors_of_the_inverse_motions():
    truth, estimate = winding(800), winding(800, noise=0.02)
    steps = [np.linalg.inv(T[:-1]) @ T[1:] for T in (truth, estimate)]
    way = [monodepth2_ate(*(monodepth2_xyz(of[i : i + 4]) for of in steps)) for i in range(800)]
    assert snippet_errors(truth, estimate).mean() == pytest.approx(np.mean(way), rel=0.05)


def test_a_snippet_of_one_length_may_have_any_scale():
    truth = winding(30)
    estimate = truth.copy()
    estimate[:, :3, 3] *= -3
    assert snippet_errors(truth, estimate).max() < 1e-12
    still = np.tile(np.eye(4), (31, 1, 1))
    lost = np.linalg.norm(np.outer(range(5), [0.01, 0.02, 1.3])) / 5
    assert snippet_errors(truth, still)[0] == pytest.approx(lost, rel=0.01)
    assert len(snippet_errors(truth[:1], truth[:1])) == 0


def test_nan_is_an_error_of_nan_and_not_of_the_program():
    truth, estimate = winding(200), winding(200)
    estimate[50] = np.nan
    errors = trajectory_errors(truth, estimate)
    assert all(math.isnan(errors[name].ate_m) for name in ALIGNMENTS)
    assert math.isnan(errors["7dof"].scale) and math.isnan(errors["unaligned"].step_m)


def test_inputs_are_left_unchanged_and_shapes_are_checked():
    truth, estimate = winding(120), winding(120, noise=0.05)
    before = truth.copy(), estimate.copy()
    trajectory_errors(truth, estimate)
    snippet_errors(truth, estimate)
    relative_errors(truth, estimate, np.arange(10))
    for name in ALIGNMENTS:
        moved, _ = align(truth, estimate, name)
        moved += 1
    assert np.array_equal(truth, before[0]) and np.array_equal(estimate, before[1])
    for wrong in (estimate[:-1], estimate[:, :3]):
        for function in (trajectory_errors, snippet_errors, lambda a, b: align(a, b, "scale")):
            with pytest.raises(ValueError, match=r"expected shape \(N, 4, 4\)"):
                function(truth, wrong)
    for wrong in (np.arange(120), np.zeros(121, int)):
        for function in (trajectory_errors, snippet_errors, segment_errors):
            with pytest.raises(ValueError, match="numbers: expected 121 rising ones"):
                function(truth, estimate, wrong)
    with pytest.raises(ValueError, match="expected one of unaligned, scale, 7dof"):
        align(truth, estimate, "sim3")
    assert metrics.SEGMENT_EVERY == 10 and SEGMENTS_M == tuple(range(100, 900, 100))
