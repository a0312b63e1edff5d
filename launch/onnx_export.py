"""What all winner folders share in their export."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

SCHEMA_VERSION = 1
"""Of architecture.json."""
MAX_DIFFERENCE = 1e-3
"""Between the outputs of torch and of onnxruntime, or the export has failed."""


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """The exporter prints its progress, and warns of packages that these networks do not use."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
