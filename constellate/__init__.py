"""The Python client of a running Constellate service.

from constellate import Constellate

with Constellate("http://127.0.0.1:8000") as service:
    photos = service.embed_folder("photos", on_progress=print)
"""

from constellate.async_client import AsyncConstellate
from constellate.client import Constellate, EmbeddedFolder, JobFailed
from constellate.findings import Found, Labelled
from constellate.records import DatasetInfo, EmbeddingsInfo, JobInfo, NeighbourInfo, PointInfo, Progress, SkipInfo
from constellate.wire import NothingThere, Refused, Unreachable

__all__ = [
    "AsyncConstellate",
    "Constellate",
    "DatasetInfo",
    "EmbeddedFolder",
    "EmbeddingsInfo",
    "Found",
    "JobFailed",
    "JobInfo",
    "Labelled",
    "NeighbourInfo",
    "NothingThere",
    "PointInfo",
    "Progress",
    "Refused",
    "SkipInfo",
    "Unreachable",
]
