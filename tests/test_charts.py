"""Charts are XML that needs nothing else, and what they show is as large as its number."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import pytest

from evaluation import charts
from evaluation.summary import histogram, summarise
from tests.depth_results import make_result, same_error

SVG = "{http://www.w3.org/2000/svg}"
NAN = math.nan


def parsed(chart: str) -> Element:
    return ElementTree.fromstring(chart)


def texts(svg: Element) -> list[str]:
    return ["".join(text.itertext()) for text in svg.iter(f"{SVG}text")]


def bars(svg: Element) -> list[Element]:
    """Return the rectangles that say a number; those of the legend say none."""
    return [rect for rect in svg.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]


def told(bar: Element) -> float:
    return float(bar.find(f"{SVG}title").text.rsplit(": ", 1)[1])


def place_of(svg: Element, begin: str) -> float:
    """Return where the line stands whose label begins so: it is drawn just before it."""
    parts = list(svg)
    at = next(i for i, part in enumerate(parts) if part.tag == f"{SVG}text" and begin in part.text)
    line = parts[at - 1]
    assert line.tag == f"{SVG}line" and line.get("x1") == line.get("x2")
    return float(line.get("x1"))


def ticks(svg: Element) -> dict[float, float]:
    """Return where the numbers below the plot stand."""
    base = str(charts.HEIGHT - charts._BOTTOM + 18)
    below = [text for text in svg.iter(f"{SVG}text") if text.get("y") == base]
    return {float(text.text): float(text.get("x")) for text in below}


def every_chart() -> dict[str, str]:
    made = {}
    for name, result in {
        "usual": make_result(),
        "one": make_result((1,)),
        "nan": make_result(
            (2,),
            unscaled=same_error([NAN] * 2),
            scaled=same_error([NAN] * 2),
            ratio=np.full(2, NAN),
            by_distance=np.full((2, 4), NAN),
            scaled_by_distance=np.full((2, 4), NAN),
        ),
        "no truth": make_result(by_distance=np.full((12, 4), NAN)),
        "zero": make_result((2,), unscaled=same_error([0, 0]), scaled=same_error([0, 0])),
        "outlier": make_result((200,), unscaled=same_error([0.1] * 199 + [50])),
        "far": make_result(ratio=np.array([*np.linspace(30, 31, 10), 1e9, math.inf])),
    }.items():
        made[f"{name} scale"] = charts.scale_histogram(result.ratio)
        made[f"{name} distance"] = charts.error_by_distance(summarise(result))
        sorted_errors = charts.sorted_errors(result.unscaled[:, 0], result.scaled[:, 0])
        made[f"{name} sorted"] = sorted_errors
    return made


EVERY = every_chart()


@pytest.mark.parametrize("name", EVERY)
def test_a_chart_is_xml_with_a_title_and_a_description_and_needs_nothing_else(name):
    svg = parsed(EVERY[name])
    assert svg.tag == f"{SVG}svg" and svg.get("role") == "img"
    assert [child.tag for child in svg][:2] == [f"{SVG}title", f"{SVG}desc"]
    assert svg[0].text and svg[0].text in texts(svg)
    without = EVERY[name].replace('xmlns="http://www.w3.org/2000/svg"', "", 1)
    for word in ("http", "<script", "<style", "href", "url(", " on", "<image", "<foreignObject"):
        assert word not in without.replace(" on the", "").replace(" one ", ""), word


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_drawn_outside_of_the_picture_or_at_no_number(name):
    svg = parsed(EVERY[name])
    for part in svg.iter():
        for key, limit in {
            **dict.fromkeys(("x", "x1", "x2"), charts.WIDTH),
            **dict.fromkeys(("y", "y1", "y2"), charts.HEIGHT),
        }.items():
            assert 0 <= float(part.get(key, 0)) <= limit, (part.tag, part.attrib)
        assert float(part.get("height", 0)) >= 0
        for point in part.get("points", "0,0").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= charts.WIDTH and 0 <= y <= charts.HEIGHT


@pytest.mark.parametrize("name", EVERY)
def test_axes_have_names(name):
    found = texts(parsed(EVERY[name]))
    expected = {
        "scale": ("scale ratio, truth over prediction", "images"),
        "distance": ("true depth", "abs_rel"),
        "sorted": ("share of the images [%], from the best to the worst", "abs_rel"),
    }[name.split()[-1]]
    assert set(expected) <= set(found)


def test_colours_are_the_pages_in_light_and_dark():
    for chart in EVERY.values():
        for fill in re.findall(r'(?:fill|stroke)="([^"]*)"', chart):
            assert fill in ("currentColor", "none") or fill.startswith("var(--"), fill


# The scale


def test_bars_of_the_scale_are_as_high_as_their_counts_and_add_up_to_all_images():
    ratio = np.random.default_rng(0).normal(1, 0.05, 300)
    svg = parsed(charts.scale_histogram(ratio))
    counts = [told(bar) for bar in bars(svg)]
    assert counts == histogram(ratio).counts.tolist() and sum(counts) == 300
    heights = np.array([float(bar.get("height")) for bar in bars(svg)])
    assert heights == pytest.approx(np.array(counts) * heights.max() / max(counts), abs=0.02)
    bottoms = {round(float(b.get("y")) + float(b.get("height")), 1) for b in bars(svg)}
    assert len(bottoms) == 1


@pytest.mark.parametrize("median", [0.93, 1.0, 1.12])
def test_one_and_the_median_are_marked_where_they_are(median):
    ratio = np.linspace(median - 0.2, median + 0.2, 101)
    svg = parsed(charts.scale_histogram(ratio))
    values, places = zip(*ticks(svg).items(), strict=True)
    scale, start = np.polyfit(values, places, 1)
    assert place_of(svg, "right: 1") == pytest.approx(start + scale * 1, abs=0.5)
    assert place_of(svg, f"median {median:.3f}") == pytest.approx(start + scale * median, abs=0.5)


@pytest.mark.parametrize("median, arrow", [(30, "\u2190 right: 1"), (0.03, "right: 1 \u2192")])
def test_a_scale_that_is_far_off_has_an_arrow_to_one(median, arrow):
    svg = parsed(charts.scale_histogram(median * np.linspace(0.9, 1.1, 50)))
    assert arrow in texts(svg)


def test_marks_do_not_stand_on_each_other():
    for median in (0.99, 1.01):
        svg = parsed(charts.scale_histogram(median + np.linspace(-0.2, 0.2, 101)))
        anchors = {
            text.text.split()[0]: text.get("text-anchor")
            for text in svg.iter(f"{SVG}text")
            if text.text.startswith(("right", "median"))
        }
        lower, upper = ("median", "right:") if median < 1 else ("right:", "median")
        assert (anchors[lower], anchors[upper]) == ("end", "start")


def test_what_the_bins_do_not_show_is_said():
    svg = parsed(charts.scale_histogram(np.array([*np.linspace(0.9, 1.1, 50), 70, NAN])))
    assert any("last bin includes 1 above" in text and "not numbers" in text for text in texts(svg))


# Errors


def test_bars_of_a_distance_are_as_high_as_its_errors():
    result = make_result()
    found = summarise(result)
    svg = parsed(charts.error_by_distance(found))
    expected = [
        value
        for pair in zip(found.unscaled.by_distance, found.scaled.by_distance, strict=True)
        for value in pair
    ]
    heights = np.array([float(bar.get("height")) for bar in bars(svg)])
    assert heights / heights[0] == pytest.approx(np.array(expected) / expected[0], rel=1e-3)
    lefts = [float(bar.get("x")) for bar in bars(svg)]
    assert lefts == sorted(lefts)
    assert [f"{value:.3f}" for value in expected] == [f"{told(bar):.3f}" for bar in bars(svg)]
    assert "40\u201360 m" in texts(svg) and texts(svg).count("12 images") == 4


def test_a_distance_without_truth_has_a_dash_and_no_bar():
    by_distance = np.tile([0.1, 0.2, NAN, NAN], (12, 1))
    result = make_result(by_distance=by_distance, scaled_by_distance=by_distance)
    svg = parsed(charts.error_by_distance(summarise(result)))
    assert len(bars(svg)) == 4
    assert texts(svg).count("-") == 4 and texts(svg).count("0 images") == 2


def test_the_curve_goes_through_the_sorted_errors():
    unscaled = np.random.default_rng(0).permutation(np.linspace(0, 0.2, 201))
    svg = parsed(charts.sorted_errors(unscaled, unscaled / 2))
    curves = [
        np.array([pair.split(",") for pair in line.get("points").split()], float)
        for line in svg.iter(f"{SVG}polyline")
    ]
    assert len(curves) == 2
    for curve, factor in zip(curves, (1, 0.5), strict=True):
        height = curve[0, 1] - curve[:, 1]
        assert height / height[-1] == pytest.approx(np.linspace(0, 1, 201), abs=0.01)
        assert (np.diff(curve[:, 0]) > 0).all()
        assert height[-1] == pytest.approx(factor * (curves[0][0, 1] - curves[0][-1, 1]), abs=0.2)


def test_images_without_a_number_are_left_out_of_the_curve_and_that_is_said():
    errors = np.array([0.1, 0.2, NAN])
    svg = parsed(charts.sorted_errors(errors, errors))
    assert "1 left out, since they are not numbers" in texts(svg)
