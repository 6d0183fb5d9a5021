"""ToAPIs: every request becomes a task, asked for under the path that made it; edits are generations with links."""

from __future__ import annotations

from imagegate.adapter import FilePart, OpenAIAdapter, Upload, UpstreamRequest


class ToAPIs(OpenAIAdapter):
    """docs.toapis.com, image pages and "Upload Image"."""

    name = "toapis"
    base_url = "https://toapis.com"
    task_path = "/v1/images/generations/{id}"
    always_tasks = True

    def encode_upload(self, upload: Upload) -> UpstreamRequest:
        """Up to 10 MB each, in a part called ``file``; answered with ``{success, data: {url}}``."""
        return UpstreamRequest(method="POST", path="/v1/uploads/images", parts=(FilePart("file", upload),))
