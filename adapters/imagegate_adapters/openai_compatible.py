"""Any relay or server that speaks OpenAI's Images API in its own accent, or a relay's task dialect."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from imagegate.adapter import (
    Authentication,
    ImageReply,
    ImageRequest,
    OpenAIAdapter,
    PendingTask,
    UpstreamReply,
    UpstreamRequest,
)
from imagegate.contract import ContractDocument, families
from imagegate.errors import ConfigError
from imagegate_adapters.dialects import midjourney

_REFERENCES: Final[dict[str, dict[str, Any]]] = {
    "files": {"forms": ["files"], "mask": True},
    "objects": {"forms": ["objects"], "mask": True, "file_ids": True},
    "both": {"forms": ["files", "objects"], "mask": True, "file_ids": True},
}


class RelayOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the relay does otherwise than OpenAI. Models with a contract in the configuration have their own rules."""

    version_path: str = "/v1"
    """Before ``/images/...``; empty: none. A ``base_url`` with a version in it takes its place."""
    sizes: str = ""
    """A family whose size rule the relay keeps to: ``gpt-image-1``, ``flux-2``; empty: sizes pass as they are."""
    references: Literal["files", "objects", "both", "links", "none"] = "both"
    """A form, OpenAI's JSON, either, links in `reference_field`, or no edits at all."""
    reference_field: str = "image_urls"
    """The member for ``links``; they go to ``/images/generations``."""
    mask_field: str = ""
    """The member for a mask's link; empty: no masks with ``links``."""
    most_images: int = 10
    """In ``n``; more are several requests."""
    tasks: Literal["openai", "new-api", "midjourney"] = "openai"
    """``new-api``: every request becomes a task, asked for below the path that made it; ``midjourney``: the dialect of
    Midjourney proxies; else whatever the relay answers."""
    task_path: str = ""
    """Where tasks are asked for when the relay does not say: ``/v1/tasks/{id}``."""
    key_header: str = "authorization"
    key_scheme: str = "Bearer"


class OpenAICompatible(OpenAIAdapter):
    """The dialects of relays, as many of them document it."""

    name = "openai-compatible"
    base_url = ""
    options_type = RelayOptions
    options: RelayOptions

    def __init__(self, options: RelayOptions | None = None) -> None:
        super().__init__(options)
        own = self.options
        self.paths = {name: path.replace("/v1", own.version_path, 1) for name, path in OpenAIAdapter.paths.items()}
        self.authentication = Authentication(header=own.key_header.lower(), scheme=own.key_scheme)
        self.always_tasks = own.tasks != "openai"
        if own.tasks == "new-api":
            self.task_path = f"{self.paths['generations']}/{{id}}"
        elif own.tasks == "midjourney":
            self.task_path = midjourney.TASK_PATH
        self.task_path = own.task_path or self.task_path

    def check(self) -> None:
        if self.options.sizes and "size" not in families().get(self.options.sizes, {}):
            known = ", ".join(name for name, table in families().items() if "size" in table)
            raise ConfigError(f"options.sizes: there is no family {self.options.sizes!r} with sizes. Known: {known}.")
        if self.options.task_path and "{id}" not in self.options.task_path:
            raise ConfigError("options.task_path: has no {id}")
        if not 1 <= self.options.most_images <= 10_000:
            raise ConfigError("options.most_images: must be from 1 to 10000")

    def contracts(self) -> ContractDocument:
        """Return one contract for every model that the configuration does not name; other members pass as they are."""
        document, own = super().contracts(), self.options
        if own.tasks == "midjourney":
            return document
        table: dict[str, Any] = {
            "unknown": "pass",
            "parameters": {"prompt": {}, "n": {"type": "integer", "min": 1, "max": own.most_images}},
        }
        if own.sizes:
            table["size"] = families()[own.sizes]["size"]
        if own.references == "links":
            rule = {"forms": ["links"], "fields": [own.reference_field]}
            table["edits"] = {"references": {**rule, "mask_field": own.mask_field or None}, "endpoint": "generations"}
        elif own.references != "none":
            table["edits"] = {"references": _REFERENCES[own.references]}
        return msgspec.structs.replace(document, models={"*": table})

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        return midjourney.encode(request) if self.options.tasks == "midjourney" else super().encode(request)

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        return midjourney.accepted(reply) if self.options.tasks == "midjourney" else super().decode(reply, now=now)

    def decode_task(self, task: PendingTask, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        if self.options.tasks == "midjourney":
            return midjourney.result(task, reply, now=now)
        return super().decode_task(task, reply, now=now)
