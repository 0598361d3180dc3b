"""Removes from a PNG the texts and colour profiles that its pixels do not need.

Pillow refuses a picture whose profile or text has over a MiB when unpacked, because that may be a bomb. Photographs
have such XMP and ICC blocks. Without them the picture is decoded and the bomb is not.
"""

import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT_BYTES = 1 << 20
MAX_CHUNKS = 100_000
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})


def without_long_metadata(data: bytes) -> bytes:
    """The file without its colour profile and without texts that have, unpacked, over `MAX_TEXT_BYTES` together.

    Short texts stay, because one may state the orientation. Any other file, and a PNG of very many chunks, is returned
    as it is.
    """
    if not data.startswith(SIGNATURE):
        return data
    kept, position, kept_from, text_bytes = list[bytes](), len(SIGNATURE), 0, 0
    for _ in range(MAX_CHUNKS):
        kind = data[position + 4 : position + 8]
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if len(kind) < 4 or end > len(data):
            break
        if kind in _TEXTS:
            text_bytes += _unpacked_bytes(kind, data[position + 8 : end - 4])
        if kind == b"iCCP" or (kind in _TEXTS and text_bytes > MAX_TEXT_BYTES):
            kept.append(data[kept_from:position])
            kept_from = end
        position = end
    return b"".join((*kept, data[kept_from:])) if kept else data


def _unpacked_bytes(kind: bytes, content: bytes) -> int:
    """The number of bytes of a text, unpacked no further than beyond the limit."""
    keyword, _, rest = content.partition(b"\0")
    if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] != b"\1"):
        return len(content)
    packed = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    try:
        return len(keyword) + len(zlib.decompressobj().decompress(packed, MAX_TEXT_BYTES + 1))
    except zlib.error:
        return len(content)
