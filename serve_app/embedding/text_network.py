"""A checkpoint's text tower as a PyTorch module, and its tokenizer as the library `tokenizers` reads it.

Letters for shapes: B texts, T tokens, D dimension of a vector.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoTokenizer

from serve_app.embedding import weights
from serve_app.embedding.checkpoint import tokenizer_files
from serve_app.embedding.families.family import Family, Network, TextTower
from serve_app.embedding.text import TextRules, tokens_of

PROBES = (
    "a photo of a cat",
    "A Red Chair, 2 dogs & one (very) long-legged bird!",
    "Größe 40°C – naïve café  two  spaces",
    "写真 🐈\ttab",
    "word " * 200,
)
"""Texts that both tokenizers must cut into the same tokens."""


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
    if _class_of(directory) == "SiglipTokenizer":
        return None, TextRules(no_text="the tokenizer of SigLIP 1 (sentencepiece) cannot be converted; SigLIP 2's can")
    try:
        original = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        length = family.text.max_tokens(weights.configuration(directory))
        tokenizer, rules = _converted(original, family.text, length)
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


def _converted(original: Any, tower: TextTower, length: int) -> tuple[Tokenizer, TextRules]:
    tokenizer = Tokenizer.from_str(original.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.enable_truncation(length, direction=original.truncation_side)
    rules = TextRules(
        pads_to=length if tower.pads_to_max else None,
        pad_id=original.pad_token_id,
        pad_token=original.pad_token,
        pads_left=original.padding_side == "left",
        uses_mask="attention_mask" in original.model_input_names,
    )
    return tokenizer, rules


def _difference(original: Any, tokenizer: Tokenizer, rules: TextRules, length: int) -> str:
    """Why the converted tokenizer may not stand for the original, or an empty text."""
    for probe in PROBES:
        expected = original(
            [probe], padding="max_length" if rules.pads_to else True, max_length=length, truncation=True
        )
        ids, mask = tokens_of([tokenizer.encode(probe)], rules)
        if ids.tolist() != expected["input_ids"] or ("attention_mask" in expected) != rules.uses_mask:
            return "its tokenizer cannot be reproduced without transformers"
        if rules.uses_mask and mask.tolist() != expected["attention_mask"]:
            return "the mask of its tokenizer cannot be reproduced"
    return ""
