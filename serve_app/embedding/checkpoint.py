"""What a checkpoint folder says about itself before its weights are loaded: family, pixels, tokenizer."""

from pathlib import Path

from serve_app.embedding import families, weights
from serve_app.embedding.families.family import Family
from serve_app.errors import ModelUnavailable
from serve_app.images.preprocessing import Preprocessing

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "spiece.model",
)  # fmt: skip
"""All that a tokenizer may be read from."""


def family_of(directory: Path) -> Family:
    """The family of a checkpoint. Raises `ModelUnavailable`: its configuration cannot be read."""
    try:
        return families.of_type(str(weights.configuration(directory)["model_type"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        raise ModelUnavailable(f"config.json of {directory.name} cannot be read") from None


def preprocessing_of(directory: Path) -> Preprocessing:
    """How a checkpoint's processor makes pixels.

    Raises:
        ModelUnavailable: that cannot be reproduced, or the network does not take such pixels.
    """
    family, config = family_of(directory), weights.configuration(directory)
    preprocessing = Preprocessing.from_checkpoint(
        directory, without_file=family.geometry_without_file, model_type=str(config["model_type"])
    )
    misfit = family.misfit(config, preprocessing.crop_px)
    if misfit:
        raise ModelUnavailable(f"the processor of {directory.name} makes {misfit}")
    return preprocessing


def tokenizer_files(directory: Path) -> list[Path]:
    """The files of `TOKENIZER_FILES` that a checkpoint has."""
    return [directory / name for name in TOKENIZER_FILES if (directory / name).is_file()]
