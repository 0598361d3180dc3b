"""The map itself: pointing, hiding, selecting, searching, and names that are hard to carry."""

import csv
import io

import pytest
from playwright.sync_api import expect

from tests.browser.album import AWKWARD_NAMES, Album
from tests.browser.map_page import MapPage


def test_a_click_on_each_point_opens_the_image_that_lies_there(visit, album):
    for row in (0, 77, 599):
        visit.click(row)
        expect(visit.panel.locator("dd").first).to_have_text(album.file_names[row])


def test_the_wheel_zooms_about_the_pointer_and_fit_shows_everything_again(visit):
    x, y = visit.place(50)
    visit.page.mouse.move(x, y)
    visit.page.mouse.wheel(0, -600)
    assert visit.evaluate("constellate.stage.map.camera.zoom") > 2
    assert visit.place(50) == pytest.approx((x, y), abs=1)
    visit.button("Fit").click()
    assert visit.evaluate("constellate.stage.map.camera.zoom") == 1


def test_dragging_moves_the_map_by_as_much_and_opens_nothing(visit):
    x, y = visit.place(50)
    middle = visit.middle()
    visit.page.mouse.move(*middle)
    visit.page.mouse.down()
    visit.page.mouse.move(middle[0] + 70, middle[1] - 40, steps=5)
    visit.page.mouse.up()
    assert visit.place(50) == pytest.approx((x + 70, y - 40), abs=1)
    expect(visit.panel.get_by_role("heading", name="Look around")).to_be_visible()


def test_a_lasso_takes_exactly_the_points_inside_it(visit, album):
    box = visit.canvas.bounding_box()
    x_px = visit.evaluate(
        "(n) => Array.from({ length: n }, (_, row) => constellate.stage.map.placeOf(row)[0])", album.n
    )
    inside = [row for row, x in enumerate(x_px) if x > box["width"] / 2]
    middle = box["x"] + box["width"] / 2
    right, bottom = box["x"] + box["width"] - 2, box["y"] + box["height"] - 2
    visit.lasso([(middle, box["y"] + 2), (right, box["y"] + 2), (right, bottom), (middle, bottom)])
    expect(visit.panel.get_by_role("heading", name=f"{len(inside)} images")).to_be_visible()
    visit.button("Copy ids").click()
    expect(visit.button("Copied")).to_be_visible()
    copied = visit.evaluate("navigator.clipboard.readText()")
    assert copied.split("\n") == [album.file_names[row] for row in inside]


def test_the_csv_of_a_selection_holds_names_exactly(visit, album):
    visit.lasso_all()
    with visit.page.expect_download() as download:
        visit.button("Download CSV").click()
    assert download.value.suggested_filename == "meadow selection.csv"
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8"), newline="")))
    assert [row["sample_id"] for row in rows] == album.file_names
    assert [row["label"] or None for row in rows] == album.labels


def test_a_lasso_around_nothing_says_how_to_draw_one(visit):
    box = visit.canvas.bounding_box()
    visit.lasso([(box["x"] + 2, box["y"] + 2), (box["x"] + 20, box["y"] + 2), (box["x"] + 20, box["y"] + 20)])
    expect(visit.panel).to_contain_text("No points lie inside the lasso")


def test_a_hidden_class_can_neither_be_pointed_at_nor_lassoed(visit, album):
    label = album.labels[50]
    entry = visit.page.locator("#legend").get_by_role("button", name=label)
    entry.click()
    expect(entry).to_have_attribute("aria-pressed", "false")
    assert not visit.evaluate("constellate.stage.map.isShown(50)")
    visit.lasso_all()
    left = sum(other != label for other in album.labels)
    expect(visit.panel.get_by_role("heading", name=f"{left} images")).to_be_visible()
    visit.button("Show all").click()
    assert visit.evaluate("constellate.stage.map.isShown(50)")


def test_an_awkward_name_is_shown_as_it_is_and_its_image_loads(visit, album):
    for name in AWKWARD_NAMES:
        visit.click(album.rows[name])
        expect(visit.panel.locator("dd").first).to_have_text(name)
        hero = visit.panel.locator(".hero img")
        expect(hero).to_have_js_property("complete", True)
        assert hero.evaluate("image => image.naturalWidth") > 0, name
        expect(visit.tiles).to_have_count(24)
        assert visit.page.locator("script:not([src])").count() == 0, name


def test_labels_beyond_the_twentieth_share_one_entry(page, base_url, service):
    album = service.add(Album("wide", 900, n_labels=22))
    visit = MapPage(page, base_url)
    visit.open_map(album.id)
    expect(page.locator(".entry")).to_have_count(22)
    expect(page.locator(".entry").nth(20)).to_contain_text("2 other labels")
    expect(page.locator(".entry").nth(21)).to_contain_text("no label")
    expect(page.locator("#legend")).to_contain_text("<b>nettle</b>")


def test_duplicates_come_in_groups_and_the_threshold_changes_them(visit, album):
    visit.button("Near-duplicates").click()
    expect(visit.panel.locator(".group")).not_to_have_count(0)
    expect(visit.panel.get_by_role("heading")).to_contain_text(f"{len(album.duplicates(0.95))} groups")
    visit.panel.get_by_role("slider").fill("0.99")
    expect(visit.panel.get_by_role("heading")).to_contain_text(f"{len(album.duplicates(0.99))} group")


@pytest.mark.parametrize("question", ["Outliers", "Diverse sample"])
def test_a_question_about_the_dataset_shows_sixty_images_and_brings_them_out_on_the_map(visit, question):
    visit.button(question).click()
    expect(visit.tiles).to_have_count(60)
    assert visit.evaluate("constellate.stage.map._marked.length") == 60


def test_an_image_dropped_anywhere_is_searched_for(visit):
    drop = """async () => {
        const canvas = new OffscreenCanvas(123, 90);
        canvas.getContext("2d").fillRect(0, 0, 50, 50);
        const data = new DataTransfer();
        data.items.add(new File([await canvas.convertToBlob()], "dropped.png", { type: "image/png" }));
        for (const type of ["dragenter", "dragover", "drop"]) {
            document.body.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
        }
    }"""
    visit.evaluate(drop)
    expect(visit.panel.get_by_role("heading", name="Like dropped.png")).to_be_visible()
    expect(visit.tiles).to_have_count(60)
    expect(visit.page.locator("#drop")).to_be_hidden()


def test_a_file_that_is_no_image_is_answered_in_the_services_words(visit, forgiven, tmp_path):
    forgiven.append("Failed to load resource")
    file = tmp_path / "notes.txt"
    file.write_text("no image")
    visit.page.locator("#search-file").set_input_files(file)
    expect(visit.panel.get_by_role("alert")).to_contain_text("not an image of a known format")


def test_the_vectors_download_as_parquet_under_the_datasets_name(visit):
    with visit.page.expect_download() as download:
        visit.page.get_by_label("Format of the file").select_option("parquet")
        visit.button("Export").click()
    assert download.value.suggested_filename == "meadow.parquet"


def test_another_dataset_can_be_chosen_and_the_address_names_it(visit, service):
    other = service.add(Album("pond", 60, seed=3))
    visit.page.reload()
    visit.page.get_by_label("Dataset", exact=True).and_(visit.page.locator("select")).select_option("pond")
    expect(visit.page.locator("#map-count")).to_have_text("60 points")
    assert other.id in visit.page.url


def test_the_list_pages_through_all_samples(visit, album):
    visit.button("List").click()
    tiles = visit.page.locator("#list button.tile")
    expect(tiles).not_to_have_count(0)
    while (n_tiles := tiles.count()) < album.n:
        tiles.last.scroll_into_view_if_needed()
        expect(tiles).not_to_have_count(n_tiles)
    expect(tiles).to_have_count(album.n)
    tiles.nth(3).click()
    expect(visit.panel.locator("dd").first).to_have_text(album.file_names[3])
