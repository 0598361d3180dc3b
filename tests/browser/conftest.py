"""Fixtures: a browser, a page whose console must stay empty, and the service that the page shows."""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.browser.album import Album
from tests.browser.map_page import MapPage
from tests.browser.stand_in import Server, StandIn, build

SCREENSHOTS = Path(__file__).parents[2] / "out" / "screenshots"
# Chromium uses software GL, because the machines that run the tests have no graphics card.
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
# Chromium writes to the console when it reads pixels for its own screenshots.
EXPECTED = ("GPU stall due to ReadPixels",)


PATIENCE_MS = 240_000
"""How long a test waits before it fails; it is longer than the slowest machine needs."""

expect.set_options(timeout=PATIENCE_MS)


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


@pytest.fixture
def service():
    """The state behind the stand-in."""
    return StandIn()


@pytest.fixture
def server(service):
    server = Server(build(service))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def base_url(server):
    """The URL of the page."""
    return server.url


@pytest.fixture
def folder(service):
    """A folder of images that the service can register."""
    service.skip = 3
    return "/images/garden"


@pytest.fixture
def context(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield context
    context.close()


@pytest.fixture
def forgiven():
    """Texts that the console may show; a browser logs each failed request, even one that fails on purpose."""
    return [*EXPECTED]


@pytest.fixture
def page(context, forgiven):
    """A page; the test fails if the page writes errors or warnings to its console, or throws."""
    page = context.new_page()
    complaints = watch_console(page)
    yield page
    assert unexpected(complaints, forgiven) == []


def watch_console(page):
    """A list to which the page's errors and warnings are appended."""
    complaints = []
    page.set_default_timeout(PATIENCE_MS)
    page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


def unexpected(complaints, forgiven=EXPECTED):
    """The complaints that contain none of the forgiven texts."""
    return [text for text in complaints if not any(part in text for part in forgiven)]


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
