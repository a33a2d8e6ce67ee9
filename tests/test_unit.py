"""The unit of the networks from the IMU: which images are asked, and what becomes of the answer."""

from types import SimpleNamespace

import pytest
import torch

from datasets.batch import Sample
from ekf.alignment import Alignment
from tests.samples import make_interval
from tests.test_alignment import INTERVALS, make_segments
from tests.training_runs import make_data, make_trainer, states, use_small_networks
from training import unit
from training.prediction import Prediction
from training.unit import LONGEST, SHORTEST, applied, segments, spread_out
from utils import UserError


class Lines:
    """A dataset that has names alone."""

    def __init__(self, *runs):
        self.lines = [f"{drive} {frame} {side}" for drive, frames, side in runs for frame in frames]

    def __len__(self):
        return len(self.lines)

    def line(self, place):
        return self.lines[place]


def frames_of(dataset):
    """Return what each segment shows: drive, side, first and last frame."""
    found = []
    for run in segments(dataset):
        names = [dataset.line(place).split() for place in run]
        assert len({(drive, side) for drive, _, side in names}) == 1
        frames = [int(frame) for _, frame, _ in names]
        assert frames == list(range(frames[0], frames[-1] + 1))
        found.append((names[0][0], names[0][2], frames[0], frames[-1]))
    return sorted(found)


def test_a_segment_is_of_one_camera_of_one_drive():
    lines = Lines(("a", range(1, 5), "l"), ("a", range(1, 5), "r"), ("b", range(5, 9), "l"))
    assert frames_of(lines) == [("a", "l", 1, 4), ("a", "r", 1, 4), ("b", "l", 5, 8)]


def test_lines_in_any_order_are_put_in_a_row_and_a_gap_ends_it():
    assert frames_of(Lines(("a", [9, 2, 1, 3, 7, 8, 11], "l"))) == [
        ("a", "l", 1, 3),
        ("a", "l", 7, 9),
        ("a", "l", 11, 11),
    ]


def test_long_drives_are_cut():
    found = frames_of(Lines(("a", range(2 * LONGEST + 5), "l")))
    lengths = [last - first + 1 for _, _, first, last in found]
    assert lengths == [LONGEST, LONGEST, 5]


def test_short_segments_are_left_out_and_many_are_thinned():
    runs = [list(range(length)) for length in (SHORTEST - 1, SHORTEST, 2 * SHORTEST)]
    assert list(spread_out(iter(runs), 10**6)) == runs[1:]
    many = [list(range(SHORTEST)) for _ in range(50)]
    chosen = list(spread_out(iter(many), 10 * SHORTEST))
    assert 5 <= len(chosen) <= 10
    assert list(spread_out(iter([]), 10)) == []


@pytest.mark.parametrize(
    ("scale", "relative_std", "factor"),
    [
        (1.1, 0.05, 1.1),
        (0.9, 0.05, 0.9),
        (7.0, 0.05, unit.LARGEST_STEP),
        (0.01, 0.05, 1 / unit.LARGEST_STEP),
        (1.1, unit.SURE, 1.0),
        (1.1, float("inf"), 1.0),
        (1.1, float("nan"), 1.0),
        (float("nan"), float("inf"), 1.0),
    ],
)
def test_what_is_sure_is_applied_and_not_too_much_at_once(scale, relative_std, factor):
    assert applied(Alignment(scale, relative_std, 4)) == factor


class Drives(Lines):
    """Simulated drives: a sample of each interval, whose image says which one it is."""

    def __init__(self, segments):
        super().__init__(*((f"drive{i}", range(INTERVALS), "l") for i in range(len(segments))))
        self.segments = segments

    def __getitem__(self, place):
        segment, k = self.segments[place // INTERVALS], place % INTERVALS
        motion = {name: value[k].float() for name, value in vars(segment.imu).items()}
        interval = make_interval(1)
        interval = interval._replace(
            **{name: getattr(interval, name)[0] for name in ("dt", "gyro", "accel", "speed")},
            T_c_b=segment.T_c_b.float(),
            **motion,
        )
        return Sample(
            image={frame: torch.zeros(3, 64, 64, dtype=torch.uint8) for frame in (0, 1)},
            K=torch.eye(3),
            imu={0: interval},
            T_source_c0={},
            depth={},
            index=torch.tensor(place),
            skipped=torch.tensor(0),
        )


@pytest.mark.parametrize("unit_m", [1.0, 2.5])
def test_networks_that_see_the_truth_in_another_unit_get_its_metres(monkeypatch, unit_m):
    torch.manual_seed(0)
    dataset = Drives(make_segments(count=3, unit_m=unit_m))

    def see(models, batch, options, motion_only):
        assert motion_only and options.frame_ids == [0, 1] and not step.training
        T = torch.eye(4).repeat(len(batch.index), 1, 1)
        for row, place in enumerate(batch.index.tolist()):
            segment = dataset.segments[place // INTERVALS]
            T[row, :3, 3] = segment.translation[place % INTERVALS]
        return Prediction({}, {}, {1: T}, {}, {}, {})

    monkeypatch.setattr(unit, "predict", see)
    step = torch.nn.Module()
    step.options, step.models = SimpleNamespace(frame_ids=[0, -1, 1]), None
    found = unit.alignment(step, SimpleNamespace(dataset=dataset), torch.device("cpu"))
    assert found.scale == pytest.approx(unit_m, rel=5e-3) and found.segments == 3
    assert step.training and step.options.frame_ids == [0, -1, 1]


def test_to_ask_changes_neither_networks_nor_random_numbers(tmp_path, monkeypatch):
    use_small_networks(monkeypatch)
    monkeypatch.setattr(unit, "SHORTEST", 2)
    trainer = make_trainer(make_data(tmp_path / "data"), tmp_path / "runs", "--align_steps 1")
    trainer.step.train()
    before, drawn = states(trainer), torch.get_rng_state()
    unit.alignment(trainer.step, trainer.training, torch.device("cpu"))
    after = states(trainer)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(module.training for module in trainer.step.modules())


def test_the_mode_is_restored_after_an_error_too(monkeypatch):
    torch.manual_seed(0)
    step = torch.nn.Module()
    step.options, step.models = SimpleNamespace(frame_ids=[0, -1, 1]), None
    part = SimpleNamespace(dataset=Drives(make_segments(count=1)))

    def fail(*_, motion_only):
        raise RuntimeError("cannot see")

    monkeypatch.setattr(unit, "predict", fail)
    with pytest.raises(RuntimeError, match="cannot see"):
        unit.alignment(step, part, torch.device("cpu"))
    assert step.training


def test_lists_without_images_in_a_row_are_refused():
    unit.check_segments(Lines(("a", range(SHORTEST), "l"), ("b", range(SHORTEST), "l")))
    scattered = Lines(("a", range(0, 200, 2), "l"), ("b", range(SHORTEST), "l"))
    with pytest.raises(UserError, match="2 stretches of 30 images in a row.* has 1"):
        unit.check_segments(scattered)
