"""Settings for every kind of test."""

import os

from tests.converted_models import CACHE_DIR

RAY_BESIDE_OTHERS = {
    # By default, Ray's processes have a nice value of 15, and wait most of the time if another kind of test runs.
    "RAY_worker_niceness": "0",
    # Serve kills a proxy that is not ready within 5 s.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    # A thread of Serve that outlives `ray.shutdown` would connect again, and the nodes could not be ended.
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
"""The settings that clusters under test need. Ray reads some of them when it is imported."""

os.environ.update(RAY_BESIDE_OTHERS)
os.environ.setdefault("CONSTELLATE_CACHE_DIR", str(CACHE_DIR))
