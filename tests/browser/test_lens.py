"""How a dataset is looked at: filters, colours by column, tags, pictures on the map, and the address of it all."""

import csv
import io

import numpy as np
from playwright.sync_api import expect

from serve_app.store.regions import inside
from tests.browser.map_page import MapPage


def write_filter(visit, text):
    box = visit.page.get_by_role("combobox", name="Filter")
    box.fill(text)
    box.press("Enter")


def shown(visit):
    return visit.evaluate("[...constellate.stage.map.shown()].sort((a, b) => a - b)")


def test_filters_are_chips_that_all_hold_on_map_list_and_questions(visit, album):
    write_filter(visit, "width > 1000")
    expect(visit.page.locator("#map-count")).to_have_text(f"{len(album.chosen('width > 1000'))} of 600 points")
    write_filter(visit, "label = 'kelp' OR label = 'fern'")
    both = album.chosen("width > 1000 AND (label = 'kelp' OR label = 'fern')")
    expect(visit.page.locator("#map-count")).to_have_text(f"{len(both)} of 600 points")
    assert shown(visit) == both
    names = {album.file_names[row] for row in both}
    visit.button("Outliers").click()
    expect(visit.tiles).to_have_count(min(60, len(both)))
    assert {*visit.tiles.evaluate_all("tiles => tiles.map((tile) => tile.title.split(' · ')[0])")} <= names
    visit.button("List").click()
    expect(visit.page.locator("#list button.tile")).to_have_count(len(both))
    visit.button("Remove the filter width > 1000").click()
    left = album.chosen("label = 'kelp' OR label = 'fern'")
    expect(visit.page.locator("#map-count")).to_have_text(f"{len(left)} of 600 points")


def test_the_legend_counts_what_the_filter_leaves(visit, album):
    def amount(value):
        return visit.page.locator("#legend .entry").filter(has_text=value).locator(".amount")

    write_filter(visit, "width > 1000")
    left = album.chosen("width > 1000")
    expect(amount("kelp")).to_have_text(str(sum(album.labels[row] == "kelp" for row in left)))
    visit.page.get_by_label("Colour by").select_option("split")
    expect(amount("val")).to_have_text(str(sum(row % 4 == 2 for row in left)))
    visit.button("Remove the filter width > 1000").click()
    expect(amount("val")).to_have_text("150")


def test_a_filter_that_is_none_goes_back_into_the_box_with_the_mistake_marked(visit, forgiven):
    forgiven.append("Failed to load resource")
    write_filter(visit, "width > 10")
    write_filter(visit, "label = 'fern' AND wdth")
    expect(visit.page.locator("#filter-problem")).to_contain_text("invalid filter")
    box = visit.page.get_by_role("combobox", name="Filter")
    expect(box).to_have_value("label = 'fern' AND wdth")
    assert box.evaluate("input => input.value.slice(input.selectionStart, input.selectionEnd)").startswith("wdth")
    expect(visit.page.locator(".chip")).to_have_count(1)
    assert "wdth" not in visit.page.url


def test_the_box_completes_columns_words_and_values(visit):
    box = visit.page.get_by_role("combobox", name="Filter")
    box.press_sequentially("lab")
    expect(visit.page.locator("#filter-suggestions li")).to_have_text(["labeltext"])
    box.press("Tab")
    box.press_sequentially("= 'fe")
    expect(visit.page.locator("#filter-suggestions li").first).to_contain_text("'fern'")
    box.press("ArrowDown")
    box.press("Enter")
    expect(box).to_have_value("label = 'fern' ")
    box.press("Enter")
    expect(visit.page.locator(".chip")).to_have_text(["label = 'fern'×"])


def test_a_lasso_becomes_a_filter_that_composes_and_an_address_that_shows_the_same(visit, album, page, base_url):
    write_filter(visit, "width > 500")
    box = visit.canvas.bounding_box()
    middle = box["x"] + box["width"] / 2
    right, bottom = box["x"] + box["width"] - 2, box["y"] + box["height"] - 2
    visit.lasso([(middle, box["y"] + 2), (right, box["y"] + 2), (right, bottom), (middle, bottom)])
    visit.button("Keep only these").click()
    expect(visit.page.locator(".chip")).to_have_text(["width > 500×", "inside the lasso×"])
    visit.await_true("location.search.includes('model=dinov2-base')")  # whose map the lasso was drawn on
    left = visit.evaluate("constellate.lens.bar.expressions[1]")
    corners = [float(number) for number in left.removeprefix("inside(").removesuffix(")").split(",")]
    there = inside(album.points, np.reshape(corners, (-1, 2)))
    expected = [row for row in album.chosen("width > 500") if there[row]]
    expect(visit.page.locator("#map-count")).to_have_text(f"{len(expected)} of 600 points")
    visit.page.get_by_label("Colour by").select_option("width")
    expect(visit.page.locator("#legend .scale")).to_be_visible()
    visit.click(expected[0])
    expect(visit.panel.locator("dd").first).to_have_text(album.file_names[expected[0]])
    page.goto(visit.page.url)
    expect(visit.page.locator("#map-count")).to_have_text(f"{len(expected)} of 600 points")
    expect(visit.page.locator("#legend .scale")).to_be_visible()
    expect(visit.panel.locator("dd").first).to_have_text(album.file_names[expected[0]])
    assert shown(visit) == expected


def test_colours_follow_numbers_by_scale_and_tags_by_name(visit, album):
    visit.page.get_by_label("Colour by").select_option("width")
    expect(visit.page.locator("#legend .scale")).to_have_attribute(
        "aria-label", f"from {album.widths.min()} to {album.widths.max():,}"
    )
    narrow, wide = int(album.widths.argmin()), int(album.widths.argmax())
    assert visit.evaluate("[...constellate.stage.map.colouring.slots]")[narrow] == 0
    assert visit.evaluate("[...constellate.stage.map.colouring.slots]")[wide] == 19
    album.tags["keep"] = {*album.file_names[:7]}
    visit.page.reload()
    visit.page.get_by_label("Colour by").select_option("tag")
    expect(visit.page.locator("#legend .entry")).to_have_text(["keep7", "no value593"])


def test_tags_go_on_the_selected_images_and_come_off_again(visit, album):
    visit.button("Outliers").click()
    expect(visit.tiles).to_have_count(60)
    visit.tiles.nth(1).click(modifiers=["Control"])
    visit.tiles.nth(4).click(modifiers=["Shift"])
    expect(visit.panel.locator(".selected")).to_contain_text("4 selected")
    names = visit.tiles.evaluate_all("tiles => tiles.slice(1, 5).map((tile) => tile.title.split(' · ')[0])")
    album.tags["odd"] = {names[0]}
    visit.page.keyboard.press("t")
    visit.page.keyboard.type("odd")
    visit.page.keyboard.press("Enter")
    expect(visit.panel).to_contain_text("3 images tagged “odd”.")
    assert album.tags["odd"] == {*names}
    visit.button("Undo").click()
    expect(visit.panel).to_contain_text("as it was on 3 images")
    assert album.tags["odd"] == {names[0]}
    visit.tiles.first.focus()
    visit.page.keyboard.press("1")
    expect(visit.panel).to_contain_text("3 images tagged “odd”.")
    visit.tiles.first.focus()
    visit.page.keyboard.press("z")
    expect(visit.panel).to_contain_text("as it was on 3 images")
    with visit.page.expect_download() as download:
        visit.button("Download CSV").click()
    rows = csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8"), newline=""))
    assert {row["sample_id"] for row in rows} == {*names}


def search_words(visit, words):
    box = visit.page.get_by_role("searchbox", name="Search by words")
    box.fill(words)
    box.press("Enter")


def test_words_find_images_within_the_filter_and_the_address_asks_again(visit, album, page):
    album.takes_text = True
    write_filter(visit, "width > 500")
    expect(visit.page.locator("#map-count")).to_contain_text(" of 600 points")
    search_words(visit, "fern")
    expect(visit.panel.get_by_role("heading", name="“fern”")).to_be_visible()
    expect(visit.tiles).to_have_count(60)
    names = {album.file_names[row] for row in album.chosen("width > 500")}
    assert {*visit.tiles.evaluate_all("tiles => tiles.map((tile) => tile.title.split(' · ')[0])")} <= names
    page.goto(visit.page.url)
    expect(visit.panel.get_by_role("heading", name="“fern”")).to_be_visible()
    expect(visit.page.get_by_role("searchbox", name="Search by words")).to_have_value("fern")


def test_words_for_a_model_without_a_text_tower_are_answered_in_the_services_words(visit, forgiven):
    forgiven.append("Failed to load resource")
    search_words(visit, "fern")
    expect(visit.panel.get_by_role("alert")).to_contain_text("takes no text")


def test_a_question_that_needs_the_graph_of_a_large_set_makes_it_and_goes_on(visit, album, forgiven):
    forgiven.append("Failed to load resource")
    album.needs_graph = True
    visit.button("Near-duplicates").click()
    expect(visit.panel).to_contain_text("Finding the neighbours of every image")
    expect(visit.panel.locator(".group")).not_to_have_count(0)
    expect(visit.panel).to_contain_text("2 images may have more")


def test_two_selected_images_are_shown_side_by_side(visit):
    visit.button("Outliers").click()
    visit.tiles.nth(0).click(modifiers=["Control"])
    visit.tiles.nth(2).focus()
    visit.page.keyboard.press("x")
    visit.page.keyboard.press("c")
    images = visit.page.get_by_role("dialog", name="Two images side by side").locator("img")
    expect(images).to_have_count(2)
    for n in (0, 1):
        expect(images.nth(n)).to_have_js_property("complete", True)
        assert images.nth(n).evaluate("image => image.naturalWidth") > 300
    visit.page.keyboard.press("Escape")
    expect(images).to_have_count(0)


def test_the_keys_are_listed_under_a_question_mark(visit):
    visit.page.keyboard.press("?")
    dialog = visit.page.get_by_role("dialog", name="Keys")
    expect(dialog).to_contain_text("draw a lasso")
    visit.page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    visit.page.keyboard.press("/")
    expect(visit.page.get_by_role("combobox", name="Filter")).to_be_focused()


def test_pictures_lie_apart_on_the_map_and_a_click_opens_the_one_on_top(page, base_url, album, shoot):
    visit = MapPage(page, base_url)
    visit.open_map(pictures=True)
    visit.await_true("constellate.stage.pictures.rows.length > 3")
    far = visit.evaluate("constellate.stage.pictures.rows.length")
    visit.page.mouse.move(*visit.place(50))
    visit.page.mouse.wheel(0, -1000)
    visit.await_true("constellate.stage.pictures.rows.length > 3 && constellate.stage.map.camera.zoom > 4")
    shoot("pictures")
    rows = visit.evaluate("constellate.stage.pictures.rows")
    places = [visit.place(row) for row in rows]
    assert far < album.n / 10
    assert all(max(abs(x - u), abs(y - v)) > 40 for n, (x, y) in enumerate(places) for u, v in places[:n]), (
        "pictures overlap"
    )
    box = visit.canvas.bounding_box()
    whole = [
        row
        for row, (x, y) in zip(rows, places, strict=True)
        if box["x"] + 30 < x < box["x"] + box["width"] - 30 and box["y"] + 30 < y < box["y"] + box["height"] - 30
    ]
    x, y = visit.place(whole[0])
    visit.page.mouse.click(x + 20, y + 20)
    expect(visit.panel.locator("dd").first).to_have_text(album.file_names[whole[0]])
    visit.page.keyboard.press("p")
    visit.await_true("constellate.stage.pictures.rows.length === 0")
    page.reload()
    expect(visit.button("Pictures")).to_have_attribute("aria-pressed", "false")
