"""LightlyStudio's remote-embedder protocol, version 1.0 (package `lightly-studio-serve`)."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, File, UploadFile
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from serve_app.api import problems
from serve_app.api.context import ContextNow, ServicesNow
from serve_app.api.guards import LIGHTLY_LIMIT_BYTES
from serve_app.api.schemas import SPACE, Body
from serve_app.api.vector_text import as_numbers, json_array
from serve_app.errors import InvalidRequest, ModelUnavailable, NotFound, Saturated, TooLarge, Unavailable
from serve_app.records import ModelCard, Skip

router = APIRouter(prefix="/v1", tags=["LightlyStudio"])


class Limits(BaseModel):
    """The limits of one request."""

    max_batch_size: int = Field(
        description="images; what a machine without GPU answers within two minutes", examples=[999]
    )
    max_request_bytes: int = Field(examples=[LIGHTLY_LIMIT_BYTES])


class Description(BaseModel):
    """This embedder's vector space, state and limits."""

    protocol_version: Literal["1.0"] = "1.0"
    space_key: str = Field(description="vectors of different keys are never comparable", examples=[SPACE])
    dimension: int = Field(examples=[768])
    ready: bool = Field(description="whether the model is loaded", examples=[True])
    capabilities: list[Literal["image_bytes", "text"]] = Field(examples=[["image_bytes"]])
    limits: Limits


class Embeddings(BaseModel):
    """The vectors of the images that could be decoded."""

    space_key: str = Field(examples=[SPACE])
    dimension: int = Field(examples=[3])
    kept_indices: list[int] = Field(
        description="positions of the embedded images in the request, ascending", examples=[[0]]
    )
    embeddings: list[list[float]] = Field(
        description="one vector a kept index, not normalised", examples=[[[0.5, -1.25, 2.0]]]
    )


@router.get("/describe", responses=problems.documented(ModelUnavailable))
async def describe_embedder(services: ServicesNow, context: ContextNow) -> Description:
    """Describe the vector space and the limits of a request."""
    ready = True
    try:
        card = await context.served_model.card()
    except Unavailable:
        if context.served_model.last is None:
            raise
        card, ready = context.served_model.last, False
    return Description(
        space_key=card.space_key,
        dimension=card.dimension,
        ready=ready,
        capabilities=["image_bytes"] if card.no_text else ["image_bytes", "text"],
        limits=Limits(max_batch_size=services.policy.request_images, max_request_bytes=LIGHTLY_LIMIT_BYTES),
    )


@router.post(
    "/embed/images/bytes",
    response_class=StreamingResponse,
    responses={
        200: {"description": "vectors in input order", "model": Embeddings},
        **problems.documented(InvalidRequest, TooLarge, Saturated, ModelUnavailable),
    },
)
async def embed_images(
    files: Annotated[
        list[UploadFile],
        File(min_length=1, description="one part an image, each with a file name, in input order"),
    ],
    context: ContextNow,
) -> StreamingResponse:
    """Embed images; `kept_indices` leaves out images that cannot be decoded."""
    await context.served_model.known()  # while the model loads, this refuses at once
    embedded = await context.request_embedder.embed_uploads([await file.read() for file in files])
    kept = {i: vector for i, vector in enumerate(embedded.outcomes) if not isinstance(vector, Skip)}
    return StreamingResponse(_answer(embedded.card, kept), media_type="application/json")


class Texts(Body):
    """The texts to embed."""

    texts: list[str] = Field(min_length=1, description="in the order of the answer", examples=[["a dog on a beach"]])


@router.post(
    "/embed/texts",
    response_class=StreamingResponse,
    responses={
        200: {"description": "vectors in input order", "model": Embeddings},
        **problems.documented(InvalidRequest, NotFound, TooLarge, Saturated, ModelUnavailable),
    },
)
async def embed_texts(body: Texts, context: ContextNow) -> StreamingResponse:
    """Embed texts in the space of the images; 404 where the model takes no text. Long texts are cut."""
    card = await context.served_model.known()
    if card.no_text:
        raise NotFound(f"{card.name} takes no text: {card.no_text}")
    embedded = await context.request_embedder.embed_texts(body.texts)
    kept = {i: vector for i, vector in enumerate(embedded.outcomes) if not isinstance(vector, Skip)}
    return StreamingResponse(_answer(embedded.card, kept), media_type="application/json")


async def _answer(card: ModelCard, kept: dict[int, NDArray[np.float32]]) -> AsyncIterator[str]:
    """Encode `Embeddings` as text, piece by piece."""
    head = {"space_key": card.space_key, "dimension": card.dimension, "kept_indices": list(kept)}
    yield json.dumps(head)[:-1] + ', "embeddings": '
    async for piece in json_array(map(as_numbers, kept.values())):
        yield piece
    yield "}"
