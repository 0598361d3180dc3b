"""A checkpoint's text tower as a PyTorch module, and its tokenizer as it works without transformers.

Letters for shapes: B texts, T tokens, D dimension of a vector.
"""

import json
from pathlib import Path
from typing import Any

import tokenizers
from torch import Tensor, nn
from transformers import AutoTokenizer

from serve_app.embedding import weights
from serve_app.embedding.checkpoint import tokenizer_files
from serve_app.embedding.families.family import Family, Network, TextTower
from serve_app.embedding.sentence_pieces import MODEL, PieceRules, SentencePieces
from serve_app.embedding.text import TextRules, tokens_of
from serve_app.embedding.tokenizer import FastTokenizer, Tokenizer

PROBES = (
    "a photo of a cat",
    "A Red Chair, 2 dogs & one (very) long-legged bird!",
    "Größe 40°C – naïve café  two  spaces",
    "写真 🐈\ttab",
    "ΟΔΟΣ İstanbul ＡＢ ﬁt… ▁ ½",
    "word " * 200,
)
"""Texts that both tokenizers must cut into the same tokens."""

SIGLIP_1 = "SiglipTokenizer"
_NO_PIECES = (
    f"the tokenizer of SigLIP 1 needs the file {MODEL} beside the weights and the package sentencepiece; images can be "
    "embedded"
)


class TextEmbedder(nn.Module):
    """Runs a network's text tower: (B, T) ids and masks -> (B, D)."""

    def __init__(self, network: Network, tower: TextTower) -> None:
        super().__init__()
        self.network = network
        self._vectors = tower.vectors

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embed tokens; the vectors have the type of the network's weights."""
        vectors: Tensor = self._vectors(self.network, ids, mask)
        return vectors


def read_tokenizer(directory: Path, family: Family) -> tuple[Tokenizer | None, TextRules]:
    """The tokenizer of a checkpoint with its rules; or None, and rules that say why the model takes no text."""
    if family.text is None:
        return None, TextRules(no_text=f"{family.name} models embed images only")
    if not tokenizer_files(directory):
        return None, TextRules(no_text="the checkpoint has no tokenizer (tokenizer.json); images can be embedded")
    declared = _class_of(directory)
    if declared == SIGLIP_1 and not (directory / MODEL).is_file():
        return None, TextRules(no_text=_NO_PIECES)
    try:
        original = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        if declared == SIGLIP_1 != type(original).__name__:
            return None, TextRules(no_text=_NO_PIECES)
        length = min(family.text.max_tokens(weights.configuration(directory)), original.model_max_length)
        tokenizer, rules = _reproduced(original, length), _rules_of(original, family.text, length)
        problem = _difference(original, tokenizer, rules, length)
    except Exception as error:  # transformers and tokenizers raise errors of many types for damaged files
        problem = f"its tokenizer does not load: {str(error).replace(str(directory), directory.name)}"
    return (None, TextRules(no_text=problem)) if problem else (tokenizer, rules)


def _class_of(directory: Path) -> str | None:
    """The class of a checkpoint's tokenizer; without its package, transformers would take another in its place."""
    try:
        config: dict[str, Any] = json.loads((directory / "tokenizer_config.json").read_bytes())
        return str(config.get("tokenizer_class", "")).removesuffix("Fast")
    except (OSError, ValueError, AttributeError):
        return None


def _reproduced(original: Any, length: int) -> Tokenizer:
    """A tokenizer that needs no transformers, and cuts texts to so many tokens."""
    if type(original).__name__ == SIGLIP_1:
        return _sentence_pieces(original, length)
    tokenizer = tokenizers.Tokenizer.from_str(original.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.enable_truncation(length, direction=original.truncation_side)
    return FastTokenizer(tokenizer)


def _sentence_pieces(original: Any, length: int) -> SentencePieces:
    rules = PieceRules(
        added=original.get_added_vocab(),
        special=tuple(original.all_special_tokens),
        unk_token=original.unk_token,
        eos_id=original.eos_token_id,
        lowers=original.do_lower_case,
        max_tokens=length,
    )
    return SentencePieces(original.sp_model.serialized_model_proto(), rules)


def _rules_of(original: Any, tower: TextTower, length: int) -> TextRules:
    uses_mask = "attention_mask" in original.model_input_names
    if not tower.pads_to_max:  # a text alone has no padding, and its vector does not change among others
        return TextRules(uses_mask=uses_mask)
    return TextRules(
        pads_to=length,
        pad_id=original.pad_token_id,
        pads_left=original.padding_side == "left",
        uses_mask=uses_mask,
    )


def _difference(original: Any, tokenizer: Tokenizer, rules: TextRules, length: int) -> str:
    """Why the reproduced tokenizer may not stand for the original, or an empty text."""
    for probe in (*PROBES, " cat".join(original.all_special_tokens)):
        expected = original(
            [probe], padding="max_length" if rules.pads_to else False, max_length=length, truncation=True
        )
        ids, mask = tokens_of([tokenizer.encode(probe)], rules)
        if ids.tolist() != expected["input_ids"] or ("attention_mask" in expected) != rules.uses_mask:
            return "its tokenizer cannot be reproduced without transformers"
        if rules.uses_mask and mask.tolist() != expected["attention_mask"]:
            return "the mask of its tokenizer cannot be reproduced"
    return ""
