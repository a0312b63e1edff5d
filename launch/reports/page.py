"""The pieces of a self-contained HTML page: text goes in plain and is escaped here, `Html` comes out.

No scripts, nothing fetched. Colours are CSS variables, which charts use too, so light, dark and print need one picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NewType

Html = NewType("Html", str)

STYLE = """
:root { color-scheme: light dark;
  --page: #f4f5f7; --card: #ffffff; --ink: #1c2330; --muted: #5b6472; --grid: #dfe3e8;
  --blue: #0067a5; --orange: #c85200; --green: #007a59; --purple: #7a3e9d; --red: #b3003c; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12161c; --card: #1b2129; --ink: #e8ebef; --muted: #a3adba; --grid: #343d49;
  --blue: #6cb6f2; --orange: #f59a55; --green: #4fc79f; --purple: #c79be8; --red: #ff8aa5; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .2rem 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.6rem 0 .3rem; }
p, li { max-width: 46rem; }
p { margin: .5rem 0; }
ul { padding-left: 1.2rem; }
li { margin: .35rem 0; }
code { font: .9em ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
a { color: var(--blue); }
.muted { color: var(--muted); }
.eyebrow { color: var(--muted); font-size: .85rem; letter-spacing: .04em; margin: 0; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .9rem; margin: .8rem 0 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.6rem, 1fr)); gap: .75rem; margin: 1.2rem 0; }
.tile, .card, figure { background: var(--card); border: 1px solid var(--grid); border-radius: 10px; }
.tile { padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.35rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: .85rem; }
.card { padding: .6rem 1rem; margin: 1rem 0; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem;
  margin: 1rem 0; align-items: start; }
.grid > * { margin: 0; min-width: 0; }
.grid .card:first-child { margin-top: 0; }
figure { margin: 1rem 0; padding: .9rem 1rem; }
figure h3 { font-size: 1rem; line-height: 1.35; margin: 0 0 .5rem; }
figcaption { color: var(--muted); font-size: .875rem; line-height: 1.4; margin-top: .4rem; }
svg { display: block; width: 100%; height: auto; max-width: 30rem; margin: 0 auto; overflow: visible; }
.wide svg { min-width: 44rem; max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--grid); vertical-align: top; }
tr > :last-child { padding-right: 0; }
tr:last-child > * { border-bottom: 0; }
thead tr > * { border-bottom: 1px solid var(--grid); }
thead th { color: var(--muted); font-weight: 500; }
.number { text-align: right; }
td:first-child { white-space: nowrap; }
td.number { white-space: pre; }
.grid td:first-child { white-space: normal; min-width: 5.5rem; }
.grid > figure:only-child { max-width: 34rem; }
.first td { font-weight: 600; }
summary { cursor: pointer; }
details { margin: .6rem 0; }
@media (max-width: 30rem) { main { padding: 1rem .75rem 3rem; } figure { padding: .8rem .65rem; } }
@media print { :root { font-size: 12.5px;
    --page: #fff; --card: #fff; --ink: #1c2330; --muted: #4d5563; --grid: #d5dae0;
    --blue: #0067a5; --orange: #c85200; --green: #007a59; --purple: #7a3e9d; --red: #b3003c; }
  body { font-size: 1rem; line-height: 1.4; } h2 { margin-top: 1.4rem; }
  .tiles { grid-template-columns: repeat(5, 1fr); }
  main { max-width: none; padding: 0; } nav { display: none; }
  h2 { break-after: avoid; } figure, .tile, tr { break-inside: avoid; }
  th, td { padding-right: .5rem; } td:first-child { white-space: normal; } td.number { white-space: pre-line; }
  table { font-size: .85rem; }
  .card { padding: .4rem .6rem; }
  .grid { grid-template-columns: 1fr 1fr; } .wide svg { min-width: 0; } .scroll { overflow: visible; } }
"""


def text(value: object) -> Html:
    """Anything as text that cannot become markup."""
    return Html(escape(str(value)))


def join(parts: Iterable[Html]) -> Html:
    return Html("\n".join(parts))


def paragraph(words: str, kind: str = "") -> Html:
    return Html(f'<p class="{text(kind)}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>")


def code(words: str) -> Html:
    return Html(f"<p><code>{text(words)}</code></p>")


def bullets(sentences: Iterable[str]) -> Html:
    return Html("<ul>" + "".join(f"<li>{text(sentence)}</li>" for sentence in sentences) + "</ul>")


def tiles(facts: Iterable[tuple[str, str]]) -> Html:
    """(value, what it is) pairs, large and small."""
    return Html(
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{text(value)}</b><span>{text(what)}</span></div>' for value, what in facts)
        + "</div>"
    )


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[object]],
    numbers: bool = True,
    first: bool = False,
    wraps_last: bool = False,
) -> Html:
    """numbers: every column but the first is right-aligned, and a newline in its cells begins a line. first: the first
    row stands out. wraps_last: the last column is words."""

    def cells(tag: str, row: Sequence[object]) -> str:
        words = len(row) - 1 if wraps_last else len(row)
        kinds = [' class="number"' if numbers and 0 < column < words else "" for column in range(len(row))]
        return "".join(f"<{tag}{kind}>{text(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    marks = [" class=first" if first and number == 0 else "" for number in range(len(rows))]
    body = "".join(f"<tr{mark}>{cells('td', row)}</tr>" for mark, row in zip(marks, rows, strict=True))
    head = f"<thead><tr>{cells('th', heads)}</tr></thead>" if heads else ""
    return Html(f'<div class="card scroll"><table>{head}<tbody>{body}</tbody></table></div>')


def figure(svg: str, title: str, caption: str = "", wide: bool = False) -> Html:
    """A card: a title that says what the picture shows, the picture. wide: scrolls sideways on a narrow screen."""
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    kind = "wide" if wide else "plain"
    labelled = svg.replace("<svg ", f'<svg role="img" aria-label="{text(title)}" ', 1)
    return Html(f'<figure class="{kind}"><h3>{text(title)}</h3><div class="scroll">{labelled}</div>{below}</figure>')


def grid(parts: Iterable[Html]) -> Html:
    return Html('<div class="grid">' + "\n".join(parts) + "</div>")


def folded(title: str, content: Html) -> Html:
    return Html(f"<details><summary>{text(title)}</summary>{content}</details>")


def section(anchor: str, title: str, content: Html) -> Html:
    return Html(f'<section id="{text(anchor)}"><h2>{text(title)}</h2>\n{content}</section>')


def page(title: str, eyebrow: str, lead: str, sections: Sequence[tuple[str, str, Html]]) -> Html:
    """The whole document. sections: (anchor, title, content)."""
    links = "".join(f'<a href="#{text(anchor)}">{text(name)}</a>' for anchor, name, _ in sections)
    body = join(section(anchor, name, content) for anchor, name, content in sections)
    return Html(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<header><p class="eyebrow">{text(eyebrow)}</p><h1>{text(title)}</h1>{paragraph(lead)}'
        f"<nav>{links}</nav></header>\n{body}\n</main>\n</body>\n</html>\n"
    )
