"""What `curation` finds by comparing all pairs, found in a neighbour graph: O(N·k), and only among neighbours.

Letters for shapes: N rows of the set, n rows of the part that a question is about, k neighbours. `rows` are the part's
rows of the set, ascending; None stands for all. Answers count places in the part.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from serve_app.search.curation import ROUNDING, Link, groups_of, joined, members_of
from serve_app.search.graph_file import GraphFile

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
    for start, places, similarities in _blocks(graph, rows):
        is_linked = (places >= 0) & (similarities >= threshold - ROUNDING)
        row, place = np.nonzero(is_linked)
        right, scores = places[row, place], similarities[row, place]
        left = (row + start).astype(np.int32)
        group = joined(group, [(left, right)]) if len(row) else group
        np.maximum.at(best, left, scores)
        np.maximum.at(best, right, scores)
        incomplete += int((similarities[:, -1:] >= threshold - ROUNDING).sum())
    return members_of(group, np.minimum(best, 1.0)), incomplete


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
