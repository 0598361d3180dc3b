"""Rows of a listing, `scan_files`, and how they become the samples of a dataset, inside a transaction.

A listing goes by an id: that of a scan, which its request holds, or that of the job that makes it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from serve_app.records import DatasetFormat, PartsVectors, ScanChange, SourceFile
from serve_app.store import column_rows, sets
from serve_app.store.column_rows import GivenColumns
from serve_app.store.job_rows import utc_now
from serve_app.store.session import Session

MAX_NOTICES = 20
LISTED = "sample_id, file_name, label, size_bytes, mtime_ns, place"

# When several listed files have the same id, the first one counts.
_SCANNED = (
    f"SELECT {LISTED}, row_number() OVER (ORDER BY page, position) - 1 "
    "AS ordinal FROM (SELECT * FROM scan_files WHERE scan_id = ? "
    "QUALIFY row_number() OVER (PARTITION BY sample_id ORDER BY page, position) = 1)"
)


@dataclass(frozen=True, slots=True)
class Listed:
    """What a whole listing found besides its files: where they lie, and the columns and notices of their source.

    `root` is a real path or a URL, and `annotations` is a file, a folder of parts, a URL or None. `vectors` lie beside
    the names, and are imported once the listing is taken over.
    """

    root: str
    format: DatasetFormat
    annotations: str | None
    columns: GivenColumns | None = None
    notices: tuple[str, ...] = ()
    vectors: PartsVectors | None = None


def table_of(files: Sequence[SourceFile]) -> pa.Table:
    """A page of listed files as the rows that `add` takes, in their order."""
    return pa.table(
        {
            "position": pa.array(range(len(files)), pa.int64()),
            "sample_id": pa.array([file.sample_id for file in files], pa.string()),
            "file_name": pa.array([file.file_name for file in files], pa.string()),
            "label": pa.array([file.label for file in files], pa.string()),
            "size_bytes": pa.array([file.size_bytes for file in files], pa.int64()),
            "mtime_ns": pa.array([file.mtime_ns for file in files], pa.int64()),
            "place": pa.array([file.place for file in files], pa.string()),
        }
    )


def add(session: Session, scan_id: str, page: int, files: pa.Table) -> None:
    """Add a page to a listing; the caller makes sure that the page is new."""
    session.bind("listed", files)
    session.q(f"INSERT INTO scan_files (scan_id, page, position, {LISTED}) SELECT ?, ?, * FROM listed", scan_id, page)


def register(session: Session, scan_id: str, dataset_id: str, name: str, found: Listed) -> int:
    """Turn a listing into a new dataset, and return the number of its samples. The listing's rows stay."""
    sample_count, n_repeated = _take(session, scan_id, dataset_id)
    session.q(
        "INSERT INTO datasets (id, name, root, format, annotations, sample_count, notices, created_at, scan_no) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)",
        *(dataset_id, name, found.root, found.format, found.annotations, sample_count),
        *(json.dumps(_told(found.notices, n_repeated)), utc_now()),
    )
    column_rows.take_source(session, dataset_id, found.columns)
    return sample_count


def rescan(
    session: Session, scan_id: str, dataset_id: str, columns: GivenColumns | None, notices: Sequence[str]
) -> ScanChange:
    """Put a listing in the place of a dataset's samples, notices, and columns of its source. Its rows stay."""
    row = session.row(
        "SELECT count(*) FILTER (old.sample_id IS NULL), count(*) FILTER (old.sample_id = new.sample_id AND "
        "(old.file_name, old.label, old.size_bytes, old.mtime_ns) IS DISTINCT FROM "
        "(new.file_name, new.label, new.size_bytes, new.mtime_ns)), count(*) FILTER (new.sample_id IS NULL) "
        f"FROM (FROM samples WHERE dataset_id = ?) old FULL JOIN ({_SCANNED}) new USING (sample_id)",
        dataset_id,
        scan_id,
    )
    assert row is not None
    session.q("DELETE FROM samples WHERE dataset_id = ?", dataset_id)
    sample_count, n_repeated = _take(session, scan_id, dataset_id)
    left_out = column_rows.take_source(session, dataset_id, columns)
    told = _told([*notices, *left_out], n_repeated)
    session.q(
        "UPDATE datasets SET sample_count = ?, notices = ?, scan_no = scan_no + 1 WHERE id = ?",
        *(sample_count, json.dumps(told), dataset_id),
    )
    sets.recount(session, dataset_id)
    return ScanChange(added=row[0], changed=row[1], removed=row[2], notices=told)


def _told(notices: Sequence[str], n_repeated: int) -> tuple[str, ...]:
    """The first notices, each once, with one about entries that were named before."""
    repeated = f"left out: {n_repeated:,} entries name an image that an entry before them names"
    return tuple(dict.fromkeys([*([repeated] if n_repeated else []), *notices]))[:MAX_NOTICES]


def _take(session: Session, scan_id: str, dataset_id: str) -> tuple[int, int]:
    """Turn the listing into the dataset's samples; return their number, and that of entries named before them."""
    listed = session.value("SELECT count(*) FROM scan_files WHERE scan_id = ?", scan_id)
    count = session.value(
        f"INSERT INTO samples (dataset_id, ordinal, {LISTED}) SELECT ?, ordinal, {LISTED} FROM ({_SCANNED}) "
        "ORDER BY ordinal",
        dataset_id,
        scan_id,
    )
    return int(count), int(listed) - int(count)
