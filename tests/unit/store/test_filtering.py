"""A filter is executed over the samples of a page alone, where pages go by ordinals."""

from serve_app.store import filtering
from tests.unit.store.workbench import source_files


def test_a_filter_of_a_page_looks_at_no_other_sample(bench):
    dataset = bench.register(source_files(10))
    with bench.database.read() as session:
        pages = []
        for after in range(-1, 9, 4):
            filtering.choose(session, dataset.id, "label IS NOT NULL OR label IS NULL", page=(after, after + 4))
            pages.append([ordinal for (ordinal,) in session.q("SELECT ordinal FROM chosen ORDER BY ordinal")])
    assert pages == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
