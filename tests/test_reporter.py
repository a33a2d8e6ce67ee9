"""What a training says: each step once in the files, however it ended; one process, one bar."""

from __future__ import annotations

import io
import json
import logging
import math
import mmap
import struct
import sys

import cv2
import numpy as np
import pytest
import torch
from tensorboardX.proto.event_pb2 import Event

from training import reporter
from training.reporter import METRICS_FILE, MetricsFile, Pace, Reporter, memory_gb


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(reporter.time, "perf_counter", clock)
    return clock


def open_terminal(monkeypatch) -> Terminal:
    """Put a terminal in place of stderr. (In a fixture, pytest would take it away again.)"""
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


def lines(folder):
    return [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]


def events(folder):
    """Yield the events of a folder, of all its files in the order of their making."""
    for path in sorted(folder.iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)  # then 4 bytes of check sum
            event = Event()
            event.ParseFromString(data[place + 12 : place + 12 + length])
            yield event
            place += 12 + length + 4


def curves(folder):
    return [
        (value.tag, event.step, value.simple_value)
        for event in events(folder)
        for value in event.summary.value
        if value.HasField("simple_value")
    ]


def run(folder, steps, first_step=0, **kinds):
    with Reporter(folder, 10, 4, first_step, **kinds) as said:
        for step in steps:
            said.step(step, 1 / step, 4)
            said.scalars("train", step, {"loss": 1 / step})


# metrics.jsonl


def test_a_line_says_what_was_given_and_when(tmp_path):
    values = {"loss/total": 0.25, "größe": torch.tensor(3.0)}
    with Reporter(tmp_path / "new" / "run", 10, 4) as said:
        said.scalars("train", 2, values, epoch=1)
        first, *others = lines(tmp_path / "new" / "run")  # there at once, not only at the end
        assert not others
        said.scalars("val", 3, {"abs_rel": 1e-30})
    assert list(first) == ["part", "step", "epoch", "time", "loss/total", "größe"]
    assert (first["part"], first["step"], first["epoch"]) == ("train", 2, 1)
    assert (first["loss/total"], first["größe"]) == (0.25, 3.0)
    assert abs(first["time"] - reporter.time.time()) < 60
    second = lines(tmp_path / "new" / "run")[1]
    assert (second["part"], second["abs_rel"]) == ("val", 1e-30) and "epoch" not in second


def test_what_is_no_number_is_null_and_the_file_stays_json(tmp_path):
    with Reporter(tmp_path, 10, 4) as said:
        said.scalars("train", 1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.0})
    text = (tmp_path / METRICS_FILE).read_text()
    line = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert [line[name] for name in "abcd"] == [None, None, None, 0.0]
    shown = {tag: value for tag, _, value in curves(tmp_path / "train")}
    assert math.isnan(shown["a"]) and shown["b"] == math.inf


@pytest.mark.parametrize("name", ["part", "step", "epoch", "time"])
def test_a_value_may_not_have_the_name_of_a_lines_own(tmp_path, name):
    with Reporter(tmp_path, 10, 4) as said, pytest.raises(ValueError, match=name):
        said.scalars("train", 1, {name: 1.0})


@pytest.mark.parametrize("killed_after", range(1, 9))
@pytest.mark.parametrize("checkpoint", [1, 3, 8])
def test_a_resumed_run_has_every_step_once_wherever_it_was_killed(
    tmp_path, killed_after, checkpoint
):
    checkpoint = min(checkpoint, killed_after)
    run(tmp_path, range(1, killed_after + 1))
    kept = lines(tmp_path)[:checkpoint]
    run(tmp_path, range(checkpoint + 1, 11), first_step=checkpoint)
    assert [line["step"] for line in lines(tmp_path)] == [*range(1, 11)]
    assert lines(tmp_path)[:checkpoint] == kept


def test_what_a_run_of_the_same_name_left_is_no_part_of_a_new_one(tmp_path):
    run(tmp_path, range(1, 6))
    with Reporter(tmp_path, 10, 4) as said:
        said.scalars("val", 0, {"abs_rel": 1.0})
    with Reporter(tmp_path, 10, 4) as said:
        said.scalars("val", 0, {"abs_rel": 2.0})
    assert [(line["step"], line["abs_rel"]) for line in lines(tmp_path)] == [(0, 2.0)]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_was_not_ended_is_dropped_and_the_next_one_is_whole(tmp_path, caplog, cut):
    run(tmp_path, range(1, 5))
    path = tmp_path / METRICS_FILE
    path.write_bytes(path.read_bytes()[:-cut])  # without its end, a whole line is none either
    run(tmp_path, [5], first_step=4)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 5]
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{path}: dropped what is no whole line of it: 1"
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == [METRICS_FILE, "train", "val"]


@pytest.mark.parametrize("rubbish", [b"[1]\n", b"\n", b"{}\n", b'{"step": "2"}\n', b"\xff\n"])
def test_rubbish_in_between_is_dropped_too(tmp_path, rubbish):
    run(tmp_path, [1, 2])
    path = tmp_path / METRICS_FILE
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + rubbish + second)
    MetricsFile(tmp_path, 2).__exit__()
    assert path.read_bytes() == first + second


def test_a_file_that_is_right_is_not_written_again(tmp_path):
    run(tmp_path, [1, 2])
    inode = (tmp_path / METRICS_FILE).stat().st_ino
    run(tmp_path, [3], first_step=2)
    assert (tmp_path / METRICS_FILE).stat().st_ino == inode


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    class Full(io.RawIOBase):
        def write(self, _):
            raise OSError(28, "No space left on device")

    metrics = MetricsFile(tmp_path, 0)
    metrics.__exit__()
    metrics._file = Full()
    with pytest.raises(OSError, match=METRICS_FILE) as error:
        metrics.add("train", 1, {}, None)
    assert error.value.errno == 28


# TensorBoard


def test_curves_are_in_the_folders_of_their_parts(tmp_path):
    with Reporter(tmp_path, 10, 4) as said:
        said.scalars("train", 1, {"loss": 0.5, "scale": 2.0})
        said.scalars("val", 7, {"loss": 0.25})
    assert curves(tmp_path / "train") == [("loss", 1, 0.5), ("scale", 1, 2.0)]
    assert curves(tmp_path / "val") == [("loss", 7, 0.25)]


@pytest.mark.parametrize("first_step, purged_from", [(0, 0), (4, 5)])
def test_tensorboard_is_told_what_no_longer_holds(tmp_path, first_step, purged_from):
    run(tmp_path, [first_step + 1], first_step)
    for part in ("train", "val"):
        starts = [e.step for e in events(tmp_path / part) if e.HasField("session_log")]
        assert starts == [purged_from]


def test_pictures_are_shown_as_they_are(tmp_path):
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    with Reporter(tmp_path, 10, 4) as said:
        said.images("val", 3, {"disparity": image})
    (shown,) = [v for e in events(tmp_path / "val") for v in e.summary.value]
    encoded = np.frombuffer(shown.image.encoded_image_string, np.uint8)
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]
    assert shown.tag == "disparity"
    np.testing.assert_array_equal(decoded.transpose(2, 0, 1), image.numpy())


@pytest.mark.parametrize("image", [torch.rand(3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8)])
def test_what_is_no_picture_is_refused(tmp_path, image):
    with Reporter(tmp_path, 10, 4) as said, pytest.raises(ValueError, match="mask: expected"):
        said.images("train", 1, {"mask": image})


def test_an_unknown_part_is_refused(tmp_path):
    with Reporter(tmp_path, 10, 4) as said:
        for call in (said.scalars, said.images):
            with pytest.raises(ValueError, match="expected train or val, got 'test'"):
                call("test", 1, {})


# Processes, terminals and logs


def test_other_processes_write_nothing(tmp_path, monkeypatch, caplog, clock):
    terminal = open_terminal(monkeypatch)
    with caplog.at_level(logging.INFO), Reporter(tmp_path / "run", 10, 4, main=False) as said:
        for step in (1, 2):
            clock.now += 1
            said.step(step, 0.5, 4)
        said.scalars("train", 2, {"loss": 0.5})
        said.images("train", 2, {"image": torch.zeros(3, 2, 2, dtype=torch.uint8)})
        assert said.throughput() == 4.0
    assert not (tmp_path / "run").exists() and terminal.getvalue() == "" and not caplog.records


def test_a_bar_shows_how_far_how_fast_and_how_long_yet(tmp_path, monkeypatch, caplog, clock):
    terminal = open_terminal(monkeypatch)
    with caplog.at_level(logging.INFO), Reporter(tmp_path, 1000, 8, first_step=100) as said:
        for step in (101, 102, 103):
            clock.now += 2.0
            said.step(step, 0.125, 8)
        shown = terminal.getvalue().split("\r")[-1]
        said.scalars("train", 103, {"loss": 0.125})
    assert "103/1000" in shown and "10%" in shown
    assert "loss 0.1250, 4.0 examples/s, 29:54 left" in shown  # 897 steps of 2 s
    assert "GB" in shown
    assert not [r for r in caplog.records if r.name == reporter.__name__]


def test_a_bar_is_not_drawn_for_every_step_but_for_the_last(tmp_path, monkeypatch, clock):
    terminal = open_terminal(monkeypatch)
    with Reporter(tmp_path, 1000, 8) as said:
        for step in range(1, 1001):
            clock.now += 0.01
            said.step(step, 1.0, 8)
    drawn = terminal.getvalue().count("\r")
    assert 20 <= drawn <= 30 and "1000/1000" in terminal.getvalue()


def test_a_stopped_training_leaves_a_bar_that_says_where(tmp_path, monkeypatch, clock):
    terminal = open_terminal(monkeypatch)
    said = Reporter(tmp_path, 1000, 8)
    for step in (1, 2, 3):
        said.step(step, 1.0, 8)  # within one drawing
    said.close()
    said.close()
    assert " 3/1000" in terminal.getvalue().split("\r")[-1]


def test_a_warning_does_not_cut_the_bar(tmp_path, monkeypatch, clock):
    terminal = open_terminal(monkeypatch)
    handler, root = logging.StreamHandler(terminal), logging.getLogger()
    root.addHandler(handler)
    try:
        with Reporter(tmp_path, 1000, 8) as said:
            said.step(1, 1.0, 8)
            logging.getLogger("datasets").warning("left out: image")
            assert handler not in root.handlers
        assert handler in root.handlers
    finally:
        root.removeHandler(handler)
    assert "left out: image\n" in terminal.getvalue().replace("\r", "\n")


def test_where_there_is_no_terminal_each_report_is_one_line(tmp_path, monkeypatch, caplog, clock):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO), Reporter(tmp_path, 100, 4) as said:
        said.step(1, 0.5, 4)
        said.scalars("train", 1, {"loss": 0.5})
        clock.now += 2.0
        said.step(2, 0.5, 4)
        said.scalars("train", 2, {"loss": 0.5})
        said.scalars("val", 2, {"abs_rel": 0.12345, "a1": 0.9})
    first, second, third = (r.getMessage() for r in caplog.records if r.name == reporter.__name__)
    assert first.startswith("step 1 of 100: loss 0.5000, ") and "left" not in first
    assert second.startswith("step 2 of 100: loss 0.5000, 2.0 examples/s, 03:16 left")
    assert third == "step 2 of 100, val: abs_rel 0.1235, a1 0.9"
    assert sys.stderr.getvalue() == ""


def test_where_there_is_no_terminal_a_minute_does_not_pass_without_a_line(
    tmp_path, monkeypatch, caplog, clock
):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    for main, lines in ((True, ["step 4 of 100", "step 8 of 100"]), (False, [])):
        with caplog.at_level(logging.INFO), Reporter(tmp_path / str(main), 100, 4, 0, main) as said:
            for step in range(1, 10):
                clock.now += 15.0
                said.step(step, 0.5, 4)
        found = [r.getMessage() for r in caplog.records if r.name == reporter.__name__]
        assert [line.partition(":")[0] for line in found] == lines
        caplog.clear()


# Pace


def test_the_speed_is_that_of_the_last_steps(clock):
    pace = Pace(1000, 8, 0)
    assert math.isnan(pace.speed) and math.isnan(pace.left_s) and math.isnan(pace.loss)
    clock.now += 60  # the first step builds and warms what the others find
    pace.step(1, 1.0, 8)
    assert math.isnan(pace.speed)
    for step in range(2, 100):
        clock.now += 1 if step < 40 else 0.5
        pace.step(step, 1.0, 8)
    assert pace.speed == pytest.approx(16)
    assert pace.left_s == pytest.approx((1000 - 99) * 0.5)


def test_time_left_counts_whole_steps_whatever_the_last_ones_had(clock):
    pace = Pace(10, 8, 0)
    for step, examples in ((1, 8), (2, 4)):  # a batch that is not full
        clock.now += 1
        pace.step(step, 1.0, examples)
    assert pace.speed == pytest.approx(4) and pace.left_s == pytest.approx(8 * 8 / 4)


def test_a_training_that_stands_still_has_no_end(clock):
    pace = Pace(10, 8, 0)
    for step in (1, 2):
        clock.now += 1
        pace.step(step, 1.0, 0)
    assert pace.left_s == math.inf and "left" not in pace.text()


def test_the_throughput_is_that_since_the_last_question(clock):
    pace = Pace(10, 8, 0)
    for seconds, examples in ((4, 8), (2, 16), (1, 0)):
        clock.now += seconds
        pace.step(1, 1.0, examples)
        assert pace.throughput() == pytest.approx(examples / seconds)


def test_the_loss_that_is_shown_lies_among_the_last_ones_and_forgets(clock):
    pace = Pace(1000, 8, 0)
    for step in range(1, 101):
        pace.step(step, 3.0, 8)
        assert pace.loss == pytest.approx(3.0)  # from the first step on
    pace.step(101, math.nan, 8)
    pace.step(102, math.inf, 8)
    assert pace.loss == pytest.approx(3.0)
    for step in range(103, 700):
        pace.step(step, 1.0, 8)
        assert 1 < pace.loss < 3
    assert pace.loss == pytest.approx(1.0, abs=1e-4)


def test_memory_is_that_of_this_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    before = memory_gb()
    if before is None:
        pytest.skip("this system does not say")
    # Memory of its own: what others have freed in this process would not count as new.
    with mmap.mmap(-1, 200_000_000) as kept:
        for _ in range(200):
            kept.write(b"1" * 1_000_000)
        assert 0.15 < memory_gb() - before < 0.25


def test_with_cuda_memory_is_the_most_that_was_in_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3_500_000_000)
    assert memory_gb() == 3.5


def test_a_system_that_does_not_say_is_no_error(monkeypatch):
    def missing(_):
        raise FileNotFoundError

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(reporter.Path, "read_bytes", missing)
    assert memory_gb() is None
    assert Pace(1, 1, 0).text() == "loss nan"
