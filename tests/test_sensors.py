"""Stamps, packets, scans and exposures: exact without noise, and with it as noisy as they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from datasets.oxts import FIELDS, Packets, format_packet, parse_packet, poses_w_b
from datasets.synthetic import sensors
from datasets.synthetic.trajectory import Motion, make_trajectory
from ekf.noise import preset
from liegroups import so3

FRAMES = 60
SOURCE = sensors.Source(seed=3, drive=2)
START_NS = 1_293_883_200 * 10**9
several_seeds = given(st.integers(0, 2**32))


@pytest.fixture(scope="module")
def clock():
    return sensors.make_clock(SOURCE, FRAMES, START_NS)


@pytest.fixture(scope="module")
def trajectory():
    return make_trajectory(SOURCE.world_seed(), sensors.duration_s(FRAMES))


@pytest.fixture(scope="module")
def motion(clock, trajectory):
    return trajectory.at(clock.seconds(clock.raw_ns))


@pytest.fixture(scope="module")
def exact(clock, motion):
    return sensors.record_oxts(SOURCE, clock, motion, errors(clock, 0.0))


def errors(clock, scale):
    return sensors.draw_imu_errors(SOURCE, len(clock.raw_ns), scale)


@several_seeds
def test_stamps_are_in_order_and_near_their_grids(seed):
    clock = sensors.make_clock(sensors.Source(seed, 1), FRAMES, START_NS)
    image_steps, raw_steps = np.diff(clock.image_ns), np.diff(clock.raw_ns)
    assert np.abs(image_steps - 103.1e6).max() <= 0.6e6
    assert np.abs(raw_steps - 10e6).max() <= 0.42e6
    assert START_NS < clock.image_ns[0] < START_NS + 1.001e9
    assert abs(clock.image_ns[0] - clock.zero_ns) <= 0.3e6


@several_seeds
def test_the_recording_begins_before_and_ends_after_the_images(seed):
    clock = sensors.make_clock(sensors.Source(seed, 1), FRAMES, START_NS)
    assert 0.099e9 < clock.image_ns[0] - clock.raw_ns[0] < 0.301e9
    assert 0.089e9 < clock.raw_ns[-1] - clock.image_ns[-1] < 0.301e9


@several_seeds
def test_twins_are_the_nearest_packets_and_11_or_12_lie_in_each_interval(seed):
    clock = sensors.make_clock(sensors.Source(seed, 1), FRAMES, START_NS)
    gaps = np.abs(clock.raw_ns[None] - clock.image_ns[:, None])
    assert_array_equal(gaps.argmin(1), clock.twins)
    assert gaps.min(1).max() < 5.3e6
    assert set(np.diff(clock.twins) + 1) <= {11, 12}


def test_cameras_and_oxts_stamps_differ_by_up_to_half_a_step(clock):
    late = (clock.raw_ns[clock.twins] - clock.image_ns) / 1e6
    assert late.min() < -3 and late.max() > 3


def test_streams_and_drives_do_not_share_random_numbers():
    sources = [sensors.Source(seed, drive) for seed in (0, 1) for drive in (1, 2)]
    draws = {source.rng(stream).random() for source in sources for stream in sensors.Stream}
    draws |= {SOURCE.rng(sensors.Stream.LIDAR, frame).random() for frame in range(3)}
    assert len(draws) == len(sources) * len(sensors.Stream) + 3
    assert len({source.world_seed() for source in sources}) == len(sources)


def test_positions_and_attitudes_are_read_back_exactly(clock, motion, exact):
    synced = poses_w_b(exact.select(clock.twins))
    truth = motion.T_w_b[clock.twins]
    truth[:, :3, 3] -= truth[0, :3, 3]
    assert_allclose(synced, truth, atol=1e-7)
    every = poses_w_b(exact, sensors.ORIGIN_LAT_LON_ALT)
    assert_allclose(every[clock.twins], truth, atol=1e-7)
    assert np.abs(exact["yaw"]).max() <= np.pi


@given(st.lists(st.tuples(*[st.floats(-5000, 5000)] * 3), min_size=1, max_size=5))
def test_mercator_is_undone_by_the_reader(offsets):
    offset_w = np.array([(0.0, 0.0, 0.0), *offsets])
    values = np.zeros((len(offset_w), len(FIELDS)))
    values[:, :3] = sensors.lat_lon_alt(offset_w)
    assert_array_equal(values[0, :3], sensors.ORIGIN_LAT_LON_ALT)
    packets = Packets(values, np.arange(len(values)))
    assert_allclose(poses_w_b(packets)[:, :3, 3], offset_w, atol=1e-8)


def test_velocities_are_those_of_the_motion(motion, exact):
    ve, vn, vu = motion.velocity_w.T
    assert_array_equal(exact.fields("ve", "vn", "vu"), np.column_stack([ve, vn, vu]))
    R_w_level = so3.from_rpy(torch.from_numpy(motion.rpy * [0, 0, 1])).numpy()
    level = exact.fields("vf", "vl", "vu")
    assert_allclose(np.einsum("nij,nj->ni", R_w_level, level), motion.velocity_w, atol=1e-13)


def test_a_body_that_slips_to_the_left_and_has_turned_more_than_once(clock):
    count, yaw = len(clock.raw_ns), np.pi / 2 + 2 * np.pi  # it looks north
    slipping = Motion(
        T_w_b=np.tile(np.eye(4), (count, 1, 1)),
        rpy=np.tile([0, 0, yaw], (count, 1)),
        velocity_w=np.tile([-3.0, 5.0, 0.5], (count, 1)),
        acceleration_w=np.zeros((count, 3)),
        rate_b=np.zeros((count, 3)),
    )
    packets = sensors.record_oxts(SOURCE, clock, slipping, errors(clock, 0.0))
    names = ("yaw", "ve", "vn", "vu", "vf", "vl")
    assert_allclose(packets.fields(*names)[0], [np.pi / 2, -3, 5, 0.5, 5, 3], atol=1e-14)


def test_an_accelerometer_without_noise_reads_motion_and_gravity(motion, exact):
    force_w = np.einsum("nij,nj->ni", motion.T_w_b[:, :3, :3], exact.accel)
    assert_allclose(force_w - [0, 0, 9.8087], motion.acceleration_w, atol=1e-12)
    assert_array_equal(exact.gyro, motion.rate_b)
    standing = np.abs(motion.acceleration_w).max(1) < 1e-3
    assert standing.any()
    assert_allclose(np.linalg.norm(exact.accel[standing], axis=1), 9.8087, atol=2e-3)


@pytest.mark.parametrize("letter", "aw")
def test_level_fields_are_the_body_s_turned_by_roll_and_pitch(letter, clock, motion):
    noisy = sensors.record_oxts(SOURCE, clock, motion, errors(clock, 1.0))
    body, level = (noisy.fields(*(letter + axis for axis in axes)) for axes in ("xyz", "flu"))
    R_level_b = so3.from_rpy(torch.from_numpy(motion.rpy * [1, 1, 0])).numpy()
    assert_allclose(level, np.einsum("nij,nj->ni", R_level_b, body), atol=1e-13)


def test_reception_is_good_and_varies(exact):
    assert set(exact["numsats"]) <= {8, 9, 10, 11}
    assert 0.01 < exact["pos_accuracy"].min() < exact["pos_accuracy"].max() < 0.4
    assert 0.005 < exact["vel_accuracy"].min() < exact["vel_accuracy"].max() < 0.1
    later = sensors.Clock(0, np.zeros(1), 10**9 * np.arange(600), np.zeros(1, np.int64))
    still = make_trajectory(0, 1.0).at(np.zeros(600))
    day = sensors.record_oxts(SOURCE, later, still, errors(later, 0.0))
    assert set(day["numsats"]) == {8, 9, 10, 11}
    for line in exact.lines[::50]:
        assert format_packet(parse_packet(line)) == line and line.split()[-3:] == ["6"] * 3


def test_no_noise_is_exact_and_noise_is_in_proportion(clock):
    none, one, two = (errors(clock, scale) for scale in (0.0, 1.0, 2.0))
    assert not none.bias.any() and not none.white.any()
    assert_allclose(two.bias, 2 * one.bias)
    assert_allclose(two.white, 2 * one.white)
    assert one.white.any() and one.bias.any()


def test_noise_is_only_in_rates_and_forces(clock, motion, exact):
    noisy = sensors.record_oxts(SOURCE, clock, motion, errors(clock, 1.0))
    changed = [name for name in FIELDS if (noisy[name] != exact[name]).any()]
    assert changed == "ax ay az af al au wx wy wz wf wl wu".split()
    drawn = errors(clock, 1.0)
    measured = np.column_stack([noisy.gyro - exact.gyro, noisy.accel - exact.accel])
    assert_allclose(measured, drawn.bias + drawn.white, atol=1e-14)


def test_noise_has_the_densities_of_the_calibrated_preset():
    noise, step_s, count = preset("calibrated"), 0.01, 20_000
    drawn = sensors.draw_imu_errors(SOURCE, count, 1.0)
    white = np.repeat([noise.gyro_density, noise.accel_density], 3) / step_s
    walk = np.repeat([noise.gyro_bias_density, noise.accel_bias_density], 3) * step_s
    assert_allclose(drawn.white.var(0), white, rtol=0.05)
    assert_allclose(np.diff(drawn.bias, axis=0).var(0), walk, rtol=0.05)
    first = [sensors.draw_imu_errors(sensors.Source(0, k), 1, 1.0).bias[0] for k in range(1000)]
    std = np.repeat([noise.gyro_bias_std, noise.accel_bias_std], 3)
    assert_allclose(np.std(first, 0), std, rtol=0.1)


def test_more_packets_do_not_change_the_noise_of_the_first():
    short, long = (sensors.draw_imu_errors(SOURCE, count, 1.0) for count in (50, 80))
    assert_array_equal(short.bias, long.bias[:50])


def test_a_wandering_function_has_mean_0_and_variance_1_and_is_smooth():
    time_s = np.linspace(0, 20_000, 200_001)
    values = sensors.Wander(np.random.default_rng(0), (1.5, 6.0)).at(time_s)
    assert abs(values.mean()) < 0.01 and abs(values.var() - 1) < 0.02
    steepest = np.abs(np.diff(values)).max() / 0.1
    assert steepest < np.sqrt(2 / 5) * 5 * 2 * np.pi / 1.5


def test_ranges_are_wrong_along_the_ray_by_a_centimetre():
    rng = np.random.default_rng(0)
    scan = np.concatenate([rng.normal(0, 20, (20_000, 3)), rng.random((20_000, 1))], 1)
    scan = scan.astype(np.float32)
    before = scan.copy()
    noisy = sensors.with_range_noise(rng, scan)
    assert_array_equal(scan, before)
    assert noisy.dtype == np.float32
    assert_array_equal(noisy[:, 3], scan[:, 3])
    distances = [np.linalg.norm(points[:, :3], axis=1) for points in (scan, noisy)]
    directions = [scan[:, :3] / distances[0][:, None], noisy[:, :3] / distances[1][:, None]]
    assert_allclose(directions[0], directions[1], atol=1e-6)
    assert_allclose(np.std(distances[1] - distances[0]), 0.01, rtol=0.03)


def test_beams_and_azimuths_are_those_of_the_real_scanner():
    degrees = np.rad2deg(sensors.BEAMS_RAD)
    assert len(degrees) == 64 and (np.diff(degrees) > 0).all()
    assert_allclose(degrees[[0, 31, 32, 63]], [-24.33, -8.83, -8.33, 2])
    azimuth = sensors.AZIMUTHS_RAD
    assert_allclose(np.diff(azimuth), 2 * np.pi / len(azimuth))
    assert abs(azimuth[0]) < np.pi and abs(azimuth[-1]) < np.pi


@pytest.fixture
def image():
    return np.random.default_rng(0).random((6, 8, 3), np.float32)


def test_constant_light_leaves_images_as_they_are(image):
    exposure = sensors.Exposure(SOURCE, 0.0)
    for camera in (2, 3):
        assert_array_equal(exposure.develop(image, camera, 1.7), np.rint(255 * image))


def test_changing_light_changes_them_the_same_way_every_time(image):
    before = image.copy()
    first, again = (sensors.Exposure(SOURCE, 1.0) for _ in range(2))
    developed = first.develop(image, 2, 0.3)
    first.develop(image, 3, 9.0)
    assert_array_equal(first.develop(image, 2, 0.3), developed)
    assert_array_equal(again.develop(image, 2, 0.3), developed)
    assert developed.dtype == np.uint8 and (developed != np.rint(255 * image)).any()
    assert_array_equal(image, before)


def test_light_is_multiplied_and_then_has_an_exponent(image):
    exposure, exponents = sensors.Exposure(SOURCE, 1.0), []
    for time_s in np.arange(0, 10, 0.5):
        gains = exposure.gains(2, time_s)
        gamma = exposure._factor(exposure._gamma, sensors.GAMMA_STD, time_s)
        expected = 255 * np.clip(image * gains, 0, 1) ** gamma
        assert_allclose(exposure.develop(image, 2, time_s), expected, atol=0.51)
        exponents.append(gamma)
    assert min(exponents) < 0.95 and max(exponents) > 1.05


def test_gains_wander_around_one_within_seconds_and_alike_in_both_cameras():
    exposure, time_s = sensors.Exposure(SOURCE, 1.0), np.arange(0, 2000, 0.1)
    left, right = (np.array([exposure.gains(camera, t) for t in time_s]) for camera in (2, 3))
    assert_allclose(left.mean(0), 1, atol=0.02)
    assert_allclose(np.log(left).std(0), np.hypot(0.25, 0.04), rtol=0.1)
    assert_allclose(left / right, 1, atol=0.2)
    assert 0.02 < np.log(left / right).std() < 0.06
    lag = 20  # two seconds
    assert np.abs(np.corrcoef(left[lag:, 0], left[:-lag, 0])[0, 1]) < 0.6
    weak = sensors.Exposure(SOURCE, 0.5)
    ratio = np.log([weak.gains(2, t)[1] for t in time_s]).std() / np.log(left[:, 1]).std()
    assert_allclose(ratio, 0.5, rtol=0.01)
