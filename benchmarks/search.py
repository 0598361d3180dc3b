"""Milliseconds of a top-10 search and seconds of curation: `python -m benchmarks.search --rows 10000 100000 1000000`.

A query visits every size before the next one does; prints JSON. Holds every size in memory, 4 bytes a number.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.vectors import clustered
from serve_app.records import VectorArray
from serve_app.search.cover import diverse
from serve_app.search.curation import near_duplicates, outlier_scores
from serve_app.search.similarity import normalised, top_k

K = 10
DIVERSE_ROWS = 50


def search_ms(rows: list[int], dimension: int, queries: int) -> dict[str, dict[str, float]]:
    """Percentiles of the time of one query, by number of rows."""
    vectors = clustered(max(rows), dimension)
    asked = clustered(queries, dimension, seed=1)
    indexes = {n: normalised(vectors[:n]) for n in rows}
    del vectors
    times_ms: dict[int, list[float]] = {n: [] for n in rows}
    for index in indexes.values():
        top_k(index, asked[0], K)
    for query in asked:
        for n, index in indexes.items():
            begin = time.perf_counter()
            top_k(index, query, K)
            times_ms[n].append(1000 * (time.perf_counter() - begin))
    return {
        str(n): {"p50_ms": round(float(np.percentile(ms, 50)), 2), "p99_ms": round(float(np.percentile(ms, 99)), 2)}
        for n, ms in times_ms.items()
    }


def curation_s(rows: int, dimension: int, repeats: int) -> dict[str, float]:
    """Median seconds of each kind of curation, interleaved."""
    matrix = normalised(clustered(rows, dimension))
    kinds: dict[str, Callable[[VectorArray], object]] = {
        "near_duplicates": lambda matrix: near_duplicates(matrix, 0.95),
        "outlier_scores": lambda matrix: outlier_scores(matrix, K),
        "diverse": lambda matrix: diverse(matrix, DIVERSE_ROWS),
    }
    times_s: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(repeats):
        for name, run in kinds.items():
            begin = time.perf_counter()
            run(matrix)
            times_s[name].append(time.perf_counter() - begin)
    return {name: round(statistics.median(times), 3) for name, times in times_s.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="sizes to search")
    parser.add_argument("--curate", type=int, nargs="*", default=[10_000], metavar="ROWS", help="sizes to curate")
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3, help="of curation")
    options = parser.parse_args()
    report = {
        "dimension": options.dimension,
        "search": search_ms(options.rows, options.dimension, options.queries),
        "curation_s": {str(n): curation_s(n, options.dimension, options.repeats) for n in options.curate},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
