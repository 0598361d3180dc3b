"""A model on a GPU or on Apple's MPS, by PyTorch."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from serve_app.embedding.model import ModelRequest, blank, require_pixels
from serve_app.embedding.network import PixelEmbedder, read_embedder
from serve_app.embedding.text import TextEncoder, Tokens
from serve_app.embedding.text_network import TextEmbedder, read_tokenizer
from serve_app.errors import ModelUnavailable, NoTextTower
from serve_app.images.decode import Preprocessing
from serve_app.records import ModelCard, VectorArray

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchModel:
    """A `VisionModel` whose passes take the whole batch. Tests also run it on a CPU."""

    def __init__(
        self, embedder: PixelEmbedder, card: ModelCard, preprocessing: Preprocessing, text: TextEncoder | None = None
    ) -> None:
        self.card = card
        self.preprocessing = preprocessing
        self._embedder = embedder
        self._device = torch.device(card.device)
        self._text = text

    @classmethod
    def load(cls, wanted: ModelRequest) -> "TorchModel":
        """Load a checkpoint without using the network.

        Raises:
            ModelUnavailable: the checkpoint is damaged.
        """
        embedder = read_embedder(wanted.directory, wanted.name, wanted.preprocessing).to(wanted.device)
        embedder.network.to(DTYPES[wanted.precision])
        text, no_text = _text_of(embedder.network, wanted)
        model = cls(embedder, wanted.card(embedder.dimension, no_text), wanted.preprocessing, text)
        # The first pass of a shape creates kernels and buffers. It runs now so that no caller waits for it.
        model.vectors(blank(wanted.preprocessing, 1))
        return model

    def vectors(self, images: NDArray[Any]) -> VectorArray:
        """See `VisionModel.vectors`.

        Raises:
            ModelUnavailable: the GPU has too little memory for a single image.
        """
        if len(images) == 0:
            return np.empty((0, self.card.dimension), np.float32)
        require_pixels(images, self.preprocessing)
        return self._embed_fitting(images)

    def text(self) -> TextEncoder:
        """See `VisionModel.text`."""
        if self._text is None:
            raise NoTextTower(f"{self.card.name} takes no text: {self.card.no_text}")
        return self._text

    def _embed_fitting(self, images: NDArray[Any]) -> VectorArray:
        """Embed all images at once, or in halves when the GPU has too little memory."""
        try:
            return self._forward(images)
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise ModelUnavailable(f"the GPU has no memory left to embed one image with {self.card.name}") from None
        torch.cuda.empty_cache()
        half = len(images) // 2
        return np.concatenate([self._embed_fitting(images[:half]), self._embed_fitting(images[half:])])

    @torch.inference_mode()
    def _forward(self, images: NDArray[Any]) -> VectorArray:
        # The copy is needed because torch cannot wrap read-only shared memory or a reversed view.
        pixels = torch.from_numpy(images.copy()).to(self._device)
        vectors: VectorArray = self._embedder(pixels).float().cpu().numpy()
        return vectors


def _text_of(network: Any, wanted: ModelRequest) -> tuple[TextEncoder | None, str]:
    """The text tower of a network on its device; or None, and why there is none."""
    tokenizer, rules = read_tokenizer(wanted.directory, wanted.family)
    if tokenizer is None or wanted.family.text is None:
        return None, rules.no_text
    embedder = TextEmbedder(network, wanted.family.text).eval()

    @torch.inference_mode()
    def run(ids: Tokens, mask: Tokens) -> VectorArray:
        inputs = (torch.from_numpy(tokens).to(wanted.device) for tokens in (ids, mask))
        vectors: VectorArray = embedder(*inputs).float().cpu().numpy()
        return vectors

    return TextEncoder(tokenizer, rules, run), ""


def is_available(device: str) -> bool:
    """Whether PyTorch finds a CUDA GPU (`cuda`) or Apple's (`mps`)."""
    return torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
