"""A dataset with vectors of several models: one is chosen, every question is about it, and the address keeps it."""

from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser.album import Album
from tests.browser.map_page import MapPage


@pytest.fixture
def asked(page):
    """(path, model) of the requests so far about a dataset's vectors."""
    found = []

    def note(request):
        parts = urlsplit(request.url)
        found.append(("/".join(parts.path.split("/")[3:]), parse_qs(parts.query).get("model", [""])[0]))

    page.on("request", note)
    return found


def test_the_chosen_set_is_asked_and_stays_in_the_address(page, base_url, service, asked):
    album = service.add(Album("meadow", 60))
    album.models, album.without_map = ["siglip2-base", "dinov2-base"], {"dinov2-base"}
    service.job_s = 600.0
    visit = MapPage(page, base_url)
    visit.open_map()
    choice = page.get_by_label("Vectors of")
    expect(choice).to_have_value("siglip2-base")
    assert {model for _, model in asked} == {""}

    choice.select_option("dinov2-base")
    expect(page.get_by_role("heading", name="No map yet")).to_be_visible()
    assert "model=dinov2-base" in page.url
    asked.clear()
    page.get_by_role("button", name="Outliers").click()
    expect(visit.tiles).not_to_have_count(0)
    assert ("outliers", "dinov2-base") in asked
    assert {model for path, model in asked if path.startswith("samples/")} <= {""}

    with page.expect_response("**/generate**") as answered:
        visit.work.get_by_role("button", name="Recompute").click()
    begun = answered.value.request
    assert begun.post_data_json == {"model_name": "dinov2-base"}
    assert "model" not in parse_qs(urlsplit(begun.url).query)
    service.jobs.clear()

    page.goto(f"{base_url}/?dataset={album.id}&model=dinov2-base")
    expect(choice).to_have_value("dinov2-base")
    expect(page.get_by_role("heading", name="No map yet")).to_be_visible()


def test_one_set_is_no_choice_and_an_address_of_a_set_that_is_gone_shows_the_one_made_last(page, base_url, service):
    album = service.add(Album("meadow", 60))
    page.goto(f"{base_url}/?dataset={album.id}&model=gone")
    expect(page.locator("#map-count")).to_contain_text("points")
    expect(page.get_by_label("Vectors of")).to_be_hidden()
    assert "model=" not in page.url


def test_the_only_set_is_updated_with_its_own_model(page, base_url, service):
    service.add(Album("meadow", 60)).models = ["dinov2-small"]
    visit = MapPage(page, base_url)
    visit.open_map()
    with page.expect_response("**/generate**") as answered:
        visit.work.get_by_role("button", name="Recompute").click()
    assert answered.value.request.post_data_json == {"model_name": "dinov2-small"}


def test_a_region_is_dropped_where_the_map_is_another_one(page, base_url, service):
    album = service.add(Album("meadow", 60))
    album.models = ["siglip2-base", "dinov2-base"]
    visit = MapPage(page, base_url)
    visit.open_map()
    said = page.locator("#filter-problem")
    region = "inside(-9, -9, 9, -9, 9, 0.5, -9, 0.5)"

    def draw():
        visit.evaluate("(region) => ['width > 150', region].forEach((one) => constellate.lens.bar.add(one))", region)
        expect(page.locator(".chip")).to_have_text(["width > 150×", "inside the lasso×"])
        chosen = album.chosen(f"width > 150 AND {region}")
        expect(page.locator("#map-count")).to_have_text(f"{len(chosen)} of 60 points")

    def expect_dropped():
        expect(page.locator(".chip")).to_have_text(["width > 150×"])
        expect(page.locator("#map-count")).to_have_text(f"{len(album.chosen('width > 150'))} of 60 points")
        expect(said).to_contain_text("drawn on another map")

    draw()
    page.get_by_label("Vectors of").select_option("dinov2-base")
    expect_dropped()
    draw()
    album.points = album.points[:, ::-1]
    visit.evaluate("constellate._refresh()")
    expect_dropped()
    assert "inside" not in page.url


@pytest.fixture
def visit(page, base_url, service):
    """The page with the map of a dataset that has two sets of vectors."""
    service.add(Album("meadow", 60)).models = ["siglip2-base", "dinov2-base"]
    visit = MapPage(page, base_url)
    visit.open_map()
    return visit


def choose_dataset(visit, name):
    visit.page.get_by_label("Dataset", exact=True).and_(visit.page.locator("select")).select_option(name)


def test_the_format_of_an_export_stays_the_chosen_one_where_there_are_vectors(visit, service):
    service.add(Album("pond", 40), is_mapped=False)
    visit.page.reload()
    form = visit.page.get_by_label("Format of the file")
    choose_dataset(visit, "meadow")
    expect(visit.page.locator("#map-count")).to_have_text("60 points")
    expect(form).to_have_value("parquet")
    visit.page.get_by_label("Vectors of").select_option("dinov2-base")
    visit.await_true("constellate._status?.model_name === 'dinov2-base'")
    expect(form).to_have_value("parquet")
    choose_dataset(visit, "pond")
    expect(form).to_have_value("csv")
    form.select_option("coco")
    choose_dataset(visit, "meadow")
    expect(visit.page.locator("#map-count")).to_have_text("60 points")
    expect(form).to_have_value("coco")


def test_an_export_that_is_refused_late_says_nothing_about_another_dataset(visit, service, forgiven):
    forgiven.append("Failed to load resource")
    service.add(Album("pond", 40))
    visit.page.reload()
    choose_dataset(visit, "meadow")
    expect(visit.page.locator("#map-count")).to_have_text("60 points")
    held = []
    visit.page.route("**/export?*", lambda route: held.append(route))
    visit.page.get_by_label("Format of the file").select_option("coco")
    with visit.page.expect_request("**/export?*"):
        visit.button("Export").click()
    choose_dataset(visit, "pond")
    expect(visit.page.locator("#map-count")).to_have_text("40 points")
    with visit.page.expect_response("**/export?*"):
        held[0].fulfill(status=409, json={"detail": "No boxes."})
    visit.evaluate("new Promise((done) => setTimeout(done))")
    expect(visit.page.locator("#find [role=alert]")).to_have_text("")
    assert visit.evaluate("constellate.find._handover._button.disabled") is False


def test_a_region_holds_its_set_until_it_is_removed_and_no_longer_than_its_dataset(visit, service):
    service.add(Album("pond", 40))
    visit.page.reload()
    choose_dataset(visit, "meadow")
    region = "inside(-9, -9, 9, -9, 9, 0.5, -9, 0.5)"

    def draw(model):
        visit.evaluate("(region) => constellate.lens.bar.add(region)", region)
        visit.await_true(f"location.search.includes('model={model}')")

    def remove():
        visit.button("Remove the filter inside the lasso").click()
        expect(visit.page.locator("#map-count")).to_have_text("60 points")

    expect(visit.page.locator("#map-count")).to_have_text("60 points")
    draw("siglip2-base")
    remove()
    visit.await_true("!location.search.includes('model=')")
    visit.page.get_by_label("Vectors of").select_option("dinov2-base")
    visit.await_true("constellate._status?.model_name === 'dinov2-base' && constellate.lens._points")
    draw("dinov2-base")
    remove()
    assert "model=dinov2-base" in visit.page.url
    draw("dinov2-base")
    choose_dataset(visit, "pond")
    expect(visit.page.locator("#map-count")).to_have_text("40 points")
    assert "model=" not in visit.page.url
