"""The console in a real Chromium: what people see, and what the browser says about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from tests.conftest import Running
from tests.telemetry.browser import CHROMIUM, Page
from tests.telemetry.support import wait_until

from imagegate import Config, ImageGateway, Limits
from imagegate.config.schema import AccessConfig, ConsoleConfig, DeliveryConfig, SpendingConfig, UpstreamConfig
from imagegate.demo.servers import serving

pytestmark = CHROMIUM

CONSOLE_KEY = "key-of-an-operator"
ARTIFACTS = Path(os.environ.get("ARTIFACTS", Path(__file__).parents[2] / "artifacts"))
MARKUP = "A <img src=x onerror=\"document.title='owned'\"> cat </textarea><script>document.title='owned'</script>"


@pytest.fixture
def keyed() -> Iterator[str]:
    """The URL of a gateway with a key and a console."""
    config = Config(
        upstreams=(UpstreamConfig(name="openai", api_key="sk-of-the-upstream"),),
        access=AccessConfig(keys=(CONSOLE_KEY,)),
        delivery=DeliveryConfig(store="memory://"),
    )
    with serving(ImageGateway(config=config, alone=True)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def page(browser: Page, running: Running) -> Page:
    """The console of the demo's gateway."""
    browser.url = running.url
    return browser


def test_playground(page: Page) -> None:
    """Types a request, sees the rewrite before it is sent, sends it, sees the picture, and what was changed."""
    page.open()
    page.write("model", "tokenlab/gpt-image-2")
    page.write("prompt", "A white cat on a rainy window sill")
    page.write("size", "1920x1080")
    wait_until(lambda: "1920x1088" in page.one("#preview").text, what=lambda: page.one("#preview").text)
    assert "tokenlab" in page.one("#preview .where").text
    assert "1920x1080" in page.one("#preview tr.changed").text
    page.one("#prompt").send_keys(Keys.CONTROL, Keys.ENTER)
    wait_until(lambda: page.all("#list [aria-expanded=true]"), what=lambda: page.one("#note").text)
    opened = page.one("#list > li")
    wait_until(lambda: page.all("#list > li .pictures img"))
    picture = opened.find_element(By.CSS_SELECTOR, ".pictures img")
    wait_until(lambda: picture.get_property("naturalWidth") > 100)
    wait_until(lambda: page.all("#list > li img.thumb"))
    assert "size" in opened.find_element(By.CSS_SELECTOR, "tr.changed").text
    assert "1920x1088" in opened.find_element(By.CSS_SELECTOR, "tr.changed").text
    assert "A white cat on a rainy window sill" in opened.text
    assert page.complaints() == []
    ARTIFACTS.mkdir(exist_ok=True)
    for scheme in ("dark", "light"):
        page.scheme(scheme)
        assert page.driver.save_screenshot(str(ARTIFACTS / f"console-{scheme}.png"))


def test_markup_is_text(page: Page) -> None:
    """A prompt, a model and a provider's error full of HTML are shown as they were written, and nothing runs."""
    page.open()
    page.write("model", "tokenlab/gpt-image-2")
    page.write("size", "")
    page.write("prompt", MARKUP)
    page.press("#send")
    wait_until(lambda: MARKUP in page.one("#list .prompt").text if page.all("#list .prompt") else False)
    page.write("model", "tokenlab/<b>nobody</b>")
    wait_until(lambda: "<b>nobody</b>" in page.one("#preview").text)
    assert page.driver.title == "imagegate console"
    assert page.all("main b b, main script, #list img[src=x]") == []
    assert page.complaints() == []


def test_refusal_is_told_while_typing(page: Page) -> None:
    """A size that no model can make is refused in the preview, with its field marked, before anything is sent."""
    page.open()
    before = len(page.all("#list [data-request]"))
    page.write("model", "tokenlab/gpt-image-2")
    page.write("prompt", "A panorama")
    page.write("size", "8:1")
    wait_until(lambda: page.all("#preview .bad"))
    assert page.one("#size").get_attribute("aria-invalid") == "true"
    page.write("size", "1024x1024")
    wait_until(lambda: page.one("#size").get_attribute("aria-invalid") is None)
    assert len(page.all("#list [data-request]")) == before
    # A request that is refused is answered 400, which the browser notes; nothing else.
    assert [entry for entry in page.complaints() if "status of 400" not in entry["message"]] == []


def test_keyboard(page: Page) -> None:
    """Everything can be reached without a mouse: the prompt, the list, an exchange in it."""
    page.open()
    page.write("model", "tokenlab/gpt-image-2")
    page.write("prompt", "A lighthouse")
    page.press("#send")  # something to look at, whatever ran before
    wait_until(lambda: page.all("#list .head[aria-expanded]"))
    page.open()  # nothing is expanded
    wait_until(lambda: page.all("#list .head[aria-expanded]"))
    page.one("body").send_keys("/")
    assert page.driver.switch_to.active_element.get_attribute("id") == "prompt"
    page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.one("body").send_keys("j")
    head = page.driver.switch_to.active_element
    assert head.get_attribute("aria-expanded") == "false"
    head.send_keys(Keys.ENTER)
    assert head.get_attribute("aria-expanded") == "true"


def test_exchanges_are_filtered(page: Page) -> None:
    """By outcome and by a part of a model's name; both together, also for exchanges that come later."""
    page.open()
    for size in ("1024x1024", "8:1"):
        page.write("model", "tokenlab/gpt-image-2")
        page.write("prompt", f"A lighthouse in {size}")
        page.write("size", size)
        page.press("#send")
        wait_until(lambda size=size: any(f"in {size}" in head.text for head in page.all("#list .prompt1")))

    def shown() -> list[str]:
        return [item.text for item in page.all("#list > li[data-request]:not([hidden])")]

    everything = len(shown())
    Select(page.one("#only-outcome")).select_by_value("invalid")
    assert 0 < len(shown()) < everything
    assert any("in 8:1" in text for text in shown())
    assert not any("in 1024x1024" in text for text in shown())
    Select(page.one("#only-outcome")).select_by_value("")
    page.one("#only-model").send_keys("never-asked-for")
    assert shown() == []
    page.one("#only-model").send_keys(Keys.CONTROL, "a")
    page.one("#only-model").send_keys("GPT-image")
    assert shown()
    page.write("size", "")
    assert [entry for entry in page.complaints() if "status of 400" not in entry["message"]] == []


def test_a_wrong_key_keeps_the_dialog_open(page: Page, keyed: str) -> None:
    """It says what is wrong, and closes with a key that the gateway knows."""
    page.driver.get(f"{keyed}/console")
    wait_until(lambda: page.one("#key-dialog").is_displayed())
    page.one("#key-input").send_keys("wrong", Keys.ENTER)
    wait_until(lambda: "does not know" in page.one("#key-note").text)
    assert page.one("#key-dialog").is_displayed()
    assert page.one("#key-input").get_attribute("aria-invalid") == "true"
    ARTIFACTS.mkdir(exist_ok=True)
    page.driver.save_screenshot(str(ARTIFACTS / "console-key.png"))
    page.write("key-input", CONSOLE_KEY)
    page.press("#key-input")
    wait_until(lambda: not page.one("#key-dialog").is_displayed())
    wait_until(lambda: page.one("#live").text == "Live")
    assert [entry for entry in page.complaints() if "status of 401" not in entry["message"]] == []


def test_what_was_spent(page: Page) -> None:
    """A gateway with a budget shows who has spent what, and one without has nothing to show."""
    page.open()
    assert not page.one("#spending").is_displayed()
    config = Config(
        upstreams=(UpstreamConfig(name="openai", base_url="http://127.0.0.1:9", api_key="sk"),),
        access=AccessConfig(limits=Limits(spend_per_day=5.0)),
        spending=SpendingConfig(reserve=0.5),
        delivery=DeliveryConfig(store="memory://"),
        console=ConsoleConfig(enabled=True),
    )
    with serving(ImageGateway(config=config, hooks=())) as port:
        here = Page(page.driver, f"http://127.0.0.1:{port}")
        here.open()
        httpx.post(f"{here.url}/v1/images/generations", json={"model": "gpt-image-2", "prompt": "x"})
        wait_until(lambda: here.one("#spending").is_displayed())
        here.press("#spending summary")
        wait_until(lambda: "gateway" in here.one("#spending-rows").text)
        assert "0.00 USD" in here.one("#spending-rows").text
        assert here.complaints() == []


def test_every_field_has_a_name(page: Page) -> None:
    """What a screen reader says of each control is not empty."""
    page.open()
    page.driver.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    found = 0
    for part in ("main", "dialog[open]"):
        controls = page.all(
            ", ".join(f"{part} {tag}:not([hidden])" for tag in ("input", "textarea", "select", "button"))
        )
        assert [control.get_attribute("id") for control in controls if not control.accessible_name] == []
        found += len(controls)
        if part == "main":
            page.press("#key-button")
    assert found >= 20
