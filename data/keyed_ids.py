"""torchrec's KeyedJaggedTensor of fields that hold exactly one id a sample."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor


def keyed_ids(keys: Sequence[str], ids: Tensor) -> KeyedJaggedTensor:
    """ids: [F, N] int64, row f the ids of keys[f]; the values share their memory where it is contiguous.

    Lengths and offsets are known beforehand, the same for all batches of a size, so they are made once and shared:
    torchrec, which would compute them from the lengths, must not change them in place, and does not.
    """
    fields, samples = ids.shape
    if fields != len(keys):
        raise ValueError(f"ids has {fields} rows for {len(keys)} keys: it must be [fields, samples]")
    lengths, offsets = _ones_and_offsets(fields * samples, ids.device)
    return KeyedJaggedTensor(
        keys=list(keys),
        values=ids.reshape(-1),
        lengths=lengths,
        offsets=offsets,
        stride=samples,
        length_per_key=[samples] * fields,
        offset_per_key=[samples * field for field in range(fields + 1)],
    )


@functools.lru_cache(maxsize=16)
def _ones_and_offsets(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return (
        torch.ones(count, dtype=torch.int32, device=device),
        torch.arange(count + 1, dtype=torch.int32, device=device),
    )
