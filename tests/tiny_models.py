"""Tiny seeded checkpoints: real files of the real architectures, with random weights, made in a moment."""

import io
import json
import random
from pathlib import Path

import torch
from sentencepiece import SentencePieceTrainer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ConvNextConfig,
    DINOv3ConvNextModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    SiglipTokenizer,
    ViTConfig,
    ViTModel,
)

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
    _save_seeded(model_class, config, directory, seed)
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


def _save_seeded(model_class, config, directory: Path, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.normal_(module.weight, std=1.5 * module.weight[0].numel() ** -0.5)
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.5)
    model.save_pretrained(directory)


VIT = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3}


def make_tiny_family(directory: Path, family: str, *, seed: int = 0) -> Path:
    """Write a `from_pretrained` folder of a family, one of `_FAMILIES`."""
    _FAMILIES[family](directory, seed)
    return directory


def _siglip(directory: Path, seed: int, *, masks: bool = False) -> None:
    text = VIT | {"vocab_size": 400, "max_position_embeddings": 16, "projection_size": 48}
    config = SiglipConfig(text_config=text, vision_config=VIT | {"image_size": 64, "patch_size": 16})
    _save_seeded(SiglipModel, config, directory, seed)
    _write_processor(directory, "SiglipImageProcessor", size={"height": 64, "width": 64}, resample=2)
    _sentence_pieces(masks=masks).save_pretrained(directory)


WORDS = "a the cat dog red chair beach photo of on sits two birds naïve café größe 40 long legged house window"


def _siglip_1(directory: Path, seed: int) -> None:
    """As SigLIP's first release has it: a unigram model of sentencepiece, padded with the end token, without a mask."""
    _siglip(directory, seed)
    for file in directory.glob("*token*"):
        file.unlink()
    chosen, model = random.Random(seed), io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=(" ".join(chosen.choices(WORDS.split(), k=6)) for _ in range(300)),
        model_writer=model,
        vocab_size=90,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (directory / "spiece.model").write_bytes(model.getvalue())
    tokenizer = SiglipTokenizer(str(directory / "spiece.model"), model_input_names=["input_ids"])
    tokenizer.save_pretrained(directory)


def _sentence_pieces(*, masks: bool) -> PreTrainedTokenizerFast:
    """A tokenizer like SigLIP 2's: pieces of text with `▁` for spaces, bytes for the rest, and `<eos>` at the end."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = ["<pad>", "<eos>", "<unk>", "▁", *letters, *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys([*pieces, "ca", "cat", "▁a", "do", "dog"]))}
    merges = [("c", "a"), ("ca", "t"), ("▁", "a"), ("d", "o"), ("do", "g")]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"] if masks else ["input_ids"],
    )


def _clip(directory: Path, seed: int) -> None:
    text = VIT | {
        "vocab_size": 520,
        "max_position_embeddings": 20,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    config = CLIPConfig(text_config=text, vision_config=VIT | {"image_size": 64, "patch_size": 16}, projection_dim=40)
    _save_seeded(CLIPModel, config, directory, seed)
    _write_processor(directory, "CLIPFeatureExtractor", size=64, crop_size=64)  # as OpenAI's files have it
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters), "ca", "cat</w>"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    CLIPTokenizer(vocab, [("c", "a"), ("ca", "t</w>")]).save_pretrained(directory)


def _dinov3(directory: Path, seed: int) -> None:
    config = DINOv3ViTConfig(**VIT, image_size=64, patch_size=16, num_register_tokens=4)
    _save_seeded(DINOv3ViTModel, config, directory, seed)
    _write_processor(directory, "DINOv3ViTImageProcessorFast", size={"height": 64, "width": 64}, resample=2)


def _dinov3_convnext(directory: Path, seed: int) -> None:
    config = DINOv3ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], image_size=64)
    _save_seeded(DINOv3ConvNextModel, config, directory, seed)
    _write_processor(directory, "DINOv3ViTImageProcessorFast", size={"height": 64, "width": 64}, resample=2)


def _vit(directory: Path, seed: int) -> None:
    _save_seeded(ViTModel, ViTConfig(**VIT, image_size=64, patch_size=16), directory, seed)
    _write_processor(directory, "ViTImageProcessor", size=64)


_FAMILIES = {
    "siglip": _siglip,
    "siglip-mask": lambda directory, seed: _siglip(directory, seed, masks=True),
    "siglip-1": _siglip_1,
    "clip": _clip,
    "dinov3": _dinov3,
    "dinov3-convnext": _dinov3_convnext,
    "vit": _vit,
}


def _write_processor(directory: Path, name: str, **values: object) -> None:
    """Write a processor's file that leaves all else to the defaults of its class, as old files do."""
    key = "feature_extractor_type" if name.endswith("FeatureExtractor") else "image_processor_type"
    (directory / "preprocessor_config.json").write_text(json.dumps({key: name, **values}))
