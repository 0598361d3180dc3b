"""The page over the real API and the real store; only the model and the job loop are simple ones."""

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from serve_app.config import Settings
from tests.browser.album import AWKWARD_NAMES
from tests.browser.map_page import MapPage
from tests.browser.real_api import serving
from tests.fakes import FakeEmbedder

NAMES = [*AWKWARD_NAMES, "twins/one.png", "twins/two.png", *(f"plain/{i:02}.png" for i in range(30))]


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
    with serving(Settings(data_dir=tmp_path / "state", dataset_roots=(folder.parent,)), FakeEmbedder()) as server:
        yield server


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
