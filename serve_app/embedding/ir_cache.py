"""Converted checkpoints on disk, in OpenVINO's intermediate representation (IR): a graph, and its weights.

The folder of an IR is named after everything that its content depends on, so a newer version of the service or of a
library never reads an older one's. Everything in the cache may be deleted at any time. A process holds a shared lock on
the folder of each IR that it has loaded; a conversion removes what nobody holds, when all is larger than `KEPT_BYTES`.

    <cache_dir>/openvino/<key>/graph.xml, graph.bin, text.json, checksums.json
                               text.xml, text.bin and a tokenizer's files where the model takes text
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from serve_app.embedding.checkpoint import tokenizer_files
from serve_app.embedding.model import ModelRequest
from serve_app.errors import ModelUnavailable

log = logging.getLogger("constellate.embedding")

GRAPH = "graph.xml"
CHECKSUMS = "checksums.json"
CONVERTER = "serve_app.embedding.converter"
SOURCES = (
    "converter.py", "int8.py", "network.py", "text_network.py", "text.py", "tokenizer.py", "sentence_pieces.py",
    "families/*.py",
)  # fmt: skip
LIBRARIES = ("openvino", "torch", "transformers", "tokenizers", "sentencepiece")
KEPT_BYTES = 5 << 30
"""The size of what is kept for later: more than the largest IR. What processes have loaded is kept beyond it."""

_held: dict[Path, int] = {}
"""The folders of the IRs that this process has loaded, and the descriptors that hold their locks until it ends."""


class IRCache:
    """The IRs below one folder. Several processes may use the folder at once."""

    def __init__(self, cache_dir: Path) -> None:
        self._folder = cache_dir / "openvino"

    def graph_of(self, wanted: ModelRequest) -> Path:
        """The graph file of a checkpoint, which is converted first if no intact IR is there.

        The call blocks for the conversion: ten seconds to some minutes. If several processes ask for the same IR, one
        of them converts, and the others wait for it.

        Raises:
            ModelUnavailable: the checkpoint is damaged or cannot be converted, or the folder cannot be written.
        """
        folder = self._folder / _key(wanted)
        if not _hold(folder):
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                with _locked(folder.with_suffix(".lock")):
                    if not _hold(folder):
                        self._convert(wanted, folder)
                        _hold(folder)
                        with suppress(OSError):  # another process may sweep at the same time
                            self._sweep()
            except OSError as error:
                raise ModelUnavailable(
                    f"{wanted.name} cannot be converted for this machine's CPU: CONSTELLATE_CACHE_DIR "
                    f"({self._folder.parent}) cannot be used: {error.strerror or error}"
                ) from None
        return folder / GRAPH

    def _convert(self, wanted: ModelRequest, folder: Path) -> None:
        """Make the IR beside its folder, and put it there when it is complete."""
        log.info("model %s: converting it for this machine's CPU, once", wanted.name)
        begin = time.monotonic()
        prefix = f".{folder.name}-"
        for leftover in self._folder.glob(f"{prefix}*"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=prefix) as workplace:
            unfinished = Path(workplace) / "ir"
            unfinished.mkdir()
            _run_converter(wanted, unfinished / GRAPH)
            digests = {file.name: _digest(file) for file in sorted(unfinished.iterdir())}
            (unfinished / CHECKSUMS).write_text(json.dumps(digests))
            shutil.rmtree(folder, ignore_errors=True)  # it exists only if it is damaged
            unfinished.rename(folder)
        log.info("model %s: converted in %.1f s", wanted.name, time.monotonic() - begin)

    def _sweep(self) -> None:
        """Remove the IRs that were not used for longest, until the rest fits `KEPT_BYTES`, but none that is held."""
        for leftover in self._folder.glob(".*-removed"):  # of a process that was killed here
            shutil.rmtree(leftover, ignore_errors=True)
        total = 0
        for folder in sorted(self._folder.glob("[!.]*/"), key=_last_use, reverse=True):
            size = sum(file.stat().st_size for file in folder.iterdir())
            if total + size > KEPT_BYTES and _remove(folder):
                log.info("removed %s, a conversion of %.1f GB that was not used lately", folder, size / 1e9)
            else:
                total += size


def _hold(folder: Path) -> bool:
    """Keep an IR from being removed as long as this process lives; False if there is none that is intact."""
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    fcntl.flock(opened, fcntl.LOCK_SH)
    if not _is_intact(folder):
        os.close(opened)
        return False
    with suppress(OSError):  # others may share a cache that they cannot write
        os.utime(folder)
    earlier, _held[folder] = _held.get(folder), opened
    if earlier is not None:
        os.close(earlier)
    return True


def _last_use(folder: Path) -> float:
    return folder.stat().st_mtime


def _remove(folder: Path) -> bool:
    """Remove an IR unless a process holds it; whether it is gone."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever converts it again meanwhile puts another folder there, which is not to be removed.
        unused = folder.rename(folder.with_name(f".{folder.name}-removed"))
        shutil.rmtree(unused, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(opened)
    return True


def _key(wanted: ModelRequest) -> str:
    """Stands for the checkpoint, its pixels, and the code and libraries that convert. bf16 uses the graph of fp32."""
    pixels = wanted.preprocessing
    sources = [_digest(file) for pattern in SOURCES for file in sorted(Path(__file__).parent.glob(pattern))]
    tokenizer = [_digest(file) for file in tokenizer_files(wanted.directory)] if wanted.family.text else []
    parts = (
        wanted.fingerprint,
        (pixels.crop_px, pixels.mean, pixels.std, pixels.rounds),
        wanted.pooling,
        tokenizer,
        "int8" if wanted.precision == "int8" else "fp32",
        sources,
        [version(library) for library in LIBRARIES],
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _is_intact(folder: Path) -> bool:
    try:
        digests: dict[str, str] = json.loads((folder / CHECKSUMS).read_bytes())
        return GRAPH in digests and all(_digest(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends."""
    with file.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def _run_converter(wanted: ModelRequest, graph: Path) -> None:
    """Raises `ModelUnavailable` with the converter's reason."""
    ran = subprocess.run(
        [sys.executable, "-m", CONVERTER, str(wanted.directory), wanted.name, wanted.precision, str(graph)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode == 0:
        return
    reason = ran.stdout.strip() or (ran.stderr.strip().splitlines() or [""])[-1]
    if ran.returncode == 3:
        raise ModelUnavailable(reason)
    raise ModelUnavailable(
        f"{wanted.name} cannot be converted for this machine's CPU: the converter ended with status "
        f"{ran.returncode}: {reason.replace(str(wanted.directory), wanted.name)}"
    )
