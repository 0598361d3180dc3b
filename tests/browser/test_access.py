"""Keyboard, contrast, themes, layout: the page for everybody."""

import pytest
from playwright.sync_api import expect

from tests.browser.album import Album
from tests.browser.map_page import MapPage
from tests.browser.tab import VIEWPORT

# Contrast of each text with the first opaque ground below it (WCAG 2.2, 1.4.3), disabled controls excepted.
POOR_TEXTS = """() => {
    const channel = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
        paint.clearRect(0, 0, 1, 1);
        paint.fillStyle = colour;
        paint.fillRect(0, 0, 1, 1);
        return [...paint.getImageData(0, 0, 1, 1).data];
    };
    const luminance = ([r, g, b]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
    const ground = (element) => {
        for (; element; element = element.parentElement) {
            const colour = rgba(getComputedStyle(element).backgroundColor);
            if (colour[3] > 190) return colour;
        }
        return [255, 255, 255];
    };
    const poor = [];
    for (const element of document.querySelectorAll("body *")) {
        const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!hasText || !element.checkVisibility() || element.closest(":disabled")) continue;
        const [a, b] = [luminance(rgba(getComputedStyle(element).color)), luminance(ground(element))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) poor.push([element.textContent.slice(0, 40), ratio.toFixed(2)]);
    }
    return poor;
}"""
SHIFTS = """() => new Promise((done) => {
    const sum = (list) => list.getEntries().reduce((total, entry) => total + entry.value, 0);
    new PerformanceObserver((list) => done(sum(list))).observe({ type: "layout-shift", buffered: true });
    setTimeout(() => done(0), 500); // an observer without entries is not called
})"""
COLUMNS = "getComputedStyle(document.querySelector('.panel .grid')).gridTemplateColumns.split(' ').length"


@pytest.fixture
def album(service):
    return service.add(Album("meadow", 400))


def focused(visit):
    return visit.evaluate("document.activeElement.textContent.trim() || document.activeElement.id")


def test_tab_goes_through_the_page_in_reading_order(visit):
    seen = []
    for _ in range(45):
        visit.page.keyboard.press("Tab")
        seen.append(focused(visit))
    order = [
        "Search by image…",
        "Add a folder…",
        "Recompute",
        "Outlierswhat does not fit",
        "Map",
        "Lasso",
        "map-canvas",
    ]
    places = [seen.index(name) for name in order]
    assert places == sorted(places)


def test_the_focus_is_visible(visit):
    visit.page.keyboard.press("Tab")
    outline = visit.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_the_map_moves_zooms_and_opens_an_image_from_the_keyboard(visit):
    visit.canvas.focus()
    press = visit.page.keyboard.press
    press("ArrowRight")
    press("ArrowUp")
    press("+")
    camera = visit.evaluate("({ ...constellate.stage.map.camera })")
    assert camera["x"] > 0
    assert camera["y"] > 0
    assert camera["zoom"] == pytest.approx(1.5)
    press("Enter")
    expect(visit.tiles).to_have_count(24)
    press("0")
    assert visit.evaluate("constellate.stage.map.camera.zoom") == 1


def test_arrow_keys_walk_the_neighbours_enter_opens_one_and_escape_goes_back(visit):
    visit.button("Outliers").click()
    expect(visit.tiles).to_have_count(60)
    visit.tiles.nth(0).focus()
    press = visit.page.keyboard.press
    press("ArrowRight")
    press("ArrowDown")
    press("ArrowLeft")
    columns = visit.evaluate(COLUMNS)
    expect(visit.tiles.nth(columns)).to_be_focused()
    press("Enter")
    expect(visit.panel.get_by_role("heading", name="Most similar")).to_be_visible()
    expect(visit.panel.get_by_role("heading", level=2)).to_be_focused()
    press("Escape")
    expect(visit.panel.get_by_role("heading", name="Outliers")).to_be_visible()
    press("Escape")
    expect(visit.panel.get_by_role("heading", name="Look around")).to_be_visible()


def test_escape_closes_the_form_and_leaves_the_panel_alone(visit):
    visit.button("Outliers").click()
    expect(visit.tiles).to_have_count(60)
    visit.button("Add a folder…").click()
    visit.page.keyboard.press("Escape")
    expect(visit.page.get_by_role("dialog")).to_be_hidden()
    expect(visit.tiles).to_have_count(60)


@pytest.mark.parametrize("state", ["start", "image", "duplicates", "list", "form"])
def test_every_text_has_enough_contrast(visit, state):
    if state == "image":
        visit.click(50)
        expect(visit.tiles).to_have_count(24)
    elif state == "duplicates":
        visit.button("Near-duplicates").click()
        expect(visit.panel.locator(".group")).not_to_have_count(0)
    elif state == "list":
        visit.button("List").click()
        expect(visit.page.locator("#list button.tile")).not_to_have_count(0)
    elif state == "form":
        visit.button("Add a folder…").click()
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)
        assert visit.evaluate(POOR_TEXTS) == [], scheme


def test_the_theme_follows_the_system_until_one_is_chosen_which_is_remembered(visit):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = visit.evaluate(ground)
    visit.page.emulate_media(color_scheme="dark")
    dark = visit.evaluate(ground)
    assert light != dark
    visit.button("Use the light theme").click()
    assert visit.evaluate(ground) == light
    visit.page.reload()
    expect(visit.page.locator("#map-count")).to_contain_text("points")
    assert visit.evaluate(ground) == light


def test_nothing_jumps_while_the_page_loads_and_an_image_is_opened(browser, base_url, album):
    page = browser.new_page(viewport=VIEWPORT)  # one that has loaded nothing before
    visit = MapPage(page, base_url)
    visit.open()
    expect(page.locator("#map-count")).to_contain_text("points")
    visit.click(50)
    expect(visit.tiles).to_have_count(24)
    assert visit.evaluate(SHIFTS) < 0.02
    page.close()


def test_no_width_makes_the_page_scroll_sideways(visit, shoot):
    sideways = "[...document.querySelectorAll('.side, .panel, .tools')].filter((e) => e.scrollWidth > e.clientWidth)"
    for width, height in ((1280, 720), (1280, 800), (2560, 1440), (900, 700)):
        visit.page.set_viewport_size({"width": width, "height": height})
        visit.await_true("constellate.stage.map.camera.width === document.querySelector('#map-canvas').clientWidth")
        visit.click(50)
        expect(visit.tiles).to_have_count(24)
        assert visit.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.evaluate(f"{sideways}.map((e) => e.className)") == []
        shoot(f"width-{width}x{height}")
