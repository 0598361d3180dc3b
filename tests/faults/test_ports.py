"""What a running service listens on: loopback alone; and what other Ray jobs of this machine need to join it."""

import ipaddress
import os
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serve_app.service_record import ServiceRecord
from tests.faults.album import Album
from tests.faults.service import REPOSITORY, Process, Service
from tests.faults.wait import PATIENCE_S

pytestmark = pytest.mark.faults

LISTENING = "0A"
DRIVER = "import ray; ray.init(address={!r}, log_to_driver=False); print(len(ray.nodes()))"


def listeners(service: Service) -> dict[tuple[str, int], str]:
    """Address and port of every TCP listener of the service, with its process; as `ss -ltnp` shows them."""
    owners = {inode: process.title for process in service.processes() for inode in _sockets(process)}
    found = {}
    for family, table in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in owners:
                address, _, port = fields[1].partition(":")
                words = bytes.fromhex(address)
                octets = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                found[socket.inet_ntop(family, octets), int(port, 16)] = owners[fields[9]]
    return found


def _sockets(process: Process) -> list[str]:
    """The inodes of a process's sockets; none if it has just ended."""
    try:
        targets = [os.readlink(entry) for entry in Path(f"/proc/{process.pid}/fd").iterdir()]
    except OSError:
        return []
    return [target[8:-1] for target in targets if target.startswith("socket:[")]


def _is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux")
def test_nothing_of_the_service_listens_beyond_loopback(service: Service, album: Album):
    """Two dozen ports of Ray were open to the network, and those of Serve's replicas even without Ray's token."""
    found = listeners(service)

    assert len(found) > 10
    assert any("ServeReplica" in title for title in found.values())
    assert not {place: title for place, title in found.items() if not _is_loopback(place[0])}


def test_other_jobs_join_with_auto_and_with_what_the_start_prints(service: Service, album: Album):
    record = ServiceRecord.read(service.settings.data_dir)
    assert record is not None
    assert f"RAY_ADDRESS='{record.ray_address}' RAY_AUTH_MODE=token" in service.log.read_text()
    environment = service.environment(service.settings)

    named = environment | {"RAY_ADDRESS": record.ray_address, "RAY_AUTH_MODE": "token"}
    ways = (
        ("auto", environment),
        ("auto", named),
        (None, named),
        (record.ray_address, environment | {"RAY_AUTH_MODE": "token"}),
    )
    with ThreadPoolExecutor(len(ways)) as drivers:
        joined = list(drivers.map(lambda way: _run([sys.executable, "-c", DRIVER.format(way[0])], way[1]), ways))
    for (address, _), ended in zip(ways, joined, strict=True):
        assert (ended.returncode, ended.stdout.strip()) == (0, "1"), f"{address}: {ended.stderr[-600:]}"


def test_a_backup_joins_and_only_its_owner_may_read_the_database(service: Service, album: Album):
    ended = _run([sys.executable, "-m", "serve_app.cli", "backup"], service.environment(service.settings))

    assert ended.returncode == 0, ended.stderr[-600:]
    files = [path for path in service.settings.data_dir.rglob("*.duckdb*") if path.is_file()]
    assert len(files) >= 2
    assert not [path for path in files if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]


def test_the_proxy_answers_nothing_about_what_runs(service: Service, album: Album):
    assert service.status_of("/-/routes") == 404
    assert service.http.get("/-/healthz").text == "success"


def _run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
