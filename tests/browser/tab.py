"""One tab of Chromium that goes from test to test: a new one starts three processes and loads every module anew."""

from playwright.sync_api import expect

VIEWPORT = {"width": 1280, "height": 800}
EMPTY = '<link rel="icon" href="data:,">'
"""Without an icon of its own, a page has Chromium ask for `/favicon.ico`, which is not there."""
PATIENCE_MS = 240_000
"""How long a test waits before it fails; it is longer than the slowest machine needs."""
# Chromium writes to the console when it reads pixels for its own screenshots.
EXPECTED = ("GPU stall due to ReadPixels",)

expect.set_options(timeout=PATIENCE_MS)


class Tab:
    """A page; `begin` and `leave` give each test one that remembers nothing of the tests before."""

    def __init__(self, browser):
        self._context = browser.new_context(viewport=VIEWPORT, color_scheme="light")
        self._context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page = self._context.new_page()
        self.complaints = watch_console(self.page)

    def begin(self, base_url):
        """Go to an empty page of the service's address and forget what the map page has stored there."""
        address = f"{base_url}/empty"
        self.page.route(address, lambda route: route.fulfill(content_type="text/html", body=EMPTY))
        self.page.goto(address)
        self.page.unroute(address)
        self.page.evaluate("localStorage.clear(), sessionStorage.clear()")
        self.complaints.clear()
        return self.page

    def leave(self):
        """End the page's work and undo what a test may have set."""
        self.page.goto("about:blank")
        self.page.unroute_all()
        self.page.set_viewport_size(VIEWPORT)
        self.page.emulate_media(color_scheme="light")
        self.page.keyboard.up("Shift")
        self.page.mouse.move(0, 0)

    def close(self):
        """Close the page with its context."""
        self._context.close()


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
