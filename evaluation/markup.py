"""HTML and SVG as text in which nothing is left unescaped: what is not `Markup` is plain text."""

from __future__ import annotations

import html
import re

_VOID = {"meta", "img"}  # elements of HTML that have no end
# What XML cannot hold, escaped or not, and halves of characters: names of files may have them.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def plain(text: object) -> Markup:
    """Return what shows as this text, as content and in an attribute."""
    return Markup(html.escape(_UNPRINTABLE.sub("\ufffd", str(text))))


def element(tag: str, *content: object, **attributes: object) -> Markup:
    """Return an element.

    Args:
        tag: its name
        content: `Markup` is taken as it is, everything else as plain text
        attributes: `class_` is class, `stroke_width` is stroke-width; None leaves one out
    """
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{plain(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{named}>")
    return Markup(f"<{tag}{named}>{joined(content)}</{tag}>")


def joined(parts: tuple[object, ...] | list[object]) -> Markup:
    """Return one after the other, as `element` takes them."""
    return Markup("".join(part if isinstance(part, Markup) else plain(part) for part in parts))
