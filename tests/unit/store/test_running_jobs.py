"""Rates on a clock turned by hand."""

from serve_app.store.running_jobs import WINDOW_S, Pace
from tests.unit.store.workbench import Clock


def test_there_is_no_rate_without_work():
    pace = Pace(Clock())
    assert pace.rate("job") is None
    pace.start("job", 5)
    assert pace.rate("job") is None


def test_the_rate_forgets_what_lies_before_the_window():
    clock = Clock()
    pace = Pace(clock)
    pace.start("job", 0)
    clock.now += 1
    pace.note("job", 1000)
    for step in range(1, 31):
        clock.now += 1
        pace.note("job", 1000 + 10 * step)
    assert pace.rate("job") == 10.0


def test_the_rate_is_unknown_after_a_window_without_a_commit():
    clock = Clock()
    pace = Pace(clock)
    pace.start("job", 0)
    clock.now += 2
    pace.note("job", 4)
    assert pace.rate("job") == 2.0
    clock.now += WINDOW_S + 0.1
    assert pace.rate("job") is None


def test_slow_commits_still_have_a_rate():
    clock = Clock()
    pace = Pace(clock)
    pace.start("job", 0)
    for step in (1, 2, 3):
        clock.now += 3 * WINDOW_S
        pace.note("job", 60 * step)
        assert pace.rate("job") == 2.0


def test_a_new_attempt_and_a_finished_job_start_from_nothing():
    clock = Clock()
    pace = Pace(clock)
    pace.start("job", 0)
    clock.now += 1
    pace.note("job", 5)
    pace.start("job", 5)
    assert pace.rate("job") is None
    clock.now += 1
    pace.note("job", 8)
    assert pace.rate("job") == 3.0
    pace.stop("job")
    assert pace.rate("job") is None
