"""A headless Chromium for tests that read a page as a visitor does: fixture ``browser``.

Debian: ``apt-get install chromium chromium-driver``. What the page asked of the network and what it
wrote to the console is kept, so that a test can demand that both are empty.
"""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # containers run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--metrics-recording-only",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


class Browser:
    """One window of a headless Chromium; ``driver`` is selenium's."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a local file in a window of this size; earlier console lines and requests are forgotten."""
        self.screen(width, height)
        self.colours("dark" if dark else "light")
        self.driver.get("about:blank")
        self.console_errors()
        self.requests()
        self.driver.get(page.resolve().as_uri())

    def screen(self, width: int, height: int) -> None:
        self._tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def colours(self, scheme: str) -> None:
        """``light`` or ``dark``: what the visitor's system prefers."""
        self._tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def script(self, code: str, *args: Any) -> Any:
        """The value of a JavaScript function body."""
        return self.driver.execute_script(code, *args)

    def all(self, selector: str) -> list[Any]:
        """Every element that a CSS selector names."""
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        """The first element that a CSS selector names."""
        return self.driver.find_element("css selector", selector)

    def click(self, element: Any) -> None:
        """A real mouse click in the middle of an element (also inside an SVG)."""
        from selenium.webdriver.common.action_chains import ActionChains

        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        ActionChains(self.driver).move_to_element(element).click().perform()

    def until(self, condition: Callable[[], T], seconds: float = 10) -> T:
        """Wait until a condition holds and return its value; fails with an AssertionError."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < end, "the page did not get there in time"
            time.sleep(0.05)
        return value

    def console_errors(self) -> list[str]:
        """Errors and warnings in the console since this was last asked."""
        return [e["message"] for e in self.driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """Addresses outside the page itself that it asked for since this was last asked."""
        urls = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                params = message["params"]
                urls.append(params["request"]["url"] if "request" in params else params["url"])
        return [u for u in urls if not u.startswith(("file:", "data:", "blob:", "about:"))]

    def picture(self, path: Path, *, whole: bool = False) -> Path:
        """Save a screenshot (``whole``: of the page from top to bottom)."""
        shot = self._tell("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def pdf(self, path: Path) -> Path:
        """Print the page as a visitor would, on A4."""
        sheet = self._tell("Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69)
        path.write_bytes(base64.b64decode(sheet["data"]))
        return path

    def _tell(self, command: str, **settings: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, settings)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium that lives as long as the test session."""
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if binary is None or chromedriver is None:
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=chromedriver))
    yield Browser(driver)
    driver.quit()
