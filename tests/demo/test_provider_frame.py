"""What all stand-ins have in common: keys, recording, unknown paths, pictures in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from tests.demo.support import client_of, error_of, image_part

from imagegate.demo.providers import onetoken, toapis, tokenbay, tokenlab, tokmodel
from imagegate.demo.providers.common import flexible_size, nearest_ratio, parse_pixels, parse_ratio
from imagegate.demo.providers.gallery import Gallery, PictureCache, PictureOrder
from imagegate.demo.providers.incoming import Recorder

Create = Callable[..., Starlette]
CREATORS: dict[str, Create] = {
    "tokmodel": tokmodel.create_app,
    "tokenbay": tokenbay.create_app,
    "tokenlab": tokenlab.create_app,
    "toapis": toapis.create_app,
    "onetoken": onetoken.create_app,
}
SLASH = {"onetoken": "/"}
MODEL = {"tokmodel": "openai/dall-e-3", "toapis": "gpt-image-2"}
INVALID_KEY: dict[str, dict[str, Any]] = {
    "tokmodel": {"type": "invalid_request_error", "param": None, "code": "invalid_api_key"},
    "tokenbay": {"type": "authentication_error", "code": "invalid_api_key"},
    "tokenlab": {"type": "invalid_api_key", "code": "invalid_api_key"},
    "toapis": {"type": "authentication_error", "code": 401},
    "onetoken": {"type": "new_api_error", "param": "", "code": ""},
}
NO_KEY = {**INVALID_KEY, "tokmodel": {**INVALID_KEY["tokmodel"], "code": None}, "tokenlab": {"type": "unauthorized"}}

every_provider = pytest.mark.parametrize("name", CREATORS)


def path_of(name: str) -> str:
    return "/v1/images/generations" + SLASH.get(name, "")


@every_provider
@pytest.mark.parametrize(("key", "expected"), [("sk-other", INVALID_KEY), ("", NO_KEY)])
def test_a_wrong_key_is_401_in_the_provider_s_dialect(name: str, key: str, expected: dict[str, Any]) -> None:
    """Wrong and missing keys are refused with the provider's own members, and never repeated."""
    response = client_of(CREATORS[name](), key=key).post(path_of(name), json={})
    assert response.status_code == 401
    error = error_of(response)
    assert error.pop("message")
    assert expected[name] == error
    assert "sk-other" not in response.text


@every_provider
def test_an_unknown_path_is_404_in_the_provider_s_dialect(name: str) -> None:
    """A path that the provider does not have is an error object, not a redirect or a plain text."""
    response = client_of(CREATORS[name]()).post("/v1/images/nothing", json={})
    assert response.status_code == 404
    assert error_of(response)["message"]


@every_provider
def test_requests_are_recorded(name: str) -> None:
    """The app keeps method, path, lower-case headers and the JSON body, refused or not."""
    app = CREATORS[name]()
    body = {"model": "gpt-image-2", "prompt": "forbidden", "size": "9x9"}
    client_of(app).post(path_of(name), json=body, headers={"X-Mark": "1"})
    client_of(app).get("/nowhere")
    first, second = app.state.received
    assert ("POST", path_of(name), body) == (first.method, first.path, first.json)
    assert first.headers["x-mark"] == "1"
    assert (second.method, second.path, second.json) == ("GET", "/nowhere", None)
    assert app.state.requests_seen == 2


@every_provider
def test_each_reply_has_the_provider_s_request_id(name: str) -> None:
    """The reply header with the provider's own request id is there for errors too."""
    response = client_of(CREATORS[name]()).post(path_of(name), json={})
    assert response.headers.get("x-request-id") or response.headers["x-oneapi-request-id"]


@every_provider
@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b'"text"', b"[" * 100_000])
def test_a_body_that_is_no_object_is_400(name: str, content: bytes) -> None:
    """Empty, broken, nested and other JSON gets an error object."""
    headers = {"content-type": "application/json"}
    response = client_of(CREATORS[name]()).post(path_of(name), content=content, headers=headers)
    assert response.status_code == 400
    assert error_of(response)["message"]


@every_provider
def test_a_form_without_boundary_is_400(name: str) -> None:
    """A form that cannot be parsed gets an error object."""
    headers = {"content-type": "multipart/form-data"}
    response = client_of(CREATORS[name]()).post(path_of(name), content=b"--x\r\n", headers=headers)
    assert response.status_code == 400
    assert error_of(response)["message"]


def test_form_parts_are_recorded_in_order() -> None:
    """Names, file names, types and sizes of parts are kept as they came."""
    app = tokenbay.create_app()
    data = {"model": "gpt-image-2", "prompt": "a hat"}
    client_of(app).post("/v1/images/edits", data=data, files=[image_part("image[]"), image_part("mask")])
    parts = app.state.received[0].parts
    assert [part.name for part in parts] == ["model", "prompt", "image[]", "mask"]
    assert [part.text for part in parts] == ["gpt-image-2", "a hat", None, None]
    assert (parts[2].filename, parts[2].content_type) == ("source.png", "image/png")
    assert app.state.received[0].json is None


def test_the_record_is_bounded() -> None:
    """The oldest requests go when there are too many, or when their JSON is too large."""
    app = Starlette()
    app.state.received, app.state.requests_seen = [], 0
    app.add_middleware(Recorder, state=app.state, kept_requests=3, kept_bytes=2000)
    for number in range(5):
        client_of(app).post("/v1/images/generations", json={"number": number})
    assert [request.json["number"] for request in app.state.received] == [2, 3, 4]
    client_of(app).post("/v1/images/generations", json={"number": 5, "filler": "x" * 1990})
    assert [request.json["number"] for request in app.state.received] == [5]
    assert app.state.requests_seen == 6


@pytest.mark.parametrize("name", ["tokmodel", "tokenlab"])
def test_links_lead_to_the_host_that_was_asked(name: str) -> None:
    """URLs carry the scheme and the Host of the request, as the app does not know its own address."""
    app = CREATORS[name]()
    body = {"model": MODEL.get(name, "dall-e-3"), "prompt": "a cat"}
    headers = {"host": "127.0.0.1:9001"}
    url = client_of(app).post(path_of(name), json=body, headers=headers).json()["data"][0]["url"]
    assert url.startswith("http://127.0.0.1:9001/cdn/images/generated/")


def test_links_expire() -> None:
    """A link works for its lifetime and is a CDN's plain 404 afterwards."""
    order = PictureOrder("p", "m", "a cat", 16, 16)
    lasting, expired = Gallery("/cdn", lifetime=60), Gallery("/cdn", lifetime=-1)
    assert lasting.has(lasting.link(order))
    app = Starlette(routes=[expired.route])
    response = client_of(app).get(expired.link(order))
    assert (response.status_code, response.text) == (404, "Not Found")


def test_uploads_are_bounded() -> None:
    """The oldest uploads are forgotten beyond the limit, the newest never."""
    album = Gallery("/files", lifetime=60, kept_upload_bytes=10)
    first, second = album.keep(b"12345678", "image/png"), album.keep(b"12345678", "image/png")
    assert (album.has(first), album.has(second)) == (False, True)


def test_the_picture_cache_is_bounded() -> None:
    """The cache never holds more than its limit, and drops what was used longest ago."""
    cache = PictureCache(10)
    first, second, third = (PictureOrder("p", "m", prompt, 1, 1) for prompt in "abc")
    cache.put(first, b"1234")
    cache.put(second, b"1234")
    assert cache.get(first) == b"1234"
    cache.put(third, b"1234")
    cache.put(third, b"1234")
    assert (cache.get(second), cache.held) == (None, 8)
    cache.put(second, b"12345678901")
    assert cache.get(second) is None


@pytest.mark.parametrize("text", ["1024X1024", "1024*1024", " 1024x1024", "0x0", "1e3x1e3", "١٠٢٤x1024", "9" * 400])
def test_only_plain_pixel_sizes_are_read(text: str) -> None:
    """Providers take WIDTHxHEIGHT in ASCII digits and nothing looser."""
    assert parse_pixels(text) is None


def test_ratios_are_read() -> None:
    """Ratios have ASCII numbers on both sides, decimals allowed, zero not."""
    assert (parse_ratio("16:9"), parse_ratio("19.5:9")) == (16 / 9, 19.5 / 9)
    assert [parse_ratio(text) for text in ("1:0", "0:1", "16/9", "16:9:1", "1:")] == [None] * 5


def test_the_nearest_ratio_is_fair_to_portraits() -> None:
    """A size and its portrait twin map to twin ratios."""
    assert tuple(nearest_ratio(*size, ("1:1", "16:9", "9:16")) for size in ((7, 4), (4, 7))) == ("16:9", "9:16")


@pytest.mark.parametrize("size", [None, "auto"])
def test_no_size_is_legal(size: str | None) -> None:
    """Auto and null mean that the model chooses."""
    assert flexible_size({"size": size}) is None
