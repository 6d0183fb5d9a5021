"""The official OpenAI SDK against the gateway and the five local providers, as a program would use it."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from PIL import Image
from tests.conftest import Running
from tests.wire.edit_support import posted_to

from imagegate import Config, ImageGateway
from imagegate.config.schema import DeliveryConfig, Duration, TasksConfig, UpstreamConfig
from imagegate.demo.servers import serving

MODELS = (
    "tokmodel/openai/dall-e-3",
    "tokmodel/openai/gpt-image-2",
    "tokenbay/gpt-image-2",
    "tokenlab/gpt-image-2",
    "tokenlab/gemini-3-pro-image-preview",
    "tokenlab/nano-banana",
    "tokenlab/grok-imagine-image",
    "tokenlab/flux-pro",
    "toapis/gpt-image-1.5-official",
    "toapis/gpt-image-2",
    "toapis/gemini-3-pro-image-preview",
    "toapis/seedream-4-5",
    "onetoken/gpt-image-2",
)
ODD_SIZES = {"1792x1024": 1792 / 1024, "512x512": 1.0, "1080x1920": 1080 / 1920}
TOLERANCE = 0.2
"""How far the shape of a picture may be from the one asked for; the nearest ratio of every model is nearer."""

every_model = pytest.mark.parametrize("model", MODELS)


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[openai.OpenAI]:
    """The SDK as it comes, but for its own retries."""
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def loaded(url: str) -> bytes:
    """What a link leads to, loaded as a browser would."""
    reply = httpx.get(url)
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("image/")
    return reply.content


def pictures(images: Any, form: str) -> list[Image.Image]:
    """Every image of a reply, which must all be in the one form, decoded to its last pixel."""
    found: list[Image.Image] = []
    for image in images.data:
        present = {name for name in ("url", "b64_json") if getattr(image, name) is not None}
        assert {form} == present
        content = loaded(image.url) if form == "url" else base64.b64decode(image.b64_json, validate=True)
        picture = Image.open(io.BytesIO(content))
        picture.load()
        found.append(picture)
    return found


@every_model
@pytest.mark.parametrize("form", ["url", "b64_json"])
def test_both_forms_from_every_model(client: openai.OpenAI, model: str, form: Any) -> None:
    """Whatever a provider answers with, the client gets a link that loads, or base64, as it asked."""
    (picture,) = pictures(client.images.generate(model=model, prompt="A red kite", response_format=form), form)
    assert picture.format == "PNG"


@every_model
@pytest.mark.parametrize("size", ODD_SIZES)
def test_odd_sizes_become_the_nearest_shape(client: openai.OpenAI, model: str, size: Any) -> None:
    """Sizes that few models have are made in the nearest shape that the model has."""
    (picture,) = pictures(client.images.generate(model=model, prompt="A red kite", size=size), _default_form(model))
    width, height = picture.size
    assert pytest.approx(ODD_SIZES[size], rel=TOLERANCE) == width / height


@every_model
def test_impossible_size_is_refused_by_name(client: openai.OpenAI, model: str) -> None:
    """A shape that no model comes near to is a 400 that names the size."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(model=model, prompt="A red kite", size="1000x10")  # type: ignore[call-overload]
    assert caught.value.param == "size"
    assert "1000x10" in caught.value.message


@every_model
def test_three_images(client: openai.OpenAI, model: str) -> None:
    """Three images are three, in the other form than OpenAI's for the model, also where it makes one at a time."""
    form: Any = "url" if _default_form(model) == "b64_json" else "b64_json"
    images = client.images.generate(model=model, prompt="A red kite", n=3, response_format=form)
    assert len(pictures(images, form)) == 3
    if form == "url":
        assert len({image.url for image in images.data or []}) == 3


@every_model
def test_explicit_none_means_left_out(client: openai.OpenAI, running: Running, model: str) -> None:
    """Arguments that are None, which the SDK sends as null, reach no provider."""
    nothing: dict[str, Any] = dict.fromkeys(
        ("n", "size", "quality", "response_format", "style", "background", "moderation", "output_format", "stream"),
    )
    raw = client.images.with_raw_response.generate(model=model, prompt="A red kite", **nothing)
    pictures(raw.parse(), _default_form(model))
    provider, _, upstream_model = model.partition("/")
    sent = next(request for request in reversed(running.providers[provider].state.received) if request.method == "POST")
    assert {"model": upstream_model, "prompt": "A red kite"} == sent.json
    assert raw.headers.get("imagegate-changes") is None


@every_model
def test_unknown_fields_are_left_out_and_named(client: openai.OpenAI, model: str) -> None:
    """Members that no contract knows do not fail the request, and are named in the changes."""
    extra = {"x_own": {"deep": [1, None]}, 'ümlaut, "quoted"': "1"}
    raw = client.images.with_raw_response.generate(model=model, prompt="A red kite", extra_body=extra)
    pictures(raw.parse(), _default_form(model))
    changes = raw.headers["imagegate-changes"]
    assert "x_own;dropped" in changes.split(", ")
    assert changes.count(";dropped") == 2


@every_model
def test_raw_response_headers(client: openai.OpenAI, model: str) -> None:
    """The SDK finds a request id, who answered, and nothing about changes where nothing was changed."""
    raw = client.images.with_raw_response.generate(
        model=model, prompt="A red kite", extra_headers={"x-request-id": "own-id-7"}
    )
    assert raw.headers["x-request-id"] == "own-id-7"
    assert model.partition("/")[0] == raw.headers["imagegate-upstream"]
    assert [name for name in ("imagegate-changes", "imagegate-contract") if name in raw.headers] == []
    assert raw.headers["content-type"] == "application/json"
    generated = client.images.with_raw_response.generate(model=model, prompt="A red kite")
    assert generated.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("model", "error", "code"),
    [
        ("tokmodel/openai/dall-e-3", openai.BadRequestError, "content_policy_violation"),
        ("tokmodel/openai/gpt-image-2", openai.BadRequestError, "moderation_blocked"),
        ("tokenbay/gpt-image-2", openai.BadRequestError, "moderation_blocked"),
        ("tokenlab/gpt-image-2", openai.BadRequestError, "moderation_blocked"),
        ("tokenlab/grok-imagine-image", openai.BadRequestError, "content_policy_violation"),
        ("tokenlab/flux-pro", openai.BadRequestError, "moderation_blocked"),
        ("toapis/gpt-image-2", openai.UnprocessableEntityError, "content_policy_violation"),
        ("toapis/gemini-3-pro-image-preview", openai.BadRequestError, "moderation_blocked"),
        ("toapis/seedream-4-5", openai.BadRequestError, "moderation_blocked"),
        ("onetoken/gpt-image-2", openai.BadRequestError, "moderation_blocked"),
    ],
)
def test_moderation(client: openai.OpenAI, model: str, error: type[openai.APIStatusError], code: str) -> None:
    """A refusal for content is a 400 with OpenAI's type, also where the provider hides it in a task (ToAPIs: a 422)."""
    with pytest.raises(error) as caught:
        client.images.generate(model=model, prompt="Something forbidden")
    assert (code, "image_generation_user_error") == (caught.value.code, caught.value.type)
    assert "x-should-retry" not in caught.value.response.headers


def test_failure_in_a_200(client: openai.OpenAI) -> None:
    """TokenBay's 200 that says ``failed`` is an error."""
    with pytest.raises(openai.InternalServerError) as caught:
        client.images.generate(model="tokenbay/gpt-image-2", prompt="Please fail-in-body")
    assert (caught.value.status_code, caught.value.code) == (502, "task_failed")


@pytest.mark.parametrize("model", ["no-such-model", "nobody/gpt-image-2", "gpt-image-22"])
def test_unknown_model(client: openai.OpenAI, running: Running, model: str) -> None:
    """A model that nobody serves is a 404 that names the field, and nothing is sent."""
    with posted_to(running) as posts, pytest.raises(openai.NotFoundError) as caught:
        client.images.generate(model=model, prompt="A red kite")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert model in caught.value.message
    assert posts == {}


def test_models_are_listed(client: openai.OpenAI) -> None:
    """The SDK lists the models, each of which can be asked for."""
    listed = {model.id: model.owned_by for model in client.models.list()}
    assert (listed["flux-pro"], listed["openai/dall-e-3"]) == ("tokenlab", "tokmodel")


@pytest.fixture(scope="module")
def strangers(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway whose own keys are wrong at every provider, and one upstream that takes the client's key."""
    upstreams = [
        UpstreamConfig(name=name, base_url=f"http://127.0.0.1:{port}", api_key=f"wrong-key-{name}")
        for name, port in running.ports.items()
        if name != "comfyui"  # which has options, and tests of its own
    ]
    own = UpstreamConfig(name="own", adapter="tokenlab", base_url=f"http://127.0.0.1:{running.ports['tokenlab']}/v1/")
    config = Config(
        upstreams=(*upstreams, own),
        delivery=DeliveryConfig(store=f"file://{tmp_path_factory.mktemp('strangers')}"),
        tasks=TasksConfig(poll_interval=Duration(0.05)),
    )
    with serving(ImageGateway(config=config, hooks=())) as port:
        yield f"http://127.0.0.1:{port}/v1"


@pytest.mark.parametrize(
    "model",
    [
        "tokmodel/openai/dall-e-3",
        "tokenbay/gpt-image-2",
        "tokenlab/gpt-image-2",
        "toapis/gpt-image-2",
        "onetoken/gpt-image-2",
    ],
)
def test_providers_401(strangers: str, model: str) -> None:
    """A provider's refusal of the key is the SDK's AuthenticationError, without the key in it."""
    with (
        openai.OpenAI(base_url=strangers, api_key="any", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.images.generate(model=model, prompt="A red kite")
    assert "wrong-key" not in caught.value.response.text
    assert {"message", "type", "param", "code", "imagegate"} == set(caught.value.response.json()["error"])


def test_clients_own_key_goes_upstream(strangers: str) -> None:
    """An upstream without a key of its own gets the client's; a wrong one is answered 401, as is none."""
    with openai.OpenAI(base_url=strangers, api_key="sk-demo-mine", max_retries=0) as client:
        pictures(client.images.generate(model="own/flux-pro", prompt="A red kite"), "url")
    with (
        openai.OpenAI(base_url=strangers, api_key="sk-wrong-key", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.images.generate(model="own/flux-pro", prompt="A red kite")
    assert "sk-wrong-key" not in caught.value.response.text
    reply = httpx.post(f"{strangers}/images/generations", json={"model": "own/flux-pro", "prompt": "A red kite"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "missing_api_key")


def test_keys_of_other_upstreams_stay_at_home(strangers: str, running: Running) -> None:
    """An upstream with a key gets that key and nothing of the client's headers."""
    with (
        openai.OpenAI(base_url=strangers, api_key="sk-demo-mine", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.images.generate(
            model="tokenbay/gpt-image-2",
            prompt="A red kite",
            extra_headers={"cookie": "a=b", "x-forwarded-for": "10.0.0.1", "x-secret": "s"},
        )
    sent = running.providers["tokenbay"].state.received[-1]
    assert sent.headers["authorization"] == "Bearer wrong-key-tokenbay"
    expected = {"host", "accept", "accept-encoding", "user-agent", "content-type", "content-length", "authorization"}
    assert expected == set(sent.headers)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_async_client(running: Running, anyio_backend: str) -> None:
    """The asynchronous SDK gets its pictures from a sync and from a task model at the same time."""
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0) as client:
        replies = await asyncio.gather(
            *(
                client.images.generate(model=model, prompt="A red kite", size="1024x1024", response_format="b64_json")
                for model in ("tokenbay/gpt-image-2", "tokenlab/flux-pro", "toapis/gpt-image-2")
            )
        )
    assert [picture.size for reply in replies for picture in pictures(reply, "b64_json")] == [(1024, 1024)] * 3


def _default_form(model: str) -> str:
    """What OpenAI would answer with where a request does not say."""
    return "b64_json" if model.rpartition("/")[2].startswith("gpt-image-") else "url"
