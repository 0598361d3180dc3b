"""DINOv2 behind one call: (B, S, S, 3) uint8 pixels in, (B, D) float32 class tokens out.

The only module that imports torch and transformers; it knows nothing of files, batching or Ray.
Letters for shapes: B images, S pixels along a side, T tokens, D dimension of a vector.

Three things make it cheaper than the plain `AutoModel` call, none changes the result beyond float rounding:
position embeddings are interpolated to S once instead of at every call, the last block computes the class
token alone, since nothing else of it is used, and linear layers run on oneDNN (`serve_app.embedding.packed_linear`).
Measured on one AVX-512 core that is not Intel's, with a random DINOv2-small, against the plain call: 1.06 to
1.08 times as fast for the first two, 2.0 to 2.4 times for all three in fp32.
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
"""A `Dinov2Model` or `Dinov2WithRegistersModel`; transformers' types are not checked here."""

MICRO_BATCH = 4
"""Images of one CPU pass: 2 to 8 are equally fast in fp32, and activations of 4 fit the caches."""

UNUSED_TENSORS = {"embeddings.mask_token"}
"""Only training needs them; a checkpoint may lack them."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}


class VisionModel:
    """A loaded model. `embed` may be called from several threads.

    Attributes:
        card: name, dimension, space key, device and precision.
        preprocessing: what turns image files into the pixels that `embed` takes.
        micro_batch: images of one forward pass on a CPU; None where the whole batch goes at once.
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
        """Load a checkpoint folder, without network.

        Args:
            directory: see `weights.locate`.
            name: what the model is called; goes into the card and into messages.
            device: cuda, then mps, then cpu when auto.
            precision: fp32 on cpu and mps, bf16 on cuda when auto.
            threads: CPU threads of torch, for the whole process; torch's choice when None.

        Raises:
            ModelUnavailable: the checkpoint is damaged or not reproducible, the machine has no such device,
                or the device cannot compute in that precision.
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
        # The first pass of a shape makes kernels and buffers: here, and not while a caller waits.
        model.vectors(np.zeros((model.micro_batch or 1, preprocessing.crop_px, preprocessing.crop_px, 3), np.uint8))
        return model

    def vectors(self, images: NDArray[np.uint8]) -> VectorArray:
        """Embed preprocessed images.

        Args:
            images: (B, S, S, 3) uint8 RGB as `images.decode` makes them, S = `preprocessing.crop_px`;
                B may be 0, the array may be read-only.

        Returns:
            (B, D) float32, not normalised, rows in the order of `images`.

        Raises:
            ValueError: another shape or dtype.
            ModelUnavailable: the GPU has no memory for a single image.
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
        """Embed at once, or in halves when the GPU has no memory for that."""
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
        # The copy: `images` may be read-only shared memory, or a reversed view, which torch cannot wrap.
        channels_last = torch.from_numpy(images.copy()).to(self._device)  # (B, S, S, 3)
        pixels = torch.addcmul(self._shift, channels_last.permute(0, 3, 1, 2), self._scale)  # (B, 3, S, S)
        hidden = self._network(pixels.to(self._dtype)).last_hidden_state  # (B, 1, D)
        vectors: VectorArray = hidden[:, 0].float().cpu().numpy()
        return vectors


class ClassTokenBlock(nn.Module):
    """A block of the encoder that computes its class token only: (B, T, D) -> (B, 1, D).

    The class token attends to all T tokens, so keys and values are computed for all; queries, projection and
    MLP only for the one. Written against `Dinov2Layer` of transformers 5.23, which the registers' variant
    shares; a test holds it to the original.
    """

    def __init__(self, block: Network) -> None:
        super().__init__()
        self.block: Network = block

    def forward(self, hidden: Tensor, attention_mask: None = None, **_: object) -> Tensor:
        """Run the block for the class token, the first of the T."""
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
    """What `VisionModel.load` can compute in on a device; on a CPU the processor decides."""
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
    # int8 derives the scale of activations from all images of a pass: alone, an image's vector does not
    # depend on its neighbours, at the same speed.
    return 1 if precision == "int8" else MICRO_BATCH


def _read_network(directory: Path, name: str) -> Network:
    """The network in fp32, every tensor of which came from the checkpoint."""
    try:
        network, report = AutoModel.from_pretrained(
            directory,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # damaged files raise whatever safetensors, json and torch choose to
        reason = str(error).replace(str(directory), name)
        raise ModelUnavailable(f"the checkpoint of {name} does not load: {reason}") from None
    missing = sorted(set(report["missing_keys"]) - UNUSED_TENSORS)
    if missing:
        raise ModelUnavailable(f"the checkpoint of {name} lacks {len(missing)} tensors, {missing[0]} among them")
    return network


def _specialise(network: Network, side_px: int) -> None:
    """Do once what does not depend on the image, and leave out what does not reach the class token."""
    embeddings, blocks = network.embeddings, network.encoder.layer
    n_patches = (side_px // network.config.patch_size) ** 2
    tokens = torch.empty(1, 1 + n_patches, network.config.hidden_size)  # only its shape is looked at
    embeddings.position_embeddings = nn.Parameter(embeddings.interpolate_pos_encoding(tokens, side_px, side_px))
    blocks[-1] = ClassTokenBlock(blocks[-1])


def _quantise(network: Network) -> Network:
    """Linear layers in int8 with activations scaled at run time; everything else stays fp32."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deprecated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*deprecated", category=UserWarning)
        quantize: Any = torch.ao.quantization.quantize_dynamic
        return quantize(network, {nn.Linear}, dtype=torch.qint8)


def _space_key(fingerprint: str, preprocessing: Preprocessing, precision: Precision) -> str:
    """Equal keys promise comparable vectors, whatever the model is called and wherever it runs."""
    parts = (
        fingerprint,
        "cls",
        (preprocessing.resize_px, preprocessing.crop_px, preprocessing.mean, preprocessing.std),
        PREPROCESSING_VERSION,
        precision,
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
