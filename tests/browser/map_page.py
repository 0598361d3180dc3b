"""The map page as a person meets it: what can be seen and done, by name."""

import re

from playwright.sync_api import expect


class MapPage:
    """Drives the page; everything is found by its role or text where it has one."""

    def __init__(self, page, base_url):
        self.page = page
        self.base_url = base_url
        self.panel = page.locator("#panel")
        self.canvas = page.locator("#map-canvas")
        self.tiles = self.panel.locator("button.tile")
        self.work = page.locator("#work")

    def open(self, dataset_id=None):
        """Load the page."""
        self.page.goto(f"{self.base_url}/" + (f"?dataset={dataset_id}" if dataset_id else ""))

    def open_map(self, dataset_id=None, *, pictures=False):
        """Load the page and wait for the map, by default one of points alone: pictures lie over points.

        The page must be at the service already, where its choices are stored.
        """
        if not pictures:
            self.page.evaluate("localStorage.setItem('constellate.no-pictures', '1')")
        self.open(dataset_id)
        expect(self.page.locator("#map-count")).to_contain_text("points")

    def place(self, row):
        """Pixel of a point on the page."""
        box = self.canvas.bounding_box()
        x, y = self.page.evaluate("(row) => constellate.stage.map.placeOf(row)", row)
        return box["x"] + x, box["y"] + y

    def middle(self):
        """Pixel in the middle of the map."""
        box = self.canvas.bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def hover(self, row):
        """Point at a point."""
        self.page.mouse.move(*self.place(row))

    def click(self, row):
        """Click a point."""
        self.page.mouse.click(*self.place(row))

    def lasso(self, corners):
        """Draw around pixels with Shift held."""
        mouse = self.page.mouse
        self.page.keyboard.down("Shift")
        mouse.move(*corners[0])
        mouse.down()
        for corner in [*corners[1:], corners[0]]:
            mouse.move(*corner, steps=4)
        mouse.up()
        self.page.keyboard.up("Shift")

    def lasso_all(self):
        """Draw around the whole map."""
        box = self.canvas.bounding_box()
        left, top, right, bottom = box["x"] + 4, box["y"] + 4, box["x"] + box["width"] - 4, box["y"] + box["height"] - 4
        self.lasso([(left, top), (right, top), (right, bottom), (left, bottom)])

    def button(self, name):
        """A button anywhere on the page, by its whole name or, for those with an explanation, its beginning."""
        return self.page.get_by_role("button", name=re.compile(rf"^{re.escape(name)}( (copies|what|covers).*)?$"))

    def await_true(self, condition):
        """Wait, frame by frame, until a JavaScript expression holds; the page's policy forbids `wait_for_function`."""
        self.evaluate(
            "() => new Promise((done) => {"
            f"    const look = () => ({condition}) ? done() : requestAnimationFrame(look);"
            "    look();"
            "})"
        )

    def evaluate(self, expression, argument=None):
        """Run JavaScript in the page; its policy does not hold here, and holds for everything the page does."""
        return self.page.evaluate(expression, argument)
