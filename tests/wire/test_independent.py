"""Hosted providers as written a second time, from their contracts alone: nothing is refused, misread or silent."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from tests.simulators.independent import hosts, sync, tasks
from tests.simulators.independent.frame import KEY, Provider, form_of
from tests.waiting import until
from tests.wire.edit_support import picture
from tests.wire.self_hosted_support import Setting, setting

PROVIDERS: Mapping[str, tuple[Callable[[], Provider], str]] = {
    "xai": (sync.xai, ""),
    "openrouter": (sync.openrouter, "/api/v1"),
    "seedream": (sync.seedream, "/api/v3"),
    "dashscope": (sync.dashscope, "/api/v1"),
    "stability": (sync.stability, ""),
    "ideogram": (sync.ideogram, ""),
    "recraft": (sync.recraft, ""),
    "bfl": (tasks.bfl, ""),
    "fal": (tasks.fal, ""),
    "replicate": (tasks.replicate, ""),
    "siliconflow": (hosts.siliconflow, ""),
    "modelscope": (hosts.modelscope, ""),
    "zai": (hosts.zai, "/api/paas/v4"),
    "together": (hosts.together, ""),
    "deepinfra": (hosts.deepinfra, ""),
    "fireworks": (hosts.fireworks, ""),
    "bedrock": (hosts.bedrock, ""),
    "huggingface": (hosts.huggingface, ""),
}
MODELS = [
    ("xai", "grok-imagine-image-2.0"),
    ("openrouter", "google/gemini-3-pro-image"),
    ("seedream", "doubao-seedream-5-0-lite"),
    ("seedream", "doubao-seedream-4-0"),
    ("dashscope", "qwen-image-2.0"),
    ("dashscope", "wan2.7-image-pro"),
    ("stability", "sd3.5-large"),
    ("ideogram", "ideogram-v3"),
    ("recraft", "recraftv4_1"),
    ("bfl", "flux-2-pro"),
    ("bfl", "flux-3-image"),
    ("fal", "fal-ai/flux-2"),
    ("fal", "fal-ai/nano-banana-pro"),
    ("replicate", "black-forest-labs/flux-2-pro"),
    ("replicate", "black-forest-labs/flux-dev"),
    ("siliconflow", "Qwen/Qwen-Image"),
    ("modelscope", "Qwen/Qwen-Image"),
    ("zai", "glm-image"),
    ("zai", "cogview-4"),
    ("together", "black-forest-labs/FLUX.2-pro"),
    ("together", "black-forest-labs/FLUX.1-kontext-pro"),
    ("deepinfra", "black-forest-labs/FLUX-2-dev"),
    ("fireworks", "flux-1-schnell-fp8"),
    ("fireworks", "flux-kontext-pro"),
    ("bedrock", "stability.sd3-5-large-v1:0"),
    ("huggingface", "black-forest-labs/FLUX.1-dev"),
    ("huggingface", "nscale/black-forest-labs/FLUX.1-schnell"),
]
EDITED_BY = {"Qwen/Qwen-Image": "Qwen/Qwen-Image-Edit"}
"""Models that make pictures, and those beside them that edit."""
NO_EDITS = ("glm-image", "cogview-4", "flux-1-schnell-fp8", "nscale/black-forest-labs/FLUX.1-schnell")
ASKED: list[dict[str, Any]] = [
    {"size": "1920x1080", "quality": "high", "seed": 7},
    {"size": "21:9", "n": 2, "response_format": "b64_json", "moderation": "low"},
    {"size": "2K", "output_format": "webp", "user": "u-1"},
    {"size": "3840x2160", "output_format": "jpeg", "output_compression": 70, "response_format": "url"},
    {"size": "512x512", "stream": True},
]
OPENAI_EVENTS = ("image_generation.partial_image", "image_generation.completed")
SAY_NOTHING = ("recraft", "siliconflow", "modelscope", "deepinfra", "huggingface")
"""Providers of which it is not known what they answer where they block a prompt."""
NAMED = ("quality", "seed", "moderation", "user", "output_compression", "input_fidelity")
"""What a provider was sent under its own name, or what was disclosed."""


class Place(NamedTuple):
    """A provider and the gateway in front of it."""

    own: Provider
    setting: Setting


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Place]]:
    """Starts each provider once."""
    with ExitStack() as stack:
        known: dict[str, Place] = {}

        def start(adapter: str) -> Place:
            if adapter not in known:
                create, path = PROVIDERS[adapter]
                own, folder = create(), tmp_path_factory.mktemp(adapter)
                more = f'api_key = "{KEY}"'
                known[adapter] = Place(
                    own, stack.enter_context(setting(folder, own.app(), adapter, more=more, path=path))
                )
            known[adapter].own.refused.clear()
            known[adapter].own.calls.clear()
            return known[adapter]

        yield start


def made(reply: httpx.Response, form: str | None) -> list[bytes]:
    """The pictures of a reply or a stream, in the form that was asked for."""
    if reply.headers["content-type"].startswith("text/event-stream"):
        frames = [json.loads(line[5:]) for line in reply.text.splitlines() if line.startswith("data: {")]
        assert all(frame["type"] in OPENAI_EVENTS and frame["created_at"] for frame in frames)
        assert "prompt_tokens" not in reply.text
        items = [frame for frame in frames if frame["type"].endswith(".completed")]
    else:
        items = reply.json()["data"]
    assert form is None or all(item.get(form) for item in items)
    return [
        base64.b64decode(item["b64_json"]) if item.get("b64_json") else httpx.get(item["url"]).content for item in items
    ]


def check(place: Place, reply: httpx.Response, asked: Mapping[str, Any]) -> None:
    """Hold what was sent and what came back against what was asked for."""
    assert reply.status_code == 200, reply.text
    assert place.own.refused == []
    changes = reply.headers.get("imagegate-changes", "")
    found = made(reply, asked.get("response_format"))
    assert len(found) == len(set(found)) == asked.get("n", 1)
    form = asked.get("output_format")
    assert form is None or {form_of(content) for content in found} == {form} or "output_format" in changes
    for name in NAMED:
        assert name not in asked or name in changes or name in json.dumps(place.own.calls[-1].body), name


@pytest.mark.parametrize(("adapter", "model"), MODELS)
def test_generations(place: Callable[[str], Place], adapter: str, model: str) -> None:
    """Sizes in pixels, as ratio and as tier; several; forms; streams."""
    for asked in ASKED:
        found = place(adapter)
        body = {"model": f"own/{model}", "prompt": "a cat", **asked}
        check(found, found.setting.raw.post("/images/generations", json=body), asked)


@pytest.mark.parametrize(("adapter", "model"), [each for each in MODELS if each[1] not in NO_EDITS])
def test_edits(place: Callable[[str], Place], adapter: str, model: str) -> None:
    """A file without a type, and a data URL whose type is in capitals and wrong."""
    found, content = place(adapter), picture(2, 512, "RGB", "JPEG")
    asked: dict[str, Any] = {"model": f"own/{EDITED_BY.get(model, model)}", "prompt": "a hat"}
    files = [("image", ("blob", content, "application/octet-stream"))]
    check(found, found.setting.raw.post("/images/edits", data=asked, files=files), {})
    found, link = place(adapter), f"data:image/PNG;base64,{base64.b64encode(content).decode()}"
    asked |= {"images": [{"image_url": link}], "input_fidelity": "high"}
    check(found, found.setting.raw.post("/images/edits", json=asked), asked)


@pytest.mark.parametrize("adapter", [name for name in PROVIDERS if name not in SAY_NOTHING])
def test_withheld(place: Callable[[str], Place], adapter: str) -> None:
    """Each provider's own way not to make a picture is an error of the request, and is asked for once."""
    model = next(model for name, model in MODELS if name == adapter)
    found = place(adapter)
    reply = found.setting.raw.post("/images/generations", json={"model": f"own/{model}", "prompt": "withheld"})
    assert reply.status_code in (400, 422)
    assert reply.json()["error"]["code"] in ("moderation_blocked", "content_policy_violation")
    assert (len(found.own.calls), found.own.refused) == (1, [])


@pytest.mark.parametrize("adapter", ["stability", "ideogram"])
def test_unknown_models(place: Callable[[str], Place], adapter: str) -> None:
    """Where each model has a path of its own, another is refused by name, and nothing is sent."""
    found = place(adapter)
    reply = found.setting.raw.post("/images/generations", json={"model": "own/new-9", "prompt": "a cat"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "model_not_found")
    assert found.own.calls == []


@pytest.mark.parametrize(("adapter", "model"), [("bfl", "flux-2-pro"), ("replicate", "black-forest-labs/flux-dev")])
def test_addresses_of_tasks_are_kept_to_the_letter(adapter: str, model: str, tmp_path: Path) -> None:
    """Also by an id that says all there is to know, and where `base_url` has a path that they do not have."""
    own, more = PROVIDERS[adapter][0](), f'api_key = "{KEY}"'
    if adapter == "replicate":
        more += "\noptions = { wait = 0 }"
    with setting(tmp_path, own.app(), adapter, more=more, path="/proxy") as at:
        body = {"model": f"own/{model}", "prompt": "a cat", "async": True}
        task = at.raw.post("/images/generations", json=body).json()

        def state() -> dict[str, Any] | None:
            found: dict[str, Any] = at.raw.get(f"/tasks/{task['task_id']}").json()
            return found if found["status"] not in ("pending", "processing") else None

        reply = until(state, what="the end of a task") or {}
        assert (reply["status"], len(reply["data"]), own.refused) == ("completed", 1, [])


@pytest.mark.parametrize(
    ("adapter", "model", "method"),
    [("fal", "fal-ai/flux-2", "PUT"), ("replicate", "black-forest-labs/flux-dev", "POST")],
)
def test_tasks_are_cancelled_where_the_provider_said(adapter: str, model: str, method: str, tmp_path: Path) -> None:
    """To the letter, whatever else its addresses look like."""
    own, more = PROVIDERS[adapter][0](), f'api_key = "{KEY}"'
    if adapter == "replicate":
        more += "\noptions = { wait = 0 }"
    with setting(tmp_path, own.app(), adapter, more=more) as at:
        body = {"model": f"own/{model}", "prompt": "a cat", "async": True}
        task = at.raw.post("/images/generations", json=body).json()
        at.raw.delete(f"/tasks/{task['task_id']}")
        assert (own.cancelled, own.refused) == ([f"{method} t0"], [])
