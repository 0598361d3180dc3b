"""The header `Prefer` (RFC 7240), of which the service knows one preference: `respond-async`."""

from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

RESPOND_ASYNC = "respond-async"
APPLIED = {"Preference-Applied": RESPOND_ASYNC}

_Prefer = Annotated[
    Annotated[str, Field(max_length=1000)] | SkipJsonSchema[None],
    Header(description="`respond-async`: a job does it, and the answer is 202", examples=[RESPOND_ASYNC]),
]


def _is_async(request: Request, prefer: _Prefer = None) -> bool:
    """Whether one of the preferences is to answer before the work is done; unknown ones are ignored."""
    preferences = ",".join(request.headers.getlist("Prefer")).split(",")
    return any(each.partition(";")[0].strip().lower() == RESPOND_ASYNC for each in preferences)


RespondAsync = Annotated[bool, Depends(_is_async)]
"""Whether the client asked not to wait."""
