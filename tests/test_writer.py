"""A set of drives: made whole or not at all, split, described, and refused if there is one."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import match_kitti_imu
import options
from datasets.drives import Drive
from datasets.matched import read_matched
from datasets.synthetic import writer
from datasets.synthetic.recording import DATE
from datasets.synthetic.writer import (
    SyntheticOptions,
    frame_blocks,
    parse_size,
    split_lines,
    tidy,
    write_synthetic_kitti,
)
from datasets.text import DataError, read_lines
from tests.plane_world import stand_in

TOP = {DATE, "splits", "README.txt", "contact_sheet.png"}


@pytest.fixture
def plane_world(monkeypatch):
    stand_in(monkeypatch)


def settings(out, **changes):
    small = {"drives": 2, "frames": 5, "size": (48, 16), "workers": 1}
    return SyntheticOptions(out, **{**small, **changes})


def tree(folder):
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drives": 0}, "drives: expected a number from 1 to 9999, got 0"),
        ({"frames": 2}, "frames: expected a number from 3 to 100000, got 2"),
        ({"seed": -1}, "seed: expected a number from 0 to 9223372036854775807, got -1"),
        ({"moving_cars": -1}, "moving_cars: expected a number from 0 to 100, got -1"),
        ({"imu_noise": float("nan")}, "imu_noise: expected a number from 0 to 100, got nan"),
        ({"illumination": -0.1}, "illumination: expected a number from 0 to 3, got -0.1"),
        ({"size": (8, 100)}, "size: expected sides from 16 to 8192 pixels, got 8x100"),
        ({"format": "gif"}, "format: expected one of png, jpg, got 'gif'"),
        ({"workers": 0}, "workers: expected at least 1, got 0"),
        ({"faults": True, "frames": 16}, "faults: expected at least 17 frames, got 16"),
    ],
)
def test_options_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(DataError) as refused:
        settings(Path("out"), **changes)
    assert str(refused.value) == message


def test_a_size_is_width_and_height():
    assert parse_size("1242x375") == (1242, 375)
    wrong = ("1242", "1242x", "x375", "1242x375x3", "-12x40", "12.5x40", "a" * 99, "")
    for text in (*wrong, "123456x375", "9" * 5000 + "x9"):
        with pytest.raises(DataError, match="size: expected WIDTHxHEIGHT like 1242x375, got"):
            parse_size(text)


def test_the_command_says_all_that_decides_about_the_bytes():
    changes = {"drives": 7, "frames": 33, "size": (50, 40), "seed": 5, "moving_cars": 2}
    changes |= {"imu_noise": 1 / 3, "illumination": 2 / 7, "faults": True, "format": "jpg"}
    made = SyntheticOptions(Path("FOLDER"), **changes)
    args = options.make_synthetic_kitti(shlex.split(made.command)[2:])
    again = SyntheticOptions(**{**vars(args), "size": parse_size(args.size)})
    assert again == made
    assert set(changes) == set(vars(made)) - {"out", "overwrite", "workers"}


@given(st.integers(1, 30), st.integers(3, 500), st.integers(1, 30))
def test_blocks_cover_each_frame_once_and_are_as_long_as_workers_allow(drives, frames, workers):
    blocks = frame_blocks(drives, frames, workers)
    covered = [frame for first, end in blocks for frame in range(first, end)]
    assert covered == list(range(frames)) and all(first < end for first, end in blocks)
    assert len(blocks) * drives >= min(workers, frames)
    assert len(blocks) == 1 or drives < workers


@given(st.integers(1, 12), st.integers(3, 300))
def test_splits_share_no_image(drives, frames):
    made = [Drive(DATE, f"{n:04d}") for n in range(1, drives + 1)]
    used = {}
    for split, lines in split_lines(made, frames).items():
        assert len(set(lines)) == len(lines)
        images = set()
        for line in lines:
            folder, frame, side = line.split()
            assert side in "lr" and 1 <= int(frame) <= frames - 2
            images |= {(folder, int(frame) + step) for step in (-1, 0, 1)}
        used[split] = images
    assert not used["test"] & (used["train"] | used["val"])
    assert used["train"]
    assert not used["val"] & used["train"]
    assert bool(used["val"]) == (frames >= 6)


def test_whole_drives_at_the_end_are_for_tests():
    for drives, held_out in ((1, 0), (2, 1), (4, 1), (9, 1), (10, 2), (20, 4)):
        made = [Drive(DATE, f"{n:04d}") for n in range(1, drives + 1)]
        lines = split_lines(made, 120)
        tested = sorted({line.split()[0] for line in lines["test"]})
        assert tested == [f"{DATE}/{drive}_sync" for drive in made[drives - held_out :]]
        assert len(lines["test"]) == 2 * 118 * held_out
        assert len(lines["val"]) == 2 * 12 * (drives - held_out)
        assert len(lines["train"]) == 2 * (118 - 12 - 5) * (drives - held_out)
    assert split_lines(made, 120)["train"][:2] == [
        f"{DATE}/{DATE}_drive_0001_sync 1 l",
        f"{DATE}/{DATE}_drive_0001_sync 1 r",
    ]


@pytest.mark.usefixtures("plane_world")
class TestWriting:
    def test_all_is_there_and_nothing_else(self, tmp_path):
        progress = []
        made = write_synthetic_kitti(settings(tmp_path / "new" / "out"), progress.append)
        out = tmp_path / "new" / "out"
        assert names(out) == TOP
        drives = {f"{DATE}_drive_000{n}_{kind}" for n in (1, 2) for kind in ("sync", "extract")}
        files = {f"calib_{name}.txt" for name in ("cam_to_cam", "velo_to_cam", "imu_to_velo")}
        assert names(out / DATE) == drives | files
        assert sum(progress) == 10
        assert made.metres >= 0
        for split, count in made.split_lines.items():
            assert len(read_lines(out / "splits" / f"{split}_files.txt")) == count
        assert made.split_lines == {"train": 6, "val": 0, "test": 6}
        readme = (out / "README.txt").read_text()
        assert settings(out).command in readme and str(tmp_path) not in readme
        lines = [line for line in readme.splitlines() if "python" not in line]
        assert len(lines) > 20 and max(map(len, lines)) <= 100
        sheet = cv2.imread(str(out / "contact_sheet.png"))
        assert sheet.shape[1] == 1600

    def test_the_same_seed_makes_the_same_bytes_and_another_does_not(self, tmp_path):
        first, again, other = (tmp_path / name for name in ("a", "b", "c"))
        for out, seed in ((first, 4), (again, 4), (other, 5)):
            write_synthetic_kitti(settings(out, seed=seed))
        assert tree(first) == tree(again)
        poses = f"{DATE}/{DATE}_drive_0001_sync/truth/imu_bias.txt"
        assert tree(first)[poses] != tree(other)[poses]

    def test_drives_differ(self, tmp_path):
        write_synthetic_kitti(settings(tmp_path))
        one, two = (tmp_path / DATE / f"{DATE}_drive_000{n}_sync" for n in (1, 2))
        same = [name for name, data in tree(one).items() if tree(two).get(name) == data]
        expected = {"oxts/dataformat.txt"} | {
            f"truth/moving/image_02/{i:010d}.png" for i in range(5)
        }
        assert set(same) <= expected | {name for name in same if name.endswith(".png")}
        assert "truth/imu_bias.txt" not in same and "oxts/timestamps.txt" not in same

    @pytest.mark.parametrize(
        ("there", "file"),
        [
            (DATE, f"{DATE}/x"),
            ("README.txt", "README.txt"),
            ("contact_sheet.png", "contact_sheet.png"),
            ("splits/val_files.txt", "splits/val_files.txt"),
        ],
    )
    def test_what_is_there_is_not_replaced_unasked(self, tmp_path, there, file):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("mine")
        with pytest.raises(DataError, match=f"{there}: is there already; --overwrite replaces"):
            write_synthetic_kitti(settings(tmp_path))
        assert tree(tmp_path) == {file: b"mine"}
        assert names(tmp_path) == {there.split("/")[0]}

    @pytest.mark.parametrize("overwrite", [False, True])
    @pytest.mark.parametrize("name", [DATE, "splits", "README.txt", "splits/test_files.txt"])
    def test_another_kind_of_file_in_the_way_is_found_first(
        self, tmp_path, monkeypatch, name, overwrite
    ):
        monkeypatch.setattr(writer, "_make", None)
        path = tmp_path / name
        if name.endswith(".txt"):
            path.mkdir(parents=True)
        else:
            path.symlink_to("nowhere")
        before = set(tmp_path.rglob("*"))
        with pytest.raises(DataError, match=f"{name}: is in the way, expected a f.* or nothing$"):
            write_synthetic_kitti(settings(tmp_path, overwrite=overwrite))
        assert set(tmp_path.rglob("*")) == before

    def test_two_runs_do_not_share_a_folder(self, tmp_path):
        refused = []

        def second_run(frames):
            if not refused:
                with pytest.raises(DataError) as error:
                    write_synthetic_kitti(settings(tmp_path / "out", overwrite=True))
                refused.append(str(error.value))

        write_synthetic_kitti(settings(tmp_path / "out"), second_run)
        assert refused == [f"{tmp_path / 'out'}: another run is writing here"]
        write_synthetic_kitti(settings(tmp_path / "alone"))
        assert tree(tmp_path / "out") == tree(tmp_path / "alone")
        assert names(tmp_path / "out") == TOP

    def test_a_run_that_fails_leaves_no_folder_behind(self, tmp_path, monkeypatch):
        def fail(*arguments):
            raise OSError("disk full")

        monkeypatch.setattr(writer, "write_calibration", fail)
        with pytest.raises(OSError, match="disk full"):
            write_synthetic_kitti(settings(tmp_path / "new" / "out"))
        assert not list(tmp_path.iterdir())

    def test_progress_survives_that_its_tally_is_gone(self, tmp_path):
        reported = []
        with writer._followed(tmp_path / "tally", reported.append):
            (tmp_path / "tally").unlink()
        assert sum(reported) == 0

    def test_real_drives_and_splits_beside_stay(self, tmp_path):
        beside = {"2011_09_26/x.txt": b"real", "splits/mine.txt": b"mine"}
        for name, data in beside.items():
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_bytes(data)
        write_synthetic_kitti(settings(tmp_path))
        write_synthetic_kitti(settings(tmp_path, overwrite=True))
        assert {name: tree(tmp_path)[name] for name in beside} == beside

    def test_overwriting_replaces_every_drive(self, tmp_path):
        write_synthetic_kitti(settings(tmp_path / "a"))
        write_synthetic_kitti(settings(tmp_path / "b", drives=3, frames=6, seed=9))
        write_synthetic_kitti(settings(tmp_path / "b", overwrite=True))
        assert tree(tmp_path / "a") == tree(tmp_path / "b")
        assert names(tmp_path / "b") == TOP

    def test_a_run_that_fails_leaves_what_was_there(self, tmp_path, monkeypatch):
        write_synthetic_kitti(settings(tmp_path))
        before = tree(tmp_path)

        def fail(*arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(writer, "contact_sheet", fail)
        with pytest.raises(KeyboardInterrupt):
            write_synthetic_kitti(settings(tmp_path, seed=2, overwrite=True))
        assert tree(tmp_path) == before and names(tmp_path) == TOP

    def test_what_a_killed_run_left_is_cleared(self, tmp_path):
        (tmp_path / writer._NEW / DATE).mkdir(parents=True)
        (tmp_path / writer._NEW / DATE / "half").write_text("x")
        write_synthetic_kitti(settings(tmp_path))
        assert names(tmp_path) == TOP

    @pytest.mark.parametrize("moves", range(5))
    def test_a_run_killed_while_it_moves_its_files_is_completed(self, tmp_path, monkeypatch, moves):
        new, old = settings(tmp_path / "b", seed=2, overwrite=True), settings(tmp_path / "b")
        write_synthetic_kitti(replace(new, out=tmp_path / "a"))
        write_synthetic_kitti(old)
        done = []

        def stop_after(act):
            def stopping(self, target):
                if self.name != writer._NEW:
                    if len(done) == moves:
                        raise SystemExit
                    done.append(target)
                return act(self, target)

            return stopping

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", stop_after(Path.rename))
            patched.setattr(Path, "replace", stop_after(Path.replace))
            with pytest.raises(SystemExit):
                write_synthetic_kitti(new)
        tidy(tmp_path / "b")
        assert tree(tmp_path / "a") == tree(tmp_path / "b")
        assert names(tmp_path / "b") == TOP

    def test_a_file_in_the_way_is_named(self, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(DataError, match="file: not a folder"):
            write_synthetic_kitti(settings(tmp_path / "file"))

    def test_every_interval_can_be_matched(self, tmp_path):
        write_synthetic_kitti(settings(tmp_path, frames=40))
        assert match_all(tmp_path) == [[], []]

    def test_with_faults_exactly_the_planted_ones_cannot(self, tmp_path):
        write_synthetic_kitti(settings(tmp_path, frames=40, faults=True))
        planted = []
        for report in sorted(tmp_path.rglob("faults.json")):
            planted.append(json.loads(report.read_text())["invalid_intervals"])
        assert [len(intervals) for intervals in planted] == [8, 8]
        assert match_all(tmp_path) == planted


def match_all(out):
    """Match all drives and return the invalid intervals of each."""
    assert match_kitti_imu.main(["--raw_path", str(out), "--sync_path", str(out)]) == 0
    matched = [read_matched(path) for path in sorted((out / DATE).glob("*_sync"))]
    return [np.flatnonzero(~imu.valid).tolist() for imu in matched]
