"""Following a job to its end over connections that may drop."""

import time
from collections.abc import Callable, Iterator

from constellate.records import JobKind, Progress
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
    """Yield the states of a job up to its last one.

    After each dropped stream the job is asked for by itself and the stream is resumed, so that where no
    stream gets through (a proxy that cuts them, too many of them) polling does the whole work.

    Args:
        client: the service.
        dataset_id: the job's dataset.
        job_id: the job; what the stream says about other jobs of the dataset is left out.
        kind: what the job does, and so which stream tells of it.
        patience_s: how long a service that does not answer is borne.
        sleep: how to wait between tries.

    Raises:
        Unreachable: the service has not answered for `patience_s`.
        Refused: it does not know the job or the key (4xx), or has been unable for `patience_s`.
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
    """The states that one connection brings, then the job's own row.

    A stream belongs to the dataset: right after the start its first event may still be of an older job.
    """
    for state in client.events(dataset_id, kind, last_event=last_event):
        if state.job_id == job_id:
            yield state
    yield Progress.of(client.job(job_id))
