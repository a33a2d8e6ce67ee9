"""Text stays text: what an element is given comes back from a parser as it was."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.markup import Markup, element, joined, plain
from tests.depth_results import HOSTILE


@given(st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn"), exclude_characters="\u2028")))
def test_any_text_is_read_back_as_it_was(text):
    read = ElementTree.fromstring(element("a", text, title=text))
    assert (read.text or "") == text
    assert read.get("title") == text


@pytest.mark.parametrize("text", [HOSTILE, "</a>", '" onload="x', "]]>", "<!--", "&lt;", "&#60;"])
def test_text_that_looks_like_markup_is_none(text):
    read = ElementTree.fromstring(element("a", text, "!", title=text))
    assert len(read) == 0 and read.attrib == {"title": text}
    assert read.text == text + "!"


@pytest.mark.parametrize("text", ["\x00", "\x1b[31m", "\ud800", "a\x0bb", "\uffff"])
def test_what_no_document_can_hold_is_replaced(text):
    read = ElementTree.fromstring(element("a", text, title=text))
    assert "\ufffd" in read.text and "\ufffd" in read.get("title")
    plain(text).encode()


def test_elements_are_nested_and_not_escaped_again():
    inner = element("b", "x < y")
    read = ElementTree.fromstring(element("a", "1 & 2", inner, 3.5))
    assert read.text == "1 & 2" and read[0].tag == "b"
    assert read[0].text == "x < y" and read[0].tail == "3.5"
    assert joined([inner, inner]) == inner + inner
    assert isinstance(joined(["<"]), Markup) and joined(["<"]) == "&lt;"


def test_markup_that_is_joined_with_text_is_text_again():
    """Nobody can pass text for markup by adding it to some."""
    sum_of_both = element("b", "x") + "<i>"
    assert "<i>" not in element("a", sum_of_both)


def test_names_of_attributes():
    read = ElementTree.fromstring(element("a", class_="c", stroke_width=2, left_out=None, width=0))
    assert read.attrib == {"class": "c", "stroke-width": "2", "width": "0"}


def test_what_has_no_end_in_html_has_none():
    assert element("img", src="x") == '<img src="x">'
    assert element("rect", x=1) == '<rect x="1"></rect>'
