"""Finds the running service, or runs one for as long as it is needed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from rich.console import Console

from constellate import Constellate, NothingThere, Refused, Unreachable
from serve_app.cli.progress import waiting
from serve_app.config import PREFIX, Settings
from serve_app.errors import ModelUnavailable, Unavailable
from serve_app.service_record import ServiceRecord

COMMAND = [sys.executable, "-m", "serve_app.cli", "serve"]
UNTIL_EOF = "--until-eof"
LOG_NAME = "serve.log"
# The first start may download a model of gigabytes.
START_S = 900.0
STOP_S = 120.0
POLL_S = 0.2


def connect(settings: Settings) -> Constellate:
    """A client of the service that these settings describe.

    A data directory has one service. If nobody listens at the settings' address, the client uses the address that the
    service has recorded in the data directory.

    Raises:
        NothingThere: no service runs.
        Unreachable: another program uses the port.
    """
    client = Constellate(settings.url, api_key=settings.api_key)
    try:
        client.check()
    except NothingThere as nothing:
        client.close()
        record = ServiceRecord.read(settings.data_dir)
        if record is None:
            raise NothingThere(f"{nothing}; start one with `constellate serve`") from None
        client = Constellate(record.url, api_key=settings.api_key)
        client.check()
    return client


class LocalService:
    """A service as a child process, which ends with the `with` block.

    It runs in its own session, so that Ctrl-C at the terminal reaches only this process, which then stops it. It ends
    when its standard input closes, and so also if this process is killed. With `keep`, it outlives this process.

    Raises:
        ModelUnavailable: the model's weights cannot be found or loaded; the message names the ways to get them.
        Unavailable: the service ended or did not become ready; the message names the log.
    """

    def __init__(self, settings: Settings, console: Console, *, keep: bool = False) -> None:
        self.client = Constellate(settings.url, api_key=settings.api_key)
        self._settings = settings
        self._console = console
        self._keep = keep
        self._log_path = settings.data_dir / LOG_NAME

    def __enter__(self) -> Constellate:
        self._settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        foreign = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                COMMAND if self._keep else [*COMMAND, UNTIL_EOF],
                env=foreign | self._settings.to_environment(),
                stdin=subprocess.DEVNULL if self._keep else subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._console.print(f"Starting the service (log: {self._log_path})", highlight=False, soft_wrap=True)
            with waiting(self._console) as say:
                self._await_ready(say)
        except BaseException:
            self._stop()
            raise
        return self.client

    def __exit__(self, *_: object) -> None:
        if self._keep:
            self.client.close()
        else:
            self._stop()

    def _await_ready(self, say: Callable[[str], None]) -> None:
        reason = "it does not answer yet"
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise Unavailable(f"the service ended while starting: {self._last_words()} (log: {self._log_path})")
            try:
                self.client.check()
                return self.client.ready()
            except Unreachable as unreachable:
                reason = str(unreachable)
            except Refused as refused:
                raise_if_model_unavailable(refused.problem.get("components", {}).get("model", ""))
                say(reason := str(refused))
            time.sleep(POLL_S)
        raise Unavailable(f"the service is not ready after {START_S:.0f} s: {reason} (log: {self._log_path})")

    def _last_words(self) -> str:
        lines = self._log_path.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it wrote nothing"

    def _stop(self) -> None:
        """Stop the child process as Ctrl-C would, and wait for its end; signals are ignored meanwhile."""
        with _deaf():
            self.client.close()
            if self._process.poll() is None:
                self._console.print("Stopping the service …")
            if self._process.stdin:
                self._process.stdin.close()
            else:
                self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()


def raise_if_model_unavailable(reason: str) -> None:
    """Raise `ModelUnavailable` if it is the reason why a job failed or the service is not ready."""
    code, _, detail = reason.partition(": ")
    if code == ModelUnavailable.code:
        raise ModelUnavailable(detail)


@contextmanager
def interruptible() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise `KeyboardInterrupt` like Ctrl-C, so that no process is left running."""
    with _handling(_interrupt, signal.SIGTERM, signal.SIGHUP):
        yield


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _deaf() -> AbstractContextManager[None]:
    return _handling(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None] | signal.Handlers, *numbers: int) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
