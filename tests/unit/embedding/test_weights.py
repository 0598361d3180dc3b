import hashlib
import json
import os
import threading

import httpx
import pytest

from serve_app.embedding import weights
from serve_app.errors import ModelUnavailable, UnknownModel

REVISION = "f" * 40


def write_checkpoint(directory, *, model_type="dinov2", tensors=b"tensors"):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    (directory / "model.safetensors").write_bytes(tensors)
    return directory


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty Hugging Face cache, and a hub that must not be asked."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(weights.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(weights.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weights.httpx, "head", lambda *_, **__: pytest.fail("the hub was asked"))
    return folder


def fill_cache(cache, repository):
    home = cache / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(REVISION)
    return write_checkpoint(home / "snapshots" / REVISION)


def hub_answers(monkeypatch, status):
    monkeypatch.setattr(weights.httpx, "head", lambda *_, **__: httpx.Response(status))


# Names


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("dinov2-small", "facebook/dinov2-small"),
        ("dinov2-giant", "facebook/dinov2-giant"),
        ("dinov2-base-reg", "facebook/dinov2-with-registers-base"),
    ],
)
def test_known_names_stand_for_repositories_of_the_hub(name, repository):
    assert weights.resolve(name) == name
    assert weights.REPOSITORIES[name] == repository


def test_there_are_four_sizes_with_and_without_registers():
    assert len([name for name in weights.REPOSITORIES if name.startswith("dinov2-")]) == 8


@pytest.mark.parametrize("model_type", ["dinov2", "dinov2_with_registers"])
def test_a_folder_with_a_dinov2_configuration_is_a_model(tmp_path, monkeypatch, model_type):
    directory = write_checkpoint(tmp_path / "mine", model_type=model_type)
    monkeypatch.chdir(tmp_path)
    assert weights.resolve("mine") == weights.resolve(str(directory)) == str(directory)


def test_a_near_miss_gets_a_suggestion():
    with pytest.raises(UnknownModel, match=r"did you mean dinov2-base\?"):
        weights.resolve("dinov2-bas")


@pytest.mark.parametrize("name", ["", "resnet50", "/", "/no/such/folder", "~nobody-here/x", "a\0b", "x" * 5000, ".."])
def test_anything_else_is_an_unknown_model(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownModel):
        weights.resolve(name)


@pytest.mark.parametrize("config", ['{"model_type": "bert"}', "{}", "[]", "", "\xff"])
def test_a_folder_of_something_else_is_an_unknown_model(tmp_path, config):
    (tmp_path / "config.json").write_text(config, encoding="latin-1")
    with pytest.raises(UnknownModel):
        weights.resolve(str(tmp_path))


def test_a_configuration_behind_a_link_counts_as_it_does_in_the_cache_of_the_hub(tmp_path):
    blob = write_checkpoint(tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "config.json").symlink_to(blob / "config.json")
    assert weights.resolve(str(tmp_path / "snapshot")) == str(tmp_path / "snapshot")


def place_pipe(file):
    os.mkfifo(file)


def place_link_to_zeros(file):
    file.symlink_to("/dev/zero")


def place_link_to_own_environment(file):
    file.symlink_to("/proc/self/environ")


def place_loop(file):
    file.symlink_to(file)


def place_huge_file(file):
    file.write_text(json.dumps({"model_type": "dinov2", "padding": " " * weights.MAX_CONFIG_BYTES}))


def place_brackets(file):
    file.write_text("[" * 500_000)


@pytest.mark.parametrize(
    "place",
    [
        place_pipe, place_link_to_zeros, place_link_to_own_environment, place_loop, place_huge_file, place_brackets,
    ],
)  # fmt: skip
def test_what_is_no_small_regular_file_is_no_configuration_and_holds_nobody_up(tmp_path, place):
    """A pipe would hold the thread for ever, and /dev/zero would take all memory."""
    place(tmp_path / "config.json")
    with pytest.raises(UnknownModel):
        weights.resolve(str(tmp_path))


def test_a_pipe_that_takes_the_place_of_the_configuration_holds_nobody_up(tmp_path, monkeypatch):
    write_checkpoint(tmp_path)
    real_open = os.open

    def swap_then_open(path, *args, **options):
        (tmp_path / "config.json").unlink()
        os.mkfifo(tmp_path / "config.json")
        return real_open(path, *args, **options)

    monkeypatch.setattr(weights.os, "open", swap_then_open)
    with pytest.raises(UnknownModel):
        weights.resolve(str(tmp_path))


@pytest.mark.parametrize("name", ["/proc/self/cwd", "/proc/self/root/etc", "/dev/fd/0", "/sys"])
def test_folders_of_the_system_are_no_models(name):
    with pytest.raises(UnknownModel):
        weights.resolve(name)


# Folders


def test_a_complete_folder_is_used_as_it_is(tmp_path):
    directory = write_checkpoint(tmp_path / "mine")
    assert weights.locate(str(directory)) == directory


def test_a_folder_without_weights_is_unavailable_and_says_what_it_lacks(tmp_path):
    directory = write_checkpoint(tmp_path / "mine")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable, match=r"mine lacks model\.safetensors") as caught:
        weights.locate(str(directory))
    assert str(tmp_path) not in str(caught.value)


def test_a_missing_shard_is_named(tmp_path):
    directory = write_checkpoint(tmp_path / "mine")
    (directory / "model.safetensors").rename(directory / "a.safetensors")
    shards = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors", "z": "b.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(shards))
    assert weights.missing_files(directory) == ["b.safetensors"]
    (directory / "b.safetensors").touch()
    assert weights.locate(str(directory)) == directory


@pytest.mark.parametrize("index", ["", "{}", '{"weight_map": 3}'])
def test_a_damaged_shard_index_counts_as_missing(tmp_path, index):
    directory = write_checkpoint(tmp_path / "mine")
    (directory / "model.safetensors.index.json").write_text(index)
    assert weights.missing_files(directory) == ["a readable model.safetensors.index.json"]


# Cache and hub


@pytest.mark.parametrize("name", ["dinov2-small", "dinov2-base-reg"])
def test_the_cache_is_used_without_asking_the_hub(cache, name):
    snapshot = fill_cache(cache, weights.REPOSITORIES[name])
    assert weights.locate(name) == snapshot


def test_a_reachable_hub_is_downloaded_from(tmp_path, monkeypatch):
    hub_answers(monkeypatch, 200)
    asked = []

    def download(repository, *, allow_patterns, local_files_only=False):
        if local_files_only:
            raise weights.LocalEntryNotFoundError("not cached")
        asked.append((repository, allow_patterns))
        return str(write_checkpoint(tmp_path / "downloaded"))

    monkeypatch.setattr(weights, "snapshot_download", download)
    assert weights.locate("dinov2-large") == tmp_path / "downloaded"
    assert asked == [("facebook/dinov2-large", weights.FILES)]


def test_an_incomplete_cache_is_completed_from_the_hub(cache, tmp_path, monkeypatch):
    (fill_cache(cache, "facebook/dinov2-small") / "model.safetensors").unlink()
    hub_answers(monkeypatch, 200)
    cached = weights.snapshot_download
    complete = write_checkpoint(tmp_path / "downloaded")
    monkeypatch.setattr(
        weights,
        "snapshot_download",
        lambda *args, **options: cached(*args, **options) if options.get("local_files_only") else str(complete),
    )
    assert weights.locate("dinov2-small") == complete


def unavailable(name="dinov2-small"):
    with pytest.raises(ModelUnavailable) as caught:
        weights.locate(name)
    return str(caught.value)


def test_an_unreachable_hub_leaves_three_ways_to_get_the_weights(monkeypatch):
    def refuse(*_, **__):
        raise httpx.ConnectError("no route")

    monkeypatch.setattr(weights.httpx, "head", refuse)
    message = unavailable()
    assert "cannot be reached" in message
    assert "CONSTELLATE_MODEL" in message
    assert "hf download facebook/dinov2-small" in message
    assert "access to the hub" in message


def test_a_silent_hub_is_given_up_soon(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(weights.httpx, "head", lambda *_, **__: released.wait(30) and httpx.Response(200))
    monkeypatch.setattr(weights, "PROBE_TIMEOUT_S", 0.02)
    assert "did not answer within 0.02 s" in unavailable()
    released.set()


def test_the_probe_ends_within_five_seconds():
    assert weights.PROBE_TIMEOUT_S < 5


@pytest.mark.parametrize("status", [401, 404, 503])
def test_a_hub_that_refuses_is_quoted(monkeypatch, status):
    hub_answers(monkeypatch, status)
    assert f"the hub answered {status}" in unavailable()


def test_offline_mode_asks_nobody(monkeypatch):
    monkeypatch.setattr(weights.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in unavailable()


@pytest.mark.parametrize("error", [OSError("disk full"), httpx.ReadError("reset"), ValueError("odd")], ids=repr)
def test_a_broken_download_is_unavailable(monkeypatch, error):
    hub_answers(monkeypatch, 200)

    def fail(*_, local_files_only=False, **__):
        raise weights.LocalEntryNotFoundError("not cached") if local_files_only else error

    monkeypatch.setattr(weights, "snapshot_download", fail)
    assert f"the download failed ({type(error).__name__})" in unavailable()


# Fingerprints


def test_equal_checkpoints_have_equal_fingerprints_wherever_they_are(tmp_path):
    one, other = write_checkpoint(tmp_path / "one"), write_checkpoint(tmp_path / "other")
    (other / "README.md").write_text("about")
    assert weights.fingerprint(one) == weights.fingerprint(other)


@pytest.mark.parametrize("change", [{"tensors": b"tensorz"}, {"model_type": "dinov2_with_registers"}], ids=str)
def test_other_weights_or_configuration_have_another_fingerprint(tmp_path, change):
    directory = write_checkpoint(tmp_path / "mine")
    before = weights.fingerprint(directory)
    write_checkpoint(directory, **change)
    assert weights.fingerprint(directory) != before


def test_an_unchanged_file_is_hashed_once(tmp_path, monkeypatch):
    directory = write_checkpoint(tmp_path / "mine")
    hashed = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: hashed.append(file.name) or digest(file, kind))
    assert weights.fingerprint(directory) == weights.fingerprint(directory)
    assert len(hashed) == 2
