"""What web pages and proxies can reach of a gateway without keys, on real sockets."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from tests.nginx import needs_nginx, nginx
from tests.smallest_png import ONE_PIXEL

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving
from imagegate.standalone import Standalone

EVIL = {"origin": "https://evil.example", "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
FORM = {"model": (None, "openai/gpt-image-1"), "prompt": (None, "A kite")}


class Paid:
    """A provider that counts what it is asked for."""

    def __init__(self) -> None:
        self.posts = 0
        self.app = Starlette(routes=[Route("/v1/{path:path}", self._answer, methods=["POST"])])

    async def _answer(self, request: Request) -> JSONResponse:
        await request.body()
        self.posts += 1
        return JSONResponse({"created": 1, "data": [{"b64_json": ONE_PIXEL}]})


@pytest.fixture(scope="module")
def provider() -> Iterator[tuple[Paid, int]]:
    paid = Paid()
    with serving(paid.app) as port:
        yield paid, port


def config_of(port: int, folder: Path, more: str = "") -> Any:
    return parse_config(
        f'[[upstreams]]\nname = "openai"\nbase_url = "http://127.0.0.1:{port}"\napi_key = "sk-upstream"\n'
        f'[delivery]\nstore = "file://{folder}"\n{more}'
    )


@contextlib.contextmanager
def alone(port: int, folder: Path, more: str = "") -> Iterator[str]:
    with serving(Standalone(config_of(port, folder, more))) as bound:
        yield f"http://127.0.0.1:{bound}"


ENDPOINTS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/v1/images/generations", {"files": FORM}),
    ("POST", "/v1/images/generations", {"content": b'{"model": "openai/gpt-image-1", "prompt": "A kite"}'}),
    ("POST", "/v1/images/generations", {"json": {"model": "openai/gpt-image-1", "prompt": "A kite"}}),
    (
        "POST",
        "/v1/images/generations",
        {"json": {"model": "openai/gpt-image-1", "prompt": "A kite"}, "headers": {"imagegate-explain": "?1"}},
    ),
    ("POST", "/v1/images/edits", {"files": {**FORM, "image": ("a.png", b"\x89PNG", "image/png")}}),
    ("POST", "/v1/images/variations", {"files": {**FORM, "image": ("a.png", b"\x89PNG", "image/png")}}),
    ("GET", "/v1/models", {}),
    ("GET", "/v1/tasks/task_x", {}),
    ("DELETE", "/v1/tasks/task_x", {}),
    ("GET", "/console/exchanges", {}),
    ("GET", "/console/pictures/1/0", {}),
    ("GET", "/metrics", {}),
]


@pytest.mark.parametrize("more", ["", "[console]\nenabled = true"])
def test_no_endpoint_is_for_pages_from_elsewhere(provider: tuple[Paid, int], tmp_path: Path, more: str) -> None:
    """Whatever spends or reads refuses foreign origins, cross-site requests and names that were made to lead here."""
    paid, port = provider
    before = paid.posts
    with alone(port, tmp_path, more) as url, httpx.Client(base_url=url) as client:
        foreign = [
            {"origin": "https://evil.example"},
            {"sec-fetch-site": "cross-site"},
            EVIL,
            {"origin": "null"},
            {"host": "evil.example:8000"},
            {"host": "evil.example:8000", "origin": "http://evil.example:8000"},
        ]
        for method, path, options in ENDPOINTS:
            for headers in foreign:
                request = {**options, "headers": {**options.get("headers", {}), **headers}}
                reply = client.request(method, path, **request)
                assert reply.status_code == 403, (method, path, headers)
                error = reply.json()["error"]
                expected = "host_not_allowed" if "host" in headers else "origin_not_allowed"
                if not (path.startswith("/console") and not more):
                    assert (error["code"], "access." in error["message"]) == (expected, True)
                assert "access-control-allow-origin" not in reply.headers
        assert paid.posts == before
        assert client.post("/v1/images/generations", json={"model": "openai/gpt-image-1", "prompt": "A"}).is_success
        assert client.post(
            "/v1/images/generations", json={"model": "openai/gpt-image-1", "prompt": "A"}, headers={"origin": url}
        ).is_success
        assert client.get("/v1/models", headers={"host": "localhost:1"}).is_success
        assert client.get("/metrics").is_success
    assert paid.posts == before + 2


def test_links_of_pictures_may_stand_in_any_page(provider: tuple[Paid, int], tmp_path: Path) -> None:
    """A signed link is its own permission."""
    with alone(provider[1], tmp_path) as url:
        asked = {"model": "openai/gpt-image-1", "prompt": "A", "response_format": "url"}
        link = httpx.post(f"{url}/v1/images/generations", json=asked).json()["data"][0]["url"]
        assert httpx.get(link, headers=EVIL).status_code == 200


def test_with_keys_nothing_changes(provider: tuple[Paid, int], tmp_path: Path) -> None:
    """Who has the key may send it from any page, to any name."""
    with alone(provider[1], tmp_path, '[access]\nkeys = ["client-key"]') as url:
        headers = {**EVIL, "host": "evil.example", "authorization": "Bearer client-key"}
        asked = {"model": "openai/gpt-image-1", "prompt": "A"}
        assert httpx.post(f"{url}/v1/images/generations", json=asked, headers=headers).status_code == 200
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200


def test_pages_and_names_that_are_allowed(provider: tuple[Paid, int], tmp_path: Path) -> None:
    """A page of an allowed origin may ask, send and read; an allowed name may stand in Host."""
    access = '[access]\nallowed_origins = ["https://app.example.com"]\nallowed_hosts = ["*.example.com"]'
    with alone(provider[1], tmp_path, access) as url:
        path = f"{url}/v1/images/generations"
        page = {"origin": "https://app.example.com", "sec-fetch-site": "cross-site"}
        asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
        preflight = httpx.options(path, headers={**page, **asks})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == page["origin"]
        for body in ({"json": {"model": "openai/gpt-image-1", "prompt": "A"}}, {"files": FORM}):
            reply = httpx.post(path, headers={**page, "host": "pictures.example.com"}, **body)  # type: ignore[arg-type]
            assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, page["origin"])
            assert "imagegate-upstream" in reply.headers["access-control-expose-headers"].lower()
        assert httpx.options(path, headers={**asks, "origin": EVIL["origin"]}).status_code == 400
        assert httpx.post(path, headers=EVIL, files=FORM).status_code == 403
        assert httpx.get(f"{url}/v1/models", headers={"host": "evil.example"}).status_code == 403


def test_in_a_host_application(provider: tuple[Paid, int], tmp_path: Path) -> None:
    """The host's CORS decides who may ask; what browsers send without asking, only pages that it allows."""
    paid, port = provider
    app = FastAPI()
    app.add_middleware(ImageGateway, config=config_of(port, tmp_path), hooks=())
    app.add_middleware(CORSMiddleware, allow_origins=["https://app.example.com"], allow_methods=["POST"])
    asked = {"model": "openai/gpt-image-1", "prompt": "A"}
    with serving(app) as bound:
        url = f"http://127.0.0.1:{bound}/v1/images/generations"
        page = {**EVIL, "origin": "https://app.example.com"}
        for headers in ({}, page, {**page, "host": "pictures.example.com"}):
            assert httpx.post(url, json=asked, headers=headers).status_code == 200
            assert httpx.post(url, files=FORM, headers=headers).status_code == 200
        before = paid.posts
        assert httpx.post(url, files=FORM, headers=EVIL).json()["error"]["code"] == "origin_not_allowed"
        assert httpx.post(url, content=json.dumps(asked), headers=EVIL).status_code == 403
        assert paid.posts == before


def test_below_a_path(provider: tuple[Paid, int], tmp_path: Path) -> None:
    """The same counts where the gateway is mounted below a path of Starlette."""
    gateway = ImageGateway(config=config_of(provider[1], tmp_path), hooks=())
    with serving(Starlette(routes=[Mount("/pictures", gateway)], lifespan=gateway.lifespan)) as bound:
        url = f"http://127.0.0.1:{bound}/pictures/v1/images/generations"
        asked = {"model": "openai/gpt-image-1", "prompt": "A"}
        assert httpx.post(url, json=asked, headers={"host": "pictures.example.com"}).status_code == 200
        assert httpx.post(url, files=FORM, headers=EVIL).status_code == 403


def asked(prompt: str) -> dict[str, str]:
    return {"model": "openai/gpt-image-1", "prompt": prompt, "response_format": "url"}


def test_keys_of_clients_without_authorization(provider: tuple[Paid, int], tmp_path: Path) -> None:
    """Each address has its own, with its own answers and conflicts; one client's repetition is one request."""
    paid, port = provider
    key = {"idempotency-key": "order-1"}
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(alone(port, tmp_path))
        one, other = (
            stack.enter_context(httpx.Client(base_url=url, transport=httpx.HTTPTransport(local_address=address)))
            for address in ("127.0.0.1", "127.0.0.2")
        )
        before = paid.posts
        first = one.post("/v1/images/generations", json=asked("A"), headers=key)
        again = one.post("/v1/images/generations", json=asked("A"), headers=key)
        assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
        assert one.post("/v1/images/generations", json=asked("B"), headers=key).status_code == 409
        assert paid.posts == before + 1
        for prompt in ("B", "B"):  # neither refused for the body of a stranger nor given that stranger's pictures
            reply = other.post("/v1/images/generations", json=asked(prompt), headers=key)
            assert (reply.status_code, reply.content != first.content) == (200, True)
        assert paid.posts == before + 2
        with_key = {**key, "authorization": "Bearer any"}  # is known by that, wherever it connects from
        replies = [client.post("/v1/images/generations", json=asked("C"), headers=with_key) for client in (one, other)]
        assert (replies[0].content, paid.posts) == (replies[1].content, before + 3)


@pytest.mark.parametrize("authorization", [{}, {"authorization": "Bearer any"}])
def test_links_begin_with_the_name_that_the_client_used(
    provider: tuple[Paid, int], tmp_path: Path, authorization: dict[str, str]
) -> None:
    """A recorded answer is the same for all but for the address of its links, as JSON and as a stream."""
    paid, port = provider
    before = paid.posts
    with alone(port, tmp_path) as url:
        number = url.rpartition(":")[2]
        for more in ({}, {"stream": True}):
            replies = {}
            for host in (f"localhost:{number}", f"127.0.0.1:{number}", f"a-longer-name.localhost:{number}"):
                headers = {"idempotency-key": f"links {more}", "host": host, **authorization}
                reply = httpx.post(f"{url}/v1/images/generations", json={**asked("L"), **more}, headers=headers)
                assert reply.status_code == 200
                assert reply.text.count(f'"http://{host}/images/') == 1
                assert len(re.findall("http://", reply.text)) == 1
                replies[host] = reply.text.replace(host, "")
            assert len(set(replies.values())) == 1
            link = re.findall(r'"(http://[^"]+)"', reply.text)[0]
            assert httpx.get(link.replace("a-longer-name.", ""), follow_redirects=False).status_code == 200
    assert paid.posts == before + 2


@pytest.mark.nginx
@needs_nginx
@pytest.mark.parametrize(
    "proxied",
    [
        "",
        "proxy_set_header X-Forwarded-For 127.0.0.1;",
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
        "proxy_set_header Host localhost; proxy_set_header X-Real-IP 127.0.0.1;",
    ],
)
def test_the_console_behind_a_proxy(provider: tuple[Paid, int], tmp_path: Path, proxied: str) -> None:
    """Without keys it shows nothing to anybody, whatever a proxy says of its client."""
    with alone(provider[1], tmp_path / "images") as url:
        asked = {"model": "openai/gpt-image-1", "prompt": "a private prompt"}
        assert httpx.post(f"{url}/v1/images/generations", json=asked).is_success
        server = f"server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass {url}; {proxied} }} }}"
        with nginx(tmp_path / "nginx", server) as outside:
            for base in (url, outside):
                for headers in ({}, {"host": "pics.example.com"}, {"x-forwarded-for": "127.0.0.1"}):
                    for path in ("/console", "/console/exchanges"):
                        reply = httpx.get(base + path, headers=headers)
                        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "console_disabled")
