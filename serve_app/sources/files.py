"""Names, opens, reads and examines the files below a dataset's root.

File names are `/`-separated paths relative to the root, spelled by `encode_name`. They come from clients' annotation
files and from folders that other people write to, so this module does not trust them. It opens every folder on the way
from the folder above, beginning with the top of the file system, and follows no symbolic link, not even one that
appears between two calls (a check of `realpath` would leave that gap). The paths of datasets and annotation files are
real paths, so a link in one was put there later. Hard links cannot be distinguished from files.

A `RefusedImage` of this module has one of the reasons not_found, permission_denied, not_regular, symlink, empty,
too_large, io_error, unsafe_name.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from serve_app.errors import RefusedImage
from serve_app.records import FileStamp
from serve_app.sources.shortage import raise_shortage

ESCAPE = "bytes:"
READ_BYTES = 1 << 20

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Passing through a folder needs the right to enter it, and not the right to list it, where the system has O_PATH.
_ENTER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a fifo would wait for a writer.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Stat = tuple[int, int]
"""The size of a file in bytes, and its mtime in ns or another number that changes when its content changes."""

UNKNOWN: Stat = (-1, -1)
"""The size and mtime of anything that is not a readable regular file. A file may have this mtime, but not this size."""
MAX_MTIME_NS = (1 << 63) - 1
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


def is_plain(text: str) -> bool:
    """Whether a name is surely canonical and its own spelling; of a million names nearly all are, and this is quick."""
    return (
        text.isascii()
        and text != ""
        and "//" not in text
        and "/." not in text
        and "\0" not in text
        and not text.startswith((".", "/", ESCAPE))
        and not text.endswith("/")
    )


def encode_name(raw: bytes) -> str:
    """Spell a file-system name as text that JSON and DuckDB can hold.

    A name in valid UTF-8 stays unchanged; any other name becomes `bytes:` and its percent-quoted bytes. Different names
    have different spellings, and `decode_name` restores the name.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return ESCAPE + quote(raw)
    return ESCAPE + quote(raw) if text.startswith(ESCAPE) else text


def decode_name(text: str) -> bytes:
    """The file-system name of which `encode_name` made this spelling.

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


def open_real(path: Path, flags: int = _OPEN_FILE) -> int:
    """Open a file, or with `OPEN_FOLDER` a folder, by its absolute path, and return its descriptor.

    A file may be anything but a symbolic link; opening a fifo does not wait.

    Raises:
        OSError: it cannot be opened, or the path leads through a symbolic link (ENOTDIR or ELOOP).
    """
    folder, *folders, last = (os.fsencode(part) for part in (path.parts if len(path.parts) > 1 else (*path.parts, ".")))
    fd = os.open(folder, _ENTER)
    for name in folders:
        fd = _entered(fd, name)
    try:
        return os.open(last, flags, dir_fd=fd)
    finally:
        os.close(fd)


def open_beneath(root: str, file_name: str) -> int:
    """Open a regular file below a folder without following symbolic links, and return its descriptor.

    Raises:
        RefusedImage: the reason is not_found, permission_denied, not_regular, symlink, io_error or unsafe_name.
        Unavailable: this process has too many files open.
    """
    *folders, last = _parts(file_name)
    folder_fd = _open_folder(root, folders)
    try:
        fd = os.open(last, _OPEN_FILE, dir_fd=folder_fd)
    except OSError as error:
        raise unreadable(error) from None
    finally:
        os.close(folder_fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _refused("not_regular")
    return fd


def read_file(root: str, file_name: str, *, max_bytes: int) -> tuple[bytes, FileStamp]:
    """Read a file once; the stamp's hash belongs to exactly the returned bytes, even if somebody writes to the file.

    The stamp's size and mtime are those of the open file before its first byte was read.

    Raises:
        RefusedImage: as for `open_beneath`, or the file is empty or too_large (more than `max_bytes`).
        Unavailable: this process has too many files open.
    """
    fd = open_beneath(root, file_name)
    try:
        found = os.fstat(fd)
        data = _read_all(fd, expected_bytes=found.st_size, max_bytes=max_bytes)
    except OSError as error:
        raise unreadable(error) from None
    finally:
        os.close(fd)
    if not data:
        raise RefusedImage("empty: the file holds no bytes")
    return data, FileStamp(hashlib.sha256(data).hexdigest(), found.st_size, _mtime_ns(found))


def read_part(root: str, file_name: str, start: int, n_bytes: int) -> bytes:
    """The `n_bytes` of a file from `start` on; fewer if the file ends before.

    Raises:
        RefusedImage: as for `open_beneath`.
        Unavailable: this process has too many files open.
    """
    fd = open_beneath(root, file_name)
    try:
        return os.pread(fd, n_bytes, start)
    except OSError as error:
        raise unreadable(error) from None
    finally:
        os.close(fd)


def check_size(n_bytes: int, max_bytes: int, *, what: str = "file") -> None:
    """Raise `RefusedImage` (too_large) if `n_bytes` is more than `max_bytes`."""
    if n_bytes > max_bytes:
        raise RefusedImage(f"too_large: the {what} has {n_bytes:,} bytes, more than {max_bytes:,}")


def stat_files(root: str, file_names: list[str]) -> list[tuple[int, int]]:
    """The size in bytes and mtime in ns of each file, in order; both are -1 if it is not a readable regular file.

    The files of a folder, in whatever order they come, cost one system call each, and their folder a few.

    Raises:
        Unavailable: this process has too many files open.
    """
    stats = [UNKNOWN] * len(file_names)
    by_folder: dict[tuple[bytes, ...], list[tuple[int, bytes]]] = {}
    for place, parts in enumerate(map(_parts_or_none, file_names)):
        if parts is not None:
            by_folder.setdefault(tuple(parts[:-1]), []).append((place, parts[-1]))
    for folders, files in by_folder.items():
        try:
            folder_fd = _open_folder(root, folders)
        except RefusedImage:
            continue
        try:
            for place, name in files:
                stats[place] = stat_in(folder_fd, name)
        finally:
            os.close(folder_fd)
    return stats


def stat_in(folder_fd: int, name: bytes) -> tuple[int, int]:
    """The size in bytes and mtime in ns of a regular file in an open folder; both are -1 for anything else.

    Raises:
        Unavailable: the kernel has not got enough memory.
    """
    try:
        found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except OSError as error:
        raise_shortage(error)
        return UNKNOWN
    return (found.st_size, _mtime_ns(found)) if stat.S_ISREG(found.st_mode) else UNKNOWN


def _mtime_ns(found: os.stat_result) -> int:
    """The mtime as the database can store it; one that is centuries away becomes the nearest that it can."""
    return min(max(found.st_mtime_ns, -MAX_MTIME_NS), MAX_MTIME_NS)


def _parts(file_name: str) -> list[bytes]:
    """The parts of a name; a name that could lead out of the root is refused."""
    if is_plain(file_name):
        return file_name.encode().split(b"/")
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


def _open_folder(root: str, folders: Sequence[bytes]) -> int:
    """Open the folder that lies `folders` below the root."""
    try:
        fd = open_real(Path(root), _ENTER)
    except OSError as error:
        raise unreadable(error) from None
    for folder in folders:
        try:
            inner = os.open(folder, _ENTER, dir_fd=fd)
        except OSError as error:
            # On Linux, opening a symbolic link with these flags fails with ENOTDIR, as a file in its place does.
            raise (_refused("symlink") if _is_symlink(fd, folder) else unreadable(error)) from None
        finally:
            os.close(fd)
        fd = inner
    return fd


def _entered(folder_fd: int, name: bytes) -> int:
    """Open a folder in an open folder, which is closed in any case. Raises `OSError`."""
    try:
        return os.open(name, _ENTER, dir_fd=folder_fd)
    finally:
        os.close(folder_fd)


def _is_symlink(folder_fd: int, name: bytes) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _read_all(fd: int, *, expected_bytes: int, max_bytes: int) -> bytes:
    """Read to the end of the file; its size at opening is only a hint."""
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


def unreadable(error: OSError) -> RefusedImage:
    """The refusal for a system call that failed: permission_denied, io_error, not_found, ….

    Raises:
        Unavailable: this process has too many files open, or the kernel has not got enough memory.
    """
    raise_shortage(error)
    code = error.errno or errno.EIO
    if code in _REASONS:
        return _refused(_REASONS[code])
    return RefusedImage(f"io_error: {os.strerror(code).lower()}")
