"""Gemini: the model in the path, pictures inline in both directions, and no member called as at OpenAI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from imagegate.adapter import (
    BEARER,
    Adapter,
    Authentication,
    ImageReply,
    ImageRequest,
    PendingTask,
    Reference,
    ReplyImage,
    UpstreamReply,
    UpstreamRequest,
    inline,
)
from imagegate.errors import UpstreamError
from imagegate.replies import read_object, uncertain

_LONGEST: Final = 500
"""Characters of what the model says that clients are told."""


class Gemini(Adapter):
    """ai.google.dev, "Image generation" and the reference of ``generateContent``."""

    name = "gemini"
    base_url = "https://generativelanguage.googleapis.com"
    chat_paths = ("/v1beta/openai",)
    authentication = Authentication(header="x-goog-api-key", scheme="")
    token_authentication = BEARER
    picture_members = ("inlineData.data", "inline_data.data")

    def path(self, model: str) -> str:
        """Return where a model is asked."""
        return f"/v1beta/models/{quote(model, safe='')}:generateContent"

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        """Write references in their order, then the prompt. ``imageConfig`` is what google-genai 3.4 sends."""
        sizes = {"aspectRatio": request.fields.get("aspect_ratio"), "imageSize": request.fields.get("resolution")}
        config: dict[str, Any] = {"responseModalities": ["IMAGE"]}
        if any(sizes.values()):
            config["imageConfig"] = {name: value for name, value in sizes.items() if value}
        parts = [*map(_part, request.images), {"text": request.fields.get("prompt", "")}]
        document = {"contents": [{"role": "user", "parts": parts}], "generationConfig": config}
        return UpstreamRequest(method="POST", path=self.path(request.model), document=document)

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        """Return the last picture that is no draft; replies without one say why in a way that all adapters read."""
        document = (read_object(reply.body) if reply.status < 400 else None) or {}
        found = [data for part in _parts(document) if not part.get("thought") and (data := _data(part))]
        if not found:
            if any(_data(part) for part in _parts(document)):
                raise uncertain("The provider answered with drafts, and with no image.")
            return self._without_image(reply, document, now)
        return ImageReply(images=(ReplyImage(b64_json=found[-1]),), created=now, fields=_usage(document))

    def _without_image(self, reply: UpstreamReply, document: Mapping[str, Any], now: int) -> ImageReply | PendingTask:
        """Raise the error that the reply is, with what the model says instead of a picture."""
        try:
            return super().decode(reply, now=now)
        except UpstreamError as error:
            if reply.status < 400 and (said := _words(document)):
                error.message = f"{error.message.rstrip('.')}. It says: {said}"
            raise


def _words(document: Mapping[str, Any]) -> str:
    """Return why there is no picture: the reason as a sentence, else as a word, else what the model wrote."""
    candidates = [one for one in _list(document.get("candidates")) if isinstance(one, Mapping)]
    texts = [part["text"] for part in _parts(document) if isinstance(part.get("text"), str) and not part.get("thought")]
    feedback = document.get("promptFeedback")
    reasons = [feedback.get("blockReasonMessage")] if isinstance(feedback, Mapping) else []
    reasons += [one.get("finishMessage") for one in candidates] + texts
    reasons += [word for one in candidates if (word := one.get("finishReason")) != "STOP"]
    return next((" ".join(text.split())[:_LONGEST] for text in reasons if isinstance(text, str) and text.strip()), "")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _part(reference: Reference) -> dict[str, Any]:
    file = inline(reference)
    return {"inlineData": {"mimeType": file.upload.media_type, "data": file}}


def _parts(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    candidates = document.get("candidates")
    for candidate in candidates if isinstance(candidates, list) else ():
        content = candidate.get("content") if isinstance(candidate, Mapping) else None
        parts = content.get("parts") if isinstance(content, Mapping) else None
        yield from (part for part in (parts if isinstance(parts, list) else ()) if isinstance(part, Mapping))


def _data(part: Mapping[str, Any]) -> str | None:
    held = part.get("inlineData") or part.get("inline_data")
    data = held.get("data") if isinstance(held, Mapping) else None
    return data if isinstance(data, str) and data else None


def _usage(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``usageMetadata`` in OpenAI's words; what the model thought is output."""
    counts = document.get("usageMetadata")
    if not isinstance(counts, Mapping):
        return {}
    read = {name: value for name, value in counts.items() if type(value) is int}
    made = read.get("candidatesTokenCount", 0) + read.get("thoughtsTokenCount", 0)
    asked = read.get("promptTokenCount", 0)
    usage: dict[str, Any] = {"input_tokens": asked, "output_tokens": made}
    usage["total_tokens"] = read.get("totalTokenCount", asked + made)
    for name, side in (("promptTokensDetails", "input"), ("candidatesTokensDetails", "output")):
        if details := _by_modality(counts.get(name)):
            usage[f"{side}_tokens_details"] = details
    return {"usage": usage}


def _by_modality(details: Any) -> dict[str, int]:
    items = [item for item in details if isinstance(item, Mapping)] if isinstance(details, list) else []
    return {
        f"{item['modality'].lower()}_tokens": item["tokenCount"]
        for item in items
        if item.get("modality") in ("TEXT", "IMAGE") and type(item.get("tokenCount")) is int
    }
