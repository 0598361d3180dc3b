"""How many flipped labels each score finds, and how clusters agree with labels: `python -m benchmarks.findings`.

The weights are the backbone that the demo falls back to (`demo.offline_weights`), and the labels are the names of the
images' folders. Letters for shapes: N images, D dimension, C labels, k neighbours.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score

from benchmarks.contenders import image_files
from demo import offline_weights
from serve_app.config import Settings
from serve_app.embedding.loading import load
from serve_app.images.decode import decode
from serve_app.records import VectorArray
from serve_app.search import clustering
from serve_app.search.label_doubts import label_doubts
from serve_app.search.pairs import nearest
from serve_app.search.similarity import normalised

FLIPPED = 0.05
K = 10
TEMPERATURE = 0.07
Labels = NDArray[np.int32]
Score = Callable[[VectorArray, Labels, int], NDArray[np.float64]]


def embed(images: Path) -> tuple[VectorArray, Labels]:
    """(N, D) normalised vectors of the images below a folder, and (N,) numbers of their labels."""
    files = image_files(images)
    cache_dir = Settings.from_environment(os.environ).cache_dir
    checkpoint = offline_weights.prepare(Path("out/benchmarks").resolve())
    model = load(checkpoint, name="fp32", cache_dir=cache_dir, device="cpu", precision="fp32")
    blocks = [files[start : start + 16] for start in range(0, len(files), 16)]
    vectors = [
        model.vectors(np.stack([decode(f.read_bytes(), model.preprocessing) for f in block])) for block in blocks
    ]
    labels = np.unique([file.parent.name for file in files], return_inverse=True)[1]
    return normalised(np.concatenate(vectors)), labels.astype(np.int32)


def _votes(
    matrix: VectorArray, labels: Labels, n_labels: int, weigh: Callable[[VectorArray], VectorArray]
) -> VectorArray:
    """(N, C) shares of the k nearest neighbours' votes."""
    rows, cosines = nearest(matrix, K)
    votes = np.zeros((len(matrix), n_labels), np.float32)
    np.add.at(votes, (np.arange(len(matrix))[:, None], labels[rows]), weigh(cosines))
    return votes / votes.sum(axis=1, keepdims=True)


def _margin(shares: VectorArray, labels: Labels) -> NDArray[np.float64]:
    """(N,) the largest share of another label minus that of the own."""
    at = np.arange(len(labels))
    own = shares[at, labels]
    others = shares.copy()
    others[at, labels] = -np.inf
    return (others.max(axis=1) - own).astype(np.float64)


def counted(matrix: VectorArray, labels: Labels, n_labels: int) -> NDArray[np.float64]:
    """Votes of k neighbours, each one vote (deep k-NN: Bahri, Jiang & Gupta 2020)."""
    return _margin(_votes(matrix, labels, n_labels, np.ones_like), labels)


def weighted(matrix: VectorArray, labels: Labels, n_labels: int) -> NDArray[np.float64]:
    """Votes weighted by exp(cosine / 0.07) (Wu et al. 2018)."""
    return _margin(_votes(matrix, labels, n_labels, lambda cosines: np.exp(cosines / TEMPERATURE)), labels)


def confident(matrix: VectorArray, labels: Labels, n_labels: int) -> NDArray[np.float64]:
    """Weighted votes above the mean that each label has among its own samples (Confident Learning)."""
    shares = _votes(matrix, labels, n_labels, lambda cosines: np.exp(cosines / TEMPERATURE))
    own = shares[np.arange(len(labels)), labels]
    usual = np.bincount(labels, own, n_labels) / np.maximum(np.bincount(labels, minlength=n_labels), 1)
    return _margin(shares - usual.astype(np.float32), labels)


def ridge(matrix: VectorArray, labels: Labels, n_labels: int) -> NDArray[np.float64]:
    """What the service does: held-out ridge regression, ranked by margin."""
    return label_doubts(matrix, labels, n_labels)[1].astype(np.float64)


SCORES: dict[str, Score] = {
    "votes of 10 neighbours": counted,
    "votes weighted by cosine": weighted,
    "weighted votes over the label's mean": confident,
    "held-out ridge regression (chosen)": ridge,
}


def flipped(labels: Labels, n_labels: int, seed: int) -> tuple[Labels, NDArray[np.bool_]]:
    """Labels of which some have become another one at random, and which these are."""
    random = np.random.default_rng(seed)
    rows = random.choice(len(labels), round(FLIPPED * len(labels)), replace=False)
    is_flipped = np.zeros(len(labels), bool)
    is_flipped[rows] = True
    wrong = labels.copy()
    wrong[rows] = (labels[rows] + random.integers(1, n_labels, len(rows))) % n_labels
    return wrong, is_flipped


def compare(matrix: VectorArray, labels: Labels, n_seeds: int) -> None:
    """Print precision and recall of each score, as means over the seeds, and the worst precision."""
    n_labels = int(labels.max()) + 1
    n_flipped = round(FLIPPED * len(labels))
    print(f"{len(labels)} images, {n_labels} labels, {n_flipped} of them flipped, {n_seeds} seeds\n")
    print(f"| score | precision@{n_flipped} | worst seed | recall@{2 * n_flipped} |\n| --- | --- | --- | --- |")
    for name, score in SCORES.items():
        precisions, recalls = [], []
        for seed in range(n_seeds):
            given, is_flipped = flipped(labels, n_labels, seed)
            order = np.argsort(-score(matrix, given, n_labels), kind="stable")
            precisions.append(is_flipped[order[:n_flipped]].mean())
            recalls.append(is_flipped[order[: 2 * n_flipped]].sum() / n_flipped)
        print(f"| {name} | {np.mean(precisions):.2f} | {min(precisions):.2f} | {np.mean(recalls):.2f} |")


def compare_clusters(matrix: VectorArray, labels: Labels) -> None:
    """Print how clusters agree with the labels: by cosine, and by the service's shared neighbours."""
    distances = np.maximum(0.0, 1 - (matrix @ matrix.T).astype(np.float64))
    ways = {"shared neighbours (chosen)": clustering.clusters_of(nearest(matrix, clustering.NEIGHBOURS)[0], 5)}
    for n in (3, 5):
        hdbscan = HDBSCAN(min_cluster_size=5, min_samples=n, metric="precomputed", copy=True)
        ways[f"cosine, `min_samples` {n}"] = hdbscan.fit_predict(distances)
    print("\n| clusters of 5 or more | number | largest | noise | adjusted Rand index of the rest |")
    print("| --- | --- | --- | --- | --- |")
    for name, found in ways.items():
        inside = found >= 0
        index = adjusted_rand_score(labels[inside], found[inside])
        largest = np.bincount(found[inside]).max()
        print(f"| HDBSCAN by {name} | {found.max() + 1} | {largest} | {1 - inside.mean():.0%} | {index:.2f} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder of images in a folder for each label")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    matrix, labels = embed(options.images)
    compare(matrix, labels, options.seeds)
    compare_clusters(matrix, labels)


if __name__ == "__main__":
    main()
