"""Providers that host the models of others: SiliconFlow, ModelScope, Z.ai, Together, DeepInfra, Fireworks, Bedrock,
Hugging Face.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from starlette.responses import JSONResponse, Response
from tests.simulators.independent.frame import (
    Call,
    Provider,
    bearer,
    form_of,
    need,
    one_of,
    only,
    pixels,
    reference,
    shaped,
    whole,
)

_KOLORS = ("1024x1024", "960x1280", "768x1024", "720x1440", "720x1280")
_QWEN = ("1328x1328", "1664x928", "928x1664", "1472x1140", "1140x1472", "1584x1056", "1056x1584")
_NINE = ("16:9", "1:1", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21")
_SDXL = (
    *("640x1536", "768x1344", "832x1216", "896x1152", "1024x1024", "1152x896", "1216x832", "1344x768", "1536x640"),
)


def message(why: str, status: int) -> Any:
    """OpenAI's envelope."""
    return {"error": {"message": why, "type": "invalid_request_error"}}


def bare(value: object) -> bytes:
    """Base64 without a prefix."""
    need(isinstance(value, str) and not value.startswith(("data:", "http")), f"bare base64: {str(value)[:30]!r}")
    assert isinstance(value, str)
    try:
        content = base64.b64decode(value, validate=True)
    except binascii.Error:
        content = b""
    form_of(content)
    return content


def edges(body: dict[str, Any]) -> tuple[int, int]:
    """Width and height, both or none."""
    need(("width" in body) == ("height" in body), "width and height belong together")
    size = body.get("width", 1024), body.get("height", 1024)
    need(all(type(edge) is int and 64 <= edge <= 4096 for edge in size), f"width, height: {size}")
    return size


def asked(body: dict[str, Any], name: str = "prompt") -> bool:
    """A prompt; whether it asks for what is withheld."""
    need(isinstance(body.get(name), str) and body[name], f"{name} is required")
    return bool(body[name] == "withheld")


def siliconflow() -> Provider:
    """`image_size`, but for models that edit; `batch_size` of Kolors alone."""

    def post(call: Call) -> Response:
        body = call.body
        model, is_edit = body.get("model", ""), "Edit" in body.get("model", "")
        need(call.path == "/v1/images/generations", f"no such path {call.path}", 404)
        own_members = ("batch_size", "guidance_scale") if "Kolors" in model else ("cfg",)
        images = ("image", "image2", "image3") if is_edit else ()
        sizes = () if is_edit else ("image_size",)
        only(body, "model", "prompt", "negative_prompt", "num_inference_steps", "seed", *own_members, *images, *sizes)
        asked(body)
        need(is_edit or "image_size" in body, "image_size is required")
        one_of(body, "image_size", *(_KOLORS if "Kolors" in model else _QWEN))
        whole(body, "batch_size", 1, 4)
        whole(body, "seed", 0, 9999999999)
        need(not is_edit or "image" in body, "image is required")
        for name in images:
            if name in body:
                reference(body[name])
        made = [own.picture(pixels(body.get("image_size", "1024x1024"))) for _ in range(body.get("batch_size", 1))]
        links = [{"url": own.link(call, content)} for content in made]
        return JSONResponse({"images": links, "timings": {"inference": 1.5}, "seed": 7})

    own = Provider(lambda why, status: {"code": 20012, "message": why, "data": None}, bearer, post)
    return own


def modelscope() -> Provider:
    """A task for every request, by a header; asked about with another one."""

    def post(call: Call) -> Response:
        body = call.body
        need(call.path == "/v1/images/generations", f"no such path {call.path}", 404)
        need(call.headers.get("x-modelscope-async-mode") == "true", "only asynchronous calls")
        only(body, "model", "prompt", "negative_prompt", "size", "seed", "steps", "guidance", "image_url", "loras")
        asked(body)
        need(len(body["prompt"]) < 2000, "prompt is too long")
        if "image_url" in body:
            need(body["image_url"].startswith("http"), "image_url is a public link")
            reference(body["image_url"])
        own.tasks[name := f"t{len(own.tasks)}"] = [pixels(body.get("size", "1024x1024")), 0]
        return JSONResponse({"task_id": name, "request_id": "r"})

    def get(call: Call) -> Response:
        need(call.headers.get("x-modelscope-task-type") == "image_generation", "the kind of task is missing")
        name = call.path.removeprefix("/v1/tasks/")
        need(name in own.tasks, f"no such task {call.path}", 404)
        size, questions = own.tasks[name]
        own.tasks[name][1] += 1
        if questions < 2:
            return JSONResponse({"task_id": name, "task_status": ("PENDING", "PROCESSING")[questions]})
        link = own.link(call, own.picture(size, "jpeg"))
        return JSONResponse({"task_id": name, "task_status": "SUCCEED", "output_images": [link]})

    own = Provider(lambda why, status: {"errors": {"message": why}}, bearer, post, get)
    return own


def zai() -> Provider:
    """Tasks for glm-image alone."""

    def post(call: Call) -> Response:
        body, is_task = call.body, call.path.endswith("/async/images/generations")
        need(is_task or call.path == "/api/paas/v4/images/generations", f"no such path {call.path}", 404)
        only(body, "model", "prompt", "size", "quality", "watermark_enabled", "user_id")
        if asked(body):
            return JSONResponse({"error": {"code": "1301", "message": "unsafe or sensitive content"}}, 400)
        is_glm = body["model"] == "glm-image"
        need(is_glm or not is_task, "asynchronous calls are glm-image's")
        one_of(body, "quality", "hd", *(() if is_glm else ("standard",)))
        need(6 <= len(body.get("user_id", "u" * 6)) <= 128, "user_id has 6 to 128 characters")
        size = pixels(body.get("size", "1280x1280"))
        if not is_task:
            link = own.link(call, own.picture(size))
            filters = [{"role": "assistant", "level": 3}]
            return JSONResponse({"created": 1, "data": [{"url": link}], "content_filter": filters})
        own.tasks[name := f"t{len(own.tasks)}"] = [size, 0]
        return JSONResponse({"id": name, "model": body["model"], "request_id": "r", "task_status": "PROCESSING"})

    def get(call: Call) -> Response:
        name = call.path.removeprefix("/api/paas/v4/async-result/")
        need(name in own.tasks, f"no such task {call.path}", 404)
        size, questions = own.tasks[name]
        own.tasks[name][1] += 1
        if questions == 0:
            return JSONResponse({"id": name, "task_status": "PROCESSING"})
        link = own.link(call, own.picture(size))
        return JSONResponse({"id": name, "task_status": "SUCCESS", "image_result": [{"url": link}]})

    own = Provider(lambda why, status: {"error": {"code": "1210", "message": why}}, bearer, post, get)
    return own


def together() -> Provider:
    """`base64` is the form, `b64_json` the member."""

    def post(call: Call) -> Response:
        body = call.body
        need(call.path == "/v1/images/generations", f"no such path {call.path}", 404)
        only(
            body,
            *("model", "prompt", "n", "width", "height", "aspect_ratio", "image_url", "reference_images"),
            *("response_format", "output_format", "steps", "seed", "negative_prompt", "guidance_scale"),
        )
        if asked(body):
            return JSONResponse(message("NSFW content detected in the prompt", 422), 422)
        one_of(body, "response_format", "base64", "url")
        one_of(body, "output_format", "jpeg", "png")
        whole(body, "n", 1, 4)
        for each in [*body.get("reference_images", []), *([body["image_url"]] if "image_url" in body else [])]:
            reference(each)
        size = shaped(body["aspect_ratio"], 2**20) if "aspect_ratio" in body else edges(body)
        made = [own.picture(size, body.get("output_format", "jpeg")) for _ in range(body.get("n", 1))]
        data: list[dict[str, Any]] = [
            {"index": place, "type": "b64_json", "b64_json": own.base64(content)}
            if body.get("response_format") == "base64"
            else {"index": place, "type": "url", "url": own.link(call, content)}
            for place, content in enumerate(made)
        ]
        return JSONResponse({"id": "o", "model": body["model"], "object": "list", "data": data})

    own = Provider(message, bearer, post)
    return own


def deepinfra() -> Provider:
    """Its own JSON for generations, OpenAI's form for edits, whose files have no brackets."""

    def post(call: Call) -> Response:
        body = call.body
        members = ("prompt", "seed", "guidance_scale", "num_inference_steps", "negative_prompt")
        if call.path == "/v1/openai/images/edits":
            need(call.is_form, "a form")
            only(body, *members, "model", "n", "size", "response_format")
            asked(body)
            need({name for name, _ in call.files} <= {"image", "mask"}, f"files: {[name for name, _ in call.files]}")
            need("image" in dict(call.files), "image is required")
            made = own.picture(pixels(body.get("size", "1024x1024")))
            return JSONResponse({"created": 1, "data": [{"b64_json": own.base64(made)}]})
        need(re.fullmatch(r"/v1/inference/[\w.-]+/[\w.-]+", call.path), f"no such path {call.path}", 404)
        only(body, *members, "num_images", "width", "height", "aspect_ratio")
        asked(body)
        whole(body, "num_images", 1, 4)
        made = own.picture(edges(body))
        return JSONResponse({"images": [f"data:image/png;base64,{own.base64(made)}"], "request_id": "r"})

    own = Provider(lambda why, status: {"detail": {"error": why}}, bearer, post)
    return own


def fireworks() -> Provider:
    """Bytes, as the Accept header asks; Kontext by a task that is asked for by POST."""
    root = "/inference/v1/workflows/accounts/fireworks/models/"

    def post(call: Call) -> Response:
        body, path = call.body, call.path.removeprefix(root)
        if path.endswith("/get_result"):
            own.calls.pop()  # a question
            only(body, "id")
            size, form, questions = task = own.tasks[body["id"]]
            task[2] += 1
            if questions < 2:
                return JSONResponse({"id": body["id"], "status": ("Pending", "Generating...")[questions]})
            sample = own.link(call, own.picture(size, form))
            return JSONResponse({"id": body["id"], "status": "Ready", "result": {"sample": sample}})
        withheld = asked(body)
        if path.startswith("/inference/v1/image_generation/"):
            only(body, "prompt", "width", "height", "seed", "samples", "steps", "cfg_scale")
            size = edges(body)
            need(f"{size[0]}x{size[1]}" in _SDXL, f"size {size}")
        elif path.endswith("/text_to_image"):
            only(body, "prompt", "aspect_ratio", "seed", "guidance_scale", "num_inference_steps")
            one_of(body, "aspect_ratio", *_NINE)
            size = shaped(body.get("aspect_ratio", "1:1"), 2**20)
        else:
            need(path.startswith("flux-kontext-"), f"no such path {call.path}", 404)
            only(body, "prompt", "aspect_ratio", "seed", "input_image", "output_format", "prompt_upsampling")
            one_of(body, "aspect_ratio", *_NINE)
            if "input_image" in body:
                reference(body["input_image"])
            size = shaped(body.get("aspect_ratio", "1:1"), 2**20)
            own.tasks[name := f"t{len(own.tasks)}"] = [size, body.get("output_format", "jpeg"), 0]
            return JSONResponse({"request_id": name})
        form = call.headers["accept"].removeprefix("image/")
        need(form in ("png", "jpeg"), f"Accept: {call.headers['accept']}", 406)
        headers = {"finish-reason": "CONTENT_FILTERED" if withheld else "SUCCESS", "seed": "7"}
        return Response(own.picture(size, form), media_type=f"image/{form}", headers=headers)

    own = Provider(lambda why, status: {"error": why}, bearer, post)
    return own


def bedrock() -> Provider:
    """Stability's models; a refusal is a 200 without pictures."""

    def post(call: Call) -> Response:
        body, found = call.body, re.fullmatch(r"/model/(stability\.[\w.:-]+)/invoke", call.path)
        need(found, f"no such path {call.path}", 404)
        assert found
        is_sd3 = "sd3" in found[1]
        extra = ("image", "strength") if is_sd3 else ()
        only(body, "prompt", "aspect_ratio", "mode", "output_format", "seed", "negative_prompt", *extra)
        if asked(body):
            return JSONResponse({"finish_reasons": ["Filter reason: prompt"]})
        one_of(body, "aspect_ratio", *_NINE)
        one_of(body, "output_format", "jpeg", "png")
        one_of(body, "mode", "text-to-image", *(("image-to-image",) if is_sd3 else ()))
        whole(body, "seed", 0, 4294967295)
        need(("image" in body) == (body.get("mode") == "image-to-image"), "mode and image")
        need(("image" in body) == ("strength" in body), "strength and image")
        if "image" in body:
            bare(body["image"])
        made = own.picture(shaped(body.get("aspect_ratio", "1:1"), 2**20), body.get("output_format", "png"))
        return JSONResponse({"seeds": [7], "finish_reasons": [None], "images": [own.base64(made)]})

    own = Provider(lambda why, status: {"message": why}, bearer, post)
    return own


def huggingface() -> Provider:
    """`hf-inference` answers with bytes; an image to start from is base64 in `inputs`."""

    def post(call: Call) -> Response:
        body = call.body
        if call.path == "/nscale/v1/images/generations":
            only(body, "model", "prompt", "size", "response_format", "n")
            need(body.get("response_format") == "b64_json", "response_format must be b64_json")
            made = own.picture(pixels(body.get("size", "1024x1024")))
            return JSONResponse({"created": 1, "data": [{"b64_json": own.base64(made)}]})
        need(re.fullmatch(r"/hf-inference/models/[\w.-]+/[\w.-]+", call.path), f"no such path {call.path}", 404)
        only(body, "inputs", "parameters")
        parameters = body.get("parameters", {})
        sampling = ("guidance_scale", "num_inference_steps", "negative_prompt", "scheduler")
        if "prompt" in parameters:
            bare(body["inputs"])
            only(parameters, *sampling, "prompt", "target_size")
            size = edges(parameters.get("target_size", {}))
        else:
            asked(body, "inputs")
            only(parameters, *sampling, "width", "height", "seed")
            size = edges(parameters)
        return Response(own.picture(size), media_type="image/png")

    own = Provider(lambda why, status: {"error": why}, bearer, post)
    return own
