"""`POST /v1/embeddings` and `GET /v1/models` in OpenAI's protocol, for images as data URIs and for texts."""

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
from serve_app.api.schemas import SPACE, Body, Text, WholeNumber
from serve_app.api.served_model import names_of, plain_names
from serve_app.api.vector_text import as_base64, as_numbers, json_array
from serve_app.embedding.text import check as check_texts
from serve_app.errors import InvalidImage, InvalidRequest, ModelUnavailable, Saturated, TooLarge, UnknownModel
from serve_app.records import ModelCard, Skip
from serve_app.services import Embedded

router = APIRouter(prefix="/v1", tags=["OpenAI"])


_INPUT = {"type": "string", "description": "data:image/…;base64,…, or a text where the model takes text"}
_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGM4IScHAAK2AQU0pnWqAAAAAElFTkSuQmCC"
)
"""A PNG of one pixel."""


def _only_texts(value: object) -> object:
    """Refuse what OpenAI takes besides strings, with one error and not with one for each element."""
    if not isinstance(value, str | list) or (isinstance(value, list) and not all(isinstance(v, str) for v in value)):
        raise ValueError("only images are taken, each as data:image/…;base64,…, and texts, but no token ids")
    return value


Input = Annotated[
    str | list[str],
    BeforeValidator(_only_texts),
    WithJsonSchema({"anyOf": [_INPUT, {"type": "array", "items": _INPUT, "minItems": 1}]}),
]
"""One or more data URIs or texts; `data_uris` checks them, with clearer messages than those of a pattern."""


class EmbeddingRequest(Body):
    """The images and texts to embed. Null counts as absent, because LiteLLM sends it."""

    model: Annotated[Text, StringConstraints(min_length=1, max_length=4096)] = Field(
        description="the name of the default model or of a dataset's model (see /v1/models), or name@space to refuse "
        "vectors of any other space",
        examples=["dinov2-base"],
    )
    input: Input = Field(description="one or many images, as data URIs, or texts", examples=[[_PIXEL]])
    modality: Literal["image", "text"] | None = Field(
        None, description="what the inputs are; when absent, what begins like a data URI or a URL is an image"
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="float when absent; base64 is little-endian float32"
    )
    dimensions: WholeNumber | None = Field(
        None, description="vectors are not shortened: only the model's own number is taken"
    )
    user: Text | None = Field(None, description="accepted and not used")


class Embedding(BaseModel):
    """The vector of one image or text."""

    object: Literal["embedding"] = "embedding"
    index: int = Field(examples=[0])
    embedding: list[float] | str = Field(examples=[[0.5, -1.25, 2.0]])


class Usage(BaseModel):
    """The number of tokens; each input counts as one, and nobody is billed."""

    prompt_tokens: int = Field(examples=[1])
    total_tokens: int = Field(examples=[1])


class EmbeddingList(BaseModel):
    """The vectors, in input order."""

    object: Literal["list"] = "list"
    model: str = Field(
        description="name@space of the vectors; valid as `model` of the next request",
        examples=[f"dinov2-base@{SPACE}"],
    )
    data: list[Embedding]
    usage: Usage
    notices: list[str] = Field([], description="there only where texts were cut to the model's length: which")


class Model(BaseModel):
    """A model that `model` may name."""

    id: str = Field(examples=["dinov2-base"])
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "constellate"


class ModelList(BaseModel):
    """The models that `model` may name: the default one first, then those of the datasets' vectors."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/models", responses=problems.documented(ModelUnavailable))
async def list_models(context: ContextNow) -> ModelList:
    """List the models that requests may name; the first is the default."""
    served = context.served_model
    names = [names_of(await served.known())[1], *(plain_names(model)[0] for model in await served.others())]
    return ModelList(data=[Model(id=name) for name in dict.fromkeys(names)])


@router.post(
    "/embeddings",
    response_class=StreamingResponse,
    responses={
        200: {"description": "vectors in input order", "model": EmbeddingList},
        **problems.documented(InvalidRequest, InvalidImage, UnknownModel, TooLarge, Saturated, ModelUnavailable),
    },
)
async def create_embeddings(body: EmbeddingRequest, context: ContextNow) -> StreamingResponse:
    """Embed images given as data URIs, and texts where the model takes them, in one space.

    One undecodable image fails the request, as OpenAI's answer cannot have gaps.
    """
    card = await context.served_model.named(body.model)
    _check(body, card)
    inputs = _inputs(body, card)
    images = {i: given for i, given in enumerate(inputs) if isinstance(given, bytes)}
    texts = {i: given for i, given in enumerate(inputs) if isinstance(given, str)}
    requests = context.request_embedder
    parts: list[tuple[list[int], Embedded]] = []
    if images:
        parts.append((list(images), await requests.embed_uploads(list(images.values()), card.name)))
    if texts:
        parts.append((list(texts), await requests.embed_texts(list(texts.values()), card.name)))
    for _, embedded in parts:
        _check(body, embedded.card)
    outcomes = {i: outcome for at, embedded in parts for i, outcome in zip(at, embedded.outcomes, strict=True)}
    vectors = [_vector(i, outcomes[i]) for i in range(len(inputs))]
    notices = [f"input[{at[n]}] was cut to the model's length" for at, embedded in parts for n in embedded.cut]
    encode = as_base64 if body.encoding_format == "base64" else as_numbers
    answer = _answer(names_of(parts[0][1].card)[0], vectors, encode, notices)
    return StreamingResponse(answer, media_type="application/json")


def _inputs(body: EmbeddingRequest, card: ModelCard) -> list[bytes | str]:
    """The images as bytes, and the texts."""
    given = [body.input] if isinstance(body.input, str) else body.input
    if not given:
        raise InvalidRequest("input: give at least one image or text")
    return [_input(i, text, body.modality, card) for i, text in enumerate(given)]


def _input(index: int, text: str, modality: str | None, card: ModelCard) -> bytes | str:
    is_text = modality == "text" or (modality is None and data_uris.is_text(text))
    if not is_text:
        try:
            return data_uris.decode(text)
        except InvalidRequest as error:
            raise InvalidRequest(f"input[{index}]: {error.detail}") from None
    if card.no_text:
        raise InvalidRequest(
            f"input[{index}]: text cannot be embedded with {names_of(card)[1]}: {card.no_text}. "
            "Images are sent as data:image/…;base64,… (modality image)"
        )
    try:
        check_texts([text])
    except InvalidRequest as error:
        raise InvalidRequest(f"input[{index}]: {error.detail}") from None
    return text


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
    model: str,
    vectors: list[NDArray[np.float32]],
    encode: Callable[[NDArray[np.float32]], str],
    notices: list[str],
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
    yield f', "usage": {usage}' + (f', "notices": {json.dumps(notices)}}}' if notices else "}")
