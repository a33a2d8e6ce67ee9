"""The benchmarks run and say what they measured; how fast is for `make bench` to tell."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import options
from benchmarks import (
    ablation,
    accuracy,
    data_loading,
    demo,
    evaluation,
    fusion,
    inertial,
    lidar,
    recording,
    so3_exp,
    synthetic,
    timing,
    train_step,
)
from benchmarks.plain_step import PlainStep
from benchmarks.study import ROOT, Pose, Run, Scores, Workshop, last_weights, make_drives
from datasets.drives import find_drives
from datasets.synthetic.writer import SyntheticOptions, write_synthetic_kitti
from ekf.noise import preset
from liegroups.matrices import apply
from training.step import Step
from utils import UserError


def test_cases_take_turns_and_the_warm_up_is_not_counted(monkeypatch):
    now, order = [0.0], []

    def case(name, durations):
        def run():
            order.append(name)
            now[0] += durations.pop(0)

        return run

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    cases = {"a": case("a", [100, 1, 50, 3]), "b": case("b", [100, 5, 4, 6])}
    assert timing.interleaved_medians(cases, 3) == {"a": 3, "b": 5}
    assert order == list("ab" * 4)


def test_the_table_shows_milliseconds_and_ratios():
    medians = {"plain": 0.02, "ours": 0.005, "best": 0.0001}
    assert timing.table(medians, reference="plain").splitlines() == [
        "case   median_ms  times plain",
        "plain       20.0  1.00",
        "ours         5.0  0.25",
        "best         0.1  1/200",
    ]


def test_so3_exp_prints_its_time_beside_that_of_scipy(capsys):
    so3_exp.main(["--count", "100", "--repeats", "2"])
    printed = capsys.readouterr().out
    assert "100 rotation vectors" in printed
    assert all(case in printed for case in ["SciPy", "float64", "float32", "gradient"])


BOUNDS = {  # in float64 and in float32
    accuracy.round_trip: (1e-12, 5e-7),
    accuracy.at_pi: (1e-12, 1e-6),
    accuracy.against_scipy: (1e-12, 1e-6),
    accuracy.white_noise: (1e-12, 5e-4),
    accuracy.smooth_image: (1e-12, 1e-5),
}


@pytest.mark.parametrize("measure", BOUNDS, ids=lambda measure: measure.__name__)
def test_the_errors_in_the_readme_are_bounded(measure):
    for dtype, bound in zip(accuracy.TYPES, BOUNDS[measure], strict=True):
        assert 0 < measure(dtype) <= bound


def test_every_measure_is_bounded_by_a_test_and_printed(capsys, monkeypatch):
    assert set(accuracy.MEASURES.values()) == set(BOUNDS)
    monkeypatch.setattr(accuracy, "MEASURES", {name: lambda _: 0.5 for name in accuracy.MEASURES})
    accuracy.main()
    printed = capsys.readouterr().out
    assert printed.count("5.0e-01") == 2 * len(accuracy.MEASURES)


def test_the_loop_that_preintegration_is_timed_against_computes_the_same():
    dt, gyro, accel = inertial.samples(3, torch.float64)
    motion = inertial.preintegrate(dt, gyro, accel)
    for i in range(3):
        R, position, velocity = inertial.integrate_one(
            dt[i].numpy(), gyro[i].numpy(), accel[i].numpy()
        )
        assert_close(motion.R_b0_b1[i], torch.tensor(R))
        assert_close(motion.position[i], torch.tensor(position))
        assert_close(motion.velocity[i], torch.tensor(velocity))


def test_inertial_prints_preintegration_and_filter(capsys):
    inertial.main(["--intervals", "200", "--pairs", "2", "--repeats", "1"])
    printed = capsys.readouterr().out
    assert "200 intervals of 11 steps" in printed
    for case in (
        "loop over samples",
        "float64",
        "float32",
        "Jacobians",
        "2 pairs, forward and backward",
    ):
        assert case in printed


@pytest.mark.parametrize("situation", fusion.SITUATIONS)
def test_the_calibrated_noise_is_more_honest_than_the_published(situation):
    networks = fusion.SITUATIONS[situation]
    published, calibrated, told = (
        fusion.measure(way, networks, 400) for way in ("published", "calibrated", fusion.TOLD)
    )
    assert abs(np.log(calibrated.nees / 6)) < abs(np.log(published.nees / 6))
    assert calibrated.nees < 15
    # Published: whatever the camera sees, the fused motion is the IMU's.
    assert published.fused_m == pytest.approx(published.imu_m, rel=0.01)
    # One constant for all situations ends between the sensors. A pose network that knows itself is
    # as good as the better one, but for streets where the velocity is better than its prior says.
    assert calibrated.fused_m < 1.01 * max(calibrated.camera_m, calibrated.imu_m)
    better = told.camera_m if "seen" in situation else min(told.camera_m, told.imu_m)
    assert told.fused_m < 1.02 * better


def test_fusion_prints_a_line_for_each_situation_and_way(capsys):
    fusion.main(["--pairs", "20"])
    assert len(capsys.readouterr().out.splitlines()) == 2 + 3 * len(fusion.SITUATIONS)


def test_the_search_ranks_by_honesty_and_finds_the_preset(capsys, monkeypatch):
    noise = preset("calibrated")
    chosen = (noise.velocity_std, noise.camera_translation_variance**0.5)
    assert chosen[0] in fusion.GRID[0] and chosen[1] in fusion.GRID[1]
    monkeypatch.setattr(fusion, "GRID", ((0.01, chosen[0]), (chosen[1],), (1e-5,)))
    best, worst = fusion.search(100)
    assert best[1].initial_std() == noise.initial_std() and best[0] < worst[0]
    assert best[1].camera_translation_variance == pytest.approx(noise.camera_translation_variance)
    fusion.main(["--search", "--pairs", "20"])
    assert "1.5 0.20 1e-05" in capsys.readouterr().out


@pytest.fixture(scope="module")
def kitti_recording():
    pytest.importorskip("gtsam")
    return recording.read_recording()


def test_the_imu_reproduces_gps_on_a_real_recording(kitti_recording):
    errors_m = recording.gps_errors_m(recording.windows(kitti_recording, 5))
    assert len(errors_m) > 440  # of 470 seconds
    assert np.median(errors_m) < 0.05
    assert np.percentile(errors_m, 90) < 0.15


def test_a_window_with_a_gap_is_left_out(kitti_recording):
    assert kitti_recording.gps_time[0] < kitti_recording.time[1] - 1  # there the recording has one
    before_the_gap = kitti_recording.time[0] - 1e-6
    from_the_start = kitti_recording._replace(
        gps_time=np.concatenate([[before_the_gap + 1e-6], kitti_recording.gps_time[1:]])
    )
    assert len(recording.windows(from_the_start, 5)) == (len(from_the_start.gps_time) - 1) // 5 - 1


def test_the_calibrated_densities_explain_the_errors_on_a_real_recording(kitti_recording):
    found = recording.windows(kitti_recording, 10)[::3]
    values = {n: recording.reduced_chi_square(found, *d) for n, d in recording.DENSITIES.items()}
    assert 0.5 < values["calibrated"] < 2
    assert values["published"] < values["calibrated"] < values["GTSAM's"]
    noise = preset("calibrated")
    assert recording.DENSITIES["calibrated"] == (noise.gyro_density, noise.accel_density)


@pytest.mark.parametrize("steps", [10, 100])
def test_gtsam_differs_by_the_rule_of_integration_alone_on_a_real_recording(kitti_recording, steps):
    # GTSAM's rule takes one sample for a step, ours the mean of two: by half of how much rate and
    # force change from the first sample to the last, times the step.
    dt, gyro, accel = recording.random_intervals(kitti_recording, steps, 1000)
    as_measured = recording.gtsam_differences(kitti_recording, steps, 1000, by_our_rule=False)
    our_means = recording.gtsam_differences(kitti_recording, steps, 1000, by_our_rule=True)
    bounds = {10: (1e-7, 1e-9, 1e-7), 100: (3e-5, 3e-5, 1e-4)}[steps]
    for rest, raw, bound in zip(our_means, as_measured, bounds, strict=True):
        assert rest.max() < bound
        assert np.median(rest) < 1e-3 * np.median(raw)
    if steps == 10:
        motion = inertial.preintegrate(dt, gyro, accel)
        force_b0 = apply(motion.rotation, accel)
        expected = 0.5 * 0.01 * (force_b0[:, -1] - force_b0[:, 0]).norm(dim=-1)
        assert np.corrcoef(expected, as_measured.velocity_m_s)[0, 1] > 0.95


def test_without_gtsam_the_recording_is_left_out(capsys, monkeypatch):
    monkeypatch.setattr(recording.importlib.util, "find_spec", lambda name: None)
    recording.main([])
    assert "left out: needs GTSAM" in capsys.readouterr().out


def test_recording_prints_all_comparisons(capsys, monkeypatch, kitti_recording):
    monkeypatch.setattr(recording, "reduced_chi_square", lambda *_: 0.125)
    recording.main(["--count", "20"])
    printed = capsys.readouterr().out
    assert printed.count("median error") == 3
    assert printed.count("0.12, 0.12") == len(recording.DENSITIES)
    assert printed.count("our means") == printed.count("as measured") == 2


def test_synthetic_drives_are_as_true_as_the_readme_says(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(synthetic, "LEAST_MOTION_M", 0.001)  # the car just sets off
    write_synthetic_kitti(
        SyntheticOptions(tmp_path, drives=1, frames=18, size=(124, 38), imu_noise=0)
    )
    synthetic.report(tmp_path, step=8)
    lines = capsys.readouterr().out.splitlines()
    first_words = ["stereo", "previous", "next", "LiDAR", "IMU", "IMU"]
    assert sorted(line.split()[0] for line in lines) == sorted(first_words)
    for align in ("packet", "camera"):
        (drive,) = find_drives(tmp_path, tmp_path).both
        mm, deg = synthetic.inertial_errors(tmp_path, drive, align)
        assert len(mm) == 17 and mm.max() < 1 and deg.max() < 0.005


def test_a_wrong_motion_is_wrong_by_a_twentieth():
    T = np.eye(4)
    T[:3, 3] = 0.1, -0.2, 1.0
    for T_wrong in synthetic.perturbations(T).values():
        off = np.linalg.norm(T_wrong[:3, 3] - T[:3, 3]) / np.linalg.norm(T[:3, 3])
        assert off == pytest.approx(0.05)


def test_what_making_drives_takes_is_measured(tmp_path):
    cost = synthetic.make(tmp_path / "x", "--drives", "1", "--frames", "3", "--size", "48x16")
    assert 0.5 < cost.seconds < 300 and 0.1 < cost.memory_gb < 8
    with pytest.raises(RuntimeError, match="frames: expected a number from 3"):
        synthetic.make(tmp_path / "y", "--frames", "1")


def test_drives_too_short_to_measure_are_refused(capsys):
    with pytest.raises(SystemExit):
        synthetic.main(["--frames", "8"])
    assert "--frames" in capsys.readouterr().err


def test_depth_maps_are_those_of_a_loop_over_pixels(capsys):
    lidar.main(["--points", "6400", "--repeats", "1"])
    printed = capsys.readouterr().out
    assert printed.count("equal") == 2 and "DIFFERENT" not in printed


def test_data_loading_prints_what_it_measured_beside_its_limits(capsys, monkeypatch):
    for name, less in {"RENDERED": 3, "RECORDED": (124, 38), "SIZE": (96, 32)}.items():
        monkeypatch.setattr(data_loading, name, less)
    data_loading.main(["--frames", "12", "--samples", "50", "--repeats", "1"])
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith(tuple(data_loading.LIMITS))]
    assert [float(row.split()[-1]) for row in rows] == [*data_loading.LIMITS.values()]
    # Few samples start as fast as their files are read, or faster.
    assert all(float(row.split()[-2]) > 0 for row in rows if not row.startswith("start-up"))


def test_evaluation_prints_what_it_measured_beside_its_limits(capsys, monkeypatch):
    less = {"RENDERED": 3, "REAL_SIZE": (124, 38), "SIZE": (64, 64), "BATCH": 2}
    for name, value in less.items():
        monkeypatch.setattr(evaluation, name, value)
    evaluation.main(["--images", "3", "--repeats", "1", "--workers", "0"])
    printed = capsys.readouterr().out
    for name, limit in evaluation.LIMITS.items():
        (row,) = [line for line in printed.splitlines() if line.startswith(name)]
        assert row.endswith(f"at most {limit:g}")
    for name in ("float32", "bf16", "read an image", "errors, LiDAR", "errors, dense"):
        assert f"\n{name}" in printed


CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small_step():
    """Options, models whose normalisation knows their features, and a batch."""
    torch.manual_seed(0)
    given = train_step.parse_options((96, 64), 2)
    models, batch = train_step.make_models(given, CPU), train_step.make_batch(given, CPU)
    for module in models.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    train_step.OurStep(models, given, None).loss(batch, train_step.Clock(CPU))
    # Learning, normalisation takes one pair at a time for another batch than all pairs at once.
    return given, models.eval(), batch


@pytest.fixture
def without_tie_break(monkeypatch):
    monkeypatch.setattr("losses._TIE_BREAK", 0.0)
    monkeypatch.setattr("benchmarks.plain_step.STILL_NOISE", 0.0)


def gradients(models: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    wanted = {name: p for name, p in models.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    return {name: g for name, g in zip(wanted, found, strict=True) if g is not None}


@pytest.mark.usefixtures("without_tie_break")
def test_the_plain_step_computes_the_same_loss_and_gradients(small_step):
    given, models, batch = small_step
    ours = train_step.OurStep(models, given, None).loss(batch, train_step.Clock(CPU))
    plain = PlainStep(models, given, None).loss(batch)
    assert 0.01 < ours < 1
    assert_close(plain, ours, rtol=1e-4, atol=0)
    by_ours, by_plain = gradients(models, ours), gradients(models, plain)
    assert by_ours.keys() == by_plain.keys()
    for network in models.keys() - {"ekf_model"}:  # of which nothing is learnt here
        mine, other = (
            torch.cat([g.flatten() for name, g in each.items() if name.startswith(f"{network}.")])
            for each in (by_ours, by_plain)
        )
        assert 0 < (mine - other).norm() < 0.01 * mine.norm(), network


@pytest.mark.parametrize("words", train_step.CASES.values(), ids=list(train_step.CASES))
@pytest.mark.usefixtures("without_tie_break")
def test_the_phases_together_are_the_step_of_the_training(small_step, words):
    _, models, batch = small_step
    given = train_step.parse_options((96, 64), 2, words)
    if given.shared_motion_encoder:
        models = train_step.make_models(given, CPU).eval()
    terms, _ = Step(models, given)(batch)
    loss = train_step.OurStep(models, given, None).loss(batch, train_step.Clock(CPU))
    assert_close(loss, terms["total"], rtol=1e-5, atol=0)


def test_the_step_is_timed_by_cases_and_phases(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    train_step.main(["--width", "64", "--height", "64", "--batch_size", "1", "--repeats", "1"])
    lines = capsys.readouterr().out.splitlines()
    for name in (train_step.PLAIN, *train_step.CASES):
        assert any(line.startswith(name) for line in lines)
    for phase in train_step.PHASES:
        (row,) = (line for line in lines if line.startswith(phase))
        values = [float(value) for value in row[len(phase) :].split()]
        assert len(values) == len(train_step.CASES) and min(values) > 0
    rows = [line for line in lines if line.startswith(tuple(train_step.LIMITS))]
    assert [float(row.split()[-1]) for row in rows] == [*train_step.LIMITS.values()]
    assert all(float(row.split()[-2]) > 0 for row in rows)


def test_phases_last_as_long_as_the_whole_step(small_step, monkeypatch):
    given, models, batch = small_step
    ticks = iter(range(100))
    monkeypatch.setattr(train_step.time, "perf_counter", lambda: float(next(ticks)))
    adam = torch.optim.Adam(models.parameters(), 0.0)
    laps = train_step.OurStep(models, given, adam)(batch, train_step.Clock(CPU))
    assert laps == dict.fromkeys(train_step.PHASES, 1.0)  # each is marked once, in this order
    assert list(laps) == list(train_step.PHASES)


def scores_of(ratio: float = 1.0, **changes) -> Scores:
    usual = {
        "abs_rel": 0.1 * ratio,
        "scaled_abs_rel": 0.1,
        "a1": 0.9,
        "scale_ratio": ratio,
        "scale_spread": 0.05,
        "pose": {name: Pose(0.1, 0.2, 3.0, 4.0) for name in ("camera", "imu", "filter")},
        "speed_error": {"train": 0.3, "test": 1.25},
        "speed": {"train": 5.0, "test": 4.0},
    }
    return Scores(**usual | changes)


def test_scores_are_read_as_they_were_written_and_others_are_refused(tmp_path):
    file = tmp_path / "scores.json"
    scores_of().write(file)
    assert Scores.read(file) == scores_of()
    for damaged in (b"", b"[]", b"{}", b'{"pose": {}}', file.read_bytes().replace(b"a1", b"a2")):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="no scores of this version"):
            Scores.read(file)


def test_a_table_has_means_and_deviations_over_seeds_of_what_there_is():
    alone = scores_of(2.0, pose={"camera": Pose(0.4, 0.2, 3.0, 4.0)}, speed_error={}, speed={})
    found = {
        ("clean", "camera", 0): alone,
        ("clean", "filter", 0): scores_of(0.98),
        ("clean", "filter", 1): scores_of(1.02),
    }
    _, _, camera, fused = ablation.table(found).splitlines()
    assert camera.startswith("| clean | camera | 1 | 0.200 | 0.100 | 2.000 |")
    assert camera.endswith("| 0.400 |  |  |  |  |")
    assert fused.startswith(
        "| clean | filter | 2 | 0.100 ± 0.003 | 0.100 ± 0.000 | 1.000 ± 0.028 |"
    )


def test_the_demo_tells_depth_motion_and_speed():
    said = demo.table({demo.CAMERA: scores_of(2.0), demo.FUSED: scores_of()})
    assert "camera only          0.200          0.100        2.000" in said
    assert "camera 0.100 m, imu 0.100 m, filter 0.100 m" in said
    assert "1.25 of 4.0 m/s on others" in said


def a_run(folder, *words) -> Run:
    config = f"@{ROOT / 'configs' / 'demo_camera.txt'}"
    return Run("one", folder / "one", folder / "drives", (config, *words))


@pytest.mark.parametrize("variant", ablation.VARIANTS)
def test_every_variant_is_a_line_of_options(variant, tmp_path):
    run = a_run(tmp_path, *ablation.VARIANTS[variant].split())
    given = options.train(run.arguments)
    assert given.use_imu == (variant != "camera")
    assert given.use_ekf == (variant in ("filter", "inertial"))
    assert (given.velo_weight > 0) == (variant in ("speed", "filter"))


def test_what_was_trained_with_other_options_is_not_taken_for_this(tmp_path):
    run = a_run(tmp_path)
    run.check()  # nothing is there yet
    models = run.folder / "models"
    models.mkdir(parents=True)
    trained = json.dumps(vars(options.train(run.arguments)), default=str)
    (models / "opt.json").write_text(trained)
    run.check()
    with pytest.raises(UserError, match="trained with learning_rate 0.0004, and 0.5 is asked"):
        a_run(tmp_path, "--learning_rate", "0.5").check()
    with pytest.raises(UserError, match="no weights of a finished training"):
        last_weights(run.folder)


def test_a_workshop_does_what_is_left_and_names_what_failed(tmp_path, capfd):
    done = a_run(tmp_path)
    done.folder.mkdir()
    scores_of().write(done.scores_file)
    lost = replace(done, name="lost", folder=tmp_path / "lost")  # there are no drives
    finished = []
    with pytest.raises(UserError, match="not trained to the end: lost"):
        Workshop(2, ["one", "lost"]).finish([done, lost], finished.append)
    assert finished == [done]
    assert "lost | train" in capfd.readouterr().out


def test_drives_that_were_made_otherwise_are_refused(tmp_path):
    (tmp_path / "made_with.txt").write_text("--drives 3\n")
    with pytest.raises(UserError, match="drives made with --drives 3, not with --drives 4"):
        make_drives(tmp_path, "--drives", "4")
