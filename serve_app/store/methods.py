"""What the store's public methods share: the mark of a write, and the checks of cursors and limits."""

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


def require_limit(limit: int) -> int:
    """Return the limit unchanged.

    Raises:
        InvalidRequest: the limit is not positive.
    """
    if limit < 1:
        raise InvalidRequest("the limit must be at least 1")
    return limit
