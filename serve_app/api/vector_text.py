"""Encodes vectors as JSON text, exact to the last bit of float32.

An answer may hold a million numbers. As Python floats they would take 25 MB, and encoding them at once would delay
every other request, so this module writes the text itself.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterable
from itertools import islice

import numpy as np
from numpy.typing import NDArray

ITEMS_AT_ONCE = 32
"""The number of items written before other work gets a turn: about 10 ms for vectors of 768 numbers."""


def as_numbers(vector: NDArray[np.float32]) -> str:
    """A JSON array of numbers. Nine digits represent every float32; Python's own 17 digits would double the size."""
    return "[" + ",".join(["%.9g"] * len(vector)) % tuple(vector.tolist()) + "]"


def as_base64(vector: NDArray[np.float32]) -> str:
    """A JSON string with the little-endian float32 numbers in base64."""
    return '"' + base64.b64encode(vector.astype("<f4").tobytes()).decode() + '"'


async def json_array(items: Iterable[str]) -> AsyncIterator[str]:
    """Join JSON texts into one JSON array, piece by piece; each text is made only when its piece is."""
    waiting = iter(items)
    separator = "["
    while piece := list(islice(waiting, ITEMS_AT_ONCE)):
        yield separator + ",".join(piece)
        separator = ","
        await asyncio.sleep(0)
    yield "]" if separator == "," else "[]"
