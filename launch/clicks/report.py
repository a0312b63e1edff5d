"""The report of a CTR run: the winner's graph of blocks, log loss and AUC beside others, the terms of the score."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from subshot.launch.clicks import block_graph, findings
from subshot.launch.clicks.config import ClickSpaceConfig
from subshot.launch.clicks.space import make_click_space
from subshot.launch.config import from_json
from subshot.launch.reports import charts, dot_charts, honesty, page
from subshot.launch.reports.effect_factors import OP_NAMES
from subshot.launch.reports.effects_section import effects_section
from subshot.launch.reports.findings import latency_facts, no_winner_yet, spoken_method
from subshot.launch.reports.front_chart import Costed
from subshot.launch.reports.front_section import front_section, results_against_cost
from subshot.launch.reports.page import Html, join, paragraph
from subshot.launch.reports.record import ENDINGS, Endings, Record
from subshot.launch.reports.sections import (
    DomainReport,
    Results,
    Sections,
    run_section,
    search_section,
    training_section,
)
from subshot.launch.reports.time_section import time_section
from subshot.supernet.nasrec import NasrecSpace
from subshot.supernet.nasrec_cost import network_layers
from subshot.supernet.nasrec_spec import BINARY_OPS, BlockSpec, NasrecSpec

CLICK_ENDINGS: Endings = (
    (r"clicks: (?!\d+ process)", "opening the clicks"),
    (r"supernet: ", "building the supernet"),
    (r"warm-up: |warm-up continues|the supernet is warm", "building the supernet"),
    (r"step \d+: |warm: |caution: predicting", "warm-up"),
    (r"measuring \d+ random|score: |caution: ", "preparing the score"),
    (r"winner[:,] ", "random networks of the winner's cost"),
    (r"\S+: (val|test) log loss|\S+: diverged|network  ", "training from scratch and export"),
    *ENDINGS,
)
"""See `subshot.launch.reports.record.stage_seconds`."""

SYNTHETIC = " The clicks are SYNTHETIC."


def space_of(record: Record) -> NasrecSpace | None:
    """The space of the run; None where its folder does not say how many fields the data have."""
    if not record.config or not record.data:
        return None
    config = from_json(ClickSpaceConfig, record.config["space"], "config.json: space")
    return make_click_space(config, record.data["dense_features"], record.data["sparse_fields"])


def winner_section(record: Record) -> Html:
    winner, space = record.winner, space_of(record)
    if winner is None:
        return paragraph(no_winner_yet(record))
    costs = winner["costs"]
    facts = [
        (charts.count_text(costs["macs"]), "MACs of one row"),
        (charts.count_text(costs["params"]), "parameters, embedding tables not counted"),
        (f"{winner['score']:.4g}", "score that the search saw"),
    ]
    networks = record.comparison.get("networks", [])
    if networks:
        tested = networks[0]
        facts.insert(0, (f"{tested['test/auc']['mean']:.4f}", "AUC on the test split"))
        facts.insert(0, (f"{tested['test/log_loss']['mean']:.4f}", "log loss on the test split"))
        facts += latency_facts(record, "row")
    parts = [page.tiles(facts)]
    if space is None:
        return join([*parts, paragraph("Its blocks are not drawn: the folder does not say how many fields there are.")])
    spec = space.decode(tuple(winner["genotype"]))
    return join([*parts, page.grid([winner_picture(record, "block-graph"), _in_words(spec)])])


def winner_picture(record: Record, name: str) -> Html:
    """The winner's graph of blocks, or a sentence. name: of the picture, of which a page has one."""
    winner, space = record.winner, space_of(record)
    if winner is None or space is None:
        return paragraph("There is no winner yet.")
    spec = space.decode(tuple(winner["genotype"]))
    kept = sum(bool(block.dense_width or block.tokens) for block in spec.blocks)
    blocks = f"{kept} blocks" if kept == len(spec.blocks) else f"{kept} of {len(spec.blocks)} blocks are in use"
    title = f"{'The winner' if record.comparison else 'The best so far, by score'}: {blocks}"
    return page.figure(block_graph.block_graph(spec, name), title, _how_to_read(spec, kept))


def _how_to_read(spec: NasrecSpec, kept: int) -> str:
    """The legend of the graph, of what is in it."""
    said = [
        "From top to bottom. Left, blue: dense outputs. Right, green: sparse ones, tokens of "
        f"{spec.embedding_dim} numbers. 0 is the raw input."
    ]
    if any(block.fm or block.dense_to_sparse for block in spec.blocks):
        said.append(
            "Orange: mergers. FM adds a factorisation machine of the sparse operator to the dense output; 8 tok. puts "
            "8 tokens of the dense operator beside the sparse output. Both read an operator before anything is merged "
            "into it."
        )
    if any("dot_product" in block.dense_ops for block in spec.blocks):
        said.append("Green arrow between two heads: a dot product reads the sparse inputs as well.")
    if any(op in BINARY_OPS for block in spec.blocks for op in block.dense_ops):
        said.append("Two inputs with a comma: the left and the right side of gating or a sum.")
    left_out = "Blocks and operators" if kept < len(spec.blocks) else "Operators"
    said.append(f"{left_out} that the classifier does not depend on are left out.")
    return " ".join(said)


def _in_words(spec: NasrecSpec) -> Html:
    layers = network_layers(spec, layer_norm=False)
    total = sum(layer.macs for layer in layers)

    def share(prefix: str) -> str:
        return f"{100 * sum(layer.macs for layer in layers if layer.name.startswith(prefix)) / total:.1f} %"

    rows: list[tuple[object, ...]] = []
    for number, block in enumerate(spec.blocks, start=1):
        if block.dense_width or block.tokens:
            dense, sparse = _dense_in_words(block), _sparse_in_words(block)
            mergers = " and ".join(["FM"] * block.fm + ["8 tokens"] * block.dense_to_sparse)
            rows.append((number, dense, sparse, mergers or "–", share(f"blocks.{number - 1}.")))
    rows.append(("classifier", "", "", "", share("classifier")))
    return page.table(("block", "dense output", "sparse output", "mergers", "MACs"), rows, numbers=False)


def _dense_in_words(block: BlockSpec) -> str:
    if not block.dense_width:
        return "none"
    if not block.dense_ops:
        return f"{block.dense_width} wide, by FM alone"
    op = OP_NAMES.get(block.dense_ops[0], block.dense_ops[0])
    read = f"of {block_graph.dense_reads_in_words(block)}"
    if block.dense_ops[0] == "dot_product":
        read += f" with sparse {'+'.join(map(str, block.sparse_in))}"
    return f"{op} {read}, {block.dense_width} wide"


def _sparse_in_words(block: BlockSpec) -> str:
    if not block.tokens:
        return "none"
    if not block.sparse_ops:
        return f"{block.tokens} tokens, of the dense operator alone"
    op = OP_NAMES.get(block.sparse_ops[0], block.sparse_ops[0])
    return f"{op} of {'+'.join(map(str, block.sparse_in))}, {block.sparse_dim} tokens"


def tested_section(record: Record) -> Html:
    """Test log loss and AUC, the winner beside a random network of its cost, baselines and Bayes."""
    if not record.comparison:
        said = "No network has been tested yet; launch/retrain.py does that."
        return join([paragraph(said), _trainings(record)])
    networks, bayes = record.comparison["networks"], record.comparison["bayes_log_loss"]
    level = (bayes, f"Bayes, {bayes:.4f}") if bayes is not None else None
    kinds = list(dict.fromkeys(findings.interval_of_what(row) for row in networks))
    caption = f"95 % intervals, of {'; or of '.join(kinds)}."
    loss = dot_charts.dots("log-loss", findings.dots_of(record, "log_loss"), "test log loss, nats", 4, level)
    area = dot_charts.dots("auc", findings.dots_of(record, "auc"), "test AUC", 4)
    figures = [
        page.figure(loss, findings.means(record, "log_loss"), f"{caption} Lower is better."),
        page.figure(area, findings.means(record, "auc"), f"{caption} Higher is better."),
    ]
    rate = 100 * record.comparison["base_rate"]
    facts = [f"{record.comparison['test_rows']:,} test rows, of which {rate:.2f} % were clicked."]
    if record.comparison["synthetic"]:
        facts.insert(0, "SYNTHETIC clicks, drawn from a known model: these are no figures of real clicks.")
    bound = findings.from_bayes(record)
    facts += [bound] if bound is not None else []
    paired = findings.paired(record)
    parts = [page.bullets(facts), page.grid(figures), _table(networks)]
    if paired:
        words = (
            "The winner beside each of the others on the same test rows: differences of mean log loss, with 95 % "
            "intervals for other rows and other seeds."
        )
        parts += [paragraph(words), page.bullets(paired)]
    return join([*parts, _trainings(record)])


def cost_section(record: Record) -> Html:
    """Scores, and test log loss beside the baselines, against each cost."""
    rows = []
    for row, dot in zip(record.comparison.get("networks", []), findings.dots_of(record, "log_loss"), strict=True):
        costs = {"macs": row["macs"], "params": row["params"]}
        rows.append((costs, Costed(dot.name, dot.kind, 0.0, dot.value, dot.low, dot.high)))
    found = results_against_cost(rows, "test log loss, nats", False, "row")
    words = [paragraph("Parameters and MACs: without embedding tables.", "muted")] if found else []
    return join([front_section(record, "row"), *([page.grid(found)] if found else []), *words])


def _table(networks: Sequence[dict[str, Any]]) -> Html:
    heads = ("network", "log loss", "95 % interval", "AUC", "normalised entropy", "ECE", "learning rate", "trainings")
    rows = [
        (
            findings.network_label(row),
            f"{row['test/log_loss']['mean']:.4f}",
            f"{row['test/log_loss']['low']:.4f} to {row['test/log_loss']['high']:.4f}",
            f"{row['test/auc']['mean']:.4f}",
            f"{row['test/normalised_entropy']['mean']:.4f}",
            f"{row['test/ece']['mean']:.4f}",
            f"{row['learning_rate']:g}",
            row["trainings"],
            charts.count_text(row["params"]),
            charts.count_text(row["macs"]) if row["macs"] is not None else "–",
        )
        for row in networks
    ]
    table = page.table((*heads, "parameters", "MACs"), rows, first=True)
    words = (
        "Normalised entropy: log loss over that of always predicting the base rate. ECE: expected calibration error. "
        "Parameters and MACs (of one row): without embedding tables."
    )
    return join([table, paragraph(words, "muted")])


def _trainings(record: Record) -> Html:
    rows = []
    for trial in (trial for trials in findings.searched(record).values() for trial in trials):
        looked_at = "test" if trial["settings"]["tested"] else "val"
        loss, area = (trial.get(f"{looked_at}/{metric}") for metric in ("log_loss", "auc"))
        shown = [_estimate_text(estimate) for estimate in (loss, area)]
        settings = trial["settings"]
        rows.append((trial["contender"], f"{settings['learning_rate']:g}", settings["seed"], looked_at, *shown))
    if not rows:
        return Html("")
    table = page.table(("network", "learning rate", "seed", "split", "log loss", "AUC"), rows)
    return page.folded(f"Every training from scratch ({len(rows)})", table)


def _estimate_text(estimate: dict[str, float] | None) -> str:
    """Of a training that diverged there is none, or one beyond all measure."""
    if estimate is None:
        return "diverged"
    return f"{estimate['value']:.4f}" if estimate["value"] < 100 else f"{estimate['value']:.3g}"


def belief_section(record: Record) -> Html:
    return page.bullets(findings.what_to_believe(record))


def terms_section(record: Record) -> Html:
    """How the score and its terms go with trivial counts, over the random candidates."""
    candidates = findings.random_candidates(record)
    if len(candidates) < 10:
        return paragraph("Random search has scored fewer than ten candidates, too few for a rank correlation.")
    shown = findings.quantities(record)
    score = shown[-1]
    rows = []
    for quantity in shown:
        counts = [findings.tau(quantity.values, [row["costs"][key] for row in candidates]) for key in findings.COUNTS]
        with_score = findings.tau(quantity.values, score.values) if quantity is not score else float("nan")
        rows.append((quantity.name, *map(findings.tau_text, (*counts, with_score)), *_moments(quantity)))
    heads = ("", *findings.COUNTS.values(), "score", "mean", "standard deviation")
    table = page.table(heads, rows)
    figures = []
    for quantity in shown:
        closest = findings.closest_count(record, quantity.values)
        if closest is None:
            continue
        key, tau = closest
        picture = dot_charts.term_against(
            f"term {quantity.name}",
            charts.thinned(
                [(row["costs"][key], value) for row, value in zip(candidates, quantity.values, strict=True)]
            ),
            findings.COUNTS[key],
            quantity.name,
        )
        name = quantity.name[0].upper() + quantity.name[1:]
        figures.append(page.figure(picture, f"{name} and {findings.COUNTS[key]}: tau {findings.tau_text(tau)}"))
    words = (
        f"Kendall's tau over the {len(candidates)} candidates that random search scored (those of "
        f"{spoken_method(record.main_method)} are no sample of the space). "
        "Every row is turned so that higher is better."
    )
    if record.terms:
        words += " Mean and standard deviation: what the score standardises the term with; of Fisher-Rao its logarithm."
    said = findings.of_the_terms(record)
    if len(shown) == 1:
        said.append("This score has no terms.")
    return join([paragraph(words), table, page.bullets(said), page.grid(figures)])


def _moments(quantity: findings.Quantity) -> tuple[str, str]:
    if quantity.mean is None or quantity.sd is None:
        return "–", "–"
    return f"{quantity.mean:.4g}".replace("-", "−"), f"{quantity.sd:.4g}"


def caution(record: Record) -> str:
    return SYNTHETIC if findings.is_synthetic(record) else ""


SECTIONS: Sections = (
    ("winner", "The winner", winner_section),
    ("tested", "On the test split", tested_section),
    ("belief", "What to believe", belief_section),
    ("search", "The search", search_section),
    ("front", "Score and result against cost", cost_section),
    ("effects", "What each choice does", lambda record: effects_section(record, space_of(record))),
    ("terms", "The terms of the score", terms_section),
    ("ranking", "Does the score rank?", honesty.section),
    ("training", "Training of the supernet", training_section),
    ("time", "Time and money", partial(time_section, endings=CLICK_ENDINGS)),
    ("run", "The run", run_section),
)


def results(record: Record) -> list[Results]:
    """Test log loss and AUC of all tested networks, with intervals."""
    if not record.comparison:
        return []
    return [
        Results("test log loss, nats", 4, findings.dots_of(record, "log_loss")),
        Results("test AUC", 4, findings.dots_of(record, "auc")),
    ]


REPORT = DomainReport(
    SECTIONS,
    findings.trained_networks,
    caution,
    data="clicks",
    picture=winner_picture,
    results=results,
    endings=CLICK_ENDINGS,
)
