"""ToAPIs: every request becomes a task, asked for under the path that made it; edits are generations with URLs."""

from __future__ import annotations

from imagegate.adapter import Adapter, OpenAIAdapter


class ToAPIs(OpenAIAdapter):
    """docs.toapis.com, image pages."""

    name = "toapis"
    base_url = "https://toapis.com"
    task_path = "/v1/images/generations/{id}"


_: type[Adapter] = ToAPIs
