"""Linear layers for CPUs: weights laid out once for oneDNN's kernels, the activation joined to its product.

PyTorch sends fp32 products to MKL, which on processors that are not Intel's reaches 80 to 100 GFLOP/s a core where
oneDNN reaches 180 to 220 with the same numbers (docs/measurements.md). The two operators used here are those that
torch.compile writes into its CPU code for bf16 (for fp32 it writes MKL's); calling them directly needs no compiler
and no minute of compiling.
"""

from typing import Any

import torch
from torch import Tensor, nn

FUSED_ACTIVATIONS = {"gelu": ("gelu", "none")}
"""Activation of the configuration -> oneDNN's name and algorithm; any other stays a step of its own."""


class PackedLinear(nn.Module):
    """`nn.Linear` for inference: (…, n_in) -> (…, n_out), optionally with the activation that follows.

    Takes fp32 or bf16, that of the layer it is made from.
    """

    def __init__(self, linear: nn.Linear, activation: str | None = None) -> None:
        super().__init__()
        weight = linear.weight.detach().contiguous()
        self._weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._post = FUSED_ACTIVATIONS[activation] if activation else ("none", "")

    def forward(self, values: Tensor) -> Tensor:
        """Multiply, add the bias, apply the activation."""
        kind, algorithm = self._post
        result: Tensor = torch.ops.mkldnn._linear_pointwise(values, self._weight, self._bias, kind, [], algorithm)
        return result


def pack(network: Any) -> None:
    """Replace the linear layers of a `Dinov2Model` that lies on a CPU; elsewhere than on x86 nothing is done."""
    if not is_available():
        return
    activation = network.config.hidden_act if network.config.hidden_act in FUSED_ACTIVATIONS else None
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if not isinstance(layer, nn.Linear):
                continue
            fuses = activation is not None and name == "fc1" and hasattr(parent, "activation_fn")
            setattr(parent, name, PackedLinear(layer, activation if fuses else None))
            if fuses:
                parent.activation_fn = nn.Identity()


def is_available() -> bool:
    """Whether this PyTorch has oneDNN with the operators used here."""
    backend: Any = torch.backends.mkldnn
    return backend.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def computes_in(dtype: torch.dtype) -> bool:
    """Whether this processor can compute packed layers of this type; a layer of one weight is tried.

    oneDNN multiplies fp32 everywhere, and bf16 only where the processor has AVX-512 or AVX-NE-CONVERT.
    """
    try:
        PackedLinear(nn.Linear(1, 1, dtype=dtype))(torch.zeros(1, 1, dtype=dtype))
    except RuntimeError:
        return False
    return True
