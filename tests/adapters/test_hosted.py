"""Hosted providers with dialects of their own: what exactly goes out, and what their replies mean."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Any

import pytest
from tests.adapters.test_goldens import BEARER, JSON, MASK, ONE, TWO, b64, headers

from imagegate.adapter import FileID, ImageRequest, Link, PendingTask
from imagegate.errors import ConfigError, RequestError, UpstreamUncertain
from imagegate.http import HTTPClient
from imagegate.registry import installed, load_adapter
from imagegate.testing import AdapterContract, Fixture, outbound, png
from imagegate.upstream.account import Account

B64 = base64.b64encode(png()).decode()
LINK = Link("https://a.example/1.png")
DATA_ONE, DATA_TWO = (f"data:image/png;base64,{b64(file)}" for file in (ONE, TWO))


def sent(adapter: str, model: str, **asked: Any) -> Any:
    """The body of a request, whose method, URL and header fields are checked by each provider's own test."""
    return outbound(load_adapter(adapter), model, prompt="A hat", **asked).json


# xAI

XAI = "https://api.x.ai/v1/images"
GROK, GROK_2 = "grok-imagine-image", "grok-imagine-image-2.0"


@pytest.mark.parametrize(
    ("model", "asked", "body"),
    [
        (GROK, {}, {}),
        (GROK, {"size": "1024x1024"}, {"aspect_ratio": "1:1", "resolution": "1k"}),
        (GROK, {"size": "3840x2160"}, {"aspect_ratio": "16:9", "resolution": "2k"}),
        (GROK, {"size": "auto", "quality": "high", "style": "vivid"}, {"aspect_ratio": "auto"}),
        (GROK, {"size": "1536x1536"}, {"aspect_ratio": "1:1", "resolution": "2k"}),
        (GROK_2, {"aspect_ratio": "19.5:9", "resolution": "1.5K"}, {"aspect_ratio": "19.5:9", "resolution": "1.5k"}),
        (GROK_2, {"quality": "high", "n": 3, "safety_identifier": "u"}, {"quality": "medium", "n": 3, "user": "u"}),
        (GROK_2, {"response_format": "b64_json", "seed": 3}, {"response_format": "b64_json"}),
    ],
)
def test_xai(model, asked, body):
    """A ratio and a tier, never a size; nothing that it does not know."""
    seen = outbound(load_adapter("xai"), model, prompt="A hat", **asked)
    assert (seen.method, seen.url, headers(seen)) == ("POST", f"{XAI}/generations", {**JSON, **BEARER})
    assert seen.json == {"model": model, "prompt": "A hat", **body}


def test_xai_edits():
    """JSON with one object, or a list of them; links stay links, and ids of files ids; no masks."""
    adapter = load_adapter("xai")
    seen = outbound(adapter, GROK, operation="edits", images=[ONE], prompt="A hat", size="16:9")
    assert (seen.method, seen.url, headers(seen)) == ("POST", f"{XAI}/edits", {**JSON, **BEARER})
    one, two = ({"url": url, "type": "image_url"} for url in (DATA_ONE, DATA_TWO))
    assert seen.json == {"model": GROK, "prompt": "A hat", "aspect_ratio": "16:9", "image": one}
    assert sent("xai", GROK, operation="edits", images=[ONE, TWO])["images"] == [one, two]
    assert sent("xai", GROK, operation="edits", images=[LINK])["image"] == {"url": LINK.url, "type": "image_url"}
    file, own = FileID("file-1", "images[0]"), {"file_id": "file-1"}
    assert sent("xai", GROK, operation="edits", images=[file])["image"] == own
    assert sent("xai", GROK, operation="edits", images=[LINK, file])["images"] == [
        {"url": LINK.url, "type": "image_url"},
        own,
    ]
    for more in ({"images": [ONE], "mask": MASK}, {"images": [ONE] * 4}):
        with pytest.raises(RequestError) as caught:
            sent("xai", GROK, operation="edits", **more)
        assert caught.value.param in ("mask", "image")


@pytest.mark.parametrize("model", load_adapter("xai").prices().models)
def test_what_xai_says_that_a_request_has_cost(model: str) -> None:
    """In ticks of 1e-10 USD; without them it is the images' price, of which the dearest is reserved."""
    price = load_adapter("xai").prices().models[model]
    assert price.cost(2, {"cost_in_usd_ticks": 1_234_500_000}, references=[0]) == pytest.approx(0.12345)
    for usage in (None, {}):
        assert price.cost(2, usage, references=[0]) == pytest.approx(2 * (price.image + price.reference_image))
    assert price.most_per_image() == max(rates.image for rates in (price, *price.variants))


class TestXAI(AdapterContract):
    adapter = load_adapter("xai")
    fixtures = (
        Fixture(
            name="base64",
            outcome="pictures",
            document={
                "created": 1,
                "data": [{"b64_json": B64, "mime_type": "image/jpeg", "respect_moderation": True}],
                "usage": {"cost_in_usd_ticks": 200000000},
            },
        ),
        Fixture(name="link", outcome="pictures", document={"data": [{"url": LINK.url, "revised_prompt": ""}]}),
        Fixture(name="withheld", outcome="moderated", document={"data": [{"respect_moderation": False, "url": ""}]}),
        Fixture(
            name="placeholder", outcome="moderated", document={"data": [{"respect_moderation": False, "url": LINK.url}]}
        ),
        Fixture(
            name="nothing at all", outcome="moderated", document={"data": [], "usage": {"cost_in_usd_ticks": 200000000}}
        ),
        Fixture(name="nothing, and no word of it", outcome="moderated", document={"data": []}),
        Fixture(
            name="one of two withheld",
            outcome="uncertain",
            document={"data": [{"url": LINK.url}, {"respect_moderation": False, "url": ""}]},
        ),
        Fixture(
            name="size",
            outcome="refused",
            status=400,
            document={"code": "400", "error": "Argument not supported: size"},
            means=400,
        ),
        Fixture(name="in OpenAI's shape", outcome="refused", status=400, document={"error": {"message": "No."}}),
        Fixture(name="a form", outcome="refused", status=415, document={"code": "415", "error": "JSON."}, means=415),
        Fixture(name="key", outcome="refused", status=401, document={"code": "401", "error": "No key."}, means=401),
        Fixture(name="rate", outcome="refused", status=429, document={"code": "429", "error": "Slow."}, means=429),
    )


# Black Forest Labs

BFL = "https://api.bfl.ai/v1"
X_KEY = {**JSON, "x-key": "sk-test-key"}


@pytest.mark.parametrize(
    ("model", "asked", "body"),
    [
        ("flux-2-pro", {}, {}),
        ("flux-2-pro", {"size": "1024x1024", "n": 1}, {"width": 1024, "height": 1024}),
        ("flux-2-max", {"size": "1920x1080"}, {"width": 1920, "height": 1088}),
        ("flux-2-pro", {"size": "3840x2160"}, {"width": 2720, "height": 1536}),
        ("flux-2-flex", {"steps": 20, "guidance_scale": 4.5, "seed": 7}, {"steps": 20, "guidance": 4.5, "seed": 7}),
        ("flux-2-klein-4b", {"output_format": "webp", "quality": "high"}, {"output_format": "png"}),
        ("flux-kontext-pro", {"size": "1536x1024"}, {"aspect_ratio": "3:2"}),
        ("flux-kontext-max", {"aspect_ratio": "7:4"}, {"aspect_ratio": "7:4"}),
        ("flux-kontext-max", {"aspect_ratio": "5:2"}, {"aspect_ratio": "21:9"}),
        ("flux-3-image", {"size": "2048x2048", "seed": 7}, {"aspect_ratio": "1:1", "resolution": "2k"}),
        ("flux-3-image", {"size": "auto", "grounding": False}, {"aspect_ratio": "auto", "grounding": False}),
        ("flux-3-image", {"resolution": "1.5K"}, {"resolution": "1.5k"}),
        ("flux-pro-1.1", {"size": "1792x1024"}, {"width": 1440, "height": 832}),
        ("flux-pro-1.1-ultra", {"size": "1024x1792", "raw": True}, {"aspect_ratio": "9:16", "raw": True}),
    ],
)
def test_bfl(model, asked, body):
    """The model is the path; width and height as integers, or a ratio; nothing that it does not know."""
    seen = outbound(load_adapter("bfl"), model, prompt="A hat", **asked)
    assert (seen.method, seen.url, headers(seen)) == ("POST", f"{BFL}/{model}", X_KEY)
    assert seen.json == {"prompt": "A hat", **body}


def test_bfl_edits():
    """Each reference has a member; plain base64, or a link; a mask has a model of its own."""
    asked: dict[str, Any] = {"operation": "edits", "images": [ONE, TWO]}
    assert sent("bfl", "flux-2-pro", **asked) == {
        "prompt": "A hat",
        "input_image": b64(ONE),
        "input_image_2": b64(TWO),
    }
    assert sent("bfl", "flux-3-image", **asked)["images"] == [b64(ONE), b64(TWO)]
    assert sent("bfl", "flux-kontext-pro", operation="edits", images=[LINK])["input_image"] == LINK.url
    filled = sent("bfl", "flux-pro-1.0-fill", operation="edits", images=[ONE], mask=MASK, size="64x64")
    assert filled == {"prompt": "A hat", "image": b64(ONE), "mask": b64(MASK)}
    for model, more, param in (
        ("flux-2-pro", {"images": [ONE], "mask": MASK}, "mask"),
        ("flux-2-klein-9b", {"images": [ONE] * 5}, "image"),
        ("flux-pro-1.1", {"images": [ONE]}, "model"),
    ):
        with pytest.raises(RequestError) as caught:
            sent("bfl", model, operation="edits", **more)
        assert caught.value.param == param
    with pytest.raises(RequestError, match="needs an image"):
        sent("bfl", "flux-pro-1.0-fill")


@pytest.mark.parametrize(
    ("adapter", "url"),
    [
        ("dashscope", "https://proxy.example/api/v1/tasks"),
        ("openrouter", "https://proxy.example/api/v1/tasks"),
        ("seedream", "https://proxy.example/api/v3/tasks"),
        ("zai", "https://proxy.example/api/paas/v4/tasks"),
    ],
)
@pytest.mark.parametrize("end", ["", "/", "?a=b"])
def test_a_host_alone_gets_the_path_of_the_api(adapter: str, url: str, end: str) -> None:
    """Operators know the host of a region or a proxy, and not what the API's paths begin with; another path stays."""
    own = load_adapter(adapter)
    for given, expected in (
        (f"https://proxy.example{end}", url),
        (f"https://proxy.example/own/v1{end}", "https://proxy.example/own/v1/tasks"),
    ):
        account = Account(name="own", adapter=own, base_url=own.full_base_url(given), client=HTTPClient())
        assert account.url("/v1/tasks") == f"{expected}{'?a=b' if '?' in end else ''}"


@pytest.mark.parametrize(
    ("adapter", "given", "url"),
    [
        (
            "dashscope",
            "https://dashscope.aliyuncs.com/compatible-mode/v1",
            "https://dashscope.aliyuncs.com/api/v1/tasks",
        ),
        ("deepinfra", "https://api.deepinfra.com/v1/openai/", "https://api.deepinfra.com/v1/tasks"),
        ("fireworks", "https://api.fireworks.ai/inference/v1", "https://api.fireworks.ai/v1/tasks"),
        (
            "gemini",
            "https://generativelanguage.googleapis.com/v1beta/openai/",
            "https://generativelanguage.googleapis.com/v1/tasks",
        ),
        ("huggingface", "https://router.huggingface.co/v1", "https://router.huggingface.co/v1/tasks"),
        ("fireworks", "https://proxy.example/inference/v1", "https://proxy.example/inference/v1/tasks"),
    ],
)
def test_the_address_of_chat_completions_is_understood(adapter: str, given: str, url: str) -> None:
    """It is what the providers print for OpenAI's clients."""
    own = load_adapter(adapter)
    account = Account(name="own", adapter=own, base_url=own.full_base_url(given), client=HTTPClient())
    assert account.url("/v1/tasks") == url


@pytest.mark.parametrize(
    ("base_url", "link", "is_own"),
    [
        ("https://api.bfl.ai", "https://api.eu2.bfl.ai/v1/get_result?id=1&x=%2B", True),
        ("https://api.eu.bfl.ai", "https://api.eu1.bfl.ai/v1/get_result?id=1", True),
        ("https://api.us.bfl.ai", "https://api.bfl.ai/v1/get_result?id=1", True),
        ("https://api.bfl.ai", "http://api.eu2.bfl.ai/v1/get_result?id=1", False),
        ("https://api.bfl.ai", "https://api.eu2.bfl.ai:444/v1/get_result?id=1", False),
        ("https://api.bfl.ai", "https://key@api.eu2.bfl.ai/v1/get_result?id=1", False),
        ("https://api.bfl.ai", "https://evilbfl.ai/v1/get_result?id=1", False),
        ("https://api.bfl.ai", "https://api.bfl.ai.evil.example/v1/get_result?id=1", False),
        ("https://relay.example/bfl", "https://api.bfl.ai/v1/get_result?id=1", False),
        ("http://api.bfl.ai", "https://api.eu2.bfl.ai/v1/get_result?id=1", False),
    ],
)
def test_bfls_key_goes_to_its_own_hosts(base_url, link, is_own):
    """Also from a regional address; a proxy's key does not go to BFL. The address stays as it was given."""
    account = Account(name="bfl", adapter=load_adapter("bfl"), base_url=base_url, client=HTTPClient())
    if is_own:
        assert account.own_url(link) == link
    else:
        with pytest.raises(UpstreamUncertain):
            account.own_url(link)


TASK = PendingTask(id="t")
MODERATED = ("Request Moderated", "Content Moderated")


class TestBFL(AdapterContract):
    adapter = load_adapter("bfl")
    fixtures = (
        Fixture(
            name="submitted",
            outcome="task",
            document={"id": "1", "polling_url": "https://api.eu2.bfl.ai/v1/get_result?id=1", "cost": 3.0},
        ),
        Fixture(name="submitted, without an address", outcome="task", document={"id": "1"}),
        Fixture(name="at once", outcome="pictures", document={"id": "1", "result": {"sample": LINK.url}}),
        Fixture(name="at once, on the reply", outcome="pictures", document={"id": "1", "sample": LINK.url}),
        *(
            Fixture(name=state, outcome="task", document={"id": "1", "status": state, "result": None}, task=TASK)
            for state in ("Pending", "Reasoning", "Generating", "Generating image", "Waiting for the muse")
        ),
        Fixture(
            name="a draft",
            outcome="task",
            document={"id": "1", "status": "Refining", "result": {"sample": LINK.url}},
            task=TASK,
        ),
        Fixture(
            name="ready",
            outcome="pictures",
            document={"id": "1", "status": "Ready", "result": {"sample": LINK.url, "seed": 1, "prompt": "A hat"}},
            task=TASK,
        ),
        *(
            Fixture(name=state, outcome="moderated", document={"id": "1", "status": state, "result": None}, task=TASK)
            for state in MODERATED
        ),
        *(
            Fixture(
                name=f"{state}, {status}",
                outcome="ended",
                status=status,
                document={"id": "1", "status": state},
                task=TASK,
            )
            for state in ("Error", "Failed")
            for status in (200, 500, 503)
        ),
        Fixture(name="lost", outcome="uncertain", document={"id": "1", "status": "Task not found"}, task=TASK),
        Fixture(name="key, asked", outcome="refused", status=403, document={"detail": "No."}, task=TASK, means=403),
        Fixture(name="gone", outcome="uncertain", status=404, document={"status": "Task not found"}, task=TASK),
        Fixture(name="no picture", outcome="uncertain", document={"id": "1", "status": "Ready"}, task=TASK),
        Fixture(
            name="unprocessable",
            outcome="refused",
            status=422,
            document={"detail": [{"loc": ["body", "width"], "msg": "Too large", "type": "less_than_equal"}]},
            means=422,
        ),
        *(
            Fixture(name=str(status), outcome="refused", status=status, document={"detail": "No."}, means=status)
            for status in (400, 402, 403, 429)
        ),
    )


# fal

FAL = "https://queue.fal.run"
KEY = {**JSON, "authorization": "Key sk-test-key"}


@pytest.mark.parametrize(
    ("model", "asked", "body"),
    [
        ("fal-ai/flux/dev", {}, {}),
        (
            "fal-ai/flux/dev",
            {"size": "1024x1024", "n": 3},
            {"image_size": {"width": 1024, "height": 1024}, "num_images": 3},
        ),
        (
            "fal-ai/flux/schnell",
            {"size": "1792x1024", "steps": 4},
            {"image_size": {"width": 1440, "height": 832}, "num_inference_steps": 4},
        ),
        ("fal-ai/flux-2-pro", {"n": 1, "output_format": "webp"}, {"output_format": "png"}),
        ("fal-ai/flux-2-pro", {"size": "1920x1080"}, {"image_size": {"width": 1920, "height": 1088}}),
        ("fal-ai/flux-2", {"size": "3840x2160"}, {"image_size": {"width": 2048, "height": 1152}}),
        ("fal-ai/flux-pro/v1.1-ultra", {"size": "1536x1024", "raw": True}, {"aspect_ratio": "3:2", "raw": True}),
        ("fal-ai/nano-banana", {"size": "1792x1024", "response_format": "url"}, {"aspect_ratio": "16:9"}),
        (
            "fal-ai/nano-banana-pro",
            {"size": "3840x2160", "n": 2},
            {"aspect_ratio": "16:9", "resolution": "4K", "num_images": 2},
        ),
        ("fal-ai/nano-banana-2", {"size": "512x512"}, {"aspect_ratio": "1:1", "resolution": "0.5K"}),
        (
            "fal-ai/gpt-image-1.5",
            {"size": "1792x1024", "quality": "hd"},
            {"image_size": "1536x1024", "quality": "high"},
        ),
        (
            "fal-ai/gpt-image-1.5",
            {"size": "auto", "quality": "auto", "background": "transparent"},
            {"background": "transparent"},
        ),
        (
            "fal-ai/ideogram/v3",
            {"quality": "high", "style": "natural"},
            {"rendering_speed": "QUALITY", "style": "REALISTIC"},
        ),
        ("studio/own-model", {"size": "1024x1024", "mood": "blue", "n": 1}, {"mood": "blue"}),
    ],
)
def test_fal(model, asked, body):
    """The model is the path; each has its own members; what has no contract gets what the client sent."""
    seen = outbound(load_adapter("fal"), model, prompt="A hat", **asked)
    assert (seen.method, seen.url, headers(seen)) == ("POST", f"{FAL}/{model}", KEY)
    assert seen.json == {"prompt": "A hat", **body}


@pytest.mark.parametrize(
    ("model", "path", "body"),
    [
        ("fal-ai/flux-2-pro", "/fal-ai/flux-2-pro/edit", {"image_urls": [DATA_ONE]}),
        ("fal-ai/nano-banana-pro", "/fal-ai/nano-banana-pro/edit", {"image_urls": [DATA_ONE]}),
        ("fal-ai/flux-pro/kontext", "/fal-ai/flux-pro/kontext", {"image_url": DATA_ONE}),
        ("fal-ai/flux-pro/kontext/max/multi", "/fal-ai/flux-pro/kontext/max/multi", {"image_urls": [DATA_ONE]}),
        ("fal-ai/bytedance/seedream/v4.5", "/fal-ai/bytedance/seedream/v4.5/edit", {"image_urls": [DATA_ONE]}),
    ],
)
def test_fal_edits(model, path, body):
    """They have a path of their own at most models."""
    seen = outbound(load_adapter("fal"), model, operation="edits", images=[ONE], prompt="A hat")
    assert (seen.method, seen.url, headers(seen)) == ("POST", FAL + path, KEY)
    assert seen.json == {"prompt": "A hat", **body}


def test_fal_generations_of_kontext_and_masks():
    """A model may have a path for generations; masks go where a model takes them; links stay links."""
    seen = outbound(load_adapter("fal"), "fal-ai/flux-pro/kontext", prompt="A hat")
    assert seen.path == "/fal-ai/flux-pro/kontext/text-to-image"
    masked: dict[str, Any] = {"operation": "edits", "images": [ONE], "mask": MASK}
    data = f"data:image/png;base64,{b64(MASK)}"
    assert sent("fal", "fal-ai/flux-pro/v1/fill", **masked) == {
        "prompt": "A hat",
        "image_url": DATA_ONE,
        "mask_url": data,
    }
    assert sent("fal", "fal-ai/gpt-image-1.5", **masked)["mask_image_url"] == data
    assert sent("fal", "fal-ai/flux-2", operation="edits", images=[LINK, ONE])["image_urls"] == [LINK.url, DATA_ONE]
    for model, asked, param in (
        ("fal-ai/flux-2-pro", masked, "mask"),
        ("fal-ai/flux-pro/v1/fill", {"operation": "edits", "images": [ONE]}, "mask"),
        ("fal-ai/flux-pro/v1/fill", {}, "image"),
        ("fal-ai/flux-pro/kontext", {"operation": "edits", "images": [ONE, TWO]}, "image"),
        ("fal-ai/flux/dev", {"operation": "edits", "images": [ONE]}, "model"),
        ("fal-ai/../../v1/secrets", {}, "model"),
    ):
        with pytest.raises(RequestError) as caught:
            sent("fal", model, **asked)
        assert caught.value.param == param


def test_fals_tasks():
    """The result and the cancellation are at fal's addresses, and only at its own hosts."""
    adapter = load_adapter("fal")
    task = PendingTask(id="t", poll_url=f"{FAL}/fal-ai/flux-2/requests/t/status")
    over = Fixture(
        name="", outcome="task", document={"status": "COMPLETED", "response_url": f"{FAL}/fal-ai/flux-2/requests/t"}
    )
    found = adapter.decode_task(task, over.reply, now=1)
    assert found == PendingTask(id="t", poll_url=f"{FAL}/fal-ai/flux-2/requests/t", is_over=True)
    cancel = adapter.cancel(task)
    assert cancel is not None
    assert (cancel.method, cancel.url) == ("PUT", f"{FAL}/fal-ai/flux-2/requests/t/cancel")
    account = Account(name="fal", adapter=adapter, base_url=FAL, client=HTTPClient())
    assert account.own_url("https://queue.falrun.com/fal-ai/flux-2/requests/t")
    for link in ("https://fal.run/x", "https://queue.fal.run.evil.example/x", "https://v3.fal.media/files/x.png"):
        with pytest.raises(UpstreamUncertain):
            account.own_url(link)


SIGNED = "https://eu.example/r/t{}?sig=a%2Fb"


@pytest.mark.parametrize(("adapter", "asked_at"), [("fal", "/status"), ("replicate", "")])
def test_cancellations_keep_what_an_address_was_signed_with(adapter: str, asked_at: str) -> None:
    """The query of the task's own address stays, behind the path."""
    cancel = load_adapter(adapter).cancel(PendingTask(id="t", poll_url=SIGNED.format(asked_at)))
    assert cancel is not None
    assert cancel.url == SIGNED.format("/cancel")
    told = load_adapter(adapter).cancel(PendingTask(id="t", poll_url=SIGNED.format(asked_at), cancel_url=LINK.url))
    assert told is not None
    assert told.url == LINK.url


def test_fals_result_is_beside_its_status() -> None:
    """Where the status does not say where the result is."""
    task = PendingTask(id="t", poll_url=SIGNED.format("/status"))
    over = Fixture(name="", outcome="task", document={"status": "COMPLETED"})
    found = load_adapter("fal").decode_task(task, over.reply, now=1)
    assert found == PendingTask(id="t", poll_url=SIGNED.format(""), is_over=True)


@pytest.mark.parametrize("adapter", sorted(installed()))
def test_models_without_a_contract(adapter: str) -> None:
    """A model that only a path of its own could reach is refused by name; all others are the provider's to judge."""
    with suppress(RequestError):
        assert outbound(load_adapter(adapter), "no-such-model", prompt="A hat").url


@pytest.mark.parametrize("adapter", ["fal", "replicate"])
def test_forms_of_replies_are_not_members_of_unknown_models(adapter: str) -> None:
    """What the gateway itself fulfils is not passed with what only the model knows."""
    body = sent(adapter, "owner/name", response_format="b64_json", partial_images=2, stream=True, glow=3)
    assert body.get("input", body) == {"prompt": "A hat", "glow": 3}


@pytest.mark.parametrize("adapter", ["stability", "ideogram", "fireworks"])
def test_models_without_a_path(adapter: str) -> None:
    """They are refused by name."""
    with pytest.raises(RequestError, match="no-such-model") as caught:
        outbound(load_adapter(adapter), "no-such-model", prompt="A hat")
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


STATUS, OVER = (
    PendingTask(id="t", poll_url="/a/b/requests/t/status"),
    PendingTask(id="t", poll_url="/a/b/requests/t", is_over=True),
)
FAL_LINKS = {"request_id": "t", "response_url": f"{FAL}/a/b/requests/t", "status_url": f"{FAL}/a/b/requests/t/status"}
FAL_IMAGE = {"url": LINK.url, "width": 1, "height": 1, "content_type": "image/png"}


def detail(kind: str, message: str = "No.") -> dict[str, Any]:
    return {"detail": [{"loc": ["body", "prompt"], "msg": message, "type": kind}]}


class TestFal(AdapterContract):
    adapter = load_adapter("fal")
    fixtures = (
        Fixture(name="submitted", outcome="task", document={"status": "IN_QUEUE", "queue_position": 0, **FAL_LINKS}),
        Fixture(name="submitted, without a state", outcome="task", document=FAL_LINKS),
        *(
            Fixture(name=state, outcome="task", status=202, document={"status": state, **FAL_LINKS}, task=STATUS)
            for state in ("IN_QUEUE", "IN_PROGRESS", "WARMING_UP")
        ),
        *(
            Fixture(name=f"{state} and no id", outcome="task", status=202, document={"status": state}, task=STATUS)
            for state in ("IN_QUEUE", "IN_PROGRESS", "WARMING_UP")
        ),
        Fixture(name="complete", outcome="task", document={"status": "COMPLETED", **FAL_LINKS}, task=STATUS),
        Fixture(
            name="pictures", outcome="pictures", document={"images": [FAL_IMAGE] * 2, "seed": 1}, task=OVER, count=2
        ),
        Fixture(name="one picture", outcome="pictures", document={"image": FAL_IMAGE}, task=OVER),
        Fixture(
            name="as data URL",
            outcome="pictures",
            document={"images": [{**FAL_IMAGE, "url": f"data:image/png;base64,{B64}"}], "has_nsfw_concepts": [False]},
            task=OVER,
        ),
        Fixture(
            name="black",
            outcome="moderated",
            document={"images": [FAL_IMAGE], "has_nsfw_concepts": [True]},
            task=OVER,
        ),
        Fixture(
            name="one of two is black",
            outcome="ended",
            document={"images": [FAL_IMAGE] * 2, "has_nsfw_concepts": [False, True]},
            task=OVER,
        ),
        Fixture(
            name="fewer flags than pictures",
            outcome="pictures",
            document={"images": [FAL_IMAGE] * 2, "has_nsfw_concepts": [False]},
            task=OVER,
            count=2,
        ),
        *(
            Fixture(name=f"black, {name}", outcome="moderated", document=document, task=OVER)
            for name, document in {
                "one flag for all": {"images": [FAL_IMAGE] * 2, "has_nsfw_concepts": True},
                "a single picture": {"image": FAL_IMAGE, "has_nsfw_concepts": [True]},
                "a link alone": {"images": [LINK.url], "has_nsfw_concepts": [True]},
            }.items()
        ),
        Fixture(
            name="a single picture that is good",
            outcome="pictures",
            document={"image": FAL_IMAGE, "has_nsfw_concepts": [False]},
            task=OVER,
        ),
        Fixture(name="policy", outcome="moderated", status=422, document=detail("content_policy_violation"), task=OVER),
        Fixture(
            name="policy, told by the status",
            outcome="moderated",
            document={
                "status": "COMPLETED",
                "error": "Flagged.",
                "error_type": "content_policy_violation",
                **FAL_LINKS,
            },
            task=STATUS,
        ),
        Fixture(
            name="broken",
            outcome="ended",
            document={"status": "COMPLETED", "error": "Gone.", "error_type": "runner_disconnected", **FAL_LINKS},
            task=STATUS,
        ),
        Fixture(name="member", outcome="ended", status=422, document=detail("enum"), task=OVER, means=422),
        Fixture(
            name="model failed",
            outcome="ended",
            status=500,
            document=detail("internal_server_error"),
            task=OVER,
            means=502,
        ),
        *(
            Fixture(
                name=f"{status} with a sentence",
                outcome="ended",
                status=status,
                document={"detail": said},
                task=OVER,
                means=means,
            )
            for status, said, means in ((422, "Invalid image", 422), (500, "Internal Server Error", 502))
        ),
        Fixture(
            name="the model took too long",
            outcome="ended",
            status=504,
            document=detail("generation_timeout"),
            task=OVER,
            means=504,
        ),
        *(
            Fixture(name=f"{status} of the queue", outcome=kind, status=status, document={"detail": "No."}, task=OVER)
            for status, kind in ((401, "refused"), (404, "refused"), (502, "uncertain"), (504, "uncertain"))
        ),
        Fixture(
            name="422 in place of a status",
            outcome="refused",
            status=422,
            document={"detail": "Invalid status URL"},
            task=STATUS,
        ),
        Fixture(
            name="early", outcome="task", status=400, document={"detail": "Request is still in progress"}, task=OVER
        ),
        Fixture(name="nothing", outcome="uncertain", document={"images": [], "has_nsfw_concepts": []}, task=OVER),
        Fixture(
            name="key", outcome="refused", status=401, document={"detail": "Authentication is required."}, means=401
        ),
        Fixture(
            name="rate", outcome="refused", status=429, document={"detail": "Concurrent requests limit."}, means=429
        ),
        Fixture(name="no such model", outcome="refused", status=404, document={"detail": "Not found"}, means=404),
    )


# Replicate

REPLICATE = "https://api.replicate.com/v1"
WAIT = {**JSON, **BEARER, "prefer": "wait=5"}


@pytest.mark.parametrize(
    ("model", "asked", "body"),
    [
        ("black-forest-labs/flux-schnell", {}, {}),
        ("black-forest-labs/flux-schnell", {"size": "1792x1024", "n": 3}, {"aspect_ratio": "16:9", "num_outputs": 3}),
        (
            "black-forest-labs/flux-dev",
            {"output_format": "jpeg", "output_compression": 70},
            {"output_format": "jpg", "output_quality": 70},
        ),
        (
            "black-forest-labs/flux-2-pro",
            {"size": "1920x1080", "n": 1},
            {"aspect_ratio": "custom", "width": 1920, "height": 1088},
        ),
        (
            "black-forest-labs/flux-1.1-pro-ultra",
            {"size": "1536x1024", "output_format": "webp"},
            {"aspect_ratio": "3:2", "output_format": "png"},
        ),
        ("black-forest-labs/flux-3-image", {"size": "2048x2048"}, {"aspect_ratio": "1:1", "resolution": "2k"}),
        ("google/nano-banana-2", {"size": "3840x2160", "seed": 3}, {"aspect_ratio": "16:9", "resolution": "4K"}),
        ("bytedance/seedream-4", {"size": "2048x1024"}, {"size": "custom", "width": 2048, "height": 1024}),
        (
            "openai/gpt-image-2",
            {"size": "1792x1024", "n": 2, "quality": "hd"},
            {"aspect_ratio": "3:2", "number_of_images": 2, "quality": "high"},
        ),
        ("openai/gpt-image-2.5-flare", {"user": "u"}, {"user_id": "u"}),
        (
            "xai/grok-imagine-image-2",
            {"quality": "high", "size": "1024x1024"},
            {"quality": "medium", "aspect_ratio": "1:1", "resolution": "1k"},
        ),
        ("studio/own-model", {"mood": "blue", "size": "1024x1024"}, {"mood": "blue"}),
    ],
)
def test_replicate(model, asked, body):
    """The model is the path, and everything stands in its input."""
    seen = outbound(load_adapter("replicate"), model, prompt="A hat", **asked)
    assert (seen.method, seen.url, headers(seen)) == ("POST", f"{REPLICATE}/models/{model}/predictions", WAIT)
    assert seen.json == {"input": {"prompt": "A hat", **body}}


def test_replicate_edits_versions_and_waiting():
    """References are data URLs or links; a version has a path of its own; a reply need not wait."""
    asked: dict[str, Any] = {"operation": "edits", "images": [ONE, TWO]}
    data = f"data:image/png;base64,{b64(MASK)}"
    assert sent("replicate", "black-forest-labs/flux-2-pro", **asked)["input"]["input_images"] == [DATA_ONE, DATA_TWO]
    linked = sent("replicate", "google/nano-banana-2", operation="edits", images=[LINK])
    assert linked == {"input": {"prompt": "A hat", "image_input": [LINK.url]}}
    one = sent("replicate", "black-forest-labs/flux-dev", operation="edits", images=[ONE], size="1024x1024")
    assert one == {"input": {"prompt": "A hat", "image": DATA_ONE}}
    filled = sent("replicate", "black-forest-labs/flux-fill-pro", operation="edits", images=[ONE], mask=MASK)
    assert filled == {"input": {"prompt": "A hat", "image": DATA_ONE, "mask": data}}
    adapter = load_adapter("replicate", {"wait": 0})
    seen = outbound(adapter, "studio/paintings:0123abc", prompt="A hat")
    assert (seen.url, headers(seen)) == (f"{REPLICATE}/predictions", {**JSON, **BEARER})
    assert seen.json == {"version": "0123abc", "input": {"prompt": "A hat"}}
    for model, more, param in (
        ("black-forest-labs/flux-2-pro", {**asked, "mask": MASK}, "mask"),
        ("black-forest-labs/flux-dev", asked, "image"),
        ("black-forest-labs/flux-fill-pro", {}, "image"),
        ("../../v1/account", {}, "model"),
    ):
        with pytest.raises(RequestError) as caught:
            sent("replicate", model, **more)
        assert caught.value.param == param
    request = ImageRequest(operation="generations", fields={})
    assert (adapter.expects_task(request), load_adapter("replicate").expects_task(request)) == (True, False)
    for wait in (-1, 61):
        with pytest.raises(ConfigError, match=r"^options\.wait: must be from 0 to 60$"):
            load_adapter("replicate", {"wait": wait}).check()
    cancel = adapter.cancel(PendingTask(id="t", poll_url=f"{REPLICATE}/predictions/t"))
    assert cancel is not None
    assert (cancel.method, cancel.url) == ("POST", f"{REPLICATE}/predictions/t/cancel")


def prediction(state: str, output: Any = None, error: str | None = None, **more: Any) -> dict[str, Any]:
    links = {"get": f"{REPLICATE}/predictions/t", "cancel": f"{REPLICATE}/predictions/t/cancel"}
    asked = {"prompt": "A hat", "input_images": [DATA_ONE]}
    return {"id": "t", "input": asked, "status": state, "output": output, "error": error, "urls": links, **more}


def problem_of(status: int, title: str = "No") -> dict[str, Any]:
    return {"title": title, "detail": "- input.width: Must be less than or equal to 2048\n", "status": status}


class TestReplicate(AdapterContract):
    adapter = load_adapter("replicate")
    fixtures = (
        Fixture(name="at once, a text", outcome="pictures", status=201, document=prediction("succeeded", LINK.url)),
        Fixture(
            name="at once, a list",
            outcome="pictures",
            status=201,
            document=prediction("succeeded", [LINK.url] * 2),
            count=2,
        ),
        Fixture(name="as data URL", outcome="pictures", document=prediction("succeeded", DATA_ONE)),
        *(
            Fixture(name=state, outcome="task", status=201, document=prediction(state))
            for state in ("starting", "processing", "booting")
        ),
        *(
            Fixture(name=f"{state}, asked", outcome="task", document=prediction(state), task=TASK)
            for state in ("starting", "processing", "booting")
        ),
        Fixture(name="done", outcome="pictures", document=prediction("succeeded", [LINK.url]), task=TASK),
        *(
            Fixture(
                name=f"a new state, {name}", outcome="task", document=prediction("uploading", [LINK.url]), task=task
            )
            for name, task in (("at once", None), ("asked", TASK))
        ),
        Fixture(name="failed", outcome="ended", document=prediction("failed", error="Out of memory."), task=TASK),
        Fixture(name="failed at once", outcome="ended", status=201, document=prediction("failed", error="Oh.")),
        *(
            Fixture(name=error, outcome="moderated", document=prediction("failed", error=error), task=TASK)
            for error in (
                "NSFW content detected. Try running it again, or try a different prompt.",
                "The input or output was flagged as sensitive. Please try again with different inputs. (E005)",
            )
        ),
        *(
            Fixture(name=state, outcome="ended", document=prediction(state), task=TASK)
            for state in ("canceled", "aborted")
        ),
        Fixture(name="nothing", outcome="uncertain", document=prediction("succeeded"), task=TASK),
        Fixture(name="removed", outcome="uncertain", document=prediction("succeeded", data_removed=True), task=TASK),
        *(
            Fixture(name=str(status), outcome="refused", status=status, document=problem_of(status), means=status)
            for status in (400, 401, 402, 403, 404, 422)
        ),
        Fixture(
            name="rate",
            outcome="refused",
            status=429,
            document={"detail": "Request was throttled.", "status": 429, "retry_after": 1},
            means=429,
        ),
    )
