"""Loads a checkpoint on the engine of its device and precision: OpenVINO on CPUs, PyTorch on GPUs and MPS.

A process that loads a model for OpenVINO imports neither PyTorch nor transformers: they take seconds and hundreds of
megabytes, and a process of its own (`serve_app.embedding.converter`) uses them once for each checkpoint.
"""

import ctypes
import sys
from pathlib import Path
from typing import Literal, get_args

from serve_app.config import Precision
from serve_app.embedding import openvino_model
from serve_app.embedding.checkpoint import preprocessing_of
from serve_app.embedding.model import ModelRequest, VisionModel
from serve_app.embedding.openvino_model import OpenVINOModel
from serve_app.errors import ModelUnavailable

Device = Literal["auto", "cuda", "mps", "cpu"]

DRIVERS = ("libcuda.so.1", "libamdhip64.so")
"""The libraries of GPU drivers that PyTorch calls CUDA; without any of them there is no need to ask PyTorch."""


def load(
    directory: Path,
    *,
    name: str,
    cache_dir: Path,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
) -> VisionModel:
    """Load a checkpoint folder without using the network.

    Args:
        directory: the checkpoint folder, see `weights.locate`.
        name: the model's name, for the card and for messages.
        cache_dir: where converted models are kept; it is made if it is missing. Only CPUs need it.
        device: `auto` chooses cuda, then mps, then cpu.
        precision: `auto` chooses fp32 on cpu and mps, and bf16 on cuda.
        threads: the number of CPU threads of a pass; None leaves the number to the engine.

    Raises:
        ModelUnavailable: the checkpoint is damaged or not reproducible, the machine lacks the device, the device
            cannot compute in that precision, or the checkpoint cannot be converted for the CPU.
    """
    chosen = _choose_device(device)
    wanted = ModelRequest(directory, name, preprocessing_of(directory), chosen, _choose_precision(precision, chosen))
    if chosen == "cpu":
        return OpenVINOModel.load(wanted, cache_dir=cache_dir, threads=threads)
    from serve_app.embedding.torch_model import TorchModel

    return TorchModel.load(wanted)


def precisions(device: str) -> list[Precision]:
    """The precisions that `load` accepts for a device; for a CPU they depend on the processor."""
    return [precision for precision in get_args(Precision) if _computes_in(precision, device)]


def _computes_in(precision: Precision, device: str) -> bool:
    if device != "cpu":
        return precision in ("fp32", "bf16", "fp16")
    return openvino_model.computes_in(precision)


def _choose_device(device: Device) -> str:
    if device == "cpu" or (device == "auto" and not _may_have_gpu()):
        return "cpu"
    from serve_app.embedding import torch_model

    if device == "auto":
        return next((gpu for gpu in ("cuda", "mps") if torch_model.is_available(gpu)), "cpu")
    if not torch_model.is_available(device):
        raise ModelUnavailable(f"device {device} is not available on this machine; set CONSTELLATE_DEVICE to auto")
    return device


def _may_have_gpu() -> bool:
    """Whether it is worth asking PyTorch for a GPU: a driver is installed, or this is a Mac."""
    if sys.platform == "darwin":
        return True
    for driver in DRIVERS:
        try:
            ctypes.CDLL(driver)
        except OSError:
            continue
        return True
    return False


def _choose_precision(precision: Precision, device: str) -> Precision:
    if precision == "auto":
        return "bf16" if device == "cuda" else "fp32"
    if _computes_in(precision, device):
        return precision
    where = "this machine's CPU" if device == "cpu" else device
    usable = ", ".join(precisions(device))
    raise ModelUnavailable(f"{where} cannot compute in {precision}; set CONSTELLATE_PRECISION to {usable} or auto")
