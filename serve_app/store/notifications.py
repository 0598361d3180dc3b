"""Webhooks of ended jobs that are still to be delivered; a job keeps its URL, and so a restart loses none."""

from typing import TYPE_CHECKING

from serve_app.records import Job, NotifyState
from serve_app.store import job_rows
from serve_app.store.job_rows import COLUMNS, JobRow
from serve_app.store.methods import require_limit, write
from serve_app.store.running_jobs import Pace

if TYPE_CHECKING:  # callers in other processes name these methods and do not load DuckDB
    from serve_app.store.database import Database


class Notifications:
    """SQL over the webhooks of `jobs`."""

    def __init__(self, database: "Database", pace: Pace) -> None:
        self._database = database
        self._pace = pace

    def due(self, *, limit: int, but: list[str]) -> list[tuple[Job, str]]:
        """Ended jobs whose webhook is not settled, the oldest first, each with the URL; jobs of `but` are left out."""
        with self._database.read() as session:
            rows = session.q(
                f"SELECT {COLUMNS} FROM jobs WHERE notified = 'pending' AND status <> 'running' "
                "AND NOT list_contains(?, id) ORDER BY number LIMIT ?",
                *(but, require_limit(limit)),
            )
        found = [JobRow(*row) for row in rows]
        return [(job_rows.public(row, self._pace), row.notify_url or "") for row in found]

    @write
    def settle(self, job_id: str, state: NotifyState, detail: str | None) -> None:
        """Note how the webhook of a job ended; a job that was deleted meanwhile is ignored."""
        with self._database.transaction() as session:
            session.q("UPDATE jobs SET notified = ?, notify_detail = ? WHERE id = ?", state, detail, job_id)
