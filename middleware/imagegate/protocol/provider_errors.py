"""What a provider's error means, in whichever of the field's many shapes it comes. Pure.

Shapes read: OpenAI (object or string in ``error``), Google (``status``), FastAPI (``detail`` text or list), RFC 7807
(``title``), Stability (``name``, ``errors``), DashScope and New-API (``code`` and ``message`` beside each other, also
under ``output`` or ``data``), MiniMax (``base_resp``), ``fail_reason``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from imagegate.errors import ModerationBlocked, UpstreamError, UpstreamRefused, UpstreamUncertain

_MAX_MESSAGE: Final = 1000
_MODERATION_WORD = re.compile(
    r"content_?policy|content_?moderat|content_?filter|moderation|sensitive_?content|data_?inspection|prohibited"
    r"|image_safety|^safety$|blocklist|recitation|\bspii\b|nsfw",
    re.IGNORECASE,
)
_HTTP_ERROR = re.compile(r"[45][0-9][0-9]", re.ASCII)
_MODERATION_PHRASE = re.compile(
    r"safety system|content policy|content_policy|content moderation|moderated|was filtered|sensitive content",
    re.IGNORECASE,
)
_OPENAI_MODERATION_CODES: Final = frozenset({"moderation_blocked", "content_policy_violation"})
_NOT_ABOUT_CONTENT: Final = frozenset(
    ["unknown_parameter", "unsupported_parameter", "invalid_type", "missing_required_parameter", "rate_limit_exceeded"]
)
_STATUS_OF_TYPE: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "image_generation_user_error": 400,
    "bad_request_error": 400,
    "authentication_error": 401,
    "unauthorized": 401,
    "invalid_api_key": 401,
    "insufficient_balance": 402,
    "insufficient_quota": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
}
_NO_ERROR_CODES: Final = frozenset({"", "0", "200", "success", "ok", "none"})
# The gateway in front of the provider gave up; the provider itself may be at work (RFC 9110, Cloudflare's 52x).
_GAVE_UP: Final = frozenset({502, 504, *range(520, 530)})


class ProviderError(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's own error, in OpenAI's terms."""

    message: str
    type: str | None = None
    param: str | None = None
    code: str | None = None
    retry_after: float | None = None

    @property
    def moderated(self) -> bool:
        if self.param == "moderation" or self.code in _NOT_ABOUT_CONTENT:
            return False  # `moderation` is the name of a parameter too
        words = (self.code or "", self.type or "")
        return any(map(_MODERATION_WORD.search, words)) or bool(_MODERATION_PHRASE.search(self.message))


def provider_error(document: Mapping[str, Any]) -> ProviderError | None:
    """Return the error that a document carries, or None."""
    if document.get("error"):
        return _from_error_member(document["error"], document)
    if detail := document.get("detail"):
        return _from_detail(detail, document)
    if isinstance(errors := document.get("errors"), list) and errors:
        return ProviderError(message="; ".join(str(item) for item in errors), code=_text(document.get("name")))
    for nested in (document.get("output"), document.get("data")):
        if isinstance(nested, Mapping) and (found := _from_code_and_message(nested)):
            return found
    if isinstance(base := document.get("base_resp"), Mapping) and base.get("status_code"):
        return ProviderError(message=str(base.get("status_msg", "")), code=_text(base["status_code"]))
    if found := _from_code_and_message(document):
        return found
    if document.get("success") is False:
        return ProviderError(message=_text(document.get("message")) or "The provider reports no success.")
    return None


def failure(status: int, document: Mapping[str, Any] | None, *, request_id: str | None = None) -> UpstreamError:
    """Return the error of a reply with a status of 400 or more; `document` is None where the body is no JSON object."""
    found = provider_error(document) if document else None
    if status >= 600:
        status = 502
    if leaves_open(status, is_explained=found is not None):
        return uncertain(
            (found.message.strip() if found else "") or f"The provider answered {status} without an error message.",
            timed_out=status in (504, 524),
            request_id=request_id,
        )
    if found is None:
        return UpstreamRefused(
            f"The provider answered {status} without a reason.",
            status=status,
            type="invalid_request_error",
            code=_CODE_OF_STATUS.get(status, "upstream_refused"),
            request_id=request_id,
        )
    if found.code == "task_not_exist":
        status = 404
    return refusal(found, status=status, request_id=request_id)


def leaves_open(status: int, *, is_explained: bool) -> bool:
    """Return whether a reply with this status leaves open what was made.

    Args:
        is_explained: its body is the provider's own error.
    """
    return status in _GAVE_UP or (not is_explained and (status >= 500 or status in (408, 409)))


def refusal(found: ProviderError, *, status: int | None = None, request_id: str | None = None) -> UpstreamError:
    """Return a provider's error as ours; without a `status`, as in a 200, the error's own words decide."""
    message = shorten(found.message) or "The provider gave no reason."
    if found.moderated:
        return ModerationBlocked(
            message,
            status=status if status is not None and 400 <= status < 500 else 400,
            param=found.param,
            code=found.code if found.code in _OPENAI_MODERATION_CODES else "moderation_blocked",
            request_id=request_id,
        )
    if status is None:
        status = _status_in_words(found)
    return UpstreamRefused(
        message,
        status=status,
        type=found.type or _TYPE_OF_STATUS.get(status, "upstream_error"),
        param=found.param,
        code=found.code or _CODE_OF_TYPE.get(found.type or "") or _CODE_OF_STATUS.get(status, "upstream_error"),
        retry_after=found.retry_after,
        request_id=request_id,
    )


def uncertain(message: str, *, timed_out: bool = False, request_id: str | None = None) -> UpstreamUncertain:
    """Return the error for a request that may have been made and billed."""
    return UpstreamUncertain(
        shorten(message),
        status=504 if timed_out else 502,
        code="upstream_timeout" if timed_out else None,
        request_id=request_id,
    )


def shorten(text: str) -> str:
    """Shorten a provider's text for clients: HTML pages and base64 are cut."""
    text = " ".join(text.split())
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 3] + "..."


_CODE_OF_STATUS: Final[Mapping[int, str]] = {
    400: "invalid_request",
    401: "invalid_api_key",
    402: "insufficient_quota",
    403: "permission_denied",
    404: "not_found",
    413: "payload_too_large",
    429: "rate_limit_exceeded",
}
# TokenLab says in `type` what OpenAI says in `code`, by which clients tell these from a wrong address.
_CODE_OF_TYPE: Final[Mapping[str, str]] = {
    "model_not_found": "model_not_found",
    "async_task_not_found": "task_not_found",
}
_TYPE_OF_STATUS: Final[Mapping[int, str]] = {
    **dict.fromkeys((400, 404, 409, 413, 415, 422), "invalid_request_error"),
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}


def _from_error_member(error: Any, document: Mapping[str, Any]) -> ProviderError:
    if not isinstance(error, Mapping):
        return ProviderError(message=str(error), code=_text(document.get("code")))
    retry_after = error.get("retry_after")
    code, word = _text(error.get("code")), _text(error.get("status"))
    return ProviderError(
        message=_text(error.get("message")) or _text(error.get("detail")) or _text(error.get("code")) or "",
        type=_text(error.get("type")),
        param=_text(error.get("param")),
        code=word if word and (code is None or code.isdecimal()) else code,  # Google: 404 and NOT_FOUND
        retry_after=retry_after if isinstance(retry_after, (int, float)) and 0 <= retry_after <= 86400 else None,
    )


def _from_detail(detail: Any, document: Mapping[str, Any]) -> ProviderError:
    if not isinstance(detail, list):
        return ProviderError(message=str(detail), code=_text(document.get("title")))
    items = [item for item in detail if isinstance(item, Mapping)]
    first = items[0] if items else {}
    location = first.get("loc")
    return ProviderError(
        message="; ".join(str(item.get("msg", "")) for item in items) or str(detail),
        param=str(location[-1]) if isinstance(location, list) and location else None,
        code=_text(first.get("type")),
    )


def _from_code_and_message(node: Mapping[str, Any]) -> ProviderError | None:
    message = _text(node.get("fail_reason")) or _text(node.get("message"))
    code = _text(node.get("code"))
    if not node.get("fail_reason") and (code is None or code.lower() in _NO_ERROR_CODES):
        return None
    return ProviderError(message=message or code or "", code=code if code not in _NO_ERROR_CODES else None)


def _status_in_words(found: ProviderError) -> int:
    for word in (found.code, found.type):
        if word and _HTTP_ERROR.fullmatch(word):
            return int(word)
        if word and word in _STATUS_OF_TYPE:
            return _STATUS_OF_TYPE[word]
    return 502


def _text(value: Any) -> str | None:
    """Return a code, text or number, as text; None: empty or absent."""
    if isinstance(value, bool) or value is None or value == "":
        return None
    return str(value) if isinstance(value, (str, int, float)) else None
