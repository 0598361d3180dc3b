"""Linear layers for CPUs: weights are laid out once for oneDNN's kernels, and the activation is fused.

PyTorch sends fp32 products to MKL. On processors not made by Intel, MKL reaches 80 to 100 GFLOP/s a core, and oneDNN
reaches 180 to 220 with the same numbers (docs/measurements.md). This module calls the two operators that torch.compile
writes into its CPU code for bf16 (for fp32 it writes MKL's). Calling them directly needs no compiler and saves a
minute of compiling.
"""

from typing import Any

import torch
from torch import Tensor, nn

FUSED_ACTIVATIONS = {"gelu": ("gelu", "none")}
"""Maps an activation's name to oneDNN's name and algorithm; other activations are not fused."""


class PackedLinear(nn.Module):
    """`nn.Linear` for inference: (…, n_in) -> (…, n_out), optionally fused with the activation that follows.

    Values are fp32 or bf16, like the weights of the original layer.
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
    """Replace the linear layers of a `Dinov2Model` on a CPU; without oneDNN's operators, do nothing."""
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
    """Whether this PyTorch has oneDNN with the operators that this module calls."""
    backend: Any = torch.backends.mkldnn
    return backend.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def computes_in(dtype: torch.dtype) -> bool:
    """Try a layer with one weight, and return whether this processor can compute packed layers of this type.

    oneDNN multiplies fp32 on every processor, and bf16 only on processors with AVX-512 or AVX-NE-CONVERT.
    """
    try:
        PackedLinear(nn.Linear(1, 1, dtype=dtype))(torch.zeros(1, 1, dtype=dtype))
    except RuntimeError:
        return False
    return True
