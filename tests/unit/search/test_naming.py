"""The samples of a finding get their names together, and others are answered meanwhile."""

import threading

import pytest

from serve_app.search import part
from serve_app.search.findings import Findings
from tests.unit.store.workbench import source_files

FILES = source_files(24)


@pytest.fixture
def twelve_pairs(bench):
    """Twelve pairs of copies, whose labels differ."""
    dataset = bench.register(FILES)
    copies = zip(FILES[::2], FILES[1::2], strict=True)
    bench.embed(dataset, FILES, contents={copy.sample_id: file.sample_id for file, copy in copies})
    return dataset


@pytest.fixture
def takes(monkeypatch):
    """The threads in which samples were named, one for each time."""
    threads, named = [], part.neighbours

    def watched(*args):
        threads.append(threading.current_thread())
        return named(*args)

    monkeypatch.setattr(part, "neighbours", watched)
    return threads


@pytest.mark.parametrize(
    ("ask", "n_takes", "count"),
    [
        (lambda findings, id: findings.duplicates(id, 0.99), 1, lambda found: len(found.groups) == 12),
        (lambda findings, id: findings.kept_twins(id, 0.99, "first"), 1, lambda found: len(found.groups) == 12),
        (lambda findings, id: findings.leaks(id, "label", 0.99), 2, lambda found: len(found.items) == 12),
        (lambda findings, id: findings.mislabeled(id, None), 1, bool),
        (lambda findings, id: findings.clusters(id, 2), 1, lambda found: found.noise <= 24),
        (lambda findings, id: findings.outliers(id, 3, 24), 1, lambda found: len(found) == 24),
    ],
    ids=["duplicates", "kept twins", "leaks", "mislabeled", "clusters", "outliers"],
)
async def test_all_samples_of_a_finding_are_named_at_once_while_others_are_answered(
    store, tmp_path, twelve_pairs, takes, ask, n_takes, count
):
    """One at a time, 100,000 groups kept every other question waiting for 36 s."""
    assert count(await ask(Findings(store, tmp_path / "sets"), twelve_pairs.id))
    assert len(takes) == n_takes
    assert threading.current_thread() not in takes
