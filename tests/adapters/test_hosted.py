"""Hosted providers with dialects of their own: what exactly goes out, and what their replies mean."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from tests.adapters.test_goldens import BEARER, JSON, MASK, ONE, TWO, b64, headers

from imagegate.adapter import Link
from imagegate.errors import RequestError
from imagegate.registry import load_adapter
from imagegate.testing import AdapterContract, Fixture, outbound, png

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
