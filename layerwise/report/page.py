"""What a page is made of: sections of text, tables and figures, which are rendered as HTML or as Markdown.

A page says what stands on it, and nothing of how it looks, so that every page reads alike: the report of a study, and
any other that puts such parts together. Text is text: renderers escape it, whatever it holds.

>>> page = Page("two arms", sections=[Section("Answer", [Paragraph("They are ", strong("alike"), ".")])])
>>> page.sections[0].anchor
'answer'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["code", "strong", "supported", "refuted", "undecided"]


@dataclass(frozen=True)
class Marked:
    """A piece of text that stands out: as code, as strong, or as a verdict."""

    text: str
    kind: Kind


Piece = str | Marked
Pieces = tuple[Piece, ...]


def code(text: str) -> Marked:
    """Text as it is typed."""
    return Marked(text, "code")


def strong(text: str) -> Marked:
    """Text that stands out."""
    return Marked(text, "strong")


def badge(verdict: Literal["supported", "refuted", "undecided"]) -> Marked:
    """A verdict, in its own colour and with its own mark."""
    return Marked(verdict, verdict)


def pieces(said: Piece | Pieces) -> Pieces:
    """What was said, as pieces."""
    return said if isinstance(said, tuple) else (said,)


class Paragraph:
    """Text in one paragraph."""

    kind: ClassVar[str] = "paragraph"

    def __init__(self, *parts: Piece) -> None:
        self.parts: Pieces = parts


class Notice(Paragraph):
    """A paragraph that nobody must miss."""

    kind: ClassVar[str] = "notice"


@dataclass(frozen=True)
class Items:
    """A list, each item text."""

    kind: ClassVar[str] = "items"
    items: Sequence[Piece | Pieces]


@dataclass(frozen=True)
class Facts:
    """Terms, and what is to be said of each."""

    kind: ClassVar[str] = "facts"
    facts: Sequence[tuple[str, Piece | Pieces]]


@dataclass(frozen=True)
class Column:
    """A table's column: its heading, and whether it holds numbers, which are aligned to the right."""

    heading: str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A table with a caption. The first column names the rows.

    Attributes:
        caption: what the table shows, in a sentence.
        columns: the columns; a plain word is the heading of a column of numbers.
        rows: as many cells each as there are columns.
        note: what has to be said below it.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[Column | str]
    rows: Sequence[Sequence[Piece]]
    note: str = ""

    @property
    def headed(self) -> list[Column]:
        """Every column as one."""
        return [Column(one) if isinstance(one, str) else one for one in self.columns]


@dataclass(frozen=True)
class Drawing:
    """A figure with a caption.

    Attributes:
        draw: makes the figure, which stands in the page as vectors; Markdown never asks for it.
        caption: what it shows; read out in its place.
    """

    kind: ClassVar[str] = "drawing"
    draw: Callable[[], Figure]
    caption: str


@dataclass(frozen=True)
class Code:
    """Text as it is typed, line by line; ``caption`` says what it is."""

    kind: ClassVar[str] = "code"
    text: str
    caption: str = ""


@dataclass(frozen=True)
class Card:
    """Something with a verdict: its name, the verdict, and what else there is to say."""

    kind: ClassVar[str] = "card"
    title: str
    verdict: Literal["supported", "refuted", "undecided"]
    blocks: Sequence[Block]


Block = Paragraph | Items | Facts | Table | Drawing | Code | Card


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading of its own."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """What links to it are made of."""
        return "-".join(re.findall(r"[a-z0-9]+", self.title.lower()))


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: its heading.
        kicker: what kind of page it is, above the heading.
        lead: the question that it answers, below it.
        sections: what stands on it, top to bottom; their titles differ.
        footer: the last line.
    """

    title: str
    kicker: str = ""
    lead: str = ""
    sections: Sequence[Section] = field(default_factory=tuple)
    footer: Piece | Pieces = ""

    def drawings(self) -> Iterator[Drawing]:
        """Every figure on the page, top to bottom."""
        for section in self.sections:
            yield from _drawings(section.blocks)


def _drawings(blocks: Sequence[Block]) -> Iterator[Drawing]:
    for block in blocks:
        if isinstance(block, Drawing):
            yield block
        elif isinstance(block, Card):
            yield from _drawings(block.blocks)
