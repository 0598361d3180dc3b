"""Texts as vectors: a tokenizer, and a text tower of either engine.

Beside a tokenizer's files lies `text.json`: how texts are padded, or why the model takes no text. Letters for shapes: B
texts, T tokens, D dimension of a vector.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serve_app.embedding import sentence_pieces
from serve_app.embedding.sentence_pieces import SentencePieces
from serve_app.embedding.tokenizer import Encoded, FastTokenizer, Tokenizer
from serve_app.errors import InvalidRequest
from serve_app.records import VectorArray

Tokens = NDArray[np.int64]
Run = Callable[[Tokens, Tokens], VectorArray]
"""(B, T) token ids and (B, T) mask of those that count -> (B, D)."""

GRAPH = "text.xml"
RULES = "text.json"
MAX_CHARACTERS = 10_000
"""The limit of one text. Every tower cuts texts to some dozens of tokens, and a tokenizer reads all of a text first."""
PASS_TEXTS = 16
"""The number of texts in one pass."""


@dataclass(frozen=True, slots=True)
class TextRules:
    """How a model takes text.

    `no_text` says why it takes none and is empty where it does. `pads_to` is the number of tokens that every text is
    padded to with `pad_id`. Where it is None, texts are padded to the longest of their batch with their own last token,
    which no tower looks at. `uses_mask` is false where the model was trained to see the padding.
    """

    no_text: str = ""
    pads_to: int | None = None
    pad_id: int = 0
    pads_left: bool = False
    uses_mask: bool = True

    @classmethod
    def read(cls, folder: Path) -> "TextRules":
        """Read `text.json` of a folder."""
        return cls(**json.loads((folder / RULES).read_bytes()))

    def write(self, folder: Path) -> None:
        """Write `text.json` into a folder."""
        (folder / RULES).write_text(json.dumps(asdict(self)))


class TextEncoder:
    """A loaded text tower with its tokenizer. Several threads may call it if they may call `run`."""

    def __init__(self, tokenizer: Tokenizer, rules: TextRules, run: Run) -> None:
        self._tokenizer = tokenizer
        self._rules = rules
        self._run = run

    def vectors(self, texts: Sequence[str]) -> tuple[VectorArray, list[int]]:
        """Embed B ≥ 1 texts.

        Returns:
            (B, D) float32 vectors, not normalised, in the order of `texts`; and the positions of the texts that were
            longer than the model's limit, and were cut as its tokenizer cuts.

        Raises:
            InvalidRequest: see `check`; or the tokenizer makes no token of a text.
        """
        check(texts)
        encoded = [self._tokenizer.encode(text) for text in texts]
        if self._rules.pads_to is None and not all(text.ids for text in encoded):
            raise InvalidRequest("the model's tokenizer finds nothing that it knows in a text")
        parts = [self._run(*tokens_of(part, self._rules)) for part in _parts(encoded)]
        return np.concatenate(parts), [n for n, text in enumerate(encoded) if text.is_cut]


def tokenizer_of(folder: Path) -> Tokenizer:
    """The tokenizer that was saved in a folder, of whichever kind."""
    if (folder / sentence_pieces.RULES).is_file():
        return SentencePieces.read(folder)
    return FastTokenizer.read(folder)


def tokens_of(texts: Sequence[Encoded], rules: TextRules) -> tuple[Tokens, Tokens]:
    """The (B, T) ids and masks of the texts of one pass."""
    length = rules.pads_to or max(len(text.ids) for text in texts)
    ids = np.zeros((len(texts), length), np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        place = slice(length - len(text.ids), None) if rules.pads_left else slice(len(text.ids))
        ids[row] = rules.pad_id if rules.pads_to else text.ids[-1]
        ids[row, place] = text.ids
        mask[row, place] = 1
    return ids, mask if rules.uses_mask else np.ones_like(ids)


def check(texts: Sequence[str]) -> None:
    """Refuse texts that no tokenizer should see.

    Raises:
        InvalidRequest: a text is empty, has more than `MAX_CHARACTERS` characters, or holds a lone surrogate.
    """
    for n, text in enumerate(texts):
        which = f"text {n}" if len(texts) > 1 else "the text"
        if not text.strip():
            raise InvalidRequest(f"{which} is empty")
        if len(text) > MAX_CHARACTERS:
            raise InvalidRequest(f"{which} has {len(text):,} characters, at most {MAX_CHARACTERS:,} are taken")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InvalidRequest(f"{which} holds a lone surrogate, which is no character")


def _parts(texts: list[Encoded]) -> Iterator[list[Encoded]]:
    return (texts[start : start + PASS_TEXTS] for start in range(0, len(texts), PASS_TEXTS))
