"""Files below a dataset's root: how they are named, opened, read once and examined.

File names are `/`-separated paths relative to the root, in the spelling of `encode_name`. They come from
clients' annotation files and from folders that other people write to, so nothing here trusts them: every
folder on the way is opened from the one above it and no symbolic link is followed, not even one that
appears between two calls (a check of `realpath` leaves that gap). Hard links cannot be told from files.

Reasons of a `RefusedImage` from here: not_found, permission_denied, not_regular, symlink, empty, too_large, io_error,
unsafe_name.
"""

import errno
import hashlib
import os
import stat
from itertools import groupby
from urllib.parse import quote, unquote_to_bytes

from serve_app.errors import RefusedImage, Unavailable
from serve_app.records import FileStamp

ESCAPE = "bytes:"
READ_BYTES = 1 << 20

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a fifo waits for somebody to write to it.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

UNKNOWN = (-1, -1)
"""Size and mtime of what is not a readable regular file."""
_REASONS = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.ENAMETOOLONG: "not_found",
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.ELOOP: "symlink",
    errno.ENXIO: "not_regular",
    errno.ENODEV: "not_regular",
}
_DETAILS = {
    "not_found": "the file is not there",
    "permission_denied": "the service may not read it",
    "symlink": "symbolic links are not followed; put the file itself into the dataset's folder",
    "not_regular": "it is a folder, pipe, socket or device, not a file",
}


def encode_name(raw: bytes) -> str:
    """Spell a file-system name as text that JSON and DuckDB can hold.

    Valid UTF-8 is itself; any other name is `bytes:` and its percent-quoted bytes. Different names have
    different spellings, and `decode_name` gives the name back.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return ESCAPE + quote(raw)
    return ESCAPE + quote(raw) if text.startswith(ESCAPE) else text


def decode_name(text: str) -> bytes:
    """The file-system name that `encode_name` spelled.

    Raises:
        RefusedImage: no name has this spelling (unsafe_name).
    """
    try:
        raw = unquote_to_bytes(text.removeprefix(ESCAPE)) if text.startswith(ESCAPE) else text.encode("utf-8")
    except UnicodeEncodeError:
        raise RefusedImage("unsafe_name: the name is not valid Unicode") from None
    if text.startswith(ESCAPE) and encode_name(raw) != text:
        raise RefusedImage("unsafe_name: the name begins with 'bytes:' and is not a percent-quoted name")
    return raw


def open_beneath(root: str, file_name: str) -> int:
    """Open a regular file below a folder, following no symbolic link, and return its descriptor.

    Raises:
        RefusedImage: not_found, permission_denied, not_regular, symlink, io_error or unsafe_name.
        Unavailable: this process has too many files open.
    """
    *folders, last = _parts(file_name)
    folder_fd = _open_folder(root, folders)
    try:
        fd = os.open(last, _OPEN_FILE, dir_fd=folder_fd)
    except OSError as error:
        raise _unreadable(error) from None
    finally:
        os.close(folder_fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _refused("not_regular")
    return fd


def read_file(root: str, file_name: str, *, max_bytes: int) -> tuple[bytes, FileStamp]:
    """Read a file once; the stamp's hash is of exactly the bytes returned, even while somebody writes to it.

    Size and mtime are those of the open file before its first byte was read.

    Raises:
        RefusedImage: as `open_beneath`, or the file is empty or too_large (more than `max_bytes`).
        Unavailable: this process has too many files open.
    """
    fd = open_beneath(root, file_name)
    try:
        found = os.fstat(fd)
        data = _read_all(fd, expected_bytes=found.st_size, max_bytes=max_bytes)
    except OSError as error:
        raise _unreadable(error) from None
    finally:
        os.close(fd)
    if not data:
        raise RefusedImage("empty: the file holds no bytes")
    return data, FileStamp(hashlib.sha256(data).hexdigest(), found.st_size, found.st_mtime_ns)


def check_size(n_bytes: int, max_bytes: int, *, what: str = "file") -> None:
    """Refuse what is known to be larger than may be read. Raises `RefusedImage`: too_large."""
    if n_bytes > max_bytes:
        raise RefusedImage(f"too_large: the {what} has {n_bytes:,} bytes, more than {max_bytes:,}")


def stat_files(root: str, file_names: list[str]) -> list[tuple[int, int]]:
    """Size in bytes and mtime in ns of each file, in order; -1 twice for what is not a readable regular file.

    Neighbours in the list that share a folder cost one system call each.

    Raises:
        Unavailable: this process has too many files open.
    """
    stats: list[tuple[int, int]] = []
    for folders, names in groupby(map(_parts_or_none, file_names), key=lambda parts: parts and parts[:-1]):
        try:
            folder_fd = _open_folder(root, folders) if folders is not None else None
        except RefusedImage:
            folder_fd = None
        if folder_fd is None:
            stats.extend(UNKNOWN for _ in names)
            continue
        try:
            stats.extend(stat_in(folder_fd, parts[-1]) for parts in names if parts)
        finally:
            os.close(folder_fd)
    return stats


def stat_in(folder_fd: int, name: bytes) -> tuple[int, int]:
    """Size in bytes and mtime in ns of a regular file in an open folder; -1 twice for anything else."""
    try:
        found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except OSError:
        return UNKNOWN
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else UNKNOWN


def _parts(file_name: str) -> list[bytes]:
    """The parts of a name; refuses those that could lead anywhere but down."""
    raw = decode_name(file_name)
    parts = raw.split(b"/")
    if b"\0" in raw or not {b"", b".", b".."}.isdisjoint(parts):
        raise RefusedImage("unsafe_name: file names are relative paths without '.', '..', '//' and NUL")
    return parts


def _parts_or_none(file_name: str) -> list[bytes] | None:
    try:
        return _parts(file_name)
    except RefusedImage:
        return None


def _open_folder(root: str, folders: list[bytes]) -> int:
    """Open the folder that lies `folders` below the root."""
    try:
        fd = os.open(root, OPEN_FOLDER)
    except OSError as error:
        raise _unreadable(error) from None
    for folder in folders:
        try:
            inner = os.open(folder, OPEN_FOLDER, dir_fd=fd)
        except OSError as error:
            # A link that must be a folder but not be followed is ENOTDIR on Linux, like a file in its place.
            raise (_refused("symlink") if _is_symlink(fd, folder) else _unreadable(error)) from None
        finally:
            os.close(fd)
        fd = inner
    return fd


def _is_symlink(folder_fd: int, name: bytes) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _read_all(fd: int, *, expected_bytes: int, max_bytes: int) -> bytes:
    """Read to the end; the size a file had when opened is only a hint."""
    check_size(expected_bytes, max_bytes)
    chunks = [os.read(fd, expected_bytes + 1)]
    n_bytes = len(chunks[0])
    while chunks[-1]:
        if n_bytes > max_bytes:
            raise RefusedImage(f"too_large: the file has more than {max_bytes:,} bytes")
        chunks.append(os.read(fd, READ_BYTES))
        n_bytes += len(chunks[-1])
    return b"".join(chunks)


def _refused(reason: str) -> RefusedImage:
    return RefusedImage(f"{reason}: {_DETAILS[reason]}")


def _unreadable(error: OSError) -> RefusedImage | Unavailable:
    """What a failed system call means for the caller."""
    code = error.errno or errno.EIO
    if code in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        # Says nothing about the file: skipping it would be wrong.
        return Unavailable(f"files cannot be opened now: {os.strerror(code).lower()}")
    if code in _REASONS:
        return _refused(_REASONS[code])
    return RefusedImage(f"io_error: {os.strerror(code).lower()}")
