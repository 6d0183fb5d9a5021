"""Providers that answer at once: xAI, OpenRouter, Ark, DashScope, Stability, Ideogram, Recraft."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse
from tests.simulators.independent.frame import (
    KEY,
    Call,
    Provider,
    bearer,
    need,
    one_of,
    only,
    pixels,
    reference,
    shaped,
    whole,
)

_PLAIN = ("model", "prompt", "n", "user")
_XAI = ["auto", "1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3", "2:1", "1:2", "19.5:9", "9:19.5", "20:9", "9:20"]
_ROUTER = [
    "auto",
    "1:1",
    "1:2",
    "1:4",
    "1:8",
    "2:1",
    "2:3",
    "2.35:1",
    "3:2",
    "3:4",
    "4:1",
    "4:3",
    "4:5",
    "5:2",
    "5:4",
    "5:7",
    "7:5",
    "8:1",
    "9:16",
    "16:9",
    "9:19.5",
    "19.5:9",
    "9:20",
    "20:9",
    "9:21",
    "21:9",
]
_STABILITY = ["16:9", "1:1", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21"]
_IDEOGRAM = [
    "1x1",
    "16x9",
    "9x16",
    "10x16",
    "16x10",
    "2x3",
    "3x2",
    "3x4",
    "4x3",
    "4x5",
    "5x4",
    "1x2",
    "2x1",
    "1x3",
    "3x1",
]
_RECRAFT = ["1:1", "2:1", "1:2", "3:2", "2:3", "4:3", "3:4", "5:4", "4:5", "6:10", "14:10", "10:14", "16:9", "9:16"]
_AREA = {"512": 2**18, "768": 768**2, "1K": 2**20, "1.5K": 1536**2, "2K": 2**22, "3K": 3072**2, "4K": 2**24}


def asked(body: dict[str, Any]) -> None:
    """A prompt and a model."""
    need(isinstance(body.get("prompt"), str) and body["prompt"], "prompt is required")


def items(own: Provider, call: Call, form: str, contents: list[bytes]) -> list[dict[str, Any]]:
    """Pictures as the client of the provider asked."""
    if form == "b64_json":
        return [{"b64_json": own.base64(content)} for content in contents]
    return [{"url": own.link(call, content)} for content in contents]


def xai() -> Provider:
    """Ratio and tier, JSON edits, `size` refused, pictures JPEG."""

    def post(call: Call) -> Response:
        body, is_edit = call.body, call.path.endswith("/images/edits")
        need(is_edit or call.path.endswith("/images/generations"), "no such path", 404)
        need(not call.is_form, "multipart is not supported", 415)
        need("size" not in body, "Argument not supported: size", 400)
        extra = ("image", "images") if is_edit else ()
        only(body, *_PLAIN, "aspect_ratio", "resolution", "quality", "response_format", *extra)
        asked(body)
        whole(body, "n", 1, 10)
        is_new = body["model"] == "grok-imagine-image-2.0"
        one_of(body, "aspect_ratio", *_XAI)
        one_of(body, "resolution", "1k", "2k", *(["1.5k"] if is_new else []))
        one_of(body, "quality", "low", "medium", "auto", *([] if is_new else ["high"]))
        one_of(body, "response_format", "url", "b64_json")
        if is_edit:
            need(("image" in body) != ("images" in body), "exactly one of image and images")
            given = body.get("images", [body.get("image")])
            need(isinstance(given, list) and 1 <= len(given) <= 5, "1 to 5 images")
            for each in given:
                only(each, "url", "type")
                need(each.get("type") == "image_url", "type must be image_url")
                reference(each["url"])
        ratio = body.get("aspect_ratio", "auto")
        size = shaped("1:1" if ratio == "auto" else ratio, _AREA[body.get("resolution", "1k").upper()])
        made = [own.picture(size, "jpeg") for _ in range(body.get("n", 1))]
        found = items(own, call, body.get("response_format", "url"), made)
        found = [
            {**each, "mime_type": "image/jpeg", "respect_moderation": True, "revised_prompt": ""} for each in found
        ]
        if body["prompt"] == "withheld":
            found = [{"url": "", "respect_moderation": False}]
        return JSONResponse({"data": found, "usage": {"cost_in_usd_ticks": 200000000}})

    own = Provider(lambda why, status: {"code": str(status), "error": why}, bearer, post)
    return own


def openrouter() -> Provider:
    """Its Images API."""

    def post(call: Call) -> Response:
        body = call.body
        need(call.path == "/api/v1/images", f"no such path {call.path}", 404)
        only(
            body,
            *("model", "prompt", "n", "aspect_ratio", "resolution", "size", "quality", "output_format", "background"),
            *("output_compression", "seed", "stream", "input_references", "provider", "user"),
        )
        asked(body)
        whole(body, "n", 1, 10)
        need("size" not in body or not {"aspect_ratio", "resolution"} & body.keys(), "size conflicts", 400)
        one_of(body, "aspect_ratio", *_ROUTER)
        one_of(body, "resolution", *_AREA)
        for each in body.get("input_references", []):
            need(each["type"] == "image_url", "type must be image_url")
            reference(each["image_url"]["url"])
        size = shaped(body.get("aspect_ratio", "1:1").replace("auto", "1:1"), _AREA[body.get("resolution", "1K")])
        if "x" in body.get("size", ""):
            size = pixels(body["size"])
        form = body.get("output_format", "png")
        made = [own.base64(own.picture(size, form)) for _ in range(body.get("n", 1))]
        if body["prompt"] == "withheld":
            return JSONResponse({"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["x"]}}}, 403)
        if body.get("stream"):
            frames: list[dict[str, Any]] = [
                {"type": "image_generation.text_chunk", "text": "a"},
                {"type": "image_generation.partial_image", "b64_json": made[0], "partial_image_index": 0},
            ]
            usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.04}
            about = {"created": 1, "media_type": f"image/{form}", "usage": usage}
            frames += [{"type": "image_generation.completed", "b64_json": each, **about} for each in made]
            return events(frames)
        data = [{"b64_json": each, "media_type": f"image/{form}"} for each in made]
        return JSONResponse({"created": 1, "data": data, "usage": {"cost": 0.04}})

    own = Provider(lambda why, status: {"error": {"code": status, "message": why}}, bearer, post)
    return own


def events(frames: list[dict[str, Any]]) -> Response:
    """Server-sent events whose name is the type, and the end mark."""
    text = "".join(f"event: {frame['type']}\ndata: {json.dumps(frame)}\n\n" for frame in frames)
    return StreamingResponse(iter([text, "data: [DONE]\n\n"]), media_type="text/event-stream")


_ARK: dict[str, tuple[list[str], int, int]] = {
    "5-0-pro": (["1K", "1.5K", "2K"], 921600, 4624220),
    "5-0-lite": (["2K", "3K", "4K"], 3686400, 16777216),
    "4-5": (["2K", "4K"], 3686400, 16777216),
    "4-0": (["1K", "2K", "4K"], 921600, 16777216),
}


def seedream() -> Provider:
    """Volcengine Ark and BytePlus."""

    def post(call: Call) -> Response:
        body = call.body
        need(call.path.endswith("/images/generations"), "no such path", 404)
        only(
            body,
            *("model", "prompt", "image", "size", "seed", "watermark", "response_format", "output_format", "stream"),
            *("sequential_image_generation", "sequential_image_generation_options", "optimize_prompt_options"),
        )
        asked(body)
        kind = next(name for name in _ARK if name in body["model"].replace(".", "-"))
        tiers, least, most = _ARK[kind]
        need(type(body.get("watermark")) is bool, "watermark is true unless sent", 400)
        size = (2048, 2048)
        if "size" in body and body["size"] not in tiers:
            size = pixels(body["size"])
            need(least <= size[0] * size[1] <= most, f"size of {kind} out of bounds: {body['size']}", 400)
            need(1 / 16 <= size[0] / size[1] <= 16, "ratio out of bounds", 400)
        one_of(body, "response_format", "url", "b64_json")
        need("output_format" not in body or kind[0] == "5", "output_format only on 5.0", 400)
        one_of(body, "output_format", "png", "jpeg")
        given = body.get("image", [])
        given = [given] if isinstance(given, str) else given
        need(len(given) <= (10 if kind == "5-0-pro" else 14), "too many references", 400)
        for each in given:
            reference(each)
        sequence = body.get("sequential_image_generation", "disabled")
        need(sequence in ("auto", "disabled"), "sequential_image_generation")
        need(sequence == "disabled" or kind != "5-0-pro", "no groups on 5.0-pro", 400)
        count = 1
        if sequence == "auto":
            count = body.get("sequential_image_generation_options", {}).get("max_images", 15)
            need(1 <= count <= 15, "max_images", 400)
            count = min(count, 15 - len(given))
        need(not body.get("stream") or kind != "5-0-pro", "no streaming on 5.0-pro", 400)
        made = [own.picture(size, body.get("output_format", "jpeg")) for _ in range(count)]
        found = items(own, call, body.get("response_format", "url"), made)
        shape = f"{size[0]}x{size[1]}"
        if body["prompt"] == "withheld":
            error = {"code": "OutputImageSensitiveContentDetected", "message": "sensitive", "param": "", "type": "x"}
            return JSONResponse({"error": error}, 400)
        usage = {"generated_images": count, "output_tokens": 1, "total_tokens": 1}
        if body.get("stream"):
            frames = [
                {"type": "image_generation.partial_succeeded", "image_index": place, "size": shape, **each}
                for place, each in enumerate(found)
            ]
            return events([*frames, {"type": "image_generation.completed", "usage": usage}])
        data = [{**each, "size": shape} for each in found]
        return JSONResponse({"model": body["model"], "created": 1, "data": data, "usage": usage})

    def wrong(why: str, status: int) -> Any:
        return {"error": {"code": "InvalidParameter", "message": why, "param": "", "type": "BadRequest"}}

    own = Provider(wrong, bearer, post)
    return own


_QWEN = ["1664*928", "1472*1104", "1328*1328", "1104*1472", "928*1664"]


def dashscope() -> Provider:
    """Qwen-Image and Wan; refusals of content come with status 200."""

    def post(call: Call) -> Response:
        body = call.body
        route = call.path.removeprefix("/api/v1/services/aigc/")
        need(route in ("multimodal-generation/generation", "image-generation/generation"), "no such path", 404)
        is_task = call.headers.get("x-dashscope-async") == "enable"
        need(is_task == route.startswith("image-"), "X-DashScope-Async belongs to image-generation", 403)
        only(body, "model", "input", "parameters")
        need("messages" in body.get("input", {}), "Field required: input.messages", 400)
        only(body["input"], "messages")
        (message,) = body["input"]["messages"]
        need(message["role"] == "user", "role")
        kinds = [next(iter(part)) for part in message["content"]]
        count = len(kinds) - 1
        need(kinds == ["image"] * count + ["text"], f"pictures first, then one text: {kinds}", 400)
        for part in message["content"][:-1]:
            reference(part["image"])
        chosen, model = body.get("parameters", {}), body["model"]
        only(chosen, "size", "n", "seed", "watermark", "negative_prompt", "prompt_extend", "thinking_mode")
        whole(chosen, "seed", 0, 2147483647)
        is_wan = model.startswith("wan")
        need(not is_wan or "n" in chosen, "n is 4 unless sent", 400)
        whole(chosen, "n", 1, 4 if is_wan else 6)
        size, text = (2048, 2048), chosen.get("size")
        if model == "qwen-image-edit":
            need(text is None, "size is refused", 400)
        elif model in ("qwen-image", "qwen-image-plus", "qwen-image-max"):
            one_of(chosen, "size", *_QWEN)
            whole(chosen, "n", 1, 1)
            need(count == 0, "no references", 400)
        if text is not None and not (is_wan and text in ("1K", "2K", *(["4K"] if model.endswith("pro") else []))):
            size = pixels(text, "*")
            area, ratio = size[0] * size[1], size[0] / size[1]
            if model.startswith(("qwen-image-2", "qwen-image-3")):
                need(262144 <= area <= 4194304 and 1 / 8 <= ratio <= 8, f"size: {text}", 400)
            if is_wan:
                most = 16777216 if model.endswith("pro") and not count else 4194304
                need(589824 <= area <= most and 1 / 8 <= ratio <= 8, f"size: {text}", 400)
            if model.startswith(("qwen-image-edit-max", "qwen-image-edit-plus")):
                need(all(512 <= edge <= 2048 for edge in size), f"size: {text}", 400)
        if is_task:
            name = f"t{len(own.tasks)}"
            own.tasks[name] = [0, size, chosen.get("n", 1), message["content"][-1]["text"]]
            return JSONResponse({"output": {"task_id": name, "task_status": "PENDING"}, "request_id": "r"})
        if message["content"][-1]["text"] == "withheld":
            return JSONResponse({"code": "DataInspectionFailed", "message": "inappropriate", "request_id": "r"})
        made = [own.link(call, own.picture(size)) for _ in range(chosen.get("n", 1))]
        choices = [
            {"finish_reason": "stop", "message": {"role": "assistant", "content": [{"image": each}]}} for each in made
        ]
        return JSONResponse({"output": {"choices": choices}, "usage": {"image_count": len(made)}, "request_id": "r"})

    def get(call: Call) -> Response:
        name = call.path.removeprefix("/api/v1/tasks/")
        task = own.tasks.get(name)
        if task is None:
            return JSONResponse({"output": {"task_id": name, "task_status": "UNKNOWN"}, "request_id": "r"})
        task[0] += 1
        output: dict[str, Any] = {
            "task_id": name,
            "task_status": ("PENDING", "RUNNING", "SUCCEEDED")[min(task[0], 3) - 1],
        }
        if task[0] >= 3 and task[3] == "withheld":
            output |= {"task_status": "FAILED", "code": "DataInspectionFailed", "message": "inappropriate"}
        elif task[0] >= 3:
            links = [own.link(call, own.picture(task[1])) for _ in range(task[2])]
            if len(own.tasks) % 2:
                output["results"] = [{"url": each} for each in links]
            else:
                output["choices"] = [{"message": {"content": [{"type": "image", "image": each}]}} for each in links]
        return JSONResponse({"output": output, "request_id": "r"})

    own = Provider(
        lambda why, status: {"code": "InvalidParameter", "message": why, "request_id": "r"}, bearer, post, get
    )
    return own


def stability() -> Provider:
    """A form always; bytes or JSON by Accept."""

    def post(call: Call) -> Response:
        body, route = call.body, call.path.rpartition("/generate/")[2]
        need(route in ("core", "ultra", "sd3"), f"no such path {call.path}", 404)
        need(call.is_form, "multipart/form-data is mandatory", 400)
        accept = call.headers.get("accept", "")
        need(accept.split(";")[0] in ("image/*", "application/json"), f"accept: {accept}", 400)
        more = ("model", "mode", "strength", "cfg_scale") if route == "sd3" else ("strength", "style_preset")
        only(body, "prompt", "negative_prompt", "aspect_ratio", "seed", "output_format", *more)
        asked(body)
        one_of(body, "aspect_ratio", *_STABILITY)
        one_of(body, "output_format", "png", "jpeg", *([] if route == "sd3" else ["webp"]))
        need(0 <= int(body.get("seed", 0)) <= 4294967294, "seed", 400)
        names = [name for name, _ in call.files]
        need(set(names) <= {"image"} and len(names) <= 1, f"files: {names}", 400)
        need(not names or route != "core", "core takes no picture", 400)
        need(not names or 0 <= float(body.get("strength", -1)) <= 1, "strength is required with a picture", 400)
        if route == "sd3":
            need(body.get("mode", "text-to-image") == ("image-to-image" if names else "text-to-image"), "mode", 400)
            need(not names or "aspect_ratio" not in body, "aspect_ratio and image", 400)
        form = body.get("output_format", "png")
        content = own.picture(shaped(body.get("aspect_ratio", "1:1"), 2**20), form)
        reason = "CONTENT_FILTERED" if body["prompt"] == "withheld" else "SUCCESS"
        if accept.startswith("image"):
            return Response(content, headers={"finish-reason": reason, "seed": "1"}, media_type=f"image/{form}")
        return JSONResponse({"image": own.base64(content), "finish_reason": reason, "seed": 1})

    def wrong(why: str, status: int) -> Any:
        return {"id": "0", "name": "bad_request", "errors": [why]}

    own = Provider(wrong, bearer, post)
    return own


def ideogram() -> Provider:
    """Ratios that look like pixels, forms, pictures withheld with status 200."""
    rows = (Path(__file__).parent / "ideogram_v3.txt").read_text().split()

    def post(call: Call) -> Response:
        body = call.body
        kind, _, route = call.path.rpartition("/v1/")[2].partition("/")
        need(kind in ("ideogram-v3", "ideogram-v4") and route in ("generate", "remix", "inpaint"), call.path, 404)
        only(
            body,
            *("prompt", "resolution", "aspect_ratio", "num_images", "seed", "rendering_speed", "magic_prompt"),
            *("negative_prompt", "style_type", "image_weight", "text_prompt", "enable_copyright_detection"),
        )
        need(body.get("prompt") or body.get("text_prompt"), "prompt is required", 400)
        need(not {"resolution", "aspect_ratio"} <= body.keys(), "resolution or aspect_ratio", 400)
        one_of(body, "aspect_ratio", *_IDEOGRAM)
        one_of(body, "resolution", *(rows if kind == "ideogram-v3" else _V4))
        need(kind == "ideogram-v3" or "aspect_ratio" not in body, "v4 takes a resolution", 400)
        speeds = ["TURBO", "DEFAULT", "QUALITY", *(["FLASH"] if kind == "ideogram-v3" else [])]
        one_of(body, "rendering_speed", *speeds)
        count = int(body.get("num_images", 1))
        need(1 <= count <= 8, "num_images", 400)
        need(0 <= int(body.get("seed", 0)) <= 2147483647, "seed", 400)
        names = sorted({name for name, _ in call.files})
        wanted = {"generate": [[], ["style_reference_images"]], "remix": [["image"]], "inpaint": [["image", "mask"]]}
        need(names in wanted[route], f"files of {route}: {names}", 400)
        size = pixels(body["resolution"]) if "resolution" in body else (1024, 1024)
        if "aspect_ratio" in body:
            size = shaped(body["aspect_ratio"], 2**20, "x")
        is_safe = body.get("prompt", body.get("text_prompt")) != "withheld"
        data = [
            {
                "url": own.link(call, own.picture(size)) if is_safe else None,
                "prompt": "magic",
                "resolution": f"{size[0]}x{size[1]}",
                "is_image_safe": is_safe,
                "seed": 1,
            }
            for _ in range(count)
        ]
        return JSONResponse({"created": "2026-11-29T00:00:00Z", "data": data})

    own = Provider(lambda why, status: {"error": why}, lambda headers: headers.get("api-key") == KEY, post)
    return own


_V4 = [
    "2048x2048",
    "1440x2880",
    "2880x1440",
    "1664x2496",
    "2496x1664",
    "1792x2240",
    "2240x1792",
    "1440x2560",
    "2560x1440",
    "1600x2560",
    "2560x1600",
    "1728x2304",
    "2304x1728",
    "1296x3168",
    "3168x1296",
    "1152x2944",
    "2944x1152",
    "1248x3328",
    "3328x1248",
    "1280x3072",
    "3072x1280",
]


def recraft() -> Provider:
    """Sizes from its own table, or ratios."""
    table = {
        "recraftv4_1": "1024x1024 1536x768 768x1536 1280x832 832x1280 1216x896 896x1216 1152x896 896x1152 1280x896 "
        "896x1280 1344x768 768x1344 832x1344",
        "recraftv3": "1024x1024 2048x1024 1024x2048 1536x1024 1024x1536 1365x1024 1024x1365 1280x1024 1024x1280 "
        "1024x1707 1434x1024 1024x1434 1820x1024 1024x1820",
    }

    def post(call: Call) -> Response:
        body, route = call.body, call.path.rpartition("/images/")[2]
        need(route in ("generations", "imageToImage", "inpaint"), f"no such path {call.path}", 404)
        only(
            body,
            *("model", "prompt", "n", "size", "style", "style_id", "substyle", "response_format", "negative_prompt"),
            *("controls", "strength", "image_url", "random_seed", "image_format"),
        )
        asked(body)
        need(1 <= int(body.get("n", 1)) <= 6, "n", 400)
        one_of(body, "response_format", "url", "b64_json")
        sizes = table[body["model"]].split()
        one_of(body, "size", *sizes, *_RECRAFT)
        if route != "generations":
            need("image_url" in body or "image" in dict(call.files), "image", 400)
            if "image_url" in body:
                reference(body["image_url"])
            need(route == "inpaint" or 0 <= float(body.get("strength", -1)) <= 1, "strength is required", 400)
            need(route != "inpaint" or "mask" in dict(call.files), "mask", 400)
        size = body.get("size", "1024x1024")
        shape = pixels(size) if "x" in size else shaped(size, 2**20)
        made = [own.picture(shape, "webp") for _ in range(int(body.get("n", 1)))]
        found = items(own, call, body.get("response_format", "url"), made)
        return JSONResponse({"created": 1, "credits": 40, "data": found})

    own = Provider(lambda why, status: {"code": "bad", "message": why}, bearer, post)
    return own
