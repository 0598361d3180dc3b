"""`POST /v1/embeddings` in OpenAI's protocol, for images as data URIs."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, Field, StringConstraints, WithJsonSchema
from starlette.responses import StreamingResponse

from serve_app.api import data_uris, problems
from serve_app.api.context import ContextNow
from serve_app.api.schemas import Body, Text, WholeNumber
from serve_app.api.served_model import names_of
from serve_app.api.vector_text import as_base64, as_numbers, json_array
from serve_app.errors import InvalidImage, InvalidRequest, ModelUnavailable, Saturated, TooLarge, UnknownModel
from serve_app.records import ModelCard, Skip

router = APIRouter(prefix="/v1", tags=["OpenAI"])


_DATA_URI = {"type": "string", "pattern": "^data:image/[a-z]+;base64,[A-Za-z0-9+/]*={0,2}$"}


def _only_texts(value: object) -> object:
    """Refuse what OpenAI takes besides texts, with one error and not with one for each element."""
    if not isinstance(value, str | list) or (isinstance(value, list) and not all(isinstance(v, str) for v in value)):
        raise ValueError("only images are taken, each as data:image/…;base64,…, and no token ids")
    return value


Input = Annotated[
    str | list[str],
    BeforeValidator(_only_texts),
    WithJsonSchema({"anyOf": [_DATA_URI, {"type": "array", "items": _DATA_URI, "minItems": 1}]}),
]
"""One or more data URIs; `data_uris` checks them, because its messages are clearer than those of a pattern."""


class EmbeddingRequest(Body):
    """The images to embed. Null counts as absent, because LiteLLM sends it."""

    model: Annotated[Text, StringConstraints(min_length=1, max_length=4096)] = Field(
        description="the default model's name, or name@space to refuse vectors of any other space",
        examples=["dinov2-base"],
    )
    input: Input = Field(description="one or many data URIs of images")
    modality: Literal["image"] | None = None
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="float when absent; base64 is little-endian float32"
    )
    dimensions: WholeNumber | None = Field(
        None, description="vectors are not shortened: only the model's own number is taken"
    )
    user: Text | None = Field(None, description="accepted and not used")


class Embedding(BaseModel):
    """The vector of one image."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """The number of tokens; each image counts as one, and nobody is billed."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """The vectors, in input order."""

    object: Literal["list"] = "list"
    model: str = Field(description="name@space of the vectors; valid as `model` of the next request")
    data: list[Embedding]
    usage: Usage


@router.post(
    "/embeddings",
    response_class=StreamingResponse,
    responses={
        200: {"description": "vectors in input order", "model": EmbeddingList},
        **problems.documented(InvalidRequest, InvalidImage, UnknownModel, TooLarge, Saturated, ModelUnavailable),
    },
)
async def create_embeddings(body: EmbeddingRequest, context: ContextNow) -> StreamingResponse:
    """Embed images given as data URIs. One undecodable image fails the request, as OpenAI's answer cannot have gaps."""
    images = _images(body)
    served = context.served_model
    card = await served.known()
    if body.model not in names_of(card):
        card = await served.card()  # the model may have been replaced since the last answer
    _check(body, card)
    embedded = await context.request_embedder.embed_uploads(images)
    _check(body, embedded.card)
    vectors = [_vector(i, outcome) for i, outcome in enumerate(embedded.outcomes)]
    answer = _answer(names_of(embedded.card)[0], vectors, as_base64 if body.encoding_format == "base64" else as_numbers)
    return StreamingResponse(answer, media_type="application/json")


def _images(body: EmbeddingRequest) -> list[bytes]:
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not texts:
        raise InvalidRequest("input: give at least one image")
    images = []
    for i, text in enumerate(texts):
        try:
            images.append(data_uris.decode(text))
        except InvalidRequest as error:
            raise InvalidRequest(f"input[{i}]: {error.detail}") from None
    return images


def _check(body: EmbeddingRequest, card: ModelCard) -> None:
    """Refuse a request whose vectors would differ from what the caller expects."""
    names = names_of(card)
    if body.model not in names:
        raise UnknownModel(f"{body.model!r} is not the model served here; that is {names[0]!r}")
    if body.dimensions not in (None, card.dimension):
        raise InvalidRequest(f"dimensions: vectors of {names[0]} have {card.dimension} numbers and are not shortened")


def _vector(index: int, outcome: NDArray[np.float32] | Skip) -> NDArray[np.float32]:
    if isinstance(outcome, Skip):
        raise InvalidImage(f"input[{index}]: {outcome.detail} ({outcome.reason})")
    return outcome


async def _answer(
    model: str, vectors: list[NDArray[np.float32]], encode: Callable[[NDArray[np.float32]], str]
) -> AsyncIterator[str]:
    """Encode `EmbeddingList` as text, piece by piece."""
    yield f'{{"object": "list", "model": {json.dumps(model)}, "data": '
    items = (
        f'{{"object": "embedding", "index": {index}, "embedding": {encode(vector)}}}'
        for index, vector in enumerate(vectors)
    )
    async for piece in json_array(items):
        yield piece
    usage = json.dumps({"prompt_tokens": len(vectors), "total_tokens": len(vectors)})
    yield f', "usage": {usage}}}'
