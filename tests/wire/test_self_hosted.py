"""Servers of one's own behind the gateway, each as strict as the real one."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.applications import Starlette
from tests.simulators import a1111, localai, ollama, sglang, stable_diffusion_cpp, vllm_omni
from tests.simulators.base import KEY
from tests.wire.edit_support import mask_for, picture
from tests.wire.self_hosted_support import (
    Setting,
    as_json,
    contents,
    form_fields,
    form_of,
    problem,
    setting,
    sizes,
    streamed,
)

JOBS = '[upstreams.options]\napi = "jobs"'


class Server(NamedTuple):
    """A kind of server, and what it can do."""

    adapter: str
    create: Callable[..., Starlette]
    model: str = "model"
    more: str = ""
    most: int = 1
    """Images in one request."""
    formats: tuple[str, ...] = ("png",)
    references: int = 1
    has_mask: bool = True
    default: tuple[int, int] = (512, 512)
    edits_in: tuple[int, int] = (64, 64)
    """Size of an edit of a picture of 64x64 pixels where none is asked for."""


Start = Callable[[Server], Setting]
ALL_FORMATS = ("png", "jpeg", "webp")
SERVERS: Mapping[str, Server] = {
    "vllm-omni": Server(
        *("vllm-omni", lambda: vllm_omni.create_app(most_images=4), vllm_omni.SERVED, "", 10, ALL_FORMATS, 4),
        default=(1328, 1328),
    ),
    "sglang": Server("sglang", sglang.create_app, "any", "", 10, ALL_FORMATS, 4, has_mask=False, default=(1024, 1024)),
    "sd.cpp": Server("stable-diffusion-cpp", stable_diffusion_cpp.create_app, "any", "", 8, ALL_FORMATS, 3),
    "sd.cpp-jobs": Server("stable-diffusion-cpp", stable_diffusion_cpp.create_app, "any", JOBS, 8, ALL_FORMATS, 3),
    "localai": Server("localai", localai.create_app, "flux.1-dev", references=3, edits_in=(512, 512)),
    "ollama": Server(
        *("ollama", ollama.create_app, ollama.MODELS[0]), has_mask=False, default=(1024, 1024), edits_in=(1024, 1024)
    ),
    "a1111": Server("a1111", a1111.create_app, a1111.CHECKPOINTS[1], "", 10),
}
every_server = pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
masked = pytest.mark.parametrize(
    "server", [server for server in SERVERS.values() if server.has_mask], ids=lambda server: server.adapter
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts each kind of server once, and forgets what it was sent before."""
    started: dict[Server, Setting] = {}
    with ExitStack() as stack:

        def of(server: Server) -> Setting:
            if server not in started:
                folder = tmp_path_factory.mktemp(server.adapter)
                app = server.create()
                more = {"model": server.model, "more": server.more}
                started[server] = stack.enter_context(setting(folder, app, server.adapter, **more))
            own = started[server]
            own.forget()
            return own

        yield of


@pytest.fixture
def own(running: Start, server: Server) -> Setting:
    """The server of a test, with a gateway in front of it."""
    return running(server)


@every_server
def test_generations_in_every_form(own: Setting, server: Server) -> None:
    """A link, base64 and a stream of the same request; nothing that went to the server was left unread."""
    url = own.generate(response_format="url", size="128x64")
    encoded = own.generate(response_format="b64_json", size="128x64")
    stream = own.generate(stream=True, size="128x64")
    assert url.data[0].url.startswith("http")
    assert "127.0.0.1:" in url.data[0].url
    assert sizes(url) == sizes(encoded) == [(128, 64)]
    assert [form_of(content) for content in streamed(stream)] == ["PNG"]
    assert own.server.state.dropped == []


@every_server
def test_sizes(own: Setting, server: Server) -> None:
    """As asked where the server makes them, else the nearest; `auto` and nothing are the server's own."""
    assert sizes(own.generate(size="256x512")) == [(256, 512)]
    ((width, height),) = sizes(own.generate(size="1000x700"))
    assert abs(width - 1000) <= 8
    assert abs(height - 700) <= 8
    assert width % 8 == height % 8 == 0
    assert sizes(own.generate(size="auto")) == sizes(own.generate()) == [server.default]
    ((width, height),) = sizes(own.generate(size="16:9"))
    assert abs(width / height - 16 / 9) < 0.05
    assert own.server.state.dropped == []


@every_server
def test_several_pictures_differ(own: Setting, server: Server) -> None:
    """Whether in one request or in several, with a seed of the client's and without."""
    for more in ({}, {"seed": 5}):
        before = len(own.tap.posts)
        made = contents(own.generate(n=3, size="64x64", extra_body=more))
        assert len(set(made)) == len(made) == 3
        assert len(own.tap.posts) - before == -(-3 // server.most)
    again = contents(own.generate(n=3, size="64x64", extra_body={"seed": 5}))
    assert again == made
    assert contents(own.generate(size="64x64")) != contents(own.generate(size="64x64"))


@every_server
def test_formats(own: Setting, server: Server) -> None:
    """Those that the server makes; others become PNG, which is disclosed."""
    for wanted in ("png", "jpeg", "webp"):
        (made,) = contents(own.generate(size="64x64", output_format=wanted))
        expected = wanted if wanted in server.formats else "png"
        assert form_of(made) == expected.upper()
        changes = own.changes(size="64x64", output_format=wanted)
        assert ("output_format;from=" in changes) == (wanted not in server.formats)
    assert own.server.state.dropped == []


@every_server
def test_edits(own: Setting, server: Server) -> None:
    """As many references as the server takes, in their order; one more is refused before anything is sent."""
    first, *others = [picture(seed, 64) for seed in range(server.references)]
    assert sizes(own.edit(first)) == [server.edits_in]
    assert sizes(own.edit(first, *others, size="128x128", response_format="url")) == [(128, 128)]
    assert [form_of(content) for content in streamed(own.edit(first, stream=True))] == ["PNG"]
    assert own.server.state.dropped == []
    assert received(own) == [first, *others][: server.references]
    sent = len(own.tap.posts)
    if server.references == 1:
        error = problem(lambda: own.edit(first, first))
        assert (error["status"], error["param"]) == (400, "image[]")
        assert len(own.tap.posts) == sent


def received(own: Setting) -> list[bytes]:
    """The references of the last edit but the streamed one, as the server read them."""
    post = own.tap.posts[-2]
    if post.files:
        return [part.content for part in post.files if part.name in ("image", "image[]")]
    document = post.json
    if "ref_images" in document:
        return [base64.b64decode(text) for text in document["ref_images"]]
    if "image" in document:
        return [base64.b64decode(document["image"].partition(",")[2])]
    return [base64.b64decode(text) for text in document["init_images"]]


@masked
def test_a_mask_means_the_same(own: Setting, server: Server) -> None:
    """OpenAI's clients make transparent what is to be painted: the upper half here."""
    assert sizes(own.edit(picture(1, 64), mask=("m.png", mask_for(64), "image/png")))
    (painted,) = own.server.state.repainted
    assert [painted.at(0.5, y) for y in (0.0, 0.4, 0.6, 1.0)] == [True, True, False, False]
    assert painted.size == (64, 64)
    assert own.server.state.dropped == []


@pytest.mark.parametrize("name", ["sglang", "ollama"])
def test_no_mask_is_taken_where_it_would_not_be_used(running: Start, name: str) -> None:
    """Without a word the whole picture would be made anew."""
    own = running(SERVERS[name])
    error = problem(lambda: own.edit(picture(1, 64), mask=("m.png", mask_for(64), "image/png")))
    assert (error["status"], error["param"]) == (400, "mask")
    assert own.tap.posts == []


@every_server
def test_members_that_are_dropped_are_disclosed(own: Setting, server: Server) -> None:
    """They do not reach the server, which would leave them unread without a word."""
    changes = own.changes(quality="high", style="vivid", user="me", moderation="low", size="64x64")
    for name in ("quality", "style", "user", "moderation"):
        assert f"{name};dropped" in changes
    assert own.server.state.dropped == []


@every_server
def test_explain_shows_what_would_be_sent(own: Setting, server: Server) -> None:
    """And sends nothing."""
    shown = own.explained(size="128x64", n=1)
    assert shown["method"] == "POST"
    assert "a cat" in str(shown["body"])
    assert re.search("128.*64", str(shown["body"]))
    assert own.tap.posts == []


FAILURES = {
    "vllm-omni": vllm_omni.FAILURE_WORD,
    "sd.cpp": stable_diffusion_cpp.FAILURE_WORD,
    "sd.cpp-jobs": stable_diffusion_cpp.FAILURE_WORD,
    "localai": localai.FAILURE_WORD,
    "ollama": ollama.FAILURE_WORD,
    "a1111": a1111.FAILURE_WORD,
}


@pytest.mark.parametrize(("name", "word"), FAILURES.items(), ids=FAILURES)
def test_a_failure_has_the_servers_own_words(running: Start, name: str, word: str) -> None:
    """In OpenAI's envelope."""
    said = {
        "vllm-omni": "EngineCore failed.",
        "sd.cpp": "generate_image returned no results",
        "sd.cpp-jobs": "generate_image returned no results",
        "localai": "failed to generate image",
        "ollama": "image runner has unexpectedly stopped",
        "a1111": "OutOfMemoryError: CUDA out of memory",
    }
    own = running(SERVERS[name])
    error = problem(lambda: own.generate(prompt=word, size="64x64"))
    assert said[name] in error["message"]
    assert error["status"] >= 500


def test_a_page_in_place_of_an_error_leaves_open_what_was_made(running: Start) -> None:
    """SGLang answers a crash with two words."""
    own = running(SERVERS["sglang"])
    error = problem(lambda: own.generate(prompt=sglang.FAILURE_WORD, size="64x64"))
    assert (error["status"], error["type"]) == (502, "upstream_error")
    assert len(own.tap.posts) == 1


UNKNOWN = {"vllm-omni": 400, "localai": 500, "ollama": 404, "a1111": 404}


@pytest.mark.parametrize(("name", "status"), UNKNOWN.items(), ids=UNKNOWN)
def test_an_unknown_model_is_an_error(running: Start, name: str, status: int) -> None:
    """A1111 would draw with another one, and says so only in a text inside its reply."""
    own = running(SERVERS[name]._replace(model="nothing"))
    error = problem(lambda: own.generate(size="64x64"))
    assert error["status"] == status
    assert "nothing" in error["message"]


@pytest.mark.parametrize("name", ["vllm-omni", "sglang", "localai", "a1111"])
def test_keys(tmp_path: Path, name: str) -> None:
    """The upstream's own, in the server's scheme; the client's never; a wrong one is the gateway's problem."""
    server = SERVERS[name]
    create = {"vllm-omni": vllm_omni, "sglang": sglang, "localai": localai, "a1111": a1111}[name].create_app
    own_key = a1111.USER if name == "a1111" else KEY
    for key, is_right in ((own_key, True), ("sk-demo" if name == "a1111" else "wrong-key-of-ours", False), ("", False)):
        more = f'api_key = "{key}"\n{server.more}' if key else server.more
        with setting(tmp_path, create(has_key=True), server.adapter, model=server.model, more=more) as own:
            if is_right:
                assert sizes(own.generate(size="64x64")) == [(64, 64)]
            else:
                error = problem(lambda own=own: own.generate(size="64x64"))
                assert error["status"] in (401, 502, 500)
                assert key == "" or key not in str(error)
            assert "sk-clients" not in str([post.headers for post in own.tap.posts])


# What only one of them has


def test_vllm_omni_writes_lora_as_text_into_forms(running: Start) -> None:
    """An object in JSON, JSON in a form."""
    lora = {"name": "ink", "scale": 0.5}
    own = running(SERVERS["vllm-omni"])
    own.generate(size="64x64", extra_body={"lora": lora, "steps": 12})
    assert (own.sent["lora"], own.sent["num_inference_steps"]) == (lora, 12)
    body = {"model": own.model, "prompt": "a cat", "lora": lora}
    data = f"data:image/png;base64,{base64.b64encode(picture(1, 64)).decode()}"
    own.raw.post("/images/edits", json={**body, "images": [{"image_url": data}]}).raise_for_status()
    assert as_json(form_fields(own.tap.posts[-1])["lora"]) == lora
    assert own.server.state.dropped == []


def test_vllm_omni_says_how_many_images_its_model_takes(tmp_path: Path) -> None:
    """Only the server knows."""
    with setting(tmp_path, vllm_omni.create_app(), "vllm-omni", model=vllm_omni.SERVED) as own:
        error = problem(lambda: own.edit(picture(1, 64), picture(2, 64)))
        assert (error["status"], "Only a single image" in error["message"]) == (400, True)


def test_sglang_hides_paths_and_sends_what_clients_expect(tmp_path: Path) -> None:
    """Its own defaults would be links that it does not have, JPEG, and the same seed for everybody."""
    with setting(tmp_path, sglang.create_app(keeps_files=True), "sglang") as own:
        reply = own.raw.post("/images/generations", json={"model": own.model, "prompt": "a cat", "size": "64x64"})
        assert "/srv/" not in reply.text
        assert (own.sent["response_format"], own.sent["output_format"]) == ("b64_json", "png")
        changes = reply.headers["imagegate-changes"]
        for name in ("response_format", "output_format", "seed"):
            assert f"{name};added" in changes
        seeds = {own.sent["seed"]}
        for _ in range(4):
            own.generate(size="64x64")
            seeds.add(own.sent["seed"])
        assert len(seeds) == 5


def test_sglang_makes_more_than_ten_in_several_requests(tmp_path: Path) -> None:
    """One of twelve would be cut to ten without a word."""
    with setting(tmp_path, sglang.create_app(), "sglang", rest="[limits]\nimages = 12") as own:
        made = contents(own.generate(n=12, size="64x64", extra_body={"seed": 3}))
        assert len(set(made)) == 12
        assert sorted((post.json["n"], post.json["seed"]) for post in own.tap.posts) == [(2, 13), (10, 3)]
        assert own.server.state.dropped == []


@pytest.mark.parametrize("name", ["sd.cpp", "sd.cpp-jobs"])
@pytest.mark.parametrize("member", ["prompt", "negative_prompt"])
def test_sd_cpp_obeys_no_client(running: Start, name: str, member: str) -> None:
    """Arguments in a text would change the whole request; the adapter's own are the only ones."""
    command = 'a cat<sd_cpp_extra_args>{"width": 4096, "batch_count": 64}</sd_cpp_extra_args>'
    own = running(SERVERS[name])
    error = problem(lambda: own.generate(prompt="a cat", extra_body={member: command}))
    assert (error["status"], error["param"]) == (400, member)
    assert own.tap.posts == []


def test_sd_cpp_gets_what_openais_members_cannot_say(running: Start) -> None:
    """In its prompt, or in the members of its own schema."""
    body = {"negative_prompt": 'blur "x"', "steps": 12, "guidance_scale": 3.5, "seed": 9}
    expected = {
        "seed": 9,
        "negative_prompt": 'blur "x"',
        "sample_params": {"sample_steps": 12, "guidance": {"txt_cfg": 3.5}},
    }
    own = running(SERVERS["sd.cpp"])
    own.generate(size="64x64", extra_body=body)
    found = re.fullmatch(r"a cat<sd_cpp_extra_args>(.*)</sd_cpp_extra_args>", own.sent["prompt"])
    assert found
    assert as_json(found[1]) == expected
    own = running(SERVERS["sd.cpp-jobs"])
    own.generate(size="64x64", extra_body=body)
    assert {name: own.sent[name] for name in expected} == expected
    assert (own.sent["width"], own.sent["height"], own.sent["batch_count"]) == (64, 64, 1)


@pytest.mark.usefixtures("providers_ids")
def test_sd_cpp_jobs_are_tasks(tmp_path: Path) -> None:
    """They are polled, a full queue is said to be full, and one that waits can be cancelled."""
    app = stable_diffusion_cpp.create_app(job_seconds=1000)
    with setting(tmp_path, app, "stable-diffusion-cpp", more=JOBS) as own:
        body = {"model": own.model, "prompt": "a cat", "async": True, "size": "64x64"}
        first, second, third = (own.raw.post("/images/generations", json=body) for _ in range(3))
        assert [reply.status_code for reply in (first, second, third)] == [202, 202, 429]
        assert third.json()["error"]["message"] == "job queue is full"
        tasks = [reply.json()["task_id"] for reply in (first, second)]
        assert own.raw.get(f"/tasks/{tasks[0]}").json()["status"] in ("pending", "processing")
        cancelled = own.raw.delete(f"/tasks/{tasks[1]}")
        assert cancelled.json()["status"] == "failed", cancelled.text
        assert cancelled.json()["error"]["code"] == "task_cancelled"
        assert own.tap.posts[-1].path.endswith("/cancel")


def test_sd_cpp_takes_no_webp_that_it_would_leave_out(running: Start) -> None:
    """Not every build reads it, and what cannot be read is skipped."""
    own = running(SERVERS["sd.cpp"])
    image = ("a.webp", picture(1, 64, mode="RGB", form="WEBP"), "image/webp")
    error = problem(lambda: own.client.images.edit(model=own.model, prompt="a cat", image=image))
    assert (error["status"], error["param"]) == (400, "image")
    assert own.tap.posts == []


def test_localai_splits_no_prompt(running: Start) -> None:
    """A bar would begin what must not be in the picture; only `negative_prompt` does."""
    own = running(SERVERS["localai"])
    changes = own.changes(prompt="a cat | a dog", size="64x64")
    assert 'prompt;from="|";to="/"' in changes
    own.generate(size="64x64", extra_body={"negative_prompt": "a dog|a cow"})
    assert own.server.state.prompts == [("a cat / a dog", ""), ("a cat", "a dog/a cow")]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"size": "256x256"}, "size"),
        ({"extra_body": {"seed": 4}}, "seed"),
        ({"extra_body": {"negative_prompt": "a dog"}}, "negative_prompt"),
    ],
)
def test_localai_refuses_what_masks_exclude(running: Start, more: dict[str, Any], param: str) -> None:
    """Its path for masks reads model, prompt, steps, one image and one mask."""
    own = running(SERVERS["localai"])
    part = ("m.png", mask_for(64), "image/png")
    error = problem(lambda: own.edit(picture(1, 64), mask=part, **more))
    assert (error["status"], error["param"]) == (400, param)
    error = problem(lambda: own.edit(picture(1, 64), picture(2, 64), mask=part))
    assert (error["status"], error["param"]) == (400, "image")
    assert own.tap.posts == []
    own.edit(picture(1, 64), mask=part, size="512x512", n=2, extra_body={"steps": 9})
    assert form_fields(own.tap.posts[-1]) == {"model": "flux.1-dev", "prompt": "a cat", "steps": "9"}
    assert len(own.tap.posts) == 2


def test_localai_may_take_images_as_the_start(tmp_path: Path) -> None:
    """By an option."""
    more = '[upstreams.options]\nreferences = "files"'
    with setting(tmp_path, localai.create_app(), "localai", model="flux.1-dev", more=more) as own:
        own.edit(picture(1, 64))
        assert [base64.b64decode(text) for text in own.sent["files"]] == [picture(1, 64)]
        assert own.server.state.references == [[picture(1, 64)]]


def test_a1111_loads_the_checkpoint_that_was_asked_for(tmp_path: Path, running: Start) -> None:
    """`default` is the loaded one; others stay loaded afterwards."""
    with setting(tmp_path, a1111.create_app(), "a1111", model="default") as own:
        own.generate(size="64x64")
        assert own.sent["override_settings"] == {"return_grid": False}
    own = running(SERVERS["a1111"])
    own.generate(size="64x64", n=2, extra_body={"steps": 9, "guidance_scale": 5, "sampler_name": "DDIM"})
    assert own.sent == {
        "prompt": "a cat",
        "steps": 9,
        "cfg_scale": 5,
        "sampler_name": "DDIM",
        "batch_size": 1,
        "n_iter": 2,
        "width": 64,
        "height": 64,
        "override_settings": {"return_grid": False, "sd_model_checkpoint": a1111.CHECKPOINTS[1]},
        "override_settings_restore_afterwards": False,
    }
    assert own.tap.posts[-1].path == "/sdapi/v1/txt2img"


def test_a1111_says_which_value_it_did_not_take(running: Start) -> None:
    """Its exceptions have their text in another place than its validation."""
    own = running(SERVERS["a1111"])
    error = problem(lambda: own.generate(size="64x64", extra_body={"sampler_name": "none"}))
    assert (error["status"], "Sampler not found" in error["message"]) == (404, True)
