"""Commands on the whole service: serve, status, jobs, backup, down."""

import os
import signal
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from constellate import Constellate, Refused
from serve_app.cli.commands import ADDRESS, UNAVAILABLE, CommandFailed, add_command
from serve_app.cli.dataset_commands import Model
from serve_app.cli.output import Json, print_json, print_table
from serve_app.cli.service import POLL_S, STOP_S, UNTIL_EOF, connect
from serve_app.config import Settings
from serve_app.errors import Unavailable
from serve_app.service_record import ServiceRecord

if TYPE_CHECKING:  # the import loads numpy, which help texts do not need
    from serve_app.records import Backup


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    add_command(app, serve, *Settings.model_fields)
    add_command(app, status, *ADDRESS)
    add_command(app, jobs, *ADDRESS)
    add_command(app, backup, "data_dir")
    add_command(app, down, "data_dir")


def serve(
    settings: Settings,
    *,
    until_eof: Annotated[bool, typer.Option(UNTIL_EOF, hidden=True)] = False,
) -> None:
    """Run the service in the foreground; Ctrl-C stops all of it.

    The command starts Ray on this machine, or joins the cluster that RAY_ADDRESS names. Interrupted jobs
    continue where they stopped.

    For example:

        constellate serve
        constellate serve --port 9000 --data-dir /data/constellate --dataset-roots /data/photos:/data/scans
    """
    from serve_app import main

    if until_eof:
        threading.Thread(target=stop_at_eof, name="until-eof", daemon=True).start()
    main.serve(settings)


def stop_at_eof() -> None:
    """Send SIGTERM to this process when the other end of standard input closes."""
    # A thread that waits inside the lock of sys.stdin would abort the interpreter's shutdown.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def status(settings: Settings, *, model: Model = None, json: Json = False) -> None:
    """Show whether the service is ready, and the vectors and map of each dataset, a line for each model.

    The exit code is 3 if the service does not run or is not ready; the command prints the reason.

    For example:

        constellate status
        constellate status --json
    """
    with connect(settings) as client:
        trouble = _trouble(client)
        datasets = [(dataset, client.embeddings(dataset["id"], model=model)) for dataset in client.datasets()]
    if json:
        state = {"url": client.url, "ready": not trouble, "reason": trouble or None}
        print_json({**state, "datasets": [{**dataset, **embeddings} for dataset, embeddings in datasets]})
    else:
        print(f"{client.url}: {trouble or 'ready'}")
        columns = ["dataset", "images", "vectors", "model", "map", "folder"]
        rows = (
            (d["name"], d["sample_count"], s["embedding_count"], s["model_name"], _yes(s["has_reduction"]), d["root"])
            for d, e in datasets
            for s in (e["sets"] if model is None and e["sets"] else [e])
        )
        print_table(columns, rows)
    if trouble:
        raise typer.Exit(UNAVAILABLE)


def _trouble(client: Constellate) -> str:
    """The reason why the service is not ready, or an empty text if it is ready."""
    try:
        client.ready()
    except Refused as refused:
        return f"not ready: {refused}"
    return ""


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def jobs(
    settings: Settings,
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Show at most this many, the newest first.")] = 20,
    json: Json = False,
) -> None:
    """List running and ended jobs.

    The last column says how a job ended, or how far it is.

    For example:

        constellate jobs
        constellate jobs --limit 5 --json
    """
    with connect(settings) as client:
        found = client.jobs(limit=limit)
        names = {dataset["id"]: dataset["name"] for dataset in client.datasets()}
    if json:
        print_json(found)
        return
    columns = ["job", "dataset", "kind", "status", "done", "skipped", "started", "message"]
    print_table(
        columns,
        (
            (
                job["id"],
                names.get(job["dataset_id"], job["dataset_id"]),
                job["kind"],
                job["status"],
                f"{job['processed']}/{job['total']}",
                job["skipped"],
                job["created_at"],
                job["message"],
            )
            for job in found
        ),
    )


def backup(
    settings: Settings,
    *,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Of the one deployed with `serve deploy` on the cluster of RAY_ADDRESS.")
    ] = False,
    json: Json = False,
) -> None:
    """Copy the database to DATA_DIR/backups, while the service runs or when it is down.

    Jobs continue meanwhile. To restore, put the copy into an empty data directory as constellate.duckdb and start the
    service there; jobs that were running at the time of the copy continue.

    For example:

        constellate backup
        RAY_ADDRESS=auto constellate backup --cluster
    """
    record = ServiceRecord.read(settings.data_dir)
    if cluster or record:
        from serve_app import main

        address = record.ray_address if record and not cluster else os.environ.get("RAY_ADDRESS", "auto")
        made = main.backup(settings, address)
    else:
        made = _backup_here(settings)
    if json:
        print_json(asdict(made))
    else:
        print(f"{made.path}: {made.size_bytes / 1e6:.1f} MB in {made.seconds:.1f} s")


def _backup_here(settings: Settings) -> "Backup":
    from serve_app.store.database import Database
    from serve_app.store.operations import Backups

    if not settings.database_path.exists():
        raise Unavailable(f"there is no database in {settings.data_dir} and no service runs for it")
    database = Database(settings.database_path)
    try:
        return Backups(database).create()
    finally:
        database.close()


def down(
    settings: Settings,
    *,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="End the one deployed with `serve deploy` on the cluster of RAY_ADDRESS.")
    ] = False,
) -> None:
    """Stop the service of a data directory and wait until it is gone.

    Running jobs are kept: they continue when the service starts again. The exit code is 0 even if no service runs.

    For example:

        constellate down
        RAY_ADDRESS=head:6379 constellate down --cluster
    """
    if cluster:
        from serve_app import main

        print("Stopped." if main.down(settings) else "No service is deployed on the cluster.")
        return
    record = ServiceRecord.read(settings.data_dir)
    if record is None:
        print(f"No service runs for {settings.data_dir}.")
        return
    print(f"Stopping {record.url} (process {record.pid}) …", flush=True)
    os.kill(record.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while record.is_alive():
        if time.monotonic() > deadline:
            raise CommandFailed(f"process {record.pid} has not ended after {STOP_S:.0f} s; see its log")
        time.sleep(POLL_S)
    print("Stopped.")
