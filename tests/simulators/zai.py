"""Z.ai: OpenAI's shapes at once, and tasks for glm-image.

Sources: docs.z.ai, "Generate Image", "Generate Image (Async)", "Errors"; huggingface_hub, _providers/zai_org.py.
"""

from __future__ import annotations

import time
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from tests.simulators.base import TextDialect, refuse
from tests.simulators.strict_json import (
    BLOCKED_WORD,
    FAILING_WORD,
    HIDDEN_WORD,
    LIMITED_WORD,
    HostedSimulator,
    check_members,
    pixels,
)

from imagegate.demo.providers.common import RefusedError
from imagegate.demo.providers.incoming import Incoming

_MODELS: Final = ("glm-image", "cogview-4", "cogview-4-250304", "cogview-3-flash")


def _failure(status: int, code: str, message: str) -> RefusedError:
    return refuse(status, error={"code": code, "message": message})


def _invalid(name: str, reason: str) -> RefusedError:
    return _failure(400, "1210", f"Incorrect API call parameters. {name} {reason}")


class _Dialect(TextDialect):
    """``{error: {code, message}}``, the code a number in a string."""

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        return _failure(401, "1000", "Authentication Failed")

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return refuse(status, status=status, error="Not Found", path=incoming.path)


def create_app() -> Starlette:
    """The stand-in for https://api.z.ai."""
    return _Zai().app


class _Zai(HostedSimulator):
    def __init__(self) -> None:
        root = "/api/paas/v4"
        super().__init__(
            {
                ("POST", f"{root}/images/generations"): self._at_once,
                ("POST", f"{root}/async/images/generations"): self._submit,
                ("GET", f"{root}/async-result/{{id}}"): self._result,
            },
            _Dialect(),
        )

    def _checked(self, incoming: Incoming) -> tuple[str, tuple[int, int]]:
        fields: dict[str, Any] = incoming.fields or {}
        is_glm = fields.get("model") == "glm-image"
        known = {
            "model": _MODELS,
            "prompt": str,
            "quality": ("hd",) if is_glm else ("hd", "standard"),
            "size": lambda value: _is_size(value, is_glm),
            "user_id": lambda value: isinstance(value, str) and 6 <= len(value) <= 128,
            "watermark_enabled": bool,
        }
        check_members(fields, known, _invalid, required=["model", "prompt"])
        prompt = fields["prompt"]
        if LIMITED_WORD in prompt:
            raise _failure(429, "1302", "High concurrency usage of this API, please reduce concurrency.")
        if BLOCKED_WORD in prompt:
            raise _failure(400, "1301", "The input or the output may contain unsafe material.")
        if HIDDEN_WORD in prompt:
            raise _failure(200, "1234", "Network error, please contact customer service.")
        size = pixels(fields.get("size", "1280x1280" if is_glm else "1024x1024"))
        if size is None:
            raise AssertionError("it was checked")
        return prompt, size

    async def _at_once(self, incoming: Incoming) -> Response:
        prompt, size = self._checked(incoming)
        if FAILING_WORD in prompt:
            raise _failure(500, "1230", "API call process error.")
        data = [{"url": self.link(incoming, *size, prompt)}]
        return JSONResponse(
            {"created": int(time.time()), "data": data, "content_filter": [{"role": "user", "level": 3}]}
        )

    async def _submit(self, incoming: Incoming) -> Response:
        prompt, size = self._checked(incoming)
        if (incoming.fields or {}).get("model") != "glm-image":
            raise _invalid("model", "is not supported by this interface")
        if FAILING_WORD in prompt:
            end: dict[str, Any] = {"task_status": "FAIL"}
        else:
            end = {"task_status": "SUCCESS", "image_result": [{"url": self.link(incoming, *size, prompt)}]}
        id_ = self.begin(prompt, ["PROCESSING"], end)
        shown = {"id": id_, "request_id": incoming.request_id, "model": "glm-image", "task_status": "PROCESSING"}
        return JSONResponse(shown)

    async def _result(self, incoming: Incoming) -> Response:
        id_ = incoming.path_params["id"]
        task = self.tasks.get(id_)
        if task is None:
            raise _failure(400, "1222", "The task does not exist.")
        if task.failures:
            task.failures -= 1
            raise _failure(500, "500", "Internal Error")
        shown = {"id": id_, "request_id": incoming.request_id, "model": "glm-image"}
        return JSONResponse({**shown, "task_status": task.states.pop(0)} if task.states else {**shown, **task.document})


def _is_size(value: Any, is_glm: bool) -> bool:
    size = pixels(value)
    low, step, most = (1024, 32, 2**22) if is_glm else (512, 16, 2**21)
    if size is None:
        return False
    return all(low <= edge <= 2048 and edge % step == 0 for edge in size) and size[0] * size[1] <= most
