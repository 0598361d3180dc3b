"""What a machine's loopback address can be called."""

import socket

import pytest

from deployments.loopback import reaches_itself


def test_a_listener_on_this_machine_is_reached_at_its_own_address():
    assert reaches_itself("127.0.0.1")


def test_where_the_kernel_has_no_ipv6_the_mapped_address_reaches_nothing(monkeypatch: pytest.MonkeyPatch):
    def without_ipv6(address: tuple[str, int]) -> socket.socket:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "create_connection", without_ipv6)
    assert not reaches_itself("::ffff:127.0.0.1")
