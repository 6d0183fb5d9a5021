"""Providers that make tasks: Black Forest Labs, fal, Replicate. Only they know where to ask, and where to cancel."""

from __future__ import annotations

import re
from typing import Any

from starlette.responses import JSONResponse, Response
from tests.simulators.independent.frame import (
    KEY,
    Call,
    Provider,
    bearer,
    need,
    one_of,
    only,
    reference,
    shaped,
    whole,
)

_FLUX_3 = [
    "auto",
    "21:9",
    "2:1",
    "16:9",
    "3:2",
    "7:5",
    "4:3",
    "5:4",
    "1:1",
    "4:5",
    "3:4",
    "5:7",
    "2:3",
    "9:16",
    "1:2",
    "9:21",
]
_TIERS = {"768sq": 768**2, "1k": 2**20, "1.5k": 1536**2, "2k": 2**22, "4k": 2**24}
_SECRET = "pos=%2F1&t=a%2Bb"


def edges(body: dict[str, Any], least: int, most: int, multiple: int, area: int = 2**40) -> tuple[int, int]:
    """Width and height within a model's rule."""
    size = body.get("width", 1024), body.get("height", 1024)
    for edge in size:
        good = type(edge) is int and least <= edge <= most and edge % multiple == 0
        need(good, f"width, height: {size} ({least}..{most}, multiple of {multiple})")
    need(size[0] * size[1] <= area, f"too many pixels: {size}")
    return size


def ratio_within(ratio: str, least: float, most: float) -> tuple[int, int]:
    """A ratio in a range, in whole numbers."""
    need(re.fullmatch(r"\d+:\d+", ratio), f"aspect_ratio {ratio!r}")
    wide, high = map(int, ratio.split(":"))
    need(least <= wide / high <= most, f"aspect_ratio {ratio} out of bounds")
    return shaped(ratio, 2**20)


def bfl() -> Provider:
    """The polling address is another path, to be asked to the letter."""

    def post(call: Call) -> Response:
        body, model = call.body, call.path.rpartition("/v1/")[2]
        common = ("prompt", "seed", "output_format", "safety_tolerance", "webhook_url", "webhook_secret")
        need("webhook_url" not in body or "webhook_secret" in body, "webhook_secret")
        one_of(body, "output_format", "png", "jpeg", *(["webp"] if model.startswith("flux-") else []))
        whole(body, "safety_tolerance", 0, 6)
        need(body.get("prompt"), "prompt is required")
        if model == "flux-3-image":
            only(body, "prompt", "aspect_ratio", "resolution", "images", "output_format", "safety_tolerance")
            one_of(body, "aspect_ratio", *_FLUX_3)
            one_of(body, "resolution", *_TIERS)
            for each in body.get("images", []):
                plain(each)
            ratio = body.get("aspect_ratio", "auto")
            size = shaped("1:1" if ratio == "auto" else ratio, _TIERS[body.get("resolution", "1k")])
        elif model.startswith("flux-2-"):
            most = 4 if "klein" in model else 8
            names = ["input_image", *(f"input_image_{place}" for place in range(2, most + 1))]
            only(body, *common, "width", "height", *names)
            whole(body, "safety_tolerance", 0, 5)
            size = edges(body, 64, 2**14, 16, 4194304)
            given = [name for name in names if name in body]
            need(given == names[: len(given)], f"references have holes: {given}")
            for name in given:
                plain(body[name])
        elif model in ("flux-pro-1.1", "flux-dev"):
            only(body, *common, "width", "height", "prompt_upsampling")
            size = edges(body, 256, 1440, 32)
        elif model == "flux-pro-1.1-ultra":
            only(body, *common, "aspect_ratio", "raw", "image_prompt")
            size = ratio_within(body.get("aspect_ratio", "16:9"), 9 / 21, 21 / 9)
        elif model.startswith("flux-kontext-"):
            names = ["input_image", *(f"input_image_{place}" for place in range(2, 5))]
            only(body, *common, "aspect_ratio", "prompt_upsampling", *names)
            size = ratio_within(body.get("aspect_ratio", "1:1"), 3 / 7, 7 / 3)
            for name in names:
                if name in body:
                    plain(body[name])
        else:
            need(False, f"no model {model}", 404)
            raise AssertionError
        name = f"t{len(own.tasks)}"
        own.tasks[name] = [size, body.get("output_format", "jpeg"), 0, body["prompt"]]
        polling = f"{call.base}/regional/{name}/state?{_SECRET}"
        return JSONResponse({"id": name, "polling_url": polling, "cost": 4.0, "input_mp": 0, "output_mp": 1})

    def get(call: Call) -> Response:
        name = call.path.split("/")[2]
        size, form, asked, prompt = task = own.tasks[name]
        task[2] += 1
        words = ["Pending", "Reasoning", "Preparing canvas", "Generating..."]
        if asked < len(words):
            return JSONResponse({"id": name, "status": words[asked], "result": None, "progress": 0.1})
        if prompt == "withheld":
            return JSONResponse({"id": name, "status": "Content Moderated", "result": None})
        sample = own.link(call, own.picture(size, form))
        return JSONResponse({"id": name, "status": "Ready", "result": {"sample": sample, "seed": 1}})

    own = Provider(
        lambda why, status: {"detail": [{"loc": ["body"], "msg": why, "type": "value_error"}]},
        lambda headers: headers.get("x-key") == KEY,
        post,
        get,
    )
    return own


def plain(value: object) -> None:
    """A link, a data URL, or bare base64."""
    text = value if isinstance(value, str) else ""
    if text.startswith(("data:", "http://", "https://")):
        reference(text)
    else:
        need(re.fullmatch(r"[A-Za-z0-9+/]{40,}=*", text), f"a picture: {text[:30]!r}")


_FAL_SIZES = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
_GEMINI = ["auto", "21:9", "16:9", "3:2", "4:3", "5:4", "1:1", "4:5", "3:4", "2:3", "9:16"]


def fal() -> Provider:
    """A queue; addresses lack the model's sub-path, and are a query away from what one would build."""

    def post(call: Call) -> Response:
        body, path = call.body, call.path.strip("/")
        one_of(body, "output_format", "png", "jpeg", "webp")
        need(body.get("prompt"), "prompt is required")
        whole(body, "num_images", 1, 4)
        is_edit = path.endswith("/edit")
        need(is_edit == ("image_urls" in body), f"image_urls belong to /edit: {path}")
        for each in body.get("image_urls", []):
            reference(each)
        if "nano-banana" in path:
            only(
                body,
                *(
                    [
                        "prompt",
                        "num_images",
                        "aspect_ratio",
                        "resolution",
                        "output_format",
                        "image_urls",
                        "sync_mode",
                        "seed",
                    ]
                ),
            )
            one_of(body, "aspect_ratio", *_GEMINI)
            one_of(body, "resolution", "1K", "2K", "4K")
            ratio, tier = body.get("aspect_ratio", "auto"), body.get("resolution", "1K")
            size = shaped("1:1" if ratio == "auto" else ratio, int(tier[0]) ** 2 * 2**20)
        else:
            only(
                body,
                *(
                    [
                        "prompt",
                        "num_images",
                        "image_size",
                        "output_format",
                        "image_urls",
                        "sync_mode",
                        "seed",
                        "guidance_scale",
                    ]
                ),
                *(["num_inference_steps", "enable_safety_checker", "safety_tolerance", "acceleration"]),
                *("enable_prompt_expansion",),
            )
            given = body.get("image_size", "landscape_4_3")
            if isinstance(given, str):
                one_of(body, "image_size", *_FAL_SIZES)
                size = _FAL_SIZES[given]
            else:
                only(given, "width", "height")
                size = (given["width"], given["height"])
                need(all(type(edge) is int for edge in size), "image_size takes integers")
        name = f"t{len(own.tasks)}"
        own.tasks[name] = [size, body.get("output_format", "png"), 0, body]
        parent = f"{call.base}/{'/'.join(path.split('/')[:2])}/requests/{name}"
        return JSONResponse(
            {
                "status": "IN_QUEUE",
                "request_id": name,
                "response_url": f"{parent}?{_SECRET}",
                "status_url": f"{parent}/status?{_SECRET}",
                "cancel_url": f"{call.base}/away/{name}?{_SECRET}",
                "queue_position": 3,
            }
        )

    def get(call: Call) -> Response:
        need(call.query.get("pos") == "/1" and call.query.get("t") == "a+b", f"address made up: {call.path}", 405)
        found = re.fullmatch(r"/[^/]+/[^/]+/requests/(t\d+)(/status|/cancel|)", call.path)
        need(found, f"no such path {call.path}", 405)
        assert found
        size, form, asked, body = task = own.tasks[found[1]]
        if found[2] == "/status":
            task[2] += 1
            if asked < 2:
                word = ("IN_QUEUE", "IN_PROGRESS")[asked]
                return JSONResponse({"status": word, "queue_position": 0, "logs": None}, 202)
            return JSONResponse({"status": "COMPLETED", "metrics": {"inference_time": 1.2}, "logs": None})
        need(asked > 2, "still in progress", 400)
        if body["prompt"] == "withheld":
            detail = [{"loc": ["body", "prompt"], "msg": "flagged", "type": "content_policy_violation"}]
            return JSONResponse({"detail": detail}, 422, {"X-Fal-Retryable": "false"})
        images = [
            {
                "url": own.link(call, own.picture(size, form)),
                "width": None,
                "height": None,
                "content_type": f"image/{form}",
            }
            for _ in range(body.get("num_images", 1))
        ]
        return JSONResponse({"images": images, "seed": 1, "has_nsfw_concepts": [False] * len(images), "prompt": "x"})

    own = Provider(
        lambda why, status: {"detail": [{"loc": ["body"], "msg": why, "type": "value_error"}]},
        lambda headers: headers.get("authorization") == f"Key {KEY}",
        post,
        get,
    )
    return own


_FLUX_2_PRO = (
    *("prompt", "aspect_ratio", "width", "height", "input_images", "seed", "resolution", "safety_tolerance"),
    *("output_format", "output_quality"),
)
_FLUX_DEV = (
    *("prompt", "aspect_ratio", "image", "prompt_strength", "num_outputs", "num_inference_steps", "guidance", "seed"),
    *("output_format", "output_quality", "disable_safety_checker", "go_fast", "megapixels"),
)


def replicate() -> Provider:
    """Answers a waiting request with 201 and a prediction that is still processing; `output` is one link or a list."""
    flux_2 = ["match_input_image", "custom", "1:1", "16:9", "3:2", "2:3", "4:5", "5:4", "9:16", "3:4", "4:3"]
    dev = ["1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21"]

    def post(call: Call) -> Response:
        found = re.search(r"/models/([\w-]+/[\w.-]+)/predictions$", call.path)
        need(found, f"no such path {call.path}", 404)
        assert found
        only(call.body, "input", "webhook", "webhook_events_filter")
        wait = call.headers.get("prefer")
        if wait is not None:
            span = re.fullmatch(r"wait(?:=(\d+))?", wait)
            need(span and 1 <= int(span[1] or 60) <= 60, f"Prefer: {wait}")
        body, count, size = call.body["input"], 1, (1024, 1024)
        need(body.get("prompt"), "input.prompt is required")
        one_of(body, "output_format", "webp", "jpg", "png")
        if found[1].endswith("flux-2-pro"):
            only(body, *_FLUX_2_PRO)
            one_of(body, "aspect_ratio", *flux_2)
            need(("width" in body) == (body.get("aspect_ratio") == "custom"), "width belongs to custom")
            if "width" in body:
                size = edges(body, 256, 2048, 1)
            elif body.get("aspect_ratio", "m")[0].isdigit():
                size = shaped(body["aspect_ratio"], 2**20)
            for each in body.get("input_images", []):
                reference(each)
        elif found[1].endswith("flux-dev"):
            only(body, *_FLUX_DEV)
            one_of(body, "aspect_ratio", *dev)
            one_of(body, "megapixels", "1", "0.25")
            whole(body, "num_outputs", 1, 4)
            count = body.get("num_outputs", 1)
            size = shaped(body.get("aspect_ratio", "1:1"), int(2**20 * float(body.get("megapixels", "1"))))
            if "image" in body:
                reference(body["image"])
        else:
            need(False, f"no model {found[1]}", 404)
        whole(body, "output_quality", 0, 100)
        name = f"t{len(own.tasks)}"
        form = body.get("output_format", "webp")
        own.tasks[name] = [size, form, 0, body["prompt"], count, found[1].endswith("dev")]
        word = "processing" if wait else "starting"
        return JSONResponse(prediction(call, name, word, None), 201)

    def prediction(call: Call, name: str, word: str, output: Any, error: Any = None) -> dict[str, Any]:
        urls = {
            "get": f"{call.base}/regional/{name}?{_SECRET}",
            "cancel": f"{call.base}/away/{name}?{_SECRET}",
            "web": "https://replicate.com/p/x",
        }
        return {"id": name, "status": word, "output": output, "error": error, "logs": "", "urls": urls, "metrics": {}}

    def get(call: Call) -> Response:
        need(call.query.get("pos") == "/1", f"address made up: {call.path}", 404)
        name = call.path.split("/")[2]
        size, form, asked, prompt, count, is_list = task = own.tasks[name]
        task[2] += 1
        if asked < 2:
            return JSONResponse(prediction(call, name, ("starting", "processing")[asked], None))
        if prompt == "withheld":
            return JSONResponse(prediction(call, name, "failed", None, "NSFW content detected. (E005)"))
        links = [own.link(call, own.picture(size, form)) for _ in range(count)]
        return JSONResponse(prediction(call, name, "succeeded", links if is_list else links[0]))

    own = Provider(lambda why, status: {"title": "Invalid", "detail": why, "status": status}, bearer, post, get)
    return own
