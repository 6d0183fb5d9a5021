"""ModelScope API-Inference: tasks that a header asks for and another one asks about.

Sources: ModelScope, "API-Inference", image generation (copies of 2025-10 to 2026-07); modelscope-img-test.py of
ZhuBaiwan-oOZZXX/modelscope-image2openai; a measurement of 2026-09-25: what a submission is answered with.
"""

from __future__ import annotations

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
    at_most,
    between,
    check_members,
    pixels,
)

from imagegate.demo.providers.common import RefusedError
from imagegate.demo.providers.incoming import Incoming

_LARGEST: Final = {
    "black-forest-labs/FLUX.1-dev": 1024,
    "Qwen/Qwen-Image": 1664,
    "Qwen/Qwen-Image-Edit": 1664,
    "stabilityai/stable-diffusion-xl-base-1.0": 2048,
}
"""The longest edge of each model's pictures."""
_EDITING: Final = "Qwen/Qwen-Image-Edit"


def _failure(status: int, message: str) -> RefusedError:
    return refuse(status, errors={"message": message}, request_id="r")


def _invalid(name: str, reason: str) -> RefusedError:
    return _failure(400, f"Invalid parameter: {name} {reason}")


class _Dialect(TextDialect):
    """``{errors: {message}, request_id}``."""

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        return _failure(401, "Authentication failed, please make sure that a valid ModelScope token is supplied.")

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return _failure(status, "Not Found")


def create_app() -> Starlette:
    """The stand-in for https://api-inference.modelscope.cn."""
    return _ModelScope().app


class _ModelScope(HostedSimulator):
    def __init__(self) -> None:
        super().__init__(
            {("POST", "/v1/images/generations"): self._submit, ("GET", "/v1/tasks/{id}"): self._ask}, _Dialect()
        )

    async def _submit(self, incoming: Incoming) -> Response:
        fields: dict[str, Any] = incoming.fields or {}
        if incoming.headers.get("x-modelscope-async-mode") != "true":
            raise _failure(400, "This model supports asynchronous calls only.")
        model = str(fields.get("model"))
        if model not in _LARGEST:
            raise _failure(400, f"Has no provider supported for model {model}.")
        known = {
            "model": str,
            "prompt": at_most(1999),
            "negative_prompt": at_most(1999),
            "size": lambda value: (size := pixels(value)) and min(size) >= 64 and max(size) <= _LARGEST[model],
            "seed": between(0, 2**31 - 1),
            "steps": between(1, 100),
            "guidance": between(1.5, 20, (int, float)),
            "loras": lambda value: isinstance(value, str | dict),
            **({"image_url": _is_public} if model == _EDITING else {}),
        }
        required = ["prompt", *(["image_url"] if model == _EDITING else [])]
        check_members(fields, known, _invalid, required=required)
        prompt = fields["prompt"]
        if LIMITED_WORD in prompt:
            raise _failure(429, "You have exceeded your request quota for the day.")
        if BLOCKED_WORD in prompt:
            raise _failure(400, "The prompt contains sensitive content.")
        if HIDDEN_WORD in prompt:
            return JSONResponse({"errors": {"message": "No capacity."}, "request_id": "r"})
        if model == _EDITING:
            self.read_references([fields["image_url"]], _invalid, "image_url")
        width, height = pixels(fields.get("size", "1024x1024")) or (0, 0)
        if FAILING_WORD in prompt:
            end: dict[str, Any] = {"task_status": "FAILED", "errors": {"message": "Out of memory."}}
        else:
            end = {"task_status": "SUCCEED", "output_images": [self.link(incoming, width, height, prompt)]}
        id_ = self.begin(prompt, ["PENDING", "PROCESSING"], end)
        # As measured on 2026-09-25: what succeeded is that the task was taken. Copies of the page have the id alone.
        accepted = {"task_status": "SUCCEED"} if len(self.tasks) % 2 else {}
        return JSONResponse({**accepted, "task_id": id_, "request_id": "r"})

    async def _ask(self, incoming: Incoming) -> Response:
        if incoming.headers.get("x-modelscope-task-type") != "image_generation":
            raise _failure(400, "The type of the task is not known.")
        id_ = incoming.path_params["id"]
        task = self.tasks.get(id_)
        if task is None:
            raise _failure(404, "The task does not exist.")
        if task.failures:
            task.failures -= 1
            raise _failure(503, "The service is not available.")
        shown = {"task_id": id_, "request_id": "r"}
        return JSONResponse({**shown, "task_status": task.states.pop(0)} if task.states else {**shown, **task.document})


def _is_public(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("https://", "http://"))
