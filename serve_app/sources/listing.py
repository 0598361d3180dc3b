"""What all listings share: limits, opening annotation files, and checks of the names and labels in them."""

import os
import stat
import unicodedata
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from serve_app.errors import InvalidRequest, RefusedImage
from serve_app.sources.files import ESCAPE, decode_name, encode_name, is_plain, open_real
from serve_app.sources.shortage import raise_shortage

UTF8_BOM = b"\xef\xbb\xbf"
MAX_IMAGES = 1_000_000
MAX_DEPTH = 32
MAX_NAME_BYTES = 4096
MAX_LABEL_CHARS = 1000
LABEL_COLUMNS = ("label", "class", "category", "labels", "class_name", "label_name", "category_name", "target")
LEFT_OUT = frozenset({b"__MACOSX", b"lost+found", b"@eaDir", b"$RECYCLE.BIN", b"System Volume Information"})
SHOWN_NAMES = 5


class Untyped(str):
    """A text of a file without types, such as CSV: it may stand for a number, a truth value or a time."""

    __slots__ = ()


def too_many_images() -> InvalidRequest:
    """The error for a dataset of more than `MAX_IMAGES` images."""
    return InvalidRequest(f"the dataset has more than {MAX_IMAGES:,} images; register its parts as datasets")


def shown(names: list[str]) -> str:
    """The first few names for a message, and the number of the others."""
    first = ", ".join(map(repr, names[:SHOWN_NAMES]))
    return first if len(names) <= SHOWN_NAMES else f"{first} and {len(names) - SHOWN_NAMES:,} more"


def label_text(value: object) -> str | None:
    """A label as text; 3.0 and nan, which pandas writes for a column of whole numbers with gaps, become "3" and None.

    Raises:
        InvalidRequest: the label is neither a text nor a number, is too long, or is not valid Unicode.
    """
    if type(value) is str and value.isascii() and len(value) <= MAX_LABEL_CHARS:
        return value or None  # most labels are such, and this is quick
    if value is None or value == "" or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise InvalidRequest(f"the label must be a text or a number, not {type(value).__name__}")
    try:
        text = str(value)  # Python refuses to write out a number of thousands of digits
        text.encode("utf-8")
    except ValueError:
        raise InvalidRequest("the label is not valid Unicode, or a number of thousands of digits") from None
    if len(text) > MAX_LABEL_CHARS:
        raise InvalidRequest(f"the label has {len(text):,} characters, more than {MAX_LABEL_CHARS:,}")
    return text


def is_left_out(name: bytes) -> bool:
    """Whether a folder's entry is hidden or was created by a system."""
    return name.startswith(b".") or name in LEFT_OUT


def image_path(text: str, place: str, *, root: Path | None = None, base: bytes = b"") -> str:
    """A file name from an annotation file in its canonical spelling: relative to the root, without dots and `//`.

    Args:
        text: the name as the file spells it.
        place: the name's place in the file, for messages.
        root: the dataset's folder; an absolute name below it becomes relative.
        base: the annotation file's folder below the root; a name that begins with `..` is relative to it.

    Raises:
        InvalidRequest: the name is empty, too long, leads out of the folder, or cannot be decoded.
    """
    if len(text) <= MAX_NAME_BYTES and is_plain(text):
        return text
    try:
        raw = decode_name(text)
    except RefusedImage as error:
        raise InvalidRequest(f"{place}: {text[:200]!r} is not a file name ({error.detail})") from None
    if len(raw) > MAX_NAME_BYTES:
        raise InvalidRequest(f"{place}: {text[:40]!r}… is not a file name: it has {len(raw):,} bytes")
    absolute = raw.startswith(b"/")
    if absolute and root is not None:
        raw, absolute = _below(raw, os.fsencode(root))
    parts = _resolved(raw.split(b"/"), base)
    if absolute or parts is None or b"\0" in raw:
        raise InvalidRequest(f"{place}: {text!r} leads outside; file names are relative to the dataset's folder")
    if not parts:
        raise InvalidRequest(f"{place}: the file name is empty")
    return encode_name(b"/".join(parts))


def spellings(name: str, base: bytes) -> list[str]:
    """The name itself, and then what it may be called on this disk.

    Windows writes backslashes, macOS decomposes accents, and some tools quote names as URLs do.

    Args:
        name: a canonical name, as `image_path` returns it.
        base: as for `image_path`.
    """
    if name.startswith(ESCAPE) or (name.isascii() and "\\" not in name and "%" not in name):
        return [name]
    forms = [name]
    for other in (name.replace("\\", "/"), unquote(name)):
        with suppress(InvalidRequest):  # such a name leads outside, so it is no name of an image here
            forms.append(image_path(other, "", base=base))
    forms += [unicodedata.normalize(form, name) for name in forms for form in ("NFC", "NFD")]
    return list(dict.fromkeys(forms))


def folder_of(annotations: Path, root: Path) -> bytes:
    """The annotation file's folder below the root, or nothing if it lies in the root or elsewhere."""
    folder = annotations.parent
    return os.fsencode(folder.relative_to(root)) if folder != root and folder.is_relative_to(root) else b""


def open_listing(path: Path) -> BufferedReader:
    """Open an annotation file and skip its UTF-8 mark, if it has one.

    Raises:
        InvalidRequest: the file cannot be opened, or is not a regular file any more.
    """
    try:
        # Registration checked the path, but a link or a fifo may have taken its place since.
        file = os.fdopen(open_real(path), "rb")
    except OSError as error:
        raise_shortage(error)
        reason = os.strerror(error.errno or 0).lower()
        raise InvalidRequest(f"annotation file {path.name!r} cannot be opened: {reason}") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InvalidRequest(f"annotation file {path.name!r} is not a regular file")
    skip_mark(file)
    return file


def skip_mark(file: IO[bytes]) -> None:
    """Move a file that was just opened to the byte after its UTF-8 mark, if it has one."""
    if file.read(len(UTF8_BOM)) != UTF8_BOM:
        file.seek(0)


def _below(raw: bytes, root: bytes) -> tuple[bytes, bool]:
    """The part of an absolute path below the root, and whether it is still absolute because it lies elsewhere."""
    inside = os.path.normpath(raw).startswith(root.rstrip(b"/") + b"/")
    return (os.path.normpath(raw)[len(root.rstrip(b"/")) + 1 :], False) if inside else (raw, True)


def _resolved(parts: list[bytes], base: bytes) -> list[bytes] | None:
    """The parts without `.` and `..`; None if they lead out of the root."""
    kept: list[bytes] = []
    above = base.split(b"/") if base else []
    is_above = False
    for part in parts:
        if part == b"..":
            if kept:
                kept.pop()
            elif above:
                above.pop()
                is_above = True
            else:
                return None
        elif part not in (b"", b"."):
            kept.append(part)
    return [*above, *kept] if is_above else kept
