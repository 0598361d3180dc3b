"""The mark that tells reads from writes."""

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


def write(method: F) -> F:
    """Mark a store method as a write: `StoreExecutor` runs it on the one writer thread."""
    method.is_write = True  # type: ignore[attr-defined]
    return method
