"""Reading lists of frames: ours, the customary variants, and broken ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import splits
from datasets.splits import ODOMETRY, RawRun, list_of, parts_of, read_split, split_folder
from datasets.text import DataError

ONE = "2011_09_26/2011_09_26_drive_0001_sync"
OTHER = "2011_10_03/2011_10_03_drive_0027_sync"


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "train_files.txt"
        path.write_bytes(text.encode())
        return path

    return write


def lines_of(split):
    sides = {2: "l", 3: "r"}
    columns = zip(split.drive, split.frame.tolist(), split.camera.tolist(), strict=True)
    return [(split.folders[drive], frame, sides[camera]) for drive, frame, camera in columns]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([ONE, OTHER, "09"]), st.integers(0, 10**10 - 1), st.sampled_from("lr")
        ),
        min_size=1,
        max_size=9,
    )
)
def test_what_is_in_the_lines_is_in_the_columns(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("split") / "x.txt"
    path.write_text("".join(f"{folder} {frame} {side}\n" for folder, frame, side in rows))
    split = read_split(path)
    assert lines_of(split) == rows and len(split) == len(rows)
    assert split.folders == tuple(dict.fromkeys(folder for folder, _, _ in rows))
    assert split.line.tolist() == [*range(1, len(rows) + 1)] and split.path == path
    kinds = [column.dtype for column in (split.drive, split.frame, split.camera, split.line)]
    assert kinds == [np.int32, np.int64, np.int8, np.int32]


def test_lists_of_others_read_as_they_are(written):
    split = read_split(written(f"\n{ONE} 0000000069 l\r\n\r\n  \n {OTHER}\t5  r \r\n{ONE} 0 l"))
    assert lines_of(split) == [(ONE, 69, "l"), (OTHER, 5, "r"), (ONE, 0, "l")]
    assert split.line.tolist() == [2, 5, 6]


def test_a_sequence_has_two_digits_however_it_is_written(written):
    split = read_split(written("9 5 l\n09 6 l\n10 0 l\n"))
    assert split.folders == ("09", "10") and split.drive.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    "line, message",
    [
        ("hello", "expected `folder frame side`, got 'hello'"),
        (f"{ONE} 5", "expected `folder frame side`, got '2011"),
        (f"{ONE} 5 l 1", "expected `folder frame side`, got '2011"),
        (f"{ONE} 5 m", "side: expected l or r, got 'm'"),
        (f"{ONE} 5 L", "side: expected l or r, got 'L'"),
        (f"{ONE} x l", "frame: expected a whole number of at most ten digits, got 'x'"),
        (f"{ONE} -1 l", "frame: expected a whole number of at most ten digits, got '-1'"),
        (f"{ONE} 5.0 l", "frame: expected a whole number"),
        (f"{ONE} ٥ l", "frame: expected a whole number"),
        (f"{ONE} 12345678901 l", "frame: expected a whole number"),
        (f"{ONE}\u00a0x\u00a0l", "frame: expected a whole number"),
    ],
)
def test_a_line_of_another_form_is_named(written, line, message):
    path = written(f"{ONE} 5 l\n\n{line}\n{ONE} 7 l\n")
    with pytest.raises(DataError) as error:
        read_split(path)
    assert str(error.value).startswith(f"{path}, line 3: {message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_list_without_lines_is_refused_unless_it_may_be(written, text):
    path = written(text)
    with pytest.raises(DataError, match=r"train_files\.txt: empty, expected lines"):
        read_split(path)
    split = read_split(path, may_be_empty=True)
    assert (len(split), split.folders, split.frame.dtype) == (0, (), np.int64)


def test_a_list_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x\.txt: no such file"):
        read_split(tmp_path / "x.txt")


def test_a_split_is_a_name_or_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "eigen").mkdir()
    assert split_folder("eigen_zhou") == splits.SPLITS / "eigen_zhou"
    assert split_folder("eigen") == splits.SPLITS / "eigen"  # a name before a folder
    assert split_folder("mine").samefile(tmp_path / "mine")
    assert split_folder(tmp_path / "eigen") == tmp_path / "eigen"
    names = "benchmark, eigen, eigen_benchmark, eigen_full, eigen_half, eigen_quater, "
    names += "eigen_three_quater, eigen_zhou, odom, test"
    for unknown in ("eigen_zho", "eigen_zhou/train_files.txt", "__pycache__"):
        with pytest.raises(DataError) as error:
            split_folder(unknown)
        expected = f"{unknown}: no such split, expected a folder or one of {names}"
        assert str(error.value) == expected


def test_the_parts_of_a_split_are_those_with_lines(tmp_path):
    with pytest.raises(DataError) as error:
        parts_of(tmp_path)
    names = "train_files.txt, val_files.txt, test_files.txt"
    assert str(error.value) == f"{tmp_path}: no lists of frames here, expected some of {names}"
    (tmp_path / "test_files.txt").write_text(f"{ONE} 5 l\n")
    (tmp_path / "val_files.txt").write_text("\n \n")
    (tmp_path / "test_files_09.txt").write_text(f"{ONE} 5 l\n")
    assert parts_of(tmp_path) == ["test"]
    (tmp_path / "train_files.txt").write_text(f"{ONE} 5 l\n")
    assert parts_of(tmp_path) == ["train", "test"]
    assert parts_of(split_folder("eigen_zhou")) == ["train", "val", "test"]


def test_every_list_of_ours_is_read():
    files = [*splits.SPLITS.glob("*/*_files*.txt")]
    assert len(files) == 28
    for file in files:
        split = read_split(file)
        assert len(split) == file.read_bytes().count(b"\n")


# Odometry


def test_sequences_are_as_long_as_the_odometry_benchmark_has_them():
    lengths = [4541, 1101, 4661, 801, 271, 2761, 1101, 1101, 4071, 1591, 1201]  # its poses
    assert [run.last - run.first + 1 for run in ODOMETRY.values()] == lengths
    assert [*ODOMETRY] == [f"{i:02d}" for i in range(11)]
    assert ODOMETRY["08"] == RawRun("2011_09_30_drive_0028", 1100, 5170)


def test_one_sequence_has_no_public_raw_drive():
    assert [name for name, run in ODOMETRY.items() if not run.public] == ["03"]


def test_eigen_zhou_trains_on_the_drives_of_six_sequences():
    folders = read_split(split_folder("eigen_zhou") / "train_files.txt").folders
    seen = {name for name, run in ODOMETRY.items() if any(run.drive in f for f in folders)}
    assert seen == {"01", "02", "06", "08", "09", "10"}


def test_the_list_of_a_part_is_in_the_splits_folder_and_a_file_is_itself(written, tmp_path):
    file = written(f"{ONE} 3 l\n")
    assert list_of("eigen", "test") == splits.SPLITS / "eigen" / "test_files.txt"
    assert list_of(tmp_path, "train") == file
    assert list_of(tmp_path, "val") == tmp_path / "val_files.txt"  # whether it is there or not
    assert list_of(file, "val") == file and list_of(str(file), "test") == file
    for nothing in ("", "eigen_zou", tmp_path / "other.txt"):
        with pytest.raises(DataError, match="split"):
            list_of(nothing, "train")
