"""Fixtures: a browser, a page whose console must stay empty, and the service that the page shows.

Browser, page and server are those of the whole session; each test gets them as if they were new.
"""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.browser.album import Album
from tests.browser.map_page import MapPage
from tests.browser.stand_in import Server, StandIn, build
from tests.browser.tab import EXPECTED, Tab, unexpected

SCREENSHOTS = Path(__file__).parents[2] / "out" / "screenshots"
# Chromium uses software GL, because the machines that run the tests have no graphics card.
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def pytest_collection_modifyitems(items):
    """Mark all tests of this folder, because they drive Chromium."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def chromium_path():
    """The path of the Chromium that `CHROMIUM` names, or of Debian's."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium")


@pytest.fixture(scope="session")
def playwright():
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def browser(playwright):
    path = chromium_path()
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium, or name one in CHROMIUM")
    browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def stand_in():
    """The stand-in and its server."""
    service = StandIn()
    server = Server(build(service))
    server.start()
    yield service, server
    server.stop()


@pytest.fixture
def service(stand_in):
    """The state behind the stand-in."""
    service, _ = stand_in
    service.begin()
    return service


@pytest.fixture
def server(stand_in, service):
    """The stand-in's server, which a test may stop and start."""
    _, server = stand_in
    yield server
    if not server.is_up:
        server.start()


@pytest.fixture
def base_url(server):
    """The URL of the page."""
    return server.url


@pytest.fixture
def folder(service):
    """A folder of images that the service can register."""
    service.skip = 3
    return "/images/garden"


@pytest.fixture(scope="session")
def tab(browser):
    tab = Tab(browser)
    yield tab
    tab.close()


@pytest.fixture
def forgiven():
    """Texts that the console may show; a browser logs each failed request, even one that fails on purpose."""
    return [*EXPECTED]


@pytest.fixture
def page(tab, base_url, forgiven):
    """A page; the test fails if the page writes errors or warnings to its console, or throws."""
    yield tab.begin(base_url)
    complaints = [*tab.complaints]
    tab.leave()
    assert unexpected(complaints, forgiven) == []


@pytest.fixture
def shoot(page):
    """Save a screenshot of the page under `out/screenshots`."""

    def shoot(name):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{name}.png")

    return shoot


@pytest.fixture
def album(service):
    """A dataset of 600 images with a map."""
    return service.add(Album("meadow", 600))


@pytest.fixture
def visit(page, base_url, album):
    """The page with the map of the album."""
    visit = MapPage(page, base_url)
    visit.open_map()
    return visit
