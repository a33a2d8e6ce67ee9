"""The evaluation of depth: truth is perfect, files are networks too, and nothing is kept."""

from __future__ import annotations

import math
import shutil

import cv2
import numpy as np
import pytest
import torch
from torch.testing import assert_close

import metrics
from datasets.lidar import read_depth_png
from evaluation import depth
from evaluation.depth import (
    BENCHMARK_SIZE,
    FilePredictions,
    NetworkPredictions,
    Predicted,
    at_truth,
    evaluate_depth,
    saved_as_array,
    saved_for_benchmark,
    with_progress,
)
from evaluation.examples import Example
from metrics import DEPTH_METRICS, PROTOCOLS
from tests.evaluation_tree import (
    SIDE,
    Oracle,
    examples_of,
    full_lines,
    make_evaluation_tree,
    true_inverse,
)
from tests.image_tree import SIZE
from utils import UserError

COUNT = len(full_lines())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_evaluation_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def examples(root):
    return examples_of(root)


@pytest.fixture(scope="module")
def scans(root):
    return examples_of(root, dataset="kitti")


def true_array(examples, factor=1.0):
    return np.stack([true_inverse(examples, i, factor) for i in range(COUNT)])


def of_file(path, array, count=COUNT, **more):
    np.save(path, array)
    return FilePredictions(path, count, **more)


def errors(result, name):
    return result.unscaled[:, DEPTH_METRICS.index(name)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["examples", "scans"])
def test_the_truth_as_prediction_has_no_error_under_any_protocol(
    protocol, kind, examples, scans, tmp_path
):
    found = {"examples": examples, "scans": scans}[kind]
    predictions = of_file(tmp_path / "disps.npy", true_array(found))
    result = evaluate_depth(found, predictions.read(found, truths=True), protocol, {})
    assert len(result) + len(result.left_out) == COUNT and len(result) >= 2
    for errors_of in (result.unscaled, result.scaled):
        assert_close(errors_of[:, :4], np.zeros((len(result), 4)), atol=1e-5, rtol=0)
        assert (errors_of[:, 4:] == 1).all()
    assert_close(result.ratio, np.ones(len(result)), atol=0, rtol=1e-6)


def test_the_truth_times_1_1_is_off_by_a_tenth_and_right_after_scaling(scans, tmp_path):
    predictions = of_file(tmp_path / "disps.npy", true_array(scans, 1.1))
    result = evaluate_depth(scans, predictions.read(scans, truths=True), "synthetic", {})
    assert_close(errors(result, "abs_rel"), np.full(COUNT, 0.1), atol=1e-5, rtol=0)
    assert_close(result.scaled[:, 0], np.zeros(COUNT), atol=1e-5, rtol=0)
    assert_close(result.ratio, np.full(COUNT, 1 / 1.1), atol=0, rtol=1e-5)
    corrected = of_file(tmp_path / "disps.npy", true_array(scans, 1.1), factor=1 / 1.1)
    right = evaluate_depth(scans, corrected.read(scans, truths=True), "synthetic", {})
    assert_close(errors(right, "abs_rel"), np.zeros(COUNT), atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch_size, workers", [(1, 0), (2, 0), (16, 2)])
def test_a_network_is_asked_for_each_image_whatever_the_batches(
    batch_size, workers, examples, root
):
    class Brightness:
        """A network that says how bright an image is."""

        def inverse_depth(self, images):
            mean = images.float().mean((1, 2, 3)) / 1000
            return mean.view(-1, 1, 1, 1).expand(-1, 1, SIDE, SIDE)

    predictions = NetworkPredictions(Brightness(), batch_size, workers)
    found = list(predictions.read(examples, truths=True))
    assert [predicted.example.place for predicted in found] == list(range(COUNT))
    for i, (example, inverse) in enumerate(found):
        assert np.array_equal(example.truth_m, examples.truth(i))
        assert_close(inverse.mean().item(), examples.image(i).float().mean().item() / 1000)
    some = list(predictions.read(examples, truths=False, places=[3, 0]))
    assert [predicted.example.place for predicted in some] == [3, 0]
    assert all(predicted.example.truth_m is None for predicted in some)


def test_a_constant_depth_has_the_errors_of_the_protocol_by_hand(examples):
    result = evaluate_depth(
        examples,
        NetworkPredictions(Oracle(20.0), 4, 0).read(examples, truths=True),
        "eigen_benchmark",
        {"weights": "none"},
        median_scaled=True,
    )
    for i in range(COUNT):
        truth = examples.truth(i)
        truth = truth[truth > 0].astype(np.float64)
        assert_close(result.unscaled[i, 0], np.mean(np.abs(20 - truth) / truth), atol=0, rtol=1e-5)
        assert_close(result.ratio[i], np.median(truth) / 20, atol=0, rtol=1e-6)
    assert result.names == tuple(full_lines()) and result.protocol == "eigen_benchmark"
    assert result.facts == {"weights": "none"} and result.median_scaled


def test_what_is_resized_is_inverse_depth():
    inverse = torch.rand(1, 8, 9) + 0.1
    got = at_truth(inverse, (20, 30), PROTOCOLS["eigen"])
    expected = cv2.resize(inverse[0].numpy(), (30, 20), interpolation=cv2.INTER_LINEAR)
    assert_close(got[0, 0].numpy(), 1 / expected, atol=0, rtol=1e-4)
    nearest = at_truth(inverse, (20, 30), PROTOCOLS["make3d"])
    expected = cv2.resize(inverse[0].numpy(), (30, 20), interpolation=cv2.INTER_NEAREST)
    assert_close(nearest[0, 0].numpy(), 1 / expected)


# Images that cannot be compared


class Blinded:
    """Examples of which some have another truth."""

    def __init__(self, examples, truths):
        self._examples, self._truths = examples, truths
        self.names, self.drives = examples.names, examples.drives

    def image(self, i):
        return self._examples.image(i)

    def truth(self, i):
        return self._truths.get(i, self._examples.truth(i))


def test_images_without_truth_that_counts_are_left_out_and_told(examples):
    nothing = np.zeros(SIZE[::-1], np.float32)
    blinded = Blinded(examples, {1: None, 2: nothing})
    read = NetworkPredictions(Oracle(20.0), 4, 0).read(blinded, truths=True)
    result = evaluate_depth(blinded, read, "synthetic", {}, without_truth=["another"])
    names = full_lines()
    assert result.left_out == ("another", names[1], names[2])
    assert result.names == (names[0], names[3], names[4])
    assert len(result.drives) == 3 and np.isfinite(result.unscaled).all()
    whole = evaluate_depth(
        examples, NetworkPredictions(Oracle(20.0), 4, 0).read(examples, True), "synthetic", {}
    )
    assert np.array_equal(result.unscaled, whole.unscaled[[0, 3, 4]])


def test_no_image_with_truth_is_an_error(examples):
    nothing = np.zeros(SIZE[::-1], np.float32)
    blinded = Blinded(examples, dict.fromkeys(range(COUNT), nothing))
    read = NetworkPredictions(Oracle(20.0), 4, 0).read(blinded, truths=True)
    with pytest.raises(UserError, match=f"none of {COUNT} images has a true depth that counts"):
        evaluate_depth(blinded, read, "eigen", {})
    with pytest.raises(UserError, match="none of 0 images"):
        evaluate_depth(blinded, iter([]), "eigen", {})


def test_a_prediction_that_is_no_number_is_an_error_and_does_not_look_good(examples):
    class Broken(Oracle):
        def inverse_depth(self, images):
            return super().inverse_depth(images) * math.nan

    read = NetworkPredictions(Broken(20.0), 4, 0).read(examples, truths=True)
    with pytest.raises(UserError, match=f"^{full_lines()[0]}: the network says depths that are no"):
        list(read)
    of_others = iter(
        [Predicted(Example(2, None, examples.truth(2)), torch.full((1, 2, 2), math.nan))]
    )
    with pytest.raises(UserError, match=f"^{full_lines()[2]}: the predicted depth is no number"):
        evaluate_depth(examples, of_others, "synthetic", {})


def test_a_prediction_of_zero_is_infinitely_far_and_cut_to_the_cap(examples, tmp_path):
    predictions = of_file(tmp_path / "zero.npy", np.zeros((COUNT, 4, 5), np.float32))
    result = evaluate_depth(examples, predictions.read(examples, True), "synthetic", {})
    truth = examples.truth(0)
    counts = (truth > 1e-3) & (truth < 80)
    expected = np.mean((80 - truth[counts]) / truth[counts])
    assert_close(result.unscaled[0, 0], float(expected), atol=0, rtol=1e-5)


# Files of predictions


def test_what_was_saved_is_evaluated_as_the_network_was(examples, tmp_path):
    class Ramp(Oracle):
        def inverse_depth(self, images):
            return torch.rand(len(images), 1, SIDE, SIDE, generator=generator) + 0.01

    generator = torch.Generator().manual_seed(0)
    path = tmp_path / "disps.npy"
    read = NetworkPredictions(Ramp(1.0), 2, 0).read(examples, truths=True)
    first = evaluate_depth(examples, saved_as_array(path, read, COUNT), "synthetic", {})
    array = np.load(path)
    assert array.shape == (COUNT, SIDE, SIDE) and array.dtype == np.float32
    again = FilePredictions(path, COUNT).read(examples, truths=True)
    second = evaluate_depth(examples, again, "synthetic", {})
    assert np.array_equal(first.unscaled, second.unscaled)
    assert [p.name for p in tmp_path.iterdir()] == ["disps.npy"]


def test_an_array_that_is_not_finished_is_not_there(examples, tmp_path):
    read = NetworkPredictions(Oracle(1.0), 2, 0).read(examples, truths=False)
    saving = saved_as_array(tmp_path / "disps.npy", read, COUNT)
    next(saving)
    saving.close()
    assert not list(tmp_path.iterdir())


def test_rows_choose_which_predictions_belong_to_the_list(examples, tmp_path):
    array = np.zeros((9, 2, 3), np.float32)
    rows = [8, 1, 4, 4, 0]
    array += np.arange(9)[:, None, None]
    read = of_file(tmp_path / "a.npy", array, 9, rows=rows).read(examples, truths=False)
    assert [predicted.inverse_depth.max().item() for predicted in read] == rows


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
def test_numbers_that_are_no_inverse_depth_are_told_with_their_image(wrong, examples, tmp_path):
    array = np.ones((COUNT, 2, 3), np.float32)
    array[2, 1, 1] = wrong
    read = of_file(tmp_path / "a.npy", array).read(examples, truths=False)
    next(read), next(read)
    with pytest.raises(UserError, match=rf"a\.npy: the prediction of {full_lines()[2]}"):
        next(read)


def test_another_number_of_predictions_than_images_is_told(tmp_path):
    with pytest.raises(UserError, match="4 predictions for 5 images: it is of another list"):
        of_file(tmp_path / "a.npy", np.ones((4, 2, 3), np.float32))


def test_what_is_no_array_of_predictions_is_named(tmp_path):
    for array in (np.ones((5, 2)), np.ones((5, 2, 3), int), np.ones((5, 0, 2))):
        with pytest.raises(UserError, match=r"a\.npy: expected inverse depths \(N, h, w\)"):
            of_file(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", np.ones(3))
    with pytest.raises(UserError, match="found an archive"):
        FilePredictions(tmp_path / "b.npz", 5)
    for content in (b"", b"text", b"\x93NUMPY"):
        (tmp_path / "c.npy").write_bytes(content)
        with pytest.raises(UserError, match=r"c\.npy: not an array of numbers"):
            FilePredictions(tmp_path / "c.npy", 5)
    with pytest.raises(UserError, match="no such file"):
        FilePredictions(tmp_path / "d.npy", 5)


def test_an_array_of_objects_is_refused_and_nothing_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was run",))

    np.save(tmp_path / "a.npy", np.array([[[Trap()]]], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="not an array of numbers"):
        FilePredictions(tmp_path / "a.npy", 1)


# KITTI's server


def test_maps_for_the_server_have_its_size_and_unit(examples, tmp_path):
    read = NetworkPredictions(Oracle(20.0), 2, 0).read(examples, truths=False)
    passed = list(saved_for_benchmark(tmp_path / "maps", read))
    assert len(passed) == COUNT
    paths = sorted((tmp_path / "maps").iterdir())
    assert [path.name for path in paths] == [f"{i:010d}.png" for i in range(COUNT)]
    for path in paths:
        depth_m = read_depth_png(path)
        assert depth_m.shape == BENCHMARK_SIZE == (352, 1216)
        assert_close(depth_m, np.full_like(depth_m, 20.0))


def test_maps_for_the_server_are_cut_to_80_metres(examples, tmp_path):
    read = NetworkPredictions(Oracle(500.0), 2, 0).read(examples, truths=False, places=[0])
    list(saved_for_benchmark(tmp_path, read))
    assert read_depth_png(tmp_path / "0000000000.png").max() == 80


# Memory


def test_nothing_of_an_image_is_kept_but_its_errors(examples, monkeypatch):
    """Half of the images or all of them, as much is alive at once."""
    alive, most = 0, []

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def predictions(count):
        nonlocal alive
        for i in range(count):
            alive += 1
            truth = np.ones((50, 60), np.float32).view(Counted)
            most.append(alive)
            yield Predicted(Example(i % COUNT, None, truth), torch.ones(1, 5, 6))
            del truth

    for count in (5, 40):
        most.clear()
        evaluate_depth(examples, with_progress(predictions(count), count), "synthetic", {})
        assert max(most) <= 2


def test_progress_passes_everything_on(capsys):
    assert list(with_progress(iter([1, 2, 3]), 3)) == [1, 2, 3]
    assert capsys.readouterr().out == ""


def test_a_disk_that_is_full_is_named_and_leaves_nothing(examples, tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(depth, "written_whole", full)
    read = NetworkPredictions(Oracle(1.0), 2, 0).read(examples, truths=False)
    with pytest.raises(OSError, match="No space left"):
        list(saved_for_benchmark(tmp_path / "maps", read))
    shutil.rmtree(tmp_path / "maps")


def test_errors_by_distance_are_kept(examples):
    read = NetworkPredictions(Oracle(20.0), 2, 0).read(examples, truths=True)
    result = evaluate_depth(examples, read, "synthetic", {})
    ranges = len(metrics.DISTANCES_M) - 1
    assert result.by_distance.shape == result.scaled_by_distance.shape == (COUNT, ranges)
    # The depth of image i of camera c is 10 i + c + 1/2 m, everywhere.
    for i, line in enumerate(full_lines()):
        frame, side = line.split()[1:]
        depth_m = 10 * int(frame) + (2 if side == "l" else 3) + 0.5
        expected = np.full(ranges, np.nan)
        expected[int(depth_m // 20)] = abs(20 - depth_m) / depth_m
        assert_close(result.by_distance[i], expected, equal_nan=True, atol=1e-5, rtol=0)
