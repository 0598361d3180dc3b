"""Tiny seeded DINOv2 checkpoints: real files of the real architecture, with random weights, made in a moment."""

import json
from pathlib import Path

import torch
from torch import nn
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def make_tiny_checkpoint(
    directory: Path,
    *,
    hidden: int = 768,
    layers: int = 2,
    heads: int = 12,
    seed: int = 0,
    registers: bool = False,
    swiglu: bool = False,
    image_px: int = 518,
    resize_px: int = 256,
    crop_px: int = 224,
) -> Path:
    """Write a `from_pretrained` folder and return it.

    Weights are drawn wider than the architecture's own initialisation, so that different images get clearly
    different vectors. `image_px` is the resolution of the position embeddings, 518 as in the published models.
    """
    config_class, model_class = (
        (Dinov2WithRegistersConfig, Dinov2WithRegistersModel) if registers else (Dinov2Config, Dinov2Model)
    )
    config = config_class(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        mlp_ratio=1,
        patch_size=14,
        image_size=image_px,
        use_swiglu_ffn=swiglu,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.normal_(module.weight, std=1.5 * module.weight[0].numel() ** -0.5)
    model.save_pretrained(directory)
    preprocessor = {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": resize_px},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": crop_px, "width": crop_px},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2))
    return directory
