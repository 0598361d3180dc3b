"""The life of a database, step by step, each step one acknowledged call: what the crash tests interrupt.

Every stored vector is a function of its file's content, so that any state can be compared with that of a life
without faults. A step whose answer got lost may be repeated, as a client would do it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from serve_app.errors import (
    JobRunning,
    NameTaken,
    NotFound,
    NothingRunning,
    StaleAttempt,
    StoreUnavailable,
    Unavailable,
)
from serve_app.records import Layout, MapMade, ModelCard, Skip
from serve_app.store.database import Database
from serve_app.store.datasets import Datasets
from serve_app.store.executor import StoreExecutor
from serve_app.store.jobs import Jobs
from serve_app.store.listings import Listings
from serve_app.store.scans import Listed, table_of
from serve_app.store.vectors import Vectors
from tests.unit.store.workbench import CARD, block_of, source_files, stamp_of

# Of a dimension that has no tables yet: to begin with it changes the schema.
LOCAL_CARD = ModelCard("local", 24, "space-b", "cpu", "fp32")
CARDS = {card.name: card for card in (CARD, LOCAL_CARD)}

MAX_TRIES = 200

FIRST = source_files(12)
SECOND = [*FIRST[:8], *source_files(3, prefix="new", size=500)]  # a rescan finds four files fewer and three more


class Story:
    """The calls of the steps over one store. All it remembers is found again by `take_up`."""

    def __init__(self, path):
        # One DuckDB thread and one reader, so that a call is always the same thread's n-th of its kind.
        self.database = Database(path, threads=1)
        self.store = StoreExecutor(self.database, readers=1)
        self.scan_id = self.job_id = ""
        self.attempt = self.block_no = 0

    async def take_up(self, position):
        """Get ready for a step after everything in memory was lost; returns the step to go on with."""
        step = STEPS[position]
        if step.uses == "scan":
            while STEPS[position].name != SCAN:
                position -= 1
        elif step.uses == "listing":
            while STEPS[position].name != LIST:
                position -= 1
            await self.claim()
        elif step.uses == "claim":
            await self.claim()
            job = await self.store.ask(Jobs.get, self.job_id)
            if job.kind == "embed":
                await self.begin(CARDS[job.model_name])
        return position

    async def live(self, position, acknowledge):
        """Run the steps from `position` on; one that the store could not take is repeated, as the job loop does."""
        for number in range(position, len(STEPS)):
            for _ in range(MAX_TRIES):
                try:
                    await STEPS[number].run(self)
                except StoreUnavailable as error:
                    last = error
                    await asyncio.sleep(0.02)
                else:
                    break
            else:
                raise last
            acknowledge(number)

    async def open_scan(self):
        self.scan_id = await self.store.ask(Datasets.begin_scan)

    async def scan(self, files, page):
        await self.store.ask(Datasets.put_scan, self.scan_id, page, files)

    async def dataset(self, name="flowers"):
        return await self.store.ask(Datasets.by_name, name)

    async def register(self, name):
        try:
            await self.store.ask(
                Datasets.register, self.scan_id, name=name, root="/r", format="folder", annotations=None
            )
        except NameTaken:
            return

    async def rescan(self):
        dataset = await self.dataset()
        try:
            await self.store.ask(Datasets.rescan, self.scan_id, dataset.id)
        except Unavailable:
            if dataset.sample_count != len(SECOND):
                raise

    async def create(self, kind, **options):
        try:
            await self.store.ask(Jobs.create, (await self.dataset()).id, kind, **options)
        except JobRunning:
            return

    async def register_later(self, name):
        try:
            await self.store.ask(Listings.create, name=name, root="/r", format="folder", annotations=None)
        except (JobRunning, NameTaken):
            return

    async def begin_to_list(self):
        self.block_no = 0
        await self.store.ask(Listings.begin, self.job_id, self.attempt)

    async def put_listed(self, files, n_listed):
        page = self.block_no + 1
        await self.store.ask(Listings.put, self.job_id, self.attempt, page, table_of(files), n_listed=n_listed)
        self.block_no = page

    async def take_over(self):
        try:
            await self.store.ask(Listings.commit, self.job_id, self.attempt, Listed("/r", "folder", None))
        except StaleAttempt:
            return

    async def claim(self):
        claim = await self.store.ask(Jobs.claim, "runner", holding=[], lease_s=30)
        self.job_id, self.attempt, self.block_no = claim.job.id, claim.attempt, 0

    async def begin(self, card):
        await self.store.ask(Jobs.begin, self.job_id, self.attempt, card)

    async def plan(self, files):
        observed = list(files)
        await self.store.ask(Vectors.plan, self.job_id, self.attempt, observed)

    async def put(self, files, card, *, skips=(), known=()):
        block = block_of(files, dimension=card.dimension, skips=skips, space_key=card.space_key)
        block = replace(block, known=list(known))
        await self.store.ask(Vectors.put_block, self.job_id, self.attempt, self.block_no + 1, block)
        self.block_no += 1

    async def commit(self):
        await self.store.ask(Vectors.commit, self.job_id, self.attempt)

    async def place(self, model=None):
        vectors = await self.store.ask(Vectors.current, (await self.dataset()).id, model)
        contents = np.arange(vectors.count, dtype=np.uint64)
        layout = Layout(np.arange(2.0 * vectors.count).reshape(-1, 2), contents, made=MapMade(vectors.count))
        await self.store.ask(Vectors.put_points, self.job_id, self.attempt, vectors.job_id, layout)

    async def cancel(self):
        try:
            await self.store.ask(Jobs.cancel, (await self.dataset()).id)
        except NothingRunning:
            return

    async def fail(self):
        try:
            await self.store.ask(Jobs.fail, self.job_id, self.attempt, "the model is gone")
        except StaleAttempt:
            return

    async def delete(self, name):
        dataset = await self.dataset(name)
        if dataset is not None:
            await self.store.ask(Datasets.delete, dataset.id)

    async def delete_set(self, model):
        try:
            await self.store.ask(Vectors.delete, (await self.dataset()).id, model)
        except NotFound:
            return

    async def close(self):
        await self.store.drain_and_close()


class Step(NamedTuple):
    """One call, and what it needs that is in memory only: "scan", "listing", "claim" or nothing."""

    name: str
    uses: str
    run: Callable[[Story], Awaitable[None]]


SCAN = "open a scan"
LIST = "begin to list"
SKIP = Skip(FIRST[10].sample_id, FIRST[10].file_name, "truncated", "the file ends early")
COPY = (FIRST[11].sample_id, stamp_of(FIRST[11], FIRST[0].sample_id))  # the last file is a copy of the first

STEPS = (
    Step(SCAN, "", lambda story: story.open_scan()),
    Step("list", "scan", lambda story: story.scan(FIRST[:2], 0)),
    Step("register weeds", "scan", lambda story: story.register("weeds")),
    Step(SCAN, "", lambda story: story.open_scan()),
    Step("list the first page", "scan", lambda story: story.scan(FIRST[:6], 0)),
    Step("list the second page", "scan", lambda story: story.scan(FIRST[6:], 1)),
    Step("register flowers", "scan", lambda story: story.register("flowers")),
    # The first generation: vectors, a skip and a copy.
    Step("create", "", lambda story: story.create("embed", model_name=CARD.name)),
    Step("claim", "", lambda story: story.claim()),
    Step("begin", "claim", lambda story: story.begin(CARD)),
    Step("put 1", "claim", lambda story: story.put(FIRST[:5], CARD)),
    Step("put 2", "claim", lambda story: story.put(FIRST[5:10], CARD, skips=[SKIP])),
    Step("put a copy", "claim", lambda story: story.put([], CARD, known=[COPY])),
    Step("commit", "claim", lambda story: story.commit()),
    Step("create a map", "", lambda story: story.create("reduce")),
    Step("claim the map", "", lambda story: story.claim()),
    Step("place", "claim", lambda story: story.place()),
    # The second: after a rescan, most of it reused.
    Step(SCAN, "", lambda story: story.open_scan()),
    Step("list", "scan", lambda story: story.scan(SECOND, 0)),
    Step("rescan", "scan", lambda story: story.rescan()),
    Step("create", "", lambda story: story.create("embed", model_name=CARD.name)),
    Step("claim", "", lambda story: story.claim()),
    Step("begin", "claim", lambda story: story.begin(CARD)),
    Step("plan", "claim", lambda story: story.plan(SECOND)),
    Step("put the new ones", "claim", lambda story: story.put(SECOND[8:], CARD)),
    Step("commit", "claim", lambda story: story.commit()),
    Step("create a map beside the one that stayed", "", lambda story: story.create("reduce")),
    Step("claim the map", "", lambda story: story.claim()),
    Step("place", "claim", lambda story: story.place()),
    # The third is cancelled, the fourth makes a second set in another dimension; the first gets a map again.
    Step("create", "", lambda story: story.create("embed", model_name=LOCAL_CARD.name)),
    Step("claim", "", lambda story: story.claim()),
    Step("begin with a new table", "claim", lambda story: story.begin(LOCAL_CARD)),
    Step("put 1", "claim", lambda story: story.put(SECOND[:4], LOCAL_CARD)),
    Step("cancel", "", lambda story: story.cancel()),
    Step("create", "", lambda story: story.create("embed", model_name=LOCAL_CARD.name, force=True)),
    Step("claim", "", lambda story: story.claim()),
    Step("begin", "claim", lambda story: story.begin(LOCAL_CARD)),
    Step("put 1", "claim", lambda story: story.put(SECOND[:6], LOCAL_CARD)),
    Step("put 2", "claim", lambda story: story.put(SECOND[6:], LOCAL_CARD)),
    Step("commit", "claim", lambda story: story.commit()),
    Step("create a map of the first set", "", lambda story: story.create("reduce", model_name=CARD.name)),
    Step("claim the map", "", lambda story: story.claim()),
    Step("place", "claim", lambda story: story.place(CARD.name)),
    # The fifth fails and leaves both sets; then one is deleted.
    Step("create", "", lambda story: story.create("embed", model_name=CARD.name)),
    Step("claim", "", lambda story: story.claim()),
    Step("begin", "claim", lambda story: story.begin(CARD)),
    Step("put 1", "claim", lambda story: story.put(SECOND[:6], CARD)),
    Step("fail", "claim", lambda story: story.fail()),
    Step("delete the first set", "", lambda story: story.delete_set(CARD.name)),
    # A registration that nobody waits for.
    Step("create a registration", "", lambda story: story.register_later("trees")),
    Step("claim", "", lambda story: story.claim()),
    Step(LIST, "claim", lambda story: story.begin_to_list()),
    Step("list the first page", "listing", lambda story: story.put_listed(FIRST[:6], 6)),
    Step("list the second page", "listing", lambda story: story.put_listed(FIRST[6:], 12)),
    Step("take the listing over", "listing", lambda story: story.take_over()),
    Step("delete weeds", "", lambda story: story.delete("weeds")),
    Step("close", "", lambda story: story.close()),
)
