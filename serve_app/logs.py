"""Structured logs: one JSON object a line on standard error, with the ids of the request and the job it is about.

Ray keeps the standard error of each process in a file of its own. The ids live in a context variable: tasks and
threads begun inside `about` have them too, and whoever calls another process sends `ids()` along.
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
"""The roots of this project's loggers; those of libraries stay as they are."""

_ids: ContextVar[Mapping[str, str]] = ContextVar("log_ids", default={})  # noqa: B039  # never changed, only replaced


def ids() -> Mapping[str, str]:
    """The ids of what is being done here and now: `request_id`, `job_id`."""
    return _ids.get()


@contextmanager
def about(**more: str) -> Iterator[None]:
    """Give every line that is logged inside these ids, beside those it has already."""
    token = _ids.set({**_ids.get(), **more})
    try:
        yield
    finally:
        _ids.reset(token)


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, component, pid, logger, message, ids and the traceback."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
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
    """Send this process's own lines from `info` on to standard error as JSON, under the name of its component."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(component))
    for name in OURS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
