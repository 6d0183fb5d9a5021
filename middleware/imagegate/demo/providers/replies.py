"""Replies in OpenAI's shape: links or base64 in one JSON document, or an event stream."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Literal

from starlette.responses import StreamingResponse

from imagegate.demo.providers.gallery import Gallery, PictureOrder, first_index, picture_base64
from imagegate.demo.providers.openai_models import ImageCall


def orders_of(call: ImageCall, *, provider: str, model: str, note: str = "") -> list[PictureOrder]:
    """Return what the model is going to draw for a call."""
    first = first_index()
    return [
        PictureOrder(
            provider=provider,
            model=model,
            prompt=call.prompt,
            width=call.width,
            height=call.height,
            index=first + index,
            image_format=call.image_format,
            transparent=call.background == "transparent",
            note=note,
        )
        for index in range(call.n)
    ]


async def picture_data(
    orders: Sequence[PictureOrder], *, gallery: Gallery, origin: str, base64: bool, kind: str = "generated"
) -> list[dict[str, object]]:
    """Return the `data` list of a reply: one `b64_json` or `url` per picture."""
    if base64:
        return [{"b64_json": await picture_base64(order)} for order in orders]
    return [{"url": origin + gallery.link(order, kind=kind)} for order in orders]


def revised_prompt(prompt: str) -> str:
    """Return what a model that rewrites prompts (dall-e-3) says that it drew."""
    return f"{prompt.rstrip('.')}, rendered with rich detail, balanced light and a clear composition."


def gpt_image_facts(call: ImageCall, *, references: int = 0) -> dict[str, object]:
    """Return the members that GPT image models add to a reply, with the true size in place of `auto`."""
    return {
        "background": "opaque" if call.background == "auto" else call.background,
        "output_format": call.image_format,
        "quality": "high" if call.quality == "auto" else call.quality,
        "size": f"{call.width}x{call.height}",
        "usage": usage_of(call, references=references),
    }


def usage_of(call: ImageCall, *, references: int = 0) -> dict[str, object]:
    """Plausible token counts: a token per four letters of the prompt, and per 1000 pixels that are made."""
    text_tokens, image_tokens = 1 + len(call.prompt) // 4, 323 * references
    output_tokens = call.n * (call.width * call.height // 1000)
    return {
        "input_tokens": text_tokens + image_tokens,
        "input_tokens_details": {"image_tokens": image_tokens, "text_tokens": text_tokens},
        "output_tokens": output_tokens,
        "total_tokens": text_tokens + image_tokens + output_tokens,
    }


def event_stream(
    call: ImageCall,
    orders: Sequence[PictureOrder],
    *,
    event: Literal["image_generation", "image_edit"],
    references: int = 0,
) -> StreamingResponse:
    """Send OpenAI's image events: the partial images, then one `completed` per picture. No `[DONE]` ends it."""

    async def frames() -> AsyncIterator[str]:
        facts = gpt_image_facts(call, references=references)
        usage = facts.pop("usage")
        for order in orders:
            picture = {"b64_json": await picture_base64(order), "created_at": int(time.time()), **facts}
            for index in range(call.partial_images):
                yield _frame(f"{event}.partial_image", {**picture, "partial_image_index": index})
            yield _frame(f"{event}.completed", {**picture, "usage": usage})

    return StreamingResponse(frames(), media_type="text/event-stream", headers={"cache-control": "no-store"})


def _frame(event: str, data: dict[str, object]) -> str:
    return f"event: {event}\ndata: {json.dumps({'type': event, **data})}\n\n"
