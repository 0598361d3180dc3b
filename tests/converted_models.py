"""Where every test's models are kept in OpenVINO's format: converting one takes seconds, so that tests share them."""

import os
import tempfile
from pathlib import Path

CACHE_DIR = Path(tempfile.gettempdir()) / f"constellate-tests-{os.getuid()}"
"""It outlives the run: an IR's folder is named after all that its content depends on."""
