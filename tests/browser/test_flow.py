"""One visit from an empty service to a search, the way a newcomer goes."""

import re

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser.map_page import MapPage


@pytest.fixture
def visit(page, base_url):
    return MapPage(page, base_url)


def test_from_a_folder_to_a_map_and_what_can_be_asked_of_it(visit, service, folder, shoot, tmp_path):
    page = visit.page
    service.job_s = 40.0
    visit.open()
    expect(page.get_by_role("heading", name="Start with a folder of images")).to_be_visible()
    shoot("1-start")

    page.locator("#map-message").get_by_role("button", name="Add a folder…").click()
    page.get_by_label("Name").fill("garden")
    page.get_by_label("Folder on the service's machine").fill(folder)
    shoot("2-register")
    page.get_by_role("dialog").get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("heading", name="No vectors yet")).to_be_visible()

    page.locator("#map-message").get_by_role("button", name="Compute vectors").click()
    expect(visit.work).to_contain_text(re.compile(r"[1-9]\d* of 400"))
    expect(visit.work).to_contain_text(re.compile(r"\d+/s · .+ left"))
    shoot("3-progress")

    service.end_jobs()
    expect(page.locator("#map-count")).to_have_text("400 points")
    expect(visit.work).to_contain_text("397 vectors")
    shoot("4-map")

    visit.hover(50)
    expect(page.locator("#map-tip")).to_be_visible()
    expect(page.locator("#map-tip img")).to_have_js_property("complete", True)
    shoot("5-hover")

    visit.click(50)
    expect(visit.panel.get_by_role("heading", name="000050.jpg")).to_be_visible()
    expect(visit.tiles).to_have_count(24)
    scores = [float(text) for text in visit.tiles.locator(".score").all_text_contents()]
    assert scores == sorted(scores, reverse=True)
    shoot("6-image")

    visit.lasso_all()
    expect(visit.panel.get_by_role("heading", name="400 images")).to_be_visible()
    page.mouse.move(10, 10)
    shoot("7-lasso")

    file = tmp_path / "query.png"
    make_image(file)
    page.locator("#search-file").set_input_files(file)
    expect(visit.panel.get_by_role("heading", name="Like query.png")).to_be_visible()
    expect(visit.tiles).to_have_count(60)
    shoot("8-search")

    page.get_by_role("button", name="Use the dark theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    shoot("9-dark")


def make_image(path):
    Image.new("RGB", (123, 90), "teal").save(path)
