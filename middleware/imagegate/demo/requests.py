"""The requests of the demo, and what each of them should become."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """One call of the official SDK."""

    model: str
    prompt: str
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    sent: dict[str, Any] = field(default_factory=dict[str, Any])
    """Members that must have reached the provider, dots leading into others; None: must not have."""
    changed: tuple[str, ...] = ()
    """Fields that the gateway must disclose, and no others."""
    pixels: tuple[int, int] | None = None
    """Of the picture."""
    refused: str | None = None
    """The field that an error must name; such a request makes no picture."""
    code: str | None = None
    """Of an error."""
    requests: int = 1
    """That the provider must have seen."""
    operation: Literal["generate", "edit", "create_variation"] = "generate"
    """Method of the SDK."""
    path: str | None = None
    """That the provider must have been asked at."""


REQUESTS: Final = (
    DemoRequest(
        "dall-e-3",
        "A lighthouse made of glass at dawn",
        {"size": "1536x1024", "quality": "medium"},
        sent={"model": "openai/dall-e-3", "size": "1792x1024", "quality": "standard"},
        changed=("model", "size", "quality"),
        pixels=(1792, 1024),
    ),
    DemoRequest(
        "openai/dall-e-2",
        "A paper boat on a green pond",
        {"size": "512x512", "n": 2},
        sent={"size": "512x512", "n": 2},
        pixels=(512, 512),
    ),
    DemoRequest(
        "tokenbay/gpt-image-2",
        "A market street in the rain, seen from above",
        {"size": "1536x1024", "response_format": "url"},
        sent={"size": "1536x1024", "response_format": None},
        changed=("response_format",),
        pixels=(1536, 1024),
    ),
    DemoRequest(
        "tokenlab/gpt-image-2",
        "A mountain railway in winter",
        {"size": "1920x1080", "response_format": "b64_json", "extra_body": {"input_fidelity": "high"}},
        sent={"size": "1920x1088", "input_fidelity": None},
        changed=("size", "input_fidelity"),
        pixels=(1920, 1088),
    ),
    DemoRequest(
        "gemini-3-pro-image-preview",
        "A white cat on a rainy window sill",
        {"size": "3840x2160"},
        sent={"size": None, "aspect_ratio": "16:9", "resolution": "4k"},
        changed=("size",),
        pixels=(5504, 3072),
    ),
    DemoRequest(
        "nano-banana",
        "A tall bookshelf full of lanterns",
        {"size": "1024x1792", "quality": "hd"},
        sent={"aspect_ratio": "9:16", "resolution": None, "quality": None},
        changed=("size", "quality"),
        pixels=(768, 1344),
    ),
    DemoRequest(
        "grok-imagine-image",
        "A fox reading a map",
        {"size": "2048x2048", "response_format": "b64_json"},
        sent={"size": None, "aspect_ratio": "1:1", "resolution": "2k"},
        changed=("size",),
    ),
    DemoRequest("flux-pro", "An orange tree in a glass dome", {"size": "1024x1024"}, sent={"size": "1024x1024"}),
    DemoRequest(
        "toapis/gpt-image-1.5-official",
        "A harbour in the style of an old poster",
        {"size": "2048x2048"},
        sent={"size": "1:1", "resolution": "2k"},
        changed=("size",),
        pixels=(2048, 2048),
    ),
    DemoRequest(
        "toapis/gpt-image-1.5-official",
        "A square clock tower in fog",
        {"size": "1:1", "extra_body": {"resolution": "4k"}},
        sent={"size": "1:1", "resolution": "2k"},
        changed=("resolution",),
        pixels=(2048, 2048),
    ),
    DemoRequest(
        "toapis/gemini-3-pro-image-preview",
        "Two herons in the reeds",
        {"size": "2048x2048", "n": 2},
        sent={"size": "1:1", "metadata": {"resolution": "2K"}, "n": None},
        changed=("n", "size"),
        pixels=(2048, 2048),
        requests=2,
    ),
    DemoRequest(
        "onetoken/gpt-image-2",
        "A futuristic city with flying cars at sunset",
        {"size": "512x512", "response_format": "url"},
        sent={"size": "816x816", "response_format": None},
        changed=("size", "response_format"),
        pixels=(816, 816),
    ),
    DemoRequest(
        "tokenlab/gpt-image-2",
        "Put a red kite into the sky",
        {"size": "1024x1024", "image": "source", "mask": "mask"},
        operation="edit",
        path="/v1/images/edits",
        pixels=(1024, 1024),
    ),
    DemoRequest(
        "toapis/gpt-image-1.5-official",
        "Put a red kite into the sky",
        {"size": "1024x1024", "image": "source", "mask": "mask"},
        operation="edit",
        sent={"size": "1:1", "resolution": "1k"},
        changed=("size", "image", "mask"),
        path="/v1/images/generations",
        pixels=(1024, 1024),
        requests=3,
    ),
    DemoRequest(
        "nano-banana-pro",
        "The same in the colours of autumn",
        {"image": "source"},
        operation="edit",
        sent={"operation": "image-to-image", "resolution": None},
        changed=("operation", "image"),
        path="/v1/images/generations",
    ),
    DemoRequest(
        "openai/dall-e-2",
        "",
        {"image": "source", "size": "512x512", "n": 2},
        operation="create_variation",
        path="/v1/images/variations",
        pixels=(512, 512),
    ),
    DemoRequest(
        "gemini/gemini-3-pro-image",
        "A tram in the snow",
        {"size": "1536x1024", "n": 2, "quality": "hd"},
        sent={
            "generationConfig": {
                "responseModalities": ["IMAGE"],
                "imageConfig": {"aspectRatio": "3:2", "imageSize": "1K"},
            },
            "size": None,
        },
        changed=("n", "size", "quality"),
        path="/v1beta/models/gemini-3-pro-image:generateContent",
        pixels=(1264, 848),
        requests=2,
    ),
    DemoRequest(
        "gemini/gemini-3.1-flash-image",
        "The same as a woodcut",
        {"image": "source", "size": "9:16"},
        operation="edit",
        sent={"generationConfig.imageConfig": {"aspectRatio": "9:16"}},
        changed=("size",),
        path="/v1beta/models/gemini-3.1-flash-image:generateContent",
        pixels=(768, 1376),
    ),
    DemoRequest(
        "sdxl",
        "A greenhouse full of clocks",
        {"size": "768x512", "n": 2, "quality": "hd"},
        sent={"prompt.5.inputs": {"width": 768, "height": 512, "batch_size": 2}},
        changed=("quality", "seed"),
        path="/prompt",
        pixels=(768, 512),
    ),
    DemoRequest(
        "comfyui/sdxl",
        "Put a red kite into the sky",
        {"image": "source", "mask": "mask"},
        operation="edit",
        sent={"prompt.6.inputs.text": "Put a red kite into the sky"},
        changed=("seed",),
        path="/prompt",
        pixels=(512, 512),
        requests=3,
    ),
    DemoRequest(
        "tokenlab/gpt-image-2",
        "A panorama that no model can make",
        {"size": "8:1"},
        refused="size",
        code="invalid_value",
        requests=0,
    ),
    DemoRequest("tokenbay/gpt-image-2", "Something forbidden", code="moderation_blocked"),
)
