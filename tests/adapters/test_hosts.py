"""What goes out to hosting providers: method, URL, headers and body, as their contracts have it."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.adapters.test_goldens import BEARER, COMMON, JSON, MASK, ONE, TWO, form, headers

from imagegate.adapter import ImageReply, ImageRequest, Link, PendingTask, UpstreamReply
from imagegate.contract import load_contracts
from imagegate.errors import ConfigError, RequestError, UpstreamError
from imagegate.fitting.fit import fit
from imagegate.registry import load_adapter
from imagegate.testing import outbound, rendered

PROMPT = {"prompt": "A hat"}
ONE_URL = f"data:image/png;base64,{base64.b64encode(ONE.content).decode()}"
TWO_URL = f"data:image/png;base64,{base64.b64encode(TWO.content).decode()}"
ONE_64 = ONE_URL.partition(",")[2]
EDIT: dict[str, Any] = {"operation": "edits", "images": [ONE]}
FORM = {**COMMON, "content-type": "multipart/form-data"}

TOGETHER = "https://api.together.xyz/v1/images/generations"
DEEPINFRA = "https://api.deepinfra.com/v1/inference"
HUGGINGFACE = "https://router.huggingface.co"
FIREWORKS = "https://api.fireworks.ai/inference/v1"
BEDROCK = "https://bedrock-runtime.us-west-2.amazonaws.com/model"
RECRAFT = "https://external.api.recraft.ai/v1/images"
BFL = "black-forest-labs"
T_PRO, T_FLEX = f"{BFL}/FLUX.2-pro", f"{BFL}/FLUX.2-flex"
T_KONTEXT = f"{BFL}/FLUX.1-kontext-pro"
T_COMMON = {"response_format": "base64", **PROMPT, "output_format": "png"}
TARGET = {"width": 512, "height": 512}

JSON_REQUESTS: list[tuple[str, str, dict[str, Any], str, dict[str, Any]]] = [
    ("together", T_PRO, {}, TOGETHER, {"model": T_PRO, **T_COMMON}),
    (
        *("together", T_PRO, {"size": "1792x1024", "n": 4, "seed": 7, "output_format": "jpeg"}, TOGETHER),
        {"model": T_PRO, **T_COMMON, "width": 1792, "height": 1024, "n": 4, "seed": 7, "output_format": "jpeg"},
    ),
    (
        *("together", f"{BFL}/FLUX.1-schnell", {"size": "1024x1792", "num_inference_steps": 4}, TOGETHER),
        {"model": f"{BFL}/FLUX.1-schnell", **T_COMMON, "aspect_ratio": "9:16", "steps": 4},
    ),
    (
        *("together", T_FLEX, {**EDIT, "images": [ONE, TWO], "size": "4096x4096"}, TOGETHER),
        {"model": T_FLEX, **T_COMMON, "width": 2048, "height": 2048, "reference_images": [ONE_URL, TWO_URL]},
    ),
    ("together", T_KONTEXT, EDIT, TOGETHER, {"model": T_KONTEXT, **T_COMMON, "image_url": ONE_URL}),
    (
        *("together", T_KONTEXT, {**EDIT, "images": [Link("https://a.example/1.png")]}, TOGETHER),
        {"model": T_KONTEXT, **T_COMMON, "image_url": "https://a.example/1.png"},
    ),
    ("deepinfra", f"{BFL}/FLUX-1-dev", {}, f"{DEEPINFRA}/{BFL}/FLUX-1-dev", PROMPT),
    (
        *("deepinfra", f"{BFL}/FLUX-1-dev", {"size": "1024x768", "n": 1, "steps": 20}, f"{DEEPINFRA}/{BFL}/FLUX-1-dev"),
        {**PROMPT, "width": 1024, "height": 768, "num_images": 1, "num_inference_steps": 20},
    ),
    ("huggingface", "o/n", {}, f"{HUGGINGFACE}/hf-inference/models/o/n", {"inputs": "A hat"}),
    (
        *("huggingface", "o/n", {"size": "1000x500", "seed": 7, "steps": 5}, f"{HUGGINGFACE}/hf-inference/models/o/n"),
        {"inputs": "A hat", "parameters": {"width": 992, "height": 496, "seed": 7, "num_inference_steps": 5}},
    ),
    (
        *("huggingface", "o/n", {**EDIT, "size": "512x512"}, f"{HUGGINGFACE}/hf-inference/models/o/n"),
        {"inputs": ONE_64, "parameters": {"prompt": "A hat", "target_size": TARGET}},
    ),
    (
        *("huggingface", "together/o/n", {"size": "512x512"}, f"{HUGGINGFACE}/together/v1/images/generations"),
        {"model": "o/n", "response_format": "base64", **PROMPT, "width": 512, "height": 512},
    ),
    (
        *("huggingface", "nscale/o/n", {"size": "512x512"}, f"{HUGGINGFACE}/nscale/v1/images/generations"),
        {"model": "o/n", "response_format": "b64_json", **PROMPT, "size": "512x512"},
    ),
    (
        *("fireworks", "flux-1-schnell-fp8", {"size": "1792x1024", "steps": 4}),
        f"{FIREWORKS}/workflows/accounts/fireworks/models/flux-1-schnell-fp8/text_to_image",
        {**PROMPT, "aspect_ratio": "16:9", "num_inference_steps": 4},
    ),
    (
        *("fireworks", "SSD-1B", {"size": "1000x1500", "output_format": "jpeg"}),
        f"{FIREWORKS}/image_generation/accounts/fireworks/models/SSD-1B",
        {**PROMPT, "width": 832, "height": 1216},
    ),
    (
        *("fireworks", "flux-kontext-pro", {"seed": 7}),
        f"{FIREWORKS}/workflows/accounts/fireworks/models/flux-kontext-pro",
        {**PROMPT, "seed": 7, "output_format": "png"},
    ),
    (
        *("fireworks", "flux-kontext-max", {**EDIT, "size": "9:16", "output_format": "jpeg"}),
        f"{FIREWORKS}/workflows/accounts/fireworks/models/flux-kontext-max",
        {**PROMPT, "aspect_ratio": "9:16", "output_format": "jpeg", "input_image": ONE_URL},
    ),
    (
        *("bedrock", "stability.stable-image-core-v1:1", {"size": "1792x1024", "seed": 7, "output_format": "webp"}),
        f"{BEDROCK}/stability.stable-image-core-v1%3A1/invoke",
        {**PROMPT, "seed": 7, "output_format": "png", "aspect_ratio": "16:9"},
    ),
    (
        *("bedrock", "stability.sd3-5-large-v1:0", {"size": "1:1"}, f"{BEDROCK}/stability.sd3-5-large-v1%3A0/invoke"),
        {**PROMPT, "mode": "text-to-image", "output_format": "png", "aspect_ratio": "1:1"},
    ),
    (
        *("bedrock", "stability.sd3-5-large-v1:0", {**EDIT, "size": "1:1", "strength": 0.2}),
        f"{BEDROCK}/stability.sd3-5-large-v1%3A0/invoke",
        {**PROMPT, "mode": "image-to-image", "output_format": "png", "strength": 0.2, "image": ONE_64},
    ),
    (
        *("recraft", "recraftv4_1", {"size": "1000x1000", "n": 6, "style": "vivid", "response_format": "b64_json"}),
        f"{RECRAFT}/generations",
        {"model": "recraftv4_1", **PROMPT, "size": "1024x1024", "n": 6, "response_format": "b64_json"},
    ),
    (
        *("recraft", "recraftv3", {"size": "14:10", "style": "digital_illustration", "negative_prompt": "a cat"}),
        f"{RECRAFT}/generations",
        {
            "model": "recraftv3",
            **PROMPT,
            "size": "14:10",
            "style": "digital_illustration",
            "negative_prompt": "a cat",
        },
    ),
    (
        *("recraft", "recraftv4_pro", {"size": "3840x2160"}, f"{RECRAFT}/generations"),
        {"model": "recraftv4_pro", **PROMPT, "size": "2688x1536"},
    ),
    (
        *("recraft", "recraftv4_vector", {"size": "1792x1024"}, f"{RECRAFT}/generations"),
        {"model": "recraftv4_vector", **PROMPT, "size": "16:9"},
    ),
]


@pytest.mark.parametrize(("adapter", "model", "asked", "url", "body"), JSON_REQUESTS)
def test_json(adapter: str, model: str, asked: dict[str, Any], url: str, body: dict[str, Any]) -> None:
    """Method, URL, header fields and every member."""
    seen = outbound(load_adapter(adapter), model, **PROMPT, **asked)
    accepted = {"huggingface": "image/png", "fireworks": f"image/{asked.get('output_format', 'png')}"}.get(adapter)
    if "kontext" in model or "together/" in model or "nscale/" in model:
        accepted = None
    assert (seen.method, seen.url) == ("POST", url)
    assert headers(seen) == {**JSON, **BEARER, **({"accept": accepted} if accepted else {})}
    assert seen.json == body


def texts(**fields: str) -> list[tuple[str, str, str, bytes]]:
    return [(name, "", "", value.encode()) for name, value in fields.items()]


FILE = ("image", "one.png", "image/png", ONE.content)
MASKED = ("mask", "mask.png", "image/png", MASK.content)
STABILITY = "https://api.stability.ai/v2beta/stable-image"
IDEOGRAM = "https://api.ideogram.ai/v1"
DEEPINFRA_EDITS = "https://api.deepinfra.com/v1/openai/images/edits"
QWEN = "Qwen/Qwen-Image-Edit"

FORM_REQUESTS: list[tuple[str, str, dict[str, Any], str, list[tuple[str, str, str, bytes]]]] = [
    (
        *("deepinfra", QWEN, {**EDIT, "images": [ONE, TWO], "size": "512x512", "n": 1}, DEEPINFRA_EDITS),
        [
            *texts(model=QWEN, response_format="b64_json", prompt="A hat", size="512x512", n="1"),
            FILE,
            ("image", "two.png", "image/png", TWO.content),
        ],
    ),
    (
        *("deepinfra", QWEN, {**EDIT, "mask": MASK, "seed": 7}, DEEPINFRA_EDITS),
        [*texts(model=QWEN, response_format="b64_json", prompt="A hat"), FILE, MASKED],
    ),
    ("stability", "core", {"n": 1}, f"{STABILITY}/generate/core", texts(prompt="A hat")),
    (
        *("stability", "core", {"size": "1792x1024", "output_format": "webp", "seed": 7}, f"{STABILITY}/generate/core"),
        texts(prompt="A hat", output_format="webp", seed="7", aspect_ratio="16:9"),
    ),
    (
        *("stability", "sd3.5-large", {"size": "2:3", "output_format": "webp"}, f"{STABILITY}/generate/sd3"),
        texts(model="sd3.5-large", mode="text-to-image", prompt="A hat", output_format="png", aspect_ratio="2:3"),
    ),
    (
        *("stability", "sd3.5-medium", {**EDIT, "size": "1024x1024"}, f"{STABILITY}/generate/sd3"),
        [*texts(model="sd3.5-medium", mode="image-to-image", prompt="A hat", strength="0.7"), FILE],
    ),
    (
        *("stability", "ultra", {**EDIT, "size": "1024x1024", "strength": 0.2}, f"{STABILITY}/generate/ultra"),
        [*texts(prompt="A hat", strength="0.2", aspect_ratio="1:1"), FILE],
    ),
    (
        *("stability", "inpaint", {**EDIT, "mask": MASK, "grow_mask": 5}, f"{STABILITY}/edit/inpaint"),
        [*texts(prompt="A hat", grow_mask="5"), FILE, MASKED],
    ),
    ("stability", "erase", {**EDIT, "mask": MASK}, f"{STABILITY}/edit/erase", [FILE, MASKED]),
    (
        *(
            "stability",
            "search-and-replace",
            {**EDIT, "search_prompt": "a cat"},
            f"{STABILITY}/edit/search-and-replace",
        ),
        [*texts(prompt="A hat", search_prompt="a cat"), FILE],
    ),
    (
        *("stability", "outpaint", {**EDIT, "left": 100}, f"{STABILITY}/edit/outpaint"),
        [*texts(prompt="A hat", left="100"), FILE],
    ),
    ("ideogram", "ideogram-v3", {}, f"{IDEOGRAM}/ideogram-v3/generate", texts(prompt="A hat")),
    (
        *("ideogram", "ideogram-v3", {"size": "16:9", "n": 8, "quality": "low"}, f"{IDEOGRAM}/ideogram-v3/generate"),
        texts(prompt="A hat", num_images="8", rendering_speed="TURBO", aspect_ratio="16x9"),
    ),
    (
        *("ideogram", "ideogram-v3", {"size": "1024x1024", "style_codes": ["AAFF5733"]}),
        f"{IDEOGRAM}/ideogram-v3/generate",
        [*texts(prompt="A hat"), *texts(resolution="1024x1024"), *texts(**{"style_codes[]": "AAFF5733"})],
    ),
    (
        *("ideogram", "ideogram-v3", {**EDIT, "size": "512x1536", "image_weight": 60}, f"{IDEOGRAM}/ideogram-v3/remix"),
        [*texts(prompt="A hat", image_weight="60", resolution="512x1536"), FILE],
    ),
    (
        *("ideogram", "ideogram-v3", {**EDIT, "mask": MASK, "size": "512x1536", "n": 2, "negative_prompt": "a cat"}),
        f"{IDEOGRAM}/ideogram-v3/inpaint",
        [*texts(prompt="A hat", num_images="2"), FILE, MASKED],
    ),
    (
        *("ideogram", "ideogram-v4", {"size": "1920x1080", "quality": "high"}, f"{IDEOGRAM}/ideogram-v4/generate"),
        texts(text_prompt="A hat", rendering_speed="QUALITY", resolution="2560x1440"),
    ),
    ("ideogram", "ideogram-v4", EDIT, f"{IDEOGRAM}/ideogram-v4/remix", [*texts(text_prompt="A hat"), FILE]),
    (
        *("recraft", "recraftv4_1", {**EDIT, "size": "1024x1024", "n": 2}, f"{RECRAFT}/imageToImage"),
        [*texts(model="recraftv4_1", prompt="A hat", n="2", strength="0.5"), FILE],
    ),
    (
        *("recraft", "recraftv3", {**EDIT, "mask": MASK, "strength": 0.2, "style": "icon"}, f"{RECRAFT}/inpaint"),
        [*texts(model="recraftv3", prompt="A hat", style="icon"), FILE, MASKED],
    ),
    (
        *("recraft", "replace-background", EDIT, f"{RECRAFT}/replaceBackground"),
        [*texts(model="recraftv3", prompt="A hat"), FILE],
    ),
    (
        *("recraft", "generate-background", {**EDIT, "mask": MASK}, f"{RECRAFT}/generateBackground"),
        [*texts(model="recraftv3", prompt="A hat"), FILE, MASKED],
    ),
]


@pytest.mark.parametrize(("adapter", "model", "asked", "url", "parts"), FORM_REQUESTS)
def test_forms(adapter: str, model: str, asked: dict[str, Any], url: str, parts: list[Any]) -> None:
    """Method, URL, header fields and every part: texts in any order, then the files in theirs."""
    seen = outbound(load_adapter(adapter), model, **PROMPT, **asked)
    assert (seen.method, seen.url) == ("POST", url)
    key = {"api-key": "sk-test-key"} if adapter == "ideogram" else BEARER
    assert headers(seen) == {**FORM, **key}
    sent = form(seen)
    assert sorted(sent) == sorted(parts)
    assert [part for part in sent if part[1]] == [part for part in parts if part[1]]


@pytest.mark.parametrize(
    ("adapter", "model", "asked", "param"),
    [
        ("together", T_PRO, {**EDIT, "mask": MASK}, "mask"),
        ("together", T_KONTEXT, {**EDIT, "images": [ONE, TWO]}, "image"),
        ("together", f"{BFL}/FLUX.1.1-pro", EDIT, "model"),
        ("deepinfra", QWEN, {}, "model"),
        ("huggingface", "o/n", {**EDIT, "mask": MASK}, "mask"),
        ("huggingface", "../o/n", {}, "model"),
        ("fireworks", "flux-kontext-pro", {**EDIT, "mask": MASK}, "mask"),
        ("stability", "inpaint", {}, "model"),
        ("stability", "core", {"style_preset": "rude"}, "style_preset"),
        ("stability", "sd3.5-large", {**EDIT, "mask": MASK}, "mask"),
        ("bedrock", "stability.sd3-5-large-v1:0", {**EDIT, "mask": MASK}, "mask"),
        ("bedrock", "stability.stable-image-core-v1:1", EDIT, "model"),
        ("ideogram", "ideogram-v3", {"n": 9}, "n"),
        ("ideogram", "ideogram-v3", {"style_type": "3D"}, "style_type"),
        ("ideogram", "ideogram-v4", {**EDIT, "mask": MASK}, "mask"),
        ("recraft", "recraftv4", {**EDIT, "mask": MASK}, "mask"),
        ("recraft", "generate-background", EDIT, "mask"),
        ("recraft", "recraftv3", {"prompt": "x" * 1001}, "prompt"),
    ],
)
def test_what_a_provider_cannot_do_is_refused(adapter: str, model: str, asked: dict[str, Any], param: str) -> None:
    """Before anything is sent, by the name of the field."""
    with pytest.raises(RequestError) as caught:
        outbound(load_adapter(adapter), model, **{**PROMPT, **asked})
    assert (caught.value.param or "").partition("[")[0] == param


def test_fireworks_asks_by_post_where_the_request_went() -> None:
    """The question has the id in its body, and goes below the path of the model."""
    adapter = load_adapter("fireworks")
    asked = ImageRequest(operation="generations", fields={"model": "flux-kontext-pro", **PROMPT})
    fitted, _ = fit(asked, load_contracts(adapter.contracts())["flux-kontext-pro"])
    encoded = adapter.encode(fitted)
    assert encoded.task_path == f"{encoded.path}/get_result"
    assert adapter.expects_task(fitted)
    seen = rendered(adapter, adapter.poll(PendingTask(id="a/b")))
    assert (seen.method, seen.json, seen.path.endswith("/get_result")) == ("POST", {"id": "a/b"}, True)


def test_prompts_that_ideogram_wrote_anew() -> None:
    """They are revised prompts in OpenAI's words."""
    item = {"prompt": "A tall hat", "url": "https://a.example/1.png", "is_image_safe": True, "seed": 1}
    reply = UpstreamReply(status=200, headers={}, body=json.dumps({"created": "x", "data": [item]}).encode())
    result = load_adapter("ideogram").decode(reply, now=7)
    assert isinstance(result, ImageReply)
    assert (result.created, result.images[0].fields["revised_prompt"]) == (7, "A tall hat")
    assert "prompt" not in result.images[0].fields


def test_ideogram_asks_for_generations() -> None:
    """At one address for all models; what is pending has no pictures yet, and what failed is over."""
    adapter = load_adapter("ideogram")

    def reply(**more: Any) -> UpstreamReply:
        document = {"generation_id": "a/b", "created": "2026-11-29T00:00:00Z", **more}
        return UpstreamReply(status=200, headers={}, body=json.dumps(document).encode())

    task = adapter.decode(reply(), now=1)
    assert task == PendingTask(id="a/b")
    asked = rendered(adapter, adapter.poll(task))
    assert (asked.method, asked.url) == ("GET", f"{IDEOGRAM}/generations/a%2Fb")
    assert asked.headers["api-key"] == "sk-test-key"
    assert adapter.decode_task(task, reply(status="pending"), now=1) == task
    item = {"prompt": "A tall hat", "url": "https://a.example/1.png", "is_image_safe": True}
    done = adapter.decode_task(task, reply(status="completed", response_type="url", data=[item]), now=1)
    assert isinstance(done, ImageReply)
    assert (done.images[0].url, done.images[0].fields["revised_prompt"]) == (item["url"], "A tall hat")
    with pytest.raises(UpstreamError):
        adapter.decode_task(task, reply(status="failed"), now=1)


def test_regions_of_bedrock() -> None:
    """A region is a part of the host's name, and nothing else."""
    adapter = load_adapter("bedrock", {"region": "eu-central-1"})
    adapter.check()
    assert adapter.base_url == "https://bedrock-runtime.eu-central-1.amazonaws.com"
    for region in ("evil.example/", "a b", "", "us-west-2@evil"):
        with pytest.raises(ConfigError, match=r"options\.region"):
            load_adapter("bedrock", {"region": region}).check()


def test_stability_asks_for_results() -> None:
    """At one address for all services; a 202 is no result."""
    adapter = load_adapter("stability")
    task = PendingTask(id="a/b")
    assert rendered(adapter, adapter.poll(task)).url == "https://api.stability.ai/v2beta/results/a%2Fb"
    waiting = UpstreamReply(status=202, headers={}, body=b'{"status": "in-progress"}')
    assert adapter.decode_task(task, waiting, now=1) == task


ROWS = list(
    csv.DictReader((Path(__file__).parent.parent / "data" / "sizes_published.csv").read_text("utf-8").splitlines())
)
MAPPED = [
    *((row, "ideogram", "ideogram-v4", "resolution") for row in ROWS if row["model"] == "ideogram-v4"),
    *((row, "recraft", "recraftv4_1", "size") for row in ROWS if row["model"] == "recraftv4|v4_1"),
    *((row, "recraft", "recraftv4_1_pro", "size") for row in ROWS if row["model"] == "recraftv4_pro|v4_1_pro"),
    *((row, "recraft", "recraftv3", "size") for row in ROWS if row["model"] == "recraftv2|v3"),
]


def test_published_sizes_map_to_themselves() -> None:
    """Each row of the tables that name these models, in pixels."""
    assert len(MAPPED) > 50
    for row, adapter, model, field in MAPPED:
        size = f"{row['width']}x{row['height']}"
        asked = ImageRequest(operation="generations", fields={"model": model, "size": size, **PROMPT})
        fitted, _ = fit(asked, load_contracts(load_adapter(adapter).contracts())[model])
        assert fitted.fields[field] == size


@given(
    st.sampled_from(
        [
            ("together", T_PRO),
            ("deepinfra", f"{BFL}/FLUX-1-dev"),
            ("huggingface", "o/n"),
            ("fireworks", "SSD-1B"),
            ("fireworks", "flux-kontext-pro"),
            ("ideogram", "ideogram-v3"),
            ("recraft", "recraftv4"),
            ("stability", "core"),
        ]
    ),
    st.tuples(st.integers(1, 9000), st.integers(1, 9000)),
)
def test_every_size_is_near_or_refused(target: tuple[str, str], asked: tuple[int, int]) -> None:
    """Whatever is asked, the shape that is sent is the asked one, as far as the tolerance goes."""
    adapter, model = target
    try:
        seen = outbound(load_adapter(adapter), model, **PROMPT, size=f"{asked[0]}x{asked[1]}")
    except RequestError:
        return  # too far from every shape
    if seen.headers["content-type"].startswith("multipart"):
        body: dict[str, Any] = {name: content.decode() for name, _, _, content in form(seen)}
    else:
        body = {**seen.json, **seen.json.get("parameters", {})}
    word = body.get("resolution") or body.get("size") or body.get("aspect_ratio") or f"{body['width']}x{body['height']}"
    width, height = (float(edge) for edge in word.replace(":", "x").split("x"))
    off = (width / height) / (asked[0] / asked[1])
    assert max(off, 1 / off) <= 1.5 + 1e-6
