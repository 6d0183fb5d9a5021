"""Amazon Bedrock: Stability's models as JSON, with the model in the path and a key of Bedrock's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from imagegate.adapter import (
    Adapter,
    ImageReply,
    ImageRequest,
    PendingTask,
    UpstreamReply,
    UpstreamRequest,
    native_body,
)
from imagegate.errors import ConfigError, ModerationBlocked
from imagegate.replies import read_object, read_reply, uncertain

_TIMED_OUT: Final = 408
_OPEN: Final = frozenset((_TIMED_OUT, 424))
"""ModelTimeoutException, ModelErrorException: the model was at work."""


class BedrockOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the models are."""

    region: str = "us-west-2"
    """Of AWS; Stability's models are not in all of them."""


class Bedrock(Adapter):
    """docs.aws.amazon.com/bedrock, InvokeModel and "Stability AI models"."""

    name = "bedrock"
    options_type = BedrockOptions
    options: BedrockOptions
    picture_members = ("images",)

    def __init__(self, options: BedrockOptions | None = None) -> None:
        super().__init__(options)
        self.base_url = f"https://bedrock-runtime.{self.options.region}.amazonaws.com"

    def check(self) -> None:
        if not self.options.region.replace("-", "").isalnum():
            raise ConfigError("options.region: must be the name of a region, such as us-west-2")

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        path = f"/model/{quote(request.model, safe='')}/invoke"
        return UpstreamRequest(method="POST", path=path, document=native_body(request))

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        """Read a reply; a refusal for the content is a 200 that says so."""
        document = read_object(reply.body) or {}
        if reply.status in _OPEN:
            raise uncertain(str(document.get("message") or "The model failed."), timed_out=reply.status == _TIMED_OUT)
        if reply.status < 300 and (reason := _reason(document)):
            if reason.startswith("Filter reason"):
                raise ModerationBlocked(f"The provider blocked the request: {reason[:128]}")
            raise uncertain(f"The provider's reply contains no image: {reason[:128]}")
        return read_reply(reply, now=now)


def _reason(document: Mapping[str, Any]) -> str:
    reasons = document.get("finish_reasons")
    return next((each for each in reasons if isinstance(each, str)), "") if isinstance(reasons, list) else ""


_: type[Adapter] = Bedrock
