"""How a map was made: its job keeps that among its parameters when it is done."""

import json
from dataclasses import asdict

from serve_app.records import MapMade
from serve_app.store.session import Session

_KEY = "map"


def read(params: str) -> MapMade | None:
    """What the parameters say; None where an import brought the map, or an older release made it."""
    made = json.loads(params).get(_KEY)
    return MapMade(**made) if made else None


def added(params: str, made: MapMade | None) -> str:
    """The parameters of a job that has made its map so."""
    return params if made is None else json.dumps(json.loads(params) | {_KEY: asdict(made)})


def of_job(session: Session, job_id: str | None) -> MapMade | None:
    """As `read`, of a job that may be None."""
    params = session.row("SELECT params FROM jobs WHERE id = ?", job_id)
    return None if params is None else read(params[0])
