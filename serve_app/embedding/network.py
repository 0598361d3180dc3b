"""A checkpoint as a PyTorch module: (B, S, S, 3) pixels in, (B, D) vectors out.

`torch_model` runs the module on GPUs, and `converter` turns it into OpenVINO's format for CPUs. Letters for shapes: B
images, S pixels along a side, T tokens, D dimension of a vector.

Two changes make DINOv2 faster than the plain `AutoModel` call, and alter the result by float rounding at most: position
embeddings are interpolated to S once and not at every call, and the last block computes only the class token, because
nothing else of it is used.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel

from serve_app.embedding import families
from serve_app.embedding.checkpoint import family_of
from serve_app.embedding.families import dinov2
from serve_app.embedding.families.family import Family, ImageVectors
from serve_app.errors import ModelUnavailable
from serve_app.images.decode import Preprocessing

Network = Any
"""A network of transformers; mypy does not check its types."""


class PixelEmbedder(nn.Module):
    """Normalises pixels, runs the network on them and takes its vector: (B, S, S, 3) -> (B, D)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, network: Network, preprocessing: Preprocessing, take_vectors: ImageVectors) -> None:
        super().__init__()
        self.network = network
        self.side_px = preprocessing.crop_px
        self._take_vectors = take_vectors
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    @property
    def dimension(self) -> int:
        """D, the number of components of a vector."""
        pixels = torch.zeros(1, self.side_px, self.side_px, 3, dtype=torch.uint8, device=self.scale.device)
        with torch.inference_mode():
            return int(self(pixels).shape[1])

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed pixels in [0, 255]; the vectors have the type of the network's weights."""
        normalised = pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift  # (B, 3, S, S)
        vectors: Tensor = self._take_vectors(self.network, normalised.to(self.network.dtype))
        return vectors


def read_embedder(directory: Path, name: str, preprocessing: Preprocessing) -> PixelEmbedder:
    """The module of a checkpoint, in fp32 on the CPU.

    Raises:
        ModelUnavailable: the checkpoint is damaged or lacks tensors.
    """
    family = family_of(directory)
    pooling = families.pooling_of(name, family)
    network = _read_network(directory, name, family, pooling)
    if family is dinov2.FAMILY:
        with torch.no_grad():
            _specialise(network, preprocessing.crop_px)
    return PixelEmbedder(network, preprocessing, family.poolings[pooling]).eval()


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


def _read_network(directory: Path, name: str, family: Family, pooling: str) -> Network:
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
    missing = sorted(set(report["missing_keys"]) - family.unused_tensors)
    if pooling != "pooled":  # many checkpoints have no pooler, and transformers makes one up
        missing = [tensor for tensor in missing if not tensor.startswith("pooler.")]
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
