"""The console in a real Chromium."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from tests.telemetry.support import wait_until

CHROMIUM = [
    pytest.mark.chromium,
    pytest.mark.skipif(
        shutil.which("chromium") is None or shutil.which("chromedriver") is None,
        reason="Chromium or ChromeDriver is not installed",
    ),
]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
)


class Page:
    """The console in a browser."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def leave(self) -> None:
        """Go to a page that asks nobody."""
        self.driver.get("about:blank")

    def open(self) -> None:
        self.leave()
        self.driver.get_log("browser")
        self.driver.get(f"{self.url}/console")
        wait_until(lambda: self.one("#live").text == "Live")
        wait_until(lambda: self.one("#model").get_property("value"))

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def write(self, name: str, text: str) -> None:
        field = self.one(f"#{name}")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text or Keys.DELETE)

    def press(self, target: str | WebElement) -> None:
        """Press a button with the keyboard: the page may scroll under a pointer, when an exchange arrives."""
        (self.one(target) if isinstance(target, str) else target).send_keys(Keys.ENTER)

    def complaints(self) -> list[dict[str, Any]]:
        """What the browser's console says, errors of scripts, resources and the content security policy among it."""
        return [entry for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]

    def scheme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open_with(self, key: str) -> None:
        """Opens the console of a gateway that asks for a key, and gives it one."""
        self.driver.get(f"{self.url}/console")
        wait_until(lambda: self.one("#key-dialog").is_displayed())
        self.one("#key-input").send_keys(key, Keys.ENTER)
        wait_until(lambda: self.one("#live").text == "Live")
        wait_until(lambda: self.one("#model").get_property("value"))

    def width(self, pixels: int) -> None:
        """Makes the window as narrow as a phone; 0: as wide as before."""
        size = {"width": pixels, "height": 640 if pixels else 0, "deviceScaleFactor": 0, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A browser whose profile is in an empty folder."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield Page(driver, "")
    finally:
        driver.quit()
