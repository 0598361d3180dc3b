"""What the page does when something is missing, fails, or goes away."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.album import Album
from tests.browser.conftest import SCREENSHOTS, chromium_path
from tests.browser.map_page import MapPage
from tests.browser.tab import watch_console

LOOK_EVERY = """(pause_ms) => {
    window.setTimer ??= window.setTimeout;
    window.setTimeout = (call, ms, ...given) => window.setTimer(call, ms === 4000 ? pause_ms : ms, ...given);
}"""
"""Says how long the page waits from now on before it looks for jobs again (`POLL_MS` of watch.js)."""


@pytest.fixture
def visit(page, base_url):
    return MapPage(page, base_url)


@pytest.fixture
def failures_are_expected(forgiven):
    """A browser writes each failed request to the console."""
    forgiven.append("Failed to load resource")
    forgiven.append("net::ERR_")


@pytest.mark.usefixtures("failures_are_expected")
@pytest.mark.parametrize(
    ("name", "root", "words"),
    [("taken", "/images/new", "has this name"), ("fresh", "/etc", "not under the service's dataset roots")],
    ids=["name-taken", "outside-roots"],
)
def test_a_folder_that_cannot_be_added_keeps_the_form_open_with_the_reason(visit, service, name, root, words):
    service.add(Album("taken", 20))
    visit.open_map()
    visit.button("Add a folder…").click()
    visit.page.get_by_label("Name").fill(name)
    visit.page.get_by_label("Folder on the service's machine").fill(root)
    visit.page.get_by_role("dialog").get_by_role("button", name="Add", exact=True).click()
    expect(visit.page.locator("#register-error")).to_contain_text(words)
    expect(visit.page.get_by_role("dialog")).to_be_visible()


def test_a_folder_is_chosen_by_going_down_and_up(visit, service, shoot):
    service.add(Album("meadow", 20))
    visit.open_map()
    visit.button("Add a folder…").click()
    dialog = visit.page.get_by_role("dialog")
    dialog.get_by_role("button", name="Choose…").click()
    dialog.get_by_role("button", name="/images").click()
    dialog.get_by_role("button", name="flowers").click()
    expect(visit.page.get_by_label("Name")).to_have_value("flowers")
    dialog.get_by_role("button", name="Up").click()
    dialog.get_by_role("button", name="More…").evaluate("(more) => { more.click(); more.click(); }")
    expect(dialog.locator(".folders li")).to_have_text(["flowers400 images", "garden400 images", "meadow400 images"])
    shoot("folders")
    dialog.get_by_role("button", name="garden").click()
    expect(visit.page.get_by_label("Folder on the service's machine")).to_have_value("/images/garden")
    expect(visit.page.get_by_label("Name")).to_have_value("garden")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(visit.page.locator("#dataset-choice")).to_contain_text("garden")


def test_a_look_at_a_listing_that_fails_is_repeated(visit, service, forgiven):
    forgiven.append("Failed to load resource")
    service.add(Album("meadow", 20))
    visit.open_map()
    visit.page.route("**/jobs/listing-*", lambda route: route.fulfill(status=502), times=1)
    visit.button("Add a folder…").click()
    dialog = visit.page.get_by_role("dialog")
    visit.page.get_by_label("Name").fill("garden")
    visit.page.get_by_label("Folder on the service's machine").fill("/images/garden")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(visit.page.locator("#dataset-choice")).to_contain_text("garden")


def test_what_a_listing_left_out_is_told_beside_the_dataset(visit, service):
    album = service.add(Album("meadow", 20))
    album.notices = ["3 links to folders were left out: <b>a</b>/, b/, c/"]
    visit.open_map()
    visit.page.get_by_text("1 notice of the listing").click()
    expect(visit.page.locator("#dataset-notices li")).to_have_text(album.notices)


def test_vectors_without_a_map_offer_to_make_it(visit, service):
    album = service.add(Album("meadow", 200), is_mapped=False)
    album.has_vectors = True
    visit.open()
    visit.page.locator("#map-message").get_by_role("button", name="Make the map").click()
    expect(visit.page.locator("#map-count")).to_have_text("200 points")


def test_who_asks_to_redraw_a_map_gets_all_points_laid_out_anew(visit, service):
    service.add(Album("meadow", 200))
    visit.open_map()
    with visit.page.expect_request("**/embeddings/reduce") as asked:
        visit.button("Redraw map").click()
    assert asked.value.post_data_json["redraw"] is True


def test_a_job_started_while_the_page_looks_for_jobs_is_seen_by_the_next_look(visit, service):
    service.add(Album("meadow", 200), is_mapped=False)
    service.listing_s, service.job_s = 1.0, 600.0
    visit.open()
    visit.evaluate(LOOK_EVERY, 50)
    start = visit.page.locator("#map-message").get_by_role("button", name="Compute vectors")
    expect(start).to_be_visible()
    with visit.page.expect_request(re.compile(r"/jobs(\?.*)?$")):
        pass
    visit.evaluate(LOOK_EVERY, 3600_000)  # after this look there is none but that of the click
    start.click()
    expect(visit.page.locator("#map-message")).to_contain_text("Computing vectors")


def test_a_failed_job_says_why_and_can_be_tried_again(visit, service, shoot):
    service.add(Album("meadow", 200), is_mapped=False)
    service.fail_with = "The model's weights cannot be had: copy them to the models folder."
    visit.open()
    visit.page.locator("#map-message").get_by_role("button", name="Compute vectors").click()
    expect(visit.page.locator("#map-message")).to_contain_text("copy them to the models folder")
    expect(visit.work).to_contain_text("The last job failed")
    shoot("failed")
    service.fail_with = None
    visit.page.locator("#map-message").get_by_role("button", name="Try again").click()
    expect(visit.page.locator("#map-count")).to_have_text("200 points")


def test_a_running_job_can_be_cancelled(visit, service):
    service.add(Album("meadow", 200), is_mapped=False)
    service.job_s = 600
    visit.open()
    visit.page.locator("#map-message").get_by_role("button", name="Compute vectors").click()
    visit.button("Cancel").click()
    expect(visit.work).to_contain_text("Cancelled")
    expect(visit.page.get_by_role("heading", name="No vectors yet")).to_be_visible()


def test_a_job_that_runs_already_is_followed_from_the_first_look(visit, service):
    album = service.add(Album("meadow", 200), is_mapped=False)
    service.job_s = 600
    service.start_job(album.id, "embed")
    visit.open()
    expect(visit.work).to_contain_text("Computing vectors")
    expect(visit.button("Cancel")).to_be_visible()


@pytest.mark.usefixtures("failures_are_expected")
def test_an_unknown_model_is_refused_in_the_services_words(visit, service):
    service.add(Album("meadow", 200))
    visit.open_map()
    visit.work.get_by_text("Options").click()
    visit.page.get_by_label("Model").fill("resnet")
    visit.button("Recompute").click()
    expect(visit.work.get_by_role("alert")).to_have_text("Unknown model 'resnet'.")
    expect(visit.button("Recompute")).to_be_enabled()


def test_skipped_images_are_listed_with_their_reasons(visit, service):
    service.add(Album("meadow", 200), is_mapped=False)
    service.skip = 4
    visit.open()
    visit.page.locator("#map-message").get_by_role("button", name="Compute vectors").click()
    expect(visit.page.locator("#map-count")).to_contain_text("points")
    visit.button("4 skipped…").click()
    expect(visit.panel.locator(".skips li")).to_have_count(4)
    expect(visit.panel).to_contain_text("The file ends early.")


@pytest.mark.usefixtures("failures_are_expected")
def test_a_service_that_goes_away_is_found_again_without_a_reload(visit, service, server, shoot):
    service.add(Album("meadow", 200))
    visit.open_map()
    server.stop()
    notice = visit.page.locator("#service")
    expect(notice).to_contain_text("The service does not answer")
    shoot("away")
    server.start()
    expect(notice).to_have_text("")
    expect(visit.page.locator("#map-count")).to_have_text("200 points")


@pytest.mark.usefixtures("failures_are_expected")
def test_a_broken_progress_stream_is_taken_up_where_it_was(visit, service, server):
    service.add(Album("meadow", 200), is_mapped=False)
    service.job_s = 600
    visit.open()
    visit.page.locator("#map-message").get_by_role("button", name="Compute vectors").click()
    expect(visit.work).to_contain_text("of 200")
    server.stop()
    expect(visit.page.locator("#service")).to_contain_text("does not answer")
    server.start()
    expect(visit.page.locator("#service")).to_have_text("")
    service.end_jobs()
    expect(visit.page.locator("#map-count")).to_have_text("200 points")
    assert service.last_event_ids[0] is None
    assert service.last_event_ids[1].startswith(service.jobs[-1]["id"] + ":")


@pytest.mark.usefixtures("failures_are_expected")
def test_a_page_opened_before_the_service_starts_by_itself(visit, service, server):
    service.add(Album("meadow", 200))
    visit.open_map()
    visit.page.route("**/datasets", lambda route: route.abort())
    visit.page.reload()
    expect(visit.page.locator("#map-message")).to_contain_text("does not answer")
    visit.page.unroute("**/datasets")
    expect(visit.page.locator("#map-count")).to_have_text("200 points")


@pytest.mark.usefixtures("failures_are_expected")
def test_a_service_with_a_key_is_usable_once_the_key_is_given(visit, service, shoot):
    service.add(Album("meadow", 200))
    service.api_key = "open sesame"
    visit.open()
    field = visit.page.get_by_role("textbox", name="API key")
    field.fill("guess")
    field.press("Enter")
    expect(visit.page.locator("#key-error")).to_have_text("The service refused this key.")
    shoot("key")
    field.fill("open sesame")
    field.press("Enter")
    expect(visit.page.locator("#map-count")).to_have_text("200 points")
    visit.click(50)
    hero = visit.panel.locator(".hero img")
    expect(hero).to_have_attribute("src", re.compile("^blob:"))
    expect(visit.tiles).to_have_count(24)
    assert visit.evaluate("[...Object.values(localStorage)].includes('open sesame')") is False


def test_without_webgl_the_list_shows_the_images_and_says_why_there_is_no_map(playwright, service, base_url):
    album = service.add(Album("meadow", 200))
    browser = playwright.chromium.launch(
        executable_path=chromium_path(), args=["--no-sandbox", "--disable-gpu", "--disable-3d-apis"]
    )
    try:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        complaints = watch_console(page)
        visit = MapPage(page, base_url)
        visit.open()
        expect(page.locator("#list .warning")).to_contain_text("needs WebGL 2")
        tiles = page.locator("#list button.tile")
        expect(tiles).not_to_have_count(0)
        tiles.nth(9).click()
        expect(visit.tiles).to_have_count(24)
        visit.button("Outliers").click()
        expect(visit.tiles).to_have_count(60)
        page.screenshot(path=SCREENSHOTS / "no-webgl.png")
        visit.button("Findings").click()
        visit.button("Clusters").click()
        visit.button("Show only these A").click()
        expect(page.locator(".chip")).to_have_text(["cluster = '0'×"])
        expect(tiles).to_have_count(album.clustered()[0]["size"])
        assert complaints == []
    finally:
        browser.close()


def test_a_lost_graphics_context_falls_back_to_the_list_and_comes_back(visit, service, forgiven):
    forgiven.append("WebGL")
    service.add(Album("meadow", 200))
    visit.open_map()
    context = "document.querySelector('#map-canvas').getContext('webgl2')"
    visit.evaluate(f"(() => {{ window.loss = {context}.getExtension('WEBGL_lose_context'); loss.loseContext(); }})()")
    expect(visit.page.locator("#list .warning")).to_contain_text("graphics driver")
    expect(visit.page.locator("#list button.tile")).not_to_have_count(0)
    visit.evaluate("window.loss.restoreContext()")
    expect(visit.canvas).to_be_visible()
    visit.click(50)
    expect(visit.tiles).to_have_count(24)
