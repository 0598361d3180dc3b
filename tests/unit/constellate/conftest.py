"""The live service and the command line of `tests/unit/cli`."""

from tests.unit.cli.conftest import flowers, live, run, service, settings

__all__ = ["flowers", "live", "run", "service", "settings"]
