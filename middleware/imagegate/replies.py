"""Public names of `imagegate.protocol`, for adapters that read replies in their own way."""

from imagegate.protocol.error_reader import ProviderError, provider_error
from imagegate.protocol.parsers.lenient_json import read_object
from imagegate.protocol.provider_errors import failure, refusal, uncertain
from imagegate.protocol.replies import (
    UpstreamReply,
    read_document,
    read_picture,
    read_reply,
    read_upload,
)
from imagegate.protocol.reply_tasks import PendingTask, address_beside
from imagegate.protocol.usage import openai_usage

__all__ = [
    "PendingTask",
    "ProviderError",
    "UpstreamReply",
    "address_beside",
    "failure",
    "openai_usage",
    "provider_error",
    "read_document",
    "read_object",
    "read_picture",
    "read_reply",
    "read_upload",
    "refusal",
    "uncertain",
]
