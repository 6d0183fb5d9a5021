"""ToAPIs: every request becomes a task, asked for under the path that made it; edits are generations with links."""

from __future__ import annotations

from imagegate.adapter import Adapter, FilePart, OpenAIAdapter, Upload, UpstreamReply, UpstreamRequest, read_upload


class ToAPIs(OpenAIAdapter):
    """docs.toapis.com, image pages and "Upload Image"."""

    name = "toapis"
    base_url = "https://toapis.com"
    task_path = "/v1/images/generations/{id}"
    always_tasks = True

    def encode_upload(self, upload: Upload) -> UpstreamRequest:
        """Up to 10 MB each, in a part called ``file``."""
        return UpstreamRequest(method="POST", path="/v1/uploads/images", parts=(FilePart("file", upload),))

    def decode_upload(self, reply: UpstreamReply) -> str:
        """``{success, data: {url}}``."""
        return read_upload(reply)


_: type[Adapter] = ToAPIs
