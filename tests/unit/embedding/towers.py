"""Tiny checkpoints of every family, and what transformers makes of pictures and texts with them."""

import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from serve_app.embedding import loading
from tests.converted_models import CACHE_DIR

MODELS = {
    "siglip": "",
    "siglip-mask": "",
    "siglip-1": "",
    "clip": "",
    "dinov3": "",
    "dinov3?pooling=mean": "?pooling=mean",
    "dinov3-convnext": "",
    "vit?pooling=mean": "?pooling=mean",
    "vit?pooling=cls": "?pooling=cls",
    "vit?pooling=pooled": "?pooling=pooled",
}
"""Every vector that a family offers; the tiny checkpoint's name is before the question mark."""
WITH_TEXT = ("siglip", "siglip-mask", "siglip-1", "clip")
TEXTS = ["a cat", "A Dog on a beach, at 5 o'clock!", "Größe  – 写真 🐈", "x"]
ODD = [
    "...", "▁▁ a cat", "cat</s>", "x </s> a cat <unk> dog</s>", "<pad> dog", "ΟΔΟΣ ＡＢ ﬁt½ İ",
    "a\u00a0b\u2003c\u200bd", "<|endoftext|>b",
]  # fmt: skip
"""Texts of punctuation, of tokens that have a meaning, and of letters that change with their case or their form."""
LONG = "a cat and a dog " * 30
EACH = ("siglip", "siglip-1", "clip", "dinov3", "dinov3-convnext", "vit?pooling=mean")
COARSE = {"bf16": 0.995, "int8": 0.99}
"""The least cosine to fp32 of a tiny checkpoint; DINOv2's bounds are held with real weights (test_real_weights.py)."""


def load(directory, **options):
    return loading.load(directory, cache_dir=CACHE_DIR, threads=1, **{"device": "cpu", "name": "tiny"} | options)


def cosines(one, other):
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def pictures():
    rng = np.random.default_rng(1)
    for width, height in [(300, 200), (200, 301), (64, 64), (517, 389), (40, 200), (33, 21)]:
        coarse = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
        yield Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    yield from (Image.fromarray(rng.integers(0, 256, (90, 130, 3), dtype=np.uint8)).convert(m) for m in ("L", "CMYK"))


def file_of(picture):
    file = io.BytesIO()
    picture.save(file, "TIFF")
    return file.getvalue()


def random_pixels(model):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3))
    return pixels.astype(model.preprocessing.dtype)


@torch.inference_mode()
def text_vectors_of_transformers(directory, name, texts):
    padding = True if name == "clip" else "max_length"
    length = 20 if name == "clip" else 16
    tokenizer = AutoTokenizer.from_pretrained(directory)
    inputs = tokenizer(texts, padding=padding, max_length=length, truncation=True, return_tensors="pt")
    assert ("attention_mask" in inputs) == (name in ("siglip-mask", "clip"))
    return AutoModel.from_pretrained(directory).eval().get_text_features(**inputs).pooler_output.numpy()


def pixels_of_transformers(directory, images):
    """(B, 3, S, S): by the checkpoint's own processor; DINOv3's needs torchvision, so its lines are repeated here."""
    config = json.loads((Path(directory) / "preprocessor_config.json").read_text())
    if "DINOv3" not in config.get("image_processor_type", ""):
        return AutoImageProcessor.from_pretrained(directory)(images=images, return_tensors="pt")["pixel_values"]
    size = config["size"]["height"], config["size"]["width"]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    scaled = [torch.from_numpy(np.asarray(image).transpose(2, 0, 1) / np.float32(255)) for image in images]
    resized = [functional.interpolate(s[None], size, mode="bilinear", antialias=True)[0] for s in scaled]
    return torch.stack([(image - mean) / std for image in resized])
