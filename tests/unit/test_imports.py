import subprocess
import sys

import pytest

PROGRAM = """
import sys
import {module}
print(*sorted({{"ray", "torch", "umap", "transformers"}} & set(sys.modules)))
"""


@pytest.mark.parametrize("module", ["serve_app.api", "serve_app.store.executor"])
def test_plain_modules_load_neither_ray_nor_torch(module):
    """Indirect imports count too, hence a fresh interpreter."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)], capture_output=True, text=True, check=True, timeout=240
    )
    assert ran.stdout.split() == []
