import io

import pytest
from rich.console import Console

from constellate.records import Progress
from serve_app.cli.progress import Bar, Lines, duration, note, view, waiting, watch


def state(processed, total=100, status="running", **fields):
    return Progress(job_id="j", status=status, processed=processed, total=total, skipped=0, message="", **fields)


def plain():
    return Console(file=io.StringIO(), width=40)


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=120)


def lines(states):
    """The lines printed for (time, state) pairs."""
    console = plain()
    now_s = [0.0]
    with Lines(console, "Embedding", clock=lambda: now_s[0]) as shown:
        for now_s[0], one in states:
            shown.show(one)
    return console.file.getvalue().splitlines()


def test_a_line_is_printed_every_ten_percent():
    assert [line.split(" ")[1] for line in lines([(0, state(n)) for n in range(0, 101, 4)])] == [
        "0/100", "12/100", "24/100", "36/100", "48/100", "60/100", "72/100", "84/100", "96/100",
    ]  # fmt: skip


def test_a_line_is_printed_every_five_seconds_when_it_goes_slowly():
    assert len(lines([(second, state(second // 10)) for second in range(0, 21)])) == 5


def test_the_last_state_is_always_printed_and_only_once():
    shown = lines([(0, state(99)), (0, state(100, status="complete")), (9, state(100, status="complete"))])
    assert shown == ["Embedding: 99/100 (99%)", "Embedding: 100/100 (100%)"]


def test_a_line_holds_rate_time_left_and_skipped_and_is_never_broken():
    one = Progress("j", "running", 50, 200, 3, "Embedding images", rate=12.34, eta_s=75)
    assert lines([(0, one)]) == ["Embedding: 50/200 (25%), 12.3 images/s, 1 min 15 s left, 3 skipped"]


def test_before_any_image_the_message_says_what_is_going_on():
    assert note(Progress("j", "running", 0, 0, 0, "Waiting to start")) == "Waiting to start"


def test_a_terminal_gets_a_bar_with_count_rate_time_left_and_skipped():
    console = terminal()
    with view(console, "Embedding") as shown:
        assert isinstance(shown, Bar)
        shown.show(Progress("j", "running", 50, 200, 3, "", rate=12.34, eta_s=75))
    text = console.file.getvalue()
    assert "50/200" in text
    assert "12.3 images/s, 1 min 15 s left, 3 skipped" in text


def test_anything_else_gets_lines():
    assert isinstance(view(plain(), "Embedding"), Lines)


def test_watching_returns_the_last_state():
    states = [state(0), state(100, status="complete")]
    assert watch(iter(states), plain(), "Embedding") is states[-1]


def test_a_reason_for_waiting_is_told_once():
    console = plain()
    with waiting(console) as say:
        for reason in ("[bold]model", "[bold]model", "store"):
            say(reason)
    assert console.file.getvalue().splitlines() == ["Waiting: [bold]model", "Waiting: store"]


def test_a_terminal_gets_a_spinner():
    console = terminal()
    with waiting(console) as say:
        say("[bold]model")
    assert "Starting" in console.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7500, "2 h 5 min")],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text
