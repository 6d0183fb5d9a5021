"""A count of images under another provider's name: as many are made, reserved and disclosed, over real sockets."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.waiting import until

from imagegate import ImageGateway
from imagegate.protocol.image_count import COUNT_MEMBERS
from imagegate.server.in_thread import serving
from imagegate.testing import Answer, FakeUpstream, png

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
IMAGE = {"b64_json": b64encode(png(16, 16)).decode()}


def made(received: Any) -> Answer:
    """As many as are asked for."""
    n = int(received.json.get("n", 1)) if received.headers["content-type"] == "application/json" else 3
    return Answer(document={"created": 1, "data": [IMAGE] * n})


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeUpstream]:
    with FakeUpstream(handler=made) as started:
        yield started


class Rig:
    def __init__(self, provider: FakeUpstream, url: str) -> None:
        self.provider, self.url = provider, url

    def ask(self, path: str = GENERATIONS, **body: Any) -> tuple[httpx.Response, list[dict[str, Any]]]:
        """The response, and the members that the provider got, beside model and prompt."""
        before = len(self.provider.posts)
        reply = httpx.post(self.url + path, json={"prompt": "x", "response_format": "b64_json", **body}, timeout=30)
        sent = [each.json for each in self.provider.posts[before:]]
        return reply, [{name: each[name] for name in each if name not in ("model", "prompt")} for each in sent]


def rig_of(provider: FakeUpstream, **more: Any) -> Iterator[Rig]:
    models = {"own": {"parameters": {"prompt": {}, "batch_size": {"type": "integer"}}}, "plain": {"unknown": "pass"}}
    models["plain"]["parameters"] = {"prompt": {}}
    upstream = {"name": "u", "adapter": "openai", "base_url": provider.url, "api_key": "k", "models": models}
    prices = {"models": {"gpt-image-1.5": {"image": 0.04}}}
    with serving(ImageGateway(config={"upstreams": [upstream], "prices": prices, **more})) as port:
        yield Rig(provider, f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def rig(provider: FakeUpstream) -> Iterator[Rig]:
    yield from rig_of(provider, delivery={"store": "memory://"})


@pytest.mark.parametrize("member", sorted(COUNT_MEMBERS))
def test_it_is_n(rig: Rig, member: str) -> None:
    reply, sent = rig.ask(model="gpt-image-1.5", **{member: 3})
    assert (len(reply.json()["data"]), sent) == (3, [{"n": 3}])
    assert f'{member};renamed="n"' in reply.headers["imagegate-changes"]


def test_it_is_split(rig: Rig) -> None:
    reply, sent = rig.ask(model="dall-e-3", num_images=3)
    assert len(reply.json()["data"]) == 3
    assert [each.get("n", 1) for each in sent] == [1, 1, 1]


def test_n_wins(rig: Rig) -> None:
    """What was sent beside it is dropped from each part."""
    for model, parts in (("gpt-image-1.5", [{"n": 2}]), ("dall-e-3", [{}, {}])):
        reply, sent = rig.ask(model=model, n=2, num_images=4)
        assert (len(reply.json()["data"]), [{"n": each["n"]} if "n" in each else {} for each in sent]) == (2, parts)
        assert "num_images" not in str(sent)
        assert "num_images;dropped" in reply.headers["imagegate-changes"]


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True, [], {}])
def test_what_is_no_count_is_refused_by_its_name(rig: Rig, value: Any) -> None:
    reply, sent = rig.ask(model="gpt-image-1.5", num_images=value)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], sent) == (400, "num_images", [])
    assert "'num_images'" in error["message"]
    assert "'n'" not in error["message"]


def test_too_many_are_refused_by_their_name(rig: Rig) -> None:
    reply, sent = rig.ask(model="dall-e-3", batch_size=11)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"], sent) == (
        400,
        "batch_size",
        "integer_above_max_value",
        [],
    )


@pytest.mark.parametrize("text", ["3", "+3", " 3", "0003"])
def test_forms_have_texts(rig: Rig, text: str) -> None:
    files = {"image": ("a.png", png(64, 64), "image/png")}
    form = {"model": "gpt-image-1.5", "prompt": "x", "num_images": text}
    reply = httpx.post(rig.url + EDITS, data=form, files=files, timeout=30)
    assert (reply.status_code, len(reply.json()["data"])) == (200, 3)
    assert b'name="n"\r\n\r\n3\r\n' in rig.provider.posts[-1].body


@pytest.mark.parametrize("model", ["u/own", "u/plain"])
def test_a_members_own_meaning_stays(rig: Rig, model: str) -> None:
    """The model has a member of that name, or gets what nobody knows as it is."""
    reply, sent = rig.ask(model=model, batch_size=3)
    assert (reply.status_code, sent[0]["batch_size"], len(sent)) == (200, 3, 1)
    assert "batch_size" not in reply.headers.get("imagegate-changes", "")


def test_a_policy_that_changes_nothing(provider: FakeUpstream) -> None:
    for rig in rig_of(provider, policy={"fit": "pass"}, delivery={"store": "memory://"}):
        _, sent = rig.ask(model="gpt-image-1.5", num_images=3)
        assert [each["num_images"] for each in sent] == [3]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "gpt-image-1.5", "num_images": 3}, 429),
        ({"model": "gpt-image-1.5", "num_images": 2}, 200),
        ({"model": "u/plain", "batch_size": 3}, 429),
        ({"model": "u/plain", "n": 1, "num_outputs": "3"}, 429),
    ],
)
def test_all_of_them_are_limited(provider: FakeUpstream, body: dict[str, Any], status: int) -> None:
    """Also those that only the provider counts: a limit of two images a minute lets none of three through."""
    limits = {"limits": {"images_per_minute": 2}}
    for rig in rig_of(provider, access=limits, delivery={"store": "memory://"}):
        reply, sent = rig.ask(**body)
        assert (reply.status_code, len(sent)) == (status, int(status == 200))


def test_a_task_has_as_many(rig: Rig) -> None:
    reply, _ = rig.ask(model="gpt-image-1.5", num_images=3, **{"async": True})
    assert reply.status_code == 202
    where = rig.url + reply.headers["location"]
    until(lambda: httpx.get(where).json()["status"] == "completed")
    assert len(httpx.get(where).json()["data"]) == 3
