"""Models that no contract names: what their providers get from a gateway, and what the client is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import httpx
import pytest
from tests.adapters.test_goldens import form

from imagegate import ImageGateway
from imagegate.contract import load_contracts
from imagegate.contracts.contract import find_contract
from imagegate.registry import load_adapter
from imagegate.routing.catalog import Catalog
from imagegate.testing import png
from imagegate.testing.fake_upstream import Seen

ASKED: Final = {"prompt": "A hat", "n": 2, "size": "1000x1500", "quality": "hd", "output_format": "webp"}
"""What every client of OpenAI's may send."""
LINK: Final = "https://a.example/1.png"
LINKS: Final = {"images": [{"image_url": LINK}], "prompt": "A hat", "size": "1000x1500", "quality": "hd"}
DASHSCOPE: Final = "/api/v1/services/aigc"
AT_ONCE: Final = f"{DASHSCOPE}/multimodal-generation/generation"
TASK: Final = f"{DASHSCOPE}/image-generation/generation"
PROMPT_TASK: Final = f"{DASHSCOPE}/text2image/image-synthesis"
TOGETHER: Final = {"response_format": "base64", "prompt": "A hat", "output_format": "png"}
XAI: Final = {"prompt": "A hat", "aspect_ratio": "2:3", "resolution": "1k", "quality": "medium"}


class Sent(NamedTuple):
    """What arrived, of several requests the first."""

    path: str
    headers: Mapping[str, str]
    body: Any
    """JSON; of a form its parts."""
    requests: int
    changes: str


def through(adapter: str, model: str, asked: dict[str, Any], *, files: int = 0) -> Sent:
    """Send a request for ``up/MODEL`` through a gateway, whose provider refuses it, so that nothing follows."""
    arrived: list[httpx.Request] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        arrived.append(request)
        return httpx.Response(400, json={"error": {"message": "No."}, "code": "InvalidParameter", "message": "No."})

    async def run() -> httpx.Response:
        upstream = {"name": "up", "adapter": adapter, "api_key": "sk"}
        config = {"upstreams": [upstream], "delivery": {"store": "memory://"}}
        gateway = ImageGateway(config=config, transport=httpx.MockTransport(refuse), hooks=())
        async with (
            gateway,
            httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://gateway.test") as client,
        ):
            whole = {"model": f"up/{model}", **asked}
            if files:
                pictures = [("image[]", (f"{at}.png", png(shade=at), "image/png")) for at in range(files)]
                texts = {name: str(value) for name, value in whole.items()}
                return await client.post("/v1/images/edits", data=texts, files=pictures)
            path = "/v1/images/edits" if "images" in asked else "/v1/images/generations"
            return await client.post(path, json=whole)

    reply = asyncio.run(run())
    assert arrived, reply.text
    first = arrived[0]
    seen = Seen(
        method=first.method,
        url=str(first.url),
        path=first.url.path,
        query=(),
        headers=dict(first.headers),
        body=first.content,
    )
    is_json = seen.headers["content-type"] == "application/json"
    body = seen.json if is_json else [(name, file or content.decode()) for name, file, _, content in form(seen)]
    return Sent(seen.path, seen.headers, body, len(arrived), reply.headers.get("imagegate-changes", ""))


def message(*content: Any, **parameters: Any) -> dict[str, Any]:
    content = (*content, {"text": "A hat"})
    return {"input": {"messages": [{"role": "user", "content": list(content)}]}, "parameters": parameters}


GENERATIONS: list[tuple[str, str, str, int, dict[str, Any]]] = [
    ("dashscope", "z-image-9", AT_ONCE, 2, message(n=1, size="992*1488")),
    ("dashscope", "qwen-image-4.0", AT_ONCE, 2, message(n=1, size="992*1488")),
    ("dashscope", "qwen-image-2025-08-15", AT_ONCE, 2, message(n=1, size="1104*1472")),
    ("dashscope", "qwen-image-plus-2026-01-09", AT_ONCE, 2, message(n=1, size="1104*1472")),
    ("dashscope", "qwen-image-max-2025-12-30", AT_ONCE, 2, message(n=1, size="1104*1472")),
    ("dashscope", "qwen-image-2.0-pro-2026-03-03", AT_ONCE, 2, message(n=1, size="992*1488")),
    ("dashscope", "wan3.0-image", TASK, 1, message(n=2, size="992*1488")),
    ("dashscope", "wan2.7-image-2026-05-01", TASK, 1, message(n=2, size="992*1488")),
    ("dashscope", "wan2.7-image-pro-2026-05-01", TASK, 1, message(n=2, size="992*1488")),
    ("dashscope", "wan2.6-t2i-2026-05-01", TASK, 1, message(n=2, size="1056*1568")),
    *(
        (
            *("dashscope", model, PROMPT_TASK, 1),
            {"input": {"prompt": "A hat"}, "parameters": {"n": 2, "size": size}},
        )
        for model, size in (
            ("wan2.5-t2i-2026-05-01", "1056*1568"),
            ("wan2.1-t2i-turbo", "960*1440"),
            ("wanx2.0-t2i-turbo", "960*1440"),
        )
    ),
    (
        *("together", "o/n", "/v1/images/generations", 1),
        {**TOGETHER, "n": 2, "width": 992, "height": 1488},
    ),
    *(
        (
            *("xai", model, "/v1/images/generations", 1),
            {**XAI, "n": 2},
        )
        for model in ("grok-imagine-image-3.0", "grok-imagine-image-2.0-2026-10-13")
    ),
    (
        *("deepinfra", "o/n", "/v1/inference/o/n", 2),
        {"prompt": "A hat", "width": 960, "height": 1440},
    ),
    (
        *("siliconflow", "o/n", "/v1/images/generations", 2),
        {"prompt": "A hat", "image_size": "992x1488"},
    ),
]


@pytest.mark.parametrize(("adapter", "model", "path", "count", "body"), GENERATIONS)
def test_generations(adapter: str, model: str, path: str, count: int, body: dict[str, Any]) -> None:
    """The provider's own words, as many pictures as were asked for, and no member of OpenAI's that it does not know."""
    sent = through(adapter, model, ASKED)
    assert (sent.path, sent.requests) == (path, count)
    own = {} if adapter == "deepinfra" else {"model": model}
    assert sent.body == {**own, **body}
    assert sent.headers.get("x-dashscope-async") == ("enable" if path in (TASK, PROMPT_TASK) else None)


@pytest.mark.parametrize(
    ("adapter", "model", "told"),
    [
        ("dashscope", "z-image-9", ("size", "quality", "output_format")),
        ("dashscope", "wan3.0-image", ("size", "quality", "output_format")),
        ("together", "o/n", ("size", "quality", "output_format")),
        ("xai", "grok-imagine-image-3.0", ("size", "quality", "output_format")),
        ("deepinfra", "o/n", ("size", "quality", "output_format")),
        ("siliconflow", "o/n", ("size", "quality", "output_format")),
    ],
)
def test_what_became_of_a_request_is_told(adapter: str, model: str, told: tuple[str, ...]) -> None:
    """Each member that does not arrive as it was sent."""
    changes = through(adapter, model, ASKED).changes
    assert [name for name in told if name not in changes] == []


@pytest.mark.parametrize(
    ("adapter", "model", "body"),
    [
        ("dashscope", "z-image-9", message(n=1)),
        ("dashscope", "wan3.0-image", message(n=1)),
        ("siliconflow", "o/n", {"prompt": "A hat", "image_size": "1024x1024"}),
    ],
)
def test_what_is_always_sent(adapter: str, model: str, body: dict[str, Any]) -> None:
    """Wan makes four pictures where no `n` is sent; SiliconFlow requires a size."""
    for asked in ({"prompt": "A hat"}, {"prompt": "A hat", "size": "auto"}):
        assert through(adapter, model, asked).body == {"model": model, **body}


EDITS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("dashscope", "z-image-9", AT_ONCE, message({"image": LINK}, n=1, size="992*1488")),
    ("dashscope", "wan3.0-image", TASK, message({"image": LINK}, n=1, size="992*1488")),
    (
        *("together", "o/n", "/v1/images/generations"),
        {**TOGETHER, "width": 992, "height": 1488, "reference_images": [LINK]},
    ),
    (
        *("together", "black-forest-labs/FLUX.1-kontext-dev", "/v1/images/generations"),
        {**TOGETHER, "aspect_ratio": "2:3", "image_url": LINK},
    ),
    (
        *("xai", "grok-imagine-image-3.0", "/v1/images/edits"),
        {**XAI, "image": {"url": LINK, "type": "image_url"}},
    ),
    ("siliconflow", "o/n", "/v1/images/generations", {"prompt": "A hat", "image_size": "992x1488", "image": LINK}),
    ("siliconflow", "Qwen/Qwen-Image-Edit-2511", "/v1/images/generations", {"prompt": "A hat", "image": LINK}),
]


@pytest.mark.parametrize(("adapter", "model", "path", "body"), EDITS)
def test_edits(adapter: str, model: str, path: str, body: dict[str, Any]) -> None:
    """References stand where the provider reads them."""
    sent = through(adapter, model, LINKS)
    assert (sent.path, sent.body) == (path, {"model": model, **body})


def test_files() -> None:
    """DeepInfra's are parts without brackets; SiliconFlow's have a member each."""
    asked = {"prompt": "A hat", "size": "512x512", "quality": "hd"}
    sent = through("deepinfra", "o/n", asked, files=2)
    assert sent.path == "/v1/openai/images/edits"
    assert sorted(sent.body) == [
        *(("image", "0.png"), ("image", "1.png"), ("model", "o/n"), ("prompt", "A hat")),
        *(("response_format", "b64_json"), ("size", "512x512")),
    ]
    body = through("siliconflow", "o/n", asked, files=3).body
    assert [name for name in body if name.startswith("image")] == ["image_size", "image", "image2", "image3"]


@pytest.mark.parametrize(
    ("adapter", "member"),
    [("together", "disable_safety_checker"), ("dashscope", "glow"), ("siliconflow", "glow"), ("deepinfra", "glow")],
)
def test_members_that_the_provider_does_not_document(adapter: str, member: str) -> None:
    """They are dropped, which is told; Together's switch of its safety checker is no client's."""
    sent = through(adapter, "o/n", {"prompt": "A hat", member: True})
    assert member not in json.dumps(sent.body)
    assert member in sent.changes


def test_members_that_together_documents() -> None:
    """The model judges what it takes of them."""
    asked = {"steps": 60, "guidance_scale": 3.5, "negative_prompt": "a cat", "image_loras": [{"path": "p", "scale": 1}]}
    body = through("together", "o/n", {"prompt": "A hat", **asked}).body
    assert {name: body[name] for name in asked} == asked
    assert through("together", "o/n", {"prompt": "A hat", "num_inference_steps": 4}).body["steps"] == 4


ADAPTERS: Final = ("dashscope", "together", "xai", "deepinfra", "siliconflow")


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_listed_models_keep_their_own_contract(adapter: str) -> None:
    """A pattern takes none of them, and a longer one is nearer."""
    contracts = load_contracts(load_adapter(adapter).contracts())
    assert [name for name in contracts if find_contract(contracts, name) is not contracts[name]] == []
    longer = [name for name in contracts if name.endswith("*") and len(name) > 1]
    assert [name for name in longer if find_contract(contracts, f"{name[:-1]}-x") is contracts.get("*")] == []


@pytest.mark.parametrize("adapter", ["dashscope", "together", "deepinfra", "siliconflow"])
def test_the_contract_of_any_model_claims_no_public_name(adapter: str) -> None:
    """It counts behind the name of its upstream only."""
    contracts = load_contracts(load_adapter(adapter).contracts())
    catalog = Catalog({"first": contracts, "second": {"o/n": contracts["*"]}}, {})
    assert [(target.upstream, target.model) for target in catalog.resolve("o/n")] == [("second", "o/n")]
    (own,) = catalog.resolve("first/o/n")
    assert own.contract is contracts["*"]
