"""Input that is wrong, huge or malicious: an error as OpenAI words it, and no provider hears of it."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tests.conftest import Running, running_product
from tests.wire.edit_support import posted_to

PATH = "/v1/images/generations"
GOOD = {"model": "tokmodel/openai/dall-e-2", "prompt": "A kite", "size": "256x256"}
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The whole product, with providers of its own, whose requests are counted."""
    with running_product(tmp_path_factory.mktemp("hostile")) as product:
        yield product


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=60) as client:
        yield client


@pytest.fixture(autouse=True)
def no_provider_hears_of_it(running: Running, request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test that is not harmless: no provider has received anything."""
    with posted_to(running) as posts:
        yield
    if "harmless" not in request.fixturenames:
        assert posts == {}


@pytest.fixture
def harmless() -> None:
    """Names a test that may reach a provider."""


def error_of(reply: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer, which must be in OpenAI's envelope with its four keys."""
    assert reply.status_code == status, reply.text[:500]
    assert reply.headers["content-type"] == "application/json"
    assert int(reply.headers["content-length"]) == len(reply.content)
    assert reply.headers["x-request-id"]
    assert set(reply.json()) == {"error"}
    error: dict[str, Any] = reply.json()["error"]
    assert list(error)[:4] == ["message", "type", "param", "code"]
    assert set(error) - {"message", "type", "param", "code", "imagegate"} == set()
    assert error["message"]
    assert len(error["message"]) < 2000
    return error


NOT_JSON = {
    "empty": b"",
    "white space": b"  \n",
    "cut": b'{"model": "tokmodel/openai/dall-e-2", "prompt": "A ki',
    "trailing comma": b'{"model": "m", "prompt": "p",}',
    "two documents": b'{"model": "m", "prompt": "p"}{}',
    "single quotes": b"{'model': 'm', 'prompt': 'p'}",
    "comment": b'{"model": "m", "prompt": "p"} // ',
    "array": b'[{"model": "m", "prompt": "p"}]',
    "string": b'"model"',
    "null": b"null",
    "number": b"1",
    "byte order mark": b'\xef\xbb\xbf{"model": "m", "prompt": "p"}',
    "utf-16": '{"model": "m", "prompt": "p"}'.encode("utf-16"),
    "latin-1": b'{"model": "m", "prompt": "caf\xe9"}',
    "overlong utf-8": b'{"model": "m", "prompt": "\xc0\xaf"}',
    "lone surrogate": b'{"model": "m", "prompt": "\\ud800"}',
    "lone surrogate in a name": b'{"model": "m", "prompt": "p", "\\udfff": 1}',
    "control character": b'{"model": "m", "prompt": "a\nb"}',
    "NaN": b'{"model": "m", "prompt": "p", "n": NaN}',
    "Infinity": b'{"model": "m", "prompt": "p", "x": -Infinity}',
    "1e999": b'{"model": "m", "prompt": "p", "x": 1e999}',
    "long integer": b'{"model": "m", "prompt": "p", "n": ' + b"9" * 5000 + b"}",
    "2**63": b'{"model": "m", "prompt": "p", "seed": 9223372036854775808}',
    "deep array": b'{"model": "m", "prompt": "p", "x": ' + b"[" * 100 + b"]" * 100 + b"}",
    "very deep array": b'{"model": "m", "prompt": "p", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep object": b'{"model": "m", "prompt": "p", "x": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "duplicate model": b'{"model": "m", "prompt": "p", "model": "n"}',
    "duplicate prompt": b'{"prompt": "p", "model": "m", "prompt": "q"}',
    "duplicate in another spelling": b'{"model": "m", "prompt": "p", "pr\\u006fmpt": "q"}',
    "duplicate n, both the same": b'{"model": "m", "prompt": "p", "n": 1, "n": 1}',
    "nested duplicate": b'{"model": "m", "prompt": "p", "metadata": {"a": 1, "a": 2}}',
    "url-encoded": b"model=m&prompt=p",
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_bad_json(client: httpx.Client, body: bytes) -> None:
    """What is no single strict JSON object is a 400 that names no field."""
    error = error_of(client.post(PATH, content=body, headers={"content-type": "application/json"}), 400)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "invalid_json")


WRONG = [
    ({"model": None}, "model", "invalid_type"),
    ({"model": 1}, "model", "invalid_type"),
    ({"model": ["m"]}, "model", "invalid_type"),
    ({"model": ""}, "model", "invalid_value"),
    ({"model": " \n"}, "model", "invalid_value"),
    ({"prompt": None}, "prompt", "invalid_type"),
    ({"prompt": 5}, "prompt", "invalid_type"),
    ({"prompt": {"text": "A kite"}}, "prompt", "invalid_type"),
    ({"prompt": ["A kite"]}, "prompt", "invalid_type"),
    ({"prompt": ""}, "prompt", "empty_string"),
    ({"prompt": "x" * 33_000}, "prompt", "string_above_max_length"),
    ({"prompt": "\U0001fa81" * 33_000}, "prompt", "string_above_max_length"),
    ({"n": "1"}, "n", "invalid_type"),
    ({"n": 1.0}, "n", "invalid_type"),
    ({"n": True}, "n", "invalid_type"),
    ({"n": [1]}, "n", "invalid_type"),
    ({"n": 0}, "n", "integer_below_min_value"),
    ({"n": -3}, "n", "integer_below_min_value"),
    ({"n": 11}, "n", "integer_above_max_value"),
    ({"n": 2**62}, "n", "integer_above_max_value"),
    ({"size": 1024}, "size", "invalid_type"),
    ({"size": {}}, "size", "invalid_type"),
    ({"size": ["1024x1024"]}, "size", "invalid_type"),
    ({"size": ""}, "size", "invalid_value"),
    ({"size": "0x0"}, "size", "invalid_value"),
    ({"size": "1024x"}, "size", "invalid_value"),
    ({"size": "-1024x1024"}, "size", "invalid_value"),
    ({"size": "1024x1024x1024"}, "size", "invalid_value"),
    ({"size": "１０２４x１０２４"}, "size", "invalid_value"),
    ({"size": "1024x1024\n"}, "size", "invalid_value"),
    ({"size": "0:0"}, "size", "invalid_value"),
    ({"size": "1:0"}, "size", "invalid_value"),
    ({"size": "nan:1"}, "size", "invalid_value"),
    ({"size": "0K"}, "size", "invalid_value"),
    ({"size": "1" * 10_000}, "size", "string_above_max_length"),
    ({"size": "9" * 5_000 + "x" + "9" * 4_999}, "size", "string_above_max_length"),
    ({"aspect_ratio": "1:" + "1" * 10_000}, "aspect_ratio", "string_above_max_length"),
    ({"aspect_ratio": 1.5}, "aspect_ratio", "invalid_type"),
    ({"aspect_ratio": "wide"}, "aspect_ratio", "invalid_value"),
    ({"resolution": ["4k"]}, "resolution", "invalid_type"),
    ({"resolution": "huge"}, "resolution", "invalid_value"),
    ({"quality": 5}, "quality", "invalid_type"),
    ({"background": True}, "background", "invalid_type"),
    ({"background": "transparent"}, "background", "invalid_value"),
    ({"response_format": "png"}, "response_format", "invalid_value"),
    ({"response_format": 1}, "response_format", "invalid_type"),
    ({"response_format": "URL"}, "response_format", "invalid_value"),
    ({"output_format": ["png"]}, "output_format", "invalid_type"),
    ({"output_compression": 101}, "output_compression", "integer_above_max_value"),
    ({"output_compression": "80"}, "output_compression", "invalid_type"),
    ({"partial_images": 4}, "partial_images", "integer_above_max_value"),
    ({"stream": "true"}, "stream", "invalid_type"),
    ({"stream": 1}, "stream", "invalid_type"),
    ({"style": {}}, "style", "invalid_type"),
    ({"user": 5}, "user", "invalid_type"),
    ({"safety_identifier": []}, "safety_identifier", "invalid_type"),
    ({"moderation": 0}, "moderation", "invalid_type"),
    ({"mask": "https://example.com/mask.png"}, "mask", "unsupported_parameter"),
    ({"mask_url": "https://example.com/mask.png"}, "mask_url", "unsupported_parameter"),
    ({"image_url": "https://example.com/a.png"}, "image_url", "unsupported_parameter"),
    ({"image_urls": ["https://example.com/a.png"]}, "image_urls", "unsupported_parameter"),
]


@pytest.mark.parametrize(("change", "param", "code"), WRONG, ids=[json.dumps(change)[:40] for change, _, _ in WRONG])
def test_wrong_values(client: httpx.Client, change: dict[str, Any], param: str, code: str) -> None:
    """A member of the wrong type or value is a 400 that names it, in OpenAI's words."""
    error = error_of(client.post(PATH, json={**GOOD, **change}), 400)
    assert (error["param"], error["code"]) == (param, code)
    assert error["type"] in ("invalid_request_error", "image_generation_user_error")


@pytest.mark.parametrize("name", ["model", "prompt"])
def test_missing_members(client: httpx.Client, name: str) -> None:
    """A body without model or prompt is a 400 that says which is missing."""
    error = error_of(client.post(PATH, json={key: value for key, value in GOOD.items() if key != name}), 400)
    assert (error["param"], error["code"]) == (name, "missing_required_parameter")


# Members that only some models have, with values of the wrong JSON type.
@pytest.mark.parametrize(
    ("model", "change", "param"),
    [
        ("toapis/gemini-3-pro-image-preview", {"metadata": "x"}, "metadata"),
        ("toapis/gemini-3-pro-image-preview", {"metadata": ["x"], "size": "2048x2048"}, "metadata"),
        ("toapis/gemini-3-pro-image-preview", {"metadata": "x", "size": "2048x2048"}, "metadata"),
        ("toapis/gemini-3-pro-image-preview", {"metadata": 5, "size": "2048x2048"}, "metadata"),
        ("toapis/seedream-4-5", {"metadata": True, "size": "2K"}, "metadata"),
        ("toapis/seedream-4-5", {"watermark": "yes"}, "watermark"),
        ("tokenlab/flux-pro", {"seed": "7"}, "seed"),
        ("tokenlab/flux-pro", {"async": "true"}, "async"),
        ("tokenlab/flux-pro", {"image_url": 5}, "image_url"),
        ("tokenlab/flux-pro", {"image_url": ""}, "image_url"),
        ("tokenlab/flux-pro", {"image_urls": {"a": "b"}}, "image_urls"),
        ("tokenlab/flux-pro", {"image_urls": [None]}, "image_urls"),
        ("tokenlab/flux-pro", {"image_urls": [["https://example.com/a.png"]]}, "image_urls"),
        ("tokenlab/flux-pro", {"image_urls": ["https://example.com/a.png"] * 17}, "image_urls"),
        ("tokenlab/flux-pro", {"image_urls": ["data:image/png;base64,AAAA"]}, "image_urls"),
        ("tokenlab/flux-pro", {"image_urls": ["file:///etc/passwd"]}, "image_urls"),
        ("tokenlab/flux-pro", {"image_urls": ["https://"]}, "image_urls"),
        ("tokenlab/flux-pro", {"image_urls": ["https://[::1"]}, "image_urls"),
        ("tokenlab/flux-pro", {"image_url": "https://example.com/" + "a" * 9000}, "image_url"),
        ("tokenlab/flux-pro", {"mask_url": "javascript:alert(1)"}, "mask_url"),
        ("tokenlab/flux-pro", {"mask_url": 5}, "mask_url"),
        ("tokenlab/flux-pro", {"mask_url": ["https://example.com/a.png"]}, "mask_url"),
        ("tokenlab/grok-imagine-image", {"operation": ["text-to-image"]}, "operation"),
        ("tokenlab/grok-imagine-image", {"image_urls": ["https://example.com/a.png"] * 4}, "image_urls"),
        ("tokenbay/gpt-image-2", {"quality": "best"}, "quality"),
        ("tokenlab/gpt-image-2", {"background": "transparent"}, "background"),
        ("tokmodel/openai/gpt-image-1.5", {"background": "transparent", "output_format": "jpeg"}, "background"),
        ("tokmodel/openai/dall-e-3", {"style": "baroque"}, "style"),
        ("tokmodel/openai/dall-e-2", {"prompt": "x" * 1001}, "prompt"),
        ("tokenlab/gpt-image-2", {"prompt": "x" * 4001}, "prompt"),
        ("tokmodel/openai/gpt-image-2", {"safety_identifier": "x" * 129}, "safety_identifier"),
    ],
)
def test_wrong_values_of_single_models(client: httpx.Client, model: str, change: dict[str, Any], param: str) -> None:
    """A member that the model has, with a value that it cannot have, is a 400 that names the member."""
    error = error_of(client.post(PATH, json={"model": model, "prompt": "A kite", **change}), 400)
    assert error["param"].removesuffix("[0]") == param


@pytest.mark.parametrize(
    "model",
    [
        "nobody",
        "nobody/x",
        "/",
        "x/",
        "/gpt-image-2",
        "tokenlab",
        "tokenlab/",
        "*",
        "gpt-image-*",
        "x" * 10_000,
        "ü\n\0",
    ],
)
def test_unknown_model(client: httpx.Client, model: str) -> None:
    """A model that nobody has is a 404 that names the field and quotes little of it."""
    error = error_of(client.post(PATH, json={**GOOD, "model": model}), 404)
    assert (error["param"], error["code"], error["type"]) == ("model", "model_not_found", "invalid_request_error")
    assert len(error["message"]) < 500


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/mixed; boundary=x",
        "application/xml",
        "text/json",
        "application/jsonp",
        "json",
        ";",
        "image/png; application/json",
    ],
)
def test_wrong_content_type(client: httpx.Client, content_type: str) -> None:
    """A body that does not call itself JSON is a 415, whatever it holds."""
    reply = client.post(PATH, content=json.dumps(GOOD), headers={"content-type": content_type})
    assert error_of(reply, 415)["code"] == "unsupported_media_type"


@pytest.mark.usefixtures("harmless")
@pytest.mark.parametrize(
    "content_type", [None, "APPLICATION/JSON", "application/json ;charset=UTF-8", "text/vnd.x+json"]
)
def test_right_content_types(client: httpx.Client, content_type: str | None) -> None:
    """JSON in any spelling of its media type is read, and so is a body without one."""
    headers = {} if content_type is None else {"content-type": content_type}
    assert client.post(PATH, content=json.dumps(GOOD), headers=headers).status_code == 200


@pytest.mark.parametrize(
    "lines",
    [
        ["1"],
        ["true"],
        ["?2"],
        ["?"],
        ["? 1"],
        ["1?"],
        ["yes"],
        [""],
        ["?1, ?0"],
        ["?0, ?1"],
        ["?0", "?1"],
        ["?1;q=1"],
        ["?1?1"],
        ["\u00b1"],
    ],
    ids=repr,
)
def test_explain_header_that_cannot_be_read(running: Running, lines: list[str]) -> None:
    """Who may have wanted only to look is not charged: a header that is no single ?1 or ?0 is refused."""
    reply = post_with_lines(running.url, [("imagegate-explain", line) for line in lines])
    assert error_of(reply, 400)["param"] == "Imagegate-Explain"


def post_with_lines(url: str, lines: list[tuple[str, str]]) -> httpx.Response:
    """A POST of the good request with header lines as they are, also several of one name."""
    headers = [(name.encode(), value.encode("latin-1")) for name, value in lines]
    return httpx.post(f"{url}{PATH}", json=GOOD, headers=headers, timeout=60)


def test_explain_sends_nothing(client: httpx.Client) -> None:
    """``Imagegate-Explain: ?1`` shows what would be sent, with the key hidden, and sends nothing."""
    asked = {**GOOD, "model": "onetoken/gpt-image-2", "size": "512x512", "n": 2, "style": "vivid"}
    reply = client.post(PATH, json=asked, headers={"imagegate-explain": "?1", "authorization": "Bearer sk-client-key"})
    assert reply.status_code == 200, reply.text[:500]
    shown = reply.json()
    assert list(shown) == ["upstream", "method", "url", "headers", "body", "changes"]
    assert shown["body"] == {"model": "gpt-image-2", "prompt": "A kite", "size": "816x816", "n": 2}
    assert (shown["upstream"], shown["method"]) == ("onetoken", "POST")
    assert urlsplit(shown["url"]).path == "/v1/images/generations/"
    assert "sk-" not in reply.text
    expected = [
        {"field": "size", "kind": "mapped", "from": "512x512", "to": "816x816"},
        {"field": "style", "kind": "dropped"},
    ]
    assert shown["changes"] == expected
    assert reply.headers["imagegate-changes"] == 'size;from="512x512";to="816x816", style;dropped'


@pytest.mark.parametrize(("change", "status"), [({"size": "8:1"}, 400), ({"model": "nobody"}, 404), ({"n": 11}, 400)])
def test_explain_of_an_impossible_request(client: httpx.Client, change: dict[str, Any], status: int) -> None:
    """A request that would be refused is refused in the same words when it is only to be explained."""
    asked = {**GOOD, "model": "tokenbay/gpt-image-2", **change}
    explained = client.post(PATH, json=asked, headers={"imagegate-explain": "?1"})
    assert error_of(explained, status) == error_of(client.post(PATH, json=asked), status)


@pytest.mark.usefixtures("harmless")
def test_explain_off(client: httpx.Client) -> None:
    """``Imagegate-Explain: ?0`` is a request like any other."""
    reply = client.post(PATH, json=GOOD, headers={"imagegate-explain": "?0"})
    assert reply.status_code == 200
    assert "data" in reply.json()


def test_fifty_megabytes_with_length(running: Running) -> None:
    """A body whose length is over the limit is a 413 before any of it is read."""
    address = urlsplit(running.url)
    assert address.hostname is not None
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    connection.putrequest("POST", PATH)
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(50 * MEGABYTE))
    connection.endheaders()
    reply = connection.getresponse()  # nothing of the body has been sent
    error = json.loads(reply.read())["error"]
    connection.close()
    assert (reply.status, error["code"], reply.getheader("connection")) == (413, "payload_too_large", None)


def test_fifty_megabytes_that_are_sent_all_the_same(client: httpx.Client) -> None:
    """A client that sends its large body without waiting finds the 413 when it looks."""
    reply = client.post(PATH, content=b"x" * (50 * MEGABYTE), headers={"content-type": "application/json"})
    assert error_of(reply, 413)["code"] == "payload_too_large"


def test_fifty_megabytes_in_chunks(running: Running) -> None:
    """A body that says no length is a 413 as soon as it has grown over the limit, and the connection is closed."""
    address = urlsplit(running.url)
    chunk = b"x" * MEGABYTE
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nhost: [::1]\r\n"
        head += "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        sent = 0
        try:
            while sent < 50:
                connection.sendall(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                sent += 1
        except ConnectionError:
            pass  # the gateway has had enough
        reply = b""
        while part := _received(connection):
            reply += part
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in head.lower()
    assert json.loads(body)["error"]["code"] == "payload_too_large"


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionError:
        return b""


def test_many_unknown_members(client: httpx.Client) -> None:
    """A thousand members that nobody knows do not make a header that aiohttp, Node or a proxy would refuse."""
    extra = {f"x{number}-" + "ü" * 90: number for number in range(1000)}
    reply = client.post(PATH, json={**GOOD, **extra}, headers={"imagegate-explain": "?1"})
    assert reply.status_code == 200, reply.text[:500]
    assert len(reply.headers["imagegate-changes"]) < 8_000
    *items, rest = reply.headers["imagegate-changes"].split(", ")
    assert rest == f"*;more={1000 - len(items)}"
    assert len(reply.json()["changes"]) == 1000


@pytest.mark.parametrize("name", ["\r\nset-cookie: a=b", "a\0b", '"', "\\", "é\u2028", "", "*", "-", "a" * 5000])
def test_names_cannot_break_the_header(client: httpx.Client, name: str) -> None:
    """Whatever a member is called, the changes header holds one line of ASCII about it."""
    reply = client.post(PATH, json={**GOOD, name: 1}, headers={"imagegate-explain": "?1"})
    assert reply.status_code == 200, reply.text[:500]
    changes = reply.headers["imagegate-changes"]
    assert changes.isascii()
    assert changes.isprintable()
    assert changes.endswith(";dropped")
    assert "set-cookie" not in reply.headers


@pytest.mark.parametrize("value", ["\r\nx: y", 'a";b="c', "\\", "é\u2028", "a" * 64])
def test_values_cannot_break_the_header(client: httpx.Client, value: str) -> None:
    """Whatever a value holds, the changes header quotes it within one line of ASCII."""
    asked = {**GOOD, "model": "tokenlab/nano-banana", "image_url": "https://example.com/a.png", "operation": value}
    reply = client.post(PATH, json=asked, headers={"imagegate-explain": "?1"})
    assert reply.status_code == 200, reply.text[:500]
    assert reply.headers["imagegate-changes"].isascii()
    assert reply.json()["body"]["operation"] == "image-to-image"


@pytest.mark.parametrize("request_id", ["a b", "x" * 129, 'a"b', "\u00e9"])
def test_request_ids_that_no_log_can_hold(running: Running, request_id: str) -> None:
    """A request id of other characters than an id has is replaced."""
    headers = [(b"x-request-id", request_id.encode("latin-1"))]
    reply = httpx.post(f"{running.url}{PATH}", content=b"", headers=headers)
    assert error_of(reply, 400)["code"] == "invalid_json"
    assert reply.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    "target",
    [
        "/images/" + "A" * 32 + ".png",
        "/images/" + "A" * 32 + ".png?expires=99999999999&signature=" + "0" * 64,
        "/images/" + "A" * 32 + ".png?expires=-1&signature=",
        "/images/" + "A" * 32 + ".png?expires=%D9%A3&signature=%00",
        "/images/" + "A" * 32 + ".png?signature=0&" + "&".join(f"a{number}=1" for number in range(100)),
        "/images/" + "A" * 32 + ".png?signature=0&" + "expires=1&" * 5000,
        "/images/" + "A" * 32 + ".png?signature=%FF%FE&expires=99999999999",
        "/images/../../etc/passwd",
        "/images/..%2f..%2fetc%2fpasswd",
        "/images/%2e%2e/.link-secret",
        "/images/.link-secret",
        "/images/",
        "/images//",
        "/images/?expires=99999999999&signature=" + "0" * 64,
        "/images/.link-secret?expires=99999999999&signature=" + "0" * 64,
        "/images/..%2f..%2fetc%2fpasswd?expires=99999999999&signature=" + "0" * 64,
        "/images/%00.png",
    ],
    ids=lambda target: target[:60],
)
def test_forged_links(running: Running, target: str) -> None:
    """A link that the gateway did not make is a 403 or 404 in the envelope, never a crash and never a file."""
    address = urlsplit(running.url)
    assert address.hostname is not None
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    connection.request("GET", target)  # as it is: httpx would tidy the path
    reply = connection.getresponse()
    body = reply.read()
    connection.close()
    assert reply.status in ((431,) if len(target) > 32_000 else (403, 404)), body
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
