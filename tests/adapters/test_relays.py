"""OpenRouter, Seedream, DashScope, SiliconFlow, ModelScope and Z.ai: what goes out, and what their replies mean."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from tests.adapters.test_goldens import BEARER, JSON, MASK, ONE, TWO, b64, headers

from imagegate.adapter import Link, PendingTask
from imagegate.contract import load_contracts
from imagegate.errors import RequestError
from imagegate.protocol.base_urls import request_url
from imagegate.registry import load_adapter
from imagegate.testing import AdapterContract, Fixture, outbound, png

B64 = base64.b64encode(png()).decode()
LINK = Link("https://a.example/1.png")
DATA_ONE, DATA_TWO = (f"data:image/png;base64,{b64(file)}" for file in (ONE, TWO))
TASK = PendingTask(id="t")
EDIT: dict[str, Any] = {"operation": "edits", "prompt": "A hat"}


def refused(adapter: str, model: str, param: str, **asked: Any) -> None:
    with pytest.raises(RequestError) as caught:
        outbound(load_adapter(adapter), model, prompt="A hat", **asked)
    assert caught.value.param == param


# SiliconFlow

SILICONFLOW = "https://api.siliconflow.cn/v1/images/generations"
KOLORS, QWEN_EDIT = "Kwai-Kolors/Kolors", "Qwen/Qwen-Image-Edit-2509"


@pytest.mark.parametrize(
    ("model", "asked", "body"),
    [
        (KOLORS, {}, {"image_size": "1024x1024"}),
        (KOLORS, {"size": "auto", "n": 4}, {"image_size": "1024x1024", "batch_size": 4}),
        (
            KOLORS,
            {"size": "768x1024", "guidance_scale": 7.5, "steps": 30},
            {"image_size": "768x1024", "guidance_scale": 7.5, "num_inference_steps": 30},
        ),
        ("Qwen/Qwen-Image", {"size": "1920x1080", "n": 1}, {"image_size": "1664x928"}),
        ("Qwen/Qwen-Image", {"guidance_scale": 4}, {"cfg": 4, "image_size": "1328x1328"}),
        ("Qwen/Qwen-Image", {"image_size": "1472x1140"}, {"image_size": "1472x1140"}),
    ],
)
def test_siliconflow(model, asked, body):
    """A size in any case, under its own name; several pictures by the one model that makes them."""
    seen = outbound(load_adapter("siliconflow"), model, prompt="A hat", **asked)
    assert (seen.method, seen.url, headers(seen)) == ("POST", SILICONFLOW, {**JSON, **BEARER})
    assert seen.json == {"model": model, "prompt": "A hat", **body}


def test_siliconflow_edits():
    """One member for each reference, and no size; no masks, and no generations by the models that edit."""
    adapter = load_adapter("siliconflow")
    seen = outbound(adapter, QWEN_EDIT, images=[ONE, TWO], size="1024x1024", **EDIT)
    assert (seen.method, seen.url, headers(seen)) == ("POST", SILICONFLOW, {**JSON, **BEARER})
    assert seen.json == {"model": QWEN_EDIT, "prompt": "A hat", "image": DATA_ONE, "image2": DATA_TWO}
    refused("siliconflow", QWEN_EDIT, "mask", operation="edits", images=[ONE], mask=MASK)
    refused("siliconflow", "Qwen/Qwen-Image-Edit", "image", operation="edits", images=[ONE, TWO])
    refused("siliconflow", QWEN_EDIT, "model")


class TestSiliconFlow(AdapterContract):
    adapter = load_adapter("siliconflow")
    fixtures = (
        Fixture(
            name="links",
            outcome="pictures",
            document={"images": [{"url": LINK.url}] * 2, "timings": {"inference": 1.2}, "seed": 7},
            count=2,
        ),
        Fixture(
            name="parameter",
            outcome="refused",
            status=400,
            document={"code": 20015, "message": "The parameter is invalid.", "data": None},
            code="20015",
            means=400,
        ),
        Fixture(name="key", outcome="refused", status=401, body=b'"Invalid token"', means=401),
        Fixture(
            name="rate",
            outcome="refused",
            status=429,
            document={"message": "RPM limit reached.", "data": None},
            means=429,
        ),
        Fixture(
            name="overloaded",
            outcome="refused",
            status=503,
            document={"code": 50505, "message": "Model service overloaded. Please try again later.", "data": None},
            means=503,
        ),
        Fixture(name="error in a 200", outcome="refused", document={"code": 50507, "message": "Unknown error."}),
        Fixture(name="no pictures", outcome="uncertain", document={"images": [], "seed": 7}),
    )


# Z.ai

ZAI = "https://api.z.ai/api/paas/v4"


@pytest.mark.parametrize(
    ("model", "asked", "path", "body"),
    [
        ("glm-image", {}, "/async/images/generations", {}),
        ("glm-image", {"size": "1024x1536", "n": 1}, "/async/images/generations", {"size": "1024x1536"}),
        ("glm-image", {"size": "3840x2160", "quality": "low"}, "/async/images/generations", None),
        (
            "cogview-4",
            {"size": "1792x1024", "quality": "medium"},
            "/images/generations",
            {"size": "1792x1024", "quality": "standard"},
        ),
        (
            "cogview-4",
            {"watermark": False, "user": "u", "user_id": "user-1"},
            "/images/generations",
            {"watermark_enabled": False, "user_id": "user-1"},
        ),
    ],
)
def test_zai(model, asked, path, body):
    """Tasks where there are tasks; sizes on the grid of the model."""
    seen = outbound(load_adapter("zai"), model, prompt="A hat", **asked)
    assert (seen.method, seen.url, headers(seen)) == ("POST", ZAI + path, {**JSON, **BEARER})
    assert seen.json == {
        "model": model,
        "prompt": "A hat",
        **({"size": "2048x1152", "quality": "hd"} if body is None else body),
    }


def test_zai_questions_and_refusals():
    """Results have a path of their own; nothing is edited."""
    adapter = load_adapter("zai")
    assert adapter.poll(TASK).path == "/v1/async-result/t"
    refused("zai", "glm-image", "model", operation="edits", images=[ONE])


class TestZai(AdapterContract):
    adapter = load_adapter("zai")
    fixtures = (
        Fixture(
            name="at once",
            outcome="pictures",
            document={"created": 1, "data": [{"url": LINK.url}], "content_filter": [{"role": "user", "level": 3}]},
        ),
        Fixture(
            name="taken",
            outcome="task",
            document={"id": "1-2", "request_id": "r", "model": "glm-image", "task_status": "PROCESSING"},
        ),
        Fixture(name="at work", outcome="task", document={"id": "t", "task_status": "PROCESSING"}, task=TASK),
        Fixture(name="a new word", outcome="task", document={"id": "t", "task_status": "QUEUED_AGAIN"}, task=TASK),
        Fixture(
            name="done",
            outcome="pictures",
            document={"id": "t", "task_status": "SUCCESS", "image_result": [{"url": LINK.url}]},
            task=TASK,
        ),
        Fixture(name="failed", outcome="ended", document={"id": "t", "task_status": "FAIL"}, task=TASK),
        Fixture(
            name="blocked",
            outcome="moderated",
            status=400,
            document={"error": {"code": "1301", "message": "Unsafe material."}},
            code="moderation_blocked",
        ),
        Fixture(
            name="key",
            outcome="refused",
            status=401,
            document={"error": {"code": "1000", "message": "Authentication Failed"}},
            means=401,
        ),
        Fixture(
            name="rate",
            outcome="refused",
            status=429,
            document={"error": {"code": "1302", "message": "High concurrency."}},
            means=429,
        ),
        Fixture(
            name="no such task",
            outcome="refused",
            status=400,
            document={"error": {"code": "1222", "message": "The task does not exist."}},
            task=TASK,
        ),
        Fixture(
            name="done, and nothing there",
            outcome="uncertain",
            document={"id": "t", "task_status": "SUCCESS"},
            task=TASK,
        ),
    )


# ModelScope

MODELSCOPE = "https://api-inference.modelscope.cn/v1/images/generations"
ASYNC = {"x-modelscope-async-mode": "true"}


@pytest.mark.parametrize(
    ("model", "asked", "body"),
    [
        ("black-forest-labs/FLUX.1-dev", {"size": "2048x2048"}, {"size": "1024x1024"}),
        ("Qwen/Qwen-Image", {"size": "16:9"}, {"size": "1360x768"}),
        (
            "stabilityai/sdxl",
            {"size": "2048x1024", "steps": 20, "guidance_scale": 5, "n": 1},
            {"size": "2048x1024", "steps": 20, "guidance": 5},
        ),
        ("anything/else", {"loras": {"a": 0.5}}, {"loras": {"a": 0.5}}),
    ],
)
def test_modelscope(model, asked, body):
    """A task by a header, and sizes within what the model is made from."""
    seen = outbound(load_adapter("modelscope"), model, prompt="A hat", **asked)
    assert (seen.method, seen.url, headers(seen)) == ("POST", MODELSCOPE, {**JSON, **BEARER, **ASYNC})
    assert seen.json == {"model": model, "prompt": "A hat", **body}


def test_modelscope_edits_and_questions():
    """One public link; the question says what kind of task it is about."""
    adapter = load_adapter("modelscope")
    seen = outbound(adapter, "Qwen/Qwen-Image-Edit", images=[LINK], **EDIT)
    assert seen.json == {"model": "Qwen/Qwen-Image-Edit", "prompt": "A hat", "image_url": LINK.url}
    refused("modelscope", "Qwen/Qwen-Image-Edit", "image", operation="edits", images=[ONE, TWO])
    refused("modelscope", "Qwen/Qwen-Image-Edit", "mask", operation="edits", images=[ONE], mask=MASK)
    asked = adapter.poll(TASK)
    assert (asked.path, asked.headers) == ("/v1/tasks/t", (("x-modelscope-task-type", "image_generation"),))


class TestModelScope(AdapterContract):
    adapter = load_adapter("modelscope")
    fixtures = (
        Fixture(name="taken", outcome="task", document={"task_id": "7"}),
        Fixture(name="waiting", outcome="task", document={"task_id": "t", "task_status": "PENDING"}, task=TASK),
        Fixture(name="at work", outcome="task", document={"task_id": "t", "task_status": "PROCESSING"}, task=TASK),
        Fixture(
            name="done",
            outcome="pictures",
            document={"task_id": "t", "task_status": "SUCCEED", "output_images": [LINK.url]},
            task=TASK,
        ),
        Fixture(
            name="failed",
            outcome="ended",
            document={"task_id": "t", "task_status": "FAILED", "errors": {"message": "Out of memory."}},
            task=TASK,
        ),
        Fixture(
            name="key",
            outcome="refused",
            status=401,
            document={"errors": {"message": "No."}, "request_id": "r"},
            means=401,
        ),
        Fixture(name="rate", outcome="refused", status=429, document={"errors": {"message": "Quota."}}, means=429),
        Fixture(name="error in a 200", outcome="refused", document={"errors": {"message": "No capacity."}}),
    )


# DashScope

DASHSCOPE = "https://dashscope-intl.aliyuncs.com/api/v1/services/aigc"
AT_ONCE, NEWER, OLDER = (
    f"{DASHSCOPE}/{path}"
    for path in ("multimodal-generation/generation", "image-generation/generation", "text2image/image-synthesis")
)
ENABLED = {"x-dashscope-async": "enable"}


def messages(*content: Any, **parameters: Any) -> dict[str, Any]:
    return {
        "input": {"messages": [{"role": "user", "content": [*content, {"text": "A hat"}]}]},
        "parameters": {"n": 1, **parameters},
    }


@pytest.mark.parametrize(
    ("model", "asked", "url", "body"),
    [
        ("qwen-image-plus", {"size": "1024x1024"}, AT_ONCE, messages(size="1328*1328")),
        ("qwen-image-2.0-pro", {"size": "2048x1152", "seed": 3}, AT_ONCE, messages(size="2048*1152", seed=3)),
        ("qwen-image-3.0", {"size": "auto", "watermark": True}, AT_ONCE, messages(watermark=True)),
        ("wan2.7-image", {"size": "2K", "n": 3}, NEWER, messages(size="2K", n=3)),
        ("wan2.7-image-pro", {"size": "4096x4096"}, NEWER, messages(size="4096*4096")),
        (
            "wan2.6-t2i",
            {"size": "1024x1024", "negative_prompt": "x"},
            NEWER,
            messages(size="1280*1280", negative_prompt="x"),
        ),
        (
            "wan2.2-t2i-flash",
            {"size": "2048x2048", "negative_prompt": "x", "prompt_extend": False},
            OLDER,
            {
                "input": {"prompt": "A hat", "negative_prompt": "x"},
                "parameters": {"n": 1, "size": "1440*1440", "prompt_extend": False},
            },
        ),
    ],
)
def test_dashscope(model, asked, url, body):
    """Two protocols, sizes with a star, `n` in any case, and the header of tasks where there is a task."""
    seen = outbound(load_adapter("dashscope"), model, prompt="A hat", **asked)
    own = {} if url == AT_ONCE else ENABLED
    assert (seen.method, seen.url, headers(seen)) == ("POST", url, {**JSON, **BEARER, **own})
    assert seen.json == {"model": model, **body}


def test_dashscope_edits():
    """References before the prompt, as data URLs or links; 4K for text alone."""
    adapter = load_adapter("dashscope")
    seen = outbound(adapter, "qwen-image-edit-max", images=[ONE, TWO], size="4096x4096", **EDIT)
    assert (seen.url, headers(seen)) == (AT_ONCE, {**JSON, **BEARER})
    pictures = ({"image": DATA_ONE}, {"image": DATA_TWO})
    assert seen.json == {"model": "qwen-image-edit-max", **messages(*pictures, size="2048*2048")}
    seen = outbound(adapter, "wan2.7-image-pro", images=[LINK], size="4K", **EDIT)
    assert seen.json["input"]["messages"][0]["content"][0]["image"] == LINK.url
    assert seen.json["parameters"] == {"n": 1, "size": "2K"}
    for model, param, asked in (
        ("qwen-image-edit", "model", {}),
        ("qwen-image", "model", {"operation": "edits", "images": [ONE]}),
        ("qwen-image-2.0", "mask", {"operation": "edits", "images": [ONE], "mask": MASK}),
        ("qwen-image-2.0", "image", {"operation": "edits", "images": [ONE] * 4}),
    ):
        refused("dashscope", model, param, **asked)


def test_sizes_below_dashscopes_step_cost_less() -> None:
    """What 1K becomes in every usual ratio; nothing above the step does."""
    adapter = load_adapter("dashscope")
    price = adapter.prices().models["qwen-image-3.0-pro*"]
    (lower,) = price.variants
    for size in lower.when["parameters.size"]:
        width, height = map(int, str(size).split("*"))
        assert 512 * 512 <= width * height <= 1024 * 1024
    for ratio in ("1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3", "5:4", "4:5", "2:1", "1:2", "4:1", "1:4", "21:9"):
        body = outbound(adapter, "qwen-image-3.0-pro", prompt="A hat", aspect_ratio=ratio, resolution="1K").json
        width, height = map(int, body["parameters"]["size"].split("*"))
        assert price.cost(1, None, body) == (0.04 if width * height <= 1024 * 1024 else 0.075), ratio
    for size in ("auto", "2048x2048", "1328x1328"):
        assert price.cost(1, None, outbound(adapter, "qwen-image-3.0-pro", prompt="A hat", size=size).json) == 0.075


def choices(*links: str) -> dict[str, Any]:
    return {
        "choices": [
            {"finish_reason": "stop", "message": {"role": "assistant", "content": [{"image": link}]}} for link in links
        ]
    }


INSPECTION = "InvalidParameter.DataInspection"
NOT_LOADED = "Unable to download the media resource during the data inspection process."


def failed(code: str, message: str = "No.") -> dict[str, Any]:
    return {"output": {"task_id": "t", "task_status": "FAILED", "code": code, "message": message}, "request_id": "r"}


class TestDashScope(AdapterContract):
    adapter = load_adapter("dashscope")
    fixtures = (
        *(
            Fixture(
                name=f"a wrong size, beside an output of {output}",
                outcome="refused",
                document={"code": "InvalidParameter", "message": "bad size", "output": output, "request_id": "r"},
                means=400,
            )
            for output in (None, {})
        ),
        Fixture(
            name="suspected of infringement",
            outcome="moderated",
            document={"output": {"task_id": "t", "task_status": "FAILED", "code": "IPInfringementSuspect"}},
            task=TASK,
        ),
        Fixture(
            name="at once",
            outcome="pictures",
            document={"output": choices(LINK.url), "usage": {"image_count": 1}, "request_id": "r"},
        ),
        Fixture(
            name="several in one message",
            outcome="pictures",
            document={
                "output": {"choices": [{"message": {"content": [{"image": LINK.url}, {"image": f"{LINK.url}?2"}]}}]},
                "request_id": "r",
            },
            count=2,
        ),
        Fixture(
            name="taken",
            outcome="task",
            document={"output": {"task_status": "PENDING", "task_id": "t"}, "request_id": "r"},
        ),
        *(
            Fixture(name=word, outcome="task", document={"output": {"task_id": "t", "task_status": word}}, task=TASK)
            for word in ("PENDING", "RUNNING", "SUSPENDED")
        ),
        Fixture(
            name="done, by the newer protocol",
            outcome="pictures",
            document={"output": {"task_id": "t", "task_status": "SUCCEEDED", **choices(LINK.url, LINK.url)}},
            task=TASK,
            count=2,
        ),
        Fixture(
            name="done, by the older one",
            outcome="pictures",
            document={"output": {"task_id": "t", "task_status": "SUCCEEDED", "results": [{"url": LINK.url}]}},
            task=TASK,
        ),
        Fixture(
            name="done but for one",
            outcome="ended",
            document={
                "output": {
                    "task_id": "t",
                    "task_status": "SUCCEEDED",
                    "results": [{"url": LINK.url}, {"code": "DataInspectionFailed", "message": "It was withheld."}],
                }
            },
            task=TASK,
        ),
        Fixture(
            name="blocked at the end",
            outcome="moderated",
            document={
                "output": {"task_id": "t", "task_status": "FAILED", "code": "DataInspectionFailed", "message": "No."},
                "request_id": "r",
            },
            task=TASK,
        ),
        Fixture(
            name="failed",
            outcome="ended",
            document={"output": {"task_id": "t", "task_status": "FAILED", "code": "InternalError", "message": "x"}},
            task=TASK,
        ),
        Fixture(
            name="cancelled",
            outcome="ended",
            document={"output": {"task_id": "t", "task_status": "CANCELED"}},
            task=TASK,
        ),
        Fixture(
            name="not known any more",
            outcome="refused",
            document={"output": {"task_id": "t", "task_status": "UNKNOWN"}, "request_id": "r"},
            task=TASK,
            code="task_not_found",
        ),
        Fixture(
            name="blocked",
            outcome="moderated",
            status=400,
            document={"code": "DataInspectionFailed", "message": "Input data may be inappropriate.", "request_id": "r"},
        ),
        *(
            Fixture(
                name=f"{code} in a 200",
                outcome="refused",
                document={"code": code, "message": "No.", "request_id": "r"},
                code=code,
                means=means,
            )
            for code, means in (
                ("InvalidParameter", 400),
                ("InvalidApiKey", 401),
                ("Arrearage", 402),
                ("AccessDenied.Unpurchased", 403),
                ("ModelNotFound", 404),
                ("Throttling.RateQuota", 429),
            )
        ),
        Fixture(
            name="a code whose second part is known",
            outcome="refused",
            document={"code": "BadRequest.InvalidParameter", "message": "No.", "request_id": "r"},
            means=400,
        ),
        *(
            Fixture(name=f"{code} of a task", outcome="ended", document=failed(code), code=code, means=means, task=TASK)
            for code, means in (
                ("InvalidParameter", 400),
                ("BadRequest.InvalidURL", 400),
                ("Arrearage", 402),
                ("AccessDenied.Unpurchased", 403),
                ("Throttling.RateQuota", 429),
                ("InternalError.Algo", 502),
            )
        ),
        *(
            Fixture(
                name=f"a reference that is not loaded, {status}",
                outcome="refused" if task is None else "ended",
                status=status,
                document=document,
                code="InvalidParameter",
                means=400,
                task=task,
            )
            for status, document, task in (
                (400, {"code": INSPECTION, "message": NOT_LOADED, "request_id": "r"}, None),
                (200, {"code": INSPECTION, "message": NOT_LOADED, "request_id": "r"}, None),
                (200, failed(INSPECTION, NOT_LOADED), TASK),
            )
        ),
        *(
            Fixture(
                name=f"a reference that is refused for its content, {status}",
                outcome="moderated",
                status=status,
                document=document,
                task=task,
            )
            for status, document, task in (
                (400, {"code": INSPECTION, "message": "Input data may be inappropriate.", "request_id": "r"}, None),
                (200, failed(INSPECTION, "Input data may be inappropriate."), TASK),
            )
        ),
        Fixture(
            name="size",
            outcome="refused",
            status=400,
            document={"code": "InvalidParameter", "message": "Expected format: '<width>*<height>'", "request_id": "r"},
            means=400,
        ),
    )


# Seedream

ARK = "https://ark.ap-southeast.bytepluses.com/api/v3/images/generations"
GROUP = {"sequential_image_generation": "auto", "sequential_image_generation_options": {"max_images": 4}}
DISABLED = {"sequential_image_generation": "disabled"}


@pytest.mark.parametrize(
    ("images", "most"), [(0, 15), (1, 14), (6, 9), (14, 1)], ids=["none", "one", "six", "as many as there may be"]
)
def test_seedreams_groups_count_references(images: int, most: int) -> None:
    """What is beyond the limit is refused before it is sent, and named as the client wrote it."""
    more: dict[str, Any] = {"operation": "edits", "images": [LINK] * images} if images else {}
    for size in (0, most + 1, 99):
        group = {**GROUP, "sequential_image_generation_options": {"max_images": size}}
        refused("seedream", "seedream-4-5-251128", "sequential_image_generation_options.max_images", **more, **group)
    group = {**GROUP, "sequential_image_generation_options": {"max_images": most}}
    assert outbound(load_adapter("seedream"), "seedream-4-5-251128", prompt="A hat", **more, **group).json
    refused(
        *("seedream", "seedream-4-5-251128", "sequential_image_generation_options.max_images"),
        **{**GROUP, "sequential_image_generation_options": {"max_images": "3"}},
    )


@pytest.mark.parametrize(
    ("model", "asked", "body"),
    [
        ("seedream-4-5-251128", {}, {}),
        ("doubao-seedream-4-5-251128", {"size": "1024x1024", "n": 1}, {"size": "1920x1920"}),
        ("doubao-seedream-4-0-250828", {"size": "1K", "stream": True}, {"size": "1K", "stream": True}),
        ("doubao-seedream-4.0", {"size": "1024x1024"}, {"size": "1024x1024"}),
        ("seedream-4-0-250828", {"aspect_ratio": "21:9", "resolution": "4k"}, {"size": "6240x2656"}),
        ("seedream-5-0-260128", {"size": "3K", "output_format": "webp"}, {"size": "3K", "output_format": "png"}),
        ("seedream-5-0-pro-260601", {"size": "4K", "stream": True, **GROUP}, {"size": "2K"}),
        ("seedream-4-0-250828", {**GROUP, "response_format": "b64_json"}, {**GROUP, "response_format": "b64_json"}),
        ("seedream-4-0-250828", {**GROUP, **DISABLED}, DISABLED),
        ("seedream-4-0-250828", {"size": "auto", "quality": "high", "output_format": "png"}, {}),
        ("ep-20261129-abcde", {"size": "1K"}, {"size": "2K"}),
        ("ep-20261129-abcde", {"size": "4096x4096"}, {"size": "2150x2150"}),
        ("seedream-5-5-261028", {"size": "4K"}, {"size": "2K"}),
    ],
)
def test_seedream(model, asked, body):
    """A tier or pixels, no watermark unless it is asked for, groups where the model makes them."""
    seen = outbound(load_adapter("seedream"), model, prompt="A hat", **asked)
    assert (seen.method, seen.url, headers(seen)) == ("POST", ARK, {**JSON, **BEARER})
    assert seen.json == {"model": model, "prompt": "A hat", "watermark": False, **body}


def test_seedream_edits():
    """References are a list; a watermark may be asked for; no masks."""
    seen = outbound(
        load_adapter("seedream"), "seedream-4-5-251128", images=[ONE, TWO], watermark=True, size="2K", **EDIT
    )
    assert seen.json == {
        "model": "seedream-4-5-251128",
        "prompt": "A hat",
        "watermark": True,
        "size": "2K",
        "image": [DATA_ONE, DATA_TWO],
    }
    seen = outbound(load_adapter("seedream"), "seedream-5-0-pro-260601", images=[LINK], **EDIT)
    assert seen.json["image"] == [LINK.url]
    refused("seedream", "seedream-4-5-251128", "mask", operation="edits", images=[ONE], mask=MASK)
    refused("seedream", "seedream-5-0-pro-260601", "image", operation="edits", images=[ONE] * 11)


def test_seedream_documented_sizes_are_themselves():
    """Each size that the documentation lists for a ratio in a tier is one that the model takes as it is."""
    contracts = load_contracts(load_adapter("seedream").contracts())
    checked = 0
    for model, contract in contracts.items():
        tiers: Any = getattr(contract.size, "tiers", {})
        for tier, listed in tiers.items():
            for ratio, size in listed.items():
                name = model.replace("*", "x")
                for asked in ({"size": size}, {"aspect_ratio": ratio, "resolution": tier}):
                    assert outbound(load_adapter("seedream"), name, prompt="A hat", **asked).json["size"] == size
                checked += 1
    assert checked > 80


ARK_ERROR = {"code": "AuthenticationError", "message": "The API key is invalid.", "param": "", "type": "Unauthorized"}


class TestSeedream(AdapterContract):
    adapter = load_adapter("seedream")
    fixtures = (
        Fixture(
            name="links",
            outcome="pictures",
            document={"model": "m", "created": 1, "data": [{"url": LINK.url, "size": "2048x2048"}], "usage": {}},
        ),
        Fixture(name="base64", outcome="pictures", document={"created": 1, "data": [{"b64_json": B64, "size": "1x1"}]}),
        Fixture(
            name="a group but for one",
            outcome="uncertain",
            document={
                "created": 1,
                "data": [
                    {"url": LINK.url, "size": "2720x1536"},
                    {"error": {"code": "OutputImageSensitiveContentDetected", "message": "It was withheld."}},
                ],
            },
            code="moderation_blocked",
        ),
        Fixture(name="key", outcome="refused", status=401, document={"error": ARK_ERROR}, means=401),
        *(
            Fixture(
                name=code,
                outcome="moderated",
                status=400,
                document={"error": {**ARK_ERROR, "code": code, "type": "BadRequest"}},
                code="moderation_blocked",
                means=400,
            )
            for code in (
                *("InputTextSensitiveContentDetected", "InputImageSensitiveContentDetected"),
                *("OutputImageSensitiveContentDetected", "InputTextRiskDetection", "OutputImageRiskDetection"),
            )
        ),
        Fixture(
            name="rate",
            outcome="refused",
            status=429,
            document={
                "error": {**ARK_ERROR, "code": "RateLimitExceeded.EndpointRPMExceeded", "type": "TooManyRequests"}
            },
            means=429,
        ),
        Fixture(name="error in a 200", outcome="refused", document={"error": {**ARK_ERROR, "type": ""}}),
    )


# OpenRouter

OPENROUTER = "https://openrouter.ai/api/v1"
CHAT = {"api": "chat"}


@pytest.mark.parametrize(
    ("asked", "body"),
    [
        ({}, {}),
        ({"size": "1024x1024", "n": 1}, {"size": "1024x1024"}),
        ({"size": "2340x1080", "quality": "hd"}, {"size": "2340x1080", "quality": "high"}),
        ({"size": "1.5K"}, {"resolution": "1.5K"}),
        ({"size": "1536x1024", "resolution": "2K"}, {"aspect_ratio": "3:2", "resolution": "2K"}),
        ({"aspect_ratio": "16:9"}, {"aspect_ratio": "16:9"}),
        (
            {"size": "auto", "output_format": "webp", "compression": 80},
            {"aspect_ratio": "auto", "output_format": "webp", "output_compression": 80},
        ),
        (
            {"provider": {"only": ["google"]}, "safety_identifier": "u", "style": "vivid"},
            {"provider": {"only": ["google"]}, "user": "u"},
        ),
        ({"stream": True, "partial_images": 2, "response_format": "url"}, {"stream": True}),
    ],
)
def test_openrouter(asked, body):
    """Pixels alone go as they are, everything else as a ratio and a tier, beside what /images has."""
    seen = outbound(load_adapter("openrouter"), "google/gemini-3-pro-image", prompt="A hat", **asked)
    assert (seen.method, seen.url, headers(seen)) == ("POST", f"{OPENROUTER}/images", {**JSON, **BEARER})
    assert seen.json == {"model": "google/gemini-3-pro-image", "prompt": "A hat", **body}


@pytest.mark.parametrize(
    ("asked", "body"),
    [
        ({}, {}),
        ({"size": "3840x2160", "quality": "high"}, {"image_config": {"aspect_ratio": "16:9", "image_size": "4K"}}),
        ({"aspect_ratio": "9:16", "stream": True, "seed": 3}, {"image_config": {"aspect_ratio": "9:16"}, "seed": 3}),
        ({"size": "auto", "output_format": "png", "user": "u"}, {"user": "u"}),
    ],
)
def test_openrouter_chat(asked, body):
    """Chat completions with pictures."""
    seen = outbound(load_adapter("openrouter", CHAT), "google/gemini-3-pro-image", prompt="A hat", **asked)
    assert (seen.method, seen.url, headers(seen)) == ("POST", f"{OPENROUTER}/chat/completions", {**JSON, **BEARER})
    assert seen.json == {
        "model": "google/gemini-3-pro-image",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "A hat"}]}],
        "modalities": ["image", "text"],
        **body,
    }


def test_openrouter_edits():
    """References in either API, links as they are; no masks."""
    one = {"type": "image_url", "image_url": {"url": DATA_ONE}}
    link = {"type": "image_url", "image_url": {"url": LINK.url}}
    for images, parts in (([ONE], [one]), ([LINK], [link])):
        seen = outbound(load_adapter("openrouter"), "a/b", images=images, **EDIT)
        assert seen.json == {"model": "a/b", "prompt": "A hat", "input_references": parts}
        seen = outbound(load_adapter("openrouter", CHAT), "a/b", images=images, **EDIT)
        assert seen.json["messages"][0]["content"] == [*parts, {"type": "text", "text": "A hat"}]
    refused("openrouter", "a/b", "mask", operation="edits", images=[ONE], mask=MASK)


def completion(message: dict[str, Any], **choice: Any) -> dict[str, Any]:
    own = {"finish_reason": "stop", "message": {"role": "assistant", "content": "Here.", **message}, **choice}
    return {"id": "gen-1", "object": "chat.completion", "created": 1, "model": "a/b", "choices": [own]}


class TestOpenRouter(AdapterContract):
    adapter = load_adapter("openrouter")
    fixtures = (
        Fixture(
            name="base64",
            outcome="pictures",
            document={"created": 1, "data": [{"b64_json": B64, "media_type": "image/png"}], "usage": {"cost": 0.04}},
        ),
        Fixture(name="nothing", outcome="uncertain", document={"created": 1, "data": []}),
        Fixture(
            name="refused",
            outcome="refused",
            status=400,
            document={"error": {"code": 400, "message": "size conflicts with resolution", "metadata": None}},
            means=400,
        ),
        Fixture(
            name="flagged",
            outcome="moderated",
            status=403,
            document={"error": {"code": 403, "message": "x", "metadata": {"reasons": ["y"], "flagged_input": "z"}}},
        ),
        Fixture(
            name="flagged, in a 200",
            outcome="moderated",
            document={"error": {"code": 403, "message": "x", "metadata": {"reasons": ["y"], "flagged_input": "z"}}},
        ),
        Fixture(
            name="forbidden",
            outcome="refused",
            status=403,
            document={"error": {"code": 403, "message": "x"}},
            means=403,
        ),
        Fixture(
            name="credits", outcome="refused", status=402, document={"error": {"code": 402, "message": "x"}}, means=402
        ),
        Fixture(
            name="rate", outcome="refused", status=429, document={"error": {"code": 429, "message": "x"}}, means=429
        ),
        Fixture(
            name="error in a 200",
            outcome="refused",
            document={"error": {"code": 408, "message": "It timed out."}},
            means=408,
        ),
    )


class TestOpenRouterChat(AdapterContract):
    adapter = load_adapter("openrouter", CHAT)
    fixtures = (
        Fixture(
            name="data URL",
            outcome="pictures",
            document=completion(
                {"images": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{B64}"}}]}
            ),
        ),
        Fixture(
            name="link",
            outcome="pictures",
            document=completion({"images": [{"type": "image_url", "image_url": {"url": LINK.url}}]}),
        ),
        Fixture(name="words", outcome="uncertain", document=completion({}), code="no_image"),
        Fixture(name="filtered", outcome="moderated", document=completion({}, finish_reason="content_filter")),
        Fixture(
            name="flagged, in the choice",
            outcome="moderated",
            document={"choices": [{"error": {"code": 403, "message": "x", "metadata": {"reasons": ["y"]}}}]},
        ),
        Fixture(
            name="error in the choice",
            outcome="refused",
            document={"choices": [{"error": {"code": 503, "message": "Provider error."}, "finish_reason": "error"}]},
        ),
        Fixture(
            name="a provider behind it that gave up",
            outcome="uncertain",
            document={"error": {"code": 504, "message": "Upstream timed out"}},
            code="upstream_timeout",
        ),
    )


@pytest.mark.parametrize(
    ("adapter", "url"),
    [
        ("openrouter", "https://openrouter.ai/api/v1/key"),
        ("dashscope", "https://dashscope-intl.aliyuncs.com/api/v1/tasks?page_size=1"),
        ("siliconflow", "https://api.siliconflow.cn/v1/models"),
    ],
)
def test_what_is_asked_to_try_a_key(adapter, url):
    """Something that costs nothing and that only a good key may ask."""
    own = load_adapter(adapter)
    assert request_url(own.base_url, own.models_path) == url
