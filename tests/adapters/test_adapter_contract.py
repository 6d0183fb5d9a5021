"""Our own adapters, and those of made-up providers, keep to what the public kit holds third parties to."""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.adapters import made_up

from imagegate.adapter import Adapter, ImageReply, PendingTask, ReplyImage, UpstreamReply
from imagegate.registry import installed, load_adapter
from imagegate.testing import AdapterContract, Fixture, png

B64 = base64.b64encode(png()).decode()
LINK = "https://cdn.example/1.png"
REFUSED: dict[str, Any] = {"message": "Invalid size '9x9'.", "type": "image_generation_user_error", "param": "size"}
OPENAI = (
    Fixture(name="base64", outcome="pictures", document={"created": 1, "data": [{"b64_json": B64}]}),
    Fixture(name="links", outcome="pictures", document={"created": 1, "data": [{"url": LINK}] * 3}, count=3),
    Fixture(
        name="refused", outcome="refused", status=400, document={"error": REFUSED}, code="invalid_request", means=400
    ),
    Fixture(
        name="blocked",
        outcome="moderated",
        status=400,
        document={
            "error": {"message": "Your request was rejected by the safety system.", "code": "moderation_blocked"}
        },
        code="moderation_blocked",
    ),
    Fixture(name="no variations", outcome="refused", status=404, means=404),
    Fixture(name="rate", outcome="refused", status=429, document={"error": {"message": "Slow down."}}, means=429),
    Fixture(name="error in a 200", outcome="refused", document={"error": {"message": "No."}}),
)
NEW_API = (
    Fixture(
        name="lost", outcome="refused", status=400, document={"code": "task_not_exist", "message": "x", "data": None}
    ),
    Fixture(
        name="failed",
        outcome="ended",
        document={"code": "success", "data": {"task_id": "t", "status": "FAILURE", "fail_reason": "Too dark."}},
    ),
)
TASK = PendingTask(id="t")


class TestOpenAI(AdapterContract):
    adapter = load_adapter("openai")
    fixtures = OPENAI


class TestAzure(AdapterContract):
    adapter = load_adapter("azure", {"resource": "studio"})
    fixtures = (
        *OPENAI,
        *(
            Fixture(
                name=message,
                outcome="moderated",
                status=400,
                document={"created": 1, "error": {"code": "contentFilter", "message": message}},
                means=400,
            )
            for message in (
                "Your task failed as a result of our safety system.",
                "Generated image was filtered as a result of our safety system.",
            )
        ),
        Fixture(
            name="no deployment",
            outcome="refused",
            status=404,
            document={"error": {"code": "DeploymentNotFound", "message": "It does not exist."}},
            means=404,
        ),
    )


class TestAzureDeployments(TestAzure):
    adapter = load_adapter("azure", {"resource": "studio", "form": "deployments"})


def google(*parts: Any, reason: str = "STOP", **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": list(parts)}, "finishReason": reason}], **more}


PICTURE = {"inlineData": {"mimeType": "image/png", "data": B64}}


class TestGemini(AdapterContract):
    adapter = load_adapter("gemini")
    fixtures = (
        Fixture(name="picture", outcome="pictures", document=google({"text": "Here."}, PICTURE)),
        Fixture(name="draft and picture", outcome="pictures", document=google({**PICTURE, "thought": True}, PICTURE)),
        Fixture(
            name="the other spelling",
            outcome="pictures",
            document=google({"inline_data": {"mime_type": "image/png", "data": B64}}),
        ),
        Fixture(name="drafts only", outcome="uncertain", document=google({**PICTURE, "thought": True})),
        Fixture(
            name="words only", outcome="uncertain", document=google({"text": "No."}, reason="NO_IMAGE"), code="no_image"
        ),
        Fixture(name="other", outcome="uncertain", document=google(reason="IMAGE_OTHER")),
        *(
            Fixture(name=word, outcome="moderated", document={"candidates": [{"content": {}, "finishReason": word}]})
            for word in (
                *("SAFETY", "IMAGE_SAFETY", "PROHIBITED_CONTENT", "IMAGE_PROHIBITED_CONTENT", "RECITATION"),
                *("IMAGE_RECITATION", "BLOCKLIST", "SPII"),
            )
        ),
        Fixture(name="prompt", outcome="moderated", document={"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}),
        Fixture(
            name="unknown model",
            outcome="refused",
            status=404,
            document={"error": {"code": 404, "message": "models/x is not found", "status": "NOT_FOUND"}},
            code="NOT_FOUND",
            means=404,
        ),
        Fixture(
            name="quota",
            outcome="refused",
            status=429,
            document={"error": {"code": 429, "message": "Quota.", "status": "RESOURCE_EXHAUSTED"}},
            means=429,
        ),
    )


class TestVertex(TestGemini):
    adapter = load_adapter("vertex", {"project": "studio-1", "location": "europe-west4"})


class TestVertexExpress(TestGemini):
    adapter = load_adapter("vertex")


class TestOpenAICompatible(AdapterContract):
    adapter = load_adapter("openai-compatible")
    fixtures = (
        *OPENAI,
        Fixture(name="bytes", outcome="pictures", body=png(), headers={"content-type": "image/png"}),
        Fixture(name="created", outcome="task", document={"task_id": "task_1", "status": "queued"}),
        *NEW_API,
    )


class TestOpenAICompatibleLinks(TestOpenAICompatible):
    adapter = load_adapter(
        "openai-compatible",
        {"references": "links", "mask_field": "mask_url", "sizes": "gemini-3-pro-image", "most_images": 1},
    )


class TestNewAPI(TestOpenAICompatible):
    adapter = load_adapter(
        "openai-compatible", {"tasks": "new-api", "references": "objects", "version_path": "/api/v3"}
    )


class TestMidjourney(AdapterContract):
    adapter = load_adapter("openai-compatible", {"tasks": "midjourney"})
    fixtures = (
        Fixture(name="submitted", outcome="task", document={"code": 1, "description": "ok", "result": "1689"}),
        Fixture(name="queued", outcome="task", document={"code": 22, "description": "queued", "result": 1689}),
        Fixture(name="code as text", outcome="task", document={"code": "1", "description": "ok", "result": "1689"}),
        Fixture(name="queue full", outcome="refused", document={"code": 23, "description": "queue full", "result": ""}),
        Fixture(
            name="banned", outcome="moderated", document={"code": 24, "description": "banned prompt", "result": ""}
        ),
        Fixture(name="no account", outcome="refused", document={"code": 3, "description": "no account"}),
        Fixture(name="no id", outcome="uncertain", document={"code": 1, "description": "ok", "result": ""}),
        *(
            Fixture(name=word, outcome="task", document={"id": "1", "status": word, "progress": "50%"}, task=TASK)
            for word in ("NOT_START", "SUBMITTED", "MODAL", "IN_PROGRESS", "DREAMING")
        ),
        Fixture(
            name="done", outcome="pictures", document={"id": "1", "status": "SUCCESS", "imageUrl": LINK}, task=TASK
        ),
        Fixture(
            name="failed",
            outcome="ended",
            document={"id": "1", "status": "FAILURE", "failReason": "Timeout."},
            task=TASK,
        ),
        Fixture(name="cancelled", outcome="ended", document={"id": "1", "status": "CANCEL"}, task=TASK),
        Fixture(name="no picture", outcome="uncertain", document={"id": "1", "status": "SUCCESS"}, task=TASK),
        Fixture(
            name="empty link", outcome="uncertain", document={"id": "1", "status": "SUCCESS", "imageUrl": ""}, task=TASK
        ),
    )


class TestOneToken(AdapterContract):
    adapter = load_adapter("onetoken")
    fixtures = (*OPENAI, *NEW_API)


class TestTokMode(AdapterContract):
    adapter = load_adapter("tokmodel")
    fixtures = OPENAI


class TestTokenBay(AdapterContract):
    adapter = load_adapter("tokenbay")
    fixtures = (*OPENAI, Fixture(name="failed in a 200", outcome="ended", document={"status": "failed", "error": "x"}))


class TestTokenLab(AdapterContract):
    adapter = load_adapter("tokenlab")
    fixtures = (
        *OPENAI,
        Fixture(
            name="created",
            outcome="task",
            document={"status": "pending", "task_id": "ldtask_1", "poll_url": "/v1/tasks/ldtask_1"},
        ),
        Fixture(name="failed", outcome="ended", document={"status": "failed", "error": "x"}, task=TASK),
    )


class TestToAPIs(AdapterContract):
    adapter = load_adapter("toapis")
    fixtures = (
        *OPENAI,
        Fixture(name="created", outcome="task", document={"id": "tsk_img_1", "status": "queued", "progress": 0}),
        Fixture(
            name="done",
            outcome="pictures",
            document={"id": "t", "status": "completed", "result": {"type": "image", "data": [{"url": LINK}]}},
            task=TASK,
        ),
        Fixture(
            name="failed",
            outcome="ended",
            document={"id": "t", "status": "failed", "error": {"code": "generation_failed", "message": "x"}},
            task=TASK,
        ),
    )


def contracts_here() -> set[str]:
    """Names of the adapters that the classes of this folder hold to it."""
    for file in Path(__file__).parent.glob("test_*.py"):
        import_module(f"tests.adapters.{file.stem}")
    classes, known = [AdapterContract], set[type[AdapterContract]]()
    while classes:
        kind = classes.pop()
        known.add(kind)
        classes += set(kind.__subclasses__()) - known
    return {kind.adapter.name for kind in known if hasattr(kind, "adapter") and kind.__module__.startswith("tests.")}


# What the kit finds wrong


def broken(kind: type[Adapter], **members: Any) -> Any:
    adapter = type("Broken", (kind,), members)()
    return type("TestBroken", (AdapterContract,), {"adapter": adapter, "fixtures": OPENAI})()


def forgets_files(self: Any, request: Any) -> Any:
    return made_up.OpenAIAdapter.encode(self, msgspec.structs.replace(request, images=(), mask=None))


def reads_a_file(self: Any, request: Any) -> Any:
    with open(__file__, encoding="utf-8") as file:
        file.read(1)
    return made_up.OpenAIAdapter.encode(self, request)


def writes_a_file(self: Any, request: Any) -> Any:
    with suppress(Exception, AssertionError):
        Path(os.devnull).write_text("kept")
    return made_up.OpenAIAdapter.encode(self, request)


def connects(self: Any, request: Any) -> Any:
    socket.create_connection(("127.0.0.1", 9), timeout=1)
    return made_up.OpenAIAdapter.encode(self, request)


def runs_a_program(self: Any, request: Any) -> Any:
    os.system("true")
    return made_up.OpenAIAdapter.encode(self, request)


def looks_around(self: Any, request: Any) -> Any:
    os.listdir(".")
    return made_up.OpenAIAdapter.encode(self, request)


def names_the_key(self: Any, request: Any) -> Any:
    encoded = made_up.OpenAIAdapter.encode(self, request)
    return msgspec.structs.replace(encoded, headers=(("authorization", "Bearer x"),))


def trusts_the_model(self: Any, request: Any) -> Any:
    return msgspec.structs.replace(made_up.OpenAIAdapter.encode(self, request), path=f"/v1/{request.model}")


def trusts_the_reply(self: Adapter, reply: UpstreamReply, *, now: int) -> ImageReply:
    document = json.loads(reply.body)
    return ImageReply(images=(ReplyImage(url=document["result"]["url"]),), created=now)


def refuses_everything(self: Any, reply: Any, *, now: int) -> Any:
    from imagegate.errors import UpstreamRefused

    raise UpstreamRefused("It was refused.")


CHECKS = [name for name in dir(AdapterContract) if name.startswith("test_")]


@pytest.mark.parametrize(
    ("check", "members"),
    [
        ("test_encodes_every_legal_request", {"encode": forgets_files}),
        ("test_encodes_every_legal_request", {"encode": names_the_key}),
        ("test_encodes_every_legal_request", {"names_jobs": True}),
        ("test_encoding_is_pure", {"encode": reads_a_file}),
        ("test_encoding_is_pure", {"encode": writes_a_file}),
        ("test_encoding_is_pure", {"encode": connects}),
        ("test_encoding_is_pure", {"encode": runs_a_program}),
        ("test_encoding_is_pure", {"encode": looks_around}),
        ("test_keeps_a_model_in_its_place", {"encode": trusts_the_model}),
        ("test_ambiguous_replies_are_uncertain", {"decode": refuses_everything}),
        ("test_decodes_its_fixtures", {"decode": refuses_everything}),
        ("test_decodes_its_fixtures", {"decode": trusts_the_reply}),
        ("test_ambiguous_replies_are_uncertain", {"decode": trusts_the_reply}),
        ("test_asks_for_tasks_by_get", {"poll": lambda self, task: made_up.Careless().poll(task)}),
        ("test_asks_for_tasks_by_get", {"poll": lambda self, task: made_up.Queue().poll(task)}),
        ("test_has_a_name_and_an_address", {"name": "Two words"}),
        ("test_names_its_sources", {"contracts": lambda self: made_up.Inline().contracts()}),
    ],
)
def test_the_kit_finds_faults(check: str, members: dict[str, Any]) -> None:
    """Each of its tests fails for an adapter that does wrong, and passes for the one that it is made from."""
    kind = type(load_adapter("openai"))
    contracts = load_adapter("openai").contracts()
    one = msgspec.structs.replace(contracts, models={"gpt-image-1.5": contracts.models["gpt-image-1.5"]})
    whole = {"contracts": lambda self: one}
    getattr(broken(kind, **whole), check)()
    with pytest.raises(AssertionError):
        getattr(broken(kind, **{**whole, **members}), check)()


def test_the_kit_leaves_no_trace() -> None:
    """Whoever profiles the process goes on after it."""
    before = sys.getprofile()
    broken(type(load_adapter("openai"))).test_decoding_is_pure()
    assert sys.getprofile() is before


def test_every_adapter_that_ships_is_held_to_it() -> None:
    """None is left out."""
    assert set(installed()) - contracts_here() == set()
