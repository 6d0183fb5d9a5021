"""Classifies a provider's error: whether images can have been made, and which status the client gets. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from imagegate.errors import ModerationBlocked, UpstreamError, UpstreamRefused, UpstreamUncertain
from imagegate.protocol.error_reader import ProviderError, digest, read_error, read_text

_MAX_MESSAGE: Final = 1000
_MODERATION_WORD = re.compile(
    r"content_?policy|content_?moderat|content_?filter|moderation|sensitive_?content|data_?inspection|prohibited"
    r"|risk_?detection|safety_?check|illegal_?detected|sensitive_?words?"
    r"|ip_?infringement|image_safety|^safety$|blocklist|recitation|\bspii\b|nsfw",
    re.IGNORECASE,
)
_LONGEST_NAME: Final = 64
"""Characters of a provider's code or type."""
_HTTP_ERROR = re.compile(r"[45][0-9][0-9]", re.ASCII)
_MODERATION_PHRASE = re.compile(
    r"safety system|content policy|content_policy|content moderation|moderated|was filtered|sensitive content"
    r"|nsfw content|flagged as sensitive|failed the safety check|content management policy|risk not pass"
    r"|new_sensitive|banned (prompt|word)|requires moderation|input was flagged|violates (our )?usage guidelines"
    # Chinese, Japanese, Korean, German, Spanish, French, Portuguese, Russian; "大小写敏感" is "case-sensitive".
    r"|(?<!大小写)敏感(词|内容|信息|图)|(涉及|包含|含有|存在)敏感|违规(内容|词|信息|图)|内容(安全|审核|违规)|审核(不|未)通过|涉[黄政暴]|色情"
    r"|コンテンツ[・ ]?ポリシー|콘텐츠 ?정책|inhaltsrichtlinie|pol[ií]tica de conte|politique de contenu"
    r"|политик\w+ (контента|содержани)",
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
# The gateway in front of the provider gave up; the provider itself may be at work (RFC 9110, Cloudflare's 52x).
_GAVE_UP: Final = frozenset({502, 504, *range(520, 530)})
_TIMEOUT_WORD = re.compile(r"time_?d?_?out|deadline_?exceeded", re.IGNORECASE)


def is_moderated(found: ProviderError) -> bool:
    """Return whether a provider refused the request for its content."""
    if found.param == "moderation" or found.code in _NOT_ABOUT_CONTENT:
        return False  # `moderation` is the name of a parameter too
    return any(map(_MODERATION_WORD.search, _words_of(found))) or bool(_MODERATION_PHRASE.search(found.message))


def _words_of(found: ProviderError) -> tuple[str, str]:
    return found.code or "", found.type or ""


def failure(
    status: int, document: Mapping[str, Any] | list[Any] | None, *, text: str = "", request_id: str | None = None
) -> UpstreamError:
    """Return the error of a reply with a status of 400 or more.

    Args:
        document: None where the body is no JSON.
        text: the body, in that case.
    """
    found = read_error(document) if document is not None else None
    said = found or read_text(text)
    if found is None and said is not None and said.code is not None:
        found = said  # XML has codes, text has none
    if status >= 600:
        status = 502
    if leaves_open(status, is_explained=found is not None):
        text = said.message.strip() if said else digest(document)
        return uncertain(
            text or f"The provider answered {status} without an error message.",
            timed_out=status in (504, 524),
            request_id=request_id,
        )
    if found is None:
        text = said.message if said else digest(document)
        return UpstreamRefused(
            shorten(text) or f"The provider answered {status} without a reason.",
            status=status,
            type=_TYPE_OF_STATUS.get(status, "invalid_request_error"),
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


def refusal(
    found: ProviderError, *, status: int | None = None, request_id: str | None = None, is_over: bool = False
) -> UpstreamError:
    """Return a provider's error as ours; without a `status`, as in a 200, the error's own words decide.

    They may also say that the provider has given up waiting for what makes the pictures: that is uncertain.

    Args:
        is_over: it is the end of a task, after which nothing is made.
    """
    message = shorten(found.message) or "The provider gave no reason."
    if is_moderated(found):
        return ModerationBlocked(
            message,
            status=status if status is not None and 400 <= status < 500 else 400,
            param=found.param,
            code=found.code if found.code in _OPENAI_MODERATION_CODES else "moderation_blocked",
            request_id=request_id,
        )
    if status is None:
        status = _status_in_words(found)
        is_named = (status or 502) >= 500 and any(map(_TIMEOUT_WORD.search, _words_of(found)))
        timed_out = is_named or status in (504, 524)
        if not is_over and (timed_out or status in _GAVE_UP):
            return uncertain(message, timed_out=timed_out, request_id=request_id)
        status = status or 502
    return UpstreamRefused(
        message,
        status=status,
        type=_own_type(found) or _TYPE_OF_STATUS.get(status, "upstream_error"),
        param=found.param,
        code=_own_code(found) or _CODE_OF_TYPE.get(found.type or "") or _CODE_OF_STATUS.get(status, "upstream_error"),
        retry_after=found.retry_after,
        request_id=request_id,
    )


def _own_code(found: ProviderError) -> str | None:
    """Return the provider's code; None: it has none, or a text in its place, as xAI may.

    Codes are in log lines and spans, where a text could quote the prompt or carry an image.
    """
    return found.code if _is_name(found.code) else None


def _own_type(found: ProviderError) -> str | None:
    return found.type if _is_name(found.type) else None


def _is_name(text: str | None) -> bool:
    return text is not None and len(text) <= _LONGEST_NAME and len(text.split()) == 1


def uncertain(message: str, *, timed_out: bool = False, request_id: str | None = None) -> UpstreamUncertain:
    """Return the error for a request that may have been made and billed."""
    return UpstreamUncertain(
        shorten(message),
        status=504 if timed_out else 502,
        code="upstream_timeout" if timed_out else None,
        request_id=request_id,
    )


def some_failed(failures: Sequence[UpstreamError], made: int) -> UpstreamError:
    """Return the error of a reply of which `made` images are there, and these failed.

    Of several reasons the one counts that allows the least: what is uncertain, then what no other provider may be asked
    for.
    """
    gravest = min(failures, key=lambda error: (error.outcome != "uncertain", error.allows_fallback))
    if not made:
        return gravest
    return UpstreamUncertain(
        f"{made} of {made + len(failures)} images were made, then: {gravest.message}",
        status=gravest.status,
        type=gravest.type,
        code=gravest.code,
        request_id=gravest.details.get("upstream_request_id"),
    )


def shorten(text: str) -> str:
    """Shorten a provider's text for clients."""
    text = " ".join(text.split())
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 3] + "..."


_CODE_OF_STATUS: Final[Mapping[int, str]] = {
    400: "invalid_request",
    401: "invalid_api_key",
    402: "insufficient_quota",
    403: "permission_denied",
    404: "not_found",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    429: "rate_limit_exceeded",
}
# TokenLab says in `type` what OpenAI says in `code`, by which clients distinguish these from a wrong address.
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


def _status_in_words(found: ProviderError) -> int | None:
    if found.status is not None:
        return found.status
    for word in (found.code, found.type):
        if word and _HTTP_ERROR.fullmatch(word):
            return int(word)
        if word and word in _STATUS_OF_TYPE:
            return _STATUS_OF_TYPE[word]
    return None
