"""Which folders and annotation files may become a dataset."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from serve_app.config import Settings
from serve_app.errors import InvalidRequest, OutsideRoots
from serve_app.records import SourceFile
from serve_app.sources.reading import Reader
from serve_app.sources.roots import check_annotations, check_root

NOBODY = 65534


@pytest.fixture
def house(tmp_path):
    """Two allowed folders, and others beside them whose names begin alike."""
    for name in ("data/cats", "more", "data-secret", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data/labels.csv").write_text("file_name\n")
    (tmp_path / "elsewhere/labels.csv").write_text("file_name\n")
    return tmp_path.resolve()


@pytest.fixture
def roots(house):
    return (house / "data", house / "more")


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("{house}/data", "data"),
        ("{house}/data/cats/", "data/cats"),
        ("{house}/data/../data//cats/.", "data/cats"),
        ("{house}/more", "more"),
        ("cats", "data/cats"),
        (".", "data"),
        ("cats/../../more", "more"),
    ],
)
def test_a_folder_below_a_root_is_allowed(house, roots, path, real):
    assert check_root(path.format(house=house), roots) == house / real


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//",
        "/etc",
        "/etc/no-such-folder",
        "/proc/self",
        "/sys",
        "/dev/shm",
        "{house}",
        "{house}/data-secret",
        "{house}/elsewhere",
        "{house}/data/../elsewhere",
        "../elsewhere",
        "../../../../../../../../etc/passwd",
        "{house}/data/no-such/../../elsewhere",
        "//etc/passwd",
        "{house}/nothing/at/all",
    ],
)
def test_everything_else_has_the_same_answer_whether_it_exists_or_not(house, roots, path):
    with pytest.raises(OutsideRoots) as caught:
        check_root(path.format(house=house), roots)
    with pytest.raises(OutsideRoots) as missing:
        check_root(str(house / "missing"), roots)
    assert caught.value.detail == missing.value.detail
    assert "CONSTELLATE_DATASET_ROOTS" in caught.value.detail
    assert str(house) not in caught.value.detail


@pytest.mark.parametrize("path", ["/", "/proc", "/proc/self", "/sys/kernel", "/dev", "/dev/fd"])
def test_system_folders_are_refused_even_when_everything_is_allowed(path):
    with pytest.raises(OutsideRoots, match="never /"):
        check_root(path, (Path("/"),))


def test_a_link_counts_as_where_it_leads(house, roots):
    (house / "data/out").symlink_to(house / "elsewhere")
    (house / "elsewhere/in").symlink_to(house / "data/cats")
    (house / "data/loop").symlink_to("loop")
    with pytest.raises(OutsideRoots):
        check_root(str(house / "data/out"), roots)
    assert check_root(str(house / "elsewhere/in"), roots) == house / "data/cats"
    with pytest.raises(InvalidRequest, match="loop"):
        check_root("loop", roots)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("no-such", "does not exist"),
        ("labels.csv", "is not a folder"),
        ("x" * 256, "name too long"),
        ("", "1 to 4096 characters"),
        ("x" * 4097, "1 to 4096 characters"),
        ("a\0b", "none of them NUL"),
        ("\ud800", "valid Unicode"),
        ("ftp://example.org/images", "URLs begin with"),
        ("file:///etc", "URLs begin with"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_an_unusable_root_is_refused_with_the_reason(roots, path, problem):
    with pytest.raises(InvalidRequest, match=problem) as caught:
        check_root(path, roots)
    caught.value.detail.encode()


def test_a_folder_that_is_not_utf8_cannot_be_a_dataset(house, roots):
    os.mkdir(os.path.join(os.fsencode(house), b"data", b"\xff"))
    os.symlink(b"\xff", os.path.join(os.fsencode(house), b"data", b"link"))
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        check_root("link", roots)


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o100], ids=["closed", "list only", "enter only"])
def test_a_folder_without_permission_is_refused(mode):
    base = Path(tempfile.mkdtemp()).resolve()
    closed = base / "closed"
    closed.mkdir()
    base.chmod(0o755)
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(closed, NOBODY, NOBODY)
        os.chmod(closed, mode)
        os.seteuid(NOBODY)
    else:
        closed.chmod(mode)
    try:
        with pytest.raises(InvalidRequest, match="cannot be read; give"):
            check_root(str(closed), (base,))
    finally:
        if is_root:
            os.seteuid(0)
        closed.chmod(0o700)
        shutil.rmtree(base)


def test_annotations_are_found_below_the_dataset_or_anywhere_below_the_roots(house, roots):
    (house / "more/other.csv").touch()
    assert check_annotations("labels.csv", house / "data", roots) == house / "data/labels.csv"
    assert check_annotations("../labels.csv", house / "data/cats", roots) == house / "data/labels.csv"
    assert check_annotations(str(house / "more/other.csv"), house / "data", roots) == house / "more/other.csv"


@pytest.mark.parametrize("path", ["/etc/passwd", "../elsewhere/labels.csv", "../elsewhere/missing.csv", "out.csv"])
def test_annotations_outside_the_roots_are_refused(house, roots, path):
    (house / "data/out.csv").symlink_to(house / "elsewhere/labels.csv")
    with pytest.raises(OutsideRoots, match="CONSTELLATE_DATASET_ROOTS"):
        check_annotations(path, house / "data", roots)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("no.csv", "does not exist"),
        ("cats", "is not a file"),
        ("fifo.csv", "is not a file"),
        ("labels.csv/x", "is not a file"),
        ("sftp://example.org/a.json", "URLs begin with"),
        ("", "1 to 4096 characters"),
    ],
)
def test_unusable_annotations_are_refused_with_the_reason(house, roots, path, problem):
    os.mkfifo(house / "data/fifo.csv")
    with pytest.raises(InvalidRequest, match=problem):
        check_annotations(path, house / "data", roots)


@pytest.mark.parametrize("root", ["data/cats", "more"])
def test_roots_that_were_narrowed_stop_reads_of_the_datasets_outside(house, root):
    image = SourceFile("a.jpg", "a.jpg")
    (house / root / "a.jpg").write_bytes(b"picture")
    before = Reader(Settings(dataset_roots=(house / "data", house / "more")))
    assert before.read(str(house / root), image, max_bytes=99)[0] == b"picture"
    after = Reader(Settings(dataset_roots=(house / "data-secret", house / "data" / "cats" / "a.jpg")))
    for ask in (
        lambda: after.read(str(house / root), image, max_bytes=99),
        lambda: after.examine(str(house / root), [image]),
        lambda: after.is_any_there(str(house / root), [image]),
    ):
        with pytest.raises(OutsideRoots, match="CONSTELLATE_DATASET_ROOTS"):
            ask()


@pytest.mark.parametrize("root", ["s3://bucket/other", "gs://bucket/mine", "https://example.org"])
def test_buckets_and_pages_outside_narrowed_roots_are_not_asked(root):
    narrow = Reader(Settings(dataset_roots=("s3://bucket/mine", "https://example.org/mine")))
    with pytest.raises(OutsideRoots):
        narrow.read(root, SourceFile("a.jpg", "a.jpg"), max_bytes=99)


def test_a_folder_swapped_for_a_link_after_its_path_was_checked_is_refused(house, roots, monkeypatch):
    (house / "elsewhere/cats").mkdir()
    real = os.path.realpath

    def swapped(path, **options):
        found = real(path, **options)
        (house / "data").rename(house / "moved")
        (house / "data").symlink_to(house / "elsewhere")
        return found

    monkeypatch.setattr(os.path, "realpath", swapped)
    with pytest.raises(InvalidRequest, match="is not a folder"):
        check_root(str(house / "data/cats"), roots)
