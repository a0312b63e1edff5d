"""How well scores rank the networks of a benchmark: the statistics of every score, as text, JSON and a picture.

Costs stand beside the scores as baselines, ensembles wherever all of their members are there, published correlations
wherever they are of the same set of networks and the same accuracy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray

from subshot.data.image_folder import DataError
from subshot.launch.correlation.benchmark_published import Published, published
from subshot.launch.correlation.benchmark_scores import COSTS, Benchmark
from subshot.launch.reports.charts import BLUE, GRID, INK, MUTED, ORANGE, render
from subshot.launch.reports.page import STYLE
from subshot.proxies import PROXIES
from subshot.search.aggregation import ENSEMBLES
from subshot.search.ranking import (
    NDCG_TOP,
    UndefinedPolicy,
    bootstrap,
    kendall,
    ndcg,
    partial_kendall,
    spearman,
    top_k_recall,
)

Array = NDArray[np.float64]
GIVEN = "params"
"""What partial correlations take out."""


@dataclass(frozen=True)
class JudgingSettings:
    """What the statistics depend on besides the scores.

    accuracy: a column of the benchmark. networks: the set that the scored ones are of. sample: how many were drawn,
    with `seed`; 0 for all that have scores. top: of the recall; 0 for a tenth of the networks. resamples: of the
    bootstrap. undefined: how such scores count.
    """

    accuracy: str
    networks: str
    sample: int
    seed: int
    top: int
    resamples: int
    undefined: Literal["last", "left_out"]


@dataclass(frozen=True)
class Compared:
    """A published row, and whether its tau lies in our interval; None where we have none."""

    published: Published
    inside: bool | None


@dataclass(frozen=True)
class Row:
    """A score's statistics; None where one is undefined. Higher scores are better, as turned by the proxy's direction.

    tau_low, tau_high: the 95 % bootstrap interval over networks. selected: the accuracy, per cent, of the network with
    the best score, the mean of those that share it. regret: the best accuracy of all less that. partial_tau: tau given
    the parameters. undefined: networks without a score.
    """

    name: str
    kind: Literal["cost", "score", "ensemble"]
    undefined: int
    tau: float | None = None
    tau_low: float | None = None
    tau_high: float | None = None
    rho: float | None = None
    ndcg: float | None = None
    recall: float | None = None
    selected: float | None = None
    regret: float | None = None
    partial_tau: float | None = None
    published: tuple[Compared, ...] = ()


@dataclass(frozen=True)
class Report:
    """The table and what it is of. size: networks judged; set_size: of the set that they were drawn from. ndcg_top,
    recall_top: how many best count. reasons: why scores are undefined, and how often, by score."""

    benchmark: str
    settings: JudgingSettings
    size: int
    set_size: int
    best_accuracy: float
    ndcg_top: int
    recall_top: int
    rows: tuple[Row, ...]
    reasons: Mapping[str, Mapping[str, int]]


def read_scores(path: Path, benchmark: Benchmark, names: Sequence[str]) -> tuple[list[int], dict[str, Array]]:
    """The benchmark's numbers in a score table, and its columns `names`, nan where empty; without names all columns of
    numbers, or of nothing, but index and costs. Columns of words alone are passed over."""
    try:
        frame = pl.read_csv(path, infer_schema_length=None)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: --scores is a table that this command wrote, or one like it") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} is no whole CSV table, plain or gzip: {str(error).splitlines()[0]}") from None
    twice = [name for name in frame.columns if "_duplicated_" in name]
    if twice:
        raise DataError(f"{path} has the column {twice[0].partition('_duplicated_')[0]} twice; name each once")
    index = frame["index"] if "index" in frame.columns else pl.Series([])
    if not index.dtype.is_integer() or index.null_count() or not index.is_unique().all():
        raise DataError(f"{path} needs a column index, the numbers of {benchmark.name}'s networks, each once")
    unknown = sorted(set(index.to_list()) - set(benchmark.index.tolist()))
    if unknown:
        raise DataError(f"{path}, column index: {benchmark.name} has no network {unknown[0]}")
    frame = frame.with_columns(numbers_of(path, frame[name]) for name in frame.columns)
    known = [name for name, kind in frame.schema.items() if kind.is_numeric() and name not in ("index", *COSTS)]
    for name in names:
        if name not in known:
            raise DataError(f"{path} has no column of numbers {name}; it has {', '.join(known) or 'none'}")
    if not known:
        raise DataError(f"{path} has no column of scores")
    frame = frame.sort("index")
    columns = {name: frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in names or known}
    return frame["index"].to_list(), columns


def numbers_of(path: Path, column: pl.Series) -> pl.Series:
    """The column as numbers, if all cells are numbers or empty; as it is, if none is a number but some are words.

    Raises DataError for a column of numbers and words.
    """
    if column.dtype.is_numeric():
        return column
    numbers = column.cast(pl.Float64, strict=False)
    wrong = (numbers.is_null() & column.is_not_null()).arg_true()
    if len(wrong) == len(column) - column.null_count() > 0:
        return column
    if len(wrong):
        line = int(wrong[0]) + 2
        raise DataError(f"{path}, line {line}, column {column.name}: {column[line - 2]!r} is no number; leave it empty")
    return numbers


def oriented(name: str, scores: Array) -> Array:
    """Turned so that higher is better; a name that is no proxy of the library is taken as it is."""
    return scores if name not in PROXIES or PROXIES[name].maximize else -scores


def judge(
    benchmark: Benchmark,
    rows: Sequence[int],
    scores: Mapping[str, Array],
    settings: JudgingSettings,
    lines: Iterable[Mapping[str, Any]] = (),
) -> Report:
    """Statistics of every cost, score and ensemble over the entries `rows`. scores: raw, nan where undefined, in the
    order of rows. lines: where reasons for the undefined are read."""
    chosen = list(rows)
    truth = benchmark.accuracies[settings.accuracy][chosen]
    costs = {name: benchmark.costs[name][chosen] for name in COSTS}
    turned = {name: oriented(name, column) for name, column in scores.items()}
    table = {**costs, **turned}
    joined = {
        name: ensemble.scores(table)
        for name, ensemble in ENSEMBLES.items()
        if name not in table and set(ensemble.members) <= set(table)
    }
    size = len(chosen)
    top = min(settings.top or max(1, size // 10), size)
    kinds: tuple[tuple[Literal["cost", "score", "ensemble"], Mapping[str, Array]], ...] = (
        ("cost", costs),
        ("score", turned),
        ("ensemble", joined),
    )
    judged = tuple(
        judged_row(benchmark.name, name, kind, truth, column, costs[GIVEN], top, settings)
        for kind, columns in kinds
        for name, column in columns.items()
    )
    reasons: dict[str, Counter[str]] = {}
    for line in lines:
        for name, reason in line["reasons"].items():
            reasons.setdefault(name, Counter())[reason] += 1
    return Report(
        benchmark.name,
        settings,
        size,
        int(benchmark.sets[settings.networks].sum()),
        float(truth.max()),
        min(NDCG_TOP, size),
        top,
        judged,
        {name: dict(sorted(counts.items())) for name, counts in sorted(reasons.items())},
    )


def judged_row(
    benchmark: str,
    name: str,
    kind: Literal["cost", "score", "ensemble"],
    truth: Array,
    scores: Array,
    given: Array,
    top: int,
    settings: JudgingSettings,
) -> Row:
    """The statistics of one score, float [n], higher is better."""
    missing = int(np.count_nonzero(~np.isfinite(scores)))
    if missing == len(scores):
        return Row(name, kind, missing)
    settled = UndefinedPolicy(settings.undefined).settle(scores)
    accuracy, size, ranks = truth[settled.kept], given[settled.kept], settled.scores
    tau = unless_undefined(lambda: kendall(accuracy, ranks))
    rng = np.random.default_rng(settings.seed)
    interval = unless_undefined(lambda: bootstrap(kendall, accuracy, ranks, rng, settings.resamples))
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    selected = float(accuracy[ranks == ranks.max()].mean())

    def compared(one: Published) -> Compared:
        return Compared(one, None if low is None or high is None else bool(low <= one.tau <= high))

    sources = published(name, settings.networks, settings.accuracy) if benchmark == "nasbench201" else []
    return Row(
        name,
        kind,
        missing,
        tau,
        low,
        high,
        rho=unless_undefined(lambda: spearman(accuracy, ranks)),
        ndcg=unless_undefined(lambda: ndcg(accuracy, ranks)),
        recall=unless_undefined(lambda: top_k_recall(accuracy, ranks, top)),
        selected=selected,
        regret=float(truth.max()) - selected,
        partial_tau=None if name == GIVEN else unless_undefined(lambda: partial_kendall(accuracy, ranks, size)),
        published=tuple(map(compared, sources)),
    )


def unless_undefined(statistic: Callable[[], Any]) -> Any:
    """The statistic, or None where it raises ValueError, as those of search/ranking.py do for too few or equal
    items."""
    try:
        return statistic()
    except ValueError:
        return None


def as_text(report: Report) -> str:
    """The table as it is printed, headed by what it is of."""
    settings = report.settings
    drawn = "all of them" if report.size == report.set_size else f"{report.size:,} of them"
    drawn += f", drawn with seed {settings.seed}" if settings.sample else ""
    treated = "rank last" if settings.undefined == "last" else "are left out"
    best = f"{report.best_accuracy:.2f} %"
    lines = [
        f"{report.benchmark}, set {settings.networks} of {report.set_size:,} networks: {drawn}",
        f"accuracy: {settings.accuracy}, per cent, the best {best}; undefined scores {treated}; tau with its 95 % "
        f"bootstrap interval over networks ({settings.resamples} resamples)",
        "",
    ]
    best_of = (f"nDCG@{report.ndcg_top}", f"recall@{report.recall_top}")
    which = ("selected", "regret", f"tau | {GIVEN}", "undefined", "published tau")
    heads: tuple[str, ...] = ("score", "tau", "95 % interval", "rho", *best_of, *which)
    cells = [heads, *(row_cells(row) for row in report.rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    for line in cells:
        left = (0, len(heads) - 1)
        padded = [c.ljust(w) if n in left else c.rjust(w) for n, (c, w) in enumerate(zip(line, widths, strict=True))]
        lines.append("  ".join(padded).rstrip())
    if any(row.published for row in report.rows):
        lines += ["", "published tau: of the same set and accuracy; in or out: of our interval"]
    return "\n".join(lines)


def row_cells(row: Row) -> tuple[str, ...]:
    def cell(value: float | None, digits: int = 3) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    interval = "-" if row.tau_low is None else f"[{cell(row.tau_low)}, {cell(row.tau_high)}]"
    marks = {True: "in", False: "out", None: "?"}
    sources = "; ".join(
        f"{one.published.tau:.3f} {marks[one.inside]} ({one.published.source})" for one in row.published
    )
    name = f"{row.name} (ensemble)" if row.kind == "ensemble" else row.name
    figures = (cell(row.rho), cell(row.ndcg), cell(row.recall), cell(row.selected, 2), cell(row.regret, 2))
    return (name, cell(row.tau), interval, *figures, cell(row.partial_tau), str(row.undefined or "-"), sources)


def as_json(report: Report) -> dict[str, Any]:
    """Every number of the table, at full precision."""
    return asdict(report)


def picture(report: Report) -> str:
    """Tau with its interval, a line a score, the highest on top, published values as diamonds; a stand-alone SVG."""
    rows = sorted((row for row in report.rows if row.tau is not None), key=lambda row: (-(row.tau or 0.0), row.name))
    colours = {"cost": MUTED, "score": BLUE, "ensemble": INK}

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvline(0.0, color=GRID, linewidth=1.2)
        for y, row in enumerate(rows):
            colour = colours[row.kind]
            if row.tau_low is not None and row.tau_high is not None:
                axes.plot((row.tau_low, row.tau_high), (y, y), color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot([row.tau or 0.0], [y], "o", color=colour, markersize=6)
            taus = [one.published.tau for one in row.published]
            axes.plot(taus, [y] * len(taus), "D", color=ORANGE, markersize=5, fillstyle="none", mew=1.3)
        for kind, colour in colours.items():
            if any(row.kind == kind for row in rows):
                axes.plot([], [], "o-", color=colour, label=kind)
        if any(row.published for row in rows):
            axes.plot([], [], "D", color=ORANGE, fillstyle="none", label="published")
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=f"Kendall's tau with {report.settings.accuracy}")
        axes.set_yticks(range(len(rows)), [row.name for row in rows], color=INK)
        axes.grid(axis="y", visible=False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=4, columnspacing=1.2)

    svg = render("correlate", 80 + 19 * max(len(rows), 1), draw, width=440)
    light = dict(reversed(re.findall(r"--(\w+): (#[0-9a-f]{6})", STYLE.split("@media")[0])))
    for name, colour in light.items():  # outside the page there are no variables
        svg = svg.replace(f"var(--{name})", colour)
    svg = svg.replace(">", f'>\n<rect width="100%" height="100%" fill="{light["card"]}"/>', 1)
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"
