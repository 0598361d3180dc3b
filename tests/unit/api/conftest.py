"""The real store on a temporary folder, fakes for the model, and the application between them."""

import io

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


def png(colour=(200, 30, 30), size=(32, 24)):
    """A PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path):
    """A dataset root with a folder `flowers` of five images in two classes, one of them no image."""
    folder = tmp_path / "data" / "flowers"
    for i, name in enumerate(("rose/a.png", "rose/b.png", "tulip/c.png", "tulip/d e+é.png")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png((40 * i, 10, 10)))
    (folder / "tulip" / "broken.png").write_bytes(b"not an image")
    return tmp_path / "data"


@pytest.fixture
def settings(tmp_path, root):
    return Settings(data_dir=tmp_path / "state", dataset_roots=(root,))


@pytest.fixture
async def services(settings):
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
def app(settings, services):
    return create_app(settings, lambda: services)


@pytest.fixture
async def client(app):
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        yield client


@pytest.fixture
async def dataset(client, root):
    """The registered folder `flowers`, as the API answers it."""
    answer = await client.post("/datasets", json={"name": "flowers", "root": str(root / "flowers")})
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
async def embedded(client, services, dataset):
    """`flowers` with vectors of its four images."""
    answer = await client.post(f"/datasets/{dataset['id']}/embeddings/generate")
    assert answer.status_code == 202, answer.text
    await work.embed(services)
    return dataset
