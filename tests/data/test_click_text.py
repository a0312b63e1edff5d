"""Raw logs as blocks of whole lines, from plain and gzip files."""

import gzip
from pathlib import Path

import pytest

from subshot.data.click_text import first_lines, sha256_of, text_blocks
from subshot.data.image_folder import DataError

LINES = [f"line {i} {'x' * (i % 7)}" for i in range(500)]
TEXT = "".join(line + "\n" for line in LINES).encode()


def packed(path: Path, text: bytes, kind: str) -> Path:
    path.write_bytes(gzip.compress(text) if kind == "gzip" else text)
    return path


@pytest.mark.parametrize("kind", ["plain", "gzip"])
@pytest.mark.parametrize("block_bytes", [1, 37, 1000, 10**6])
def test_blocks_put_together_are_the_file_and_can_be_resumed_anywhere(
    tmp_path: Path, kind: str, block_bytes: int
) -> None:
    path = packed(tmp_path / "log", TEXT, kind)
    blocks = list(text_blocks(path, block_bytes=block_bytes))
    assert b"".join(block.text for block in blocks) == TEXT
    assert [block.text.count(b"\n") for block in blocks] == [block.lines for block in blocks]
    assert blocks[-1].end == len(TEXT)
    middle = blocks[len(blocks) // 2]
    rest = list(text_blocks(path, middle.end, middle.first_line + middle.lines - 1, block_bytes))
    assert [block.text for block in rest] == [block.text for block in blocks[len(blocks) // 2 + 1 :]]
    assert [block.first_line for block in rest] == [block.first_line for block in blocks[len(blocks) // 2 + 1 :]]


@pytest.mark.parametrize("block_bytes", [3, 10**6])
def test_carriage_returns_and_a_missing_last_line_feed_change_nothing(tmp_path: Path, block_bytes: int) -> None:
    path = packed(tmp_path / "log", TEXT.replace(b"\n", b"\r\n")[:-2], "plain")
    blocks = list(text_blocks(path, block_bytes=block_bytes))
    assert b"".join(block.text for block in blocks) == TEXT
    assert sum(block.lines for block in blocks) == len(LINES)
    assert blocks[-1].end == path.stat().st_size


def test_gzip_members_follow_one_another(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(TEXT) + gzip.compress(TEXT))
    assert b"".join(block.text for block in text_blocks(path)) == TEXT + TEXT


def test_a_cut_off_gzip_file_is_named_with_the_lines_that_were_read(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(TEXT)[:-9])
    with pytest.raises(DataError, match=r"log\.gz is a cut off gzip file: [1-9]\d* whole lines were read"):
        list(text_blocks(path, block_bytes=100))
    long = "".join(f"{i} {i * 7919 % 104729}\n" for i in range(20_000)).encode()
    path.write_bytes(gzip.compress(long)[:-9])
    with pytest.raises(DataError, match=r"file: 1[5-9]\d\d\d whole lines were read; fetch it again"):
        list(text_blocks(path, block_bytes=2**30))


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    good = bytearray(gzip.compress(TEXT))
    good[-6] ^= 255  # the checksum
    path.write_bytes(good)
    with pytest.raises(DataError, match="damaged gzip file, behind line"):
        list(text_blocks(path))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (gzip.compress(b"", mtime=0), "holds no text"),
        (b"PK\x03\x04 and so on", "is a zip archive; unpack it"),
        (b"a\nb\n" + b"x" * (2**20 + 2), "line 3 is longer than 1 MiB"),
    ],
)
def test_what_is_no_log_is_said_in_a_sentence(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    with pytest.raises(DataError, match=what):
        list(text_blocks(path))
    with pytest.raises(DataError, match="is a folder"):
        list(text_blocks(tmp_path))


def test_first_lines_and_the_digest(tmp_path: Path) -> None:
    path = packed(tmp_path / "log", b"a\nb\r\nc\n", "gzip")
    assert first_lines(path) == [b"a", b"b", b"c"]
    assert first_lines(path, 2) == [b"a", b"b"]
    assert first_lines(packed(tmp_path / "one", b"a", "plain")) == [b"a"]
    seen: list[int] = []
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256_of(packed(tmp_path / "none", b"", "plain")) == empty
    sha256_of(path, seen.append)
    assert seen[-1] == path.stat().st_size
