"""The ComfyUI stand-in: uploads, the queue, ids that the client chooses, files."""

from __future__ import annotations

import io
import uuid
from typing import Any

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient
from tests.demo.support import KEY, picture_file, size_and_format

from imagegate.demo.providers import comfyui

ID = "0b7e3f0a-5d1c-4f0e-9b57-6a9f1c2d3e4f"


def workflow(**inputs: Any) -> dict[str, Any]:
    """Text to picture; `inputs` are changed by `node__input`."""
    graph: dict[str, Any] = {
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": comfyui_checkpoint()}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 256, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["4", 0],
                "seed": 5,
                "steps": 20,
                "cfg": 8.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
                "denoise": 1.0,
            },
        },
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "ComfyUI"}},
    }
    for name, value in inputs.items():
        node, _, input_ = name.lstrip("_").partition("__")
        graph[node]["inputs"][input_] = value
    return graph


def comfyui_checkpoint() -> str:
    return "sd_xl_base_1.0.safetensors"


def inpainting(mask_node: dict[str, Any], source: str = "in.png") -> dict[str, Any]:
    graph = workflow(**{"3__latent_image": ["12", 0]})
    graph["10"] = {"class_type": "LoadImage", "inputs": {"image": source}}
    graph["11"] = mask_node
    inputs = {"pixels": ["10", 0], "vae": ["4", 2], "mask": ["11", 0], "grow_mask_by": 6}
    graph["12"] = {"class_type": "VAEEncodeForInpaint", "inputs": inputs}
    return graph


def client_of(app: Starlette) -> TestClient:
    return TestClient(app, raise_server_exceptions=False)


def upload(client: TestClient, content: bytes, name: str = "in.png", path: str = "/upload/image", **data: str) -> Any:
    return client.post(path, files={"image": (name, content, "image/png")}, data=data)


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_a_job_runs_and_its_pictures_are_fetched(prefix: str) -> None:
    """Size and number come from the workflow, the id from the client."""
    client = client_of(comfyui.create_app(task_seconds=0))
    graph = workflow(**{"5__batch_size": 2})
    sent = client.post(f"{prefix}/prompt", json={"prompt": graph, "prompt_id": ID})
    assert sent.json() == {"prompt_id": ID, "number": 0, "node_errors": {}}
    job = client.get(f"/api/jobs/{ID}").json()
    assert (job["id"], job["status"]) == (ID, "completed")
    images = job["outputs"]["9"]["images"]
    assert [image["filename"] for image in images] == ["ComfyUI_00001_.png", "ComfyUI_00002_.png"]
    pictures = [client.get(f"{prefix}/view", params=image).content for image in images]
    assert {size_and_format(picture) for picture in pictures} == {(512, 256, "PNG")}
    assert len(set(pictures)) == 2


def test_equal_seeds_make_equal_pictures() -> None:
    """As a diffusion model does."""
    pictures = []
    for seed in (5, 5, 6):
        client = client_of(comfyui.create_app(task_seconds=0))
        client.post("/prompt", json={"prompt": workflow(**{"3__seed": seed}), "prompt_id": ID})
        image = client.get(f"/history/{ID}").json()[ID]["outputs"]["9"]["images"][0]
        pictures.append(client.get("/view", params=image).content)
    assert pictures[0] == pictures[1] != pictures[2]


def test_jobs_wait_for_each_other() -> None:
    """One runs, the next waits; a waiting one that is cancelled is forgotten, a running one is remembered."""
    client = client_of(comfyui.create_app(task_seconds=1000))
    first, second = (
        client.post("/prompt", json={"prompt": workflow(), "prompt_id": str(uuid.uuid4())}).json()["prompt_id"]
        for _ in range(2)
    )
    queue = client.get("/queue").json()
    assert [item[1] for item in queue["queue_running"]] == [first]
    assert [item[1] for item in queue["queue_pending"]] == [second]
    assert client.get("/prompt").json() == {"exec_info": {"queue_remaining": 2}}
    assert [client.get(f"/api/jobs/{id_}").json()["status"] for id_ in (first, second)] == ["in_progress", "pending"]
    assert client.get(f"/history/{first}").json() == {}
    for id_ in (first, second):
        assert client.post(f"/api/jobs/{id_}/cancel").json() == {"cancelled": True}
        assert client.post(f"/api/jobs/{id_}/cancel").json() == {"cancelled": False}
    assert client.get(f"/api/jobs/{first}").json()["status"] == "cancelled"
    assert client.get(f"/history/{first}").json()[first]["status"]["status_str"] == "error"
    lost = client.get(f"/api/jobs/{second}")
    assert (lost.status_code, lost.json()) == (404, {"error": "Job not found"})


def test_old_servers_are_stopped_by_queue_and_interrupt() -> None:
    """They have no jobs, and take any id."""
    client = client_of(comfyui.create_app(task_seconds=1000, has_jobs_api=False))
    for id_ in ("a", "b"):
        assert client.post("/prompt", json={"prompt": workflow(), "prompt_id": id_}).json()["prompt_id"] == id_
    assert client.get("/api/jobs/a").text == "404: Not Found"
    assert client.post("/queue", json={"delete": ["a", "b"]}).status_code == 200
    assert client.post("/interrupt", json={"prompt_id": "a"}).status_code == 200
    assert client.get("/queue").json() == {"queue_running": [], "queue_pending": []}
    assert set(client.get("/history").json()) == {"a"}


def test_an_id_is_good_once() -> None:
    """A second job of that id is refused, so that a lost answer can be asked for without paying again."""
    app = comfyui.create_app(task_seconds=0)
    client = client_of(app)
    body = {"prompt": workflow(), "prompt_id": ID}
    assert client.post("/prompt", json=body).status_code == 200
    again = client.post("/prompt", json=body)
    assert (again.status_code, again.json()) == (409, {"error": "prompt_id already exists"})
    app.state.comfyui.forget()
    assert client.get(f"/api/jobs/{ID}").status_code == 404


@pytest.mark.parametrize("id_", ["1", ID.upper(), ID.replace("-", ""), 7])
def test_ids_are_canonical_uuids(id_: Any) -> None:
    """Other spellings are refused; none at all is made by the server."""
    client = client_of(comfyui.create_app())
    response = client.post("/prompt", json={"prompt": workflow(), "prompt_id": id_})
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_prompt_id")
    assert uuid.UUID(client.post("/prompt", json={"prompt": workflow()}).json()["prompt_id"])


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"5__width": 8}, "value_smaller_than_min"),
        ({"5__width": 20000}, "value_bigger_than_max"),
        ({"5__width": "wide"}, "invalid_input_type"),
        ({"4__ckpt_name": "gone.safetensors"}, "value_not_in_list"),
        ({"3__positive": ["5", 0]}, "return_type_mismatch"),
        ({"3__positive": ["99", 0]}, "bad_linked_input"),
        ({"3__positive": "words"}, "bad_linked_input"),
        ({"3__seed": -1}, "value_smaller_than_min"),
    ],
)
def test_inputs_are_checked(changed: dict[str, Any], kind: str) -> None:
    """The graph's error is general, the nodes' own say what and where."""
    response = client_of(comfyui.create_app()).post("/prompt", json={"prompt": workflow(**changed)})
    body = response.json()
    assert (response.status_code, body["error"]["type"]) == (400, "prompt_outputs_failed_validation")
    node = next(iter(changed)).partition("__")[0]
    assert body["node_errors"][node]["errors"][0]["type"] == kind
    assert body["node_errors"][node]["dependent_outputs"] == ["9"]


def test_graphs_are_checked() -> None:
    """Unknown classes, no outputs, missing inputs, files that are not there."""
    client = client_of(comfyui.create_app())
    unknown = {**workflow(), "1": {"class_type": "MyOwnNode", "inputs": {}}}
    endless = {id_: node for id_, node in workflow().items() if id_ != "9"}
    missing = workflow()
    del missing["3"]["inputs"]["steps"]
    gone = inpainting({"class_type": "LoadImageMask", "inputs": {"image": "in.png", "channel": "alpha"}})
    for graph, kind in (
        (unknown, "invalid_prompt"),
        ({"1": {"inputs": {}}}, "invalid_prompt"),
        (endless, "prompt_no_outputs"),
        (missing, "prompt_outputs_failed_validation"),
        (gone, "prompt_outputs_failed_validation"),
    ):
        assert client.post("/prompt", json={"prompt": graph}).json()["error"]["type"] == kind
    assert client.post("/prompt", json={}).json()["error"]["type"] == "no_prompt"
    assert client.post("/prompt", content=b"{").status_code == 500
    assert client.post("/prompt", json={"prompt": []}).status_code == 500


def test_a_job_can_fail_while_it_runs() -> None:
    """Its state tells, the request was accepted."""
    client = client_of(comfyui.create_app(task_seconds=0))
    client.post("/prompt", json={"prompt": workflow(**{"6__text": "out-of-memory"}), "prompt_id": ID})
    job = client.get(f"/api/jobs/{ID}").json()
    assert (job["status"], job["execution_error"]["node_type"]) == ("failed", "KSampler")
    assert client.get(f"/history/{ID}").json()[ID]["status"]["status_str"] == "error"


def test_previews_are_temporary() -> None:
    """PreviewImage is an output too, of another type."""
    graph = {**workflow(), "1": {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}}
    client = client_of(comfyui.create_app(task_seconds=0))
    client.post("/prompt", json={"prompt": graph, "prompt_id": ID})
    outputs = client.get(f"/api/jobs/{ID}").json()["outputs"]
    assert {key: value["images"][0]["type"] for key, value in outputs.items()} == {"9": "output", "1": "temp"}
    assert client.get("/view", params=outputs["1"]["images"][0]).status_code == 200


def test_uploads_keep_what_has_their_name() -> None:
    """Another file of the same name gets a number, the same file none."""
    client = client_of(comfyui.create_app())
    first, second = picture_file(8, 8), picture_file(16, 16)
    assert upload(client, first).json() == {"name": "in.png", "subfolder": "", "type": "input"}
    assert upload(client, first).json()["name"] == "in.png"
    assert upload(client, second).json()["name"] == "in (1).png"
    assert upload(client, second, overwrite="true").json()["name"] == "in.png"
    assert upload(client, first, subfolder="mine").json()["subfolder"] == "mine"
    assert client.get("/view", params={"filename": "in.png", "subfolder": "mine", "type": "input"}).content == first
    for data in ({"subfolder": "../up"}, {"subfolder": "/etc"}):
        assert upload(client, first, **data).status_code == 400
    assert client.post("/upload/image", data={"image": "text"}).status_code == 400
    for params in ({"filename": "../x.png"}, {"filename": "a.png", "type": "elsewhere"}):
        assert client.get("/view", params=params).status_code == 400
    assert client.get("/view", params={"filename": "gone.png"}).status_code == 404


def half_mask(mode: str) -> bytes:
    """Upper half: transparent, or white."""
    mask = Image.new(mode, (64, 64), (0, 0, 0, 255) if mode == "RGBA" else 0)
    mask.paste((0, 0, 0, 0) if mode == "RGBA" else 255, (0, 0, 64, 32))
    encoded = io.BytesIO()
    mask.save(encoded, "PNG")
    return encoded.getvalue()


@pytest.mark.parametrize(
    ("mask", "node"),
    [
        (half_mask("RGBA"), {"class_type": "LoadImageMask", "inputs": {"image": "m.png", "channel": "alpha"}}),
        (half_mask("L"), {"class_type": "LoadImageMask", "inputs": {"image": "m.png", "channel": "red"}}),
    ],
)
def test_what_a_mask_means_is_the_workflows_business(mask: bytes, node: dict[str, Any]) -> None:
    """Transparent may be painted where alpha is read, white where a colour is."""
    app = comfyui.create_app(task_seconds=0)
    client = client_of(app)
    upload(client, picture_file(64, 64))
    upload(client, mask, "m.png")
    client.post("/prompt", json={"prompt": inpainting(node), "prompt_id": ID})
    image = client.get(f"/api/jobs/{ID}").json()["outputs"]["9"]["images"][0]
    assert client.get("/view", params=image).status_code == 200
    canvas = comfyui.run_graph(inpainting(node), "9", {"in.png": picture_file(64, 64), "m.png": mask})
    assert canvas.repainted is not None
    assert [canvas.repainted.getpixel((32, y)) for y in (0, 63)] == [255, 0]
    assert canvas.sources == 1


def test_a_mask_is_joined_with_its_picture() -> None:
    """`/upload/mask` puts its alpha into a copy of the original."""
    client = client_of(comfyui.create_app())
    upload(client, picture_file(64, 64, mode="RGB"))
    sent = upload(client, half_mask("RGBA"), "both.png", "/upload/mask", original_ref='{"filename": "in.png"}')
    both = client.get("/view", params={"filename": sent.json()["name"], "type": "input"}).content
    with Image.open(io.BytesIO(both)) as picture:
        assert (picture.mode, picture.getpixel((0, 0))[3], picture.getpixel((0, 63))[3]) == ("RGBA", 0, 255)
    assert upload(client, both, "c.png", "/upload/mask", original_ref='{"filename": "gone"}').status_code == 400


def test_a_proxy_may_want_a_key() -> None:
    """ComfyUI has none of its own."""
    client = client_of(comfyui.create_app(has_proxy=True))
    assert client.get("/queue").status_code == 401
    assert client.get("/queue", headers={"authorization": f"Bearer {KEY}"}).status_code == 200


def test_nodes_describe_themselves() -> None:
    """What a workflow may be checked against."""
    client = client_of(comfyui.create_app())
    found = client.get("/object_info/CheckpointLoaderSimple").json()
    assert comfyui_checkpoint() in found["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0]
    assert client.get("/object_info/Nothing").json() == {}
    assert client.delete("/queue").text == "405: Method Not Allowed"
