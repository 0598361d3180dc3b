"""The files of a dataset's sets, one for each model: none is taken for another, and each lives as long as its set."""

import asyncio
import shutil
import sys

import numpy as np
import pytest

from serve_app.errors import Conflict, NoEmbeddings
from serve_app.records import ModelCard, Skip
from serve_app.search import set_file
from serve_app.search.codes import Codes
from serve_app.search.graph import make_graph
from serve_app.search.neighbours import Neighbours
from serve_app.search.set_file import Draft
from serve_app.search.set_files import SetFiles
from serve_app.store.vectors import Vectors
from tests.unit.search.conftest import FILES
from tests.unit.store.workbench import CARD, DIMENSION, block_of, source_files, vector_of

TWIN = ModelCard("twin", DIMENSION, "space-twin", "cpu", "fp32")
TURNED = {FILES[0].sample_id: "x", FILES[1].sample_id: "y", FILES[2].sample_id: "y"}
"""What the second model sees: the last two images are alike to it, and the first two are to the first model."""


@pytest.fixture
def two(bench, dataset):
    """A dataset with sets of two models, of one dimension, that do not agree."""
    bench.embed(dataset, FILES, card=TWIN, contents=TURNED)
    return dataset


class Meanwhile:
    """A store between whose next answer about versions and the use of it something happens."""

    def __init__(self, store):
        self._store = store
        self.event = None

    async def ask(self, method, *args, **kwargs):
        answer = await self._store.ask(method, *args, **kwargs)
        if method is Vectors.versions and self.event is not None:
            event, self.event = self.event, None
            await event()
        return answer


@pytest.fixture
def sets(store, tmp_path):
    return SetFiles(tmp_path / "sets", store)


def kept(tmp_path):
    return {path.name for path in (tmp_path / "sets").glob("*/*")}


async def alike(neighbours, dataset, model):
    [group] = (await neighbours.duplicates(dataset.id, 0.99, model=model)).groups
    return {found.sample_id for found in group}


async def test_each_question_is_answered_from_the_set_of_its_model(store, tmp_path, two):
    neighbours = Neighbours(store, tmp_path / "sets")
    first, second = ({FILES[i].sample_id for i in pair} for pair in ((0, 1), (1, 2)))
    for model, expected in ((CARD.name, first), (TWIN.name, second), (None, second), (CARD.name, first)):
        assert await alike(neighbours, two, model) == expected
        [nearest] = await neighbours.similar(two.id, FILES[1].sample_id, 1, model=model)
        assert {nearest.sample_id, FILES[1].sample_id} == expected
        strangest = await neighbours.outliers(two.id, 1, 1, model=model)
        assert {strangest[0].sample_id} == {file.sample_id for file in FILES} - expected
        chosen = await neighbours.diverse(two.id, 3, model=model)
        assert chosen[2].score == pytest.approx(1)  # the last one chosen is alike to one chosen before


async def test_a_query_of_one_model_never_meets_the_set_of_another(store, tmp_path, two):
    neighbours = Neighbours(store, tmp_path / "sets")
    query = vector_of(FILES[2].sample_id)
    best = await neighbours.search(two.id, query, CARD.space_key, 1, model=CARD.name)
    assert (best[0].sample_id, best[0].score) == (FILES[2].sample_id, pytest.approx(1))
    for space, model in ((CARD.space_key, TWIN.name), (TWIN.space_key, CARD.name), (CARD.space_key, None)):
        with pytest.raises(Conflict, match="another model"):
            await neighbours.search(two.id, query, space, 1, model=model)
        with pytest.raises(Conflict, match="another model"):
            await neighbours.best_of(two.id, query[None], space, model=model)


async def test_files_and_graph_of_a_set_stay_while_another_is_replaced(bench, sets, tmp_path, two):
    first = await sets.current(two.id, CARD.name)
    make_graph(first.folder, 2, lambda done, total: None)
    for _ in range(2):
        bench.embed(two, FILES, card=TWIN, force=True)
        newest = await sets.current(two.id)
        assert kept(tmp_path) == {first.version, newest.version}
    assert await sets.current(two.id, CARD.name) is first
    assert (await sets.graph(first)).k == 2
    assert await sets.graph(newest) is None
    again = SetFiles(tmp_path / "sets", sets._writer)
    assert (await again.graph(await again.current(two.id, CARD.name))).k == 2


async def test_the_files_of_a_deleted_set_go_and_the_others_stay(bench, sets, tmp_path, two):
    first, second = await sets.current(two.id, CARD.name), await sets.current(two.id, TWIN.name)
    bench.vectors.delete(two.id, TWIN.name)
    await sets.forget(two.id)
    assert kept(tmp_path) == {first.version}
    assert await sets.current(two.id) is first
    with pytest.raises(NoEmbeddings, match=f"'{TWIN.name}' found; .* '{CARD.name}'"):
        await sets.current(two.id, TWIN.name)
    assert await sets.current(two.id) is first
    assert not second.folder.exists()


async def test_a_rescan_makes_the_files_of_every_set_anew(bench, sets, tmp_path, two):
    for model in (CARD.name, TWIN.name):
        await sets.current(two.id, model)
    bench.datasets.rescan(bench.scan(FILES[1:]), two.id)
    found = [await sets.current(two.id, model) for model in (CARD.name, TWIN.name)]
    assert [len(each.matrix) for each in found] == [2, 2]
    assert kept(tmp_path) == {each.version for each in found}
    assert not np.array_equal(found[0].matrix, found[1].matrix)


async def test_the_default_set_and_the_same_one_named_are_read_once(sets, two):
    found = await asyncio.gather(*(sets.current(two.id, model) for model in (None, TWIN.name, None, TWIN.name)))
    assert len({id(each) for each in found}) == 1


@pytest.mark.parametrize("ask", ["current", "forget"])
async def test_a_set_that_is_published_while_old_ones_are_swept_keeps_its_folder(bench, store, tmp_path, dataset, ask):
    writer, published = Meanwhile(store), []
    sets = SetFiles(tmp_path / "sets", writer)

    async def publish():
        await asyncio.to_thread(bench.embed, dataset, FILES, card=TWIN, contents=TURNED)
        published.append(await sets.current(dataset.id, TWIN.name))

    writer.event = publish
    await (sets.current(dataset.id, CARD.name) if ask == "current" else sets.forget(dataset.id))
    assert published[0].folder.is_dir()


async def test_a_set_whose_folder_is_gone_is_written_again(sets, dataset):
    found = await sets.current(dataset.id)
    shutil.rmtree(found.folder)
    again = await sets.current(dataset.id)
    assert again.folder.is_dir()
    assert np.array_equal(again.matrix, found.matrix)


async def test_a_large_set_has_codes_and_the_same_answers(store, tmp_path, dataset, monkeypatch):
    plain = await Neighbours(store, tmp_path / "plain").similar(dataset.id, FILES[0].sample_id, 2)
    monkeypatch.setattr(set_file, "MIN_CODED_NUMBERS", 1)
    found = await SetFiles(tmp_path / "coded", store).current(dataset.id)
    assert found.codes is not None
    assert found.codes.numbers.shape == found.matrix.shape
    assert await Neighbours(store, tmp_path / "coded").similar(dataset.id, FILES[0].sample_id, 2) == plain


async def test_the_codes_of_a_set_with_gaps_are_those_of_its_vectors(store, bench, tmp_path, monkeypatch):
    monkeypatch.setattr(set_file, "MIN_CODED_NUMBERS", 3 * DIMENSION)
    files = source_files(8)
    lost = [files[number] for number in (0, 2, 3, 6)]
    claim = bench.start(bench.register(files, name="gaps"))
    skips = [Skip(file.sample_id, file.file_name, "corrupt", "") for file in lost]
    kept = [file.sample_id for file in reversed(files) if file not in lost]
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files, kept, skips=skips))
    bench.vectors.commit(claim.job.id, claim.attempt)
    found = await SetFiles(tmp_path / "sets", store).current(claim.job.dataset_id)
    right = Codes.of(np.asarray(found.matrix))
    assert found.codes is not None
    assert found.rows.column("sample_id").to_pylist() == [file.sample_id for file in files if file not in lost]
    for name in ("numbers", "scales", "errors"):
        assert np.array_equal(getattr(found.codes, name), getattr(right, name))


async def test_a_draft_keeps_no_page_that_it_was_given(bench, dataset, tmp_path):
    described = bench.vectors.current(dataset.id)
    draft = Draft(tmp_path / "draft", described)
    names, _ = bench.vectors.names(dataset.id, version=described.version, after=-1, limit=100)
    draft.names(names)
    draft.start()
    page, _ = bench.vectors.rows(dataset.id, version=described.version, after=-1, limit=100)
    before = sys.getrefcount(page)
    draft.put(page)
    assert sys.getrefcount(page) == before  # or the memory of a writing process grows with the set
    draft.finish()
    draft.close()


async def test_damaged_codes_are_written_anew(store, tmp_path, dataset, monkeypatch):
    monkeypatch.setattr(set_file, "MIN_CODED_NUMBERS", 1)
    codes = (await SetFiles(tmp_path / "sets", store).current(dataset.id)).folder / "codes"
    sound = codes.read_bytes()
    codes.write_bytes(bytes(len(sound)))
    await SetFiles(tmp_path / "sets", store).current(dataset.id)
    assert codes.read_bytes() == sound
