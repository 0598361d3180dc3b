"""The tokenizer of SigLIP 1: a model of sentencepiece, and what transformers does to a text before and after.

The code follows `SiglipTokenizer` of transformers 5.23, which needs PyTorch's neighbours and half a second to import;
`text_network` compares the two before a model takes text (docs/decisions/0024-sentencepiece.md).
"""

import json
import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from serve_app.embedding.tokenizer import Encoded

MODEL = "spiece.model"
RULES = "pieces.json"
BLANK = "▁"
"""sentencepiece's sign for a space."""
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class PieceRules:
    """What a checkpoint says of its tokenizer beside the model of sentencepiece.

    `added` are the ids of tokens that are recognised in a text as they are written, and `special` are those among them
    that have a meaning. `max_tokens` counts the end token `eos_id`.
    """

    added: Mapping[str, int]
    special: tuple[str, ...]
    unk_token: str
    eos_id: int
    lowers: bool
    max_tokens: int


class SentencePieces:
    """A `Tokenizer` over the content of a `spiece.model`."""

    def __init__(self, model: bytes, rules: PieceRules) -> None:
        # The import is here because other models need none of it.
        from sentencepiece import SentencePieceProcessor

        self._model = model
        self._rules = rules
        self._processor = SentencePieceProcessor(model_proto=model)
        self._n_unk_pieces = len(self._processor.encode(rules.unk_token, out_type=str))
        longest_first = sorted(rules.added, key=len, reverse=True)
        self._added = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None

    @classmethod
    def read(cls, folder: Path) -> "SentencePieces":
        """Read what `save` wrote."""
        rules = json.loads((folder / RULES).read_bytes())
        return cls((folder / MODEL).read_bytes(), PieceRules(**rules | {"special": tuple(rules["special"])}))

    def save(self, folder: Path) -> None:
        """See `Tokenizer.save`."""
        (folder / MODEL).write_bytes(self._model)
        (folder / RULES).write_text(json.dumps(asdict(self._rules)))

    def encode(self, text: str) -> Encoded:
        """See `Tokenizer.encode`."""
        ids = [self._id_of(piece) for piece in self._pieces(text)]
        kept = ids[: self._rules.max_tokens - 1]
        ends_already = kept[-1:] == [self._rules.eos_id]
        return Encoded(kept if ends_already else [*kept, self._rules.eos_id], len(kept) < len(ids))

    def _pieces(self, text: str) -> list[str]:
        pieces = [piece for part in self._parts(text) for piece in self._pieces_of_part(part)]
        starts_blank = len(pieces) > 1 and pieces[0] == BLANK and pieces[1] in self._rules.special
        return pieces[1:] if starts_blank else pieces

    def _parts(self, text: str) -> Iterator[str]:
        """The text with a blank before it, cut at added tokens."""
        text = BLANK + text.replace(BLANK, " ")
        return filter(None, self._added.split(text) if self._added else [text])

    def _pieces_of_part(self, part: str) -> list[str]:
        if part in self._rules.added:
            return [part]
        # Without something before it, sentencepiece would drop the blank that a text begins with.
        pieces: list[str] = self._processor.encode(self._rules.unk_token + self._cleaned(part), out_type=str)
        return pieces[self._n_unk_pieces :]

    def _cleaned(self, part: str) -> str:
        """The text as SigLIP was trained on it: in lower case, without punctuation and double spaces."""
        lowered = part.lower() if self._rules.lowers else part
        return re.sub(r"\s+", " ", lowered.translate(_PUNCTUATION)).strip()

    def _id_of(self, piece: str) -> int:
        added = self._rules.added.get(piece)
        return int(self._processor.piece_to_id(piece)) if added is None else added
