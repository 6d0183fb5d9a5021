"""The adapter, held to imagegate's contract, and through a whole gateway to a provider on a socket."""

from __future__ import annotations

import base64

from imagegate_studio.studio import Studio
from starlette.testclient import TestClient

from imagegate import Config, ImageGateway
from imagegate.adapter import PendingTask
from imagegate.config.schema import DeliveryConfig, Duration, TasksConfig, UpstreamConfig
from imagegate.testing import AdapterContract, Answer, FakeUpstream, Fixture, png

PICTURE = base64.b64encode(png()).decode()
JOB = PendingTask(id="7")
HUNG = {"job": "7", "state": "hung", "picture": PICTURE}


class TestStudio(AdapterContract):
    adapter = Studio()
    fixtures = (
        Fixture(name="accepted", outcome="task", document={"job": "7", "state": "waiting"}),
        Fixture(name="at work", outcome="task", document={"job": "7", "state": "painting"}, task=JOB),
        Fixture(name="done", outcome="pictures", document=HUNG, task=JOB),
        Fixture(name="spoilt", outcome="ended", document={"state": "spoilt", "why": "Spilt."}, task=JOB),
        Fixture(name="rejected", outcome="moderated", document={"state": "rejected", "why": "Rude."}, task=JOB),
        Fixture(name="wrong key", outcome="refused", status=401, document={"error": "No."}, means=401),
    )


def test_first_picture() -> None:
    """A client of the OpenAI Images API gets a picture from Studio, without a network."""
    provider = FakeUpstream(Answer(document={"job": "7", "state": "waiting"}), Answer(document=HUNG))
    config = Config(
        upstreams=(UpstreamConfig(name="studio", api_key="studio-key"),),
        delivery=DeliveryConfig(store="memory://"),
        tasks=TasksConfig(poll_interval=Duration(0.01)),
    )
    with TestClient(ImageGateway(config=config, transport=provider.transport)) as client:
        body = {"model": "oil", "prompt": "A hat", "size": "1792x1024", "response_format": "b64_json"}
        answer = client.post("/v1/images/generations", json=body)
    assert answer.json()["data"][0]["b64_json"] == PICTURE
    assert provider.posts[0].json == {"style": "oil", "words": "A hat", "shape": "16:9"}
    assert provider.posts[0].headers["x-studio-key"] == "studio-key"
