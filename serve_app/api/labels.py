"""Labels without examples: each sample gets the phrase that fits it best, and how well, as two columns."""

import asyncio
from collections import Counter
from typing import Annotated

import numpy as np
import pyarrow as pa
from fastapi import APIRouter
from pydantic import BaseModel, Field, StringConstraints, field_validator

from serve_app.api import problems
from serve_app.api.context import ServicesNow
from serve_app.api.schemas import Body, Name, SetModel, Where
from serve_app.api.search import model_of_set
from serve_app.embedding.fan_out import joined
from serve_app.errors import (
    Conflict,
    DatasetNotFound,
    InvalidFilter,
    InvalidRequest,
    ModelUnavailable,
    NoEmbeddings,
    NoTextTower,
    Overloaded,
    Unavailable,
)
from serve_app.jobs import column_file
from serve_app.records import VectorArray
from serve_app.search.neighbours import Neighbours
from serve_app.search.similarity import normalised
from serve_app.services import Services
from serve_app.store.columns import Columns

router = APIRouter(prefix="/datasets/{dataset_id}", tags=["search"])

MAX_TEXTS = 1000
"""The limit of phrases times templates; each is one pass of a text tower."""
CHUNK_TEXTS = 32


class LabelOptions(Body):
    """The phrases, and sentences to put them into; CLIP's users average over many."""

    phrases: list[Annotated[str, StringConstraints(pattern=r"[^\s\x00-\x1f]")]] = Field(
        min_length=2, max_length=500, examples=[["cat", "dog"]], json_schema_extra={"uniqueItems": True}
    )
    templates: list[Annotated[str, StringConstraints(pattern=r"^[^{}]*\{\}[^{}]*$")]] = Field(
        ["a photo of a {}."],
        min_length=1,
        max_length=100,
        description="each holds {} once, where the phrase goes; a phrase is the mean direction of its sentences",
    )
    column: Name = Field("zero_shot", description="the column of phrases; that of scores has the ending _score")

    @field_validator("phrases")
    @classmethod
    def _distinct(cls, phrases: list[str]) -> list[str]:
        if len(set(phrases)) < len(phrases):
            raise ValueError("a phrase is there twice")
        return phrases


class PhraseCount(BaseModel):
    """How many samples a phrase fits best."""

    phrase: str = Field(examples=["tulip"])
    count: int = Field(examples=[3])


class Labelled(BaseModel):
    """What was written: the columns, and how often each phrase was the best."""

    columns: list[str] = Field(examples=[["zero_shot", "zero_shot_score"]])
    samples: int = Field(examples=[5])
    phrases: list[PhraseCount] = Field(description="in the order of the request")
    notices: list[str] = Field(
        description="what the columns do not show, such as phrases that were cut",
        examples=[["'tulip' is longer than the model takes, and was cut"]],
    )


@router.post(
    "/labels",
    responses=problems.documented(
        InvalidRequest, InvalidFilter, NoEmbeddings, DatasetNotFound, Conflict, NoTextTower, ModelUnavailable,
        Overloaded, Unavailable,
    ),
)  # fmt: skip
async def label_by_phrases(
    dataset_id: str, services: ServicesNow, options: LabelOptions, where: Where = None, model: SetModel = None
) -> Labelled:
    """Give each sample the phrase that fits it best, and its cosine, as columns that replace those of the names.

    Samples that `where` leaves out, or that have no vector, have no value.
    """
    if len(options.phrases) * len(options.templates) > MAX_TEXTS:
        raise InvalidRequest(f"phrases times templates are more than {MAX_TEXTS:,}")
    names = [options.column, f"{options.column}_score"]
    for name in names:
        column_file.require_free_name(name)
    model = await model_of_set(dataset_id, services, model)
    phrases, space_key, cut = await phrase_vectors(services, model, options)
    ids, best, scores = await services.searcher.ask(Neighbours.best_of, dataset_id, phrases, space_key, where, model)
    if not len(ids):
        raise InvalidRequest("the filter chooses no image that has a vector")
    chosen = pa.array(options.phrases).take(pa.array(best))
    table = pa.table({"sample_id": ids, names[0]: chosen, names[1]: pa.array(scores.astype(np.float64))})
    found = await asyncio.to_thread(column_file.of_table, table)
    await services.writer.ask(Columns.put, dataset_id, found.given)
    counts = Counter(best.tolist())
    return Labelled(
        columns=names,
        samples=len(ids),
        phrases=[PhraseCount(phrase=phrase, count=counts[n]) for n, phrase in enumerate(options.phrases)],
        notices=[f"{phrase!r} is longer than the model takes, and was cut" for phrase in cut],
    )


async def phrase_vectors(services: Services, model: str, options: LabelOptions) -> tuple[VectorArray, str, list[str]]:
    """(P, D) vectors of the P phrases, of length one, their space, and the phrases that were cut to the model's length.

    Raises:
        NoTextTower: the model takes no text.
    """
    texts = [template.replace("{}", phrase) for phrase in options.phrases for template in options.templates]
    embedded = joined(
        [
            await services.embedder.embed_texts(model, texts[start : start + CHUNK_TEXTS])
            for start in range(0, len(texts), CHUNK_TEXTS)
        ]
    )
    cut = sorted({text // len(options.templates) for text in embedded.cut})
    shape = len(options.phrases), len(options.templates), -1
    directions = normalised(np.stack(embedded.vectors)).reshape(shape)
    return normalised(directions.mean(1)), embedded.card.space_key, [options.phrases[phrase] for phrase in cut]
