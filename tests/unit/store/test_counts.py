"""How many vectors and points a dataset has is kept in its row, and nobody counts them."""

from tests.unit.store.workbench import Workbench, block_of, source_files

FILES = source_files(4)


def counts(bench, dataset):
    status = bench.vectors.status(dataset.id)
    with bench.database.read() as session:
        [kept] = session.q("SELECT vector_count, placed_count FROM sets WHERE dataset_id = ?", dataset.id) or [(0, 0)]
    assert status.embedding_count == kept[0]
    assert status.has_reduction == (kept[1] > 0)
    return kept


def test_the_counts_follow_every_change_of_vectors_map_and_samples(bench):
    dataset = bench.register(FILES)
    assert counts(bench, dataset) == (0, 0)
    bench.embed(dataset, FILES)
    assert counts(bench, dataset) == (4, 0)
    bench.reduce(dataset)
    assert counts(bench, dataset) == (4, 4)
    bench.datasets.rescan(bench.scan(FILES[1:]), dataset.id)
    assert counts(bench, dataset) == (3, 3)
    bench.reduce(dataset)
    bench.datasets.rescan(bench.scan(FILES), dataset.id)
    assert counts(bench, dataset) == (4, 3)
    bench.embed(dataset, FILES, force=True)
    assert counts(bench, dataset) == (4, 0)


def test_what_a_page_shows_first_reads_no_row_of_the_set(path):
    bench = Workbench(path)
    dataset = bench.register(FILES)
    job, _ = bench.embed(dataset, FILES)
    bench.reduce(dataset)
    with bench.database.transaction() as session:
        for table in ("vectors_384", "points", "samples"):
            session.q(f"DROP TABLE {table}")
    assert bench.vectors.status(dataset.id).embedding_count == len(FILES)
    assert bench.vectors.status(dataset.id).has_reduction
    assert [found.sample_count for found in bench.datasets.all()] == [len(FILES)]
    assert bench.jobs.get(job.id) in bench.jobs.all(limit=10)
    assert [found.kind for found in bench.jobs.latest([(dataset.id, "embed"), (dataset.id, "reduce")])] == [
        "embed",
        "reduce",
    ]
    assert bench.jobs.create(dataset.id, "reduce").total == len(FILES)
    bench.database.close()


def test_a_commit_reads_no_row_of_a_set_new_or_old(path):
    bench = Workbench(path)
    dataset = bench.register(FILES)
    bench.embed(dataset, FILES)
    bench.reduce(dataset)
    claim = bench.start(dataset, force=True)
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(FILES))
    with bench.database.transaction() as session:
        for table in ("vectors_384", "points", "samples"):
            session.q(f"DROP TABLE {table}")
    assert bench.vectors.commit(claim.job.id, claim.attempt).status == "complete"
    assert counts(bench, dataset) == (4, 0)
    bench.database.close()
