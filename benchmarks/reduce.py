"""Seconds of a 2D map: `python -m benchmarks.reduce --rows 1000 10000 100000`.

Sizes are interleaved and repeated after one warm-up, which is timed by itself; prints JSON with medians. With
`--large 300000` a set of this size goes the way that it goes in the service: its graph, its map, and the same map with
10,000 images placed on it; CPU seconds of all threads, and trustworthiness of a sample. `--whole` adds the map that is
laid out at once.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.vectors import clustered
from serve_app.projection.fit_process import fit_set, graph_of_set, place_in_set
from serve_app.projection.reduction import Projection, reduce, warm
from serve_app.records import VectorArray
from serve_app.search.graph_file import DEFAULT_K, largest_graph
from serve_app.search.set_file import ABOUT, MATRIX, ROWS, SetFile, checksum
from serve_app.search.similarity import normalised

R = TypeVar("R")

N_NEW = 10_000
N_SAMPLED = 2_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--large", type=int)
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    begin = time.perf_counter()
    warm()
    warm_s = time.perf_counter() - begin
    if options.large is not None:
        print(json.dumps(large(options.large, options.dimension, options.whole), indent=2))
        return
    seconds: dict[int, list[float]] = {rows: [] for rows in options.rows}
    for _ in range(options.repeats):
        for rows in options.rows:
            vectors = clustered(rows, options.dimension)
            begin = time.perf_counter()
            reduce(vectors, Projection())
            seconds[rows].append(round(time.perf_counter() - begin, 3))
    report = {str(rows): {"median_s": statistics.median(times), "times_s": times} for rows, times in seconds.items()}
    print(json.dumps({"dimension": options.dimension, "warm_s": round(warm_s, 3), "reduce": report}, indent=2))


def large(rows: int, dimension: int, is_whole_wanted: bool, n_new: int = N_NEW) -> dict[str, object]:
    """The report about one set of this size, whose last `n_new` rows are placed on the map of all."""
    with tempfile.TemporaryDirectory() as name:
        found = _set_file(Path(name) / "set", normalised(clustered(rows, dimension)))
        sampled = np.linspace(0, rows - 1, 2 * N_SAMPLED).astype(int) if rows > 2 * N_SAMPLED else np.arange(rows)
        late = np.unique(np.concatenate([sampled[::2], np.arange(rows - n_new, rows)[:: max(1, n_new // N_SAMPLED)]]))
        _, graph = _timed(lambda: graph_of_set(found.folder, DEFAULT_K, _ignore))
        fitted, fit = _timed(lambda: fit_set(found.folder, Projection(), _ignore))
        kept = fitted.points.copy()
        kept[rows - n_new :] = np.nan
        placed, place = _timed(lambda: place_in_set(found.folder, Projection(), kept, _ignore))
        report: dict[str, object] = {
            "rows": rows,
            "dimension": dimension,
            "landmarks": fitted.landmarks,
            "graph": graph,
            "fit": fit | {"trustworthiness": _trust(found.matrix, fitted.points, sampled)},
            "place": place
            | {
                "new": n_new,
                "trustworthiness": _trust(found.matrix, placed, late),
                "of_the_fit": _trust(found.matrix, fitted.points, late),
            },
        }
        if is_whole_wanted:
            known = largest_graph(found.folder)
            whole, spent = _timed(lambda: reduce(found.matrix, Projection(), graph=known, max_laid_out=rows))
            report["whole"] = spent | {"trustworthiness": _trust(found.matrix, whole.points, sampled)}
    return report


def _set_file(folder: Path, matrix: VectorArray) -> SetFile:
    """The matrix as a set on disk."""
    folder.mkdir()
    matrix.tofile(folder / MATRIX)
    n = len(matrix)
    rows = pa.table({"ordinal": np.arange(n, dtype=np.int32), "content_hash": pa.nulls(n, pa.string())})
    with pa.OSFile(str(folder / ROWS), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    checksums = {name: checksum(folder / name) for name in (MATRIX, ROWS)}
    about = {"version": "1", "job_id": "", "space_key": "", "dimension": matrix.shape[1], "checksums": checksums}
    (folder / ABOUT).write_text(json.dumps(about))
    found = SetFile.open(folder)
    assert found is not None
    return found


def _timed(work: Callable[[], R]) -> tuple[R, dict[str, object]]:
    begin, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, {"cpu_s": round(time.process_time() - cpu, 1), "wall_s": round(time.perf_counter() - begin, 1)}


def _trust(matrix: VectorArray, points: NDArray[np.float64], rows: NDArray[np.intp]) -> float:
    from sklearn.manifold import trustworthiness

    chosen = matrix[rows]
    distances = np.maximum(1 - chosen @ chosen.T, 0)
    np.fill_diagonal(distances, 0)
    return round(float(trustworthiness(distances, points[rows], n_neighbors=15, metric="precomputed")), 4)


def _ignore(phase: str, done: int, total: int) -> None:
    """Drop a report of progress."""


if __name__ == "__main__":
    main()
