"""A real Chromium, for what only a browser can tell."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, cast

from selenium import webdriver
from selenium.webdriver.chrome.service import Service as Driver
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")

OPTIONS = [
    "--headless=new",
    "--no-sandbox",  # it cannot have one as root
    "--disable-gpu",
    "--disable-dev-shm-usage",  # small in containers
    "--no-first-run",
    # It talks to the service that is tested, and to nobody else.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
]


class Browser:
    """A browser with one page."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self._driver = driver

    def open(
        self, url: str, *, width: int = 1100, scheme: str = "light", slow: bool = False
    ) -> None:
        """Load a page in a window of this width, for a reader who prefers this scheme.

        Over a slow network, each request takes 300 ms more, and 25 kB come in a second.
        """
        network = {"latency": 300, "downloadThroughput": 25_000, "uploadThroughput": 25_000}
        if not slow:
            network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self._driver.execute_cdp_cmd("Network.enable", {})
        self._driver.execute_cdp_cmd(
            "Network.emulateNetworkConditions", {"offline": False, **network}
        )
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.console()
        self._driver.get(url)

    @contextmanager
    def run_first(self, script: str) -> Iterator[None]:
        """Run a script in every page that is opened meanwhile, before those of the page."""
        add, remove = (f"Page.{verb}ScriptToEvaluateOnNewDocument" for verb in ("add", "remove"))
        added = self._driver.execute_cdp_cmd(add, {"source": script})
        try:
            yield
        finally:
            self._driver.execute_cdp_cmd(remove, added)

    def find(self, selector: str) -> Any:
        return self._driver.find_element("css selector", selector)

    def find_all(self, selector: str) -> list[Any]:
        return self._driver.find_elements("css selector", selector)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a script returns."""
        return self._driver.execute_script(script, *arguments)

    def wait_for(self, selector: str) -> Any:
        """The element, once there is one."""
        wait = WebDriverWait(self._driver, 15, poll_frequency=0.02)
        return wait.until(lambda _: self.find_all(selector))[0]

    def console(self) -> list[str]:
        """What was written to the console since the last call, by the browser too."""
        return [entry["message"] for entry in cast(Any, self._driver).get_log("browser")]


@contextmanager
def chromium() -> Iterator[Browser]:
    assert CHROMIUM
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for option in [*OPTIONS, f"--user-data-dir={profile}"]:
            options.add_argument(option)
        driver = webdriver.Chrome(options, Driver(CHROMEDRIVER))
        try:
            yield Browser(driver)
        finally:
            driver.quit()
