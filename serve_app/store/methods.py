"""What the store's public methods share: the marks of writes and of kept reads, and checks of cursors and limits."""

from collections.abc import Callable
from typing import TypeVar

from serve_app.errors import Conflict, InvalidRequest

F = TypeVar("F", bound=Callable[..., object])

_MAX_DIGITS = 18  # fits a BIGINT


def write(method: F) -> F:
    """Mark a store method as a write: `StoreExecutor` runs it on the one writer thread."""
    method.is_write = True  # type: ignore[attr-defined]
    return method


def cached(method: F) -> F:
    """Mark a small read whose answer only a write changes: `StoreExecutor` keeps it until the next one begins."""
    method.is_cached = True  # type: ignore[attr-defined]
    return method


def parse_cursor(cursor: str | None) -> int:
    """The number of the row after which a page begins; without a cursor it is -1, which is before the first row.

    A cursor is the number of a page's last row, as text. Clients send it back without interpreting it.

    Raises:
        InvalidRequest: the text is not a row number.
    """
    if cursor is None:
        return -1
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= _MAX_DIGITS):
        raise InvalidRequest("the cursor is not one that this listing gave")
    return int(cursor)


def page_start(cursor: str | None, version: int, *, changed: str, of_map: str = "") -> int:
    """The number of the row after which a page begins, as `parse_cursor`, in a listing that can be replaced by another.

    Args:
        cursor: what `page_end` made for the page before.
        version: a number that tells this listing from those before it.
        of_map: the job of the map that the listing was made with, if any.
        changed: the message if the cursor belongs to another listing.

    Raises:
        InvalidRequest: `page_end` does not make such a text.
        Conflict: the cursor belongs to a listing that was replaced; its rows have other numbers.
    """
    if cursor is None:
        return -1
    of, _, row = cursor.partition("-")
    row, _, named = row.partition("-") if of_map else (row, "", "")
    start = parse_cursor(row)
    if (parse_cursor(of), named) != (version, of_map):
        raise Conflict(changed)
    return start


def page_end(row: int, version: int, of_map: str = "") -> str:
    """The cursor of the page that begins after a row of a listing."""
    return f"{version}-{row}-{of_map}" if of_map else f"{version}-{row}"


def require_limit(limit: int) -> int:
    """Return the limit unchanged.

    Raises:
        InvalidRequest: the limit is not positive.
    """
    if limit < 1:
        raise InvalidRequest("the limit must be at least 1")
    return limit
