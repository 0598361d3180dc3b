"""What Prometheus reads of a job: every metric of our own, with the right counts."""

import os
import shutil

import pytest
from httpx_sse import connect_sse

from tests.ray.client import embed, finish, generate, register
from tests.ray.conftest import Service
from tests.ray.exporters import Series, await_counters, await_series, increase, scrape, settled, total
from tests.ray.photographs import make_folder

pytestmark = pytest.mark.ray

MODEL = "tiny-dinov2"
COUNTERS = ("ray_dino_images_total", "ray_writer_rows_total")


def images(before: Series, now: Series, status: str) -> float:
    return increase(before, now, "ray_dino_images_total", model=MODEL, status=status)


def rows(before: Series, now: Series, outcome: str) -> float:
    return increase(before, now, "ray_writer_rows_total", outcome=outcome)


def test_a_job_is_counted_image_by_image_and_row_by_row(service: Service):
    # No other test has these images: where one had been embedded before, it would be `known`.
    root = make_folder(service.roots / "counted", n_images=40, seed=3)
    for name in ("a.jpg", "b.jpg"):
        (root / name).write_bytes(b"not an image")
    before = settled(*COUNTERS)

    dataset_id, _ = embed(service.http, root)
    shutil.move(root / "a.jpg", root / "c.jpg")
    os.utime(next(root.glob("cat/*.png")))  # touched: read again, and known by its hash
    service.http.post(f"/datasets/{dataset_id}/rescan")
    generate(service.http, dataset_id)
    assert finish(service.http, dataset_id)["status"] == "complete"

    def gained(now: Series) -> list[float]:
        return [count(before, now, status) for count in (images, rows) for status in ("embedded", "skipped")]

    after = await_counters(gained, [40, 4, 40, 4], *COUNTERS)
    assert images(before, after, "known") == 1
    assert rows(before, after, "reused") == 40
    for status in ("embedded", "known", "skipped"):
        tags = next(has for name, has, _ in after if name == "ray_dino_images_total" and has["status"] == status)
        assert (tags["deployment"], tags["application"]) == ("DinoV2", "embedder")


def test_seconds_and_fill_are_histograms(service: Service):
    embed(service.http, make_folder(service.roots / "timed", n_images=20, seed=4))

    def counted(series: Series) -> bool:
        return all(total(series, f"ray_{name}_count") for name in HISTOGRAMS)

    series = await_series(counted)
    for name in HISTOGRAMS:
        assert total(series, f"ray_{name}_bucket", le="+Inf") == total(series, f"ray_{name}_count")
    fill, n_batches = total(series, "ray_dino_batch_fill_sum"), total(series, "ray_dino_batch_fill_count")
    assert 0 < (fill or 0) <= (n_batches or 0)
    assert total(series, "ray_writer_commit_seconds_count", method="Vectors.commit")


HISTOGRAMS = ("dino_batch_fill", "dino_decode_seconds", "dino_forward_seconds", "writer_commit_seconds")


def test_gauges_show_what_the_database_holds(service: Service):
    embed(service.http, make_folder(service.roots / "held", n_images=4, seed=5))
    n_complete = sum(job["status"] == "complete" for job in service.http.get("/jobs", params={"limit": 1000}).json())

    def shown(now: Series) -> bool:
        """On a busy machine one gauge comes with an earlier export than another."""
        states = [total(now, "ray_jobs", state=state) for state in ("complete", "running")]
        return states == [n_complete, 0] and total(now, "ray_writer_queue_rows") == 0

    series = await_series(lambda now: shown(now) and bool(total(now, "ray_writer_file_bytes")))
    assert (total(series, "ray_writer_epoch") or 0) >= 1


def test_open_streams_are_counted_while_they_are_open(service: Service):
    dataset_id = register(service.http, make_folder(service.roots / "watched", n_images=1))
    with connect_sse(service.http, "GET", f"/datasets/{dataset_id}/embeddings/progress") as source:
        events = source.iter_sse()  # the stream is open for as long as this is
        next(events)
        await_series(lambda now: (total(now, "ray_sse_streams") or 0) >= 1)
    await_series(lambda now: not total(now, "ray_sse_streams"))  # nought, or no longer exported


def test_no_tag_holds_an_id(service: Service):
    dataset_id, end = embed(service.http, make_folder(service.roots / "untagged", n_images=2, seed=6))
    values = {value for name, has, _ in scrape() if name.startswith("ray_") for value in has.values()}
    assert values.isdisjoint({dataset_id, end["job_id"]})
