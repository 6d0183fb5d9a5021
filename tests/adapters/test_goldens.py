"""What goes out, byte for byte: method, URL, headers and body of each adapter's requests."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from tests.wire.edit_support import parts_of

from imagegate.adapter import FilePart, Link, PendingTask
from imagegate.config.model_contracts import base_url_of
from imagegate.config.schema import UpstreamConfig
from imagegate.errors import RequestError
from imagegate.registry import load_adapter
from imagegate.testing import MemoryFile, Seen, outbound, png, rendered
from imagegate.upstream.account import USER_AGENT

ONE, TWO = MemoryFile(png(shade=1), filename="one.png"), MemoryFile(png(shade=2), filename="two.png")
MASK = MemoryFile(png(shade=3), filename="mask.png", part="mask")
COMMON = {"accept": "application/json", "accept-encoding": "identity", "user-agent": USER_AGENT}
JSON = {**COMMON, "content-type": "application/json"}
BEARER = {"authorization": "Bearer sk-test-key"}


def b64(file: MemoryFile) -> str:
    return base64.b64encode(file.content).decode()


def headers(seen: Seen) -> dict[str, str]:
    """All but the length, which is checked, and a form's boundary."""
    fields = dict(seen.headers)
    length = fields.pop("content-length", None)
    assert length is None or int(length) == len(seen.body)
    fields["content-type"] = fields["content-type"].partition(";")[0]
    return fields


def form(seen: Seen) -> list[tuple[str, str, str, bytes]]:
    """Name, file name, type and content of each part, in order."""
    return [
        (part.name, part.filename or "", part.content_type or "", part.content)
        for part in parts_of(seen.headers["content-type"], seen.body)
    ]


def google(*parts: Any, **sizes: str) -> dict[str, Any]:
    config: dict[str, Any] = {"responseModalities": ["IMAGE"]}
    if sizes:
        config["imageConfig"] = sizes
    return {"contents": [{"role": "user", "parts": list(parts)}], "generationConfig": config}


def inline(file: MemoryFile) -> dict[str, Any]:
    return {"inlineData": {"mimeType": "image/png", "data": b64(file)}}


TEXT = {"text": "A hat"}
GOOGLE = "https://generativelanguage.googleapis.com/v1beta/models"
GEMINI_REQUESTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("gemini-3-pro-image", {}, google(TEXT)),
    ("gemini-3-pro-image", {"size": "1024x1024"}, google(TEXT, aspectRatio="1:1", imageSize="1K")),
    ("gemini-3-pro-image", {"size": "3840x2160"}, google(TEXT, aspectRatio="16:9", imageSize="4K")),
    ("gemini-3.1-flash-image", {"size": "512x512"}, google(TEXT, aspectRatio="1:1", imageSize="512")),
    ("gemini-3.1-flash-image", {"size": "1024x4096"}, google(TEXT, aspectRatio="1:4", imageSize="2K")),
    ("gemini-3.1-flash-lite-image", {"size": "2048x2048"}, google(TEXT, aspectRatio="1:1", imageSize="1K")),
    ("gemini-2.5-flash-image", {"size": "1792x1024"}, google(TEXT, aspectRatio="16:9")),
    (
        "gemini-nano-banana-2.1",
        {"aspect_ratio": "8:1", "resolution": "2k"},
        google(TEXT, aspectRatio="8:1", imageSize="2K"),
    ),
    (
        "gemini-3-pro-image",
        {"size": "auto", "quality": "high", "style": "vivid", "response_format": "url"},
        google(TEXT),
    ),
    (
        "gemini-3-pro-image",
        {"operation": "edits", "images": [ONE, TWO], "size": "16:9"},
        google(inline(ONE), inline(TWO), TEXT, aspectRatio="16:9"),
    ),
]


@pytest.mark.parametrize(("model", "asked", "body"), GEMINI_REQUESTS)
def test_gemini(model, asked, body):
    """The model stands in the path, sizes in imageConfig, references before the prompt."""
    seen = outbound(load_adapter("gemini"), model, prompt="A hat", **asked)
    assert (seen.method, seen.url) == ("POST", f"{GOOGLE}/{model}:generateContent")
    assert headers(seen) == {**JSON, "x-goog-api-key": "sk-test-key"}
    assert seen.json == body


@pytest.mark.parametrize(
    ("options", "url", "field"),
    [
        (
            {"project": "studio-1"},
            "https://aiplatform.googleapis.com/v1beta1/projects/studio-1/locations/global/publishers/google/models/M",
            BEARER,
        ),
        (
            {"project": "studio-1", "location": "eu"},
            "https://aiplatform.eu.rep.googleapis.com/v1beta1/projects/studio-1/locations/eu/publishers/google/models/M",
            BEARER,
        ),
        (
            {"project": "studio-1", "location": "europe-west4"},
            (
                "https://europe-west4-aiplatform.googleapis.com/v1beta1"
                "/projects/studio-1/locations/europe-west4/publishers/google/models/M"
            ),
            BEARER,
        ),
        ({}, "https://aiplatform.googleapis.com/v1/publishers/google/models/M", {"x-goog-api-key": "sk-test-key"}),
    ],
)
@pytest.mark.parametrize(("model", "asked", "body"), [GEMINI_REQUESTS[2], GEMINI_REQUESTS[-1]])
def test_vertex(options, url, field, model, asked, body):
    """Bodies are Gemini's; host, path and credential are the cloud's."""
    seen = outbound(load_adapter("vertex", options), model, prompt="A hat", **asked)
    assert (seen.method, seen.url) == ("POST", f"{url[:-1]}{model}:generateContent")
    assert headers(seen) == {**JSON, **field}
    assert seen.json == body


def test_vertex_tuned_models():
    """A tuned model is an endpoint."""
    seen = outbound(load_adapter("vertex", {"project": "studio-1"}), "endpoints/42", prompt="A hat")
    assert seen.path == "/v1beta1/projects/studio-1/locations/global/endpoints/42:generateContent"


@pytest.mark.parametrize("adapter", ["gemini", "vertex"])
def test_google_takes_no_masks(adapter):
    """A mask is refused, and never dropped."""
    with pytest.raises(RequestError) as caught:
        outbound(
            load_adapter(adapter), "gemini-3-pro-image", operation="edits", images=[ONE], mask=MASK, prompt="A hat"
        )
    assert caught.value.param == "mask"


AZURE = "https://studio.openai.azure.com/openai"


@pytest.mark.parametrize(
    ("options", "base_url", "path"),
    [
        ({}, "", "/openai/v1/images/generations?api-version=preview"),
        ({}, "/", "/openai/v1/images/generations?api-version=preview"),
        ({}, "/openai", "/openai/v1/images/generations?api-version=preview"),
        ({}, "/openai/v1/", "/openai/v1/images/generations?api-version=preview"),
        ({}, "/openai/v1?api-version=2027-01-01", "/openai/v1/images/generations?api-version=2027-01-01"),
        (
            *({}, "/openai/deployments/d?api-version=2025-03-01-preview"),
            "/openai/deployments/d/images/generations?api-version=2025-03-01-preview",
        ),
        (
            *({}, "/openai/deployments/d"),
            "/openai/deployments/d/images/generations?api-version=2025-04-01-preview",
        ),
        (
            *({"form": "deployments"}, "/"),
            "/openai/deployments/my%20own/images/generations?api-version=2025-04-01-preview",
        ),
    ],
)
def test_azure_addresses(options, base_url, path):
    """An endpoint as the portal shows it, an API, a deployment: what the operator wrote counts."""
    upstream = UpstreamConfig(
        name="azure", base_url=f"https://studio.openai.azure.com{base_url}", options=options, api_key="sk-test-key"
    )
    seen = outbound(
        load_adapter("azure", options), "my own", base_url=base_url_of(upstream), prompt="A hat", output_format="webp"
    )
    assert seen.url == f"https://studio.openai.azure.com{path}"
    assert seen.json == {"model": "my own", "prompt": "A hat", "output_format": "png"}


def test_azure_deployments_with_names_of_their_own():
    """Their models are unknown, but none takes ``response_format``; what else the client says passes."""
    asked = {"prompt": "A hat", "response_format": "b64_json", "background": "transparent", "size": "1000x1000"}
    seen = outbound(load_adapter("azure", {"resource": "studio"}), "pictures", **asked, style="vivid")
    assert seen.json == {
        "model": "pictures",
        "prompt": "A hat",
        "background": "transparent",
        "size": "1000x1000",
        "style": "vivid",
    }


def test_vertex_has_tuned_models_in_projects_only():
    seen = outbound(load_adapter("vertex", {"project": "p"}), "endpoints/7", prompt="A hat")
    assert seen.url.endswith("/v1beta1/projects/p/locations/global/endpoints/7:generateContent")
    with pytest.raises(RequestError, match=r"options\.project"):
        outbound(load_adapter("vertex"), "endpoints/7", prompt="A hat")


@pytest.mark.parametrize(
    ("options", "generations", "edits"),
    [
        ({}, "/v1/images/generations?api-version=preview", "/v1/images/edits?api-version=preview"),
        (
            {"form": "deployments"},
            "/deployments/gpt-image-2/images/generations?api-version=2025-04-01-preview",
            "/deployments/gpt-image-2/images/edits?api-version=2025-04-01-preview",
        ),
        (
            {"api_version": "2027-01-01"},
            "/v1/images/generations?api-version=2027-01-01",
            "/v1/images/edits?api-version=2027-01-01",
        ),
    ],
)
def test_azure(options, generations, edits):
    """Both forms of address; the body keeps the model; edits are forms."""
    adapter = load_adapter("azure", {"resource": "studio", **options})
    key = {"api-key": "sk-test-key"}
    for size, sent in (("1024x1024", "1024x1024"), ("1920x1080", "1920x1088")):
        seen = outbound(adapter, "gpt-image-2", prompt="A hat", size=size, response_format="url", output_format="webp")
        assert (seen.method, seen.url, headers(seen)) == ("POST", AZURE + generations, {**JSON, **key})
        assert seen.json == {"model": "gpt-image-2", "prompt": "A hat", "size": sent, "output_format": "png"}
    seen = outbound(adapter, "gpt-image-2", operation="edits", images=[ONE, TWO], mask=MASK, prompt="A hat")
    assert (seen.method, seen.url) == ("POST", AZURE + edits)
    assert headers(seen) == {**COMMON, **key, "content-type": "multipart/form-data"}
    assert form(seen) == [
        ("model", "", "", b"gpt-image-2"),
        ("prompt", "", "", b"A hat"),
        ("image[]", "one.png", "image/png", ONE.content),
        ("image[]", "two.png", "image/png", TWO.content),
        ("mask", "mask.png", "image/png", MASK.content),
    ]


@pytest.mark.parametrize(
    ("base_url", "options", "url"),
    [
        (
            "https://gate.example/openai/v1",
            {},
            "https://gate.example/openai/v1/images/generations?api-version=preview",
        ),
        (
            "https://gate.example/openai/deployments/pictures?api-version=2025-04-01-preview",
            {"api_version": "2025-04-01-preview"},
            "https://gate.example/openai/deployments/pictures/images/generations?api-version=2025-04-01-preview",
        ),
    ],
)
def test_azure_with_a_base_url(base_url, options, url):
    """The address of a deployment, as the portal shows it, is complete."""
    seen = outbound(load_adapter("azure", options), "gpt-image-2", base_url=base_url, prompt="A hat")
    assert seen.url == url


@pytest.mark.parametrize(
    ("model", "asked", "sent"),
    [
        ("gpt-image-1.5", {"size": "1792x1024"}, {"size": "1536x1024"}),
        ("gpt-image-2.6-flare", {"size": "1920x1080", "complexity": "low"}, {"size": "1920x1088", "complexity": "low"}),
        ("gpt-image-2.5-flare", {"complexity": "low", "quality": "max"}, {"quality": "max"}),
        (
            "gpt-image-2.6-sunburst",
            {
                "output_format": "gif",
                "frame_count": 12,
                "frame_duration_ms": 80,
                "output_compression": 50,
                "stream": True,
            },
            {"output_format": "gif", "frame_count": 12, "frame_duration_ms": 80},
        ),
        (
            "gpt-image-2.6-sunburst",
            {"output_format": "svg", "svg": {"model": "x", "reasoning": {"effort": "low"}}, "frame_count": 3},
            {"output_format": "svg", "svg": {"model": "x", "reasoning": {"effort": "low"}}},
        ),
        (
            "gpt-image-2.5-flare",
            {"output_format": "svg", "stream": True, "partial_images": 2, "output_compression": 50},
            {"output_format": "svg"},
        ),
        ("gpt-image-2.5-flare", {"stream": True, "partial_images": 2}, {"stream": True, "partial_images": 2}),
    ],
)
def test_openai(model, asked, sent):
    """JSON in the client's order, fitted to the family."""
    seen = outbound(load_adapter("openai"), model, prompt="A hat", **asked)
    assert (seen.method, seen.url) == ("POST", "https://api.openai.com/v1/images/generations")
    assert headers(seen) == {**JSON, **BEARER}
    assert seen.json == {"model": model, "prompt": "A hat", **sent}


def test_openai_edits_with_a_markup():
    """A markup goes as a part of its own, with the models that take one, and never with a mask or an older model."""
    import msgspec

    from imagegate.adapter import ImageRequest
    from imagegate.contract import load_contracts
    from imagegate.fitting.fit import fit

    adapter = load_adapter("openai")
    contracts = load_contracts(adapter.contracts())
    asked = ImageRequest(operation="edits", fields={"model": "m", "prompt": "A hat"}, images=(ONE,), markup=MASK)
    for model in ("gpt-image-2.5-flare", "gpt-image-2.6-flare"):
        fitted, changes = fit(asked, contracts[model])
        assert changes == ()
        parts = adapter.encode(fitted).parts
        assert [(part.name, part.upload) for part in parts if isinstance(part, FilePart)] == [
            ("image", ONE),
            ("markup", MASK),
        ]
        with pytest.raises(RequestError, match="a mask or a markup"):
            fit(msgspec.structs.replace(asked, mask=MASK), contracts[model])
    wrong = [MemoryFile(png(alpha=False)), MemoryFile(png(3, 9)), MemoryFile(b"no picture")]
    for markup, model in [(MASK, "gpt-image-2"), *((each, "gpt-image-2.6-flare") for each in wrong)]:
        with pytest.raises(RequestError) as caught:
            fit(msgspec.structs.replace(asked, markup=markup), contracts[model])
        assert caught.value.param == "markup"


def test_openai_animations_take_no_mask():
    """Neither is dropped: the request names both."""
    with pytest.raises(RequestError) as caught:
        outbound(
            load_adapter("openai"),
            "gpt-image-2.6-flare",
            operation="edits",
            images=[ONE],
            mask=MASK,
            prompt="A hat",
            output_format="gif",
        )
    assert (caught.value.param, "gif" in caught.value.message) == ("mask", True)


RELAY = "https://relay.example"


@pytest.mark.parametrize(
    ("options", "base_url", "asked", "url", "body"),
    [
        ({}, RELAY, {"size": "9x9", "own": 1}, f"{RELAY}/v1/images/generations", {"size": "9x9", "own": 1}),
        ({}, f"{RELAY}/api/v3", {}, f"{RELAY}/api/v3/images/generations", {}),
        ({"version_path": "/api/v2"}, RELAY, {}, f"{RELAY}/api/v2/images/generations", {}),
        ({"version_path": ""}, RELAY, {}, f"{RELAY}/images/generations", {}),
        (
            {"sizes": "gemini-3-pro-image"},
            RELAY,
            {"size": "3840x2160"},
            f"{RELAY}/v1/images/generations",
            {"aspect_ratio": "16:9", "resolution": "4K"},
        ),
        ({"sizes": "gpt-image-1"}, RELAY, {"size": "16:9"}, f"{RELAY}/v1/images/generations", {"size": "1536x1024"}),
    ],
)
def test_openai_compatible(options, base_url, asked, url, body):
    """Members pass as they are; path and sizes are as the options say."""
    adapter = load_adapter("openai-compatible", options)
    adapter.check()
    seen = outbound(adapter, "any", base_url=base_url, prompt="A hat", **asked)
    assert (seen.method, seen.url, headers(seen)) == ("POST", url, {**JSON, **BEARER})
    assert seen.json == {"model": "any", "prompt": "A hat", **body}


def test_openai_compatible_references():
    """Files, OpenAI's objects, or links on generations; with a mask where there is a place for it."""
    asked: dict[str, Any] = {"operation": "edits", "prompt": "A hat", "base_url": RELAY}
    files = load_adapter("openai-compatible", {"references": "files"})
    seen = outbound(files, "any", images=[ONE, TWO], mask=MASK, **asked)
    assert seen.url == f"{RELAY}/v1/images/edits"
    assert [part[0] for part in form(seen)] == ["model", "prompt", "image[]", "image[]", "mask"]
    links = load_adapter(
        "openai-compatible", {"references": "links", "reference_field": "refs", "mask_field": "mask_url"}
    )
    seen = outbound(
        links, "any", images=[Link("https://a.example/1.png")], mask=Link("https://a.example/m.png"), **asked
    )
    assert seen.url == f"{RELAY}/v1/images/generations"
    assert seen.json == {
        "model": "any",
        "prompt": "A hat",
        "refs": ["https://a.example/1.png"],
        "mask_url": "https://a.example/m.png",
    }
    none = load_adapter("openai-compatible", {"references": "none"})
    with pytest.raises(RequestError, match="has no edits"):
        outbound(none, "any", images=[ONE], **asked)


def test_openai_compatible_keys_and_tasks():
    """A key in another field; New-API's tasks below the path that made them; Midjourney's own dialect."""
    keyed = load_adapter("openai-compatible", {"key_header": "X-API-Key", "key_scheme": "", "tasks": "new-api"})
    seen = outbound(keyed, "any", base_url=RELAY, prompt="A hat")
    assert headers(seen) == {**JSON, "x-api-key": "sk-test-key"}
    task = PendingTask(id="task_1")
    assert rendered(keyed, keyed.poll(task), base_url=RELAY).url == f"{RELAY}/v1/images/generations/task_1"
    own = load_adapter("openai-compatible", {"task_path": "/v1/task/{id}"})
    assert rendered(own, own.poll(task), base_url=RELAY).url == f"{RELAY}/v1/task/task_1"
    proxy = load_adapter("openai-compatible", {"tasks": "midjourney"})
    seen = outbound(
        proxy, "any", base_url=RELAY, prompt="A hat", size="1920x1080", operation="edits", images=[ONE], n=1, seed=3
    )
    assert (seen.method, seen.url) == ("POST", f"{RELAY}/mj/submit/imagine")
    assert seen.json == {
        "botType": "MID_JOURNEY",
        "prompt": "A hat --ar 16:9",
        "base64Array": [f"data:image/png;base64,{b64(ONE)}"],
    }
    assert rendered(proxy, proxy.poll(task), base_url=RELAY).url == f"{RELAY}/mj/task/task_1/fetch"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": "nothing"}, r"^options\.sizes: there is no family 'nothing' with sizes\. Known: gpt-image-1, "),
        ({"task_path": "/v1/tasks"}, r"^options\.task_path: has no \{id\}$"),
        ({"most_images": 0}, r"^options\.most_images: must be from 1 to 10000$"),
        ({"references": "carrier pigeon"}, r"^options\.references: Invalid enum value 'carrier pigeon'$"),
    ],
)
def test_openai_compatible_options_are_checked(options, message):
    """The key that is wrong is named."""
    from imagegate.errors import ConfigError

    with pytest.raises(ConfigError, match=message):
        load_adapter("openai-compatible", options).check()


def test_usage_in_openais_words():
    """Google's counts become input and output tokens; what was thought is output; strange counts are left out."""
    from imagegate.adapter import UpstreamReply

    adapter = load_adapter("gemini")

    def usage(counts: Any) -> Any:
        import msgspec

        picture = {"inlineData": {"mimeType": "image/png", "data": b64(ONE)}}
        document = {"candidates": [{"content": {"parts": [picture]}}], "usageMetadata": counts}
        return adapter.decode(UpstreamReply(status=200, headers={}, body=msgspec.json.encode(document)), now=7)

    counts = {
        "promptTokenCount": 12,
        "candidatesTokenCount": 1120,
        "thoughtsTokenCount": 64,
        "totalTokenCount": 1196,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 4}, {"modality": "IMAGE", "tokenCount": 8}],
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1120}, {"modality": "AUDIO", "tokenCount": 1}],
    }
    assert usage(counts).fields == {
        "usage": {
            "input_tokens": 12,
            "output_tokens": 1184,
            "total_tokens": 1196,
            "input_tokens_details": {"text_tokens": 4, "image_tokens": 8},
            "output_tokens_details": {"image_tokens": 1120},
        }
    }
    assert usage({"promptTokenCount": "many", "promptTokensDetails": [1, {"modality": "TEXT"}]}).fields == {
        "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    }
    assert usage(None).fields == {}
