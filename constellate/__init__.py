"""The Python client of a running Constellate service.

from constellate import Constellate

with Constellate("http://127.0.0.1:8000") as service:
    photos = service.embed_folder("photos", on_progress=print)
"""

from serve_app.answers import DatasetInfo, EmbeddingsInfo, JobInfo, NeighbourInfo, PointInfo, Progress, SkipInfo
from serve_app.async_constellate import AsyncConstellate
from serve_app.client import NothingThere, Refused, Unreachable
from serve_app.constellate import Constellate, EmbeddedFolder, JobFailed

__all__ = [
    "AsyncConstellate",
    "Constellate",
    "DatasetInfo",
    "EmbeddedFolder",
    "EmbeddingsInfo",
    "JobFailed",
    "JobInfo",
    "NeighbourInfo",
    "NothingThere",
    "PointInfo",
    "Progress",
    "Refused",
    "SkipInfo",
    "Unreachable",
]
