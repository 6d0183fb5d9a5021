"""Public names of `imagegate.protocol`, for adapters that read replies in their own way."""

from imagegate.protocol.provider_errors import ProviderError, failure, provider_error, refusal, uncertain
from imagegate.protocol.replies import (
    PendingTask,
    UpstreamReply,
    read_document,
    read_object,
    read_picture,
    read_reply,
    read_upload,
)

__all__ = [
    "PendingTask",
    "ProviderError",
    "UpstreamReply",
    "failure",
    "provider_error",
    "read_document",
    "read_object",
    "read_picture",
    "read_reply",
    "read_upload",
    "refusal",
    "uncertain",
]
