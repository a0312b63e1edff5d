"""What the JSON files of a winner's folder must hold, as JSON Schema (draft 2020-12), and the check of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import best_match

from subshot.launch.winners.copied.load import OPERATIONS
from subshot.launch.winners.space import CLICKS, IMAGES, SCHEMA_VERSION
from subshot.train.winner_dir import LOG_LINES, PICTURES

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**62}
SIZE: Schema = {"type": "integer", "minimum": 1, "maximum": 2**40}
SMALL: Schema = {"type": "integer", "minimum": 1, "maximum": 100_000}
NUMBER: Schema = {"type": "number"}
TEXTS: Schema = {"type": "array", "items": TEXT}
COLOURS: Schema = {"type": "array", "items": NUMBER, "minItems": 3, "maxItems": 3}


def _record(fields: dict[str, Schema], more: bool = False) -> Schema:
    """An object that has all the fields; more: and may have others."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": more}


ARCHITECTURE = _record(
    {
        "schema_version": {"const": SCHEMA_VERSION},
        "task": {"enum": [IMAGES, CLICKS]},
        "space": _record({"name": TEXT}, more=True),
        "choices": {"type": "object", "additionalProperties": TEXT},
        "genotype": {"type": "array", "items": COUNT},
        "words": TEXT,
        "hash": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
        "costs": _record({"macs": COUNT, "params": COUNT, "activation_elements": COUNT}),
    }
)
IMAGE_SPACE: Schema = {
    "type": "object",
    "properties": {
        "input_size": SMALL,
        "classes": SMALL,
        "width": {"type": "number", "exclusiveMinimum": 0, "maximum": 100},
        "reduced_strides": {"type": "integer", "minimum": 0, "maximum": 10},
    },
    "required": ["input_size", "classes"],
}
CLICK_SPACE = _record(
    {
        "name": TEXT,
        "blocks": {"type": "integer", "minimum": 1, "maximum": 100},
        "dense_features": {"type": "integer", "minimum": 0, "maximum": 100_000},
        "sparse_fields": SMALL,
        "dense_dims": {"type": "array", "items": SMALL, "minItems": 1},
        "sparse_dims": {"type": "array", "items": SMALL, "minItems": 1},
        "embedding_dim": SMALL,
        "layer_norm": {"type": "boolean"},
    }
)
NETWORK = _record(
    {
        "inputs": {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 2},
        "output": TEXT,
        "parameters": TEXTS,
        "joined": TEXTS,
        "calls": {
            "type": "array",
            "items": {
                "type": "array",
                "prefixItems": [TEXT, {"enum": sorted(OPERATIONS)}, {"type": "array"}, TEXTS],
                "minItems": 4,
                "maxItems": 4,
            },
            "minItems": 1,
        },
    }
)
IMAGE_PREPROCESS = _record(
    {
        "size": SMALL,
        "crop_ratio": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "interpolation": {"const": "triangular with antialiasing"},
        "channels": {"const": "RGB"},
        "scale": {"const": 1 / 255},
        "mean": COLOURS,
        "std": {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "minItems": 3, "maxItems": 3},
    }
)
KINDS = [
    "label", "clicks", "integer", "hex", "decimal else hex", "decimal", "unsigned", "rounded", "hour", "real", "text",
]  # fmt: skip
STEPS = ["log1p", "squared log", "buckets"]
DENSE: dict[str, Schema] = {"name": TEXT, "of": {"type": ["string", "null"]}}
POSITIVE: Schema = {"type": "number", "exclusiveMinimum": 0}
STANDARD: dict[str, Schema] = {
    "step": {"const": "standard"},
    "mean": NUMBER,
    "deviation": POSITIVE,
    "bound": POSITIVE,
}
CLICK_PREPROCESS = _record(
    {
        "dataset": TEXT,
        "protocol": TEXT,
        "synthetic": {"type": "boolean"},
        "max_rows_per_table": COUNT,
        "separator": {"type": "string", "minLength": 1, "maxLength": 1},
        "header": {"type": "boolean"},
        "quotes": {"enum": ["none", "strip", "csv"]},
        "missing": TEXTS,
        "columns": {
            "type": "array",
            "items": _record({"name": TEXT, "header": TEXT, "kind": {"enum": KINDS}, "label": {"type": "boolean"}}),
            "minItems": 1,
        },
        "dense": {
            "type": "array",
            "items": {"oneOf": [_record(DENSE | {"step": {"enum": STEPS}}), _record(DENSE | STANDARD)]},
        },
        "categories": {
            "type": "array",
            "items": _record(
                {
                    "name": TEXT,
                    "of": TEXT,
                    "part": {"enum": ["", "squared log", "hour", "weekday", "is_weekend"]},
                    "hash_size": {"type": "integer", "not": {"const": 1}, "minimum": 0, "maximum": 2**40},
                    "modulo": COUNT,
                    "cardinality": SIZE,
                    "rows": SIZE,
                }
            ),
            "minItems": 1,
        },
    }
)
IMAGE_LABELS: Schema = {
    "type": "object",
    "patternProperties": {"^[0-9]+$": TEXT},
    "additionalProperties": False,
    "minProperties": 1,
}
CLICK_LABELS = _record({"column": TEXT, "positive": TEXT, "base_rate": {"type": "number", "minimum": 0, "maximum": 1}})
VOCABULARY: Schema = {
    "type": "object",
    "additionalProperties": {"type": "array", "items": {"type": ["integer", "string"]}, "uniqueItems": False},
}
METRICS = _record(
    {"name": TEXT, "role": TEXT, "settings": {"type": "object"}, "search/score": {"type": ["number", "null"]}},
    more=True,
)
SHARE = {"type": "number", "minimum": 0, "maximum": 1}
IMAGE_METRICS = _record(
    {
        "test/accuracy": SHARE,
        "test/n": SIZE,
        "test/interval_95": {"type": "array", "items": SHARE, "minItems": 2, "maxItems": 2},
    },
    more=True,
)
CLICK_METRICS = _record(
    {"test/n": SIZE, "test/log_loss": _record({"value": NUMBER, "low": NUMBER, "high": NUMBER}, more=True)}, more=True
)
LATENCY: Schema = {
    "type": "array",
    "minItems": 4,
    "items": _record(
        {
            "runtime": TEXT,
            "version": TEXT,
            "device": TEXT,
            "threads": SIZE,
            "dtype": TEXT,
            "batch": SIZE,
            "p50_ms": NUMBER,
            "p95_ms": NUMBER,
            "n": SIZE,
        }
    ),
}
PROVENANCE = _record(
    {
        "subshot": TEXT,
        "git_commit": {"type": ["string", "null"]},
        "run": TEXT,
        "config_sha256": TEXT,
        "config": {"type": "object"},
        "history_sha256": TEXT,
        "data": {"type": "object"},
        "environment": {"type": "object"},
        "commands": TEXTS,
        "randomness": TEXT,
    }
)
BY_DALI, BY_TRAINING, BY_ITSELF = (
    "DALI's evaluation pipeline",
    "the encoder of prepared logs",
    "preprocess.py itself, when the folder was written again",
)
"""What may have computed the values that are expected of raw inputs."""


def raw_schema(task: str) -> Schema:
    """Of golden/raw.json, which folders of earlier versions lack."""
    names, by = (PICTURES, BY_DALI) if task == IMAGES else (LOG_LINES, BY_TRAINING)
    return _record({"files": {"const": list(names)}, "expected_by": {"enum": [by, BY_ITSELF]}})


def _is_whole(_: Any, value: Any) -> bool:
    """JSON Schema takes 3.0 for an integer; Python's ranges do not."""
    return isinstance(value, int) and not isinstance(value, bool)


_Validator = validators.extend(
    Draft202012Validator, type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_whole)
)


def schemas(task: str) -> dict[str, list[Schema]]:
    """By file name, what its content must fit, for a network of the task."""
    images = task == IMAGES
    return {
        "architecture.json": [ARCHITECTURE, {"properties": {"space": IMAGE_SPACE if images else CLICK_SPACE}}],
        "network.json": [NETWORK],
        "preprocess.json": [IMAGE_PREPROCESS if images else CLICK_PREPROCESS],
        "labels.json": [IMAGE_LABELS if images else CLICK_LABELS],
        "metrics.json": [METRICS, IMAGE_METRICS if images else CLICK_METRICS],
        "latency.json": [LATENCY],
        "provenance.json": [PROVENANCE],
    }


def require_schema(path: Path, value: Any, schema: Schema) -> None:
    """Raises ValueError with the file, the field, what is allowed and what stands there."""
    error = best_match(_Validator(schema).iter_errors(value))
    if error is not None:
        words = error.message if len(error.message) <= 200 else f"{error.message[:197]}..."
        field = error.json_path.removeprefix("$").lstrip(".")
        raise ValueError(f"{path}: {field or 'the whole'} is not what it should be: {words}")
