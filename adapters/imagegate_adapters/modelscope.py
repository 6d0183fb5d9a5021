"""ModelScope API-Inference: every request is a task, which a header asks for and another one asks about."""

from __future__ import annotations

import msgspec

from imagegate.adapter import Adapter, ImageRequest, PendingTask, UpstreamRequest, native_body


class ModelScope(Adapter):
    """modelscope.cn, "API-Inference": image generation."""

    name = "modelscope"
    base_url = "https://api-inference.modelscope.cn"
    always_tasks = True

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        return UpstreamRequest(
            method="POST",
            path="/v1/images/generations",
            headers=(("x-modelscope-async-mode", "true"),),
            document={"model": request.model, **native_body(request)},
        )

    def poll(self, task: PendingTask) -> UpstreamRequest:
        own = (("x-modelscope-task-type", "image_generation"),)
        return msgspec.structs.replace(super().poll(task), headers=own)
