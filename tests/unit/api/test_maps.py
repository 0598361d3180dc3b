"""Maps that stay over HTTP: images come, change and go, and the others keep their places."""

import asyncio
import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from serve_app.jobs.reduce_job import reduce_job
from serve_app.projection.fit_process import place_in_set
from serve_app.projection.reduction import Fitted
from serve_app.search.set_file import SetFile
from serve_app.search.set_files import SetFiles
from serve_app.store.jobs import Jobs
from tests.fakes import FakeModel
from tests.unit.api import test_imports as imports
from tests.unit.api import work
from tests.unit.api.conftest import png


class Colours(FakeModel):
    """A model whose vectors are near where the colours of images are."""

    def vector(self, image):
        colour = Image.open(io.BytesIO(image)).getpixel((0, 0))
        return np.resize([*colour, 30], self.card.dimension).astype(np.float32)


class Fits:
    """Fits that lay all images out on a circle, another one each time; placing is the real one."""

    def __init__(self):
        self.n_fits = 0

    async def fit(self, folder, projection, on_progress):
        self.n_fits += 1
        angles = np.arange(len(SetFile.open(folder).matrix)) + 0.1 * self.n_fits
        return Fitted(10 * np.stack([np.cos(angles), np.sin(angles)], axis=1))

    async def place(self, folder, projection, kept, on_progress):
        return await asyncio.to_thread(place_in_set, folder, projection, kept, on_progress)


class Mapped:
    """The dataset `flowers` with a map, and what a user does with it."""

    def __init__(self, client, services, dataset, folder):
        self._client, self._services, self._folder, self._fits = client, services, folder, Fits()
        self._path = f"/datasets/{dataset['id']}"

    def draw(self, name, colour):
        (self._folder / name).write_bytes(png(colour))

    def rename(self, old, new):
        (self._folder / old).rename(self._folder / new)

    async def generate(self):
        await self._client.post(f"{self._path}/rescan")
        await self._client.post(f"{self._path}/embeddings/generate")
        assert (await work.embed(self._services)).status == "complete"

    async def reduce(self, **body):
        """Make the map and return the job's message."""
        answer = await self._client.post(f"{self._path}/embeddings/reduce", json=body)
        assert answer.status_code == 202, answer.text
        sets = SetFiles(self._services.settings.sets_path, self._services.writer)
        await reduce_job(await work.claim(self._services), self._services.writer, sets, self._fits)
        return (await self._services.writer.ask(Jobs.get, answer.json()["job_id"])).message

    async def points(self):
        answer = await self._client.get(f"{self._path}/embeddings/coordinates")
        return {point["fileName"]: (point["x"], point["y"]) for point in answer.json()}

    async def made(self):
        return (await self._client.get(f"{self._path}/embeddings/status")).json()["map"]


@pytest.fixture
async def flowers(client, services, dataset, root):
    services.embedder.model = Colours()
    flowers = Mapped(client, services, dataset, root / "flowers")
    await flowers.generate()
    assert await flowers.reduce() == "Placed 4 images on the map"
    assert await flowers.made() == {"fitted": 4, "placed": 0, "landmarks": None}
    return flowers


async def test_new_images_lie_beside_their_twins_and_the_others_did_not_move(flowers):
    before = await flowers.points()
    flowers.draw("rose/like b.png", (41, 10, 10))
    flowers.draw("tulip/c.png", (0, 10, 12))  # now it is like the first rose
    flowers.rename("rose/a.png", "tulip/renamed.png")
    await flowers.generate()
    assert await flowers.points() == {}
    assert await flowers.reduce() == "Placed 2 images on the map; 3 stayed where they were"
    after = await flowers.points()
    assert after["tulip/renamed.png"] == before["rose/a.png"]
    assert [after[name] for name in ("rose/b.png", "tulip/d e+é.png")] == [
        before[name] for name in ("rose/b.png", "tulip/d e+é.png")
    ]
    assert after["rose/like b.png"] == pytest.approx(before["rose/b.png"], abs=0.1)
    assert after["tulip/c.png"] == pytest.approx(before["rose/a.png"], abs=0.1)
    assert await flowers.made() == {"fitted": 4, "placed": 2, "landmarks": None}


async def test_whoever_asks_gets_a_map_that_is_drawn_anew(flowers):
    before = await flowers.points()
    assert await flowers.reduce() == "Placed 0 images on the map; 4 stayed where they were"
    assert await flowers.points() == before
    assert await flowers.reduce(redraw=True) == "Placed 4 images on the map; drawn anew: as asked"
    moved = await flowers.points()
    assert all(moved[name] != before[name] for name in before)
    assert "other parameters" in await flowers.reduce(n_neighbors=3)
    assert "stayed" in await flowers.reduce(n_neighbors=3)
    assert "other parameters" in await flowers.reduce(n_neighbors=15)


async def test_parameters_that_are_left_out_are_those_of_the_last_map(flowers):
    assert "other parameters" in await flowers.reduce(n_neighbors=3, min_dist=0.5)
    before = await flowers.points()
    for body in ({}, {"redraw": False}, {"n_neighbors": 3}, {"min_dist": 0.5}):
        assert await flowers.reduce(**body) == "Placed 0 images on the map; 4 stayed where they were"
    flowers.draw("rose/new.png", (41, 10, 10))
    await flowers.generate()
    assert await flowers.reduce() == "Placed 1 image on the map; 4 stayed where they were"
    assert before.items() <= (await flowers.points()).items()
    assert "as asked" in await flowers.reduce(redraw=True)
    assert "stayed" in await flowers.reduce(n_neighbors=15, min_dist=0.1)  # a redrawn map has the usual ones


async def test_a_map_of_which_most_is_new_is_drawn_anew_also_where_it_came_little_by_little(flowers):
    drawn = iter(range(10))
    for expected in ("Placed 1 images", "Placed 1 images", "Placed 1 images", "Placed 1 images", "drawn anew: most"):
        flowers.draw(f"rose/{next(drawn)}.png", (30 * next(drawn), 200, 10))
        await flowers.generate()
        assert expected.replace("1 images", "1 image") in await flowers.reduce()
    assert await flowers.made() == {"fitted": 9, "placed": 0, "landmarks": None}


async def test_a_cancelled_reduction_leaves_the_old_map_to_the_next_one(flowers, client, services, dataset):
    before = await flowers.points()
    flowers.draw("rose/new.png", (41, 10, 10))
    await flowers.generate()
    await client.post(f"/datasets/{dataset['id']}/embeddings/reduce")
    await client.post(f"/datasets/{dataset['id']}/embeddings/cancel")
    assert await flowers.points() == {}
    assert await flowers.reduce() == "Placed 1 image on the map; 4 stayed where they were"
    assert before.items() <= (await flowers.points()).items()


async def test_images_that_come_back_find_their_places(flowers, root):
    before = await flowers.points()
    kept = (root / "flowers" / "rose" / "b.png").read_bytes()
    (root / "flowers" / "rose" / "b.png").unlink()
    await flowers.generate()
    assert await flowers.reduce() == "Placed 0 images on the map; 3 stayed where they were"
    (root / "flowers" / "rose" / "b.png").write_bytes(kept)
    await flowers.generate()
    assert await flowers.reduce() == "Placed 1 image on the map; 3 stayed where they were"
    after = await flowers.points()
    assert {name for name in before if after[name] == before[name]} >= before.keys() - {"rose/b.png"}


async def test_imported_vectors_get_a_map_that_stays_for_those_that_are_imported_again(
    flowers, client, services, dataset
):
    rows = imports.table()
    await imports.send(client, services, dataset, rows)
    assert await flowers.reduce() == "Placed 4 images on the map"
    before = await flowers.points()
    assert set(before) == set(imports.IDS)
    changed = rows["vector"].to_pylist()
    changed[0] = [1.0, 2.0, 3.0, 4.0, 5.0]
    await imports.send(client, services, dataset, imports.table(vectors=changed))
    assert await flowers.reduce() == "Placed 1 image on the map; 3 stayed where they were"
    after = await flowers.points()
    assert all(after[name] == before[name] for name in imports.IDS[1:])


async def test_no_map_is_kept_from_an_import_for_embedded_images_nor_the_other_way(flowers, client, services, dataset):
    """Contents of imports are vectors: none would be found, and a reason about new images would be wrong."""
    card = services.embedder.model.card
    rows = imports.table(vectors=np.eye(4, card.dimension).tolist(), kind=pa.list_(pa.float32(), card.dimension))
    keys = {"space_key": card.space_key, "model_name": card.name}
    await imports.send(client, services, dataset, rows, params=keys)
    assert await flowers.reduce() == "Placed 4 images on the map"
    await flowers.generate()
    assert await flowers.reduce() == "Placed 4 images on the map"
