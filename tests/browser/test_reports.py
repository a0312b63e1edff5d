"""Reports as a person sees them: on a phone, on a laptop, on paper, in light and in dark."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

PAGES = ("images", "clicks", "training-free", "begun", "two", "all")
SIGHTS = {"phone": (375, "screen"), "laptop": (1366, "screen"), "paper": (718, "print")}
"""Width in CSS pixels, and medium; 718 is A4 between the margins of 1 cm."""
MOST_BYTES = 1_000_000
LEAST_LETTER = 6.5
"""CSS pixels of the smallest letters in a picture."""

PICTURES = """
return [...document.querySelectorAll('svg')].map(svg => {
  const box = svg.getBoundingClientRect(), frame = svg.parentElement.getBoundingClientRect();
  const figure = svg.closest('figure').getBoundingClientRect();
  const scale = box.width / svg.viewBox.baseVal.width;
  const cut = [], sizes = [];
  for (const text of svg.querySelectorAll('text')) {
    const b = text.getBoundingClientRect();
    sizes.push(parseFloat(getComputedStyle(text).fontSize) * scale);
    if (b.left < box.left - 1 || b.right > box.right + 1 || b.top < box.top - 1 || b.bottom > box.bottom + 1)
      cut.push(text.textContent);
  }
  return {name: svg.getAttribute('aria-label'), width: box.width, height: box.height, left: box.left - figure.left,
          right: figure.right - box.right, scrolls: svg.parentElement.scrollWidth > svg.parentElement.clientWidth,
          wide: svg.closest('figure').className == 'wide', top: box.top - figure.top,
          bottom: figure.bottom - box.bottom, letters: Math.min(...sizes), cut: cut};
});
"""


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("page", PAGES)
def test_every_picture_is_seen_whole(browser: Any, pages: dict[str, Path], page: str, sight: str) -> None:
    width, media = SIGHTS[sight]
    browser.open(pages[page], width, media=media)
    browser.picture(f"{page}-{sight}")
    found = browser.ask(PICTURES)
    assert len(found) == pages[page].read_text().count("<svg ")
    assert found or page == "begun"
    for picture in found:
        assert picture["width"] >= min(250, width) and picture["height"] >= 60, picture
        assert picture["left"] >= 0 and picture["top"] >= 0 and picture["bottom"] >= 0, picture
        may_scroll = picture["wide"] and media == "screen"
        assert picture["right"] >= 0 or (may_scroll and picture["scrolls"]), picture
        assert picture["cut"] == [], picture
        assert picture["letters"] >= LEAST_LETTER * (0.8 if media == "print" else 1.0), picture


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("page", PAGES)
def test_the_page_is_as_wide_as_the_screen(browser: Any, pages: dict[str, Path], page: str, sight: str) -> None:
    width, media = SIGHTS[sight]
    browser.open(pages[page], width, media=media)
    browser.unfold()
    reach, beyond = browser.ask("""
      const wide = document.documentElement.clientWidth;
      const inside = e => e.parentElement && (e.closest('.scroll') || e.closest('svg'));
      return [document.documentElement.scrollWidth, [...document.body.querySelectorAll('*')].filter(
        e => !inside(e) && e.getBoundingClientRect().right > wide + 1).map(e => e.outerHTML.slice(0, 80))];
    """)
    assert beyond == []
    assert reach <= width


@pytest.mark.parametrize("sight", ["laptop", "paper"])
@pytest.mark.parametrize("page", PAGES)
def test_tables_need_no_scrolling_but_on_a_phone(browser: Any, pages: dict[str, Path], page: str, sight: str) -> None:
    width, media = SIGHTS[sight]
    browser.open(pages[page], width, media=media)
    browser.unfold()
    assert (
        browser.ask("""
      return [...document.querySelectorAll('.card.scroll > table')].filter(
        table => table.getBoundingClientRect().right > table.parentElement.getBoundingClientRect().right + 1
      ).map(table => table.outerHTML.slice(0, 200));
    """)
        == []
    )


@pytest.mark.parametrize("page", PAGES)
def test_the_console_is_silent_and_nothing_is_fetched(browser: Any, pages: dict[str, Path], page: str) -> None:
    browser.open(pages[page], 1366)
    browser.unfold()
    assert browser.complaints() == []
    assert set(browser.requested()) == {pages[page].as_uri()}
    assert browser.ask("return document.scripts.length + document.querySelectorAll('img, link, iframe').length") == 0


@pytest.mark.parametrize("page", PAGES)
def test_it_prints(browser: Any, pages: dict[str, Path], page: str) -> None:
    browser.open(pages[page], 1366, scheme="dark", media="")
    printed = browser.printed()
    assert printed.startswith(b"%PDF-") and len(re.findall(rb"/Type\s*/Page\b", printed)) >= 1
    if browser.pictures is not None:
        (browser.pictures / f"{page}.pdf").write_bytes(printed)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_mailed(pages: dict[str, Path], page: str) -> None:
    assert pages[page].stat().st_size < MOST_BYTES


COLOURS = """
const probe = document.createElement('span');
document.body.append(probe);
const found = {};
for (const name of ['page', 'card', 'ink', 'muted', 'grid', 'blue', 'orange', 'green', 'purple', 'red']) {
  probe.style.color = `var(--${name})`;
  found[name] = getComputedStyle(probe).color.match(/\\d+/g).slice(0, 3).map(Number);
}
found.body = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number);
const text = document.querySelector('svg text');
if (text) found.text = getComputedStyle(text).fill.match(/\\d+/g).slice(0, 3).map(Number);
return found;
"""


def luminance(colour: list[int]) -> float:
    """WCAG 2.1: relative luminance of 0-255 sRGB."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: list[int], second: list[int]) -> float:
    """WCAG 2.1: 1 to 21."""
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_light_and_dark_differ_and_both_can_be_read(browser: Any, pages: dict[str, Path]) -> None:
    found = {}
    for scheme in ("light", "dark"):
        browser.open(pages["images"], 1366, scheme)
        browser.picture(f"images-laptop-{scheme}")
        colours = found[scheme] = browser.ask(COLOURS)
        assert colours["body"] == colours["page"]
        assert colours["text"] in (colours["ink"], colours["muted"])
        for words in ("ink", "muted", "blue"):
            for ground in ("page", "card"):
                assert contrast(colours[words], colours[ground]) >= 4.5, (scheme, words, ground)
        for line in ("blue", "orange", "green", "purple", "red"):
            assert contrast(colours[line], colours["card"]) >= 3.0, (scheme, line)
    assert luminance(found["light"]["page"]) > 0.8 and luminance(found["dark"]["page"]) < 0.05
    assert luminance(found["light"]["ink"]) < 0.05 and luminance(found["dark"]["ink"]) > 0.7


def test_what_is_dark_on_the_screen_is_light_on_paper(browser: Any, pages: dict[str, Path]) -> None:
    browser.open(pages["images"], 718, "dark", "print")
    colours = browser.ask(COLOURS)
    assert luminance(colours["page"]) == pytest.approx(1.0)
    assert contrast(colours["ink"], colours["card"]) >= 7.0


@pytest.mark.parametrize("page", PAGES)
def test_links_on_the_page_lead_to_its_sections(browser: Any, pages: dict[str, Path], page: str) -> None:
    browser.open(pages[page], 1366)
    assert browser.ask("""
      const links = [...document.querySelectorAll('nav a')];
      return links.length > 0 && links.every(a => document.querySelector(a.getAttribute('href')));
    """)
