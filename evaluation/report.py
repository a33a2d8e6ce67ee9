"""One page of HTML that shows an evaluation: a file that can be mailed, opened offline, printed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from evaluation import charts
from evaluation.markup import Markup, element, joined
from evaluation.panels import (
    Picture,
    Scale,
    depth_range,
    depth_scale,
    error_scale,
    error_top,
    panels,
)
from evaluation.results import DepthResult
from evaluation.summary import LEVEL, Row, Summary
from evaluation.tables import ROWS, by_distance, facts_of, number
from metrics import DEPTH_METRICS, DISTANCES_M
from utils import written_whole

PAGE = "index.html"

_CSS = Path(__file__).with_name("report.css")
# Nothing is fetched and nothing runs, whatever a name of a file or a fact may hold.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_UNITS = {"sq_rel": "m", "rmse": "m"}
_MORE_IS_BETTER = {"a1", "a2", "a3"}
_DASH = "\u2013"


def choose_pictures(result: DepthResult, each: int = 3) -> list[tuple[str, int]]:
    """Return which images are worth a look: the best, those in the middle, and the worst.

    Args:
        result: of N images; what counts is abs_rel of the errors asked for
        each: how many of each kind, fewer if there are not so many images

    Returns:
        `best`, `median` or `worst` with an index into the result; none is there twice
    """
    order = result.by_error().tolist()
    images = len(order)
    best = min(each, -(-images // 3))
    worst = min(each, (images - best + 1) // 2)
    middle = min(each, images - best - worst)
    start = min(max((images - middle) // 2, best), images - worst - middle)
    kinds = (
        ("best", order[:best]),
        ("median", order[start : start + middle]),
        ("worst", order[: images - worst - 1 : -1]),
    )
    return [(title, index) for title, indices in kinds for index in indices]


def write_report(
    folder: Path, result: DepthResult, summary: Summary, pictures: Sequence[Picture]
) -> Path:
    """Write the page and return where it is.

    Args:
        folder: of it, made if missing
        result: the errors of each image
        summary: of the result
        pictures: in the order they are shown; neighbours of one title stand together

    Raises:
        OSError: it names the file
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / PAGE
    with written_whole(page) as file:
        file.write(report(result, summary, pictures).encode())
    return page


def report(result: DepthResult, summary: Summary, pictures: Sequence[Picture]) -> str:
    """Return the page as text; see `write_report`."""
    title = f"Depth evaluation, {summary.protocol}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(_CSS.read_text(encoding="utf-8"))),
    )
    main = element(
        "main",
        element("header", element("h1", "Depth evaluation"), _lead(summary)),
        _cards(summary),
        _section("Errors", _error_table(summary), _error_note(summary)),
        _section("Scale and distance", _charts(result, summary)),
        _pictures(summary, pictures),
        _section("What was evaluated", _facts(summary), _left_out(summary)),
    )
    page = element("html", head, element("body", main), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _section(title: str, *content: Markup) -> Markup:
    return element("section", element("h2", title), *content)


def _lead(summary: Summary) -> Markup:
    facts = facts_of(summary)
    return element("p", f"Protocol {facts['protocol']}: {facts['images']}", class_="lead")


def _cards(summary: Summary) -> Markup:
    """Return the few numbers that are looked for first."""
    cards = [
        _card(f"abs_rel, {label}", number(row.errors["abs_rel"]), _span(row, "abs_rel"))
        for label, row in ((ROWS[kind], getattr(summary, kind)) for kind in ROWS)
    ]
    ratio = summary.scale_interval
    sure = f"{LEVEL:.0%}: {ratio.low:.3f} {_DASH} {ratio.high:.3f}, " if ratio else ""
    spread = f"{sure}spread {number(summary.scale_spread)}"
    return element(
        "div",
        *cards,
        _card("scale ratio, median", number(summary.scale_ratio), spread),
        _card("a1, " + _asked(summary), number(summary.asked.errors["a1"]), "within a factor 1.25"),
        class_="cards",
    )


def _card(what: str, value: str, more: str) -> Markup:
    lines = (("what", what), ("value", value), ("more", more))
    return element("div", *(element("div", x, class_=name) for name, x in lines), class_="card")


def _asked(summary: Summary) -> str:
    return ROWS["scaled" if summary.median_scaled else "unscaled"]


def _span(row: Row, name: str) -> str:
    interval = row.intervals.get(name)
    return "" if interval is None else f"{LEVEL:.0%}: {_between(*interval)}"


def _between(low: float, high: float) -> str:
    return f"{number(low)} {_DASH} {number(high)}"


def _error_table(summary: Summary) -> Markup:
    heads = [element("th", "errors", scope="col")]
    for name in DEPTH_METRICS:
        arrow = "\u2191" if name in _MORE_IS_BETTER else "\u2193"
        unit = f" [{_UNITS[name]}]" if name in _UNITS else ""
        heads.append(element("th", f"{name}{unit} {arrow}", scope="col"))
    rows = []
    for kind, label in ROWS.items():
        row: Row = getattr(summary, kind)
        cells = []
        for name, value in row.errors.items():
            interval = row.intervals.get(name)
            below = element("small", _between(*interval)) if interval else ""
            cells.append(element("td", number(value), below))
        asked = label == _asked(summary)
        mark = element("small", "asked for") if asked else ""
        head = element("th", label, mark, scope="row")
        rows.append(element("tr", head, *cells, class_="asked" if asked else None))
    return _table(heads, rows)


def _error_note(summary: Summary) -> Markup:
    text = (
        "Means over the images. Metric errors are those of the depth as predicted, in metres. "
        "Median-scaled ones forgive a wrong scale: each prediction is first multiplied by its "
        "ratio of medians, truth over prediction. "
    )
    text += ("There are " if summary.drives < 2 else "Beneath: ") + summary.remark
    return element("p", f"{text}.", class_="note")


def _charts(result: DepthResult, summary: Summary) -> Markup:
    abs_rel = DEPTH_METRICS.index("abs_rel")
    drawn = (
        charts.scale_histogram(result.ratio),
        charts.error_by_distance(summary),
        charts.sorted_errors(result.unscaled[:, abs_rel], result.scaled[:, abs_rel]),
    )
    cards = [element("div", x, class_="card") for x in (*drawn, _distance_table(summary))]
    return element("div", *cards, class_="charts")


def _distance_table(summary: Summary) -> Markup:
    ranges = zip(DISTANCES_M[:-1], DISTANCES_M[1:], strict=True)
    names = ["true depth", *(f"{near}{_DASH}{far} m" for near, far in ranges)]
    heads = [element("th", name, scope="col") for name in names]
    rows = [
        _plain_row(label, by_distance(getattr(summary, kind), summary.images_by_distance))
        for kind, label in ROWS.items()
    ]
    rows.append(_plain_row("images", summary.images_by_distance))
    note = "Mean abs_rel over the images with true depth there, a pixel of it or more."
    title = element("h3", "Error by distance, as numbers")
    return joined([title, _table(heads, rows), element("p", note, class_="note")])


def _table(heads: Sequence[Markup], rows: Sequence[Markup]) -> Markup:
    head = element("thead", element("tr", *heads))
    return element("div", element("table", head, element("tbody", *rows)), class_="wide")


def _plain_row(label: str, values: Sequence[object]) -> Markup:
    cells = (element("td", value) for value in values)
    return element("tr", element("th", label, scope="row"), *cells)


def _pictures(summary: Summary, pictures: Sequence[Picture]) -> Markup:
    if not pictures:
        return Markup("")
    top = error_top(pictures)
    scaled = " after median scaling" if summary.median_scaled else ""
    note = (
        f"Chosen by abs_rel, {_asked(summary)}. Depth is on a logarithmic scale, near is red; "
        f"prediction{scaled} and truth share one range in each picture. The error is relative, "
        "(prediction \u2212 truth) / truth, where truth counts, on one scale for all pictures. "
        "Points of sparse truth are drawn larger than they are. Magenta is no number."
    )
    parts: list[Markup] = [element("p", note, class_="note")]
    for title, group in groupby(pictures, key=lambda picture: picture.title):
        parts.append(element("h3", title.capitalize()))
        parts += [_picture(picture, top, scaled) for picture in group]
    return _section("Pictures", *parts)


def _picture(picture: Picture, top: float, scaled: str) -> Markup:
    errors = {name: number(value) for name, value in picture.errors.items()}
    chips = (element("span", f"{name} ", element("b", x)) for name, x in errors.items())
    header = element(
        "header",
        element("span", picture.name, class_="name"),
        element("span", *chips, class_="chips"),
    )
    captions = {
        "image": "image",
        "predicted": f"predicted depth{scaled}",
        "truth": "true depth",
        "error": "relative error",
    }
    addresses = panels(picture, top)
    shown = (
        element(
            "figure",
            element("img", src=addresses[name], alt=f"{caption} of {picture.name}"),
            element("figcaption", caption),
        )
        for name, caption in captions.items()
    )
    legends = (
        _legend("depth, logarithmic", depth_scale(*depth_range(picture))),
        _legend("relative error", error_scale(top)),
    )
    return element(
        "article",
        header,
        element("div", *shown, class_="panels"),
        element("div", *legends, class_="legends"),
        class_="card picture",
    )


def _legend(label: str, scale: Scale) -> Markup:
    ticks = []
    for place, text in scale.ticks:
        end = "first" if place < 0.05 else "last" if place > 0.95 else None
        ticks.append(element("span", text, style=f"left:{100 * place:.1f}%", class_=end))
    bar = element("div", class_="bar", style=f"background:{scale.gradient}", title=label)
    return element("div", bar, element("div", *ticks, class_="ticks"), class_="legend")


def _facts(summary: Summary) -> Markup:
    pairs = (joined([element("dt", x), element("dd", y)]) for x, y in facts_of(summary).items())
    return element("dl", *pairs)


def _left_out(summary: Summary) -> Markup:
    if not summary.left_out:
        return Markup("")
    names = (element("li", name) for name in summary.left_out)
    title = element("summary", f"{len(summary.left_out)} left out")
    return element("details", title, element("ul", *names))
