"""The table of IMU intervals, against preintegrating the packets of each interval by itself."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from datasets import imu_table
from datasets.imu_table import GRAVITY, ImuTable
from datasets.matched import MatchedImu, Reason, offsets_of
from datasets.oxts import Packets, columns
from ekf.preintegration import preintegrate
from tests.kitti_tree import START_NS, packets

DRIVES = [[11, 0, 12, 11], [3, 2, 0], [0, 0], [2, 40, 11, 11, 11]]  # packets of each interval
T_C_B = torch.eye(4)
ONE_ROUNDING = {"rtol": 2**-23, "atol": 1e-13}


def recorded(lengths, seed) -> MatchedImu:
    """Return intervals of so many packets, at uneven steps; of none is not valid."""
    steps_ns = np.random.default_rng(seed).integers(8_000_000, 12_000_000, sum(lengths))
    stamps_ns = START_NS + 10**9 * seed + np.cumsum(steps_ns)
    values = packets((stamps_ns - START_NS) / 1e9, seed)
    reasons = tuple(None if length else Reason.GAP for length in lengths)
    return MatchedImu(Packets(values, stamps_ns), offsets_of(lengths), reasons)


@pytest.fixture
def drives():
    return [recorded(lengths, seed) for seed, lengths in enumerate(DRIVES)]


def rows(table, drives):
    """Yield drive, number and table row of every interval."""
    for drive, first in zip(drives, table.first_row.tolist(), strict=True):
        for i in range(len(drive)):
            yield drive, i, table.interval(first + i, T_C_B)


def test_every_interval_is_what_its_packets_integrate_to(drives):
    table = ImuTable(drives)
    for drive, i, row in rows(table, drives):
        if not drive.valid[i]:
            continue
        own = drive.interval(i)
        dt = torch.from_numpy(np.diff(own.stamps_ns) / 1e9)
        gyro, accel = torch.from_numpy(own.gyro), torch.from_numpy(own.accel)
        motion = preintegrate(dt, gyro, accel)
        n = len(own)
        assert_close(row.position, motion.position.float(), **ONE_ROUNDING)
        assert_close(row.velocity, motion.velocity.float(), **ONE_ROUNDING)
        assert_close(row.duration, motion.duration.float(), **ONE_ROUNDING)
        assert_close(row.rotation[:n], motion.rotation.float(), **ONE_ROUNDING)
        assert torch.equal(row.dt[: n - 1], dt.float()) and torch.equal(row.gyro[:n], gyro.float())
        assert torch.equal(row.accel[:n], accel.float())
        assert row.speed == np.float32(own.speed[0])


def test_all_have_one_length_and_the_type_of_the_networks(drives):
    steps = 40 - 1  # of the longest interval of all drives
    for _, _, row in rows(ImuTable(drives), drives):
        assert all(column.dtype == torch.float32 for column in row)
        shapes = [tuple(column.shape) for column in row]
        samples = [(steps,), (steps + 1, 3), (steps + 1, 3), (steps + 1, 3, 3)]
        assert shapes == [*samples, (3,), (3,), (), (), (4, 4)]


def test_padding_lasts_no_time_and_stays_at_the_end_of_the_interval(drives):
    for drive, i, row in rows(ImuTable(drives), drives):
        n = int(np.diff(drive.offsets)[i])
        if n:
            assert not row.dt[n - 1 :].any()
            assert_close(row.rotation[n:], row.rotation[n - 1].expand_as(row.rotation[n:]))
            again = preintegrate(row.dt.double(), row.gyro.double(), row.accel.double())
            assert_close(again.position.float(), row.position, rtol=1e-5, atol=1e-8)


def test_an_interval_without_packets_is_finite_and_takes_no_time(drives):
    seen = 0
    for drive, i, row in rows(ImuTable(drives), drives):
        if not drive.valid[i]:
            seen += 1
            assert all(column.isfinite().all() for column in row)
            assert row.duration == 0 and not row.position.any() and not row.velocity.any()
            assert torch.equal(row.rotation, torch.eye(3).expand_as(row.rotation))
    assert seen == 4


def test_drives_follow_one_another(drives):
    assert ImuTable(drives).first_row.tolist() == [0, 4, 7, 9]
    assert ImuTable(drives[1:2]).first_row.tolist() == [0]


@pytest.mark.parametrize("block", [1, 3, 7, 13, 14])
def test_blocks_make_no_difference(drives, monkeypatch, block):
    whole = ImuTable(drives)
    monkeypatch.setattr(imu_table, "_BLOCK", block)
    in_blocks = ImuTable(drives)
    for (_, _, a), (_, _, b) in zip(rows(whole, drives), rows(in_blocks, drives), strict=True):
        for one, other in zip(a, b, strict=True):
            assert_close(one, other, **ONE_ROUNDING)
    with pytest.raises(IndexError):
        in_blocks.interval(14, T_C_B)


def test_extrinsics_are_those_of_the_camera(drives):
    table, T_c_b = ImuTable(drives), torch.randn(4, 4)
    assert table.interval(0, T_c_b).T_c_b is T_c_b


def test_more_drives_and_longer_ones_leave_an_interval_as_it_is(drives):
    alone, among = ImuTable(drives[:1]), ImuTable(drives)
    for i in range(4):
        a, b = alone.interval(i, T_C_B), among.interval(i, T_C_B)
        for name in ("position", "velocity", "duration", "speed"):
            assert_close(getattr(a, name), getattr(b, name), **ONE_ROUNDING)
        assert_close(a.rotation[-1], b.rotation[-1], **ONE_ROUNDING)


def with_values(drive, rows, names, values) -> MatchedImu:
    """Return the same drive with other values of these fields in these packets."""
    changed = drive.packets.values.copy()
    changed[np.ix_(rows, columns(*names))] = values
    packets = Packets(changed, drive.packets.stamps_ns)
    return MatchedImu(packets, drive.offsets, drive.reasons)


GYRO, ACCEL = ("wx", "wy", "wz"), ("ax", "ay", "az")


@pytest.mark.parametrize("clip", [0.5, 5.0])
def test_what_no_car_reaches_is_that_limit_before_it_is_integrated(drives, clip):
    wild, at_limit = drives[0], drives[0]
    for names, unit in ((GYRO, 1.0), (ACCEL, GRAVITY)):
        beyond = np.array([3, -1e6, 0.9]) * [clip, 1, clip] * unit  # one of them is not
        limited = np.array([clip, -clip, 0.9 * clip]) * unit
        wild = with_values(wild, [2, 15], names, beyond)
        at_limit = with_values(at_limit, [2, 15], names, limited)
    clipped = ImuTable([wild], clip)
    for (_, _, a), (_, _, b) in zip(
        rows(clipped, [wild]), rows(ImuTable([at_limit], clip), [at_limit]), strict=True
    ):
        assert all(torch.equal(one, other) for one, other in zip(a, b, strict=True))
    assert clipped.measured[1].abs().max() == np.float32(clip)
    assert clipped.measured[2].abs().max() == np.float32(clip * GRAVITY)


@pytest.mark.parametrize("clip", [50.0, math.inf])
def test_a_limit_that_nothing_reaches_changes_nothing(drives, caplog, clip):
    for (_, _, a), (_, _, b) in zip(
        rows(ImuTable(drives), drives), rows(ImuTable(drives, clip), drives), strict=True
    ):
        assert all(torch.equal(one, other) for one, other in zip(a, b, strict=True))
    assert not caplog.records


def test_how_many_packets_are_clipped_is_said_once(drives, caplog):
    several = with_values(drives[0], [3], GYRO, 6.0)
    several = with_values(several, [3, 4], ACCEL, -60.0)
    stamps_ns = drives[1].packets.stamps_ns.copy()
    stamps_ns[2] = stamps_ns[3]  # the end of one interval and the beginning of the next
    shared = MatchedImu(
        Packets(drives[1].packets.values, stamps_ns), drives[1].offsets, drives[1].reasons
    )
    shared = with_values(shared, [2, 3], GYRO, -6.0)
    with caplog.at_level(logging.WARNING):
        ImuTable([several, shared, *drives[2:]], 5.0)
    (record,) = caplog.records
    assert record.getMessage() == (
        "3 IMU packets are beyond 49.05 m/s^2 or 5 rad/s and were clipped: --k_imu_clip"
    )


def test_what_was_measured_is_what_the_intervals_have(drives):
    table = ImuTable(drives)
    for row, (_, _, interval) in enumerate(rows(table, drives)):
        expected = interval.dt, interval.gyro, interval.accel, interval.speed
        for column, one in zip(table.measured, expected, strict=True):
            assert torch.equal(column[row], one)
