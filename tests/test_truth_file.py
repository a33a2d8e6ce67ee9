"""True depths in one file: they come back as they were, one by one, and nothing is run."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
from torch.utils.data import DataLoader

from datasets.text import DataError
from evaluation.truth_file import TruthFile, write_truth
from utils import UserError

KIND = "scans"
LINES = ["drive_a 3 l", "drive_a 10 r", "drive_b 3 l"]


@pytest.fixture
def depths():
    generator = np.random.default_rng(0)
    shapes = [(4, 7), (3, 9), (5, 2)]
    return [generator.uniform(0, 80, shape).astype(np.float32) for shape in shapes]


@pytest.fixture
def path(tmp_path, depths):
    write_truth(tmp_path / "gt_depths.npz", LINES, depths, KIND)
    return tmp_path / "gt_depths.npz"


def test_each_depth_comes_back_with_its_size_in_whatever_order_names_are_asked(path, depths):
    for order in ([0, 1, 2], [2, 0], [1, 1]):
        file = TruthFile(path, [LINES[i] for i in order], KIND)
        for place, i in enumerate(order):
            assert file.has(place)
            assert np.array_equal(file.depth(place), depths[i])
            assert file.depth(place).dtype == np.float32


def test_numpy_reads_the_file_too_without_pickles(path, depths):
    with np.load(path, allow_pickle=False) as archive:
        assert archive["lines"].tolist() == LINES
        assert np.array_equal(archive["000001"], depths[1])


def test_depths_are_taken_one_at_a_time(tmp_path):
    alive = []

    def depths():
        for i in range(3):
            alive.append(i)
            yield np.full((2, 2), i, np.float64)

    taken = depths()
    write_truth(tmp_path / "a.npz", LINES, taken, KIND)
    assert alive == [0, 1, 2]
    assert TruthFile(tmp_path / "a.npz", LINES, KIND).depth(2).max() == 2


def test_several_processes_read_it_without_disturbing_each_other(path, depths):
    file = TruthFile(path, LINES, KIND)
    file.depth(0)  # opened here, before the processes begin

    class Reading:
        def __len__(self):
            return 60

        def __getitem__(self, i):
            return np.array_equal(file.depth(i % 3), depths[i % 3])

    assert all(x for x in DataLoader(Reading(), batch_size=None, num_workers=2))
    assert np.array_equal(pickle.loads(pickle.dumps(file)).depth(1), depths[1])


def test_a_name_without_depth_is_told_and_only_a_file_of_another_list_is_refused(path):
    file = TruthFile(path, ["drive_c 1 l", LINES[2]], KIND)
    assert (file.has(0), file.has(1)) == (False, True)
    with pytest.raises(UserError, match=r"has 3 true depths, but none of these 1 images"):
        TruthFile(path, ["drive_c 1 l"], KIND)


def test_a_write_that_fails_leaves_what_was_there(path, depths):
    def failing():
        yield depths[0]
        raise DataError("a scan is broken")

    before = path.read_bytes()
    with pytest.raises(DataError):
        write_truth(path, LINES, failing(), KIND)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


class Trap:
    """An object whose unpickling would be noticed."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_the_published_kind_of_file_is_refused_and_nothing_in_it_is_run(tmp_path):
    path = tmp_path / "gt_depths.npz"
    np.savez(path, data=np.array([Trap(), Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="holds pickled objects.*export_gt_depth.py"):
        TruthFile(path, LINES, KIND)


def test_pickles_behind_our_names_are_not_run_either(path):
    lines = io.BytesIO()
    np.lib.format.write_array(lines, np.array(LINES))
    kind = io.BytesIO()
    np.lib.format.write_array(kind, np.array(KIND))
    trap = io.BytesIO()
    np.lib.format.write_array(trap, np.array([[Trap()]], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("lines.npy", lines.getvalue())
        archive.writestr("kind.npy", kind.getvalue())
        for i in range(3):
            archive.writestr(f"{i:06d}.npy", trap.getvalue())
    with pytest.raises(DataError, match="entry 000001 cannot be read"):
        TruthFile(path, LINES, KIND).depth(1)


def damage(path, kind):
    content = path.read_bytes()
    if kind == "no archive":
        path.write_bytes(b"no archive")
    elif kind == "cut off":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "of others":
        np.savez(path, other=np.zeros(3))
    elif kind == "a depth too few":
        np.savez(path, kind=KIND, lines=np.array(LINES), **{"000000": np.zeros((1, 1), np.float32)})
    else:
        path.unlink()


@pytest.mark.parametrize(
    "kind, message",
    [
        ("no archive", "not an archive of true depths"),
        ("cut off", "not an archive of true depths"),
        ("of others", "no true depths of ours: make it anew"),
        ("a depth too few", "damaged, 1 depths of 3 lines"),
        ("missing", "no such file; make it with export_gt_depth.py"),
    ],
)
def test_a_file_of_another_kind_is_named(kind, message, path):
    damage(path, kind)
    with pytest.raises(UserError, match=message) as error:
        TruthFile(path, LINES, KIND)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "entry", [np.zeros(3, np.float32), np.zeros((2, 2)), np.full((1, 1), np.nan, np.float32)]
)
def test_an_entry_that_is_no_depth_map_is_named(entry, tmp_path):
    path = tmp_path / "gt.npz"
    np.savez(path, kind=KIND, lines=np.array(LINES[:1]), **{"000000": entry})
    with pytest.raises(DataError, match="entry 000000 is no depth map"):
        TruthFile(path, LINES[:1], KIND).depth(0)


def test_another_kind_of_truth_is_refused_whatever_its_lines(path):
    with pytest.raises(UserError, match="its truth is 'scans', but 'depth maps' is asked for"):
        TruthFile(path, LINES, "depth maps")


def test_no_bit_that_flips_ends_in_anything_but_a_line(path):
    """Damage within a depth is found by its checksum, or it is in what nobody reads."""
    content, generator = path.read_bytes(), np.random.default_rng(0)
    named = 0
    for at in generator.integers(0, len(content), 150).tolist():
        damaged = bytearray(content)
        damaged[at] ^= 1 << generator.integers(8)
        path.write_bytes(damaged)
        try:
            file = TruthFile(path, LINES, KIND)
            for i in range(3):
                if file.has(i):
                    file.depth(i)
        except UserError as error:
            named += 1
            assert str(path) in str(error)
    assert named > 30
