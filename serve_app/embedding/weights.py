"""Finds a model's weights by name, in a checkpoint folder, the Hugging Face cache or the hub.

A checkpoint is a folder as `save_pretrained` writes it: JSON files, `*.safetensors`, and a tokenizer's files. The
service reads no other files from it: no pickled weights, no code.
"""

import difflib
import errno
import functools
import hashlib
import json
import os
import queue
import stat
import threading
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import constants, get_token, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from serve_app.embedding import families
from serve_app.errors import ModelUnavailable, UnknownModel

REPOSITORIES = {name: model.repository for name, model in families.KNOWN.items()}
"""The hub repository of each known model."""

FILES = ["*.json", "*.safetensors", "merges.txt", "spiece.model"]
MAX_CONFIG_BYTES = 1 << 20
SYSTEM_FOLDERS = tuple(map(Path, ("/proc", "/sys", "/dev")))
PROBE_TIMEOUT_S = 4.0
"""The service detects an unreachable hub within this time; the hub's own client would retry for minutes."""


def resolve(name: str) -> str:
    """The canonical name of a model: a known name or a checkpoint's absolute path, and `?pooling=` if it needs one.

    It reads no file but `config.json`, and that only if it is a regular file of at most `MAX_CONFIG_BYTES` outside the
    folders of the system; `locate` looks for weights.

    Raises:
        UnknownModel: the name is neither, or has no pooling that its family has; the message suggests what would do.
    """
    base, _ = families.split(name)
    if base in families.KNOWN:
        return families.canonical(base, name, families.of_known(base))
    try:
        directory = Path(base).expanduser().resolve()
        architecture = configuration(directory).get("model_type")
    except (OSError, ValueError, RuntimeError, AttributeError):  # RuntimeError: links in a loop, brackets too deep
        architecture = None
    if isinstance(architecture, str) and architecture:
        return families.canonical(str(directory), name, families.of_type(architecture))
    near = difflib.get_close_matches(base, REPOSITORIES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(REPOSITORIES)}"
    raise UnknownModel(f"{name!r} is neither a known model nor a folder with a checkpoint; {hint}")


def configuration(directory: Path) -> dict[str, Any]:
    """A checkpoint's `config.json`, which is read with care because clients name the folder.

    Raises:
        OSError: see `_configuration`.
        ValueError, RecursionError: the file is no JSON.
    """
    config: dict[str, Any] = json.loads(_configuration(directory))
    return config


def _configuration(directory: Path) -> bytes:
    """The content of a folder's `config.json`; clients name the folder, so the file may be anything.

    The cache of the hub has a link in place of the file, so links are followed.

    Raises:
        OSError: the file cannot be read, is not regular, is too large, or lies in a folder of the system.
    """
    file = (directory / "config.json").resolve()
    if any(file.is_relative_to(folder) for folder in SYSTEM_FOLDERS):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    # A pipe is found out before it is opened, and one that takes the file's place meanwhile does not hold the thread.
    if not stat.S_ISREG(file.stat().st_mode):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as opened:
        found = os.fstat(opened.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        content = opened.read(MAX_CONFIG_BYTES + 1)
    if len(content) > MAX_CONFIG_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return content


def locate(name: str) -> Path:
    """A complete checkpoint folder of the model; the call downloads it if necessary and blocks meanwhile.

    If `name` is a folder, it is that folder. Otherwise the search tries the Hugging Face cache and then the hub
    (unless `HF_HUB_OFFLINE` is set).

    Raises:
        UnknownModel: see `resolve`.
        ModelUnavailable: the folder is incomplete, or neither cache nor hub has the weights; the message
            names the ways to get them.
    """
    name, _ = families.split(resolve(name))
    if name not in REPOSITORIES:
        directory = Path(name)
        if missing := missing_files(directory):
            raise ModelUnavailable(f"the checkpoint {directory.name} lacks {', '.join(missing)}")
        return directory
    repository = REPOSITORIES[name]
    cached = _cached(repository)
    if cached is not None and not missing_files(cached):
        return cached
    obstacle = _hub_obstacle(repository)
    if obstacle is None:
        try:
            return Path(snapshot_download(repository, allow_patterns=FILES))
        except (OSError, ValueError, httpx.HTTPError) as error:
            obstacle = f"the download failed ({type(error).__name__})"
    licence = f"{_gate(name)}. " if families.KNOWN[name].gated else ""
    raise ModelUnavailable(
        f"the weights of {name} are not on this machine and {obstacle}. {licence}Any of these helps: "
        "set CONSTELLATE_MODEL (or model_name) to a folder with config.json and model.safetensors; "
        f"run `hf download {repository}` where the hub can be reached and copy the Hugging Face cache here; "
        "or give this machine access to the hub"
    )


def admit(name: str) -> str:
    """The canonical name of a model for a new job; what no replica could run is refused before the job begins.

    Raises:
        UnknownModel: see `resolve`; or the checkpoint's pixels cannot be reproduced, or it is gated, is not on this
            machine, and no token is set to fetch it with.
    """
    # The import is here because that module reads checkpoints, which this one finds.
    from serve_app.embedding.checkpoint import preprocessing_of

    name = resolve(name)
    base, _ = families.split(name)
    known = families.KNOWN.get(base)
    if known is None:
        try:
            preprocessing_of(Path(base))
        except ModelUnavailable as error:
            raise UnknownModel(error.detail) from None
    elif known.gated and get_token() is None and _cached(known.repository) is None:
        raise UnknownModel(f"the weights of {base} are not on this machine. {_gate(base)}")
    return name


def _gate(name: str) -> str:
    """How to get the weights of a gated model."""
    model = families.KNOWN[name]
    return (
        f"Their repository is gated ({model.licence}): accept the licence at {constants.ENDPOINT}/{model.repository} "
        "and set HF_TOKEN to a token of that account, or name a local folder"
    )


def missing_files(directory: Path) -> list[str]:
    """The names of required files that a checkpoint lacks; the list is empty if it is complete."""
    missing = [] if (directory / "config.json").is_file() else ["config.json"]
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        return missing if (directory / "model.safetensors").is_file() else [*missing, "model.safetensors"]
    try:
        shards: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
        return missing + [name for name in sorted(set(shards.values())) if not (directory / name).is_file()]
    except (ValueError, LookupError, TypeError, AttributeError):
        return [*missing, f"a readable {index.name}"]


def fingerprint(directory: Path) -> str:
    """SHA-256 (hex) over the names and contents of a checkpoint's configuration and weights.

    The files are streamed. A process reads a file again only if its size or modification time has changed.
    """
    total = hashlib.sha256()
    for path in [directory / "config.json", *sorted(directory.glob("*.safetensors"))]:
        state = path.stat()
        total.update(f"{path.name} {_digest(path, state.st_size, state.st_mtime_ns)}\n".encode())
    return total.hexdigest()


@functools.lru_cache(maxsize=64)
def _digest(path: Path, _size_bytes: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cached(repository: str) -> Path | None:
    try:
        return Path(snapshot_download(repository, allow_patterns=FILES, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        return None


def _hub_obstacle(repository: str) -> str | None:
    """The reason why the hub cannot serve the repository, or None.

    The request runs in its own thread, because name resolution has no timeout.
    """
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids asking the hub"
    answers: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=lambda: answers.put(_ask_hub(repository)), name="hub-probe", daemon=True).start()
    try:
        return answers.get(timeout=PROBE_TIMEOUT_S)
    except queue.Empty:
        return f"the hub did not answer within {PROBE_TIMEOUT_S:g} s"


def _ask_hub(repository: str) -> str | None:
    url = f"{constants.ENDPOINT}/{repository}/resolve/main/config.json"
    try:
        token = get_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = httpx.head(url, headers=headers, timeout=PROBE_TIMEOUT_S, follow_redirects=True)
    except (httpx.HTTPError, OSError) as error:
        return f"the hub cannot be reached ({type(error).__name__})"
    return None if answer.is_success else f"the hub answered {answer.status_code}"
