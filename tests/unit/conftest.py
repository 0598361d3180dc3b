"""Keeps unit tests from starting Ray and from connecting to other machines."""

import ipaddress
import socket
import sys

import pytest
from hypothesis import settings

# There is no deadline, because the time of an example depends on the machine's other work. Each run draws others.
settings.register_profile("unit", deadline=None, max_examples=40)
settings.load_profile("unit")


def _refuse_ray(*args, **kwargs):
    raise AssertionError("unit tests do not start Ray; tests/ray is the place for that")


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch):
    """Replace `ray.init` if Ray has been imported, and otherwise forbid its import."""
    if "ray" in sys.modules:
        monkeypatch.setattr(sys.modules["ray"], "init", _refuse_ray)
    else:
        monkeypatch.setitem(sys.modules, "ray", None)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Let sockets connect to loopback and Unix addresses only."""
    connect = socket.socket.connect

    def connect_on_this_machine(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            assert _is_loopback(address[0]), f"a unit test reached for {address[0]}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_on_this_machine)


def _is_loopback(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
