"""The gyro against the recorded attitude: true ones agree, swapped or noisy ones do not."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from datasets.add_noise import Noise, draw
from datasets.attitude import MAX_RATE, MIN_TURNS, TURNING, check_attitude
from datasets.drives import Drive
from datasets.imu_matching import match
from datasets.matched import MatchedImu, Reason, offsets_of
from datasets.oxts import FIELDS, Packets, Recording, Stamps, columns
from datasets.synthetic import sensors
from datasets.synthetic.trajectory import make_trajectory
from options import NOISE_DEFAULTS

FILE = Path("drive") / "matched_oxts.txt"
GYRO = columns("wx", "wy", "wz")
SECONDS = 0.1
ADVICE = "a noisy variant, or another axis convention; --avoid_quat_check trains on it all the same"


@cache
def synthetic(drive: int, align: str = "camera", frames: int = 150) -> MatchedImu:
    """Return a drive on a street, with the noise of the real unit."""
    source = sensors.Source(7, drive)
    clock = sensors.make_clock(source, frames, 1_293_883_200 * 10**9)
    trajectory = make_trajectory(source.world_seed(), sensors.duration_s(frames))
    motion = trajectory.at(clock.seconds(clock.raw_ns))
    errors = sensors.draw_imu_errors(source, len(clock.raw_ns), 1.0)
    packets = sensors.record_oxts(source, clock, motion, errors)
    present = np.ones(len(packets), bool)
    raw = Recording(packets, np.arange(len(packets)), Stamps(clock.raw_ns, present), ())
    ends = clock.image_ns if align == "camera" else clock.raw_ns[clock.twins]
    return match(Stamps(ends, np.ones(frames, bool)), raw, align=align).imu


def with_gyro(imu: MatchedImu, change) -> MatchedImu:
    """Return the same with other rates (M, 3)."""
    values = imu.packets.values.copy()
    values[:, GYRO] = change(values[:, GYRO])
    return MatchedImu(Packets(values, imu.packets.stamps_ns), imu.offsets, imu.reasons)


def turning(rates, gyro=None, turned_for=None) -> MatchedImu:
    """Return intervals of 0.1 s with these rates (N, 3) of the attitude, constant in each.

    Args:
        rates: of the attitude [rad/s]
        gyro: (N, 3) what the gyro says, the same if not given
        turned_for: how many packets an interval has, 11 if not given
    """
    rates = np.asarray(rates, float)
    gyro = rates if gyro is None else np.asarray(gyro, float)
    count = turned_for or 11
    values = np.zeros((len(rates), count, len(FIELDS)))
    start = Rotation.from_euler("ZYX", [2.0, -0.1, 0.2])  # anywhere: only changes count
    for i, rate in enumerate(rates):
        for j in range(count):
            R_w_b = start * Rotation.from_rotvec(rate * SECONDS * j / (count - 1))
            values[i, j, columns("yaw", "pitch", "roll")] = R_w_b.as_euler("ZYX")
            values[i, j, GYRO] = gyro[i]
    step_ns = round(SECONDS * 1e9) // (count - 1)
    stamps_ns = np.arange(len(rates))[:, None] * 10**9 + np.arange(count) * step_ns
    packets = Packets(values.reshape(-1, len(FIELDS)), stamps_ns.ravel())
    return MatchedImu(packets, offsets_of([count] * len(rates)), (None,) * len(rates))


def fault(imu: MatchedImu) -> str:
    """Return what is wrong."""
    with pytest.raises(ValueError) as error:
        check_attitude(imu, FILE)
    message = str(error.value)
    assert message.startswith(f"{FILE}: gyro and recorded attitude disagree")
    assert message.endswith(f"): {ADVICE}") and "\n" not in message
    return message


@pytest.mark.parametrize("align", ["packet", "camera"])
@pytest.mark.parametrize("drive", range(4))
def test_drives_with_the_noise_of_the_real_unit_pass(drive, align):
    imu = synthetic(drive, align)
    assert imu.valid.all()
    assert check_attitude(imu, FILE) is None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("drive", range(2))
def test_the_noise_that_is_added_by_default_passes_and_ten_times_as_much_does_not(drive, seed):
    imu, name = synthetic(drive), Drive.parse("2011_09_26_drive_0001")

    def noisy(times):
        strengths = {"gyro": times * NOISE_DEFAULTS["gyro_noise"]}
        noise = Noise("gyro", strengths, NOISE_DEFAULTS["misalignment"], seed, "noisy.txt")
        E, n = draw(noise, name, "gyro", imu.packets.stamps_ns)
        return with_gyro(imu, lambda gyro: gyro + gyro @ E.T + n)

    assert check_attitude(noisy(1), FILE) is None
    assert " deg/s, more than 1.7 (" in fault(noisy(10))


OTHERS = {
    "x and z swapped": lambda gyro: gyro[:, [2, 1, 0]],
    "y and z swapped": lambda gyro: gyro[:, [0, 2, 1]],
    "camera's axes": lambda gyro: np.stack([-gyro[:, 1], -gyro[:, 2], gyro[:, 0]], 1),
    "forward right down": lambda gyro: gyro * [1, -1, -1],
    "inverse": lambda gyro: -gyro,
    "degrees": np.rad2deg,
    "none": lambda gyro: 0 * gyro,
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("drive", range(3))
def test_another_convention_is_noticed_on_every_drive_that_turns(drive, change):
    assert "disagree" in fault(with_gyro(synthetic(drive), change))


@pytest.mark.parametrize("axis", range(3))
def test_each_axis_is_looked_at_by_itself_and_named(axis):
    rates = np.zeros((40, 3))
    rates[::4, axis] = 2 * TURNING  # a quarter of the drive: the median over all is zero
    negated = np.where(np.arange(3) == axis, -rates, rates)
    assert check_attitude(turning(rates), FILE) is None
    message = fault(turning(rates, negated))
    assert f"disagree about {'xyz'[axis]} by 200 % of the turn, more than 50 % (" in message
    assert "(median of 10 intervals)" in message
    swapped = np.roll(rates, 1, 1)
    assert f"about {'xyz'[axis]} by 100 %" in fault(turning(rates, swapped))


def test_a_drive_that_hardly_turns_says_nothing_of_its_axes():
    rates = np.zeros((100, 3))
    rates[: MIN_TURNS - 1, 2] = 4 * TURNING
    rates[MIN_TURNS:, 2] = 0.2 * TURNING
    assert check_attitude(turning(rates, -rates), FILE) is None
    rates[:MIN_TURNS, 2] = 4 * TURNING
    fault(turning(rates, -rates))


@pytest.mark.parametrize("factor, passes", [(0.95, True), (1.05, False)])
def test_the_limit_is_on_the_rate_whatever_the_direction_and_the_attitude(factor, passes):
    generator = np.random.default_rng(0)
    rates = generator.normal(0, 0.3, (50, 3))
    direction = generator.normal(size=(50, 3))
    error = factor * MAX_RATE * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    turned = Rotation.from_rotvec(rates * SECONDS) * Rotation.from_rotvec(error * SECONDS)
    imu = turning(rates, turned.as_rotvec() / SECONDS)
    if passes:
        assert check_attitude(imu, FILE) is None
    else:
        degrees = re.search(r"by (\S+) deg/s", fault(imu))[1]
        assert float(degrees) == pytest.approx(np.rad2deg(1.05 * MAX_RATE), rel=0.05)


def test_a_few_broken_packets_do_not_condemn_a_drive():
    imu = synthetic(0)
    values = imu.packets.values.copy()
    values[:300, GYRO] = 100.0  # of about 1,700
    broken = MatchedImu(Packets(values, imu.packets.stamps_ns), imu.offsets, imu.reasons)
    assert check_attitude(broken, FILE) is None


def test_intervals_of_any_length_and_those_without_packets_do_not_matter():
    rates = np.random.default_rng(1).normal(0, 0.3, (20, 3))
    assert check_attitude(turning(rates, turned_for=2), FILE) is None
    imu = turning(rates).without(np.arange(20) % 3 == 0, Reason.TOO_LONG)
    assert check_attitude(imu, FILE) is None
    assert "(median of 13 intervals)" in fault(with_gyro(imu, lambda gyro: gyro + 1))


@pytest.mark.filterwarnings("error")
def test_a_drive_without_packets_passes():
    imu = turning(np.zeros((3, 3)))
    nothing = imu.without(np.ones(3, bool), Reason.TOO_LONG)
    assert check_attitude(nothing, FILE) is None
    assert check_attitude(turning(np.zeros((0, 3))), FILE) is None
