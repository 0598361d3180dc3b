"""How a text becomes the numbers of its tokens: the one thing that the rest asks of any tokenizer."""

from pathlib import Path
from typing import NamedTuple, Protocol

import tokenizers

FAST = "tokenizer.json"
"""The file of a `FastTokenizer`."""


class Encoded(NamedTuple):
    """The token ids of a text, special ones included, without padding; and whether the text was longer than that."""

    ids: list[int]
    is_cut: bool


class Tokenizer(Protocol):
    """Cuts texts into tokens. Several threads may call it."""

    def encode(self, text: str) -> Encoded:
        """Cut a text into as many tokens as its model takes."""
        ...

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        ...


class FastTokenizer:
    """A tokenizer of the library `tokenizers`, which cuts texts to the length that it was set to."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def read(cls, folder: Path) -> "FastTokenizer":
        """Read what `save` wrote."""
        return cls(tokenizers.Tokenizer.from_file(str(folder / FAST)))

    def encode(self, text: str) -> Encoded:
        """See `Tokenizer.encode`."""
        encoding = self._tokenizer.encode(text)
        return Encoded(encoding.ids, bool(encoding.overflowing))

    def save(self, folder: Path) -> None:
        """See `Tokenizer.save`."""
        self._tokenizer.save(str(folder / FAST))
