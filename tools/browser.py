"""MLflow's web interface in a headless Chromium, for its tests and for the screenshots.

Playwright drives the Chromium that the system has (Debian: chromium, fonts-dejavu-core) and downloads none.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from playwright.sync_api import Browser, BrowserContext, Page, Response, sync_playwright

CHROMIUM_VARIABLE = "GENESIS_FLOW_CHROMIUM"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
# A container has no user namespaces and a small /dev/shm.
_OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb")
_PATIENCE_MILLISECONDS = 120_000
# What MLflow shows a newcomer first would cover the page.
_SETTINGS = {
    "mlflow.assistant.panelOpen_v1": "false",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.detectIssues.guidanceShown_v1": "true",
    "mlflow.workflowType_v1": '"machine_learning"',
}
# Without basic authentication there is no current user, and the interface asks for one all the same.
_ANSWERED_404_WITHOUT_USERS = "/mlflow/users/current"


def find_chromium() -> str | None:
    """The browser's program, or None."""
    if named := os.environ.get(CHROMIUM_VARIABLE):
        return named
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


@contextmanager
def chromium(executable: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(_OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Window:
    """A page of its own profile, and what the server answered to it."""

    address: str
    page: Page
    has_login: bool = False
    shares_profile: bool = False
    calls: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def go(self, path: str) -> Page:
        """Open a page of the interface; wait for what it is to show, never for the network to be idle."""
        self.page.goto("about:blank")  # only then is another fragment of the address loaded anew
        self.page.goto(f"{self.address}/#{path}", wait_until="domcontentloaded")
        return self.page

    def turn(self, path: str) -> Page:
        """Open another page of the interface that is loaded already, as a click does."""
        if not self.page.url.startswith(self.address):
            return self.go(path)
        self.page.evaluate("path => { location.hash = path }", path)
        return self.page

    def note(self, response: Response) -> None:
        path = response.url.removeprefix(self.address)
        if "/ajax-api/" in path or "/get-artifact" in path:
            self.calls.append(path)
        if response.status >= 400 and (self.has_login or _ANSWERED_404_WITHOUT_USERS not in path):
            self.refused.append(f"{response.status} {response.request.method} {path}")

    def close(self) -> None:
        self.page.close() if self.shares_profile else self.page.context.close()


def open_profile(
    browser: Browser, *, width: int = 1500, height: int = 900, login: tuple[str, str] | None = None
) -> BrowserContext:
    """What pages share: their cache, in which the interface is compiled, and what they remember."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        timezone_id="UTC",
        http_credentials=login and {"username": login[0], "password": login[1]},
    )
    context.set_default_timeout(_PATIENCE_MILLISECONDS)
    lines = (f"localStorage.setItem({key!r}, {value!r})" for key, value in _SETTINGS.items())
    # Only where there is a storage: about:blank has none.
    context.add_init_script(f"if (location.protocol !== 'about:') {{ {'; '.join(lines)} }}")
    return context


def open_window(
    browser: Browser,
    address: str,
    *,
    width: int = 1500,
    height: int = 900,
    login: tuple[str, str] | None = None,
) -> Window:
    """A window with a profile of its own."""
    context = open_profile(browser, width=width, height=height, login=login)
    return _window(Window(address, context.new_page(), has_login=login is not None))


def open_another(profile: BrowserContext, address: str) -> Window:
    """A window that shares the cache of earlier ones, and remembers nothing of them."""
    page = profile.new_page()
    kinds = {"origin": address, "storageTypes": "cookies,indexeddb,local_storage"}
    profile.new_cdp_session(page).send("Storage.clearDataForOrigin", kinds)
    return _window(Window(address, page, shares_profile=True))


def _window(window: Window) -> Window:
    window.page.on("response", window.note)
    window.page.on("pageerror", lambda error: window.errors.append(str(error)))
    return window
