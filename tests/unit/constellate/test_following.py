import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellate.following import MAX_DELAY_S, follow
from constellate.routes import Routes
from constellate.wire import Refused, Unreachable

STREAM, POLL = "/datasets/d/embeddings/progress", "/jobs/j"


def state(processed, status="running", job_id="j"):
    return {"job_id": job_id, "status": status, "processed": processed, "total": 9, "message": "", "skipped": 0}


def event(seq, **fields):
    return f"event: progress\nid: j:{seq}\ndata: {json.dumps(state(**fields))}\n\n"


def stream(*events):
    """An answer that brings some events and is cut."""
    return httpx.Response(200, text="".join(events), headers={"content-type": "text/event-stream"})


def job(**fields):
    return httpx.Response(200, json={**state(**fields), "id": "j", "kind": "embed"})


class Script:
    """A service that gives prepared answers, one list a path; the last one of a list again and again."""

    def __init__(self, **answers):
        self.answers = {STREAM: answers["streams"], POLL: answers["polls"]}
        self.requests = []
        self.slept_s = []

    def __call__(self, request):
        self.requests.append(request)
        answers = self.answers[request.url.path]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def follow(self, **options):
        client = Routes("http://service", transport=httpx.MockTransport(self))
        return list(follow(client, "d", "j", "embed", sleep=self.slept_s.append, **options))


def test_states_come_in_order_and_the_terminal_one_is_the_last():
    script = Script(streams=[stream(event(1, processed=0), event(2, processed=9, status="complete"))], polls=[])
    assert [(s.processed, s.status) for s in script.follow()] == [(0, "running"), (9, "complete")]
    assert len(script.requests) == 1


def test_a_dropped_stream_is_resumed_after_its_last_event():
    script = Script(
        streams=[stream(event(1, processed=3)), stream(event(4, processed=9, status="complete"))],
        polls=[job(processed=4)],
    )
    assert [s.processed for s in script.follow()] == [3, 4, 9]
    assert [r.headers.get("last-event-id") for r in script.requests] == [None, None, "j:1"]


def test_where_no_stream_gets_through_polling_does_the_work():
    script = Script(
        streams=[httpx.Response(503)], polls=[job(processed=1), job(processed=5), job(processed=9, status="complete")]
    )
    assert [s.processed for s in script.follow()] == [1, 5, 9]
    assert script.slept_s == [0.1, 0.2]


def test_events_of_another_job_of_the_dataset_are_left_out():
    older = event(7, processed=9, status="complete", job_id="older")
    script = Script(streams=[stream(older)], polls=[job(processed=2), job(processed=9, status="complete")])
    assert [s.processed for s in script.follow()] == [2, 9]
    assert "last-event-id" not in script.requests[-1].headers


def test_the_reduce_stream_is_used_for_a_reduce_job():
    def answer(request):
        assert request.url.path == "/datasets/d/embeddings/reduce/progress"
        return stream(event(1, processed=9, status="complete"))

    client = Routes("http://service", transport=httpx.MockTransport(answer))
    assert [s.status for s in follow(client, "d", "j", "reduce")] == ["complete"]


def test_a_service_that_stays_away_is_given_up_when_patience_ends():
    away = httpx.ConnectError("refused")
    script = Script(streams=[away], polls=[away])
    with pytest.raises(Unreachable, match="does not answer"):
        script.follow(patience_s=10)
    assert 10 <= sum(script.slept_s) <= 10 + MAX_DELAY_S


def test_patience_begins_anew_with_every_answer():
    away = httpx.ConnectError("refused")
    script = Script(
        streams=[away],
        polls=[away] * 8 + [job(processed=1)] + [away] * 4 + [job(processed=9, status="complete")],
    )
    assert [s.processed for s in script.follow(patience_s=12)] == [1, 9]
    assert sum(script.slept_s) > 12


@pytest.mark.parametrize("status", [401, 404])
def test_a_job_that_the_service_does_not_know_ends_the_following_at_once(status):
    script = Script(streams=[httpx.Response(status)], polls=[httpx.Response(status, json={"detail": "no such job"})])
    with pytest.raises(Refused, match="no such job"):
        script.follow()
    assert script.slept_s == []


def test_frames_that_are_not_progress_are_left_out():
    noise = ": ping\n\nevent: hint\ndata: not json\n\n"
    script = Script(streams=[stream(noise, event(1, processed=9, status="complete"))], polls=[])
    assert len(script.follow()) == 1


PIECES = st.lists(st.lists(st.sampled_from(["event", "foreign", "ping"]), max_size=4), max_size=6)


@given(pieces=PIECES)
def test_however_the_stream_is_cut_counts_never_fall_and_the_end_comes_once(pieces):
    seq = 0
    streams, polls = [], []
    for piece in pieces:
        frames = []
        for kind in piece:
            seq += kind == "event"
            frame = event(seq, processed=seq) if kind == "event" else event(99, processed=9, job_id="x")
            frames.append(": ping\n\n" if kind == "ping" else frame)
        streams.append(stream(*frames))
        polls.append(job(processed=seq))
    script = Script(
        streams=[*streams, stream(event(seq + 1, processed=seq + 1, status="complete"))],
        polls=polls or [job(processed=0)],
    )
    seen = script.follow()
    counts = [s.processed for s in seen]
    assert counts == sorted(counts)
    assert [s.is_terminal for s in seen].count(True) == 1
    assert seen[-1].is_terminal
