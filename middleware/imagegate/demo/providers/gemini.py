"""Gemini's image models by `generateContent`: nothing of OpenAI's shapes, pictures inline in both directions.

Sources: Google's image generation page (2026-09; ratios, tiers, pixels, references), google-genai 3.4 (names of
members), Google's deprecations page (models), answers of the live API as third parties report them (errors).
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response

from imagegate.demo.providers.common import FORBIDDEN_WORD, RefusedError, names, nearest_ratio
from imagegate.demo.providers.frame import KEY_PREFIX, build_app
from imagegate.demo.providers.gallery import PictureOrder, picture_base64
from imagegate.demo.providers.incoming import Incoming, PictureFacts, inspect_picture
from imagegate.demo.providers.pixels import GEMINI_3_PRO, GEMINI_25, GEMINI_31_FLASH, Size

NAME: Final = "Gemini"

MOST_REFERENCES: Final = 14
REFERENCE_LIMIT: Final = 7_000_000
"""Bytes of one inline picture."""

UNSAFE_OUTPUT_WORD: Final = "gruesome"
"""A prompt with this word is drawn, and the drawing is withheld."""
NO_PICTURE_WORD: Final = "wordless"
"""A prompt with this word is answered without a picture."""

_FACTORS: Final = {"512": 0.5, "1K": 1, "2K": 2, "4K": 4}
_MODELS: Final[Mapping[str, tuple[Mapping[str, Size], tuple[str, ...]]]] = {
    "gemini-2.5-flash-image": (GEMINI_25, ()),
    "gemini-3-pro-image": (GEMINI_3_PRO, ("1K", "2K", "4K")),
    "gemini-3.1-flash-image": (GEMINI_31_FLASH, ("512", "1K", "2K", "4K")),
    "gemini-3.1-flash-lite-image": (GEMINI_31_FLASH, ("512", "1K")),
}
"""Sizes at 1K by ratio, and tiers."""

_BODY: Final = names(
    "contents generationConfig safetySettings systemInstruction tools toolConfig cachedContent labels serviceTier"
)
_CONFIG: Final = names(
    "responseModalities imageConfig candidateCount seed temperature topP topK maxOutputTokens stopSequences"
    " thinkingConfig mediaResolution presencePenalty frequencyPenalty responseMimeType"
)
_IMAGE_CONFIG: Final = names("aspectRatio imageSize")
_PART: Final = names("text inlineData fileData thought thoughtSignature")
_MEDIA_TYPES: Final = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
_STATUSES: Final = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
_VERSION: Final = "v1beta"
_PREFIX: Final = "/v1beta/models/"


class GeminiDialect:
    """Google's envelope: `{"error": {code, message, status, details?}}`, the code a number."""

    request_id_header = "x-goog-request-id"

    def envelope(self, refusal: RefusedError, request_id: str) -> dict[str, object]:
        """See `frame.Dialect`."""
        status = _STATUSES.get(refusal.status, "INTERNAL")
        return {"error": {"code": refusal.status, "message": refusal.message, "status": status, **refusal.extra}}

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`. A wrong key is a 400 here, a missing one a 403."""
        return RefusedError("API key not valid. Please pass a valid API key.")

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return RefusedError(f"Method not found: {incoming.path}", status=404)


def create_app(*, task_seconds: float = 0.3) -> Starlette:
    """Return the stand-in for https://generativelanguage.googleapis.com. It has no tasks; `task_seconds` is unused."""
    return build_app(
        GeminiDialect(),
        {("POST", _PREFIX + "{call}"): _generate},
        edge=_require_key,
        is_authorized=lambda incoming: _key(incoming).startswith(KEY_PREFIX),
    )


def _key(incoming: Incoming) -> str:
    """Return the key; a bearer token is for OAuth and is no key here."""
    return incoming.headers.get("x-goog-api-key") or incoming.query.get("key", "")


def _require_key(incoming: Incoming) -> None:
    if not _key(incoming):
        message = "Method doesn't allow unregistered callers (callers without established identity). "
        message += "Please use API Key or other form of API consumer identity to call this API."
        raise RefusedError(message, status=403)


async def _generate(incoming: Incoming) -> Response:
    model, _, method = incoming.path_params["call"].partition(":")
    if method != "generateContent" or model not in _MODELS:
        message = f"models/{model} is not found for API version {_VERSION}, or is not supported for {method}. "
        raise RefusedError(message + "Call ListModels to see the list of available models.", status=404)
    if incoming.fields is None:
        raise RefusedError("Invalid JSON payload received. Expected an object.")
    body = incoming.fields
    _refuse_unknown(body, _BODY, "")
    texts, pictures = _read_contents(body.get("contents"))
    config = _object(body.get("generationConfig"), "generation_config")
    _refuse_unknown(config, _CONFIG, "generation_config")
    if config.get("candidateCount", 1) != 1:
        raise RefusedError("Multiple candidates is not enabled for this model")
    width, height = _size(model, config, pictures)
    prompt = " ".join(texts)
    usage = _usage(prompt, pictures, width * height)
    if FORBIDDEN_WORD in prompt.lower():
        feedback = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
        return JSONResponse({**feedback, "usageMetadata": usage, "modelVersion": model})
    if UNSAFE_OUTPUT_WORD in prompt.lower():
        return _reply(model, usage, [], "IMAGE_SAFETY")
    if NO_PICTURE_WORD in prompt.lower():
        return _reply(model, usage, [{"text": "I would rather describe it."}], "NO_IMAGE")
    if "IMAGE" not in _modalities(config):
        return _reply(model, usage, [{"text": "A description of the picture."}], "STOP")
    note = f"edit of {len(pictures)} image{'s' if len(pictures) > 1 else ''}" if pictures else ""
    order = PictureOrder(NAME, model, prompt, width, height, secrets.randbelow(1000), note=note)
    return _reply(model, usage, await _parts(order, thinks=model.startswith("gemini-3")), "STOP")


async def _parts(order: PictureOrder, *, thinks: bool) -> list[dict[str, object]]:
    """Put the picture last; models that think show a draft before it."""
    picture = {"mimeType": "image/png", "data": await picture_base64(order)}
    if not thinks:
        return [{"text": "Here is your picture."}, {"inlineData": picture}]
    draft = PictureOrder(NAME, order.model, order.prompt, 256, 256, note="draft")
    return [
        {"text": "**Composing**", "thought": True},
        {"inlineData": {"mimeType": "image/png", "data": await picture_base64(draft)}, "thought": True},
        {"inlineData": picture, "thoughtSignature": "c2lnbmF0dXJl"},
    ]


def _reply(model: str, usage: Mapping[str, object], parts: Sequence[object], reason: str) -> JSONResponse:
    content = {"role": "model", "parts": list(parts)} if parts else {}
    candidate = {"content": content, "finishReason": reason, "index": 0}
    return JSONResponse(
        {
            "candidates": [candidate],
            "usageMetadata": usage,
            "modelVersion": model,
            "responseId": secrets.token_urlsafe(16),
        }
    )


def _usage(prompt: str, pictures: Sequence[PictureFacts], pixels: int) -> dict[str, object]:
    """Count 1120 tokens a picture at 1K and 2K, 2000 at 4K (Google's pricing page)."""
    asked, made = 1 + len(prompt) // 4 + 560 * len(pictures), 2000 if pixels > 8_000_000 else 1120
    return {
        "promptTokenCount": asked,
        "candidatesTokenCount": made,
        "thoughtsTokenCount": 64,
        "totalTokenCount": asked + made + 64,
    }


def _modalities(config: Mapping[str, Any]) -> list[str]:
    value = config.get("responseModalities", ["TEXT", "IMAGE"])
    if not isinstance(value, list) or not {str(item) for item in value} <= {"TEXT", "IMAGE"}:
        raise RefusedError("Invalid value at 'generation_config.response_modalities'.")
    return value


def _size(model: str, config: Mapping[str, Any], pictures: Sequence[PictureFacts]) -> Size:
    """Follow the first reference where there is no ratio; without one the picture is square."""
    table, tiers = _MODELS[model]
    image = _object(config.get("imageConfig"), "generation_config.image_config")
    _refuse_unknown(image, _IMAGE_CONFIG, "generation_config.image_config")
    ratio, tier = image.get("aspectRatio"), image.get("imageSize")
    if ratio is not None and ratio not in table:
        raise RefusedError(f"aspect_ratio must be one of {sorted(table)}, but got {ratio!r}.")
    if tier is not None and tier not in tiers:
        raise RefusedError(f"image_size {tier!r} is not supported by {model}.")
    if ratio is None:
        ratio = nearest_ratio(pictures[0].width, pictures[0].height, tuple(table)) if pictures else "1:1"
    width, height = table[ratio]
    factor = _FACTORS[tier or "1K"]
    return round(width * factor), round(height * factor)


def _read_contents(value: object) -> tuple[list[str], list[PictureFacts]]:
    contents = value if isinstance(value, list) else []
    if not contents:
        raise RefusedError("* GenerateContentRequest.contents: contents is not specified\n")
    texts: list[str] = []
    pictures: list[PictureFacts] = []
    for place, content in enumerate(contents):
        where = f"contents[{place}]"
        content = _object(content, where)
        _refuse_unknown(content, names("role parts"), where)
        if content.get("role", "user") not in ("user", "model"):
            raise RefusedError("Please use a valid role: user, model.")
        parts = content.get("parts")
        if not isinstance(parts, list) or not parts:
            raise RefusedError(f"* GenerateContentRequest.{where}.parts: contents.parts must not be empty.\n")
        for number, part in enumerate(parts):
            _read_part(_object(part, f"{where}.parts[{number}]"), f"{where}.parts[{number}]", texts, pictures)
    if len(pictures) > MOST_REFERENCES:
        raise RefusedError(f"The input has {len(pictures)} images. At most {MOST_REFERENCES} are supported.")
    return texts, pictures


def _read_part(part: Mapping[str, Any], where: str, texts: list[str], pictures: list[PictureFacts]) -> None:
    _refuse_unknown(part, _PART, where)
    if len(part.keys() & {"text", "inlineData", "fileData"}) != 1:
        raise RefusedError(f"* GenerateContentRequest.{where}.data: required oneof field 'data' must be initialized\n")
    if "text" in part:
        if not isinstance(part["text"], str):
            raise RefusedError(f"Invalid value at '{where}.text' (TYPE_STRING)")
        texts.append(part["text"])
    elif "inlineData" in part:
        pictures.append(_inline(_object(part["inlineData"], where), where))
    else:
        _refuse_unknown(_object(part["fileData"], where), names("mimeType fileUri"), where)
        raise RefusedError("You do not have permission to access the File or it may not exist.", status=403)


def _inline(data: Mapping[str, Any], where: str) -> PictureFacts:
    _refuse_unknown(data, names("mimeType data"), f"{where}.inline_data")
    form = _MEDIA_TYPES.get(str(data.get("mimeType")))
    if form is None:
        raise RefusedError(f"Unsupported MIME type: {data.get('mimeType')}")
    try:
        content = base64.b64decode(str(data.get("data")), validate=True)
    except (ValueError, binascii.Error):
        content = b""
    facts = inspect_picture(content)
    if len(content) > REFERENCE_LIMIT:
        raise RefusedError("Request payload size exceeds the limit.")
    if facts is None or facts.form != form:
        raise RefusedError(
            "Unable to process input image. Please retry or report in "
            "https://developers.generativeai.google/guide/troubleshooting"
        )
    return facts


def _object(value: object, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RefusedError(f"Invalid value at '{where}', expected an object.")
    return {_camel(str(name)): item for name, item in value.items()}


def _camel(name: str) -> str:
    """Write names in camelCase: Google's JSON takes snake_case, too."""
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name)


def _refuse_unknown(members: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    for name in members:
        if _camel(name) not in known:
            place = f" at '{where}'" if where else ""
            raise RefusedError(f'Invalid JSON payload received. Unknown name "{name}"{place}: Cannot find field.')
