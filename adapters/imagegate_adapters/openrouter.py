"""OpenRouter: its Images API, or chat completions whose messages have pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from imagegate.adapter import (
    Adapter,
    ImageReply,
    ImageRequest,
    PendingTask,
    Reference,
    UpstreamReply,
    UpstreamRequest,
    linked,
)
from imagegate.contract import ContractDocument
from imagegate.errors import ModerationBlocked
from imagegate.replies import openai_usage, provider_error, read_object, refusal

_ELSEWHERE: Final = frozenset(["model", "prompt", "n", "aspect_ratio", "resolution"])
"""Members that a chat completion has in other places, or not at all."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of an upstream."""

    api: Literal["images", "chat"] = "images"
    """``/images``, or ``/chat/completions`` for models that are only there."""


class OpenRouter(Adapter):
    """openrouter.ai/docs, "Image Generation"; openrouter 1.3.84 (PyPI)."""

    name = "openrouter"
    base_url = "https://openrouter.ai/api/v1"
    models_path = "/v1/key"
    """The list of models is open to everyone."""
    relays = False
    """Tokens have the names of chat completions."""
    options_type = Options
    options: Options

    def contracts(self) -> ContractDocument:
        """Return one contract for all models, which is that of the API in use."""
        document = super().contracts()
        own = {"*": {"family": f"openrouter-{self.options.api}"}}
        return msgspec.structs.replace(document, models=own)

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        if self.options.api == "chat":
            return _chat(request)
        document: dict[str, Any] = {**request.without("n").fields}
        if request.images:
            document["input_references"] = [_part(image) for image in request.images]
        return UpstreamRequest(method="POST", path="/v1/images", document=document)

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        document = read_object(reply.body) or {}
        choice = _choice(document) if reply.status < 300 else {}
        if blocked := next(filter(_is_flagged, (document, choice)), None):
            raise _blocked(blocked)
        if choice.get("finish_reason") == "content_filter":
            raise ModerationBlocked("The provider withheld the image for its content.")
        if error := provider_error(choice):
            raise refusal(error)
        result = super().decode(reply, now=now)
        return _without_words(result, document) if isinstance(result, ImageReply) else result


def _chat(request: ImageRequest) -> UpstreamRequest:
    """Put the pictures before the words, ratio and tier into ``image_config``."""
    fields = request.fields
    sizes = {"aspect_ratio": fields.get("aspect_ratio"), "image_size": fields.get("resolution")}
    content = [*map(_part, request.images), {"type": "text", "text": fields.get("prompt", "")}]
    document: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": "user", "content": content}],
        "modalities": request.wire.get("modalities", ["image", "text"]),
        **{name: value for name, value in fields.items() if name not in _ELSEWHERE},
    }
    if config := {name: value for name, value in sizes.items() if value}:
        document["image_config"] = config
    return UpstreamRequest(method="POST", path="/v1/chat/completions", document=document)


def _part(reference: Reference) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": linked(reference)}}


def _choice(document: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = document.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, Mapping) else {}


def _is_flagged(document: Mapping[str, Any]) -> bool:
    """Return whether an error is about the content of a request, as its metadata say, and not about the key."""
    error = document.get("error")
    metadata = error.get("metadata") if isinstance(error, Mapping) else None
    return isinstance(metadata, Mapping) and ("flagged_input" in metadata or "reasons" in metadata)


def _blocked(document: Mapping[str, Any]) -> ModerationBlocked:
    error = provider_error(document)
    return ModerationBlocked(error.message if error else "The provider blocked the request.")


def _without_words(reply: ImageReply, document: Mapping[str, Any]) -> ImageReply:
    """Tokens in OpenAI's words; of a chat completion nothing else is about the pictures."""
    usage = document.get("usage")
    fields = {} if "choices" in document else {name: value for name, value in reply.fields.items() if name != "usage"}
    if isinstance(usage, Mapping):
        fields["usage"] = openai_usage(usage)
    return msgspec.structs.replace(reply, fields=fields)
