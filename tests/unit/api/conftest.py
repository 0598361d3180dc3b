"""The real store on a temporary folder, fakes for the model, and the application between them."""

import asyncio
import io
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import httpx
import pytest
from PIL import Image

from serve_app.api import create_app
from serve_app.config import Settings
from serve_app.policy import Policy
from serve_app.search.searcher import LocalSearcher
from serve_app.services import Services
from serve_app.store.database import Database
from serve_app.store.executor import StoreExecutor
from tests.fakes import FakeEmbedder, FakeRunner
from tests.unit.api import work
from tests.unit.store.workbench import lay_blank

BASE_URL = "http://127.0.0.1:8000"
FLOWERS = ("rose/a.png", "rose/b.png", "tulip/c.png", "tulip/d e+é.png")


def png(colour=(200, 30, 30), size=(32, 24)):
    """A PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path):
    """A dataset root with a folder `flowers` of five images in two classes, one of them no image."""
    return lay_flowers(tmp_path / "data")


def lay_flowers(root):
    """Write the folder, with times that are always the same, and return its dataset root."""
    files = {name: png((40 * i, 10, 10)) for i, name in enumerate(FLOWERS)} | {"tulip/broken.png": b"not an image"}
    for name, data in files.items():
        path = root / "flowers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return root


@pytest.fixture
def settings(tmp_path, root):
    return Settings(data_dir=tmp_path / "state", dataset_roots=(root,))


@asynccontextmanager
async def services_of(settings):
    """Everything behind the application, on a store without rows; closed at the end."""
    lay_blank(settings.database_path)
    store = StoreExecutor(Database(settings.database_path))
    yield Services(
        settings=settings,
        policy=Policy.choose(settings, n_cpus=2, n_gpus=0),
        writer=store,
        embedder=FakeEmbedder(),
        searcher=LocalSearcher(store, settings.sets_path),
        runner=FakeRunner(),
    )
    await store.drain_and_close()


@pytest.fixture
async def services(settings):
    async with services_of(settings) as services:
        yield services


@pytest.fixture
def app(settings, services):
    return create_app(settings, lambda: services)


def client_of(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE_URL)


@pytest.fixture
async def client(app):
    async with client_of(app) as client:
        yield client


async def registered(client, root):
    """Register the folder `flowers`; returns it as the API answers it."""
    answer = await client.post("/datasets", json={"name": "flowers", "root": str(root / "flowers")})
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
async def dataset(client, root):
    """The registered folder `flowers`, as the API answers it."""
    return await registered(client, root)


@pytest.fixture(scope="session")
def embedded_flowers(tmp_path_factory):
    """`flowers` as the API answered it, and the bytes of the database once it had vectors: made as a client does."""
    folder = tmp_path_factory.mktemp("embedded")
    settings = Settings(data_dir=folder / "state", dataset_roots=(lay_flowers(folder / "data"),))

    async def embed():
        async with services_of(settings) as services, client_of(create_app(settings, lambda: services)) as client:
            dataset = await registered(client, folder / "data")
            answer = await client.post(f"/datasets/{dataset['id']}/embeddings/generate")
            assert answer.status_code == 202, answer.text
            await work.embed(services)
            return dataset

    with ThreadPoolExecutor(1) as thread:  # the loop of the tests belongs to this one
        dataset = thread.submit(asyncio.run, embed()).result()
    return dataset, settings.database_path.read_bytes()


@pytest.fixture
def embedded(settings, services, root, embedded_flowers):
    """`flowers` with vectors of its four images, in a database that nobody has opened yet."""
    dataset, content = embedded_flowers
    settings.database_path.write_bytes(content)
    folder = str(root / "flowers")
    with services.writer._database.transaction() as session:
        session.q("UPDATE datasets SET root = ?", folder)
    return dataset | {"root": folder}
