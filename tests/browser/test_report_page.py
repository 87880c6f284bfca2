"""The report in a real browser: at a laptop's width, on a phone, in the dark and on paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_report import made

playwright = pytest.importorskip("playwright.sync_api", reason="the playwright package is not installed")

KINDS = ("several arms and every kind of claim", "twelve arms", "collapsed and diverged", "one seed")
WIDTHS = {"laptop": 1280, "phone": 390}

OVERFLOW = """() => [...document.querySelectorAll('body *')]
    .filter(one => !one.closest('.scroll > *') && one.getBoundingClientRect().right > window.innerWidth + 1)
    .map(one => one.tagName + ' ' + one.textContent.slice(0, 40))"""
"""What reaches beyond the window, apart from what scrolls in a box of its own."""

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports as files."""
    folder = tmp_path_factory.mktemp("reports")
    found = {kind: folder / f"{kind.replace(' ', '-')}.html" for kind in KINDS}
    for kind, file in found.items():
        file.write_text(made(kind).html)
    return found


@pytest.fixture
def opened(chromium: Any, files: dict[str, Path]) -> Iterator[Any]:
    """Opens a report; at the end of the test, nothing else may have been asked for, and nothing complained of."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def open_page(kind: str, width: int, **settings: Any) -> Any:
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}, **settings))
        page = contexts[-1].new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if request.url != address else None)
        address = files[kind].as_uri()
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_reaches_beyond_the_window(opened: Any, kind: str, width: int) -> None:
    """The page does not scroll sideways; wide tables and figures do, each in its own box."""
    page = opened(kind, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OVERFLOW) == []
    if width == WIDTHS["phone"]:
        boxes = "[...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth).length"
        assert page.evaluate(boxes) > 3, "nothing had to scroll, so this shows nothing"


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_is_drawn(opened: Any, kind: str, width: int) -> None:
    """Each figure has a size that can be read, ink of several colours, and words to be read out."""
    page = opened(kind, width)
    figures = page.locator("figure.drawing svg")
    assert figures.count() == len(list(made(kind).page.drawings()))
    for figure in figures.all():
        box = figure.bounding_box()
        assert box["width"] >= 600
        assert box["height"] >= 80
        assert len(figure.get_attribute("aria-label")) > 30
    for place in (0, figures.count() - 1):
        figures.nth(place).scroll_into_view_if_needed()
        assert len(set(figures.nth(place).screenshot())) > 100, "the figure is blank"


def test_glyphs_and_clips_are_found_in_the_figure_itself(opened: Any) -> None:
    """No reference inside a figure leads nowhere, or into another figure."""
    page = opened(KINDS[0], 1280)
    lost = page.evaluate("""() => [...document.querySelectorAll('svg use')].filter(one => {
        const to = document.querySelector(one.getAttribute('href'));
        return !to || to.closest('svg') !== one.closest('svg');
    }).length""")
    assert page.locator("svg use").count() > 100
    assert lost == 0


def test_contents_lead_to_every_part(opened: Any) -> None:
    """Each entry of the contents jumps to the heading of its name."""
    page = opened(KINDS[0], 1280)
    shown = "id => document.querySelector(id).getBoundingClientRect().top < window.innerHeight"
    for link in page.locator("nav a").all():
        link.click()
        anchor = link.get_attribute("href")
        assert page.locator(anchor).inner_text() == link.inner_text()
        page.wait_for_function(shown, arg=anchor)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(opened: Any, scheme: str) -> None:
    """In the light and in the dark, text has the contrast of 4.5 to 1 that WCAG asks for."""
    page = opened("collapsed and diverged", 1280, color_scheme=scheme)
    ratios = page.evaluate("""() => {
        const luminance = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number)
            .map(part => part / 255).map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
            .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
        const ground = one => {
            for (; one; one = one.parentElement) {
                const colour = getComputedStyle(one).backgroundColor;
                if (!colour.startsWith('rgba(0, 0, 0, 0')) return colour;
            }
        };
        const texts = [...document.querySelectorAll('p, li, dt, dd, td, th, a, code, .badge, figcaption')];
        return texts.filter(one => one.innerText).map(one => {
            const [high, low] = [luminance(getComputedStyle(one).color), luminance(ground(one))].sort((a, b) => b - a);
            return [(high + 0.05) / (low + 0.05), one.innerText.slice(0, 30)];
        });
    }""")
    assert len(ratios) > 100
    assert [found for found in ratios if found[0] < 4.5] == []


@pytest.mark.parametrize("kind", KINDS)
def test_it_prints(opened: Any, kind: str, tmp_path: Path) -> None:
    """On paper nothing is cut off at the right, the contents are left out, and there are several pages."""
    page = opened(kind, 794)  # the width of A4 in CSS pixels
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 688, "height": 1000})  # A4 less its margins
    assert page.locator("nav").is_hidden()
    wide = """() => [...document.querySelectorAll('table, svg')].map(one => one.getBoundingClientRect().right)
        .filter(right => right > window.innerWidth + 1)"""
    assert page.evaluate(wide) == []
    file = tmp_path / "report.pdf"
    page.pdf(path=str(file), prefer_css_page_size=True)
    assert file.read_bytes().count(b"/Type /Page\n") + file.read_bytes().count(b"/Type /Page ") > 2
