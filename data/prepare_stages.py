"""The four stages from a raw click log to a prepared folder; each goes on from what its journal says is finished.

parse         the raw text once, in blocks, to typed and hashed columns in .prepare (4 MiB of text at a time)
deal_folds    the fold of every row, from the labels (2 bytes a row), or from the times, which are then all in memory
fit           a vocabulary for each categorical field that needs one, from the train rows
fit_standards mean and deviation of each dense field that needs them, from the train rows
write         the parts of train, val and test; a parsed part is deleted when its rows are written
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from subshot.data.click_columns import Standard, fit_standard, folds_by_time
from subshot.data.click_formats import Layout
from subshot.data.click_parsing import BadLine, BadLineRule, BadLines, OnBadLine, parse_block
from subshot.data.click_parts import file_record, part_writer, row_groups, written_whole
from subshot.data.click_protocols import SPLITS, Plan
from subshot.data.click_text import BLOCK_BYTES, Block, text_blocks
from subshot.data.click_vocabulary import Vocabulary, as_vocabulary, encode, fit_vocabulary
from subshot.data.folds import stratified_folds
from subshot.data.image_folder import DataError
from subshot.data.prepare_journal import Journal
from subshot.data.user_profile import UserProfile

Progress = Callable[[str, str, int, int], None]
"""(stage, unit, done, total)."""


@dataclass(frozen=True)
class Pieces:
    """How much is held at a time: text that is parsed, rows that are encoded; and the rows of one part of the log."""

    block_bytes: int = BLOCK_BYTES
    group_rows: int = 2**14
    part_rows: int = 2**20


@dataclass(frozen=True)
class Job:
    """One preparation: where from, where to, and how."""

    raw: Path
    out: Path
    layout: Layout
    plan: Plan
    profile: UserProfile | None
    on_bad_line: OnBadLine
    seed: int
    pieces: Pieces
    journal: Journal
    progress: Progress


def parse(job: Job) -> None:
    """Fills .prepare/parsed-*.parquet. Raises DataError at the first bad line, unless those are skipped."""
    journal = job.journal
    if journal.done("parsed whole"):
        return
    last = journal.of("parsed")[-1] if journal.done("parsed") else {"end": 0, "lines": 0}
    rule = BadLineRule(job.raw, job.on_bad_line, _bad_lines(last))
    size = job.raw.stat().st_size
    frames = _parsed_frames(job, rule, last["end"], last["lines"])
    number = len(journal.of("parsed"))
    for frame, block in frames:
        with part_writer(journal.parsed_part(number), nulls=True, row_group_rows=job.pieces.group_rows) as part:
            part.write(frame)
            while part.rows < job.pieces.part_rows and (following := next(frames, None)) is not None:
                frame, block = following
                part.write(frame)
                job.progress("read", "B", block.file_end, size)
        lines = block.first_line + block.lines - 1
        journal.add("parsed", {"rows": part.rows, "end": block.end, "lines": lines} | _bad_record(rule.taken))
        number += 1
    rows = sum(part["rows"] for part in journal.of("parsed"))
    if not rows:
        raise DataError(f"{job.raw} holds no usable row{_left_out(rule.taken)}")
    journal.add("parsed whole", {"rows": rows} | _bad_record(rule.taken))


def _parsed_frames(job: Job, rule: BadLineRule, end: int, lines: int) -> Iterator[tuple[pl.DataFrame, Block]]:
    text = job.plan.protocol.category_text(job.layout.format.dataset)
    for block in text_blocks(job.raw, end, lines, job.pieces.block_bytes):
        if block.first_line <= job.layout.header_lines:
            block = block.without_first_line()
        frame, bad = parse_block(block, job.layout, text)
        rule.take(bad)
        if job.profile is not None:
            frame = job.profile.join(frame)
        yield job.plan.apply(frame), block


def bad_lines(job: Job) -> BadLines:
    """What parse left out."""
    taken = _bad_lines(job.journal.of("parsed whole")[-1])
    return taken if taken is not None else BadLines({})


def _bad_record(taken: BadLines) -> dict[str, Any]:
    first = taken.first
    return {"bad": dict(taken.counts), "first_bad": [first.line, first.reason, first.text] if first else None}


def _bad_lines(record: dict[str, Any]) -> BadLines | None:
    if not record.get("bad"):
        return None
    return BadLines(record["bad"], BadLine(*record["first_bad"]))


def _left_out(taken: BadLines) -> str:
    return f"; its {taken.total} lines are all bad, the first being line {taken.first.line}" if taken.first else ""


def deal_folds(job: Job) -> NDArray[np.int8]:
    """The fold of every good row, in the log's order.

    Raises DataError for labels that are all alike and for a log too short to put a row into each split.
    """
    journal = job.journal
    if journal.done("folds"):
        folds: NDArray[np.int8] = np.load(journal.folds_npy, allow_pickle=False)
        return folds
    labels = pl.concat(_column(job, "label")).to_numpy()
    if labels.min() == labels.max():
        raise DataError(
            f"{job.raw}: the label is {labels[0]} in each of the {len(labels)} rows; there is nothing to learn"
        )
    if job.plan.time:
        folds = folds_by_time(pl.concat(_column(job, job.plan.time)))
    else:
        folds = stratified_folds(labels, job.seed, job.plan.protocol.folds)
    for split in SPLITS:
        if not in_split(job.plan, folds, split).any():
            raise DataError(f"{job.raw} holds {len(labels)} rows, too few to put one into {split}")
    with written_whole(journal.folds_npy) as temporary, temporary.open("wb") as file:
        np.save(file, folds, allow_pickle=False)
    journal.add("folds", {})
    return folds


def in_split(plan: Plan, folds: NDArray[np.int8], split: str) -> NDArray[np.bool_]:
    """Which rows belong to a split, by their folds."""
    of_fold = np.array([name == split for name in plan.protocol.splits])
    return of_fold[folds]


def fit(job: Job, folds: NDArray[np.int8]) -> dict[str, Vocabulary]:
    """OUT/vocabulary/<field>.parquet of every field; empty for hashed fields, which need none."""
    if job.plan.protocol.hashed:
        return {}
    train = in_split(job.plan, folds, "train")
    finished = {record["field"] for record in job.journal.of("vocabulary")}
    fields = [field.name for field in job.plan.categorical]
    min_count = job.plan.protocol.min_counts[job.layout.format.dataset]
    vocabularies = {}
    for done, field in enumerate(fields):
        job.progress("count", "fields", done, len(fields))
        path = job.out / "vocabulary" / f"{field}.parquet"
        if field not in finished:
            table = fit_vocabulary(partial(_train_column, job, train, field), int(train.sum()), min_count)
            with written_whole(path) as temporary:
                pq.write_table(table.to_arrow(), temporary)
            job.journal.add("vocabulary", {"field": field})
        stored = pl.from_arrow(pq.read_table(path))
        assert isinstance(stored, pl.DataFrame)
        vocabularies[field] = as_vocabulary(stored)
    return vocabularies


def fit_standards(job: Job, folds: NDArray[np.int8]) -> dict[str, Standard]:
    """Of the fields that are standardised."""
    train = in_split(job.plan, folds, "train")
    found = {each["field"]: Standard(each["mean"], each["deviation"]) for each in job.journal.of("standard")}
    for field in job.plan.standardised:
        if field not in found:
            standard = fit_standard(field, partial(_train_column, job, train, field))
            job.journal.add("standard", {"field": field, "mean": standard.mean, "deviation": standard.deviation})
            found[field] = standard
    return found


def _column(job: Job, name: str) -> Iterator[pl.Series]:
    """A column of the parsed rows, a part at a time."""
    for number in range(len(job.journal.of("parsed"))):
        yield pl.concat(row_groups(job.journal.parsed_part(number), [name]))[name]


def _train_column(job: Job, train: NDArray[np.bool_], field: str) -> Iterator[pl.Series]:
    begin = 0
    for column in _column(job, field):
        yield column.filter(pl.Series(train[begin : begin + len(column)]))
        begin += len(column)


def write(
    job: Job,
    folds: NDArray[np.int8],
    vocabularies: dict[str, Vocabulary],
    standards: dict[str, Standard],
    probability: NDArray[np.float32] | None,
) -> None:
    """OUT/<split>/part-*.parquet. probability: of a click in each row, of a synthetic log."""
    finished = {record["part"] for record in job.journal.of("written")}
    begin = 0
    for number, parsed in enumerate(job.journal.of("parsed")):
        rows = slice(begin, begin + parsed["rows"])
        if number not in finished:
            known = None if probability is None else probability[rows]
            files = _write_part(job, number, folds[rows], vocabularies, standards, known)
            job.journal.add("written", {"part": number, "files": files})
        job.journal.parsed_part(number).unlink(missing_ok=True)
        begin = rows.stop
        job.progress("write", "rows", begin, len(folds))


def _write_part(
    job: Job,
    number: int,
    folds: NDArray[np.int8],
    vocabularies: dict[str, Vocabulary],
    standards: dict[str, Standard],
    probability: NDArray[np.float32] | None,
) -> dict[str, Any]:
    """The rows of one parsed part, dealt out to the splits. Returns a manifest's record of each file."""
    masks = {split: in_split(job.plan, folds, split) for split in SPLITS}
    names = {split: f"{split}/part-{number:05d}.parquet" for split in SPLITS if masks[split].any()}
    clicks, bayes = dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)
    with ExitStack() as stack:
        writers = {split: stack.enter_context(part_writer(job.out / name)) for split, name in names.items()}
        begin = 0
        for frame in row_groups(job.journal.parsed_part(number)):
            rows = slice(begin, begin + len(frame))
            scaled = frame.with_columns(standard.step(name) for name, standard in standards.items())
            encoded = encode(scaled.drop([job.plan.time] if job.plan.time else []), vocabularies)
            for split, writer in writers.items():
                chosen = encoded.filter(pl.Series(masks[split][rows]))
                if len(chosen):
                    writer.write(chosen)
                    clicks[split] += int(chosen["label"].sum())
                    if probability is not None:
                        bayes[split] += _total_log_loss(chosen["label"], probability[rows][masks[split][rows]])
            begin = rows.stop
    return {
        split: file_record(job.out / name, name, writers[split].rows)
        | {"clicks": clicks[split], "bayes": bayes[split] if probability is not None else None}
        for split, name in names.items()
    }


def _total_log_loss(labels: pl.Series, probability: NDArray[np.float32]) -> float:
    of_label = np.where(labels.to_numpy() == 1, probability.astype(np.float64), 1.0 - probability.astype(np.float64))
    return float(-np.log(of_label).sum())
