"""`Constellate` for programs with an event loop.

Each call runs the synchronous client's method in a thread, so that every call has only one implementation. If the
awaiting task is cancelled, the call still ends in its thread, and its result is dropped.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import update_wrapper
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from constellate.client import Constellate, EmbeddedFolder, OnProgress
from constellate.records import DatasetInfo, Progress

P = ParamSpec("P")
R = TypeVar("R")

MAX_THREADS = 64
"""The largest number of calls and open streams at a time."""

Awaitable = Callable[Concatenate["AsyncConstellate", P], Coroutine[Any, Any, R]]
AsyncIterable = Callable[Concatenate["AsyncConstellate", P], AsyncIterator[R]]


def _awaited(method: Callable[Concatenate[Constellate, P], R]) -> Awaitable[P, R]:
    """The method as a coroutine function."""

    async def call(self: "AsyncConstellate", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._in_thread(lambda: method(self._client, *args, **kwargs))

    return update_wrapper(call, method)


def _iterated(method: Callable[Concatenate[Constellate, P], Iterator[R]]) -> AsyncIterable[P, R]:
    """The method as an asynchronous generator."""

    async def iterate(self: "AsyncConstellate", /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        items = iter(method(self._client, *args, **kwargs))
        end = object()
        while (item := await self._in_thread(lambda: next(items, end))) is not end:
            yield item  # type: ignore[misc]

    return update_wrapper(iterate, method)


def _in_loop(on_progress: OnProgress | None) -> OnProgress | None:
    """A function that any thread may call, and that calls this one in the running event loop."""
    loop = asyncio.get_running_loop()
    return None if on_progress is None else lambda state: loop.call_soon_threadsafe(on_progress, state)


class AsyncConstellate:
    """The service at an address; its calls are awaited.

        async with AsyncConstellate("http://127.0.0.1:8000") as service:
            photos = await service.embed_folder("photos", on_progress=print)
            async for state in service.follow(photos.id, job_id, "reduce"): ...

    Args:
        url: the address at which the service listens.
        api_key: the key to send as a bearer token.
        transport: the transport of requests, by default the network.
    """

    def __init__(self, url: str, *, api_key: str | None = None, transport: httpx.BaseTransport | None = None) -> None:
        self._client = Constellate(url, api_key=api_key, transport=transport)
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="constellate")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; open streams end."""
        self._client.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def embed_folder(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        model: str | None = None,
        with_map: bool = True,
        on_progress: OnProgress | None = None,
    ) -> EmbeddedFolder:
        """See `Constellate.embed_folder`; `on_progress` is called in the event loop."""
        tell = _in_loop(on_progress)
        return await self._in_thread(
            lambda: self._client.embed_folder(path, name=name, model=model, with_map=with_map, on_progress=tell)
        )

    async def register_folder(
        self, path: str | Path, *, name: str | None = None, on_progress: OnProgress | None = None
    ) -> DatasetInfo:
        """See `Constellate.register_folder`; `on_progress` is called in the event loop."""
        tell = _in_loop(on_progress)
        return await self._in_thread(lambda: self._client.register_folder(path, name=name, on_progress=tell))

    async def make_graph(
        self, dataset_id: str, *, k: int = 15, model: str | None = None, on_progress: OnProgress | None = None
    ) -> Progress:
        """See `Constellate.make_graph`; `on_progress` is called in the event loop."""
        tell = _in_loop(on_progress)
        return await self._in_thread(lambda: self._client.make_graph(dataset_id, k=k, model=model, on_progress=tell))

    check = _awaited(Constellate.check)
    ready = _awaited(Constellate.ready)
    datasets = _awaited(Constellate.datasets)
    dataset = _awaited(Constellate.dataset)
    register = _awaited(Constellate.register)
    start_register = _awaited(Constellate.start_register)
    start_rescan = _awaited(Constellate.start_rescan)
    rescan = _awaited(Constellate.rescan)
    delete = _awaited(Constellate.delete)
    samples = _iterated(Constellate.samples)
    columns = _awaited(Constellate.columns)
    put_columns = _awaited(Constellate.put_columns)
    delete_column = _awaited(Constellate.delete_column)
    label = _awaited(Constellate.label)
    tag = _awaited(Constellate.tag)
    untag = _awaited(Constellate.untag)
    tags = _awaited(Constellate.tags)
    generate = _awaited(Constellate.generate)
    reduce = _awaited(Constellate.reduce)
    graph = _awaited(Constellate.graph)
    import_vectors = _awaited(Constellate.import_vectors)
    cancel = _awaited(Constellate.cancel)
    cancel_job = _awaited(Constellate.cancel_job)
    job_events = _iterated(Constellate.job_events)
    embeddings = _awaited(Constellate.embeddings)
    delete_embeddings = _awaited(Constellate.delete_embeddings)
    skipped = _iterated(Constellate.skipped)
    coordinates = _awaited(Constellate.coordinates)
    export = _awaited(Constellate.export)
    jobs = _awaited(Constellate.jobs)
    job = _awaited(Constellate.job)
    follow = _iterated(Constellate.follow)
    events = _iterated(Constellate.events)
    similar = _awaited(Constellate.similar)
    search = _awaited(Constellate.search)
    duplicates = _awaited(Constellate.duplicates)
    outliers = _awaited(Constellate.outliers)
    diverse = _awaited(Constellate.diverse)
    twins = _awaited(Constellate.twins)
    leaks = _awaited(Constellate.leaks)
    mislabeled = _awaited(Constellate.mislabeled)
    clusters = _awaited(Constellate.clusters)
    put_clusters = _awaited(Constellate.put_clusters)
    save_plan = _awaited(Constellate.save_plan)

    async def _in_thread(self, call: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
