"""What the store's public methods have in common: the mark of a write, and how a page is asked for."""

from collections.abc import Callable
from typing import TypeVar

from serve_app.errors import InvalidRequest

F = TypeVar("F", bound=Callable[..., object])

_MAX_DIGITS = 18  # fits a BIGINT


def write(method: F) -> F:
    """Mark a store method as a write: `StoreExecutor` runs it on the one writer thread."""
    method.is_write = True  # type: ignore[attr-defined]
    return method


def parse_cursor(cursor: str | None) -> int:
    """The number of the row after which a page begins; -1 without a cursor, which is before the first row.

    A cursor is the number of a page's last row, as text that clients hand back unread.

    Raises:
        InvalidRequest: no page ended with this cursor.
    """
    if cursor is None:
        return -1
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= _MAX_DIGITS):
        raise InvalidRequest("the cursor is not one that this listing gave")
    return int(cursor)


def require_limit(limit: int) -> int:
    """The limit itself.

    Raises:
        InvalidRequest: it is not positive.
    """
    if limit < 1:
        raise InvalidRequest("the limit must be at least 1")
    return limit
