"""Laws of the three trajectories: perfect sensors give the truth, certainty decides between two."""

from __future__ import annotations

import math
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from benchmarks.simulation import disturb
from datasets.oxts import FIELDS, Packets
from ekf.filter import EKFModel
from evaluation.drive_frames import Wanted, open_drive
from evaluation.odometry import (
    CAMERA,
    ESTIMATES,
    FILTER,
    IMU,
    errors_of,
    estimate,
    filter_of,
    find_start,
    reckon,
    recorded_start,
)
from evaluation.pose_chain import SeenMotion, chain
from evaluation.weights import Weights
from liegroups import se3, so3
from losses import GRAVITY
from metrics import snippet_errors
from tests.odometry_drives import (
    DRIVE,
    SIZE,
    drive_in,
    exact_simulation,
    record,
    seen_in,
    true_start,
)
from utils import UserError

DOUBLE = torch.float64


def calibrated():
    return EKFModel("calibrated").requires_grad_(False).double()


def away_m(T_c0_ck, truth):
    """Return the largest distance from the truth, both counted from the first image."""
    truth = np.linalg.inv(truth.T_w_c[0]) @ truth.T_w_c
    return np.linalg.norm((T_c0_ck - truth)[:, :3, 3], axis=1).max()


def test_perfect_sensors_give_the_truth_three_times():
    s = exact_simulation(80)
    drive = drive_in(s)
    found = estimate(drive, seen_in(s), calibrated())
    assert list(found.T_c0_ck) == list(ESTIMATES) and not found.absent
    way_m = s.T_c0_c1[:, :3, 3].norm(dim=-1).sum()
    assert way_m > 30
    assert away_m(found.T_c0_ck[CAMERA], drive.truth) < 1e-9
    for name in (IMU, FILTER):
        assert away_m(found.T_c0_ck[name], drive.truth) < 0.02
    errors = errors_of(found.T_c0_ck[CAMERA], drive.truth)
    assert errors.aligned["unaligned"].ate_m < 1e-9 and errors.snippet_m < 1e-9
    assert "networks" in found.start.source


def camera_that_errs(s, size=0.02):
    noise = size * torch.randn(len(s.T_c0_c1), 6, dtype=DOUBLE)
    return disturb(s.T_c0_c1, noise)


def test_a_camera_that_is_sure_is_followed_and_one_that_is_not_is_not_heard():
    s = exact_simulation()
    T_seen = camera_that_errs(s)
    one = torch.eye(6, dtype=DOUBLE).expand(len(T_seen), 6, 6)
    tracks = {
        variance: reckon(calibrated(), s.imu, T_seen, variance * one, s.T_c_b, true_start(s))
        for variance in (1e-15, 1e12)
    }
    alone, sure = tracks[1e-15].T_c0_ck
    _, unsure = tracks[1e12].T_c0_ck
    assert_close(sure, chain(T_seen), atol=1e-4, rtol=0)
    assert_close(unsure, alone, atol=1e-6, rtol=0)
    assert (alone - sure)[:, :3, 3].norm(dim=-1).max() > 0.05
    for track in tracks.values():
        assert track.nis[0].isnan().all() and track.nis[1].isfinite().all()


def test_certainty_is_what_the_networks_say_in_the_form_of_their_training():
    s = exact_simulation()
    seen = seen_in(s, camera_that_errs(s))
    fused = {}
    for said in (1e-8, 1e8):
        model = EKFModel("calibrated", "naive").requires_grad_(False).double()
        unsure = replace(seen, uncertainty=torch.full_like(seen.uncertainty, said))
        fused[said] = estimate(drive_in(s), unsure, model).T_c0_ck
    assert np.abs(fused[1e-8][FILTER] - fused[1e-8][CAMERA]).max() < 1e-4
    assert np.abs(fused[1e8][FILTER] - fused[1e8][IMU]).max() < 1e-4
    fixed = EKFModel("calibrated", "fixed").requires_grad_(False).double()
    same = [
        estimate(drive_in(s), replace(seen, uncertainty=seen.uncertainty + x), fixed).T_c0_ck[
            FILTER
        ]
        for x in (0.0, 3.0)
    ]
    assert np.array_equal(*same)


def test_holes_of_the_imu_are_bridged():
    s = exact_simulation()
    valid = s.imu.valid.clone()
    valid[20:24] = False
    imu = replace(s.imu, valid=valid, dt=s.imu.dt.masked_fill(~valid[:, None], torch.nan))
    drive = drive_in(s, imu=imu)
    found = estimate(drive, seen_in(s), calibrated())
    alone = torch.from_numpy(found.T_c0_ck[IMU])
    steps = se3.inverse(alone[:-1]) @ alone[1:]
    for k in range(20, 24):  # at the velocity that it had, without turning
        assert_close(steps[k, :3, :3], torch.eye(3, dtype=DOUBLE), atol=1e-9, rtol=0)
        assert_close(steps[k, :3, 3], steps[20, :3, 3], atol=1e-9, rtol=0)
    assert 0.2 < steps[20, :3, 3].norm() < 2
    away = {name: away_m(found.T_c0_ck[name], drive.truth) for name in ESTIMATES}
    assert away[FILTER] < away[IMU] / 5 < 1


def packet_of(**values):
    return Packets(np.array([[values.get(name, 0.0) for name in FIELDS]]), np.zeros(1, np.int64))


@pytest.mark.parametrize("rpy", [(0, 0, 0), (0.05, -0.1, 2.0), (0.3, 0.2, -1.0)])
def test_a_recorded_start_is_that_of_the_body_in_the_world(rpy):
    R_w_b = so3.from_rpy(torch.tensor(rpy, dtype=DOUBLE))
    s = exact_simulation(2)
    # East and north from forward and left: those are along the ground.
    forward, left, up = 8.0, -0.5, 0.2
    yaw = rpy[2]
    velocity_w = torch.tensor(
        [
            forward * math.cos(yaw) - left * math.sin(yaw),
            forward * math.sin(yaw) + left * math.cos(yaw),
            up,
        ],
        dtype=DOUBLE,
    )
    fields = dict(zip(("roll", "pitch", "yaw"), rpy, strict=True))
    packet = packet_of(vf=forward, vl=left, vu=up, **fields)
    start = recorded_start(packet, s.T_c_b)
    R_c_w = s.T_c_b[:3, :3] @ R_w_b.mT
    assert_close(start.velocity, R_c_w @ velocity_w)
    assert_close(start.gravity, R_c_w @ torch.tensor([0, 0, GRAVITY], dtype=DOUBLE))


@pytest.mark.parametrize("frames", [None, (10, 39)])
def test_a_recorded_drive_is_followed_by_an_exact_imu_within_centimetres(frames, tmp_path):
    record(tmp_path)
    drive = open_drive(Wanted(tmp_path, SIZE, frames), DRIVE)
    count = len(drive) - 1
    still = SeenMotion(
        torch.eye(4, dtype=DOUBLE).repeat(count, 1, 1),
        torch.full((count, 6), 9.0).double(),
        "-",
        "-",
    )
    found = estimate(drive, still, calibrated(), "recorded")
    steps_m = np.linalg.norm(np.diff(drive.truth.T_w_c[:, :3, 3], axis=0), axis=1)
    assert steps_m.sum() > 5
    assert away_m(found.T_c0_ck[IMU], drive.truth) < 0.03
    assert errors_of(found.T_c0_ck[IMU], drive.truth).aligned["unaligned"].step_deg < 0.01


def test_who_says_how_it_begins():
    s = exact_simulation(3)
    drive, seen = drive_in(s), seen_in(s)
    for asked in (None, "network"):
        start = find_start(drive, seen, asked)
        assert_close(start.velocity, s.velocity[0])
        assert_close(start.gravity, s.gravity[0])
    assert "OXTS" in find_start(drive, seen, "recorded").source
    silent = replace(seen, gravity="the weights have no gravity network")
    assert "no gravity network" in find_start(drive, silent, None)
    assert "--start recorded" in find_start(drive, silent, None)
    with pytest.raises(UserError, match="no gravity network; use --start recorded"):
        find_start(drive, silent, "network")
    assert "no OXTS packet" in find_start(replace(drive, first_packet=None), seen, "recorded")


def test_without_imu_or_start_the_camera_is_alone_and_it_is_said_why():
    s = exact_simulation(5)
    seen = seen_in(s)
    without = estimate(drive_in(s, imu="no matched_oxts"), seen, calibrated())
    assert list(without.T_c0_ck) == [CAMERA]
    assert without.absent == {IMU: "no matched_oxts", FILTER: "no matched_oxts"}
    silent = replace(seen, velocity="the weights have no velocity network")
    without = estimate(drive_in(s), silent, calibrated())
    assert list(without.T_c0_ck) == [CAMERA] and "velocity network" in without.absent[FILTER]
    assert without.start is None and math.isnan(without.nis)


def test_errors_are_of_the_images_whose_truth_is_known():
    s = exact_simulation(20)
    drive = drive_in(s)
    T = chain(s.T_c0_c1).numpy()
    spoilt = drive.truth.T_w_c.copy()
    spoilt[7] = np.eye(4) * 5
    truth = replace(drive.truth, T_w_c=spoilt, known=np.arange(21) != 7)
    assert errors_of(T, truth).aligned["7dof"].ate_m < 1e-9
    one = replace(truth, known=np.arange(21) == 3)
    errors = errors_of(T, one)
    assert math.isnan(errors.snippet_m) and math.isnan(errors.aligned["unaligned"].step_m)


@pytest.mark.parametrize("hole", [0, 1, 20])
def test_a_hole_in_the_truth_lengthens_no_step(hole):
    s = exact_simulation(40)
    truth = drive_in(s).truth
    longer = s.T_c0_c1.clone()
    longer[:, :3, 3] *= 1.03
    known = np.ones(41, bool)
    known[12 : 12 + hole] = False
    errors = errors_of(chain(longer).numpy(), replace(truth, known=known))
    steps_m = s.T_c0_c1[:, :3, 3].norm(dim=-1).numpy()[known[:-1] & known[1:]]
    expected = 0.03 * math.sqrt((steps_m**2).mean())
    assert errors.aligned["unaligned"].step_m == pytest.approx(expected, rel=1e-6)
    noisy = chain(camera_that_errs(s)).numpy()
    snippets = snippet_errors(truth.T_w_c, noisy)
    whole = [k for k in range(40) if known[k : k + 5].all()]  # the last three end with the drive
    assert len(whole) == (40 if hole == 0 else 36 - hole)
    errors = errors_of(noisy, replace(truth, known=known))
    assert errors.snippet_m == pytest.approx(snippets[whole].mean())
    assert errors.snippet_std_m == pytest.approx(snippets[whole].std())


def test_the_surprise_is_the_mean_of_the_filters_own():
    s = exact_simulation(30)
    drive, seen, model = drive_in(s), seen_in(s, camera_that_errs(s)), calibrated()
    covariance = model.vision_covariance(seen.uncertainty)
    track = reckon(model, s.imu, seen.T_c0_c1, covariance, s.T_c_b, true_start(s))
    assert track.nis[1].std() > 1e-3
    found = estimate(drive, seen, model)
    assert found.nis == pytest.approx(track.nis[1].mean().item())
    assert found.gyro_bias == pytest.approx(track.gyro_bias[1, -1].tolist())
    assert found.accel_bias == pytest.approx(track.accel_bias[1, -1].tolist())


def weights_with(**models):
    options = Namespace(noise_preset="calibrated", vis_covar_use_fixed=False, naive_vis_covar=True)
    return Weights(None, nn.ModuleDict(models), options, torch.device("cpu"))


def test_the_filter_is_that_of_the_weights_unless_told():
    learnt = EKFModel("published", "naive")
    learnt.init_covar_diag_sqrt.data.fill_(0.5)
    weights = weights_with(ekf_model=learnt)
    model = filter_of(weights)
    assert model.init_covar_diag_sqrt.dtype == DOUBLE and model is not learnt
    assert learnt.init_covar_diag_sqrt.dtype == torch.float32
    assert (model.init_covar_diag_sqrt == 0.5).all()
    told = filter_of(weights, "calibrated")
    assert_close(
        told.init_covar_diag_sqrt.float(), EKFModel("calibrated").init_covar_diag_sqrt.data
    )
    assert told.vision_form == "naive"
    none = filter_of(weights_with())
    assert_close(none.densities.float(), EKFModel("calibrated").densities)
    assert none.vision_form == "naive"


def test_inputs_are_left_unchanged():
    s = exact_simulation(6)
    drive, seen = drive_in(s), seen_in(s)
    before = [x.clone() for x in (*vars(s.imu).values(), seen.T_c0_c1, seen.uncertainty, s.T_c_b)]
    found = estimate(drive, seen, calibrated())
    errors_of(found.T_c0_ck[FILTER], drive.truth)
    after = (*vars(s.imu).values(), seen.T_c0_c1, seen.uncertainty, s.T_c_b)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
