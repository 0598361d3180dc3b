"""Names, opening beneath a root, reading once, examining."""

import errno
import hashlib
import json
import os
import pickle
import shutil
import socket
import tempfile
import threading
import unicodedata
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.errors import InvalidRequest, RefusedImage, Unavailable
from serve_app.sources import files, folder
from serve_app.sources.files import decode_name, encode_name, is_plain, open_beneath, read_file, stat_files
from serve_app.sources.listing import open_listing

NOBODY = 65534
MAX_BYTES = 1 << 20

HOSTILE_NAMES = {
    "empty": "",
    "dot": ".",
    "parent": "..",
    "climbing": "../secret.jpg",
    "climbing from inside": "cats/../../secret.jpg",
    "staying inside by climbing": "cats/../a.jpg",
    "absolute": "/etc/passwd",
    "doubled slash": "//etc/passwd",
    "slash at the end": "a.jpg/",
    "dot part": "./a.jpg",
    "NUL": "a.jpg\0.png",
    "lone surrogate": "\ud800.jpg",
    "quoted parent": "bytes:../%FF.jpg",
    "dots quoted without need": "bytes:%2E%2E/secret.jpg",
    "spelling of nothing": "bytes:plain.jpg",
}
ODD_NAMES = {
    "emoji": "🦊.jpg".encode(),
    "space": b" a b .jpg",
    "newline": b"a\nb\r.jpg",
    "quotes": b"a'b\"c`.jpg",
    "markup": b"<script>alert(1)<.jpg",
    "255 bytes": b"x" * 251 + b".jpg",
    "leading dash": b"-rf.jpg",
    "NFC": unicodedata.normalize("NFC", "é.jpg").encode(),
    "NFD": unicodedata.normalize("NFD", "é.jpg").encode(),
    "percent": b"%2e%2e%2fa.jpg",
    "backslashes": b"..\\..\\a.jpg",
    "three dots": b"...",
    "not UTF-8": b"caf\xff.jpg",
    "spelled surrogate": b"\xed\xa0\x80.jpg",
    "like an escape": b"bytes:%FF.jpg",
    "empty escape": b"bytes:",
}

file_system_names = st.binary(min_size=1, max_size=60).map(lambda raw: raw.replace(b"\0", b"\xff"))
escaped_names = file_system_names.map(lambda raw: b"bytes:" + raw)


@pytest.fixture
def root(tmp_path):
    """A dataset's folder with a picture and a sub-folder, and a secret beside it."""
    folder = tmp_path / "data"
    (folder / "cats").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"picture")
    (folder / "cats" / "b.jpg").write_bytes(b"tabby")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    return folder


@contextmanager
def without_rights():
    """Continue as a user who owns nothing, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_root():
    """A folder that any user can reach; those of `tmp_path` are closed to others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        path.chmod(0o700)
    shutil.rmtree(folder)


def content_of(root, name):
    return read_file(str(root), name, max_bytes=MAX_BYTES)[0]


def reason_of(root, name, max_bytes=MAX_BYTES):
    with pytest.raises(RefusedImage) as caught:
        read_file(str(root), name, max_bytes=max_bytes)
    assert caught.value.detail
    assert str(root.parent) not in str(caught.value)
    return caught.value.reason


def n_open_files():
    return len(os.listdir("/dev/fd"))


@given(st.one_of(file_system_names, escaped_names))
def test_a_name_survives_its_spelling_and_the_spelling_fits_json(raw):
    text = encode_name(raw)
    assert decode_name(text) == raw
    assert json.loads(json.dumps(text).encode("utf-8")) == text


@given(st.one_of(file_system_names, escaped_names), st.one_of(file_system_names, escaped_names))
def test_different_names_have_different_spellings(one, other):
    assert (encode_name(one) == encode_name(other)) == (one == other)


@given(st.one_of(st.text(max_size=30), st.text("bytes:%0F/a", max_size=30).map("bytes:".__add__)))
def test_a_text_is_refused_or_is_the_one_spelling_of_its_name(text):
    with suppress(RefusedImage):
        assert encode_name(decode_name(text)) == text


@pytest.mark.parametrize("raw", ODD_NAMES.values(), ids=ODD_NAMES.keys())
def test_an_odd_name_is_stored_by_duckdb_and_opens_its_file(tmp_path, raw):
    (tmp_path / "in").mkdir()
    Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"in", raw))).write_bytes(raw)
    name = encode_name(b"in/" + raw)
    assert duckdb.execute("SELECT ?", [name]).fetchone() == (name,)
    assert content_of(tmp_path, name) == raw
    assert stat_files(str(tmp_path), [name])[0][0] == len(raw)


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES.keys())
def test_a_hostile_name_opens_nothing(root, name):
    assert reason_of(root, name) == "unsafe_name"
    assert stat_files(str(root), [name]) == [(-1, -1)]


@pytest.mark.parametrize("name", ["%2e%2e%2fsecret.jpg", "..%252fsecret.jpg", "..\\secret.jpg"])
def test_an_escape_sequence_is_an_ordinary_name(root, name):
    assert reason_of(root, name) == "not_found"


@pytest.mark.parametrize(
    ("link", "target", "name"),
    [
        ("link.jpg", "../secret.jpg", "link.jpg"),
        ("inside.jpg", "a.jpg", "inside.jpg"),
        ("folder", "..", "folder/secret.jpg"),
        ("twin", "cats", "twin/b.jpg"),
        ("loop", "loop", "loop"),
        ("round", ".", "round/round/a.jpg"),
        ("dangling.jpg", "nothing", "dangling.jpg"),
    ],
    ids=["to outside", "to inside", "folder outside", "folder inside", "loop", "folder loop", "dangling"],
)
def test_symbolic_links_are_not_followed(root, link, target, name):
    (root / link).symlink_to(target)
    assert reason_of(root, name) == "symlink"
    assert stat_files(str(root), [name]) == [(-1, -1)]


@given(st.lists(st.sampled_from(["..", ".", "", "/", "cats", "up", "out.jpg", "secret.jpg", "a.jpg", "b.jpg"])))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_combination_of_parts_reads_what_lies_outside(root, parts):
    with suppress(FileExistsError):
        (root / "cats" / "up").symlink_to("../..")
        (root / "out.jpg").symlink_to("../secret.jpg")
    with suppress(RefusedImage):
        assert content_of(root, "/".join(parts)) in (b"picture", b"tabby")


def test_a_root_that_became_a_link_is_not_followed(root):
    moved = root.rename(root.parent / "moved")
    root.symlink_to(moved)
    assert reason_of(root, "a.jpg") == "not_found"


@pytest.mark.parametrize("above", [0, 1, 2])
def test_a_folder_above_the_files_that_became_a_link_is_not_followed(root, above):
    """The registered path is a real one; whoever puts a link into it leads to the same name elsewhere."""
    inner = root / "cats" / "tabbies"
    inner.mkdir()
    (inner / "b.jpg").write_bytes(b"tabby")
    replaced = (inner, *inner.parents)[above]
    shutil.copytree(replaced, root.parent / "elsewhere")
    assert content_of(inner, "b.jpg") == b"tabby"
    replaced.rename(root.parent / "moved")
    replaced.symlink_to(root.parent / "elsewhere")
    assert reason_of(inner, "b.jpg") == "not_found"
    assert stat_files(str(inner), ["b.jpg"]) == [(-1, -1)]
    with pytest.raises(InvalidRequest, match="cannot be opened"):
        list(folder.images(inner))
    with pytest.raises(InvalidRequest, match="cannot be opened"):
        open_listing(inner / "b.jpg")


def test_folders_on_the_way_need_not_be_readable(open_root):
    """Entering a folder is enough; listing it is not needed."""
    (open_root / "cats" / "tabbies").mkdir(parents=True)
    (open_root / "cats" / "tabbies" / "b.jpg").write_bytes(b"tabby")
    for path in (open_root, open_root / "cats"):
        path.chmod(0o711)
    with without_rights():
        assert content_of(open_root / "cats", "tabbies/b.jpg") == b"tabby"
        assert stat_files(str(open_root), ["cats/tabbies/b.jpg"])[0][0] == 5


def test_an_annotation_file_that_became_a_link_or_a_pipe_is_not_opened(root):
    listing = root / "labels.csv"
    listing.symlink_to(root.parent / "secret.jpg")
    with pytest.raises(InvalidRequest, match="cannot be opened"):
        open_listing(listing)
    listing.unlink()
    os.mkfifo(listing)
    with pytest.raises(InvalidRequest, match="not a regular file"):
        open_listing(listing)


def test_an_annotation_file_that_flips_between_file_and_link_never_shows_what_lies_outside(root):
    """Each name is tried while another thread swaps it for a link, hundreds of times."""
    listing, link, secret = root / "labels.csv", root / "link", root.parent / "secret.csv"
    secret.write_text("secret,column\n")
    link.symlink_to(secret)
    (root / "good").write_text("file_name\na.jpg\n")
    done, seen = threading.Event(), set()

    def flip():
        while not done.is_set():
            for other in (link, root / "good"):
                os.link(other, root / "next", follow_symlinks=False)
                os.replace(root / "next", listing)

    os.link(root / "good", listing)
    thread = threading.Thread(target=flip)
    thread.start()
    try:
        for _ in range(500):
            with suppress(InvalidRequest), open_listing(listing) as opened:
                seen.add(opened.read())
    finally:
        done.set()
        thread.join()
    assert seen <= {b"file_name\na.jpg\n"}


def test_a_folder_swapped_for_a_link_while_a_name_is_walked_leads_nowhere(root, monkeypatch):
    (root.parent / "b.jpg").write_bytes(b"secret")
    real_open = os.open

    def swap_then_open(path, flags, *args, **kwargs):
        if path == b"b.jpg":
            (root / "cats").rename(root / "was-cats")
            (root / "cats").symlink_to(root.parent)
        return real_open(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", swap_then_open)
    assert content_of(root, "cats/b.jpg") == b"tabby"
    monkeypatch.undo()
    assert reason_of(root, "cats/b.jpg") == "symlink"


def test_a_hard_link_is_a_file_like_any_other(root):
    os.link(root.parent / "secret.jpg", root / "hard.jpg")
    assert content_of(root, "hard.jpg") == b"secret"


def test_what_is_no_file_is_refused_at_once(root):
    os.mkfifo(root / "fifo.jpg")
    (root / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(root, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/socket.jpg" if os.path.exists("/proc/self/fd") else "socket.jpg")
        os.close(here)
    names = ["fifo.jpg", "folder.jpg", "socket.jpg"]
    assert [reason_of(root, name) for name in names] == ["not_regular"] * 3
    assert stat_files(str(root), names) == [(-1, -1)] * 3


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="needs a device file")
def test_a_device_is_refused():
    assert reason_of(Path("/dev"), "null") == "not_regular"


@pytest.mark.parametrize("name", ["no.jpg", "no/a.jpg", "a.jpg/b.jpg", "x" * 256], ids=str)
def test_a_missing_file_is_not_found(root, name):
    assert reason_of(root, name) == "not_found"


def test_everything_below_a_missing_root_is_not_found(tmp_path):
    assert reason_of(tmp_path / "gone", "a.jpg") == "not_found"
    assert stat_files(str(tmp_path / "gone"), ["a.jpg", "b/c.jpg"]) == [(-1, -1)] * 2


def test_a_folder_is_opened_once_however_its_files_are_mixed(tmp_path, monkeypatch):
    """A shuffled manifest of 50 folders opened five folders for each of its files."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(20):
            (tmp_path / name / f"{number}.jpg").write_bytes(b"x" * number)
    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *args, **kwargs: opened.append(path) or real(path, *args, **kwargs))
    names = [f"{folder}/{number}.jpg" for number in range(20) for folder in ("a", "gone", "b")]
    sizes = [size for size, _ in stat_files(str(tmp_path), names)]
    assert sizes == [size for number in range(20) for size in (number, -1, number)]
    assert opened.count(b"a") == opened.count(b"b") == opened.count(b"gone") == 1


def test_an_empty_file_is_refused(root):
    (root / "empty.jpg").touch()
    assert reason_of(root, "empty.jpg") == "empty"


def test_a_file_may_have_exactly_the_most_bytes(root):
    assert read_file(str(root), "a.jpg", max_bytes=7)[0] == b"picture"
    assert reason_of(root, "a.jpg", max_bytes=6) == "too_large"


def test_a_file_or_folder_without_permission_is_refused(open_root):
    (open_root / "cats").mkdir()
    for name in ("a.jpg", "cats/b.jpg"):
        (open_root / name).write_bytes(b"picture")
    (open_root / "a.jpg").chmod(0)
    (open_root / "cats").chmod(0)
    with without_rights():
        assert reason_of(open_root, "a.jpg") == "permission_denied"
        assert reason_of(open_root, "cats/b.jpg") == "permission_denied"
        assert stat_files(str(open_root), ["cats/b.jpg"]) == [(-1, -1)]


def test_the_stamp_holds_the_hash_size_and_mtime_of_what_was_read(root):
    os.utime(root / "cats" / "b.jpg", ns=(1, 1_234_567_891_000_000_007))
    data, stamp = read_file(str(root), "cats/b.jpg", max_bytes=MAX_BYTES)
    assert (data, stamp.content_hash) == (b"tabby", hashlib.sha256(b"tabby").hexdigest())
    assert [(stamp.size_bytes, stamp.mtime_ns)] == stat_files(str(root), ["cats/b.jpg"])
    assert stamp.mtime_ns == (root / "cats" / "b.jpg").stat().st_mtime_ns


@pytest.mark.parametrize("change", [b"", b"pi", b"picture and a good deal more"], ids=["emptied", "cut", "grown"])
def test_a_file_that_changes_size_while_read_is_hashed_as_read(root, monkeypatch, change):
    real_read = os.read

    def change_then_read(fd, n_bytes):
        (root / "a.jpg").write_bytes(change)
        return real_read(fd, n_bytes)

    monkeypatch.setattr(os, "read", change_then_read)
    if not change:
        assert reason_of(root, "a.jpg") == "empty"
        return
    data, stamp = read_file(str(root), "a.jpg", max_bytes=MAX_BYTES)
    assert (data, stamp.content_hash) == (change, hashlib.sha256(change).hexdigest())
    assert stamp.size_bytes == len(b"picture")


def test_a_file_that_grows_without_end_is_too_large(root, monkeypatch):
    monkeypatch.setattr(os, "read", lambda fd, n_bytes: b"x" * min(n_bytes, 64))
    assert reason_of(root, "a.jpg", max_bytes=1000) == "too_large"


def test_a_disk_error_is_a_reason_of_its_own(root, monkeypatch):
    def fail(fd, n_bytes):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "read", fail)
    assert reason_of(root, "a.jpg") == "io_error"


def test_too_many_open_files_say_nothing_about_the_file(root, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(files.os, "open", fail)
    with pytest.raises(Unavailable, match="too many open files"):
        read_file(str(root), "a.jpg", max_bytes=MAX_BYTES)


def test_stats_come_in_the_order_of_the_names(root):
    names = ["cats/b.jpg", "a.jpg", "no.jpg", "../secret.jpg", "cats", "cats/no.jpg", "cats/b.jpg", ""]
    assert [size for size, _ in stat_files(str(root), names)] == [5, 7, -1, -1, -1, -1, 5, -1]
    assert stat_files(str(root), []) == []


def test_no_descriptor_is_left_open(root):
    (root / "link").symlink_to("cats")
    (root / "empty.jpg").touch()
    before = n_open_files()
    os.close(open_beneath(str(root), "cats/b.jpg"))
    for name in ("no.jpg", "cats", "link/b.jpg", "empty.jpg", "a.jpg/x", ".."):
        reason_of(root, name)
    stat_files(str(root), ["a.jpg", "cats/b.jpg", "link/b.jpg", "no/b.jpg"])
    content_of(root, "a.jpg")
    assert n_open_files() == before


def test_a_refusal_crosses_processes(root):
    error = RefusedImage("symlink: not followed")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.reason, copy.detail) == (RefusedImage, "symlink", "not followed")


@given(st.text(st.sampled_from("ab./\\:\0é%"), max_size=12) | st.just("bytes:%ff"))
def test_a_name_that_is_plain_at_a_glance_is_so_part_by_part(text):
    if is_plain(text):
        assert encode_name(decode_name(text)) == text
        assert not {"", ".", ".."} & set(text.split("/"))
        assert "\0" not in text
