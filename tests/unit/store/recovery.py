"""What every crash test demands of the files that are left: the acknowledged state or one step more, and a future."""

import asyncio
from pathlib import Path
from typing import NamedTuple

from serve_app.store.database import Database
from serve_app.store.retired import Retired
from tests.invariants import check_invariants
from tests.unit.store.snapshot import snapshot
from tests.unit.store.story import STEPS, Story

Content = dict[str, list[str]]


class Reference(NamedTuple):
    """A life without faults: the contents before the first step and after each one, and what is left at the end."""

    states: list[Content]
    end: Content


class Crash(NamedTuple):
    """Files that a crash left, how many steps were acknowledged by then, and whether to live on from there."""

    point: str
    path: Path
    acknowledged: int
    live_on: bool = True


def live_without_faults(path):
    """Live the story and look at the database after every step."""
    story = Story(path)
    states = [_content(story.database)]

    def look(position):
        states.append(states[-1] if STEPS[position].name == "close" else _content(story.database))

    asyncio.run(story.live(0, look))
    return Reference(states, end_of(path))


def end_of(path):
    """What a life left, whatever had to be repeated on the way; what it retired can be deleted."""
    database = Database(path)
    try:
        while Retired(database).step():
            pass
        return _content(database, tries=False)
    finally:
        database.close()


def examine(crash, reference):
    """Assert that nothing acknowledged is lost and nothing is half done; returns the steps that took effect."""
    try:
        steps = _require_sound(crash, reference)
        if crash.live_on:
            asyncio.run(_live_on(crash.path, steps))
            assert end_of(crash.path) == reference.end, "the life ends otherwise than one without faults"
            assert [entry.name for entry in crash.path.parent.iterdir()] == [crash.path.name]
    except Exception as error:
        error.add_note(f"crash {crash.point}, after {crash.acknowledged} acknowledged steps")
        raise
    return steps


def _require_sound(crash, reference):
    database = Database(crash.path, threads=1)
    try:
        with database.read() as session:
            found = snapshot(session)  # the invariants were checked in the state that it must equal
        later = range(crash.acknowledged, min(crash.acknowledged + 2, len(reference.states)))
        steps = [number for number in later if reference.states[number] == found]
        assert steps, "neither the acknowledged steps nor one more lead to what the database holds"
        assert database.check() == []
    finally:
        database.close()
    return steps[-1]


async def _live_on(path, steps):
    story = Story(path)
    if steps < len(STEPS):
        await story.live(await story.take_up(steps), lambda position: None)
    await story.close()


def _content(database, **options):
    with database.read() as session:
        check_invariants(session)
        return snapshot(session, **options)
