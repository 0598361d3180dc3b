"""Cursors: the number of the last row of a page, as text that clients hand back unread."""

from serve_app.errors import InvalidRequest

_MAX_DIGITS = 18  # fits a BIGINT


def parse_cursor(cursor: str | None) -> int:
    """The number behind a cursor; -1 for none, which is before the first row.

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
