"""Seeded vectors that are shaped like embeddings: clusters, each spread along a few directions of its own."""

import numpy as np

from serve_app.records import VectorArray

N_CLUSTERS = 50
DIRECTIONS = 16
BLOCK_ROWS = 50_000


def clustered(rows: int, dimension: int, seed: int = 0) -> VectorArray:
    """Make (rows, dimension) float32 vectors, clusters in random order; equal arguments give equal vectors."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((N_CLUSTERS, dimension), dtype=np.float32)
    spreads = 0.3 * random.standard_normal((N_CLUSTERS, DIRECTIONS, dimension), dtype=np.float32)
    vectors = np.empty((rows, dimension), dtype=np.float32)
    for start in range(0, rows, BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS]
        random.standard_normal(out=block, dtype=np.float32)
        block *= 0.3
        cluster = random.integers(0, N_CLUSTERS, len(block))
        block += centres[cluster]
        for number in range(N_CLUSTERS):
            members = np.flatnonzero(cluster == number)
            steps = random.standard_normal((len(members), DIRECTIONS), dtype=np.float32)
            block[members] += steps @ spreads[number]
    return vectors
