"""References, masks, code and filters of the console in a real Chromium, before a provider that keeps what it gets."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.telemetry.browser import CHROMIUM, Page
from tests.telemetry.support import BASE64, wait_until

from imagegate import Config, ImageGateway
from imagegate.config.schema import AccessConfig, ConsoleConfig, DeliveryConfig, UpstreamConfig
from imagegate.demo.servers import serving

pytestmark = CHROMIUM

ALICE, BOB = "alices-key-4f1d90c2", "bobs-key-b7720e51"
ARTIFACTS = Path(os.environ.get("ARTIFACTS", Path(__file__).parents[2] / "artifacts"))
PROMPT = 'It\'s a "cat"; $HOME `id` \\ @file\n<second> line, ünïcode'
"""What a shell, a form of curl and a program each would read as something else, were it not quoted."""

Part = tuple[str, str, str, bytes]
"""Name, filename, media type and content of a part."""


@dataclass
class Keeping:
    """A provider that keeps bodies: a list of parts, or what the JSON says."""

    bodies: list[Any] = field(default_factory=list[Any])

    async def answer(self, request: Request) -> Response:
        if request.headers["content-type"] == "application/json":
            self.bodies.append(await request.json())
        else:
            parts: list[Part] = []
            async with request.form() as form:
                for name, value in form.multi_items():
                    if isinstance(value, str):
                        parts.append((name, "", "", value.encode()))
                    else:
                        parts.append((name, value.filename or "", value.content_type or "", await value.read()))
            self.bodies.append(parts)
        return JSONResponse({"created": 1, "data": [{"b64_json": BASE64}]})

    def app(self) -> Starlette:
        paths = ("/v1/images/generations", "/v1/images/edits")
        return Starlette(routes=[Route(path, self.answer, methods=["POST"]) for path in paths])


@dataclass(frozen=True)
class Playground:
    page: Page
    provider: Keeping
    url: str

    def post(self, key: str, model: str, prompt: str = "A lighthouse") -> int:
        headers = {"authorization": f"Bearer {key}"}
        body = {"model": model, "prompt": prompt}
        return httpx.post(f"{self.url}/v1/images/generations", json=body, headers=headers).status_code

    def send(self) -> Any:
        """Sends what the form has, and returns what the provider got."""
        before = len(self.provider.bodies)
        self.page.one("#prompt").send_keys(Keys.CONTROL, Keys.ENTER)
        wait_until(lambda: self.page.one("#note").text.startswith("Done"), what=lambda: self.page.one("#note").text)
        assert len(self.provider.bodies) == before + 1
        return self.provider.bodies[-1]

    def run(self, *command: str, folder: Path) -> Any:
        """Runs a copy of the code that the page shows, and returns what the provider got."""
        before = len(self.provider.bodies)
        variables = {**os.environ, "IMAGEGATE_API_KEY": ALICE}
        done = subprocess.run(
            command, cwd=folder, env=variables, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, len(self.provider.bodies)) == (0, before + 1), done.stderr + done.stdout[:500]
        return self.provider.bodies[-1]

    def code(self, language: str) -> str:
        """What the playground shows."""
        details = self.page.one("#code details")
        if details.get_attribute("open") is None:
            self.page.press("#code summary")
            wait_until(lambda: details.get_attribute("open") is not None)
        (button,) = (button for button in self.page.all("#code button") if button.text == language)
        self.page.press(button)
        wait_until(lambda: button.get_attribute("aria-pressed") == "true")
        return str(self.page.one("#code pre").get_property("textContent"))


@pytest.fixture(scope="module")
def everything(browser: Page) -> Iterator[Playground]:
    """A gateway with two keys and two upstreams, which one provider is behind."""
    provider = Keeping()
    with serving(provider.app()) as port:
        base = f"http://127.0.0.1:{port}"
        config = Config(
            upstreams=(
                UpstreamConfig(name="openai", base_url=base, api_key="sk-upstream"),
                UpstreamConfig(name="spare", adapter="openai", base_url=base, api_key="sk-upstream"),
            ),
            access=AccessConfig(keys=(ALICE, BOB), names=("alice", "bob")),
            delivery=DeliveryConfig(store="memory://"),
            console=ConsoleConfig(enabled=True, operators=("alice",)),
        )
        with serving(ImageGateway(config=config, hooks=(), alone=True)) as bound:
            browser.url = f"http://127.0.0.1:{bound}"
            browser.open_with(ALICE)
            browser.complaints()  # of answers without the key
            yield Playground(browser, provider, browser.url)


@pytest.fixture
def playground(everything: Playground) -> Playground:
    """The page as it is when it has just been opened."""
    everything.page.url = everything.url
    everything.page.open()
    everything.page.write("model", "openai/gpt-image-1.5")
    return everything


def picture(path: Path, color: tuple[int, int, int], size: tuple[int, int] = (300, 200), **options: Any) -> Path:
    Image.new("RGB", size, color).save(path, **options)
    return path


def look(page: Page, name: str) -> None:
    """Keeps a picture of the page for people."""
    ARTIFACTS.mkdir(exist_ok=True)
    assert page.driver.save_screenshot(str(ARTIFACTS / f"console-{name}.png"))


def test_edit(playground: Playground, tmp_path: Path) -> None:
    """Two references and a drawn mask arrive byte for byte; its curl and its program send the same once more."""
    page = playground.page
    files = [picture(tmp_path / "a.png", (200, 30, 30)), picture(tmp_path / 'it\'s "b".jpg', (20, 90, 200))]
    page.driver.execute_script("arguments[0].value = arguments[1]", page.one("#prompt"), PROMPT)
    page.driver.execute_script('document.getElementById(\'more\').value = \'{"background": "opaque", "n": 1}\'')
    page.one("#reference-files").send_keys("\n".join(map(str, files)))
    page.press("#mask-draw")
    canvas = page.one("#mask-canvas")
    wait_until(canvas.is_displayed)
    middle = ActionChains(page.driver, duration=0).move_to_element(canvas).click_and_hold()
    middle.move_by_offset(60, 0).move_by_offset(0, 20).release().perform()
    wait_until(lambda: "% is marked" in page.one("#mask-status").text)
    look(page, "mask")
    page.press("#mask-use")
    wait_until(lambda: "mask.png" in page.one("#reference-list").text)
    wait_until(lambda: page.one("#preview").text.count("mask.png") == 2, what=lambda: page.one("#preview").text)
    assert page.one("#preview").text.count("a.png (") == 2  # asked and sent
    assert not any(row.text.startswith("mask") for row in page.all("#preview tr.changed"))
    assert page.one("#preview .where code").text.endswith("/v1/images/edits")
    sent: list[Part] = playground.send()
    wait_until(lambda: page.all("#list [aria-expanded=true]"))
    look(page, "edit")
    parts = {name: [part for part in sent if part[0] == name] for name, *_ in sent}
    assert [content for *_, content in parts["image[]"]] == [file.read_bytes() for file in files]
    assert parts["prompt"][0][3] == PROMPT.encode()
    ((_, filename, media_type, content),) = parts["mask"]
    mask = Image.open(io.BytesIO(content))
    assert (filename, media_type, mask.format, mask.size, mask.mode) == (
        "mask.png",
        "image/png",
        "PNG",
        (300, 200),
        "RGBA",
    )
    alpha = mask.getchannel("A")
    assert {alpha.getpixel(place) for place in ((150, 100), (160, 100))} == {0}
    assert {alpha.getpixel(place) for place in ((0, 0), (299, 0), (0, 199), (299, 199))} == {255}
    assert {value for _, value in alpha.getcolors() or []} == {0, 255}
    (tmp_path / "mask.png").write_bytes(content)
    for language, command in (("curl", ["bash", "-c"]), ("Python", [sys.executable, "-c"])):
        code = playground.code(language)
        assert ALICE not in code
        assert "IMAGEGATE_API_KEY" in code
        again = playground.run(*command, code, folder=tmp_path)
        assert sorted(again) == sorted(sent), language
    assert ALICE not in str(page.one("#list").get_property("textContent"))
    assert page.one("#list .code summary").is_displayed()
    assert page.complaints() == []


def test_code_of_a_generation(playground: Playground, tmp_path: Path) -> None:
    """Whatever is in it, the command and the program send the same JSON, and Copy takes the whole of it."""
    page = playground.page
    page.driver.execute_script("arguments[0].value = arguments[1]", page.one("#prompt"), PROMPT)
    more = '{"background": "transparent", "user": "o\'brien", "output_compression": null}'
    page.driver.execute_script("arguments[0].value = arguments[1]", page.one("#more"), more)
    page.write("size", "1024x1024")
    sent = playground.send()
    assert sent["prompt"] == PROMPT
    for language, command in (("curl", ["bash", "-c"]), ("Python", [sys.executable, "-c"])):
        assert playground.run(*command, playground.code(language), folder=tmp_path) == sent
    page.driver.execute_script("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.press(page.all("#code button")[-1])
    wait_until(lambda: page.one("#code [role=status]").text == "Copied")
    assert page.driver.execute_script("return window.copied") == playground.code("Python")


def test_references_by_keyboard_paste_and_drop(playground: Playground, tmp_path: Path) -> None:
    """Names stay apart, the order can be changed, and a mask is drawn with keys on the picture as the file has it."""
    page = playground.page
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(tmp_path / "turned.jpg", (9, 120, 40), (240, 120), exif=turned)
    page.one("#reference-files").send_keys(str(tmp_path / "turned.jpg"))
    content = list(picture(tmp_path / "image.png", (1, 2, 3)).read_bytes())
    page.driver.execute_script(
        """for (const name of ["paste", "drop", "drop"]) {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(arguments[0])], "image.png", { type: "image/png" }));
          const options = { bubbles: true, cancelable: true, clipboardData: data, dataTransfer: data };
          const Kind = name === "paste" ? ClipboardEvent : DragEvent;
          document.body.dispatchEvent(new Kind(name, options));
        }""",
        content,
    )
    names = [item.text for item in page.all("#reference-list .name")]
    assert names == ["turned.jpg", "image.png", "image-2.png", "image-3.png"]
    remove = page.all("#reference-list .remove")[1]
    assert remove.accessible_name == "Remove image.png"
    remove.send_keys(Keys.ENTER)
    assert page.driver.switch_to.active_element.accessible_name == "Remove image-2.png"
    page.press("#mask-draw")
    canvas = page.one("#mask-canvas")
    wait_until(canvas.is_displayed)
    assert [canvas.get_property(name) for name in ("width", "height")] == [240, 120]
    controls = page.all("dialog[open] input, dialog[open] button, dialog[open] canvas[tabindex]")
    assert all(control.accessible_name for control in controls)
    assert "Nothing" in page.one("#mask-status").text
    page.press("#mask-use")
    assert canvas.is_displayed()
    canvas.send_keys(Keys.SPACE, *[Keys.ARROW_RIGHT] * 4, Keys.SPACE, Keys.ARROW_DOWN)
    wait_until(lambda: "is marked" in page.one("#mask-status").text)
    assert "Nothing" not in page.one("#mask-status").text
    canvas.send_keys(Keys.ESCAPE)
    wait_until(lambda: not canvas.is_displayed())
    assert len(page.all("#reference-list li")) == 3
    page.press("#mask-draw")
    wait_until(canvas.is_displayed)
    page.press("#mask-everything")
    wait_until(lambda: "100 %" in page.one("#mask-status").text)
    page.press("#mask-erase")
    canvas.send_keys(Keys.SPACE, Keys.ARROW_LEFT, Keys.SPACE)
    page.press("#mask-use")
    wait_until(lambda: "drawn" in page.one("#reference-list").text)
    page.press("#reference-list button[aria-label^='Make image-2.png']")
    assert "drawn" not in page.one("#reference-list").text
    assert "is removed" in page.one("#reference-note").text
    assert page.complaints() == []


def test_narrow(playground: Playground, tmp_path: Path) -> None:
    """Nothing is wider than a window of 320 pixels, whatever is open, and the dark has everything too."""
    page = playground.page
    page.one("#reference-files").send_keys(str(picture(tmp_path / f"{'long-name-' * 9}.png", (200, 30, 30))))
    playground.code("curl")
    playground.post(ALICE, "openai/gpt-image-1.5", "A lighthouse " * 9)
    wait_until(lambda: page.all("#list .head[aria-expanded]"))
    try:
        page.width(320)
        page.scheme("dark")
        page.press("#list .head[aria-expanded]")
        assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 320
        page.driver.execute_script("scrollTo(0, 0)")
        look(page, "320")
        page.driver.execute_script("document.querySelector('#reference-list').scrollIntoView()")
        look(page, "320-references")
        page.driver.execute_script("document.querySelector('.exchanges').scrollIntoView()")
        look(page, "320-exchanges")
        page.press("#mask-draw")
        wait_until(page.one("#mask-canvas").is_displayed)
        dialog = page.one("#mask-dialog")
        assert dialog.get_property("scrollWidth") <= dialog.get_property("clientWidth") <= 320
        look(page, "320-mask")
        page.one("#mask-canvas").send_keys(Keys.ESCAPE)
    finally:
        page.width(0)
        page.scheme("light")


@pytest.mark.parametrize("focused", [True, False])
def test_its_place_is_kept(playground: Playground, *, focused: bool) -> None:
    """What is read stays where it is, opened and focused, while new exchanges arrive above."""
    page = playground.page
    for number in range(14):
        playground.post(ALICE, "openai/gpt-image-1.5", f"Reader {focused} {number}")
    wait_until(lambda: f"Reader {focused} 13" in page.one("#list").text)
    head = page.all("#list .head[aria-expanded]")[11]
    request_id = page.all("#list [data-request]")[11].get_attribute("data-request")
    if focused:
        head.send_keys(Keys.ENTER)
    page.driver.execute_script("arguments[0].scrollIntoView({ block: 'center' })", head)

    def top() -> float:
        return float(page.driver.execute_script("return arguments[0].getBoundingClientRect().top", head))

    before = top()
    for number in range(3):
        playground.post(BOB, "openai/gpt-image-1.5", f"Newcomer {focused} {number}")
    wait_until(lambda: f"Newcomer {focused} 2" in page.one("#list").text)
    assert abs(top() - before) <= 1
    assert page.one(f"[data-request='{request_id}'] .head").get_attribute("aria-expanded") == str(focused).lower()
    assert (page.driver.switch_to.active_element == head) is focused


def test_filters(playground: Playground) -> None:
    """By upstream and by key, together, those that are there and those that come; a button shows all again."""
    page = playground.page
    for key, model in ((ALICE, "openai/gpt-image-1.5"), (BOB, "openai/gpt-image-1.5"), (BOB, "spare/gpt-image-1.5")):
        assert playground.post(key, model) == 200
    wait_until(lambda: len(page.all("#only-upstream option")) == 3 and len(page.all("#only-key option")) == 3)

    def shown() -> set[tuple[str, str]]:
        visible = "[...state.shown.values()].filter(({ item }) => item.checkVisibility())"
        pairs = page.driver.execute_script(f"return {visible}.map(({{ entry }}) => [entry.upstream, entry.key])")
        return {(upstream, key) for upstream, key in pairs}

    assert shown() == {("openai", "alice"), ("openai", "bob"), ("spare", "bob")}
    Select(page.one("#only-key")).select_by_value("bob")
    assert shown() == {("openai", "bob"), ("spare", "bob")}
    Select(page.one("#only-upstream")).select_by_value("openai")
    assert shown() == {("openai", "bob")}
    there = page.one("#filter-note").text
    playground.post(ALICE, "spare/gpt-image-1.5")
    wait_until(lambda: page.one("#filter-note").text != there)
    assert shown() == {("openai", "bob")}
    page.press("#filter-clear")
    assert len(shown()) == 4
    assert page.complaints() == []
