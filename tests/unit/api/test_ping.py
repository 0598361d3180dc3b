import json

from httpx_sse._decoders import SSEDecoder, SSELineDecoder

from serve_app.api.streams import Ping
from serve_app.progress import progress_event


def events_of(wire: bytes) -> list:
    """What httpx-sse makes of bytes on the wire."""
    lines, decoder = SSELineDecoder(), SSEDecoder()
    text = lines.decode(wire.decode()) + lines.flush()
    return [event for line in text if (event := decoder.decode(line)) is not None]


def test_a_ping_between_events_is_no_event_for_httpx_sse():
    """The comment's blank line used to be one, without data, as soon as the stream had lasted 15 s."""
    state = progress_event(None)
    state.id = "job:1"
    wire = state.encode() + Ping().encode() + Ping().encode() + state.encode() + Ping().encode()
    events = events_of(wire)
    assert [event.event for event in events] == ["progress", "progress"]
    assert all(json.loads(event.data)["status"] == "idle" for event in events)
