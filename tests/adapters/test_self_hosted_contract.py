"""Adapters of self-hosted servers keep to what the public kit holds third parties to."""

from __future__ import annotations

import base64
import json

from imagegate.adapter import PendingTask, TextFile
from imagegate.registry import load_adapter
from imagegate.testing import AdapterContract, Fixture, png
from imagegate_adapters.comfyui import ComfyUI
from imagegate_adapters.comfyui_workflows import Options

B64 = base64.b64encode(png()).decode()
PICTURE = Fixture(name="base64", outcome="pictures", document={"created": 1, "data": [{"b64_json": B64}]})
DETAIL = (
    Fixture(name="refused", outcome="refused", status=400, document={"detail": "Invalid size format"}, means=400),
    Fixture(name="not started", outcome="refused", status=503, document={"detail": "Not initialized."}, means=503),
    Fixture(
        name="a member",
        outcome="refused",
        status=422,
        document={"detail": [{"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}]},
        means=422,
    ),
    Fixture(name="no key", outcome="refused", status=401, document={"error": "Unauthorized"}, means=401),
)
JOB = PendingTask(id="0b7e3f0a-5d1c-4f0e-9b57-6a9f1c2d3e4f")
HISTORY = PendingTask(id=JOB.id, poll_url=f"/history/{JOB.id}")


class TestVLLMOmni(AdapterContract):
    adapter = load_adapter("vllm-omni")
    fixtures = (PICTURE, *DETAIL)


class TestSGLang(AdapterContract):
    adapter = load_adapter("sglang")
    fixtures = (PICTURE, *DETAIL)


SDCPP = (
    PICTURE,
    Fixture(name="refused", outcome="refused", status=400, document={"error": "prompt required"}, means=400),
    Fixture(name="nothing made", outcome="refused", status=500, document={"error": "no results"}, means=500),
)


class TestStableDiffusionCpp(AdapterContract):
    adapter = load_adapter("stable-diffusion-cpp")
    fixtures = SDCPP


class TestStableDiffusionCppJobs(AdapterContract):
    adapter = load_adapter("stable-diffusion-cpp", {"api": "jobs"})
    fixtures = (
        *SDCPP,
        Fixture(name="queued", outcome="task", status=202, document={"id": "j", "status": "queued", "poll_url": "/j"}),
        Fixture(name="full", outcome="refused", status=429, document={"error": "job queue is full"}, means=429),
        Fixture(name="at work", outcome="task", document={"id": "j", "status": "generating"}, task=JOB),
        Fixture(
            name="done",
            outcome="pictures",
            document={"id": "j", "status": "completed", "result": {"images": [{"index": 0, "b64_json": B64}] * 2}},
            count=2,
            task=JOB,
        ),
        Fixture(
            name="failed",
            outcome="ended",
            document={"id": "j", "status": "failed", "error": {"code": "generation_failed", "message": "x"}},
            code="generation_failed",
            task=JOB,
        ),
        Fixture(name="expired", outcome="refused", status=410, document={"error": "job expired"}, task=JOB),
    )


class TestLocalAI(AdapterContract):
    adapter = load_adapter("localai")
    fixtures = (
        Fixture(
            name="zeros beside it",
            outcome="pictures",
            document={"created": 3, "id": "1", "data": [{"b64_json": B64}], "usage": {"total_tokens": 0}},
        ),
        Fixture(name="a path", outcome="pictures", document={"created": 3, "data": [{"url": "/generated/a.png"}]}),
        Fixture(
            name="failed",
            outcome="refused",
            status=500,
            document={"error": {"code": 500, "message": "failed", "type": ""}},
            means=500,
        ),
        Fixture(
            name="no key",
            outcome="refused",
            status=401,
            document={"error": {"code": 401, "message": "An authentication key is required", "type": "x"}},
            means=401,
        ),
    )


class TestLocalAIFiles(TestLocalAI):
    adapter = load_adapter("localai", {"references": "files"})


class TestOllama(AdapterContract):
    adapter = load_adapter("ollama")
    fixtures = (
        PICTURE,
        Fixture(
            name="no model",
            outcome="refused",
            status=404,
            document={"error": {"message": "model 'x' not found", "type": "not_found_error"}},
            means=404,
        ),
    )


class TestA1111(AdapterContract):
    adapter = load_adapter("a1111")
    fixtures = (
        Fixture(name="strings", outcome="pictures", document={"images": [B64] * 2, "info": "{}"}, count=2),
        Fixture(
            name="an exception",
            outcome="refused",
            status=500,
            document={"error": "RuntimeError", "detail": "", "body": "", "errors": "CUDA"},
            means=500,
        ),
    )


FILE = {"filename": "a_00001_.png", "subfolder": "", "type": "output"}
DONE = {"9": {"images": [FILE, {**FILE, "type": "temp"}]}, "10": {"text": ["x"]}}
ERROR = {"node_type": "KSampler", "exception_message": "out of memory"}
NODE = {"errors": [{"message": "Value too small", "details": "seed", "extra_info": {"input_name": "seed"}}]}


def history(status: str, *messages: object) -> object:
    return {JOB.id: {"outputs": DONE, "status": {"status_str": status, "messages": [*messages]}}}


class TestComfyUI(AdapterContract):
    adapter = ComfyUI(
        Options(
            workflow=TextFile("w.json", json.dumps({"1": {"class_type": "X", "inputs": {"text": "", "seed": 1}}})),
            inputs={"prompt": "1.text", "seed": "1.seed"},
            edit_workflow=TextFile(
                "e.json", json.dumps({"1": {"class_type": "X", "inputs": {"text": "", "seed": 1, "image": "a.png"}}})
            ),
            edit_inputs={"prompt": "1.text", "seed": "1.seed", "image": "1.image"},
        )
    )
    fixtures = (
        Fixture(name="accepted", outcome="task", document={"prompt_id": JOB.id, "number": 1, "node_errors": {}}),
        Fixture(
            name="refused",
            outcome="refused",
            status=400,
            document={
                "error": {"type": "x", "message": "Prompt outputs failed validation"},
                "node_errors": {"1": NODE},
            },
            means=400,
        ),
        Fixture(name="twice", outcome="refused", status=409, document={"error": "prompt_id already exists"}),
        Fixture(name="waiting", outcome="task", document={"id": JOB.id, "status": "pending"}, task=JOB),
        Fixture(name="a new word", outcome="task", document={"id": JOB.id, "status": "dreaming"}, task=JOB),
        Fixture(name="done", outcome="pictures", document={"status": "completed", "outputs": DONE}, task=JOB),
        Fixture(
            name="failed",
            outcome="ended",
            document={"status": "failed", "execution_error": ERROR},
            code="generation_failed",
            task=JOB,
        ),
        Fixture(name="cancelled", outcome="ended", document={"status": "cancelled"}, code="task_cancelled", task=JOB),
        Fixture(name="unknown", outcome="refused", status=404, document={"error": "Job not found"}, task=JOB),
        Fixture(name="no jobs", outcome="task", status=404, body=b"404: Not Found", task=JOB),
        Fixture(name="nothing saved", outcome="ended", document={"status": "completed", "outputs": {}}, task=JOB),
        Fixture(name="history: not yet", outcome="task", document={}, task=HISTORY),
        Fixture(name="history: done", outcome="pictures", document=history("success"), task=HISTORY),
        Fixture(
            name="history: failed",
            outcome="ended",
            document=history("error", ["execution_error", ERROR]),
            code="generation_failed",
            task=HISTORY,
        ),
        Fixture(
            name="history: interrupted",
            outcome="ended",
            document=history("error", ["execution_interrupted", {}]),
            code="task_cancelled",
            task=HISTORY,
        ),
    )
