"""A page as one HTML file that needs nothing else, and as Markdown: equal pages give equal bytes."""

from __future__ import annotations

import functools
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from layerwise.report.page import Column, Page, pieces

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"

MARKS = {"supported": "✓", "refuted": "✗", "undecided": "?"}
"""What stands before a verdict, so that colour is never all that tells."""


def html(page: Page) -> str:
    """A page as one HTML file: style and figures inside, no script, nothing from elsewhere.

    Example:
        >>> from layerwise.report import Page, Paragraph, Section, html
        >>> "&lt;b&gt;" in html(Page("two arms", sections=[Section("Answer", [Paragraph("<b>")])]))
        True
    """
    return _html().get_template("page.html.jinja").render(page=page, svg=_Numbered())


def markdown(page: Page) -> str:
    """A page as Markdown, with tables as GitHub's are; of its figures it has the captions.

    Example:
        >>> from layerwise.report import Page, Paragraph, Section, markdown
        >>> print(markdown(Page("two arms", sections=[Section("Answer", [Paragraph("a < b")])])))
        # two arms
        <BLANKLINE>
        ## Answer
        <BLANKLINE>
        a &lt; b
        <BLANKLINE>
    """
    text = _markdown().get_template("page.md.jinja").render(page=page)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def inline_svg(figure: Figure, prefix: str, label: str) -> Markup:
    """A figure as an SVG element to stand inside an HTML page; equal figures give equal text.

    Args:
        figure: drawn with text as outlines, so that it looks the same wherever it is read.
        prefix: what its ids begin with: unlike those of every other figure on the page.
        label: what is read out in its place.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from layerwise.report import inline_svg
        >>> inline_svg(Figure(figsize=(2, 1)), "one-", "nothing")[:41]
        Markup('<svg viewBox="0 0 144 72" version="1.1" r')
    """
    from layerwise import figures

    stream = io.BytesIO()
    figures.save(figure, stream)
    root = ET.fromstring(stream.getvalue())  # noqa: S314 - our own figure, written a line above
    for parent in list(root.iter()):
        for child in [one for one in parent if one.tag == f"{{{SVG}}}metadata"]:
            parent.remove(child)
    for element in root.iter():
        _rename(element, prefix)
    root.attrib = {"viewBox": root.attrib["viewBox"], "version": "1.1", "role": "img", "aria-label": label}
    ET.register_namespace("", SVG)
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - the serializer has escaped it


def _rename(element: ET.Element, prefix: str) -> None:
    """Give an element's id, and what it refers to, a prefix: the ids of two figures on a page would be the same."""
    for key, value in list(element.attrib.items()):
        if key == "id":
            element.set(key, prefix + value)
        elif key.endswith("href") and value.startswith("#"):
            del element.attrib[key]
            element.set("href", f"#{prefix}{value[1:]}")
        elif "url(#" in value:
            element.set(key, value.replace("url(#", f"url(#{prefix}"))


class _Numbered:
    """Draws the figures of a page, the first as ``figure-1``."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, draw: Callable[[], Figure], label: str) -> Markup:
        self.drawn += 1
        return inline_svg(draw(), f"figure-{self.drawn}-", label)


@functools.cache
def _html() -> Environment:
    return _environment(autoescape=True, finalize=_printable)


@functools.cache
def _markdown() -> Environment:
    return _environment(autoescape=False, finalize=_escaped)


def _environment(**options: Any) -> Environment:
    loader = PackageLoader("layerwise.report")
    made = Environment(  # noqa: S701 - HTML is escaped; what Markdown prints goes through `_escaped`
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options
    )
    made.filters["pieces"] = pieces
    made.filters["typed"] = _typed
    made.filters["fenced"] = _fenced
    made.filters["bold"] = _bold
    made.filters["aligned"] = _aligned
    made.filters["minus"] = _with_minus_signs
    made.filters["md"] = Markup
    made.filters["symbol"] = MARKS.__getitem__
    return made


def _with_minus_signs(text: str) -> str:
    """A hyphen before a digit is a minus sign."""
    return re.sub(r"(?<![\w.])-(?=[\d.])", "\N{MINUS SIGN}", text)


def _aligned(column: Column) -> Markup:
    return Markup("--:") if column.numeric else Markup(":--")


def _bold(text: str) -> Markup:
    """Text that stands out, for Markdown, which takes no space between the stars and the words."""
    words = text.strip()
    before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return Markup(f"{before}**{_escaped(words)}**{after}")  # noqa: S704 - Markdown, and escaped


def _typed(text: str) -> Markup:
    """Text as it is typed, for Markdown: between backticks, more of them than it holds in a row."""
    text = " ".join(_plain(text).split())
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if "`" in text else ""
    # A bar would end a table's cell even here.
    return Markup(f"{fence}{space}{text}{space}{fence}".replace("|", r"\|"))  # noqa: S704 - Markdown, and escaped


def _fenced(text: str) -> Markup:
    """Lines as they are typed, for Markdown: between fences longer than any row of backticks in them."""
    text = _plain(text)
    fence = "`" * max(3, max(map(len, re.findall("`+", text)), default=0) + 1)
    return Markup(f"{fence}\n{text.rstrip()}\n{fence}")  # noqa: S704 - Markdown, where a fence escapes all


def _escaped(value: Any) -> Any:
    r"""Text as Markdown that says the same: on one line, with nothing in it that Markdown or HTML would take for more.

    >>> print(_escaped("a_b | *c* <d>\\n# e"))
    a_b \| \*c\* &lt;d&gt; # e
    """
    if isinstance(value, Markup):
        return value
    text = re.sub(r"\s+", " ", _plain(str(value)))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~])", r"\\\1", text)
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\_", text)  # inside a word it means nothing
    text = re.sub(r"^( *)([#+-] )", r"\1\\\2", text)
    return re.sub(r"^( *\d+)([.)] )", r"\1\\\2", text)


def _printable(value: Any) -> Any:
    return _plain(value) if type(value) is str else value


def _plain(text: str) -> str:
    """Text without what no reader sees: characters that steer a terminal, or turn the direction of reading."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "", text)
