"""The rule by which calls to other processes are repeated."""

import asyncio

import pytest

from serve_app.errors import Conflict, ModelUnavailable, Unavailable
from serve_app.jobs.retrying import Retry


class Call:
    """Raises these errors one after another, then answers."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.n_calls = 0

    async def __call__(self):
        self.n_calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that were made, of which none takes time."""
    made = []

    async def note(seconds):
        made.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)
    return made


async def test_a_pause_doubles_up_to_the_longest(pauses):
    call = Call(*[Unavailable("away")] * 6)
    assert await Retry(Unavailable, first_pause_s=0.1, longest_pause_s=1.0).until_answered(call, what="it") == "answer"
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


async def test_after_the_last_attempt_the_last_error_is_raised(pauses):
    call = Call(Unavailable("first"), Unavailable("second"), Unavailable("third"))
    with pytest.raises(Unavailable, match="second"):
        await Retry(Unavailable, attempts=2).until_answered(call, what="it")
    assert call.n_calls == 2


async def test_patience_ends(pauses):
    call = Call(*[Unavailable("away")] * 2)
    with pytest.raises(Unavailable):
        await Retry(Unavailable, patience_s=-1.0).until_answered(call, what="it")
    assert call.n_calls == 1


@pytest.mark.parametrize("error", [Conflict("no"), ModelUnavailable("no weights"), ValueError("broken")], ids=repr)
async def test_other_errors_and_those_left_out_are_raised_at_once(pauses, error):
    with pytest.raises(type(error)):
        await Retry(Unavailable, but=ModelUnavailable).until_answered(Call(error), what="it")
    assert pauses == []


async def test_what_is_called_again_and_why_is_in_the_log(pauses, caplog):
    caplog.set_level("INFO")
    call = Call(*[Unavailable("it restarts")] * 2)
    await Retry(Unavailable, first_pause_s=0.1, longest_pause_s=0.2).until_answered(call, what="the writer")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "the writer is called again: it restarts"),
        ("WARNING", "the writer is called again: it restarts"),
    ]
