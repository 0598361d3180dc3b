"""Jobs: durable rows, claims with a fence, progress, cancellation.

A job is `running` from the moment its row is on disk until it is `complete`, `error` or `cancelled`.
Leases live in the writer's memory (monotonic clock); correctness rests on the attempt number alone.
"""

from serve_app.records import Claim, Job, JobKind, ModelCard, PendingSample, Skip
from serve_app.store.executor import write


class Jobs:
    """SQL over `jobs` and `job_skips`."""

    @write
    def create(
        self,
        dataset_id: str,
        kind: JobKind,
        *,
        model_name: str | None = None,
        force: bool = False,
        params: dict[str, object] | None = None,
    ) -> Job:
        """Insert a running job; on disk when this returns. At most one job, of either kind, runs per dataset.

        Raises:
            DatasetNotFound: no such dataset.
            JobRunning: one is running; the message is its id.
            NoEmbeddings: kind is reduce and the dataset has no vectors.
        """
        raise NotImplementedError

    @write
    def cancel(self, dataset_id: str) -> Job:
        """Cancel the dataset's running job: terminal at once, staged rows dropped, vectors untouched.

        Raises:
            DatasetNotFound: no such dataset.
            NothingRunning: no job runs.
        """
        raise NotImplementedError

    @write
    def claim(self, runner_id: str, *, holding: list[str], lease_s: float) -> Claim | None:
        """Hand the oldest running job that nobody holds to a runner, with the next attempt number.

        A job is free when it has no lease (never claimed, or the writer restarted) or its lease ran out.
        Jobs in `holding` are the caller's own and are not handed out again.
        """
        raise NotImplementedError

    @write
    def renew(self, job_id: str, attempt: int, *, lease_s: float) -> None:
        """Extend the lease. Raises `StaleAttempt` when the job is over or claimed anew."""
        raise NotImplementedError

    @write
    def release(self, job_id: str, attempt: int) -> None:
        """Give the job back so that it can be claimed at once; stale attempts are ignored."""
        raise NotImplementedError

    @write
    def begin(self, job_id: str, attempt: int, card: ModelCard) -> Job:
        """Tie an embed job to a vector space before its first block.

        A resumed job of the same space keeps what is staged; of another space it starts from zero.

        Raises:
            StaleAttempt: the job is over or claimed anew.
        """
        raise NotImplementedError

    @write
    def announce(self, job_id: str, attempt: int, *, phase: str, message: str) -> Job:
        """Change what people read about a running job. Raises `StaleAttempt`."""
        raise NotImplementedError

    @write
    def fail(self, job_id: str, attempt: int, message: str) -> Job:
        """End a job with `error` and drop what it staged. Raises `StaleAttempt`."""
        raise NotImplementedError

    def pending(self, job_id: str, *, after: int, limit: int) -> list[PendingSample]:
        """Samples the embed job has neither staged nor skipped, by ordinal, beginning past `after` (-1 at first)."""
        raise NotImplementedError

    def get(self, job_id: str) -> Job:
        """One job. Raises `JobNotFound`."""
        raise NotImplementedError

    def all(self, *, limit: int) -> list[Job]:
        """The newest jobs first."""
        raise NotImplementedError

    def latest(self, keys: list[tuple[str, JobKind]]) -> list[Job | None]:
        """The newest job of each (dataset id, kind), None where there is none; one query for all streams."""
        raise NotImplementedError

    def skipped(self, dataset_id: str, *, limit: int, cursor: str | None) -> tuple[list[Skip], str | None]:
        """A page of the skips of the dataset's last embed job. Raises `DatasetNotFound`."""
        raise NotImplementedError
