"""Every client's edit arrives whole: a Chinese file name, a mask left empty, nine megabytes, and one request with its
length at the provider.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import aiohttp
import httpx
import openai
import pytest
import requests
from selenium import webdriver
from tests.wire.edit_support import node_packages
from tests.wire.field_support import CLIENT, EDITS, GOOD, SMALL, Bench, parts_of
from tests.wire.test_field_forms import exchange

NAME = "\u65b0\u5efa \u6587\u4ef6.png"
CONTENT = SMALL + bytes(at * 31 % 251 for at in range(251)) * (9_000_000 // 251)
MODEL, PROMPT = "gpt-image-2", "Make it blue"
FIELDS = {"model": MODEL, "prompt": PROMPT}
KEY = CLIENT["authorization"].removeprefix("Bearer ")
NODE = Path(__file__).parent / "node" / "clients.mjs"
BOUNDARY = "71e9da95-c5e7-4a9b-901a-ededd613dcd4"


def arrived(bench: Bench, name: str | None = NAME) -> None:
    """Check what the provider has of one client, byte for byte."""
    (request,) = bench.first.posts
    assert "transfer-encoding" not in request.headers
    assert bench.first.faults == []
    parts = parts_of(request)
    fields = {part.name: part.content.decode() for part in parts if part.filename is None}
    assert FIELDS.items() <= fields.items()
    (file,) = [part for part in parts if part.filename is not None]
    assert hashlib.sha256(file.content).digest() == hashlib.sha256(CONTENT).digest()
    assert (file.name.removesuffix("[]"), file.media_type) == ("image", "image/png")
    assert name is None or file.filename == name
    bench.first.requests.clear()


@pytest.fixture
def provider(bench: Bench) -> Bench:
    bench.first.post = GOOD
    return bench


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file on disk."""
    file = tmp_path_factory.mktemp("clients") / NAME
    file.write_bytes(CONTENT)
    return file


def test_openai_python(provider: Bench) -> None:
    with openai.OpenAI(base_url=f"{provider.url}/v1", api_key=KEY, max_retries=0) as client:
        client.images.edit(model=MODEL, prompt=PROMPT, image=(NAME, CONTENT, "image/png"))
    arrived(provider)


def test_azure_openai_python(provider: Bench) -> None:
    """The model is in the path, and the key in a header of its own."""
    with openai.AzureOpenAI(
        azure_endpoint=provider.url, api_key=KEY, api_version="2025-04-01-preview", max_retries=0
    ) as client:
        client.images.edit(model=MODEL, prompt=PROMPT, image=(NAME, CONTENT, "image/png"))
    arrived(provider)


def test_httpx(provider: Bench) -> None:
    files = {"image": (NAME, CONTENT, "image/png"), "mask": ("", b"", "application/octet-stream")}
    reply = httpx.post(provider.url + EDITS, data=FIELDS, files=files, headers=CLIENT, timeout=30)
    assert reply.status_code == 200, reply.text
    arrived(provider)


def test_requests(provider: Bench) -> None:
    files = [("image", (NAME, CONTENT, "image/png")), ("mask", ("", b"", "application/octet-stream"))]
    reply = requests.post(provider.url + EDITS, data=FIELDS, files=files, headers=CLIENT, timeout=30)
    assert reply.status_code == 200, reply.text
    arrived(provider)


def test_aiohttp(provider: Bench) -> None:
    async def edit() -> None:
        form = aiohttp.FormData(FIELDS, quote_fields=False)
        form.add_field("image", io.BytesIO(CONTENT), filename=NAME, content_type="image/png")
        form.add_field("mask", io.BytesIO(), filename="", content_type="application/octet-stream")
        async with (
            aiohttp.ClientSession() as session,
            session.post(provider.url + EDITS, data=form, headers=CLIENT) as reply,
        ):
            assert reply.status == 200, await reply.text()

    asyncio.run(edit())
    arrived(provider)


def test_curl(provider: Bench, path: Path) -> None:
    parts = [f"model={MODEL}", f"prompt={PROMPT}", f'image=@"{path}";type=image/png', 'mask=@/dev/null;filename=""']
    command = ["curl", "-sS", "--fail-with-body", "-H", f"authorization: {CLIENT['authorization']}"]
    command += [word for part in parts for word in ("-F", part)]
    done = subprocess.run([*command, provider.url + EDITS], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    arrived(provider)


@pytest.mark.node
def test_node(provider: Bench, path: Path, pytestconfig: pytest.Config) -> None:
    """openai-node, its client for Azure, the AI SDK, which names files itself, and `fetch` with a mask left empty."""
    folder = node_packages(pytestconfig)
    shutil.copy(NODE, folder)
    command = ["node", str(folder / NODE.name), provider.url, KEY, MODEL, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout)
    assert results == dict.fromkeys(("openai-node", "azure-node", "ai-sdk", "fetch"))
    whole = list(provider.first.posts)
    assert len(whole) == len(results)
    for (client, _), request in zip(results.items(), whole, strict=True):
        provider.first.requests[:] = [request]
        arrived(provider, None if client == "ai-sdk" else NAME)


# Stacks whose heads are written here as they send them


def text_part(head: str) -> Callable[[str, str], bytes]:
    return lambda name, value: head.format(name=name, size=len(value)).replace("\n", "\r\n").encode() + value.encode()


Stack = tuple[str, str, str, str, str]
STACKS: dict[str, Stack] = {
    ".NET HttpClient": (
        f'"{BOUNDARY}"',
        "Content-Type: text/plain; charset=utf-8\nContent-Disposition: form-data; name={name}\n\n",
        (
            "Content-Type: image/png\nContent-Disposition: form-data; name=image; "
            f"filename=\"=?utf-8?B?{base64.b64encode(NAME.encode()).decode()}?=\"; filename*=utf-8''{quote(NAME)}\n\n"
        ),
        'Content-Type: application/octet-stream\nContent-Disposition: form-data; name=mask; filename=""\n\n',
        "\r\n",
    ),
    "Apache HttpClient": (
        BOUNDARY,
        (
            'Content-Disposition: form-data; name="{name}"\nContent-Type: text/plain; charset=UTF-8\n'
            "Content-Transfer-Encoding: 8bit\n\n"
        ),
        (
            f'Content-Disposition: form-data; name="image"; filename="{NAME}"\nContent-Type: image/png\n'
            "Content-Transfer-Encoding: binary\n\n"
        ),
        (
            'Content-Disposition: form-data; name="mask"; filename=""\nContent-Type: application/octet-stream\n'
            "Content-Transfer-Encoding: binary\n\n"
        ),
        "\r\n",
    ),
    "OkHttp": (
        BOUNDARY,
        'Content-Disposition: form-data; name="{name}"\nContent-Length: {size}\n\n',
        (
            f'Content-Disposition: form-data; name="image"; filename="{NAME}"\nContent-Type: image/png\n'
            f"Content-Length: {len(CONTENT)}\n\n"
        ),
        (
            'Content-Disposition: form-data; name="mask"; filename=""\nContent-Type: application/octet-stream\n'
            "Content-Length: 0\n\n"
        ),
        "\r\n",
    ),
    "Spring RestTemplate": (
        f"{BOUNDARY};charset=UTF-8",
        (
            'Content-Disposition: form-data; name="{name}"\nContent-Type: text/plain;charset=UTF-8\n'
            "Content-Length: {size}\n\n"
        ),
        (
            'Content-Disposition: form-data; name="image"; filename="=?UTF-8?Q?=E6=96=B0_a.png?="; '
            f"filename*=UTF-8''{quote(NAME)}\nContent-Type: image/png\nContent-Length: {len(CONTENT)}\n\n"
        ),
        (
            'Content-Disposition: form-data; name="mask"; filename=""\nContent-Type: application/octet-stream\n'
            "Content-Length: 0\n\n"
        ),
        "\r\n",
    ),
    "Go mime/multipart": (
        BOUNDARY,
        'Content-Disposition: form-data; name="{name}"\n\n',
        f'Content-Disposition: form-data; name="image"; filename="{NAME}"\nContent-Type: application/octet-stream\n\n',
        'Content-Disposition: form-data; name="mask"; filename=""\nContent-Type: application/octet-stream\n\n',
        "\r\n",
    ),
    "reqwest": (
        BOUNDARY,
        'Content-Disposition: form-data; name="{name}"\n\n',
        f"Content-Disposition: form-data; name=\"image\"; filename*=utf-8''{quote(NAME)}\nContent-Type: image/png\n\n",
        'Content-Disposition: form-data; name="mask"; filename=""\n\n',
        "\r\n",
    ),
    "Guzzle": (
        BOUNDARY,
        'Content-Disposition: form-data; name="{name}"\nContent-Length: {size}\n\n',
        (
            f'Content-Disposition: form-data; name="image"; filename="{NAME}"\nContent-Length: {len(CONTENT)}\n'
            "Content-Type: image/png\n\n"
        ),
        'Content-Disposition: form-data; name="mask"; filename=""\nContent-Length: 0\n\n',
        "\r\n",
    ),
    "undici": (
        BOUNDARY,
        'Content-Disposition: form-data; name="{name}"\n\n',
        f'Content-Disposition: form-data; name="image"; filename="{NAME}"\nContent-Type: image/png\n\n',
        'Content-Disposition: form-data; name="mask"; filename=""\nContent-Type: application/octet-stream\n\n',
        "",
    ),
}


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("has_mask", [True, False], ids=["empty mask", "no mask"])
def test_other_stacks(provider: Bench, name: str, has_mask: bool) -> None:
    boundary, text, file, mask, end = STACKS[name]
    parts = [text_part(text)(field, value) for field, value in FIELDS.items()]
    parts.append(file.replace("\n", "\r\n").encode() + CONTENT)
    parts += [mask.replace("\n", "\r\n").encode()] if has_mask else []
    body = b"".join(f"--{BOUNDARY}\r\n".encode() + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--{end}".encode()
    head = (
        f"POST {EDITS} HTTP/1.1\r\nHost: gateway.example\r\nContent-Type: multipart/form-data; boundary={boundary}\r\n"
        f"Content-Length: {len(body)}\r\nAuthorization: {CLIENT['authorization']}\r\n\r\n"
    )
    status, answer = exchange(provider.url, head.encode() + body)
    assert status == 200, answer
    arrived(provider)


# Browsers

SCRIPT = """
const [url, key, head, name, model, prompt, done] = arguments;
document.body.innerHTML =
  "<form><input name=model><input name=prompt><input type=file name=image><input type=file name=mask></form>";
const form = document.forms[0];
form.model.value = model;
form.prompt.value = prompt;
const start = Uint8Array.from(atob(head), (sign) => sign.charCodeAt(0));
const bytes = new Uint8Array(start.length + 251 * Math.floor(9000000 / 251));
bytes.set(start);
for (let at = 0; start.length + at < bytes.length; at++) bytes[start.length + at] = ((at % 251) * 31) % 251;
const files = new DataTransfer();
files.items.add(new File([bytes], name, { type: "image/png" }));
form.image.files = files.files;
fetch(url, { method: "POST", body: new FormData(form), headers: { authorization: key } })
  .then(async (reply) => done([reply.status, await reply.text()]), (error) => done([0, String(error)]));
"""


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.mark.chromium
@pytest.mark.skipif(
    shutil.which("chromium") is None or shutil.which("chromedriver") is None,
    reason="Chromium or ChromeDriver is not installed",
)
def test_form_data_in_chromium(provider: Bench, browser: webdriver.Chrome) -> None:
    """A form with a file input left empty, as a page sends it."""
    browser.get(f"{provider.url}/v1/models")
    start = base64.b64encode(SMALL).decode()
    arguments = (provider.url + EDITS, CLIENT["authorization"], start, NAME, MODEL, PROMPT)
    status, text = browser.execute_async_script(SCRIPT, *arguments)
    assert status == 200, text
    arrived(provider)
