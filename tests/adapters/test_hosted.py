"""Hosted providers with dialects of their own: what exactly goes out, and what their replies mean."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from tests.adapters.test_goldens import BEARER, JSON, MASK, ONE, TWO, b64, headers

from imagegate.adapter import Link, PendingTask
from imagegate.errors import RequestError, UpstreamUncertain
from imagegate.http import HTTPClient
from imagegate.registry import load_adapter
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
    """JSON with one object, or a list of them; links stay links; no masks."""
    adapter = load_adapter("xai")
    seen = outbound(adapter, GROK, operation="edits", images=[ONE], prompt="A hat", size="16:9")
    assert (seen.method, seen.url, headers(seen)) == ("POST", f"{XAI}/edits", {**JSON, **BEARER})
    one, two = ({"url": url, "type": "image_url"} for url in (DATA_ONE, DATA_TWO))
    assert seen.json == {"model": GROK, "prompt": "A hat", "aspect_ratio": "16:9", "image": one}
    assert sent("xai", GROK, operation="edits", images=[ONE, TWO])["images"] == [one, two]
    assert sent("xai", GROK, operation="edits", images=[LINK])["image"] == {"url": LINK.url, "type": "image_url"}
    for more in ({"images": [ONE], "mask": MASK}, {"images": [ONE] * 4}):
        with pytest.raises(RequestError) as caught:
            sent("xai", GROK, operation="edits", **more)
        assert caught.value.param in ("mask", "image")


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
        Fixture(name="nothing, and no word of it", outcome="uncertain", document={"data": []}),
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
        Fixture(name="at once", outcome="pictures", document={"id": "1", "result": {"sample": LINK.url}}),
        *(
            Fixture(name=state, outcome="task", document={"id": "1", "status": state, "result": None}, task=TASK)
            for state in ("Pending", "Reasoning", "Generating", "Generating image", "Waiting for the muse")
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
