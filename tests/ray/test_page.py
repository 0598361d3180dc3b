"""The map page on the real service: a newcomer's whole visit in headless Chromium."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.browser.conftest import CHROMIUM_ARGUMENTS, SCREENSHOTS, chromium_path
from tests.browser.map_page import MapPage
from tests.browser.tab import unexpected, watch_console
from tests.ray.conftest import Service
from tests.ray.photographs import make_folder, make_photograph

pytestmark = [pytest.mark.ray, pytest.mark.browser]

N_IMAGES = 60


@pytest.fixture
def page() -> Iterator[Any]:
    path = chromium_path()
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium, or name one in CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        complaints = watch_console(page)
        yield page
        browser.close()
    assert unexpected(complaints) == []


def shoot(page: Any, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"ray-{name}.png")


def test_a_newcomer_registers_embeds_looks_and_searches(service: Service, page: Any):
    root: Path = make_folder(service.roots / "visit", n_images=N_IMAGES - 1)
    twin = make_photograph(root / "twin.png", 4)  # the same picture as cat/0004.png
    visit = MapPage(page, service.settings.url)
    visit.open()

    page.get_by_role("button", name="Add a folder…").first.click()
    page.get_by_label("Name").fill("visit")
    page.get_by_label("Folder on the service's machine").fill(str(root))
    page.get_by_role("dialog").get_by_role("button", name="Add", exact=True).click()
    page.locator("#map-message").get_by_role("button", name="Compute vectors").click()
    shoot(page, "1-progress")
    expect(visit.work).to_contain_text(f"{N_IMAGES} vectors")
    expect(page.locator("#map-count")).to_have_text(f"{N_IMAGES} points")
    shoot(page, "2-map")

    page.locator("#search-file").set_input_files(twin)
    expect(visit.panel.get_by_role("heading", name="Like twin.png")).to_be_visible()
    expect(visit.tiles).to_have_count(N_IMAGES)
    best = " ".join(visit.tiles.all_text_contents()[:2])
    assert "twin.png" in best
    assert "0004.png" in best
    shoot(page, "3-search")

    visit.tiles.first.click()
    expect(visit.panel.get_by_text("Most similar")).to_be_visible()
    shoot(page, "4-image")

    visit.lasso_all()
    expect(visit.panel.get_by_role("heading", name=f"{N_IMAGES} images")).to_be_visible()
    shoot(page, "5-lasso")

    visit.button("Near-duplicates").click()
    expect(visit.panel).to_contain_text("twin.png")
    shoot(page, "6-duplicates")
    page.get_by_role("button", name="Use the dark theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    shoot(page, "7-dark")
