import os

import pytest

from serve_app.images import thumbnails
from serve_app.images.thumbnails import ThumbnailCache

KEY = ThumbnailCache.key("d", "s", 10, 20, 64)


def test_what_was_put_is_got(tmp_path):
    cache = ThumbnailCache(tmp_path / "thumbnails")
    assert cache.get(KEY) is None
    cache.put(KEY, b"jpeg")
    assert cache.get(KEY) == b"jpeg"
    cache.put(KEY, b"again")
    assert ThumbnailCache(tmp_path / "thumbnails").get(KEY) == b"again"


@pytest.mark.parametrize(
    "other",
    [
        ("e", "s", 10, 20, 64),
        ("d", "t", 10, 20, 64),
        ("d", "s", 11, 20, 64),
        ("d", "s", 10, 21, 64),
        ("d", "s", 10, 20, 65),
    ],
)
def test_every_part_of_the_key_counts(other):
    assert ThumbnailCache.key(*other) != KEY


def test_a_full_shard_loses_its_oldest(tmp_path, monkeypatch):
    monkeypatch.setattr(thumbnails, "MAX_FILES_PER_SHARD", 8)
    cache = ThumbnailCache(tmp_path)
    keys = [f"ab{i:04}" for i in range(20)]
    for age, key in enumerate(keys):
        cache.put(key, b"x")
        os.utime(tmp_path / "ab" / key, ns=(age, age))
    kept = [key for key in keys if cache.get(key)]
    assert len(kept) <= 8
    assert kept == keys[-len(kept) :]


def test_no_half_written_file_is_left_behind(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    cache = ThumbnailCache(tmp_path)
    cache.put(KEY, b"jpeg")
    assert cache.get(KEY) is None
    assert list((tmp_path / KEY[:2]).iterdir()) == []
