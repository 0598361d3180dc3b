"""DINOv2 checkpoints of the real architecture with random weights: speed does not depend on the numbers in them."""

import json
from pathlib import Path

import torch
from transformers import Dinov2Config, Dinov2Model

from demo.offline_weights import PREPROCESSOR

ARCHITECTURES = {"dinov2-small": (384, 6), "dinov2-base": (768, 12)}
"""Hidden size and heads; both have 12 layers and patches of 14 px."""


def random_checkpoint(directory: Path, model: str) -> Path:
    """The `from_pretrained` folder of a seeded random model, made on first use."""
    folder = directory / f"{model}-random"
    if not (folder / "preprocessor_config.json").exists():
        hidden, heads = ARCHITECTURES[model]
        torch.manual_seed(0)
        config = Dinov2Config(hidden_size=hidden, num_attention_heads=heads, image_size=518, patch_size=14)
        Dinov2Model(config).save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder
