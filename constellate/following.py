"""Follows a job to its end over connections that may drop."""

import time
from collections.abc import Callable, Iterator

from constellate.records import LISTING, JobKind, Progress
from constellate.routes import Routes
from constellate.wire import Refused, Unreachable

MAX_DELAY_S = 2.0


def follow(
    client: Routes,
    dataset_id: str,
    job_id: str,
    kind: JobKind,
    *,
    patience_s: float = 120.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Progress]:
    """Yield the states of a job up to the last one.

    After each dropped stream, the function asks for the job itself and then resumes the stream. If no stream works,
    for example because a proxy cuts them or too many are open, this polling still reports the job.

    Args:
        client: the service.
        dataset_id: the job's dataset.
        job_id: the job; the stream's states of other jobs of the dataset are left out.
        kind: the kind of the job, which decides the stream.
        patience_s: how long to wait for a service that does not answer.
        sleep: waits between tries.

    Raises:
        Unreachable: the service has not answered for `patience_s`.
        Refused: the service does not know the job or the key (4xx), or has answered with errors for `patience_s`.
    """
    last_event, waited_s, delay_s = "", 0.0, 0.0
    while True:
        try:
            for state in _once(client, dataset_id, job_id, kind, last_event):
                yield state
                if state.is_terminal:
                    return
                if state.event_id:
                    last_event, delay_s = state.event_id, 0.0
                waited_s = 0.0
        except (Unreachable, Refused) as failure:
            is_final = isinstance(failure, Refused) and failure.status < 500
            if is_final or waited_s >= patience_s:
                raise
        delay_s = min(max(2 * delay_s, 0.1), MAX_DELAY_S)
        waited_s += delay_s
        sleep(delay_s)


def _once(client: Routes, dataset_id: str, job_id: str, kind: JobKind, last_event: str) -> Iterator[Progress]:
    """The job's states from one connection, and then from the job itself.

    A stream belongs to the dataset, so right after the start its first event may still describe an older job.
    """
    if kind in LISTING:  # the dataset of a registration has no stream yet
        states = client.job_events(job_id, last_event=last_event)
    else:
        states = client.events(dataset_id, kind, last_event=last_event)
    for state in states:
        if state.job_id == job_id:
            yield state
    yield Progress.of(client.job(job_id))
