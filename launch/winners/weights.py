"""The weights of a winner's folder: one safetensors file, or several where they are many; tables may be cut by rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from subshot.train.winner_dir import WinnerDir

FILE_BYTES = 2**31


def write_weights(folder: WinnerDir, weights: Mapping[str, Tensor], file_bytes: int = FILE_BYTES) -> list[str]:
    """Writes files of at most file_bytes each; returns the names of the tensors that were cut, for `joined`.

    A tensor above that becomes <name>.rows-00000, -00001, ...; load.py puts them together again.
    """
    pieces, cut = [], []
    for name, value in weights.items():
        parts = _cut(value.contiguous(), file_bytes)
        if len(parts) > 1:
            cut.append(name)
        named = [name] if len(parts) == 1 else [f"{name}.rows-{number:05d}" for number in range(len(parts))]
        pieces += list(zip(named, parts, strict=True))
    files: list[dict[str, Tensor]] = [{}]
    room = file_bytes
    for name, value in pieces:
        size = value.numel() * value.element_size()
        if size > room and files[-1]:
            files.append({})
            room = file_bytes
        files[-1][name] = value
        room -= size
    for number, content in enumerate(files, start=1):
        path = folder.weights(number, len(files))
        save_file(content, path)
        path.chmod(0o644)  # safetensors makes files that only their owner reads
    return cut


def _cut(value: Tensor, file_bytes: int) -> list[Tensor]:
    size = value.numel() * value.element_size()
    if size <= file_bytes or value.dim() == 0 or len(value) == 1:
        return [value]
    rows = max(1, file_bytes * len(value) // size)
    return [part.clone() for part in torch.split(value, rows)]


def weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))
