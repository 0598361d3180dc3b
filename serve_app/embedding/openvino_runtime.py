"""OpenVINO without its telemetry; whoever needs `openvino` imports it from here.

`import openvino` and `import nncf` report to Intel through Google Analytics, without asking, wherever the package
`openvino_telemetry` can be imported, and pip installs that package with OpenVINO. Both do without it.
"""

import sys
from typing import Any

modules: dict[str, Any] = sys.modules
modules["openvino_telemetry"] = None  # so that importing it raises ImportError

import openvino  # noqa: E402
from openvino import opset13 as ops  # noqa: E402

__all__ = ["openvino", "ops"]
