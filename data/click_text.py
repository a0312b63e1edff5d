"""Text files, plain or gzip, as blocks of whole lines, so that a log of any size is read in bounded memory."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from subshot.data.image_folder import DataError

BLOCK_BYTES = 4 * 2**20
LONGEST_LINE = 2**20
_PIECE_BYTES = 2**16
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"


@dataclass(frozen=True)
class Block:
    """Whole lines, each ending in a line feed. first_line is counted from 1; end is the text's offset after the block
    (of the unpacked text); file_end the bytes of the file that were read for it."""

    text: bytes
    first_line: int
    lines: int
    end: int
    file_end: int

    def without_first_line(self) -> Block:
        """For a header."""
        text = self.text[self.text.index(b"\n") + 1 :]
        return Block(text, self.first_line + 1, self.lines - 1, self.end, self.file_end)


def text_blocks(path: Path, end: int = 0, lines: int = 0, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """The lines of a file behind the first `lines`, which are its first `end` bytes of unpacked text.

    Where `end` is that of a block, the blocks are those that would have followed it.

    gzip is recognised by content. Carriage returns before line feeds are dropped; a last line without its line feed
    counts. Raises DataError for an empty, cut off or damaged file, for a zip archive and for a line above 1 MiB.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the raw log itself")
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if not magic:
            raise DataError(f"{path} is empty")
        if magic == _ZIP:
            raise DataError(f"{path} is a zip archive; unpack it, or pack the log with gzip")
        if magic[:2] != _GZIP:
            yield from _blocks(path, file, file, end, lines, block_bytes)
            return
        with gzip.GzipFile(fileobj=file) as stream:
            yield from _blocks(path, stream, file, end, lines, block_bytes)


def _blocks(
    path: Path, stream: BinaryIO | gzip.GzipFile, file: BinaryIO, end: int, lines: int, block_bytes: int
) -> Iterator[Block]:
    carry, first = b"", True
    pieces: list[bytes] = []
    try:
        stream.seek(end)
        # Reads end at whole multiples of block_bytes, so a resumed reader cuts its blocks where the first one did.
        size = -(-end // block_bytes) * block_bytes + block_bytes - end
        while _read(stream, size, pieces):
            size = block_bytes
            text = carry + b"".join(pieces)
            pieces.clear()
            cut = text.rfind(b"\n") + 1
            carry = text[cut:]
            if len(carry) > LONGEST_LINE:
                raise DataError(f"{path}, line {lines + text.count(10) + 1} is longer than 1 MiB: this is no click log")
            if cut:
                block = _block(text[:cut], lines, end, file.tell())
                lines, end, first = lines + block.lines, block.end, False
                yield block
    except EOFError as error:
        whole = lines + carry.count(b"\n") + sum(piece.count(b"\n") for piece in pieces)
        raise DataError(f"{path} is a cut off gzip file: {whole} whole lines were read; fetch it again") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a damaged gzip file, behind line {lines} ({error}); fetch it again") from error
    if carry:
        yield _block(carry + b"\n", lines, end - 1, file.tell())
    elif first and end == 0:
        raise DataError(f"{path} holds no text")


def _read(stream: BinaryIO | gzip.GzipFile, size: int, pieces: list[bytes]) -> bool:
    """Appends up to `size` bytes to pieces; what was read before an error is there, too. Whether there was any."""
    while size and (piece := stream.read(min(size, _PIECE_BYTES))):
        pieces.append(piece)
        size -= len(piece)
    return bool(pieces)


def _block(text: bytes, lines: int, end: int, file_end: int) -> Block:
    end += len(text)
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    return Block(text, lines + 1, text.count(b"\n"), end, file_end)


def first_lines(path: Path, count: int = 10) -> list[bytes]:
    """At most `count` lines from the beginning of a file, without their ends. Errors as for text_blocks."""
    return next(text_blocks(path, block_bytes=2**16)).text.split(b"\n", count)[:-1]


def sha256_of(path: Path, progress: Callable[[int], None] = lambda done: None) -> str:
    """Of a file's bytes, as hexadecimal digits. progress is told the bytes read so far."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(BLOCK_BYTES):
            digest.update(piece)
            done += len(piece)
            progress(done)
    return digest.hexdigest()
