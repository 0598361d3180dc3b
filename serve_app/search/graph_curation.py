"""What `curation` finds by comparing all pairs, found in a neighbour graph: O(N·k), and only among neighbours.

Letters for shapes: N rows of the set, n rows of the part that a question is about, k neighbours. `rows` are the part's
rows of the set, ascending; None stands for all. Answers count places in the part.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serve_app.search.curation import ROUNDING, Link, groups_of, joined, members_of
from serve_app.search.graph_file import GraphFile
from serve_app.search.twins import Across, Kept, pairs_across

BLOCK_ROWS = 2**16

Rows = NDArray[np.intp] | None


def linked_groups(
    graph: GraphFile, rows: Rows, threshold: float, contents: NDArray[np.int32]
) -> tuple[list[list[Link]], int]:
    """Group rows as `curation.near_duplicates` does, by the links that the graph has.

    Returns:
        The groups, and the number of rows that may have more links: all their k neighbours are linked.
    """
    group, best = groups_of(contents)
    incomplete = 0
    for left, right, scores, n_full in _links(graph, rows, threshold):
        group = joined(group, [(left, right)]) if len(left) else group
        np.maximum.at(best, left, scores)
        np.maximum.at(best, right, scores)
        incomplete += n_full
    return members_of(group, best), incomplete


def mean_similarities(graph: GraphFile, rows: Rows, k: int) -> NDArray[np.float32]:
    """Score each row by its mean similarity to its k most similar rows of the part.

    Where fewer of the graph's neighbours belong to the part, the others are less similar than all of these: they count
    as similar as the last. So a score may be too high in a part, and is that of the set where the part is the set.

    Args:
        graph: the graph of the set.
        rows: the part.
        k: at least 1 and at most that of the graph.

    Returns:
        (n,) scores in [-1, 1].
    """
    scores = [np.empty(0, np.float32)]
    for _, places, similarities in _blocks(graph, rows):
        is_inside = places >= 0
        is_counted = is_inside & (np.cumsum(is_inside, axis=1) <= k)
        missing = k - is_counted.sum(axis=1)
        scores.append((np.where(is_counted, similarities, 0).sum(axis=1) + missing * similarities[:, -1]) / k)
    return np.concatenate(scores).astype(np.float32).clip(-1.0, 1.0)


def kept(
    graph: GraphFile, rows: Rows, order: NDArray[np.intp], threshold: float, contents: NDArray[np.int32]
) -> tuple[Kept, int]:
    """What `twins.kept` returns, by the links that the graph has, and the number of rows that may have more twins."""
    blocks = [_Links.nothing(), *_links(graph, rows, threshold)]
    ends = np.concatenate([block.left for block in blocks]), np.concatenate([block.right for block in blocks])
    left, right = np.concatenate(ends), np.concatenate(ends[::-1])
    scores = np.tile(np.concatenate([block.scores for block in blocks]), 2)
    by_left = np.argsort(left, kind="stable")
    right, scores, starts = right[by_left], scores[by_left], _starts(left, len(contents))
    by_content, copies = np.argsort(contents, kind="stable"), _starts(contents, len(contents))
    found = Kept.nothing(len(contents))
    is_alone = (np.diff(starts) == 0) & (np.diff(copies)[contents] == 1)
    found.rows[is_alone] = np.flatnonzero(is_alone)
    for row in order[~is_alone[order]]:
        if found.rows[row] < 0:
            of_content = by_content[copies[contents[row]] : copies[contents[row] + 1]]
            found.decide(int(row), of_content, 1.0)
            links = slice(starts[row], starts[row + 1])
            found.decide(int(row), right[links], scores[links])
    return found, sum(block.n_full for block in blocks)


def across(
    graph: GraphFile, rows: Rows, classes: NDArray[np.int32], threshold: float, contents: NDArray[np.int32]
) -> tuple[Across, int]:
    """What `twins.across` returns, by the links that the graph has.

    Returns:
        The pairs, and the number of rows that may have a twin which the graph does not know: all their neighbours are
        so similar, and none is of another class.
    """
    best, twin = np.full(len(classes), -np.inf, np.float32), np.full(len(classes), -1, np.int64)
    incomplete = 0
    for start, places, similarities in _blocks(graph, rows):
        own = slice(start, start + len(places))
        is_other = (places >= 0) & (classes[places] != classes[own, None])
        scores = np.where(is_other, similarities, -np.inf)
        place = scores.argmax(axis=1)[:, None]
        best[own] = np.take_along_axis(scores, place, axis=1)[:, 0]
        twin[own] = np.take_along_axis(places, place, axis=1)[:, 0]
        incomplete += int(((similarities[:, -1] >= threshold - ROUNDING) & ~is_other.any(axis=1)).sum())
    return pairs_across(twin, best, classes, threshold, contents), incomplete


def neighbours(graph: GraphFile, rows: Rows, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """(n, k) places of the nearest neighbours that the graph knows, -1 outside the part, and their similarities."""
    blocks = [(places[:, :k], similarities[:, :k]) for _, places, similarities in _blocks(graph, rows)]
    return np.concatenate([places for places, _ in blocks]), np.concatenate([scores for _, scores in blocks])


class _Links(NamedTuple):
    """Both (L,) ends and the similarities of a block's links; `n_full` of its rows may have more."""

    left: NDArray[np.int32]
    right: NDArray[np.int32]
    scores: NDArray[np.float32]
    n_full: int

    @classmethod
    def nothing(cls) -> "_Links":
        return cls(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32), 0)


def _links(graph: GraphFile, rows: Rows, threshold: float) -> Iterator[_Links]:
    for start, places, similarities in _blocks(graph, rows):
        row, place = np.nonzero((places >= 0) & (similarities >= threshold - ROUNDING))
        n_full = int((similarities[:, -1:] >= threshold - ROUNDING).sum())
        scores = np.minimum(similarities[row, place], 1.0)
        yield _Links((row + start).astype(np.int32), places[row, place], scores, n_full)


def _starts(sorted_by: NDArray[np.int32], n: int) -> NDArray[np.intp]:
    """(n + 1,) where the elements of each number from 0 to n - 1 begin once they are sorted."""
    return np.concatenate([[0], np.cumsum(np.bincount(sorted_by, minlength=n))])


def _blocks(graph: GraphFile, rows: Rows) -> Iterator[tuple[int, NDArray[np.int32], NDArray[np.float32]]]:
    """The first place, the (B, k) places of the neighbours, -1 outside the part, and their similarities."""
    place_of = None
    if rows is not None:
        place_of = np.full(len(graph.neighbours), -1, np.int32)
        place_of[rows] = np.arange(len(rows), dtype=np.int32)
    for start in range(0, len(graph.neighbours) if rows is None else len(rows), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS) if rows is None else rows[start : start + BLOCK_ROWS]
        neighbours = graph.neighbours[part]
        yield start, neighbours if place_of is None else place_of[neighbours], graph.similarities[part]
