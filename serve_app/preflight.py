"""Checks before a service starts: a free and private data directory, a free port, and enough open files."""

import logging
import resource
import socket
import stat
import time

from serve_app.config import Settings
from serve_app.errors import Unavailable
from serve_app.service_record import FILE_NAME, ServiceRecord

log = logging.getLogger("constellate.preflight")

KILLED_PORT_S = 15.0
FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_data_dir(settings: Settings) -> None:
    """Raise `Unavailable` if another service uses the data directory."""
    other = ServiceRecord.read(settings.data_dir)
    if other is not None:
        raise Unavailable(
            f"the data directory is in use by the service at {other.url} (pid {other.pid}); "
            "stop it with `constellate down` or choose another directory with --data-dir"
        )


def make_private(settings: Settings) -> None:
    """Make the data directory, and keep other users of this machine from the database in it and its log.

    A directory that is there already keeps its mode, because it may hold other things; a warning says what it lets in.
    """
    folder = settings.data_dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if mode := folder.stat().st_mode & FOR_OTHERS:
        log.warning("%s is open to other users (mode %03o): chmod 700 keeps them out", folder, 0o700 | mode)
    for path in folder.glob(f"{settings.database_path.name}*"):
        if path.is_file() and path.stat().st_mode & FOR_OTHERS:
            path.chmod(0o600)


def await_port(settings: Settings) -> None:
    """Check that the port is free; after a service was killed, give its remaining processes time to end.

    Raises:
        Unavailable: another process listens on the port.
    """
    was_killed = (settings.data_dir / FILE_NAME).exists()
    deadline = time.monotonic() + (KILLED_PORT_S if was_killed else 0.0)
    while True:
        try:
            return _check_port(settings)
        except Unavailable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)


def _check_port(settings: Settings) -> None:
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); "
                "stop what uses it (`constellate down`) or choose another port with --port"
            ) from None


def raise_file_limit() -> None:
    """Raise the limit of open files, because streams and Ray's processes need more than the usual 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else max(soft, 65536), hard))
