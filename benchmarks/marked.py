"""Text that a command writes into a page, between two marks, so that it can be written again."""

from __future__ import annotations

from pathlib import Path


def write(page: Path, name: str, command: str, text: str) -> None:
    """Replace what a page has between its marks.

    Args:
        page: a Markdown file.
        name: of the place.
        command: what made the text, which the first mark says.
        text: what goes between.

    Raises:
        ValueError: if the page does not have each mark once.
    """
    page.write_text(replaced(page.read_text(encoding="utf-8"), name, command, text), encoding="utf-8")


def replaced(page: str, name: str, command: str, text: str) -> str:
    """The page with a text between its two marks.

    Example:
        >>> print(replaced("<!-- a: made by `make a` --><!-- end of a -->", "a", "make a", "new"))
        <!-- a: made by `make a` -->
        new
        <!-- end of a -->
    """
    begin, end = marks(name, command)
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"expected {begin!r} and {end!r} once each in the page; put them where the text goes")
    before, after = page.partition(begin)[0], page.partition(end)[2]
    return f"{before}{begin}\n{text}\n{end}{after}"


def marks(name: str, command: str) -> tuple[str, str]:
    """Where a text begins and ends."""
    return f"<!-- {name}: made by `{command}` -->", f"<!-- end of {name} -->"
