"""The stand-in's routes: answers in the shapes of the HTTP API (docs/api.md)."""

import asyncio
import contextlib
import csv
import io
import json
import math
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fastapi import APIRouter, Header, Query, Request
from PIL import Image
from starlette.responses import JSONResponse, Response, StreamingResponse

from serve_app.images.sheet import sheet
from tests.browser.album import Album, stream

ARROW = "application/vnd.apache.arrow.stream"
MODELS = ("dinov2-base", "dinov2-small")
PhraseList = Annotated[list[str], Query()]
STATE_FIELDS = ("status", "processed", "total", "message", "skipped", "rate", "eta_s")


def problem(status, detail, **more):
    """An error as the service writes it."""
    return JSONResponse({"type": "about:blank", "title": "Problem", "status": status, "detail": detail, **more}, status)


def listing(id, prefer):
    """The start of a job that lists files; here it has ended when it is asked for."""
    assert prefer == "respond-async"
    return {"dataset_id": id, "job_id": f"listing-{id}", "status": "started", "message": "Listing."}


def datasets(service):
    """Datasets, their samples and images."""
    router = APIRouter(prefix="/datasets")

    @router.get("")
    async def list_all():
        return [album.dataset() for album in service.albums.values()]

    @router.post("", status_code=202)
    async def register(body: dict, prefer: str = Header()):
        if any(album.name == body["name"] for album in service.albums.values()):
            return problem(409, "Another dataset has this name: choose another one or delete it.")
        if not body["root"].startswith("/images/"):
            return problem(403, "The folder is not under the service's dataset roots.")
        return listing(service.add(Album(body["name"], 400), is_mapped=False).dataset()["id"], prefer)

    @router.post("/{id}/rescan", status_code=202)
    async def rescan(id: str, prefer: str = Header()):
        return listing(id, prefer)

    @router.get("/{id}")
    async def one(id: str):
        return service.albums[id].dataset()

    @router.get("/{id}/samples")
    async def samples(id: str, limit: int = 1000, cursor: int = 0, where: str = ""):
        album = service.albums[id]
        rows = album.chosen(where)[cursor : cursor + limit]
        items = [{"id": album.file_names[i], "file_name": album.file_names[i], "label": album.labels[i]} for i in rows]
        more = cursor + limit < len(album.chosen(where))
        return {"items": items, "next_cursor": str(cursor + limit) if more else None}

    @router.get("/{id}/samples/{sid:path}/image")
    async def image(id: str, sid: str):
        album = service.albums[id]
        return Response(album.picture(album.rows[sid], 640), media_type="image/jpeg")

    @router.get("/{id}/samples/{sid:path}/thumbnail")
    async def thumbnail(id: str, sid: str, size: int = 256):
        album = service.albums[id]
        return Response(album.picture(album.rows[sid], size), media_type="image/jpeg")

    return router


def listings(service):
    """Jobs that list files, which are asked for by their own id."""
    router = APIRouter()

    @router.get("/jobs/{id}")
    async def one_job(id: str):
        for job in service.jobs:
            if job["id"] == id:
                service.advance(job)
                return dict(job)
        return {"id": id, "status": "complete", "message": "nothing changed", "processed": 400, "total": 400}

    return router


def folders(service):
    """What can be registered."""
    router = APIRouter()

    @router.get("/folders")
    async def listed(path: str = "", cursor: str = ""):
        if not path:
            return _page(None, None, [("/images", "/images", 0)])
        if path != "/images":
            return _page(path, "/images", [])
        names = ["garden", "meadow"] if cursor else ["flowers"]
        return _page(path, None, [(name, f"/images/{name}", 400) for name in names], None if cursor else "flowers")

    return router


def _page(path, parent, items, next_cursor=None):
    folders = [{"name": name, "path": path, "images": images} for name, path, images in items]
    return {"path": path, "parent": parent, "items": folders, "next_cursor": next_cursor}


def jobs(service):
    """Start, list and cancel jobs."""
    router = APIRouter()

    @router.get("/jobs")
    async def list_jobs():
        for job in service.jobs:
            service.advance(job)
        as_of_now = [dict(job) for job in service.jobs]
        await asyncio.sleep(service.listing_s)
        return as_of_now

    def begin(id, kind):
        job = service.start_job(id, kind)
        if job is None:
            running = service.running_job(id)
            return problem(409, "A job of this dataset is running.", code="job_running", job_id=running["id"])
        return JSONResponse({"dataset_id": id, "status": "started", "message": "", "job_id": job["id"]}, 202)

    @router.post("/datasets/{id}/embeddings/generate")
    async def generate(id: str, body: dict):
        model = body.get("model_name", MODELS[0])
        return begin(id, "embed") if model in MODELS else problem(422, f"Unknown model '{model}'.")

    @router.post("/datasets/{id}/embeddings/reduce")
    async def reduce(id: str, body: dict):
        return begin(id, "reduce")

    @router.post("/datasets/{id}/graph")
    async def make_graph(id: str, body: dict):
        assert body == {"k": 15}
        return begin(id, "graph")

    @router.post("/datasets/{id}/embeddings/cancel", status_code=202)
    async def cancel(id: str):
        job = service.running_job(id)
        if job is None:
            return problem(409, "No job of this dataset is running.")
        job.update(status="cancelled", message=f"Cancelled at {job['processed']} of {job['total']}")
        return {"job_id": job["id"]}

    return router


def embeddings(service):
    """What jobs leave behind."""
    router = APIRouter(prefix="/datasets/{id}/embeddings")

    @router.get("/status")
    async def status(id: str, model: str = ""):
        album = service.albums[id]
        return {
            "dataset_id": id,
            "has_embeddings": album.has_vectors,
            "embedding_count": album.n - len(album.skips) if album.has_vectors else 0,
            "model_name": (model or album.models[0]) if album.has_vectors else None,
            "has_reduction": album.has_map and model not in album.without_map,
            "sample_count": album.n,
            "sets": [
                {"model_name": name, "embedding_count": album.n, "job_id": album.made_by} for name in album.models
            ],
        }

    @router.get("/skipped")
    async def skipped(id: str):
        return {"items": service.albums[id].skips, "next_cursor": None}

    @router.get("/coordinates")
    async def coordinates(id: str, where: str = ""):
        return Response(service.albums[id].arrow(where), media_type=ARROW)

    @router.get("/export")
    async def export(id: str, format: str):
        return Response(b"PAR1", media_type="application/vnd.apache.parquet")

    return router


def progress(service):
    """The progress streams."""
    router = APIRouter()

    def stream(id, kind, last_event_id):
        service.last_event_ids.append(last_event_id)
        return StreamingResponse(_events(service, dataset_id=id, kind=kind), media_type="text/event-stream")

    @router.get("/datasets/{id}/embeddings/progress")
    async def of_embedding(id: str, last_event_id: str | None = Header(None)):
        return stream(id, "embed", last_event_id)

    @router.get("/datasets/{id}/embeddings/reduce/progress")
    async def of_reduction(id: str, last_event_id: str | None = Header(None)):
        return stream(id, "reduce", last_event_id)

    @router.get("/jobs/{id}/progress")
    async def of_job(id: str):
        return StreamingResponse(_events(service, id=id), media_type="text/event-stream")

    return router


async def _events(service, **wanted):
    while True:
        job = next((job for job in service.jobs if wanted.items() <= job.items()), None)
        if job is not None:
            service.advance(job)
            data = json.dumps({**{name: job[name] for name in STATE_FIELDS}, "job_id": job["id"]})
            yield f"id: {job['id']}:{job['seq']}\r\nevent: progress\r\ndata: {data}\r\n\r\n"
            if job["status"] != "running":
                return
        yield ": ping\r\n\r\n"
        await asyncio.sleep(0.1)


def search(service):
    """Questions about vectors."""
    router = APIRouter(prefix="/datasets/{id}")

    @router.get("/similarity/{sid:path}")
    async def similar(id: str, sid: str, limit: int = 10, where: str = ""):
        album = service.albums[id]
        row = album.rows[sid]
        return {"items": album.near(album.points[row], limit, but=row, where=where)}

    @router.post("/search")
    async def by_image_or_words(id: str, request: Request, limit: int = 10, where: str = ""):
        if "json" in request.headers["content-type"]:
            return by_words(service.albums[id], (await request.json())["text"], limit, where)
        file = (await request.form())["file"]
        with contextlib.suppress(OSError):
            image = Image.open(io.BytesIO(await file.read()))
            album = service.albums[id]
            return {"items": album.near(album.points[image.width % album.n], limit)}
        return problem(422, "The image cannot be used: not an image of a known format (unidentified).")

    def by_words(album, text, limit, where):
        if not album.takes_text:
            return problem(409, "dinov2-base takes no text: it embeds images only.", code="no_text_tower")
        row = album.labels.index(text)
        return {"items": album.near(album.points[row], limit, where=where), "notices": []}

    @router.get("/outliers")
    async def outliers(id: str, k: int = 10, limit: int = 50, where: str = ""):
        album = service.albums[id]
        chosen = {album.file_names[row] for row in album.chosen(where)}
        return {"items": [item for item in album.outliers(album.n) if item["sample_id"] in chosen][:limit]}

    @router.get("/diverse")
    async def diverse(id: str, n: int = 50):
        album = service.albums[id]
        rows = np.linspace(0, album.n - 1, min(n, album.n)).astype(int)
        return {"items": [album.item(int(row), 0.5) for row in rows]}

    return router


def _plan(items):
    out = io.StringIO()
    writer = csv.DictWriter(out, items[0].keys())
    writer.writeheader()
    writer.writerows(items)
    return Response(out.getvalue(), media_type="text/csv")


def _named(clusters, phrases):
    names = [{"name": phrases[n % len(phrases)], "name_share": 0.75} if phrases else {} for n in range(len(clusters))]
    return [cluster | name for cluster, name in zip(clusters, names, strict=True)]


def _clusters(album, where, format, phrases):
    items = _named(album.clustered(where), phrases)
    if phrases and not album.takes_text:
        return problem(409, "dinov2-base takes no text: it embeds images only.", code="no_text_tower")
    return _plan(items) if format == "csv" else {"method": "HDBSCAN.", "noise": 3, "items": items}


def findings(service):
    """What to act on."""
    router = APIRouter(prefix="/datasets/{id}")

    @router.get("/duplicates")
    async def duplicates(
        id: str, threshold: float = 0.95, keep: str | None = None, where: str = "", format: str = "json"
    ):
        album = service.albums[id]
        if album.needs_graph:
            return problem(409, "Make the graph first.", code="graph_needed", k=15)
        if keep:
            groups = album.kept(threshold, keep, where)
            members = [member for group in groups for member in group]
            return _plan(members) if format == "csv" else {"threshold": threshold, "groups": groups, "incomplete": 0}
        return {"threshold": threshold, "groups": album.duplicates(threshold), "incomplete": 2}

    @router.get("/leaks")
    async def leaks(id: str, column: str, threshold: float = 0.95, where: str = "", format: str = "json"):
        album = service.albums[id]
        if column not in album.columns():
            return problem(422, f"There is no column {column}.")
        items = album.leaks(column, threshold, where)
        if format == "csv":
            return _plan(items)
        return {"column": column, "threshold": threshold, "incomplete": 0, "items": items}

    @router.get("/mislabeled")
    async def mislabeled(id: str, limit: int = 100, where: str = "", format: str = "json"):
        items = service.albums[id].mislabeled(limit, where)
        return _plan(items) if format == "csv" else {"method": "Confident learning.", "items": items}

    return router


def clusters(service):
    """Groups of images, which may get names and become a column."""
    router = APIRouter(prefix="/datasets/{id}")

    @router.get("/clusters")
    async def listed(id: str, where: str = "", format: str = "json", phrases: PhraseList = ()):
        return _clusters(service.albums[id], where, format, phrases)

    @router.post("/clusters")
    async def put(id: str, column: str, where: str = ""):
        found = service.albums[id].clustered(where)
        service.albums[id].put_clusters(where)
        return {"method": "HDBSCAN.", "noise": 3, "items": found, "column": column}

    return router


def columns(service):
    """Columns, tags and pictures in bulk."""
    router = APIRouter(prefix="/datasets/{id}")

    @router.get("/columns")
    async def listed(id: str):
        columns = {name: pa.array(values) for name, values in service.albums[id].columns().items()}
        return [_described(name, values) for name, values in columns.items()]

    @router.get("/columns/{name}")
    async def values(id: str, name: str):
        album = service.albums[id]
        table = pa.table({"sample_id": album.file_names, "value": album.columns()[name]})
        return Response(stream(table.filter(table["value"].is_valid())), media_type=ARROW)

    @router.get("/tags")
    async def tags(id: str):
        return [{"value": tag, "count": len(ids)} for tag, ids in sorted(service.albums[id].tags.items()) if ids]

    @router.post("/tags/{tag}")
    async def add(id: str, tag: str, body: dict):
        service.albums[id].tags.setdefault(tag, set()).update(body["sample_ids"])
        return {"changed": len(body["sample_ids"]), "selected": len(body["sample_ids"])}

    @router.delete("/tags/{tag}")
    async def remove(id: str, tag: str, body: dict):
        service.albums[id].tags.get(tag, set()).difference_update(body["sample_ids"])
        return {"changed": len(body["sample_ids"]), "selected": len(body["sample_ids"])}

    @router.post("/sprites")
    async def sprites(id: str, body: dict):
        album = service.albums[id]
        pictures = [album.picture(album.rows[name], body["size_px"]) for name in body["sample_ids"]]
        drawn = sheet(pictures, columns=math.isqrt(len(pictures) - 1) + 1, size_px=body["size_px"])
        return Response(drawn, media_type="image/webp")

    return router


def _described(name, values):
    kind = "number" if pa.types.is_floating(values.type) else "text"
    counts = sorted(values.drop_null().value_counts().to_pylist(), key=lambda one: -one["counts"])
    least, most = (pc.min(values).as_py(), pc.max(values).as_py()) if kind == "number" else (None, None)
    top = [{"value": one["values"], "count": one["counts"]} for one in counts[:100]]
    return {
        "name": name, "type": kind, "count": len(values) - values.null_count, "distinct": len(counts),
        "values": top if kind == "text" else [], "min": least, "max": most,
    }  # fmt: skip


ROUTERS = (datasets, folders, columns, listings, jobs, embeddings, progress, search, findings, clusters)
