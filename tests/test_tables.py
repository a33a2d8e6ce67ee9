"""What is printed says all that matters; what is written is read back to the last bit."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from evaluation import tables
from evaluation.summary import summarise
from metrics import DEPTH_METRICS
from tests.depth_results import HOSTILE, make_result, same_error

NAN_RANGE = np.tile([0.1, 0.2, math.nan, math.nan], (12, 1))


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def line_of(text: str, begin: str, occurrence: int = 0) -> list[str]:
    """Return the words behind the beginning of a line."""
    lines = [line for line in text.splitlines() if line.startswith(begin)]
    return lines[occurrence].removeprefix(begin).split()


# For reading


@pytest.mark.parametrize("median_scaled", [False, True])
def test_both_rows_are_always_there(median_scaled):
    found = summarise(make_result(median_scaled=median_scaled))
    text = tables.text_table(found)
    assert line_of(text, "        ")[:7] == list(DEPTH_METRICS)
    for label, row in (("metric", found.unscaled), ("median-scaled", found.scaled)):
        assert line_of(text, label) == [f"{row.errors[name]:.3f}" for name in DEPTH_METRICS]
        assert line_of(text, label, 1) == [f"{value:.3f}" for value in row.by_distance]
    assert line_of(text, "errors asked for") == [("metric", "median-scaled")[median_scaled]]


def test_intervals_stand_beneath_their_means():
    found = summarise(make_result())
    lines = tables.text_table(found).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("median-scaled"))
    spans = found.scaled.intervals.values()
    assert lines[at + 1].split()[2:] == [f"{low:.3f}" for low, _ in spans]
    assert lines[at + 2].split()[1:] == [f"{high:.3f}" for _, high in spans]
    ends = {len(lines[at + k]) for k in (0, 1, 2)}
    assert len(ends) == 1  # columns are aligned


def test_all_facts_are_told():
    result = make_result((2, 1), facts={"weights": "some/where", "amp": "off"})
    text = tables.text_table(summarise(result))
    assert line_of(text, "protocol") == ["eigen"]
    assert "3 images of 2 drives, 1 left out" in text
    assert line_of(text, "weights") == ["some/where"] and line_of(text, "amp") == ["off"]
    assert "bootstrap over the 2 drives" in text


def test_the_scale_is_told():
    found = summarise(make_result(ratio=np.linspace(1, 1.22, 12)))
    text = tables.text_table(found)
    low, high = found.scale_interval
    assert f"median 1.110 (95% from {low:.3f} to {high:.3f})" in text
    assert f"spread {found.scale_spread:.3f}" in text


def test_of_one_drive_it_says_why_there_are_no_intervals():
    text = tables.text_table(summarise(make_result((1,))))
    assert "no intervals: all images are of one drive" in text
    assert "1 image of 1 drive," in text
    assert " from " not in text


def test_a_range_without_truth_has_a_dash_and_a_failed_prediction_a_nan():
    text = tables.text_table(summarise(make_result(by_distance=NAN_RANGE)))
    assert line_of(text, "metric", 1) == ["0.100", "0.200", "-", "-"]
    assert line_of(text, "images", 1) == ["12", "12", "0", "0"]
    errors, by_distance = same_error([0.1] * 11 + [math.nan]), NAN_RANGE.copy()
    by_distance[-1] = math.nan
    text = tables.text_table(summarise(make_result(unscaled=errors, by_distance=by_distance)))
    assert line_of(text, "metric") == ["nan"] * 7
    assert line_of(text, "metric", 1)[:2] == ["nan", "nan"]


@pytest.mark.parametrize("median_scaled", [False, True])
def test_the_row_for_a_paper_is_the_one_asked_for(median_scaled):
    errors = np.tile([0.10849, 0.7868, 4.7051, 0.195, 0.8694, 0.958, 0.981], (12, 1))
    kind = "scaled" if median_scaled else "unscaled"
    found = summarise(make_result(**{kind: errors}, median_scaled=median_scaled))
    expected = r"& 0.108 & 0.787 & 4.705 & 0.195 & 0.869 & 0.958 & 0.981 \\"
    assert tables.latex_row(found) == expected


# Histogram


def bars(text: str) -> list[tuple[float, float, int, int]]:
    """Return lower and upper edge, count and length of each bar."""
    found = re.findall(r"^ *([\d.]+) to ([\d.]+) *\| *(\d+) ?(#*)", text, re.MULTILINE)
    return [(float(low), float(high), int(count), len(bar)) for low, high, count, bar in found]


def test_bars_are_as_long_as_their_counts_and_edges_touch():
    ratio = np.random.default_rng(0).normal(1, 0.04, 400)
    found = bars(tables.text_histogram(ratio))
    assert sum(count for *_, count, _ in found) == 400
    most = max(count for *_, count, _ in found)
    assert all(length == math.ceil(50 * count / most) for *_, count, length in found)
    assert [high for _, high, *_ in found[:-1]] == [low for low, *_ in found[1:]]


def test_the_bin_of_the_median_is_marked():
    text = tables.text_histogram(np.linspace(0.9, 1.2, 101))
    marked = [line for line in text.splitlines() if "<" in line]
    assert len(marked) == 1 and marked[0].endswith("< median 1.050")
    ((low, high, *_),) = bars(marked[0])
    assert low <= 1.05 <= high


@pytest.mark.parametrize("ratio", [[1.0], [0.93] * 3, [2.0, 4.0], [1.0, 1.0, 50.0], [0.0]])
def test_a_histogram_of_few(ratio):
    text = tables.text_histogram(np.array(ratio))
    assert sum(count for *_, count, _ in bars(text)) == len(ratio)
    assert text.count("< median") == 1


def test_what_is_far_out_or_no_number_is_said_beneath():
    text = tables.text_histogram(np.array([*np.linspace(0.9, 1.1, 30), 99, math.nan]))
    assert text.splitlines()[-1].startswith("the last bin includes 1 above")
    assert text.endswith("1 in no bin, since they are not numbers")
    assert "< median" not in text
    assert sum(count for *_, count, _ in bars(text)) == 31


# Files


def test_json_has_every_number_to_the_last_bit(tmp_path):
    found = summarise(make_result(median_scaled=True), resamples=50, seed=3)
    tables.write_json(tmp_path / "r.json", found)
    read = read_json(tmp_path / "r.json")
    for kind in ("unscaled", "scaled"):
        row = getattr(found, kind)
        assert read[kind]["errors"] == row.errors
        assert {k: tuple(v) for k, v in read[kind]["intervals"].items()} == row.intervals
        assert tuple(read[kind]["abs_rel_by_distance"]) == row.by_distance
    assert read["scale_ratio"] == found.scale_ratio
    assert read["scale_spread"] == found.scale_spread
    assert tuple(read["scale_interval"]) == found.scale_interval
    assert (read["protocol"], read["images"], read["drives"]) == ("eigen", 12, 3)
    assert read["left_out"] == ["drive_9 7 l"] and read["median_scaled"] is True
    assert read["facts"] == found.facts
    assert read["distances_m"] == [0, 20, 40, 60, 80]
    assert read["images_by_distance"] == [12] * 4
    assert read["intervals"]["resamples"] == 50 and read["intervals"]["seed"] == 3


def test_json_stays_json_without_numbers_and_intervals(tmp_path):
    errors = same_error([0.1, math.nan, math.inf])
    result = make_result((3,), unscaled=errors, ratio=np.array([1, 2, math.nan]))
    tables.write_json(tmp_path / "r.json", summarise(result))
    read = read_json(tmp_path / "r.json")
    assert set(read["unscaled"]["errors"].values()) == {None}
    assert read["unscaled"]["intervals"] is None and read["scale_interval"] is None
    assert read["scale_ratio"] is None
    assert "one drive" in read["intervals"]["remark"]


def test_csv_has_two_rows_with_every_number_to_the_last_bit(tmp_path):
    found = summarise(make_result())
    tables.write_csv(tmp_path / "r.csv", found)
    rows = read_csv(tmp_path / "r.csv")
    assert [row["errors"] for row in rows] == ["metric", "median-scaled"]
    for read, row in zip(rows, (found.unscaled, found.scaled), strict=True):
        assert {name: float(read[name]) for name in DEPTH_METRICS} == row.errors
        for name, span in row.intervals.items():
            assert (float(read[f"{name}_low"]), float(read[f"{name}_high"])) == span
        names = [f"abs_rel_{low}_{low + 20}_m" for low in (0, 20, 40, 60)]
        assert tuple(float(read[name]) for name in names) == row.by_distance
        assert float(read["scale_ratio"]) == found.scale_ratio
        assert float(read["scale_spread"]) == found.scale_spread
        span = float(read["scale_ratio_low"]), float(read["scale_ratio_high"])
        assert span == found.scale_interval
        assert (read["protocol"], read["images"], read["drives"]) == ("eigen", "12", "3")


def test_csv_leaves_empty_what_is_not_known(tmp_path):
    by_distance = np.array([[0.1, math.nan, math.nan, math.nan]])
    tables.write_csv(tmp_path / "r.csv", summarise(make_result((1,), by_distance=by_distance)))
    (unscaled, _) = read_csv(tmp_path / "r.csv")
    assert unscaled["abs_rel_low"] == unscaled["scale_ratio_high"] == ""
    assert unscaled["abs_rel_20_40_m"] == "" and float(unscaled["abs_rel_0_20_m"]) == 0.1


def test_the_images_have_a_line_each_with_every_number_to_the_last_bit(tmp_path):
    result = make_result(by_distance=NAN_RANGE)
    tables.write_per_image(tmp_path / "i.csv", result)
    rows = read_csv(tmp_path / "i.csv")
    assert [row["name"] for row in rows] == list(result.names)
    assert [row["drive"] for row in rows] == list(result.drives)
    assert [float(row["scale_ratio"]) for row in rows] == result.ratio.tolist()
    for prefix, errors in (("", result.unscaled), ("scaled_", result.scaled)):
        read = [[float(row[prefix + name]) for name in DEPTH_METRICS] for row in rows]
        assert read == errors.tolist()
    assert {row["abs_rel_40_60_m"] for row in rows} == {""}
    assert [float(row["scaled_abs_rel_60_80_m"]) for row in rows] == [
        *result.scaled_by_distance[:, 3]
    ]


def test_a_failed_prediction_is_not_empty_in_the_lines_of_images(tmp_path):
    result = make_result((1,), unscaled=same_error([math.nan]), ratio=np.array([math.nan]))
    tables.write_per_image(tmp_path / "i.csv", result)
    (row,) = read_csv(tmp_path / "i.csv")
    assert row["abs_rel"] == row["scale_ratio"] == "nan"


@pytest.mark.parametrize(
    "name", [HOSTILE, "a,b;c\td", 'say "so"', "line\nbreak", "line\rbreak", "=1+1", "-x", "@", ""]
)
def test_any_name_comes_back_as_it_was(name, tmp_path):
    result = make_result((1,), names=(name,), drives=(name,), facts={name: name}, left_out=(name,))
    tables.write_per_image(tmp_path / "i.csv", result)
    (row,) = read_csv(tmp_path / "i.csv")
    assert row["name"] == row["drive"] == name
    assert float(row["scaled_a3"]) == result.scaled[0, 6]
    tables.write_json(tmp_path / "r.json", summarise(result))
    read = read_json(tmp_path / "r.json")
    assert read["facts"] == {name: name} and read["left_out"] == [name]


def test_a_name_that_is_no_text_can_be_written(tmp_path):
    """Names of files that are not UTF-8 come from Python with half characters."""
    result = make_result((1,), names=("caf\udce9",), facts={"weights": "caf\udce9"})
    tables.write_per_image(tmp_path / "i.csv", result)
    assert read_csv(tmp_path / "i.csv")[0]["name"] == "caf\\udce9"
    tables.write_json(tmp_path / "r.json", summarise(result))
    assert read_json(tmp_path / "r.json")["facts"]["weights"] == "caf\udce9"


def test_a_file_that_cannot_be_written_is_named_and_the_old_one_stays(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    path.write_text("old")
    monkeypatch.setattr(tables.json, "dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tables.write_json(path, summarise(make_result()))
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]
    missing = tmp_path / "no" / "r.csv"
    with pytest.raises(OSError) as error:
        tables.write_csv(missing, summarise(make_result()))
    assert str(missing) in str(error.value)
