"""In which form a client gets its pictures: as links or as base64."""

from __future__ import annotations

from typing import Final, Literal

ResponseFormat = Literal["url", "b64_json"]
_BASE64_MODELS: Final = ("gpt-image-", "chatgpt-image-")
_AI_SDK: Final = b"ai-sdk/"


def default_form(
    model: str, default: ResponseFormat | None, *, streamed: bool, user_agent: bytes | None
) -> ResponseFormat:
    """Return the form where a client does not say: as configured, or as OpenAI would answer for the model.

    OpenAI's streams have base64 only, and SDKs count on it. The Vercel AI SDK throws a reply with links away; it asks
    for base64 where it generates with a model that it does not know, but not where it edits.
    """
    if default is not None:
        return default
    if streamed or model.rpartition("/")[2].startswith(_BASE64_MODELS):
        return "b64_json"
    return "b64_json" if user_agent is not None and _AI_SDK in user_agent else "url"
