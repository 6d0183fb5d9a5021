"""Public names of `imagegate.protocol.replies`, for adapters that read replies in their own way."""

from imagegate.protocol.replies import PendingTask, UpstreamReply, read_document, read_reply, read_upload

__all__ = ["PendingTask", "UpstreamReply", "read_document", "read_reply", "read_upload"]
