"""What this machine's processor cannot compute in is skipped by name, so that the report says what was not tried."""

import pytest

from serve_app.embedding.loading import precisions


def needs_precision(precision: str) -> pytest.MarkDecorator:
    """Skip where the CPU lacks a precision; that it is refused there is tested everywhere."""
    return pytest.mark.skipif(
        precision not in precisions("cpu"), reason=f"this processor cannot compute in {precision}: not tried here"
    )
