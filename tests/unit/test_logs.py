import asyncio
import io
import json
import logging
import sys

import pytest

from serve_app import logs


@pytest.fixture
def lines(monkeypatch):
    """What the loggers of this project write as a component `Test`, as a function that parses it."""
    loggers = [logging.getLogger(name) for name in logs.OURS]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    logs.to_stderr("Test")
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.level, logger.propagate = handlers, level, propagate


def test_a_line_says_when_where_and_what(lines):
    logging.getLogger("constellate.runner").info("job %s begins", "j1")
    logging.getLogger("serve_app.store").debug("not this")
    [line] = lines()
    assert line["time"].endswith("+00:00")
    assert (line["level"], line["component"], line["logger"]) == ("info", "Test", "constellate.runner")
    assert line["message"] == "job j1 begins"


def test_lines_carry_the_ids_of_what_they_are_about(lines):
    log = logging.getLogger("deployments.x")
    with logs.about(request_id="r1"):
        with logs.about(job_id="j1"):
            log.info("both")
        log.info("one")
    log.info("none")
    assert [{key: line.get(key) for key in ("request_id", "job_id")} for line in lines()] == [
        {"request_id": "r1", "job_id": "j1"},
        {"request_id": "r1", "job_id": None},
        {"request_id": None, "job_id": None},
    ]


async def test_tasks_and_threads_begun_for_a_job_know_it():
    with logs.about(job_id="j1"):
        task = asyncio.create_task(asyncio.to_thread(logs.ids))
    assert await task == {"job_id": "j1"}


def test_a_traceback_and_line_breaks_stay_on_one_line(lines):
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("constellate").exception("it\nbroke \u2028 é")
    [line] = lines()
    assert line["message"] == "it\nbroke \u2028 é"
    assert line["exception"].startswith("Traceback")


def test_configuring_twice_does_not_write_twice(lines, capsys):
    logs.to_stderr("Test")
    logging.getLogger("constellate").info("once")
    assert capsys.readouterr().err.count("once") == 1
    assert lines() == []
