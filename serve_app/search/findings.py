"""Finds what to act on in a dataset: twins to drop, leaks, wrong labels, clusters.

This module knows ids, names and columns; the numerics are in `twins`, `graph_curation`, `label_doubts`, `clustering`.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serve_app.errors import InvalidRequest
from serve_app.search import clustering, graph_curation, set_values, twins
from serve_app.search.finding_records import (
    Cluster,
    Clusters,
    Keep,
    KeptTwins,
    Leak,
    Leaks,
    Medoid,
    Mislabeled,
    Phrases,
    Value,
    Valued,
)
from serve_app.search.keeping import Wishes
from serve_app.search.label_doubts import MAX_LABELS, label_doubts
from serve_app.search.neighbours import Neighbours
from serve_app.search.pairs import OnStep, nearest
from serve_app.search.part import Part
from serve_app.search.set_values import Values
from serve_app.search.similarity import best_of


class Findings(Neighbours):
    """Further questions; see `Neighbours`.

    `kept_twins`, `leaks` and `clusters` need a graph of more than `max_pairwise_rows` vectors: `GraphNeeded`.
    """

    async def kept_twins(
        self, dataset_id: str, threshold: float, keep: Keep, where: str | None = None, model: str | None = None
    ) -> KeptTwins:
        """Near-duplicates, each with the sample that is kept in its place: they are twins, whatever else is dropped.

        The samples are gone through in the order of `keep`. Each is kept unless it is a twin of one kept before.
        """
        part = await self._sets.part(dataset_id, where, model)
        graph = await self._graph(dataset_id, part, 1)
        files = await set_values.files(self._writer, dataset_id, part.of)

        def work(on_step: OnStep) -> KeptTwins:
            wishes, contents, incomplete = Wishes(part, files, keep), part.contents(), 0
            if graph is not None:
                found, incomplete = graph_curation.kept(graph, part.rows, wishes.order, threshold, contents)
            else:
                found = twins.kept(part.matrix(on_step), wishes.order, threshold, contents, on_step=on_step)
            return KeptTwins(wishes.explained(found, on_step), incomplete)

        return await self._long(work)

    async def leaks(
        self, dataset_id: str, column: str, threshold: float, where: str | None = None, model: str | None = None
    ) -> Leaks:
        """Twins whose values of a column differ, each sample with the best: exact copies first, then by cosine.

        Samples without a value are left out.

        Raises:
            InvalidFilter: the dataset has no such column.
        """
        whole = await self._sets.part(dataset_id, where, model)
        values = await set_values.values(self._writer, dataset_id, whole.of, column)
        part, codes = _valued(whole, values)
        graph = await self._graph(dataset_id, part, 1)

        def work(on_step: OnStep) -> Leaks:
            contents, incomplete = part.contents(), 0
            if graph is not None:
                found, incomplete = graph_curation.across(graph, part.rows, codes, threshold, contents)
            else:
                found = twins.across(part.matrix(on_step), codes, threshold, contents, on_step=on_step)
            ends = [_named(part, places, values.distinct, codes) for places in (found.rows, found.twins)]
            items = [
                Leak(one.sample_id, one.file_name, one.value, twin, float(score), bool(is_exact), one.label)
                for one, twin, score, is_exact in zip(*ends, found.scores, found.is_exact, strict=True)
            ]
            return Leaks(items, incomplete)

        return await self._long(work)

    async def mislabeled(
        self, dataset_id: str, limit: int | None, where: str | None = None, model: str | None = None
    ) -> list[Mislabeled]:
        """The samples whose vectors speak most for another label than theirs, the most doubtful first.

        Samples without a label are left out. It takes N·D·(D + 2·C) operations for C labels, and no graph.

        Raises:
            InvalidRequest: there are too many labels.
        """
        whole = await self._sets.part(dataset_id, where, model)
        labels = set_values.of_labels(whole.of)
        part, codes = _valued(whole, labels)
        present, own = np.unique(codes, return_inverse=True)
        if len(present) > MAX_LABELS:
            raise InvalidRequest(
                f"{len(present):,} different labels are too many to doubt; the limit is {MAX_LABELS:,}"
            )
        if len(present) < 2:
            return []

        def work(on_step: OnStep) -> list[Mislabeled]:
            others, scores = label_doubts(part.matrix(on_step), own.astype(np.int32), len(present), on_step=on_step)
            places = np.argsort(-scores, kind="stable")[:limit]
            places = places[scores[places] > 0]
            found = part.neighbours(places, scores[places])
            suggested = [labels.distinct[present[other]] for other in others[places]]
            return [
                Mislabeled(sample.sample_id, sample.file_name, str(sample.label), str(other), sample.score)
                for sample, other in zip(found, suggested, strict=True)
            ]

        return await self._long(work)

    async def clusters(
        self,
        dataset_id: str,
        min_size: int,
        where: str | None = None,
        model: str | None = None,
        *,
        with_members: bool = False,
        phrases: Phrases | None = None,
    ) -> Clusters:
        """Dense groups, the largest first; a medoid is the sample closest to the mean of its cluster.

        With members, the answer has a row for each sample that belongs to a cluster. With phrases, a cluster is named
        by the one that most of its samples fit best.

        Raises:
            Conflict: the phrases are of another space than the vectors.
        """
        if phrases is None:
            part = await self._sets.part(dataset_id, where, model)
        else:
            part = await self._part_in(phrases.space_key, dataset_id, where, model)
        numbers = await self._clusters(dataset_id, part, min_size)
        items = await asyncio.to_thread(_described, part, numbers)
        if phrases is not None:
            items = await self._in_words(part, numbers, items, phrases)
        names = None if phrases is None else [item.name for item in items]
        members = await asyncio.to_thread(_members, part, numbers, names) if with_members else None
        return Clusters(items, int((numbers < 0).sum()), members)

    async def _in_words(
        self, part: Part, numbers: NDArray[np.int32], items: list[Cluster], phrases: Phrases
    ) -> list[Cluster]:
        """The clusters with the phrases that most of their samples fit best."""
        fits, _ = await self._long(lambda on_step: best_of(part.of.matrix, phrases.vectors, part.rows, on_step))
        best, counts = clustering.majorities(numbers, fits.astype(np.int32), len(items))
        return [
            replace(item, name=phrases.words[best[n]], name_share=float(counts[n] / item.size))
            for n, item in enumerate(items)
        ]

    async def _clusters(self, dataset_id: str, part: Part, min_size: int) -> NDArray[np.int32]:
        """(n,) numbers of clusters, -1 for none."""
        k = min(clustering.NEIGHBOURS, len(part) - 1)
        if k < 1:
            return np.full(len(part), -1, np.int32)
        if graph := await self._graph(dataset_id, part, k):
            found = await asyncio.to_thread(graph_curation.neighbours, graph, part.rows, k)
        else:
            found = await self._long(lambda on_step: nearest(part.matrix(on_step), k, on_step=on_step))
        return await self._long(lambda on_step: clustering.clusters_of(found[0], min_size, on_step=on_step))


def _valued(part: Part, values: Values) -> tuple[Part, NDArray[np.int32]]:
    """The samples of a part that have a value, and the codes of their values."""
    codes = part.chosen(values.codes)
    places = np.flatnonzero(codes >= 0)
    if len(places) == len(codes):
        return part, codes
    return replace(part, rows=part.rows_at(places)), codes[places]


def _described(part: Part, numbers: NDArray[np.int32]) -> list[Cluster]:
    """What is said of each of the clusters that have these (n,) numbers."""
    places = clustering.medoids(part.of.matrix, part.rows, numbers)
    labels = set_values.of_labels(part.of)
    sizes = np.bincount(numbers[numbers >= 0], minlength=len(places))
    best, counts = clustering.majorities(numbers, part.chosen(labels.codes), len(places))
    return [
        Cluster(
            cluster=number,
            size=int(sizes[number]),
            medoid=Medoid(medoid.sample_id, medoid.file_name, medoid.label),
            name=None,
            label=str(labels.distinct[best[number]]) if counts[number] else None,
            share=float(counts[number] / sizes[number]) if counts[number] else None,
        )
        for number, medoid in enumerate(part.neighbours(places, [0.0] * len(places)))
    ]


def _members(part: Part, numbers: NDArray[np.int32], names: list[str | None] | None) -> pa.Table:
    """sample_id, file_name, label and cluster of the samples that belong to one, and its name if clusters are named."""
    places = np.flatnonzero(numbers >= 0)
    rows = pa.array(part.rows_at(places))
    table = part.of.rows.select(["sample_id", "file_name", "label"]).take(rows)
    table = table.append_column("cluster", pa.array(numbers[places])).combine_chunks()
    if names is None:
        return table
    return table.append_column("name", pa.array(names, pa.string()).take(pa.array(numbers[places])))


def _named(
    part: Part, places: NDArray[np.integer], distinct: list[Value], codes: NDArray[np.int32]
) -> Iterable[Valued]:
    found = part.neighbours(places, np.zeros(len(places)))
    return [
        Valued(sample.sample_id, sample.file_name, distinct[code], sample.label)
        for sample, code in zip(found, codes[places], strict=True)
    ]
