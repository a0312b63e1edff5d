"""What the first and last bytes of an image file say: its type, its size, and whether its end is there.

The type is read from the content and never from the name: ImageNet's n02105855_2933.JPEG is a PNG. Sources: ITU-T T.81
(JPEG) annex B, and the PNG specification (third edition) sections 5 and 11.2.
"""

from __future__ import annotations

HEAD_BYTES = 26
TAIL_BYTES = 65_536

_JPEG_START = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xae\x42\x60\x82"
# Frame headers are 0xC0 to 0xCF without a Huffman table, a reserved code and arithmetic conditioning.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def why_broken(head: bytes, tail: bytes) -> str | None:
    """One clause on why the file cannot be a whole JPEG or PNG, or None.

    head is the first HEAD_BYTES of the file and tail up to TAIL_BYTES of its end. Bytes after the end marker are
    allowed, as decoders allow them. Damage between the two ends is not seen here.
    """
    if not head:
        return "the file has no bytes"
    if head.startswith(_JPEG_START):
        return None if _JPEG_END in tail else "the JPEG is cut off (no end-of-image marker)"
    if head.startswith(_PNG_START):
        return None if _PNG_END in tail else "the PNG is cut off (no IEND chunk)"
    return "the content is neither JPEG nor PNG"


def dimensions(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels as stored, before any EXIF orientation; ValueError with the reason, without a path."""
    if data.startswith(_PNG_START):
        if len(data) < HEAD_BYTES or data[12:16] != b"IHDR":
            raise ValueError("the PNG has no IHDR chunk")
        return _positive(int.from_bytes(data[20:24]), int.from_bytes(data[16:20]))
    if data.startswith(_JPEG_START):
        return _jpeg_dimensions(data)
    raise ValueError("the content is neither JPEG nor PNG")


def _jpeg_dimensions(data: bytes) -> tuple[int, int]:
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in _JPEG_FRAMES:
            return _positive(
                int.from_bytes(data[position + 5 : position + 7]), int.from_bytes(data[position + 7 : position + 9])
            )
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4])
    raise ValueError("the JPEG has no frame header before its data")


def _positive(height: int, width: int) -> tuple[int, int]:
    if height == 0 or width == 0:
        raise ValueError(f"the header gives a size of {width} x {height} pixels")
    return height, width
