"""Datasets and their samples: registration, listing, rescans."""

from serve_app.records import Dataset, DatasetFormat, Sample, ScanChange, SourceFile
from serve_app.store.executor import write


class Datasets:
    """SQL over `datasets`, `samples` and the scan stage.

    A scan is written page by page under a scan id and takes effect in one transaction, so a dead client
    or service leaves no half-listed dataset.
    """

    @write
    def begin_scan(self) -> str:
        """Open a scan and return its id; scans left behind by dead callers are dropped at boot."""
        raise NotImplementedError

    @write
    def put_scan(self, scan_id: str, page: int, files: list[SourceFile]) -> None:
        """Add a page of listed files; the same page twice is stored once."""
        raise NotImplementedError

    @write
    def drop_scan(self, scan_id: str) -> None:
        """Forget a scan; unknown ids are ignored."""
        raise NotImplementedError

    @write
    def register(
        self, scan_id: str, *, name: str, root: str, format: DatasetFormat, annotations: str | None
    ) -> Dataset:
        """Turn a scan into a new dataset.

        Raises:
            NameTaken: a dataset has this name; the message is its id.
        """
        raise NotImplementedError

    @write
    def rescan(self, scan_id: str, dataset_id: str) -> ScanChange:
        """Replace a dataset's samples by a scan; samples keep their id. Vectors stay until the next generate.

        Raises:
            DatasetNotFound: no such dataset.
            JobRunning: a job is running; the message is its id.
        """
        raise NotImplementedError

    @write
    def delete(self, dataset_id: str) -> None:
        """Delete a dataset with its samples, jobs and vectors.

        Raises:
            DatasetNotFound: no such dataset.
            JobRunning: a job is running; the message is its id.
        """
        raise NotImplementedError

    def all(self) -> list[Dataset]:
        """Every dataset, oldest first."""
        raise NotImplementedError

    def get(self, dataset_id: str) -> Dataset:
        """One dataset. Raises `DatasetNotFound`."""
        raise NotImplementedError

    def by_name(self, name: str) -> Dataset | None:
        """The dataset of this name, or None."""
        raise NotImplementedError

    def samples(self, dataset_id: str, *, limit: int, cursor: str | None) -> tuple[list[Sample], str | None]:
        """A page of samples in listing order and the cursor of the next, None at the end.

        Raises:
            DatasetNotFound: no such dataset.
            InvalidRequest: the cursor is not one this method gave.
        """
        raise NotImplementedError

    def sample(self, dataset_id: str, sample_id: str) -> tuple[Dataset, Sample]:
        """One sample with its dataset. Raises `DatasetNotFound`, `SampleNotFound`."""
        raise NotImplementedError
