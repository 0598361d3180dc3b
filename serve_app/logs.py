"""Structured logs: each line on standard error is a JSON object with the ids of its request and job.

Ray writes the standard error of each process to a separate file. The ids are kept in a context variable: tasks and
threads that start inside `about` inherit them, and callers of other processes send `ids()` along.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

OURS = ("constellate", "serve_app", "deployments")
"""The names of this project's root loggers; loggers of libraries are not changed."""

_ids: ContextVar[Mapping[str, str]] = ContextVar("log_ids", default={})  # noqa: B039  # it is never changed in place


def ids() -> Mapping[str, str]:
    """The ids of the current work: `request_id`, `job_id`."""
    return _ids.get()


@contextmanager
def about(**more: str) -> Iterator[None]:
    """Add these ids to every line that is logged inside the block."""
    token = _ids.set({**_ids.get(), **more})
    try:
        yield
    finally:
        _ids.reset(token)


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time (UTC), level, component, pid, logger, message, ids, traceback."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        """The line without a newline."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "component": self._component,
            "pid": os.getpid(),
            "logger": record.name,
            "message": record.getMessage(),
            **ids(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def to_stderr(component: str) -> None:
    """Write our loggers' records of level `info` and above to standard error as JSON, with the component's name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(component))
    for name in OURS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
