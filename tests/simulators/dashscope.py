"""DashScope: two protocols, at once or as tasks, and failures in replies with status 200.

Sources: Alibaba Cloud Model Studio, Qwen-Image API (2026-10-12), Wan 2.7 (2026-11-20), Wan text-to-image V2
(2026-10-27); dashscope 2.0.2 for paths and headers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from tests.simulators.base import TextDialect, refuse
from tests.simulators.strict_json import (
    BLOCKED_WORD,
    FAILING_WORD,
    HIDDEN_WORD,
    LIMITED_WORD,
    Check,
    HostedSimulator,
    at_most,
    between,
    check_members,
    pixels,
)

from imagegate.demo.providers.common import RefusedError
from imagegate.demo.providers.incoming import Incoming

SPLIT_WORD: Final = "halved"
"""Of the pictures of such a prompt the last one is withheld."""
FAILURES: Final[Mapping[str, str]] = {
    "unfit": "InvalidParameter",
    "penniless": "Arrearage",
    "hurried": "Throttling.RateQuota",
}
"""Words of prompts, each with the code with which the task fails."""
_ROOT: Final = "/api/v1"
_COMMON: Final[Mapping[str, Check]] = {"seed": between(0, 2**31 - 1), "watermark": bool}
_QWEN: Final[Mapping[str, Check]] = {**_COMMON, "negative_prompt": at_most(500), "prompt_extend": bool}


def _within(fewest: int, most: int, ratio: float, words: Sequence[str] = ()) -> Check:
    def check(value: Any) -> bool:
        size = pixels(value, "*")
        if size is None:
            return value in words
        return fewest <= size[0] * size[1] <= most and max(size) <= ratio * min(size)

    return check


def _edges(low: int, high: int) -> Check:
    return lambda value: (size := pixels(value, "*")) is not None and low <= min(size) and max(size) <= high


_FIXED: Final = ("1664*928", "1472*1104", "1328*1328", "1104*1472", "928*1664")
_AT_ONCE: Final[Mapping[str, Mapping[str, Check]]] = {
    "qwen-image": {**_QWEN, "size": _FIXED, "n": (1,)},
    "qwen-image-2.0": {**_QWEN, "size": _within(262144, 4194304, 8), "n": between(1, 6)},
    "qwen-image-edit": {**_QWEN, "n": (1,)},
    "qwen-image-edit-plus": {**_QWEN, "size": _edges(512, 2048), "n": between(1, 6)},
}
_EDITORS: Final = ("qwen-image-edit", "qwen-image-edit-plus")
_WAN: Final[Mapping[str, Mapping[str, Check]]] = {
    "wan2.7-image": {
        **_COMMON,
        "size": _within(589824, 4194304, 8, ("1K", "2K")),
        "n": between(1, 4),
        "thinking_mode": bool,
    },
    "wan2.6-t2i": {**_QWEN, "size": _within(1638400, 2073600, 4), "n": between(1, 4)},
}
_OLDER: Final[Mapping[str, Mapping[str, Check]]] = {
    "wan2.2-t2i-plus": {**_COMMON, "prompt_extend": bool, "size": _edges(512, 1440), "n": between(1, 4)},
}
_TIERS: Final = {"1K": (1024, 1024), "2K": (2048, 2048)}


class _Dialect(TextDialect):
    """``{code, message, request_id}``."""

    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        return _failure("InvalidApiKey", "Invalid API-key provided.", 401)

    def no_route(self, incoming: Incoming, status: int) -> RefusedError:
        """See `frame.Dialect`."""
        return _failure("InvalidURL", "url error, please check url!", 400)


def _failure(code: str, message: str, status: int = 400) -> RefusedError:
    return refuse(status, code=code, message=message, request_id="r")


def _invalid(name: str, reason: str) -> RefusedError:
    return _failure("InvalidParameter", f"{name} {reason}")


def create_app() -> Starlette:
    """The stand-in for https://dashscope-intl.aliyuncs.com."""
    return _DashScope().app


class _DashScope(HostedSimulator):
    def __init__(self) -> None:
        aigc = f"{_ROOT}/services/aigc"
        super().__init__(
            {
                ("POST", f"{aigc}/multimodal-generation/generation"): self._at_once,
                ("POST", f"{aigc}/image-generation/generation"): self._newer,
                ("POST", f"{aigc}/text2image/image-synthesis"): self._older,
                ("GET", f"{_ROOT}/tasks/{{id}}"): self._ask,
            },
            _Dialect(),
        )

    async def _at_once(self, incoming: Incoming) -> Response:
        if "x-dashscope-async" in incoming.headers:
            raise _failure("AccessDenied", "current user api does not support asynchronous calls.", 403)
        prompt, made = self._order(incoming, _AT_ONCE, _read_messages)
        if HIDDEN_WORD in prompt:
            return JSONResponse(
                {"code": "Throttling.RateQuota", "message": "Requests are throttled.", "request_id": "r"}
            )
        if FAILING_WORD in prompt:
            raise _failure("InternalError", "An internal error has occurred.", 500)
        message = {"role": "assistant", "content": [{"image": link} for link in made]}
        output = {"choices": [{"finish_reason": "stop", "message": message}]}
        usage = {"width": 1024, "height": 1024, "image_count": len(made)}
        return JSONResponse({"output": output, "usage": usage, "request_id": "r"})

    async def _newer(self, incoming: Incoming) -> Response:
        self._require_task(incoming)
        prompt, made = self._order(incoming, _WAN, _read_messages)
        choices = [
            {"finish_reason": "stop", "message": {"role": "assistant", "content": [{"type": "image", "image": link}]}}
            for link in made
        ]
        return self._begun(prompt, {"choices": choices, "finished": True})

    async def _older(self, incoming: Incoming) -> Response:
        self._require_task(incoming)
        prompt, made = self._order(incoming, _OLDER, _read_prompt)
        results: list[dict[str, Any]] = [{"url": link, "orig_prompt": prompt} for link in made]
        if SPLIT_WORD in prompt:
            results[-1] = {"code": "DataInspectionFailed", "message": "Output data may contain inappropriate content."}
        return self._begun(prompt, {"results": results})

    @staticmethod
    def _require_task(incoming: Incoming) -> None:
        if incoming.headers.get("x-dashscope-async") != "enable":
            raise _failure("AccessDenied", "current user api does not support synchronous calls.", 403)

    def _order(self, incoming: Incoming, models: Mapping[str, Mapping[str, Check]], read: Any) -> tuple[str, list[str]]:
        fields: dict[str, Any] = incoming.fields or {}
        known = {"model": str, "input": dict, "parameters": dict}
        check_members(fields, known, _invalid, required=["model", "input"])
        own = models.get(fields["model"])
        if own is None:
            raise _failure("InvalidParameter", "Model not exist.")
        parameters = fields.get("parameters", {})
        check_members(parameters, own, _invalid)
        prompt, images = read(fields["input"])
        if (fields["model"] in _EDITORS) and not images:
            raise _invalid("input.messages", "must have an image")
        self.read_references(images, _invalid, "input.messages")
        if LIMITED_WORD in prompt:
            raise _failure("Throttling.RateQuota", "Requests rate limit exceeded, please try again later.", 429)
        if BLOCKED_WORD in prompt and models is _AT_ONCE:
            raise _failure("DataInspectionFailed", "Input data may contain inappropriate content.")
        size = str(parameters.get("size", "1K"))
        width, height = pixels(size, "*") or _TIERS[size]
        count = parameters.get("n", 1 if models is _AT_ONCE else 4)
        return prompt, [self.link(incoming, width, height, prompt) for _ in range(count)]

    def _begun(self, prompt: str, output: dict[str, Any]) -> Response:
        end: dict[str, Any] = {"task_status": "SUCCEEDED", **output}
        if BLOCKED_WORD in prompt:
            message = "Input data may contain inappropriate content."
            end = {"task_status": "FAILED", "code": "DataInspectionFailed", "message": message}
        elif found := next((code for word, code in FAILURES.items() if word in prompt), None):
            end = {"task_status": "FAILED", "code": found, "message": "The task has failed."}
        elif FAILING_WORD in prompt:
            end = {"task_status": "FAILED", "code": "InternalError", "message": "The model could not make it."}
        id_ = self.begin(prompt, ["PENDING", "RUNNING"], end)
        return JSONResponse({"output": {"task_status": "PENDING", "task_id": id_}, "request_id": "r"})

    async def _ask(self, incoming: Incoming) -> Response:
        id_ = incoming.path_params["id"]
        task = self.tasks.get(id_)
        if task is None:
            return JSONResponse({"output": {"task_id": id_, "task_status": "UNKNOWN"}, "request_id": "r"})
        if task.failures:
            task.failures -= 1
            if not task.failures:
                raise _failure("Throttling.RateQuota", "Requests are throttled.", 200)
            raise _failure("InternalError", "Internal error.", 500)
        output = {"task_status": task.states.pop(0)} if task.states else task.document
        return JSONResponse({"output": {"task_id": id_, **output}, "request_id": "r"})


def _read_messages(asked: Any) -> tuple[str, list[Any]]:
    """Images before the one text, in the one message of a user."""
    check_members(asked, {"messages": list}, _invalid, required=["messages"])
    if len(asked["messages"]) != 1:
        raise _invalid("input.messages", "must have one message")
    message = asked["messages"][0]
    check_members(message, {"role": ("user",), "content": list}, _invalid, required=["role", "content"])
    *images, text = message["content"]
    for part in images:
        check_members(part, {"image": str}, _invalid, required=["image"])
    check_members(text, {"text": str}, _invalid, required=["text"])
    return text["text"], [part["image"] for part in images]


def _read_prompt(asked: Any) -> tuple[str, list[Any]]:
    check_members(asked, {"prompt": str, "negative_prompt": at_most(500)}, _invalid, required=["prompt"])
    return asked["prompt"], []
