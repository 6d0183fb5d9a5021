"""OpenRouter, Seedream, DashScope, SiliconFlow, ModelScope and Z.ai: through the whole gateway and the official SDK."""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.applications import Starlette
from tests.simulators import dashscope, modelscope, openrouter, seedream, siliconflow, strict_json, zai
from tests.wire.edit_support import mask_for, picture
from tests.wire.self_hosted_support import Setting, contents, form_of, problem, setting, sizes, streamed

from imagegate import ImageGateway
from imagegate.config.loader import parse_config
from imagegate.demo.servers import serving
from imagegate.testing import Answer, FakeUpstream, Lost


@dataclass(frozen=True)
class Provider:
    """A hosted provider, as its simulator has it."""

    create_app: Callable[[], Starlette]
    adapter: str
    model: str
    editor: str = ""
    """Empty: it edits nothing."""
    path: str = ""
    most: int = 1
    """References of one edit."""
    options: str = ""
    has_tasks: bool = False
    size: tuple[int, int] = (64, 64)
    """Of a picture that was asked for as 1536x1024."""


PROVIDERS = {
    "openrouter": Provider(
        openrouter.create_app, "openrouter", "google/gemini-3-pro-image", "google/gemini-3-pro-image", "/api/v1", 3
    ),
    "openrouter-chat": Provider(
        openrouter.create_app,
        "openrouter",
        "google/gemini-3-pro-image",
        "google/gemini-3-pro-image",
        "/api/v1",
        3,
        'options = { api = "chat" }',
    ),
    "seedream": Provider(seedream.create_app, "seedream", "seedream-4-5-251128", "seedream-4-5-251128", "/api/v3", 3),
    "dashscope": Provider(
        dashscope.create_app, "dashscope", "qwen-image-2.0", "qwen-image-edit-plus", "/api/v1", 3, size=(1536, 1024)
    ),
    "dashscope-wan": Provider(
        dashscope.create_app,
        "dashscope",
        "wan2.7-image",
        "wan2.7-image",
        "/api/v1",
        3,
        has_tasks=True,
        size=(1536, 1024),
    ),
    "dashscope-t2i": Provider(
        dashscope.create_app, "dashscope", "wan2.2-t2i-plus", path="/api/v1", has_tasks=True, size=(1440, 960)
    ),
    "siliconflow": Provider(
        siliconflow.create_app,
        "siliconflow",
        "Qwen/Qwen-Image",
        "Qwen/Qwen-Image-Edit-2509",
        most=3,
        size=(1584, 1056),
    ),
    "modelscope": Provider(
        modelscope.create_app,
        "modelscope",
        "Qwen/Qwen-Image",
        "Qwen/Qwen-Image-Edit",
        has_tasks=True,
        size=(1536, 1024),
    ),
    "zai": Provider(zai.create_app, "zai", "glm-image", path="/api/paas/v4", has_tasks=True, size=(1536, 1024)),
    "zai-cogview": Provider(zai.create_app, "zai", "cogview-4-250304", path="/api/paas/v4", size=(1536, 1024)),
}
KEY = 'api_key = "sk-demo-key"'


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Generator[Callable[[str], Setting]]:
    found: dict[str, Setting] = {}
    with ExitStack() as stack:

        def start(name: str) -> Setting:
            if name not in found:
                own = PROVIDERS[name]
                more = f"{KEY}\n{own.options}"
                folder = tmp_path_factory.mktemp(name)
                found[name] = stack.enter_context(
                    setting(folder, own.create_app(), own.adapter, model=own.model, more=more, path=own.path)
                )
            found[name].forget()
            found[name].server.state.received.clear()
            return found[name]

        yield start


@pytest.fixture(params=PROVIDERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def own(started: Callable[[str], Setting], name: str) -> Setting:
    return started(name)


def test_both_forms(own: Setting, name: str) -> None:
    """A picture of the nearest size, by link and as base64, each for one POST."""
    for form in ("url", "b64_json"):
        images = own.generate(size="1536x1024", response_format=form)
        assert sizes(images) == [PROVIDERS[name].size]
        assert {image.b64_json is None for image in images.data} == {form == "url"}
    assert len(own.tap.posts) == 2


def test_a_stream(own: Setting) -> None:
    """Its completed event has the picture."""
    (content,) = streamed(own.generate(stream=True, response_format="b64_json"))
    assert form_of(content) in ("PNG", "JPEG")
    assert len(own.tap.posts) == 1


def test_two_pictures(own: Setting, name: str) -> None:
    """In one request where the model makes so many, else in two."""
    images = own.generate(n=2, response_format="b64_json")
    assert len(contents(images)) == 2
    assert len(own.tap.posts) == (1 if name in ("dashscope-wan", "dashscope-t2i") else 2)


EDITORS = [name for name, own in PROVIDERS.items() if own.editor]


@pytest.mark.parametrize("name", EDITORS)
def test_an_edit_with_references(own: Setting, name: str) -> None:
    """Files arrive whole and in order; ModelScope gets a link to the file."""
    provider = PROVIDERS[name]
    files = [picture(shade, 64) for shade in range(provider.most)]
    named = [(f"{place}.png", file, "image/png") for place, file in enumerate(files)]
    images = own.client.images.edit(
        model=f"own/{provider.editor}", prompt="a cat", image=named, response_format="b64_json"
    )
    assert len(contents(images)) == 1
    sources = own.server.state.sources
    if name == "modelscope":
        sources = [httpx.get(source.decode()).content for source in sources]
    assert sources == files


@pytest.mark.parametrize("name", EDITORS)
def test_links_stay_links(own: Setting, name: str) -> None:
    """A link of a client is handed on, and not fetched."""
    body = {
        "model": f"own/{PROVIDERS[name].editor}",
        "prompt": "a cat",
        "images": [{"image_url": "https://a.example/1.png"}],
    }
    assert own.raw.post("/images/edits", json=body).status_code == 200
    assert own.server.state.sources == [b"https://a.example/1.png"]


@pytest.mark.parametrize("name", EDITORS)
def test_masks_are_refused(own: Setting, name: str) -> None:
    """None of them takes one, and without it the whole picture would be made anew."""
    image = ("a.png", picture(1, 64), "image/png")
    error = problem(
        lambda: own.client.images.edit(
            model=f"own/{PROVIDERS[name].editor}", prompt="a cat", image=image, mask=mask_for(64)
        )
    )
    assert (error["status"], error["param"]) == (400, "mask")
    assert own.tap.posts == []


@pytest.mark.parametrize("name", [name for name, own in PROVIDERS.items() if not own.editor])
def test_edits_are_refused_where_there_are_none(own: Setting) -> None:
    """By the model's name."""
    error = problem(lambda: own.edit(picture(1, 64)))
    assert (error["status"], error["param"], error["code"]) == (400, "model", "unsupported_operation")
    assert own.tap.posts == []


def test_blocked_content(own: Setting) -> None:
    """At once or at the end of a task, it is a moderation error, and nothing is sent again."""
    error = problem(lambda: own.generate(prompt=f"a {strict_json.BLOCKED_WORD} cat"))
    assert error["code"] == "moderation_blocked"
    assert 400 <= error["status"] < 500
    assert len(own.tap.posts) == 1


def test_a_failure_after_the_request_was_taken(own: Setting) -> None:
    """The client gets the provider's error, and the paid request is not repeated."""
    error = problem(lambda: own.generate(prompt=f"an {strict_json.FAILING_WORD} cat"))
    assert error["status"] >= 500
    assert len(own.tap.posts) == 1


def test_too_many_requests(own: Setting) -> None:
    """A 429 is one."""
    error = problem(lambda: own.generate(prompt=f"a {strict_json.LIMITED_WORD} place"))
    assert error["status"] == 429
    assert len(own.tap.posts) == 1


@pytest.mark.parametrize(
    "name", [name for name, own in PROVIDERS.items() if own.adapter != "dashscope"] + ["dashscope"]
)
def test_a_failure_in_a_200(own: Setting) -> None:
    """It is an error all the same."""
    error = problem(lambda: own.generate(prompt=f"a {strict_json.HIDDEN_WORD} cat"))
    assert error["status"] >= 400
    assert len(own.tap.posts) == 1


TASKS = [name for name, own in PROVIDERS.items() if own.has_tasks]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("word", [strict_json.ODD_WORD, strict_json.SHAKY_WORD])
def test_tasks_that_are_odd_or_cannot_be_asked_for(own: Setting, word: str) -> None:
    """An unknown state is work that goes on, and a question that fails is asked again: one paid request in any case."""
    assert len(contents(own.generate(prompt=f"a {word} cat"))) == 1
    assert len(own.tap.posts) == 1


@pytest.mark.parametrize("name", TASKS)
def test_a_task_that_the_provider_forgets(own: Setting) -> None:
    """It may have been made and billed: uncertain, and not sent again."""
    error = problem(lambda: own.generate(prompt=f"a {strict_json.FORGOTTEN_WORD} cat"))
    assert (error["status"], error["code"]) == (502, "task_lost")
    assert len(own.tap.posts) == 1


def test_keys_stay_with_the_api(own: Setting) -> None:
    """Paid requests and questions carry the key; what is fetched from where pictures are does not."""
    own.generate(response_format="b64_json")
    received = own.server.state.received
    with_key = {each.path for each in received if "authorization" in each.headers}
    assert with_key
    assert not any(path.startswith("/files/") for path in with_key)
    assert "sk-clients" not in str([each.headers for each in received])


@pytest.mark.parametrize("key", ["", 'api_key = "sk-wrong"'])
def test_wrong_and_missing_keys(tmp_path: Path, name: str, key: str) -> None:
    """The provider's 401 is the client's; without a key of the upstream's, the client's own was sent."""
    provider = PROVIDERS[name]
    more = f"{key}\n{provider.options}"
    with setting(
        tmp_path, provider.create_app(), provider.adapter, model=provider.model, more=more, path=provider.path
    ) as own:
        error = problem(own.generate)
        assert error["status"] == 401
        (post,) = own.tap.posts
        assert post.headers["authorization"] == ("Bearer sk-wrong" if key else "Bearer sk-clients")


def test_explaining_sends_nothing(own: Setting, name: str) -> None:
    """What would be sent is shown, without the key."""
    shown = own.explained(size="1536x1024")
    assert PROVIDERS[name].path in shown["url"]
    assert "sk-demo" not in str(shown)
    assert own.tap.posts == []


# What is particular


def test_seedream_watermarks_are_always_decided(started: Callable[[str], Setting]) -> None:
    """Ark draws one where a request does not say."""
    own = started("seedream")
    own.server.state.watermarks.clear()
    own.generate()
    own.generate(extra_body={"watermark": True})
    assert own.server.state.watermarks == [False, True]


GROUP = {"sequential_image_generation": "auto", "sequential_image_generation_options": {"max_images": 3}}


@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_seedream_groups(started: Callable[[str], Setting], form: str) -> None:
    """All pictures of a group are delivered, whole or streamed, and that they are more than `n` is disclosed."""
    own = started("seedream")
    answer = own.client.images.with_raw_response.generate(
        model=own.model, prompt="a cat", extra_body=GROUP, response_format=form
    )
    assert len(contents(answer.parse())) == 3
    assert "n;from=1;to=3" in answer.headers["imagegate-changes"]
    events = list(own.generate(stream=True, extra_body=GROUP, response_format=form))
    assert [event.type for event in events] == ["image_generation.completed"] * 3
    assert own.sent["stream"] is True
    for event in events:
        content = base64.b64decode(event.b64_json) if form == "b64_json" else httpx.get(event.url).content
        assert form_of(content) == "JPEG"


def test_seedream_groups_of_which_one_fails(started: Callable[[str], Setting]) -> None:
    """The error says how many were made, and lists them; a stream has delivered them before."""
    own = started("seedream")
    prompt = f"a {seedream.SPLIT_WORD} cat"
    error = problem(lambda: own.generate(prompt=prompt, extra_body=GROUP))
    assert error["message"].startswith("2 of 3 images were made, then: ")
    assert error["code"] == "moderation_blocked"
    made: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        made += own.generate(prompt=prompt, extra_body=GROUP, stream=True, response_format="b64_json")
    assert caught.value.message.startswith("2 of 3 images were made, then: ")
    assert len(own.tap.posts) == 2


def test_seedream_is_not_streamed_by_its_largest_model(started: Callable[[str], Setting]) -> None:
    """The gateway makes the stream, and groups are dropped, which is disclosed."""
    own = started("seedream")
    body = {"model": "own/seedream-5-0-pro-260601", "prompt": "a cat", "size": "1024x1024", **GROUP}
    reply = own.raw.post("/images/generations", json={**body, "stream": True})
    assert reply.status_code == 200, reply.text
    assert "sequential_image_generation;dropped" in reply.headers["imagegate-changes"]
    assert "event: image_generation.completed" in reply.text
    assert "stream" not in own.sent


def test_seedream_blocks_outputs_by_another_word(started: Callable[[str], Setting]) -> None:
    """What its review calls a risk is content too."""
    error = problem(lambda: started("seedream").generate(prompt="a risky cat"))
    assert (error["status"], error["code"]) == (400, "moderation_blocked")


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"size": "2K"}, "2K"),
        ({"size": "2048x2048"}, "2048x2048"),
        ({"extra_body": {"aspect_ratio": "16:9", "resolution": "4K"}}, "5504x3040"),
        ({"size": "1024x1024"}, "1920x1920"),
    ],
)
def test_seedream_sizes(started: Callable[[str], Setting], asked: dict[str, Any], sent: str) -> None:
    """A tier, pixels, or the documented size of a ratio."""
    own = started("seedream")
    own.generate(**asked)
    assert own.sent["size"] == sent


def test_dashscope_says_n_and_writes_sizes_with_a_star(started: Callable[[str], Setting]) -> None:
    """Wan makes four pictures, and bills them, where `n` is not said."""
    own = started("dashscope-wan")
    own.generate(size="1024x1024")
    assert own.sent["parameters"] == {"size": "1024*1024", "n": 1}
    assert own.tap.posts[-1].headers["x-dashscope-async"] == "enable"
    own.generate(size="2K")
    assert own.sent["parameters"] == {"size": "2K", "n": 1}


def test_dashscope_pictures_of_which_one_fails(started: Callable[[str], Setting]) -> None:
    """A task that succeeded may lack one: the error says why, and lists the others."""
    own = started("dashscope-t2i")
    error = problem(lambda: own.generate(prompt=f"a {dashscope.SPLIT_WORD} cat", n=2))
    assert error["message"].startswith("1 of 2 images were made, then: ")
    assert error["code"] == "moderation_blocked"
    assert len(own.tap.posts) == 1


@pytest.mark.parametrize(("word", "status"), [("unfit", 400), ("penniless", 402), ("hurried", 429)])
def test_dashscope_tasks_fail_with_the_status_of_their_code(
    started: Callable[[str], Setting], word: str, status: int
) -> None:
    """As the same code in place of a task does; a limit ends the task too, which is not asked for again."""
    own = started("dashscope-wan")
    error = problem(lambda: own.generate(prompt=f"an {word} cat"))
    assert (error["status"], error["code"]) == (status, dashscope.FAILURES[word])
    assert len(own.tap.posts) == 1


def test_dashscope_models_that_only_edit(started: Callable[[str], Setting]) -> None:
    """A generation is refused before it is sent, and the first editor takes no size."""
    own = started("dashscope")
    model = "own/qwen-image-edit"
    error = problem(lambda: own.client.images.generate(model=model, prompt="a cat"))
    assert (error["status"], error["code"]) == (400, "unsupported_operation")
    assert own.tap.posts == []
    own.client.images.edit(model=model, prompt="a cat", image=("a.png", picture(1, 64), "image/png"), size="1024x1024")
    assert own.sent["parameters"] == {"n": 1}


def test_dashscope_errors_in_a_200_have_the_status_of_their_code(started: Callable[[str], Setting]) -> None:
    """Throttling is a 429, wherever it is said."""
    error = problem(lambda: started("dashscope").generate(prompt=f"a {strict_json.HIDDEN_WORD} cat"))
    assert (error["status"], error["code"]) == (429, "Throttling.RateQuota")


def test_openrouter_tells_a_blocked_prompt_from_a_forbidden_model(started: Callable[[str], Setting]) -> None:
    """Both are 403; the metadata say which."""
    own = started("openrouter")
    assert problem(lambda: own.generate(prompt="a forbidden cat"))["code"] == "moderation_blocked"
    assert problem(lambda: own.generate(prompt="a suspended cat"))["code"] != "moderation_blocked"


@pytest.mark.parametrize("name", ["openrouter", "openrouter-chat"])
def test_openrouter_usage_and_words(own: Setting) -> None:
    """Tokens have OpenAI's names; words in place of a picture are uncertain, and not to be retried."""
    images = own.generate(response_format="b64_json")
    assert (images.usage.input_tokens, images.usage.output_tokens, images.usage.total_tokens) == (10, 1120, 1130)
    with pytest.raises(openai.APIStatusError) as caught:
        own.generate(prompt=f"a {openrouter.WORDY_WORD} cat")
    assert (caught.value.status_code, caught.value.code) == (502, "no_image")
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_openrouter_streams_where_its_provider_does(started: Callable[[str], Setting]) -> None:
    """Previews come as OpenAI's; other models answer at once, which becomes a stream."""
    own = started("openrouter")
    events = list(own.client.images.generate(model="own/openai/gpt-image-2", prompt="a cat", stream=True))
    assert [event.type for event in events] == ["image_generation.partial_image", "image_generation.completed"]
    assert own.sent["stream"] is True


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("openrouter", {"size": "1792x1024", "quality": "high"}),
        (
            "openrouter-chat",
            {"modalities": ["image", "text"], "image_config": {"aspect_ratio": "16:9", "image_size": "1K"}},
        ),
    ],
)
def test_openrouter_sizes_and_members(own: Setting, sent: dict[str, Any]) -> None:
    """What chat completions have no member for is dropped, which is disclosed."""
    changes = own.changes(size="1792x1024", quality="high")
    assert ("quality;dropped" in changes) == ("quality" not in sent)
    assert {name: own.sent.get(name) for name in sent} == sent


def test_siliconflow_sizes_are_always_sent(started: Callable[[str], Setting]) -> None:
    """They are required there, and refused by the models that edit."""
    own = started("siliconflow")
    changes = own.changes(size="auto")
    assert own.sent["image_size"] == "1328x1328"
    assert "size" in changes
    own.client.images.generate(model="own/Kwai-Kolors/Kolors", prompt="a cat", n=4)
    assert (own.sent["image_size"], own.sent["batch_size"]) == ("1024x1024", 4)
    image = ("a.png", picture(1, 64), "image/png")
    own.client.images.edit(model="own/Qwen/Qwen-Image-Edit", prompt="a cat", image=image, size="1024x1024")
    assert "image_size" not in own.sent


def test_modelscope_headers(started: Callable[[str], Setting]) -> None:
    """One asks for a task, the other one is needed to ask about it."""
    own = started("modelscope")
    own.generate()
    assert own.tap.posts[-1].headers["x-modelscope-async-mode"] == "true"
    questions = [each for each in own.server.state.received if each.method == "GET" and "tasks" in each.path]
    assert {each.headers["x-modelscope-task-type"] for each in questions} == {"image_generation"}


@pytest.mark.parametrize(("name", "quality", "sent"), [("zai", "low", "hd"), ("zai-cogview", "low", "standard")])
def test_zai_qualities(own: Setting, quality: str, sent: str) -> None:
    """glm-image has one."""
    own.generate(quality=quality)
    assert own.sent["quality"] == sent


@contextmanager
def in_front_of(folder: Path, upstream: FakeUpstream, provider: Provider) -> Generator[httpx.Client]:
    """A gateway that would retry, if it might."""
    source = f"""
        [[upstreams]]
        name = "own"
        adapter = "{provider.adapter}"
        base_url = "{upstream.url}{provider.path}"
        {KEY}
        {provider.options}
        [delivery]
        store = "file://{folder}"
        [tasks]
        poll_interval = "20ms"
        [policy]
        retries = 2
    """
    config = parse_config(source, environment={}, directory=folder)
    with (
        serving(ImageGateway(config=config, hooks=())) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/v1", timeout=30) as client,
    ):
        yield client


def test_a_lost_reply_is_not_sent_again(tmp_path: Path, name: str) -> None:
    """The connection breaks after the request was read: something may have been made, whatever the policy says."""
    provider = PROVIDERS[name]
    with (
        FakeUpstream(handler=lambda seen: Lost()) as upstream,
        in_front_of(tmp_path, upstream, provider) as client,
    ):
        reply = client.post("/images/generations", json={"model": f"own/{provider.model}", "prompt": "a cat"})
        assert (reply.status_code, reply.headers["x-should-retry"]) == (502, "false")
        assert len(upstream.posts) == 1


ELSEWHERE = {"poll_url": "https://elsewhere.example/tasks/1"}


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("dashscope-wan", {"output": {"task_id": "1", "task_status": "PENDING", **ELSEWHERE}}),
        ("modelscope", {"task_id": "1", **ELSEWHERE}),
        ("zai", {"id": "1", "task_status": "PROCESSING", **ELSEWHERE}),
    ],
)
def test_a_task_at_another_address_is_not_asked_for(tmp_path: Path, name: str, document: dict[str, Any]) -> None:
    """The key would go there: what was made is left open, and nothing is sent again."""
    provider = PROVIDERS[name]
    with FakeUpstream(Answer(document=document)) as upstream, in_front_of(tmp_path, upstream, provider) as client:
        reply = client.post("/images/generations", json={"model": f"own/{provider.model}", "prompt": "a cat"})
        assert (reply.status_code, reply.headers["x-should-retry"]) == (502, "false")
        assert "elsewhere" not in reply.text
        assert [seen.method for seen in upstream.seen] == ["POST"]
