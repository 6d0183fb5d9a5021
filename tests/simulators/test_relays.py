"""Simulators of OpenRouter, Seedream, DashScope, SiliconFlow, ModelScope, Z.ai: nothing beyond the contracts passes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from tests.simulators import dashscope, modelscope, openrouter, seedream, siliconflow, zai
from tests.simulators.base import KEY
from tests.simulators.support import client_of

from imagegate.errors import RequestError
from imagegate.registry import load_adapter
from imagegate.testing import outbound, png

DATA_URL = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
WRONG_DATA = ("https:/a", "a.png", "data:image/PNG;base64,AAAA", DATA_URL.partition(",")[2], 7)


class Endpoint(NamedTuple):
    """One path, and a request that it takes."""

    create_app: Callable[[], Starlette]
    path: str
    body: dict[str, Any]
    headers: Mapping[str, str] = {}


def message(*images: Any, text: Any = "a cat", **parameters: Any) -> dict[str, Any]:
    content = [*({"image": image} for image in images), {"text": text}]
    return {"input": {"messages": [{"role": "user", "content": content}]}, "parameters": parameters}


AIGC = "/api/v1/services/aigc"
ENABLE = {"X-DashScope-Async": "enable"}
ENDPOINTS = {
    "siliconflow": Endpoint(
        siliconflow.create_app,
        "/v1/images/generations",
        {"model": "Kwai-Kolors/Kolors", "prompt": "a cat", "image_size": "1024x1024", "batch_size": 2},
    ),
    "siliconflow-edit": Endpoint(
        siliconflow.create_app,
        "/v1/images/generations",
        {"model": "Qwen/Qwen-Image-Edit", "prompt": "a cat", "image": DATA_URL},
    ),
    "zai": Endpoint(
        zai.create_app,
        "/api/paas/v4/images/generations",
        {"model": "cogview-4", "prompt": "a cat", "size": "1024x1024"},
    ),
    "zai-task": Endpoint(
        zai.create_app,
        "/api/paas/v4/async/images/generations",
        {"model": "glm-image", "prompt": "a cat", "quality": "hd"},
    ),
    "modelscope": Endpoint(
        modelscope.create_app,
        "/v1/images/generations",
        {"model": "Qwen/Qwen-Image", "prompt": "a cat", "size": "1664x928"},
        {"X-ModelScope-Async-Mode": "true"},
    ),
    "modelscope-edit": Endpoint(
        modelscope.create_app,
        "/v1/images/generations",
        {"model": "Qwen/Qwen-Image-Edit", "prompt": "a cat", "image_url": "https://a.example/1.png"},
        {"X-ModelScope-Async-Mode": "true"},
    ),
    "qwen": Endpoint(
        dashscope.create_app,
        f"{AIGC}/multimodal-generation/generation",
        {"model": "qwen-image", **message(size="1328*1328", n=1)},
    ),
    "qwen-edit": Endpoint(
        dashscope.create_app,
        f"{AIGC}/multimodal-generation/generation",
        {"model": "qwen-image-edit-plus", **message(DATA_URL, size="1024*1024")},
    ),
    "wan": Endpoint(
        dashscope.create_app,
        f"{AIGC}/image-generation/generation",
        {"model": "wan2.7-image", **message(size="2K", n=1)},
        ENABLE,
    ),
    "wan-t2i": Endpoint(
        dashscope.create_app,
        f"{AIGC}/text2image/image-synthesis",
        {"model": "wan2.2-t2i-plus", "input": {"prompt": "a cat"}, "parameters": {"size": "1024*1024", "n": 1}},
        ENABLE,
    ),
    "seedream": Endpoint(
        seedream.create_app,
        "/api/v3/images/generations",
        {"model": "seedream-4-5-251128", "prompt": "a cat", "size": "2K", "watermark": False, "image": [DATA_URL]},
    ),
    "openrouter": Endpoint(
        openrouter.create_app,
        "/api/v1/images",
        {"model": "openai/gpt-image-2", "prompt": "a cat", "aspect_ratio": "16:9", "resolution": "1K"},
    ),
    "openrouter-chat": Endpoint(
        openrouter.create_app,
        "/api/v1/chat/completions",
        {
            "model": "google/gemini-3-pro-image",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "a cat"}]}],
            "modalities": ["image", "text"],
            "image_config": {"aspect_ratio": "16:9"},
        },
    ),
}


def answer(name: str, *, key: str = KEY, headers: Mapping[str, str] | None = None, **changes: Any) -> Any:
    endpoint = ENDPOINTS[name]
    body = {member: value for member, value in {**endpoint.body, **changes}.items() if value is not None}
    own = {"authorization": f"Bearer {key}", **(endpoint.headers if headers is None else headers)}
    return client_of(endpoint.create_app()).post(endpoint.path, json=body, headers=own)


@pytest.mark.parametrize("name", ENDPOINTS)
def test_what_is_taken_and_what_no_api_takes(name: str) -> None:
    """The body as it is; then a wrong key, a member that nobody knows, a body that is no JSON, no model and no path."""
    endpoint = ENDPOINTS[name]
    assert answer(name).status_code == 200, answer(name).text
    assert answer(name, key="sk-other").status_code == 401
    assert answer(name, style="vivid").status_code == 400
    assert answer(name, response_format="b64").status_code == 400
    assert answer(name, model="none").status_code in (400, 404)
    assert answer(name, model=None).status_code in (400, 404)
    client = client_of(endpoint.create_app(), authorization=f"Bearer {KEY}")
    assert client.post(endpoint.path, content=b"{", headers=dict(endpoint.headers)).status_code in (400, 404)
    assert client.post(f"{endpoint.path}/x").status_code in (400, 404)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *(("siliconflow", {"image_size": size}) for size in (None, "auto", "1024*1024", "1328x1328", 1024)),
        *(("siliconflow", {"batch_size": count}) for count in (0, 5, "2", True, 1.5)),
        ("siliconflow", {"size": "1024x1024"}),
        ("siliconflow-edit", {"image_size": "1024x1024"}),
        *(("siliconflow-edit", {"image": image}) for image in (None, *WRONG_DATA)),
        *(("zai", {"size": size}) for size in ("1000x1000", "2048x2048", "16:9", "1024*1024")),
        ("zai", {"user_id": "short"}),
        *(("zai-task", {"quality": quality}) for quality in ("standard", "high", True)),
        ("zai-task", {"size": "1008x1024"}),
        ("zai-task", {"model": "cogview-4"}),
        *(("modelscope", {"size": size}) for size in ("2048x2048", "32x32", "auto")),
        *(("modelscope", {member: value}) for member, value in (("n", 1), ("seed", 2**31), ("guidance", 1))),
        ("modelscope", {"prompt": "x" * 2000}),
        *(("modelscope-edit", {"image_url": link}) for link in (None, DATA_URL, ["https://a.example/1.png"])),
        *(("qwen", message(size=size)) for size in ("1328x1328", "1024*1024", "1K", 1328)),
        *(("qwen", message(n=count)) for count in (2, 0, "1")),
        ("qwen", message(thinking_mode=True)),
        ("qwen", {"prompt": "a cat"}),
        ("qwen", {"input": {"prompt": "a cat"}}),
        ("qwen", message(text=7)),
        ("qwen-edit", message(size="1024*1024")),
        ("qwen-edit", message("a.png")),
        *(("wan", message(size=size)) for size in ("4K", "2048x2048", "256*256")),
        ("wan", message(n=5)),
        ("wan-t2i", {"input": {"messages": []}}),
        ("wan-t2i", {"parameters": {"negative_prompt": "x"}}),
        ("wan-t2i", {"parameters": {"size": "2048*2048"}}),
        *(("seedream", {"size": size}) for size in ("1K", "2k", "1024x1024", "auto", "16:9", 2048)),
        *(("seedream", {"image": image}) for image in (*WRONG_DATA, [DATA_URL] * 15)),
        *(("seedream", {member: value}) for member, value in (("n", 1), ("output_format", "png"), ("watermark", 0))),
        (
            "seedream",
            {"sequential_image_generation": "auto", "sequential_image_generation_options": {"max_images": 16}},
        ),
        (
            "seedream",
            {"sequential_image_generation": "auto", "sequential_image_generation_options": {"max_images": 15}},
        ),
        ("seedream", {"model": "seedream-5-0-pro-260601", "stream": True}),
        *(("openrouter", {"aspect_ratio": ratio}) for ratio in ("7:4", "16x9", 1.5)),
        *(("openrouter", {"resolution": tier}) for tier in ("1k", "8K")),
        ("openrouter", {"n": 2}),
        ("openrouter", {"input_references": [{"url": DATA_URL}]}),
        ("openrouter", {"input_references": [DATA_URL]}),
        ("openrouter", {"stream": "true"}),
        ("openrouter-chat", {"modalities": None}),
        ("openrouter-chat", {"image_config": {"aspect_ratio": "auto"}}),
        ("openrouter-chat", {"image_config": {"image_size": "1k"}}),
        ("openrouter-chat", {"prompt": "a cat"}),
    ],
)
def test_what_is_refused(name: str, changes: dict[str, Any]) -> None:
    """Other values, other types, and members of other models."""
    reply = answer(name, **changes)
    assert reply.status_code == 400, reply.text


@pytest.mark.parametrize(
    ("name", "headers", "status"),
    [
        ("wan", {}, 403),
        ("wan-t2i", {"X-DashScope-Async": "true"}, 403),
        ("qwen", ENABLE, 403),
        ("modelscope", {}, 400),
        ("modelscope", {"X-ModelScope-Async-Mode": "True"}, 400),
    ],
)
def test_headers_of_tasks(name: str, headers: dict[str, str], status: int) -> None:
    """Needed where there is a task, and refused where there is none."""
    assert answer(name, headers=headers).status_code == status


def test_tasks_go_through_their_states() -> None:
    """As the contracts name them; a question without its header is refused, and an unknown task is answered so."""
    app = modelscope.create_app()
    client = client_of(app, authorization=f"Bearer {KEY}")
    endpoint = ENDPOINTS["modelscope"]
    task = client.post(endpoint.path, json=endpoint.body, headers=dict(endpoint.headers)).json()["task_id"]
    assert client.get(f"/v1/tasks/{task}").status_code == 400
    kind = {"X-ModelScope-Task-Type": "image_generation"}
    states = [client.get(f"/v1/tasks/{task}", headers=kind).json()["task_status"] for _ in range(3)]
    assert states == ["PENDING", "PROCESSING", "SUCCEED"]
    assert client.get("/v1/tasks/none", headers=kind).status_code == 404
    client = client_of(dashscope.create_app(), authorization=f"Bearer {KEY}")
    lost = client.get("/api/v1/tasks/none").json()
    assert lost["output"] == {"task_id": "none", "task_status": "UNKNOWN"}
    client = client_of(zai.create_app(), authorization=f"Bearer {KEY}")
    assert client.get("/api/paas/v4/async-result/none").status_code == 400


def test_wan_makes_four_pictures_where_it_is_not_told() -> None:
    """Which is why an adapter has to tell it."""
    app = dashscope.create_app()
    client = client_of(app, authorization=f"Bearer {KEY}")
    body = {"model": "wan2.7-image", **message()}
    task = client.post(ENDPOINTS["wan"].path, json=body, headers=ENABLE).json()["output"]["task_id"]
    replies = [client.get(f"/api/v1/tasks/{task}").json()["output"] for _ in range(3)]
    assert len(replies[-1]["choices"]) == 4


# Whatever is asked

SIZES = st.one_of(
    st.sampled_from(
        ["auto", "1024x1024", "1792x1024", "16:9", "9:16", "21:9", "4:3", "19.5:9", "1:8", "512", "1K", "2K", "4K"]
    ),
    st.builds("{}x{}".format, st.integers(64, 3000), st.integers(64, 3000)),
    st.builds("{}:{}".format, st.integers(1, 32), st.integers(1, 32)),
)
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "size": SIZES,
        "aspect_ratio": st.sampled_from(["1:1", "16:9", "2:3", "7:4"]),
        "resolution": st.sampled_from(["1k", "2K", "4K"]),
        "n": st.integers(1, 4),
        "quality": st.sampled_from(["auto", "low", "standard", "hd", "max"]),
        "output_format": st.sampled_from(["png", "jpeg", "webp"]),
        "output_compression": st.integers(0, 100),
        "background": st.sampled_from(["auto", "opaque"]),
        "seed": st.integers(0, 2**31 - 1),
        "watermark": st.booleans(),
        "negative_prompt": st.text(max_size=20),
        "guidance_scale": st.integers(2, 20),
        "steps": st.integers(1, 100),
        "prompt_extend": st.booleans(),
        "user": st.text(max_size=8),
        "response_format": st.sampled_from(["url", "b64_json"]),
        "style": st.just("vivid"),
    },
)
ADAPTERS = {
    "siliconflow": ("siliconflow", {}, ["Kwai-Kolors/Kolors", "Qwen/Qwen-Image"]),
    "zai": ("zai", {}, ["cogview-4"]),
    "zai-task": ("zai", {}, ["glm-image"]),
    "modelscope": (
        "modelscope",
        {},
        ["Qwen/Qwen-Image", "black-forest-labs/FLUX.1-dev", "stabilityai/stable-diffusion-xl-base-1.0"],
    ),
    "qwen": ("dashscope", {}, ["qwen-image", "qwen-image-2.0"]),
    "wan": ("dashscope", {}, ["wan2.7-image", "wan2.6-t2i"]),
    "wan-t2i": ("dashscope", {}, ["wan2.2-t2i-plus"]),
    "seedream": ("seedream", {}, ["seedream-4-5-251128", "seedream-4-0-250828", "seedream-5-0-260128"]),
    "seedream-pro": ("seedream", {}, ["seedream-5-0-pro-260601"]),
    "openrouter": ("openrouter", {}, ["openai/gpt-image-2"]),
    "openrouter-chat": ("openrouter", {"api": "chat"}, ["google/gemini-3-pro-image"]),
}


@pytest.mark.parametrize("name", ADAPTERS)
@settings(max_examples=15, deadline=None)
@given(members=MEMBERS, data=st.data())
def test_whatever_a_client_asks_is_taken_or_refused_before_it_is_sent(
    name: str, members: dict[str, Any], data: st.DataObject
) -> None:
    """What the adapters make of any request is legal by the rules of the simulators, which know nothing of adapters."""
    adapter, options, models = ADAPTERS[name]
    own = load_adapter(adapter, options)
    try:
        seen = outbound(own, data.draw(st.sampled_from(models)), prompt="a cat", api_key=KEY, **members)
    except RequestError:
        return
    reply = client_of(ENDPOINTS[name.removesuffix("-pro")].create_app()).post(
        seen.path, content=seen.body, headers=dict(seen.headers)
    )
    assert reply.status_code == 200, (seen.json, reply.text)
