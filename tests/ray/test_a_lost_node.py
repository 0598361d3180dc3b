"""Work spreads over the nodes, the writer stays at its file, and a node may die.

The first file of its folder, and so run first: the other tests find a service that has lost a node.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from deployments import writer
from serve_app.embedding import loading
from serve_app.images.decode import ImageLimits, decode
from serve_app.jobs.embed_job import BLOCK_ROWS
from serve_app.policy import Policy
from serve_app.sources.files import read_file
from tests.converted_models import CACHE_DIR
from tests.faults.opened_files import OpenedFiles
from tests.faults.report import measured
from tests.faults.wait import until
from tests.faults.watching import Follower
from tests.ray.client import export_table, generate, register
from tests.ray.conftest import Service
from tests.ray.photographs import make_folder
from tests.ray.replicas import frozen, nodes_of

pytestmark = [pytest.mark.ray, pytest.mark.faults]

N_IMAGES = 96


def writer_state() -> dict[str, Any]:
    actor: Any = ray.get_actor(writer.NAME, namespace=writer.NAMESPACE)
    state: dict[str, Any] = ray.get(actor.whoami.remote())
    return state


def test_a_job_survives_the_death_of_a_node(cluster: Cluster, home: Any, service: Service):
    http = service.http
    root = make_folder(service.roots / "album", n_images=N_IMAGES)
    until(lambda: len(nodes_of("DinoV2")) == 2)
    homes = nodes_of("DinoV2")
    assert set(homes.values()) == {node.node_id for node in cluster.worker_nodes}
    writer_before = writer_state()
    assert writer_before["node_id"] == home.node_id
    [victim] = cluster.worker_nodes - {home}
    dataset_id = register(http, root)
    with OpenedFiles(root) as opened:
        generate(http, dataset_id)
        follower = Follower(service.settings.url, dataset_id).start()
        follower.await_processed(N_IMAGES // 4)
        with frozen(homes):  # or the job might end first
            committed, died_at = follower.processed, time.monotonic()
            cluster.remove_node(victim, allow_graceful=False)
        end = follower.end()
        counts = opened.counts()

    assert (end["status"], end["processed"], end["skipped"]) == ("complete", N_IMAGES, 0)
    assert writer_state() == writer_before
    stored = export_table(http, dataset_id)

    again = sum(counts.values()) - N_IMAGES
    # What a job loop that dies has not staged yet: the chunks of its window, and rows gathered for one commit.
    policy = Policy.choose(service.settings, n_cpus=4, n_gpus=0)
    in_flight = policy.window * policy.chunk_images + BLOCK_ROWS
    assert 0 <= again <= min(in_flight, N_IMAGES - committed)
    vectors = dict(zip(stored["sample_id"].to_pylist(), stored["vector"].to_pylist(), strict=True))
    assert len(vectors) == N_IMAGES == stored.num_rows
    names = sorted(vectors)
    right = embed_here(service.settings.model, root, names)
    wrong = [
        name for name, vector in zip(names, right, strict=True) if not np.allclose(vectors[name], vector, atol=1e-3)
    ]
    assert wrong == []

    def is_gone() -> bool:
        """Ray may notice after the job's end that a node is dead."""
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        return victim.node_id not in alive and set(nodes_of("DinoV2").values()) <= alive

    until(is_gone)
    measured(
        "a node of three dies",
        committed_before=committed,
        images_again=again,
        job_after_death_s=follower.seen[-1].at - died_at,
    )


def embed_here(model: str, root: Path, names: list[str]) -> np.ndarray:
    """(N, D) vectors of files by the model in this process."""
    vision = loading.load(Path(model), name="here", cache_dir=CACHE_DIR, device="cpu", threads=1)
    files = [read_file(str(root), name, max_bytes=10**7)[0] for name in names]
    return vision.vectors(np.stack([decode(data, vision.preprocessing, ImageLimits()) for data in files]))
