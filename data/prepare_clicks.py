"""A raw click log to a prepared folder of Parquet, by a named protocol, in memory that does not grow with the log.

    OUT/manifest.json                 written last: a folder that has it is whole
    OUT/train/part-00000.parquet ...  and val, test: `label` uint8, dense fields float32, categorical fields int32 ids
    OUT/vocabulary/<field>.parquet    value, id, count; where the protocol fits vocabularies
    OUT/.prepare/                     while it is being made: what is finished, to go on from

What grows with the log are the labels and folds (2 bytes a row, and for a moment what data/folds.py says), the
vocabularies, and the disk: the raw text is parsed once, into .prepare, which is as large as the rest of OUT and is
emptied while that is written.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subshot.data.click_columns import Standard, column_records, own_plan, text_record
from subshot.data.click_formats import Dataset, Layout, recognise
from subshot.data.click_parsing import BadLines, OnBadLine
from subshot.data.click_parts import written_whole
from subshot.data.click_protocols import PROTOCOLS, SPLITS, Plan, ProtocolName, Split, make_plan
from subshot.data.click_schema import ClickSchema, layout_of
from subshot.data.click_text import first_lines, sha256_of
from subshot.data.click_vocabulary import Vocabulary
from subshot.data.image_folder import DataError
from subshot.data.prepare_journal import Journal
from subshot.data.prepare_stages import Job, Pieces, Progress, bad_lines, deal_folds, fit, fit_standards, parse, write
from subshot.data.user_profile import PROFILE_COLUMNS, read_user_profile

SCHEMA_VERSION = 1
_COMPARED = ("dataset", "protocol", "source", "schema", "options")


@dataclass(frozen=True)
class PrepareOptions:
    """Settings that shape the output.

    keep_id: Avazu's row id stays a field. drop_impression: KDD's Impression (how many sessions a row merges, which
    goes with the label by construction) is left out; NASRec keeps it. user_profile: KDD's userid_profile.txt.
    max_rows_per_table: a cap on hashed tables, 0 for none. schema: of one's own log, and of no other; it takes
    the place of the protocol.
    """

    protocol: ProtocolName = "nasrec"
    on_bad_line: OnBadLine = "error"
    keep_id: bool = False
    drop_impression: bool = False
    user_profile: Path | None = None
    seed: int = 2018
    max_rows_per_table: int = 0
    schema: ClickSchema | None = None


@dataclass(frozen=True)
class Prepared:
    """What was made. already: it was there, whole and of the same settings, and nothing was done."""

    manifest: Path
    already: bool
    rows: Mapping[Split, int]
    bad: BadLines


def prepare_clicks(
    dataset: Dataset,
    raw: Path,
    out: Path,
    options: PrepareOptions,
    progress: Progress = lambda stage, unit, done, total: None,
    pieces: Pieces = Pieces(),  # noqa: B008 (frozen)
) -> Prepared:
    """Makes OUT from RAW, or goes on where an interrupted call with the same settings stopped.

    Raises DataError for bad data (see click_formats, click_parsing), ValueError for options that do not fit together,
    for an OUT of other settings and for one that holds something else.
    """
    raw, out = Path(raw), Path(out)
    _check_options(dataset, options)
    layout, plan = _planned(dataset, raw, options)
    before = _stamp(raw)
    settings = _settings(dataset, raw, options, plan, layout, progress)
    manifest = out / "manifest.json"
    if manifest.is_file():
        return _finished(manifest, settings)
    journal = Journal(out)
    if out.exists() and not journal.path.is_file() and any(each.name != ".prepare" for each in out.iterdir()):
        raise ValueError(f"{out} holds other files; give a folder that is new or empty")
    _require_same(journal.open(settings), settings, out)
    parsed = journal.done("parsed whole")
    profile = read_user_profile(options.user_profile) if options.user_profile is not None and not parsed else None
    job = Job(raw, out, layout, plan, profile, options.on_bad_line, options.seed, pieces, journal, progress)
    parse(job)
    if _stamp(raw) != before:
        shutil.rmtree(journal.folder)
        raise DataError(f"{raw} was changed while it was read; run again when it is whole")
    folds = deal_folds(job)
    vocabularies = fit(job, folds)
    standards = fit_standards(job, folds)
    write(job, folds, vocabularies, standards, _bayes_probability(raw, len(folds), bad_lines(job)))
    record = settings | _outcome(job, vocabularies) | _own_columns(options.schema, layout, standards)
    with written_whole(manifest) as temporary:
        temporary.write_text(
            json.dumps({key: record[key] for key in _ORDER if key in record}, indent=1) + "\n", encoding="utf-8"
        )
    shutil.rmtree(journal.folder)
    return Prepared(manifest, False, {s: record["splits"][s]["rows"] for s in SPLITS}, bad_lines(job))


_ORDER = (
    "schema_version",
    "dataset",
    "protocol",
    "synthetic",
    "source",
    "dense_fields",
    "categorical_fields",
    "columns",
    "text",
    "splits",
    "bad_lines",
    "bad_lines_by_reason",
    "schema",
    "options",
    "bayes_log_loss",
)


def _planned(dataset: Dataset, raw: Path, options: PrepareOptions) -> tuple[Layout, Plan]:
    """How the log is read, and what becomes of it."""
    if dataset == "csv":
        assert options.schema is not None
        layout = layout_of(options.schema, raw, first_lines(raw)[0])
        return layout, own_plan(options.schema, layout)
    layout = recognise(dataset, raw, first_lines(raw))
    columns = layout.columns
    if options.user_profile is not None:
        columns += PROFILE_COLUMNS
    elif dataset == "kdd12" and not layout.format.header:
        raise ValueError(
            f"{layout.format.title} needs --user-profile userid_profile.txt, for the fields Gender and Age"
        )
    plan = make_plan(
        PROTOCOLS[options.protocol],
        dataset,
        columns,
        keep_id=options.keep_id,
        drop_impression=options.drop_impression,
        max_rows_per_table=options.max_rows_per_table,
    )
    return layout, plan


def _own_columns(schema: ClickSchema | None, layout: Layout, standards: dict[str, Standard]) -> dict[str, Any]:
    """Of one's own log: the steps that data/click_columns.py describes, with all their parameters."""
    if schema is None:
        return {}
    return {"columns": column_records(schema, layout, standards), "text": text_record(schema)}


def _check_options(dataset: Dataset, options: PrepareOptions) -> None:
    if (dataset == "csv") != (options.schema is not None):
        raise ValueError("csv, one's own log, needs --schema FILE, and no other data set takes one")
    if dataset == "csv" and options.max_rows_per_table:
        raise ValueError("--max-rows-per-table is for hashed tables, and a csv has vocabularies; raise its min_count")
    if dataset != "csv":
        PROTOCOLS[options.protocol].require(dataset)
    for given, name, only in (
        (options.keep_id, "--keep-id", "avazu"),
        (options.drop_impression, "--drop-impression", "kdd12"),
        (options.user_profile is not None, "--user-profile", "kdd12"),
    ):
        if given and dataset != only:
            raise ValueError(f"{name} is for {only} alone, and the data set is {dataset}")
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"--seed is {options.seed}; it must be from 0 to 2^32 - 1")


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _side_file(raw: Path) -> Path:
    """What the generator of synthetic logs writes beside one."""
    return raw.with_name(raw.name + ".synthetic.json")


def _settings(
    dataset: Dataset, raw: Path, options: PrepareOptions, plan: Plan, layout: Layout, progress: Progress
) -> dict[str, Any]:
    """The part of the manifest that is known beforehand; equal settings make equal folders."""
    sources = [raw]
    synthetic = _side_file(raw).is_file()
    if synthetic:
        sources.append(_side_file(raw))
    if options.user_profile is not None:
        sources.append(options.user_profile)
    source = []
    for path in sources:
        size = path.stat().st_size
        digest = sha256_of(path, lambda done, size=size: progress("check", "B", done, size))  # type: ignore[misc]
        source.append({"name": path.name, "bytes": size, "sha256": digest})
    protocol = plan.protocol
    return {
        "schema_version": SCHEMA_VERSION,
        "dataset": dataset,
        "protocol": protocol.name,
        "synthetic": synthetic,
        "source": source,
        "dense_fields": list(plan.dense),
        "options": {
            "layout": layout.format.title,
            "on_bad_line": options.on_bad_line,
            "keep_id": options.keep_id,
            "drop_impression": options.drop_impression,
            "user_profile": options.user_profile is not None,
            "seed": options.seed,
            "max_rows_per_table": options.max_rows_per_table,
            "folds": "by time" if plan.time else protocol.folds,
            "split_of_fold": list(protocol.splits),
            "dense": protocol.dense,
            "category_text": protocol.category_text(dataset),
            "min_count": 0 if protocol.hashed else protocol.min_counts[dataset],
            "calendar": protocol.calendar,
            "departures": list(protocol.departures),
        },
    } | ({} if options.schema is None else {"schema": options.schema.record()})


def _outcome(job: Job, vocabularies: dict[str, Vocabulary]) -> dict[str, Any]:
    """The part of the manifest that is known afterwards."""
    written = [record["files"] for record in job.journal.of("written")]
    splits, bayes = {}, {}
    for split in SPLITS:
        files = [files[split] for files in written if split in files]
        rows = sum(file["rows"] for file in files)
        splits[split] = {
            "rows": rows,
            "base_rate": sum(file["clicks"] for file in files) / rows,
            "files": [{key: file[key] for key in ("name", "rows", "bytes", "sha256")} for file in files],
        }
        if files[0]["bayes"] is not None:
            bayes[split] = sum(file["bayes"] for file in files) / rows
    return {
        "categorical_fields": [
            {
                "name": field.name,
                "cardinality": field.table_size or vocabularies[field.name].cardinality,
            }
            for field in job.plan.categorical
        ],
        "splits": splits,
        "bad_lines": bad_lines(job).total,
        "bad_lines_by_reason": dict(bad_lines(job).counts),
        "bayes_log_loss": bayes or None,
    }


def _finished(manifest: Path, settings: dict[str, Any]) -> Prepared:
    """An OUT that has its manifest. Raises ValueError where it is not what was asked for, or not whole any more."""
    out = manifest.parent
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
        files = [file for split in SPLITS for file in found["splits"][split]["files"]]
        rows: dict[Split, int] = {split: int(found["splits"][split]["rows"]) for split in SPLITS}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{manifest} is no manifest of prepared clicks ({error!r}); delete {out}") from error
    _require_same(found, settings, out)
    for file in files:
        path = out / file["name"]
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            raise DataError(f"{path} is missing or was changed since it was prepared; delete {out} and run again")
    return Prepared(manifest, True, rows, BadLines({}))


def _require_same(found: dict[str, Any], wanted: dict[str, Any], out: Path) -> None:
    for key in _COMPARED:
        if found.get(key) != wanted.get(key):
            if key == "source" and isinstance(found.get(key), list):
                what = "source: the raw log is another file, or was changed"
            elif isinstance(found.get(key), dict):
                what = ", ".join(
                    f"{name} {found[key].get(name)!r} instead of {value!r}"
                    for name, value in wanted[key].items()
                    if found[key].get(name) != value
                )
            else:
                what = f"{key} {found.get(key)!r} instead of {wanted.get(key)!r}"
            raise ValueError(f"{out} was prepared with other settings ({what}); give another folder, or delete it")


def _bayes_probability(raw: Path, rows: int, bad: BadLines) -> NDArray[np.float32] | None:
    """The true click probability of each row of a synthetic log, where its side file names one and no line was left
    out."""
    side = _side_file(raw)
    if not side.is_file() or bad.total:
        return None
    name = json.loads(side.read_text(encoding="utf-8")).get("bayes_probability_npy")
    if name is None:
        return None
    path = raw.with_name(str(name))
    probability: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    if probability.shape != (rows,):
        raise DataError(
            f"{path} holds {probability.size} probabilities for the {rows} rows of {raw}; generate both again"
        )
    if not (
        float(probability.min()) > 0.0 and float(probability.max()) < 1.0 and math.isfinite(float(probability.sum()))
    ):
        raise DataError(f"{path} holds a probability that is not between 0 and 1 (both excluded); generate it again")
    return probability
