"""Ports for servers under test."""

import random
import socket

_CHOICE = random.SystemRandom()
_BELOW_CONNECTIONS = range(20_000, 32_000)
"""Above those of Ray's workers, below those that the kernel gives to connections (ip(7), `ip_local_port_range`)."""


def free_port() -> int:
    """A port of loopback that nothing listens on, and that no connection of another test will take meanwhile."""
    while True:
        port = _CHOICE.choice(_BELOW_CONNECTIONS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
