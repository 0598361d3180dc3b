"""One example of every operation, by the operation's id: a folder of flowers, from registration to duplicates.

The OpenAPI document includes the examples. Tests check each against its schema and send it to the application.
"""

from typing import Any, NamedTuple

DATASET_ID = "0f8fad5bd9cb469fa165708867288c16"
JOB_ID = "7c9e6679f5194e0a9c1b3d2a5e8f4b60"
SAMPLE_ID = "rose/a.png"
ROOT = "/data/flowers"
PNG_URI = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGM4IScHAAK2AQU0pnWqAAAAAElFTkSuQmCC"
)
"""A PNG of one pixel."""
UPLOAD = "(the bytes of an image file)"

_JSON = "application/json"
_SPACE = "9b1c4d0e5a6f7788"
_CREATED = "2026-03-01T09:30:00"
_DATASET: dict[str, Any] = {
    "id": DATASET_ID,
    "name": "flowers",
    "root": ROOT,
    "format": "folder",
    "annotations": None,
    "sample_count": 5,
    "created_at": _CREATED,
}
_SAMPLE = {"id": SAMPLE_ID, "file_name": SAMPLE_ID, "label": "rose"}
_JOB: dict[str, Any] = {
    "id": JOB_ID,
    "dataset_id": DATASET_ID,
    "kind": "embed",
    "status": "complete",
    "phase": "complete",
    "processed": 5,
    "skipped": 1,
    "reused": 0,
    "total": 5,
    "message": "4 images embedded, 1 skipped",
    "model_name": "dinov2-base",
    "attempt": 1,
    "seq": 7,
    "rate": None,
    "eta_s": None,
    "created_at": _CREATED,
    "finished_at": "2026-03-01T09:30:04",
    "notified": "delivered",
    "notify_detail": None,
}
_CANCELLED = {
    "dataset_id": DATASET_ID,
    "status": "cancelled",
    "message": "Cancelled at 0 of 5",
    "job_id": JOB_ID,
}
_POINT = {
    "sampleId": SAMPLE_ID,
    "x": 4.25,
    "y": -1.5,
    "fileName": SAMPLE_ID,
    "label": "rose",
    "thumbnailPath": f"/datasets/{DATASET_ID}/samples/{SAMPLE_ID}/thumbnail",
}
_NEIGHBOURS = {
    "items": [
        {"sample_id": "rose/b.png", "file_name": "rose/b.png", "label": "rose", "score": 0.93},
        {"sample_id": "tulip/c.png", "file_name": "tulip/c.png", "label": "tulip", "score": 0.41},
    ]
}
_EVENT = {
    "event": "progress",
    "id": f"{JOB_ID}:7",
    "data": '{"status": "complete", "processed": 5, "total": 5, "message": "4 images embedded, 1 skipped", '
    f'"job_id": "{JOB_ID}", "skipped": 1, "rate": null, "eta_s": null}}',
}


class Example(NamedTuple):
    """A request and its answers: media type and value by status. Answers of bytes have no example."""

    parameters: dict[str, Any] = {}  # noqa: RUF012
    body: Any = None
    answers: dict[int, tuple[str, Any]] = {}  # noqa: RUF012


_OF_DATASET = {"dataset_id": DATASET_ID}
_OF_SAMPLE = _OF_DATASET | {"sample_id": SAMPLE_ID}


def _started(message: str) -> dict[str, Any]:
    return {"dataset_id": DATASET_ID, "status": "started", "message": message, "job_id": JOB_ID}


EXAMPLES: dict[str, Example] = {
    "register_dataset": Example(
        body={"name": "flowers", "root": ROOT, "format": "auto"}, answers={201: (_JSON, _DATASET)}
    ),
    "list_datasets": Example(answers={200: (_JSON, [_DATASET])}),
    "get_dataset": Example(_OF_DATASET, answers={200: (_JSON, _DATASET)}),
    "delete_dataset": Example(_OF_DATASET),
    "rescan_dataset": Example(_OF_DATASET, answers={200: (_JSON, {"added": 2, "changed": 1, "removed": 0})}),
    "list_columns": Example(
        _OF_DATASET,
        answers={
            200: (
                _JSON,
                [
                    {
                        "name": "label",
                        "type": "text",
                        "is_stored": False,
                        "origin": "listing",
                        "count": 5,
                        "distinct": 2,
                        "values": [{"value": "tulip", "count": 3}, {"value": "rose", "count": 2}],
                        "min": None,
                        "max": None,
                    }
                ],
            )
        },
    ),
    "put_columns": Example(
        _OF_DATASET,
        answers={
            200: (_JSON, {"columns": ["width"], "rows": 5, "matched": 5, "refused": [], "ignored": []}),
        },
    ),
    "get_column": Example({**_OF_DATASET, "name": "label"}),
    "make_sprites": Example(_OF_DATASET, {"sample_ids": [SAMPLE_ID], "size_px": 64}),
    "delete_column": Example({**_OF_DATASET, "name": "width"}),
    "list_tags": Example(_OF_DATASET, answers={200: (_JSON, [{"value": "keep", "count": 2}])}),
    "add_tag": Example(
        {**_OF_DATASET, "tag": "keep"}, {"where": "label = 'rose'"}, {200: (_JSON, {"changed": 2, "selected": 2})}
    ),
    "remove_tag": Example(
        {**_OF_DATASET, "tag": "keep"}, {"where": "label = 'rose'"}, {200: (_JSON, {"changed": 2, "selected": 2})}
    ),
    "list_samples": Example(
        _OF_DATASET | {"limit": 1, "cursor": "1-0"}, answers={200: (_JSON, {"items": [_SAMPLE], "next_cursor": "1-1"})}
    ),
    "get_image": Example(_OF_SAMPLE),
    "get_thumbnail": Example(_OF_SAMPLE | {"size": 256}),
    "generate_embeddings": Example(
        _OF_DATASET,
        {"model_name": "dinov2-base", "force": False},
        {202: (_JSON, _started("Embedding 5 images with dinov2-base."))},
    ),
    "reduce_embeddings": Example(
        _OF_DATASET,
        {"n_neighbors": 15, "min_dist": 0.1, "metric": "cosine", "random_state": 42},
        {202: (_JSON, _started("Computing the 2D map."))},
    ),
    "cancel_job": Example(_OF_DATASET, answers={202: (_JSON, _CANCELLED)}),
    "make_graph": Example(_OF_DATASET, {"k": 15}, {202: (_JSON, _started("Finding neighbours of 4 images."))}),
    "cancel_graph": Example(_OF_DATASET, answers={202: (_JSON, _CANCELLED)}),
    "follow_graph": Example(_OF_DATASET, answers={200: ("text/event-stream", _EVENT)}),
    "get_embedding_status": Example(
        _OF_DATASET,
        answers={
            200: (
                _JSON,
                {
                    "dataset_id": DATASET_ID,
                    "has_embeddings": True,
                    "embedding_count": 4,
                    "model_name": "dinov2-base",
                    "dimension": 768,
                    "space_key": _SPACE,
                    "job_id": JOB_ID,
                    "has_reduction": True,
                    "sample_count": 5,
                },
            )
        },
    ),
    "list_skipped": Example(
        _OF_DATASET | {"limit": 100},
        answers={
            200: (
                _JSON,
                {
                    "items": [
                        {
                            "sample_id": "tulip/broken.png",
                            "file_name": "tulip/broken.png",
                            "reason": "unidentified",
                            "detail": "not an image of a known format",
                        }
                    ],
                    "next_cursor": None,
                },
            )
        },
    ),
    "get_coordinates": Example(_OF_DATASET, answers={200: (_JSON, [_POINT])}),
    "import_vectors": Example(
        _OF_DATASET | {"space_key": "clip-vit-b-32/openai", "model_name": "clip-vit-b-32"},
        answers={202: (_JSON, _started("Importing 4 vectors of dimension 512."))},
    ),
    "export_samples": Example(
        _OF_DATASET | {"format": "coco", "where": "label = 'tulip'"},
        answers={200: (_JSON, {"images": [], "categories": []})},
    ),
    "export_embeddings": Example(_OF_DATASET | {"format": "parquet"}),
    "follow_embedding": Example(_OF_DATASET, answers={200: ("text/event-stream", _EVENT)}),
    "follow_reduction": Example(_OF_DATASET, answers={200: ("text/event-stream", _EVENT)}),
    "find_similar": Example(_OF_SAMPLE | {"limit": 2}, answers={200: (_JSON, _NEIGHBOURS)}),
    "search_by_image": Example(_OF_DATASET | {"limit": 2}, {"file": UPLOAD}, {200: (_JSON, _NEIGHBOURS)}),
    "find_duplicates": Example(
        _OF_DATASET | {"threshold": 0.95},
        answers={200: (_JSON, {"threshold": 0.95, "groups": [_NEIGHBOURS["items"]], "incomplete": 0})},
    ),
    "find_outliers": Example(
        _OF_DATASET | {"k": 10, "limit": 2, "where": "label = 'tulip'"}, answers={200: (_JSON, _NEIGHBOURS)}
    ),
    "choose_diverse": Example(_OF_DATASET | {"n": 2, "where": "label = 'tulip'"}, answers={200: (_JSON, _NEIGHBOURS)}),
    "label_by_phrases": Example(
        _OF_DATASET | {"where": "label = 'tulip'"},
        {"phrases": ["rose", "tulip"], "templates": ["a photo of a {}."], "column": "flower"},
        {
            200: (
                _JSON,
                {
                    "columns": ["flower", "flower_score"],
                    "samples": 2,
                    "phrases": [{"phrase": "rose", "count": 0}, {"phrase": "tulip", "count": 2}],
                },
            )
        },
    ),
    "list_jobs": Example({"limit": 10}, answers={200: (_JSON, [_JOB])}),
    "get_job": Example({"job_id": JOB_ID}, answers={200: (_JSON, _JOB)}),
    "describe_embedder": Example(
        answers={
            200: (
                _JSON,
                {
                    "protocol_version": "1.0",
                    "space_key": _SPACE,
                    "dimension": 3,
                    "ready": True,
                    "capabilities": ["image_bytes"],
                    "limits": {"max_batch_size": 999, "max_request_bytes": 33554432},
                },
            )
        }
    ),
    "embed_images": Example(
        body={"files": [UPLOAD]},
        answers={
            200: (
                _JSON,
                {"space_key": _SPACE, "dimension": 3, "kept_indices": [0], "embeddings": [[0.5, -1.25, 2.0]]},
            )
        },
    ),
    "embed_texts": Example(
        body={"texts": ["a dog on a beach"]},
        answers={
            200: (
                _JSON,
                {"space_key": _SPACE, "dimension": 3, "kept_indices": [0], "embeddings": [[0.5, -1.25, 2.0]]},
            )
        },
    ),
    "list_models": Example(
        answers={
            200: (
                _JSON,
                {
                    "object": "list",
                    "data": [{"id": "dinov2-base", "object": "model", "created": 0, "owned_by": "constellate"}],
                },
            )
        }
    ),
    "create_embeddings": Example(
        body={"model": "dinov2-base", "input": [PNG_URI], "encoding_format": "float"},
        answers={
            200: (
                _JSON,
                {
                    "object": "list",
                    "model": f"dinov2-base@{_SPACE}",
                    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1.25, 2.0]}],
                    "usage": {"prompt_tokens": 1, "total_tokens": 1},
                },
            )
        },
    ),
    "check_health": Example(answers={200: (_JSON, {"status": "ok", "service": "constellate"})}),
    "check_readiness": Example(answers={200: (_JSON, {"status": "ready", "model": "dinov2-base", "warnings": []})}),
}
