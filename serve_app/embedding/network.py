"""DINOv2 as a PyTorch module: (B, S, S, 3) uint8 pixels in, (B, D) class tokens out.

`torch_model` runs the module on GPUs, and `converter` turns it into OpenVINO's format for CPUs. Letters for shapes: B
images, S pixels along a side, T tokens, D dimension of a vector.

Two changes make it faster than the plain `AutoModel` call, and alter the result by float rounding at most: position
embeddings are interpolated to S once and not at every call, and the last block computes only the class token, because
nothing else of it is used.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel

from serve_app.errors import ModelUnavailable
from serve_app.images.decode import Preprocessing

Network = Any
"""A `Dinov2Model` or `Dinov2WithRegistersModel`; mypy does not check transformers' types."""

UNUSED_TENSORS = {"embeddings.mask_token"}
"""Tensors that only training needs; a checkpoint may lack them."""


class PixelEmbedder(nn.Module):
    """Normalises pixels, runs the network on them and takes the class token: (B, S, S, 3) uint8 -> (B, D)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, network: Network, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    @property
    def dimension(self) -> int:
        """D, the number of components of a vector."""
        return int(self.network.config.hidden_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed uint8 pixels; the vectors have the type of the network's weights."""
        normalised = pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift  # (B, 3, S, S)
        vectors: Tensor = self.network(normalised.to(self.network.dtype)).last_hidden_state[:, 0]
        return vectors


def read_embedder(directory: Path, name: str, preprocessing: Preprocessing) -> PixelEmbedder:
    """The module of a checkpoint, in fp32 on the CPU.

    Raises:
        ModelUnavailable: the checkpoint is damaged or lacks tensors.
    """
    network = _read_network(directory, name)
    with torch.no_grad():
        _specialise(network, preprocessing.crop_px)
    return PixelEmbedder(network, preprocessing).eval()


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
    # The original would interpolate again whenever the network is traced for OpenVINO.
    embeddings.interpolate_pos_encoding = lambda *_: embeddings.position_embeddings
    blocks[-1] = ClassTokenBlock(blocks[-1])
