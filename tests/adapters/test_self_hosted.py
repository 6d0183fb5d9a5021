"""Adapters of self-hosted servers: what exactly they send, and what they make of replies."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.adapter import (
    FilePart,
    FileRef,
    ImageReply,
    InlineFile,
    Link,
    PendingTask,
    TextPart,
    UpstreamReply,
    UpstreamRequest,
)
from imagegate.contracts.documents import load_contracts
from imagegate.errors import RequestError, UpstreamError
from imagegate.fitting.fit import fit
from imagegate.protocol.image_format import Facts
from imagegate.protocol.messages import ImageRequest, LinkedFile
from imagegate.registry import load_adapter
from imagegate.routing.catalog import find_contract

PNG = "aGVsbG8="
CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "self_hosted_errors.jsonl").read_text("utf-8").splitlines()
]


class File(FileRef):
    """A reference of 100x60 pixels."""

    def __init__(self, name: str, media_type: str = "image/png", part: str = "image") -> None:
        self.filename, self._media_type, self.part, self.size, self.declared_type = (
            name,
            media_type,
            part,
            5,
            media_type,
        )

    @property
    def facts(self) -> Facts:
        return Facts("png", 100, 60, alpha=True)

    @property
    def media_type(self) -> str:
        return self._media_type

    def chunks(self) -> AsyncIterator[bytes]:
        raise NotImplementedError


def written(name: str, *, options: Mapping[str, Any] | None = None, images: int = 0, mask: bool = False, **fields: Any):
    """What a request becomes: method, path, and its body with files by their names."""
    adapter = load_adapter(name, options)
    operation = "edits" if images else "generations"
    contract = find_contract(load_contracts(adapter.contracts()), "m")
    assert contract is not None
    request = ImageRequest(
        operation=operation,
        fields={"model": "m", "prompt": "a hat", **fields},
        images=tuple(File(f"{place}.png") for place in range(images)),
        mask=File("mask.png", part="mask") if mask else None,
    )
    fitted, _ = fit(request, contract, random=lambda low, high: 7)
    return shown(adapter.encode(fitted))


def shown(request: UpstreamRequest) -> tuple[str, str, Any]:
    if request.parts:
        body: Any = [
            (part.name, part.value) if isinstance(part, TextPart) else (part.name, f"<{part.filename}>")
            for part in request.parts
        ]
    elif request.document is not None:
        body = plain(request.document)
    else:
        assert request.content_type == "application/json"
        body = json.loads(request.body or b"null")
    return request.method, request.path, body


def plain(node: Any) -> Any:
    if isinstance(node, InlineFile):
        return f"{node.head}<{node.upload.filename}>"
    if isinstance(node, Mapping):
        return {name: plain(value) for name, value in node.items()}
    return [plain(value) for value in node] if isinstance(node, list) else node


GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
EXTRA = '<sd_cpp_extra_args>{"seed":7}</sd_cpp_extra_args>'
JOBS = {"api": "jobs"}
A1111 = {
    "prompt": "a hat",
    "batch_size": 1,
    "n_iter": 1,
    "override_settings": {"return_grid": False, "sd_model_checkpoint": "m"},
    "override_settings_restore_afterwards": False,
}
LOCALAI = {"model": "m", "prompt": "a hat", "response_format": "b64_json"}
SGLANG = {"model": "m", "prompt": "a hat", "response_format": "b64_json", "output_format": "png", "seed": 7}
SGLANG_FORM = [(name, str(value)) for name, value in SGLANG.items()]

GOLDEN: list[tuple[str, dict[str, Any], str, Any]] = [
    ("vllm-omni", {}, GENERATIONS, {"model": "m", "prompt": "a hat"}),
    ("vllm-omni", {"size": "512x768"}, GENERATIONS, {"model": "m", "prompt": "a hat", "size": "512x768"}),
    (
        "vllm-omni",
        {"size": "1000x700", "n": 2},
        GENERATIONS,
        {"model": "m", "prompt": "a hat", "size": "1008x704", "n": 2},
    ),
    (
        *("vllm-omni", {"images": 2, "output_format": "jpeg"}, EDITS),
        [
            ("model", "m"),
            ("prompt", "a hat"),
            ("output_format", "jpeg"),
            ("image[]", "<0.png>"),
            ("image[]", "<1.png>"),
        ],
    ),
    (
        *("vllm-omni", {"images": 1, "background": "transparent", "lora": {"name": "a"}}, EDITS),
        [
            *(("model", "m"), ("prompt", "a hat"), ("background", "transparent"), ("lora", '{"name": "a"}')),
            ("image", "<0.png>"),
        ],
    ),
    (
        *("vllm-omni", {"images": 1, "mask": True}, EDITS),
        [("model", "m"), ("prompt", "a hat"), ("image", "<0.png>"), ("mask_image", "<mask.png>")],
    ),
    ("sglang", {}, GENERATIONS, SGLANG),
    ("sglang", {"size": "512x768", "seed": 3}, GENERATIONS, {**SGLANG, "size": "512x768", "seed": 3}),
    ("sglang", {"size": "auto", "response_format": "url"}, GENERATIONS, SGLANG),
    (
        *("sglang", {"images": 2, "size": "512x512"}, EDITS),
        [
            *(("model", "m"), ("prompt", "a hat"), ("size", "512x512"), *SGLANG_FORM[2:]),
            *(("image[]", "<0.png>"), ("image[]", "<1.png>")),
        ],
    ),
    ("stable-diffusion-cpp", {}, GENERATIONS, {"prompt": f"a hat{EXTRA}"}),
    (
        *("stable-diffusion-cpp", {"size": "512x768", "n": 2, "output_format": "webp"}, GENERATIONS),
        {"prompt": f"a hat{EXTRA}", "size": "512x768", "n": 2, "output_format": "webp"},
    ),
    (
        *("stable-diffusion-cpp", {"images": 2, "output_format": "webp"}, EDITS),
        [("prompt", f"a hat{EXTRA}"), ("output_format", "png"), ("image[]", "<0.png>"), ("image[]", "<1.png>")],
    ),
    (
        *("stable-diffusion-cpp", {"images": 1, "mask": True, "size": "64x64"}, EDITS),
        [("prompt", f"a hat{EXTRA}"), ("size", "64x64"), ("image", "<0.png>"), ("mask", "<mask.png>")],
    ),
    (
        *("stable-diffusion-cpp", {"options": JOBS}, "/sdcpp/v1/img_gen"),
        {"prompt": "a hat", "batch_count": 1, "seed": 7},
    ),
    (
        *("stable-diffusion-cpp", {"options": JOBS, "size": "512x768", "n": 3, "steps": 9}, "/sdcpp/v1/img_gen"),
        {
            "prompt": "a hat",
            "batch_count": 3,
            "seed": 7,
            "sample_params": {"sample_steps": 9},
            "width": 512,
            "height": 768,
        },
    ),
    (
        *("stable-diffusion-cpp", {"options": JOBS, "images": 2, "mask": True}, "/sdcpp/v1/img_gen"),
        {
            "prompt": "a hat",
            "batch_count": 1,
            "seed": 7,
            "width": 112,
            "height": 64,
            "init_image": "<0.png>",
            "ref_images": ["<0.png>", "<1.png>"],
            "mask_image": "<mask.png>",
        },
    ),
    ("localai", {}, GENERATIONS, LOCALAI),
    ("localai", {"size": "512x768", "output_format": "webp"}, GENERATIONS, {**LOCALAI, "size": "512x768"}),
    (
        *("localai", {"prompt": "a|b", "negative_prompt": "c", "steps": 9}, GENERATIONS),
        {**LOCALAI, "prompt": "a/b|c", "step": 9},
    ),
    ("localai", {"images": 2}, GENERATIONS, {**LOCALAI, "ref_images": ["<0.png>", "<1.png>"]}),
    (
        *("localai", {"images": 1, "options": {"references": "files"}}, GENERATIONS),
        {**LOCALAI, "files": ["<0.png>"]},
    ),
    (
        *("localai", {"images": 1, "mask": True}, "/v1/images/inpainting"),
        [("model", "m"), ("prompt", "a hat"), ("image", "<0.png>"), ("mask", "<mask.png>")],
    ),
    ("ollama", {}, GENERATIONS, {"model": "m", "prompt": "a hat"}),
    (
        "ollama",
        {"size": "512x768", "seed": 3},
        GENERATIONS,
        {"model": "m", "prompt": "a hat", "size": "512x768", "seed": 3},
    ),
    ("ollama", {"images": 1}, EDITS, {"model": "m", "prompt": "a hat", "image": "data:image/png;base64,<0.png>"}),
    ("a1111", {}, "/sdapi/v1/txt2img", A1111),
    (
        *("a1111", {"size": "512x768", "n": 2}, "/sdapi/v1/txt2img"),
        {**A1111, "n_iter": 2, "width": 512, "height": 768},
    ),
    (
        *("a1111", {"images": 1, "strength": 0.5}, "/sdapi/v1/img2img"),
        {
            **A1111,
            "denoising_strength": 0.5,
            "width": 104,
            "height": 64,
            "init_images": ["<0.png>"],
            "resize_mode": 1,
        },
    ),
    (
        *("a1111", {"images": 1, "mask": True, "size": "64x64"}, "/sdapi/v1/img2img"),
        {
            **A1111,
            "width": 64,
            "height": 64,
            "init_images": ["<0.png>"],
            "resize_mode": 1,
            "mask": "<mask.png>",
            "inpainting_fill": 1,
        },
    ),
]


@pytest.mark.parametrize(("name", "asked", "path", "body"), GOLDEN)
def test_what_is_sent(name: str, asked: dict[str, Any], path: str, body: Any) -> None:
    """Method, path, and every member or part, in order."""
    method, sent_path, sent = written(name, **asked)
    assert (method, sent_path) == ("POST", path)
    assert sent == body
    if isinstance(body, list):
        assert [name for name, _ in sent] == [name for name, _ in body]


def reply(status: int, document: Any, **headers: str) -> UpstreamReply:
    body = document.encode() if isinstance(document, str) else json.dumps(document).encode()
    return UpstreamReply(status=status, headers={"content-type": "application/json", **headers}, body=body)


def read(name: str, status: int, document: Any) -> ImageReply | PendingTask:
    return load_adapter(name).decode(reply(status, document), now=5)


def error(name: str, status: int, document: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        read(name, status, document)
    return caught.value


INFO = {"index_of_first_image": 0, "width": 64, "height": 32, "sd_model_name": "m"}


def drawn(**info: Any) -> dict[str, Any]:
    settings = {"sd_model_checkpoint": info.pop("asked", "m")}
    return {"images": [PNG], "parameters": {"override_settings": settings}, "info": json.dumps({**INFO, **info})}


@pytest.mark.parametrize(
    ("name", "document"),
    [
        (
            "vllm-omni",
            {"created": 3, "data": [{"b64_json": PNG, "url": None, "revised_prompt": None}], "metrics": None},
        ),
        ("sglang", {"id": "1", "created": 3, "data": [{"b64_json": PNG, "file_path": "/srv/1.png"}]}),
        ("stable-diffusion-cpp", {"created": 3, "data": [{"b64_json": PNG}], "output_format": "png"}),
        (
            "stable-diffusion-cpp",
            {
                "id": "job_1",
                "status": "completed",
                "result": {"images": [{"index": 0, "b64_json": PNG}]},
                "error": None,
            },
        ),
        ("localai", {"created": 3, "id": "1", "data": [{"b64_json": PNG}], "usage": {"total_tokens": 0}}),
        ("ollama", {"created": 3, "data": [{"b64_json": PNG}]}),
        ("a1111", drawn()),
    ],
)
def test_pictures_are_found(name: str, document: Any) -> None:
    """Wherever they stand."""
    result = read(name, 200, document)
    assert isinstance(result, ImageReply)
    assert [image.b64_json for image in result.images] == [PNG]
    assert result.created == document.get("created", 5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['p']}-{case['http']}")
def test_errors_say_what_the_server_said(case: dict[str, Any]) -> None:
    """With the field where the server names it."""
    found = error(case["p"], case["http"], case["body"])
    assert case["said"] in found.message
    assert (found.param, found.code, found.outcome) == (case["param"], case["code"], "rejected")


@pytest.mark.parametrize("name", ["vllm-omni", "sglang", "stable-diffusion-cpp", "localai", "ollama", "a1111"])
@pytest.mark.parametrize(
    ("status", "document"),
    [
        (500, "Internal Server Error"),
        (502, {"detail": "x"}),
        (200, "<!doctype html>"),
        (200, {}),
        (200, {"images": []}),
    ],
)
def test_what_says_nothing_leaves_open_what_was_made(name: str, status: int, document: Any) -> None:
    """No picture and no error of the server's own."""
    assert error(name, status, document).outcome == "uncertain"


@pytest.mark.parametrize(
    ("asked", "info", "is_same"),
    [
        ("sd_xl_base_1.0", {"sd_model_name": "sd_xl_base_1.0"}, True),
        ("sd_xl_base_1.0.safetensors", {"sd_model_name": "sd_xl_base_1.0"}, True),
        ("sd_xl_base_1.0.safetensors [31e35c80fc]", {"sd_model_name": "sd_xl_base_1.0"}, True),
        ("sdxl/sd_xl_base_1.0.safetensors", {"sd_model_name": "sd_xl_base_1.0"}, True),
        ("31e35c80fc", {"sd_model_name": "sd_xl_base_1.0", "sd_model_hash": "31e35c80fc"}, True),
        ("anything", {"sd_model_name": None}, True),
        ("sd_xl_base", {"sd_model_name": "sd_xl_base_1.0"}, False),
    ],
)
def test_a_checkpoint_has_several_names(asked: str, info: dict[str, Any], is_same: bool) -> None:
    """Title, file, short hash; an older server that does not say which it used is not doubted."""
    document = drawn(asked=asked, **info)
    if is_same:
        assert isinstance(read("a1111", 200, document), ImageReply)
    else:
        assert error("a1111", 200, document).code == "model_not_found"


def test_a_grid_is_no_picture_of_the_request() -> None:
    """It stands before them, where the server's settings have it."""
    document = {**drawn(index_of_first_image=1), "images": ["Z3JpZA==", PNG]}
    result = read("a1111", 200, document)
    assert isinstance(result, ImageReply)
    assert [image.b64_json for image in result.images] == [PNG]
    assert result.fields == {"output_format": "png", "size": "64x32"}


def test_jobs_of_sd_cpp() -> None:
    """Below the base URL, whatever address the server gives; cancelled by a POST."""
    adapter = load_adapter("stable-diffusion-cpp", JOBS)
    created = {"id": "job_1", "kind": "img_gen", "status": "queued", "created": 1, "poll_url": "/sdcpp/v1/jobs/job_1"}
    task = adapter.decode(reply(202, created), now=5)
    assert task == PendingTask(id="job_1")
    assert adapter.poll(task) == UpstreamRequest(method="GET", path="/sdcpp/v1/jobs/job_1")
    assert adapter.cancel(task) == UpstreamRequest(method="POST", path="/sdcpp/v1/jobs/job_1/cancel")
    request = ImageRequest(operation="generations", fields={"model": "m"})
    assert [load_adapter(adapter.name, options).expects_task(request) for options in (JOBS, None)] == [True, False]
    for status, code in (("failed", "generation_failed"), ("cancelled", "task_cancelled")):
        document = {"id": "job_1", "status": status, "result": None, "error": {"code": code, "message": "no"}}
        found = error("stable-diffusion-cpp", 200, document)
        assert (found.code, found.ends_task) == (code, True)


def test_links_are_shown_where_nothing_is_fetched() -> None:
    """An explanation has a link's file where the file would be."""
    fields = {"model": "m", "prompt": "a hat"}
    file = LinkedFile(Link("https://example.com/a.png?x=1"))
    request = ImageRequest(operation="edits", fields=fields, images=(file,))
    assert (file.filename, file.url) == ("a.png", "https://example.com/a.png?x=1")
    for name in ("ollama", "localai", "a1111", "stable-diffusion-cpp"):
        adapter = load_adapter(name, JOBS if name == "stable-diffusion-cpp" else None)
        sent = adapter.encode(request).document
        assert isinstance(sent, dict)
        values = [each for value in sent.values() for each in (value if isinstance(value, list) else [value])]
        assert file in [value.upload for value in values if isinstance(value, InlineFile)]
    with pytest.raises(AssertionError):
        file.chunks()


@given(
    st.sampled_from(["vllm-omni", "sglang", "stable-diffusion-cpp", "localai", "ollama", "a1111"]),
    st.tuples(st.integers(1, 9000), st.integers(1, 9000)),
)
def test_every_size_is_legal_or_refused(name: str, asked: tuple[int, int]) -> None:
    """Whatever is asked: what is sent has both edges on the grid, and the shape that was asked for."""
    width, height = asked
    try:
        _, _, body = written(name, size=f"{width}x{height}")
    except RequestError:
        return  # too far from every shape
    sent = (body["width"], body["height"]) if "width" in body else tuple(map(int, body["size"].split("x")))
    assert all(edge % 8 == 0 and 64 <= edge <= 8192 for edge in sent)
    assert max(sent[0] / sent[1] / (width / height), width / height / (sent[0] / sent[1])) <= 1.5 + 1e-9


def test_files_have_names_of_our_own_where_it_matters() -> None:
    """A form names a file as it was told to, else as the client did."""
    assert FilePart("image", File("a.png")).filename == "a.png"
    assert FilePart("image", File("a.png [output]"), "b.png").filename == "b.png"


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, "<html>"), (200, ""), (200, "[]"), (200, "{}"), (500, "500 Internal Server Error"), (502, "")],
)
def test_a_submit_without_comfyuis_own_word_is_looked_up(status: int, body: str) -> None:
    """It may have been queued: only an uncertain outcome is asked for by its id, and never sent again."""
    with pytest.raises(UpstreamError) as caught:
        load_adapter("comfyui").decode(UpstreamReply(status=status, headers={}, body=body.encode()), now=5)
    assert caught.value.outcome == "uncertain"


@pytest.mark.parametrize(("status", "body"), [(200, "<html>"), (502, ""), (500, "500")])
def test_a_job_is_not_over_for_a_page(status: int, body: str) -> None:
    """It is asked for again."""
    with pytest.raises(UpstreamError) as caught:
        load_adapter("comfyui").decode_task(
            PendingTask(id="a"), UpstreamReply(status=status, headers={}, body=body.encode()), now=5
        )
    assert (caught.value.outcome, caught.value.ends_task) == ("uncertain", False)
