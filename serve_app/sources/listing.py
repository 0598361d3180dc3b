"""What all listings share: limits, opening annotation files, and checks of the names and labels in them."""

import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import IO

from serve_app.errors import InvalidRequest, RefusedImage
from serve_app.sources.files import decode_name, encode_name, open_real
from serve_app.sources.shortage import raise_shortage

UTF8_BOM = b"\xef\xbb\xbf"
MAX_IMAGES = 1_000_000
MAX_DEPTH = 32
LABEL_COLUMNS = ("label", "class", "category")
LEFT_OUT = frozenset({b"__MACOSX", b"lost+found", b"@eaDir", b"$RECYCLE.BIN", b"System Volume Information"})


def too_many_images() -> InvalidRequest:
    """The error for a dataset of more than `MAX_IMAGES` images."""
    return InvalidRequest(f"the dataset has more than {MAX_IMAGES:,} images; register its parts as datasets")


def label_text(value: object) -> str | None:
    """A label as text; 3.0 and nan, which pandas writes for a column of whole numbers with gaps, become "3" and None.

    Raises:
        InvalidRequest: the label is neither a text nor a number.
    """
    if value is None or value == "" or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise InvalidRequest(f"the label must be a text or a number, not {type(value).__name__}")
    return str(value)


def is_left_out(name: bytes) -> bool:
    """Whether a folder's entry is hidden or was created by a system."""
    return name.startswith(b".") or name in LEFT_OUT


def image_path(text: str, place: str) -> str:
    """A file name from an annotation file in its canonical spelling, without `./` and doubled slashes.

    Raises:
        InvalidRequest: the name is empty, absolute, leads out of the folder, or cannot be decoded.
    """
    try:
        raw = decode_name(text)
    except RefusedImage as error:
        raise InvalidRequest(f"{place}: {text!r} is not a file name ({error.detail})") from None
    parts = raw.split(b"/")
    if raw.startswith(b"/") or b".." in parts or b"\0" in raw:
        raise InvalidRequest(f"{place}: {text!r} leads outside; file names are relative to the dataset's folder")
    kept = [part for part in parts if part not in (b"", b".")]
    if not kept:
        raise InvalidRequest(f"{place}: the file name is empty")
    return encode_name(b"/".join(kept))


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
