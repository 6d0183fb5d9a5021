"""Every layer alone, as plain ASGI middleware in front of somebody's own handler."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from PIL import Image
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagegate import ExchangeRecord, ImagegateError, load_contracts
from imagegate.delivery.converter import ImageConverter
from imagegate.http import HTTPClient
from imagegate.http.guarded_fetch import Fetcher
from imagegate.ingest.request_reader import ReadLimits
from imagegate.layers import Admit, Deliver, Fit, Idempotency, Observe, Read, References, Route, Tasks
from imagegate.layers.models import Models
from imagegate.registry import load_adapter
from imagegate.routing.catalog import Catalog
from imagegate.stores import MemoryStore
from imagegate.testing import Lint

PATH = "/v1/images/generations"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
LEGAL = {"model": "gpt-image-1.5", "prompt": "A cat", "size": "1024x1024"}
OWN = load_adapter("openai").contracts()
IN_SERVICE = {name: {**table, "retired": False} for name, table in OWN.models.items()}
CONTRACTS = load_contracts(msgspec.structs.replace(OWN, models=IN_SERVICE))
"""Also the models that OpenAI has switched off, as servers that are like OpenAI may have them."""
CATALOG = Catalog({"openai": CONTRACTS}, {"house-style": ("openai/gpt-image-1.5",)})


def _picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (64, 64)).save(file, "PNG")
    return file.getvalue()


PICTURE = _picture()


@dataclass
class Handler:
    """An endpoint of somebody else: keeps what it got and answers what it is told to."""

    reply: Any = field(default_factory=lambda: {"created": 1, "data": [{"url": "https://example.com/cat.png"}]})
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    watches: bool = True
    """Whether it asks what comes after the body."""
    scopes: list[Scope] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    """Types of what was received after the body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] != "http":
            message = await receive()
            kind = {"lifespan": "lifespan.startup.complete", "websocket": "websocket.accept"}[scope["type"]]
            await send({"type": kind, "got": message["type"]})
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        self.bodies.append(body)
        if self.watches:
            self.after.append((await receive())["type"])
        content = json.dumps(self.reply).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": [*headers, *self.headers]})
        await send({"type": "http.response.body", "body": content[:10], "more_body": True})
        await send({"type": "http.response.body", "body": content[10:]})

    @property
    def document(self) -> Any:
        """The one JSON body that came."""
        (body,) = self.bodies
        return json.loads(body)


@dataclass
class Answered:
    """What a client gets."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def exchange(app: ASGIApp, scope: Scope, *chunks: bytes, leaves: bool = True) -> Answered:
    """One request in several pieces, after which the client leaves at once, as far as anybody asks, or stays."""
    pending: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    pending[-1]["more_body"] = False
    sent: list[Message] = []

    async def receive() -> Message:
        if not pending and not leaves:
            await asyncio.Event().wait()
        return pending.pop(0) if pending else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *bodies = sent
    headers = [(name.decode(), value.decode()) for name, value in start["headers"]]
    return Answered(start["status"], headers, b"".join(message.get("body", b"") for message in bodies))


def http_scope(path: str = PATH, *, method: str = "POST", headers: Mapping[str, str] | None = None) -> Scope:
    pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "server": ("testserver", 80),
        "headers": [(b"host", b"testserver"), *pairs],
    }


def post(app: ASGIApp, document: Any, *, headers: Mapping[str, str] | None = None, leaves: bool = True) -> Answered:
    """A POST whose body comes in two pieces."""
    body = document if isinstance(document, bytes) else json.dumps(document, indent=1).encode()
    scope = http_scope(
        headers={"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    )
    return asyncio.run(exchange(app, scope, body[:7], body[7:], leaves=leaves))


def delivery() -> ImageConverter:
    return ImageConverter(MemoryStore(ttl=60), Fetcher(HTTPClient()))


def deliver(app: ASGIApp, **options: Any) -> ASGIApp:
    return Deliver(app, delivery=delivery(), public_url=lambda scope: "http://testserver/images/", **options)


def read(app: ASGIApp) -> ASGIApp:
    return Read(app)


LAYERS: dict[str, Callable[[ASGIApp], ASGIApp]] = {
    "fit": lambda app: Fit(app, adapter="openai"),
    "deliver": deliver,
    "admit": Admit,
    "read": read,
    "observe": lambda app: Observe(app, hooks=()),
    "idempotency": Idempotency,
    "references": References,
    "route": lambda app: Route(app, catalog=CATALOG),
}
every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


class Rig:
    """A layer with a protocol checker on either side."""

    def __init__(self, layer: Callable[[ASGIApp], ASGIApp], handler: Any) -> None:
        self.inner = Lint(handler)
        self.outer = Lint(layer(self.inner))

    @property
    def problems(self) -> list[str]:
        return self.inner.problems + self.outer.problems


@every_layer
def test_legal_request_reaches_handler_as_it_is(layer: Callable[[ASGIApp], ASGIApp]) -> None:
    """A request with nothing to change reaches the handler byte by byte, and the answer gets no changes header."""
    handler = Handler()
    rig = Rig(layer, handler)
    body = b'{ "model":"dall-e-2",\n "prompt":"A \\u0063at", "size" : "1024x1024", "n": 1 }'
    answered = post(rig.outer, body)
    assert rig.problems == []
    assert [body] == handler.bodies
    assert answered.status == 200
    assert handler.reply == answered.json
    assert answered.all("imagegate-changes") == []


@every_layer
def test_a_form_reaches_the_handler(layer: Callable[[ASGIApp], ASGIApp]) -> None:
    """An edit's form reaches the handler as a form of the same parts, with the length that it has."""
    handler = Handler()
    rig = Rig(layer, handler)
    parts = [
        ('name="model"', b"gpt-image-1.5"),
        ('name="image"; filename="a \xc3\xa9.png"\r\nContent-Type: image/png', PICTURE),
        ('name="prompt"', "A caf\xe9".encode()),
        ('name="mask"; filename="m.png"\r\nContent-Type: image/png', PICTURE),
        ('name="response_format"', b"url") if layer is deliver else ('name="quality"', b"high"),
    ]
    form = b"".join(
        b"--limit\r\nContent-Disposition: form-data; " + head.encode("latin-1") + b"\r\n\r\n" + content + b"\r\n"
        for head, content in parts
    )
    body = form + b"--limit--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=limit", "content-length": str(len(body))}
    scope = http_scope("/v1/images/edits", headers=headers)
    answered = asyncio.run(exchange(rig.outer, scope, body[:100], body[100:]))
    assert rig.problems == []
    assert answered.status == 200, answered.body
    sent = parts_of(dict(handler.scopes[0]["headers"]), handler.bodies[0])
    expected = {"model": b"gpt-image-1.5", "image": PICTURE, "prompt": "A caf\xe9".encode(), "mask": PICTURE}
    assert expected == {name: content for name, content in sent.items() if name in expected}
    assert len(parts) == len(sent)


def parts_of(headers: Mapping[bytes, bytes], body: bytes) -> dict[str, bytes]:
    """The parts of a form by their names, read by the standard library."""
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + headers[b"content-type"] + b"\r\n\r\n" + body)
    parts = list(message.iter_parts())
    return {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts}


@pytest.mark.parametrize("layer", [LAYERS[name] for name in ("fit", "deliver", "read", "references", "route")])
def test_explaining_asks_nobody(layer: Callable[[ASGIApp], ASGIApp]) -> None:
    """A layer alone explains what its handler would get, and does not ask it."""
    handler = Handler()
    rig = Rig(layer, handler)
    answered = post(rig.outer, {**LEGAL, "size": "1536x1024"}, headers={"imagegate-explain": "?1"})
    assert (answered.status, handler.scopes, rig.problems) == (200, [], [])
    assert answered.json["body"] == {**LEGAL, "size": "1536x1024"}


@every_layer
def test_handler_sees_the_client_leave_after_the_body(layer: Callable[[ASGIApp], ASGIApp]) -> None:
    """After a replayed body the handler receives what the server says, which is that the client has left."""
    handler = Handler()
    rig = Rig(layer, handler)
    post(rig.outer, LEGAL)
    assert handler.after == ["http.disconnect"]
    assert rig.problems == []


@every_layer
def test_handler_gets_one_exact_content_length(layer: Callable[[ASGIApp], ASGIApp]) -> None:
    """The handler reads a length that is that of the body, and no transfer-encoding, also for a chunked request."""
    handler = Handler()
    rig = Rig(layer, handler)
    scope = http_scope(headers={"content-type": "application/json", "transfer-encoding": "chunked"})
    body = json.dumps({**LEGAL, "size": None}).encode()
    asyncio.run(exchange(rig.outer, scope, body[:5], b"", body[5:]))
    assert rig.problems == []
    lengths = [value for name, value in handler.scopes[0]["headers"] if name == b"content-length"]
    if lengths:
        assert [str(len(handler.bodies[0])).encode()] == lengths
    else:
        assert body == handler.bodies[0]


@every_layer
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", PATH),
        ("HEAD", PATH),
        ("OPTIONS", PATH),
        ("PUT", PATH),
        ("DELETE", PATH),
        ("POST", "/v1/images/generations/x"),
        ("POST", "/v1/images/generations//"),
        ("POST", "/v1/images"),
        ("POST", "/v10/images/generations"),
        ("POST", "/x/v1/images/generations"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/V1/images/generations"),
    ],
)
def test_other_requests_pass(layer: Callable[[ASGIApp], ASGIApp], method: str, path: str) -> None:
    """What is not a POST for generations reaches the handler with the very scope that the server made."""
    handler = Handler(headers=((b"x-own", b"1"),))
    rig = Rig(layer, handler)
    scope = http_scope(path, method=method)
    answered = asyncio.run(exchange(rig.outer, scope, b"any", b"thing"))
    assert handler.scopes[0] is scope
    assert handler.bodies == [b"anything"]
    assert handler.reply == answered.json
    assert [("content-type", "application/json"), ("content-length", str(len(answered.body))), ("x-own", "1")] == (
        answered.headers
    )
    assert rig.problems == []


@pytest.mark.parametrize("layer", [layer for name, layer in LAYERS.items() if name not in ("admit", "observe")])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/models"), ("GET", "/v1/models/x"), ("GET", "/v1/tasks/x"), ("DELETE", "/v1/tasks/x")],
)
def test_a_layer_for_images_takes_no_other_endpoint(
    layer: Callable[[ASGIApp], ASGIApp], method: str, path: str
) -> None:
    """An application's own models and tasks are asked for through a layer alone as if it was not there."""
    handler = Handler()
    scope = http_scope(path, method=method)
    answered = asyncio.run(exchange(Rig(layer, handler).outer, scope, b""))
    assert handler.scopes[0] is scope
    assert (answered.status, answered.json) == (200, handler.reply)


@pytest.mark.parametrize(
    ("members", "headers", "expected"),
    [
        ({}, {}, []),
        ({"async": False}, {}, ["Tasks"]),
        ({"callback_url": "https://example.com"}, {}, ["Tasks"]),
        ({"image_urls": ["https://example.com/a.png"]}, {}, ["References"]),
        ({"mask_url": "https://example.com/a.png", "async": False}, {}, ["Tasks", "References"]),
        ({}, {"idempotency-key": "k"}, ["Idempotency"]),
    ],
)
def test_a_request_meets_only_layers_that_it_concerns(
    members: dict[str, Any], headers: dict[str, str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain generation passes by what is for keys, tasks, references and lists; what each is for reaches it."""
    met: list[str] = []

    async def meet(self: Any, *request: Any) -> None:
        met.append(type(self).__name__)
        await (self.forward if len(request) == 4 else self.down)(*request)

    for layer in (Idempotency, Tasks, References):
        monkeypatch.setattr(layer, "handle_exchange", meet)
    monkeypatch.setattr(Models, "handle", meet)
    other: Any = SimpleNamespace()
    own = References(Fit(Handler(watches=False)))
    stack = Models(Read(Idempotency(Tasks(own, creation=other, runner=other))), catalog=CATALOG)
    answered = post(Observe(stack, hooks=()), {**LEGAL, **members}, headers=headers, leaves=False)
    assert (answered.status, met) == (200, expected)


@every_layer
@pytest.mark.parametrize(("kind", "first"), [("lifespan", "lifespan.startup"), ("websocket", "websocket.connect")])
def test_lifespan_and_websocket_pass(layer: Callable[[ASGIApp], ASGIApp], kind: str, first: str) -> None:
    """Lifespan and websocket reach the handler untouched, even a websocket on the path of generations."""
    handler = Handler()
    rig = Rig(layer, handler)
    scope: Scope = {"type": kind, "asgi": {"version": "3.0"}, "path": PATH, "headers": []}
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": first}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(rig.outer(scope, receive, send))
    assert handler.scopes[0] is scope
    assert [first] == [message["got"] for message in sent]
    assert rig.problems == []


@every_layer
def test_trailing_slash_is_the_same_endpoint(layer: Callable[[ASGIApp], ASGIApp]) -> None:
    """Layers that read bodies refuse a broken one under both spellings of the path."""
    reads_bodies = layer not in (LAYERS["admit"], LAYERS["observe"])
    for path in (PATH, f"{PATH}/"):
        answered = asyncio.run(exchange(Rig(layer, Handler()).outer, http_scope(path), b"no json"))
        assert (400 if reads_bodies else 200) == answered.status


@every_layer
def test_mounted_below_a_path(layer: Callable[[ASGIApp], ASGIApp]) -> None:
    """The mount point counts as no part of the path, and the path is handed on whole."""
    handler = Handler()
    scope = {**http_scope(f"/pictures{PATH}"), "root_path": "/pictures"}
    body = json.dumps({**LEGAL, "model": ""}).encode()
    answered = asyncio.run(exchange(Rig(layer, handler).outer, scope, body))
    if layer in (LAYERS["admit"], LAYERS["observe"]):
        assert [f"/pictures{PATH}"] == [scope["path"] for scope in handler.scopes]
    else:
        assert (answered.status, answered.json["error"]["param"]) == (400, "model")


@pytest.mark.parametrize(
    ("layer", "document", "headers", "status", "param", "code"),
    [
        ("fit", {**LEGAL, "size": "8:1"}, {}, 400, "size", "invalid_value"),
        ("fit", b"{", {}, 400, None, "invalid_json"),
        ("deliver", {"model": "x"}, {}, 400, "prompt", "missing_required_parameter"),
        ("read", {**LEGAL, "prompt": ""}, {}, 400, "prompt", "empty_string"),
        ("read", LEGAL, {"content-type": "text/plain"}, 415, None, "unsupported_media_type"),
        ("references", {**LEGAL, "image_urls": ["file:///etc/passwd"]}, {}, 400, "image_urls", "invalid_url"),
        ("route", {**LEGAL, "model": "nobody"}, {}, 404, "model", "model_not_found"),
        ("route", {**LEGAL, "n": 11}, {}, 400, "n", "integer_above_max_value"),
    ],
)
def test_errors_come_in_the_envelope(
    layer: str, document: Any, headers: dict[str, str], status: int, param: str | None, code: str
) -> None:
    """A layer that stands alone answers its own errors as OpenAI does, and the handler is not called."""
    handler = Handler()
    rig = Rig(LAYERS[layer], handler)
    answered = post(rig.outer, document, headers=headers)
    error = answered.json["error"]
    assert (status, param, code) == (answered.status, error["param"], error["code"])
    assert {"message", "type", "param", "code"} == set(error) - {"imagegate"}
    assert answered.all("content-type") == ["application/json"]
    assert handler.scopes == []
    assert rig.problems == []


def test_fit_hands_on_a_legal_request_and_says_what_changed() -> None:
    """Fit alone rewrites the body for the model's contract, with its right length, and discloses each change."""
    handler = Handler()
    rig = Rig(LAYERS["fit"], handler)
    asked = {**LEGAL, "size": "1792x1024", "quality": "hd", "style": "vivid", "user": None}
    answered = post(rig.outer, asked, headers={"x-custom": "kept"})
    assert handler.document == {"model": "gpt-image-1.5", "prompt": "A cat", "size": "1536x1024", "quality": "high"}
    changes = 'size;from="1792x1024";to="1536x1024", quality;from="hd";to="high", style;dropped'
    assert [changes] == answered.all("imagegate-changes")
    headers = dict(handler.scopes[0]["headers"])
    assert str(len(handler.bodies[0])).encode() == headers[b"content-length"]
    assert (headers[b"x-custom"], headers[b"content-type"]) == (b"kept", b"application/json")
    assert rig.problems == []


def test_fit_without_contract_says_so() -> None:
    """Fit alone passes a model that no contract knows as it is, and says in a header that none is known."""
    handler = Handler()
    rig = Rig(LAYERS["fit"], handler)
    asked = {"model": "somebody-elses", "prompt": "A cat", "size": "8:1", "anything": [1, {"x": None}]}
    answered = post(rig.outer, asked)
    assert asked == handler.document
    assert answered.all("imagegate-contract") == ["none"]
    assert answered.all("imagegate-changes") == []


def test_fit_strict_refuses_with_the_nearest_value() -> None:
    """With the policy ``strict`` Fit refuses what it would otherwise change, and names the nearest size."""
    rig = Rig(lambda app: Fit(app, contracts=CONTRACTS, policy="strict"), Handler())
    answered = post(rig.outer, {**LEGAL, "size": "1792x1024"})
    assert (answered.status, answered.json["error"]["param"]) == (400, "size")
    assert "1536x1024" in answered.json["error"]["message"]


def test_fit_pass_changes_nothing() -> None:
    """With the policy ``pass`` Fit hands on the client's own bytes."""
    handler = Handler()
    body = json.dumps({**LEGAL, "size": "1x1", "style": "vivid"}).encode()
    post(Rig(lambda app: Fit(app, adapter="openai", policy="pass"), handler).outer, body)
    assert [body] == handler.bodies


def test_handlers_own_errors_pass_through_fit() -> None:
    """An error that the handler answers reaches the client as it is, with the changes that were made before it."""
    handler = Handler(reply={"mine": True}, status=418)
    rig = Rig(LAYERS["fit"], handler)
    answered = post(rig.outer, {**LEGAL, "style": "vivid"})
    assert (answered.status, answered.json) == (418, {"mine": True})
    assert answered.all("imagegate-changes") == ["style;dropped"]


def test_imagegate_errors_of_the_handler_become_answers() -> None:
    """A handler that raises an `ImagegateError` is answered for, whichever layer stands in front of it."""

    async def raising(scope: Scope, receive: Receive, send: Send) -> None:
        raise ImagegateError("Not today.", status=409, code="not_today")

    for layer in LAYERS.values():
        answered = post(layer(raising), LEGAL)
        assert (answered.status, answered.json["error"]["code"]) == (409, "not_today")


def test_an_error_after_the_start_is_raised() -> None:
    """Once the handler has begun its answer, its error goes to the server instead of a second answer."""

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ImagegateError("Too late.")

    for name in ("fit", "admit", "read", "observe", "references", "route"):
        lint = Lint(LAYERS[name](late))
        with pytest.raises(ImagegateError, match=r"Too late\."):
            post(lint, LEGAL)
        assert lint.problems == []


def test_deliver_turns_base64_into_links() -> None:
    """Deliver alone stores the handler's base64 and answers links, keeping other members and headers."""
    encoded = base64.b64encode(PNG).decode()
    reply = {"created": 7, "data": [{"b64_json": encoded, "revised_prompt": "A cat"}], "usage": {"total_tokens": 3}}
    handler = Handler(reply=reply, headers=((b"x-own", b"1"), (b"etag", b'"of the old bytes"')))
    rig = Rig(deliver, handler)
    answered = post(rig.outer, {**LEGAL, "response_format": "url"})
    (image,) = answered.json["data"]
    assert image["url"].startswith("http://testserver/images/")
    assert {"url", "revised_prompt"} == set(image)
    assert (answered.json["created"], answered.json["usage"]) == (7, {"total_tokens": 3})
    assert (answered.all("x-own"), answered.all("etag")) == (["1"], [])
    assert rig.problems == []


def test_deliver_hides_the_extensions_that_pass_bytes_by() -> None:
    """A handler behind Deliver is not told that it may send files past the layers."""
    handler = Handler()
    scope = http_scope(headers={"content-type": "application/json"})
    scope["extensions"] = {"http.response.pathsend": {}, "http.response.debug": {}}
    asyncio.run(exchange(deliver(Lint(handler)), scope, json.dumps(LEGAL).encode()))
    assert {"http.response.debug", "imagegate.reply"} == set(handler.scopes[0]["extensions"])
    assert {"http.response.pathsend", "http.response.debug"} == set(scope["extensions"])


@pytest.mark.parametrize(
    ("reply", "status"),
    [({"error": {"message": "no"}}, 400), ({"ok": True}, 200), (["data"], 200), ({"data": []}, 200), ("data", 200)],
)
def test_deliver_passes_what_is_no_picture(reply: Any, status: int) -> None:
    """Deliver hands on every answer that carries no picture as the handler sent it."""
    rig = Rig(deliver, Handler(reply=reply, status=status))
    answered = post(rig.outer, {**LEGAL, "response_format": "url"})
    assert (status, reply) == (answered.status, answered.json)
    assert rig.problems == []


def test_deliver_counts_images() -> None:
    """More images than asked for are disclosed; fewer are an error that names n and lists what was made."""
    link = {"url": "https://example.com/cat.png"}
    more = post(
        Rig(deliver, Handler(reply={"created": 1, "data": [link] * 3})).outer, {**LEGAL, "response_format": "url"}
    )
    assert (more.status, more.all("imagegate-changes")) == (200, ["n;from=1;to=3"])
    fewer = post(Rig(deliver, Handler()).outer, {**LEGAL, "response_format": "url", "n": 3})
    error = fewer.json["error"]
    assert (fewer.status, error["param"], fewer.all("x-should-retry")) == (502, "n", ["false"])
    assert error["imagegate"]["data"] == [link]


@pytest.mark.parametrize(
    ("authorization", "status", "code"),
    [
        ("Bearer right-key", 200, None),
        ("bearer right-key", 200, None),
        ("Bearer wrong-key", 401, "invalid_api_key"),
        ("Bearer ", 401, "missing_api_key"),
        ("Basic right-key", 401, "missing_api_key"),
        ("right-key", 401, "missing_api_key"),
        (None, 401, "missing_api_key"),
    ],
)
def test_admit_checks_keys_before_the_body(authorization: str | None, status: int, code: str | None) -> None:
    """Admit alone lets in who has a key and refuses others without asking for their body."""
    handler = Handler()
    lint = Lint(Admit(handler, keys=["other-key", "right-key"]))
    scope = http_scope(headers={"authorization": authorization} if authorization is not None else {})
    asked = 0

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"{}"} if asked == 1 else {"type": "http.disconnect"}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(lint(scope, receive, send))
    assert status == sent[0]["status"]
    if status != 200:
        assert (asked, handler.scopes) == (0, [])
        assert code == json.loads(sent[1]["body"])["error"]["code"]
        assert (b"www-authenticate", b"Bearer") in sent[0]["headers"]


def test_admit_refuses_large_bodies_by_their_length() -> None:
    """Admit alone answers 413 to a content-length over the limit, and lets an equal one pass."""
    for length, status in (("11", 413), ("9" * 400, 413), ("10", 200)):
        scope = http_scope(headers={"content-length": length})
        answered = asyncio.run(exchange(Admit(Handler(), json_limit=10), scope, b"0123456789"))
        assert status == answered.status


def test_admit_counts_requests_in_flight() -> None:
    """Admit alone answers 503 above its number of requests, and takes new ones when others have ended, or failed."""

    async def run() -> None:
        release, entered = asyncio.Event(), asyncio.Event()

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            entered.set()
            await release.wait()
            raise ImagegateError("It went wrong.", status=418)

        app = Lint(Admit(slow, in_flight=1))
        first = asyncio.create_task(exchange(app, http_scope(), b"{}"))
        await entered.wait()
        second = await exchange(app, http_scope(), b"{}")
        assert (second.status, second.json["error"]["code"], second.all("retry-after")) == (503, "overloaded", ["1"])
        release.set()
        assert (await first).status == 418
        assert (await exchange(app, http_scope(), b"{}")).status == 418

    asyncio.run(run())


class Collector:
    """A hook that keeps the records."""

    def __init__(self) -> None:
        self.records: list[ExchangeRecord] = []

    def exchange_ended(self, record: ExchangeRecord) -> None:
        self.records.append(record)


def test_observe_names_and_records_exchanges() -> None:
    """Observe alone gives each exchange the client's request id or a new one, and tells the hook once."""
    collector = Collector()
    lint = Lint(Observe(Handler(), hooks=[collector]))
    own = post(lint, LEGAL, headers={"x-request-id": "mine-1"})
    new = post(lint, LEGAL, headers={"x-request-id": "with space"})
    assert own.all("x-request-id") == ["mine-1"]
    assert [collector.records[1].request_id] == new.all("x-request-id")
    assert new.all("x-request-id")[0].startswith("req_")
    assert [(r.request_id, r.status, r.endpoint) for r in collector.records[:1]] == [("mine-1", 200, "generations")]
    assert len(collector.records) == 2


def test_observe_does_not_double_the_request_id() -> None:
    """An application that names its answer itself gets no second x-request-id from Observe."""
    answered = post(Observe(Handler(headers=((b"x-request-id", b"of-the-app"),)), hooks=()), LEGAL)
    assert len(answered.all("x-request-id")) == 1


def test_observe_answers_a_crash_without_a_word_about_it() -> None:
    """An unexpected error below Observe is a 500 in the envelope that tells nothing of its cause."""

    async def crashing(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("sk-secret at 10.0.0.1")

    collector = Collector()
    answered = post(Lint(Observe(crashing, hooks=[collector])), LEGAL)
    assert (answered.status, answered.json["error"]["code"]) == (500, "internal_error")
    assert b"sk-secret" not in answered.body
    assert [(record.status, record.error_code) for record in collector.records] == [(500, "internal_error")]


def test_observe_records_a_client_that_left() -> None:
    """A client that leaves during its body is recorded as 499 and answered nothing."""
    collector = Collector()
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(Observe(Read(Handler()), hooks=[collector])(http_scope(), receive, send))
    assert sent == []
    assert [(record.status, record.error_code) for record in collector.records] == [(499, "client_disconnected")]


def test_observe_records_a_cancelled_exchange() -> None:
    """A server that cancels the exchange finds the cancellation passed on, and the hook a record."""

    async def run() -> None:
        entered = asyncio.Event()

        async def forever(scope: Scope, receive: Receive, send: Send) -> None:
            entered.set()
            await asyncio.Event().wait()

        collector = Collector()
        task = asyncio.create_task(exchange(Observe(forever, hooks=[collector]), http_scope(), b"{}"))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [(record.status, record.error_code) for record in collector.records] == [(499, "cancelled")]

    asyncio.run(run())


def test_route_addresses_the_upstreams_model_and_says_so() -> None:
    """Route alone puts the upstream's model into the body and discloses that it is another than asked for."""
    handler = Handler()
    rig = Rig(LAYERS["route"], handler)
    answered = post(rig.outer, {**LEGAL, "model": "house-style"})
    assert handler.document == LEGAL
    assert answered.all("imagegate-changes") == ['model;from="house-style";to="gpt-image-1.5"']
    assert answered.all("imagegate-upstream") == ["openai"]
    assert rig.problems == []


def test_route_takes_the_upstreams_name_off() -> None:
    """``upstream/model`` is only an address: the handler sees the model, and no change is disclosed."""
    handler = Handler()
    answered = post(Rig(LAYERS["route"], handler).outer, {**LEGAL, "model": "openai/gpt-image-1.5"})
    assert handler.document == LEGAL
    assert answered.all("imagegate-changes") == []


def test_route_splits_n_in_front_of_a_handler_of_bytes() -> None:
    """Route alone asks a plain handler three times for a model that makes one image at a time, and merges them."""
    handler = Handler()
    rig = Rig(LAYERS["route"], handler)
    answered = post(rig.outer, {"model": "dall-e-3", "prompt": "A cat", "n": 3})
    assert answered.status == 200
    assert len(answered.json["data"]) == 3
    assert len(handler.bodies) == 3
    assert answered.all("imagegate-changes") == ['n;from=3;to="1+1+1"']
    assert rig.problems == []


def test_parts_without_pictures_are_no_reply() -> None:
    """A handler that answers a part with something else may have done something: 502, and nothing more is asked."""
    handler = Handler(reply={"status": "fine"})
    answered = post(Rig(LAYERS["route"], handler).outer, {"model": "dall-e-3", "prompt": "A cat", "n": 2})
    assert (answered.status, answered.all("x-should-retry")) == (502, ["false"])
    assert len(handler.bodies) == 1


def test_references_pass_links_and_refuse_everything_else() -> None:
    """References alone hands on http and https links and names the field of anything else."""
    good = {**LEGAL, "image_urls": ["https://example.com/a.png", "http://example.com/b.png"]}
    handler = Handler()
    assert post(Rig(References, handler).outer, good).status == 200
    assert good == handler.document
    for bad in ("data:image/png;base64,AAAA", "//example.com/a.png", "https://", "x" * 9000, 5, {"url": "x"}):
        answered = post(Rig(References, Handler()).outer, {**LEGAL, "image_urls": [bad]})
        assert (answered.status, answered.json["error"]["param"]) == (400, "image_urls")


def test_read_reads_no_further_than_the_limit() -> None:
    """Read alone stops asking for a body that has grown over its limit and has the connection closed."""
    asked = 0

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"x" * 60, "more_body": True}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(Lint(Read(Handler(), limits=ReadLimits(json_body=100)))(http_scope(), receive, send))
    assert (sent[0]["status"], asked) == (413, 2)
    assert (b"connection", b"close") in sent[0]["headers"]


def test_layers_stack_in_front_of_a_plain_handler() -> None:
    """Observe, Read, Deliver, Route and Fit together read a body once and hand on what all of them made of it."""
    handler = Handler(watches=False)
    inner = Lint(handler)
    stack = Observe(Read(deliver(Route(Fit(inner), catalog=CATALOG))), hooks=())
    outer = Lint(stack)
    asked = {**LEGAL, "model": "house-style", "size": "1792x1024", "response_format": "url"}
    answered = post(outer, asked, leaves=False)
    assert handler.document == {**LEGAL, "size": "1536x1024"}
    expected = (
        'model;from="house-style";to="gpt-image-1.5", size;from="1792x1024";to="1536x1024", response_format;dropped'
    )
    assert [expected] == answered.all("imagegate-changes")
    assert inner.problems + outer.problems == []


@pytest.mark.parametrize("size", [10, 2_000_000])
def test_a_document_without_pictures_passes_as_it_is(size: int) -> None:
    """Whatever its size: what the handler answers beside pictures is its own affair."""
    handler = Handler(reply={"note": "x" * size, "list": [1, {"a": None}]})
    rig = Rig(deliver, handler)
    answered = post(rig.outer, {**LEGAL, "response_format": "url"})
    assert rig.problems == []
    assert (answered.status, answered.json) == (200, handler.reply)
