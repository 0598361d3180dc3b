"""DINOv2 behind one call: (B, S, S, 3) uint8 pixels in, (B, D) float32 class tokens out.

Besides `packed_linear`, no other module imports torch. This module knows nothing of image files, batching or Ray.
Letters for shapes: B images, S pixels along a side, T tokens, D dimension of a vector.

Three changes make it faster than the plain `AutoModel` call, and alter the result by float rounding at most: position
embeddings are interpolated to S once and not at every call, the last block computes only the class token, because
nothing else of it is used, and linear layers run on oneDNN (`serve_app.embedding.packed_linear`). On one AVX-512 core
not made by Intel, with a random DINOv2-small, the first two changes make it 1.06 to 1.08 times as fast as the plain
call, and all three 2.0 to 2.4 times in fp32.
"""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModel

from serve_app.config import Precision
from serve_app.embedding import packed_linear, weights
from serve_app.errors import ModelUnavailable
from serve_app.images.decode import PREPROCESSING_VERSION, Preprocessing
from serve_app.records import ModelCard, VectorArray

Device = Literal["auto", "cuda", "mps", "cpu"]
Network = Any
"""A `Dinov2Model` or `Dinov2WithRegistersModel`; mypy does not check transformers' types."""

MICRO_BATCH = 4
"""The number of images in one CPU pass: 2 to 8 are equally fast in fp32, and the activations of 4 fit the caches."""

UNUSED_TENSORS = {"embeddings.mask_token"}
"""Tensors that only training needs; a checkpoint may lack them."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}


class VisionModel:
    """A loaded model. Several threads may call `vectors`.

    Attributes:
        card: name, dimension, space key, device and precision.
        preprocessing: turns image files into the pixels that `vectors` takes.
        micro_batch: the number of images in one forward pass, or None if a pass takes the whole batch.
    """

    def __init__(
        self, network: Network, card: ModelCard, preprocessing: Preprocessing, micro_batch: int | None
    ) -> None:
        self.card = card
        self.preprocessing = preprocessing
        self.micro_batch = micro_batch
        self._network = network
        self._device = torch.device(card.device)
        self._dtype = _DTYPES[card.precision]
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        self._scale = (1 / (255 * std)).to(self._device)
        self._shift = (-mean / std).to(self._device)

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        name: str,
        device: Device = "auto",
        precision: Precision = "auto",
        threads: int | None = None,
    ) -> "VisionModel":
        """Load a checkpoint folder without using the network.

        Args:
            directory: the checkpoint folder, see `weights.locate`.
            name: the model's name, for the card and for messages.
            device: `auto` chooses cuda, then mps, then cpu.
            precision: `auto` chooses fp32 on cpu and mps, and bf16 on cuda.
            threads: the number of torch's CPU threads in this process; None leaves the number to torch.

        Raises:
            ModelUnavailable: the checkpoint is damaged or not reproducible, the machine lacks the device, or the
                device cannot compute in that precision.
        """
        chosen = _choose_device(device)
        precision = _choose_precision(precision, chosen)
        if threads is not None:
            torch.set_num_threads(threads)
        preprocessing = Preprocessing.from_checkpoint(directory)
        network = _read_network(directory, name)
        with torch.no_grad():
            _specialise(network, preprocessing.crop_px)
        network = network.to(device=chosen, dtype=_DTYPES[precision]).eval()
        if precision == "int8":
            network = _quantise(network)
        elif chosen == "cpu":
            packed_linear.pack(network)
        card = ModelCard(
            name=name,
            dimension=int(network.config.hidden_size),
            space_key=_space_key(weights.fingerprint(directory), preprocessing, precision),
            device=chosen,
            precision=precision,
        )
        model = cls(network, card, preprocessing, _micro_batch(chosen, precision))
        # The first pass of a shape creates kernels and buffers. It runs now so that no caller waits for it.
        model.vectors(np.zeros((model.micro_batch or 1, preprocessing.crop_px, preprocessing.crop_px, 3), np.uint8))
        return model

    def vectors(self, images: NDArray[np.uint8]) -> VectorArray:
        """Embed preprocessed images.

        Args:
            images: (B, S, S, 3) uint8 RGB as `images.decode` makes them, S = `preprocessing.crop_px`. B may be 0,
                and the array may be read-only.

        Returns:
            (B, D) float32 vectors, not normalised, in the order of `images`.

        Raises:
            ValueError: `images` has another shape or dtype.
            ModelUnavailable: the GPU has too little memory for a single image.
        """
        side_px = self.preprocessing.crop_px
        if len(images) == 0:
            return np.empty((0, self.card.dimension), np.float32)
        if images.shape[1:] != (side_px, side_px, 3) or images.dtype != np.uint8:
            raise ValueError(f"expected (B, {side_px}, {side_px}, 3) uint8, got {images.shape} {images.dtype}")
        step = self.micro_batch or len(images)
        parts = [self._embed_fitting(images[start : start + step]) for start in range(0, len(images), step)]
        return np.concatenate(parts)

    def _embed_fitting(self, images: NDArray[np.uint8]) -> VectorArray:
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
    def _forward(self, images: NDArray[np.uint8]) -> VectorArray:
        # The copy is needed because torch cannot wrap read-only shared memory or a reversed view.
        channels_last = torch.from_numpy(images.copy()).to(self._device)  # (B, S, S, 3)
        pixels = torch.addcmul(self._shift, channels_last.permute(0, 3, 1, 2), self._scale)  # (B, 3, S, S)
        hidden = self._network(pixels.to(self._dtype)).last_hidden_state  # (B, 1, D)
        vectors: VectorArray = hidden[:, 0].float().cpu().numpy()
        return vectors


class ClassTokenBlock(nn.Module):
    """A block of the encoder that computes only its class token: (B, T, D) -> (B, 1, D).

    The class token attends to all T tokens, so keys and values are computed for all tokens, but query, projection
    and MLP only for the class token. The code follows `Dinov2Layer` of transformers 5.23, which the models with
    registers use too; a test compares it with the original.
    """

    def __init__(self, block: Network) -> None:
        super().__init__()
        self.block: Network = block

    def forward(self, hidden: Tensor, attention_mask: None = None, **_: object) -> Tensor:
        """Run the block for the class token, which is the first of the T tokens."""
        block, attention = self.block, self.block.attention
        tokens = block.norm1(hidden)
        query, key, value = (
            projection(part).unflatten(-1, (attention.num_attention_heads, attention.head_dim)).transpose(1, 2)
            for projection, part in (
                (attention.q_proj, tokens[:, :1]),
                (attention.k_proj, tokens),
                (attention.v_proj, tokens),
            )
        )
        attended = nn.functional.scaled_dot_product_attention(query, key, value, scale=attention.scaling)
        token = hidden[:, :1] + block.layer_scale1(attention.o_proj(attended.transpose(1, 2).flatten(2)))
        result: Tensor = token + block.layer_scale2(block.mlp(block.norm2(token)))
        return result


def _choose_device(device: Device) -> str:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, there in available.items() if there)
    if not available[device]:
        raise ModelUnavailable(f"device {device} is not available on this machine; set CONSTELLATE_DEVICE to auto")
    return device


def _choose_precision(precision: Precision, device: str) -> Precision:
    if precision == "auto":
        return "bf16" if device == "cuda" else "fp32"
    usable = precisions(device)
    if precision not in usable:
        where = "this machine's CPU" if device == "cpu" else device
        raise ModelUnavailable(
            f"{where} cannot compute in {precision}; set CONSTELLATE_PRECISION to {', '.join(usable)} or auto"
        )
    return precision


def precisions(device: str) -> list[Precision]:
    """The precisions that `VisionModel.load` accepts for a device; for a CPU they depend on the processor."""
    if device != "cpu":
        return ["fp32", "bf16", "fp16"]
    usable: list[Precision] = ["fp32"]
    if not packed_linear.is_available() or packed_linear.computes_in(torch.bfloat16):
        usable.append("bf16")
    if _has_int8_engine():
        usable.append("int8")
    return usable


def _has_int8_engine() -> bool:
    return any(engine != "none" for engine in torch.backends.quantized.supported_engines)


def _micro_batch(device: str, precision: Precision) -> int | None:
    if device != "cpu":
        return None
    # int8 derives the scale of activations from all images of a pass. With one image a pass, a vector does not
    # depend on other images, and the speed is the same.
    return 1 if precision == "int8" else MICRO_BATCH


def _read_network(directory: Path, name: str) -> Network:
    """The network in fp32; every tensor comes from the checkpoint."""
    try:
        network, report = AutoModel.from_pretrained(
            directory,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # safetensors, json and torch raise errors of many types for damaged files
        reason = str(error).replace(str(directory), name)
        raise ModelUnavailable(f"the checkpoint of {name} does not load: {reason}") from None
    missing = sorted(set(report["missing_keys"]) - UNUSED_TENSORS)
    if missing:
        raise ModelUnavailable(f"the checkpoint of {name} lacks {len(missing)} tensors, {missing[0]} among them")
    return network


def _specialise(network: Network, side_px: int) -> None:
    """Compute position embeddings once, and skip work of the last block that does not reach the class token."""
    embeddings, blocks = network.embeddings, network.encoder.layer
    n_patches = (side_px // network.config.patch_size) ** 2
    tokens = torch.empty(1, 1 + n_patches, network.config.hidden_size)  # the call below uses only its shape
    embeddings.position_embeddings = nn.Parameter(embeddings.interpolate_pos_encoding(tokens, side_px, side_px))
    blocks[-1] = ClassTokenBlock(blocks[-1])


def _quantise(network: Network) -> Network:
    """Convert linear layers to int8, with activations scaled at run time; all other layers stay fp32."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deprecated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*deprecated", category=UserWarning)
        quantize: Any = torch.ao.quantization.quantize_dynamic
        return quantize(network, {nn.Linear}, dtype=torch.qint8)


def _space_key(fingerprint: str, preprocessing: Preprocessing, precision: Precision) -> str:
    """The space key; models with equal keys make comparable vectors, whatever their names and devices."""
    parts = (
        fingerprint,
        "cls",
        (preprocessing.resize_px, preprocessing.crop_px, preprocessing.mean, preprocessing.std),
        PREPROCESSING_VERSION,
        precision,
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
