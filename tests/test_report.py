"""The page is whole, needs nothing else, runs nothing, and says what tables say."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation import report
from evaluation.report import choose_pictures, write_report
from evaluation.summary import summarise
from metrics import DEPTH_METRICS
from tests.depth_results import HOSTILE, make_picture, make_result, same_error

VOID = {"meta", "img"}


class Page(HTMLParser):
    """What a browser would see: elements, attributes, and text by element."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.append((self.open[-1], data))
            if self.open[-1] in ("th", "td"):
                self.rows[-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return "\n".join(data for tag, data in self.texts if tag != "style")


def page_of(result, pictures=()) -> tuple[Page, str]:
    text = report.report(result, summarise(result), pictures)
    return Page(text), text


PICTURES = [
    make_picture("best", "a", share=0.1),
    make_picture("best", "b", factor=1.1),
    make_picture("worst", HOSTILE, factor=2),
]
CASES = {
    "usual": (make_result(), PICTURES),
    "scaled": (make_result(median_scaled=True), PICTURES),
    "one": (make_result((1,)), PICTURES[:1]),
    "no pictures": (make_result(), []),
    "nan": (make_result((2,), unscaled=same_error([math.nan] * 2)), PICTURES),
    "no truth": (make_result(by_distance=np.full((12, 4), math.nan)), []),
    "hostile": (
        make_result(
            (1, 1),
            names=(HOSTILE, "x"),
            drives=(HOSTILE, "x"),
            facts={HOSTILE: HOSTILE},
            left_out=(HOSTILE,),
        ),
        PICTURES,
    ),
}


# The page


@pytest.mark.parametrize("case", CASES)
def test_the_page_is_whole_and_needs_and_runs_nothing(case):
    page, text = page_of(*CASES[case])
    assert text.startswith("<!DOCTYPE html>\n<html ")
    assert "<script" not in text.lower()
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base", "a", "image"}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("href", "xlink:href", "srcset", "action")
            if name != "xmlns":
                assert "://" not in value, (tag, name)
            if name == "src":
                assert value.startswith("data:image/")
    styles = [data for tag, data in page.texts if tag == "style"]
    styles += [attributes.get("style", "") for _, attributes in page.elements]
    assert not any(re.search(r"url\(|@import|expression|://", style) for style in styles)


def test_a_browser_is_told_to_fetch_and_run_nothing():
    page, _ = page_of(*CASES["usual"])
    policy = next(x for x in page.of("meta") if x.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in policy["content"].split("; "))
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
    }


def test_names_and_facts_are_seen_as_they_are():
    page, _ = page_of(*CASES["hostile"])
    for tag in ("dt", "dd", "li", "span"):
        assert (tag, HOSTILE) in page.texts
    assert any(image["alt"].endswith(HOSTILE) for image in page.of("img"))


def test_it_suits_small_screens_dark_rooms_and_paper():
    page, text = page_of(*CASES["usual"])
    assert any(meta.get("name") == "viewport" for meta in page.of("meta"))
    assert any(meta.get("charset") == "utf-8" for meta in page.of("meta"))
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    for variable in re.findall(r"var\((--[\w-]+)", text):
        assert f"{variable}:" in text, f"{variable} has no value"


@pytest.mark.parametrize("median_scaled", [False, True])
def test_both_rows_are_in_the_table_with_their_intervals(median_scaled):
    result = make_result(median_scaled=median_scaled)
    found = summarise(result)
    page, _ = page_of(result)
    rows = {row[0]: row[1:] for row in page.rows[:3]}
    heads = [head.split()[0] for head in rows["errors"]]
    assert heads == list(DEPTH_METRICS)
    small = [data for tag, data in page.texts if tag == "small"]
    for label, row in (("metric", found.unscaled), ("median-scaled", found.scaled)):
        assert rows[label] == [f"{value:.3f}" for value in row.errors.values()]
        for low, high in row.intervals.values():
            assert f"{low:.3f} \u2013 {high:.3f}" in small
    asked = [attributes for attributes in page.of("tr") if attributes.get("class") == "asked"]
    assert len(asked) == 1
    place = small.index("asked for")  # before the intervals of its row
    first = found.asked.intervals["abs_rel"]
    assert small[place + 1] == f"{first.low:.3f} \u2013 {first.high:.3f}"


def test_what_the_numbers_are_of_is_said():
    page, _ = page_of(make_result())
    assert "Protocol eigen: 12 images of 3 drives, 1 left out" in page.text
    assert "bootstrap over the 3 drives, 2000 resamples; too narrow" in page.text
    assert ("dd", "runs/r18/models/weights_19") in page.texts
    assert ("li", "drive_9 7 l") in page.texts


def test_of_one_image_it_says_why_there_are_no_intervals():
    page, _ = page_of(*CASES["one"])
    assert "There are no intervals: all images are of one drive" in page.text
    assert "Beneath" not in page.text and "95%" not in page.text


def test_distances_without_truth_have_a_dash():
    by_distance = np.tile([0.1, 0.2, math.nan, math.nan], (12, 1))
    page, _ = page_of(make_result(by_distance=by_distance))
    assert ["metric", "0.100", "0.200", "-", "-"] in page.rows
    assert ["images", "12", "12", "0", "0"] in page.rows


def test_all_charts_are_there():
    page, _ = page_of(make_result())
    titles = {data for tag, data in page.texts if tag == "title"}
    assert {"Scale ratio", "Error by distance", "Errors of single images"} <= titles


# Pictures on it


def test_a_picture_has_four_panels_its_numbers_and_legends():
    page, _ = page_of(make_result(), PICTURES)
    captions = [data for tag, data in page.texts if tag == "figcaption"]
    assert captions == ["image", "predicted depth", "true depth", "relative error"] * 3
    assert len(page.of("img")) == 12 and len({image["src"] for image in page.of("img")}) > 8
    assert [data for tag, data in page.texts if tag == "h3"][-2:] == ["Best", "Worst"]
    assert page.text.count("too near") == 3
    assert ("b", "0.125") in page.texts and ("b", "0.500") in page.texts
    bars = [x for x in page.of("div") if x.get("class") == "bar"]
    assert len(bars) == 6
    assert all("linear-gradient" in bar["style"] for bar in bars)


def test_scaled_depth_is_said_to_be_scaled():
    for case, expected in (("usual", False), ("scaled", True)):
        page, _ = page_of(*CASES[case])
        assert (("figcaption", "predicted depth after median scaling") in page.texts) == expected


def test_without_pictures_there_is_no_heading_for_them():
    page, _ = page_of(*CASES["no pictures"])
    assert ("h2", "Pictures") not in page.texts and page.of("img") == []


def test_nine_pictures_of_kittis_size_are_not_too_much_for_a_mail(tmp_path):
    generator, (y, x) = np.random.default_rng(0), np.mgrid[:375, :1242]
    waves = 120 + 60 * np.sin(x / 19) * np.cos(y / 17) + 30 * np.sin((x + y) / 11)
    image = np.clip(waves[..., None] + generator.normal(0, 6, (375, 1242, 3)), 0, 255)
    as_jpeg = cv2.imencode(".jpg", image.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    assert len(as_jpeg) > 127_000  # as many details as those of KITTI have
    picture = make_picture(size=(1242, 375), share=0.04)
    wrong = np.exp(cv2.GaussianBlur(generator.normal(0, 10, (375, 1242)), (0, 0), 30))
    predicted_m = picture.predicted_m * wrong
    picture = replace(picture, image=image.astype(np.uint8), predicted_m=predicted_m)
    result = make_result()
    path = write_report(tmp_path, result, summarise(result), [picture])
    assert 9 * path.stat().st_size < 5e6


# The file


def test_it_is_written_as_one_file_into_a_folder_that_may_be_missing(tmp_path):
    result = make_result()
    path = write_report(tmp_path / "a" / "b", result, summarise(result), PICTURES)
    assert path == tmp_path / "a" / "b" / "index.html"
    assert [*path.parent.iterdir()] == [path]
    assert path.read_text(encoding="utf-8") == page_of(result, PICTURES)[1]


def test_an_old_page_stays_if_a_new_one_cannot_be_made(tmp_path, monkeypatch):
    result = make_result()
    path = tmp_path / "index.html"
    path.write_text("old")
    monkeypatch.setattr(report.charts, "scale_histogram", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(tmp_path, result, summarise(result), [])
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_a_folder_that_is_a_file_is_named(tmp_path):
    path: Path = tmp_path / "taken"
    path.write_text("")
    result = make_result()
    with pytest.raises(OSError) as error:
        write_report(path, result, summarise(result), [])
    assert str(path) in str(error.value)


# Which pictures


@pytest.mark.parametrize("each", [1, 2, 3])
@pytest.mark.parametrize("images", range(1, 14))
def test_the_best_the_median_and_the_worst_are_chosen_and_none_twice(images, each):
    result = make_result((images,), seed=images)
    errors = result.unscaled[:, 0]
    chosen = choose_pictures(result, each)
    indices = [i for _, i in chosen]
    assert len(set(indices)) == len(indices) == min(images, 3 * each)
    kinds = {t: [errors[i] for u, i in chosen if u == t] for t in ("best", "median", "worst")}
    assert [t for t, _ in chosen] == [t for t, found in kinds.items() for _ in found]
    assert len(kinds["best"]) - 1 <= len(kinds["median"]) <= len(kinds["best"])
    ordered = sorted(errors)
    assert kinds["best"] == ordered[: len(kinds["best"])]
    assert kinds["worst"] == ordered[::-1][: len(kinds["worst"])]
    if kinds["median"]:
        ranks = [ordered.index(error) for error in kinds["median"]]
        assert ranks == list(range(ranks[0], ranks[0] + len(ranks)))
        assert abs(np.mean(ranks) - (images - 1) / 2) <= 0.5


def test_the_choice_is_by_the_errors_asked_for():
    both = {"unscaled": same_error([0.1, 0.2, 0.3]), "scaled": same_error([0.3, 0.2, 0.1])}
    assert [i for _, i in choose_pictures(make_result((3,), **both))] == [0, 1, 2]
    chosen = choose_pictures(make_result((3,), **both, median_scaled=True))
    assert chosen == [("best", 2), ("median", 1), ("worst", 0)]


def test_equal_errors_are_no_reason_to_show_an_image_twice():
    indices = [i for _, i in choose_pictures(make_result((9,), unscaled=same_error([0.1] * 9)))]
    assert sorted(indices) == list(range(9))


def test_a_failed_prediction_is_the_worst():
    errors = same_error([0.1, math.nan, 0.3, 0.2])
    assert choose_pictures(make_result((4,), unscaled=errors), 1)[-1] == ("worst", 1)
