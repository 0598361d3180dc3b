"""Notices when a client has gone while its request is being answered."""

from contextlib import suppress

from starlette.types import Receive


async def until_gone(receive: Receive) -> None:
    """Wait until the client leaves; if Serve cancels the request, `receive` raises one of Ray's errors."""
    with suppress(Exception):
        while (await receive())["type"] != "http.disconnect":
            pass
