"""Times as bars, one below the other."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from subshot.launch.reports.charts import BLUE, INK, render, shortened

ROW = 20.0
LONG = 20
"""Letters of a name that stands on one line."""


def bar_chart(name: str, labels: Sequence[str], seconds: Sequence[float]) -> str:
    """Device time, in the unit that the longest asks for."""
    words = [folded(label) if " " in label else shortened(label) for label in labels]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        longest = max(seconds)
        unit, scale = (
            ("hours", 3600.0) if longest >= 10800 else ("minutes", 60.0) if longest >= 300 else ("seconds", 1.0)
        )
        values = [value / scale for value in seconds]
        axes.barh(range(len(values)), values, height=0.62, color=BLUE, alpha=0.85)
        for y, value in enumerate(values):
            place = (value, y)
            axes.annotate(f"{value:.3g}", place, (3, 0), textcoords="offset points", va="center", size=8.5, color=INK)
        axes.set(ylim=(len(values) - 0.4, -0.6), xlabel=f"device {unit}")
        axes.set_yticks(range(len(values)), words, color=INK, size=8.5)
        axes.margins(x=0.14)
        axes.set_xlim(left=0)
        axes.grid(axis="y", visible=False)

    lines = sum(word.count("\n") + 1 for word in words)
    return render(name, 44 + ROW * len(words) + 6 * (lines - len(words)), draw)


def folded(words: str) -> str:
    """On two lines where they are long."""
    gaps = [place for place, letter in enumerate(words) if letter == " "]
    if len(words) <= LONG or not gaps:
        return words
    middle = min(gaps, key=lambda place: abs(place - len(words) / 2))
    return f"{words[:middle]}\n{words[middle + 1 :]}"
