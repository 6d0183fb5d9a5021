"""The server of stable-diffusion.cpp: OpenAI's paths, or its own queue of jobs, which says how they get on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from imagegate.adapter import (
    Adapter,
    ImageReply,
    ImageRequest,
    PendingTask,
    UpstreamReply,
    UpstreamRequest,
    inline,
    pixels,
)
from imagegate.contract import ContractDocument
from imagegate.replies import read_reply
from imagegate_adapters.dialects.local_server import LocalServer

_SHARED: Final = ("output_format", "output_compression")


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of an upstream."""

    api: Literal["openai", "jobs"] = "openai"
    """``jobs``: requests are queued, and their jobs asked for (``/sdcpp/v1``); the server must be of 2026 or later."""


class StableDiffusionCpp(LocalServer):
    """stable-diffusion.cpp, examples/server/api.md."""

    name = "stable-diffusion-cpp"
    options_type = Options
    options: Options
    task_path = "/sdcpp/v1/jobs/{id}"

    def contracts(self) -> ContractDocument:
        """Give jobs the server's own size where they say none; OpenAI's path takes that of the first image."""
        document = super().contracts()
        if self.options.api != "jobs":
            return document
        contract = document.models["*"]
        references = {**contract["edits"]["references"], "image_size": True}
        own = {**contract, "edits": {**contract["edits"], "references": references}}
        return msgspec.structs.replace(document, models={"*": own})

    def expects_task(self, request: ImageRequest) -> bool:
        return self.options.api == "jobs"

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        if self.options.api == "jobs":
            return UpstreamRequest(method="POST", path="/sdcpp/v1/img_gen", document=_job(request))
        fields = {name: request.fields[name] for name in ("n", "size", *_SHARED) if name in request.fields}
        extra = msgspec.json.encode(_parameters(request.fields)).decode()
        prompt = f"{request.fields['prompt']}<sd_cpp_extra_args>{extra}</sd_cpp_extra_args>"
        return super().encode(request.with_fields({"prompt": prompt, **fields}))

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        """Read a reply; jobs are asked for under `task_path`, so that a path in front of the server stays."""
        result = read_reply(reply, now=now)
        return msgspec.structs.replace(result, poll_url=None) if isinstance(result, PendingTask) else result

    def cancel(self, task: PendingTask) -> UpstreamRequest:
        """Return the request that takes a job out of the queue; one that is being made goes on (409)."""
        return UpstreamRequest(method="POST", path=f"{self.poll(task).path}/cancel")


def _parameters(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what only the server's own schema has: beside OpenAI's members it is appended to the prompt."""
    found = {name: fields[name] for name in ("seed", "negative_prompt", "strength", "clip_skip") if name in fields}
    sample: dict[str, Any] = {}
    if "steps" in fields:
        sample["sample_steps"] = fields["steps"]
    if "guidance_scale" in fields:
        sample["guidance"] = {"txt_cfg": fields["guidance_scale"]}
    return {**found, "sample_params": sample} if sample else found


def _job(request: ImageRequest) -> dict[str, Any]:
    fields = request.fields
    size = pixels(fields.get("size"))
    document = {"prompt": fields["prompt"], "batch_count": request.n, **_parameters(fields), **size}
    document |= {name: fields[name] for name in _SHARED if name in fields}
    if request.images:
        images = [inline(image) for image in request.images]
        document |= {"init_image": images[0], "ref_images": images}
    if request.mask is not None:
        document["mask_image"] = inline(request.mask)
    return document


_: type[Adapter] = StableDiffusionCpp
