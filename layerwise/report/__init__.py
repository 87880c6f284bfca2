"""Reports: a page of sections, tables and figures, as one self-contained HTML file or as Markdown.

:class:`Page` and its blocks say what stands on a page, :func:`html` and :func:`markdown` render any of them, and
:func:`study_page` is the page of one run of a study. Another page, such as one that compares runs, is made of the same
blocks, and may take over sections of the study's.
"""

from layerwise.report.across import across_page
from layerwise.report.origin import origin_of
from layerwise.report.page import (
    Block,
    Card,
    Code,
    Column,
    Drawing,
    Facts,
    Items,
    Marked,
    Notice,
    Page,
    Paragraph,
    Section,
    Table,
    badge,
    code,
    strong,
)
from layerwise.report.rendering import html, inline_svg, markdown
from layerwise.report.run import StudyRun
from layerwise.report.study import study_page

__all__ = [
    "Block",
    "Card",
    "Code",
    "Column",
    "Drawing",
    "Facts",
    "Items",
    "Marked",
    "Notice",
    "Page",
    "Paragraph",
    "Section",
    "StudyRun",
    "Table",
    "across_page",
    "badge",
    "code",
    "html",
    "inline_svg",
    "markdown",
    "origin_of",
    "strong",
    "study_page",
]
