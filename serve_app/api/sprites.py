"""Sprites: many small pictures in one image, for a map that shows pictures instead of points."""

import math
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from serve_app.api import problems
from serve_app.api.context import Context, ContextNow, ServicesNow, ThumbnailVisit
from serve_app.api.images import thumbnail_of
from serve_app.api.schemas import SAMPLE_ID, Body, CellSize
from serve_app.errors import DatasetNotFound, OutsideRoots, Overloaded, ServiceError
from serve_app.images import sheet
from serve_app.records import Dataset, SourceFile
from serve_app.store.datasets import Datasets

router = APIRouter(prefix="/datasets/{dataset_id}/sprites", tags=["datasets"])

MAX_SPRITES = 256


class SpriteRequest(Body):
    """The samples whose pictures are wanted, and the side of a cell."""

    sample_ids: Annotated[list[str], Field(min_length=1, max_length=MAX_SPRITES, examples=[[SAMPLE_ID]])]
    size_px: CellSize = 64


_ANSWER = {
    "description": "⌈√n⌉ columns of square cells, row by row by the order of ids; one without a picture is clear",
    "content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}},
}


@router.post(
    "",
    response_class=Response,
    responses={200: _ANSWER, **problems.documented(DatasetNotFound, OutsideRoots, Overloaded)},
)
async def make_sprites(
    dataset_id: str, wanted: SpriteRequest, services: ServicesNow, context: ContextNow, visit: ThumbnailVisit
) -> Response:
    """Get the middle squares of up to 256 images as one image."""
    dataset, found = await services.writer.ask(Datasets.some, dataset_id, wanted.sample_ids)
    samples = {sample.sample_id: sample for sample in found}
    listed = [samples.get(sample_id) for sample_id in wanted.sample_ids]
    drawn = await visit.run(_drawn, context, dataset, listed, wanted.size_px)
    return Response(visit.hold(drawn), media_type="image/webp", headers={"Cache-Control": "no-store"})


def _drawn(context: Context, dataset: Dataset, listed: list[SourceFile | None], size_px: int) -> bytes:
    """The sheet of the samples; None and images that cannot be read leave their cells clear."""
    pictures = [None if sample is None else _picture(context, dataset, sample) for sample in listed]
    return sheet.sheet(pictures, columns=math.isqrt(len(listed) - 1) + 1, size_px=size_px)


def _picture(context: Context, dataset: Dataset, sample: SourceFile) -> bytes | None:
    try:
        return thumbnail_of(context.reader, context.thumbnails, dataset, sample, sheet.SOURCE_PX)
    except OutsideRoots:
        raise
    except ServiceError:
        return None
