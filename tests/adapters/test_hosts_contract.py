"""Adapters of hosting providers keep to what the public kit holds third parties to, and read their replies."""

from __future__ import annotations

import base64
from typing import Any

from imagegate.adapter import PendingTask
from imagegate.registry import load_adapter
from imagegate.testing import AdapterContract, Fixture, png

PICTURE = png()
B64 = base64.b64encode(PICTURE).decode()
URL = "https://pictures.example/1.png"
TASK = PendingTask(id="3f2a")
BYTES = Fixture(name="bytes", outcome="pictures", body=PICTURE, headers={"content-type": "image/png"})
BLURRED = Fixture(
    name="bytes of a blurred picture",
    outcome="moderated",
    body=PICTURE,
    headers={"content-type": "image/png", "finish-reason": "CONTENT_FILTERED"},
)


def refused(status: int, document: Any, code: str = "", name: str = "") -> Fixture:
    return Fixture(
        name=name or f"a {status}", outcome="refused", status=status, document=document, means=status, code=code
    )


class TestTogether(AdapterContract):
    adapter = load_adapter("together")
    fixtures = (
        Fixture(
            name="base64",
            outcome="pictures",
            document={
                "id": "o1",
                "model": "m",
                "object": "list",
                "data": [{"index": place, "type": "b64_json", "b64_json": B64} for place in range(2)],
            },
            count=2,
        ),
        Fixture(
            name="a link", outcome="pictures", document={"id": "o1", "data": [{"index": 0, "type": "url", "url": URL}]}
        ),
        refused(
            401, {"error": {"message": "Invalid API key provided", "type": "invalid_request_error", "param": None}}
        ),
        refused(429, {"error": {"message": "You have reached the rate limit", "type": "rate_limit", "code": None}}),
        refused(422, {"error": {"message": "width must be a multiple of 16", "type": "invalid_request_error"}}),
        Fixture(
            name="NSFW",
            outcome="moderated",
            status=422,
            document={"error": {"message": "NSFW content detected in the prompt", "type": "invalid_request_error"}},
        ),
        refused(503, {"error": {"message": "The engine is currently overloaded", "type": "server_error"}}),
    )


class TestDeepInfra(AdapterContract):
    adapter = load_adapter("deepinfra")
    fixtures = (
        Fixture(
            name="data URLs",
            outcome="pictures",
            document={"images": [f"data:image/png;base64,{B64}"], "request_id": "r", "seed": 1, "nsfw": [False]},
        ),
        Fixture(name="an edit", outcome="pictures", document={"created": 1, "data": [{"b64_json": B64}]}),
        refused(400, {"detail": {"error": "width must be a multiple of 32"}}, name="its own path"),
        refused(400, {"error": {"message": "image is required"}}, name="OpenAI's path"),
        refused(401, {"detail": {"error": "Unauthorized: bad token"}}),
        refused(404, {"detail": {"error": "Model not found"}}),
        refused(429, {"detail": {"error": "Model busy, retry later"}}),
    )


class TestHuggingFace(AdapterContract):
    adapter = load_adapter("huggingface")
    fixtures = (
        BYTES,
        Fixture(name="a partner", outcome="pictures", document={"created": 1, "data": [{"b64_json": B64}]}),
        refused(401, {"error": "Invalid username or password."}),
        refused(404, {"error": "Model o/n does not exist"}),
        refused(400, {"error": ["Error in `parameters.width`: must be a multiple of 8"]}),
        refused(503, {"error": "Model o/n is currently loading", "estimated_time": 20.0}),
        refused(429, {"error": "Rate limit reached. Please log in or use a HF access token"}),
    )


class TestFireworks(AdapterContract):
    adapter = load_adapter("fireworks")
    fixtures = (
        BYTES,
        BLURRED,
        Fixture(
            name="JSON",
            outcome="pictures",
            document={"id": "1", "base64": [f"data:image/png;base64,{B64}"], "finishReason": "SUCCESS", "seed": 1},
        ),
        Fixture(
            name="JSON of a blurred picture",
            outcome="moderated",
            document={"id": "1", "base64": [B64], "finishReason": "CONTENT_FILTERED", "seed": 1},
        ),
        Fixture(name="accepted", outcome="task", document={"request_id": "3f2a"}),
        Fixture(
            name="waiting", outcome="task", document={"id": "3f2a", "status": "Pending", "result": None}, task=TASK
        ),
        Fixture(name="a new word", outcome="task", document={"id": "3f2a", "status": "Dreaming"}, task=TASK),
        Fixture(
            name="ready",
            outcome="pictures",
            document={"id": "3f2a", "status": "Ready", "result": {"sample": URL}, "progress": 1.0},
            task=TASK,
        ),
        *(
            Fixture(name=word, outcome="moderated", document={"id": "3f2a", "status": word, "result": None}, task=TASK)
            for word in ("Request Moderated", "Content Moderated")
        ),
        Fixture(name="error", outcome="ended", document={"id": "3f2a", "status": "Error", "result": None}, task=TASK),
        Fixture(
            name="lost",
            outcome="refused",
            document={"id": "3f2a", "status": "Task not found", "result": None},
            code="task_not_found",
            task=TASK,
        ),
        refused(401, {"error": {"object": "error", "type": "UNAUTHORIZED", "message": "The API key is invalid"}}),
        refused(400, {"error": "aspect_ratio is not supported"}),
        refused(429, {"error": {"object": "error", "type": "RATE_LIMITED", "message": "Too many images for now"}}),
    )


class TestStability(AdapterContract):
    adapter = load_adapter("stability")
    fixtures = (
        Fixture(
            name="base64", outcome="pictures", document={"image": B64, "finish_reason": "SUCCESS", "seed": 343940597}
        ),
        BYTES,
        BLURRED,
        Fixture(
            name="a blurred picture",
            outcome="moderated",
            document={"image": B64, "finish_reason": "CONTENT_FILTERED", "seed": 1},
        ),
        Fixture(name="accepted", outcome="task", status=202, document={"id": "3f2a"}),
        Fixture(
            name="at work", outcome="task", status=202, document={"id": "3f2a", "status": "in-progress"}, task=TASK
        ),
        Fixture(
            name="a result",
            outcome="pictures",
            document={"result": B64, "finish_reason": "SUCCESS", "seed": 1},
            task=TASK,
        ),
        Fixture(
            name="flagged",
            outcome="moderated",
            status=403,
            document={
                "id": "a",
                "name": "content_moderation",
                "errors": ["Your request was flagged by our content moderation system, as a result your request ..."],
            },
        ),
        refused(400, {"id": "a", "name": "bad_request", "errors": ["aspect_ratio: must be one of 16:9"]}),
        refused(401, {"id": "a", "name": "unauthorized", "errors": ["authorization: is invalid"]}),
        refused(402, {"id": "a", "name": "payment_required", "errors": ["You lack sufficient credits"]}),
        refused(413, {"id": "a", "name": "payload_too_large", "errors": ["The body is larger than 10MiB"]}),
        refused(429, {"id": "a", "name": "rate_limit_exceeded", "errors": ["You have exceeded the rate limit"]}),
    )


class TestBedrock(AdapterContract):
    adapter = load_adapter("bedrock")
    fixtures = (
        Fixture(name="base64", outcome="pictures", document={"seeds": [1], "finish_reasons": [None], "images": [B64]}),
        *(
            Fixture(name=reason, outcome="moderated", document={"finish_reasons": [f"Filter reason: {reason}"]})
            for reason in ("prompt", "output image", "input image")
        ),
        Fixture(name="an inference error", outcome="uncertain", document={"finish_reasons": ["Inference error"]}),
        Fixture(
            name="a model that timed out",
            outcome="uncertain",
            status=408,
            document={"message": "Model has timed out in processing the request."},
            means=504,
        ),
        Fixture(name="a model that failed", outcome="uncertain", status=424, document={"message": "It failed."}),
        refused(400, {"message": "The provided model identifier is invalid."}),
        refused(403, {"Message": "Authentication failed: Please make sure your API Key is valid."}),
        refused(429, {"message": "Too many requests, please wait before trying again."}),
        refused(503, {"message": "Bedrock is unable to process your request."}),
    )


class TestIdeogram(AdapterContract):
    adapter = load_adapter("ideogram")
    fixtures = (
        Fixture(
            name="links",
            outcome="pictures",
            document={
                "created": "2026-11-29T10:00:00Z",
                "data": [
                    {"prompt": "A hat", "resolution": "1024x1024", "is_image_safe": True, "seed": 1, "url": URL}
                    for _ in range(2)
                ],
            },
            count=2,
        ),
        Fixture(
            name="withheld",
            outcome="moderated",
            document={
                "created": "2026-11-29T10:00:00Z",
                "data": [{"prompt": "x", "resolution": "1024x1024", "is_image_safe": False, "seed": 1, "url": None}],
            },
        ),
        refused(401, {"error": "Invalid api token"}),
        refused(400, {"error": "resolution and aspect_ratio cannot be used together"}),
        Fixture(
            name="unsafe prompt",
            outcome="moderated",
            status=422,
            document={"error": "Prompt or provided image failed the safety checks"},
        ),
        refused(429, {"error": "Too many requests in flight"}),
    )


class TestRecraft(AdapterContract):
    adapter = load_adapter("recraft")
    fixtures = (
        Fixture(
            name="links",
            outcome="pictures",
            document={
                "created": 1,
                "credits": 80,
                "data": [{"image_id": "a", "url": URL}, {"image_id": "b", "url": URL}],
            },
            count=2,
        ),
        Fixture(
            name="base64",
            outcome="pictures",
            document={"created": 1, "credits": 40, "data": [{"image_id": "a", "b64_json": B64}]},
        ),
        refused(400, {"code": "invalid_request_parameter", "message": "size is not supported by the model"}),
        Fixture(
            name="wrong token",
            outcome="refused",
            status=401,
            body=b"request unauthorized",
            headers={"content-type": "text/plain"},
            means=401,
        ),
        refused(402, {"code": "not_enough_credits", "message": "There are not enough credits"}),
        refused(429, {"code": "rate_limit_exceeded", "message": "Too many images in a minute"}),
    )
