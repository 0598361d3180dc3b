"""Seconds of a 2D map: `python -m benchmarks.reduce --rows 1000 10000 100000`.

Sizes are interleaved and repeated after one warm-up, which is timed by itself; prints JSON with medians.
"""

import argparse
import json
import statistics
import time

from benchmarks.vectors import clustered
from serve_app.projection.reduction import Projection, reduce, warm


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    begin = time.perf_counter()
    warm()
    warm_s = time.perf_counter() - begin
    seconds: dict[int, list[float]] = {rows: [] for rows in options.rows}
    for _ in range(options.repeats):
        for rows in options.rows:
            vectors = clustered(rows, options.dimension)
            begin = time.perf_counter()
            reduce(vectors, Projection())
            seconds[rows].append(round(time.perf_counter() - begin, 3))
    report = {str(rows): {"median_s": statistics.median(times), "times_s": times} for rows, times in seconds.items()}
    print(json.dumps({"dimension": options.dimension, "warm_s": round(warm_s, 3), "reduce": report}, indent=2))


if __name__ == "__main__":
    main()
