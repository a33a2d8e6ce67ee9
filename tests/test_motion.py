"""Laws of the motion between images: it is the true one, by the IMU alone and fused, and mirrored.

The truth is that of a smooth drive in closed form; its IMU is read at 100 Hz, without noise.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from datasets.augmentation import mirror
from datasets.batch import ImuInterval, map_tensors
from ekf.filter import EKFModel, FilterState
from ekf.noise import preset, vision_covariance
from ekf.preintegration import camera_motion, carry, mirror_motion, preintegrate
from liegroups import se3, so3
from networks.factory import vision_form
from tests.samples import make_interval
from tests.training_setup import (
    CAMERA_ALONE,
    Window,
    drive_window,
    prepare_in,
    random_prediction,
    tiny_batch,
    tiny_options,
    tiny_sample,
)
from training.motion import (
    Motion,
    fitted_velocity,
    fuse,
    inertial_motions,
    join_intervals,
    sample_camera_motions,
    spread,
)
from training.prediction import Prediction, neighbours_of

WINDOWS = {
    "usual": (-1, 1),
    "wide": (-2, 2),
    "later": (0, 3),
    "earlier": (-3, 0),
}
EACH_WINDOW = pytest.mark.parametrize(("first", "last"), WINDOWS.values(), ids=WINDOWS)
INTEGRATION = {"atol": 2e-4, "rtol": 0}
"""What the trapezoids of 10 ms lose over 0.3 s, in metres, metres per second and radians."""

PRESETS = ("--noise_preset", "published"), ("--noise_preset", "calibrated")


def options_of(first: int, last: int, *argv: str) -> Namespace:
    frames = [str(frame) for frame in range(first, last + 1)]
    return tiny_options("--frame_ids", *frames, *argv)


def prediction_of(window: Window, options: Namespace) -> Prediction:
    """Return what perfect networks of motion say: velocity and gravity beside the target alone."""
    firsts = [k for k in (-1, 0) if k in window.imu]
    sources = neighbours_of(options)
    return Prediction(
        disparity={},
        mask={},
        T_first_second={k: window.T_first_second(k) for k in sources},
        uncertainty={k: torch.zeros(len(window.T_c0_ck[0]), 6).double() for k in sources},
        velocity={k: window.velocity[k] for k in firsts},
        gravity={k: window.gravity[k] for k in firsts},
    )


def build_filter(options: Namespace) -> EKFModel:
    return EKFModel(options.noise_preset, vision_form(options)).double()


@EACH_WINDOW
def test_velocity_and_gravity_are_carried_to_the_whole_window(first, last):
    window = drive_window(first, last, 4)
    given = [k for k in (-1, 0) if k in window.imu]
    velocity, gravity = spread(
        window.imu, {k: window.velocity[k] for k in given}, {k: window.gravity[k] for k in given}
    )
    assert velocity.keys() == gravity.keys() == window.imu.keys()
    for k in window.imu:
        assert_close(velocity[k], window.velocity[k], atol=2e-3, rtol=0)
        assert_close(gravity[k], window.gravity[k], **INTEGRATION)
    for k in given:  # what a network says stays, whatever the IMU makes of its neighbour
        assert velocity[k] is window.velocity[k] and gravity[k] is window.gravity[k]


def test_what_spreads_leaves_what_was_given_alone():
    window = drive_window(-2, 2)
    velocity, gravity = {0: window.velocity[0]}, {0: window.gravity[0]}
    found, _ = spread(window.imu, velocity, gravity)
    assert list(velocity) == list(gravity) == [0] and len(found) == 4


@EACH_WINDOW
def test_the_inertial_motion_is_the_true_one(first, last):
    window = drive_window(first, last, 4)
    options = options_of(first, last)
    motion = fuse(window.imu, prediction_of(window, options), options, None)
    assert list(motion.inertial) == neighbours_of(options)
    assert motion.used is motion.inertial and motion.fusion is None
    for source, T_first_second in motion.inertial.items():
        true = window.T_first_second(source)
        assert (true[:, :3, 3].norm(dim=-1) > 0.2 * abs(source)).all()
        assert_close(T_first_second, true, **INTEGRATION)


@EACH_WINDOW
@pytest.mark.parametrize("noise", PRESETS, ids=["published", "calibrated"])
def test_a_camera_that_is_right_changes_nothing(first, last, noise):
    window = drive_window(first, last, 4)
    options = options_of(first, last, "--use_ekf", *noise)
    motion = fuse(window.imu, prediction_of(window, options), options, build_filter(options))
    for source, T_first_second in motion.used.items():
        assert_close(T_first_second, window.T_first_second(source), **INTEGRATION)


@EACH_WINDOW
def test_the_filter_integrates_what_the_steps_compose(first, last):
    window = drive_window(first, last, 4)
    options = options_of(first, last, "--use_ekf")
    motion = fuse(window.imu, prediction_of(window, options), options, build_filter(options))
    of_pairs = motion.fusion.inertial.T_c0_c1.chunk(len(motion.inertial))
    for by_filter, composed in zip(of_pairs, motion.inertial.values(), strict=True):
        assert_close(by_filter, composed, **INTEGRATION)


@pytest.mark.parametrize("form", [(), ("--naive_vis_covar",), ("--vis_covar_use_fixed",)])
def test_all_pairs_at_once_are_each_pair_by_itself(form):
    options = options_of(-1, 2, "--use_ekf", "--noise_preset", "calibrated", *form)
    batch = tiny_batch(options, dtype=torch.float64)
    prediction = random_prediction(options, batch)
    ekf_model = build_filter(options)
    motion = fuse(batch.imu, prediction, options, ekf_model)
    velocity, gravity = spread(batch.imu, prediction.velocity, prediction.gravity)
    for place, (source, intervals) in enumerate({-1: [-1], 1: [0], 2: [0, 1]}.items()):
        first = intervals[0]
        alone = ekf_model(
            *join_intervals([batch.imu[k] for k in intervals]),
            *(batch.imu[first].T_c_b, velocity[first], gravity[first]),
            *(prediction.T_first_second[source], prediction.uncertainty[source]),
        )
        rows = slice(2 * place, 2 * place + 2)
        assert_close(motion.used[source], alone.fused.T_c0_c1)
        assert_close(motion.fusion.fused.T_c0_c1[rows], alone.fused.T_c0_c1)
        assert_close(motion.fusion.covariance[rows], alone.covariance, atol=1e-9, rtol=1e-6)


@EACH_WINDOW
def test_what_is_fused_is_between_imu_and_camera(first, last):
    window = drive_window(first, last, 4)
    options = options_of(
        first, last, "--use_ekf", "--noise_preset", "calibrated", "--vis_covar_use_fixed"
    )
    prediction = prediction_of(window, options)
    # All networks are wrong: the camera sees 0.3 m more, and the velocity is 1 m/s too low.
    ahead = torch.tensor([0, 0, 1.0]).double()
    seen = {k: T.clone() for k, T in prediction.T_first_second.items()}
    for T_first_second in seen.values():
        T_first_second[:, 2, 3] += 0.3
    velocity = {k: v - ahead for k, v in prediction.velocity.items()}
    prediction = replace(prediction, T_first_second=seen, velocity=velocity)
    motion = fuse(window.imu, prediction, options, build_filter(options))
    for source, T_fused in motion.used.items():
        felt_m, fused_m = (T[:, 2, 3] for T in (motion.inertial[source], T_fused))
        share = (fused_m - felt_m) / (seen[source][:, 2, 3] - felt_m)
        assert ((share > 0.05) & (share < 0.95)).all()
    # The camera says that the car is faster than was thought: so says the filter.
    faster = motion.fusion.fused.velocity[:, 2] - motion.fusion.inertial.velocity[:, 2]
    assert (faster > 0).all()


def test_a_better_camera_is_followed_more():
    options = options_of(-1, 1, "--use_ekf", "--noise_preset", "calibrated")
    window = drive_window(-1, 1, 4)
    prediction = prediction_of(window, options)
    seen = {k: T.clone() for k, T in prediction.T_first_second.items()}
    for T_first_second in seen.values():
        T_first_second[:, :3, 3] += 0.3

    def left(exponent: float) -> Tensor:
        uncertainty = {k: torch.full_like(u, exponent) for k, u in prediction.uncertainty.items()}
        given = replace(prediction, T_first_second=seen, uncertainty=uncertainty)
        used = fuse(window.imu, given, options, build_filter(options)).used
        return torch.stack([(seen[k] - T)[:, :3, 3].norm(dim=-1) for k, T in used.items()])

    vague, usual, sharp = left(1), left(0), left(-1)
    assert (sharp < usual).all() and (usual < vague).all()
    assert (sharp < 0.05).all() and (vague > 0.45).all()  # of 0.52 m


def test_intervals_that_are_joined_integrate_to_their_composition():
    first, second = make_interval(3, torch.float64), make_interval(3, torch.float64)
    first = padded(first, 3)  # as where ten and eleven steps meet in a batch
    dt, gyro, accel = join_intervals([first, second])
    assert dt.shape == (3, 12 + 3 + 1 + 12) and gyro.shape == accel.shape == (3, 29, 3)
    joined = preintegrate(dt, gyro, accel)
    a, b = first.preintegrated, second.preintegrated
    turned = a.R_b0_b1
    assert_close(joined.duration, torch.full((3,), 0.24).double())
    assert_close(joined.R_b0_b1, turned @ b.R_b0_b1)
    assert_close(joined.velocity, a.velocity + (turned @ b.velocity[..., None])[..., 0])
    expected = a.position + a.velocity * 0.12 + (turned @ b.position[..., None])[..., 0]
    assert_close(joined.position, expected)


def padded(interval: ImuInterval, steps: int) -> ImuInterval:
    """Lengthen an interval by steps of no time, with samples that must not matter."""
    length = interval.gyro.new_full((len(interval.dt), steps, 3), 77)
    return interval._replace(
        dt=torch.cat([interval.dt, interval.dt.new_zeros(len(interval.dt), steps)], 1),
        gyro=torch.cat([interval.gyro, length], 1),
        accel=torch.cat([interval.accel, length], 1),
    )


def test_one_interval_is_joined_to_itself():
    interval = make_interval(2)
    joined = join_intervals([interval])
    assert all(
        torch.equal(a, b)
        for a, b in zip(joined, (interval.dt, interval.gyro, interval.accel), strict=True)
    )


def test_nothing_is_integrated_for_no_loss():
    options = tiny_options(*CAMERA_ALONE, "--velo_weight", "1")
    batch = tiny_batch(options)
    prediction = random_prediction(options, batch)
    motion = fuse(batch.imu, prediction, options, None)
    assert motion == Motion({}, {}, prediction.velocity, None, None)


@pytest.mark.parametrize("noise", PRESETS, ids=["published", "calibrated"])
@pytest.mark.parametrize("use_ekf", [False, True])
def test_gradients_reach_all_that_is_predicted(noise, use_ekf):
    options = options_of(-2, 2, *(["--use_ekf", *noise] if use_ekf else []))
    batch = tiny_batch(options)
    prediction = random_prediction(options, batch)
    ekf_model = EKFModel(options.noise_preset) if use_ekf else None
    motion = fuse(batch.imu, prediction, options, ekf_model)
    torch.stack(list(motion.used.values()))[..., :3, :].sum().backward()
    reached = [prediction.velocity, prediction.gravity]
    if use_ekf:
        reached += [prediction.T_first_second, prediction.uncertainty]
    for of_frames in reached:
        for leaf in of_frames.values():
            assert leaf.grad.isfinite().all()
            assert (leaf.grad.flatten(1).abs().sum(1) > 0).all()  # of every sample
    if not use_ekf:
        assert all(T.grad is None for T in prediction.T_first_second.values())


@pytest.mark.parametrize(
    "argv", [(), ("--use_ekf",), ("--use_ekf", "--noise_preset", "calibrated")], ids=str
)
@EACH_WINDOW
@torch.no_grad()
def test_a_mirrored_drive_has_mirrored_motions(first, last, argv):
    options = options_of(first, last, *argv)
    sample = tiny_sample(options, dtype=torch.float64)
    flipped = mirror(sample, torch.tensor([True, True]))
    prediction = random_prediction(options, prepare_in(sample, options))
    M = torch.tensor([-1.0, 1, 1]).double()
    mirrored = replace(
        prediction,
        T_first_second=map_tensors(mirror_motion, prediction.T_first_second),
        velocity=map_tensors(lambda v: M * v, prediction.velocity),
        gravity=map_tensors(lambda g: M * g, prediction.gravity),
    )
    ekf_model = build_filter(options) if options.use_ekf else None
    expected = fuse(sample.imu, prediction, options, ekf_model)
    found = fuse(flipped.imu, mirrored, options, ekf_model)
    for source in neighbours_of(options):
        assert_close(found.inertial[source], mirror_motion(expected.inertial[source]))
        assert_close(found.used[source], mirror_motion(expected.used[source]))
        turned = so3.log(expected.used[source][:, :3, :3], check=False)
        assert turned[:, 1:].abs().min() > 1e-5  # it turns, so mirroring is not nothing
    if ekf_model is not None:
        for state in ("inertial", "fused"):
            a, b = getattr(expected.fusion, state), getattr(found.fusion, state)
            assert isinstance(a, FilterState)
            assert_close(b.velocity, M * a.velocity)
            assert_close(b.gravity, M * a.gravity)


def test_a_composed_motion_is_that_of_its_steps():
    options = options_of(-2, 2)
    batch = tiny_batch(options, dtype=torch.float64)
    prediction = random_prediction(options, batch)
    inertial = fuse(batch.imu, prediction, options, None).inertial
    velocity, gravity = spread(batch.imu, prediction.velocity, prediction.gravity)
    steps = {
        k: camera_motion(interval.preintegrated, interval.T_c_b, velocity[k], gravity[k])
        for k, interval in batch.imu.items()
    }
    expected = {-2: steps[-2] @ steps[-1], -1: steps[-1], 1: steps[0], 2: steps[0] @ steps[1]}
    assert_close(inertial, expected)


@pytest.mark.parametrize(
    "argv",
    [
        ("--noise_preset", "calibrated"),
        ("--noise_preset", "calibrated", "--naive_vis_covar"),
        ("--noise_preset", "calibrated", "--vis_covar_use_fixed"),
    ],
    ids=["learned", "naive", "fixed"],
)
def test_drawn_motions_have_the_predicted_mean_and_covariance(argv):
    options = tiny_options("--sample_vis_pose", *argv)
    count = 4000
    T = se3.exp(torch.tensor([0.1, 0.2, 0.9, 0.02, 0.3, -0.1]).double()).expand(count, 4, 4)
    uncertainty = torch.tensor([0.1, 0.2, 0.3, -0.3, -0.2, -0.1]).double().expand(count, 6)
    prediction = Prediction({}, {}, {-1: T, 1: T}, {-1: uncertainty, 1: uncertainty}, {}, {})
    drawn = sample_camera_motions(prediction, options)
    assert list(drawn) == [-1, 1]
    assert (drawn[-1] != drawn[1]).any()
    # As the filter reads it: rotation in the axes of the second image, translation of the first.
    turned = so3.log(T[:, :3, :3].mT @ drawn[-1][:, :3, :3], check=False)
    error = torch.cat([turned, (drawn[-1] - T)[:, :3, 3]], -1)
    expected = vision_covariance(uncertainty[0], preset(options.noise_preset), vision_form(options))
    std = expected.diagonal().sqrt()
    assert (error.mean(0).abs() < 5 * std / count**0.5).all()
    assert_close(torch.cov(error.T / std[:, None]), torch.eye(6).double(), atol=0.12, rtol=0)


@pytest.mark.parametrize("naive", [False, True])
def test_a_network_that_says_nothing_of_uncertainty_gets_finite_gradients(naive):
    options = tiny_options("--sample_vis_pose", *["--naive_vis_covar"] * naive)
    T = se3.exp(torch.randn(2, 6))
    silent = torch.zeros(2, 6, requires_grad=True)  # as of published weights without it
    drawn = sample_camera_motions(Prediction({}, {}, {1: T}, {1: silent}, {}, {}), options)
    drawn[1].sum().backward()
    assert silent.grad.isfinite().all()
    if naive:
        assert_close(drawn[1], T, atol=1e-5, rtol=1e-5)


FROM_CAMERA = "--velocity_source", "camera"
RECORDED = "--velocity_source", "recorded"


@pytest.mark.parametrize(("first", "last"), [(-1, 1), (-2, 2), (0, 3)])
def test_the_velocity_with_which_the_imu_follows_a_true_camera_is_the_true_one(first, last):
    window = drive_window(first, last, 4)
    seen = {k: window.T_first_second(k) for k in range(first, last + 1) if k != 0}
    velocity = fitted_velocity(window.imu, seen, window.gravity[0])
    assert_close(velocity, window.velocity[0], atol=2e-3, rtol=0)


def test_the_fitted_velocity_leaves_the_least_squares_of_position():
    window = drive_window(-2, 2, 3)
    seen = {
        k: window.T_first_second(k) @ se3.exp(0.1 * torch.randn(3, 6).double())
        for k in (-2, -1, 1, 2)
    }
    velocity = fitted_velocity(window.imu, seen, window.gravity[0]).requires_grad_()
    said = spread(window.imu, {0: velocity}, {0: window.gravity[0]})
    total = 0.0
    for source, T_felt in inertial_motions(window.imu, *said, list(seen)).items():
        places = [se3.inverse(T) if source < 0 else T for T in (T_felt, seen[source])]
        total = total + (places[0] - places[1])[:, :3, 3].square().sum()
    (slope,) = torch.autograd.grad(total, velocity)
    assert total > 1e-3 and slope.abs().max() < 1e-12


def test_the_fitted_velocity_teaches_the_camera_and_gravity():
    window = drive_window(-1, 1, 2)

    def fit(twist: Tensor, gravity: Tensor) -> Tensor:
        seen = {k: window.T_first_second(k) @ se3.exp(twist) for k in (-1, 1)}
        return fitted_velocity(window.imu, seen, gravity)

    twist = (0.01 * torch.randn(2, 6).double()).requires_grad_()
    assert torch.autograd.gradcheck(fit, (twist, window.gravity[0].clone().requires_grad_()))


@pytest.mark.parametrize(("first", "last"), [(-1, 1), (-2, 2)])
def test_from_the_camera_one_velocity_is_carried_through_the_window(first, last):
    window = drive_window(first, last, 4)
    options = options_of(first, last, *FROM_CAMERA)
    said = replace(prediction_of(window, options), velocity={})
    motion = fuse(window.imu, said, options, None)
    for source, T_first_second in motion.inertial.items():
        assert_close(T_first_second, window.T_first_second(source), **INTEGRATION)
    assert list(motion.velocity) == [-1, 0]
    for k, velocity in motion.velocity.items():
        assert_close(velocity, window.velocity[k], atol=2e-3, rtol=0)


def test_the_recorded_speed_goes_where_the_network_says():
    window = drive_window(-1, 1, 4)
    options = options_of(-1, 1, *RECORDED)
    speeds = {k: interval.speed for k, interval in window.imu.items()}
    slow = replace(
        prediction_of(window, options),
        velocity={k: 0.1 * velocity for k, velocity in window.velocity.items() if k in (-1, 0)},
    )
    motion = fuse(window.imu, slow, options, None)
    for k in (-1, 0):
        assert_close(motion.velocity[k].norm(dim=-1), speeds[k])
        aligned = torch.cosine_similarity(motion.velocity[k], slow.velocity[k], dim=-1)
        assert_close(aligned, torch.ones_like(aligned))


def test_a_car_that_stands_has_no_recorded_velocity_and_finite_gradients():
    window = drive_window(-1, 1, 2)
    options = options_of(-1, 1, *RECORDED)
    imu = {k: x._replace(speed=torch.zeros_like(x.speed)) for k, x in window.imu.items()}
    velocity = {k: torch.zeros(2, 3, dtype=torch.float64, requires_grad=True) for k in (-1, 0)}
    said = replace(prediction_of(window, options), velocity=velocity)
    motion = fuse(imu, said, options, None)
    assert all((found == 0).all() for found in motion.velocity.values())
    sum(T.sum() for T in motion.used.values()).backward()
    assert all(leaf.grad.isfinite().all() for leaf in velocity.values())


def test_a_recorded_speed_holds_against_a_camera_in_another_scale():
    window = drive_window(-1, 1, 4)
    away = {}
    for source in ("network", "recorded"):
        words = ("--use_ekf", "--noise_preset", "calibrated", "--velocity_source", source)
        options = options_of(-1, 1, *words)
        said = prediction_of(window, options)
        speeds = {k: v.norm(dim=-1) for k, v in window.velocity.items()}
        imu = {k: x._replace(speed=speeds[k]) for k, x in window.imu.items()}
        doubled = {k: T.clone() for k, T in said.T_first_second.items()}
        for T in doubled.values():
            T[:, :3, 3] *= 2
        certain = {k: torch.full_like(u, -2) for k, u in said.uncertainty.items()}
        said = replace(said, T_first_second=doubled, uncertainty=certain)
        motion = fuse(imu, said, options, build_filter(options))
        true = torch.stack([window.T_first_second(k)[:, :3, 3] for k in motion.used])
        used = torch.stack([T[:, :3, 3] for T in motion.used.values()])
        away[source] = (used - true).norm(dim=-1) / true.norm(dim=-1)
    assert (away["network"] > 0.8).all()  # the camera is believed
    assert (away["recorded"] < 0.3).all()


def test_what_is_carried_to_the_target_is_what_the_imu_makes_of_the_image_before():
    window = drive_window(-1, 1, 4)
    options = options_of(-1, 1)
    said = prediction_of(window, options)
    motion = fuse(window.imu, said, options, None)
    before = window.imu[-1]
    velocity, _ = carry(before.preintegrated, before.T_c_b, said.velocity[-1], said.gravity[-1])
    assert torch.equal(motion.carried, velocity)
    assert_close(motion.carried, window.velocity[0], atol=2e-3, rtol=0)
    window, later = drive_window(0, 1, 4), options_of(0, 1)
    assert fuse(window.imu, prediction_of(window, later), later, None).carried is None
