"""A job of its own, as a user of the cluster would write it: embeds a folder through Ray Data.

Usage: second_driver.py FOLDER OUTPUT.npz, with RAY_ADDRESS set.
"""

import sys
from pathlib import Path

import numpy as np
import ray

from deployments.client import EmbeddingClient, EmbedImages

if __name__ == "__main__":
    folder, output = sys.argv[1:]
    ray.init(log_to_driver=False)
    share = {"num_cpus": 0.1}  # the test cluster has two CPUs, and the service claims most of them
    # Without a number of blocks, Ray Data reads each file in a task, and starts a process for each.
    images = ray.data.read_binary_files(folder, include_paths=True, override_num_blocks=1, **share)
    rows = images.map_batches(
        EmbedImages, compute=ray.data.ActorPoolStrategy(size=1), batch_size=8, fn_constructor_args=["bytes"], **share
    ).take_all()
    files = sorted(path for path in Path(folder).rglob("*.png"))
    np.savez(
        output,
        names=[str(Path(row["path"]).relative_to(folder)) for row in rows],
        vectors=np.stack([row["embedding"] for row in rows]),
        refusals=[row["refusal"] or "" for row in rows],
        direct_names=[str(file.relative_to(folder)) for file in files],
        direct=EmbeddingClient(chunk=2, window=3).embed(files),
    )
