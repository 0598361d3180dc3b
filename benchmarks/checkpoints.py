"""Checkpoints of the real architectures with random weights: speed does not depend on the numbers in them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipConfig,
    SiglipModel,
)

from demo.offline_weights import PREPROCESSOR
from tests.tiny_models import make_tiny_family

ARCHITECTURES = {"dinov2-small": (384, 6), "dinov2-base": (768, 12)}
"""Hidden size and heads; both have 12 layers and patches of 14 px."""
BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
SIGLIP_VOCABULARY = 32_000
"""SigLIP 1's. SigLIP 2 has 256,000, but a row of the table that no text asks for takes disk and no time."""


def random_checkpoint(directory: Path, model: str) -> Path:
    """The `from_pretrained` folder of a seeded random model, made on first use."""
    folder = directory / f"{model}-random"
    done = folder / "preprocessor_config.json"
    if not done.exists():
        torch.manual_seed(0)
        processor = FAMILIES[model](folder) if model in FAMILIES else _dinov2(folder, *ARCHITECTURES[model])
        done.write_text(json.dumps(processor))
    return folder


def _dinov2(folder: Path, hidden: int, heads: int) -> dict[str, Any]:
    config = Dinov2Config(hidden_size=hidden, num_attention_heads=heads, image_size=518, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    return PREPROCESSOR


def _dinov3_small(folder: Path) -> dict[str, Any]:
    small = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 6}
    DINOv3ViTModel(DINOv3ViTConfig(**small, image_size=224, num_register_tokens=4)).save_pretrained(folder)
    return {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": 224, "width": 224}}


def _siglip_base(folder: Path) -> dict[str, Any]:
    make_tiny_family(folder, "siglip")  # for its tokenizer
    text = BASE | {"vocab_size": SIGLIP_VOCABULARY, "max_position_embeddings": 64, "projection_size": 768}
    vision = BASE | {"image_size": 224, "patch_size": 16}
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    return {"image_processor_type": "SiglipImageProcessor", "size": {"height": 224, "width": 224}, "resample": 2}


def _clip_base(folder: Path) -> dict[str, Any]:
    make_tiny_family(folder, "clip")
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text = BASE | {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, **ends}
    vision = BASE | {"image_size": 224, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=512)).save_pretrained(folder)
    return {"image_processor_type": "CLIPImageProcessor", "size": 224, "crop_size": 224}


FAMILIES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "dinov3-small": _dinov3_small,
    "siglip2-base": _siglip_base,
    "clip-base": _clip_base,
}
"""One size of each family but DINOv2: each writes its weights and returns its processor's configuration."""
