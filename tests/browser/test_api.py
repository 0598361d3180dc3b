"""The page over the real API and the real store; only the model and the job loop are simple ones."""

import asyncio
import contextlib
import threading

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from serve_app.api import create_app
from serve_app.config import Settings
from serve_app.errors import ServiceError
from serve_app.jobs.listing import Lister
from serve_app.jobs.listing_job import listing_job
from serve_app.policy import Policy
from serve_app.search.searcher import LocalSearcher
from serve_app.services import Services
from serve_app.store.database import Database
from serve_app.store.executor import StoreExecutor
from serve_app.store.jobs import Jobs
from tests.browser.album import AWKWARD_NAMES
from tests.browser.map_page import MapPage
from tests.browser.stand_in import Server
from tests.fakes import FakeEmbedder, FakeRunner
from tests.unit.api import work

NAMES = [*AWKWARD_NAMES, "twins/one.png", "twins/two.png", *(f"plain/{i:02}.png" for i in range(30))]


class JobLoop(FakeRunner):
    """Carries each job to its end as soon as it is told of it."""

    def __init__(self, find_services):
        super().__init__()
        self._find_services = find_services
        self._tasks = set()

    async def nudge(self):
        await super().nudge()
        task = asyncio.create_task(self._work())
        self._tasks.add(task)

    async def _work(self):
        services = self._find_services()
        [newest] = await services.writer.ask(Jobs.all, limit=1)
        if newest.kind == "register":
            await listing_job(await work.claim(services), services.writer, Lister(services.settings))
            return
        for step in (work.embed, work.reduce):
            with contextlib.suppress(ServiceError, AssertionError):
                await step(services)


@pytest.fixture
def folder(tmp_path):
    """Images under names that are hard to carry, two of them equal, and a file that is no image."""
    random = np.random.default_rng(0)
    for i, name in enumerate(NAMES):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = (9, 9, 9) if name.startswith("twins/") else tuple(random.integers(0, 255, 3).tolist())
        Image.new("RGB", (60, 40 if name.startswith("twins/") else 40 + i), colour).save(path)
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    return tmp_path / "images"


@pytest.fixture
def server(tmp_path, folder):
    settings = Settings(data_dir=tmp_path / "state", dataset_roots=(folder.parent,))
    store = StoreExecutor(Database(settings.database_path))
    services = Services(
        settings=settings,
        policy=Policy.choose(settings, n_cpus=2, n_gpus=0),
        writer=store,
        embedder=FakeEmbedder(),
        searcher=LocalSearcher(store, settings.sets_path),
        runner=JobLoop(lambda: services),
    )
    server = Server(create_app(settings, lambda: services))
    server.start()
    yield server
    server.stop()
    # Playwright's loop is running in this thread.
    closing = threading.Thread(target=asyncio.run, args=(store.drain_and_close(),))
    closing.start()
    closing.join()


def test_the_page_and_the_real_api_understand_each_other(page, base_url, folder, forgiven):
    forgiven.append("422 (Unprocessable")  # the list asks for a thumbnail of the broken image
    visit = MapPage(page, base_url)
    visit.open()
    visit.button("Add a folder…").first.click()
    page.get_by_label("Name").fill("awkward")
    page.get_by_label("Folder on the service's machine").fill(str(folder))
    page.get_by_role("dialog").get_by_role("button", name="Add", exact=True).click()
    page.locator("#map-message").get_by_role("button", name="Compute vectors").click()
    expect(page.locator("#map-count")).to_have_text(f"{len(NAMES)} points")
    expect(visit.work).to_contain_text(f"{len(NAMES)} vectors")

    visit.button("1 skipped…").click()
    expect(visit.panel.locator(".skips li")).to_contain_text("broken.png")

    visit.button("Near-duplicates").click()
    expect(visit.tiles).to_have_count(2)
    expect(visit.tiles.locator(".name")).to_have_text(["one.png", "two.png"])

    visit.button("List").click()
    tiles = page.locator("#list button.tile")
    expect(tiles).to_have_count(len(NAMES) + 1)  # the broken one is a sample, too
    for name in AWKWARD_NAMES:
        tiles.and_(page.locator(f"[title^='{css_text(name)}']")).click()
        expect(visit.panel.locator("dd").first).to_have_text(name)
        hero = visit.panel.locator(".hero img")
        expect(hero).to_have_js_property("complete", True)
        assert hero.evaluate("image => image.naturalWidth") > 0, name
        expect(visit.tiles).to_have_count(24)

    visit.button("Map").click()
    page.locator("#search-file").set_input_files(folder / "twins" / "one.png")
    expect(visit.tiles.locator(".name").first).to_have_text("one.png")
    expect(visit.tiles.locator(".score").first).to_have_text("1.000")


def css_text(text):
    """Escape a text for a quoted CSS attribute selector."""
    return text.replace("\\", "\\\\").replace("'", "\\'")
