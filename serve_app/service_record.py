"""`DATA_DIR/service.json` names the process that serves this data directory, so that other commands can find it."""

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

FILE_NAME = "service.json"


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """A running service. `started_at` is ISO 8601 in UTC.

    `process_mark` is the operating system's record of the start of the process. It is needed because another process
    may have the same pid later.
    """

    pid: int
    url: str
    ray_address: str
    started_at: str
    process_mark: str

    @classmethod
    def of_this_process(cls, *, url: str, ray_address: str) -> "ServiceRecord":
        """A new record of the calling process."""
        pid = os.getpid()
        return cls(pid, url, ray_address, datetime.now(UTC).isoformat(timespec="seconds"), _process_mark(pid) or "")

    @classmethod
    def read(cls, data_dir: Path) -> "ServiceRecord | None":
        """The record of a service that is alive, or None; the record of a dead service is ignored."""
        try:
            record = cls(**json.loads((data_dir / FILE_NAME).read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return record if record.is_alive() else None

    def write(self, data_dir: Path) -> None:
        """Write the record in one atomic step."""
        data_dir.mkdir(parents=True, exist_ok=True)
        unfinished = data_dir / f".{FILE_NAME}.{self.pid}"
        unfinished.write_text(json.dumps(asdict(self), indent=2) + "\n")
        unfinished.replace(data_dir / FILE_NAME)

    def remove(self, data_dir: Path) -> None:
        """Delete the record, unless another service has written its own meanwhile."""
        if ServiceRecord.read(data_dir) in (self, None):
            (data_dir / FILE_NAME).unlink(missing_ok=True)

    def is_alive(self) -> bool:
        """Whether the process that the record names still runs."""
        return bool(self.process_mark) and _process_mark(self.pid) == self.process_mark


def _process_mark(pid: int) -> str | None:
    """A text that identifies a process by its start; None if no process has this pid."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").is_file():
        try:
            # The command in field 2 may hold any character, so fields are counted from its closing parenthesis.
            state, *fields = stat.read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            return None
        return None if state in "ZX" else f"{fields[18]}@{_boot_id()}"
    asked = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, env={"LC_ALL": "C"}
    )
    return asked.stdout.strip() or None


def _boot_id() -> str:
    """The id of this boot; start times count from boot, so they identify a process only together with this id."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
