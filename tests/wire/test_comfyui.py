"""ComfyUI behind the gateway: workflows of the operator's, uploads, jobs, and answers that are lost."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.waiting import until
from tests.wire.edit_support import mask_for, picture
from tests.wire.self_hosted_support import Setting, contents, problem, setting, sizes, streamed

from imagegate import ConfigError
from imagegate.config.loader import parse_config
from imagegate.config.model_contracts import contracts_of
from imagegate.demo.providers import comfyui
from imagegate.demo.providers.comfyui_nodes import CHECKPOINTS, FAILURE_WORD, run_graph


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def sampled(latent: list[Any]) -> dict[str, Any]:
    """What all workflows have in common."""
    settings = {"steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    links = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": latent}
    return {
        "4": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINTS[0]),
        "6": node("CLIPTextEncode", text="(file)", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="(file)", clip=["4", 1]),
        "3": node("KSampler", seed=1, **settings, **links),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0], filename_prefix="picture"),
    }


GENERATE = {**sampled(["5", 0]), "5": node("EmptyLatentImage", width=512, height=512, batch_size=1)}
EDIT = {
    **sampled(["12", 0]),
    "10": node("LoadImage", image="example.png"),
    "11": node("LoadImage", image="example.png"),
    "13": node("ImageBatch", image1=["10", 0], image2=["11", 0]),
    "12": node("VAEEncode", pixels=["10", 0], vae=["4", 2]),
    "14": node("PreviewImage", images=["13", 0]),
}
INPAINT = {
    **sampled(["12", 0]),
    "10": node("LoadImage", image="example.png"),
    "11": node("LoadImageMask", image="example.png", channel="alpha"),
    "12": node("VAEEncodeForInpaint", pixels=["10", 0], vae=["4", 2], mask=["11", 0], grow_mask_by=6),
}
WHITE = {**INPAINT, "11": node("LoadImageMask", image="example.png", channel="red")}

OPTIONS = """
[upstreams.options]
model = "sdxl"
workflow = "generate.json"
edit_workflow = "edit.json"
inpaint_workflow = "inpaint.json"
{more}
[upstreams.options.inputs]
prompt = "6.text"
negative_prompt = "7.text"
seed = "3.seed"
width = "5.width"
height = "5.height"
n = "5.batch_size"
steps = "3.steps"
cfg = "3.cfg"
[upstreams.options.edit_inputs]
prompt = "6.text"
seed = "3.seed"
image = ["10.image", "11.image"]
[upstreams.options.inpaint_inputs]
prompt = "6.text"
seed = "3.seed"
steps = "3.steps"
image = "10.image"
mask = "11.image"
"""


def written(folder: Path, inpaint: dict[str, Any] = INPAINT) -> Path:
    """The files of the operator."""
    for name, graph in (("generate", GENERATE), ("edit", EDIT), ("inpaint", inpaint)):
        (folder / f"{name}.json").write_text(json.dumps(graph))
    return folder


@contextmanager
def running(
    folder: Path, app: Starlette, *, options: str = OPTIONS.format(more=""), key: str = "", **more: Any
) -> Iterator[Setting]:
    key = f'api_key = "{key}"' if key else ""
    with setting(written(folder), app, "comfyui", model="sdxl", more=f"{key}\n{options}", **more) as own:
        yield own


@pytest.fixture(params=[True, False], ids=["jobs", "history"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Setting]:
    """With ``/api/jobs``, and an older one without."""
    with running(tmp_path, comfyui.create_app(task_seconds=0, has_jobs_api=request.param)) as own:
        yield own


def submitted(own: Setting) -> dict[str, Any]:
    """The last workflow that was sent."""
    post = next(post for post in reversed(own.tap.posts) if post.path.endswith("/prompt"))
    body: dict[str, Any] = post.json
    return body


def inputs(own: Setting, id_: str) -> dict[str, Any]:
    found: dict[str, Any] = submitted(own)["prompt"][id_]["inputs"]
    return found


def test_generations_in_every_form(own: Setting) -> None:
    """Links are the gateway's: the server's own lead to where clients need not be able to go."""
    url = own.generate(response_format="url", size="128x64")
    assert "/view" not in url.data[0].url
    assert sizes(url) == sizes(own.generate(response_format="b64_json", size="128x64")) == [(128, 64)]
    assert len(streamed(own.generate(stream=True, size="64x64"))) == 1
    body = submitted(own)
    assert str(uuid.UUID(body["prompt_id"])) == body["prompt_id"]
    assert body["prompt"].keys() == GENERATE.keys()


def test_members_reach_their_nodes(own: Setting) -> None:
    """What was not sent is as the file has it; the seed is always another."""
    own.generate(size="256x512", n=3, extra_body={"negative_prompt": "blur", "steps": 9, "cfg": 3.5, "seed": 77})
    assert (inputs(own, "6")["text"], inputs(own, "7")["text"]) == ("a cat", "blur")
    assert inputs(own, "5") == {"width": 256, "height": 512, "batch_size": 3}
    assert {name: inputs(own, "3")[name] for name in ("seed", "steps", "cfg")} == {"seed": 77, "steps": 9, "cfg": 3.5}
    own.generate()
    first = inputs(own, "3")["seed"]
    assert (inputs(own, "5"), inputs(own, "7")["text"]) == (GENERATE["5"]["inputs"] | {"batch_size": 1}, "(file)")
    own.generate()
    assert 1 != first != inputs(own, "3")["seed"]


def test_several_pictures_differ(own: Setting) -> None:
    """In one job where the workflow has a batch, else in several jobs."""
    made = contents(own.generate(n=3, size="64x64"))
    assert len(set(made)) == 3
    assert [post.path for post in own.tap.posts] == ["/prompt"]
    made = contents(own.edit(picture(1, 64), picture(2, 64), n=2, extra_body={"seed": 4}))
    assert len(set(made)) == 2
    jobs = [post for post in own.tap.posts if post.path.endswith("/prompt")]
    assert sorted(job.json["prompt"]["3"]["inputs"]["seed"] for job in jobs[1:]) == [4, 5]


def test_references_are_uploaded(own: Setting) -> None:
    """In order, under names of ours, and once where they are the same; previews are no results."""
    first, second = picture(1, 64), picture(2, 64)
    assert sizes(own.edit(first, second)) == [(64, 64)]
    files = own.server.state.comfyui.inputs
    used = [inputs(own, id_)["image"] for id_ in ("10", "11")]
    assert [files[name] for name in used] == [first, second]
    assert all(re.fullmatch(r"imagegate/[0-9a-f]{24}\.png", name) for name in used)
    own.edit(first, second)
    assert len(files) == 2


@pytest.mark.parametrize("count", [1, 3])
def test_a_workflow_takes_as_many_images_as_it_has_places(own: Setting, count: int) -> None:
    """Fewer would leave the operator's example in one of them."""
    error = problem(lambda: own.edit(*[picture(1, 64)] * count))
    assert (error["status"], error["param"] in ("image", "image[]")) == (400, True)
    assert all(post.path == "/upload/image" for post in own.tap.posts)


@pytest.mark.parametrize("polarity", ["alpha", "white"])
def test_a_mask_means_the_same(tmp_path: Path, polarity: str) -> None:
    """Transparent is what may be painted, whichever way the workflow reads it."""
    written(tmp_path, WHITE if polarity == "white" else INPAINT)
    options = OPTIONS.format(more=f'mask_polarity = "{polarity}"')
    app = comfyui.create_app(task_seconds=0)
    with setting(tmp_path, app, "comfyui", model="sdxl", more=options) as own:
        assert sizes(own.edit(picture(1, 64), mask=("m.png", mask_for(64), "image/png"), extra_body={"steps": 7}))
        canvas = run_graph(submitted(own)["prompt"], "9", app.state.comfyui.inputs)
    assert canvas.repainted is not None
    assert [canvas.repainted.getpixel((32, y)) for y in (0, 25, 38, 63)] == [255, 255, 0, 0]
    assert inputs(own, "3")["steps"] == 7


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"steps": 7}, "steps"), ({"negative_prompt": "x"}, "negative_prompt"), ({"size": "64x64"}, "size")],
)
def test_what_a_workflow_has_no_place_for_is_disclosed_or_refused(own: Setting, fields: Any, param: str) -> None:
    """No workflow for edits has it: dropped. One of them has it, this one has not: refused."""
    files = [("image[]", (f"{place}.png", picture(place, 64), "image/png")) for place in range(2)]
    data = {"model": own.model, "prompt": "a cat", **{name: str(value) for name, value in fields.items()}}
    reply = own.raw.post("/images/edits", data=data, files=files)
    if param == "steps":
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "steps")
    else:
        assert f"{param};dropped" in reply.headers["imagegate-changes"]


def test_the_servers_refusal_names_the_field(own: Setting) -> None:
    """By the input that did not take the value."""
    error = problem(lambda: own.generate(extra_body={"steps": 0}))
    assert (error["status"], error["param"]) == (400, "steps")
    assert "smaller than min" in error["message"]
    assert "(node 3)" in error["message"]


def test_a_job_that_fails_says_why(own: Setting) -> None:
    """And nothing is sent again."""
    error = problem(lambda: own.generate(prompt=FAILURE_WORD))
    assert error["code"] == "generation_failed"
    assert "out of memory" in error["message"]
    assert "/opt/ComfyUI" not in str(error)
    assert len(own.tap.posts) == 1


def test_names_of_clients_go_nowhere(own: Setting) -> None:
    """A name that ends in the name of a folder would lead to a file of somebody else's."""
    files = [("image[]", (name, picture(1, 64), "image/png")) for name in ("x.png [output]", "../../up.png")]
    own.raw.post("/images/edits", data={"model": own.model, "prompt": "a cat"}, files=files).raise_for_status()
    assert all(name.startswith("imagegate/") and "[" not in name for name in own.server.state.comfyui.inputs)


class Unlucky:
    """Stands in front of a server, and breaks what it is told to break."""

    def __init__(self, app: ASGIApp, *, path: str, reaches: bool, times: int = 1) -> None:
        self.app, self.path, self.reaches, self.times = app, path, reaches, times
        self.broken = 0
        self.state = getattr(app, "state", None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(self.path) or self.broken >= self.times:
            await self.app(scope, receive, send)
            return
        self.broken += 1

        async def nothing(message: Message) -> None:
            pass

        if self.reaches:
            await self.app(scope, receive, nothing)
        raise ConnectionAbortedError("the answer is lost")


@pytest.mark.parametrize("reaches", [True, False], ids=["arrived", "lost"])
def test_a_submit_whose_answer_is_lost_is_looked_up(tmp_path: Path, reaches: bool) -> None:
    """By the id that it was given: where it arrived there is a picture, where not an error, and never a second job."""
    app = comfyui.create_app(task_seconds=0)
    unlucky: Any = Unlucky(app, path="/prompt", reaches=reaches)
    with running(tmp_path, unlucky) as own:
        if reaches:
            assert sizes(own.generate(size="64x64")) == [(64, 64)]
        else:
            assert problem(lambda: own.generate(size="64x64"))["status"] == 502
        assert unlucky.broken == 1
        assert own.tap.begun == 1
        assert len(app.state.comfyui.jobs) == reaches


def test_an_upload_that_fails_costs_nothing(tmp_path: Path) -> None:
    """No job is made, and the error says what it was."""
    unlucky: Any = Unlucky(comfyui.create_app(task_seconds=0), path="/upload", reaches=False, times=9)
    with running(tmp_path, unlucky) as own:
        error = problem(lambda: own.edit(picture(1, 64), picture(2, 64)))
        assert "reference image" in error["message"]
        assert unlucky.broken >= 1
        assert own.tap.posts == []


def test_a_picture_that_cannot_be_fetched_at_once_is_fetched_again(tmp_path: Path) -> None:
    """It is there, and costs nothing."""
    unlucky: Any = Unlucky(comfyui.create_app(task_seconds=0), path="/view", reaches=False)
    with running(tmp_path, unlucky) as own:
        assert sizes(own.generate(size="64x64")) == [(64, 64)]
        assert unlucky.broken == 1


def test_a_server_that_forgot_the_job_leaves_open_what_was_made(tmp_path: Path) -> None:
    """Its history ends with its process."""
    app = comfyui.create_app(task_seconds=1000)
    with running(tmp_path, app) as own:
        task = own.raw.post("/images/generations", json={"model": own.model, "prompt": "a cat", "async": True}).json()
        assert own.raw.get(task["poll_url"].removeprefix("/v1")).json()["status"] in ("pending", "processing")
        app.state.comfyui.forget()

        def state() -> Any:
            return own.raw.get(task["poll_url"].removeprefix("/v1")).json()

        until(lambda: state()["status"] == "failed", what="the loss")  # a provider is asked once a second
        error = state()["error"]
        assert (error["code"], error["imagegate"]["outcome"]) == ("task_lost", "uncertain"), error


@pytest.mark.usefixtures("providers_ids")
def test_jobs_are_cancelled(tmp_path: Path) -> None:
    """Whether they wait or run."""
    app = comfyui.create_app(task_seconds=1000)
    with running(tmp_path, app) as own:
        body = {"model": own.model, "prompt": "a cat", "async": True}
        tasks = [own.raw.post("/images/generations", json=body).json()["task_id"] for _ in range(2)]
        for task in reversed(tasks):
            reply = own.raw.delete(f"/tasks/{task}")
            assert (reply.json()["status"], reply.json()["error"]["code"]) == ("failed", "task_cancelled"), reply.text
        states = [app.state.comfyui.state_of(job) for job in app.state.comfyui.jobs.values()]
        assert states == ["cancelled"]


def test_a_key_is_for_the_proxy_in_front(tmp_path: Path) -> None:
    """The upstream's goes everywhere on its origin, uploads and pictures too; the client's goes nowhere."""
    app = comfyui.create_app(task_seconds=0, has_proxy=True)
    with running(tmp_path, app, key="sk-demo-proxy") as own:
        assert sizes(own.edit(picture(1, 64), picture(2, 64))) == [(64, 64)]
        assert {post.headers["authorization"] for post in own.tap.posts} == {"Bearer sk-demo-proxy"}
    with running(tmp_path, app) as own:
        assert problem(lambda: own.generate())["status"] in (401, 502)
        assert "authorization" not in own.tap.posts[-1].headers


def test_pictures_elsewhere_are_none_of_ours(tmp_path: Path) -> None:
    """A name in the output is a name: whatever it says, it is looked for on the server that made it."""

    async def crooked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/api/jobs"):
            await app(scope, receive, send)
            return
        id_ = scope["path"].rpartition("/")[2]
        file = {"filename": "//evil.example/x.png?a=", "subfolder": "http://evil.example", "type": "output"}
        document = {"id": id_, "status": "completed", "outputs": {"9": {"images": [file]}}}
        body = json.dumps(document).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    app = comfyui.create_app(task_seconds=0)
    server: Any = crooked
    with running(tmp_path, server) as own:
        error = problem(lambda: own.generate(size="64x64"))
        assert error["status"] in (404, 502)
        assert "evil.example" not in str(error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"workflow": "gone.json"}, "cannot be read"),
        ({"workflow": "notes.txt"}, "is no workflow in API format"),
        ({"inputs": {"prompt": "6.text"}}, "'seed' is missing"),
        ({"inputs": {"seed": "3.seed"}}, "'prompt' is missing"),
        ({"inputs": {"prompt": "6.txt", "seed": "3.seed"}}, "the workflow has no input '6.txt'"),
        ({"inputs": {"prompt": "66.text", "seed": "3.seed"}}, "the workflow has no input '66.text'"),
        ({"inputs": {"prompt": "6.text", "seed": "3.seed", "width": "5.width"}}, "belong together"),
        ({"inputs": {"prompt": "6.text", "seed": "3.seed", "image": "6.text"}}, "belongs in edit_workflow"),
        ({"edit_workflow": "edit.json", "edit_inputs": {"prompt": "6.text", "seed": "3.seed"}}, "'image' is missing"),
        (
            {"inpaint_workflow": "inpaint.json", "inpaint_inputs": {"prompt": "6.text", "seed": "3.seed"}},
            "'image' and 'mask' are needed",
        ),
        ({"workflow": None}, "the file of a workflow is missing"),
        ({"mask_polarity": "grey"}, "mask_polarity"),
        ({"steps": 3}, "steps"),
    ],
)
def test_options_are_checked_at_the_start(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """With the option's name, before a client is served."""
    written(tmp_path)
    (tmp_path / "notes.txt").write_text('{"nodes": []}')
    options: dict[str, Any] = {"workflow": "generate.json", "inputs": {"prompt": "6.text", "seed": "3.seed"}, **change}
    lines = [f"{name} = {_toml(value)}" for name, value in options.items() if value is not None]
    source = '[[upstreams]]\nname = "comfyui"\nbase_url = "http://localhost:1"\n[upstreams.options]\n' + "\n".join(
        lines
    )
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse_config(source, environment={}, directory=tmp_path)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {json.dumps(item)}" for name, item in value.items()) + " }"
    return json.dumps(value)


def test_the_contract_is_what_the_workflows_take(tmp_path: Path) -> None:
    """Members by their types in the file; the model has its own name and claims no other."""
    written(tmp_path)
    source = f'[[upstreams]]\nname = "comfyui"\nbase_url = "http://localhost:1"\n{OPTIONS.format(more="")}'
    contracts = contracts_of(parse_config(source, environment={}, directory=tmp_path))["comfyui"]
    assert list(contracts) == ["sdxl"]
    contract = contracts["sdxl"]
    types = {name: parameter.type for name, parameter in contract.parameters.items()}
    assert types["steps"] == "integer"
    assert types["cfg"] == "number"
    assert contract.max_images == 10
    edits = contract.edits
    assert edits is not None
    assert edits.references is not None
    assert set(edits.parameters) == {"prompt", "seed", "steps", "n", "output_format"}
    assert (edits.max_images, edits.references.max, edits.references.mask) == (1, 2, True)


def test_large_pictures_pass_through(tmp_path: Path) -> None:
    """A picture of many megapixels is fetched as every other; the server's address stays inside."""
    with running(tmp_path, comfyui.create_app(task_seconds=0)) as own:
        reply = own.generate(size="3000x2000", response_format="url")
        assert sizes(reply) == [(3000, 2000)]
        assert httpx.get(reply.data[0].url).headers["content-type"] == "image/png"


def test_a_path_in_front_of_the_server_stays(tmp_path: Path) -> None:
    """Behind a proxy with a path, jobs and pictures are below it too."""
    app = comfyui.create_app(task_seconds=0)

    async def below(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            assert scope["path"].startswith("/gpu/"), scope["path"]
            scope = {**scope, "path": scope["path"].removeprefix("/gpu")}
        await app(scope, receive, send)

    server: Any = below
    with running(tmp_path, server, path="/gpu") as own:
        assert sizes(own.edit(picture(1, 64), picture(2, 64))) == [(64, 64)]
        assert {post.path for post in own.tap.posts} == {"/gpu/upload/image", "/gpu/prompt"}
