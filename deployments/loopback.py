"""Keeps a Ray that runs on one machine on its loopback address, so that no other machine reaches any of its ports.

Ray does so by itself where it supports no clusters (macOS, Windows), and a variable asks for it elsewhere. Two things
are missing in Ray 2.60, and this module puts them into Ray's own functions: an address that other drivers on this
machine can use, and the port of Serve's replicas. `tests/faults/test_ports.py` finds out when Ray changes.
"""

import ipaddress
import os
import socket
from typing import Any

import ray
from ray._common import tls_utils
from ray._private import ray_constants
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.node import Node

LOOPBACK = "127.0.0.1"
_MAPPED = f"::ffff:{LOOPBACK}"
"""The same address, spelled so that `ray.init` leaves it alone: it replaces 127.0.0.1 by the machine's own address."""

_start_raylet: Any = Node.start_raylet


def keep_ray_here() -> None:
    """Make the Ray that this process is about to start, and all its processes, listen on loopback alone."""
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    if reaches_itself(_MAPPED):  # a kernel without IPv6 has no such address; other drivers then name the plain one
        Node.start_raylet = _start_raylet_mapped  # type: ignore[method-assign, assignment]


def reaches_itself(address: str) -> bool:
    """Whether a listener on 127.0.0.1 can be reached at this address."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        try:
            socket.create_connection((address, listener.getsockname()[1])).close()
        except OSError:
            return False
    return True


def _start_raylet_mapped(node: Node, *args: object) -> None:
    """Start the node's raylet; `ray.init(address="auto")` of other processes reads Ray's address from its arguments."""
    node._gcs_address = f"[{_MAPPED}]:{node._ray_params.gcs_server_port}"
    _start_raylet(node, *args)


def use_token_of(address: str) -> None:
    """Let this process join the Ray at this address as a driver; one that `keep_ray_here` began wants Ray's token."""
    if _MAPPED in address:
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def keep_replica_here() -> None:
    """Make this replica listen no wider than its node; its constructor calls this.

    Serve opens a port for calls between replicas on every network interface, without Ray's token, after the
    constructor has returned.
    """
    if ipaddress.ip_address(ray.util.get_node_ip_address()).is_loopback:
        from ray.serve._private import replica

        replica.add_port_to_grpc_server = _add_port_on_loopback  # type: ignore[attr-defined]


def _add_port_on_loopback(server: object, address: str) -> int:
    port: int = tls_utils.add_port_to_grpc_server(server, address.replace("[::]", LOOPBACK))
    return port
