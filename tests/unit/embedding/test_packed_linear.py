import pytest
import torch
from torch import nn

from serve_app.embedding import packed_linear
from serve_app.embedding.model import VisionModel
from serve_app.embedding.packed_linear import PackedLinear, computes_in, is_available, pack
from tests.tiny_models import make_tiny_checkpoint
from tests.unit.processor import needs_precision

needs_onednn = pytest.mark.skipif(not is_available(), reason="this PyTorch has no oneDNN")


@needs_onednn
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), pytest.param(torch.bfloat16, 2e-2, marks=needs_precision("bf16"))],
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", [None, "gelu"])
def test_a_packed_layer_computes_what_the_layer_computes(dtype, tolerance, bias, activation):
    torch.manual_seed(0)
    layer = nn.Linear(24, 40, bias=bias, dtype=dtype)
    values = torch.randn(3, 5, 24, dtype=dtype)
    with torch.inference_mode():
        expected = layer(values)
        if activation:
            expected = nn.functional.gelu(expected)
        packed = PackedLinear(layer, activation)(values)
    assert packed.dtype == dtype
    torch.testing.assert_close(packed, expected, rtol=tolerance, atol=tolerance)


@needs_onednn
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_precision("bf16"))])
@pytest.mark.parametrize("swiglu", [False, True])
def test_no_plain_linear_layer_is_left_on_a_cpu(tmp_path, precision, swiglu):
    checkpoint = make_tiny_checkpoint(tmp_path / "tiny", hidden=48, heads=2, layers=2, image_px=56, swiglu=swiglu)
    model = VisionModel.load(checkpoint, name="tiny", device="cpu", precision=precision)
    kinds = [type(module) for module in model._network.modules()]
    assert nn.Linear not in kinds
    assert kinds.count(PackedLinear) == 2 * (7 if swiglu else 6)


def test_without_onednn_the_layers_stay(monkeypatch):
    monkeypatch.setattr(packed_linear, "is_available", lambda: False)
    network = nn.Sequential(nn.Linear(2, 2))
    pack(network)
    assert isinstance(network[0], nn.Linear)


@needs_onednn
def test_a_processor_computes_in_a_type_or_its_layers_are_not_made():
    """Without AVX-512 oneDNN raised out of `VisionModel.load`, and the replica died."""
    assert computes_in(torch.float32)
    assert not computes_in(torch.float64)  # oneDNN has no kernel for it on any processor
